//! `corsPolicy`: which origins a browser's script may call from (the CORS protocol of the Fetch standard).
//!
//! The gateway answers preflights and marks answers; the browser enforces. Nobody is kept out by it.

use crate::wire::http1::FieldEdits;

use super::{RequestFacts, TextMatch};

/// A policy.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// Origins that may; `*` among exact ones stands for all.
    pub origins: Vec<TextMatch>,
    /// Access-Control-Allow-Methods.
    pub methods: Option<Box<str>>,
    /// Access-Control-Allow-Headers.
    pub headers: Option<Box<str>>,
    /// Access-Control-Expose-Headers.
    pub exposed: Option<Box<str>>,
    /// Access-Control-Max-Age, in seconds.
    pub max_age: Option<Box<str>>,
    /// Access-Control-Allow-Credentials.
    pub credentials: bool,
    /// Whether preflights of other origins are answered here, without leave, instead of by the upstream.
    pub answers_unmatched: bool,
}

/// What a policy makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsVerdict {
    /// Nothing.
    Unconcerned,
    /// It is a preflight, answered here with 200 and these fields.
    Preflight(FieldEdits),
    /// It goes on, and its answer gets these fields.
    Allowed(FieldEdits),
}

impl Cors {
    /// Judges a request. One without Origin is no business of CORS.
    #[must_use]
    pub fn judge(&self, facts: &(impl RequestFacts + ?Sized)) -> CorsVerdict {
        let Some(origin) = facts.header("origin").filter(|origin| !origin.is_empty()) else {
            return CorsVerdict::Unconcerned;
        };
        let is_preflight = facts.method() == "OPTIONS"
            && facts.header("access-control-request-method").is_some_and(|it| !it.is_empty());
        // What cannot be written back as it came cannot be what the operator has named.
        if !FieldEdits::is_value(&origin) || !self.allows(&origin) {
            let refused = is_preflight && self.answers_unmatched;
            return if refused { CorsVerdict::Preflight(FieldEdits::new()) } else { CorsVerdict::Unconcerned };
        }
        let mut fields = FieldEdits::new();
        fields.set("Access-Control-Allow-Origin", &origin);
        if self.credentials {
            fields.set("Access-Control-Allow-Credentials", "true");
        }
        if !is_preflight {
            set("Access-Control-Expose-Headers", self.exposed.as_deref(), &mut fields);
            return CorsVerdict::Allowed(fields);
        }
        set("Access-Control-Allow-Methods", self.methods.as_deref(), &mut fields);
        set("Access-Control-Allow-Headers", self.headers.as_deref(), &mut fields);
        set("Access-Control-Max-Age", self.max_age.as_deref(), &mut fields);
        CorsVerdict::Preflight(fields)
    }

    fn allows(&self, origin: &str) -> bool {
        let is_any = |condition: &TextMatch| matches!(condition, TextMatch::Exact(exact) if **exact == *"*");
        self.origins.iter().any(|condition| is_any(condition) || condition.matches(origin))
    }
}

fn set(name: &str, value: Option<&str>, fields: &mut FieldEdits) {
    if let Some(value) = value {
        fields.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Request, get, prefix};
    use super::*;

    fn policy() -> Cors {
        Cors {
            origins: vec![TextMatch::Exact("https://a.example".into()), prefix("https://b.")],
            methods: Some("GET,POST".into()),
            exposed: Some("x-count".into()),
            max_age: Some("60".into()),
            credentials: true,
            ..Cors::default()
        }
    }

    fn from(origin: &'static str) -> Request {
        Request { headers: vec![("Origin", origin)], ..get("/") }
    }

    fn preflight(origin: &'static str) -> Request {
        let headers = vec![("Origin", origin), ("Access-Control-Request-Method", "PUT")];
        Request { method: "OPTIONS", headers, ..get("/") }
    }

    fn names(verdict: &CorsVerdict) -> Vec<&str> {
        match verdict {
            CorsVerdict::Unconcerned => panic!("unconcerned"),
            CorsVerdict::Preflight(fields) | CorsVerdict::Allowed(fields) => {
                fields.changes().1.map(|(name, _)| name.trim_start_matches("Access-Control-")).collect()
            }
        }
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_is_answered() {
        let verdict = policy().judge(&preflight("https://b.example"));
        assert!(matches!(verdict, CorsVerdict::Preflight(_)));
        assert_eq!(names(&verdict), ["Allow-Origin", "Allow-Credentials", "Allow-Methods", "Max-Age"]);
    }

    #[test]
    fn answers_to_an_allowed_origin_are_marked() {
        let verdict = policy().judge(&from("https://a.example"));
        assert!(matches!(verdict, CorsVerdict::Allowed(_)));
        assert_eq!(names(&verdict), ["Allow-Origin", "Allow-Credentials", "Expose-Headers"]);
        let any = Cors { origins: vec![TextMatch::Exact("*".into())], ..Cors::default() };
        assert_eq!(names(&any.judge(&from("https://other.example"))), ["Allow-Origin"]);
    }

    #[test]
    fn other_origins_and_other_requests_are_left_alone() {
        for request in [get("/"), from(""), from("https://other.example"), preflight("https://other.example")] {
            assert_eq!(policy().judge(&request), CorsVerdict::Unconcerned);
        }
        let strict = Cors { answers_unmatched: true, ..policy() };
        assert_eq!(strict.judge(&preflight("https://other.example")), CorsVerdict::Preflight(FieldEdits::new()));
        assert_eq!(strict.judge(&from("https://other.example")), CorsVerdict::Unconcerned);
    }
}
