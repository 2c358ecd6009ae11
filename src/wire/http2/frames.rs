//! The frames of one direction of a connection, followed as they pass (RFC 9113 section 4.1). Decoding them is h2's; what is
//! seen here tells a peer that sends messages from one that only makes work, and says what h2 does not.

/// Bytes before the payload of a frame.
pub(super) const HEAD_BYTES: usize = 9;

/// Most that is kept of a frame: its head, and the code of a reset.
const SEEN_BYTES: usize = HEAD_BYTES + 4;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const CONTINUATION: u8 = 9;

/// Of HEADERS and CONTINUATION.
pub(super) const END_HEADERS: u8 = 4;

/// Of DATA: the first byte of the payload says how many of the last are padding.
pub(super) const PADDED: u8 = 8;

/// Follows one direction of a connection.
#[derive(Clone, Debug)]
pub struct Frames {
    seen: [u8; SEEN_BYTES],
    seen_bytes: usize,
    /// How many there are to see of this frame.
    seen_max: usize,
    /// Bytes of the payload, or of the preface, that are still to come behind those.
    left: usize,
    in_head: bool,
}

/// A frame that has begun, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A piece of a body, of so many bytes without padding.
    Data {
        /// Whose.
        stream: u32,
        /// Without padding; 0: it brings nothing.
        length: usize,
    },
    /// A head has begun, that of trailers perhaps.
    Head {
        /// Whose.
        stream: u32,
    },
    /// A stream is ended for good.
    Reset {
        /// Which.
        stream: u32,
        /// Why (RFC 9113 section 7).
        code: u32,
    },
    /// Anything else.
    Other,
}

impl Frames {
    /// Starts behind `preface_bytes`.
    #[must_use]
    pub fn after(preface_bytes: usize) -> Self {
        // As if in the middle of a frame of which nothing has to be seen.
        let seen_bytes = if preface_bytes > 0 { HEAD_BYTES } else { 0 };
        Self { seen: [0; SEEN_BYTES], seen_bytes, seen_max: HEAD_BYTES, left: preface_bytes, in_head: false }
    }

    /// Whether a head has begun and not ended (RFC 9113 section 6.10: nothing else may come before it has).
    #[must_use]
    pub fn in_head(&self) -> bool {
        self.in_head
    }

    /// Shows the frames in `bytes`, which follow those seen before, each once.
    pub fn follow(&mut self, mut bytes: &[u8], mut show: impl FnMut(Frame)) {
        loop {
            if self.seen_bytes == self.seen_max {
                let skipped = self.left.min(bytes.len());
                (self.left, bytes) = (self.left - skipped, &bytes[skipped..]);
                if self.left == 0 {
                    self.end();
                }
            }
            if bytes.is_empty() {
                return;
            }
            let taken = (self.seen_max - self.seen_bytes).min(bytes.len());
            self.seen[self.seen_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            (self.seen_bytes, bytes) = (self.seen_bytes + taken, &bytes[taken..]);
            if self.seen_bytes == self.seen_max
                && let Some(frame) = self.begin()
            {
                show(frame);
            }
        }
    }

    /// The frame that has begun; `None`: there is more to see of it.
    fn begin(&mut self) -> Option<Frame> {
        let [high, middle, low, kind, flags, stream @ .., a, b, c, d] = self.seen;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if self.seen_max == HEAD_BYTES {
            let more = match kind {
                DATA if flags & PADDED != 0 => 1.min(length),
                // Of another length it is a fault, and h2 says so.
                RST_STREAM if length == 4 => 4,
                _ => 0,
            };
            (self.seen_max, self.left) = (HEAD_BYTES + more, length - more);
            if more > 0 {
                return None;
            }
        }
        // The first bit is reserved.
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        Some(match kind {
            DATA => {
                let padding = if self.seen_max > HEAD_BYTES { usize::from(a) } else { 0 };
                Frame::Data { stream, length: self.left.saturating_sub(padding) }
            }
            HEADERS => {
                self.in_head = true;
                Frame::Head { stream }
            }
            RST_STREAM if self.seen_max > HEAD_BYTES => Frame::Reset { stream, code: u32::from_be_bytes([a, b, c, d]) },
            _ => Frame::Other,
        })
    }

    fn end(&mut self) {
        let [_, _, _, kind, flags, ..] = self.seen;
        if matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0 {
            self.in_head = false;
        }
        (self.seen_bytes, self.seen_max) = (0, HEAD_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&[length[1], length[2], length[3], kind, flags, 0x80, 0, 0, 7], payload].concat()
    }

    fn seen(frames: &mut Frames, bytes: &[u8]) -> Vec<Frame> {
        let mut seen = Vec::new();
        frames.follow(bytes, |frame| seen.push(frame));
        seen
    }

    #[test]
    fn frames_are_seen_however_they_are_cut() {
        let bytes = [
            vec![0xff; 24],
            frame(4, 0, &[0xff; 6]),
            frame(HEADERS, END_HEADERS, &[0xff; 20]),
            frame(DATA, 0, &[0xff; 300]),
            frame(DATA, PADDED, &[3, 1, 2, 0, 0, 0]),
            frame(DATA, PADDED, &[200]),
            frame(DATA, PADDED, &[]),
            frame(DATA, 1, &[]),
            frame(RST_STREAM, 0, &[0, 0, 1, 8]),
            frame(RST_STREAM, 0, &[0, 0, 1]),
            frame(6, 0, &[0xff; 8]),
        ]
        .concat();
        let data = |length| Frame::Data { stream: 7, length };
        let expected = [
            Frame::Other,
            Frame::Head { stream: 7 },
            data(300),
            data(2),
            data(0),
            data(0),
            data(0),
            Frame::Reset { stream: 7, code: 264 },
            Frame::Other,
            Frame::Other,
        ];
        for size in [1, 2, 7, 9, 10, 13, 64, bytes.len()] {
            let mut frames = Frames::after(24);
            let seen: Vec<Frame> = bytes.chunks(size).flat_map(|piece| seen(&mut frames, piece)).collect();
            assert_eq!(seen, expected, "in pieces of {size}");
            assert!(!frames.in_head());
        }
    }

    #[test]
    fn a_head_lasts_until_the_frame_that_ends_it_is_whole() {
        let mut frames = Frames::after(0);
        seen(&mut frames, &frame(HEADERS, 0, &[0; 5]));
        assert!(frames.in_head());
        let last = frame(CONTINUATION, END_HEADERS, &[0; 5]);
        let (most, end) = last.split_at(last.len() - 1);
        seen(&mut frames, most);
        assert!(frames.in_head());
        seen(&mut frames, end);
        assert!(!frames.in_head());
    }

    #[test]
    fn a_frame_without_payload_ends_where_it_begins() {
        let mut frames = Frames::after(0);
        seen(&mut frames, &frame(HEADERS, END_HEADERS, &[]));
        assert!(!frames.in_head());
    }
}
