//! `DestinationRule` (istio/api networking/v1alpha3/destination_rule.proto).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_yaml::Value;

use super::scalar::{Enumeration, GoDuration, List, enumeration};
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
    /// Not supported yet.
    #[serde(alias = "outlier_detection")]
    pub outlier_detection: Option<Value>,
    /// TLS that the gateway opens.
    pub tls: Option<ClientTls>,
    /// Per port; replaces, does not merge.
    #[serde(alias = "port_level_settings")]
    pub port_level_settings: List<TrafficPolicy>,
    /// Not supported yet.
    pub tunnel: Option<Value>,
    /// Not supported yet.
    #[serde(alias = "proxy_protocol")]
    pub proxy_protocol: Option<Value>,
    /// Not supported yet.
    #[serde(alias = "retry_budget")]
    pub retry_budget: Option<Value>,
}

/// `loadBalancer:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancer {
    /// The algorithm.
    #[serde(deserialize_with = "enumeration")]
    pub simple: Option<SimpleBalance>,
    /// Not supported yet.
    #[serde(alias = "consistent_hash")]
    pub consistent_hash: Option<Value>,
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
    /// Not supported yet.
    pub http: Option<Value>,
}

/// `connectionPool.tcp:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpPool {
    /// Longest wait for a TCP connection.
    #[serde(alias = "connect_timeout")]
    pub connect_timeout: Option<GoDuration>,
    /// Not supported yet.
    #[serde(alias = "max_connections")]
    pub max_connections: Option<Value>,
    /// Not supported yet.
    #[serde(alias = "tcp_keepalive")]
    pub tcp_keepalive: Option<Value>,
    /// Not supported yet.
    #[serde(alias = "idle_timeout")]
    pub idle_timeout: Option<Value>,
    /// Not supported yet.
    #[serde(alias = "max_connection_duration")]
    pub max_connection_duration: Option<Value>,
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
