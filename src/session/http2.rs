//! A client that speaks HTTP/2 (RFC 9113): its connection, and a task for each of its requests.
//!
//! A request is served by the code that serves those of HTTP/1.1, see [`super::http`]; what is here opens streams, bounds
//! them, and lets the connection end when it should.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use ::http::Request;
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};

use crate::failure::Failure;
use crate::http2::{Intake, Line, Meter, Patience, Refusal, Wire, header_list_bytes};
use crate::limits::{
    HTTP2_CLIENT_WINDOW_BYTES, HTTP2_FAULTS_MAX, HTTP2_FRAME_BYTES_MAX, HTTP2_LINE_BYTES,
    HTTP2_RESET_STREAMS_REMEMBERED, HTTP2_RESETS_MAX, HTTP2_SEND_BUFFER_BYTES, HTTP2_SMALL_DATA_BYTES_MAX,
    HTTP2_STREAMS_MAX, HTTP2_UNSEEN_RESETS_MAX, Limits,
};
use crate::net::{CatchPanic, Received, Scratch, Timer, Watch, within};
use crate::wire::http1::HeadError;
use crate::wire::http2::{Body, PREFACE, content_length, takes_trailers};

use super::stream::ClientStream;
use super::{Client, Context, http, tunnel};

/// How long a client may take to acknowledge that its connection ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves a client whose first bytes are `bytes`, of which the preface is the beginning, until it or we close.
pub(super) fn serve(context: Rc<Context>, client: Rc<Client>, bytes: Vec<u8>) -> impl Future<Output = ()> {
    // Boxed: it is large, and only clients of HTTP/2 should pay for it.
    Box::pin(async move {
        let limits = context.snapshot().settings.limits.clone();
        let meter = Rc::new(Meter::new(true));
        let patience = Patience { head: limits.request_head_timeout, send: limits.body_idle_timeout };
        let wire = Wire::new(ClientLine::new(&client, &context.scratch), bytes, Rc::clone(&meter), patience);
        let handshake = builder(&limits).handshake(wire);
        let refusal = match within(limits.request_head_timeout, handshake).await {
            Some(Ok(connection)) => {
                let patience = (limits.request_head_timeout, limits.http_idle_timeout);
                return Session::new(context, client, meter, connection, patience).run().await;
            }
            Some(Err(error)) => fault(&error),
            None => Some(Failure::RequestHeadTimeout),
        };
        refusal.inspect(|failure| http::tell_malformed(&context, &client, PREFACE, failure));
    })
}

/// What a client has done wrong that ended its connection; `None`: it has left.
fn fault(error: &h2::Error) -> Option<Failure> {
    match error.get_io().map(io::Error::kind) {
        None if error.is_library() => Some(Failure::RequestMalformed(HeadError::Frames)),
        Some(io::ErrorKind::TimedOut) => Some(Failure::RequestHeadTimeout),
        Some(io::ErrorKind::InvalidData) => Some(Failure::RequestMalformed(HeadError::Frames)),
        Some(_) | None => None,
    }
}

/// No upgrade by CONNECT, no push; and a stream that nobody reads must not stop the others: the connection's window has
/// room for all of theirs.
fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_window_size(HTTP2_CLIENT_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CLIENT_WINDOW_BYTES * HTTP2_STREAMS_MAX)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .max_header_list_size(header_list_bytes(limits))
        .max_send_buffer_size(HTTP2_SEND_BUFFER_BYTES)
        .max_concurrent_reset_streams(HTTP2_RESET_STREAMS_REMEMBERED)
        .reset_stream_duration(Duration::from_secs(1))
        .max_pending_accept_reset_streams(HTTP2_UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(Some(HTTP2_FAULTS_MAX))
        .data_frame_budget(HTTP2_SMALL_DATA_BYTES_MAX);
    builder
}

/// A connection being served.
struct Session {
    context: Rc<Context>,
    client: Rc<Client>,
    meter: Rc<Meter>,
    connection: Connection<Wire<ClientLine>, Bytes>,
    streams: Rc<Streams>,
    /// Requests so far.
    requests: u32,
    /// Runs while no request is under way.
    timer: Option<Timer>,
    /// How long a client may take until its first frame, and between requests.
    patience: (Duration, Duration),
    /// Whether the client has been told to send no more requests.
    is_leaving: bool,
}

/// What a connection and its streams tell each other.
#[derive(Default)]
struct Streams {
    open: Cell<u32>,
    /// How many the client has given up.
    given_up: Cell<u32>,
    /// The connection's task.
    waker: RefCell<Option<Waker>>,
}

/// A stream's place among the others, and, unless it is the only one, among the sessions of its worker.
struct Place {
    streams: Rc<Streams>,
    context: Rc<Context>,
    source: IpAddr,
}

impl Session {
    fn new(
        context: Rc<Context>,
        client: Rc<Client>,
        meter: Rc<Meter>,
        connection: Connection<Wire<ClientLine>, Bytes>,
        patience: (Duration, Duration),
    ) -> Self {
        let (streams, requests, is_leaving) = (Rc::default(), 0, false);
        let timer = Some(Timer::new(patience.0));
        Self { context, client, meter, connection, streams, requests, timer, patience, is_leaving }
    }

    async fn run(mut self) {
        let context = Rc::clone(&self.context);
        let bell = context.clients.bell();
        poll_fn(|task| {
            bell.set(task.waker());
            self.streams.waker.replace(Some(task.waker().clone()));
            self.poll(task)
        })
        .await;
        let Self { connection, streams, client, .. } = self;
        // Its streams end with it, each with a line in the log; the session lasts as long as they do.
        drop(connection);
        poll_fn(|task| {
            streams.waker.replace(Some(task.waker().clone()));
            if streams.open.get() == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // What the client still sends, windows for instance, must not turn the close into a reset.
        client.linger(&context).await;
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, task: &mut task::Context<'_>) -> Poll<()> {
        self.leave_if_due(task);
        loop {
            match self.connection.poll_accept(task) {
                Poll::Ready(Some(Ok((request, answer)))) => self.open(request, answer),
                Poll::Ready(Some(Err(error))) => {
                    self.tell_unseen();
                    tracing::debug!(%error, "a client's connection in HTTP/2 has failed");
                    let failure = fault(&error);
                    failure.inspect(|failure| http::tell_malformed(&self.context, &self.client, PREFACE, failure));
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    self.tell_unseen();
                    return Poll::Ready(());
                }
                Poll::Pending => break,
            }
        }
        self.tell_unseen();
        if !self.is_leaving || self.streams.open.get() > 0 {
            return Poll::Pending;
        }
        // It closes once the client has acknowledged; one that does not is not waited for.
        self.timer.get_or_insert_with(|| Timer::new(FAREWELL)).poll(task)
    }

    /// Tells of requests that h2 has refused without handing them over.
    fn tell_unseen(&self) {
        while let Some(refusal) = self.meter.unseen.refused() {
            match refusal {
                Refusal::Oversized => http::tell_unseen(&self.context, &self.client, 431, HeadError::TooLarge),
                Refusal::Malformed => http::tell_unseen(&self.context, &self.client, 0, HeadError::Frames),
                Refusal::Crowded => self.context.counters.borrow_mut().sessions_refused += 1,
            }
        }
    }

    /// Tells the client to send no further request, if it is time: nothing has happened for too long, we are draining, or
    /// most of what it asks for it takes back.
    fn leave_if_due(&mut self, task: &task::Context<'_>) {
        if self.is_leaving {
            return;
        }
        let (given_up, open) = (self.streams.given_up.get(), self.streams.open.get());
        let is_flood = given_up > HTTP2_RESETS_MAX && given_up > self.requests / 2;
        if open > 0 {
            self.timer = None;
        }
        let is_idle = open == 0 && self.poll_idle(task);
        if is_flood {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        } else if is_idle || self.context.draining.get() {
            self.connection.graceful_shutdown();
        } else {
            return;
        }
        (self.is_leaving, self.timer) = (true, None);
    }

    /// Whether nothing has happened for too long. The first wait is for the settings of the client, which it owes at once
    /// (RFC 9113 section 3.4).
    fn poll_idle(&mut self, task: &task::Context<'_>) -> bool {
        let (first, later) = self.patience;
        if self.timer.get_or_insert_with(|| Timer::new(later)).poll(task).is_pending() {
            return false;
        }
        let is_first = self.requests == 0 && first != later;
        let has_spoken = self.meter.received.get() > PREFACE.len() as u64;
        if !is_first || !has_spoken {
            return true;
        }
        self.patience.0 = later;
        self.timer.insert(Timer::new(later)).poll(task).is_ready()
    }

    /// Serves a request, or refuses it unseen if too many are under way, here or from its address: those that the client
    /// has given up, but that have not ended yet, count.
    fn open(&mut self, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
        self.requests = self.requests.saturating_add(1);
        self.meter.unseen.accepted(answer.stream_id().as_u32());
        let has_room = self.streams.open.get() < HTTP2_STREAMS_MAX;
        let place = has_room.then(|| Place::take(&self.streams, &self.context, self.client.peer().ip())).flatten();
        let Some(place) = place else {
            self.context.counters.borrow_mut().sessions_refused += 1;
            answer.send_reset(Reason::REFUSED_STREAM);
            return;
        };
        let (context, connection) = (Rc::clone(&self.context), Rc::clone(&self.client));
        let meter = Rc::clone(&self.meter);
        monoio::spawn(async move {
            let panicked = {
                let (context, connection) = (Rc::clone(&context), Rc::clone(&connection));
                CatchPanic::new(serve_stream(context, connection, request, answer, meter, place)).await.is_err()
            };
            if panicked {
                context.counters.borrow_mut().sessions_panicked += 1;
                tunnel::tell_panic(&context, &connection);
            }
        });
    }
}

async fn serve_stream(
    context: Rc<Context>,
    connection: Rc<Client>,
    request: Request<RecvStream>,
    answer: SendResponse<Bytes>,
    meter: Rc<Meter>,
    place: Place,
) {
    let (parts, stream) = request.into_parts();
    let ends = stream.is_end_stream();
    let body =
        if ends || parts.headers.contains_key(::http::header::CONTENT_LENGTH) { Body::Plain } else { Body::Chunked };
    let trailer_bytes_max = context.snapshot().settings.limits.trailer_bytes;
    let length = content_length(&parts.headers);
    let intake = Intake::new(Vec::new(), (body, length), stream, trailer_bytes_max);
    let to_head = parts.method == ::http::Method::HEAD;
    let stream =
        ClientStream::new(Rc::clone(&connection), intake, answer, to_head, takes_trailers(&parts.headers), meter);
    let client = connection.with_stream(stream);
    http::serve_stream(&context, &client, &parts, ends).await;
    if client.transport.stream().is_some_and(ClientStream::is_given_up) {
        place.streams.given_up.set(place.streams.given_up.get().saturating_add(1));
    }
}

impl Place {
    /// `None`: the limits of sessions leave room for no other stream.
    fn take(streams: &Rc<Streams>, context: &Rc<Context>, source: IpAddr) -> Option<Self> {
        let open = streams.open.get();
        if open > 0 {
            if !context.clients.has_room(source, &context.snapshot().settings.limits) {
                return None;
            }
            context.clients.enter_stream(source);
        }
        streams.open.set(open + 1);
        Some(Self { streams: Rc::clone(streams), context: Rc::clone(context), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.streams.open.get().saturating_sub(1);
        self.streams.open.set(open);
        if open > 0 {
            self.context.clients.leave_stream(self.source);
        }
        // The connection may have waited for this.
        if let Some(waker) = self.streams.waker.take() {
            waker.wake();
        }
    }
}

/// A client's connection as the carrier of frames.
struct ClientLine {
    client: Rc<Client>,
    scratch: Rc<Scratch>,
    /// Plain text that has not been asked for yet, where the client's TLS ends here.
    plain: Vec<u8>,
    readable: Watch,
    writable: Watch,
    others: Watch,
}

impl ClientLine {
    fn new(client: &Rc<Client>, scratch: &Rc<Scratch>) -> Self {
        // Errors of the polls show at the calls that follow.
        let polled = Rc::clone(client);
        let readable = Watch::new(async move || drop(polled.transport.readable().await));
        let polled = Rc::clone(client);
        let writable = Watch::new(async move || drop(polled.transport.writable().await));
        let polled = Rc::clone(client);
        let others = Watch::new(async move || drop(polled.transport.give_way().await));
        let (client, scratch) = (Rc::clone(client), Rc::clone(scratch));
        Self { client, scratch, plain: Vec::new(), readable, writable, others }
    }
}

impl Line for ClientLine {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        if self.plain.is_empty() {
            if self.client.transport.tls().is_none() {
                return self.client.transport.receive(buffer);
            }
            // Records are opened whole, and h2 asks for less.
            let mut input = self.scratch.input.borrow_mut();
            match self.client.transport.receive(&mut input[..HTTP2_LINE_BYTES])? {
                Received::Bytes(count) => self.plain.extend_from_slice(&input[..count]),
                received @ (Received::Pending | Received::End) => return Ok(received),
            }
        }
        let count = self.plain.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.plain[..count]);
        if count == self.plain.len() {
            self.plain = Vec::new();
        } else {
            self.plain.drain(..count);
        }
        Ok(Received::Bytes(count))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.client.transport.send(bytes)
    }

    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn finish(&mut self) {
        // What the socket does not take now waits for the end of the session.
        let _ = self.client.transport.try_finish_sending();
    }

    fn poll_readable(&self, context: &mut task::Context<'_>) -> Poll<()> {
        self.readable.poll(context)
    }

    fn poll_writable(&self, context: &mut task::Context<'_>) -> Poll<()> {
        self.writable.poll(context)
    }

    fn poll_others(&self, context: &mut task::Context<'_>) -> Poll<()> {
        self.others.poll(context)
    }
}
