//! One request: decided, forwarded or answered, and told exactly once.

use std::rc::Rc;

use crate::failure::Failure;
use crate::route::http::DirectResponse;
use crate::snapshot::Snapshot;
use crate::wire::http1::{BodyLength, RequestHead, write_local_response};

use super::decide::{Verdict, decide};
use super::facts::Facts;
use super::forward::{self, Plan};
use super::head::Inbound;
use super::story::Story;
use super::{After, Client, Context};

/// A request on its way.
pub(super) struct Turn<'a> {
    pub(super) context: &'a Rc<Context>,
    pub(super) client: &'a Client,
    pub(super) snapshot: Rc<Snapshot>,
    pub(super) inbound: &'a mut Inbound,
    pub(super) head: RequestHead,
    pub(super) story: Story,
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
        inbound: &'a mut Inbound,
        head: RequestHead,
    ) -> Self {
        inbound.begin_body(head.head.len as usize);
        Self { context, client, snapshot: context.snapshot(), inbound, head, story: Story::new() }
    }

    /// Takes the request to its end and drops its bytes.
    pub(super) async fn take(mut self) -> After {
        let snapshot = Rc::clone(&self.snapshot);
        let next = self.decide(&snapshot);
        let result = match next {
            Ok(Next::Forward(plan)) => forward::forward(&mut self, plan).await,
            Ok(Next::Respond(response)) => Ok((self.respond(response.status, &response.body).await, None)),
            Err(failure) => Err(failure),
        };
        let (after, failure) = match result {
            Ok(ending) => ending,
            Err(failure) => (self.answer(&failure).await, Some(failure)),
        };
        self.story.tell_request(self.context, self.client, &self.head, self.inbound.bytes(), failure);
        self.inbound.finish_request();
        after
    }

    fn decide<'s>(&mut self, snapshot: &'s Snapshot) -> Result<Next<'s>, Failure> {
        let facts = Facts::new(&self.head, self.inbound.bytes(), snapshot.settings.normalization)?;
        self.story.host.clone_from(&facts.host);
        match decide(snapshot, self.client, &facts)? {
            Verdict::Forward(host, matched, route) => {
                self.story.service = Some(host.host.clone());
                self.story.route = Some(matched.name().to_string().into());
                Plan::new(snapshot, self.context, &facts, matched, route).map(Next::Forward)
            }
            Verdict::Anywhere => {
                self.story.route = Some("allow_any".into());
                Plan::anywhere(snapshot, self.client, &facts).map(Next::Forward)
            }
            Verdict::Respond(matched, response) => {
                self.story.route = Some(matched.name().to_string().into());
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

    /// Sends an answer of our own. The connection stays only if no body is left unread.
    async fn respond(&mut self, status: u16, body: &str) -> After {
        let body_read = self.head.body == BodyLength::None;
        let keep = self.head.keep_alive && body_read && status != 400 && !self.context.draining.get();
        let to_head = self.head.method.of(self.inbound.bytes()) == b"HEAD";
        let mut answer = Vec::new();
        write_local_response(status, body, keep, to_head, &mut answer);
        self.story.status = status;
        self.story.bytes_sent = if to_head { 0 } else { body.len() as u64 };
        match self.client.socket.send_all(&answer).await {
            Ok(()) if keep => After::Keep,
            Ok(()) => After::Close,
            Err(_) => After::Reset,
        }
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
    match failure {
        // Istio's own words, which clients and tests look for.
        Failure::AccessDenied(_) => "RBAC: access denied".to_owned(),
        Failure::NotListed => {
            let host = host.unwrap_or_else(|| "this address".to_owned());
            format!("{host}:{port} is blocked: no ServiceEntry names this host and port (host_not_listed)\n")
        }
        other => match host {
            Some(host) => format!("{host}:{port}: {}\n", other.reason()),
            None => format!("{}\n", other.reason()),
        },
    }
}
