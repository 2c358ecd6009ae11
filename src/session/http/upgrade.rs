//! After a 101: client and upstream speak a protocol of their own (RFC 9110 section 7.8), WebSocket most often.
//!
//! Nothing passes before the upstream has agreed. Then it is a tunnel: bytes both ways, half-close kept, until both
//! sides have ended, one has failed, or nothing has moved for `tunnelIdleTimeout`. The upstream connection never comes
//! back to the pool, and the request's one log line is written at the end.

use std::rc::Rc;
use std::time::Duration;

use crate::failure::Failure;
use crate::net::{Socket, within};
use crate::relay::{self, End, Transferred};
use crate::upstream::account::Passage;
use crate::upstream::connection::Connection;
use crate::wire::http1::RequestHead;

use super::super::sealed::{self, Early};
use super::head::Inbound;
use super::story::{Names, Story};
use super::turn::Turn;
use super::{After, Client, Context};

/// What a request leaves behind that has become a tunnel. Borrows nothing of the configuration it began under.
#[derive(Debug)]
pub(super) struct Upgraded {
    connection: Box<Connection>,
    head: RequestHead,
    /// The answer, and what came behind it, as far as the client's socket has not taken it.
    pending: Vec<u8>,
    story: Story<'static>,
    names: Names,
    /// The request's place in the account of its cluster.
    pub(super) passage: Option<Passage>,
}

impl Upgraded {
    pub(super) fn new(turn: &mut Turn<'_>, connection: Box<Connection>, pending: Vec<u8>) -> Self {
        let (story, names) = turn.story.detach();
        Self { connection, head: turn.head.clone(), pending, story, names, passage: None }
    }
}

/// Relays until the end, and tells of it.
pub(super) async fn run(context: &Rc<Context>, client: &Client, inbound: &mut Inbound, upgraded: Upgraded) -> After {
    // The passage is given back, and the place of the connection with it, when the tunnel ends.
    let Upgraded { mut connection, head, pending, story, names, passage } = upgraded;
    let lease = connection.lease.take();
    let mut story = names.rejoin(story);
    let upstream = connection.share();
    let address = connection.address;
    let early = inbound.split_behind();
    client.set_upstream(Some(Rc::clone(&upstream)));
    context.balancer.began(address);
    let moved = Transferred::default();
    let idle = lease.as_ref().and_then(|lease| lease.tunnel_idle());
    let idle = idle.unwrap_or(context.snapshot().settings.limits.tunnel_idle_timeout);
    let end = match lease.as_ref().and_then(|lease| lease.time_left()) {
        None => Some(carry(context, client, connection, (early, pending), &moved, idle).await),
        Some(left) => {
            let carrying = carry(context, client, connection, (early, pending), &moved, idle);
            Box::pin(within(left, carrying)).await
        }
    };
    drop((passage, lease));
    context.balancer.ended(address);
    client.set_upstream(None);
    story.bytes_received += moved.upstream.get();
    story.bytes_sent += moved.downstream.get();
    let (after, failure) = judge(end, &upstream, &mut story);
    // A tunnel that a drain has cut off looks finished: both sides have ended.
    let failure = if context.drain_expired.get() { Some(Failure::DrainTimeout) } else { failure };
    story.tell_request(context, client, &head, inbound.bytes(), failure);
    after
}

/// Sends what was there before the tunnel, for the upstream and for the client, and relays.
async fn carry(
    context: &Context,
    client: &Client,
    connection: Box<Connection>,
    (early, pending): (Vec<u8>, Vec<u8>),
    moved: &Transferred,
    idle: Duration,
) -> End {
    let downstream = match client.transport.socket() {
        Some(socket) if !connection.is_tls() => socket,
        Some(_) | None => {
            let early = Early { up: early, down: pending, refuses_tls: None };
            return sealed::relay(&client.transport, connection, early, &context.scratch, moved, idle).await;
        }
    };
    let upstream = connection.share();
    match open(downstream, connection, early, pending, moved, idle).await {
        Ok(()) => relay::relay(downstream, &upstream, context.tools(), moved, idle).await,
        Err(end) => end,
    }
}

/// Sends what was there before the tunnel: the rest of the answer, and what the client has sent behind its request.
async fn open(
    client: &Socket,
    mut connection: Box<Connection>,
    early: Vec<u8>,
    pending: Vec<u8>,
    moved: &Transferred,
    idle: Duration,
) -> Result<(), End> {
    let upstream = connection.share();
    let opening = async {
        client.send_all(&pending).await.map_err(End::Downstream)?;
        while connection.is_blocked() {
            upstream.writable().await.map_err(End::Upstream)?;
            connection.flush().map_err(|error| End::Upstream(std::io::Error::other(error)))?;
        }
        upstream.send_all(&early).await.map_err(End::Upstream)
    };
    within(idle, opening).await.unwrap_or(Err(End::Idle))?;
    moved.upstream.set(early.len() as u64);
    Ok(())
}

/// What the end of a tunnel means. A reset is passed on as one, so that neither peer takes a truncation for an end.
fn judge(end: Option<End>, upstream: &Socket, story: &mut Story<'_>) -> (After, Option<Failure>) {
    match end {
        None => (After::Close, Some(Failure::DurationTimeout)),
        Some(End::Finished) => (After::Close, None),
        Some(End::Idle) => (After::Close, Some(Failure::IdleTimeout)),
        Some(End::Downstream(_) | End::Refused) => {
            upstream.reset_on_close();
            (After::Reset, Some(Failure::DownstreamClosed))
        }
        Some(End::Upstream(error)) => {
            (After::Reset, Some(story.transport(Failure::UpstreamTruncated, &error.to_string())))
        }
    }
}
