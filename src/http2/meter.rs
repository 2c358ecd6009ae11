//! What a connection in HTTP/2 brings: how much of it is of use, and what h2 does not tell of it.

use std::cell::Cell;
use std::time::Instant;

use crate::limits::{
    HTTP2_FRAME_BYTES_MAX, HTTP2_IDLE_FRAMES_MAX, HTTP2_IDLE_FRAMES_PER_DATA, HTTP2_IDLE_FRAMES_PER_HEAD,
    HTTP2_IDLE_FRAMES_PER_SECOND,
};
use crate::net::coarse_now;
use crate::wire::http2::Frame;

use super::unread::Unread;
use super::unseen::Unseen;

/// What a connection brings, and how much else than messages it may bring.
#[derive(Debug)]
pub struct Meter {
    /// Bytes received.
    pub received: Cell<u64>,
    /// What its streams have been sent in small pieces, where somebody keeps count.
    pub unread: Unread,
    /// Requests that h2 has refused without showing them to anybody.
    pub unseen: Unseen,
    /// The last stream whose head has been sent; those of requests go out in order.
    last_sent: Cell<u32>,
    /// Frames without a message that may still come.
    idle_frames_left: Cell<u64>,
    counted: Cell<Instant>,
    /// Whether each head is a request. Of an upstream it may be the next of many that answer the same one.
    pub(super) asks: bool,
}

/// What a read has brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// Frames of DATA with data in them.
    pub(super) data: u64,
    /// Heads that began, trailers among them.
    pub(super) heads: u64,
    /// Other frames.
    pub(super) others: u64,
}

impl Meter {
    /// Of a connection whose peer asks, or answers.
    #[must_use]
    pub fn new(asks: bool) -> Self {
        Self {
            received: Cell::new(0),
            unread: Unread::default(),
            unseen: Unseen::default(),
            last_sent: Cell::new(0),
            idle_frames_left: Cell::new(HTTP2_IDLE_FRAMES_MAX),
            counted: Cell::new(coarse_now()),
            asks,
        }
    }

    /// Counts a request.
    pub fn asked(&self) {
        self.allow(HTTP2_IDLE_FRAMES_PER_HEAD);
    }

    /// Counts bytes of a body that were sent: the peer answers each frame of them with windows, and some with pings.
    pub fn sent(&self, bytes: usize) {
        let frames = bytes.div_ceil(HTTP2_FRAME_BYTES_MAX as usize);
        self.allow(frames as u64 * HTTP2_IDLE_FRAMES_PER_DATA);
    }

    /// Whether the head of a request has been sent, which waits while the peer allows no further stream.
    #[must_use]
    pub fn has_sent(&self, stream: u32) -> bool {
        stream <= self.last_sent.get()
    }

    fn allow(&self, frames: u64) {
        self.idle_frames_left.set(self.idle_frames_left.get().saturating_add(frames).min(HTTP2_IDLE_FRAMES_MAX));
    }

    /// Takes notice of a frame that has come.
    pub(super) fn arrived(&self, frame: Frame, count: &mut Count) {
        match frame {
            Frame::Data { stream, length } if length > 0 => {
                self.unread.arrived(stream, length);
                count.data += 1;
            }
            Frame::Head { stream } => {
                if self.asks {
                    self.unseen.arrived(stream);
                }
                count.heads += 1;
            }
            Frame::Data { .. } | Frame::Reset { .. } | Frame::Other => count.others += 1,
        }
    }

    /// Takes notice of a frame that has left.
    pub(super) fn left(&self, frame: Frame) {
        match frame {
            Frame::Head { stream } if self.asks => self.unseen.answered(stream, None),
            Frame::Head { stream } => self.last_sent.set(self.last_sent.get().max(stream)),
            Frame::Reset { stream, code } if self.asks => self.unseen.answered(stream, Some(code)),
            Frame::Reset { .. } | Frame::Data { .. } | Frame::Other => {}
        }
    }

    /// Counts a read. False: the peer only makes work.
    pub(super) fn received(&self, bytes: usize, count: Count) -> bool {
        self.received.set(self.received.get().saturating_add(bytes as u64));
        let now = coarse_now();
        let seconds = now.saturating_duration_since(self.counted.get()).as_secs();
        if seconds > 0 {
            self.counted.set(now);
        }
        let (earned, idle) = match self.asks {
            true => (count.heads * HTTP2_IDLE_FRAMES_PER_HEAD, 0),
            false => (0, count.heads),
        };
        let data = count.data * HTTP2_IDLE_FRAMES_PER_DATA;
        self.allow(seconds * HTTP2_IDLE_FRAMES_PER_SECOND + earned + data);
        let left = self.idle_frames_left.get().checked_sub(idle + count.others);
        left.inspect(|left| self.idle_frames_left.set(*left)).is_some()
    }
}
