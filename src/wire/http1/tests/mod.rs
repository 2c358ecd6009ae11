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
    complete(parse_request(bytes, LIMITS))
}

/// A request with these field lines beside its Host.
pub(super) fn request_with(lines: &str) -> Parsed<RequestHead> {
    parse_request(format!("POST /a HTTP/1.1\r\nHost: h.example\r\n{lines}\r\n").as_bytes(), LIMITS)
}

/// A response that must be legal.
pub(super) fn response(bytes: &[u8]) -> ResponseHead {
    complete(parse_response(bytes, LIMITS, false))
}

/// What the parser says of a response with these field lines.
pub(super) fn response_with(status: u16, lines: &str) -> Parsed<ResponseHead> {
    parse_response(format!("HTTP/1.1 {status} X\r\n{lines}\r\n").as_bytes(), LIMITS, false)
}

/// The head of what must be a complete one.
pub(super) fn complete<T: std::fmt::Debug>(parsed: Parsed<T>) -> T {
    let Parsed::Complete(head) = parsed else { panic!("not a legal head: {parsed:?}") };
    head
}
