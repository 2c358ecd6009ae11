//! Where a head ends, found before anything is tokenized.
//!
//! A head that arrives in many pieces is searched for line feeds again with every piece, which costs little, and is
//! tokenized once. The search also refuses what the tokenizer would let pass: line feeds without a carriage return.

use std::mem::MaybeUninit;

use httparse::Header;

use super::head::{HeadError, HeadLimits};

/// Slots for fields on the stack. Heads with more fields, which only a raised limit admits, cost an allocation.
const SLOTS_INLINE: usize = 100;

/// The bounds of a complete head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// First byte of the start line.
    pub(super) start: usize,
    /// One past the empty line.
    pub(super) end: usize,
    /// Number of fields.
    pub(super) fields: usize,
}

/// Looks for the end of the head whose start line begins at `start`; `None`: not there yet.
pub(super) fn extent(bytes: &[u8], start: usize, limits: HeadLimits) -> Result<Option<Extent>, HeadError> {
    let window = &bytes[..bytes.len().min(limits.bytes)];
    let mut lines = 0;
    let mut line_start = start;
    for line_feed in memchr::memchr_iter(b'\n', window).skip_while(|line_feed| *line_feed < start) {
        let line = &window[line_start..line_feed];
        match line.strip_suffix(b"\r") {
            None => return Err(HeadError::Syntax),
            Some([]) if lines == 0 => return Err(HeadError::Syntax),
            Some([]) => return Ok(Some(Extent { start, end: line_feed + 1, fields: lines - 1 })),
            Some(_) if lines > limits.fields => return Err(HeadError::TooManyFields),
            Some(_) => lines += 1,
        }
        line_start = line_feed + 1;
    }
    if bytes.len() >= limits.bytes { Err(HeadError::TooLarge) } else { Ok(None) }
}

/// Lends `read` as many slots as the head has fields.
pub(super) fn with_slots<'b, R>(fields: usize, read: impl FnOnce(&mut [MaybeUninit<Header<'b>>]) -> R) -> R {
    if fields <= SLOTS_INLINE {
        let mut slots = [const { MaybeUninit::uninit() }; SLOTS_INLINE];
        return read(&mut slots[..fields]);
    }
    let mut slots: Vec<_> = (0..fields).map(|_| MaybeUninit::uninit()).collect();
    read(&mut slots)
}

/// The fault that a fault of the tokenizer stands for. It cannot tell a version that is not spoken from a start line
/// that holds no version; `version` is what stands in its place.
pub(super) fn fault(error: httparse::Error, version: Option<&[u8]>) -> HeadError {
    match (error, version) {
        (httparse::Error::Version, Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]))
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            HeadError::Version
        }
        _ => HeadError::Syntax,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 32, fields: 2 };

    fn end(bytes: &[u8]) -> Result<Option<(usize, usize)>, HeadError> {
        Ok(extent(bytes, 0, LIMITS)?.map(|extent| (extent.end, extent.fields)))
    }

    #[test]
    fn the_first_empty_line_ends_a_head() {
        assert_eq!(end(b"x\r\n\r\n"), Ok(Some((5, 0))));
        assert_eq!(end(b"x\r\na:\r\n\r\n\r\n"), Ok(Some((9, 1))));
        assert_eq!(end(b"x\r\n\r"), Ok(None));
        assert_eq!(end(b""), Ok(None));
    }

    #[test]
    fn a_line_feed_without_carriage_return_is_refused_where_it_stands() {
        for bare in [b"\n".as_slice(), b"x\n", b"x\r\n\n", b"x\r\na\n\r\n"] {
            assert_eq!(end(bare), Err(HeadError::Syntax), "{bare:?}");
        }
    }

    #[test]
    fn limits_hold_before_the_end_is_there() {
        assert_eq!(end(&[b'x'; 31]), Ok(None));
        assert_eq!(end(&[b'x'; 32]), Err(HeadError::TooLarge));
        assert_eq!(end(b"x\r\na:\r\nb:\r\n\r\n"), Ok(Some((13, 2))));
        assert_eq!(end(b"x\r\na:\r\nb:\r\nc:\r\n"), Err(HeadError::TooManyFields));
    }

    #[test]
    fn a_head_as_long_as_the_limit_is_accepted() {
        let mut head = vec![b'x'; 28];
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(end(&head), Ok(Some((32, 0))));
        head.insert(0, b'x');
        assert_eq!(end(&head), Err(HeadError::TooLarge));
    }
}
