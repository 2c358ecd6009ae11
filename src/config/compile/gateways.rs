//! Servers of Gateways → the hosts that they admit, and what their VirtualServices say of those.
//!
//! Unlike those of the mesh, the VirtualServices that are bound to a Gateway are merged: of one host, the rules of the
//! oldest come first. A server with `httpsRedirect` sends all its clients to HTTPS instead.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::bootstrap::Bootstrap;
use crate::config::istio::Object;
use crate::config::istio::gateway::{Gateway, Server};
use crate::config::istio::virtual_service::VirtualService;
use crate::config::registry::{Admitted, Place, Takes, admitted, entrance};
use crate::route::http::{HttpAction, HttpRoute, Redirect};
use crate::route::table::{GatewayHosts, GatewayPort, ObjectRef, ObjectRefs, TlsHost, VirtualHost};
use crate::wire::http1::FieldEdits;

use super::{Compiler, Entrance};

/// What the access log shows as %ROUTE_NAME% of requests that a server sends to HTTPS.
const REDIRECT_NAME: &str = "https_redirect";

/// Where a host stands in the tables, for its rules to be merged.
type Known = BTreeMap<(u16, bool, String), u32>;

impl<'a> Compiler<'a, '_> {
    /// Every server of every Gateway.
    pub(super) fn gateways(&mut self) {
        let (mut http, mut tls) = (Known::new(), Known::new());
        let gateways = &self.objects.gateways;
        let servers = || gateways.iter().flat_map(|it| it.spec.servers.iter().map(move |server| (it, server)));
        // These come first: a host that one server sends to HTTPS is opened by no other on the port.
        for (gateway, server) in servers().filter(|(_, server)| is_redirecting(server)) {
            if let Some((port, Takes::Http)) = entrance(server) {
                self.gateway_redirects(gateway, server, port, &mut http);
            }
        }
        for (gateway, server) in servers() {
            match entrance(server) {
                Some((_, Takes::Http)) if is_redirecting(server) => {}
                Some((port, takes @ (Takes::Http | Takes::HttpInTls(_)))) => {
                    self.gateway_http(gateway, server, (port, takes == Takes::Http), &mut http);
                }
                Some((port, Takes::Tls)) => self.gateway_tls(gateway, server, port, &mut tls),
                Some((port, Takes::Tcp)) => self.plain_tcp(gateway, server, port),
                // Those within TLS are found by its server name.
                Some((_, Takes::TcpInTls(_) | Takes::Nothing)) | None => {}
            }
        }
    }

    /// The hosts of a server with `httpsRedirect`, whether a VirtualService names them or not. The narrower hosts of
    /// VirtualServices are entries of their own, as they are at other servers, which may have them too.
    fn gateway_redirects(&mut self, gateway: &'a Object<Gateway>, server: &'a Server, port: u16, known: &mut Known) {
        let own = server.hosts.iter().filter_map(|host| Admitted::parse(host.rsplit('/').next()?));
        let bound = self.registry.gateways.bound(gateway).iter().filter(|rules| !rules.spec.http.is_empty());
        let narrower = bound.flat_map(|rules| hosts(gateway, server, rules));
        for host in own.chain(narrower).collect::<Vec<_>>() {
            let objects = self.gateway_objects(&host, &[&gateway.origin.object]);
            let index = self.gateway_host((port, true), &host, objects, known);
            self.virtual_hosts[index].routes = vec![https_redirect()];
        }
    }

    /// Of a server for plain HTTP (`is_plain`), or of one at which TLS ends: these are kept apart.
    fn gateway_http(
        &mut self,
        gateway: &'a Object<Gateway>,
        server: &'a Server,
        (port, is_plain): (u16, bool),
        known: &mut Known,
    ) {
        for rules in self.registry.gateways.bound(gateway).iter().filter(|rules| !rules.spec.http.is_empty()) {
            for host in hosts(gateway, server, rules) {
                let mut objects = self.gateway_objects(&host, &[&gateway.origin.object, &rules.origin.object]);
                add(&mut objects, rules.spec.delegates.iter().map(Arc::clone));
                let index = self.gateway_host((port, is_plain), &host, objects, known);
                if !is_always_redirected(&self.virtual_hosts[index]) {
                    let routes = self.routes(rules, entrance_of(gateway, port, &host));
                    self.virtual_hosts[index].routes.extend(routes);
                }
            }
        }
    }

    /// The index of a host at the servers of one kind, with these objects behind it as well.
    fn gateway_host(
        &mut self,
        (port, is_plain): (u16, bool),
        host: &Admitted,
        objects: ObjectRefs,
        known: &mut Known,
    ) -> usize {
        let key = (port, is_plain, host.to_string());
        if let Some(index) = known.get(&key) {
            add(&mut self.virtual_hosts[*index as usize].objects, objects);
            return *index as usize;
        }
        let index = u32::try_from(self.virtual_hosts.len()).unwrap_or(u32::MAX);
        self.virtual_hosts.push(VirtualHost { host: host.to_string().into(), objects, routes: Vec::new() });
        let gateway_port = self.gateway_port(port);
        insert(&mut gateway_port.http, host, index);
        if is_plain {
            insert(&mut gateway_port.plain, host, index);
        }
        known.insert(key, index);
        index as usize
    }

    /// Of two matches for one name the first holds.
    fn gateway_tls(&mut self, gateway: &'a Object<Gateway>, server: &'a Server, port: u16, known: &mut Known) {
        for rules in self.registry.gateways.bound(gateway) {
            let namespace = rules.origin.object.namespace();
            for (rule, names) in rules.spec.tls.iter().flat_map(|rule| rule.matches.iter().map(move |it| (rule, it))) {
                // Where a client meant to go is not known any more behind a Gateway.
                if !names.destination_subnets.is_empty()
                    || !super::tls::applies(names, entrance_of(gateway, port, &Admitted::Any), namespace)
                {
                    continue;
                }
                for name in names.sni_hosts.iter().filter_map(|name| Admitted::parse(name)) {
                    for host in hosts(gateway, server, rules).iter().filter_map(|host| host.common(&name)) {
                        let key = (port, false, host.to_string());
                        if known.contains_key(&key) {
                            continue;
                        }
                        let route = Some(self.tls_route(rule, entrance_of(gateway, port, &host)));
                        let objects = self.gateway_objects(&host, &[&gateway.origin.object, &rules.origin.object]);
                        let index = u32::try_from(self.tls_hosts.len()).unwrap_or(u32::MAX);
                        let (text, objects) = (host.to_string().into(), objects.into_iter().collect());
                        self.tls_hosts.push(TlsHost { host: text, objects, route, by_destination: None });
                        insert(&mut self.gateway_port(port).tls, &host, index);
                        known.insert(key, index);
                    }
                }
            }
        }
    }

    /// The objects behind a host at a Gateway: its ServiceEntries too, so that policies for them hold.
    pub(super) fn gateway_objects(&self, host: &Admitted, own: &[&Arc<ObjectRef>]) -> ObjectRefs {
        let services = &self.registry.services;
        let declared = match host {
            Admitted::Pattern(pattern) => services.declared(pattern).or_else(|| services.covering(pattern).next()),
            Admitted::Any => None,
        };
        let mut objects = declared.map(|id| services.service(id).objects.clone()).unwrap_or_default();
        add(&mut objects, own.iter().map(|object| Arc::clone(object)));
        objects
    }

    pub(super) fn gateway_port(&mut self, port: u16) -> &mut GatewayPort {
        self.gateway_ports.entry(port).or_insert_with(|| GatewayPort { port, ..GatewayPort::default() })
    }
}

/// The ports of listeners for Gateways.
pub(super) fn listeners(bootstrap: &Bootstrap) -> Vec<u16> {
    let listeners = bootstrap.listeners.iter().filter(|listener| listener.gateway);
    listeners.filter_map(|listener| listener.service.fixed()).collect()
}

fn is_redirecting(server: &Server) -> bool {
    server.tls.as_ref().is_some_and(|tls| tls.https_redirect == Some(true))
}

fn https_redirect() -> HttpRoute {
    let action = HttpAction::Redirect(Redirect {
        status: 301,
        scheme: Some("https".into()),
        authority: None,
        port: None,
        path: None,
        fields: FieldEdits::default(),
    });
    HttpRoute { name: REDIRECT_NAME.into(), matches: Vec::new(), cors: None, fault: None, action }
}

/// Whether nothing that follows could ever hold.
fn is_always_redirected(host: &VirtualHost) -> bool {
    host.routes.last().is_some_and(|it| it.matches.is_empty() && matches!(it.action, HttpAction::Redirect(_)))
}

pub(super) fn entrance_of<'e>(gateway: &'e Object<Gateway>, port: u16, host: &'e Admitted) -> Entrance<'e> {
    let pattern = match host {
        Admitted::Any => None,
        Admitted::Pattern(pattern) => Some(pattern),
    };
    let (namespace, name) = gateway.origin.identity();
    Entrance { pattern, port, place: Place::Gateway(namespace, name), is_in_tls: false }
}

/// The hosts of a VirtualService that a server admits.
pub(super) fn hosts(gateway: &Object<Gateway>, server: &Server, rules: &Object<VirtualService>) -> Vec<Admitted> {
    let (of_gateway, namespace) = (gateway.origin.object.namespace(), rules.origin.object.namespace());
    let mut hosts: Vec<Admitted> = Vec::new();
    for host in rules.spec.hosts.iter().filter_map(|host| Admitted::parse(host)) {
        for common in admitted(server, of_gateway, namespace).filter_map(|admitted| admitted.common(&host)) {
            if !hosts.contains(&common) {
                hosts.push(common);
            }
        }
    }
    hosts
}

pub(super) fn insert(hosts: &mut GatewayHosts, host: &Admitted, index: u32) {
    match host {
        Admitted::Any => _ = hosts.any.get_or_insert(index),
        // The first has the host; the others are merged into it.
        Admitted::Pattern(pattern) => drop(hosts.named.insert(pattern, index)),
    }
}

pub(super) fn add(objects: &mut ObjectRefs, more: impl IntoIterator<Item = Arc<ObjectRef>>) {
    for object in more {
        if !objects.contains(&object) {
            objects.push(object);
        }
    }
}
