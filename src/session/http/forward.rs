//! Forwarding: find a connection, exchange request and response over it, and try again where that is safe.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::failure::Failure;
use crate::limits::TIMEOUT_MAX;
use crate::net::{Within, sleep, within};
use crate::route::cluster::Cluster;
use crate::route::decide;
use crate::route::host::HostName;
use crate::route::http::{Edits, Forward, Matched, NO_EDITS, RetryPolicy};
use crate::snapshot::Snapshot;
use crate::upstream::account::{Overflow, Passage};
use crate::upstream::outlier::Outcome;
use crate::wire::http1::{FieldEdits, Span};

use super::exchange::{self, Broken, Exchange};
use super::facts::Facts;
use super::obtain::{Obtained, obtain};
use super::turn::{Ending, Turn};
use super::{After, Client};

/// A wait between two attempts grows to so many times the first one, as Envoy's default.
const BACK_OFF_GROWTH_MAX: u32 = 10;

/// How requests to hosts that no resource names are retried.
static ANYWHERE_RETRY: RetryPolicy = RetryPolicy::DEFAULT;

/// How copies of requests are.
static NO_RETRY: RetryPolicy = RetryPolicy::NONE;

/// Everything about a request that its route has settled.
pub(super) struct Plan<'s> {
    pub(super) cluster: ClusterRef<'s>,
    /// Path and query to send.
    pub(super) target: Target,
    /// What changes in the heads, Host included.
    pub(super) edits: &'s Edits,
    /// Those and more for the answer, which a CORS policy marks, and which may bring a cookie.
    marks: Option<Box<FieldEdits>>,
    /// The name to resolve where the cluster leaves it to the request, and to put into the SNI.
    /// `None`: a captured client asked for an address, and goes where it meant to go.
    pub(super) requested: Option<HostName>,
    pub(super) timeout: Option<Duration>,
    retry: &'s RetryPolicy,
    /// What the choice of an endpoint follows from, where the cluster hashes.
    pub(super) key: Option<u64>,
    /// The request's place in the account of its cluster; `None`: nobody counts.
    pub(super) passage: Option<Passage>,
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

pub(super) enum ClusterRef<'s> {
    Route(&'s Cluster),
    Anywhere(Box<Cluster>),
}

impl<'s> ClusterRef<'s> {
    pub(super) fn get(&self) -> &Cluster {
        match self {
            Self::Route(cluster) => cluster,
            Self::Anywhere(cluster) => cluster,
        }
    }

    /// Name and service, for the log and the metrics.
    fn names(&self) -> (&'s str, &'s str) {
        match self {
            Self::Route(cluster) => (cluster.name.as_str(), cluster.name.service()),
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
            key: hash.and_then(|hash| hash.key(client.peer().ip(), Some(facts))),
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

    /// A copy of a request. One that fails is not sent again.
    pub(super) fn of_copy(
        cluster: &'s Cluster,
        target: String,
        edits: &'s Edits,
        requested: HostName,
        timeout: Duration,
    ) -> Self {
        Self {
            cluster: ClusterRef::Route(cluster),
            target: Target::Written(target),
            edits,
            marks: None,
            requested: Some(requested),
            timeout: Some(timeout),
            retry: &NO_RETRY,
            key: None,
            passage: None,
        }
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
    let mut excused = false;
    loop {
        let retry_on = if tries_left > 0 { &*plan.retry.on_status } else { &[] };
        let error = match attempt(turn, plan, deadline, retry_on, (&tried, excused)).await {
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
            // The upstream had closed an idle connection before it saw the request, or one that many share: another one
            // costs no attempt. This ends: a fresh connection is never stale, and a shared one is so once.
            Cause::Stale => {
                excused = true;
                continue;
            }
            Cause::Refused if plan.retry.on_refused && tries_left > 0 => tries_left -= 1,
            Cause::Connect if plan.retry.on_connect_failure && tries_left > 0 => tries_left -= 1,
            Cause::Reset if plan.retry.on_reset && tries_left > 0 => tries_left -= 1,
            Cause::Status => tries_left -= 1,
            Cause::Connect | Cause::Refused | Cause::Reset | Cause::Final => {
                return Err(error.failure);
            }
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

pub(super) fn overflowed(turn: &mut Turn<'_>, overflow: Overflow) -> Failure {
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
    /// The connection had served others before, and the upstream has closed it or takes no more requests on it.
    Stale,
    /// No connection was made: not one byte of the request has left.
    Connect,
    /// The upstream has not looked at the request, and says so.
    Refused,
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
    (tried, excused): (&[SocketAddr], bool),
) -> Result<Ending, AttemptError> {
    // Boxed: it is over before the request is sent, and whoever waits for the answer should not carry it.
    let obtained = deadline.limit(Box::pin(obtain(turn, plan, tried))).await;
    let Obtained { connection, key, reused } = obtained.ok_or(AttemptError::last(Failure::RequestDeadline))??;
    turn.story.upstream = Some(connection.address);
    turn.story.upstream_local = Some(connection.local);
    turn.story.originated_tls = connection.is_tls();
    let is_stream = connection.is_stream();
    let context = turn.context;
    // Whoever drops the attempt ends the count, too.
    let counted = context.balancer.count(connection.address);
    let head_deadline = deadline.shortened(plan.retry.per_try_timeout);
    let (request_fields, fields) = (&plan.edits.request, plan.answer_fields());
    let terms = exchange::Terms { deadline, head_deadline, retry_on, request_fields, fields, reused };
    turn.client.set_upstream(Some(connection.share()));
    let mut exchange = Exchange::new(turn, connection, terms);
    let mut awaits_body = false;
    let result = match exchange.run(plan).await {
        Ok(()) => Ok(exchange.finish()),
        Err(broken) => {
            awaits_body = exchange.awaits_body();
            exchange.break_off(broken).map(|ending| (ending, None))
        }
    };
    turn.client.set_upstream(None);
    match result {
        Ok((ending, reusable)) => {
            match reusable {
                // After a reload its cluster may be gone, and nobody would ever take it.
                Some(connection)
                    if context.keeps(turn.snapshot, key.pool)
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
            let error = classify(failure, reused && !(is_stream && excused), turn);
            report(plan, counted.address(), &error, awaits_body);
            Err(error)
        }
        Err(Broken::Status) => Err(AttemptError { failure: Failure::UpstreamClosed, cause: Cause::Status }),
    }
}

/// Tells the account of a request that got no answer. Answers are told of when their head is there. `awaits_body`: the
/// client had not sent all of it, and what took too long is no fault of the endpoint's.
fn report(plan: &Plan<'_>, address: SocketAddr, error: &AttemptError, awaits_body: bool) {
    let Some(passage) = &plan.passage else { return };
    match (&error.cause, &error.failure) {
        (Cause::Stale, _) => {}
        (Cause::Connect, _) => passage.account().report(address, Outcome::TimedOut),
        (_, Failure::UpstreamClosed | Failure::UpstreamReset | Failure::ResponseMalformed) => {
            passage.account().report(address, Outcome::Failed);
        }
        (_, Failure::UpstreamTimeout | Failure::RequestDeadline) if !awaits_body => {
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
    let cause = match (&failure, reused) {
        (Failure::UpstreamRefused, true) => Cause::Stale,
        (Failure::UpstreamRefused, false) => Cause::Refused,
        // The connection had no room for it, and has not carried any of it.
        (Failure::ConnectTimeout, _) => Cause::Connect,
        (Failure::UpstreamClosed, true) if idempotent => Cause::Stale,
        (Failure::UpstreamClosed | Failure::UpstreamReset, _) if idempotent => Cause::Reset,
        _ => Cause::Final,
    };
    AttemptError { failure, cause }
}
