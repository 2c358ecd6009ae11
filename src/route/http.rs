//! HTTP routes: the match block of a VirtualService, and what follows from it.

use std::time::Duration;

use super::cluster::Weighted;

/// What a request shows to a matcher. Borrowed from the request head; nothing is copied.
pub trait RequestFacts {
    /// The method, as sent (methods are case-sensitive, RFC 9110 section 9.1).
    fn method(&self) -> &str;
    /// The normalised path, without the query.
    fn path(&self) -> &str;
    /// The query without `?`; empty if there is none.
    fn query(&self) -> &str;
    /// Host and port as sent, in lower case.
    fn authority(&self) -> &str;
    /// The first value of a field; names compare without case. `None`: the field is absent.
    fn header(&self, name: &str) -> Option<&str>;
}

/// One entry of `http:`.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    /// `name`, or `default`: what the access log shows as %ROUTE_NAME%.
    pub name: Box<str>,
    /// Alternatives; none at all matches every request.
    pub matches: Vec<HttpMatch>,
    /// What to do.
    pub action: HttpAction,
}

/// What a matching request gets.
#[derive(Clone, Debug)]
pub enum HttpAction {
    /// Forward it.
    Forward(Forward),
    /// Answer it here.
    Respond(DirectResponse),
}

/// How to forward a request.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Where to.
    pub clusters: Weighted,
    /// From the end of the request head to the end of the response; `None`: no limit.
    pub timeout: Option<Duration>,
    /// What to do about failures.
    pub retry: RetryPolicy,
    /// A new path, if the route rewrites it.
    pub rewrite_path: Option<PathRewrite>,
    /// A new Host, if the route rewrites it; the SNI of an originated connection follows it.
    pub rewrite_authority: Option<Box<str>>,
}

/// `directResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body, at most 1 MiB.
    pub body: Box<str>,
}

/// `rewrite.uri`: replaces what the route's match has matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRewrite {
    /// The matched prefix (or the whole path, for exact and regex matches) becomes this.
    pub replacement: Box<str>,
}

/// `retries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first; 0: none.
    pub attempts: u32,
    /// Longest one attempt may take until the response head; `None`: the route's timeout alone.
    pub per_try_timeout: Option<Duration>,
    /// Retry when no connection could be made (TCP or TLS).
    pub on_connect_failure: bool,
    /// Retry when the upstream closed or reset before the response head, if the request may be repeated.
    pub on_reset: bool,
    /// Retry on these statuses from the upstream, sorted.
    pub on_status: Vec<u16>,
}

impl Default for RetryPolicy {
    /// Istio's default: two more attempts, for failures before the request was processed.
    fn default() -> Self {
        Self { attempts: 2, per_try_timeout: None, on_connect_failure: true, on_reset: false, on_status: Vec::new() }
    }
}

/// One entry of `match:`; every condition must hold.
#[derive(Clone, Debug, Default)]
pub struct HttpMatch {
    /// `name`, appended to the route's name in logs.
    pub name: Option<Box<str>>,
    /// Condition on the normalised path without the query.
    pub path: Option<TextMatch>,
    /// `ignoreUriCase`, for exact and prefix.
    pub path_ignores_case: bool,
    /// Condition on the method.
    pub method: Option<TextMatch>,
    /// Condition on the authority, port included if the client sent one.
    pub authority: Option<TextMatch>,
    /// Conditions on fields: name in lower case, condition.
    pub headers: Vec<(Box<str>, TextMatch)>,
    /// Conditions on fields that must not hold.
    pub without_headers: Vec<(Box<str>, TextMatch)>,
    /// Conditions on query parameters, names case-sensitive.
    pub query: Vec<(Box<str>, TextMatch)>,
}

/// A condition on a text.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// There is one.
    Present,
    /// The whole text, case-sensitive.
    Exact(Box<str>),
    /// Its beginning, case-sensitive.
    Prefix(Box<str>),
    /// The whole text, by a regular expression that the compiler has anchored at both ends.
    Regex(regex::Regex),
}
