//! `http:` of a VirtualService (pilot's validateHTTPRoute).

mod actions;
mod cors;
mod headers;
mod mirrors;

use crate::config::compile;
use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::http_action::RegexRewrite;
use crate::config::istio::scalar::GoDuration;
use crate::config::istio::virtual_service::{HttpMatchRequest, HttpRetry, HttpRewrite, HttpRule, StringMatch};
use crate::limits::TIMEOUT_MAX;
use crate::route::host::Authority;

use super::virtual_service::{destination, source, weight};
use super::{duration_fault, port};

/// Longest expression, as Istio's.
const REGEX_BYTES_MAX: usize = 1024;

/// Most attempts after the first: each may hold a connection.
const ATTEMPTS_MAX: i64 = 100;

/// Envoy's words for what is retried (router_filter, x-envoy-retry-on and x-envoy-retry-grpc-on).
const RETRY_WORDS: [&str; 17] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "",
];

pub(super) fn validate(rule: &HttpRule, field: &str, scope: &mut Scope<'_>) {
    for (index, block) in rule.matches.iter().enumerate() {
        match_block(block, &format!("{field}.match[{index}]"), scope);
    }
    action(rule, field, scope);
    let mut weights = Vec::new();
    for (index, route) in rule.route.iter().enumerate() {
        let field = format!("{field}.route[{index}]");
        destination(route.destination.as_ref(), &field, scope);
        if let Some(headers) = &route.headers {
            headers::headers(headers, &format!("{field}.headers"), scope);
        }
        weights.push((route.weight, field));
    }
    weight(&weights, field, scope);
    mirrors::mirrors(rule, field, scope);
    if let Some(policy) = &rule.cors_policy {
        cors::cors(policy, &format!("{field}.corsPolicy"), scope);
    }
    if let Some(headers) = &rule.headers {
        headers::headers(headers, &format!("{field}.headers"), scope);
    }
    headers::authorities(rule, field, scope);
    timeout(rule.timeout, &format!("{field}.timeout"), scope);
    if let Some(retries) = &rule.retries {
        retry(retries, &format!("{field}.retries"), scope);
    }
    if let Some(rewrite) = &rule.rewrite {
        self::rewrite(rewrite, &format!("{field}.rewrite"), scope);
    }
}

fn action(rule: &HttpRule, field: &str, scope: &mut Scope<'_>) {
    let (route, respond) = (!rule.route.is_empty(), rule.direct_response.is_some());
    let redirect = rule.redirect.is_some();
    if !route && !respond && !redirect && rule.delegate.is_none() {
        scope.error(field, "HTTP route, redirect or direct_response is required");
    }
    let pairs = [
        ("both route and redirect", route && redirect),
        ("both route and direct_response", route && respond),
        ("both redirect and direct_response", redirect && respond),
    ];
    for (pair, _) in pairs.into_iter().filter(|(_, present)| *present) {
        scope.error(field, format!("HTTP route cannot contain {pair}"));
    }
    let rules = [
        ("both rewrite and redirect", rule.rewrite.is_some() && redirect),
        ("both rewrite and direct_response", rule.rewrite.is_some() && respond),
        ("both fault and direct_response", rule.fault.is_some() && respond),
        ("both mirror and mirrors", rule.mirror.is_some() && !rule.mirrors.is_empty()),
    ];
    for (pair, _) in rules.into_iter().filter(|(_, present)| *present) {
        scope.error(field, format!("HTTP route rule cannot contain {pair}"));
    }
    if let Some(delegate) = &rule.delegate {
        if delegate.name.as_deref().unwrap_or_default().is_empty() {
            scope.error(format!("{field}.delegate.name"), "must specify the delegate name");
        }
        if route || redirect || respond {
            scope.error(field, "delegate can be set only when route, redirect and directResponse are not");
        }
    }
    if let Some(response) = &rule.direct_response {
        actions::direct_response(response, &format!("{field}.directResponse"), scope);
    }
    if let Some(redirect) = &rule.redirect {
        actions::redirect(redirect, &format!("{field}.redirect"), scope);
    }
    if let Some(fault) = &rule.fault {
        actions::fault(fault, &format!("{field}.fault"), scope);
    }
}

fn match_block(block: &HttpMatchRequest, field: &str, scope: &mut Scope<'_>) {
    let texts =
        [("uri", &block.uri), ("scheme", &block.scheme), ("method", &block.method), ("authority", &block.authority)];
    for (name, condition) in texts {
        if let Some(condition) = condition {
            text(condition, &format!("{field}.{name}"), scope);
        }
    }
    let maps =
        [("headers", &block.headers), ("withoutHeaders", &block.without_headers), ("queryParams", &block.query_params)];
    for (name, conditions) in maps {
        for (key, condition) in conditions {
            let field = format!("{field}.{name}.{key}");
            if key.is_empty() {
                scope.error(&*field, "header name cannot be empty");
            }
            text(condition, &field, scope);
        }
    }
    if block.port.is_some() {
        port(block.port, &format!("{field}.port"), scope);
    }
    source(!block.source_labels.is_empty(), block.source_namespace.is_some(), field, scope);
    scope.warn_present(field, [("statPrefix", block.stat_prefix.is_some())]);
}

fn text(condition: &StringMatch, field: &str, scope: &mut Scope<'_>) {
    let set = [condition.exact.is_some(), condition.prefix.is_some(), condition.regex.is_some()];
    if set.iter().filter(|set| **set).count() > 1 {
        scope.error(field, "only one of exact, prefix and regex may be set (oneof already set)");
    }
    if condition.prefix.as_deref() == Some("") {
        scope.error(field, "prefix string match should not be empty");
    }
    match condition.regex.as_deref() {
        None | Some("*") => {}
        Some("") => scope.error(field, "regex string match should not be empty"),
        Some(expression) if expression.len() > REGEX_BYTES_MAX => {
            scope.error(field, format!("regex is too long; the limit is {REGEX_BYTES_MAX} bytes"));
        }
        Some(expression) => {
            if let Err(error) = compile::regex(expression) {
                scope.error(field, format!("invalid regex: {error}; Istio uses RE2 style regex-based match"));
            }
        }
    }
}

fn timeout(timeout: Option<GoDuration>, field: &str, scope: &mut Scope<'_>) {
    if let Some(message) = timeout_fault(timeout) {
        scope.error(field, message);
    }
}

/// What is wrong with a duration; none at all and 0 mean no limit.
fn timeout_fault(timeout: Option<GoDuration>) -> Option<String> {
    let GoDuration(duration) = timeout.filter(|timeout| !timeout.0.is_zero())?;
    duration_fault(duration, TIMEOUT_MAX)
}

fn retry(retries: &HttpRetry, field: &str, scope: &mut Scope<'_>) {
    for (part, message) in retry_faults(retries) {
        scope.error(format!("{field}{part}"), message);
    }
    scope.warn_present(field, [("retryRemoteLocalities", retries.retry_remote_localities.is_some())]);
}

fn retry_words(retries: &HttpRetry) -> impl Iterator<Item = &str> {
    retries.retry_on.as_deref().unwrap_or_default().split(',').map(str::trim)
}

/// What is wrong with a retry policy: the part that it is about, with its dot, and the message.
pub(in crate::config) fn retry_faults(retries: &HttpRetry) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let attempts = retries.attempts.unwrap_or(0);
    if attempts < 0 {
        faults.push((".attempts", "attempts cannot be negative".to_owned()));
    } else if attempts > ATTEMPTS_MAX {
        faults.push((".attempts", format!("attempts must not be more than {ATTEMPTS_MAX}")));
    }
    let is_configured = retry_words(retries).any(|word| !word.is_empty()) || retries.per_try_timeout.is_some();
    if retries.attempts == Some(0) && is_configured {
        let message = "http retry policy configured when attempts are set to 0 (disabled)";
        faults.push(("", message.to_owned()));
    }
    for word in retry_words(retries) {
        let is_status = word.parse::<u16>().is_ok_and(|status| (100..600).contains(&status));
        if !is_status && !RETRY_WORDS.contains(&word) {
            faults.push((".retryOn", format!("{word:?} is not a valid retryOn policy")));
        }
    }
    if let Some(message) = timeout_fault(retries.per_try_timeout) {
        faults.push((".perTryTimeout", message));
    }
    if let Some(message) = retries.backoff.and_then(|backoff| duration_fault(backoff.0, TIMEOUT_MAX)) {
        faults.push((".backoff", message));
    }
    faults
}

fn rewrite(rewrite: &HttpRewrite, field: &str, scope: &mut Scope<'_>) {
    if rewrite.uri.is_none() && rewrite.authority.is_none() && rewrite.uri_regex_rewrite.is_none() {
        scope.error(field, "rewrite must specify URI, regex, or authority");
    }
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        regex_rewrite(regex, &format!("{field}.uriRegexRewrite"), scope);
        if rewrite.uri.is_some() {
            scope.error(field, "rewrite may only contain one of URI or regex");
        }
    }
    if let Some(uri) = &rewrite.uri {
        let legal = uri.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
        if !legal {
            scope.error(format!("{field}.uri"), "the path has a character that must be escaped");
        } else if !uri.starts_with('/') {
            scope.warning(
                code::UNREACHABLE,
                format!("{field}.uri"),
                "a rewritten path that does not start with / is refused",
            );
        }
    }
    if let Some(Err(error)) = rewrite.authority.as_ref().map(|authority| Authority::parse(authority.as_bytes())) {
        scope.error(format!("{field}.authority"), format!("not a valid authority: {error}"));
    }
}

fn regex_rewrite(rewrite: &RegexRewrite, field: &str, scope: &mut Scope<'_>) {
    let text = |text: &'_ Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let (found, replacement) = (text(&rewrite.found), text(&rewrite.rewrite));
    if found.is_empty() || replacement.is_empty() {
        scope.error(field, "UriRegexRewrite requires both Rewrite and Match fields to be specified");
    }
    if found.len() > REGEX_BYTES_MAX {
        scope.error(format!("{field}.match"), format!("regex is too long; the limit is {REGEX_BYTES_MAX} bytes"));
        return;
    }
    let groups = match regex::Regex::new(&found) {
        Ok(expression) => expression.captures_len(),
        Err(error) => {
            let message = format!("invalid regex: {error}; Istio uses RE2 style regex-based match");
            scope.error(format!("{field}.match"), message);
            return;
        }
    };
    let legal = replacement.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    if !legal {
        scope.error(format!("{field}.rewrite"), "the path has a character that must be escaped");
    }
    let mut characters = replacement.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            continue;
        }
        match characters.next() {
            Some('\\') => {}
            Some(digit) if digit.to_digit(10).is_some_and(|group| (group as usize) < groups) => {}
            Some(other) => {
                let message = format!("\\{other} names no group of the expression; \\\\ is a backslash");
                scope.error(format!("{field}.rewrite"), message);
            }
            None => scope.error(format!("{field}.rewrite"), "a backslash at the end names no group"),
        }
    }
}
