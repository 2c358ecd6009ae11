//! HTTP routes: the match block of a VirtualService, and what follows from it.
//!
//! Matching reads the request in place and allocates nothing. What a condition means is Istio's and Envoy's: the
//! first route of which one match holds decides, a prefix is a plain prefix of the text, and a regular expression
//! covers the whole of it.

mod cors;
mod edits;
mod fault;
mod matching;
mod redirect;
mod rewrite;

pub use cors::{Cors, CorsVerdict};
pub use edits::{Edits, NO_EDITS};
pub use fault::{Fault, Share};
pub use redirect::Redirect;
pub use rewrite::PathRewrite;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::wire::http1::FieldEdits;

use super::cluster::{Destination, Weighted};

/// What a request shows to a matcher. Borrowed from the request head; nothing is copied.
pub trait RequestFacts {
    /// The method, as sent (methods are case-sensitive, RFC 9110 section 9.1).
    fn method(&self) -> &str;
    /// The normalised path, without the query.
    fn path(&self) -> &str;
    /// The query without `?`; empty if there is none.
    fn query(&self) -> &str;
    /// What the client speaks: `http`, or `https` where its TLS has ended here.
    fn scheme(&self) -> &str {
        "http"
    }
    /// Host and port as sent, in lower case.
    fn authority(&self) -> &str;
    /// The value of a field; names compare without case. Several fields of one name are joined by commas, as Envoy
    /// joins them (RFC 9110 section 5.3): the upstream may take any of them, so a condition must hold for the whole.
    /// `None`: the field is absent.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// One entry of `http:`.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    /// `name`, or `default`: what the access log shows as %ROUTE_NAME%.
    pub name: Box<str>,
    /// Alternatives; none at all matches every request.
    pub matches: Vec<HttpMatch>,
    /// Which origins of scripts may ask.
    pub cors: Option<Box<Cors>>,
    /// Failures to inject first.
    pub fault: Option<Box<Fault>>,
    /// What to do.
    pub action: HttpAction,
}

/// A route that a request has matched.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    /// The route.
    pub route: &'a HttpRoute,
    /// Which of its matches held; `None`: it has none.
    pub by: Option<&'a HttpMatch>,
}

impl HttpRoute {
    /// The first route of which a match holds, and that match.
    #[must_use]
    pub fn find<'a>(routes: &'a [Self], facts: &(impl RequestFacts + ?Sized)) -> Option<Matched<'a>> {
        routes.iter().find_map(|route| route.judge(facts))
    }

    fn judge(&self, facts: &(impl RequestFacts + ?Sized)) -> Option<Matched<'_>> {
        if self.matches.is_empty() {
            return Some(Matched { route: self, by: None });
        }
        let by = self.matches.iter().find(|alternative| alternative.matches(facts))?;
        Some(Matched { route: self, by: Some(by) })
    }
}

impl<'a> Matched<'a> {
    /// What the access log shows as %ROUTE_NAME%: the name of the route, with that of the match if it has one.
    #[must_use]
    pub fn name(self) -> impl fmt::Display + 'a {
        fmt::from_fn(move |formatter| {
            formatter.write_str(&self.route.name)?;
            match self.by.and_then(|by| by.name.as_deref()) {
                Some(name) => write!(formatter, ".{name}"),
                None => Ok(()),
            }
        })
    }

    /// The status of an abort that befalls every request, if the route's fault says so.
    #[must_use]
    pub fn certain_abort(self) -> Option<u16> {
        let (share, status) = self.route.fault.as_ref()?.abort?;
        (share == Share::ALL).then_some(status)
    }

    /// What the route's CORS policy makes of the request.
    #[must_use]
    pub fn cors(self, facts: &(impl RequestFacts + ?Sized)) -> CorsVerdict {
        self.route.cors.as_ref().map_or(CorsVerdict::Unconcerned, |cors| cors.judge(facts))
    }

    /// Bytes of the path that the match has covered, which a rewrite replaces. Where nothing is said about the path,
    /// Istio's match is the prefix `/`.
    fn covered(self, path: &str) -> usize {
        match self.by.and_then(|by| by.path.as_ref()) {
            Some(TextMatch::Prefix(prefix)) => prefix.len().min(path.len()),
            Some(TextMatch::Exact(_) | TextMatch::Regex(_)) => path.len(),
            Some(TextMatch::Present) | None => path.len().min(1),
        }
    }
}

/// What a matching request gets.
#[derive(Clone, Debug)]
pub enum HttpAction {
    /// Forward it.
    Forward(Forward),
    /// Answer it here.
    Respond(DirectResponse),
    /// Send the client elsewhere.
    Redirect(Redirect),
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
    /// What changes in the heads: one entry for each of `clusters` in their order, one for all of them, or none.
    pub edits: Vec<Edits>,
    /// What becomes of copies; `None`: there are none.
    pub mirrors: Option<Box<Mirrors>>,
}

/// Whom a route's requests are copied to, and how.
#[derive(Clone, Debug)]
pub struct Mirrors {
    /// Where to.
    pub to: Box<[Mirror]>,
    /// What changes in the heads of copies: what the route says, without what it says of one of its own destinations.
    pub edits: Edits,
}

/// Whom some of a route's requests are copied to.
#[derive(Clone, Copy, Debug)]
pub struct Mirror {
    /// Where the copies go; never a Gateway.
    pub destination: Destination,
    /// How many of the requests.
    pub share: Share,
}

impl Forward {
    /// What changes on the way to the destination at this position of `clusters`.
    #[must_use]
    pub fn edits(&self, index: usize) -> &Edits {
        self.edits.get(index).or(self.edits.first()).unwrap_or(&NO_EDITS)
    }
}

/// `directResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body, at most 1 MiB.
    pub body: Box<[u8]>,
    /// Changes to the answer.
    pub fields: FieldEdits,
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
    /// Retry when the upstream has refused the request unseen (HTTP/2); this does no harm whatever the request is.
    pub on_refused: bool,
    /// Retry on these statuses from the upstream, sorted.
    pub on_status: Vec<u16>,
    /// First wait before another attempt; doubled each time, up to ten times this.
    pub back_off: Duration,
    /// Whether endpoints that have been tried come last.
    pub avoid_tried: bool,
}

/// First wait before another attempt where nothing is said: Envoy's default.
const RETRY_BACK_OFF: Duration = Duration::from_millis(25);

impl RetryPolicy {
    /// Istio's default: two more attempts, for failures before the request was processed.
    pub const DEFAULT: Self = Self {
        attempts: 2,
        per_try_timeout: None,
        on_connect_failure: true,
        on_reset: false,
        on_refused: true,
        on_status: Vec::new(),
        back_off: RETRY_BACK_OFF,
        avoid_tried: true,
    };

    /// One attempt and no more.
    pub const NONE: Self = Self {
        attempts: 0,
        per_try_timeout: None,
        on_connect_failure: false,
        on_reset: false,
        on_refused: false,
        on_status: Vec::new(),
        back_off: RETRY_BACK_OFF,
        avoid_tried: false,
    };
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request made of texts.
    #[derive(Clone, Default)]
    pub(in super::super) struct Request {
        pub method: &'static str,
        pub path: &'static str,
        pub query: &'static str,
        pub authority: &'static str,
        pub headers: Vec<(&'static str, &'static str)>,
    }

    impl RequestFacts for Request {
        fn method(&self) -> &str {
            self.method
        }
        fn path(&self) -> &str {
            self.path
        }
        fn query(&self) -> &str {
            self.query
        }
        fn authority(&self) -> &str {
            self.authority
        }
        fn header(&self, name: &str) -> Option<Cow<'_, str>> {
            let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| Cow::Borrowed(*value))
        }
    }

    pub(in super::super) fn get(path: &'static str) -> Request {
        Request { method: "GET", path, authority: "example.com", ..Request::default() }
    }

    fn exact(text: &str) -> TextMatch {
        TextMatch::Exact(text.into())
    }

    pub(in super::super) fn prefix(text: &str) -> TextMatch {
        TextMatch::Prefix(text.into())
    }

    pub(in super::super) fn regex(text: &str) -> TextMatch {
        TextMatch::Regex(regex::Regex::new(&format!("^(?:{text})$")).expect("a valid expression"))
    }

    fn path(condition: TextMatch) -> HttpMatch {
        HttpMatch { path: Some(condition), ..HttpMatch::default() }
    }

    pub(in super::super) fn route(name: &str, matches: Vec<HttpMatch>) -> HttpRoute {
        let forward = Forward {
            clusters: Weighted::single(Destination::Missing),
            timeout: None,
            retry: RetryPolicy::default(),
            rewrite_path: None,
            edits: Vec::new(),
            mirrors: None,
        };
        HttpRoute { name: name.into(), matches, cors: None, fault: None, action: HttpAction::Forward(forward) }
    }

    #[test]
    fn paths_match_exactly_by_plain_prefix_or_by_a_whole_expression() {
        assert!(path(exact("/health")).matches(&get("/health")));
        assert!(!path(exact("/health")).matches(&get("/health/")));
        assert!(path(prefix("/api")).matches(&get("/apis")));
        assert!(!path(prefix("/api")).matches(&get("/API")));
        assert!(path(regex("/health|/sport")).matches(&get("/sport")));
        assert!(!path(regex("/health|/sport")).matches(&get("/sports")));
    }

    #[test]
    fn case_is_ignored_on_request_for_exact_and_prefix_alone() {
        let ignoring = |condition| HttpMatch { path_ignores_case: true, ..path(condition) };
        assert!(ignoring(exact("/Health")).matches(&get("/hEALTH")));
        assert!(!ignoring(exact("/Health")).matches(&get("/health2")));
        assert!(ignoring(prefix("/API/")).matches(&get("/api/x")));
        assert!(!ignoring(prefix("/API/")).matches(&get("/api")));
        assert!(!ignoring(regex("/a")).matches(&get("/A")));
    }

    #[test]
    fn every_condition_must_hold() {
        let both = HttpMatch { method: Some(exact("GET")), ..path(prefix("/")) };
        assert!(both.matches(&get("/")));
        assert!(!both.matches(&Request { method: "get", ..get("/") }));
        let authority = HttpMatch { authority: Some(exact("example.com:8080")), ..HttpMatch::default() };
        assert!(!authority.matches(&get("/")));
        assert!(authority.matches(&Request { authority: "example.com:8080", ..get("/") }));
        assert!(HttpMatch::default().matches(&get("/")));
    }

    #[test]
    fn a_header_condition_needs_the_header() {
        let with = |condition| HttpMatch { headers: vec![("x-team".into(), condition)], ..HttpMatch::default() };
        let sent = |value| Request { headers: vec![("X-Team", value)], ..get("/") };
        assert!(with(TextMatch::Present).matches(&sent("")));
        assert!(!with(TextMatch::Present).matches(&get("/")));
        assert!(with(exact("a")).matches(&sent("a")));
        assert!(!with(exact("a")).matches(&sent("A")));
        assert!(!with(regex(".*")).matches(&get("/")));
    }

    #[test]
    fn a_missing_header_counts_as_empty_where_it_must_not_match() {
        let without =
            |condition| HttpMatch { without_headers: vec![("x-team".into(), condition)], ..HttpMatch::default() };
        let sent = |value| Request { headers: vec![("x-team", value)], ..get("/") };
        assert!(without(TextMatch::Present).matches(&get("/")));
        assert!(!without(TextMatch::Present).matches(&sent("")));
        assert!(without(exact("a")).matches(&get("/")));
        assert!(without(exact("a")).matches(&sent("b")));
        assert!(!without(exact("a")).matches(&sent("a")));
        assert!(!without(regex(".*")).matches(&get("/")));
    }

    #[test]
    fn the_first_query_parameter_of_a_name_counts() {
        let query = |name: &str, condition| HttpMatch { query: vec![(name.into(), condition)], ..HttpMatch::default() };
        let request = Request { query: "a=1&b&a=2&c==", ..get("/") };
        assert!(query("a", exact("1")).matches(&request));
        assert!(!query("a", exact("2")).matches(&request));
        assert!(query("b", TextMatch::Present).matches(&request));
        assert!(query("b", exact("")).matches(&request));
        assert!(query("c", exact("=")).matches(&request));
        assert!(!query("B", TextMatch::Present).matches(&request));
        assert!(!query("a", TextMatch::Present).matches(&get("/")));
    }

    #[test]
    fn the_first_route_decides_and_names_its_match() {
        let named = HttpMatch { name: Some("metrics".into()), ..path(exact("/metrics")) };
        let routes = [route("open", vec![path(exact("/health")), named]), route("rest", vec![])];
        let name = |request: &'static str| HttpRoute::find(&routes, &get(request)).map(|it| it.name().to_string());
        assert_eq!(name("/health").as_deref(), Some("open"));
        assert_eq!(name("/metrics").as_deref(), Some("open.metrics"));
        assert_eq!(name("/other").as_deref(), Some("rest"));
        assert!(HttpRoute::find(&routes[..1], &get("/other")).is_none());
    }
}
