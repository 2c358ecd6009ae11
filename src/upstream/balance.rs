//! Which endpoint of a cluster serves a session.
//!
//! Balancing is local to a worker, as its connections are: with thousands of sessions per worker the sums agree,
//! and no counter is shared.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::failure::Failure;
use crate::limits::DIAL_ATTEMPTS_MAX;
use crate::route::address::AddressPolicy;
use crate::route::cluster::{Balance, Cluster, DnsEndpoint, Endpoints, PoolId};
use crate::route::host::HostName;

use super::resolve::Resolver;

/// Addresses to try for one session, best first; never empty.
pub type Candidates = SmallVec<[SocketAddr; DIAL_ATTEMPTS_MAX]>;

/// Why there is no candidate: the failure, and what to write into the log.
pub type NoCandidate = (Failure, String);

/// A worker's state of balancing.
#[derive(Debug)]
pub struct Balancer {
    turns: RefCell<HashMap<PoolId, u32, foldhash::fast::RandomState>>,
    active: RefCell<HashMap<SocketAddr, u32, foldhash::fast::RandomState>>,
    random: Cell<u64>,
}

struct Endpoint {
    address: SocketAddr,
    weight: u32,
}

type EndpointList = SmallVec<[Endpoint; 4]>;

impl Balancer {
    /// `seed` makes the random choices of workers differ.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // xorshift stays at zero for ever if it starts there.
        Self { turns: RefCell::default(), active: RefCell::default(), random: Cell::new(seed | 1) }
    }

    /// An evenly distributed number; not for secrets.
    pub fn random(&self) -> u32 {
        // xorshift64* (Vigna 2016, doi:10.1145/2845077).
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// Chooses among the endpoints of `cluster`, after resolving and judging every address. `requested` is the host
    /// that the route has matched.
    ///
    /// # Errors
    /// [`Failure::NotResolved`], [`Failure::AddressClosed`] or [`Failure::NoHealthyUpstream`].
    pub async fn candidates(
        &self,
        cluster: &Cluster,
        requested: &HostName,
        resolver: &Resolver,
        policy: &AddressPolicy,
    ) -> Result<Candidates, NoCandidate> {
        let endpoints = match &cluster.endpoints {
            Endpoints::Static(endpoints) => {
                let open = endpoints.iter().filter(|endpoint| policy.judge_configured(endpoint.address).is_ok());
                open.map(|endpoint| Endpoint { address: endpoint.address, weight: endpoint.weight }).collect()
            }
            Endpoints::Dns(names) | Endpoints::DnsRoundRobin(names) => resolve_all(names, resolver, policy).await?,
            Endpoints::Requested { port } => {
                let name = DnsEndpoint { name: requested.clone(), port: *port, weight: 1 };
                resolve_all(std::slice::from_ref(&name), resolver, policy).await?
            }
        };
        match endpoints.len() {
            0 => Err((Failure::NoHealthyUpstream, "no endpoint may be dialled".to_owned())),
            1 => Ok(smallvec::smallvec![endpoints[0].address]),
            _ => Ok(self.order(cluster, &endpoints)),
        }
    }

    /// The chosen endpoint first, then its neighbours in turn, in case it cannot be reached.
    fn order(&self, cluster: &Cluster, endpoints: &EndpointList) -> Candidates {
        let first = match (&cluster.endpoints, cluster.balance) {
            (Endpoints::DnsRoundRobin(_), _) => 0,
            (_, Balance::RoundRobin) => by_weight(endpoints, self.next_turn(cluster.pool)),
            (_, Balance::Random) => by_weight(endpoints, self.random()),
            (_, Balance::LeastRequest) => self.less_busy(endpoints),
        };
        let following = endpoints.iter().cycle().skip(first).take(endpoints.len().min(DIAL_ATTEMPTS_MAX));
        following.map(|endpoint| endpoint.address).collect()
    }

    fn next_turn(&self, pool: PoolId) -> u32 {
        let mut turns = self.turns.borrow_mut();
        let turn = turns.entry(pool).or_insert(0);
        *turn = turn.wrapping_add(1);
        *turn
    }

    /// The better of two endpoints picked by weight: within a constant factor of the best of all, without looking at
    /// all of them (Mitzenmacher 2001, "The Power of Two Choices in Randomized Load Balancing").
    fn less_busy(&self, endpoints: &EndpointList) -> usize {
        let (one, other) = (by_weight(endpoints, self.random()), by_weight(endpoints, self.random()));
        let active = self.active.borrow();
        let busy = |index: usize| active.get(&endpoints[index].address).copied().unwrap_or(0);
        if busy(other) < busy(one) { other } else { one }
    }

    /// Counts a session with an endpoint.
    pub fn began(&self, address: SocketAddr) {
        *self.active.borrow_mut().entry(address).or_insert(0) += 1;
    }

    /// Counts the end of a session with an endpoint.
    pub fn ended(&self, address: SocketAddr) {
        let mut active = self.active.borrow_mut();
        if let Some(count) = active.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                active.remove(&address);
            }
        }
    }

    /// Sessions with all endpoints.
    pub fn active(&self) -> u64 {
        self.active.borrow().values().map(|count| u64::from(*count)).sum()
    }

    /// Forgets clusters that are gone.
    pub fn retain(&self, keep: impl Fn(PoolId) -> bool) {
        self.turns.borrow_mut().retain(|pool, _| keep(*pool));
    }
}

/// The endpoint on which `ticket` falls when each has as many tickets as its weight. Never out of range for a list
/// that is not empty.
fn by_weight(endpoints: &EndpointList, ticket: u32) -> usize {
    let total: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    let mut ticket = u64::from(ticket) % total.max(1);
    for (index, endpoint) in endpoints.iter().enumerate() {
        let weight = u64::from(endpoint.weight);
        if ticket < weight {
            return index;
        }
        ticket -= weight;
    }
    0
}

async fn resolve_all(
    names: &[DnsEndpoint],
    resolver: &Resolver,
    policy: &AddressPolicy,
) -> Result<EndpointList, NoCandidate> {
    let mut endpoints = EndpointList::new();
    let mut refusal = None;
    for name in names {
        match resolver.resolve(&name.name).await {
            Ok(answer) => {
                for address in &answer.addresses {
                    let address = SocketAddr::new(*address, name.port);
                    let judged = match answer.configured {
                        true => policy.judge_configured(address),
                        false => policy.judge_resolved(address),
                    };
                    match judged {
                        Ok(()) => endpoints.push(Endpoint { address, weight: name.weight }),
                        Err(closed) => {
                            refusal = Some((Failure::AddressClosed, format!("{address} is closed: {closed}")))
                        }
                    }
                }
            }
            Err(unresolved) => {
                let reason = format!("{}: {}", name.name, unresolved.reason);
                refusal = refusal.or(Some((Failure::NotResolved, reason)));
            }
        }
    }
    match (endpoints.is_empty(), refusal) {
        (true, Some(refusal)) => Err(refusal),
        _ => Ok(endpoints),
    }
}
