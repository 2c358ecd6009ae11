//! Copies of requests that a route sends to another service as well (`mirror`). Nobody waits for their answers, which are
//! thrown away.
//!
//! A copy is made of what the upstream gets, and sent when its request has been sent whole: by a task of its own, under
//! bounds of its own. What does not fit them is not copied, and counted.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::limits::{COPIED_BODY_BYTES_MAX, COPY_ANSWER_BYTES_MAX, COPY_TIMEOUT};
use crate::net::{CatchPanic, Either, either};
use crate::route::cluster::Destination;
use crate::route::decide;
use crate::route::host::HostName;
use crate::route::http::{Edits, Mirrors};
use crate::snapshot::Snapshot;
use crate::wire::http1::{BodyLength, RequestHead};

use super::super::copies::{Gathered, Place};
use super::forward::{self, Plan};
use super::head::Inbound;
use super::turn::Turn;
use super::{Client, Context};

/// What Envoy puts behind the host of a copy, so that it can be told from its request.
const SUFFIX: &str = "-shadow";

/// A request that is copied, as far as it has been sent on.
pub(super) struct Copied {
    template: Rc<Template>,
    /// The head, and as much of the body, as the client has sent them.
    bytes: Vec<u8>,
    head_bytes: usize,
    gathered: Gathered,
    destinations: SmallVec<[Destination; 1]>,
}

/// What all copies of a request share.
struct Template {
    context: Rc<Context>,
    /// Under whose configuration it was decided.
    generation: u64,
    client: Client,
    head: RequestHead,
    target: String,
    edits: Edits,
    requested: HostName,
    timeout: Duration,
}

/// What has become of a copy.
#[derive(Clone, Copy)]
enum Fate {
    /// The head of an answer has come.
    Answered,
    Failed,
    /// Nobody has got it.
    Dropped,
}

impl Drop for Copied {
    /// Destinations that are left have got nothing.
    fn drop(&mut self) {
        self.template.context.counters.borrow_mut().copies_dropped += self.destinations.len() as u64;
    }
}

/// What is known of a request when its route has been chosen.
#[derive(Clone, Copy)]
pub(super) struct Original<'a> {
    pub(super) context: &'a Rc<Context>,
    pub(super) client: &'a Client,
    pub(super) snapshot: &'a Snapshot,
    pub(super) host: &'a HostName,
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
}

/// Begins to copy a request, if its route mirrors it.
pub(super) fn begin(original: Original<'_>, mirrors: &Mirrors, plan: &Plan<'_>) -> Option<Box<Copied>> {
    let Original { context, client, snapshot, host, head, bytes } = original;
    let Mirrors { to, edits } = mirrors;
    let mut requested = None;
    let mut destinations = SmallVec::new();
    for mirror in to.iter().filter(|mirror| mirror.share.takes(context.balancer.random())) {
        match decide::mirrored(snapshot, mirror, host, edits) {
            Ok((_, name)) => {
                requested = Some(name);
                destinations.push(mirror.destination);
            }
            Err(failure) => {
                context.counters.borrow_mut().copies_failed += 1;
                let reason = failure.reason();
                tracing::debug!(%host, reason, "a mirror leads nowhere");
            }
        }
    }
    let requested = requested?;
    let authority = edits.authority.as_deref().unwrap_or_else(|| head.authority.text(bytes));
    let authority = Some(shadow(authority).into());
    let template = Template {
        context: Rc::clone(context),
        generation: snapshot.generation,
        client: client.as_nobody(COPY_ANSWER_BYTES_MAX),
        head: head.clone(),
        target: plan.target.text(bytes).to_owned(),
        edits: Edits { authority, ..edits.clone() },
        requested,
        timeout: plan.timeout.map_or(COPY_TIMEOUT, |timeout| timeout.min(COPY_TIMEOUT)),
    };
    let head_bytes = head.head.len as usize;
    let mut copied = Box::new(Copied {
        template: Rc::new(template),
        bytes: bytes[..head_bytes].to_vec(),
        head_bytes,
        gathered: Gathered::new(context, client.peer().ip()),
        destinations,
    });
    let is_large = matches!(head.body, BodyLength::Fixed(length) if length > COPIED_BODY_BYTES_MAX as u64);
    // An upgrade makes a tunnel, of which nothing is copied.
    let is_fit = !is_large && head.upgrade.is_none() && !context.draining.get();
    (is_fit && copied.has_room()).then_some(copied)
}

/// The Host of a copy. An address in brackets takes nothing behind it.
fn shadow(authority: &str) -> String {
    match authority.rsplit_once(':') {
        _ if authority.contains('[') => authority.to_owned(),
        Some((host, port)) => format!("{host}{SUFFIX}:{port}"),
        None => format!("{authority}{SUFFIX}"),
    }
}

/// Notes what has been sent on of a request; `is_first`: from its head, before which nothing counts.
pub(super) fn note(copied: &mut Option<Box<Copied>>, body: &[u8], is_first: bool, is_whole: bool) {
    let Some(copy) = copied else { return };
    if is_first {
        copy.bytes.truncate(copy.head_bytes);
    }
    let fits = copy.bytes.len() - copy.head_bytes + body.len() <= COPIED_BODY_BYTES_MAX;
    if fits {
        copy.bytes.extend_from_slice(body);
    }
    if !fits || !copy.has_room() {
        *copied = None;
        return;
    }
    if is_whole && let Some(copy) = copied.take() {
        (*copy).send();
    }
}

impl Copied {
    /// Whether the worker may keep it.
    fn has_room(&mut self) -> bool {
        let own = size_of::<Self>() + size_of::<Template>() + self.template.target.len();
        self.gathered.set(own + self.bytes.capacity())
    }

    /// Sends it everywhere, as far as there are places.
    fn send(mut self) {
        let bytes = Rc::new(std::mem::take(&mut self.bytes));
        for destination in std::mem::take(&mut self.destinations) {
            let context = &self.template.context;
            match Place::take(context) {
                Some(place) => {
                    let (template, bytes) = (Rc::clone(&self.template), Rc::clone(&bytes));
                    monoio::spawn(template.run(place, destination, bytes));
                }
                None => context.counters.borrow_mut().copies_dropped += 1,
            }
        }
    }
}

impl Template {
    /// The task of a copy.
    async fn run(self: Rc<Self>, place: Place, destination: Destination, bytes: Rc<Vec<u8>>) {
        let fate = Cell::new(Fate::Failed);
        let sending = async {
            if let Either::Second(ended) = either(place.cut_off(), self.send(destination, bytes)).await {
                fate.set(ended);
            }
        };
        let panicked = CatchPanic::new(Box::pin(sending)).await.is_err();
        let mut counters = self.context.counters.borrow_mut();
        counters.sessions_panicked += u64::from(panicked);
        match fate.get() {
            Fate::Answered => counters.copies_answered += 1,
            Fate::Dropped => counters.copies_dropped += 1,
            Fate::Failed => counters.copies_failed += 1,
        }
    }

    async fn send(&self, destination: Destination, bytes: Rc<Vec<u8>>) -> Fate {
        let snapshot = self.context.snapshot();
        // Destinations mean nothing beyond their own configuration.
        if snapshot.generation != self.generation {
            return Fate::Dropped;
        }
        let Ok(cluster) = decide::cluster(&snapshot, destination) else { return Fate::Failed };
        // The last one has them to itself.
        let mut inbound = Inbound::new(Rc::try_unwrap(bytes).unwrap_or_else(|shared| shared.to_vec()));
        let mut turn = Turn::new(&self.context, &self.client, &snapshot, &mut inbound, self.head.clone());
        let (target, requested) = (self.target.clone(), self.requested.clone());
        let mut plan = Plan::of_copy(cluster, target, &self.edits, requested, self.timeout);
        let failure = match forward::forward(&mut turn, &mut plan).await {
            Ok((_, failure)) => failure,
            Err(failure) => Some(failure),
        };
        if turn.story.status != 0 {
            return Fate::Answered;
        }
        let reason = failure.as_ref().map_or("", |failure| failure.reason());
        let transport = turn.story.transport_failure.as_deref().unwrap_or_default();
        tracing::debug!(cluster = %cluster.name, reason, transport, "a copy of a request has failed");
        Fate::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_copy_says_that_it_is_one() {
        assert_eq!(shadow("a.example"), "a.example-shadow");
        assert_eq!(shadow("a.example:8080"), "a.example-shadow:8080");
        assert_eq!(shadow("[2001:db8::1]:80"), "[2001:db8::1]:80");
    }
}
