//! The first bytes of a connection: TLS, HTTP or something else, before anything is decided.

use std::time::Duration;

use crate::failure::Failure;
use crate::limits::UNLISTED_PEEK_TIMEOUT;
use crate::net::{Received, within};
use crate::route::decide::Detection;
use crate::wire::client_hello::{self, ClientHello, Parsed};
use crate::wire::http1;
use crate::wire::http2::PREFACE;

use super::{Context, Transport};

/// What a client opened with. The bytes are what was received so far, to be replayed or parsed on.
#[derive(Debug)]
pub(super) enum Opening {
    /// A complete, legal ClientHello.
    Tls(ClientHello, Vec<u8>),
    /// Something else that may be the beginning of an HTTP/1 request.
    Http(Vec<u8>),
    /// The preface of HTTP/2.
    Http2(Vec<u8>),
    /// Neither, and why, where it should have been one of them.
    Other(Failure, Vec<u8>),
    /// The client closed without a byte.
    Nothing,
}

/// What the bytes so far are.
enum Kind {
    Tls(ClientHello),
    Http,
    Http2,
    Nothing,
}

/// Reads until it is clear what the client speaks, within `helloTimeout` from now, however slowly bytes arrive.
pub(super) async fn peek(client: &Transport, context: &Context, detection: Detection) -> Opening {
    let limits = &context.snapshot().settings.limits;
    let mut bytes = Vec::new();
    let kind = read_opening(client, context, limits.hello_bytes, detection, &mut bytes);
    let kind = within(patience(limits.hello_timeout, detection), kind).await;
    match kind.unwrap_or(Err(Failure::HelloTimeout)) {
        Ok(Kind::Tls(hello)) => Opening::Tls(hello, bytes),
        Ok(Kind::Http) => Opening::Http(bytes),
        Ok(Kind::Http2) => Opening::Http2(bytes),
        // The deadline of heads is theirs, too.
        Err(Failure::HelloTimeout) if detection == Detection::Names && may_begin_http2(&bytes) => Opening::Http(bytes),
        Ok(Kind::Nothing) => Opening::Nothing,
        Err(failure) => Opening::Other(failure, bytes),
    }
}

fn patience(hello_timeout: Duration, detection: Detection) -> Duration {
    match detection {
        Detection::Briefly => hello_timeout.min(UNLISTED_PEEK_TIMEOUT),
        Detection::Nothing | Detection::ServerName | Detection::Everything | Detection::Names => hello_timeout,
    }
}

async fn read_opening(
    client: &Transport,
    context: &Context,
    hello_bytes: usize,
    detection: Detection,
    bytes: &mut Vec<u8>,
) -> Result<Kind, Failure> {
    loop {
        {
            let mut input = context.scratch.input.borrow_mut();
            match client.receive(&mut input) {
                Ok(Received::Bytes(count)) => bytes.extend_from_slice(&input[..count]),
                Ok(Received::End) | Err(_) if bytes.is_empty() => return Ok(Kind::Nothing),
                Ok(Received::End) | Err(_) => return Err(Failure::DownstreamClosed),
                Ok(Received::Pending) => {}
            }
        }
        match may_begin_http(bytes, detection) {
            Some(true) if bytes.starts_with(PREFACE) => return Ok(Kind::Http2),
            Some(true) => return Ok(Kind::Http),
            Some(false) => match client_hello::parse(bytes, hello_bytes) {
                Parsed::Complete(hello) => return Ok(Kind::Tls(hello)),
                Parsed::Rejected(reject) => return Err(Failure::HelloMalformed(reject)),
                Parsed::Incomplete => {}
            },
            None => {}
        }
        // An error shows at the next receive.
        let _ = client.readable().await;
    }
}

/// Whether the bytes may be those of an HTTP request. `None`: more are needed to know.
///
/// A method is made of token characters (RFC 9110 section 9.1), and an empty line may come first (RFC 9112 section
/// 2.2). No TLS or SSLv2 record begins with one of these, so where there is nothing but TLS and HTTP the first byte
/// tells. Where TCP is served as well the request line has to. The preface of HTTP/2 looks like a request's first line, too.
fn may_begin_http(bytes: &[u8], detection: Detection) -> Option<bool> {
    let first = bytes.first()?;
    let may = first.is_ascii_graphic() || matches!(first, b'\r' | b'\n');
    if may_begin_http2(bytes) {
        let takes_http = !matches!(detection, Detection::Nothing | Detection::ServerName);
        return if takes_http { bytes.starts_with(PREFACE).then_some(true) } else { Some(false) };
    }
    match detection {
        Detection::Names => Some(may),
        Detection::Nothing | Detection::ServerName => Some(false),
        Detection::Everything | Detection::Briefly if may => http1::is_http1(bytes),
        Detection::Everything | Detection::Briefly => Some(false),
    }
}

/// Whether bytes are the preface of HTTP/2 (RFC 9113 section 3.4), as far as they are there.
fn may_begin_http2(bytes: &[u8]) -> bool {
    let length = bytes.len().min(PREFACE.len());
    length > 0 && bytes[..length] == PREFACE[..length]
}
