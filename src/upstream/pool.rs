//! Idle upstream connections of a worker, most recently used first.
//!
//! Last in, first out keeps the working set small: under light load a few warm connections serve everything, and the
//! others age out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::limits::{POOL_IDLE_MAX, POOL_IDLE_PER_DESTINATION, POOL_IDLE_TIMEOUT};
use crate::net::{Scratch, coarse_now};
use crate::route::cluster::PoolId;
use crate::route::host::HostName;

use super::connection::Connection;
use super::http2::Links;

/// What must agree for a connection to serve another request. [`PoolId`] stands for everything that the
/// configuration says: endpoints, roots, client certificate, name checks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The cluster's settings.
    pub pool: PoolId,
    /// Whom the connection leads to.
    pub address: SocketAddr,
    /// The name that was sent as SNI and verified; `None`: plain text.
    pub server_name: Option<HostName>,
}

/// The pool of a worker.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Idle>, foldhash::fast::RandomState>>,
    count: Cell<usize>,
    /// Those in HTTP/2, which may be under way and still take another request.
    pub links: Links,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Idle {
    /// Whether its cluster lets it serve another request.
    fn is_good(&self) -> bool {
        self.connection.lease.as_ref().is_none_or(|lease| lease.is_good(self.since))
    }
}

impl Pool {
    /// A connection that can serve a request now; dead ones are closed on the way.
    pub fn take(&self, key: &PoolKey, scratch: &Scratch) -> Option<Box<Connection>> {
        loop {
            let mut idle = self.idle.borrow_mut().get_mut(key).and_then(Vec::pop)?;
            self.count.set(self.count.get() - 1);
            if idle.is_good() && idle.connection.is_reusable(scratch) {
                return Some(idle.connection);
            }
            idle.connection.close();
        }
    }

    /// Keeps a connection for another request, or closes it if the pool is full.
    pub fn give(&self, key: PoolKey, connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(key).or_default();
        // Whoever waits for a connection to this cluster may take this one, or its place.
        connection.lease.as_ref().inspect(|lease| lease.account().wake_next());
        if self.count.get() >= POOL_IDLE_MAX || list.len() >= POOL_IDLE_PER_DESTINATION {
            connection.close();
            return;
        }
        self.count.set(self.count.get() + 1);
        // What it says is looked at when the connection is taken.
        connection.watch();
        list.push(Idle { connection, since: coarse_now() });
    }

    /// Idle connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.get() + self.links.idle()
    }

    /// Whether nothing is idle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes connections that have waited too long or that the upstream has closed.
    pub fn sweep(&self, now: Instant, scratch: &Scratch) {
        self.links.sweep();
        self.retain(|_, idle| {
            now.duration_since(idle.since) < POOL_IDLE_TIMEOUT && idle.is_good() && idle.connection.is_reusable(scratch)
        });
    }

    /// Closes an idle connection of a cluster, to make room for one to somewhere else. False: there is none.
    pub fn make_room(&self, pool: PoolId) -> bool {
        if self.links.make_room(pool) {
            return true;
        }
        let mut idle = self.idle.borrow_mut();
        let mut lists = idle.iter_mut().filter(|(key, _)| key.pool == pool);
        let Some(oldest) = lists.find_map(|(_, list)| (!list.is_empty()).then(|| list.remove(0))) else { return false };
        self.count.set(self.count.get() - 1);
        oldest.connection.close();
        true
    }

    /// Closes the connections of clusters that are gone or have changed.
    pub fn keep_clusters(&self, keep: impl Fn(PoolId) -> bool) {
        self.links.keep_clusters(&keep);
        self.retain(|key, _| keep(key.pool));
    }

    fn retain(&self, mut keep: impl FnMut(&PoolKey, &mut Idle) -> bool) {
        let mut count = 0;
        self.idle.borrow_mut().retain(|key, list| {
            for mut idle in std::mem::take(list) {
                if keep(key, &mut idle) {
                    list.push(idle);
                } else {
                    idle.connection.close();
                }
            }
            count += list.len();
            !list.is_empty()
        });
        self.count.set(count);
    }
}
