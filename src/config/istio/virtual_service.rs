//! `VirtualService` (istio/api networking/v1alpha3/virtual_service.proto).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_yaml::Value;

use super::http_action::{CorsPolicy, Headers, HttpFault, HttpRedirect, Percent, RegexRewrite};
use super::scalar::{GoDuration, List, integer};
use crate::route::table::ObjectRef;

/// How requests and sessions for a host are routed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VirtualService {
    /// Names and `*.` wildcards.
    pub hosts: List<String>,
    /// Where the rules hold: `mesh`, the default, and Gateways as `namespace/name` or `name`.
    pub gateways: List<String>,
    /// Plain HTTP.
    pub http: List<HttpRule>,
    /// The client's own TLS, by SNI.
    pub tls: List<TlsRule>,
    /// TCP, by port and captured address.
    pub tcp: List<TcpRule>,
    /// Visibility.
    #[serde(alias = "export_to")]
    pub export_to: List<String>,
    /// The objects whose rules stand among these.
    #[serde(skip)]
    pub delegates: Vec<Arc<ObjectRef>>,
}

/// `delegate:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Delegate {
    /// The name of a VirtualService without hosts.
    pub name: Option<String>,
    /// Its namespace; that of the root if absent.
    pub namespace: Option<String>,
}

/// One entry of `http:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRule {
    /// The route's name in logs.
    pub name: Option<String>,
    /// Alternatives; none: every request.
    #[serde(rename = "match")]
    pub matches: List<HttpMatchRequest>,
    /// Weighted destinations.
    pub route: List<HttpDestination>,
    /// The client is sent elsewhere.
    pub redirect: Option<HttpRedirect>,
    /// An answer without an upstream.
    #[serde(alias = "direct_response")]
    pub direct_response: Option<HttpDirectResponse>,
    /// The rules of another object stand here, under these conditions.
    pub delegate: Option<Delegate>,
    /// A new path or Host.
    pub rewrite: Option<HttpRewrite>,
    /// From the request to the end of the response.
    pub timeout: Option<GoDuration>,
    /// What to do about failures.
    pub retries: Option<HttpRetry>,
    /// Failures to inject.
    pub fault: Option<HttpFault>,
    /// Where copies of the requests go.
    pub mirror: Option<RouteDestination>,
    /// The same, for several.
    pub mirrors: List<HttpMirror>,
    /// The share of requests that `mirror` gets; the older form.
    #[serde(alias = "mirror_percent", deserialize_with = "integer")]
    pub mirror_percent: Option<i64>,
    /// The share of requests that `mirror` gets.
    #[serde(alias = "mirror_percentage")]
    pub mirror_percentage: Option<Percent>,
    /// Which origins of scripts may ask.
    #[serde(alias = "cors_policy")]
    pub cors_policy: Option<CorsPolicy>,
    /// Changes to the fields of requests and answers.
    pub headers: Option<Headers>,
}

/// One entry of `mirrors:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HttpMirror {
    /// Where to.
    pub destination: Option<RouteDestination>,
    /// The share of requests that it gets.
    pub percentage: Option<Percent>,
}

/// One entry of `match:` under `http:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpMatchRequest {
    /// Appended to the route's name in logs.
    pub name: Option<String>,
    /// The normalised path without the query.
    pub uri: Option<StringMatch>,
    /// `http`, for every request that arrives here in the clear.
    pub scheme: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// Host and port as sent.
    pub authority: Option<StringMatch>,
    /// Conditions on fields.
    pub headers: BTreeMap<String, StringMatch>,
    /// The service port.
    #[serde(deserialize_with = "integer")]
    pub port: Option<i64>,
    /// Selects workloads of a mesh.
    #[serde(alias = "source_labels")]
    pub source_labels: BTreeMap<String, String>,
    /// Overrides the gateways of the VirtualService.
    pub gateways: List<String>,
    /// Conditions on query parameters.
    #[serde(alias = "query_params")]
    pub query_params: BTreeMap<String, StringMatch>,
    /// For exact and prefix.
    #[serde(alias = "ignore_uri_case")]
    pub ignore_uri_case: Option<bool>,
    /// Conditions on fields that must not hold.
    #[serde(alias = "without_headers")]
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Selects workloads of a mesh.
    #[serde(alias = "source_namespace")]
    pub source_namespace: Option<String>,
    /// A prefix of metrics.
    #[serde(alias = "stat_prefix")]
    pub stat_prefix: Option<Value>,
}

/// A condition on a text: at most one of the three; none: present.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StringMatch {
    /// The whole text.
    pub exact: Option<String>,
    /// Its beginning.
    pub prefix: Option<String>,
    /// The whole text, by an expression of RE2's syntax.
    pub regex: Option<String>,
}

/// One entry of `route:` under `http:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HttpDestination {
    /// Where to.
    pub destination: Option<RouteDestination>,
    /// Relative share.
    #[serde(deserialize_with = "integer")]
    pub weight: Option<i64>,
    /// Changes to the fields of requests and answers, after those of the route.
    pub headers: Option<Headers>,
}

/// `destination:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RouteDestination {
    /// A host of a ServiceEntry.
    pub host: Option<String>,
    /// A subset of its DestinationRule.
    pub subset: Option<String>,
    /// Its port.
    pub port: Option<PortSelector>,
}

/// `port:` with a number inside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PortSelector {
    /// The service port.
    #[serde(deserialize_with = "integer")]
    pub number: Option<i64>,
}

/// `directResponse:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HttpDirectResponse {
    /// The status.
    #[serde(deserialize_with = "integer")]
    pub status: Option<i64>,
    /// The body.
    pub body: Option<HttpBody>,
}

/// `body:` of a direct response.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HttpBody {
    /// As text.
    pub string: Option<String>,
    /// As base64.
    pub bytes: Option<String>,
}

/// `rewrite:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRewrite {
    /// Replaces what the match has matched.
    pub uri: Option<String>,
    /// A new Host.
    pub authority: Option<String>,
    /// Replaces what an expression finds in the path.
    #[serde(alias = "uri_regex_rewrite")]
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `retries:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRetry {
    /// Attempts after the first.
    #[serde(deserialize_with = "integer")]
    pub attempts: Option<i64>,
    /// Longest one attempt may take.
    #[serde(alias = "per_try_timeout")]
    pub per_try_timeout: Option<GoDuration>,
    /// What is retried, separated by commas.
    #[serde(alias = "retry_on")]
    pub retry_on: Option<String>,
    /// Not supported yet.
    #[serde(alias = "retry_remote_localities")]
    pub retry_remote_localities: Option<Value>,
    /// Whether endpoints that have been tried come last.
    #[serde(alias = "retry_ignore_previous_hosts")]
    pub retry_ignore_previous_hosts: Option<bool>,
    /// First wait between two attempts.
    pub backoff: Option<GoDuration>,
}

/// One entry of `tls:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TlsRule {
    /// Alternatives, at least one.
    #[serde(rename = "match")]
    pub matches: List<TlsMatch>,
    /// Weighted destinations.
    pub route: List<TlsDestination>,
}

/// One entry of `match:` under `tls:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsMatch {
    /// Names and wildcards, each within the hosts of the VirtualService.
    #[serde(alias = "sni_hosts")]
    pub sni_hosts: List<String>,
    /// Where captured clients meant to go.
    #[serde(alias = "destination_subnets")]
    pub destination_subnets: List<String>,
    /// The service port.
    #[serde(deserialize_with = "integer")]
    pub port: Option<i64>,
    /// Selects workloads of a mesh.
    #[serde(alias = "source_labels")]
    pub source_labels: BTreeMap<String, String>,
    /// Overrides the gateways of the VirtualService.
    pub gateways: List<String>,
    /// Selects workloads of a mesh.
    #[serde(alias = "source_namespace")]
    pub source_namespace: Option<String>,
}

/// One entry of `tcp:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TcpRule {
    /// Alternatives; none: every session.
    #[serde(rename = "match")]
    pub matches: List<TcpMatch>,
    /// Weighted destinations.
    pub route: List<TlsDestination>,
}

/// One entry of `match:` under `tcp:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpMatch {
    /// Where captured clients meant to go.
    #[serde(alias = "destination_subnets")]
    pub destination_subnets: List<String>,
    /// The service port.
    #[serde(deserialize_with = "integer")]
    pub port: Option<i64>,
    /// Not used by Istio either.
    #[serde(alias = "source_subnet")]
    pub source_subnet: Option<String>,
    /// Selects workloads of a mesh.
    #[serde(alias = "source_labels")]
    pub source_labels: BTreeMap<String, String>,
    /// Overrides the gateways of the VirtualService.
    pub gateways: List<String>,
    /// Selects workloads of a mesh.
    #[serde(alias = "source_namespace")]
    pub source_namespace: Option<String>,
}

/// One entry of `route:` under `tls:` and `tcp:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TlsDestination {
    /// Where to.
    pub destination: Option<RouteDestination>,
    /// Relative share.
    #[serde(deserialize_with = "integer")]
    pub weight: Option<i64>,
}
