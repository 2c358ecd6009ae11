//! HTTP/2 connections (RFC 9113), driven by the worker's own executor, and their streams as HTTP/1.1 bytes.
//!
//! Framing, HPACK and flow control are h2's. A connection has a task of its own, which reads and writes its socket; a
//! stream is used by the session that it serves, which sees a connection of HTTP/1.1 that carries one request: an
//! [`Intake`] yields what the peer sends, an [`Outlet`] takes what is sent to it. What a session does not take stays in
//! the stream's window, and what the window has no room for is not taken from the session: a side that is slow stops the
//! other, and nothing is kept beyond the windows (`limits.rs`).
//!
//! Used by `session` for clients and by `upstream` for services; knows neither.

mod intake;
mod meter;
mod outlet;
mod unread;
mod unseen;
mod wire;

pub use intake::{Given, Intake};
pub use meter::Meter;
pub use outlet::Outlet;
pub use unread::Unread;
pub use unseen::{Refusal, Unseen};
pub use wire::{Line, Patience, Wire};

use crate::limits::Limits;

/// Most bytes of a header list (RFC 9113 section 6.5.2, which counts 32 more for each field): more than the parser of heads
/// takes, so that it is the one that refuses what is too much, and that is logged.
#[must_use]
pub fn header_list_bytes(limits: &Limits) -> u32 {
    let bytes = 2 * limits.request_head_bytes + 32 * limits.request_headers;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Why a stream has come to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer has not looked at the request, and says so: it may be sent again (RFC 9113 section 8.7).
    #[error("the stream was refused: {0}")]
    Refused(h2::Error),
    /// The peer has reset the stream.
    #[error("{0}")]
    Reset(h2::Error),
    /// The peer breaks the protocol, or does not speak it.
    #[error("HTTP/2 protocol error: {0}")]
    Protocol(h2::Error),
    /// The connection has ended.
    #[error("{0}")]
    Connection(h2::Error),
    /// It has been given up: too much of what the peer has sent in small pieces was not taken.
    #[error("small frames that nobody takes")]
    Unread,
    /// The peer has allowed no further stream for too long: nobody has seen the request.
    #[error("the upstream allows no further stream")]
    Crowded,
    /// A message that the other version of HTTP cannot carry.
    #[error("the message cannot be translated: {0}")]
    Untranslatable(crate::wire::http1::HeadError),
    /// Trailers beyond the limit.
    #[error("the trailers are longer than the limit")]
    Trailers,
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        // Streams that a GOAWAY leaves out are those which the peer will not process (RFC 9113 section 6.8).
        // We have ended a connection that cost too much. Its streams are no worse for that.
        let is_ours = error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        let left_out = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        match error {
            error if error.is_remote() && (refused || left_out) => Self::Refused(error),
            error if error.is_library() && !is_ours => Self::Protocol(error),
            error if error.is_reset() => Self::Reset(error),
            error => Self::Connection(error),
        }
    }
}
