//! Tables of what is refused and why, and what the writers make of what is accepted.

mod properties;
mod requests;
mod responses;
mod smuggling;
mod writers;

use super::*;

pub(super) const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 100 };

/// A request that must be legal.
pub(super) fn request(bytes: &[u8]) -> RequestHead {
    match parse_request(bytes, LIMITS) {
        Parsed::Complete(head) => head,
        other => panic!("{:?} for {:?}", other, String::from_utf8_lossy(bytes)),
    }
}

/// A request with these field lines beside its Host.
pub(super) fn request_with(lines: &str) -> Parsed<RequestHead> {
    parse_request(format!("POST /a HTTP/1.1\r\nHost: h.example\r\n{lines}\r\n").as_bytes(), LIMITS)
}

/// A response that must be legal.
pub(super) fn response(bytes: &[u8]) -> ResponseHead {
    match parse_response(bytes, LIMITS, false) {
        Parsed::Complete(head) => head,
        other => panic!("{:?} for {:?}", other, String::from_utf8_lossy(bytes)),
    }
}

/// What the parser says of a response with these field lines.
pub(super) fn response_with(status: u16, lines: &str) -> Parsed<ResponseHead> {
    parse_response(format!("HTTP/1.1 {status} X\r\n{lines}\r\n").as_bytes(), LIMITS, false)
}
