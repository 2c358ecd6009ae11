//! `DestinationRule` (istio/api networking/v1alpha3/destination_rule.proto).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_yaml::Value;

use super::scalar::{Enumeration, GoDuration, List, enumeration, integer};
use super::virtual_service::PortSelector;

/// What happens after a destination was chosen.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DestinationRule {
    /// A name or a `*.` wildcard.
    pub host: Option<String>,
    /// For every port and subset that says nothing of its own.
    #[serde(alias = "traffic_policy")]
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the destination.
    pub subsets: List<Subset>,
    /// Visibility.
    #[serde(alias = "export_to")]
    pub export_to: List<String>,
    /// Selects pods; there are none here.
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<Value>,
}

/// One entry of `subsets:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subset {
    /// What routes name.
    pub name: Option<String>,
    /// The endpoints that belong to it; none: all.
    pub labels: BTreeMap<String, String>,
    /// Overrides the policy of the rule, part by part.
    #[serde(alias = "traffic_policy")]
    pub traffic_policy: Option<TrafficPolicy>,
}

/// `trafficPolicy:`, and an entry of `portLevelSettings:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// The port, in an entry of `portLevelSettings:` only.
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    #[serde(alias = "load_balancer")]
    pub load_balancer: Option<LoadBalancer>,
    /// Bounds on connections.
    #[serde(alias = "connection_pool")]
    pub connection_pool: Option<ConnectionPool>,
    /// What leaves endpoints out.
    #[serde(alias = "outlier_detection")]
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS that the gateway opens.
    pub tls: Option<ClientTls>,
    /// Per port; replaces, does not merge.
    #[serde(alias = "port_level_settings")]
    pub port_level_settings: List<TrafficPolicy>,
    /// The endpoints are proxies.
    pub tunnel: Option<Tunnel>,
    /// Connections begin with their client's address.
    #[serde(alias = "proxy_protocol")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Retries as a share of requests.
    #[serde(alias = "retry_budget")]
    pub retry_budget: Option<RetryBudget>,
}

/// `loadBalancer:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancer {
    /// The algorithm.
    #[serde(deserialize_with = "enumeration")]
    pub simple: Option<SimpleBalance>,
    /// By a key of the session.
    #[serde(alias = "consistent_hash")]
    pub consistent_hash: Option<ConsistentHash>,
    /// Not supported yet.
    #[serde(alias = "locality_lb_setting")]
    pub locality_lb_setting: Option<Value>,
    /// Not supported yet.
    #[serde(alias = "zone_aware_lb_setting")]
    pub zone_aware_lb_setting: Option<Value>,
    /// Not supported yet.
    #[serde(alias = "warmup_duration_secs")]
    pub warmup_duration_secs: Option<Value>,
    /// Not supported yet.
    pub warmup: Option<Value>,
}

/// `tunnel:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tunnel {
    /// CONNECT, also where absent; POST is not supported.
    pub protocol: Option<String>,
    /// Where the proxy is to connect.
    #[serde(alias = "target_host")]
    pub target_host: Option<String>,
    /// The port there.
    #[serde(alias = "target_port", deserialize_with = "integer")]
    pub target_port: Option<i64>,
}

/// `proxyProtocol:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProxyProtocol {
    /// V1 where absent.
    #[serde(deserialize_with = "enumeration")]
    pub version: Option<ProxyProtocolVersion>,
}

/// `proxyProtocol.version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

impl Enumeration for ProxyProtocolVersion {
    const VALUES: &'static [(&'static str, i64, Self)] = &[("V1", 0, Self::V1), ("V2", 1, Self::V2)];
}

/// `loadBalancer.consistentHash:`; one of the first four says what is hashed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsistentHash {
    /// A field of the request.
    #[serde(alias = "http_header_name")]
    pub http_header_name: Option<String>,
    /// A cookie.
    #[serde(alias = "http_cookie")]
    pub http_cookie: Option<HttpCookie>,
    /// The client's address.
    #[serde(alias = "use_source_ip")]
    pub use_source_ip: Option<bool>,
    /// A parameter of the query.
    #[serde(alias = "http_query_parameter_name")]
    pub http_query_parameter_name: Option<String>,
    /// An algorithm; another of the same properties is used.
    #[serde(alias = "ring_hash")]
    pub ring_hash: Option<RingHash>,
    /// An algorithm; another of the same properties is used.
    pub maglev: Option<Maglev>,
    /// The deprecated place of `ringHash.minimumRingSize`.
    #[serde(alias = "minimum_ring_size", deserialize_with = "integer")]
    pub minimum_ring_size: Option<i64>,
}

/// `httpCookie:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HttpCookie {
    /// Its name.
    pub name: Option<String>,
    /// Its path, for a cookie that is made.
    pub path: Option<String>,
    /// For how long a cookie is kept that is made where a client has none; absent: none is made.
    pub ttl: Option<GoDuration>,
}

/// `ringHash:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RingHash {
    /// Places on the ring.
    #[serde(alias = "minimum_ring_size", deserialize_with = "integer")]
    pub minimum_ring_size: Option<i64>,
}

/// `maglev:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Maglev {
    /// Places in the table, a prime number.
    #[serde(alias = "table_size", deserialize_with = "integer")]
    pub table_size: Option<i64>,
}

/// `retryBudget:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryBudget {
    /// Of the requests under way; absent: 20.
    pub percent: Option<f64>,
    /// Retries that are always allowed; absent or 0: 3.
    #[serde(alias = "min_retry_concurrency", deserialize_with = "integer")]
    pub min_retry_concurrency: Option<i64>,
}

/// `loadBalancer.simple`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimpleBalance {
    /// Istio's default: LEAST_REQUEST.
    Unspecified,
    /// Deprecated word for LEAST_REQUEST.
    LeastConn,
    /// At random.
    Random,
    /// The address that the client chose; never honoured here.
    Passthrough,
    /// In turn.
    RoundRobin,
    /// Fewest requests of two picked at random.
    LeastRequest,
}

impl Enumeration for SimpleBalance {
    const VALUES: &'static [(&'static str, i64, Self)] = &[
        ("UNSPECIFIED", 0, Self::Unspecified),
        ("LEAST_CONN", 1, Self::LeastConn),
        ("RANDOM", 2, Self::Random),
        ("PASSTHROUGH", 3, Self::Passthrough),
        ("ROUND_ROBIN", 4, Self::RoundRobin),
        ("LEAST_REQUEST", 5, Self::LeastRequest),
    ];
}

/// `connectionPool:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConnectionPool {
    /// For every connection.
    pub tcp: Option<TcpPool>,
    /// For requests.
    pub http: Option<HttpPool>,
}

/// `connectionPool.tcp:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpPool {
    /// Longest wait for a TCP connection.
    #[serde(alias = "connect_timeout")]
    pub connect_timeout: Option<GoDuration>,
    /// Most connections; 0: no limit.
    #[serde(alias = "max_connections", deserialize_with = "integer")]
    pub max_connections: Option<i64>,
    /// Probes of silent peers.
    #[serde(alias = "tcp_keepalive")]
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest silence; 0: any.
    #[serde(alias = "idle_timeout")]
    pub idle_timeout: Option<GoDuration>,
    /// Longest life.
    #[serde(alias = "max_connection_duration")]
    pub max_connection_duration: Option<GoDuration>,
}

/// `connectionPool.tcp.tcpKeepalive:`; what is absent is the kernel's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is given up.
    #[serde(deserialize_with = "integer")]
    pub probes: Option<i64>,
    /// Silence before the first.
    pub time: Option<GoDuration>,
    /// Between probes.
    pub interval: Option<GoDuration>,
}

/// `connectionPool.http:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpPool {
    /// Most requests that wait for a connection; 0: the default.
    #[serde(alias = "http1_max_pending_requests", deserialize_with = "integer")]
    pub http1_max_pending_requests: Option<i64>,
    /// Most requests under way, whatever the protocol; 0: no limit.
    #[serde(alias = "http2_max_requests", deserialize_with = "integer")]
    pub http2_max_requests: Option<i64>,
    /// Requests that a connection serves; 0: no limit.
    #[serde(alias = "max_requests_per_connection", deserialize_with = "integer")]
    pub max_requests_per_connection: Option<i64>,
    /// Most retries under way; 0: no limit.
    #[serde(alias = "max_retries", deserialize_with = "integer")]
    pub max_retries: Option<i64>,
    /// Longest an idle connection is kept.
    #[serde(alias = "idle_timeout")]
    pub idle_timeout: Option<GoDuration>,
    /// Whether HTTP/2 is spoken where the port does not say so.
    #[serde(alias = "h2_upgrade_policy", deserialize_with = "enumeration")]
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Whether the upstream is spoken to as its client speaks.
    #[serde(alias = "use_client_protocol")]
    pub use_client_protocol: Option<bool>,
    /// Most requests under way on a connection in HTTP/2; 0: the default.
    #[serde(alias = "max_concurrent_streams", deserialize_with = "integer")]
    pub max_concurrent_streams: Option<i64>,
    /// Pings on connections in HTTP/2; none are sent.
    #[serde(alias = "http2_keepalive")]
    pub http2_keepalive: Option<Value>,
}

/// `h2UpgradePolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    Default,
    /// No.
    DoNotUpgrade,
    /// Yes.
    Upgrade,
}

impl Enumeration for H2UpgradePolicy {
    const VALUES: &'static [(&'static str, i64, Self)] =
        &[("DEFAULT", 0, Self::Default), ("DO_NOT_UPGRADE", 1, Self::DoNotUpgrade), ("UPGRADE", 2, Self::Upgrade)];
}

/// `outlierDetection:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Deprecated, and without effect in Istio as well.
    #[serde(alias = "consecutive_errors", deserialize_with = "integer")]
    pub consecutive_errors: Option<i64>,
    /// Whether failures to connect are told apart from answers.
    #[serde(alias = "split_external_local_origin_errors")]
    pub split_external_local_origin_errors: Option<bool>,
    /// Failures to connect in a row that eject; absent: 5.
    #[serde(alias = "consecutive_local_origin_failures", deserialize_with = "integer")]
    pub consecutive_local_origin_failures: Option<i64>,
    /// 502, 503 and 504 in a row that eject; absent or 0: none do.
    #[serde(alias = "consecutive_gateway_errors", deserialize_with = "integer")]
    pub consecutive_gateway_errors: Option<i64>,
    /// Errors in a row that eject; absent: 5, 0: none do.
    #[serde(rename = "consecutive5xxErrors", alias = "consecutive_5xx_errors", deserialize_with = "integer")]
    pub consecutive_5xx_errors: Option<i64>,
    /// Between two looks; absent: 10 s.
    pub interval: Option<GoDuration>,
    /// The first ejection; absent: 30 s.
    #[serde(alias = "base_ejection_time")]
    pub base_ejection_time: Option<GoDuration>,
    /// Most endpoints ejected at once; absent or 0: 10.
    #[serde(alias = "max_ejection_percent", deserialize_with = "integer")]
    pub max_ejection_percent: Option<i64>,
    /// With fewer in place all are used; absent: 0.
    #[serde(alias = "min_health_percent", deserialize_with = "integer")]
    pub min_health_percent: Option<i64>,
}

/// `tls:` of a traffic policy.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientTls {
    /// Whether and how.
    #[serde(deserialize_with = "enumeration")]
    pub mode: Option<TlsMode>,
    /// Our certificate (MUTUAL).
    #[serde(alias = "client_certificate")]
    pub client_certificate: Option<String>,
    /// Its key.
    #[serde(alias = "private_key")]
    pub private_key: Option<String>,
    /// Roots of trust.
    #[serde(alias = "ca_certificates")]
    pub ca_certificates: Option<String>,
    /// A folder of credentials instead of files.
    #[serde(alias = "credential_name")]
    pub credential_name: Option<String>,
    /// Names that the upstream's certificate must carry.
    #[serde(alias = "subject_alt_names")]
    pub subject_alt_names: List<String>,
    /// The SNI to send.
    pub sni: Option<String>,
    /// No verification at all.
    #[serde(alias = "insecure_skip_verify")]
    pub insecure_skip_verify: Option<bool>,
    /// Revocation lists.
    #[serde(alias = "ca_crl")]
    pub ca_crl: Option<String>,
}

/// `tls.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS.
    Simple,
    /// TLS with a client certificate.
    Mutual,
    /// The mesh's own TLS, which exists in a mesh only.
    IstioMutual,
}

impl Enumeration for TlsMode {
    const VALUES: &'static [(&'static str, i64, Self)] = &[
        ("DISABLE", 0, Self::Disable),
        ("SIMPLE", 1, Self::Simple),
        ("MUTUAL", 2, Self::Mutual),
        ("ISTIO_MUTUAL", 3, Self::IstioMutual),
    ];
}
