//! Conditions on texts.

use regex::Regex;

use crate::config::istio::virtual_service::{HttpMatchRequest, StringMatch};
use crate::route::http::{HttpMatch, TextMatch};

use super::Entrance;

/// An expression that must match the whole text. Istio documents RE2; this is the same syntax, in linear time.
///
/// # Errors
/// What is wrong with it.
pub(in crate::config) fn regex(expression: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"\A(?:{expression})\z"))
}

/// A condition. An expression that does not compile has been refused by validation; here it matches nothing.
pub(super) fn text(condition: &StringMatch) -> Option<TextMatch> {
    match (&condition.exact, &condition.prefix, condition.regex.as_deref()) {
        (Some(exact), _, _) => Some(TextMatch::Exact(exact.as_str().into())),
        (None, Some(prefix), _) => Some(TextMatch::Prefix(prefix.as_str().into())),
        (None, None, Some("*") | None) => Some(TextMatch::Present),
        (None, None, Some(expression)) => regex(expression).ok().map(TextMatch::Regex),
    }
}

/// Whether a match block can hold on this port at all. What is known now is decided now: the port, the gateway, and the
/// scheme, which is `http` for every request that arrives in the clear, and `https` for those within TLS.
pub(super) fn applies(block: &HttpMatchRequest, entrance: Entrance<'_>, namespace: &str) -> bool {
    let scheme = block.scheme.as_ref().is_none_or(|scheme| text(scheme).is_some_and(|it| is_scheme(&it, entrance)));
    let is_here = entrance.place.is_within(&block.gateways, namespace);
    is_here && scheme && block.port.is_none_or(|number| number == i64::from(entrance.port))
}

fn is_scheme(scheme: &TextMatch, entrance: Entrance<'_>) -> bool {
    let own = if entrance.is_in_tls { "https" } else { "http" };
    match scheme {
        TextMatch::Present => true,
        TextMatch::Exact(exact) => exact.eq_ignore_ascii_case(own),
        TextMatch::Prefix(prefix) => own.starts_with(&**prefix),
        TextMatch::Regex(regex) => regex.is_match(own),
    }
}

/// A match block; `None` if some condition can never hold.
pub(super) fn block(block: &HttpMatchRequest) -> Option<HttpMatch> {
    let optional =
        |condition: &Option<StringMatch>| condition.as_ref().map(text).map_or(Some(None), |text| text.map(Some));
    let named = |(name, condition): (&String, &StringMatch)| Some((Box::from(name.as_str()), text(condition)?));
    let field = |(name, condition): (&String, &StringMatch)| {
        Some((name.to_ascii_lowercase().into_boxed_str(), text(condition)?))
    };
    Some(HttpMatch {
        name: block.name.as_deref().map(Into::into),
        path: optional(&block.uri)?,
        path_ignores_case: block.ignore_uri_case == Some(true),
        method: optional(&block.method)?,
        authority: optional(&block.authority)?.map(lower_case),
        headers: block.headers.iter().map(field).collect::<Option<_>>()?,
        without_headers: block.without_headers.iter().map(field).collect::<Option<_>>()?,
        query: block.query_params.iter().map(named).collect::<Option<_>>()?,
    })
}

/// Authorities are compared in lower case.
fn lower_case(text: TextMatch) -> TextMatch {
    match text {
        TextMatch::Exact(exact) => TextMatch::Exact(exact.to_ascii_lowercase().into()),
        TextMatch::Prefix(prefix) => TextMatch::Prefix(prefix.to_ascii_lowercase().into()),
        TextMatch::Present | TextMatch::Regex(_) => text,
    }
}
