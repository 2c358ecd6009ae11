//! VirtualServices among themselves and with the services.

use std::collections::HashMap;
use std::fmt;

use crate::config::finding::{Report, code};
use crate::config::istio::virtual_service::{HttpMatchRequest, HttpRule, VirtualService};
use crate::config::istio::{Object, Objects, Scope};
use crate::config::registry::{HostIndex, Registry, is_mesh};
use crate::route::host::HostPattern;

/// Hosts that another VirtualService has already, and hosts that no ServiceEntry opens.
pub(super) fn hosts(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    for object in objects.virtual_services.iter().filter(|object| is_mesh(&object.spec.gateways)) {
        for (index, host) in object.spec.hosts.iter().enumerate() {
            let Ok(pattern) = HostPattern::parse(host) else { continue };
            let field = format!("spec.hosts[{index}]");
            let scope = &mut Scope::new(&object.origin, report);
            conflict(object, &pattern, &registry.http, &field, scope);
            conflict(object, &pattern, &registry.tls, &field, scope);
            conflict(object, &pattern, &registry.tcp, &field, scope);
            undeclared(object, &pattern, registry, &field, scope);
        }
    }
}

/// Rules for one host are not merged: the oldest VirtualService has it.
fn conflict(
    object: &Object<VirtualService>,
    pattern: &HostPattern,
    owners: &HostIndex<&Object<VirtualService>>,
    field: &str,
    scope: &mut Scope<'_>,
) {
    let Some(owner) = owners.exact(pattern) else { return };
    let is_rival = (!object.spec.http.is_empty() && !owner.spec.http.is_empty())
        || (!object.spec.tls.is_empty() && !owner.spec.tls.is_empty())
        || (!object.spec.tcp.is_empty() && !owner.spec.tcp.is_empty());
    if is_rival && !std::ptr::eq(*owner, object) {
        let by = &owner.origin.object;
        let message = format!(
            "host {pattern} is routed by VirtualService {}/{} ({}) already; this one is ignored for it",
            by.namespace(),
            by.name(),
            by.source()
        );
        scope.warning(code::CONFLICT, field, message);
    }
}

fn undeclared(
    object: &Object<VirtualService>,
    pattern: &HostPattern,
    registry: &Registry<'_>,
    field: &str,
    scope: &mut Scope<'_>,
) {
    let services = &registry.services;
    if services.declared(pattern).is_some()
        || services.covering(pattern).next().is_some()
        || services.any_below(pattern)
    {
        return;
    }
    if !object.spec.tls.is_empty() {
        let message = format!("no ServiceEntry declares {pattern}: its tls routes never match");
        scope.warning(code::NOT_FOUND, field, message);
    }
    if !object.spec.tcp.is_empty() {
        let message = format!("no ServiceEntry declares {pattern}: its tcp routes never match");
        scope.warning(code::NOT_FOUND, field, message);
    }
    if !object.spec.http.is_empty() {
        let message = format!("no ServiceEntry declares {pattern}: it is served on port 80 only");
        scope.warning(code::NOT_FOUND, field, message);
    }
}

/// A rule without conditions takes every request; the rules after it get none. A match that an earlier one covers gets
/// none either, and a rule of such matches alone is dead.
pub(super) fn dead_rules(objects: &Objects, report: &mut Report) {
    for object in &objects.virtual_services {
        let scope = &mut Scope::new(&object.origin, report);
        let mut seen = Seen::default();
        let mut catch_all = false;
        for (index, rule) in object.spec.http.iter().enumerate() {
            if catch_all {
                let why = match rule.matches.is_empty() {
                    true => "only the last rule can have no matches",
                    false => "route without matches defined before",
                };
                let message = format!("virtualService rule #{index} not used ({why})");
                scope.warning(code::DEAD_RULE, format!("spec.http[{index}]"), message);
                continue;
            }
            // What a delegate does not match goes on to the next rule.
            if rule.delegate.is_none() {
                catch_all = rule.matches.is_empty();
                dead_matches(index, rule, &mut seen, scope);
            }
        }
        dead_names(&object.spec, scope);
    }
}

/// The matches so far.
#[derive(Default)]
struct Seen {
    /// Every match, spelled out, and the rule that it stands in.
    whole: HashMap<String, usize>,
    /// Prefixes of paths that take every request below them.
    prefixes: Vec<(String, usize)>,
}

fn dead_matches(index: usize, rule: &HttpRule, seen: &mut Seen, scope: &mut Scope<'_>) {
    let mut dead = 0;
    for (number, block) in rule.matches.iter().enumerate() {
        // The name of a match has no part in what it matches.
        let whole = format!("{:?}", HttpConditions(block));
        let path = block.uri.as_ref().and_then(|uri| uri.exact.as_deref().or(uri.prefix.as_deref()));
        // Every path begins with a slash.
        let below = |(prefix, _): &&(String, usize)| {
            prefix == "/" || path.is_some_and(|path| path.starts_with(prefix.as_str()))
        };
        let covered = seen.prefixes.iter().find(below).map(|(_, rule)| ("overlapping", *rule));
        let same = seen.whole.get(&whole).map(|rule| ("duplicate", *rule));
        if let Some((how, by)) = same.or(covered) {
            dead += 1;
            let message =
                format!("virtualService rule #{index} match #{number} is not used ({how} match in rule #{by})");
            scope.warning(code::DEAD_MATCH, format!("spec.http[{index}].match[{number}]"), message);
            continue;
        }
        if let Some(prefix) = only_prefix(block) {
            seen.prefixes.push((prefix.to_owned(), index));
        }
        seen.whole.insert(whole, index);
    }
    if dead > 0 && dead == rule.matches.len() {
        let message = format!("virtualService rule #{index} not used (all matches used by prior rules)");
        scope.warning(code::DEAD_RULE, format!("spec.http[{index}]"), message);
    }
}

/// The prefix of a match that has no other condition.
fn only_prefix(block: &HttpMatchRequest) -> Option<&str> {
    let prefix = block.uri.as_ref()?.prefix.as_deref()?;
    let bare = HttpMatchRequest::default();
    let others = format!("{:?}", HttpConditions(&HttpMatchRequest { uri: None, ..block.clone() }));
    (others == format!("{:?}", HttpConditions(&bare))).then_some(prefix)
}

/// A match without its name.
struct HttpConditions<'a>(&'a HttpMatchRequest);

impl fmt::Debug for HttpConditions<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let block = self.0;
        let texts = (&block.uri, &block.scheme, &block.method, &block.authority);
        let maps = (&block.headers, &block.without_headers, &block.query_params, &block.source_labels);
        let rest = (block.port, &block.gateways, block.ignore_uri_case == Some(true), &block.source_namespace);
        write!(formatter, "{texts:?} {maps:?} {rest:?}")
    }
}

/// Of two TLS matches with one name the first holds.
fn dead_names(service: &VirtualService, scope: &mut Scope<'_>) {
    let mut seen = HashMap::new();
    for (index, rule) in service.tls.iter().enumerate() {
        for (number, names) in rule.matches.iter().enumerate() {
            for name in &names.sni_hosts {
                let place = format!("{:?} {:?}", names.gateways, names.destination_subnets);
                let key = (name.to_ascii_lowercase(), names.port, place);
                let Some((first, _)) = seen.get(&key).copied().filter(|at| *at != (index, number)) else {
                    seen.entry(key).or_insert((index, number));
                    continue;
                };
                let message = format!(
                    "virtualService rule #{index} match #{number} is not used (duplicate match of {name} in rule #{first})"
                );
                scope.warning(code::DEAD_MATCH, format!("spec.tls[{index}].match[{number}]"), message);
            }
        }
    }
}
