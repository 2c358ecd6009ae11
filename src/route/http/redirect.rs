//! `redirect`: the client is sent elsewhere.

use crate::wire::http1::FieldEdits;

use super::RequestFacts;

/// Where a request is sent, and by which status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`; `None`: that of the request, which is `http` for everything that arrives in the clear.
    pub scheme: Option<Box<str>>,
    /// Another host, with its port if one is written; `None`: that of the request.
    pub authority: Option<Box<str>>,
    /// Another port; `None`: that of the authority.
    pub port: Option<u16>,
    /// Another path; with a `?` it replaces the query, too. `None`: that of the request.
    pub path: Option<Box<str>>,
    /// Changes to the answer.
    pub fields: FieldEdits,
}

impl Redirect {
    /// The value of Location. The parts of the request in it have been judged: its authority is one, its path is
    /// normalised, and neither holds a control character.
    #[must_use]
    pub fn location(&self, facts: &(impl RequestFacts + ?Sized)) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(facts.scheme());
        let authority = self.authority.as_deref().unwrap_or_else(|| self.host(scheme, facts));
        let path = self.path.as_deref().unwrap_or_else(|| facts.path());
        // The path of `OPTIONS *` is none.
        let path = if path.starts_with('/') { path } else { "/" };
        let mut location = [scheme, "://", authority].concat();
        if let Some(port) = self.port.filter(|port| Some(*port) != default_port(scheme)) {
            location.push(':');
            location.push_str(itoa::Buffer::new().format(port));
        }
        location.push_str(path);
        if !path.contains('?') && !facts.query().is_empty() {
            location.push('?');
            location.push_str(facts.query());
        }
        location
    }

    /// The request's authority, without its port where that would be wrong: another is named, or it was the default
    /// of a scheme that changes (Envoy does the same).
    fn host<'a>(&self, scheme: &str, facts: &'a (impl RequestFacts + ?Sized)) -> &'a str {
        let authority = facts.authority();
        let Some((host, port)) = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) else {
            return authority;
        };
        let was_default = scheme != facts.scheme() && port.parse().ok() == default_port(facts.scheme());
        if self.port.is_some() || was_default { host } else { authority }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Request, get};
    use super::*;

    fn redirect() -> Redirect {
        Redirect { status: 301, scheme: None, authority: None, port: None, path: None, fields: FieldEdits::default() }
    }

    #[test]
    fn what_is_not_named_stays_as_the_request_has_it() {
        let at = |authority, query| Request { authority, query, ..get("/books") };
        let https = Redirect { scheme: Some("https".into()), ..redirect() };
        assert_eq!(https.location(&at("a.example", "q=1")), "https://a.example/books?q=1");
        assert_eq!(https.location(&at("a.example:80", "")), "https://a.example/books");
        assert_eq!(https.location(&at("a.example:8080", "")), "https://a.example:8080/books");
        let elsewhere = Redirect { authority: Some("b.example".into()), path: Some("/new".into()), ..redirect() };
        assert_eq!(elsewhere.location(&at("a.example:8080", "q=1")), "http://b.example/new?q=1");
        let query = Redirect { path: Some("/new?fixed".into()), ..redirect() };
        assert_eq!(query.location(&at("a.example", "q=1")), "http://a.example/new?fixed");
    }

    #[test]
    fn a_port_takes_the_place_of_the_requests_unless_it_goes_without_saying() {
        let port =
            |scheme: Option<&str>, port| Redirect { scheme: scheme.map(Into::into), port: Some(port), ..redirect() };
        let request = Request { authority: "a.example:8080", ..get("/") };
        assert_eq!(port(None, 9090).location(&request), "http://a.example:9090/");
        assert_eq!(port(None, 80).location(&request), "http://a.example/");
        assert_eq!(port(Some("https"), 443).location(&request), "https://a.example/");
        assert_eq!(port(Some("https"), 80).location(&request), "https://a.example:80/");
    }

    #[test]
    fn a_request_for_no_path_is_sent_to_the_root() {
        assert_eq!(redirect().location(&get("*")), "http://example.com/");
    }
}
