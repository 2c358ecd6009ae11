//! One request and its response over one upstream connection, both bodies streaming at once.
//!
//! Memory is bounded by reading only what can be passed on: while one side cannot take more, the other is not read.
//! At most one read's worth of bytes waits for each side.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::limits::Limits;
use crate::net::{Received, Socket, within};
use crate::upstream::connection::{Connection, Intake};
use crate::wire::http1::{
    BodyLength, BodyLimits, BodyReader, HeadLimits, Parsed, RequestEdits, ResponseEdits, ResponseHead, Version,
    downstream_length, parse_response, write_chunk, write_last_chunk, write_request, write_response,
};

use super::After;
use super::forward::{Deadline, Plan};
use super::turn::{Ending, Turn};

/// Statuses below this one are interim (RFC 9110 section 15.2).
const FINAL_STATUS_MIN: u16 = 200;

/// How often a client is looked at that waits for a silent upstream.
const CLIENT_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// An exchange under way.
struct Exchange<'t, 'a> {
    turn: &'t mut Turn<'a>,
    connection: Connection,
    /// Where the request body stands.
    upload: BodyReader,
    /// The response, once its head is there.
    response: Option<Response>,
    /// The beginning of a response head that has not ended yet.
    head_bytes: Vec<u8>,
    interim_count: usize,
    /// Bytes for the client that its socket has not taken yet.
    pending: Vec<u8>,
    sent_at: Instant,
    terms: Terms<'t>,
}

/// The terms of one attempt.
#[derive(Clone, Copy)]
pub(super) struct Terms<'t> {
    /// When the response must be complete.
    pub(super) deadline: Deadline,
    /// When its head must be there.
    pub(super) head_deadline: Deadline,
    /// Statuses that are not passed on, but tried again.
    pub(super) retry_on: &'t [u16],
    /// Whether the connection has served a request before.
    pub(super) reused: bool,
}

/// Why an exchange came to nothing before the client has seen any of it.
pub(super) enum Broken {
    /// It failed.
    Failure(Failure),
    /// The upstream answered with a status of [`Terms::retry_on`].
    Status,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// A response of which the head has been passed on.
struct Response {
    body: BodyReader,
    /// The framing towards the client.
    length: BodyLength,
    upstream_keeps: bool,
    client_keeps: bool,
    done: bool,
}

/// What an exchange waits for.
#[derive(Clone, Copy)]
enum Ready {
    UpstreamReadable,
    UpstreamWritable,
    ClientReadable,
    ClientWritable,
}

/// Sends the request of `turn` and passes the response on. The connection comes back if it may serve another request.
///
/// # Errors
/// A failure before anything was sent to the client. Later ones are part of the ending.
pub(super) async fn run(
    turn: &mut Turn<'_>,
    plan: &Plan<'_>,
    connection: Connection,
    terms: Terms<'_>,
) -> Result<(Ending, Option<Connection>), Broken> {
    let upload = BodyReader::new(turn.head.body, body_limits(&turn.snapshot.settings.limits));
    let mut exchange = Exchange {
        turn,
        connection,
        upload,
        response: None,
        head_bytes: Vec::new(),
        interim_count: 0,
        pending: Vec::new(),
        sent_at: Instant::now(),
        terms,
    };
    exchange.send_request(plan)?;
    while !exchange.is_over() {
        if let Err(broken) = exchange.advance().await {
            return exchange.break_off(broken);
        }
    }
    Ok(exchange.finish())
}

impl Exchange<'_, '_> {
    /// Sends the head and as much of the body as is here already, in one piece.
    fn send_request(&mut self, plan: &Plan<'_>) -> Result<(), Failure> {
        let scratch = &self.turn.context.scratch;
        let mut plain = scratch.plain.borrow_mut();
        plain.clear();
        let bytes = self.turn.inbound.bytes();
        let host = plan.host.unwrap_or_else(|| self.turn.head.authority.text(bytes));
        let edits = RequestEdits { target: plan.target.text(bytes), host, upgrade: false };
        write_request(&self.turn.head, bytes, &edits, &mut plain);
        let taken = upload(&mut self.upload, self.turn.head.body, self.turn.inbound.untaken(), &mut plain)?;
        self.turn.inbound.take(taken.consumed);
        self.turn.story.bytes_received = taken.data;
        let result = self.connection.send(&plain, scratch);
        plain.clear();
        self.sent_at = Instant::now();
        result.map_err(|error| self.turn.story.transport(Failure::UpstreamClosed, &error.to_string()))
    }

    /// Whether the response has been passed on whole.
    fn is_over(&self) -> bool {
        self.pending.is_empty() && self.response.as_ref().is_some_and(|response| response.done)
    }

    /// Waits for whatever can make progress, and makes it.
    async fn advance(&mut self) -> Result<(), Broken> {
        self.turn.story.ended = None;
        match self.wait().await? {
            Ready::UpstreamReadable => self.receive_response()?,
            Ready::UpstreamWritable => {
                let flushed = self.connection.flush();
                flushed.map_err(|error| self.turn.story.transport(Failure::UpstreamClosed, &error.to_string()))?;
            }
            Ready::ClientReadable => self.receive_body()?,
            Ready::ClientWritable => self.send_pending()?,
        }
        Ok(())
    }

    /// Waits for progress. A client that has vanished shows only here while its upstream thinks: nothing is read from
    /// it, and nothing sent to it. It is looked at every now and then, since a poll of its own would cost every request.
    async fn wait(&self) -> Result<Ready, Failure> {
        let (mut wait, silence) = self.patience();
        loop {
            let pause = wait.min(CLIENT_LOOK_INTERVAL);
            if let Some(ready) = within(pause, self.ready()).await {
                return Ok(ready);
            }
            wait -= pause;
            if self.turn.client.socket.has_failed() {
                return Err(Failure::DownstreamClosed);
            }
            if wait.is_zero() {
                return Err(silence);
            }
        }
    }

    /// How long to wait, and what it means when nothing happens.
    fn patience(&self) -> (Duration, Failure) {
        let limits = &self.turn.snapshot.settings.limits;
        let (limit, silence) = if !self.upload.is_done() && self.response.is_none() && !self.connection.is_blocked() {
            (limits.body_idle_timeout, Failure::RequestBodyTimeout)
        } else if self.response.is_some() || self.connection.is_blocked() {
            (limits.body_idle_timeout, Failure::UpstreamTimeout)
        } else {
            // The upstream may think: Istio sets no limit unless the route has a timeout.
            (limits.http_idle_timeout, Failure::UpstreamTimeout)
        };
        let deadline = if self.response.is_some() { self.terms.deadline } else { self.terms.head_deadline };
        match deadline.cut(limit) {
            (wait, true) => (wait, Failure::RequestDeadline),
            (wait, false) => (wait, silence),
        }
    }

    async fn ready(&self) -> Ready {
        let (upstream, client) = (&self.connection.socket, &self.turn.client.socket);
        let sends = self.connection.is_blocked();
        let answers = !self.pending.is_empty();
        let receives = self.response.as_ref().is_none_or(|response| !response.done);
        let mut upstream_writable = pin!(writable(upstream, sends));
        let mut client_readable = pin!(readable(client, !sends && !self.upload.is_done()));
        let mut client_writable = pin!(writable(client, answers));
        poll_fn(|context| {
            if receives && !answers && upstream.poll_readable(context).is_ready() {
                return Poll::Ready(Ready::UpstreamReadable);
            }
            if client_writable.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ready::ClientWritable);
            }
            if upstream_writable.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ready::UpstreamWritable);
            }
            client_readable.as_mut().poll(context).map(|()| Ready::ClientReadable)
        })
        .await
    }

    /// Passes on what the client has sent of its body.
    fn receive_body(&mut self) -> Result<(), Failure> {
        let scratch = &self.turn.context.scratch;
        let mut input = scratch.input.borrow_mut();
        let count = match self.turn.client.socket.receive(&mut input) {
            Ok(Received::Bytes(count)) => count,
            Ok(Received::Pending) => return Ok(()),
            Ok(Received::End) | Err(_) => return Err(Failure::DownstreamClosed),
        };
        let mut plain = scratch.plain.borrow_mut();
        plain.clear();
        let taken = upload(&mut self.upload, self.turn.head.body, &input[..count], &mut plain)?;
        self.turn.inbound.streamed(&input[taken.consumed..count]);
        drop(input);
        self.turn.story.bytes_received += taken.data;
        let result = self.connection.send(&plain, scratch);
        plain.clear();
        self.sent_at = Instant::now();
        result.map_err(|error| self.turn.story.transport(Failure::UpstreamClosed, &error.to_string()))
    }

    /// Passes on what the upstream has sent.
    fn receive_response(&mut self) -> Result<(), Broken> {
        let context = self.turn.context;
        let mut plain = context.scratch.plain.borrow_mut();
        plain.clear();
        let intake = self.connection.receive(&context.scratch, &mut plain);
        let mut output = context.scratch.output.borrow_mut();
        output.clear();
        let mut result = if plain.is_empty() { Ok(()) } else { self.pass_on(&plain, &mut output) };
        plain.clear();
        if result.is_ok() {
            result = match intake {
                Ok(Intake::Data) if self.connection.has_ended() => {
                    self.upstream_ended(true, &mut output).map_err(Broken::from)
                }
                Ok(Intake::Data | Intake::Pending) => Ok(()),
                Ok(Intake::End) => self.upstream_ended(true, &mut output).map_err(Broken::from),
                Ok(Intake::Truncated) => self.upstream_ended(false, &mut output).map_err(Broken::from),
                Err(error) => {
                    self.turn.story.transport_failure = Some(error.to_string());
                    self.upstream_ended(false, &mut output).map_err(Broken::from)
                }
            };
        }
        let sent = self.turn.client.socket.send(&output).map_err(|_| Failure::DownstreamClosed)?;
        self.pending.extend_from_slice(&output[sent..]);
        output.clear();
        result
    }

    /// Appends to `output` what the client gets of `plain`.
    fn pass_on(&mut self, plain: &[u8], output: &mut Vec<u8>) -> Result<(), Broken> {
        if self.response.is_some() {
            return Ok(self.pass_body(plain, output)?);
        }
        if self.head_bytes.is_empty() {
            return self.pass_head(plain, output);
        }
        let mut bytes = std::mem::take(&mut self.head_bytes);
        bytes.extend_from_slice(plain);
        self.pass_head(&bytes, output)
    }

    fn pass_head(&mut self, mut bytes: &[u8], output: &mut Vec<u8>) -> Result<(), Broken> {
        let limits = &self.turn.snapshot.settings.limits;
        let head_limits = HeadLimits { bytes: limits.request_head_bytes, fields: limits.request_headers };
        let interim_max = limits.interim_responses;
        let to_head = self.turn.head.method.of(self.turn.inbound.bytes()) == b"HEAD";
        loop {
            let head = match parse_response(bytes, head_limits, to_head) {
                Parsed::Complete(head) => head,
                Parsed::Incomplete => {
                    self.head_bytes = bytes.to_vec();
                    return Ok(());
                }
                Parsed::Rejected(error) => {
                    return Err(self.turn.story.transport(Failure::ResponseMalformed, &error.to_string()).into());
                }
            };
            let (head_bytes, rest) = bytes.split_at(head.head.len as usize);
            if head.status >= FINAL_STATUS_MIN {
                if self.terms.retry_on.contains(&head.status) {
                    return Err(Broken::Status);
                }
                self.begin_response(&head, head_bytes, output);
                return Ok(self.pass_body(rest, output)?);
            }
            self.interim_count += 1;
            // No upgrade is forwarded, so an upstream that switches protocols breaks the rules (RFC 9110 section 7.8).
            if head.status == 101 || self.interim_count > interim_max {
                let reason = "unexpected interim response";
                return Err(self.turn.story.transport(Failure::ResponseMalformed, reason).into());
            }
            if self.turn.head.version == Version::Http11 {
                write_response(&head, head_bytes, ResponseEdits { keep_alive: true, http10: false }, output);
            }
            bytes = rest;
        }
    }

    fn begin_response(&mut self, head: &ResponseHead, bytes: &[u8], output: &mut Vec<u8>) {
        let now = Instant::now();
        // On a connection that stood ready, everything was sent in the moment the turn began.
        let sent_at = if self.turn.head.body == BodyLength::None && self.terms.reused {
            self.turn.story.started
        } else {
            self.sent_at
        };
        let turn = &mut self.turn;
        let http10 = turn.head.version == Version::Http10;
        let length = downstream_length(head.body, http10);
        let client_keeps = turn.head.keep_alive && length != BodyLength::UntilClose && !turn.context.draining.get();
        write_response(head, bytes, ResponseEdits { keep_alive: client_keeps, http10 }, output);
        turn.story.status = head.status;
        turn.story.upstream_service_time = Some(now.duration_since(sent_at));
        turn.story.ended = Some(now);
        self.response = Some(Response {
            body: BodyReader::new(head.body, body_limits(&turn.snapshot.settings.limits)),
            length,
            upstream_keeps: head.keep_alive,
            client_keeps,
            done: false,
        });
    }

    fn pass_body(&mut self, mut bytes: &[u8], output: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(response) = &mut self.response else { return Ok(()) };
        while !response.done {
            let step = response.body.step(bytes).map_err(|error| {
                self.turn.story.transport_failure = Some(error.to_string());
                Failure::UpstreamTruncated
            })?;
            let data = &bytes[step.data.clone()];
            self.turn.story.bytes_sent += data.len() as u64;
            match response.length {
                BodyLength::Chunked => write_chunk(data, output),
                BodyLength::None | BodyLength::Fixed(_) | BodyLength::UntilClose => output.extend_from_slice(data),
            }
            bytes = &bytes[step.consumed..];
            response.finish_if(step.done, output);
            if step.consumed == 0 {
                break;
            }
        }
        if response.done && !bytes.is_empty() {
            // Bytes that nobody asked for: they must not be taken for the answer to another request.
            response.upstream_keeps = false;
        }
        Ok(())
    }

    fn upstream_ended(&mut self, cleanly: bool, output: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(response) = &mut self.response else { return Err(Failure::UpstreamClosed) };
        response.upstream_keeps = false;
        if response.done {
            return Ok(());
        }
        // Only a body without a length may end with the connection, and only if the end is certain.
        if cleanly && response.body.end_of_stream() {
            response.finish_if(true, output);
            return Ok(());
        }
        Err(Failure::UpstreamTruncated)
    }

    fn send_pending(&mut self) -> Result<(), Failure> {
        let sent = self.turn.client.socket.send(&self.pending).map_err(|_| Failure::DownstreamClosed)?;
        if sent == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..sent);
        }
        Ok(())
    }

    /// Ends a failed exchange: answered by the caller if the client has seen nothing, cut off visibly if it has.
    fn break_off(self, broken: Broken) -> Result<(Ending, Option<Connection>), Broken> {
        match (self.response, broken) {
            (Some(_), Broken::Failure(failure)) => Ok(((After::Reset, Some(failure)), None)),
            (_, broken) => Err(broken),
        }
    }

    fn finish(self) -> (Ending, Option<Connection>) {
        let Some(response) = self.response else { return ((After::Reset, None), None) };
        // A request that was answered before it was sent whole leaves both connections in the middle of a message.
        let uploaded = self.upload.is_done();
        let after = if response.client_keeps && uploaded { After::Keep } else { After::Close };
        let reusable = response.upstream_keeps && uploaded && !self.connection.is_blocked();
        if reusable {
            return ((after, None), Some(self.connection));
        }
        self.connection.close();
        ((after, None), None)
    }
}

impl Response {
    fn finish_if(&mut self, done: bool, output: &mut Vec<u8>) {
        if done && !self.done {
            self.done = true;
            if self.length == BodyLength::Chunked {
                write_last_chunk(output);
            }
        }
    }
}

/// What [`upload`] has taken.
struct Taken {
    /// Bytes that belong to the message.
    consumed: usize,
    /// Data among them.
    data: u64,
}

/// Appends to `output` what the upstream gets of the request body at the front of `bytes`, framed anew.
fn upload(reader: &mut BodyReader, length: BodyLength, bytes: &[u8], output: &mut Vec<u8>) -> Result<Taken, Failure> {
    let mut taken = Taken { consumed: 0, data: 0 };
    while !reader.is_done() {
        let step = reader.step(&bytes[taken.consumed..]).map_err(|_| Failure::RequestBodyMalformed)?;
        let data = &bytes[taken.consumed..][step.data];
        match length {
            BodyLength::Chunked => write_chunk(data, output),
            BodyLength::None | BodyLength::Fixed(_) | BodyLength::UntilClose => output.extend_from_slice(data),
        }
        taken.data += data.len() as u64;
        taken.consumed += step.consumed;
        if step.done && length == BodyLength::Chunked {
            write_last_chunk(output);
        }
        if step.consumed == 0 {
            break;
        }
    }
    Ok(taken)
}

/// Bytes at the front of `bytes` that belong to a body which nobody wants. A body that breaks its framing never ends.
pub(super) fn discard(reader: &mut BodyReader, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while !reader.is_done() {
        match reader.step(&bytes[taken..]) {
            Ok(step) if step.consumed > 0 => taken += step.consumed,
            Ok(_) | Err(_) => break,
        }
    }
    taken
}

pub(super) fn body_limits(limits: &Limits) -> BodyLimits {
    BodyLimits { trailer_bytes: limits.trailer_bytes, chunk_extension_bytes: limits.chunk_extension_bytes }
}

/// Readiness if it is wanted, else never. An error of the poll shows at the call that follows.
async fn readable(socket: &Socket, wanted: bool) {
    if !wanted {
        pending::<()>().await;
    }
    let _ = socket.readable().await;
}

/// See [`readable`].
async fn writable(socket: &Socket, wanted: bool) {
    if !wanted {
        pending::<()>().await;
    }
    let _ = socket.writable().await;
}
