//! One request: decided, forwarded or answered, and told exactly once.

use std::borrow::Cow;
use std::rc::Rc;

use crate::failure::Failure;
use crate::limits::DRAINED_BODY_BYTES_MAX;
use crate::net::{Received, within};
use crate::route::decide::{self, HttpVerdict};
use crate::route::http::{DirectResponse, Matched};
use crate::snapshot::Snapshot;
use crate::wire::http1::{BodyLength, BodyReader, RequestHead, write_local_response};

use super::exchange;
use super::facts::Facts;
use super::forward::{self, Plan};
use super::head::Inbound;
use super::story::Story;
use super::{After, Client, Context};

/// A request on its way.
pub(super) struct Turn<'a> {
    pub(super) context: &'a Rc<Context>,
    pub(super) client: &'a Client,
    pub(super) snapshot: &'a Snapshot,
    pub(super) inbound: &'a mut Inbound,
    pub(super) head: RequestHead,
    pub(super) story: Story<'a>,
}

/// How a turn ended: what becomes of the connection, and the failure that the log shows.
pub(super) type Ending = (After, Option<Failure>);

/// What a decision asks for, free of the borrows it was made with.
enum Next<'s> {
    Forward(Plan<'s>),
    Respond(&'s DirectResponse),
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        context: &'a Rc<Context>,
        client: &'a Client,
        snapshot: &'a Snapshot,
        inbound: &'a mut Inbound,
        head: RequestHead,
    ) -> Self {
        inbound.begin_body(head.head.len as usize);
        Self { context, client, snapshot, inbound, head, story: Story::new() }
    }

    /// Takes the request to its end and drops its bytes.
    pub(super) async fn take(&mut self) -> After {
        let (settings, tables) = (&self.snapshot.settings, &self.snapshot.routes.tables);
        settings.fields.withhold(&mut self.head, self.inbound.bytes(), tables.method_policy);
        let result = match self.decide() {
            Ok(Next::Forward(plan)) => forward::forward(self, plan).await,
            Ok(Next::Respond(response)) => Ok((self.respond(response.status, &response.body).await, None)),
            Err(failure) => Err(failure),
        };
        let (after, failure) = match result {
            Ok(ending) => ending,
            Err(failure) => (self.answer(&failure).await, Some(failure)),
        };
        if let After::Upgrade(_) = after {
            return after; // It is told when it ends.
        }
        self.story.tell_request(self.context, self.client, &self.head, self.inbound.bytes(), failure);
        self.inbound.finish_request();
        after
    }

    fn decide(&mut self) -> Result<Next<'a>, Failure> {
        let snapshot = self.snapshot;
        let facts = Facts::new(&self.head, self.inbound.bytes(), snapshot.settings.normalization)?;
        self.story.host.clone_from(&facts.host);
        snapshot.settings.fields.judge(&self.head, self.inbound.bytes())?;
        let host = facts.host.as_ref();
        let verdict = decide::http(snapshot, self.client.source(), host, &facts)?;
        let ticket = self.context.balancer.random();
        let entered = decide::enter(snapshot, verdict, host, &facts, ticket)?;
        match entered.verdict {
            HttpVerdict::Forward(host, matched, route) => {
                self.story.service = Some(&host.host);
                self.story.route = Some(route_name(matched));
                Plan::new(snapshot, self.client, &facts, matched, route, ticket)
                    .map(|plan| Next::Forward(plan.within(entered.before)))
            }
            HttpVerdict::Anywhere => {
                self.story.route = Some("allow_any".into());
                Plan::anywhere(snapshot, self.client, &facts).map(Next::Forward)
            }
            HttpVerdict::Respond(_, matched, response) => {
                self.story.route = Some(route_name(matched));
                self.story.details = "direct_response";
                Ok(Next::Respond(response))
            }
        }
    }

    /// Sends the answer that a failure is owed.
    async fn answer(&mut self, failure: &Failure) -> After {
        match failure.status() {
            Some(status) => {
                let text =
                    explain(failure, self.story.host.as_ref().map(ToString::to_string), self.client.service_port);
                self.respond(status, &text).await
            }
            None => After::Reset,
        }
    }

    /// Sends an answer of our own. The connection stays only if the request's body can be read to its end.
    async fn respond(&mut self, status: u16, body: &str) -> After {
        let limits = &self.snapshot.settings.limits;
        let mut unread = BodyReader::new(self.head.body, exchange::body_limits(limits));
        // An attempt that failed may have taken some of it.
        let is_whole = self.inbound.rewind();
        let taken = exchange::discard(&mut unread, self.inbound.untaken());
        self.inbound.take(taken);
        let is_small = matches!(self.head.body, BodyLength::Fixed(length) if length <= DRAINED_BODY_BYTES_MAX);
        let body_ends = is_whole && (unread.is_done() || (is_small && !self.head.expects_continue));
        let keep = self.head.keep_alive && body_ends && !matches!(status, 400 | 408) && !self.context.draining.get();
        let to_head = self.head.method.of(self.inbound.bytes()) == b"HEAD";
        let mut answer = Vec::new();
        write_local_response(status, body, keep, to_head, &mut answer);
        self.story.status = status;
        self.story.bytes_sent = if to_head { 0 } else { body.len() as u64 };
        // A client that asks and asks and never reads must not hold its place for ever.
        match within(limits.body_idle_timeout, self.client.socket.send_all(&answer)).await {
            Some(Ok(())) if keep && self.drain(&mut unread).await => After::Keep,
            Some(Ok(())) => After::Close,
            Some(Err(_)) | None => After::Reset,
        }
    }

    /// Reads and throws away the rest of a body, in no more time than a silence may last. False: it did not come to its
    /// end.
    async fn drain(&mut self, unread: &mut BodyReader) -> bool {
        let patience = self.snapshot.settings.limits.body_idle_timeout;
        within(patience, self.drain_unhurried(unread)).await.unwrap_or(false)
    }

    async fn drain_unhurried(&mut self, unread: &mut BodyReader) -> bool {
        while !unread.is_done() {
            if self.client.socket.readable().await.is_err() {
                return false;
            }
            let mut input = self.context.scratch.input.borrow_mut();
            let count = match self.client.socket.receive(&mut input) {
                Ok(Received::Bytes(count)) => count,
                Ok(Received::Pending) => continue,
                Ok(Received::End) | Err(_) => return false,
            };
            let taken = exchange::discard(unread, &input[..count]);
            self.inbound.streamed(&input[taken..count]);
        }
        true
    }
}

/// What the access log shows as %ROUTE_NAME%.
fn route_name(matched: Matched<'_>) -> Cow<'_, str> {
    match matched.by.and_then(|by| by.name.as_ref()) {
        None => Cow::Borrowed(&matched.route.name),
        Some(_) => Cow::Owned(matched.name().to_string()),
    }
}

/// Answers bytes that are no request head, and tells of them.
pub(super) fn refuse_malformed(context: &Rc<Context>, client: &Client, bytes: &[u8], failure: &Failure) {
    let mut story = Story::new();
    if let Some(status) = failure.status() {
        let text = explain(failure, None, client.service_port);
        let mut answer = Vec::new();
        write_local_response(status, &text, false, false, &mut answer);
        // A socket that does not take a few hundred bytes has a client that does not read: it gets no answer.
        if client.socket.send(&answer).is_ok() {
            story.status = status;
            story.bytes_sent = text.len() as u64;
        }
    }
    story.tell_malformed(context, client, bytes, failure);
}

/// The body of an answer of our own: what was refused, why, and whom to ask.
fn explain(failure: &Failure, host: Option<String>, port: u16) -> String {
    if let Failure::AccessDenied(_) = failure {
        // Istio's own words, which clients and tests look for.
        return "RBAC: access denied".to_owned();
    }
    let reason = failure.reason();
    match (host, failure == &Failure::NotListed) {
        (Some(host), true) => {
            format!("{host}:{port} is blocked: no ServiceEntry names this host and port ({reason})\n")
        }
        (Some(host), false) => format!("{host}:{port}: {reason}\n"),
        (None, _) => format!("{reason}\n"),
    }
}
