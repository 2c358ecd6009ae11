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
use crate::route::traffic::stable_hash;

use super::account::Account;
use super::resolve::Resolver;

/// Addresses to try for one session, best first; never empty.
pub type Candidates = SmallVec<[SocketAddr; DIAL_ATTEMPTS_MAX]>;

/// Why there is no candidate: the failure, and what to write into the log.
pub type NoCandidate = (Failure, String);

/// What an endpoint is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The host that the route has matched; a TCP session has none.
    pub host: Option<&'a HostName>,
    /// What [`Balance::Hash`] goes by; `None`: anywhere.
    pub key: Option<u64>,
    /// Where the cluster's outliers are known.
    pub account: Option<&'a Account>,
}

/// A worker's state of balancing.
#[derive(Debug)]
pub struct Balancer {
    turns: RefCell<HashMap<PoolId, u32, foldhash::fast::RandomState>>,
    active: RefCell<HashMap<SocketAddr, u32, foldhash::fast::RandomState>>,
    random: Cell<u64>,
}

/// A session with an endpoint, however it ends.
#[derive(Debug)]
pub struct Counted<'a> {
    balancer: &'a Balancer,
    address: SocketAddr,
}

impl Counted<'_> {
    /// The endpoint.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.balancer.ended(self.address);
    }
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

    /// The same of 64 bits.
    pub fn lot(&self) -> u64 {
        u64::from(self.random()) << 32 | u64::from(self.random())
    }

    /// Chooses among the endpoints of `cluster`, after resolving and judging every address.
    ///
    /// # Errors
    /// [`Failure::NotResolved`], [`Failure::AddressClosed`] or [`Failure::NoHealthyUpstream`].
    pub async fn candidates(
        &self,
        cluster: &Cluster,
        wanted: Wanted<'_>,
        resolver: &Resolver,
        policy: &AddressPolicy,
    ) -> Result<Candidates, NoCandidate> {
        let mut endpoints: EndpointList = match &cluster.endpoints {
            Endpoints::Static(endpoints) => {
                let open = endpoints.iter().filter(|endpoint| policy.judge_configured(endpoint.address).is_ok());
                open.map(|endpoint| Endpoint { address: endpoint.address, weight: endpoint.weight }).collect()
            }
            Endpoints::Dns(names) | Endpoints::DnsRoundRobin(names) => resolve_all(names, resolver, policy).await?,
            Endpoints::Captured(address) => match policy.judge_resolved(*address) {
                Ok(()) => smallvec::smallvec![Endpoint { address: *address, weight: 1 }],
                Err(closed) => return Err((Failure::AddressClosed, format!("{address} is closed: {closed}"))),
            },
            // Whoever has a captured client at hand asks for its address before (route::decide::original).
            Endpoints::Original(_) => EndpointList::new(),
            Endpoints::Requested { port } => {
                let requested = wanted.host.ok_or((Failure::NoServerName, "no name to resolve".to_owned()))?;
                let name = DnsEndpoint { name: requested.clone(), port: *port, weight: 1 };
                resolve_all(std::slice::from_ref(&name), resolver, policy).await?
            }
        };
        let reason = match wanted.account.filter(|_| !endpoints.is_empty()) {
            Some(account) => {
                account.keep_healthy(&mut endpoints, |endpoint| endpoint.address);
                "every endpoint is ejected (outlierDetection)"
            }
            None => "no endpoint may be dialled",
        };
        match endpoints.len() {
            0 => Err((Failure::NoHealthyUpstream, reason.to_owned())),
            1 => Ok(smallvec::smallvec![endpoints[0].address]),
            _ => Ok(self.order(cluster, wanted.key, &endpoints)),
        }
    }

    /// The chosen endpoint first, then its neighbours in turn, in case it cannot be reached.
    fn order(&self, cluster: &Cluster, key: Option<u64>, endpoints: &EndpointList) -> Candidates {
        let first = match (&cluster.endpoints, cluster.balance) {
            (Endpoints::DnsRoundRobin(_), _) => 0,
            (_, Balance::RoundRobin) => by_weight(endpoints, self.next_turn(cluster.pool)),
            (_, Balance::Hash) if let Some(key) = key => by_key(endpoints, key),
            (_, Balance::Random | Balance::Hash) => by_weight(endpoints, self.random()),
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

    /// The same for as long as what comes back lives.
    pub fn count(&self, address: SocketAddr) -> Counted<'_> {
        self.began(address);
        Counted { balancer: self, address }
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

/// The endpoint that a key belongs to, by rendezvous hashing (Thaler and Ravishankar 1998) with weights (Schindelhauer and
/// Schomaker 2005): every endpoint draws a number from the key and its address, and the best one wins. When an endpoint
/// comes or goes, only the keys move that it wins or has won; there is no ring or table to size.
fn by_key(endpoints: &EndpointList, key: u64) -> usize {
    let score = |endpoint: &Endpoint| {
        let drawn = scramble(key ^ scramble(address_hash(endpoint.address)));
        // From above 0 up to 1, in steps of 2^-53.
        let fraction = ((drawn >> 11) + 1) as f64 / (1u64 << 53) as f64;
        f64::from(endpoint.weight) / -fraction.ln()
    };
    let scores = endpoints.iter().map(score).enumerate();
    scores.max_by(|(_, one), (_, other)| one.total_cmp(other)).map_or(0, |(index, _)| index)
}

fn address_hash(address: SocketAddr) -> u64 {
    let hash = match address.ip() {
        std::net::IpAddr::V4(address) => stable_hash(&address.octets()),
        std::net::IpAddr::V6(address) => stable_hash(&address.octets()),
    };
    hash ^ u64::from(address.port())
}

/// Spreads a difference in any bit over all of them (the finalizer of splitmix64).
fn scramble(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(weights: &[u32]) -> EndpointList {
        let endpoint = |(index, weight): (usize, &u32)| Endpoint {
            address: SocketAddr::from(([192, 0, 2, 1], 1000 + index as u16)),
            weight: *weight,
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..10_000u32).map(|number| stable_hash(&number.to_be_bytes()))
    }

    #[test]
    fn keys_spread_over_the_endpoints_by_weight() {
        let list = endpoints(&[1, 1, 2]);
        let mut counts = [0u32; 3];
        keys().for_each(|key| counts[by_key(&list, key)] += 1);
        for (count, expected) in counts.into_iter().zip([2_500, 2_500, 5_000]) {
            assert!(count.abs_diff(expected) < 250, "{counts:?}");
        }
    }

    #[test]
    fn an_endpoint_that_leaves_moves_no_key_but_its_own() {
        let all = endpoints(&[1, 1, 1, 1]);
        let mut fewer = endpoints(&[1, 1, 1, 1]);
        fewer.remove(1);
        for key in keys() {
            let before = all[by_key(&all, key)].address;
            let after = fewer[by_key(&fewer, key)].address;
            assert!(before == after || before == all[1].address);
        }
    }
}
