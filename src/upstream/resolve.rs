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

/// What the resolver said of a name. Shared among the sessions of one worker.
pub type Outcome = Result<Rc<Answer>, Rc<Unresolved>>;

/// The worker's cache, and its questions under way.
pub struct Resolver {
    names: RefCell<HashMap<HostName, Entry, foldhash::fast::RandomState>>,
    ask: Box<dyn Fn(HostName)>,
}

enum Entry {
    /// Asked, not answered; who waits.
    Asked(Vec<Waker>),
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
            Some(Entry::Known { .. } | Entry::Asked(_)) | None => None,
        }
    }

    fn poll(&self, name: &HostName, waker: &Waker) -> Poll<Outcome> {
        let mut names = self.names.borrow_mut();
        match names.get_mut(name) {
            Some(Entry::Known { outcome, until }) if coarse_now() < *until => return Poll::Ready(outcome.clone()),
            Some(Entry::Asked(wakers)) => {
                if !wakers.iter().any(|known| known.will_wake(waker)) {
                    wakers.push(waker.clone());
                }
                return Poll::Pending;
            }
            Some(Entry::Known { .. }) | None => {}
        }
        if !make_room(&mut names) {
            return Poll::Ready(Err(refusal("too many names are being resolved")));
        }
        names.insert(name.clone(), Entry::Asked(vec![waker.clone()]));
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
        let entry = Entry::Known { outcome, until: coarse_now() + valid };
        let previous = self.names.borrow_mut().insert(name, entry);
        if let Some(Entry::Asked(wakers)) = previous {
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Forgets every answer: the configuration that they came from has been replaced.
    pub fn forget(&self) {
        self.names.borrow_mut().retain(|_, entry| matches!(entry, Entry::Asked(_)));
    }
}

/// Keeps the table within its bounds. False: too many questions are under way.
fn make_room(names: &mut HashMap<HostName, Entry, foldhash::fast::RandomState>) -> bool {
    if names.len() >= RESOLVED_NAMES_MAX {
        // Starting afresh is cheaper than keeping an order of use, and the control thread has a cache of its own.
        names.retain(|_, entry| matches!(entry, Entry::Asked(_)));
    }
    names.len() < RESOLVED_NAMES_MAX
        && (names.len() < RESOLVING_NAMES_MAX
            || names.values().filter(|entry| matches!(entry, Entry::Asked(_))).count() < RESOLVING_NAMES_MAX)
}

fn refusal(reason: &str) -> Rc<Unresolved> {
    Rc::new(Unresolved { reason: reason.to_owned(), valid: Duration::ZERO })
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Resolver").field("names", &self.names.borrow().len()).finish_non_exhaustive()
    }
}
