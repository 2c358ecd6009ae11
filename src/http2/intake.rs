//! What a peer sends on a stream, as the bytes of a message in HTTP/1.1.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use http::HeaderMap;

use crate::wire::http1::{write_chunk, write_last_chunk};
use crate::wire::http2::{Body, forwardable};

use super::{Meter, StreamError};

/// Room that is left for the framing of a chunk: its size, two line ends, and the last chunk.
const FRAMING_BYTES: usize = 32;

/// One direction of a stream.
pub struct Intake {
    /// What is left of the head.
    head: Bytes,
    body: Body,
    stream: RecvStream,
    /// A DATA frame, as far as it has not been given.
    data: Bytes,
    /// The last byte of a body of known length, and how much of it is missing. A reader of HTTP/1.1 takes the message for
    /// ended with it, and would let the stream go, which would look given up to a peer that has yet to say that it has
    /// ended: so it is kept until then.
    last: Bytes,
    missing: Option<u64>,
    state: State,
    trailers: Option<HeaderMap>,
    trailer_bytes_max: usize,
    /// Who keeps count of what has come in small pieces.
    meter: Option<Rc<Meter>>,
}

enum State {
    Open,
    /// The peer has finished; the end of a chunked body has not been given yet.
    Ending,
    Ended,
    Failed(Option<StreamError>),
}

/// The outcome of [`Intake::give`].
#[derive(Debug)]
pub enum Given {
    /// This many bytes.
    Bytes(usize),
    /// Nothing at the moment.
    Pending,
    /// The message has ended.
    End,
}

impl Intake {
    /// A message whose head is written in HTTP/1.1 already, with the length of its body if that is known.
    pub fn new(
        head: Vec<u8>,
        (body, length): (Body, Option<u64>),
        stream: RecvStream,
        trailer_bytes_max: usize,
    ) -> Self {
        let (data, last, state, trailers) = (Bytes::new(), Bytes::new(), State::Open, None);
        let (head, missing, meter) = (head.into(), length, None);
        Self { head, body, stream, data, last, missing, state, trailers, trailer_bytes_max, meter }
    }

    /// The same, of a stream whose small frames are counted, see [`Unread`](super::Unread).
    #[must_use]
    pub fn counted_by(self, meter: Rc<Meter>) -> Self {
        Self { meter: Some(meter), ..self }
    }

    /// Ready once there is something to give: bytes, the end, or a failure.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.head().is_empty() && self.data.is_empty() && matches!(self.state, State::Open) {
            match self.stream.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => self.take(data),
                // Everything is there, though the peer has closed before anybody looked: h2 forgets then that it had finished.
                Poll::Ready(Some(Err(_))) if self.missing == Some(0) => self.end(Ok(None)),
                Poll::Ready(Some(Err(error))) => self.state = State::Failed(Some(error.into())),
                Poll::Ready(None) => match self.stream.poll_trailers(context) {
                    Poll::Ready(result) => self.end(result),
                    Poll::Pending => return Poll::Pending,
                },
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// What may be given of the head: of a message without a body it is the last that is known to come.
    fn head(&self) -> &[u8] {
        let is_kept = self.missing == Some(0) && !matches!(self.state, State::Ending | State::Ended);
        if is_kept && self.last.is_empty() && self.data.is_empty() { &[] } else { &self.head }
    }

    fn take(&mut self, mut data: Bytes) {
        if let Some(meter) = &self.meter {
            meter.unread.taken(self.stream.stream_id().as_u32(), data.len());
        }
        if let Some(missing) = &mut self.missing {
            *missing = missing.saturating_sub(data.len() as u64);
            if *missing == 0 && !data.is_empty() && !self.stream.is_end_stream() {
                self.last = data.split_off(data.len() - 1);
            }
        }
        self.data = data;
    }

    fn end(&mut self, trailers: Result<Option<HeaderMap>, h2::Error>) {
        self.state = match trailers {
            Ok(None) => State::Ending,
            Ok(Some(trailers)) => match forwardable(trailers, self.trailer_bytes_max) {
                Some(trailers) => {
                    self.trailers = Some(trailers);
                    State::Ending
                }
                None => State::Failed(Some(StreamError::Trailers)),
            },
            Err(error) => State::Failed(Some(error.into())),
        };
        if let State::Ending = self.state {
            self.data = std::mem::take(&mut self.last);
        }
    }

    /// Writes what there is to the beginning of `buffer`, without waiting. Whoever has no use for more leaves it to the
    /// peer's window.
    ///
    /// # Errors
    /// [`StreamError`], after everything that came before it.
    pub fn give(&mut self, buffer: &mut [u8]) -> Result<Given, StreamError> {
        let mut given = 0;
        // Whoever waits afterwards is entered again by that wait.
        while self.poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            let room = &mut buffer[given..];
            let count = match (self.head().len(), self.data.len()) {
                (1.., _) => take(&mut self.head, room),
                (0, 1..) => self.give_data(room),
                // The failure is for the next call.
                (0, 0) if given > 0 && matches!(self.state, State::Failed(_)) => break,
                (0, 0) => self.give_end(room)?,
            };
            if count == 0 {
                break;
            }
            given += count;
        }
        match self.state {
            _ if given > 0 => Ok(Given::Bytes(given)),
            State::Ended => Ok(Given::End),
            State::Open | State::Ending | State::Failed(_) => Ok(Given::Pending),
        }
    }

    fn give_data(&mut self, room: &mut [u8]) -> usize {
        let taken = self.data.len();
        let written = match self.body {
            Body::Plain => take(&mut self.data, room),
            Body::Chunked => {
                let count = self.data.len().min(room.len().saturating_sub(FRAMING_BYTES));
                let mut chunk = Vec::new();
                write_chunk(&self.data[..count], &mut chunk);
                self.data.advance(count);
                room[..chunk.len()].copy_from_slice(&chunk);
                chunk.len()
            }
        };
        let taken = taken - self.data.len();
        // It fails only for more than was received.
        let _ = self.stream.flow_control().release_capacity(taken);
        written
    }

    fn give_end(&mut self, room: &mut [u8]) -> Result<usize, StreamError> {
        match (&mut self.state, self.body) {
            (State::Open | State::Ended, _) => Ok(0),
            // It has been told of; whoever asks again is told that nothing will come.
            (State::Failed(error), _) => match error.take() {
                Some(error) => Err(error),
                None => Err(StreamError::Connection(h2::Reason::CANCEL.into())),
            },
            (State::Ending, Body::Chunked) if room.len() < FRAMING_BYTES => Ok(0),
            (State::Ending, body) => {
                self.state = State::Ended;
                let mut end = Vec::new();
                if body == Body::Chunked {
                    write_last_chunk(&mut end);
                }
                room[..end.len()].copy_from_slice(&end);
                Ok(end.len())
            }
        }
    }

    /// Whether the peer has finished or failed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !matches!(self.state, State::Open)
    }

    /// The trailers, once the end has been given.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }
}

fn take(from: &mut Bytes, room: &mut [u8]) -> usize {
    let count = from.len().min(room.len());
    from.copy_to_slice(&mut room[..count]);
    count
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Intake").field("data", &self.data.len()).finish_non_exhaustive()
    }
}
