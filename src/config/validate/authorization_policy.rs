//! AuthorizationPolicy (pilot's ValidateAuthorizationPolicy). Whatever cannot be enforced is an error: a policy that
//! holds in part opens what the operator meant to close.

use ipnet::IpNet;
use regex::Regex;

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::authorization_policy::{
    Action, AuthorizationPolicy, Operation, Rule, Source, TargetRef, When,
};
use crate::route::authorization::ConditionKey;

pub(super) fn validate(policy: &AuthorizationPolicy, scope: &mut Scope<'_>) {
    let action = policy.action.unwrap_or_default();
    match action {
        Action::Custom => scope.refuse("spec.action", "CUSTOM asks an external authorizer, which is not supported"),
        Action::Audit if policy.rules.is_empty() => {
            let message = "AUDIT action without `rules` is meaningless as it will never be triggered";
            scope.warning(code::DEAD_RULE, "spec.rules", message);
        }
        Action::Deny if policy.rules.is_empty() => {
            let message = "DENY action without `rules` is meaningless as it will never be triggered";
            scope.error("spec.rules", message);
        }
        Action::Deny | Action::Allow | Action::Audit => {}
    }
    if policy.provider.is_some() && action != Action::Custom {
        scope.error("spec.provider", "`provider` must not be with non CUSTOM action");
    }
    if policy.selector.is_some() {
        scope.info(code::UNSUPPORTED, "spec.selector", "every selector means this node");
    }
    targets(policy, scope);
    for (index, rule) in policy.rules.iter().enumerate() {
        self::rule(rule, index, scope);
        if action == Action::Deny && looks_at_http(rule) {
            let message = "conditions on methods, paths and headers are not known of TLS sessions, and a DENY rule goes \
                           without them there: it refuses every TLS session that its other conditions meet";
            scope.warning(code::HTTP_ONLY, format!("spec.rules[{index}]"), message);
        }
    }
}

fn looks_at_http(rule: &Rule) -> bool {
    let is_http = |operation: &Operation| {
        [&operation.methods, &operation.not_methods, &operation.paths, &operation.not_paths]
            .into_iter()
            .any(|values| !values.is_empty())
    };
    let header = |when: &When| when.key.as_deref().is_some_and(|key| key.starts_with("request.headers["));
    rule.to.iter().filter_map(|to| to.operation.as_ref()).any(is_http) || rule.when.iter().any(header)
}

fn targets(policy: &AuthorizationPolicy, scope: &mut Scope<'_>) {
    if policy.target_ref.is_some() && !policy.target_refs.is_empty() {
        scope.error("spec.targetRef", "only one of targetRef and targetRefs may be set");
    }
    if let Some(target) = &policy.target_ref {
        self::target(target, "spec.targetRef", scope);
    }
    for (index, target) in policy.target_refs.iter().enumerate() {
        self::target(target, &format!("spec.targetRefs[{index}]"), scope);
    }
}

fn target(target: &TargetRef, field: &str, scope: &mut Scope<'_>) {
    let kind = target.kind.as_deref().unwrap_or_default();
    let group = target.group.as_deref().unwrap_or_default();
    if kind != "ServiceEntry" || group != "networking.istio.io" {
        let message =
            format!("a target of kind {group}/{kind} cannot be enforced; ServiceEntry of networking.istio.io can");
        scope.refuse(format!("{field}.kind"), message);
    }
    if target.name.as_deref().unwrap_or_default().is_empty() {
        scope.error(format!("{field}.name"), "targetRef name must be set");
    }
}

fn rule(rule: &Rule, index: usize, scope: &mut Scope<'_>) {
    let field = format!("spec.rules[{index}]");
    // Taken as absent, they would match everything.
    let empty = [("from", rule.from.is_written_empty()), ("to", rule.to.is_written_empty())];
    for (name, _) in empty.into_iter().filter(|(_, empty)| *empty) {
        scope.error(format!("{field}.{name}"), format!("`{name}` must not be empty, found at rule {index}"));
    }
    for (number, from) in rule.from.iter().enumerate() {
        let field = format!("{field}.from[{number}].source");
        match &from.source {
            Some(source) => self::source(source, index, &field, scope),
            None => scope.error(field, format!("`from.source` must not be empty, found at rule {index}")),
        }
    }
    for (number, to) in rule.to.iter().enumerate() {
        let field = format!("{field}.to[{number}].operation");
        match &to.operation {
            Some(operation) => self::operation(operation, index, &field, scope),
            None => scope.error(field, format!("`to.operation` must not be empty, found at rule {index}")),
        }
    }
    for (number, when) in rule.when.iter().enumerate() {
        condition(when, index, &format!("{field}.when[{number}]"), scope);
    }
}

fn source(source: &Source, index: usize, field: &str, scope: &mut Scope<'_>) {
    let identities = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    let mut empty = true;
    for (name, values) in identities.into_iter().filter(|(_, values)| !values.is_empty()) {
        empty = false;
        let message =
            format!("{name} needs an identity that clients outside a mesh do not have; it cannot be enforced");
        scope.refuse(format!("{field}.{name}"), format!("{message} ({} values)", values.len()));
    }
    let blocks = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    for (name, texts) in blocks.into_iter().filter(|(_, texts)| !texts.is_empty()) {
        empty = false;
        ranges(texts, &format!("{field}.{name}"), scope);
    }
    if !source.ip_blocks.is_empty() && !source.remote_ip_blocks.is_empty() {
        let message = "the peer is the client here: use ipBlocks or remoteIpBlocks, not both";
        scope.refuse(format!("{field}.remoteIpBlocks"), message);
    }
    if empty {
        scope.error(field, format!("`from.source` must have at least one field set, found at rule {index}"));
    }
}

fn ranges(texts: &[String], field: &str, scope: &mut Scope<'_>) {
    for (index, text) in texts.iter().enumerate() {
        if parse_range(text).is_none() {
            scope.error(format!("{field}[{index}]"), format!("invalid value for CIDR range: {text:?}"));
        }
    }
}

/// A range, or a single address.
pub(in crate::config) fn parse_range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn operation(operation: &Operation, index: usize, field: &str, scope: &mut Scope<'_>) {
    let lists = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
    ];
    if lists.iter().all(|(_, values)| values.is_empty()) {
        scope.error(field, format!("`to.operation` must have at least one field set, found at rule {index}"));
    }
    for (name, values) in lists {
        for (number, value) in values.iter().enumerate() {
            let field = format!("{field}.{name}[{number}]");
            match name {
                "ports" | "notPorts" => port_text(value, &field, scope),
                "paths" | "notPaths" if value.contains(['{', '}']) => path_template(value, &field, scope),
                _ => glob(value, &field, scope),
            }
        }
    }
}

fn port_text(value: &str, field: &str, scope: &mut Scope<'_>) {
    if !value.parse::<u16>().is_ok_and(|port| port > 0) {
        scope.error(field, format!("invalid port {value:?}, must be in the range 1..65535"));
    }
}

/// Istio takes a star at one end only and everything else literally; a star elsewhere is surely not meant literally.
fn glob(value: &str, field: &str, scope: &mut Scope<'_>) {
    if value.is_empty() {
        scope.error(field, "value must not be empty");
    }
    let inner = if value.len() > 1 { value.strip_prefix('*').or(value.strip_suffix('*')).unwrap_or(value) } else { "" };
    if inner.contains('*') {
        scope.warning(
            code::DEAD_RULE,
            field,
            format!("{value:?}: only one * at the beginning or the end is a wildcard"),
        );
    }
}

fn path_template(value: &str, field: &str, scope: &mut Scope<'_>) {
    if template(value).is_none() {
        let message = format!("invalid path template {value:?}; {{*}} stands for one segment, {{**}} for any, last");
        scope.error(field, message);
    }
}

/// `{*}` is one whole segment, `{**}` any number of whole segments and only once, as the last operator (Envoy's
/// uri_template, which Istio compiles to).
pub(in crate::config) fn template(text: &str) -> Option<Regex> {
    let mut expression = String::from(r"\A");
    let mut after_rest = false;
    for segment in text.strip_prefix('/')?.split('/') {
        expression.push('/');
        match segment {
            "{*}" if !after_rest => expression.push_str("[^/]+"),
            "{**}" if !after_rest => {
                after_rest = true;
                expression.push_str(".*");
            }
            literal if literal.contains(['{', '}', '*']) => return None,
            literal => expression.push_str(&regex::escape(literal)),
        }
    }
    expression.push_str(r"\z");
    Regex::new(&expression).ok()
}

fn condition(when: &When, index: usize, field: &str, scope: &mut Scope<'_>) {
    let key = when.key.as_deref().unwrap_or_default();
    if key.is_empty() {
        scope.error(format!("{field}.key"), format!("`key` must not be empty, found at rule {index}"));
        return;
    }
    if when.values.is_empty() && when.not_values.is_empty() {
        scope.error(field, format!("at least one of `values` or `not_values` must be set for key {key}"));
    }
    let lists = [("values", &when.values), ("notValues", &when.not_values)];
    match parse_key(key) {
        Some(ConditionKey::SourceIp(..) | ConditionKey::DestinationIp(..)) => {
            lists.into_iter().for_each(|(name, texts)| ranges(texts, &format!("{field}.{name}"), scope));
        }
        Some(ConditionKey::Port) => {
            for (name, texts) in lists {
                texts.iter().for_each(|text| port_text(text, &format!("{field}.{name}"), scope));
            }
        }
        Some(ConditionKey::Sni | ConditionKey::Header(_)) => {
            for (name, texts) in lists {
                texts.iter().for_each(|text| glob(text, &format!("{field}.{name}"), scope));
            }
        }
        None if is_known_key(key) => {
            scope.refuse(format!("{field}.key"), format!("{key} cannot be enforced here"));
        }
        None => scope.error(format!("{field}.key"), format!("unknown attribute: {key}")),
    }
}

/// The attributes that can be enforced.
pub(in crate::config) fn parse_key(key: &str) -> Option<ConditionKey> {
    match key {
        "connection.sni" => Some(ConditionKey::Sni),
        "destination.port" => Some(ConditionKey::Port),
        "source.ip" | "remote.ip" => Some(ConditionKey::SourceIp(Vec::new(), Vec::new())),
        "destination.ip" => Some(ConditionKey::DestinationIp(Vec::new(), Vec::new())),
        _ => {
            let name = key.strip_prefix("request.headers[")?.strip_suffix(']')?;
            (!name.is_empty()).then(|| ConditionKey::Header(name.to_ascii_lowercase().into()))
        }
    }
}

/// The attributes that Istio knows besides.
fn is_known_key(key: &str) -> bool {
    let exact = ["source.namespace", "source.serviceAccount", "source.principal", "destination.labels"];
    let families = ["request.auth.", "experimental.", "source.labels", "destination.namespace", "destination.user"];
    exact.contains(&key) || families.iter().any(|family| key.starts_with(family))
}
