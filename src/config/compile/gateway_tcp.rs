//! Servers of Gateways that take TCP, plain or within TLS that ends there → where what arrives there goes.
//!
//! A client tells nothing by which rules could be chosen but the port, so of the VirtualServices that are bound to the
//! Gateway the oldest that has a rule for it decides (pilot's buildGatewayNetworkFiltersFromTCPRoutes).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::finding::code;
use crate::config::istio::authorization_policy::Action;
use crate::config::istio::gateway::{Gateway, Server};
use crate::config::istio::virtual_service::{RouteDestination, VirtualService};
use crate::config::istio::{Object, Scope};
use crate::config::registry::{Admitted, ServiceId, Takes, is_mesh};
use crate::route::host::HostPattern;
use crate::route::subnets::SubnetMap;
use crate::route::table::{ObjectRefs, TcpHost};
use crate::route::termination::Inside;

use super::gateways::{add, entrance_of, hosts};
use super::tcp::applying;
use super::{Compiler, Entrance};

impl<'a> Compiler<'a, '_> {
    /// A server that takes plain TCP. Of several on one port the first has it; beside servers for HTTP or TLS, whose
    /// clients are told apart by what they say, only what is led there from the mesh gets to it.
    pub(super) fn plain_tcp(&mut self, gateway: &'a Object<Gateway>, server: &'a Server, port: u16) {
        let takes_nothing_else = self.registry.gateways.takes_on(port).all(|takes| takes == Takes::Tcp);
        let known = self.gateway_port(port);
        if known.tcp.is_none() {
            let (index, _) = self.tcp_server(gateway, server, port);
            let known = self.gateway_port(port);
            (known.tcp, known.plain_tcp) = (Some(index), takes_nothing_else.then_some(index));
        }
    }

    /// What is in the TLS that ends at a server; `None`: it leads nowhere, so whoever asks for it is told before.
    pub(super) fn tcp_within(&mut self, gateway: &'a Object<Gateway>, server: &'a Server, port: u16) -> Option<Inside> {
        let (index, leads_on) = self.tcp_server(gateway, server, port);
        self.gateway_port(port).tcp.get_or_insert(index);
        leads_on.then_some(Inside::Tcp(index))
    }

    /// The index of the entry of a server, and whether it leads anywhere.
    fn tcp_server(&mut self, gateway: &'a Object<Gateway>, server: &'a Server, port: u16) -> (u32, bool) {
        let entrance = entrance_of(gateway, port, &Admitted::Any);
        let mut objects: ObjectRefs = std::iter::once(Arc::clone(&gateway.origin.object)).collect();
        let (mut route, mut by_destination) = (None, SubnetMap::default());
        let mut services = BTreeSet::new();
        let mut routing = Vec::new();
        for rules in self.registry.gateways.bound(gateway) {
            let admitted = hosts(gateway, server, rules);
            if admitted.is_empty() || applying(rules, entrance).next().is_none() {
                continue;
            }
            services.extend(self.services_of(rules, entrance, &admitted));
            add(&mut objects, [Arc::clone(&rules.origin.object)]);
            routing.push(*rules);
            route = self.tcp_rules(rules, entrance, &mut by_destination);
            if route.is_some() {
                break;
            }
        }
        self.judge_targets(&routing, &services, port);
        for id in &services {
            add(&mut objects, self.registry.services.service(*id).objects.iter().cloned());
        }
        let leads_on = route.is_some() || !by_destination.is_empty();
        if !leads_on {
            let message = "no VirtualService that is bound to this Gateway and has a host of this server has a tcp rule for \
                           its port: what arrives is refused";
            let number = gateway.spec.servers.iter().position(|it| std::ptr::eq(it, server)).unwrap_or_default();
            let field = format!("spec.servers[{number}].port");
            Scope::new(&gateway.origin, self.clusters.report).warning(code::UNREACHABLE, field, message);
        }
        let index = u32::try_from(self.tcp_hosts.len()).unwrap_or(u32::MAX);
        let host = server.hosts.join(",").into();
        self.tcp_hosts.push(TcpHost { host, objects, route, by_destination, is_opaque: true });
        (index, leads_on)
    }

    /// The services that rules are for, and those that they lead to: a policy for any of them is about these sessions.
    fn services_of(
        &self,
        rules: &'a Object<VirtualService>,
        entrance: Entrance<'_>,
        admitted: &[Admitted],
    ) -> Vec<ServiceId> {
        let services = &self.registry.services;
        let own = admitted.iter().filter_map(|host| match host {
            Admitted::Any => None,
            Admitted::Pattern(pattern) => services.declared(pattern).or_else(|| services.covering(pattern).next()),
        });
        let routes = applying(rules, entrance).flat_map(|(rule, _)| &rule.route);
        let hosts = routes.filter_map(|route| route.destination.as_ref()?.host.as_deref());
        own.chain(hosts.filter_map(|host| services.named(host))).collect()
    }

    /// Whether a rule of the mesh leads TCP to this port of a Gateway: then policies are asked by the host of that rule, and
    /// by none of what follows.
    fn is_led_to(&self, port: u16) -> bool {
        let services = self.objects.virtual_services.iter().filter(|object| is_mesh(&object.spec.gateways));
        let destinations = services.flat_map(|object| {
            let tls = object.spec.tls.iter().flat_map(|rule| &rule.route).filter_map(|it| it.destination.as_ref());
            let tcp = object.spec.tcp.iter().flat_map(|rule| &rule.route).filter_map(|it| it.destination.as_ref());
            tls.chain(tcp)
        });
        let is_here = |named: &RouteDestination| {
            let number = named.port.as_ref().and_then(|port| port.number);
            let host = named.host.as_deref().and_then(|host| HostPattern::parse(host).ok());
            // Without a number it is the port that the client came to, whichever that is.
            number.is_none_or(|number| number == i64::from(port))
                && host.is_some_and(|host| self.registry.gateways.is_own_service(&host))
        };
        destinations.into_iter().any(is_here)
    }

    /// Policies are asked before a destination is chosen. Where there are several, one that is for a single service would
    /// let pass what another service's forbids.
    fn judge_targets(&mut self, routing: &[&'a Object<VirtualService>], services: &BTreeSet<ServiceId>, port: u16) {
        let is_reached = self.gateway_listeners.contains(&port) || self.is_led_to(port);
        if services.len() < 2 || !is_reached {
            return;
        }
        for policy in self.objects.authorization_policies.iter().filter(|it| it.spec.action != Some(Action::Audit)) {
            let namespace = policy.origin.object.namespace();
            let targets = policy.spec.target_refs.iter().chain(&policy.spec.target_ref).map(|target| {
                let namespace = target.namespace.as_deref().filter(|it| !it.is_empty()).unwrap_or(namespace);
                (namespace, target.name.as_deref().unwrap_or_default())
            });
            let targets: BTreeSet<(&str, &str)> = targets.collect();
            let is_meant = |id: &&ServiceId| {
                let objects = self.registry.services.service(**id).objects.iter();
                objects.filter(|it| it.kind == "ServiceEntry").any(|it| targets.contains(&(it.namespace(), it.name())))
            };
            let meant = services.iter().filter(is_meant).count();
            if meant > 0 && meant < services.len() {
                let rules = routing.iter().map(|rules| rules.origin.object.name()).collect::<Vec<_>>();
                let message = format!(
                    "what arrives at port {port} of a Gateway is led to several services (VirtualService {}), and \
                     targetRefs is not about all of them: do without, with a condition on the port",
                    rules.join(", ")
                );
                Scope::new(&policy.origin, self.clusters.report).refuse("spec.targetRefs", message);
            }
        }
    }
}
