//! The connections of a worker.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::failure::Failure;
use crate::limits::POOL_IDLE_MAX;
use crate::route::cluster::PoolId;
use crate::upstream::pool::PoolKey;

use super::{Link, Stream};

/// Connections in HTTP/2, by what their requests must agree in.
#[derive(Debug, Default)]
pub struct Links {
    entries: RefCell<HashMap<PoolKey, Entry, foldhash::fast::RandomState>>,
    count: Cell<usize>,
    drivers: Rc<Cell<usize>>,
}

/// Counts a task that drives a connection.
#[derive(Debug)]
pub struct Driver(Rc<Cell<usize>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

#[derive(Debug, Default)]
struct Entry {
    links: Vec<Rc<Link>>,
    /// The connection that somebody is making.
    opening: Option<Rc<Opening>>,
}

/// A connection in the making: whoever needs one waits for it rather than making another.
#[derive(Debug, Default)]
pub struct Opening {
    waiting: RefCell<Vec<Waker>>,
    outcome: RefCell<Option<Outcome>>,
}

/// How the making of a connection has ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is there.
    Made(Rc<Link>),
    /// It could not be made, and why.
    Failed(Failure, String),
    /// Whoever made it has given up: see to it yourself.
    Abandoned,
}

/// The duty to make a connection. Dropped without an outcome, it frees those who wait for it to see to themselves.
#[derive(Debug)]
pub struct Ticket<'a> {
    links: &'a Links,
    key: PoolKey,
    opening: Rc<Opening>,
}

impl Links {
    /// A stream of one of the connections; `None`: none has room. Those that are over are forgotten on the way.
    pub fn stream(&self, key: &PoolKey) -> Option<Stream> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        let before = entry.links.len();
        entry.links.retain(|link| !link.is_over());
        self.count.set(self.count.get() - (before - entry.links.len()));
        // The oldest first: those made for a rush become idle, and end.
        entry.links.iter().find_map(Stream::open)
    }

    /// Begins to make a connection, or says who does so already.
    ///
    /// # Errors
    /// The one who does.
    pub fn begin(&self, key: &PoolKey) -> Result<Ticket<'_>, Rc<Opening>> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.clone()).or_default();
        if let Some(opening) = &entry.opening {
            return Err(Rc::clone(opening));
        }
        let opening = Rc::<Opening>::default();
        entry.opening = Some(Rc::clone(&opening));
        Ok(Ticket { links: self, key: key.clone(), opening })
    }

    /// Connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.get()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections that carry no stream.
    #[must_use]
    pub fn idle(&self) -> usize {
        let entries = self.entries.borrow();
        entries.values().flat_map(|entry| &entry.links).filter(|link| link.is_idle()).count()
    }

    /// Counts one more task that drives a connection.
    pub fn driver(&self) -> Driver {
        self.drivers.set(self.drivers.get() + 1);
        Driver(Rc::clone(&self.drivers))
    }

    /// Lets go of all connections, and whether every task that drove one has ended.
    pub fn close(&self) -> bool {
        self.retain(|_, _| false);
        self.drivers.get() == 0
    }

    /// Lets go of connections that are over or that nobody has needed for too long.
    pub fn sweep(&self) {
        self.retain(|_, link| !link.is_over() && !link.is_stale());
    }

    /// Lets go of the connections of clusters that are gone or have changed; their streams go on.
    pub fn keep_clusters(&self, keep: impl Fn(PoolId) -> bool) {
        self.retain(|key, _| keep(key.pool));
    }

    /// Lets go of an idle connection of a cluster, to make room for one to somewhere else. False: there is none.
    pub fn make_room(&self, pool: PoolId) -> bool {
        let mut made = false;
        self.retain(|key, link| {
            let goes = !made && key.pool == pool && link.is_idle();
            made |= goes;
            !goes
        });
        made
    }

    fn retain(&self, mut keep: impl FnMut(&PoolKey, &Link) -> bool) {
        let mut dropped = Vec::new();
        let mut count = 0;
        self.entries.borrow_mut().retain(|key, entry| {
            dropped.extend(entry.links.extract_if(.., |link| !keep(key, link)));
            count += entry.links.len();
            !entry.links.is_empty() || entry.opening.is_some()
        });
        self.count.set(count);
        // Their places are given back here, which wakes whoever waits for one.
        dropped.iter().for_each(|link| link.retire());
    }

    fn add(&self, key: PoolKey, link: &Rc<Link>) {
        // One too many serves those who wait for it now, and ends with them.
        if self.count.get() < POOL_IDLE_MAX {
            self.entries.borrow_mut().entry(key).or_default().links.push(Rc::clone(link));
            self.count.set(self.count.get() + 1);
        }
    }
}

impl Ticket<'_> {
    /// The connection is there. It may lead elsewhere than was meant, `key` says where; `None`: it serves those who wait
    /// for it now, and nobody later.
    pub fn made(self, key: Option<PoolKey>, link: &Rc<Link>) {
        if let Some(key) = key {
            self.links.add(key, link);
        }
        self.opening.outcome.replace(Some(Outcome::Made(Rc::clone(link))));
    }

    /// It could not be made.
    pub fn failed(self, failure: Failure, reason: &str) {
        self.opening.outcome.replace(Some(Outcome::Failed(failure, reason.to_owned())));
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut entries = self.links.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(&self.key) {
            entry.opening = None;
            if entry.links.is_empty() {
                entries.remove(&self.key);
            }
        }
        drop(entries);
        self.opening.outcome.borrow_mut().get_or_insert(Outcome::Abandoned);
        self.opening.waiting.take().into_iter().for_each(Waker::wake);
    }
}

impl Opening {
    /// Waits for the outcome.
    pub async fn outcome(&self) -> Outcome {
        poll_fn(|context| match &*self.outcome.borrow() {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                self.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
