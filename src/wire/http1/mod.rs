//! HTTP/1.0 and 1.1 messages (RFC 9112): heads, framing, chunked bodies. Strict in both directions.
//!
//! Heads are parsed in place: a [`RequestHead`] or [`ResponseHead`] holds offsets into the bytes it was read from,
//! never copies. The caller keeps those bytes and hands them back to the accessors and writers.

mod body;
mod chunked;
mod claims;
mod edits;
mod fields;
mod grammar;
mod head;
mod local;
mod opening;
mod request;
mod response;
mod scan;
mod target;
mod trailers;
mod write;

#[cfg(test)]
mod tests;

pub use body::{BodyError, BodyLimits, BodyReader, Step};
pub use claims::{Claims, via_names};
pub use edits::{FieldEdits, NO_FIELD_EDITS};
pub use head::{Field, Head, HeadError, HeadLimits, Parsed, Span, Version};
pub use local::{LocalResponse, write_local_response};
pub use opening::is_http1;
pub use request::{RequestHead, TargetForm, parse_request};
pub use response::{ResponseHead, SWITCHING_PROTOCOLS, parse_response};
pub use write::{
    RequestEdits, ResponseEdits, downstream_length, write_chunk, write_last_chunk, write_request, write_response,
};

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// Exactly this many bytes.
    Fixed(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Until the connection ends; responses only.
    UntilClose,
}
