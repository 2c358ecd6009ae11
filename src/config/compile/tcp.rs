//! Ports that take TCP, and `tcp:` → services by port and address.

use std::sync::Arc;

use ipnet::IpNet;

use crate::config::istio::Object;
use crate::config::istio::service_entry::{Protocol, Resolution, range};
use crate::config::istio::virtual_service::{TcpMatch, TcpRule, TlsDestination, VirtualService};
use crate::config::registry::{ServiceId, ServicePortEntry};
use crate::route::cluster::{Destination, Weighted};
use crate::route::subnets::SubnetMap;
use crate::route::table::TcpHost;

use super::clusters::Client;
use super::http::weighted;
use super::{Compiler, Entrance};

impl<'a> Compiler<'a, '_> {
    /// Every service that takes TCP, the oldest first: of two for one address it has it.
    pub(super) fn tcp(&mut self) {
        let registry = self.registry;
        for (id, service) in registry.services.iter() {
            let rules = registry.tcp.most_specific(&service.pattern).copied();
            for port in service.ports.iter().filter(|port| takes_tcp(port)) {
                self.tcp_host(id, port, rules);
            }
        }
    }

    fn tcp_host(&mut self, id: ServiceId, port: &ServicePortEntry<'a>, rules: Option<&'a Object<VirtualService>>) {
        let service = self.registry.services.service(id);
        let ranges: Vec<IpNet> = port.entry.spec.ranges().collect();
        let Ok(index) = u32::try_from(self.tcp_hosts.len()) else { return };
        let table = &mut self.port(port.number).tcp;
        let mut is_new = false;
        for range in &ranges {
            is_new |= table.ranges.insert(*range, index).is_ok();
        }
        if ranges.is_empty() && table.any.is_none() {
            (table.any, is_new) = (Some(index), true);
        }
        if !is_new {
            return;
        }
        let mut objects = service.objects.clone();
        objects.extend(rules.map(|rules| Arc::clone(&rules.origin.object)));
        let (route, by_destination) = self.tcp_routes(id, port, rules);
        let is_opaque = port.protocol == Protocol::Tcp;
        self.tcp_hosts.push(TcpHost { host: service.host.into(), objects, route, by_destination, is_opaque });
    }

    /// The first rule without subnets is the last: it takes every session that the subnets before it have not. Without
    /// such a rule that is left to the service itself (pilot's buildSidecarOutboundTCPFilterChainOpts).
    fn tcp_routes(
        &mut self,
        id: ServiceId,
        port: &ServicePortEntry<'a>,
        rules: Option<&'a Object<VirtualService>>,
    ) -> (Option<Weighted>, SubnetMap<Weighted>) {
        let pattern = &self.registry.services.service(id).pattern;
        let mut by_destination = SubnetMap::default();
        let entrance = Entrance::mesh(pattern, port.number);
        let routed = rules.and_then(|rules| self.tcp_rules(rules, entrance, &mut by_destination));
        let own = || Weighted::single(self.clusters.cluster(id, port, None, Client::Tcp));
        (Some(routed.unwrap_or_else(own)), by_destination)
    }

    /// The route of the rules for those whom no subnet claims, and those for subnets; `None`: it is left open.
    pub(super) fn tcp_rules(
        &mut self,
        rules: &'a Object<VirtualService>,
        entrance: Entrance<'_>,
        by_destination: &mut SubnetMap<Weighted>,
    ) -> Option<Weighted> {
        for (rule, matches) in applying(rules, entrance) {
            let route = self.layer4_route(&rule.route, entrance, Client::Tcp);
            if rule.matches.is_empty() || matches.iter().any(|it| it.destination_subnets.is_empty()) {
                return Some(route);
            }
            add(by_destination, matches.iter().flat_map(|it| &it.destination_subnets), &route);
        }
        None
    }

    /// The destinations of a rule under `tls:` or `tcp:`.
    pub(super) fn layer4_route(
        &mut self,
        routes: &'a [TlsDestination],
        entrance: Entrance<'_>,
        client: Client,
    ) -> Weighted {
        let choices: Vec<(Destination, Option<i64>)> = routes
            .iter()
            .map(|route| {
                let named = route.destination.as_ref();
                let destination = named.map(|named| self.clusters.named(named, entrance, client));
                (destination.unwrap_or(Destination::Missing), route.weight)
            })
            .collect();
        weighted(&choices)
    }
}

/// Without addresses nobody could say which original destinations a service means; below a wildcard there is a name to
/// resolve for clients alone that tell one.
pub(in crate::config) fn takes_tcp(port: &ServicePortEntry<'_>) -> bool {
    let entry = &port.entry.spec;
    port.protocol.takes_tcp()
        && match port.resolution() {
            Resolution::None => !entry.addresses.is_empty(),
            Resolution::DynamicDns => false,
            Resolution::Static | Resolution::Dns | Resolution::DnsRoundRobin => true,
        }
}

/// The rules that may hold somewhere, each with those of its matches that do.
pub(super) fn applying<'a>(
    rules: &'a Object<VirtualService>,
    entrance: Entrance<'_>,
) -> impl Iterator<Item = (&'a TcpRule, Vec<&'a TcpMatch>)> {
    let namespace = rules.origin.object.namespace();
    let applies = move |conditions: &&TcpMatch| {
        let on_port = conditions.port.is_none_or(|number| number == i64::from(entrance.port));
        entrance.place.is_within(&conditions.gateways, namespace) && on_port
    };
    let matching = move |rule: &'a TcpRule| (rule, rule.matches.iter().filter(applies).collect::<Vec<_>>());
    rules.spec.tcp.iter().map(matching).filter(|(rule, matches)| rule.matches.is_empty() || !matches.is_empty())
}

/// Adds a route for subnets; of two for one subnet the first stays.
pub(super) fn add<'t>(routes: &mut SubnetMap<Weighted>, subnets: impl Iterator<Item = &'t String>, route: &Weighted) {
    for subnet in subnets.filter_map(|text| range(text)) {
        let _ = routes.insert(subnet, route.clone());
    }
}
