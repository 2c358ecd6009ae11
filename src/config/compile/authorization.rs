//! AuthorizationPolicies → [`Authorization`].

use std::sync::Arc;

use ipnet::IpNet;

use crate::config::istio::Object;
use crate::config::istio::authorization_policy::{self as istio, Action, AuthorizationPolicy};
use crate::config::istio::scalar::List;
use crate::config::validate::authorization_policy::{parse_key, parse_range, template};
use crate::route::authorization::{Authorization, Condition, ConditionKey, Glob, Operation, Policy, Rule, Source};
use crate::route::http::TextMatch;

/// What policies look at beyond host and source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judged {
    pub(super) paths: bool,
    pub(super) methods: bool,
}

/// Compiles the policies; the second value says what any of them looks at.
pub(super) fn compile(objects: &[Object<AuthorizationPolicy>]) -> (Authorization, Judged) {
    let mut authorization = Authorization::default();
    let mut judged = Judged::default();
    for object in objects {
        let list = match object.spec.action.unwrap_or_default() {
            Action::Deny => &mut authorization.deny,
            Action::Allow => &mut authorization.allow,
            Action::Audit => &mut authorization.audit,
            // It has been refused.
            Action::Custom => continue,
        };
        let blocks = object.spec.action != Some(Action::Audit);
        for to in
            object.spec.rules.iter().filter(|_| blocks).flat_map(|rule| &rule.to).filter_map(|to| to.operation.as_ref())
        {
            judged.paths |= !to.paths.is_empty() || !to.not_paths.is_empty();
            judged.methods |= !to.methods.is_empty() || !to.not_methods.is_empty();
        }
        list.push(policy(object));
    }
    (authorization, judged)
}

fn policy(object: &Object<AuthorizationPolicy>) -> Policy {
    let namespace = object.origin.object.namespace();
    let target = |target: &istio::TargetRef| {
        let namespace = target.namespace.as_deref().filter(|it| !it.is_empty()).unwrap_or(namespace);
        (namespace.into(), target.name.as_deref().unwrap_or_default().into())
    };
    Policy {
        object: Arc::clone(&object.origin.object),
        targets: object.spec.target_refs.iter().chain(&object.spec.target_ref).map(target).collect(),
        rules: object.spec.rules.iter().map(rule).collect(),
    }
}

fn rule(rule: &istio::Rule) -> Rule {
    Rule {
        from: rule.from.iter().map(|from| from.source.as_ref().map(source).unwrap_or_default()).collect(),
        to: rule.to.iter().map(|to| to.operation.as_ref().map(operation).unwrap_or_default()).collect(),
        when: rule.when.iter().filter_map(condition).collect(),
    }
}

fn source(source: &istio::Source) -> Source {
    let ranges = |one: &List<String>, other: &List<String>| ranges(one.iter().chain(other));
    Source {
        ip_blocks: ranges(&source.ip_blocks, &source.remote_ip_blocks),
        not_ip_blocks: ranges(&source.not_ip_blocks, &source.not_remote_ip_blocks),
    }
}

fn ranges<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpNet> {
    texts.filter_map(|text| parse_range(text)).collect()
}

fn operation(operation: &istio::Operation) -> Operation {
    let ports = |ports: &List<String>| ports.iter().filter_map(|port| port.parse().ok()).collect();
    let globs = |texts: &List<String>| texts.iter().map(|text| glob(text)).collect();
    let hosts = |texts: &List<String>| texts.iter().map(|text| glob(&text.to_ascii_lowercase())).collect();
    let paths = |texts: &List<String>| texts.iter().map(|text| path(text)).collect();
    Operation {
        hosts: hosts(&operation.hosts),
        not_hosts: hosts(&operation.not_hosts),
        ports: ports(&operation.ports),
        not_ports: ports(&operation.not_ports),
        methods: globs(&operation.methods),
        not_methods: globs(&operation.not_methods),
        paths: paths(&operation.paths),
        not_paths: paths(&operation.not_paths),
    }
}

fn condition(when: &istio::When) -> Option<Condition> {
    let key = match parse_key(when.key.as_deref().unwrap_or_default())? {
        ConditionKey::SourceIp(..) => {
            ConditionKey::SourceIp(ranges(when.values.iter()), ranges(when.not_values.iter()))
        }
        ConditionKey::DestinationIp(..) => {
            ConditionKey::DestinationIp(ranges(when.values.iter()), ranges(when.not_values.iter()))
        }
        key @ (ConditionKey::Sni | ConditionKey::Header(_) | ConditionKey::Port) => key,
    };
    let lower = key == ConditionKey::Sni;
    let globs = |texts: &List<String>| {
        let spelled = |text: &String| if lower { text.to_ascii_lowercase() } else { text.clone() };
        texts.iter().map(|text| glob(&spelled(text))).collect()
    };
    Some(Condition { values: globs(&when.values), not_values: globs(&when.not_values), key })
}

/// Istio's value patterns: a star is one at the beginning or the end only.
fn glob(text: &str) -> Glob {
    match (text, text.strip_suffix('*'), text.strip_prefix('*')) {
        ("*", _, _) => Glob::Present,
        (_, Some(prefix), _) => Glob::Prefix(prefix.into()),
        (_, None, Some(suffix)) => Glob::Suffix(suffix.into()),
        (_, None, None) => Glob::Exact(text.into()),
    }
}

/// A path may also be a template with `{*}` and `{**}`.
fn path(text: &str) -> Glob {
    if !text.contains('{') {
        return glob(text);
    }
    match template(text) {
        Some(regex) => Glob::Template(TextMatch::Regex(regex)),
        // Refused by validation.
        None => Glob::Exact(text.into()),
    }
}
