//! `corsPolicy:`.

use crate::config::istio::Scope;
use crate::config::istio::http_action::CorsPolicy;
use crate::wire::http1::FieldEdits;

/// Methods that a policy may name.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

pub(super) fn cors(policy: &CorsPolicy, field: &str, scope: &mut Scope<'_>) {
    for (index, origin) in policy.allow_origins.iter().enumerate() {
        let field = format!("{field}.allowOrigins[{index}]");
        let texts = [&origin.exact, &origin.prefix, &origin.regex];
        if texts.iter().all(|text| text.as_deref().unwrap_or_default().is_empty()) {
            scope.error(field, "'' is not a valid match type for CORS allow origins");
        } else {
            super::text(origin, &field, scope);
        }
    }
    for (index, method) in policy.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            scope.error(format!("{field}.allowMethods[{index}]"), format!("{method:?} is not a supported HTTP method"));
        }
    }
    for (word, names) in [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)] {
        for (index, name) in names.iter().enumerate() {
            let field = format!("{field}.{word}[{index}]");
            if name.is_empty() {
                scope.error(field, "header name cannot be empty");
            } else if !FieldEdits::is_value(name) {
                scope.error(field, "a header name cannot hold control characters");
            }
        }
    }
    if policy.max_age.is_some_and(|age| age.0.subsec_nanos() > 0) {
        scope.error(format!("{field}.maxAge"), "max_age duration is accurate only to seconds precision");
    }
}
