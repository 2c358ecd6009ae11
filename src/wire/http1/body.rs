//! Bodies: where the data lies in the bytes of a connection, and where the message ends.

use std::ops::Range;

use super::BodyLength;
use super::chunked::Chunked;

/// Follows one body through the bytes of a connection. Holds no bytes.
#[derive(Clone, Debug)]
pub struct BodyReader {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Done,
    /// This many bytes are missing; never 0.
    Fixed(u64),
    Chunked(Chunked),
    UntilClose,
}

/// Bounds of a chunked body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Most bytes of the trailer section.
    pub trailer_bytes: usize,
    /// Most bytes of chunk extensions in the whole body.
    pub chunk_extension_bytes: usize,
}

/// What [`BodyReader::step`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes that belong to this message; the caller drops them from the front.
    pub consumed: usize,
    /// Data among them; empty for framing and trailers.
    pub data: Range<usize>,
    /// Whether the message ends after `consumed`.
    pub done: bool,
}

/// A body that breaks its framing (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk size that is no hexadecimal number or exceeds 2^63.
    #[error("a chunk size is not valid")]
    ChunkSize,
    /// A line that does not end in CRLF, or data that is not followed by one.
    #[error("a chunk does not end in CRLF")]
    ChunkEnd,
    /// Extensions beyond the limit.
    #[error("the chunk extensions are longer than the limit")]
    ExtensionsTooLarge,
    /// Trailers that are malformed or beyond the limit.
    #[error("the trailer section is not valid")]
    Trailers,
}

impl BodyReader {
    /// Starts at the first byte after a head.
    #[must_use]
    pub fn new(length: BodyLength, limits: BodyLimits) -> Self {
        let state = match length {
            BodyLength::None => State::Done,
            BodyLength::Fixed(length) => fixed(length),
            BodyLength::Chunked => State::Chunked(Chunked::new(limits)),
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Whether the message has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes that are still to come, if that is known.
    #[must_use]
    pub fn missing(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Fixed(missing) => Some(missing),
            State::Chunked(_) | State::UntilClose => None,
        }
    }

    /// Takes the next piece from the front of `bytes`: at most one run of data, with the framing around it.
    /// `consumed == 0` without `done`: more bytes are needed. No byte is ever needed twice, so that the caller may
    /// drop what was consumed and need not make room for what was not.
    ///
    /// Trailers are consumed, checked and dropped: a recipient may discard them (RFC 9110 section 6.5.1), and
    /// none can then be mistaken for a header.
    ///
    /// # Errors
    /// [`BodyError`]; the connection cannot be used any further.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        let step = match &mut self.state {
            State::Done => Step { consumed: 0, data: 0..0, done: true },
            State::UntilClose => Step { consumed: bytes.len(), data: 0..bytes.len(), done: false },
            State::Fixed(missing) => {
                let length = usize::try_from(*missing).map_or(bytes.len(), |missing| missing.min(bytes.len()));
                *missing -= length as u64;
                Step { consumed: length, data: 0..length, done: *missing == 0 }
            }
            State::Chunked(chunked) => chunked.step(bytes)?,
        };
        if step.done {
            self.state = State::Done;
        }
        Ok(step)
    }

    /// Tells a body that ends with the connection that the connection ended.
    ///
    /// Returns whether the body is complete: false is a truncation.
    #[must_use]
    pub fn end_of_stream(&mut self) -> bool {
        if matches!(self.state, State::UntilClose) {
            self.state = State::Done;
        }
        self.is_done()
    }
}

fn fixed(length: u64) -> State {
    if length == 0 { State::Done } else { State::Fixed(length) }
}
