//! A stream of a client's connection in HTTP/2, as a connection in HTTP/1.1 that carries one request.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::http::HeaderMap;
use bytes::Bytes;
use h2::server::SendResponse;

use crate::http2::{Given, Intake, Meter, Outlet, StreamError};
use crate::limits::HTTP2_SESSION_READ_BYTES;
use crate::net::Received;
use crate::wire::http2::read_response;

use super::Client;
use super::tls::Tls;

/// The client's side of a session that is a stream.
#[derive(Debug)]
pub struct ClientStream {
    /// Whose stream it is.
    connection: Rc<Client>,
    intake: RefCell<Intake>,
    answer: RefCell<Answer>,
    to_head: bool,
    takes_trailers: bool,
    trailers: RefCell<Option<HeaderMap>>,
    /// What follows the body of the request, kept in case it has to be sent again.
    request_trailers: RefCell<Option<HeaderMap>>,
    meter: Rc<Meter>,
    /// Whether the client has given the request up.
    given_up: Cell<bool>,
}

enum Answer {
    Awaited(SendResponse<Bytes>),
    Begun(Outlet),
}

impl ClientStream {
    /// A stream whose request has this body, and whose answer goes this way. `takes_trailers`: the client reads those of
    /// the answer.
    #[must_use]
    pub fn new(
        connection: Rc<Client>,
        intake: Intake,
        answer: SendResponse<Bytes>,
        to_head: bool,
        takes_trailers: bool,
        meter: Rc<Meter>,
    ) -> Self {
        Self {
            connection,
            intake: RefCell::new(intake),
            answer: RefCell::new(Answer::Awaited(answer)),
            to_head,
            takes_trailers,
            trailers: RefCell::default(),
            request_trailers: RefCell::default(),
            meter,
            given_up: Cell::new(false),
        }
    }

    /// The TLS of its connection, if that ends here.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.connection.transport.tls()
    }

    /// Ready once there is something to receive, or an error to collect.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.intake.borrow_mut().poll(context)
    }

    /// Ready once something can be sent, or there is an error to collect.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.answer.borrow_mut() {
            Answer::Awaited(_) => Poll::Ready(()),
            Answer::Begun(outlet) => outlet.poll_writable(context),
        }
    }

    /// Ready once the client has given the request up, or its connection has ended.
    pub fn poll_given_up(&self, context: &mut Context<'_>) -> Poll<()> {
        let polled = match &mut *self.answer.borrow_mut() {
            Answer::Awaited(answer) => answer.poll_reset(context).map(drop),
            Answer::Begun(outlet) if outlet.is_done() => Poll::Pending,
            Answer::Begun(outlet) => outlet.poll_failed(context),
        };
        polled.map(|()| self.given_up.set(true))
    }

    /// Whether the client has given the request up before it had its answer.
    pub fn is_given_up(&self) -> bool {
        self.given_up.get() || self.poll_given_up(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// See [`Transport::receive`](super::Transport::receive).
    ///
    /// # Errors
    /// When the client has reset the stream.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let most = buffer.len().min(HTTP2_SESSION_READ_BYTES);
        match self.intake.borrow_mut().give(&mut buffer[..most]) {
            Ok(Given::Bytes(count)) => Ok(Received::Bytes(count)),
            Ok(Given::Pending) => Ok(Received::Pending),
            Ok(Given::End) => Ok(Received::End),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// See [`Transport::send`](super::Transport::send). Heads come in one piece, and are always taken.
    ///
    /// # Errors
    /// When the client has reset the stream.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_send(bytes).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: StreamError) -> io::Error {
        self.given_up.set(true);
        io::Error::other(error)
    }

    fn try_send(&self, bytes: &[u8]) -> Result<usize, StreamError> {
        let mut answer = self.answer.borrow_mut();
        let mut taken = 0;
        while let Answer::Awaited(respond) = &mut *answer {
            let rest = &bytes[taken..];
            let response = read_response(rest, self.to_head).map_err(StreamError::Untranslatable)?;
            let Some((response, head)) = response else { return Ok(taken) };
            taken += head.head.len as usize;
            if response.status().is_informational() {
                respond.send_informational(response)?;
                continue;
            }
            let stream = respond.send_response(response, Outlet::is_empty(head.body))?;
            *answer = Answer::Begun(Outlet::new(stream, head.body, Rc::clone(&self.meter)));
        }
        let Answer::Begun(outlet) = &mut *answer else { return Ok(taken) };
        if let Some(trailers) = self.trailers.take() {
            outlet.set_trailers(trailers);
        }
        Ok(taken + outlet.send(&bytes[taken..])?)
    }

    /// What follows the body of the answer; to be called before its end is sent.
    pub fn set_trailers(&self, trailers: HeaderMap) {
        self.trailers.replace(Some(trailers));
    }

    /// What has followed the body of the request, once it has been received to its end.
    pub fn trailers(&self) -> Option<HeaderMap> {
        let mut kept = self.request_trailers.borrow_mut();
        if let Some(trailers) = self.intake.borrow_mut().take_trailers() {
            *kept = Some(trailers);
        }
        kept.clone()
    }

    /// Whether the client reads the trailers of its answer.
    pub fn takes_trailers(&self) -> bool {
        self.takes_trailers
    }

    /// Ends the stream so that nobody takes what was sent for the whole.
    pub fn reset(&self) {
        match &mut *self.answer.borrow_mut() {
            Answer::Awaited(answer) => answer.send_reset(h2::Reason::INTERNAL_ERROR),
            Answer::Begun(outlet) => outlet.reset(h2::Reason::INTERNAL_ERROR),
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Awaited(_) => "Awaited",
            Self::Begun(_) => "Begun",
        })
    }
}
