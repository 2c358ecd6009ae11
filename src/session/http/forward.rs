//! Forwarding: find a connection, exchange request and response over it, and try again where that is safe.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use smallvec::SmallVec;

use crate::failure::Failure;
use crate::limits::{HANDSHAKE_TIMEOUT, TIMEOUT_MAX};
use crate::net::{Within, sleep, within};
use crate::route::cluster::{Cluster, TlsProfile, VerifyName};
use crate::route::decide;
use crate::route::host::HostName;
use crate::route::http::{Edits, Forward, Matched, NO_EDITS, RETRY_BACK_OFF, RetryPolicy};
use crate::snapshot::Snapshot;
use crate::upstream::account::{Account, Lease, Overflow, Passage};
use crate::upstream::balance::{Candidates, Wanted};
use crate::upstream::connection::Connection;
use crate::upstream::dial;
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::PoolKey;
use crate::upstream::tls;
use crate::wire::http1::{FieldEdits, Span};

use super::exchange::{self, Broken, Exchange};
use super::facts::Facts;
use super::turn::{Ending, Turn};
use super::{After, Client, Context};

/// A wait between two attempts grows to so many times the first one, as Envoy's default.
const BACK_OFF_GROWTH_MAX: u32 = 10;

/// How requests to hosts that no resource names are retried.
static ANYWHERE_RETRY: RetryPolicy = RetryPolicy {
    attempts: 2,
    per_try_timeout: None,
    on_connect_failure: true,
    on_reset: false,
    on_status: Vec::new(),
    back_off: RETRY_BACK_OFF,
    avoid_tried: true,
};

/// Everything about a request that its route has settled.
pub(super) struct Plan<'s> {
    cluster: ClusterRef<'s>,
    /// Path and query to send.
    pub(super) target: Target,
    /// What changes in the heads, Host included.
    pub(super) edits: &'s Edits,
    /// Those and more for the answer, which a CORS policy marks, and which may bring a cookie.
    marks: Option<Box<FieldEdits>>,
    /// The name to resolve where the cluster leaves it to the request, and to put into the SNI.
    /// `None`: a captured client asked for an address, and goes where it meant to go.
    requested: Option<HostName>,
    pub(super) timeout: Option<Duration>,
    retry: &'s RetryPolicy,
    /// What the choice of an endpoint follows from, where the cluster hashes.
    key: Option<u64>,
    /// The request's place in the account of its cluster; `None`: nobody counts.
    passage: Option<Passage>,
}

/// The request target to send, in origin form.
pub(super) enum Target {
    /// As the client sent it.
    Sent(Span),
    /// Normalised or rewritten.
    Written(String),
}

impl Target {
    /// The text; `bytes` are those of the request head.
    pub(super) fn text<'b>(&'b self, bytes: &'b [u8]) -> &'b str {
        match self {
            Self::Sent(span) => span.text(bytes),
            Self::Written(text) => text,
        }
    }
}

enum ClusterRef<'s> {
    Route(&'s Cluster),
    Anywhere(Box<Cluster>),
}

impl<'s> ClusterRef<'s> {
    fn get(&self) -> &Cluster {
        match self {
            Self::Route(cluster) => cluster,
            Self::Anywhere(cluster) => cluster,
        }
    }

    /// Name and service, for the log and the metrics.
    fn names(&self) -> (&'s str, &'s str) {
        match self {
            Self::Route(cluster) => (&cluster.name, &cluster.service),
            Self::Anywhere(_) => (decide::PASSTHROUGH_CLUSTER, "unknown"),
        }
    }
}

impl<'s> Plan<'s> {
    /// What a route makes of a request.
    ///
    /// # Errors
    /// What [`decide::onward`] refuses.
    pub(super) fn new(
        snapshot: &'s Snapshot,
        client: &Client,
        facts: &Facts<'_>,
        matched: Matched<'s>,
        route: &'s Forward,
        ticket: u32,
    ) -> Result<Self, Failure> {
        let requested = facts.host.as_ref().ok_or(Failure::NotListed)?;
        let onward = decide::onward(snapshot, requested, facts, matched, route, ticket)?;
        let hash = onward.cluster.traffic.as_ref().and_then(|traffic| traffic.hash.as_ref());
        Ok(Self {
            cluster: ClusterRef::Route(onward.cluster),
            target: facts.target(onward.path.as_deref()),
            edits: onward.edits,
            marks: None,
            requested: Some(onward.requested),
            timeout: route.timeout,
            retry: &route.retry,
            key: hash.and_then(|hash| hash.key(client.peer.ip(), Some(facts))),
            passage: None,
        })
    }

    /// Gives a client without the cookie that the cluster hashes a new one, if the rule says so: it chooses the endpoint
    /// of this request already.
    pub(super) fn give_cookie(&mut self, lot: impl FnOnce() -> u64) {
        if self.key.is_some() {
            return;
        }
        let hash = self.cluster.get().traffic.as_ref().and_then(|traffic| traffic.hash.as_ref());
        let Some((key, cookie)) = hash.and_then(|hash| hash.new_cookie(lot)) else { return };
        let mut field = FieldEdits::new();
        field.add("set-cookie", &cookie);
        self.key = Some(key);
        self.mark(&field);
    }

    /// Changes more in the head of the answer.
    pub(super) fn mark(&mut self, marks: &FieldEdits) {
        let mut fields = self.answer_fields().clone();
        fields.extend(marks);
        self.marks = Some(Box::new(fields));
    }

    /// The same, within the timeout of the route that led to the Gateway whose route this is.
    pub(super) fn within(self, before: Option<&Forward>) -> Self {
        let bound = before.and_then(|before| before.timeout);
        Self { timeout: self.timeout.into_iter().chain(bound).min(), ..self }
    }

    /// What changes in the head of the answer.
    fn answer_fields(&self) -> &FieldEdits {
        self.marks.as_deref().unwrap_or(&self.edits.response)
    }

    /// Forwarding to a host that no resource names, under ALLOW_ANY.
    pub(super) fn anywhere(snapshot: &Snapshot, client: &Client, facts: &Facts<'_>) -> Self {
        Self {
            cluster: ClusterRef::Anywhere(Box::new(decide::passthrough_cluster(client.source(), snapshot))),
            target: facts.target(None),
            edits: &NO_EDITS,
            marks: None,
            requested: facts.host.clone(),
            timeout: None,
            retry: &ANYWHERE_RETRY,
            key: None,
            passage: None,
        }
    }
}

/// Forwards the request of `turn` and its response.
///
/// # Errors
/// The failure to answer; nothing has been sent to the client yet.
pub(super) async fn forward<'a>(turn: &mut Turn<'a>, plan: &mut Plan<'a>) -> Result<Ending, Failure> {
    let (cluster, service) = plan.cluster.names();
    turn.story.cluster = Some(cluster);
    turn.story.service.get_or_insert(service);
    plan.passage = match turn.context.accounts.of(plan.cluster.get()) {
        Some(account) => Some(account.request().map_err(|overflow| overflowed(turn, overflow))?),
        None => None,
    };
    let deadline = Deadline(plan.timeout.map(|timeout| turn.story.started + timeout));
    let mut tries_left = plan.retry.attempts;
    let mut back_off = plan.retry.back_off;
    let mut tried = Tried::new();
    loop {
        let retry_on = if tries_left > 0 { &*plan.retry.on_status } else { &[] };
        let error = match attempt(turn, plan, deadline, retry_on, &tried).await {
            Ok((mut after, failure)) => {
                if let After::Upgrade(upgraded) = &mut after {
                    upgraded.passage = plan.passage.take();
                }
                return Ok((after, failure));
            }
            Err(error) => error,
        };
        if !turn.inbound.rewind() {
            return Err(error.failure);
        }
        match error.cause {
            // The upstream had closed an idle connection before it saw the request: another one costs no attempt.
            // This ends, because a fresh connection is never stale.
            Cause::Stale => continue,
            Cause::Connect if plan.retry.on_connect_failure && tries_left > 0 => tries_left -= 1,
            Cause::Reset if plan.retry.on_reset && tries_left > 0 => tries_left -= 1,
            Cause::Status => tries_left -= 1,
            Cause::Connect | Cause::Reset | Cause::Final => return Err(error.failure),
        }
        if plan.passage.as_ref().is_some_and(|passage| !passage.retry()) {
            return Err(error.failure);
        }
        if deadline.limit(sleep(back_off)).await.is_none() {
            return Err(Failure::RequestDeadline);
        }
        back_off = (back_off * 2).min(plan.retry.back_off * BACK_OFF_GROWTH_MAX);
        if plan.retry.avoid_tried {
            tried.extend(turn.story.upstream);
        }
    }
}

fn overflowed(turn: &mut Turn<'_>, overflow: Overflow) -> Failure {
    turn.story.transport(Failure::UpstreamOverflow, &format!("overflow: {}", overflow.as_str()))
}

/// Endpoints that have failed a request.
type Tried = SmallVec<[SocketAddr; 1]>;

/// When a request must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// Waits for `future` until the deadline. `None`: it has passed.
    fn limit<F: Future>(self, future: F) -> Within<F> {
        within(self.cut(TIMEOUT_MAX).0, future)
    }

    /// The earlier of this and `duration` from now.
    pub(super) fn shortened(self, duration: Option<Duration>) -> Self {
        let other = duration.map(|duration| Instant::now() + duration);
        Self(self.0.into_iter().chain(other).min())
    }

    /// What is left of `wait` under this deadline, and whether the deadline is what cuts it.
    pub(super) fn cut(self, wait: Duration) -> (Duration, bool) {
        match self.0.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(left) if left < wait => (left, true),
            Some(_) | None => (wait, false),
        }
    }
}

/// One attempt that came to nothing.
pub(super) struct AttemptError {
    pub(super) failure: Failure,
    pub(super) cause: Cause,
}

/// What may be done about it.
pub(super) enum Cause {
    /// The connection was an idle one that the upstream had closed.
    Stale,
    /// No connection was made: not one byte of the request has left.
    Connect,
    /// The upstream closed after the request was sent.
    Reset,
    /// The upstream answered with a status that the route retries on.
    Status,
    /// Nothing.
    Final,
}

impl AttemptError {
    pub(super) fn last(failure: Failure) -> Self {
        Self { failure, cause: Cause::Final }
    }
}

async fn attempt(
    turn: &mut Turn<'_>,
    plan: &Plan<'_>,
    deadline: Deadline,
    retry_on: &[u16],
    tried: &[SocketAddr],
) -> Result<Ending, AttemptError> {
    // Boxed: it is over before the request is sent, and whoever waits for the answer should not carry it.
    let obtained = deadline.limit(Box::pin(obtain(turn, plan, tried))).await;
    let (connection, key, reused) = obtained.ok_or(AttemptError::last(Failure::RequestDeadline))??;
    turn.story.upstream = Some(connection.address);
    turn.story.upstream_local = Some(connection.local);
    turn.story.originated_tls = connection.is_tls();
    let address = connection.address;
    let context = Rc::clone(turn.context);
    context.balancer.began(address);
    let head_deadline = deadline.shortened(plan.retry.per_try_timeout);
    let terms = exchange::Terms { deadline, head_deadline, retry_on, fields: plan.answer_fields(), reused };
    turn.client.set_upstream(Some(connection.socket.share()));
    let mut exchange = Exchange::new(turn, connection, terms);
    let result = match exchange.run(plan).await {
        Ok(()) => Ok(exchange.finish()),
        Err(broken) => exchange.break_off(broken).map(|ending| (ending, None)),
    };
    turn.client.set_upstream(None);
    context.balancer.ended(address);
    match result {
        Ok((ending, reusable)) => {
            match reusable {
                // After a reload its cluster may be gone, and nobody would ever take it.
                Some(connection)
                    if context.keeps(turn.snapshot)
                        && connection.lease.as_ref().is_none_or(|lease| lease.serves_another()) =>
                {
                    context.pool.give(key, connection);
                }
                Some(connection) => connection.close(),
                None => {}
            }
            Ok(ending)
        }
        Err(Broken::Failure(failure)) => {
            let error = classify(failure, reused, turn);
            report(plan, address, &error);
            Err(error)
        }
        Err(Broken::Status) => Err(AttemptError { failure: Failure::UpstreamClosed, cause: Cause::Status }),
    }
}

/// Tells the account of a request that got no answer. Answers are told of when their head is there.
fn report(plan: &Plan<'_>, address: SocketAddr, error: &AttemptError) {
    let Some(passage) = &plan.passage else { return };
    match (&error.cause, &error.failure) {
        (Cause::Stale, _) => {}
        (_, Failure::UpstreamClosed | Failure::ResponseMalformed) => {
            passage.account().report(address, Outcome::Failed);
        }
        (_, Failure::UpstreamTimeout | Failure::RequestDeadline) => {
            passage.account().report(address, Outcome::TimedOut);
        }
        _ => {}
    }
}

/// A request that the upstream may have begun to process is repeated only if that does no harm (RFC 9110 section
/// 9.2.2).
fn classify(failure: Failure, reused: bool, turn: &Turn<'_>) -> AttemptError {
    let idempotent = matches!(
        turn.head.method.of(turn.inbound.bytes()),
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    );
    let cause = match (failure == Failure::UpstreamClosed && idempotent, reused) {
        (true, true) => Cause::Stale,
        (true, false) => Cause::Reset,
        (false, _) => Cause::Final,
    };
    AttemptError { failure, cause }
}

/// A connection for the request: an idle one, or a new one to the first candidate that can be reached and verified.
async fn obtain(
    turn: &mut Turn<'_>,
    plan: &Plan<'_>,
    tried: &[SocketAddr],
) -> Result<(Box<Connection>, PoolKey, bool), AttemptError> {
    let context = Rc::clone(turn.context);
    let cluster = plan.cluster.get();
    let (profile, server_name) = match &cluster.tls {
        None => (None, None),
        Some(tls) => match &tls.profile {
            Ok(profile) => {
                let name = tls.sni.clone().or_else(|| plan.requested.clone());
                // Without a name nothing could be verified.
                (Some(profile), Some(name.ok_or(AttemptError::last(Failure::NoHealthyUpstream))?))
            }
            Err(reason) => return Err(AttemptError::last(turn.story.transport(Failure::NoHealthyUpstream, reason))),
        },
    };
    let policy = &turn.snapshot.settings.addresses;
    let account = plan.passage.as_ref().map(Passage::account);
    let wanted = Wanted { host: plan.requested.as_ref(), key: plan.key, account: account.map(|account| &**account) };
    let candidates = context.balancer.candidates(cluster, wanted, &context.resolver, policy).await;
    let mut candidates =
        candidates.map_err(|(failure, reason)| AttemptError::last(turn.story.transport(failure, &reason)))?;
    if !tried.is_empty() {
        candidates.sort_by_key(|address| tried.contains(address));
    }
    let key = |address| PoolKey { pool: cluster.pool, address, server_name: server_name.clone() };
    let first = key(candidates[0]);
    if let Some(connection) = context.pool.take(&first, &context.scratch) {
        return Ok((connection, first, true));
    }
    let lease = match account {
        // Boxed: it is rare to have an account, and to wait for it rarer still.
        Some(account) => match Box::pin(place(turn, account, cluster, &first)).await? {
            Place::Idle(connection) => return Ok((connection, first, true)),
            Place::New(lease) => Some(lease),
        },
        None => None,
    };
    let origination = profile.zip(server_name.as_ref());
    // Boxed: most requests find an idle connection, and should not carry what it takes to make one.
    let connection = Box::pin(open(turn, cluster, &candidates, origination, lease)).await?;
    let key = key(connection.address);
    Ok((connection, key, false))
}

/// How a request comes to its connection where connections are counted.
enum Place {
    /// One has become idle.
    Idle(Box<Connection>),
    /// One more may be made.
    New(Box<Lease>),
}

/// A place for another connection; at `maxConnections` the request waits for one, as long as connecting may take.
async fn place(
    turn: &mut Turn<'_>,
    account: &Rc<Account>,
    cluster: &Cluster,
    key: &PoolKey,
) -> Result<Place, AttemptError> {
    let context = Rc::clone(turn.context);
    let until = Instant::now() + cluster.connect_timeout;
    loop {
        if let Some(lease) = account.lease() {
            return Ok(Place::New(lease));
        }
        if context.pool.make_room(cluster.pool) {
            continue;
        }
        let patience = until.saturating_duration_since(Instant::now());
        let waited = account.wait(patience).await;
        waited.map_err(|overflow| AttemptError::last(overflowed(turn, overflow)))?;
        if let Some(connection) = context.pool.take(key, &context.scratch) {
            return Ok(Place::Idle(connection));
        }
    }
}

async fn open(
    turn: &mut Turn<'_>,
    cluster: &Cluster,
    candidates: &Candidates,
    origination: Option<(&Arc<TlsProfile>, &HostName)>,
    mut lease: Option<Box<Lease>>,
) -> Result<Box<Connection>, AttemptError> {
    let mut error = AttemptError { failure: Failure::NoHealthyUpstream, cause: Cause::Final };
    let client = dial::Client { source: turn.client.peer, destination: turn.client.local };
    for address in candidates {
        turn.story.upstream = Some(*address);
        let failure = match dial::reach(cluster, *address, client).await {
            Err(dialled) => turn.story.transport(dialled.failure, &dialled.reason),
            Ok(socket) => match originate(turn.context, &socket, origination).await {
                Err(reason) => turn.story.transport(Failure::HandshakeFailed, &reason),
                Ok(session) => match Connection::new(socket, *address, session) {
                    Ok(mut connection) => {
                        connection.lease = lease.take();
                        turn.story.transport_failure = None;
                        return Ok(connection);
                    }
                    Err(reset) => turn.story.transport(Failure::ConnectFailed, &reset.to_string()),
                },
            },
        };
        if let Some(lease) = &lease {
            let timed_out = failure == Failure::ConnectTimeout;
            lease.account().report(*address, if timed_out { Outcome::TimedOut } else { Outcome::Failed });
        }
        error = AttemptError { failure, cause: Cause::Connect };
    }
    Err(error)
}

/// Opens TLS over a fresh connection and counts how it went; the error is the text for the log.
pub(in crate::session) async fn originate(
    context: &Context,
    socket: &crate::net::Socket,
    origination: Option<(&Arc<TlsProfile>, &HostName)>,
) -> Result<Option<tls::TlsSession>, String> {
    let Some((profile, name)) = origination else { return Ok(None) };
    let config = context.tls.get(profile).map_err(|error| format!("TLS_error: {error}"))?;
    let name = ServerName::try_from(name.as_str().to_owned()).map_err(|error| format!("TLS_error: {error}"))?;
    let result = match within(HANDSHAKE_TIMEOUT, tls::handshake(config, name, socket)).await {
        Some(Ok(session)) => Ok(session),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("TLS_error: no handshake within {HANDSHAKE_TIMEOUT:?}")),
    };
    let mut counters = context.counters.borrow_mut();
    match &result {
        Ok(session) if session.is_resumed() => counters.handshakes_resumed += 1,
        Ok(_) => counters.handshakes_full += 1,
        Err(_) => counters.handshakes_failed += 1,
    }
    if result.is_ok() && profile.verify == VerifyName::Nothing {
        counters.handshakes_unverified += 1;
    }
    result.map(Some)
}
