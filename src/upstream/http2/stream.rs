//! One request and its answer.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Buf;
use h2::client::ResponseFuture;
use http::{HeaderMap, StatusCode};

use crate::http2::{Given, Intake, Outlet, StreamError};
use crate::limits::HTTP2_SESSION_READ_BYTES;
use crate::net::{Received, Socket, Timer, coarse_now};
use crate::upstream::account::Account;
use crate::wire::http2::{content_length, read_request, write_response};

use super::Link;

/// How long a connection may bring nothing at all before a request that is given up takes it for dead.
const SILENCE: Duration = Duration::from_secs(1);

/// A stream, or the place for one until the request is sent.
pub struct Stream {
    link: Rc<Link>,
    inner: RefCell<Inner>,
    /// Its number, once the request is sent.
    id: Cell<Option<u32>>,
    wants_trailers: Cell<bool>,
    started: Instant,
    /// What the connection had brought by then.
    received_before: u64,
}

struct Inner {
    answer: Answer,
    outlet: Option<Outlet>,
    to_head: bool,
    trailers: Option<HeaderMap>,
    /// Interim responses that have not been taken.
    interim: Vec<u8>,
    /// Runs while the request waits for the upstream to allow another stream.
    unsent: Option<Timer>,
    /// Who wants to know when the request is given up, though it waits for something else.
    waker: Option<Waker>,
}

enum Answer {
    /// The request has not been sent.
    Unasked,
    Awaited(ResponseFuture),
    Begun(Box<Intake>),
    Failed(Option<StreamError>),
}

impl Stream {
    /// Takes a place on a connection. `None`: it has none.
    #[must_use]
    pub fn open(link: &Rc<Link>) -> Option<Self> {
        if link.is_over() || !link.has_room() {
            return None;
        }
        link.enter();
        let inner = Inner {
            answer: Answer::Unasked,
            outlet: None,
            to_head: false,
            trailers: None,
            interim: Vec::new(),
            unsent: None,
            waker: None,
        };
        Some(Self {
            link: Rc::clone(link),
            inner: RefCell::new(inner),
            id: Cell::new(None),
            wants_trailers: Cell::new(false),
            started: coarse_now(),
            received_before: link.meter.received.get(),
        })
    }

    /// Whom the connection leads to, and our end of it.
    #[must_use]
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        self.link.addresses
    }

    /// The socket of the connection.
    #[must_use]
    pub fn share_socket(&self) -> Rc<Socket> {
        Rc::clone(&self.link.socket)
    }

    /// Who counts the connection.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.link.account()
    }

    /// Whether the connection is inside TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.link.secure
    }

    /// See [`Connection::want_trailers`](crate::upstream::connection::Connection::want_trailers).
    pub fn want_trailers(&self) {
        self.wants_trailers.set(true);
    }

    /// See [`Connection::set_trailers`](crate::upstream::connection::Connection::set_trailers).
    pub fn set_trailers(&self, trailers: HeaderMap) {
        let mut inner = self.inner.borrow_mut();
        match &mut inner.outlet {
            Some(outlet) => outlet.set_trailers(trailers),
            None => inner.trailers = Some(trailers),
        }
    }

    /// See [`Connection::take_trailers`](crate::upstream::connection::Connection::take_trailers).
    pub fn take_trailers(&self) -> Option<HeaderMap> {
        match &mut self.inner.borrow_mut().answer {
            Answer::Begun(intake) => intake.take_trailers(),
            Answer::Unasked | Answer::Awaited(_) | Answer::Failed(_) => None,
        }
    }

    /// Takes the beginning of `bytes`, those of a request in HTTP/1.1 whose head comes in one piece.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn send(self: &Rc<Self>, bytes: &[u8]) -> Result<usize, StreamError> {
        let mut inner = self.inner.borrow_mut();
        let taken = if inner.outlet.is_none() { self.ask(&mut inner, bytes)? } else { 0 };
        let Some(outlet) = &mut inner.outlet else { return Ok(taken) };
        Ok(taken + outlet.send(&bytes[taken..])?)
    }

    fn ask(self: &Rc<Self>, inner: &mut Inner, bytes: &[u8]) -> Result<usize, StreamError> {
        let link = &*self.link;
        let request = read_request(bytes, link.secure, self.wants_trailers.get());
        let Some((request, head)) = request.map_err(StreamError::Untranslatable)? else { return Ok(0) };
        let ends = Outlet::is_empty(head.body);
        inner.to_head = request.method() == http::Method::HEAD;
        let (response, stream) = match link.sender.clone().send_request(request, ends) {
            Ok(sent) => sent,
            Err(error) => {
                // The connection has ended since its look: nobody has seen the request.
                inner.answer = Answer::Failed(Some(StreamError::Refused(error)));
                return Err(StreamError::Reset(h2::Reason::REFUSED_STREAM.into()));
            }
        };
        let id = response.stream_id().as_u32();
        link.meter.unread.open(id);
        link.asked.insert(id, self);
        self.id.set(Some(id));
        inner.answer = Answer::Awaited(response);
        let mut outlet = Outlet::new(stream, head.body, Rc::clone(&link.meter));
        inner.trailers.take().into_iter().for_each(|trailers| outlet.set_trailers(trailers));
        inner.outlet = Some(outlet);
        Ok(head.head.len as usize)
    }

    /// Gives the request up, with all that has come for it and that nobody has taken.
    pub(super) fn give_up(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.outlet.iter_mut().for_each(|outlet| outlet.reset(h2::Reason::ENHANCE_YOUR_CALM));
        inner.answer = Answer::Failed(Some(StreamError::Unread));
        inner.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Ready once there is an error to collect, for whoever can take nothing else at the moment.
    pub fn poll_failed(&self, context: &Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        if let Answer::Failed(_) = inner.answer {
            return Poll::Ready(());
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Ready once there is something to receive, or an error to collect.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        match (inner.poll(&self.link, context), self.id.get()) {
            (Poll::Pending, Some(id)) => inner.poll_unsent(&self.link, id, context),
            (polled, _) => polled,
        }
    }

    /// Ready once something can be sent, or there is an error to collect.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.inner.borrow_mut().outlet {
            Some(outlet) => outlet.poll_writable(context),
            None => Poll::Ready(()),
        }
    }

    /// Receives what the upstream answers, in HTTP/1.1, without waiting.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Received, StreamError> {
        let mut inner = self.inner.borrow_mut();
        if !inner.interim.is_empty() {
            let count = inner.interim.len().min(buffer.len());
            inner.interim.as_slice().copy_to_slice(&mut buffer[..count]);
            inner.interim.drain(..count);
            return Ok(Received::Bytes(count));
        }
        match &mut inner.answer {
            Answer::Unasked | Answer::Awaited(_) => Ok(Received::Pending),
            Answer::Begun(intake) => {
                let most = buffer.len().min(HTTP2_SESSION_READ_BYTES);
                Ok(match intake.give(&mut buffer[..most])? {
                    Given::Bytes(count) => Received::Bytes(count),
                    Given::Pending => Received::Pending,
                    Given::End => Received::End,
                })
            }
            Answer::Failed(error) => {
                Err(error.take().unwrap_or_else(|| StreamError::Connection(h2::Reason::CANCEL.into())))
            }
        }
    }
}

impl Inner {
    /// A request that the upstream leaves no room for, though it did when the stream was taken, must not wait until its
    /// deadline: it has not been sent, so another connection will do. Ready once it has waited for too long.
    fn poll_unsent(&mut self, link: &Link, id: u32, context: &Context<'_>) -> Poll<()> {
        if link.meter.has_sent(id) || !matches!(self.answer, Answer::Awaited(_)) {
            self.unsent = None;
            return Poll::Pending;
        }
        loop {
            ready!(self.unsent.get_or_insert_with(|| Timer::new(link.patience)).poll(context));
            self.unsent = None;
            if link.is_crowded() {
                break;
            }
            // It waits for room in the socket, and the connection sees to that.
        }
        link.retire();
        self.outlet.iter_mut().for_each(|outlet| outlet.reset(h2::Reason::CANCEL));
        self.answer = Answer::Failed(Some(StreamError::Crowded));
        Poll::Ready(())
    }

    fn poll(&mut self, link: &Link, context: &mut Context<'_>) -> Poll<()> {
        if !self.interim.is_empty() {
            return Poll::Ready(());
        }
        match &mut self.answer {
            Answer::Unasked => return Poll::Pending,
            Answer::Failed(_) => return Poll::Ready(()),
            Answer::Begun(intake) => return intake.poll(context),
            Answer::Awaited(response) => match response.poll_informational(context) {
                Poll::Ready(Some(Ok(interim))) => {
                    let (parts, ()) = interim.into_parts();
                    if let Err(error) = write_response(&parts, false, self.to_head, &mut self.interim) {
                        self.answer = Answer::Failed(Some(StreamError::Untranslatable(error)));
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(Some(Err(_)) | None) => {}
                Poll::Pending => return Poll::Pending,
            },
        }
        let Answer::Awaited(response) = &mut self.answer else { return Poll::Pending };
        self.answer = match ready!(Pin::new(response).poll(context)) {
            Ok(response) => self.begin(link, response),
            Err(error) => Answer::Failed(Some(error.into())),
        };
        Poll::Ready(())
    }

    fn begin(&self, link: &Link, response: http::Response<h2::RecvStream>) -> Answer {
        let (parts, stream) = response.into_parts();
        let mut head = Vec::new();
        match write_response(&parts, stream.is_end_stream(), self.to_head, &mut head) {
            Ok(body) => {
                let intake = Intake::new(head, (body, length(&parts, self.to_head)), stream, link.trailer_bytes_max);
                Answer::Begun(Box::new(intake.counted_by(Rc::clone(&link.meter))))
            }
            Err(error) => Answer::Failed(Some(StreamError::Untranslatable(error))),
        }
    }
}

/// How long the body of a response is, if its head says so.
fn length(parts: &http::response::Parts, to_head: bool) -> Option<u64> {
    if to_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Some(0);
    }
    content_length(&parts.headers)
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(id) = self.id.get() {
            self.link.meter.unread.close(id);
            self.link.asked.remove(id);
        }
        let answer = &self.inner.get_mut().answer;
        let is_unanswered = matches!(answer, Answer::Awaited(_) | Answer::Failed(_));
        let is_given_up = match answer {
            Answer::Awaited(_) => true,
            Answer::Begun(intake) => !intake.has_ended(),
            Answer::Unasked | Answer::Failed(_) => false,
        };
        let is_silent = self.link.meter.received.get() == self.received_before;
        if is_unanswered && is_silent && coarse_now().saturating_duration_since(self.started) > SILENCE {
            // A connection that has died unnoticed would take every further request with it.
            self.link.retire();
        }
        self.link.leave(is_given_up);
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stream").field("link", &self.link).finish_non_exhaustive()
    }
}
