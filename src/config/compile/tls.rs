//! `tls:` → hosts that take the client's own TLS.

use std::sync::Arc;

use crate::config::istio::Object;
use crate::config::istio::virtual_service::{TlsMatch, TlsRule, VirtualService};
use crate::config::registry::{Admitted, HostIndex, Service, ServiceId, ServicePortEntry, is_mesh};
use crate::route::cluster::{Destination, Weighted};
use crate::route::host::HostPattern;
use crate::route::subnets::SubnetMap;
use crate::route::table::{ObjectRefs, TlsHost};

use super::clusters::Client;
use super::tcp::add;
use super::{Compiler, Entrance};

impl<'a> Compiler<'a, '_> {
    /// Every host that takes TLS.
    pub(super) fn tls(&mut self) {
        let registry = self.registry;
        for (id, service) in registry.services.iter() {
            let rules = registry.tls.most_specific(&service.pattern).copied();
            for port in service.ports.iter().filter(|port| port.protocol.takes_tls()) {
                let is_routed = rules.is_some_and(|rules| self.routed_names(id, port, &service.pattern, rules));
                if !is_routed {
                    let route = Weighted::single(self.clusters.cluster(id, port, None, Client::Tls));
                    let objects = service.objects.iter().cloned().collect();
                    let host = service.host.into();
                    let host = TlsHost { host, objects, route: Some(route), by_destination: None };
                    self.add_tls_host(port.number, &service.pattern, host);
                }
            }
        }
        for rules in self.objects.virtual_services.iter().filter(|object| is_mesh(&object.spec.gateways)) {
            for host in rules.spec.hosts.iter().filter(|_| !rules.spec.tls.is_empty()) {
                self.names_below_wildcards(host, rules);
            }
            self.names_through_gateways(rules);
        }
    }

    /// Names that a rule leads to a Gateway are open as far as the Gateway's servers admit them, so that one
    /// ServiceEntry may serve many names: those of a wildcard that covers it. Without a Gateway, a wildcard
    /// VirtualService opens no further name.
    fn names_through_gateways(&mut self, rules: &'a Object<VirtualService>) {
        for rule in &rules.spec.tls {
            for names in
                rule.matches.iter().filter(|names| names.port.is_some() && names.destination_subnets.is_empty())
            {
                let port = names.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
                for name in names.sni_hosts.iter().filter_map(|name| HostPattern::parse(name).ok()) {
                    let entrance = Entrance::mesh(&name, port);
                    if self.owns(rules, &name) && applies(names, entrance, rules.origin.object.namespace()) {
                        self.name_through_gateways(rules, rule, entrance, &name);
                    }
                }
            }
        }
    }

    /// Whether a name lies within a host that these rules have, and no older ones.
    fn owns(&self, rules: &Object<VirtualService>, name: &HostPattern) -> bool {
        let is_owned = |host: &HostPattern| self.registry.tls.exact(host).is_some_and(|it| std::ptr::eq(*it, rules));
        let mut hosts = rules.spec.hosts.iter().filter_map(|host| HostPattern::parse(host).ok());
        hosts.any(|host| host.covers(name) && is_owned(&host))
    }

    fn name_through_gateways(
        &mut self,
        rules: &'a Object<VirtualService>,
        rule: &'a TlsRule,
        entrance: Entrance<'_>,
        name: &HostPattern,
    ) {
        let registry = self.registry;
        if !registry.services.any_below(name) {
            return;
        }
        let takes_tls = |port: &ServicePortEntry<'_>| port.number == entrance.port && port.protocol.takes_tls();
        let covered = registry.services.declared(name).into_iter().chain(registry.services.below(name).iter().copied());
        let served: Vec<&Service<'a>> = covered
            .map(|id| registry.services.service(id))
            .filter(|service| service.ports.iter().any(takes_tls))
            .collect();
        let route = self.tls_route(rule, entrance);
        let [(Destination::Gateway(port), _)] = route.iter().collect::<Vec<_>>()[..] else { return };
        let mut objects: ObjectRefs = served.iter().flat_map(|service| &service.objects).map(Arc::clone).collect();
        if objects.is_empty() {
            return;
        }
        objects.push(Arc::clone(&rules.origin.object));
        let namespace = rules.origin.object.namespace();
        let asked = Admitted::Pattern(name.clone());
        for host in registry.gateways.tls_hosts(port, namespace).iter().filter_map(|host| host.common(&asked)) {
            let Admitted::Pattern(pattern) = host else { continue };
            let host = pattern.to_string().into();
            let (objects, route) = (objects.iter().cloned().collect(), Some(route.clone()));
            let host = TlsHost { host, objects, route, by_destination: None };
            self.add_tls_host(entrance.port, &pattern, host);
        }
    }

    /// A host of a VirtualService below a wildcard service has the ports of that service. Others open nothing: a
    /// VirtualService without a ServiceEntry is served on port 80 only, which carries plain HTTP.
    fn names_below_wildcards(&mut self, host: &str, rules: &'a Object<VirtualService>) {
        let registry = self.registry;
        let Ok(pattern) = HostPattern::parse(host) else { return };
        let is_owner = registry.tls.exact(&pattern).is_some_and(|owner| std::ptr::eq(*owner, rules));
        if !is_owner || registry.services.declared(&pattern).is_some() {
            return;
        }
        for id in registry.services.covering(&pattern) {
            for port in registry.services.service(id).ports.iter().filter(|port| port.protocol.takes_tls()) {
                self.routed_names(id, port, &pattern, rules);
            }
        }
    }

    /// Adds the names within `pattern` that the rules route on this port. What else the pattern opens is listed but
    /// has no route. `false`: no rule is about this port.
    ///
    /// The tables find an exact name before a wildcard whatever their order here, as Envoy's filter chains do; of two
    /// rules for one name the first holds. A name that is routed for some destinations only has for the others the
    /// route of the narrowest wildcard above it.
    fn routed_names(
        &mut self,
        id: ServiceId,
        port: &ServicePortEntry<'a>,
        pattern: &HostPattern,
        rules: &'a Object<VirtualService>,
    ) -> bool {
        let mut objects = self.registry.services.service(id).objects.clone();
        objects.push(Arc::clone(&rules.origin.object));
        let mut routes: HostIndex<Routes> = HostIndex::default();
        let mut routed = Vec::new();
        for rule in &rules.spec.tls {
            let entrance = Entrance::mesh(pattern, port.number);
            for names in rule.matches.iter().filter(|names| applies(names, entrance, rules.origin.object.namespace())) {
                for name in names.sni_hosts.iter().filter_map(|name| within(name, pattern)) {
                    let route = self.tls_route(rule, Entrance::mesh(&name, port.number));
                    let entry = routes.entry(&name, Routes::default);
                    match names.destination_subnets.is_empty() {
                        true => entry.route = entry.route.take().or(Some(route)),
                        false => add(&mut entry.by_destination, names.destination_subnets.iter(), &route),
                    }
                    routed.push(name);
                }
            }
        }
        let is_routed = !routed.is_empty();
        routed.push(pattern.clone());
        for name in routed.into_iter().filter(|_| is_routed) {
            let Routes { route, by_destination } = routes.exact(&name).cloned().unwrap_or_default();
            let route = route.or_else(|| routes.covering(&name).find_map(|wider| wider.route.clone()));
            let by_destination = (!by_destination.is_empty()).then(|| Box::new(by_destination));
            let objects = objects.iter().cloned().collect();
            let host = TlsHost { host: name.to_string().into(), objects, route, by_destination };
            self.add_tls_host(port.number, &name, host);
        }
        is_routed
    }

    pub(super) fn tls_route(&mut self, rule: &'a TlsRule, entrance: Entrance<'_>) -> Weighted {
        self.layer4_route(&rule.route, entrance, Client::Tls)
    }
}

/// Where a name is routed.
#[derive(Clone, Debug, Default)]
struct Routes {
    route: Option<Weighted>,
    by_destination: SubnetMap<Weighted>,
}

/// Whether a match can hold here, for whatever destination.
pub(super) fn applies(names: &TlsMatch, entrance: Entrance<'_>, namespace: &str) -> bool {
    let on_port = names.port.is_none_or(|number| number == i64::from(entrance.port));
    entrance.place.is_within(&names.gateways, namespace) && on_port
}

/// What an SNI pattern and a host have in common: the narrower of the two, if one covers the other.
fn within(name: &str, host: &HostPattern) -> Option<HostPattern> {
    let name = HostPattern::parse(name).ok()?;
    if host.covers(&name) {
        return Some(name);
    }
    name.covers(host).then(|| host.clone())
}
