//! What a DestinationRule says of the connections of a cluster, beyond where they go and in what TLS.

use std::net::IpAddr;
use std::time::Duration;

use crate::wire::proxy_protocol;

use super::http::RequestFacts;

/// Equal for the same service, port and subset of any two generations: what a worker counts under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub u32);

/// Bounds on the connections and requests of a cluster, and what a fresh connection begins with. Shared for reading.
///
/// Numbers are meant for the node; a worker enforces its share of them (see [`Share`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Traffic {
    /// Whom it is counted for.
    pub account: AccountId,
    /// `connectionPool.tcp.maxConnections`.
    pub connections_max: Option<u32>,
    /// `connectionPool.http.http1MaxPendingRequests`.
    pub pending_max: Option<u32>,
    /// `connectionPool.http.http2MaxRequests`.
    pub requests_max: Option<u32>,
    /// `connectionPool.http.maxRetries`.
    pub retries_max: Option<u32>,
    /// `retryBudget`; it takes the place of `maxRetries`.
    pub retry_budget: Option<RetryBudget>,
    /// `connectionPool.http.maxRequestsPerConnection`.
    pub requests_per_connection_max: Option<u32>,
    /// `connectionPool.http.maxConcurrentStreams`.
    pub streams_per_connection_max: Option<u32>,
    /// `connectionPool.http.idleTimeout`, else that of `tcp`: of connections in a pool.
    pub pool_idle_timeout: Option<Duration>,
    /// `connectionPool.tcp.idleTimeout`: of tunnels.
    pub tunnel_idle_timeout: Option<Duration>,
    /// `connectionPool.tcp.maxConnectionDuration`.
    pub connection_duration_max: Option<Duration>,
    /// `connectionPool.tcp.tcpKeepalive`.
    pub keepalive: Option<Keepalive>,
    /// `outlierDetection`.
    pub outliers: Option<Outliers>,
    /// `loadBalancer.consistentHash`.
    pub hash: Option<HashBy>,
    /// `proxyProtocol`: connections begin with their client's address, and are not shared.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// `tunnel`: the endpoints are proxies, which are asked for a tunnel to this host and port.
    pub tunnel: Option<Box<str>>,
}

impl Traffic {
    /// Nothing but an account.
    #[must_use]
    pub fn new(account: AccountId) -> Self {
        Self {
            account,
            connections_max: None,
            pending_max: None,
            requests_max: None,
            retries_max: None,
            retry_budget: None,
            requests_per_connection_max: None,
            streams_per_connection_max: None,
            pool_idle_timeout: None,
            tunnel_idle_timeout: None,
            connection_duration_max: None,
            keepalive: None,
            outliers: None,
            hash: None,
            proxy_protocol: None,
            tunnel: None,
        }
    }

    /// Whether there is anything to enforce.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::new(self.account)
    }
}

/// `retryBudget`: retries under way as a share of the requests under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// In hundredths of a percent.
    pub share: u32,
    /// Retries that may always be under way.
    pub retries_min: u32,
}

/// `tcpKeepalive`; what is not set is the kernel's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keepalive {
    /// Probes without an answer before the connection is given up.
    pub probes: Option<u32>,
    /// Silence before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}

/// `outlierDetection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outliers {
    /// Errors of any 5xx kind in a row that eject an endpoint; 0: none do.
    pub consecutive_5xx: u32,
    /// 502, 503 and 504 in a row that do; 0: none do.
    pub consecutive_gateway: u32,
    /// Failures to connect, resets and timeouts in a row that do, if they are told apart from answers; `None`: they
    /// count as 503 and 504.
    pub consecutive_local: Option<u32>,
    /// Between two looks at what has been ejected.
    pub interval: Duration,
    /// How long the first ejection lasts; the second lasts twice as long, and so on.
    pub base_ejection: Duration,
    /// Most endpoints that may be ejected at once, in percent.
    pub ejected_percent_max: u32,
    /// With fewer endpoints in place than this, in percent, all of them are used again.
    pub healthy_percent_min: u32,
}

/// `consistentHash`: what a session's endpoint follows from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashBy {
    /// The value of a field, its name in lower case.
    Header(Box<str>),
    /// The value of a cookie, by its name; a client without it may be given one.
    Cookie(Box<str>, Option<NewCookie>),
    /// The value of a parameter of the query.
    Query(Box<str>),
    /// The client's address.
    SourceIp,
}

/// What a cookie that is made here says of itself (`httpCookie.path`, `ttl`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewCookie {
    /// The paths that it is for; empty: left to the client.
    pub path: Box<str>,
    /// For how many seconds it is kept; 0: until the client's own session ends.
    pub max_age: u64,
}

impl HashBy {
    /// The key of a session; equal in every worker and after every start. `None`: the session has none of what is
    /// hashed, and may go anywhere.
    #[must_use]
    pub fn key(&self, source: IpAddr, facts: Option<&impl RequestFacts>) -> Option<u64> {
        match self {
            Self::SourceIp => Some(match source {
                IpAddr::V4(address) => stable_hash(&address.octets()),
                IpAddr::V6(address) => stable_hash(&address.octets()),
            }),
            Self::Header(name) => facts?.header(name).map(|value| stable_hash(value.as_bytes())),
            Self::Cookie(name, _) => {
                let fields = facts?.header("cookie")?;
                // Several fields arrive joined by commas; a cookie's value holds neither (RFC 6265 section 4.1.1).
                let pairs = fields.split([';', ',']).filter_map(|pair| pair.trim().split_once('='));
                let mut values = pairs.filter(|(key, _)| **key == **name).map(|(_, value)| value.trim_matches('"'));
                values.next().filter(|value| !value.is_empty()).map(|value| stable_hash(value.as_bytes()))
            }
            Self::Query(name) => {
                let pairs = facts?.query().split('&').filter_map(|pair| pair.split_once('='));
                let mut values = pairs.filter(|(key, _)| **key == **name).map(|(_, value)| value);
                values.next().map(|value| stable_hash(value.as_bytes()))
            }
        }
    }

    /// A cookie for a client that has none, as the value of a Set-Cookie field (RFC 6265 section 4.1.1), and the key that
    /// it will bring. `lot` is any number: it says nothing of the client, whose cookie the upstream will see.
    #[must_use]
    pub fn new_cookie(&self, lot: impl FnOnce() -> u64) -> Option<(u64, String)> {
        let Self::Cookie(name, Some(NewCookie { path, max_age })) = self else { return None };
        let value = format!("{:016x}", lot());
        let mut cookie = format!("{name}=\"{value}\"");
        if *max_age > 0 {
            cookie.push_str(&format!("; Max-Age={max_age}"));
        }
        if !path.is_empty() {
            cookie.push_str(&format!("; Path={path}"));
        }
        cookie.push_str("; HttpOnly");
        Some((stable_hash(value.as_bytes()), cookie))
    }
}

/// FNV-1a of 64 bits: no secret, no seed, the same everywhere.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// A worker's share of a number that is meant for the node: workers share no counter, so each enforces a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: u32,
    workers: u32,
}

impl Default for Share {
    /// Of a worker that is alone.
    fn default() -> Self {
        Self { index: 0, workers: 1 }
    }
}

impl Share {
    /// Of the worker `index` of `workers`.
    #[must_use]
    pub fn new(index: usize, workers: usize) -> Self {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self { index: number(index), workers: number(workers).max(1) }
    }

    /// The parts of all workers make up `total`, except that each has at least 1: a worker without any could serve
    /// nobody whose connection the kernel has given to it.
    #[must_use]
    pub fn of(self, total: u32) -> u32 {
        let extra = u32::from(self.index < total % self.workers);
        (total / self.workers + extra).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::{Request, get};
    use super::*;

    #[test]
    fn shares_make_up_the_number_and_nobody_is_left_without() {
        for (total, workers, expected) in [(10, 4, vec![3, 3, 2, 2]), (1, 3, vec![1, 1, 1]), (7, 1, vec![7])] {
            let shares: Vec<u32> = (0..workers).map(|index| Share::new(index, workers).of(total)).collect();
            assert_eq!(shares, expected);
        }
    }

    #[test]
    fn a_key_follows_from_what_is_hashed_and_from_nothing_else() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let request = Request {
            query: "a=1&user=x",
            headers: vec![("cookie", "first=1; session=\"abc\""), ("x-user", "x")],
            ..get("/")
        };
        let key = |by: HashBy| by.key(address, Some(&request));
        let x = Some(stable_hash(b"x"));
        assert_eq!(key(HashBy::Header("x-user".into())), x);
        assert_eq!(key(HashBy::Query("user".into())), x);
        assert_eq!(key(HashBy::Cookie("session".into(), None)), Some(stable_hash(b"abc")));
        assert_eq!(key(HashBy::SourceIp), Some(stable_hash(&[192, 0, 2, 1])));
        for absent in
            [HashBy::Header("x-other".into()), HashBy::Cookie("sess".into(), None), HashBy::Query("use".into())]
        {
            assert_eq!(key(absent), None);
        }
    }

    #[test]
    fn a_new_cookie_brings_the_key_that_chose_the_first_endpoint() {
        let by = |path: &str, max_age| HashBy::Cookie("user".into(), Some(NewCookie { path: path.into(), max_age }));
        let (key, cookie) = by("/books", 3600).new_cookie(|| 0xab).expect("one is made");
        assert_eq!(cookie, "user=\"00000000000000ab\"; Max-Age=3600; Path=/books; HttpOnly");
        let request = Request { headers: vec![("cookie", "user=\"00000000000000ab\"")], ..get("/") };
        assert_eq!(by("", 0).key("192.0.2.1".parse().unwrap(), Some(&request)), Some(key));
        // One of the client's session names no end.
        assert_eq!(by("", 0).new_cookie(|| 1).expect("one is made").1, "user=\"0000000000000001\"; HttpOnly");
        assert_eq!(HashBy::Cookie("user".into(), None).new_cookie(|| 1), None);
        assert_eq!(HashBy::SourceIp.new_cookie(|| 1), None);
    }
}
