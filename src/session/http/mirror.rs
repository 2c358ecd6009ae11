//! Copies of requests that a route sends to another service as well (`mirror`). Nobody waits for their answers, which are
//! thrown away.
//!
//! A copy is made of what the upstream gets, and sent when its request has been sent whole: by a task of its own, under
//! bounds of its own. What does not fit them is not copied, and counted.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::limits::{MIRRORED_BODY_BYTES_MAX, MIRRORED_REQUESTS_MAX, MIRRORED_TIMEOUT};
use crate::net::{CatchPanic, within};
use crate::route::cluster::Destination;
use crate::route::decide;
use crate::route::host::HostName;
use crate::route::http::{Edits, Forward};
use crate::snapshot::Snapshot;
use crate::wire::http1::{BodyLength, RequestHead};

use super::forward::{self, Plan};
use super::head::Inbound;
use super::turn::Turn;
use super::{Client, Context};

/// What Envoy puts behind the host of a copy, so that it can be told from its request.
const SUFFIX: &str = "-shadow";

/// A request that is copied, as far as it has been sent on.
pub(super) struct Copied {
    request: Rc<Request>,
    /// The head, and as much of the body, as the client has sent them.
    bytes: Vec<u8>,
    head_bytes: usize,
    destinations: SmallVec<[Destination; 1]>,
}

/// What all copies of a request share.
struct Request {
    context: Rc<Context>,
    /// Under whose configuration it was decided.
    generation: u64,
    client: Client,
    head: RequestHead,
    target: String,
    edits: Edits,
    requested: HostName,
    timeout: Duration,
    /// Places that are left to be given back.
    places: Cell<usize>,
}

impl Drop for Request {
    fn drop(&mut self) {
        let mirrored = &self.context.mirrored;
        mirrored.set(mirrored.get().saturating_sub(self.places.get()));
    }
}

impl Drop for Copied {
    /// Destinations that are left have got nothing.
    fn drop(&mut self) {
        self.request.context.counters.borrow_mut().mirrored_dropped += self.destinations.len() as u64;
    }
}

/// What is known of a request when its route has been chosen.
#[derive(Clone, Copy)]
pub(super) struct Original<'a> {
    pub(super) context: &'a Rc<Context>,
    pub(super) client: &'a Client,
    pub(super) snapshot: &'a Snapshot,
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
}

/// Begins to copy a request, if its route mirrors it.
pub(super) fn begin(original: Original<'_>, route: &Forward, plan: &Plan<'_>) -> Option<Box<Copied>> {
    let Original { context, client, snapshot, head, bytes } = original;
    let requested = plan.requested.clone()?;
    let chosen = route.mirrors.iter().filter(|mirror| mirror.share.takes(context.balancer.random()));
    let mut failed = 0;
    let known = chosen.filter(|mirror| {
        let is_known = decide::mirrored(snapshot, mirror, &requested).is_ok();
        failed += u64::from(!is_known);
        is_known
    });
    let destinations: SmallVec<[Destination; 1]> = known.map(|mirror| mirror.destination).collect();
    context.counters.borrow_mut().mirrored_failed += failed;
    let is_large = matches!(head.body, BodyLength::Fixed(length) if length > MIRRORED_BODY_BYTES_MAX as u64);
    // An upgrade makes a tunnel, of which nothing is copied.
    let is_fit = !is_large && head.upgrade.is_none() && !context.draining.get();
    if destinations.is_empty() {
        return None;
    }
    let under_way = context.mirrored.get() + destinations.len();
    if !is_fit || under_way > MIRRORED_REQUESTS_MAX {
        context.counters.borrow_mut().mirrored_dropped += destinations.len() as u64;
        return None;
    }
    context.mirrored.set(under_way);
    let authority = plan.edits.authority.as_deref().unwrap_or_else(|| head.authority.text(bytes));
    let authority = Some(shadow(authority).into());
    let request = Rc::new(Request {
        context: Rc::clone(context),
        generation: snapshot.generation,
        client: client.as_nobody(),
        head: head.clone(),
        target: plan.target.text(bytes).to_owned(),
        edits: Edits { authority, ..plan.edits.clone() },
        requested,
        timeout: plan.timeout.map_or(MIRRORED_TIMEOUT, |timeout| timeout.min(MIRRORED_TIMEOUT)),
        places: Cell::new(destinations.len()),
    });
    let head_bytes = head.head.len as usize;
    Some(Box::new(Copied { request, bytes: bytes[..head_bytes].to_vec(), head_bytes, destinations }))
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
    if copy.bytes.len() - copy.head_bytes + body.len() > MIRRORED_BODY_BYTES_MAX {
        *copied = None;
        return;
    }
    copy.bytes.extend_from_slice(body);
    if is_whole && let Some(copy) = copied.take() {
        (*copy).send();
    }
}

impl Copied {
    fn send(mut self) {
        let bytes = Rc::new(std::mem::take(&mut self.bytes));
        for destination in std::mem::take(&mut self.destinations) {
            let (request, bytes) = (Rc::clone(&self.request), Rc::clone(&bytes));
            monoio::spawn(async move {
                let is_answered = Cell::new(false);
                let sending = async { is_answered.set(request.send(destination, &bytes).await) };
                let panicked = CatchPanic::new(Box::pin(sending)).await.is_err();
                let mut counters = request.context.counters.borrow_mut();
                counters.sessions_panicked += u64::from(panicked);
                match is_answered.get() {
                    true => counters.mirrored_answered += 1,
                    false => counters.mirrored_failed += 1,
                }
                drop(counters);
                request.give_place_back();
            });
        }
    }
}

impl Request {
    fn give_place_back(&self) {
        self.places.set(self.places.get().saturating_sub(1));
        self.context.mirrored.set(self.context.mirrored.get().saturating_sub(1));
    }

    /// Whether a whole answer has come.
    async fn send(&self, destination: Destination, bytes: &[u8]) -> bool {
        let snapshot = self.context.snapshot();
        // Destinations mean nothing beyond their own configuration.
        if snapshot.generation != self.generation {
            return false;
        }
        let Ok(cluster) = decide::cluster(&snapshot, destination) else { return false };
        let mut inbound = Inbound::new(bytes.to_vec());
        let mut turn = Turn::new(&self.context, &self.client, &snapshot, &mut inbound, self.head.clone());
        let mut plan = Plan::of_copy(cluster, self.target.clone(), &self.edits, self.requested.clone());
        let forwarded = within(self.timeout, forward::forward(&mut turn, &mut plan)).await;
        matches!(forwarded, Some(Ok((_, None))))
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
