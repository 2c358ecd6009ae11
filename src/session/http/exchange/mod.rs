//! One request and its response over one upstream connection, both bodies streaming at once.
//!
//! Memory is bounded by reading only what can be passed on: while one side cannot take more, the other is not read.
//! At most one read's worth of bytes waits for each side.

mod download;
mod upload;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::limits::{GATHER_TIMEOUT, RELAY_ROUNDS_MAX};
use crate::net::{sleep, within};
use crate::upstream::connection::Connection;
use crate::wire::http1::{BodyReader, FieldEdits};
use crate::wire::http2::is_grpc;

use super::After;
use super::forward::{Deadline, Plan};
use super::turn::{Ending, Turn};
use super::upgrade::Upgraded;

use download::Response;
pub(super) use upload::{body_limits, discard};

/// How often a client is looked at that waits for a silent upstream.
const CLIENT_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// An exchange under way.
pub(super) struct Exchange<'t, 'a> {
    turn: &'t mut Turn<'a>,
    connection: Box<Connection>,
    /// Where the request body stands.
    upload: BodyReader,
    /// Whether the upstream takes no more of the request; its answer may be on the way all the same.
    abandoned: bool,
    /// The response, once its head is there.
    response: Option<Response>,
    /// Whether the upstream has switched to the protocol that the client asked for.
    switched: bool,
    /// The beginning of a response head that has not ended yet.
    head_bytes: Vec<u8>,
    interim_count: usize,
    /// Bytes for the client that its socket has not taken yet.
    pending: Vec<u8>,
    sent_at: Instant,
    /// Whether the upstream is too slow for its answer to be read in large pieces.
    trickles: bool,
    /// Steps since it last had to wait for anything.
    rounds: Cell<usize>,
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
    /// Changes to the request head.
    pub(super) request_fields: &'t FieldEdits,
    /// Changes to the response head.
    pub(super) fields: &'t FieldEdits,
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

/// What an exchange waits for.
#[derive(Clone, Copy)]
enum Ready {
    UpstreamReadable,
    UpstreamWritable,
    ClientReadable,
    ClientWritable,
    /// What is there of an answer that comes slowly.
    Trickle,
    /// The client has given its request up.
    ClientGone,
}

impl<'t, 'a> Exchange<'t, 'a> {
    /// An exchange over `connection`, of which nothing has happened yet.
    pub(super) fn new(turn: &'t mut Turn<'a>, connection: Box<Connection>, terms: Terms<'t>) -> Self {
        Self {
            upload: BodyReader::new(turn.head.body, body_limits(&turn.snapshot.settings.limits)),
            turn,
            connection,
            abandoned: false,
            response: None,
            switched: false,
            head_bytes: Vec::new(),
            interim_count: 0,
            pending: Vec::new(),
            sent_at: Instant::now(),
            trickles: false,
            rounds: Cell::new(0),
            terms,
        }
    }

    /// Sends the request and passes the response on; [`Self::finish`] or [`Self::break_off`] is due then.
    ///
    /// # Errors
    /// What it came to nothing by.
    pub(super) async fn run(&mut self, plan: &Plan<'_>) -> Result<(), Broken> {
        // Once more: a connection may have been made meanwhile, or an attempt have failed.
        if self.turn.client.transport.is_given_up() {
            return Err(Failure::DownstreamClosed.into());
        }
        self.send_request(plan)?;
        while !self.is_over() {
            self.advance().await?;
        }
        Ok(())
    }

    /// Whether the response has been passed on whole, or is followed by another protocol.
    fn is_over(&self) -> bool {
        self.switched || self.pending.is_empty() && self.response.as_ref().is_some_and(|response| response.done)
    }

    /// Waits for whatever can make progress, and makes it.
    async fn advance(&mut self) -> Result<(), Broken> {
        self.turn.story.ended = None;
        if self.rounds.get() >= RELAY_ROUNDS_MAX {
            // Under epoll what is ready is ready at once, and the timers and everybody else would never have their turn.
            self.rounds.set(0);
            sleep(Duration::ZERO).await;
        }
        self.gather();
        match self.wait().await? {
            Ready::UpstreamReadable => self.receive_response()?,
            Ready::UpstreamWritable => {
                if let Err(error) = self.connection.flush() {
                    self.abandon(&error);
                }
            }
            Ready::ClientReadable => self.receive_body()?,
            Ready::ClientWritable => self.send_pending()?,
            Ready::Trickle => self.trickles = true,
            Ready::ClientGone => return Err(Failure::DownstreamClosed.into()),
        }
        Ok(())
    }

    /// Lets an answer of known length come in large pieces, as long as the upstream is quick.
    fn gather(&mut self) {
        let missing = self.response.as_ref().and_then(|response| response.missing()).unwrap_or(0);
        self.connection.gather(if self.trickles { 0 } else { missing });
    }

    /// Waits for progress. A client that has vanished shows only here while its upstream thinks: nothing is read from
    /// it, and nothing sent to it. It is looked at every now and then, since a poll of its own would cost every request.
    async fn wait(&self) -> Result<Ready, Failure> {
        let (mut wait, silence) = self.patience();
        if wait.is_zero() {
            // An answer that never pauses would be ready before every timer.
            return Err(silence);
        }
        loop {
            let gathers = self.connection.gathers() && self.pending.is_empty();
            let pause = wait.min(if gathers { GATHER_TIMEOUT } else { CLIENT_LOOK_INTERVAL });
            if let Some(ready) = self.noting_waits(within(pause, self.ready())).await {
                return Ok(ready);
            }
            if gathers {
                return Ok(Ready::Trickle);
            }
            wait -= pause;
            if self.turn.client.transport.has_failed() {
                return Err(Failure::DownstreamClosed);
            }
            if wait.is_zero() {
                return Err(silence);
            }
        }
    }

    /// Counts how often in a row nothing had to be waited for.
    async fn noting_waits<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        self.rounds.set(self.rounds.get().saturating_add(1));
        poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                self.rounds.set(0);
            }
            polled
        })
        .await
    }

    /// How long to wait, and what it means when nothing happens.
    fn patience(&self) -> (Duration, Failure) {
        let limits = &self.turn.snapshot.settings.limits;
        let (limit, silence) = if self.awaits_body() {
            let limit = if self.is_quiet_call() { limits.tunnel_idle_timeout } else { limits.body_idle_timeout };
            (limit, Failure::RequestBodyTimeout)
        } else if self.is_quiet_call() {
            (limits.tunnel_idle_timeout, Failure::UpstreamTimeout)
        } else if self.response.is_some() || self.connection.is_blocked() || self.abandoned {
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

    /// Whether there is no answer yet, and the client owes the rest of its request: no silence is the upstream's then.
    pub(super) fn awaits_body(&self) -> bool {
        self.response.is_none() && !self.upload.is_done() && !self.abandoned && !self.connection.is_blocked()
    }

    /// Whether it is a call of gRPC in which nobody keeps anybody waiting: streams may have nothing to say for long, as
    /// tunnels may. What a client says of itself is not enough: its upstream must be able to have such calls.
    fn is_quiet_call(&self) -> bool {
        self.turn.client.transport.stream().is_some()
            && self.connection.is_stream()
            && self.pending.is_empty()
            && !self.connection.is_blocked()
            && is_grpc(&self.turn.head.head, self.turn.inbound.bytes())
    }

    async fn ready(&self) -> Ready {
        let sends = self.connection.is_blocked();
        if self.pending.is_empty()
            && !sends
            && (self.abandoned || self.upload.is_done())
            && self.turn.client.transport.stream().is_none()
        {
            poll_fn(|context| self.connection.poll_readable(context)).await;
            return Ready::UpstreamReadable;
        }
        // Boxed: nearly every wait is for the upstream alone, unless the client is a stream, which may be given up.
        Box::pin(self.any_ready()).await
    }

    async fn any_ready(&self) -> Ready {
        let (upstream, client) = (&*self.connection, &self.turn.client.transport);
        let sends = self.connection.is_blocked();
        let answers = !self.pending.is_empty();
        let receives = self.response.as_ref().is_none_or(|response| !response.done);
        let asks = !sends && !self.abandoned && !self.upload.is_done();
        let mut upstream_writable = pin!(upstream.writable());
        let mut client_readable = pin!(client.readable());
        let mut client_writable = pin!(client.writable());
        // An error of a poll shows at the call that follows.
        poll_fn(|context| {
            if receives && !answers && upstream.poll_readable(context).is_ready() {
                return Poll::Ready(Ready::UpstreamReadable);
            }
            if answers && client_writable.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ready::ClientWritable);
            }
            if answers && upstream.poll_failed(context).is_ready() {
                return Poll::Ready(Ready::UpstreamReadable);
            }
            if sends && upstream_writable.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ready::UpstreamWritable);
            }
            if client.poll_given_up(context).is_ready() {
                return Poll::Ready(Ready::ClientGone);
            }
            if asks && client_readable.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ready::ClientReadable);
            }
            Poll::Pending
        })
        .await
    }

    /// Ends a failed exchange: cut off visibly if the client has seen something of an answer.
    ///
    /// # Errors
    /// It has not: the failure is the caller's to answer.
    pub(super) fn break_off(self, broken: Broken) -> Result<Ending, Broken> {
        // An interim response that went out in part is an answer begun, too.
        match (self.response.is_some() || self.switched || !self.pending.is_empty(), broken) {
            (true, Broken::Failure(failure)) => Ok((After::Reset, Some(failure))),
            // The rest of it is lost with the attempt; another answer must not follow its torn beginning.
            (true, Broken::Status) => Ok((After::Reset, Some(Failure::UpstreamTruncated))),
            (false, broken) => Err(broken),
        }
    }

    /// Ends an exchange that is over. The connection comes back if it may serve another request.
    pub(super) fn finish(mut self) -> (Ending, Option<Box<Connection>>) {
        if self.switched {
            let upgraded = Upgraded::new(self.turn, self.connection, self.pending);
            return ((After::Upgrade(Box::new(upgraded)), None), None);
        }
        let Some(response) = self.response else { return ((After::Reset, None), None) };
        // A request that was answered before it was sent whole leaves both connections in the middle of a message.
        let uploaded = self.upload.is_done() && !self.abandoned;
        let after = match (uploaded, response.client_keeps) {
            (true, true) => After::Keep,
            (true, false) if !self.turn.head.keep_alive => After::Finish,
            (true | false, _) => After::Close,
        };
        let is_whole = uploaded && !self.connection.is_blocked();
        let reusable = response.upstream_keeps && is_whole && !self.connection.is_stream();
        if reusable {
            self.connection.gather(0);
            return ((after, None), Some(self.connection));
        }
        self.connection.close();
        ((after, None), None)
    }
}
