//! HTTP/2 messages (RFC 9113 section 8) as HTTP/1.1 heads, and back.
//!
//! Streams are served by the code that serves HTTP/1.1 connections: one parser judges every head, and one path routes,
//! limits, retries and logs it. What is translated here is written so that this parser sees whatever is wrong with it;
//! framing, HPACK and flow control are the business of h2.

mod frames;
pub mod fuzz;
mod grpc;
mod request;
mod response;
mod trailers;

#[cfg(test)]
mod tests;

pub use frames::{Frame, Frames};
pub use grpc::{grpc_fields, is_grpc};
pub use request::{read_request, takes_trailers, write_request};
pub use response::{Body, read_response, write_response};
pub use trailers::{forwardable, of_answer, of_request};

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::http1::{Head, HeadLimits};

/// What a client opens with that knows the server to speak HTTP/2 (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What HTTP/2 inside TLS is called in ALPN (RFC 9113 section 3.2).
pub const ALPN: &[u8] = b"h2";

/// For heads that this gateway has written itself, out of what has passed the limits already.
const UNLIMITED: HeadLimits = HeadLimits { bytes: usize::MAX, fields: usize::MAX };

/// Whether a field concerns a single connection of HTTP/1, and has no place in HTTP/2 (RFC 9113 section 8.2.2).
fn is_connection_specific(name: &HeaderName) -> bool {
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// The length that a message states. It has been checked against the frames of the body, and is judged by the parser.
#[must_use]
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The end-to-end fields of a head, and its Content-Length.
fn fields(head: &Head, bytes: &[u8]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::with_capacity(head.fields.len());
    let kept = head.fields.iter().map(|field| (field.name.of(bytes), field.value.of(bytes), field.hop));
    for (name, value, hop) in kept {
        if !hop || name.eq_ignore_ascii_case(b"content-length") {
            fields.try_append(HeaderName::from_bytes(name).ok()?, value.try_into().ok()?).ok()?;
        }
    }
    Some(fields)
}
