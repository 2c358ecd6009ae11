//! What a worker counts for clusters with bounds: connections, requests, retries, and who waits for a connection.
//!
//! Clusters without bounds have no account, and pay a branch. Every worker counts for itself and enforces its [`Share`]
//! of the numbers, so nothing here is ever contended.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::limits::{PENDING_REQUESTS_MAX, POOL_IDLE_TIMEOUT};
use crate::net::coarse_now;
use crate::route::cluster::Cluster;
use crate::route::table::Survivors;
use crate::route::traffic::{AccountId, Outliers, RetryBudget, Share, Traffic};
use crate::telemetry::tally::Tally;

use super::outlier::{Health, Outcome};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The accounts of a worker.
#[derive(Debug, Default)]
pub struct Accounts {
    share: Share,
    open: RefCell<Map<AccountId, Rc<Account>>>,
    tally: Rc<RefCell<Tally>>,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// `maxConnections`.
    Connections,
    /// `http1MaxPendingRequests`, or the wait for a connection was too long.
    Pending,
    /// `http2MaxRequests`.
    Requests,
    /// `maxRetries` or `retryBudget`.
    Retries,
}

impl Overflow {
    /// For the log and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
            Self::Retries => "retries",
        }
    }
}

/// What is counted for one cluster.
#[derive(Debug)]
pub struct Account {
    service: Box<str>,
    limits: Cell<Limits>,
    outliers: Cell<Option<Outliers>>,
    health: Health,
    connections: Cell<u32>,
    requests: Cell<u32>,
    retries: Cell<u32>,
    /// How many wait for a connection in HTTP/2 that another request makes.
    joining: Cell<usize>,
    /// Who waits for a connection, first come first served.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    next_ticket: Cell<u64>,
    tally: Rc<RefCell<Tally>>,
}

/// This worker's share of the numbers.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: u32,
    pending: usize,
    requests: u32,
    retries: u32,
    budget: Option<RetryBudget>,
    requests_per_connection: u32,
    idle: Duration,
    tunnel_idle: Option<Duration>,
    duration: Option<Duration>,
}

impl Limits {
    fn new(traffic: &Traffic, share: Share) -> Self {
        let of = |total: Option<u32>| total.map_or(u32::MAX, |total| share.of(total));
        let budget = |budget: RetryBudget| RetryBudget { retries_min: share.of(budget.retries_min), ..budget };
        Self {
            connections: of(traffic.connections_max),
            pending: traffic.pending_max.map_or(PENDING_REQUESTS_MAX, |total| share.of(total) as usize),
            requests: of(traffic.requests_max),
            retries: of(traffic.retries_max),
            budget: traffic.retry_budget.map(budget),
            requests_per_connection: traffic.requests_per_connection_max.unwrap_or(u32::MAX),
            idle: traffic.pool_idle_timeout.unwrap_or(POOL_IDLE_TIMEOUT),
            tunnel_idle: traffic.tunnel_idle_timeout,
            duration: traffic.connection_duration_max,
        }
    }
}

impl Accounts {
    /// Of a worker with this share.
    #[must_use]
    pub fn new(share: Share) -> Self {
        Self { share, ..Self::default() }
    }

    /// The account of a cluster; `None`: there is nothing to count.
    pub fn of(&self, cluster: &Cluster) -> Option<Rc<Account>> {
        let traffic = cluster.traffic.as_deref()?;
        Some(Rc::clone(self.open.borrow_mut().entry(traffic.account).or_insert_with(|| {
            Rc::new(Account {
                service: cluster.name.service().into(),
                limits: Cell::new(Limits::new(traffic, self.share)),
                outliers: Cell::new(traffic.outliers),
                health: Health::default(),
                connections: Cell::new(0),
                requests: Cell::new(0),
                retries: Cell::new(0),
                joining: Cell::new(0),
                waiting: RefCell::default(),
                next_ticket: Cell::new(0),
                tally: Rc::clone(&self.tally),
            })
        })))
    }

    /// Puts the numbers of a new configuration in force, and forgets accounts that nobody needs any more. What is under
    /// way stays counted.
    pub fn apply(&self, survivors: &Survivors) {
        let mut open = self.open.borrow_mut();
        open.retain(|id, account| match survivors.traffic(*id) {
            Some(traffic) => {
                account.limits.set(Limits::new(traffic, self.share));
                account.outliers.set(traffic.outliers);
                true
            }
            None => Rc::strong_count(account) > 1,
        });
        // Whoever waited for the old numbers may be served by the new ones.
        open.values().for_each(|account| account.wake_all());
    }

    /// The numbers so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// Endpoints that are ejected now, by service.
    #[must_use]
    pub fn ejected(&self) -> Map<Box<str>, u64> {
        let mut ejected = Map::default();
        for account in self.open.borrow().values().filter(|account| account.outliers.get().is_some()) {
            *ejected.entry(account.service.clone()).or_insert(0) += account.health.ejected() as u64;
        }
        ejected
    }
}

impl Account {
    /// A place for one more connection; `None`: there is none. A tunnel does not wait, so that is counted.
    pub fn lease(self: &Rc<Self>) -> Option<Box<Lease>> {
        let limits = self.limits.get();
        if self.connections.get() >= limits.connections {
            return None;
        }
        self.connections.set(self.connections.get() + 1);
        Some(Box::new(Lease {
            account: Rc::clone(self),
            requests_left: Cell::new(limits.requests_per_connection),
            idle: limits.idle,
            tunnel_idle: limits.tunnel_idle,
            ends: limits.duration.map(|duration| coarse_now() + duration),
        }))
    }

    /// A place for one more request.
    ///
    /// # Errors
    /// [`Overflow::Requests`].
    pub fn request(self: &Rc<Self>) -> Result<Passage, Overflow> {
        if self.requests.get() >= self.limits.get().requests {
            return Err(self.overflow(Overflow::Requests));
        }
        self.requests.set(self.requests.get() + 1);
        Ok(Passage { account: Rc::clone(self), is_retry: Cell::new(false) })
    }

    /// Waits until a connection has become free, or may be made.
    ///
    /// # Errors
    /// [`Overflow::Pending`]: too many wait already, or `patience` has passed.
    pub async fn wait(&self, patience: Duration) -> Result<(), Overflow> {
        self.may_wait()?;
        let turn = Waiting { account: self, ticket: None, is_over: false };
        crate::net::within(patience, turn).await.ok_or_else(|| self.overflow(Overflow::Pending))
    }

    /// A place among those that wait, for a request that shares what another one makes.
    ///
    /// # Errors
    /// [`Overflow::Pending`]: too many wait already.
    pub fn join(&self) -> Result<Joining<'_>, Overflow> {
        self.may_wait()?;
        self.joining.set(self.joining.get() + 1);
        Ok(Joining(self))
    }

    fn may_wait(&self) -> Result<(), Overflow> {
        let waiting = self.waiting.borrow().len() + self.joining.get();
        if waiting < self.limits.get().pending { Ok(()) } else { Err(self.overflow(Overflow::Pending)) }
    }

    /// Counts a limit that was reached.
    pub fn overflow(&self, overflow: Overflow) -> Overflow {
        self.tally.borrow_mut().overflow(&self.service, overflow.as_str());
        overflow
    }

    /// Notes how an endpoint did, and ejects it if that was once too often.
    pub fn report(&self, address: SocketAddr, outcome: Outcome) {
        let Some(rules) = self.outliers.get() else { return };
        if let Some(reason) = self.health.report(&rules, address, outcome, coarse_now()) {
            self.tally.borrow_mut().ejection(&self.service, reason);
        }
    }

    /// Keeps those of the endpoints that are not ejected, or all of them if too few would be left.
    pub fn keep_healthy<T>(&self, endpoints: &mut smallvec::SmallVec<[T; 4]>, address: impl Fn(&T) -> SocketAddr) {
        if let Some(rules) = self.outliers.get() {
            self.health.keep_healthy(&rules, endpoints, address, coarse_now());
        }
    }

    /// Lets the first who waits have another look.
    pub fn wake_next(&self) {
        let next = self.waiting.borrow_mut().pop_front();
        next.inspect(|(_, waker)| waker.wake_by_ref());
    }

    fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// A connection's place in its account; given back on drop.
#[derive(Debug)]
pub struct Lease {
    account: Rc<Account>,
    requests_left: Cell<u32>,
    idle: Duration,
    tunnel_idle: Option<Duration>,
    ends: Option<Instant>,
}

impl Lease {
    /// Whom it is counted for.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// How long a tunnel may be silent; `None`: as any other.
    #[must_use]
    pub fn tunnel_idle(&self) -> Option<Duration> {
        self.tunnel_idle
    }

    /// How long the connection may last from now; `None`: for ever.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.ends.map(|ends| ends.saturating_duration_since(coarse_now()))
    }

    /// Counts a request that the connection has served. False: it may serve no other.
    pub fn serves_another(&self) -> bool {
        self.requests_left.set(self.requests_left.get().saturating_sub(1));
        self.requests_left.get() > 0 && self.ends.is_none_or(|ends| coarse_now() < ends)
    }

    /// Whether a connection that is idle since then may serve another request.
    #[must_use]
    pub fn is_good(&self, idle_since: Instant) -> bool {
        let now = coarse_now();
        now.saturating_duration_since(idle_since) < self.idle && self.ends.is_none_or(|ends| now < ends)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.account.connections.set(self.account.connections.get().saturating_sub(1));
        self.account.wake_next();
    }
}

/// A request under way; given back on drop.
#[derive(Debug)]
pub struct Passage {
    account: Rc<Account>,
    is_retry: Cell<bool>,
}

impl Passage {
    /// Whom it is counted for.
    #[must_use]
    pub fn account(&self) -> &Rc<Account> {
        &self.account
    }

    /// Makes the request a retry. False: too many are under way.
    pub fn retry(&self) -> bool {
        if self.is_retry.get() {
            return true;
        }
        let (account, limits) = (&self.account, self.account.limits.get());
        let most = match limits.budget {
            Some(budget) => {
                let share = u64::from(account.requests.get()) * u64::from(budget.share) / 10_000;
                u32::try_from(share).unwrap_or(u32::MAX).max(budget.retries_min)
            }
            None => limits.retries,
        };
        if account.retries.get() >= most {
            account.overflow(Overflow::Retries);
            return false;
        }
        account.retries.set(account.retries.get() + 1);
        self.is_retry.set(true);
        true
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let account = &self.account;
        account.requests.set(account.requests.get().saturating_sub(1));
        if self.is_retry.get() {
            account.retries.set(account.retries.get().saturating_sub(1));
        }
    }
}

/// A request that waits for a connection that another one makes; given back on drop.
#[derive(Debug)]
pub struct Joining<'a>(&'a Account);

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.0.joining.set(self.0.joining.get().saturating_sub(1));
    }
}

/// A place in the queue for a connection.
struct Waiting<'a> {
    account: &'a Account,
    ticket: Option<u64>,
    is_over: bool,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let account = self.account;
        let mut waiting = account.waiting.borrow_mut();
        match self.ticket {
            None => {
                let ticket = account.next_ticket.get();
                account.next_ticket.set(ticket.wrapping_add(1));
                waiting.push_back((ticket, context.waker().clone()));
                self.ticket = Some(ticket);
                Poll::Pending
            }
            Some(ticket) => match waiting.iter_mut().find(|(other, _)| *other == ticket) {
                Some((_, waker)) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
                None => {
                    self.is_over = true;
                    Poll::Ready(())
                }
            },
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.filter(|_| !self.is_over) else { return };
        let mut waiting = self.account.waiting.borrow_mut();
        match waiting.iter().position(|(other, _)| *other == ticket) {
            Some(index) => drop(waiting.remove(index)),
            // It was this one's turn, and it has left: the next one's then.
            None => {
                drop(waiting);
                self.account.wake_next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(change: impl FnOnce(&mut Traffic)) -> Rc<Account> {
        let mut traffic = Traffic::new(AccountId(0));
        change(&mut traffic);
        Rc::new(Account {
            service: "a.example".into(),
            limits: Cell::new(Limits::new(&traffic, Share::default())),
            outliers: Cell::new(None),
            health: Health::default(),
            connections: Cell::new(0),
            requests: Cell::new(0),
            retries: Cell::new(0),
            joining: Cell::new(0),
            waiting: RefCell::default(),
            next_ticket: Cell::new(0),
            tally: Rc::default(),
        })
    }

    #[test]
    fn places_are_given_out_up_to_the_limit_and_come_back_on_drop() {
        let account = account(|traffic| traffic.connections_max = Some(2));
        let (one, two) = (account.lease(), account.lease());
        assert!(one.is_some() && two.is_some() && account.lease().is_none());
        drop(one);
        assert!(account.lease().is_some());
    }

    #[test]
    fn requests_beyond_the_limit_overflow_and_are_counted() {
        let account = account(|traffic| traffic.requests_max = Some(1));
        let first = account.request().unwrap();
        assert_eq!(account.request().unwrap_err(), Overflow::Requests);
        drop(first);
        assert!(account.request().is_ok());
        assert_eq!(account.tally.borrow().overflows[&("a.example".into(), "requests")], 1);
    }

    #[test]
    fn whoever_waits_counts_whatever_for() {
        let account = account(|traffic| traffic.pending_max = Some(2));
        let (one, two) = (account.join().unwrap(), account.join().unwrap());
        assert_eq!(account.join().unwrap_err(), Overflow::Pending);
        drop(one);
        let mut turn = Box::pin(account.wait(std::time::Duration::from_secs(1)));
        assert!(turn.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(account.join().unwrap_err(), Overflow::Pending);
        drop((two, turn));
        assert!(account.join().is_ok());
    }

    #[test]
    fn a_budget_allows_a_share_of_the_requests_under_way_and_a_minimum() {
        let account = account(|traffic| {
            traffic.retries_max = Some(0);
            traffic.retry_budget = Some(RetryBudget { share: 2_500, retries_min: 1 });
        });
        let requests: Vec<Passage> = (0..8).map(|_| account.request().unwrap()).collect();
        let retries = requests.iter().filter(|request| request.retry()).count();
        assert_eq!(retries, 2);
        drop(requests);
        let only = account.request().unwrap();
        assert!(only.retry(), "the minimum");
    }

    #[test]
    fn a_connection_serves_so_many_requests_and_no_more() {
        let account = account(|traffic| traffic.requests_per_connection_max = Some(2));
        let lease = account.lease().unwrap();
        assert!(lease.serves_another());
        assert!(!lease.serves_another());
    }

    #[test]
    fn who_leaves_the_queue_when_its_turn_has_come_passes_the_turn_on() {
        let account = account(|_| ());
        let mut context = Context::from_waker(Waker::noop());
        let mut turns: Vec<_> =
            (0..3).map(|_| Box::pin(Waiting { account: &account, ticket: None, is_over: false })).collect();
        for turn in &mut turns {
            assert!(turn.as_mut().poll(&mut context).is_pending());
        }
        account.wake_next();
        drop(turns.remove(0)); // Its turn had come.
        assert!(turns[0].as_mut().poll(&mut context).is_ready());
        assert!(turns[1].as_mut().poll(&mut context).is_pending());
        drop(turns);
        assert!(account.waiting.borrow().is_empty());
    }
}
