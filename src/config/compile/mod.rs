//! Checked objects → route tables. What the validation has refused never gets here in force: whoever calls this
//! looks at the findings first.

mod authorization;
mod clusters;
mod gateway_tcp;
mod gateways;
mod http;
mod matching;
mod tcp;
mod termination;
mod tls;
mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::route::host::HostPattern;
use crate::route::http::RetryPolicy;
use crate::route::table::{GatewayPort, PortTries, RouteTable, Survivors, Tables, TcpHost, TlsHost, VirtualHost};
use crate::route::termination::TlsServer;
use crate::snapshot::Settings;

use super::bootstrap::Bootstrap;
use super::finding::Report;
use super::identity::Generation;
use super::istio::Objects;
use super::mesh::Settled;
use super::registry::{Place, Registry};

use clusters::{Clusters, exact};

pub(super) use clusters::{dial_port, gateway_namespace};
pub(super) use http::{is_authority, retry};
pub(super) use matching::regex;
pub(super) use tcp::takes_tcp;

/// Compiles the objects. Credentials that cannot be read are reported.
pub(super) fn compile<'a>(
    objects: &'a Objects,
    registry: &'a Registry<'a>,
    bootstrap: &'a Bootstrap,
    settings: &Settings,
    mesh: &'a Settled,
    generation: &'a mut Generation<'_>,
    report: &'a mut Report,
) -> RouteTable {
    let ports = registry.services.iter().flat_map(|(_, service)| &service.ports);
    let tls_ports = ports.filter(|port| port.protocol.takes_tls());
    let mut compiler = Compiler {
        objects,
        registry,
        clusters: Clusters::new(objects, registry, bootstrap, settings.connect_timeout, mesh, generation, report),
        default_retry: &mesh.retry,
        ports: BTreeMap::new(),
        gateway_ports: BTreeMap::new(),
        gateway_listeners: gateways::listeners(bootstrap),
        tls_servers: Vec::new(),
        virtual_hosts: Vec::new(),
        tls_hosts: Vec::with_capacity(tls_ports.count()),
        tcp_hosts: Vec::new(),
    };
    compiler.http();
    compiler.tls();
    compiler.gateways();
    compiler.tls_servers();
    compiler.tcp();
    compiler.aliases();
    let (authorization, judged) = authorization::compile(&objects.authorization_policies);
    let (clusters, cluster_rules) = compiler.clusters.into_lists();
    let tables = Tables {
        path_policy: judged.paths || http::routes_by_path(objects),
        method_policy: judged.methods || http::routes_by_method(objects),
        virtual_hosts: exact(compiler.virtual_hosts),
        tls_hosts: exact(compiler.tls_hosts),
        survivors: Survivors::of(&clusters, &compiler.tls_servers),
        tls_servers: compiler.tls_servers,
        tcp_hosts: compiler.tcp_hosts,
        clusters,
        cluster_rules,
        gateways: compiler.gateway_ports.into_values().collect(),
        authorization,
    };
    RouteTable { ports: compiler.ports.into_values().collect(), tables: Arc::new(tables) }
}

/// What a rule is compiled for.
#[derive(Clone, Copy, Debug)]
struct Entrance<'e> {
    /// The host that requests name; `None`: any.
    pattern: Option<&'e HostPattern>,
    /// The service port, or that of a Gateway's server.
    port: u16,
    /// Whether they come from clients, or through which Gateway.
    place: Place<'e>,
    /// Whether they are requests that have come to us within TLS.
    is_in_tls: bool,
}

impl<'e> Entrance<'e> {
    /// A listener, to which clients come.
    fn mesh(pattern: &'e HostPattern, port: u16) -> Self {
        Self { pattern: Some(pattern), port, place: Place::Mesh, is_in_tls: false }
    }
}

/// Tables under construction.
struct Compiler<'a, 'g> {
    objects: &'a Objects,
    registry: &'a Registry<'a>,
    clusters: Clusters<'a, 'g>,
    /// For routes that say nothing about retries.
    default_retry: &'a RetryPolicy,
    ports: BTreeMap<u16, PortTries>,
    gateway_ports: BTreeMap<u16, GatewayPort>,
    /// The ports of listeners for Gateways.
    gateway_listeners: Vec<u16>,
    tls_servers: Vec<TlsServer>,
    virtual_hosts: Vec<VirtualHost>,
    tls_hosts: Vec<TlsHost>,
    tcp_hosts: Vec<TcpHost>,
}

impl Compiler<'_, '_> {
    fn port(&mut self, port: u16) -> &mut PortTries {
        self.ports.entry(port).or_insert_with(|| PortTries { port, ..PortTries::default() })
    }

    /// Adds a host that takes plain HTTP, unless the port has it already: the first declaration stays.
    fn add_virtual_host(&mut self, port: u16, pattern: &HostPattern, host: VirtualHost) {
        let index = u32::try_from(self.virtual_hosts.len()).unwrap_or(u32::MAX);
        if self.port(port).http.insert(pattern, index).is_ok() {
            self.virtual_hosts.push(host);
        }
    }

    /// Adds a host that takes TLS, unless the port has it already.
    fn add_tls_host(&mut self, port: u16, pattern: &HostPattern, host: TlsHost) {
        let index = u32::try_from(self.tls_hosts.len()).unwrap_or(u32::MAX);
        if self.port(port).tls.insert(pattern, index).is_ok() {
            self.tls_hosts.push(host);
        }
    }
}
