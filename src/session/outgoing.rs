//! What one read brings for the client, in the order in which it goes out.

use std::io::IoSlice;

use smallvec::SmallVec;

/// Data up to this many bytes is copied behind what goes before it: cheaper than a piece of its own for the kernel, and
/// than a record of its own for TLS.
pub(super) const COPIED_BYTES_MAX: usize = 4096;

/// Bytes that were made for the client (heads, framing), and between them data that stays where it was read.
///
/// Only data of more than [`COPIED_BYTES_MAX`] bytes makes pieces, so one read makes fewer of them than one call can
/// send.
pub(super) struct Outgoing<'p> {
    made: &'p mut Vec<u8>,
    /// Data, and how much of `made` goes out before it.
    runs: SmallVec<[(usize, &'p [u8]); 6]>,
}

impl<'p> Outgoing<'p> {
    /// Nothing yet; `made` is room for what will be.
    pub(super) fn new(made: &'p mut Vec<u8>) -> Self {
        made.clear();
        Self { made, runs: SmallVec::new() }
    }

    /// Where what is made goes, behind everything so far.
    pub(super) fn made(&mut self) -> &mut Vec<u8> {
        self.made
    }

    /// Adds data.
    pub(super) fn push(&mut self, data: &'p [u8]) {
        if data.len() > COPIED_BYTES_MAX {
            self.runs.push((self.made.len(), data));
        } else {
            self.made.extend_from_slice(data);
        }
    }

    /// All of it; no piece is empty.
    pub(super) fn pieces(&self) -> SmallVec<[IoSlice<'_>; 12]> {
        let mut pieces = SmallVec::new();
        let mut from = 0;
        for (until, data) in self.runs.iter().copied().chain([(self.made.len(), &[][..])]) {
            pieces.extend(
                [&self.made[from..until], data].into_iter().filter(|piece| !piece.is_empty()).map(IoSlice::new),
            );
            from = until;
        }
        pieces
    }
}

/// Appends to `kept` what is behind the first `sent` bytes of `pieces`.
pub(super) fn keep(pieces: &[IoSlice<'_>], mut sent: usize, kept: &mut Vec<u8>) {
    for piece in pieces {
        let gone = sent.min(piece.len());
        sent -= gone;
        kept.extend_from_slice(&piece[gone..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[IoSlice<'_>]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| piece.iter().copied()).collect()
    }

    #[test]
    fn pieces_go_out_in_the_order_they_came_in() {
        let (large, small) = ([b'l'; COPIED_BYTES_MAX + 1], [b's'; COPIED_BYTES_MAX]);
        let mut made = b"left over".to_vec();
        let mut outgoing = Outgoing::new(&mut made);
        outgoing.push(&large);
        outgoing.made().extend_from_slice(b"head");
        outgoing.push(&small);
        outgoing.push(&large);
        outgoing.push(&large);
        outgoing.push(b"end");
        let lengths: Vec<_> = outgoing.pieces().iter().map(|piece| piece.len()).collect();
        assert_eq!(lengths, [large.len(), 4 + small.len(), large.len(), large.len(), 3]);
        let all = [&large[..], b"head", &small, &large, &large, b"end"].concat();
        assert_eq!(text(&outgoing.pieces()), all);
    }

    #[test]
    fn nothing_makes_no_piece() {
        let mut made = Vec::new();
        let mut outgoing = Outgoing::new(&mut made);
        outgoing.push(b"");
        assert!(outgoing.pieces().is_empty());
    }

    #[test]
    fn what_was_not_sent_is_kept_wherever_the_socket_stopped() {
        let pieces = [&b"head"[..], b"data", b"end"].map(IoSlice::new);
        for sent in 0..=11 {
            let mut kept = Vec::new();
            keep(&pieces, sent, &mut kept);
            assert_eq!(kept, b"headdataend"[sent..], "{sent} bytes are gone");
        }
    }
}
