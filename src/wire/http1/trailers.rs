//! Trailer sections (RFC 9112 section 7.1.2): checked, counted, never kept.

use super::body::BodyError;
use super::grammar::{is_token_byte, is_value_byte};

/// Follows a trailer section byte by byte.
#[derive(Clone, Debug)]
pub(super) struct Trailers {
    state: State,
    bytes_left: usize,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineBegins,
    Name(NameHash),
    Value,
    /// The line feed after a value.
    ValueEnd,
    /// The line feed of the empty line.
    End,
}

impl Trailers {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: State::LineBegins, bytes_left: bytes_max }
    }

    /// Takes one byte; true: it was the last. The empty line does not count into the limit.
    pub(super) fn take(&mut self, byte: u8) -> Result<bool, BodyError> {
        let state = match (self.state, byte) {
            (State::LineBegins, b'\r') => State::End,
            (State::LineBegins, _) if is_token_byte(byte) => State::Name(NameHash::EMPTY.with(byte)),
            (State::Name(name), _) if is_token_byte(byte) => State::Name(name.with(byte)),
            (State::Name(name), b':') if !name.is_framing() => State::Value,
            (State::Value, b'\r') => State::ValueEnd,
            (State::Value, _) if is_value_byte(byte) => State::Value,
            (State::ValueEnd, b'\n') => State::LineBegins,
            (State::End, b'\n') => return Ok(true),
            (State::LineBegins | State::Name(_) | State::Value | State::ValueEnd | State::End, _) => {
                return Err(BodyError::Trailers);
            }
        };
        if state != State::End {
            self.bytes_left = self.bytes_left.checked_sub(1).ok_or(BodyError::Trailers)?;
        }
        self.state = state;
        Ok(false)
    }
}

/// The hash of a field name so far (FNV-1a, case folded), by which the few forbidden names are known without
/// keeping bytes of a name that may be split over reads. A collision can be made, but it only refuses a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NameHash(u64);

impl NameHash {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    const fn with(self, byte: u8) -> Self {
        Self((self.0 ^ byte.to_ascii_lowercase() as u64).wrapping_mul(0x0100_0000_01b3))
    }

    const fn of(name: &[u8]) -> Self {
        match name {
            [] => Self::EMPTY,
            [before @ .., last] => Self::of(before).with(*last),
        }
    }

    /// Whether the name is one that must not be sent in trailers: framing and routing (RFC 9110 section 6.5.1).
    fn is_framing(self) -> bool {
        const FRAMING: [NameHash; 3] =
            [NameHash::of(b"content-length"), NameHash::of(b"transfer-encoding"), NameHash::of(b"host")];
        FRAMING.contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], limit: usize) -> Result<bool, BodyError> {
        let mut trailers = Trailers::new(limit);
        let mut done = false;
        for byte in bytes {
            assert!(!done, "the section had ended");
            done = trailers.take(*byte)?;
        }
        Ok(done)
    }

    #[test]
    fn a_section_ends_with_an_empty_line() {
        assert_eq!(read(b"\r\n", 0), Ok(true));
        assert_eq!(read(b"A: b\r\nc:\r\n\r\n", 64), Ok(true));
        assert_eq!(read(b"A: b\r\n", 64), Ok(false));
    }

    #[test]
    fn the_field_lines_count_into_the_limit() {
        assert_eq!(read(b"A: b\r\n\r\n", 6), Ok(true));
        assert_eq!(read(b"A: b\r\n\r\n", 5), Err(BodyError::Trailers));
    }

    #[test]
    fn lines_obey_the_grammar_of_fields() {
        let cases: [&[u8]; 10] = [
            b"\n",
            b": b\r\n",
            b" A: b\r\n",
            b"A : b\r\n",
            b"A\r\n",
            b"A: b\n",
            b"A: b\rc",
            b"A: b\r\n c",
            b"A: \0\r\n",
            b"A: \x7f\r\n",
        ];
        for bytes in cases {
            assert_eq!(read(bytes, 64), Err(BodyError::Trailers), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn framing_and_host_are_no_trailers_in_any_case() {
        for name in ["Content-Length", "TRANSFER-ENCODING", "host"] {
            assert_eq!(read(format!("{name}:").as_bytes(), 64), Err(BodyError::Trailers), "{name}");
        }
        assert_eq!(read(b"Content-Lengths:", 64), Ok(false));
        assert_eq!(read(b"hos:", 64), Ok(false));
    }
}
