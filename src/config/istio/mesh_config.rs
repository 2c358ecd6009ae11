//! `MeshConfig` (istio/api mesh/v1alpha1/config.proto), the fields that apply to egress.

use serde::Deserialize;
use serde_yaml::Value;

use super::scalar::List;
use super::virtual_service::HttpRetry;
use crate::config::yaml::Node;

/// Settings of a whole mesh; here: of this node.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshConfig {
    /// What happens to hosts that nothing names.
    #[serde(alias = "outbound_traffic_policy")]
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// Where the access log goes; empty: nowhere.
    #[serde(alias = "access_log_file")]
    pub access_log_file: Option<String>,
    /// TEXT or JSON.
    #[serde(alias = "access_log_encoding")]
    pub access_log_encoding: Option<String>,
    /// A format of one's own, in the encoding that stands beside it.
    #[serde(alias = "access_log_format")]
    pub access_log_format: Option<String>,
    /// Longest wait for a TCP connection.
    #[serde(alias = "connect_timeout")]
    pub connect_timeout: Option<String>,
    /// What is done to paths before they are judged.
    #[serde(alias = "path_normalization")]
    pub path_normalization: Option<PathNormalization>,
    /// What is done about failures where a route does not say.
    #[serde(alias = "default_http_retry_policy")]
    pub default_http_retry_policy: Option<HttpRetry>,
    /// The namespace whose DestinationRules hold for all others.
    #[serde(alias = "root_namespace")]
    pub root_namespace: Option<String>,
    /// Bounds on TLS that the gateway speaks.
    #[serde(alias = "tls_defaults")]
    pub tls_defaults: Option<TlsDefaults>,
    /// Whether HTTP/2 is spoken to upstreams whose port says HTTP: DO_NOT_UPGRADE or UPGRADE.
    #[serde(alias = "h2_upgrade_policy")]
    pub h2_upgrade_policy: Option<String>,
}

/// `tlsDefaults:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsDefaults {
    /// TLS_AUTO, TLSV1_2 or TLSV1_3.
    #[serde(alias = "min_protocol_version")]
    pub min_protocol_version: Option<String>,
    /// Of TLS 1.2, by Envoy's names.
    #[serde(alias = "cipher_suites")]
    pub cipher_suites: List<String>,
    /// Groups of the key exchange.
    #[serde(alias = "ecdh_curves")]
    pub ecdh_curves: List<String>,
}

/// `outboundTrafficPolicy:`, also of a Sidecar.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutboundTrafficPolicy {
    /// REGISTRY_ONLY or ALLOW_ANY.
    pub mode: Option<String>,
    /// Of a Sidecar: where unknown traffic goes; not supported.
    #[serde(alias = "egress_proxy")]
    pub egress_proxy: Option<Value>,
}

/// `pathNormalization:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PathNormalization {
    /// NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES.
    pub normalization: Option<String>,
}

/// Fields of a MeshConfig that are about the mesh, its sidecars or its control plane, in camelCase.
const WITHOUT_EFFECT: [&str; 41] = [
    "caCertificates",
    "certificates",
    "configSources",
    "defaultConfig",
    "defaultDestinationRuleExportTo",
    "defaultProviders",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "disableEnvoyListenerLog",
    "disableMixerHttpReports",
    "discoverySelectors",
    "dnsRefreshRate",
    "enableAutoMtls",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "localityLbSetting",
    "meshMTLS",
    "meshMtls",
    "mixerCheckServer",
    "mixerReportServer",
    "outboundClusterStatName",
    "protocolDetectionTimeout",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "serviceScopeConfigs",
    "serviceSettings",
    "tcpKeepalive",
    "thriftConfig",
    "trustDomain",
    "trustDomainAliases",
    "verifyCertificateAtClient",
];

/// Whether a field of a MeshConfig, in either spelling, is known and without effect here.
pub(super) fn is_without_effect(key: &str) -> bool {
    WITHOUT_EFFECT.contains(&camel_case(key).as_str())
}

/// Whether a document without `kind` is a bare MeshConfig: it has a field of one.
pub(super) fn looks_like(document: &Node<'_>) -> bool {
    const FIELDS: [&str; 10] = [
        "outboundTrafficPolicy",
        "accessLogFile",
        "accessLogEncoding",
        "accessLogFormat",
        "connectTimeout",
        "pathNormalization",
        "defaultHttpRetryPolicy",
        "rootNamespace",
        "tlsDefaults",
        "h2UpgradePolicy",
    ];
    document.keys().map(camel_case).any(|key| FIELDS.contains(&key.as_str()) || WITHOUT_EFFECT.contains(&key.as_str()))
}

/// `connect_timeout` → `connectTimeout`.
fn camel_case(key: &str) -> String {
    let mut parts = key.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let mut rest = part.chars();
        let head = rest.next().map(|character| character.to_ascii_uppercase());
        text + &head.into_iter().chain(rest).collect::<String>()
    })
}
