//! Bytes without end that can be checked wherever they arrive, however they were cut.

use std::io::{self, Write};
use std::sync::LazyLock;

/// A prime, so that no buffer size of the gateway is a multiple of the period: a repeated or lost buffer shows.
const PERIOD: usize = 65_521;

static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.to_le_bytes()[3]
    };
    (0..PERIOD).map(|_| next(&mut state)).collect()
});

/// Writes the first `count` bytes of the pattern.
pub(crate) fn write(stream: &mut impl Write, count: u64) -> io::Result<()> {
    write_range(stream, 0, count)
}

/// Writes the bytes of the pattern from `start` up to `end`.
pub(crate) fn write_range(stream: &mut impl Write, start: u64, end: u64) -> io::Result<()> {
    let mut position = start;
    while position < end {
        let piece = piece_at(position, end - position);
        stream.write_all(piece)?;
        position += piece.len() as u64;
    }
    stream.flush()
}

/// The first `count` bytes of the pattern.
pub(crate) fn bytes(count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, count).expect("a vector takes everything");
    bytes
}

fn piece_at(position: u64, most: u64) -> &'static [u8] {
    let offset = usize::try_from(position % PERIOD as u64).expect("less than the period");
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(PERIOD - offset);
    &BLOCK[offset..offset + length]
}

/// Compares what arrives with the pattern.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    position: u64,
    corrupt_at: Option<u64>,
}

impl Checker {
    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let piece = piece_at(self.position, bytes.len() as u64);
            if self.corrupt_at.is_none() && !bytes.starts_with(piece) {
                self.corrupt_at = Some(self.position);
            }
            self.position += piece.len() as u64;
            bytes = &bytes[piece.len()..];
        }
    }

    /// `N bytes intact`, or where the first difference lies (to a block).
    pub(crate) fn verdict(&self) -> String {
        match self.corrupt_at {
            None => intact(self.position),
            Some(position) => format!("{} bytes, different from byte {position} on", self.position),
        }
    }
}

/// What [`Checker::verdict`] says of `count` good bytes.
pub(crate) fn intact(count: u64) -> String {
    format!("{count} bytes intact")
}
