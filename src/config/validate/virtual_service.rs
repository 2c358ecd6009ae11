//! VirtualService (pilot's ValidateVirtualService); `http:` is judged in [`super::http`].

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::service_entry::range;
use crate::config::istio::virtual_service::{
    RouteDestination, TcpRule, TlsDestination, TlsMatch, TlsRule, VirtualService,
};
use crate::config::registry::{HostIndex, is_mesh};
use crate::route::host::HostPattern;

use super::{export_to, host, http, is_label, port};

pub(super) fn validate(service: &VirtualService, scope: &mut Scope<'_>) {
    if service.hosts.is_empty() {
        delegate(service, scope);
    }
    let mut patterns = Vec::new();
    for (index, text) in service.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        let in_mesh = is_mesh(&service.gateways);
        if text == "*" && in_mesh {
            scope.error(field, "wildcard host * is not allowed for virtual services bound to the mesh gateway");
        } else if !in_mesh && text.parse::<std::net::IpAddr>().is_ok() {
            let message = "no request names an address as its host: this one never matches";
            scope.warning(code::UNREACHABLE, field, message);
        } else if text != "*" {
            patterns.extend(host::pattern(text, &field, scope));
        }
    }
    if patterns.len() == service.hosts.len() {
        overlaps(&patterns, scope);
    }
    blocks(service, scope);
    gateways(service, scope);
    for (index, rule) in service.http.iter().enumerate() {
        http::validate(rule, &format!("spec.http[{index}]"), scope);
    }
    for (index, rule) in service.tls.iter().enumerate() {
        tls(rule, &format!("spec.tls[{index}]"), service, &patterns, scope);
    }
    for (index, rule) in service.tcp.iter().enumerate() {
        tcp(rule, &format!("spec.tcp[{index}]"), scope);
    }
    export_to(&service.export_to, scope);
}

fn blocks(service: &VirtualService, scope: &mut Scope<'_>) {
    if service.http.is_empty() && service.tls.is_empty() && service.tcp.is_empty() {
        scope.error("spec", "http, tcp or tls must be provided in virtual service");
    }
}

/// Duplicates include wildcards that cover other hosts of the same object.
fn overlaps(hosts: &[HostPattern], scope: &mut Scope<'_>) {
    let mut index = HostIndex::default();
    for host in hosts {
        let first = *index.entry(host, || host);
        if !std::ptr::eq(first, host) {
            scope.error("spec.hosts", format!("duplicate hosts in virtual service: {first} & {host}"));
        }
    }
    for host in hosts {
        if let Some(wider) = index.covering(host).next() {
            scope.error("spec.hosts", format!("duplicate hosts in virtual service: {wider} & {host}"));
        }
    }
}

/// `mesh`, `namespace/name`, or a name in the namespace of the object.
fn gateway_name(name: &str, field: &str, scope: &mut Scope<'_>) {
    let Some((namespace, name)) = name.split_once('/') else {
        if name.contains('.') {
            let message = format!("using legacy gatewayName format {name:?}; prefer the <namespace>/<name> format");
            scope.warning(code::UNSUPPORTED, field, message);
        }
        return;
    };
    if namespace.is_empty() || name.is_empty() {
        scope.error(field, "config namespace and gateway name cannot be empty");
    } else if !is_label(namespace) {
        scope.error(field, format!("invalid value for namespace: {namespace:?}"));
    } else if !is_label(name) {
        scope.error(field, format!("invalid value for gateway name: {name:?}"));
    }
}

fn gateways(service: &VirtualService, scope: &mut Scope<'_>) {
    for (index, name) in service.gateways.iter().enumerate() {
        gateway_name(name, &format!("spec.gateways[{index}]"), scope);
    }
}

fn tls(rule: &TlsRule, field: &str, service: &VirtualService, hosts: &[HostPattern], scope: &mut Scope<'_>) {
    if rule.matches.is_empty() {
        scope.error(format!("{field}.match"), "TLS route must have at least one match condition");
    }
    for (index, names) in rule.matches.iter().enumerate() {
        tls_match(names, &format!("{field}.match[{index}]"), service, hosts, scope);
    }
    if rule.route.is_empty() {
        scope.error(format!("{field}.route"), "TLS route is required");
    }
    routes(&rule.route, field, scope);
}

fn routes(routes: &[TlsDestination], field: &str, scope: &mut Scope<'_>) {
    let mut weights = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let field = format!("{field}.route[{index}]");
        destination(route.destination.as_ref(), &field, scope);
        weights.push((route.weight, field));
    }
    weight(&weights, field, scope);
}

fn tcp(rule: &TcpRule, field: &str, scope: &mut Scope<'_>) {
    for (index, conditions) in rule.matches.iter().enumerate() {
        let field = format!("{field}.match[{index}]");
        subnets(&conditions.destination_subnets, &field, scope);
        if conditions.port.is_some() {
            port(conditions.port, &format!("{field}.port"), scope);
        }
        if conditions.source_subnet.is_some() {
            let message = "sourceSubnet is not used by Istio either; an AuthorizationPolicy with ipBlocks restricts \
                           who may connect";
            scope.refuse(format!("{field}.sourceSubnet"), message);
        }
        source(!conditions.source_labels.is_empty(), conditions.source_namespace.is_some(), &field, scope);
    }
    if rule.route.is_empty() {
        scope.error(format!("{field}.route"), "TCP route is required");
    }
    routes(&rule.route, field, scope);
}

fn subnets(subnets: &[String], field: &str, scope: &mut Scope<'_>) {
    for (index, text) in subnets.iter().enumerate().filter(|(_, text)| range(text).is_none()) {
        scope.error(format!("{field}.destinationSubnets[{index}]"), format!("{text:?} is not a valid CIDR block"));
    }
}

fn tls_match(names: &TlsMatch, field: &str, service: &VirtualService, hosts: &[HostPattern], scope: &mut Scope<'_>) {
    if names.sni_hosts.is_empty() {
        scope.error(format!("{field}.sniHosts"), "TLS match must have at least one SNI host");
    }
    for (index, name) in names.sni_hosts.iter().enumerate() {
        let field = format!("{field}.sniHosts[{index}]");
        if name.parse::<std::net::IpAddr>().is_ok() {
            let message = format!(
                "using an IP address ({name:?}) goes against SNI spec and most clients do not support this; it never matches"
            );
            scope.warning(code::UNREACHABLE, field, message);
            continue;
        }
        let Some(pattern) = host::pattern(name, &field, scope) else { continue };
        let takes_any = service.hosts.iter().any(|host| host == "*");
        if !takes_any && !hosts.is_empty() && !hosts.iter().any(|host| host.covers(&pattern)) {
            let hosts = service.hosts.join(", ");
            let message =
                format!("SNI host {name:?} is not a compatible subset of any of the virtual service hosts: [{hosts}]");
            scope.error(field, message);
        }
    }
    if names.port.is_some() {
        port(names.port, &format!("{field}.port"), scope);
    }
    subnets(&names.destination_subnets, field, scope);
    source(!names.source_labels.is_empty(), names.source_namespace.is_some(), field, scope);
}

/// Selectors of workloads restrict who may use a match: leaving them out would open it to everyone.
pub(super) fn source(labels: bool, namespace: bool, field: &str, scope: &mut Scope<'_>) {
    for (name, present) in [("sourceLabels", labels), ("sourceNamespace", namespace)] {
        if present {
            let message = format!("{name} selects workloads of a mesh, which cannot be told apart here");
            scope.refuse(format!("{field}.{name}"), message);
        }
    }
}

/// `destination:` of a route.
pub(super) fn destination(destination: Option<&RouteDestination>, field: &str, scope: &mut Scope<'_>) {
    match destination {
        Some(destination) => destination_at(destination, &format!("{field}.destination"), scope),
        None => scope.error(format!("{field}.destination"), "destination is required"),
    }
}

/// A destination at this field.
pub(super) fn destination_at(destination: &RouteDestination, field: &str, scope: &mut Scope<'_>) {
    match destination.host.as_deref() {
        None | Some("") => scope.error(format!("{field}.host"), "destination host is required"),
        Some("*") => scope.error(format!("{field}.host"), "invalid destination host *"),
        Some(text) => drop(host::pattern(text, &format!("{field}.host"), scope)),
    }
    if let Some(selector) = &destination.port {
        port(selector.number, &format!("{field}.port.number"), scope);
    }
}

/// Weights are relative to their sum; that of a single destination does not matter.
pub(super) fn weight(weights: &[(Option<i64>, String)], field: &str, scope: &mut Scope<'_>) {
    let mut total: u64 = 0;
    for (weight, field) in weights {
        match weight.map(u32::try_from) {
            Some(Err(_)) => scope.error(format!("{field}.weight"), "weight must be from 0 to 4294967295"),
            Some(Ok(weight)) => total += u64::from(weight),
            None => {}
        }
    }
    if weights.len() > 1 && total == 0 {
        scope.error(format!("{field}.route"), "total destination weight = 0");
    } else if u32::try_from(total).is_err() {
        scope.error(format!("{field}.route"), "total destination weight is greater than 4294967295");
    }
}

/// A VirtualService without hosts is a delegate: rules of `http:` for others to use.
fn delegate(service: &VirtualService, scope: &mut Scope<'_>) {
    if service.http.is_empty() {
        scope.error("spec.hosts", "virtual service must have at least one host");
    }
    if !service.gateways.is_empty() {
        scope.error("spec.gateways", "delegate virtual service must have no gateways specified");
    }
    if !service.tls.is_empty() || !service.tcp.is_empty() {
        scope.error("spec", "delegate virtual service must have only http routes");
    }
    for (index, _) in service.http.iter().enumerate().filter(|(_, rule)| rule.delegate.is_some()) {
        scope.error(format!("spec.http[{index}].delegate"), "delegate virtual service cannot delegate again");
    }
}
