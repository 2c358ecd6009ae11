//! The body of a message in HTTP/1.1, as what is sent on a stream.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use crate::limits::HTTP2_SEND_BUFFER_BYTES;
use crate::wire::http1::{BodyLength, BodyLimits, BodyReader, HeadError};

use super::{Meter, StreamError};

/// Of a body that this gateway has framed itself.
const UNLIMITED: BodyLimits = BodyLimits { trailer_bytes: usize::MAX, chunk_extension_bytes: usize::MAX };

/// Bytes that are no body of this gateway's framing.
const MISFRAMED: StreamError = StreamError::Untranslatable(HeadError::Syntax);

/// One direction of a stream, after its head.
pub struct Outlet {
    stream: SendStream<Bytes>,
    body: BodyReader,
    trailers: Option<HeaderMap>,
    meter: Rc<Meter>,
}

impl Outlet {
    /// Whether a body of this length needs no frame of its own.
    #[must_use]
    pub fn is_empty(length: BodyLength) -> bool {
        matches!(length, BodyLength::None | BodyLength::Fixed(0))
    }

    /// The way for a body of this length.
    pub fn new(stream: SendStream<Bytes>, length: BodyLength, meter: Rc<Meter>) -> Self {
        Self { stream, body: BodyReader::new(length, UNLIMITED), trailers: None, meter }
    }

    /// Whether the message has been handed over to its end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// What follows the body; to be called before its end is sent.
    pub fn set_trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    /// Takes the beginning of `bytes`, as far as the peer's window and our buffer have room; the rest is to be sent
    /// again once [`Self::poll_writable`] is ready.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, StreamError> {
        let mut taken = 0;
        while taken < bytes.len() {
            if self.body.is_done() {
                return Err(MISFRAMED);
            }
            let rest = &bytes[taken..];
            let mut ahead = self.body.clone();
            let step = ahead.step(rest).map_err(|_| MISFRAMED)?;
            let room = self.room_for(step.data.len());
            let step = if step.data.len() <= room {
                self.body = ahead;
                step
            } else if room == 0 {
                self.check()?;
                break;
            } else {
                let part = &rest[..step.data.start + room];
                self.body.step(part).map_err(|_| MISFRAMED)?
            };
            taken += step.consumed;
            self.send_data(&rest[step.data], step.done)?;
            if step.consumed == 0 {
                break;
            }
        }
        Ok(taken)
    }

    /// Whoever waits for room on a stream that has ended would wait for ever, or not at all.
    fn check(&mut self) -> Result<(), StreamError> {
        match self.stream.poll_reset(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(reason)) => Err(h2::Error::from(reason).into()),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn room_for(&mut self, length: usize) -> usize {
        if length == 0 {
            return 0;
        }
        self.stream.reserve_capacity(length.min(HTTP2_SEND_BUFFER_BYTES));
        self.stream.capacity()
    }

    fn send_data(&mut self, data: &[u8], done: bool) -> Result<(), StreamError> {
        self.meter.sent(data.len());
        let trailers = if done { self.trailers.take() } else { None };
        let ends = done && trailers.is_none();
        if ends || !data.is_empty() {
            self.stream.send_data(Bytes::copy_from_slice(data), ends)?;
        }
        if let Some(trailers) = trailers {
            self.stream.send_trailers(trailers)?;
        }
        Ok(())
    }

    /// Ready once there is room, or an error to collect.
    pub fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_capacity(context).map(drop)
    }

    /// Ready once the peer has reset the stream, or the connection has ended.
    pub fn poll_failed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(context).map(drop)
    }

    /// Ends the stream so that nobody takes what was sent for the whole.
    pub fn reset(&mut self, reason: h2::Reason) {
        self.stream.send_reset(reason);
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Outlet").field("body", &self.body).finish_non_exhaustive()
    }
}
