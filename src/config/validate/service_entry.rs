//! ServiceEntry (pilot's ValidateServiceEntry).

use std::collections::HashSet;
use std::net::IpAddr;

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::service_entry::{Protocol, Resolution, ServiceEntry, ServicePort, WorkloadEntry};
use crate::route::host::{HostName, HostPattern};

use super::{export_to, host, is_label, port};

/// Most hosts of one entry, as the schema of Istio's API says.
const HOSTS_MAX: usize = 256;

pub(super) fn validate(entry: &ServiceEntry, scope: &mut Scope<'_>) {
    hosts(entry, scope);
    addresses(entry, scope);
    ports(entry, scope);
    endpoints(entry, scope);
    if entry.workload_selector.is_some() {
        let message = "workloadSelector selects pods, and there are none here; use endpoints";
        scope.refuse("spec.workloadSelector", message);
        if !entry.endpoints.is_empty() {
            scope.error("spec", "only one of WorkloadSelector or Endpoints is allowed in Service Entry");
        }
    }
    several_hosts(entry, scope);
    export_to(&entry.export_to, scope);
}

fn resolution(entry: &ServiceEntry) -> Resolution {
    entry.resolution.unwrap_or_default()
}

fn hosts(entry: &ServiceEntry, scope: &mut Scope<'_>) {
    if entry.hosts.is_empty() {
        scope.error("spec.hosts", "service entry must have at least one host");
    }
    if entry.hosts.len() > HOSTS_MAX {
        scope.error("spec.hosts", format!("must have at most {HOSTS_MAX} hosts"));
    }
    for (index, text) in entry.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        if let Some(pattern) = host::pattern(text, &field, scope) {
            host_resolution(entry, &pattern, &field, scope);
        }
    }
    host::duplicates(&entry.hosts, "spec.hosts", scope);
}

fn host_resolution(entry: &ServiceEntry, pattern: &HostPattern, field: &str, scope: &mut Scope<'_>) {
    match resolution(entry) {
        Resolution::Dns | Resolution::DnsRoundRobin if pattern.is_wildcard() && entry.endpoints.is_empty() => {
            let message = "hosts must be FQDN if no endpoints are provided for resolution mode DNS; \
                           for the names below a wildcard use DYNAMIC_DNS";
            scope.error(field, message);
        }
        Resolution::DynamicDns if !pattern.is_wildcard() => {
            scope.error(field, "host must be wildcarded for resolution mode DYNAMIC_DNS");
        }
        Resolution::None
        | Resolution::Static
        | Resolution::Dns
        | Resolution::DnsRoundRobin
        | Resolution::DynamicDns => {}
    }
}

/// Where only the address tells hosts apart, an entry can be for one of them.
fn several_hosts(entry: &ServiceEntry, scope: &mut Scope<'_>) {
    let is_blind =
        |port: &ServicePort| matches!(Protocol::parse(port.protocol.as_deref()), Some(Protocol::Tcp | Protocol::Udp));
    if resolution(entry) != Resolution::None && entry.hosts.len() > 1 && entry.ports.iter().any(is_blind) {
        scope.error("spec.hosts", "multiple hosts provided with non-HTTP, non-TLS ports");
    }
}

fn addresses(entry: &ServiceEntry, scope: &mut Scope<'_>) {
    for (index, text) in entry.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        let is_range = text.parse::<ipnet::IpNet>().is_ok();
        if text.parse::<IpAddr>().is_err() && !is_range {
            scope.error(field, format!("address {text:?} is neither an IP address nor a CIDR"));
        } else if is_range && !matches!(resolution(entry), Resolution::None | Resolution::Static) {
            scope.error(field, "CIDR addresses are allowed only for NONE/STATIC resolution types");
        }
    }
    if resolution(entry) == Resolution::DynamicDns && !entry.addresses.is_empty() {
        scope.error("spec.addresses", "no addresses should be provided for resolution mode DYNAMIC_DNS");
    }
}

fn ports(entry: &ServiceEntry, scope: &mut Scope<'_>) {
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    if entry.ports.is_empty() {
        scope.warning(code::UNREACHABLE, "spec.ports", "without ports the service entry opens nothing");
    }
    for (index, entry_port) in entry.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let name = entry_port.name.as_deref().unwrap_or_default();
        if !is_label(name) {
            scope.error(format!("{field}.name"), format!("invalid port name: {name:?}"));
        } else if !names.insert(name) {
            scope.error(format!("{field}.name"), format!("service entry port name {name:?} already defined"));
        }
        if let Some(number) = port(entry_port.number, &format!("{field}.number"), scope)
            && !numbers.insert(number)
        {
            scope.error(format!("{field}.number"), format!("service entry port {number} already defined"));
        }
        if entry_port.target_port.is_some() {
            port(entry_port.target_port, &format!("{field}.targetPort"), scope);
        }
        protocol(entry, entry_port, &format!("{field}.protocol"), scope);
    }
}

fn protocol(entry: &ServiceEntry, port: &ServicePort, field: &str, scope: &mut Scope<'_>) {
    let word = port.protocol.as_deref().unwrap_or_default();
    let Some(protocol) = Protocol::parse(Some(word)) else {
        scope.error(field, format!("unsupported protocol: {word}"));
        return;
    };
    match protocol {
        Protocol::Udp => scope.warning(code::UNREACHABLE, field, "UDP is not carried; this port never matches"),
        Protocol::Tcp if entry.addresses.is_empty() => tcp_without_addresses(entry, word, field, scope),
        Protocol::Http | Protocol::Http2 | Protocol::Tls | Protocol::Tcp | Protocol::Any => {}
    }
    if resolution(entry) == Resolution::DynamicDns && matches!(protocol, Protocol::Tcp | Protocol::Udp) {
        scope.error(field, "only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution mode DYNAMIC_DNS");
    }
}

fn tcp_without_addresses(entry: &ServiceEntry, word: &str, field: &str, scope: &mut Scope<'_>) {
    if resolution(entry) == Resolution::None {
        let message = format!(
            "{word} with resolution NONE leads to the original destination, if it lies in addresses; without addresses \
             this port never matches"
        );
        scope.warning(code::UNREACHABLE, field, message);
    } else {
        let message = format!(
            "{word} without addresses takes every connection to the port that no other service entry takes, whatever \
             its host"
        );
        scope.warning(code::WHOLE_PORT, field, message);
    }
}

fn endpoints(entry: &ServiceEntry, scope: &mut Scope<'_>) {
    let count = entry.endpoints.len();
    match resolution(entry) {
        Resolution::None if count > 0 => {
            scope.error("spec.endpoints", "no endpoints should be provided for resolution type none");
        }
        Resolution::DynamicDns if count > 0 => {
            scope.error("spec.endpoints", "no endpoints should be provided for resolution mode DYNAMIC_DNS");
        }
        Resolution::DnsRoundRobin if count > 1 => {
            let message = "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN";
            scope.error("spec.endpoints", message);
        }
        Resolution::Static if count == 0 => {
            scope.warning(
                code::UNREACHABLE,
                "spec.endpoints",
                "STATIC without endpoints answers every request with 503 UH",
            );
        }
        Resolution::None
        | Resolution::Static
        | Resolution::Dns
        | Resolution::DnsRoundRobin
        | Resolution::DynamicDns => {}
    }
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        let field = format!("spec.endpoints[{index}]");
        endpoint_address(entry, endpoint, &format!("{field}.address"), scope);
        endpoint_ports(entry, endpoint, &field, scope);
        let fields = [("network", endpoint.network.is_some()), ("locality", endpoint.locality.is_some())];
        scope.warn_present(&field, fields);
        if endpoint.weight.is_some_and(|weight| u32::try_from(weight).is_err()) {
            scope.error(format!("{field}.weight"), "weight must be from 0 to 4294967295");
        }
    }
    mixture(entry, scope);
}

fn endpoint_address(entry: &ServiceEntry, endpoint: &WorkloadEntry, field: &str, scope: &mut Scope<'_>) {
    let address = endpoint.address.as_deref().unwrap_or_default();
    if address.starts_with("unix:") {
        scope.refuse(field, "unix sockets as endpoints are not supported yet");
        return;
    }
    let is_ip = address.parse::<IpAddr>().is_ok();
    match resolution(entry) {
        Resolution::Static if !is_ip => {
            scope.error(field, format!("endpoint address {address:?} is not a valid IP address"));
        }
        Resolution::Dns | Resolution::DnsRoundRobin if !is_ip && address.parse::<HostName>().is_err() => {
            scope.error(field, format!("endpoint address {address:?} is not a valid FQDN or an IP address"));
        }
        Resolution::None
        | Resolution::Static
        | Resolution::Dns
        | Resolution::DnsRoundRobin
        | Resolution::DynamicDns => {}
    }
}

fn endpoint_ports(entry: &ServiceEntry, endpoint: &WorkloadEntry, field: &str, scope: &mut Scope<'_>) {
    for (name, number) in endpoint.ports.iter() {
        let field = format!("{field}.ports.{name}");
        if !entry.ports.iter().any(|port| port.name.as_deref() == Some(name)) {
            scope.error(&*field, format!("endpoint port {name} is not defined by the service entry"));
        }
        port(number.0, &field, scope);
    }
}

/// Names under DNS are subject to the address policy, addresses are not: one cluster cannot be both.
fn mixture(entry: &ServiceEntry, scope: &mut Scope<'_>) {
    let is_dns = matches!(resolution(entry), Resolution::Dns | Resolution::DnsRoundRobin);
    let addresses = entry.endpoints.iter().filter_map(|endpoint| endpoint.address.as_deref());
    let count = addresses.filter(|address| address.parse::<IpAddr>().is_ok()).count();
    if is_dns && count > 0 && count < entry.endpoints.len() {
        scope.refuse("spec.endpoints", "addresses and names side by side are not supported; use two service entries");
    }
}
