//! `connectionPool`, `outlierDetection`, `consistentHash` and `retryBudget` → what a worker enforces.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::istio::destination_rule::{
    ConnectionPool, ConsistentHash, HttpPool, OutlierDetection, ProxyProtocol, ProxyProtocolVersion, RetryBudget,
    TcpKeepalive, TcpPool, Tunnel,
};
use crate::config::istio::scalar::GoDuration;
use crate::config::registry::Policy;
use crate::limits::TIMEOUT_MAX;
use crate::route::traffic::{self, AccountId, HashBy, Keepalive, NewCookie, Outliers, Traffic};
use crate::wire::proxy_protocol::Version;

/// Errors in a row that eject where nothing is said.
const CONSECUTIVE_ERRORS: u32 = 5;

const INTERVAL: Duration = Duration::from_secs(10);
const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const MAX_EJECTION_PERCENT: u32 = 10;

/// 20 %, in hundredths of a percent.
const RETRY_SHARE: u32 = 2_000;
const RETRIES_MIN: u32 = 3;

/// What a policy bounds; `None`: nothing. `tunnels`: the cluster is for TLS or TCP, and may be a tunnel's.
/// `account` is asked for its number if there is anything to count.
pub(super) fn traffic(policy: &Policy<'_>, tunnels: bool, account: impl FnOnce() -> AccountId) -> Option<Traffic> {
    let hash = policy.balance.and_then(|balance| balance.consistent_hash.as_ref());
    let mut traffic = Traffic {
        outliers: policy.outliers.map(outliers),
        hash: hash.and_then(hash_by),
        retry_budget: policy.retry_budget.map(retry_budget),
        proxy_protocol: policy.proxy_protocol.map(proxy_protocol),
        ..Traffic::new(AccountId(0))
    };
    if let Some(ConnectionPool { tcp, http }) = policy.pool {
        tcp.iter().for_each(|tcp| of_connections(tcp, &mut traffic));
        http.iter().for_each(|http| of_requests(http, &mut traffic));
    }
    if traffic.proxy_protocol.is_some() {
        // Its header names one client, so the connection is nobody else's.
        traffic.requests_per_connection_max = Some(1);
    }
    if tunnels {
        traffic.tunnel = policy.tunnel.and_then(tunnel);
    }
    if traffic.is_empty() {
        return None;
    }
    traffic.account = account();
    Some(traffic)
}

/// 0 is Istio's word for no limit of one's own.
fn limit(number: Option<i64>) -> Option<u32> {
    number.filter(|number| *number > 0).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

fn duration(duration: Option<GoDuration>) -> Option<Duration> {
    duration.map(|duration| duration.0)
}

fn of_connections(tcp: &TcpPool, traffic: &mut Traffic) {
    // A timeout that is switched off is the longest there is: a limit that never ends is none.
    let idle = duration(tcp.idle_timeout).map(|idle| if idle.is_zero() { TIMEOUT_MAX } else { idle });
    traffic.connections_max = limit(tcp.max_connections);
    traffic.tunnel_idle_timeout = idle;
    traffic.pool_idle_timeout = idle;
    traffic.connection_duration_max = duration(tcp.max_connection_duration);
    traffic.keepalive = tcp.tcp_keepalive.as_ref().map(keepalive);
}

fn keepalive(keepalive: &TcpKeepalive) -> Keepalive {
    Keepalive {
        probes: limit(keepalive.probes),
        time: duration(keepalive.time),
        interval: duration(keepalive.interval),
    }
}

fn of_requests(http: &HttpPool, traffic: &mut Traffic) {
    traffic.pending_max = limit(http.http1_max_pending_requests);
    traffic.requests_max = limit(http.http2_max_requests);
    traffic.streams_per_connection_max = limit(http.max_concurrent_streams);
    traffic.requests_per_connection_max = limit(http.max_requests_per_connection);
    traffic.retries_max = limit(http.max_retries);
    traffic.pool_idle_timeout = duration(http.idle_timeout).or(traffic.pool_idle_timeout);
}

fn outliers(outliers: &OutlierDetection) -> Outliers {
    let count = |number: Option<i64>, absent| number.map_or(absent, |number| u32::try_from(number).unwrap_or(absent));
    let splits = outliers.split_external_local_origin_errors == Some(true);
    Outliers {
        consecutive_5xx: count(outliers.consecutive_5xx_errors, CONSECUTIVE_ERRORS),
        consecutive_gateway: count(outliers.consecutive_gateway_errors, 0),
        consecutive_local: splits
            .then(|| limit(outliers.consecutive_local_origin_failures).unwrap_or(CONSECUTIVE_ERRORS)),
        interval: duration(outliers.interval).unwrap_or(INTERVAL),
        base_ejection: duration(outliers.base_ejection_time).unwrap_or(BASE_EJECTION_TIME),
        ejected_percent_max: limit(outliers.max_ejection_percent).unwrap_or(MAX_EJECTION_PERCENT),
        healthy_percent_min: count(outliers.min_health_percent, 0),
    }
}

fn hash_by(hash: &ConsistentHash) -> Option<HashBy> {
    if let Some(name) = &hash.http_header_name {
        return Some(HashBy::Header(name.to_ascii_lowercase().into()));
    }
    if let Some(cookie) = &hash.http_cookie {
        let new = cookie.ttl.map(|GoDuration(ttl)| NewCookie {
            path: cookie.path.as_deref().unwrap_or_default().into(),
            // Part of a second is no session.
            max_age: ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0),
        });
        return Some(HashBy::Cookie(cookie.name.as_deref()?.into(), new));
    }
    if let Some(name) = &hash.http_query_parameter_name {
        return Some(HashBy::Query(name.as_str().into()));
    }
    (hash.use_source_ip == Some(true)).then_some(HashBy::SourceIp)
}

fn retry_budget(budget: &RetryBudget) -> traffic::RetryBudget {
    // Validated to lie from 0 to 100.
    let share = budget.percent.map_or(RETRY_SHARE, |percent| (percent * 100.0) as u32);
    traffic::RetryBudget { share, retries_min: limit(budget.min_retry_concurrency).unwrap_or(RETRIES_MIN) }
}

fn proxy_protocol(protocol: &ProxyProtocol) -> Version {
    match protocol.version {
        Some(ProxyProtocolVersion::V1) | None => Version::V1,
        Some(ProxyProtocolVersion::V2) => Version::V2,
    }
}

/// Host and port as an authority is written.
fn tunnel(tunnel: &Tunnel) -> Option<Box<str>> {
    let (host, port) = (tunnel.target_host.as_deref()?, tunnel.target_port?);
    Some(match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}").into(),
        Ok(IpAddr::V4(_)) | Err(_) => format!("{host}:{port}").into(),
    })
}
