//! `AuthorizationPolicy` (istio/api security/v1beta1/authorization_policy.proto).

use serde::Deserialize;
use serde_yaml::Value;

use super::scalar::{Enumeration, List, enumeration};

/// Who may send what where.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    /// Selects pods; here every selector means this node.
    pub selector: Option<Value>,
    /// The deprecated single form of `targetRefs`.
    #[serde(alias = "target_ref")]
    pub target_ref: Option<TargetRef>,
    /// The objects that the policy is about; none: all traffic.
    #[serde(alias = "target_refs")]
    pub target_refs: List<TargetRef>,
    /// Alternatives; none match nothing.
    pub rules: List<Rule>,
    /// Absent: ALLOW.
    #[serde(deserialize_with = "enumeration")]
    pub action: Option<Action>,
    /// Of CUSTOM policies.
    pub provider: Option<Value>,
}

/// `action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Only what matches may pass.
    #[default]
    Allow,
    /// What matches may not pass.
    Deny,
    /// What matches is audited; blocks nothing.
    Audit,
    /// An external authorizer decides.
    Custom,
}

impl Enumeration for Action {
    const VALUES: &'static [(&'static str, i64, Self)] =
        &[("ALLOW", 0, Self::Allow), ("DENY", 1, Self::Deny), ("AUDIT", 2, Self::Audit), ("CUSTOM", 3, Self::Custom)];
}

/// One entry of `targetRefs:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// `networking.istio.io`.
    pub group: Option<String>,
    /// `ServiceEntry`.
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its namespace; absent: the policy's.
    pub namespace: Option<String>,
}

/// One entry of `rules:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Alternatives on the source.
    pub from: List<From>,
    /// Alternatives on the operation.
    pub to: List<To>,
    /// Conditions, all of which must hold.
    pub when: List<When>,
}

/// One entry of `from:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct From {
    /// The source.
    pub source: Option<Source>,
}

/// `source:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Source {
    /// Addresses of the peer.
    #[serde(alias = "ip_blocks")]
    pub ip_blocks: List<String>,
    /// Negation of `ipBlocks`.
    #[serde(alias = "not_ip_blocks")]
    pub not_ip_blocks: List<String>,
    /// Addresses of the client; the peer's, as no proxy in front is trusted.
    #[serde(alias = "remote_ip_blocks")]
    pub remote_ip_blocks: List<String>,
    /// Negation of `remoteIpBlocks`.
    #[serde(alias = "not_remote_ip_blocks")]
    pub not_remote_ip_blocks: List<String>,
    /// Needs a mesh identity.
    pub principals: List<Value>,
    /// Needs a mesh identity.
    #[serde(alias = "not_principals")]
    pub not_principals: List<Value>,
    /// Needs JWT.
    #[serde(alias = "request_principals")]
    pub request_principals: List<Value>,
    /// Needs JWT.
    #[serde(alias = "not_request_principals")]
    pub not_request_principals: List<Value>,
    /// Needs a mesh identity.
    pub namespaces: List<Value>,
    /// Needs a mesh identity.
    #[serde(alias = "not_namespaces")]
    pub not_namespaces: List<Value>,
    /// Needs a mesh identity.
    #[serde(alias = "service_accounts")]
    pub service_accounts: List<Value>,
    /// Needs a mesh identity.
    #[serde(alias = "not_service_accounts")]
    pub not_service_accounts: List<Value>,
    /// Needs a mesh identity.
    #[serde(alias = "trust_domains")]
    pub trust_domains: List<Value>,
    /// Needs a mesh identity.
    #[serde(alias = "not_trust_domains")]
    pub not_trust_domains: List<Value>,
}

/// One entry of `to:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct To {
    /// The operation.
    pub operation: Option<Operation>,
}

/// `operation:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Operation {
    /// Host patterns.
    pub hosts: List<String>,
    /// Negation of `hosts`.
    #[serde(alias = "not_hosts")]
    pub not_hosts: List<String>,
    /// Service ports.
    pub ports: List<String>,
    /// Negation of `ports`.
    #[serde(alias = "not_ports")]
    pub not_ports: List<String>,
    /// Methods.
    pub methods: List<String>,
    /// Negation of `methods`.
    #[serde(alias = "not_methods")]
    pub not_methods: List<String>,
    /// Paths without the query.
    pub paths: List<String>,
    /// Negation of `paths`.
    #[serde(alias = "not_paths")]
    pub not_paths: List<String>,
}

/// One entry of `when:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct When {
    /// What is looked at.
    pub key: Option<String>,
    /// One must match.
    pub values: List<String>,
    /// None may match.
    #[serde(alias = "not_values")]
    pub not_values: List<String>,
}
