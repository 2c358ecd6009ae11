//! A worker's view of DNS: answers it has, and questions it has put to the resolver of the control thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::limits::{RESOLVE_TIMEOUT, RESOLVED_NAMES_MAX, RESOLVING_NAMES_MAX};
use crate::net::{coarse_now, within};
use crate::route::host::HostName;

/// Addresses of a name.
#[derive(Clone, Debug)]
pub struct Answer {
    /// A and AAAA records in the order to try; never empty, at most [`crate::limits::ADDRESSES_PER_NAME_MAX`].
    pub addresses: Vec<IpAddr>,
    /// How long the answer may be used.
    pub valid: Duration,
    /// Whether the operator wrote the addresses (`dns.hosts`): they are exempt from the address policy.
    pub configured: bool,
}

/// Why a name has no addresses.
#[derive(Clone, Debug)]
pub struct Unresolved {
    /// For the log: `NXDOMAIN`, `timeout`, ….
    pub reason: String,
    /// How long to take no for an answer.
    pub valid: Duration,
}

/// How long an answer is used that was asked for under a configuration that has been replaced. Not zero: those who
/// waited for it have yet to read it.
const OUTDATED_VALID: Duration = Duration::from_secs(1);

/// What the resolver said of a name. Shared among the sessions of one worker.
pub type Outcome = Result<Rc<Answer>, Rc<Unresolved>>;

/// The worker's cache, and its questions under way.
pub struct Resolver {
    names: RefCell<HashMap<HostName, Entry, foldhash::fast::RandomState>>,
    ask: Box<dyn Fn(HostName)>,
}

enum Entry {
    /// Asked, not answered; who waits, and whether the configuration was replaced meanwhile.
    Asked { wakers: Vec<Waker>, outdated: bool },
    /// Answered.
    Known { outcome: Outcome, until: Instant },
}

impl Resolver {
    /// `ask` puts a question to the control thread; its answer comes back through [`Self::answered`].
    pub fn new(ask: impl Fn(HostName) + 'static) -> Self {
        Self { names: RefCell::default(), ask: Box::new(ask) }
    }

    /// The addresses of a name, from the cache or from the control thread, within [`RESOLVE_TIMEOUT`].
    ///
    /// # Errors
    /// Why there are none; the limits of this worker included.
    pub async fn resolve(&self, name: &HostName) -> Outcome {
        if let Some(outcome) = self.known(name) {
            return outcome;
        }
        let wait = poll_fn(|context| self.poll(name, context.waker()));
        within(RESOLVE_TIMEOUT, wait).await.unwrap_or_else(|| Err(refusal("no answer from the resolver in time")))
    }

    fn known(&self, name: &HostName) -> Option<Outcome> {
        match self.names.borrow().get(name) {
            Some(Entry::Known { outcome, until }) if coarse_now() < *until => Some(outcome.clone()),
            Some(Entry::Known { .. } | Entry::Asked { .. }) | None => None,
        }
    }

    fn poll(&self, name: &HostName, waker: &Waker) -> Poll<Outcome> {
        let mut names = self.names.borrow_mut();
        match names.get_mut(name) {
            Some(Entry::Known { outcome, until }) if coarse_now() < *until => return Poll::Ready(outcome.clone()),
            Some(Entry::Asked { wakers, .. }) => {
                // A session asks once, and again only if something else woke it: doubles are rare and harmless.
                wakers.push(waker.clone());
                return Poll::Pending;
            }
            Some(Entry::Known { .. }) | None => {}
        }
        if !make_room(&mut names) {
            return Poll::Ready(Err(refusal("too many names are being resolved")));
        }
        names.insert(name.clone(), Entry::Asked { wakers: vec![waker.clone()], outdated: false });
        (self.ask)(name.clone());
        Poll::Pending
    }

    /// Takes the answer to a question and wakes whoever waits for it.
    pub fn answered(&self, name: HostName, result: Result<Answer, Unresolved>) {
        let valid = match &result {
            Ok(answer) => answer.valid,
            Err(unresolved) => unresolved.valid,
        };
        let outcome = result.map(Rc::new).map_err(Rc::new);
        let mut names = self.names.borrow_mut();
        let (wakers, valid) = match names.remove(&name) {
            // Good for those who waited; whoever asks later asks under the new configuration.
            Some(Entry::Asked { wakers, outdated: true }) => (wakers, valid.min(OUTDATED_VALID)),
            Some(Entry::Asked { wakers, outdated: false }) => (wakers, valid),
            Some(Entry::Known { .. }) | None => (Vec::new(), valid),
        };
        names.insert(name, Entry::Known { outcome, until: coarse_now() + valid });
        drop(names);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Forgets every answer: the configuration that they came from has been replaced.
    pub fn forget(&self) {
        self.names.borrow_mut().retain(|_, entry| match entry {
            Entry::Asked { outdated, .. } => {
                *outdated = true;
                true
            }
            Entry::Known { .. } => false,
        });
    }
}

/// Keeps the table within its bounds. False: too many questions are under way.
fn make_room(names: &mut HashMap<HostName, Entry, foldhash::fast::RandomState>) -> bool {
    if names.len() >= RESOLVED_NAMES_MAX {
        // Starting afresh is cheaper than keeping an order of use, and the control thread has a cache of its own.
        names.retain(|_, entry| matches!(entry, Entry::Asked { .. }));
    }
    names.len() < RESOLVED_NAMES_MAX
        && (names.len() < RESOLVING_NAMES_MAX
            || names.values().filter(|entry| matches!(entry, Entry::Asked { .. })).count() < RESOLVING_NAMES_MAX)
}

fn refusal(reason: &str) -> Rc<Unresolved> {
    Rc::new(Unresolved { reason: reason.to_owned(), valid: Duration::ZERO })
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Resolver").field("names", &self.names.borrow().len()).finish_non_exhaustive()
    }
}
