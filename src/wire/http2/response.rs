//! Responses.

use http::{Response, StatusCode, Version, header, response};

use crate::wire::http1::{HeadError, Parsed, ResponseHead, parse_response};

use super::{UNLIMITED, fields, is_connection_specific, write_field};

/// How the body of a message is to be written in HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// As it is: its length is known, or there is none.
    Plain,
    /// In chunks.
    Chunked,
}

/// Appends the head of a response that came in HTTP/2, final or interim. `ends` says that no body follows, `to_head` that
/// the request's method was HEAD.
///
/// # Errors
/// Fields that HTTP/2 does not know.
pub fn write_response(
    parts: &response::Parts,
    ends: bool,
    to_head: bool,
    out: &mut Vec<u8>,
) -> Result<Body, HeadError> {
    if parts.headers.keys().any(is_connection_specific) {
        return Err(HeadError::Syntax);
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.extend_from_slice(b" \r\n");
    for (name, value) in &parts.headers {
        write_field(name.as_str().as_bytes(), value.as_bytes(), out);
    }
    let is_bodiless = to_head
        || parts.status.is_informational()
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match parts.headers.contains_key(header::CONTENT_LENGTH) {
        _ if is_bodiless => Body::Plain,
        true => Body::Plain,
        false if ends => {
            write_field(b"content-length", b"0", out);
            Body::Plain
        }
        false => {
            write_field(b"transfer-encoding", b"chunked", out);
            Body::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    Ok(body)
}

/// The response in HTTP/2 that a head means which this gateway has written, as far as it is there.
///
/// # Errors
/// What a response in HTTP/2 cannot say.
pub fn read_response(bytes: &[u8], to_head: bool) -> Result<Option<(Response<()>, ResponseHead)>, HeadError> {
    let head = match parse_response(bytes, UNLIMITED, to_head) {
        Parsed::Complete(head) => head,
        Parsed::Incomplete => return Ok(None),
        Parsed::Rejected(error) => return Err(error),
    };
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| HeadError::Syntax)?;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = fields(&head.head, bytes).ok_or(HeadError::Syntax)?;
    Ok(Some((response, head)))
}
