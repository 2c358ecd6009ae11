//! Servers of Gateways that clients with TLS of their own choose by its server name, and what is found behind those at
//! which it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::finding::code;
use crate::config::istio::gateway::{Gateway, Server};
use crate::config::istio::service_entry::Protocol;
use crate::config::istio::{Object, Scope};
use crate::config::registry::{Admitted, Takes, entrance};
use crate::route::table::{GatewayHosts, VirtualHost};
use crate::route::termination::{Inside, ServerProfile, Termination, TlsServer};

use super::gateways::{add, entrance_of, hosts, insert};
use super::{Clusters, Compiler, Entrance};

impl<'a> Compiler<'a, '_> {
    /// Every server that takes TLS. Of two for one name the first has it: that of the oldest Gateway.
    pub(super) fn tls_servers(&mut self) {
        for gateway in &self.objects.gateways {
            for (number, server) in gateway.spec.servers.iter().enumerate() {
                let protocol = server.port.as_ref().and_then(|port| Protocol::parse(port.protocol.as_deref()));
                if let (Some((port, takes)), Some(Protocol::Tls)) = (entrance(server), protocol) {
                    let known = self.tls_server(gateway, (number, server), port, takes);
                    let index = u32::try_from(self.tls_servers.len()).unwrap_or(u32::MAX);
                    for host in server.hosts.iter().filter_map(|host| Admitted::parse(host.rsplit('/').next()?)) {
                        insert(&mut self.gateway_port(port).servers, &host, index);
                    }
                    self.tls_servers.push(known);
                }
            }
        }
    }

    fn tls_server(
        &mut self,
        gateway: &'a Object<Gateway>,
        (number, server): (usize, &'a Server),
        port: u16,
        takes: Takes,
    ) -> TlsServer {
        match takes {
            Takes::Tls => TlsServer::Through,
            takes if takes.ends_tls_of_clients() => {
                let profile = self.server_profile(gateway, (number, server), port, !takes.is_tcp());
                let inside = match takes.is_tcp() {
                    true => self.tcp_within(gateway, server, port),
                    false => Some(Inside::Http(self.hosts_within(gateway, server, port))),
                };
                let Some((profile, inside)) = profile.zip(inside) else { return TlsServer::Closed };
                let gateway = Arc::clone(&gateway.origin.object);
                TlsServer::Terminating(Box::new(Termination { gateway, profile, inside }))
            }
            Takes::TcpInTls(_) => {
                self.tcp_within(gateway, server, port);
                TlsServer::Closed
            }
            Takes::Http | Takes::HttpInTls(_) | Takes::Tcp | Takes::Nothing => TlsServer::Closed,
        }
    }

    /// The hosts of the VirtualServices that are bound to this Gateway, as far as this server admits them. Kept apart from
    /// those of other servers, whose clients may have had to show more.
    fn hosts_within(&mut self, gateway: &'a Object<Gateway>, server: &'a Server, port: u16) -> GatewayHosts {
        let mut found = GatewayHosts::default();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for rules in self.registry.gateways.bound(gateway).iter().filter(|rules| !rules.spec.http.is_empty()) {
            for host in hosts(gateway, server, rules) {
                let mut objects = self.gateway_objects(&host, &[&gateway.origin.object, &rules.origin.object]);
                add(&mut objects, rules.spec.delegates.iter().map(Arc::clone));
                let routes = self.routes(rules, Entrance { is_in_tls: true, ..entrance_of(gateway, port, &host) });
                match known.get(&host.to_string()) {
                    Some(index) => {
                        add(&mut self.virtual_hosts[*index].objects, objects);
                        self.virtual_hosts[*index].routes.extend(routes);
                    }
                    None => {
                        let index = self.virtual_hosts.len();
                        self.virtual_hosts.push(VirtualHost { host: host.to_string().into(), objects, routes });
                        insert(&mut found, &host, u32::try_from(index).unwrap_or(u32::MAX));
                        known.insert(host.to_string(), index);
                    }
                }
            }
        }
        found
    }

    /// What a server shows. Where no listener leads to it, nothing is lost if that cannot be read.
    fn server_profile(
        &mut self,
        gateway: &Object<Gateway>,
        (number, server): (usize, &Server),
        port: u16,
        speaks_http: bool,
    ) -> Option<Arc<ServerProfile>> {
        let tls = server.tls.as_ref()?;
        let Clusters { credentials, generation, report, .. } = &mut self.clusters;
        let scope = &mut Scope::new(&gateway.origin, report);
        let field = format!("spec.servers[{number}].tls");
        match credentials.server(tls, &gateway.origin, speaks_http, generation) {
            Ok(profile) => {
                let ended = profile.identity_end.filter(|end| *end <= SystemTime::now());
                if let Some(ended) = ended.and_then(|ended| jiff::Timestamp::try_from(ended).ok()) {
                    let message = format!("the server certificate has ended on {ended}; clients will refuse it");
                    scope.warning(code::CREDENTIAL, field, message);
                }
                Some(profile)
            }
            Err(fault) => {
                let field = format!("{field}.{}", fault.field);
                if self.gateway_listeners.contains(&port) {
                    scope.error_with(code::CREDENTIAL, field, fault.reason);
                } else {
                    let message = format!("{}; no listener for Gateways has port {port}", fault.reason);
                    scope.warning(code::CREDENTIAL, field, message);
                }
                None
            }
        }
    }
}
