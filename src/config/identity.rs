//! What stays the same from one generation to the next: pools and TLS profiles.
//!
//! A [`Store`] maps equal settings to equal identifiers for as long as the process lives, so that an unchanged cluster
//! keeps its connections and TLS sessions across a reload. A load works on a [`Generation`], which takes over what it
//! meets again; only when the configuration takes force does it replace the store, so that settings which no longer
//! occur are forgotten and the store cannot grow without bound. Identifiers are never given out twice.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use crate::route::cluster::{Endpoints, HttpVersion, PoolId, TlsBounds, TlsProfile, VerifyName};
use crate::route::host::HostName;
use crate::route::termination::{ClientCheck, ServerProfile};
use crate::route::traffic::{AccountId, Traffic};

/// What one generation of the configuration knew.
#[derive(Default)]
pub(super) struct Store {
    /// Contents of certificate files; equal bytes have equal numbers.
    contents: Known<Arc<[u8]>, u32>,
    profiles: Known<ProfileKey, Arc<TlsProfile>>,
    servers: Known<ServerKey, Arc<ServerProfile>>,
    checks: Known<CheckKey, Arc<ClientCheck>>,
    /// By digest: the keys themselves would hold every host and endpoint once more.
    pools: Known<Digest, PoolId>,
    /// By digest of the cluster's name.
    accounts: Known<Digest, AccountId>,
    hashers: Hashers,
    next: Next,
}

/// Without the contents, which may be private keys.
impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Store")
            .field("pools", &self.pools.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// The next identifiers to give out.
#[derive(Clone, Copy, Debug, Default)]
struct Next {
    content: u32,
    profile: u32,
    server: u32,
    check: u32,
    pool: u32,
    account: u32,
}

/// 96 bits of two hashes with seeds of their own, random in each process: for a million pools the chance that any two
/// share one is below 10^-16.
type Digest = [u32; 3];

#[derive(Clone, Default)]
struct Hashers([foldhash::quality::RandomState; 2]);

impl Hashers {
    fn digest(&self, key: &impl Hash) -> Digest {
        let [one, other] = [self.0[0].hash_one(key), self.0[1].hash_one(key)];
        // The upper halves are the better mixed ones.
        [(one >> 32) as u32, one as u32, (other >> 32) as u32]
    }
}

type Known<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What makes two profiles equal; files by the number of their contents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProfileKey {
    /// The roots; `None` where nothing is verified.
    pub(super) roots: Option<u32>,
    /// The revocation lists.
    pub(super) crl: Option<u32>,
    /// The name check.
    pub(super) verify: VerifyName,
    /// Certificate and key.
    pub(super) identity: Option<(u32, u32)>,
    /// Versions, cipher suites and groups.
    pub(super) bounds: TlsBounds,
}

/// What makes two profiles of servers equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ServerKey {
    /// Certificates and keys.
    pub(super) identities: Vec<(u32, u32)>,
    /// [`ClientCheck::id`].
    pub(super) clients: Option<u32>,
    /// Oldest version, cipher suites and groups.
    pub(super) bounds: TlsBounds,
    /// Whether TLS 1.2 is the newest.
    pub(super) only_12: bool,
    /// Whether HTTP is spoken inside.
    pub(super) speaks_http: bool,
}

/// What makes two checks of clients equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckKey {
    /// The roots.
    pub(super) roots: u32,
    /// The revocation lists.
    pub(super) crl: Option<u32>,
    /// Names, of which one is enough.
    pub(super) names: Vec<Box<str>>,
    /// Pins of certificates, of which one is enough.
    pub(super) certificates: Vec<[u8; 32]>,
    /// Pins of keys, of which one is enough.
    pub(super) keys: Vec<[u8; 32]>,
}

/// What makes connections interchangeable: see [`crate::route::cluster::Cluster::pool`].
#[derive(Clone, Debug, Hash)]
pub(super) struct PoolKey<'a> {
    /// The service's host.
    pub(super) service: &'a str,
    /// Where connections go.
    pub(super) endpoints: &'a Endpoints,
    /// The SNI and the profile; the inner `None` is a profile that is not available.
    pub(super) tls: Option<(Option<&'a HostName>, Option<u32>)>,
    /// What is spoken.
    pub(super) version: HttpVersion,
    /// Bounds, and what a connection begins with.
    pub(super) traffic: Option<&'a Traffic>,
}

/// A load in progress.
#[derive(Debug)]
pub(super) struct Generation<'a> {
    earlier: &'a Store,
    now: Store,
}

impl<'a> Generation<'a> {
    /// Begins a load after `earlier`.
    pub(super) fn after(earlier: &'a Store) -> Self {
        Self { earlier, now: Store { next: earlier.next, hashers: earlier.hashers.clone(), ..Store::default() } }
    }

    /// What to remember once the configuration takes force.
    pub(super) fn finish(self) -> Store {
        self.now
    }

    /// The number of these bytes.
    pub(super) fn content(&mut self, bytes: &Arc<[u8]>) -> u32 {
        let next = &mut self.now.next.content;
        *recall(&mut self.now.contents, &self.earlier.contents, bytes, || take(next))
    }

    /// The pool of connections of this kind.
    pub(super) fn pool(&mut self, key: &PoolKey<'_>) -> PoolId {
        let digest = self.now.hashers.digest(key);
        let next = &mut self.now.next.pool;
        *recall(&mut self.now.pools, &self.earlier.pools, &digest, || PoolId(take(next)))
    }

    /// The account of the cluster of this name.
    pub(super) fn account(&mut self, cluster: &str) -> AccountId {
        let digest = self.now.hashers.digest(&cluster);
        let next = &mut self.now.next.account;
        *recall(&mut self.now.accounts, &self.earlier.accounts, &digest, || AccountId(take(next)))
    }

    /// The profile of these settings, built by `build` from its identifier if it is new.
    pub(super) fn profile<E>(
        &mut self,
        key: &ProfileKey,
        build: impl FnOnce(u32) -> Result<TlsProfile, E>,
    ) -> Result<Arc<TlsProfile>, E> {
        let next = &mut self.now.next.profile;
        keep(&mut self.now.profiles, &self.earlier.profiles, key, || build(take(next)))
    }

    /// As [`Self::profile`], of a server.
    pub(super) fn server<E>(
        &mut self,
        key: &ServerKey,
        build: impl FnOnce(u32) -> Result<ServerProfile, E>,
    ) -> Result<Arc<ServerProfile>, E> {
        let next = &mut self.now.next.server;
        keep(&mut self.now.servers, &self.earlier.servers, key, || build(take(next)))
    }

    /// As [`Self::profile`], of what clients must show.
    pub(super) fn check<E>(
        &mut self,
        key: &CheckKey,
        build: impl FnOnce(u32) -> Result<ClientCheck, E>,
    ) -> Result<Arc<ClientCheck>, E> {
        let next = &mut self.now.next.check;
        keep(&mut self.now.checks, &self.earlier.checks, key, || build(take(next)))
    }
}

/// What `key` stands for now, or stood for earlier, or is made into.
fn keep<K: Clone + Eq + Hash, V, E>(
    now: &mut Known<K, Arc<V>>,
    earlier: &Known<K, Arc<V>>,
    key: &K,
    make: impl FnOnce() -> Result<V, E>,
) -> Result<Arc<V>, E> {
    let value = match now.get(key).or_else(|| earlier.get(key)) {
        Some(known) => Arc::clone(known),
        None => Arc::new(make()?),
    };
    now.insert(key.clone(), Arc::clone(&value));
    Ok(value)
}

/// The value that `key` has now, or had earlier, or gets.
fn recall<'n, K: Clone + Eq + Hash, V: Copy>(
    now: &'n mut Known<K, V>,
    earlier: &Known<K, V>,
    key: &K,
    make: impl FnOnce() -> V,
) -> &'n V {
    now.entry(key.clone()).or_insert_with(|| earlier.get(key).copied().unwrap_or_else(make))
}

/// Four thousand million clusters over the life of one process are out of reach of any operator.
fn take(next: &mut u32) -> u32 {
    let taken = *next;
    *next += 1;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> PoolKey<'static> {
        let endpoints = match port {
            1 => &Endpoints::Requested { port: 1 },
            _ => &Endpoints::Requested { port: 2 },
        };
        PoolKey { service: "a", endpoints, tls: None, version: HttpVersion::One, traffic: None }
    }

    #[test]
    fn equal_keys_keep_their_identifier_and_forgotten_ones_never_get_it_back() {
        let empty = Store::default();
        let mut first = Generation::after(&empty);
        let (one, two) = (first.pool(&key(1)), first.pool(&key(2)));
        assert_ne!(one, two);
        assert_eq!(first.pool(&key(1)), one);
        let store = first.finish();

        let mut second = Generation::after(&store);
        assert_eq!(second.pool(&key(2)), two);
        let store = second.finish();
        assert_eq!(store.pools.len(), 1);

        let mut third = Generation::after(&store);
        let again = third.pool(&key(1));
        assert!(again != one && again != two);
    }
}
