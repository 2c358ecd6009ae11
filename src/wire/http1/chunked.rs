//! The chunked transfer coding (RFC 9112 section 7.1), decoded byte by byte except for the data.
//!
//! Only CRLF ends a line, no white space surrounds a size, and extensions hold no control characters: each of these
//! liberties has been a way to make two readers disagree about where a chunk begins.

use super::body::{BodyError, BodyLimits, Step};
use super::grammar::is_value_byte;
use super::trailers::Trailers;

/// Digits of the longest size. Sixteen hold every size below 2^63, and bound leading zeros.
const SIZE_DIGITS_MAX: u8 = 16;

/// A decoder. No byte is looked at twice.
#[derive(Clone, Debug)]
pub(super) struct Chunked {
    state: State,
    extension_bytes_left: usize,
    trailers: Trailers,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    /// The line feed after a size.
    SizeEnd {
        size: u64,
    },
    /// This much data is missing; never 0.
    Data(u64),
    /// The carriage return after data.
    DataEnd,
    /// The line feed after it.
    DataEndLineFeed,
    Trailers,
}

const SIZE_BEGINS: State = State::Size { size: 0, digits: 0 };

impl Chunked {
    pub(super) fn new(limits: BodyLimits) -> Self {
        Self {
            state: SIZE_BEGINS,
            extension_bytes_left: limits.chunk_extension_bytes,
            trailers: Trailers::new(limits.trailer_bytes),
        }
    }

    /// At most one run of data, and all the framing before and after it.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        let mut step = Step { consumed: 0, data: 0..0, done: false };
        while step.consumed < bytes.len() && !step.done {
            if let State::Data(missing) = self.state {
                if !step.data.is_empty() {
                    break;
                }
                let available = bytes.len() - step.consumed;
                let length = usize::try_from(missing).map_or(available, |missing| missing.min(available));
                let missing = missing - length as u64;
                self.state = if missing == 0 { State::DataEnd } else { State::Data(missing) };
                step.data = step.consumed..step.consumed + length;
                step.consumed += length;
            } else {
                step.done = self.framing(bytes[step.consumed])?;
                step.consumed += 1;
            }
        }
        Ok(step)
    }

    /// Takes one byte that is no data; true: it was the last of the message.
    fn framing(&mut self, byte: u8) -> Result<bool, BodyError> {
        self.state = match (self.state, byte) {
            (State::Size { digits: 1.., size }, b'\r') => State::SizeEnd { size },
            (State::Size { digits: 1.., size }, b';') => self.extension(size)?,
            (State::Size { size, digits }, _) => add_digit(size, digits, byte)?,
            (State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { size }, _) if is_value_byte(byte) => self.extension(size)?,
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailers,
            (State::SizeEnd { size }, b'\n') => State::Data(size),
            (State::DataEnd, b'\r') => State::DataEndLineFeed,
            (State::DataEndLineFeed, b'\n') => SIZE_BEGINS,
            (State::Trailers, _) => return self.trailers.take(byte),
            // Data is taken by `step`.
            (State::Extension { .. } | State::SizeEnd { .. } | State::DataEnd | State::DataEndLineFeed, _)
            | (State::Data(_), _) => return Err(BodyError::ChunkEnd),
        };
        Ok(false)
    }

    /// Counts one byte of an extension, its semicolon included.
    fn extension(&mut self, size: u64) -> Result<State, BodyError> {
        self.extension_bytes_left = self.extension_bytes_left.checked_sub(1).ok_or(BodyError::ExtensionsTooLarge)?;
        Ok(State::Extension { size })
    }
}

fn add_digit(size: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
    let digit = char::from(byte).to_digit(16).ok_or(BodyError::ChunkSize)?;
    if digits == SIZE_DIGITS_MAX || size >= 1 << (63 - 4) {
        return Err(BodyError::ChunkSize);
    }
    Ok(State::Size { size: size * 16 + u64::from(digit), digits: digits + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyLimits = BodyLimits { trailer_bytes: 32, chunk_extension_bytes: 8 };

    fn decode(bytes: &[u8]) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let mut chunked = Chunked::new(LIMITS);
        let (mut data, mut consumed, mut done) = (Vec::new(), 0, false);
        while !done && consumed < bytes.len() {
            let step = chunked.step(&bytes[consumed..])?;
            data.extend_from_slice(&bytes[consumed..][step.data]);
            (consumed, done) = (consumed + step.consumed, step.done);
        }
        Ok((data, consumed, done))
    }

    #[test]
    fn a_body_ends_after_its_trailers_and_not_later() {
        let body = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n00\r\nX-Sum: 1\r\n\r\n";
        let next = [body.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(decode(&next), Ok((b"abc0123456789".to_vec(), body.len(), true)));
    }

    #[test]
    fn one_step_takes_one_run_of_data_and_all_framing_around_it() {
        let mut chunked = Chunked::new(LIMITS);
        let step = chunked.step(b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n").expect("valid");
        assert_eq!(step, Step { consumed: 10, data: 3..5, done: false });
        let step = chunked.step(b"cde\r\n0\r\n\r\nnext").expect("valid");
        assert_eq!(step, Step { consumed: 10, data: 0..3, done: true });
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        let cases: [(&[u8], BodyError); 24] = [
            (b"\r\n", BodyError::ChunkSize),
            (b";x\r\n", BodyError::ChunkSize),
            (b" 3\r\n", BodyError::ChunkSize),
            (b"3 \r\n", BodyError::ChunkSize),
            (b"3 ;x\r\n", BodyError::ChunkSize),
            (b"+3\r\n", BodyError::ChunkSize),
            (b"-3\r\n", BodyError::ChunkSize),
            (b"0x3\r\n", BodyError::ChunkSize),
            (b"3_0\r\n", BodyError::ChunkSize),
            (b"g\r\n", BodyError::ChunkSize),
            (b"3\n", BodyError::ChunkSize),
            (b"3\r\r\n", BodyError::ChunkEnd),
            (b"3\rabc", BodyError::ChunkEnd),
            (b"3;x\nabc\r\n", BodyError::ChunkEnd),
            (b"3;x\rabc\r\n", BodyError::ChunkEnd),
            (b"3;x\0\r\n", BodyError::ChunkEnd),
            (b"3\r\nabc\n", BodyError::ChunkEnd),
            (b"3\r\nabc0\r\n", BodyError::ChunkEnd),
            (b"3\r\nabc\r0", BodyError::ChunkEnd),
            (b"3\r\nabcd\r\n", BodyError::ChunkEnd),
            (b"8000000000000000\r\n", BodyError::ChunkSize),
            (b"10000000000000000\r\n", BodyError::ChunkSize),
            (b"00000000000000001\r\n", BodyError::ChunkSize),
            (b"1;23456789\r\n", BodyError::ExtensionsTooLarge),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(bytes), Err(error), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_largest_size_is_below_two_to_the_63rd() {
        let mut chunked = Chunked::new(LIMITS);
        assert!(chunked.step(b"7fffffffffffffff\r\nx").is_ok());
        assert_eq!(chunked.state, State::Data((1 << 63) - 2));
    }

    #[test]
    fn extensions_of_all_chunks_together_have_a_limit() {
        assert!(decode(b"1;2345678\r\nx\r\n").is_ok());
        assert_eq!(decode(b"1;2345678\r\nx\r\n1;\r\n"), Err(BodyError::ExtensionsTooLarge));
    }
}
