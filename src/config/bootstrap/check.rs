//! What the values of the bootstrap file must be.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::{ADMIN_BIND, AdminBind, Bootstrap, DRAIN_TIMEOUT, Dns, Scope, Tls, file, headers, limits};
use crate::config::istio::scalar::parse_duration;
use crate::config::{local, mesh};
use crate::limits::{SPIN_MAX, TIMEOUT_MAX};
use crate::route::address::AddressPolicy;
use crate::route::host::{HostName, HostPattern};
use crate::snapshot::{Ech, Settings};
use crate::worker::{DriverChoice, ListenerSpec, ServicePort};

/// Most workers: more threads than any machine this runs on has CPUs.
const WORKERS_MAX: usize = 1024;

/// Judges every value; a bad one is reported and replaced by its default.
pub(super) fn check(file: file::File, folder: &Path, scope: &mut Scope<'_>) -> (Bootstrap, Settings) {
    let mesh = file.mesh_config.unwrap_or_default();
    let listeners = listeners(file.listeners.unwrap_or_default(), scope);
    let admin = admin(file.admin.and_then(|admin| admin.bind), folder, scope);
    let mut refuse = |field: &str, message: String| scope.error(&format!("meshConfig.{field}"), message);
    let mesh = mesh::judge(&mesh, folder, &mut refuse);
    // What MeshConfig says is settled when the resources are known, which may hold some too.
    let settings = Settings {
        addresses: addresses(file.address_policy.unwrap_or_default(), &listeners, &admin, scope),
        fields: headers::check(&file.headers.unwrap_or_default(), scope),
        ech: ech(file.tls.as_ref().and_then(|tls| tls.ech.as_deref()), scope),
        limits: limits::check(&file.limits.unwrap_or_default(), scope),
        ..Settings::default()
    };
    let bootstrap = Bootstrap {
        workers: workers(file.workers, scope),
        driver: driver(file.io_driver.as_deref(), scope),
        spin: spin(file.spin.as_deref(), scope),
        listeners,
        resources: resources(file.resources.unwrap_or_default(), folder, scope),
        gateway_services: gateway_services(&file.gateway_services.unwrap_or_default(), scope),
        watch: file.watch.unwrap_or(false),
        mesh,
        access_log_file: None,
        dns: dns(file.dns.unwrap_or_default(), scope),
        tls: tls(file.tls.unwrap_or_default(), folder, scope),
        admin,
        drain_timeout: {
            let timeout = file.drain.and_then(|drain| drain.timeout);
            duration(timeout.as_deref(), "drain.timeout", DRAIN_TIMEOUT, TIMEOUT_MAX, scope)
        },
    };
    (bootstrap, settings)
}

fn workers(workers: Option<usize>, scope: &mut Scope<'_>) -> usize {
    let workers = workers.unwrap_or(0);
    if workers > WORKERS_MAX {
        scope.error("workers", format!("must be from 0 to {WORKERS_MAX}"));
    }
    workers.min(WORKERS_MAX)
}

fn driver(driver: Option<&str>, scope: &mut Scope<'_>) -> DriverChoice {
    let choices = [("auto", DriverChoice::Auto), ("io_uring", DriverChoice::IoUring), ("epoll", DriverChoice::Epoll)];
    choice(driver, "ioDriver", &choices, DriverChoice::Auto, scope)
}

fn spin(spin: Option<&str>, scope: &mut Scope<'_>) -> Duration {
    match spin.map(parse_duration) {
        None => Duration::ZERO,
        Some(Some(spin)) if spin <= SPIN_MAX => spin,
        Some(Some(_) | None) => {
            scope.error("spin", format!("must be a duration from 0 to {}us", SPIN_MAX.as_micros()));
            Duration::ZERO
        }
    }
}

/// One of the words, or the default where there is none.
pub(super) fn choice<T: Copy>(
    word: Option<&str>,
    field: &str,
    choices: &[(&str, T)],
    default: T,
    scope: &mut Scope<'_>,
) -> T {
    let Some(word) = word else { return default };
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
        return *value;
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    scope.error(field, format!("unknown value {word:?}; it must be one of {}", names.join(", ")));
    default
}

fn duration(text: Option<&str>, field: &str, default: Duration, most: Duration, scope: &mut Scope<'_>) -> Duration {
    let Some(text) = text else { return default };
    match parse_duration(text) {
        Some(duration) if duration >= Duration::from_millis(1) && duration <= most => return duration,
        Some(_) => scope.error(field, format!("must be from 1ms to {}s", most.as_secs())),
        None => scope.error(field, format!("{text:?} is not a duration such as 10s or 1h")),
    }
    default
}

fn listeners(entries: Vec<file::Listener>, scope: &mut Scope<'_>) -> Vec<ListenerSpec> {
    if entries.is_empty() {
        scope.error("listeners", "needs at least one listener");
    }
    let mut specs: Vec<ListenerSpec> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let field = format!("listeners[{index}]");
        let Some(spec) = listener(entry, &field, scope) else { continue };
        if specs.iter().any(|known| known.name == spec.name) {
            scope.error(&format!("{field}.name"), format!("another listener is named {:?}", spec.name));
        }
        if specs.iter().any(|known| known.bind == spec.bind) {
            scope.error(&format!("{field}.bind"), format!("another listener binds {}", spec.bind));
        }
        specs.push(spec);
    }
    specs
}

fn listener(entry: file::Listener, field: &str, scope: &mut Scope<'_>) -> Option<ListenerSpec> {
    let name = entry.name.unwrap_or_default();
    if name.is_empty() {
        scope.error(&format!("{field}.name"), "the listener needs a name");
    }
    let bind_field = format!("{field}.bind");
    let Some(bind) = entry.bind else {
        scope.error(&bind_field, "the listener needs an address such as 127.0.0.1:8443");
        return None;
    };
    let bind = address(&bind, &bind_field, scope)?;
    // Every worker binds its own socket: port 0 would give each a different one.
    if bind.port() == 0 {
        scope.error(&bind_field, "the port must be in the range 1..65535");
    }
    let service = service_port(entry.service_port, entry.capture.as_deref(), bind, field, scope);
    let gateway = entry.gateway.unwrap_or(false);
    if gateway && service.fixed().is_none() {
        let message = "captured traffic belongs to the mesh; a listener for Gateways has a servicePort";
        scope.error(&format!("{field}.gateway"), message);
    }
    Some(ListenerSpec { name: name.into_boxed_str(), bind, service, gateway })
}

fn service_port(
    number: Option<u16>,
    capture: Option<&str>,
    bind: SocketAddr,
    field: &str,
    scope: &mut Scope<'_>,
) -> ServicePort {
    let choices = [("REDIRECT", ServicePort::Redirected), ("TPROXY", ServicePort::Transparent)];
    let port = ServicePort::Fixed(number.unwrap_or(bind.port()));
    let service = choice(capture, &format!("{field}.capture"), &choices, port, scope);
    let number_field = format!("{field}.servicePort");
    match service {
        ServicePort::Fixed(0) => scope.error(&number_field, "the port must be in the range 1..65535"),
        ServicePort::Redirected | ServicePort::Transparent if number.is_some() => {
            scope.error(&number_field, "the service port of captured traffic is that of its original destination");
        }
        ServicePort::Fixed(_) | ServicePort::Redirected | ServicePort::Transparent => {}
    }
    service
}

fn address(text: &str, field: &str, scope: &mut Scope<'_>) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        scope.error(field, format!("{text:?} is not an address such as 127.0.0.1:8443 or [::1]:8443"));
    }
    address
}

fn admin(bind: Option<String>, folder: &Path, scope: &mut Scope<'_>) -> AdminBind {
    let Some(bind) = bind else { return AdminBind::Tcp(ADMIN_BIND) };
    match bind.strip_prefix("unix:") {
        Some("") => scope.error("admin.bind", "unix: needs a path"),
        Some(path) => return AdminBind::Unix(folder.join(path)),
        None => {
            if let Some(address) = address(&bind, "admin.bind", scope) {
                if !address.ip().is_loopback() {
                    scope.warning("admin.bind", "whoever reaches this address may reload and drain the gateway");
                }
                return AdminBind::Tcp(address);
            }
        }
    }
    AdminBind::Tcp(ADMIN_BIND)
}

fn resources(entries: Vec<PathBuf>, folder: &Path, scope: &mut Scope<'_>) -> Vec<PathBuf> {
    if entries.is_empty() {
        scope.error("resources", "needs at least one file or folder of Istio resources");
    }
    let resources: Vec<PathBuf> = entries.into_iter().map(|entry| folder.join(entry)).collect();
    for (index, path) in resources.iter().enumerate() {
        if let Err(error) = std::fs::metadata(path) {
            scope.error(&format!("resources[{index}]"), format!("{}: {error}", path.display()));
        }
    }
    resources.into_iter().filter(|path| path.exists()).collect()
}

fn gateway_services(hosts: &[String], scope: &mut Scope<'_>) -> Vec<HostPattern> {
    let mut patterns = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        match HostPattern::parse(host) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => scope.error(&format!("gatewayServices[{index}]"), format!("{host:?}: {error}")),
        }
    }
    patterns
}

fn addresses(
    policy: file::AddressPolicy,
    listeners: &[ListenerSpec],
    admin: &AdminBind,
    scope: &mut Scope<'_>,
) -> AddressPolicy {
    let mut own: Vec<SocketAddr> = listeners.iter().map(|listener| listener.bind).collect();
    if let AdminBind::Tcp(address) = admin {
        own.push(*address);
    }
    let local = if own.iter().any(|address| address.ip().is_unspecified()) { local::addresses() } else { Vec::new() };
    AddressPolicy {
        allow: ranges(policy.allow, "addressPolicy.allow", scope),
        deny: ranges(policy.deny, "addressPolicy.deny", scope),
        own,
        local,
    }
}

fn ranges(texts: Option<Vec<String>>, field: &str, scope: &mut Scope<'_>) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for (index, text) in texts.unwrap_or_default().iter().enumerate() {
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(range) => ranges.push(range),
            Err(_) => scope.error(&format!("{field}[{index}]"), format!("{text:?} is not a range such as 10.0.0.0/8")),
        }
    }
    ranges
}

fn dns(dns: file::Dns, scope: &mut Scope<'_>) -> Dns {
    let mut servers = Vec::new();
    for (index, text) in dns.servers.unwrap_or_default().iter().enumerate() {
        let field = format!("dns.servers[{index}]");
        let with_port = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)));
        match with_port {
            Ok(server) => servers.push(server),
            Err(_) => scope.error(&field, format!("{text:?} is not an address such as 192.0.2.53:53")),
        }
    }
    let mut hosts = Vec::new();
    for (name, addresses) in dns.hosts.unwrap_or_default() {
        hosts.extend(dns_host(&name, &addresses, scope));
    }
    Dns { servers, hosts }
}

fn dns_host(name: &str, texts: &[String], scope: &mut Scope<'_>) -> Option<(HostName, Vec<IpAddr>)> {
    let field = format!("dns.hosts.{name}");
    let mut addresses = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => scope.error(&field, format!("{text:?} is not an IP address")),
        }
    }
    if texts.is_empty() {
        scope.error(&field, "needs at least one address");
    }
    match name.parse() {
        Ok(host) => Some((host, addresses)),
        Err(error) => {
            scope.error(&field, format!("{name:?}: {error}"));
            None
        }
    }
}

fn ech(word: Option<&str>, scope: &mut Scope<'_>) -> Ech {
    let choices = [("allow", Ech::Allow), ("log", Ech::Log), ("deny", Ech::Deny)];
    choice(word, "tls.ech", &choices, Ech::default(), scope)
}

fn tls(tls: file::Tls, folder: &Path, scope: &mut Scope<'_>) -> Tls {
    let verification = tls.server_name_verification.as_deref();
    let choices = [("STRICT", true), ("ISTIO", false)];
    Tls {
        ca_certificates: tls.ca_certificates.filter(|path| !path.is_empty()).map(|path| folder.join(path)),
        strict_names: choice(verification, "tls.serverNameVerification", &choices, true, scope),
        credentials: folder.join(tls.credentials.unwrap_or_else(|| PathBuf::from("credentials"))),
    }
}
