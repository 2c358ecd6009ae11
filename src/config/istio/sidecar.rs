//! `Sidecar` (istio/api networking/v1alpha3/sidecar.proto), the fields that apply to egress.

use serde::Deserialize;
use serde_yaml::Value;

use super::mesh_config::OutboundTrafficPolicy;
use super::scalar::List;

/// What workloads may reach; here: this node.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sidecar {
    /// Selects pods, which cannot be told apart here.
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<Value>,
    /// Listeners towards workloads; none here.
    pub ingress: List<Value>,
    /// Which services are visible.
    pub egress: List<EgressListener>,
    /// Bounds on connections to workloads; none here.
    #[serde(alias = "inbound_connection_pool")]
    pub inbound_connection_pool: Option<Value>,
    /// What happens to hosts that nothing names.
    #[serde(alias = "outbound_traffic_policy")]
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// One entry of `egress:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EgressListener {
    /// A listener of its own; not supported.
    pub port: Option<Value>,
    /// Its address; not supported.
    pub bind: Option<Value>,
    /// How traffic reaches it; not supported.
    #[serde(alias = "capture_mode")]
    pub capture_mode: Option<Value>,
    /// `NAMESPACE/HOST`, with `*`, `.` and `~` for namespaces.
    pub hosts: List<String>,
}
