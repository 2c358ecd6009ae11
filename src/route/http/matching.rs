//! Whether the conditions of a match hold for a request.

use super::{HttpMatch, RequestFacts, TextMatch};

impl HttpMatch {
    /// Whether every condition holds.
    #[must_use]
    pub fn matches(&self, facts: &(impl RequestFacts + ?Sized)) -> bool {
        let holds = |condition: &Option<TextMatch>, text| condition.as_ref().is_none_or(|it| it.matches(text));
        holds(&self.method, facts.method())
            && self.path_matches(facts.path())
            && holds(&self.authority, facts.authority())
            && self.headers.iter().all(|(name, it)| facts.header(name).is_some_and(|value| it.matches(&value)))
            && self.without_headers.iter().all(|(name, it)| !it.matches_or_empty(facts.header(name).as_deref()))
            && self.query.iter().all(|(name, it)| parameter(facts.query(), name).is_some_and(|value| it.matches(value)))
    }

    fn path_matches(&self, path: &str) -> bool {
        match &self.path {
            None => true,
            Some(condition) if self.path_ignores_case => condition.matches_ignoring_case(path),
            Some(condition) => condition.matches(path),
        }
    }
}

impl TextMatch {
    /// Whether the condition holds for a text that is there.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    /// As [`Self::matches`], but letters of ASCII compare without case, except by a regular expression.
    fn matches_ignoring_case(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(text),
            Self::Prefix(prefix) => text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
            Self::Present | Self::Regex(_) => self.matches(text),
        }
    }

    /// As [`Self::matches`], but an absent text counts as an empty one, except when presence itself is asked for
    /// (Istio sets Envoy's `treat_missing_header_as_empty` for `withoutHeaders`).
    fn matches_or_empty(&self, text: Option<&str>) -> bool {
        match self {
            Self::Present => text.is_some(),
            Self::Exact(_) | Self::Prefix(_) | Self::Regex(_) => self.matches(text.unwrap_or_default()),
        }
    }
}

/// The first parameter of this name, as sent: names and values are not decoded, which is what Envoy's query matchers
/// do. One without `=` has an empty value.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}
