//! Paths in rules, beside what normalisation makes of paths in requests: what no request has, and what goes around.

use crate::config::finding::{Report, code};
use crate::config::istio::authorization_policy::{Action, AuthorizationPolicy, Operation};
use crate::config::istio::{Object, Objects, Scope};
use crate::config::registry::is_mesh;
use crate::route::path::{Normalization, normalize};

/// Paths of AuthorizationPolicies.
pub(super) fn of_policies(objects: &Objects, mode: Normalization, report: &mut Report) {
    for object in &objects.authorization_policies {
        for (rule, operation, to) in operations(object) {
            let field = format!("spec.rules[{rule}].to[{operation}].operation");
            let scope = &mut Scope::new(&object.origin, report);
            for (name, values) in [("paths", &to.paths), ("notPaths", &to.not_paths)] {
                for (index, value) in values.iter().enumerate() {
                    unmatched(value, mode, &format!("{field}.{name}[{index}]"), scope);
                }
            }
            gone_around(object.spec.action.unwrap_or_default(), to, mode, &field, scope);
        }
    }
}

fn operations(object: &Object<AuthorizationPolicy>) -> impl Iterator<Item = (usize, usize, &Operation)> {
    object.spec.rules.iter().enumerate().flat_map(|(rule, it)| {
        let operations = it.to.iter().enumerate();
        operations.filter_map(move |(number, to)| Some((rule, number, to.operation.as_ref()?)))
    })
}

/// Exact paths and prefixes of routes.
pub(super) fn of_routes(objects: &Objects, mode: Normalization, report: &mut Report) {
    for object in objects.virtual_services.iter().filter(|object| is_mesh(&object.spec.gateways)) {
        let scope = &mut Scope::new(&object.origin, report);
        for (rule, http) in object.spec.http.iter().enumerate() {
            for (index, block) in http.matches.iter().enumerate() {
                let Some(uri) = &block.uri else { continue };
                let field = format!("spec.http[{rule}].match[{index}].uri");
                if let Some(exact) = &uri.exact {
                    unmatched(exact, mode, &field, scope);
                }
                if let Some(prefix) = uri.prefix.as_ref().filter(|prefix| !prefix.is_empty()) {
                    unmatched(&format!("{prefix}*"), mode, &field, scope);
                }
            }
        }
    }
}

/// A value that no normalised path can match.
fn unmatched(value: &str, mode: Normalization, field: &str, scope: &mut Scope<'_>) {
    if let Some(why) = fault(value, mode) {
        scope.warning(code::PATH, field, format!("no path matches {value:?}: {why}"));
    }
}

fn fault(value: &str, mode: Normalization) -> Option<String> {
    if value.contains('{') || value == "*" {
        return None; // A template has been judged by itself.
    }
    let literal = value.trim_matches('*');
    if literal.contains(['?', '#']) {
        return Some("queries and fragments are no part of it".to_owned());
    }
    // No hexadecimal digit, so that the star never ends an escape.
    let path = match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(suffix), _) => format!("/x{suffix}"),
        (None, Some(prefix)) => format!("{prefix}x"),
        (None, None) => value.to_owned(),
    };
    if !path.starts_with('/') {
        return Some("it begins with a slash".to_owned());
    }
    match normalize(&path, mode) {
        Ok(normal) if normal == path => None,
        Ok(normal) => Some(format!("it is normalised before; {path:?} would be {normal:?}")),
        // The end of a prefix may be the middle of an escape.
        Err(_) if value.ends_with('*') => None,
        Err(error) => Some(error.to_string()),
    }
}

/// A list of what is forbidden says nothing about other spellings of the same path, and many servers take `//a` for
/// `/a`. (Escaped slashes, and dot segments that nothing resolves, are refused wherever a rule looks at paths.)
fn gone_around(action: Action, to: &Operation, mode: Normalization, field: &str, scope: &mut Scope<'_>) {
    let forbidden = match action {
        Action::Deny => ("paths", &to.paths),
        Action::Allow => ("notPaths", &to.not_paths),
        Action::Audit | Action::Custom => return,
    };
    let (name, values) = forbidden;
    let Some(example) = values.iter().find(|value| value.starts_with('/') && value.len() > 1) else { return };
    let how = match mode {
        Normalization::None | Normalization::Base => format!("/{example}"),
        Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes => return,
    };
    let message = format!(
        "{how} is another path here, and the same one to many servers; set meshConfig.pathNormalization.normalization to \
         MERGE_SLASHES, or name what is allowed instead"
    );
    scope.warning(code::PATH, format!("{field}.{name}"), message);
}
