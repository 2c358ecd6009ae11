//! Bodies: where the data lies in the bytes of a connection, and where the message ends.

use std::ops::Range;

use super::BodyLength;

/// Follows one body through the bytes of a connection. Holds no bytes.
#[derive(Clone, Debug)]
pub struct BodyReader {
    length: BodyLength,
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
        let _ = limits;
        Self { length }
    }

    /// Whether the message has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.length == BodyLength::None
    }

    /// Takes the next piece from the front of `bytes`. `consumed == 0` without `done`: more bytes are needed.
    ///
    /// Trailers are consumed, checked and dropped: a recipient may discard them (RFC 9110 section 6.5.1), and
    /// none can then be mistaken for a header.
    ///
    /// # Errors
    /// [`BodyError`]; the connection cannot be used any further.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        let _ = bytes;
        Ok(Step { consumed: 0, data: 0..0, done: self.is_done() })
    }

    /// Tells a body that ends with the connection that the connection ended.
    ///
    /// Returns whether the body is complete: false is a truncation.
    #[must_use]
    pub fn end_of_stream(&mut self) -> bool {
        self.is_done()
    }
}
