//! Request heads (RFC 9112 section 3).

use super::BodyLength;
use super::head::{Head, HeadLimits, Parsed, Span, Version};

/// A request head, as offsets into the bytes it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Length and fields.
    pub head: Head,
    /// The method.
    pub method: Span,
    /// The form of the target.
    pub form: TargetForm,
    /// The path; `/` is implied if it is empty (absolute form without a path). `*` in asterisk form.
    pub path: Span,
    /// The query without `?`; empty and the same start as its end if there is none.
    pub query: Span,
    /// Whether there was a `?`.
    pub has_query: bool,
    /// The effective authority: of the absolute target, else the Host field. Validated as an authority.
    pub authority: Span,
    /// The version.
    pub version: Version,
    /// How the body ends: never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// Whether the client wants the connection kept (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// The value of Upgrade, if Connection names it too.
    pub upgrade: Option<Span>,
}

/// The form of a request target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `authority`, CONNECT only.
    Authority,
    /// `*`, OPTIONS only.
    Asterisk,
}

/// Reads a request head from the beginning of `bytes`. One empty line before it is skipped (RFC 9112 section 2.2)
/// and counts into [`Head::len`].
#[must_use]
pub fn parse_request(bytes: &[u8], limits: HeadLimits) -> Parsed<RequestHead> {
    let _ = (bytes, limits);
    Parsed::Incomplete
}
