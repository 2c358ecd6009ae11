//! What an entry of `http:` does to a request besides choosing its destination
//! (istio/api networking/v1alpha3/virtual_service.proto).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_yaml::Value;

use super::scalar::{Enumeration, GoDuration, List, enumeration, integer};

/// `headers:`, of a route and of a destination.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// Before the request is sent on.
    pub request: Option<HeaderOperations>,
    /// Before the answer is.
    pub response: Option<HeaderOperations>,
}

/// `request:` and `response:` under `headers:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HeaderOperations {
    /// In place of what is there.
    pub set: Fields,
    /// Besides what is there.
    pub add: Fields,
    /// Names.
    pub remove: List<String>,
}

/// Names and values.
pub type Fields = BTreeMap<String, String>;

/// `redirect:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRedirect {
    /// The whole path; with a `?` also the query.
    pub uri: Option<String>,
    /// Host, with a port or without.
    pub authority: Option<String>,
    /// The port.
    #[serde(deserialize_with = "integer")]
    pub port: Option<i64>,
    /// Where the port comes from, if none is named.
    #[serde(alias = "derive_port", deserialize_with = "enumeration")]
    pub derive_port: Option<DerivePort>,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// 301 if absent.
    #[serde(alias = "redirect_code", deserialize_with = "integer")]
    pub redirect_code: Option<i64>,
}

/// `derivePort:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DerivePort {
    /// That of the scheme.
    ProtocolDefault,
    /// The one that the request came to.
    RequestPort,
}

impl Enumeration for DerivePort {
    const VALUES: &'static [(&'static str, i64, Self)] =
        &[("FROM_PROTOCOL_DEFAULT", 0, Self::ProtocolDefault), ("FROM_REQUEST_PORT", 1, Self::RequestPort)];
}

/// `fault:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HttpFault {
    /// Some requests wait.
    pub delay: Option<FaultDelay>,
    /// Some requests are answered with an error.
    pub abort: Option<FaultAbort>,
}

/// `delay:` under `fault:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FaultDelay {
    /// How long.
    #[serde(alias = "fixed_delay")]
    pub fixed_delay: Option<GoDuration>,
    /// Never implemented by Istio.
    #[serde(alias = "exponential_delay")]
    pub exponential_delay: Option<Value>,
    /// Which share of the requests.
    pub percentage: Option<Percent>,
    /// Its older form.
    #[serde(deserialize_with = "integer")]
    pub percent: Option<i64>,
}

/// `abort:` under `fault:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FaultAbort {
    /// The status.
    #[serde(alias = "http_status", deserialize_with = "integer")]
    pub http_status: Option<i64>,
    /// The status of gRPC.
    #[serde(alias = "grpc_status")]
    pub grpc_status: Option<Value>,
    /// An error of HTTP/2.
    #[serde(alias = "http2_error")]
    pub http2_error: Option<Value>,
    /// Which share of the requests.
    pub percentage: Option<Percent>,
    /// Its older form.
    #[serde(deserialize_with = "integer")]
    pub percent: Option<i64>,
}

/// `percentage:`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Percent {
    /// From 0 to 100.
    pub value: f64,
}

/// `uriRegexRewrite:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RegexRewrite {
    /// What is replaced, by an expression of RE2's syntax.
    #[serde(rename = "match")]
    pub found: Option<String>,
    /// By what; `\1` stands for the first group.
    pub rewrite: Option<String>,
}

/// `corsPolicy:`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CorsPolicy {
    /// Exact origins; the older form.
    #[serde(alias = "allow_origin")]
    pub allow_origin: List<String>,
    /// Origins.
    #[serde(alias = "allow_origins")]
    pub allow_origins: List<super::virtual_service::StringMatch>,
    /// Methods of Access-Control-Allow-Methods.
    #[serde(alias = "allow_methods")]
    pub allow_methods: List<String>,
    /// Names of Access-Control-Allow-Headers.
    #[serde(alias = "allow_headers")]
    pub allow_headers: List<String>,
    /// Names of Access-Control-Expose-Headers.
    #[serde(alias = "expose_headers")]
    pub expose_headers: List<String>,
    /// How long a preflight holds.
    #[serde(alias = "max_age")]
    pub max_age: Option<GoDuration>,
    /// Access-Control-Allow-Credentials.
    #[serde(alias = "allow_credentials")]
    pub allow_credentials: Option<bool>,
    /// What happens to preflights of other origins.
    #[serde(alias = "unmatched_preflights", deserialize_with = "enumeration")]
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// `unmatchedPreflights:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmatchedPreflights {
    /// The upstream answers them.
    Forward,
    /// They are answered here, without leave.
    Ignore,
}

impl Enumeration for UnmatchedPreflights {
    const VALUES: &'static [(&'static str, i64, Self)] =
        &[("UNSPECIFIED", 0, Self::Forward), ("FORWARD", 1, Self::Forward), ("IGNORE", 2, Self::Ignore)];
}
