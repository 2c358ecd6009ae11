//! `rewrite.uri` and `rewrite.uriRegexRewrite`: another path for the upstream.

use crate::limits::HEAD_BYTES_MAX;
use crate::route::path::is_dot_segment;

use super::Matched;

/// How a route rewrites a path.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// `uri`: what the route's match has matched (a prefix; for exact and regex matches the whole path) becomes this.
    Matched(Box<str>),
    /// `uriRegexRewrite`: every part that the expression finds becomes this, in which `${1}` stands for its first group.
    Found(regex::Regex, Box<str>),
}

impl PathRewrite {
    /// The path that goes upstream instead of the normalised `path`, both without the query.
    ///
    /// With [`Self::Matched`] the replacement is put in place of what was matched and nothing else changes, as Envoy's
    /// `prefix_rewrite` does: prefix `/a` with replacement `/` makes `//b` of `/a/b`.
    ///
    /// `None`: the parts would make a dot segment, as prefix `/a` with replacement `/v1/` does for `/a../b`, and the
    /// upstream would resolve it to a path outside of what the operator wrote; or the result would be longer than any
    /// head. The request must be refused.
    #[must_use]
    pub fn apply(&self, path: &str, matched: Matched<'_>) -> Option<String> {
        match self {
            Self::Matched(replacement) => replace_matched(path, replacement, matched),
            Self::Found(expression, replacement) => replace_found(path, expression, replacement),
        }
    }
}

fn replace_matched(path: &str, replacement: &str, matched: Matched<'_>) -> Option<String> {
    let rest = path.get(matched.covered(path)..)?;
    let start = replacement.rfind('/').map_or(0, |slash| slash + 1);
    let rewritten = [replacement, rest].concat();
    let joint = rewritten[start..].split('/').next().unwrap_or_default();
    (!is_dot_segment(joint)).then_some(rewritten)
}

/// By hand: an expression that finds the empty text everywhere could make a path of megabytes.
fn replace_found(path: &str, expression: &regex::Regex, replacement: &str) -> Option<String> {
    let mut rewritten = String::with_capacity(path.len() + replacement.len());
    let mut end = 0;
    for captures in expression.captures_iter(path) {
        let found = captures.get_match();
        rewritten.push_str(&path[end..found.start()]);
        captures.expand(replacement, &mut rewritten);
        end = found.end();
        if rewritten.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    rewritten.push_str(&path[end..]);
    let is_fit = rewritten.len() <= HEAD_BYTES_MAX && !rewritten.split('/').any(is_dot_segment);
    is_fit.then_some(rewritten)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{get, prefix, regex, route};
    use super::super::{HttpMatch, HttpRoute, TextMatch};
    use super::*;

    fn apply(condition: Option<TextMatch>, rewrite: &PathRewrite, path: &'static str) -> Option<String> {
        let matches = condition.map(|it| HttpMatch { path: Some(it), ..HttpMatch::default() });
        let routes = [route("default", matches.into_iter().collect())];
        rewrite.apply(path, HttpRoute::find(&routes, &get(path)).expect("the route matches"))
    }

    fn is(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_rewrite_replaces_what_was_matched() {
        let rewrite = |condition: Option<TextMatch>, replacement: &str, path: &'static str| {
            apply(condition, &PathRewrite::Matched(replacement.into()), path)
        };
        assert_eq!(rewrite(Some(prefix("/api/")), "/", "/api/x"), is("/x"));
        assert_eq!(rewrite(Some(prefix("/api")), "/", "/api/x"), is("//x"));
        assert_eq!(rewrite(Some(prefix("/api")), "/v2", "/api"), is("/v2"));
        assert_eq!(rewrite(Some(TextMatch::Exact("/old".into())), "/new", "/old"), is("/new"));
        assert_eq!(rewrite(Some(regex("/o.*")), "/new", "/old/x"), is("/new"));
        assert_eq!(rewrite(None, "/v2", "/x"), is("/v2x"));
        assert_eq!(rewrite(None, "/v2/", "/x"), is("/v2/x"));
        assert_eq!(rewrite(Some(prefix("/files")), "/v1/", "/files../secret"), None);
        assert_eq!(rewrite(Some(prefix("/files")), "/v1/.", "/files./secret"), None);
        assert_eq!(rewrite(Some(prefix("/files")), "/v1/", "/files%2e%2E"), None);
    }

    #[test]
    fn an_expression_replaces_every_part_that_it_finds() {
        let rewrite = |expression: &str, replacement: &str, path: &'static str| {
            let expression = regex::Regex::new(expression).expect("a valid expression");
            apply(None, &PathRewrite::Found(expression, replacement.into()), path)
        };
        assert_eq!(rewrite("^/service/([^/]+)(/.*)$", "${2}/instance/${1}", "/service/foo/v1"), is("/v1/instance/foo"));
        assert_eq!(rewrite("one", "two", "/xxx/one/yyy/one/zzz"), is("/xxx/two/yyy/two/zzz"));
        assert_eq!(rewrite("nothing", "x", "/a/b"), is("/a/b"));
        assert_eq!(rewrite("x", ".", "/x/secret"), None);
        assert_eq!(rewrite("(?i)/a", "", "/A"), is(""));
        let long: &'static str = Box::leak(format!("/{}", "x".repeat(4_000)).into_boxed_str());
        assert_eq!(rewrite("", &"y".repeat(1_000), long), None);
    }
}
