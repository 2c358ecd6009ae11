//! Requests.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Uri, Version, request};

use crate::wire::http1::{HeadError, Parsed, RequestHead, parse_request};

use super::{UNLIMITED, fields, is_connection_specific, write_field};

/// Appends the head of a request that came in HTTP/2; `ends` says that no body follows. A body of unknown length is to be
/// sent in chunks.
///
/// What is wrong with the head shows when it is parsed: a Host that contradicts `:authority`, above all, becomes one that
/// contradicts the target.
///
/// # Errors
/// What cannot be written down so that one reader alone would see it.
pub fn write_request(parts: &request::Parts, ends: bool, out: &mut Vec<u8>) -> Result<(), HeadError> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let hosts = || parts.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    if parts.headers.keys().any(is_connection_specific) {
        return Err(HeadError::Syntax);
    }
    if parts.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(HeadError::Target);
    }
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    match (parts.uri.path_and_query().map(|path| path.as_str().as_bytes()), authority) {
        (_, Some(authority)) if parts.method == Method::CONNECT => out.extend_from_slice(authority),
        (Some(b"*"), _) if parts.method == Method::OPTIONS => out.push(b'*'),
        (Some(path @ [b'/', ..]), authority) => {
            // The form in which a parser compares the two.
            if let Some(authority) = authority.filter(|_| hosts().next().is_some()) {
                out.extend_from_slice(b"http://");
                out.extend_from_slice(authority);
            }
            out.extend_from_slice(path);
        }
        _ => return Err(HeadError::Target),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    match authority {
        Some(authority) if hosts().next().is_none() => write_field(b"host", authority, out),
        Some(authority) if parts.uri.path() == "*" && hosts().any(|host| !host.eq_ignore_ascii_case(authority)) => {
            return Err(HeadError::AuthorityMismatch);
        }
        Some(_) | None => hosts().for_each(|host| write_field(b"host", host, out)),
    }
    write_fields(&parts.headers, out);
    if !ends && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        write_field(b"transfer-encoding", b"chunked", out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Every field but the host, with the crumbs of Cookie put together (RFC 9113 section 8.2.3).
fn write_fields(headers: &HeaderMap, out: &mut Vec<u8>) {
    let plain = headers.iter().filter(|(name, _)| ![header::HOST, header::COOKIE].contains(name));
    plain.for_each(|(name, value)| write_field(name.as_str().as_bytes(), value.as_bytes(), out));
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !crumbs.is_empty() {
        write_field(b"cookie", &crumbs.join(b"; ".as_slice()), out);
    }
}

/// The request in HTTP/2 that a head means which [`write_request`](crate::wire::http1::write_request) has written, as far
/// as it is there. `secure` says that it leaves inside TLS, `trailers` that whoever sent it reads the trailers of its
/// answer.
///
/// # Errors
/// What a request in HTTP/2 cannot say.
pub fn read_request(
    bytes: &[u8],
    secure: bool,
    trailers: bool,
) -> Result<Option<(Request<()>, RequestHead)>, HeadError> {
    let head = match parse_request(bytes, UNLIMITED) {
        Parsed::Complete(head) => head,
        Parsed::Incomplete => return Ok(None),
        Parsed::Rejected(error) => return Err(error),
    };
    let mut headers = fields(&head.head, bytes).ok_or(HeadError::Syntax)?;
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let target = head.path.start as usize..head.query.end.max(head.path.end) as usize;
    let uri = Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(head.authority.of(bytes))
        .path_and_query(&bytes[target])
        .build();
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method.of(bytes)).map_err(|_| HeadError::Syntax)?;
    *request.uri_mut() = uri.map_err(|_| HeadError::Target)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(Some((request, head)))
}

/// Whether the sender of a head reads trailers (RFC 9110 section 10.1.4).
#[must_use]
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get(header::TE).is_some_and(|value| value == "trailers")
}
