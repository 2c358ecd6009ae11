//! Names for workers: `dns.hosts` first, then the cache, then the name servers.
//!
//! A name is looked up once, however many workers wait for it. Everything is bounded: look-ups at a time, names that
//! wait, names remembered, time. If the name servers fail, an answer that has expired is used for a while longer
//! (RFC 8767): the outside world does not move because a resolver is down. An answer that says no is believed.

mod cache;
mod domains;
mod lookup;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::bootstrap::Dns;
use crate::limits::{DNS_FAILURE_TTL, DNS_LOOKUPS_MAX, DNS_NAMES_MAX, DNS_STALE_TTL, DNS_TTL_MAX, DNS_WAITING_MAX};
use crate::route::host::HostName;
use crate::worker::inbox::{Answer, Unresolved};

use cache::{Cache, Entry};
use domains::Domains;
use lookup::{Client, Outcome};

/// What a worker gets to know about a name.
pub(super) type Reply = Result<Answer, Unresolved>;

/// A finished look-up, on its way from its task to [`Resolver::finish`].
#[derive(Debug)]
pub(super) struct Finished {
    name: HostName,
    outcome: Outcome,
    /// See [`Resolver::epoch`].
    epoch: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Resolver {
    dns: Dns,
    client: Client,
    cache: Cache,
    /// Names that are asked for, with the workers that wait for them.
    waiting: HashMap<HostName, Vec<usize>>,
    /// Names among `waiting` whose look-up has not begun.
    queue: VecDeque<HostName>,
    running: usize,
    domains: Domains,
    /// Counts the changes of `dns:`; an answer from before one is told, but not remembered.
    epoch: u64,
    finished: UnboundedSender<Finished>,
    counts: BTreeMap<&'static str, u64>,
}

impl Resolver {
    /// A resolver, and where its look-ups end: hand each to [`Self::finish`].
    pub(super) fn new(dns: Dns) -> (Self, UnboundedReceiver<Finished>) {
        let (finished, receiver) = unbounded_channel();
        let resolver = Self {
            client: client(&dns),
            dns,
            cache: Cache::new(DNS_NAMES_MAX),
            waiting: HashMap::new(),
            queue: VecDeque::new(),
            running: 0,
            domains: Domains::default(),
            epoch: 0,
            finished,
            counts: ["success", "absent", "timeout", "error", "stale", "overload"].map(|result| (result, 0)).into(),
        };
        (resolver, receiver)
    }

    /// Takes the `dns:` of a new configuration. /etc/resolv.conf is read again in any case; answers are forgotten only
    /// if somebody else may give them now.
    pub(super) fn configure(&mut self, dns: Dns) {
        self.client = client(&dns);
        if self.dns != dns {
            self.cache = Cache::new(DNS_NAMES_MAX);
            self.epoch += 1;
        }
        self.dns = dns;
    }

    /// Look-ups by result.
    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// A worker asks for a name. `None`: [`Self::finish`] will have the reply.
    pub(super) fn ask(&mut self, worker: usize, name: &HostName, now: Instant) -> Option<Reply> {
        if let Some(reply) = self.configured(name).or_else(|| self.remembered(name, now)) {
            return Some(reply);
        }
        if let Some(workers) = self.waiting.get_mut(name) {
            if !workers.contains(&worker) {
                workers.push(worker);
            }
            return None;
        }
        if self.waiting.len() >= DNS_WAITING_MAX || !self.domains.enter(name) {
            self.count("overload");
            return Some(Err(Unresolved { reason: "too many names wait for DNS".to_owned(), valid: DNS_FAILURE_TTL }));
        }
        self.waiting.insert(name.clone(), vec![worker]);
        self.queue.push_back(name.clone());
        self.start();
        None
    }

    /// A look-up has ended: who waited for it, and the reply.
    pub(super) fn finish(&mut self, finished: Finished, now: Instant) -> (HostName, Vec<usize>, Reply) {
        let Finished { name, outcome, epoch } = finished;
        self.running -= 1;
        self.domains.leave(&name);
        self.start();
        let reply = match outcome {
            Outcome::Found(addresses, valid) => {
                self.count("success");
                self.remember(&name, Entry { answer: Ok(addresses), expires: now + valid }, epoch, now)
            }
            Outcome::Absent(reason, valid) => {
                self.count("absent");
                self.remember(&name, Entry { answer: Err(reason.to_owned()), expires: now + valid }, epoch, now)
            }
            Outcome::Failed(reason, label) => {
                self.count(label);
                self.fail(&name, reason, now)
            }
        };
        let workers = self.waiting.remove(&name).unwrap_or_default();
        (name, workers, reply)
    }

    fn configured(&self, name: &HostName) -> Option<Reply> {
        let (_, addresses) = self.dns.hosts.iter().find(|(host, _)| host == name)?;
        Some(Ok(Answer { addresses: addresses.clone(), valid: DNS_TTL_MAX, configured: true }))
    }

    fn remembered(&self, name: &HostName, now: Instant) -> Option<Reply> {
        let entry = self.cache.find(name).filter(|entry| entry.is_fresh(now))?;
        Some(reply(entry, now))
    }

    /// Begins look-ups while there is room, in the order of the queue, but for domains that have their share.
    fn start(&mut self) {
        while self.running < DNS_LOOKUPS_MAX {
            let next = self.queue.iter().position(|name| self.domains.may_start(name));
            let Some(name) = next.and_then(|next| self.queue.remove(next)) else { return };
            self.running += 1;
            self.domains.start(&name);
            let look_up = tokio::spawn(self.client.clone().look_up(name.clone()));
            let (finished, epoch) = (self.finished.clone(), self.epoch);
            tokio::spawn(async move {
                // A look-up that panics must not keep its place, nor its name waiting.
                let outcome = look_up.await.unwrap_or_else(|error| Outcome::Failed(error.to_string(), "error"));
                // Nobody listens once the gateway ends.
                let _ = finished.send(Finished { name, outcome, epoch });
            });
        }
    }

    fn remember(&mut self, name: &HostName, entry: Entry, epoch: u64, now: Instant) -> Reply {
        let reply = reply(&entry, now);
        if epoch == self.epoch {
            self.cache.insert(name.clone(), entry);
        }
        reply
    }

    /// Failures are not remembered here: workers keep them for [`DNS_FAILURE_TTL`].
    fn fail(&mut self, name: &HostName, reason: String, now: Instant) -> Reply {
        let stale = self.cache.find(name).and_then(|entry| entry.stale(now)).map(<[_]>::to_vec);
        let Some(addresses) = stale else { return Err(Unresolved { reason, valid: DNS_FAILURE_TTL }) };
        tracing::debug!("dns: {name}: {reason}; using the last answer");
        self.count("stale");
        Ok(Answer { addresses, valid: DNS_STALE_TTL, configured: false })
    }

    fn count(&mut self, result: &'static str) {
        *self.counts.entry(result).or_default() += 1;
    }
}

fn client(dns: &Dns) -> Client {
    let client = Client::new(dns);
    if let Some(error) = client.error() {
        tracing::error!("dns: no name server to ask: {error}; name one in /etc/resolv.conf or dns.servers");
    }
    client
}

fn reply(entry: &Entry, now: Instant) -> Reply {
    let valid = entry.expires.saturating_duration_since(now);
    match &entry.answer {
        Ok(addresses) => Ok(Answer { addresses: addresses.clone(), valid, configured: false }),
        Err(reason) => Err(Unresolved { reason: reason.clone(), valid }),
    }
}

#[cfg(test)]
mod tests;
