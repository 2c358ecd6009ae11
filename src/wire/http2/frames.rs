//! The frames of a connection, counted as they pass (RFC 9113 section 4.1). Decoding them is h2's; what is counted here
//! tells a peer that sends messages from one that only makes work.

/// Bytes before the payload of a frame.
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// Of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 4;

/// Follows one direction of a connection.
#[derive(Clone, Debug)]
pub struct Frames {
    head: [u8; HEAD_BYTES],
    head_length: usize,
    /// Bytes of the payload, or of the preface, that are still to come.
    left: usize,
    in_head: bool,
}

/// What a read has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames of DATA with data in them.
    pub data: usize,
    /// Heads that began, trailers among them.
    pub heads: usize,
    /// Other frames.
    pub others: usize,
}

impl Frames {
    /// Starts behind `preface_bytes`.
    #[must_use]
    pub fn after(preface_bytes: usize) -> Self {
        Self { head: [0; HEAD_BYTES], head_length: 0, left: preface_bytes, in_head: false }
    }

    /// Whether a head has begun and not ended (RFC 9113 section 6.10: nothing else may come before it has).
    #[must_use]
    pub fn in_head(&self) -> bool {
        self.in_head
    }

    /// Counts the frames that begin in `bytes`, which follow those seen before.
    pub fn count(&mut self, mut bytes: &[u8]) -> Count {
        let mut count = Count::default();
        loop {
            let skipped = self.left.min(bytes.len());
            (self.left, bytes) = (self.left - skipped, &bytes[skipped..]);
            if self.left == 0 && self.head_length == HEAD_BYTES {
                self.end();
            }
            if bytes.is_empty() {
                return count;
            }
            let taken = (HEAD_BYTES - self.head_length).min(bytes.len());
            self.head[self.head_length..][..taken].copy_from_slice(&bytes[..taken]);
            (self.head_length, bytes) = (self.head_length + taken, &bytes[taken..]);
            if self.head_length == HEAD_BYTES {
                self.begin(&mut count);
            }
        }
    }

    fn begin(&mut self, count: &mut Count) {
        let [high, middle, low, kind, ..] = self.head;
        self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        match kind {
            DATA if self.left > 0 => count.data += 1,
            HEADERS => (count.heads, self.in_head) = (count.heads + 1, true),
            _ => count.others += 1,
        }
    }

    fn end(&mut self) {
        let [_, _, _, kind, flags, ..] = self.head;
        if matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0 {
            self.in_head = false;
        }
        self.head_length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD_BYTES + payload, 0xff);
        frame
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let bytes = [
            vec![0; 24],
            frame(4, 0, 6),
            frame(HEADERS, END_HEADERS, 20),
            frame(DATA, 0, 300),
            frame(DATA, 1, 0),
            frame(6, 0, 8),
        ]
        .concat();
        for size in [1, 2, 7, 9, 10, 64, bytes.len()] {
            let mut frames = Frames::after(24);
            let mut total = Count::default();
            for piece in bytes.chunks(size) {
                let count = frames.count(piece);
                total.data += count.data;
                total.heads += count.heads;
                total.others += count.others;
            }
            assert_eq!(total, Count { data: 1, heads: 1, others: 3 }, "in pieces of {size}");
            assert!(!frames.in_head());
        }
    }

    #[test]
    fn a_head_lasts_until_the_frame_that_ends_it_is_whole() {
        let mut frames = Frames::after(0);
        frames.count(&frame(HEADERS, 0, 5));
        assert!(frames.in_head());
        let last = frame(CONTINUATION, END_HEADERS, 5);
        let (most, end) = last.split_at(last.len() - 1);
        frames.count(most);
        assert!(frames.in_head());
        frames.count(end);
        assert!(!frames.in_head());
    }

    #[test]
    fn a_frame_without_payload_ends_where_it_begins() {
        let mut frames = Frames::after(0);
        frames.count(&frame(HEADERS, END_HEADERS, 0));
        assert!(!frames.in_head());
    }
}
