//! Response heads (RFC 9112 section 4).

use super::BodyLength;
use super::head::{Head, HeadLimits, Parsed, Span, Version};

/// A response head, as offsets into the bytes it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Length and fields.
    pub head: Head,
    /// The status, 100 to 599.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub phrase: Span,
    /// The version.
    pub version: Version,
    /// How the body ends, seen from the request's method and the status (RFC 9112 section 6.3).
    pub body: BodyLength,
    /// Whether the upstream keeps the connection.
    pub keep_alive: bool,
}

/// Reads a response head from the beginning of `bytes`. `to_head` says that the request's method was HEAD.
#[must_use]
pub fn parse_response(bytes: &[u8], limits: HeadLimits, to_head: bool) -> Parsed<ResponseHead> {
    let _ = (bytes, limits, to_head);
    Parsed::Incomplete
}
