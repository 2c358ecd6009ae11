//! `headers:` of a route and of its destinations.

use crate::config::compile::is_authority;
use crate::config::istio::Scope;
use crate::config::istio::http_action::{HeaderOperations, Headers};
use crate::config::istio::virtual_service::HttpRule;
use crate::route::host::Authority;
use crate::wire::http1::FieldEdits;

pub(super) fn headers(headers: &Headers, field: &str, scope: &mut Scope<'_>) {
    if let Some(request) = &headers.request {
        operations(request, &format!("{field}.request"), true, scope);
    }
    if let Some(response) = &headers.response {
        operations(response, &format!("{field}.response"), false, scope);
    }
}

fn operations(operations: &HeaderOperations, field: &str, to_upstream: bool, scope: &mut Scope<'_>) {
    for (word, fields) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in fields {
            let field = format!("{field}.{word}.{name}");
            if to_upstream && is_authority(name) {
                authority(value, &field, scope);
                continue;
            }
            self::name(name, &field, scope);
            self::value(value, &field, scope);
        }
    }
    for (index, name) in operations.remove.iter().enumerate() {
        let field = format!("{field}.remove[{index}]");
        self::name(name, &field, scope);
    }
}

/// Istio drops names that Envoy keeps to itself; whoever wrote one should know.
fn name(name: &str, field: &str, scope: &mut Scope<'_>) {
    if name.is_empty() {
        scope.error(field, "header name cannot be empty");
    } else if is_authority(name) {
        scope.warn_present(field.rsplit_once('.').map_or(field, |(parent, _)| parent), [(name, true)]);
    } else if name.starts_with(':') {
        scope.error(field, format!("invalid header {name:?}: header cannot have \":\" prefix"));
    } else if !FieldEdits::is_editable(name) {
        let message = format!(
            "header {name:?} cannot be edited: it is no legal name, or it concerns one connection or the framing of the message"
        );
        scope.refuse(field, message);
    }
}

fn value(value: &str, field: &str, scope: &mut Scope<'_>) {
    if !FieldEdits::is_value(value) {
        scope.error(field, "a header value cannot hold control characters");
    }
    if !value.matches('%').count().is_multiple_of(2) {
        let message = "single % not allowed.  Escape by doubling to %% or encase Envoy variable name in pair of %";
        scope.error(field, message);
    } else if let Some(operator) = operator(value) {
        let message =
            format!("the command operator %{operator}% is not supported in header values; %% is a percent sign");
        scope.refuse(field, message);
    }
}

/// The first command operator of a value with an even number of percent signs.
fn operator(value: &str) -> Option<&str> {
    value.split('%').skip(1).step_by(2).find(|operator| !operator.is_empty())
}

fn authority(value: &str, field: &str, scope: &mut Scope<'_>) {
    if let Err(error) = Authority::parse(value.as_bytes()) {
        scope.error(field, format!("not a valid authority: {error}"));
    }
}

/// A Host can be set in one place only.
pub(super) fn authorities(rule: &HttpRule, field: &str, scope: &mut Scope<'_>) {
    let rewritten = rule.rewrite.as_ref().and_then(|rewrite| rewrite.authority.as_deref());
    single(rewritten, rule.headers.as_ref(), &format!("{field}.headers"), scope);
    for (index, route) in rule.route.iter().enumerate() {
        single(None, route.headers.as_ref(), &format!("{field}.route[{index}].headers"), scope);
    }
}

fn single<'a>(mut current: Option<&'a str>, headers: Option<&'a Headers>, field: &str, scope: &mut Scope<'_>) {
    let Some(request) = headers.and_then(|headers| headers.request.as_ref()) else { return };
    for (word, fields) in [("set", &request.set), ("add", &request.add)] {
        for (name, value) in fields.iter().filter(|(name, _)| is_authority(name)) {
            if let Some(current) = current {
                let message = format!(
                    "authority header cannot be set multiple times: have {current:?}, attempting to set {value:?}"
                );
                scope.error(format!("{field}.request.{word}.{name}"), message);
            }
            current = Some(value);
        }
    }
}
