//! From host patterns to what was declared for them: exact names by hash, wildcards by walking up the labels.

use std::collections::HashMap;

use crate::route::host::{HostName, HostPattern};

/// A map from patterns. The first value of a pattern stays (callers insert the oldest object first).
#[derive(Debug)]
pub struct HostIndex<T> {
    values: HashMap<HostPattern, T, foldhash::fast::RandomState>,
    has_wildcards: bool,
}

impl<T> Default for HostIndex<T> {
    fn default() -> Self {
        Self { values: HashMap::default(), has_wildcards: false }
    }
}

impl<T> HostIndex<T> {
    /// With room for this many patterns.
    pub fn with_capacity(patterns: usize) -> Self {
        Self { values: HashMap::with_capacity_and_hasher(patterns, Default::default()), has_wildcards: false }
    }

    /// The value of exactly this pattern, made by `make` if there is none yet.
    pub fn entry(&mut self, pattern: &HostPattern, make: impl FnOnce() -> T) -> &mut T {
        self.has_wildcards |= pattern.is_wildcard();
        self.values.entry(pattern.clone()).or_insert_with(make)
    }

    /// The value of exactly this pattern.
    #[must_use]
    pub fn exact(&self, pattern: &HostPattern) -> Option<&T> {
        self.values.get(pattern)
    }

    /// The value of the most specific pattern that covers all of `pattern`, itself included.
    #[must_use]
    pub fn most_specific(&self, pattern: &HostPattern) -> Option<&T> {
        self.exact(pattern).or_else(|| self.covering(pattern).next())
    }

    /// The values of the wildcards that cover `pattern` and are wider, most specific first.
    pub fn covering(&self, pattern: &HostPattern) -> impl Iterator<Item = &T> {
        let walk = self.has_wildcards.then(|| wider(pattern)).into_iter().flatten();
        walk.filter_map(|wildcard| self.values.get(&wildcard))
    }
}

/// The wildcards that cover a pattern and are wider than it, narrowest first.
pub(super) fn wider(pattern: &HostPattern) -> impl Iterator<Item = HostPattern> {
    let name = match pattern {
        HostPattern::Exact(name) | HostPattern::Below(name) => name.as_str().to_owned(),
    };
    let mut dots: Vec<usize> = memchr::memchr_iter(b'.', name.as_bytes()).collect();
    dots.reverse();
    std::iter::from_fn(move || {
        let dot = dots.pop()?;
        // A suffix of a valid name at a label boundary is a valid name.
        HostName::parse(&name.as_bytes()[dot + 1..]).ok().map(HostPattern::Below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).expect("a valid pattern")
    }

    #[test]
    fn the_most_specific_pattern_wins_and_a_suffix_is_not_below_itself() {
        let mut index = HostIndex::default();
        for text in ["*.com", "*.foo.com", "a.foo.com", "*.a.foo.com"] {
            index.entry(&pattern(text), || text.to_owned());
        }
        for (host, found) in [
            ("a.foo.com", Some("a.foo.com")),
            ("b.foo.com", Some("*.foo.com")),
            ("b.a.foo.com", Some("*.a.foo.com")),
            ("foo.com", Some("*.com")),
            ("*.foo.com", Some("*.foo.com")),
            ("*.bar.com", Some("*.com")),
            ("com", None),
            ("foo.org", None),
        ] {
            assert_eq!(index.most_specific(&pattern(host)).map(String::as_str), found, "{host}");
        }
        let covering: Vec<_> = index.covering(&pattern("a.foo.com")).map(String::as_str).collect();
        assert_eq!(covering, ["*.foo.com", "*.com"]);
    }
}
