//! Parts of a traffic policy: load balancing, connection pools, outlier detection, retry budgets (pilot's validation.go).

use std::net::IpAddr;
use std::time::Duration;

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::destination_rule::{
    ConnectionPool, ConsistentHash, H2UpgradePolicy, HttpCookie, HttpPool, LoadBalancer, OutlierDetection, RetryBudget,
    SimpleBalance, TcpPool, Tunnel,
};
use crate::config::istio::scalar::GoDuration;
use crate::limits::TIMEOUT_MAX;
use crate::route::host::HostName;

use super::duration_fault;

/// Longest `connectTimeout`: TCP itself gives up after about two minutes.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// What TCP_KEEPIDLE and TCP_KEEPINTVL take (tcp(7)), in seconds.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

/// What TCP_KEEPCNT takes.
const KEEPALIVE_PROBES_MAX: i64 = 127;

/// Maglev tables of Envoy are smaller than this.
const MAGLEV_TABLE_END: i64 = 5_000_011;

pub(super) fn load_balancer(balancer: &LoadBalancer, field: &str, scope: &mut Scope<'_>) {
    if balancer.simple == Some(SimpleBalance::Passthrough) {
        let message = "the address that a client chose is never dialled; LEAST_REQUEST over the resolved ones is used";
        scope.warning(code::UNSUPPORTED, format!("{field}.simple"), message);
    }
    let warned = [
        ("localityLbSetting", balancer.locality_lb_setting.is_some()),
        ("zoneAwareLbSetting", balancer.zone_aware_lb_setting.is_some()),
        ("warmupDurationSecs", balancer.warmup_duration_secs.is_some()),
        ("warmup", balancer.warmup.is_some()),
    ];
    scope.warn_present(field, warned);
    if let Some(hash) = &balancer.consistent_hash {
        if balancer.simple.is_some() {
            scope.error(field, "only one of simple and consistentHash may be set (oneof already set)");
        }
        consistent_hash(hash, &format!("{field}.consistentHash"), scope);
    }
}

fn consistent_hash(hash: &ConsistentHash, field: &str, scope: &mut Scope<'_>) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    match keys.into_iter().filter(|present| *present).count() {
        0 => {
            let message = "without httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName endpoints are \
                           chosen at random";
            scope.warning(code::UNREACHABLE, field, message);
        }
        1 => {}
        _ => scope.error(field, "only one key may be hashed (oneof already set)"),
    }
    for (name, text) in
        [("httpHeaderName", &hash.http_header_name), ("httpQueryParameterName", &hash.http_query_parameter_name)]
    {
        if text.as_ref().is_some_and(String::is_empty) {
            scope.error(format!("{field}.{name}"), format!("{name} must not be empty"));
        }
    }
    if let Some(cookie) = &hash.http_cookie {
        if cookie.name.as_ref().is_none_or(String::is_empty) {
            scope.error(format!("{field}.httpCookie.name"), "name required for HttpCookie");
        }
        if cookie.ttl.is_some() {
            new_cookie(cookie, &format!("{field}.httpCookie"), scope);
        }
    }
    ring(hash, field, scope);
}

/// What clients keep of a path (RFC 6265bis section 5.6).
const COOKIE_PATH_BYTES_MAX: usize = 1024;

/// Name and path become part of a Set-Cookie field (RFC 6265 section 4.1.1); Envoy would send whatever is written.
fn new_cookie(cookie: &HttpCookie, field: &str, scope: &mut Scope<'_>) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if cookie.name.as_ref().is_some_and(|name| !name.bytes().all(is_token)) {
        let message = "no cookie can be made of this name: letters, digits and !#$%&'*+-.^_`|~ only";
        scope.error(format!("{field}.name"), message);
    }
    let is_path = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b';';
    if cookie.path.as_ref().is_some_and(|path| path.len() > COOKIE_PATH_BYTES_MAX || !path.bytes().all(is_path)) {
        let message = format!("not the path of a cookie: at most {COOKIE_PATH_BYTES_MAX} printable characters, no `;`");
        scope.error(format!("{field}.path"), message);
    }
}

fn ring(hash: &ConsistentHash, field: &str, scope: &mut Scope<'_>) {
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        scope.error(field, "only one of ringHash and maglev may be set (oneof already set)");
    }
    if hash.minimum_ring_size.is_some_and(|size| size != 0) {
        let message =
            "consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash configuration instead";
        scope.warning(code::SCHEMA, format!("{field}.minimumRingSize"), message);
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            scope.error(field, "only one of MinimumRingSize or Maglev/Ringhash can be specified");
        }
    }
    let Some(maglev) = &hash.maglev else { return };
    let field = format!("{field}.maglev.tableSize");
    match maglev.table_size.unwrap_or(0) {
        ..=0 => scope.error(field, "tableSize must be set for maglev"),
        MAGLEV_TABLE_END.. => scope.error(field, "tableSize must be less than 5000011 for maglev"),
        size if !is_prime(size) => scope.error(field, "tableSize must be a prime number for maglev"),
        _ => {}
    }
}

fn is_prime(number: i64) -> bool {
    number > 1 && (2..).take_while(|factor| factor * factor <= number).all(|factor| number % factor != 0)
}

pub(super) fn connection_pool(pool: &ConnectionPool, field: &str, scope: &mut Scope<'_>) {
    if pool.tcp.is_none() && pool.http.is_none() {
        scope.error(field, "connection pool must have at least one field");
    }
    pool.http.iter().for_each(|http| http_pool(http, &format!("{field}.http"), scope));
    pool.tcp.iter().for_each(|tcp| tcp_pool(tcp, &format!("{field}.tcp"), scope));
}

fn http_pool(http: &HttpPool, field: &str, scope: &mut Scope<'_>) {
    let numbers = [
        ("http1MaxPendingRequests", "http1 max pending requests", http.http1_max_pending_requests),
        ("http2MaxRequests", "http2 max requests", http.http2_max_requests),
        ("maxRequestsPerConnection", "max requests per connection", http.max_requests_per_connection),
        ("maxRetries", "max retries", http.max_retries),
        ("maxConcurrentStreams", "max concurrent streams", http.max_concurrent_streams),
    ];
    for (name, words, number) in numbers {
        non_negative(number, &format!("{field}.{name}"), words, scope);
    }
    duration(http.idle_timeout, &format!("{field}.idleTimeout"), TIMEOUT_MAX, scope);
    if http.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade) && http.use_client_protocol == Some(true) {
        scope.error(field, "use client protocol must not be true when H2UpgradePolicy is UPGRADE");
    }
    if http.http2_keepalive.is_some() {
        let message = "no pings are sent to upstreams; tcpKeepalive finds dead connections, too";
        scope.warning(code::UNSUPPORTED, format!("{field}.http2Keepalive"), message);
    }
}

fn tcp_pool(tcp: &TcpPool, field: &str, scope: &mut Scope<'_>) {
    non_negative(tcp.max_connections, &format!("{field}.maxConnections"), "max connections", scope);
    duration(tcp.connect_timeout, &format!("{field}.connectTimeout"), CONNECT_TIMEOUT_MAX, scope);
    duration(tcp.max_connection_duration, &format!("{field}.maxConnectionDuration"), TIMEOUT_MAX * 365, scope);
    // 0 switches it off.
    let idle = tcp.idle_timeout.filter(|idle| !idle.0.is_zero());
    duration(idle, &format!("{field}.idleTimeout"), TIMEOUT_MAX, scope);
    let Some(keepalive) = &tcp.tcp_keepalive else { return };
    for (name, value) in [("time", keepalive.time), ("interval", keepalive.interval)] {
        let field = format!("{field}.tcpKeepalive.{name}");
        duration(value, &field, KEEPALIVE_MAX, scope);
        if value.is_some_and(|value| value.0.subsec_nanos() != 0) {
            scope.error(field, "the kernel counts keepalive times in whole seconds");
        }
    }
    if keepalive.probes.is_some_and(|probes| !(0..=KEEPALIVE_PROBES_MAX).contains(&probes)) {
        let message = format!("probes must be from 0 to {KEEPALIVE_PROBES_MAX}");
        scope.error(format!("{field}.tcpKeepalive.probes"), message);
    }
}

pub(super) fn outlier_detection(outliers: &OutlierDetection, field: &str, scope: &mut Scope<'_>) {
    duration(outliers.interval, &format!("{field}.interval"), TIMEOUT_MAX, scope);
    duration(outliers.base_ejection_time, &format!("{field}.baseEjectionTime"), TIMEOUT_MAX, scope);
    if outliers.consecutive_errors.is_some_and(|count| count != 0) {
        let message = "outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or \
                       consecutive5xxErrors instead; it has no effect";
        scope.warning(code::UNSUPPORTED, format!("{field}.consecutiveErrors"), message);
    }
    let splits = outliers.split_external_local_origin_errors == Some(true);
    if !splits && outliers.consecutive_local_origin_failures.is_some_and(|count| count > 0) {
        let message = "outlier detection consecutive local origin failures is specified, but split external local \
                       origin errors is set to false";
        scope.error(format!("{field}.consecutiveLocalOriginFailures"), message);
    }
    let counts = [
        ("consecutiveLocalOriginFailures", outliers.consecutive_local_origin_failures),
        ("consecutiveGatewayErrors", outliers.consecutive_gateway_errors),
        ("consecutive5xxErrors", outliers.consecutive_5xx_errors),
    ];
    for (name, count) in counts {
        if count.is_some_and(|count| u32::try_from(count).is_err()) {
            scope.error(format!("{field}.{name}"), format!("{name} must be from 0 to 4294967295"));
        }
    }
    for (name, percent) in
        [("maxEjectionPercent", outliers.max_ejection_percent), ("minHealthPercent", outliers.min_health_percent)]
    {
        if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
            scope.error(format!("{field}.{name}"), format!("percentage {percent} is not in range 0..100"));
        }
    }
}

pub(super) fn tunnel(tunnel: &Tunnel, field: &str, scope: &mut Scope<'_>) {
    match tunnel.protocol.as_deref() {
        None | Some("" | "CONNECT") => {}
        Some("POST") => {
            let message = "POST would carry the tunnel in the body of a request, which is not supported; use CONNECT";
            scope.refuse(format!("{field}.protocol"), message);
        }
        Some(_) => scope.error(format!("{field}.protocol"), "tunnel protocol must be \"CONNECT\" or \"POST\""),
    }
    let host = tunnel.target_host.as_deref().unwrap_or_default();
    if host.parse::<IpAddr>().is_err() && host.parse::<HostName>().is_err() {
        let message = format!("tunnel target host must be valid FQDN or IP address: {host:?}");
        scope.error(format!("{field}.targetHost"), message);
    }
    let port = tunnel.target_port.unwrap_or(0);
    if u16::try_from(port).ok().filter(|port| *port > 0).is_none() {
        let message = format!("tunnel target port is invalid: port number {port} must be in the range 1..65535");
        scope.error(format!("{field}.targetPort"), message);
    }
}

pub(super) fn retry_budget(budget: &RetryBudget, field: &str, scope: &mut Scope<'_>) {
    if let Some(percent) = budget.percent.filter(|percent| !(0.0..=100.0).contains(percent)) {
        scope.error(format!("{field}.percent"), format!("percentage {percent} is not in range 0..100"));
    }
    non_negative(budget.min_retry_concurrency, &format!("{field}.minRetryConcurrency"), "min retry concurrency", scope);
}

/// Istio's fields are int32.
fn non_negative(number: Option<i64>, field: &str, words: &str, scope: &mut Scope<'_>) {
    match number {
        Some(..=-1) => scope.error(field, format!("{words} must be non-negative")),
        Some(number) if i32::try_from(number).is_err() => {
            scope.error(field, format!("{words} must not be larger than {}", i32::MAX));
        }
        Some(_) | None => {}
    }
}

fn duration(duration: Option<GoDuration>, field: &str, most: Duration, scope: &mut Scope<'_>) {
    if let Some(message) = duration.and_then(|duration| duration_fault(duration.0, most)) {
        scope.error(field, message);
    }
}
