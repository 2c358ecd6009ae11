//! What the streams of a connection have been sent in small pieces, and nobody has read.
//!
//! A window counts bytes, and a byte in a frame of its own costs h2 a few hundred: a client that does not read a stream of
//! small messages would have much kept for it, or cost all that share the connection the whole of it. So the streams are
//! counted each for itself, and the one that costs the most is given up before the connection is too dear.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::limits::{HTTP2_SMALL_DATA_BYTES, HTTP2_SMALL_DATA_BYTES_MAX};

/// The account of a connection. Streams are counted from [`Self::open`] to [`Self::close`], and others not at all.
#[derive(Debug, Default)]
pub struct Unread {
    streams: RefCell<HashMap<u32, usize, foldhash::fast::RandomState>>,
    total: Cell<usize>,
}

impl Unread {
    /// Begins to count a stream.
    pub fn open(&self, stream: u32) {
        self.streams.borrow_mut().insert(stream, 0);
    }

    /// Counts a stream no more: what it was sent is thrown away.
    pub fn close(&self, stream: u32) {
        if let Some(cost) = self.streams.borrow_mut().remove(&stream) {
            self.total.set(self.total.get().saturating_sub(cost));
        }
    }

    /// Counts a piece of so many bytes.
    pub(super) fn arrived(&self, stream: u32, length: usize) {
        let cost = cost(length);
        if cost > 0
            && let Some(sum) = self.streams.borrow_mut().get_mut(&stream)
        {
            *sum += cost;
            self.total.set(self.total.get() + cost);
        }
    }

    /// A piece has been read.
    pub(super) fn taken(&self, stream: u32, length: usize) {
        let cost = cost(length);
        if cost > 0
            && let Some(sum) = self.streams.borrow_mut().get_mut(&stream)
        {
            let cost = cost.min(*sum);
            *sum -= cost;
            self.total.set(self.total.get().saturating_sub(cost));
        }
    }

    /// Whether a stream has to be given up before more is read.
    pub(super) fn is_too_dear(&self) -> bool {
        self.total.get() > HTTP2_SMALL_DATA_BYTES_MAX
    }

    /// The stream to give up, if there has to be one.
    #[must_use]
    pub fn dearest(&self) -> Option<u32> {
        if !self.is_too_dear() {
            return None;
        }
        self.streams.borrow().iter().max_by_key(|(_, cost)| **cost).map(|(stream, _)| *stream)
    }
}

/// What a frame of data costs beyond its bytes.
fn cost(length: usize) -> usize {
    if length == 0 { 0 } else { HTTP2_SMALL_DATA_BYTES.saturating_sub(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_which_the_least_is_read_is_the_one_to_give_up() {
        let unread = Unread::default();
        [1, 3, 5].into_iter().for_each(|stream| unread.open(stream));
        let most = HTTP2_SMALL_DATA_BYTES_MAX / (HTTP2_SMALL_DATA_BYTES - 6);
        for _ in 0..most / 2 {
            unread.arrived(1, 6);
            unread.arrived(3, 6);
        }
        for _ in 0..most {
            unread.arrived(5, 6);
            unread.taken(5, 6);
        }
        unread.taken(1, 6);
        assert_eq!(unread.dearest(), None);
        (0..3).for_each(|_| unread.arrived(5, 6));
        assert_eq!(unread.dearest(), Some(3));
        unread.close(3);
        assert_eq!(unread.dearest(), None);
    }

    #[test]
    fn large_pieces_and_those_of_unknown_streams_cost_nothing() {
        let unread = Unread::default();
        unread.open(1);
        for _ in 0..100_000 {
            unread.arrived(1, HTTP2_SMALL_DATA_BYTES);
            unread.arrived(3, 1);
        }
        assert_eq!(unread.dearest(), None);
    }
}
