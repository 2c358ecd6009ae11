//! One request: decided, forwarded or answered, and told exactly once.

use std::borrow::Cow;
use std::io;
use std::rc::Rc;

use crate::failure::Failure;
use crate::limits::DRAINED_BODY_BYTES_MAX;
use crate::net::{Received, within};
use crate::route::decide::{self, HttpVerdict};
use crate::route::http::{CorsVerdict, DirectResponse, Fault, Matched};
use crate::snapshot::Snapshot;
use crate::wire::http1::{
    BodyLength, BodyReader, FieldEdits, LocalResponse, NO_FIELD_EDITS, RequestHead, Version, write_local_response,
};
use crate::wire::http2::{grpc_fields, is_grpc};

use super::super::terminate;
use super::exchange;
use super::facts::Facts;
use super::forward::{self, Plan};
use super::head::Inbound;
use super::mirror::{self, Copied, Original};
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
    /// The copy that is being made of it, if its route mirrors it.
    pub(super) copied: Option<Box<Copied>>,
}

/// How a turn ended: what becomes of the connection, and the failure that the log shows.
pub(super) type Ending = (After, Option<Failure>);

/// What a decision asks for, free of the borrows it was made with.
enum Next<'s> {
    Forward(Plan<'s>),
    Respond(&'s DirectResponse, Cow<'s, FieldEdits>),
    Redirect(u16, String, Cow<'s, FieldEdits>),
    Preflight(FieldEdits),
}

/// An answer of our own.
struct Answer<'b> {
    status: u16,
    body: &'b [u8],
    location: Option<&'b str>,
    fields: &'b FieldEdits,
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
        Self { context, client, snapshot, inbound, head, story: Story::new(), copied: None }
    }

    /// Takes the request to its end and drops its bytes.
    pub(super) async fn take(&mut self) -> After {
        let (settings, tables) = (&self.snapshot.settings, &self.snapshot.routes.tables);
        settings.fields.withhold(&mut self.head, self.inbound.bytes(), tables.method_policy);
        // Matched where it is: a plan that moved would be there twice.
        let mut next = self.begin().await;
        let result = match &mut next {
            Ok(Next::Forward(plan)) => forward::forward(self, plan).await,
            Ok(Next::Respond(response, fields)) => {
                let DirectResponse { status, body, .. } = response;
                Ok((self.respond(Answer { status: *status, body, location: None, fields }).await, None))
            }
            Ok(Next::Redirect(status, location, fields)) => {
                let location = Some(&**location);
                Ok((self.respond(Answer { status: *status, body: b"", location, fields }).await, None))
            }
            Ok(Next::Preflight(fields)) => {
                Ok((self.respond(Answer { status: 200, body: b"", location: None, fields }).await, None))
            }
            Err(failure) => Err(failure.clone()),
        };
        drop(next);
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

    /// What a client that has failed means; within TLS the log says why.
    pub(super) fn lost(&mut self, error: &io::Error) -> Failure {
        match self.client.transport.tls() {
            Some(_) => self.story.transport(Failure::DownstreamClosed, &error.to_string()),
            None => Failure::DownstreamClosed,
        }
    }

    /// Decides, and lets the request suffer what its route has in store for it first.
    async fn begin(&mut self) -> Result<Next<'a>, Failure> {
        let (next, fault) = self.decide()?;
        // A reset is often read together with the request that it takes back: nobody outside is to be bothered with either.
        if self.client.transport.is_given_up() {
            return Err(Failure::DownstreamClosed);
        }
        if let Some(fault) = fault {
            let timeout = if let Next::Forward(plan) = &next { plan.timeout } else { None };
            Box::pin(self.suffer(fault, timeout)).await?;
        }
        Ok(next)
    }

    fn decide(&mut self) -> Result<(Next<'a>, Option<&'a Fault>), Failure> {
        let snapshot = self.snapshot;
        let mut facts = Facts::new(&self.head, self.inbound.bytes(), snapshot.settings.normalization)?;
        facts.arrive(snapshot, self.client.source());
        self.story.host.clone_from(&facts.host);
        terminate::confirm(self.context, self.client, snapshot)?;
        snapshot.settings.fields.judge(&self.head, self.inbound.bytes())?;
        let host = facts.host.as_ref();
        let source = self.client.source();
        decide::http_audits(snapshot, source, host, &facts, |policy, rule| {
            self.context.audit(policy, rule, &mut self.story.audited);
        });
        let verdict = decide::http(snapshot, source, host, &facts)?;
        let ticket = self.context.balancer.random();
        let entered = decide::enter(snapshot, verdict, host, &facts, ticket)?;
        let Some(matched) = entered.verdict.matched() else {
            self.story.route = Some("allow_any".into());
            return Ok((Next::Forward(Plan::anywhere(snapshot, self.client, &facts)), None));
        };
        self.story.route = Some(route_name(matched));
        let marks = match matched.cors(&facts) {
            CorsVerdict::Unconcerned => None,
            CorsVerdict::Allowed(fields) => Some(fields),
            CorsVerdict::Preflight(fields) => {
                self.story.details = "cors_response";
                return Ok((Next::Preflight(fields), None));
            }
        };
        let next = match entered.verdict {
            HttpVerdict::Forward(host, _, route) => {
                self.story.service = Some(&host.host);
                let plan = Plan::new(snapshot, self.client, &facts, matched, route, entered.ticket)?;
                let mut plan = plan.within(entered.before);
                marks.iter().for_each(|marks| plan.mark(marks));
                plan.give_cookie(|| self.context.balancer.lot());
                if let Some(mirrors) = route.mirrors.as_deref()
                    && let Some(host) = facts.host.as_ref()
                {
                    let (context, client, head) = (self.context, self.client, &self.head);
                    let original = Original { context, client, snapshot, host, head, bytes: self.inbound.bytes() };
                    self.copied = mirror::begin(original, mirrors, &plan);
                }
                Next::Forward(plan)
            }
            HttpVerdict::Respond(_, _, response) => {
                self.story.details = "direct_response";
                Next::Respond(response, marked(&response.fields, marks))
            }
            HttpVerdict::Redirect(_, _, redirect) => {
                self.story.details = "direct_response";
                Next::Redirect(redirect.status, redirect.location(&facts), marked(&redirect.fields, marks))
            }
            HttpVerdict::Anywhere => Next::Forward(Plan::anywhere(snapshot, self.client, &facts)),
        };
        Ok((next, matched.route.fault.as_deref()))
    }

    /// Sends the answer that a failure is owed.
    async fn answer(&mut self, failure: &Failure) -> After {
        match failure.status() {
            Some(status) => {
                let text =
                    explain(failure, self.story.host.as_ref().map(ToString::to_string), self.client.service_port);
                let body = text.as_bytes();
                self.respond(Answer { status, body, location: None, fields: &NO_FIELD_EDITS }).await
            }
            None => After::Reset,
        }
    }

    /// Sends an answer of our own. The connection stays only if the request's body can be read to its end.
    async fn respond(&mut self, answer: Answer<'_>) -> After {
        let of_grpc = self.in_grpc(&answer);
        let answer =
            of_grpc.as_ref().map_or(answer, |fields| Answer { status: 200, body: b"", location: None, fields });
        let Answer { status, body, location, fields } = answer;
        let limits = &self.snapshot.settings.limits;
        let mut unread = BodyReader::new(self.head.body, exchange::body_limits(limits));
        // An attempt that failed may have taken some of it.
        let is_whole = self.inbound.rewind();
        let taken = exchange::discard(&mut unread, self.inbound.untaken());
        self.inbound.take(taken);
        let is_small = matches!(self.head.body, BodyLength::Fixed(length) if length <= DRAINED_BODY_BYTES_MAX);
        let body_ends = is_whole && (unread.is_done() || (is_small && !self.head.expects_continue));
        // A stream ends with its answer, whatever is left of the request (RFC 9113 section 8.1).
        let may_keep = !matches!(status, 400 | 408 | 421) && self.head.version != Version::Http2;
        let keep_alive = self.head.keep_alive && body_ends && may_keep && !self.context.draining.get();
        let to_head = self.head.method.of(self.inbound.bytes()) == b"HEAD";
        let mut answer = Vec::new();
        let response = LocalResponse { status, body, location, fields, keep_alive, to_head };
        write_local_response(&response, &mut answer);
        self.story.status = status;
        self.story.bytes_sent = if to_head { 0 } else { body.len() as u64 };
        // A client that asks and asks and never reads must not hold its place for ever.
        match within(limits.body_idle_timeout, self.client.transport.send_all(&answer)).await {
            Some(Ok(())) if keep_alive && self.drain(&mut unread).await => After::Keep,
            Some(Ok(())) => After::Close,
            Some(Err(_)) | None => After::Reset,
        }
    }

    /// The fields of an answer that refuses a request of gRPC; `None`: it is in HTTP's own words.
    fn in_grpc(&self, answer: &Answer<'_>) -> Option<FieldEdits> {
        let is_refusal = self.head.version == Version::Http2 && answer.status >= 400;
        let is_grpc = is_refusal && is_grpc(&self.head.head, self.inbound.bytes());
        is_grpc.then(|| grpc_fields(answer.status, &String::from_utf8_lossy(answer.body), answer.fields))
    }

    /// Reads and throws away the rest of a body, in no more time than a silence may last. False: it did not come to its
    /// end.
    async fn drain(&mut self, unread: &mut BodyReader) -> bool {
        let patience = self.snapshot.settings.limits.body_idle_timeout;
        within(patience, self.drain_unhurried(unread)).await.unwrap_or(false)
    }

    async fn drain_unhurried(&mut self, unread: &mut BodyReader) -> bool {
        while !unread.is_done() {
            if self.client.transport.readable().await.is_err() {
                return false;
            }
            let mut input = self.context.scratch.input.borrow_mut();
            let count = match self.client.transport.receive(&mut input) {
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

/// The changes of a route to its answers, and after them those of its CORS policy.
fn marked(fields: &FieldEdits, marks: Option<FieldEdits>) -> Cow<'_, FieldEdits> {
    let Some(marks) = marks else { return Cow::Borrowed(fields) };
    let mut fields = fields.clone();
    fields.extend(&marks);
    Cow::Owned(fields)
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
        let (body, fields) = (text.as_bytes(), &NO_FIELD_EDITS);
        let response = LocalResponse { status, body, location: None, fields, keep_alive: false, to_head: false };
        write_local_response(&response, &mut answer);
        // A socket that does not take a few hundred bytes has a client that does not read: it gets no answer.
        if client.transport.send(&answer).is_ok() {
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
    if let Failure::FaultAbort(_) = failure {
        return "fault filter abort".to_owned(); // Envoy's.
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
