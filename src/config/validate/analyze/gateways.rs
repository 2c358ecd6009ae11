//! VirtualServices and the Gateways that they are bound to, and routes that lead from the mesh to a Gateway.

use std::collections::HashMap;

use crate::config::bootstrap::Bootstrap;
use crate::config::finding::{Report, Severity, code};
use crate::config::istio::gateway::Gateway;
use crate::config::istio::service_entry::Protocol;
use crate::config::istio::virtual_service::{HttpRule, RouteDestination, VirtualService};
use crate::config::istio::{Object, Objects, Scope};
use crate::config::registry::{Admitted, HostIndex, Place, Registry, Takes, admitted, entrance, resolve};
use crate::route::host::HostPattern;

/// Gateways that are not there, hosts that they do not admit, and what does not survive the way to them.
pub(super) fn analyze(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    for object in &objects.virtual_services {
        let scope = &mut Scope::new(&object.origin, report);
        for (field, name) in named(&object.spec) {
            if let Place::Gateway(namespace, name) = resolve(name, object.origin.object.namespace())
                && registry.gateways.named(namespace, name).is_none()
            {
                let message = format!("Referenced gateway not found: \"{namespace}/{name}\"; nothing arrives there");
                scope.warning(code::NOT_FOUND, field, message);
            }
        }
        hosts(object, registry, scope);
        for (index, rule) in object.spec.http.iter().enumerate() {
            carried(rule, &format!("spec.http[{index}]"), registry, scope);
        }
    }
}

/// Listeners for Gateways of which none has a server on their port.
pub(super) fn listeners(registry: &Registry<'_>, bootstrap: &Bootstrap, report: &mut Report) {
    for listener in bootstrap.listeners.iter().filter(|listener| listener.gateway) {
        let serves =
            |takes: Takes| matches!(takes, Takes::Http | Takes::Tls | Takes::Tcp) || takes.ends_tls_of_clients();
        let name = &listener.name;
        let Some(port) = listener.service.fixed() else { continue };
        if !registry.gateways.takes_on(port).any(serves) {
            let message =
                format!("listener {name}: no Gateway has a server on port {port} for clients; nothing passes there");
            report.file(Severity::Warning, code::UNREACHABLE, String::new(), message);
        }
    }
}

/// Servers for TLS that have a host in common: a client chooses by the name alone, and the first has it.
pub(super) fn conflicts(objects: &Objects, report: &mut Report) {
    let mut known: HashMap<(u16, String), &Object<Gateway>> = HashMap::new();
    for gateway in &objects.gateways {
        for (number, server) in gateway.spec.servers.iter().enumerate() {
            let protocol = server.port.as_ref().and_then(|port| Protocol::parse(port.protocol.as_deref()));
            let (Some((port, _)), Some(Protocol::Tls)) = (entrance(server), protocol) else { continue };
            for (index, host) in server.hosts.iter().enumerate() {
                let host = host.rsplit('/').next().unwrap_or_default();
                let first = *known.entry((port, host.to_ascii_lowercase())).or_insert(gateway);
                if std::ptr::eq(first, gateway) {
                    continue; // Within one Gateway the servers may be for several namespaces.
                }
                let (namespace, name) = first.origin.identity();
                let message = format!(
                    "Conflict with gateways {namespace}/{name} (port {port}, host {host}): clients with TLS get to that one"
                );
                let field = format!("spec.servers[{number}].hosts[{index}]");
                Scope::new(&gateway.origin, report).warning(code::GATEWAY_CONFLICT, field, message);
            }
        }
    }
}

/// Servers for TCP beside others on their port: nothing that a client says chooses among them.
pub(super) fn tcp_conflicts(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    let mut known: HashMap<u16, &Object<Gateway>> = HashMap::new();
    for gateway in &objects.gateways {
        for (number, server) in gateway.spec.servers.iter().enumerate() {
            let Some((port, Takes::Tcp)) = entrance(server) else { continue };
            let (field, scope) = (format!("spec.servers[{number}].port"), &mut Scope::new(&gateway.origin, report));
            if let Some(first) = known.get(&port) {
                let (namespace, name) = first.origin.identity();
                let message =
                    format!("Gateway {namespace}/{name} has a server for TCP on port {port} already, which holds");
                scope.warning(code::GATEWAY_CONFLICT, field, message);
            } else if registry.gateways.takes_on(port).any(|takes| takes != Takes::Tcp) {
                let message = format!(
                    "port {port} has servers for HTTP or TLS too, which have the clients of listeners: only what a route of \
                     the mesh leads to it arrives at this one"
                );
                scope.warning(code::GATEWAY_CONFLICT, field, message);
            }
            known.entry(port).or_insert(gateway);
        }
    }
}

/// Policies about a ServiceEntry are found by the host that a client names. At a Gateway that takes the host by a wider
/// wildcard nothing says whose it is, and the policy would be passed by. (Of TCP no client names any.)
pub(super) fn policies(objects: &Objects, registry: &Registry<'_>, bootstrap: &Bootstrap, report: &mut Report) {
    if !bootstrap.listeners.iter().any(|listener| listener.gateway) {
        return;
    }
    let bound = objects.gateways.iter().flat_map(|gateway| registry.gateways.bound(gateway));
    let bound = bound.filter(|rules| !rules.spec.http.is_empty() || !rules.spec.tls.is_empty());
    let (mut takes_any, mut taken) = (false, HostIndex::default());
    for host in bound.flat_map(|rules| &rules.spec.hosts).filter_map(|host| Admitted::parse(host)) {
        match host {
            Admitted::Any => takes_any = true,
            Admitted::Pattern(pattern) => *taken.entry(&pattern, || ()) = (),
        }
    }
    let is_passed_by = |host: &HostPattern| takes_any || taken.covering(host).next().is_some();
    let entries: HashMap<_, _> = objects.service_entries.iter().map(|entry| (entry.origin.identity(), entry)).collect();
    for object in &objects.authorization_policies {
        for target in object.spec.target_refs.iter().chain(&object.spec.target_ref) {
            let namespace =
                target.namespace.as_deref().filter(|it| !it.is_empty()).unwrap_or(object.origin.object.namespace());
            let identity = (namespace, target.name.as_deref().unwrap_or_default());
            let entry = entries.get(&identity).into_iter();
            let hosts = entry.flat_map(|entry| &entry.spec.hosts).filter_map(|host| HostPattern::parse(host).ok());
            for host in hosts.filter(is_passed_by) {
                let message = format!(
                    "{host} can also be asked for at a Gateway whose VirtualService has a wildcard for it, where a policy \
                     with targetRefs is not found: name {host} in a VirtualService there, or do without the wildcard"
                );
                Scope::new(&object.origin, report).refuse("spec.targetRefs", message);
            }
        }
    }
}

/// What rules inherit by delegation does not survive the way to a Gateway either.
pub(super) fn delegated(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    for object in objects.virtual_services.iter().filter(|object| !object.spec.delegates.is_empty()) {
        let scope = &mut Scope::new(&object.origin, report);
        for (index, rule) in object.spec.http.iter().enumerate() {
            carried(rule, &format!("spec.http[{index}]"), registry, scope);
        }
    }
}

/// Every gateway that a VirtualService names, with its field.
fn named(service: &VirtualService) -> Vec<(String, &String)> {
    let http = service.http.iter().enumerate().flat_map(|(rule, http)| {
        let blocks = http.matches.iter().enumerate();
        blocks.map(move |(number, block)| (format!("spec.http[{rule}].match[{number}].gateways"), &block.gateways))
    });
    let tls = service.tls.iter().enumerate().flat_map(|(rule, tls)| {
        let blocks = tls.matches.iter().enumerate();
        blocks.map(move |(number, block)| (format!("spec.tls[{rule}].match[{number}].gateways"), &block.gateways))
    });
    let tcp = service.tcp.iter().enumerate().flat_map(|(rule, tcp)| {
        let blocks = tcp.matches.iter().enumerate();
        blocks.map(move |(number, block)| (format!("spec.tcp[{rule}].match[{number}].gateways"), &block.gateways))
    });
    let lists = std::iter::once(("spec.gateways".to_owned(), &service.gateways)).chain(http).chain(tls).chain(tcp);
    let each = lists.flat_map(|(field, names)| {
        names.iter().enumerate().map(move |(index, name)| (format!("{field}[{index}]"), name))
    });
    each.collect()
}

/// Hosts that a Gateway does not admit never arrive there.
fn hosts(object: &Object<VirtualService>, registry: &Registry<'_>, scope: &mut Scope<'_>) {
    let own = object.origin.object.namespace();
    for (index, name) in object.spec.gateways.iter().enumerate() {
        let Place::Gateway(namespace, name) = resolve(name, own) else { continue };
        let Some(gateway) = registry.gateways.named(namespace, name) else { continue };
        let is_admitted = |host: &Admitted| {
            let mut hosts = gateway.spec.servers.iter().flat_map(|server| admitted(server, namespace, own));
            hosts.any(|admitted| admitted.common(host).is_some())
        };
        for host in &object.spec.hosts {
            if Admitted::parse(host).is_some_and(|host| !is_admitted(&host)) {
                let message =
                    format!("no server of Gateway {namespace}/{name} admits host {host}: it never arrives there");
                scope.warning(code::NOT_ADMITTED, format!("spec.gateways[{index}]"), message);
            }
        }
    }
}

/// A rule that leads to a Gateway says who goes there; what it would do to the request on the way is not done.
fn carried(rule: &HttpRule, field: &str, registry: &Registry<'_>, scope: &mut Scope<'_>) {
    let leads_there = |destination: &RouteDestination| {
        let host = destination.host.as_deref().and_then(|host| HostPattern::parse(host).ok());
        host.is_some_and(|host| registry.gateways.is_own_service(&host) && registry.services.declared(&host).is_none())
    };
    let mut routes = rule.route.iter().filter(|route| route.destination.as_ref().is_some_and(leads_there)).peekable();
    if routes.peek().is_none() {
        return;
    }
    let of_route = routes.any(|route| route.headers.is_some());
    let parts = [
        ("rewrite", rule.rewrite.is_some()),
        ("headers", rule.headers.is_some()),
        ("route.headers", of_route),
        ("fault", rule.fault.is_some()),
        ("mirror", rule.mirror.is_some() || !rule.mirrors.is_empty()),
        ("corsPolicy", rule.cors_policy.is_some()),
    ];
    for (part, _) in parts.into_iter().filter(|(_, present)| *present) {
        let message = format!("{part} is not supported on a route to a Gateway; write it on the Gateway's own route");
        scope.refuse(format!("{field}.{part}"), message);
    }
    // No connection leads there that could fail or be made anew, and what comes back is the Gateway's last word.
    if rule.retries.as_ref().is_some_and(|retries| retries.attempts != Some(0)) {
        let message = "the way to a Gateway on this node cannot fail, and nothing is tried again there; \
                       write retries on the Gateway's own route";
        scope.warning(code::UNSUPPORTED, format!("{field}.retries"), message);
    }
}

/// A destination that is a Gateway's own service.
pub(super) fn hop(
    host: &HostPattern,
    destination: &RouteDestination,
    field: &str,
    registry: &Registry<'_>,
    scope: &mut Scope<'_>,
) {
    let Some(number) = destination.port.as_ref().and_then(|port| u16::try_from(port.number?).ok()) else { return };
    let (is_tls, is_tcp) = (field.starts_with("spec.tls"), field.starts_with("spec.tcp"));
    let serves = |takes: Takes| match takes {
        Takes::Tls => is_tls,
        Takes::Http | Takes::HttpInTls(_) => !is_tls && !is_tcp,
        Takes::Tcp | Takes::TcpInTls(_) | Takes::Nothing => false,
    };
    let has_tcp = (is_tls || is_tcp) && registry.gateways.tcp_hop(number).is_some();
    if !has_tcp && !registry.gateways.takes_on(number).any(serves) {
        let what = match (is_tls, is_tcp) {
            (true, _) => "TLS",
            (_, true) => "TCP",
            (false, false) => "HTTP",
        };
        let message = match (is_tls || is_tcp) && registry.gateways.takes_on(number).any(Takes::is_tcp) {
            true => format!(
                "several servers of Gateways take TCP on port {number}, not all of them without TLS, and nothing chooses one; \
                 sessions end with NC"
            ),
            false => format!("no Gateway has a server for {what} on port {number}; requests get 503 NC"),
        };
        scope.warning(code::NOT_FOUND, format!("{field}.port.number"), message);
    }
    let Some(subset) = destination.subset.as_deref().filter(|subset| !subset.is_empty()) else { return };
    let namespace = crate::config::compile::gateway_namespace(host);
    if registry.policies.subset(host, namespace, subset).is_none() {
        let message = format!("Referenced host+subset in destinationrule not found: \"{host}+{subset}\"");
        scope.warning(code::NOT_FOUND, format!("{field}.subset"), format!("{message}; requests get 503 NC"));
    }
}
