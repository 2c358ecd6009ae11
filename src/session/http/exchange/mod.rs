//! One request and its response over one upstream connection, both bodies streaming at once.
//!
//! Memory is bounded by reading only what can be passed on: while one side cannot take more, the other is not read.
//! At most one read's worth of bytes waits for each side.

mod download;
mod upload;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::net::within;
use crate::upstream::connection::Connection;
use crate::wire::http1::{BodyReader, FieldEdits};

use super::After;
use super::forward::{Deadline, Plan};
use super::turn::{Ending, Turn};
use super::upgrade::Upgraded;

use download::Response;
pub(super) use upload::{body_limits, discard};

/// How often a client is looked at that waits for a silent upstream.
const CLIENT_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// An exchange under way.
struct Exchange<'t, 'a> {
    turn: &'t mut Turn<'a>,
    connection: Connection,
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
        abandoned: false,
        response: None,
        switched: false,
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
    /// Whether the response has been passed on whole, or is followed by another protocol.
    fn is_over(&self) -> bool {
        self.switched || self.pending.is_empty() && self.response.as_ref().is_some_and(|response| response.done)
    }

    /// Waits for whatever can make progress, and makes it.
    async fn advance(&mut self) -> Result<(), Broken> {
        self.turn.story.ended = None;
        match self.wait().await? {
            Ready::UpstreamReadable => self.receive_response()?,
            Ready::UpstreamWritable => {
                if let Err(error) = self.connection.flush() {
                    self.abandon(&error);
                }
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
            if self.turn.client.transport.has_failed() {
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
        let uploading = !self.upload.is_done() && !self.abandoned && !self.connection.is_blocked();
        let (limit, silence) = if uploading && self.response.is_none() {
            (limits.body_idle_timeout, Failure::RequestBodyTimeout)
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

    async fn ready(&self) -> Ready {
        let (upstream, client) = (&self.connection.socket, &self.turn.client.transport);
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
            if sends && upstream_writable.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ready::UpstreamWritable);
            }
            if asks && client_readable.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ready::ClientReadable);
            }
            Poll::Pending
        })
        .await
    }

    /// Ends a failed exchange: answered by the caller if the client has seen nothing, cut off visibly if it has.
    fn break_off(self, broken: Broken) -> Result<(Ending, Option<Connection>), Broken> {
        // An interim response that went out in part is an answer begun, too.
        match (self.response.is_some() || self.switched || !self.pending.is_empty(), broken) {
            (true, Broken::Failure(failure)) => Ok(((After::Reset, Some(failure)), None)),
            // The rest of it is lost with the attempt; another answer must not follow its torn beginning.
            (true, Broken::Status) => Ok(((After::Reset, Some(Failure::UpstreamTruncated)), None)),
            (false, broken) => Err(broken),
        }
    }

    fn finish(self) -> (Ending, Option<Connection>) {
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
        let reusable = response.upstream_keeps && uploaded && !self.connection.is_blocked();
        if reusable {
            return ((after, None), Some(self.connection));
        }
        self.connection.close();
        ((after, None), None)
    }
}
