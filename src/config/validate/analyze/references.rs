//! References that lead nowhere.

use std::collections::{HashMap, HashSet};

use crate::config::finding::{Report, code};
use crate::config::istio::destination_rule::DestinationRule;
use crate::config::istio::service_entry::WorkloadEntry;
use crate::config::istio::virtual_service::{RouteDestination, VirtualService};
use crate::config::istio::{Object, Objects, Scope};
use crate::config::registry::{Registry, ServiceId};
use crate::route::host::HostPattern;

/// Destinations of routes; a dangling one answers 503 `NC`.
pub(super) fn destinations(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    for object in objects.virtual_services.iter().filter(|object| registry.gateways.is_in_force(object)) {
        let scope = &mut Scope::new(&object.origin, report);
        for (field, named) in routes(&object.spec) {
            destination(object, Named { destination: named, of: Whom::Requests }, &field, registry, scope);
        }
        for (field, named) in mirrors(&object.spec) {
            destination(object, Named { destination: named, of: Whom::Copies }, &field, registry, scope);
        }
    }
}

/// Every destination of a VirtualService with its field.
pub(super) fn routes(service: &VirtualService) -> impl Iterator<Item = (String, &RouteDestination)> {
    let http = service.http.iter().enumerate().flat_map(|(rule, http)| {
        let routes = http.route.iter().enumerate();
        routes.map(move |(route, http)| (format!("spec.http[{rule}].route[{route}].destination"), &http.destination))
    });
    let tls = service.tls.iter().enumerate().flat_map(|(rule, tls)| {
        let routes = tls.route.iter().enumerate();
        routes.map(move |(route, tls)| (format!("spec.tls[{rule}].route[{route}].destination"), &tls.destination))
    });
    let tcp = service.tcp.iter().enumerate().flat_map(|(rule, tcp)| {
        let routes = tcp.route.iter().enumerate();
        routes.map(move |(route, tcp)| (format!("spec.tcp[{rule}].route[{route}].destination"), &tcp.destination))
    });
    http.chain(tls).chain(tcp).filter_map(|(field, destination)| Some((field, destination.as_ref()?)))
}

/// Every destination of copies, with its field.
pub(super) fn mirrors(service: &VirtualService) -> impl Iterator<Item = (String, &RouteDestination)> {
    service.http.iter().enumerate().flat_map(|(rule, http)| {
        let single = http.mirror.iter().map(move |mirror| (format!("spec.http[{rule}].mirror"), mirror));
        let several = http.mirrors.iter().enumerate().filter_map(move |(index, mirror)| {
            Some((format!("spec.http[{rule}].mirrors[{index}].destination"), mirror.destination.as_ref()?))
        });
        single.chain(several)
    })
}

/// A destination, and what is led there.
#[derive(Clone, Copy)]
struct Named<'a> {
    destination: &'a RouteDestination,
    of: Whom,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    Requests,
    Copies,
}

impl Whom {
    /// What becomes of them where the destination is none.
    fn fate(self) -> &'static str {
        match self {
            Self::Requests => "requests get 503 NC",
            Self::Copies => "copies of requests go nowhere, and count as failed",
        }
    }
}

fn destination(
    object: &Object<VirtualService>,
    Named { destination, of }: Named<'_>,
    field: &str,
    registry: &Registry<'_>,
    scope: &mut Scope<'_>,
) {
    let host = destination.host.as_deref().unwrap_or_default();
    let Some(id) = registry.services.named(host) else {
        let Ok(pattern) = HostPattern::parse(host) else { return };
        if registry.gateways.is_own_service(&pattern) && of == Whom::Copies {
            let message = "copies of requests cannot be led to a Gateway; write the mirror on the Gateway's own route";
            scope.refuse(format!("{field}.host"), message);
        } else if registry.gateways.is_own_service(&pattern) {
            super::gateways::hop(&pattern, destination, field, registry, scope);
        } else {
            let message = format!("Referenced host not found: {host:?}; {}", of.fate());
            scope.warning(code::NOT_FOUND, format!("{field}.host"), message);
        }
        return;
    };
    let number = destination.port.as_ref().and_then(|port| port.number);
    port((id, of), number, field, registry, scope);
    subset((id, of), destination, field, registry, scope);
    requested_name(object, (id, of), field, registry, scope);
}

fn port((id, of): (ServiceId, Whom), number: Option<i64>, field: &str, registry: &Registry<'_>, scope: &mut Scope<'_>) {
    let service = registry.services.service(id);
    match number {
        Some(number) => {
            let known = u16::try_from(number).is_ok_and(|number| service.port(number).is_some());
            if !known {
                let (host, fate) = (service.host, of.fate());
                let message = format!("Referenced host:port not found: \"{host}:{number}\"; {fate}");
                scope.warning(code::NOT_FOUND, format!("{field}.port.number"), message);
            }
        }
        None if service.ports.len() > 1 => {
            let message = format!(
                "{} has several ports and none is named; the port that the client came to is used",
                service.host
            );
            scope.warning(code::PORT_REQUIRED, field, message);
        }
        None => {}
    }
}

fn subset(
    (id, of): (ServiceId, Whom),
    destination: &RouteDestination,
    field: &str,
    registry: &Registry<'_>,
    scope: &mut Scope<'_>,
) {
    let service = registry.services.service(id);
    let Some(name) = destination.subset.as_deref().filter(|name| !name.is_empty()) else { return };
    if !has_subset(id, name, registry) {
        let message = format!("Referenced host+subset in destinationrule not found: \"{}+{name}\"", service.host);
        scope.warning(code::NOT_FOUND, format!("{field}.subset"), format!("{message}; {}", of.fate()));
    }
}

fn has_subset(id: ServiceId, name: &str, registry: &Registry<'_>) -> bool {
    let service = registry.services.service(id);
    let mut namespaces = service.ports.iter().map(|port| port.namespace());
    namespaces.any(|namespace| registry.policies.subset(&service.pattern, namespace, name).is_some())
}

/// A wildcard service dials the name that the client asked for, so it can only serve the names that it covers.
fn requested_name(
    object: &Object<VirtualService>,
    (id, of): (ServiceId, Whom),
    field: &str,
    registry: &Registry<'_>,
    scope: &mut Scope<'_>,
) {
    let service = registry.services.service(id);
    if !service.ports.iter().any(|port| registry.services.dials_requested_name(id, port)) {
        return;
    }
    let patterns = object.spec.hosts.iter().filter_map(|host| HostPattern::parse(host).ok());
    for pattern in patterns.filter(|pattern| !service.pattern.covers(pattern) && !pattern.covers(&service.pattern)) {
        let message = format!(
            "{} dials the name that the client asked for, and does not cover {pattern}; its {}",
            service.host,
            of.fate()
        );
        scope.warning(code::NOT_FOUND, format!("{field}.host"), message);
    }
}

/// Hosts of DestinationRules: undeclared ones, and those for which an older rule holds.
pub(super) fn rules(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    let mut holders: HashMap<(HostPattern, &str), &Object<DestinationRule>> = HashMap::new();
    let mut subsets: HashMap<(HostPattern, &str, &str), &Object<DestinationRule>> = HashMap::new();
    for object in &objects.destination_rules {
        let Some(Ok(pattern)) = object.spec.host.as_deref().map(HostPattern::parse) else { continue };
        let scope = &mut Scope::new(&object.origin, report);
        let is_used = registry.services.declared(&pattern).is_some()
            || registry.services.any_below(&pattern)
            || registry.gateways.is_own_service(&pattern);
        if !is_used {
            let message = format!("no ServiceEntry declares {pattern}; the rule has no effect");
            scope.warning(code::RULE_HOST, "spec.host", message);
        }
        shadowed(object, &pattern, registry, scope);
        let namespace = object.origin.object.namespace();
        for (index, subset) in object.spec.subsets.iter().enumerate() {
            let name = subset.name.as_deref().unwrap_or_default();
            let holder = *subsets.entry((pattern.clone(), namespace, name)).or_insert(object);
            if !std::ptr::eq(holder, object) {
                let by = &holder.origin.object;
                let message = format!(
                    "duplicate subset {name} is discarded: DestinationRule {}/{} has it",
                    by.namespace(),
                    by.name()
                );
                scope.warning(code::CONFLICT, format!("spec.subsets[{index}]"), message);
            }
        }
        if object.spec.traffic_policy.is_none() {
            continue;
        }
        let holder = *holders.entry((pattern, namespace)).or_insert(object);
        if !std::ptr::eq(holder, object) {
            let by = &holder.origin.object;
            let message = format!(
                "the trafficPolicy of DestinationRule {}/{} ({}) holds for this host",
                by.namespace(),
                by.name(),
                by.source()
            );
            scope.warning(code::CONFLICT, "spec.trafficPolicy", message);
        }
    }
}

/// Subsets that select by labels which no endpoint has: every request to them gets 503 `UH`.
pub(super) fn labels(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    for object in &objects.destination_rules {
        let Some(id) = object.spec.host.as_deref().and_then(|host| registry.services.named(host)) else { continue };
        let ports = &registry.services.service(id).ports;
        for (index, subset) in object.spec.subsets.iter().enumerate().filter(|(_, subset)| !subset.labels.is_empty()) {
            let mut endpoints = ports.iter().flat_map(|port| &port.entry.spec.endpoints);
            let is_selected = |endpoint: &WorkloadEntry| {
                subset.labels.iter().all(|(label, value)| endpoint.labels.get(label) == Some(value))
            };
            if !endpoints.any(is_selected) {
                let name = subset.name.as_deref().unwrap_or_default();
                let message = format!("subset {name} selects no endpoint; requests to it get 503 UH");
                let field = format!("spec.subsets[{index}].labels");
                Scope::new(&object.origin, report).warning(code::EMPTY_SUBSET, field, message);
            }
        }
    }
}

/// A rule for exactly a service's host that is looked up in another namespace first.
fn shadowed(object: &Object<DestinationRule>, pattern: &HostPattern, registry: &Registry<'_>, scope: &mut Scope<'_>) {
    let Some(id) = registry.services.declared(pattern) else { return };
    let mut namespaces = registry.services.service(id).ports.iter().map(|port| port.namespace()).peekable();
    let is_unused = |namespace| !registry.policies.holds(&object.origin, pattern, namespace);
    if namespaces.peek().is_some() && namespaces.all(is_unused) {
        let message = "another namespace has rules for this host, and they hold: the order is default, the \
                       ServiceEntry's namespace, the root namespace, any other";
        scope.warning(code::CONFLICT, "metadata.namespace", message);
    }
}

/// Targets of AuthorizationPolicies: a policy for an object that is not there restricts nothing.
pub(super) fn targets(objects: &Objects, report: &mut Report) {
    let entries: HashSet<(&str, &str)> = objects.service_entries.iter().map(|entry| entry.origin.identity()).collect();
    for object in &objects.authorization_policies {
        for target in object.spec.target_refs.iter().chain(&object.spec.target_ref) {
            let namespace =
                target.namespace.as_deref().filter(|it| !it.is_empty()).unwrap_or(object.origin.object.namespace());
            let name = target.name.as_deref().unwrap_or_default();
            if !entries.contains(&(namespace, name)) {
                let message =
                    format!("Referenced ServiceEntry not found: \"{namespace}/{name}\"; the policy does not apply");
                Scope::new(&object.origin, report).warning(code::NOT_FOUND, "spec.targetRefs", message);
            }
        }
    }
}
