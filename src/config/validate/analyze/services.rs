//! Services among themselves, with the listeners, and with our own addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::config::bootstrap::Bootstrap;
use crate::config::compile::{dial_port, takes_tcp};
use crate::config::finding::{Report, code};
use crate::config::istio::service_entry::{Protocol, Resolution, ServiceEntry, ServicePort};
use crate::config::istio::{Object, Objects, Origin, Scope};
use crate::config::registry::{Registry, ServicePortEntry};
use crate::route::host::{HostName, HostPattern};
use crate::snapshot::Settings;

/// Two entries for one host and port: the oldest has it.
pub(super) fn conflicts(registry: &Registry<'_>, report: &mut Report) {
    for (_, service) in registry.services.iter() {
        for later in &service.shadowed {
            let Some(holder) = service.port(later.number) else { continue };
            let by = &holder.entry.origin.object;
            let (what, code) = match holder.protocol == later.protocol {
                true => ("declared already", code::CONFLICT),
                false => ("declared already with another protocol", code::PROTOCOLS),
            };
            let message = format!(
                "port {} of {} is {what}, by {}/{} ({}), which holds",
                later.number,
                service.host,
                by.namespace(),
                by.name(),
                by.source()
            );
            Scope::new(&later.entry.origin, report).warning(code, "spec.ports", message);
        }
    }
}

/// Istio would dial the address that the client chose; said once, since many entries leave `resolution` out.
pub(super) fn resolved_here(objects: &Objects, report: &mut Report) {
    let is_exact = |host: &String| HostPattern::parse(host).is_ok_and(|pattern| !pattern.is_wildcard());
    let is_named = |port: &ServicePort| {
        let protocol = Protocol::parse(port.protocol.as_deref());
        protocol.is_some_and(|protocol| protocol.takes_http() || protocol.takes_tls())
    };
    let mut entries = objects.service_entries.iter().filter(|entry| {
        let spec = &entry.spec;
        spec.resolution.unwrap_or_default() == Resolution::None
            && spec.hosts.iter().any(is_exact)
            && spec.ports.iter().any(is_named)
    });
    let Some(first) = entries.next() else { return };
    let others = match entries.count() {
        0 => String::new(),
        count => format!(" (and for {count} further entries)"),
    };
    let message = format!(
        "resolution NONE{others}: the gateway resolves the name itself, and never dials an address that a client chose; \
         write DNS to say so"
    );
    Scope::new(&first.origin, report).info(code::RESOLVED_HERE, "spec.resolution", message);
}

/// Ports that no listener serves, once per port: destinations of rewritten ports need none, so this is no warning.
pub(super) fn listeners(registry: &Registry<'_>, bootstrap: &Bootstrap, report: &mut Report) {
    if bootstrap.listeners.is_empty() {
        return;
    }
    let mut ports: BTreeMap<u16, &Origin> = BTreeMap::new();
    for (_, service) in registry.services.iter() {
        for port in service.ports.iter().filter(|port| is_reachable(port)) {
            ports.entry(port.number).or_insert(&port.entry.origin);
        }
    }
    for listener in bootstrap.listeners.iter().filter(|listener| !listener.gateway) {
        match listener.service.fixed() {
            Some(port) => drop(ports.remove(&port)),
            None => return, // Captured traffic goes to every port.
        }
    }
    for (port, origin) in ports {
        let message =
            format!("no listener has servicePort {port}; clients cannot reach this port of any service entry");
        Scope::new(origin, report).info(code::UNREACHABLE, "spec.ports", message);
    }
}

/// Whether clients of ordinary listeners could reach a port: TCP with addresses needs capture.
fn is_reachable(port: &ServicePortEntry<'_>) -> bool {
    match port.protocol {
        Protocol::Http | Protocol::Http2 | Protocol::Tls | Protocol::Any => true,
        Protocol::Tcp => takes_tcp(port) && port.entry.spec.addresses.is_empty(),
        Protocol::Udp => false,
    }
}

/// What only captured traffic can reach, where no listener takes any.
pub(super) fn capture(objects: &Objects, bootstrap: &Bootstrap, report: &mut Report) {
    let is_captured = bootstrap.listeners.iter().any(|listener| listener.service.fixed().is_none());
    if bootstrap.listeners.is_empty() || is_captured {
        return;
    }
    let message = "known of captured traffic only, and no listener has `capture`; the match never holds";
    for entry in objects.service_entries.iter().filter(|entry| !entry.spec.addresses.is_empty()) {
        let takes_tcp = |port: &ServicePort| {
            Protocol::parse(port.protocol.as_deref()).is_some_and(|protocol| protocol == Protocol::Tcp)
        };
        if entry.spec.ports.iter().any(takes_tcp) {
            let message = "TCP is matched by the address that a captured client meant to reach, and no listener has \
                           `capture`; its ports never match";
            Scope::new(&entry.origin, report).warning(code::UNREACHABLE, "spec.addresses", message);
        }
    }
    for object in &objects.virtual_services {
        let scope = &mut Scope::new(&object.origin, report);
        let tls = object.spec.tls.iter().enumerate().flat_map(|(rule, tls)| {
            tls.matches.iter().enumerate().map(move |(at, names)| ("tls", rule, at, &names.destination_subnets))
        });
        let tcp = object.spec.tcp.iter().enumerate().flat_map(|(rule, tcp)| {
            tcp.matches.iter().enumerate().map(move |(at, tcp)| ("tcp", rule, at, &tcp.destination_subnets))
        });
        for (kind, rule, at, _) in tls.chain(tcp).filter(|(.., subnets)| !subnets.is_empty()) {
            let field = format!("spec.{kind}[{rule}].match[{at}].destinationSubnets");
            scope.warning(code::UNREACHABLE, field, message);
        }
    }
}

/// Two services for one address or for the whole of one port: the oldest has it.
pub(super) fn tcp_conflicts(registry: &Registry<'_>, report: &mut Report) {
    let mut holders: HashMap<(u16, Option<IpNet>), (&str, &Origin)> = HashMap::new();
    for (_, service) in registry.services.iter() {
        for port in service.ports.iter().filter(|port| takes_tcp(port)) {
            let mut ranges: Vec<Option<IpNet>> = port.entry.spec.ranges().map(|range| Some(range.trunc())).collect();
            if ranges.is_empty() {
                ranges.push(None);
            }
            for range in ranges {
                let (host, by) = *holders.entry((port.number, range)).or_insert((service.host, &port.entry.origin));
                if host == service.host {
                    continue;
                }
                let what = range.map_or_else(|| "what no address claims".to_owned(), |range| range.to_string());
                let object = &by.object;
                let message = format!(
                    "TCP to {what} at port {} belongs to {host}, by {}/{} ({}), which holds",
                    port.number,
                    object.namespace(),
                    object.name(),
                    object.source()
                );
                Scope::new(&port.entry.origin, report).warning(code::CONFLICT, "spec.ports", message);
            }
        }
    }
}

/// A destination that is the gateway itself would be a loop, or a way to the admin.
pub(super) fn own_addresses(
    objects: &Objects,
    registry: &Registry<'_>,
    bootstrap: &Bootstrap,
    settings: &Settings,
    report: &mut Report,
) {
    let judge = |address: SocketAddr| settings.addresses.judge_configured(address).is_err();
    let hosts: HashMap<&HostName, &[IpAddr]> =
        bootstrap.dns.hosts.iter().map(|(name, addresses)| (name, addresses.as_slice())).collect();
    for entry in &objects.service_entries {
        endpoints(entry, registry, &hosts, &judge, report);
    }
    for (name, addresses) in &bootstrap.dns.hosts {
        let pattern = HostPattern::Exact(name.clone());
        let declared = registry.services.declared(&pattern).into_iter();
        for id in declared.chain(registry.services.covering(&pattern)) {
            for port in registry.services.service(id).ports.iter().filter(|port| dials_hosts(port)) {
                let mut own = addresses.iter().map(|ip| SocketAddr::new(*ip, port.target())).filter(|own| judge(*own));
                if let Some(own) = own.next() {
                    refuse(&port.entry.origin, "spec.hosts", &format!("dns.hosts leads {name} to {own}"), report);
                }
            }
        }
    }
}

/// Whether connections of this port go to the service's own name.
fn dials_hosts(port: &ServicePortEntry<'_>) -> bool {
    port.resolution() != Resolution::Static && port.entry.spec.endpoints.is_empty()
}

fn endpoints(
    entry: &Object<ServiceEntry>,
    registry: &Registry<'_>,
    hosts: &HashMap<&HostName, &[IpAddr]>,
    judge: &impl Fn(SocketAddr) -> bool,
    report: &mut Report,
) {
    if entry.spec.endpoints.is_empty() {
        return;
    }
    let services = entry.spec.hosts.iter().filter_map(|host| registry.services.named(host));
    let ports: Vec<&ServicePortEntry<'_>> = services
        .flat_map(|id| &registry.services.service(id).ports)
        .filter(|port| std::ptr::eq(port.entry, entry))
        .collect();
    for (index, endpoint) in entry.spec.endpoints.iter().enumerate() {
        let text = endpoint.address.as_deref().unwrap_or_default();
        let addresses = match (text.parse::<IpAddr>(), text.parse::<HostName>()) {
            (Ok(ip), _) => vec![ip],
            (Err(_), Ok(name)) => hosts.get(&name).map(|addresses| addresses.to_vec()).unwrap_or_default(),
            (Err(_), Err(_)) => Vec::new(),
        };
        for port in &ports {
            let mut own = addresses.iter().map(|ip| SocketAddr::new(*ip, dial_port(endpoint, port)));
            if let Some(own) = own.find(|own| judge(*own)) {
                let field = format!("spec.endpoints[{index}].address");
                refuse(&entry.origin, &field, &format!("the endpoint is {own}"), report);
            }
        }
    }
}

fn refuse(origin: &Origin, field: &str, what: &str, report: &mut Report) {
    let message = format!("{what}, one of the gateway's own listeners or its admin address");
    Scope::new(origin, report).error_with(code::OWN_ADDRESS, field, message);
}
