//! Destinations → clusters, each made once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use crate::config::bootstrap::{self, Bootstrap};
use crate::config::credentials::Credentials;
use crate::config::finding::{Report, code};
use crate::config::identity::{Generation, PoolKey};
use crate::config::istio::destination_rule::{ClientTls, H2UpgradePolicy, LoadBalancer, SimpleBalance, TlsMode};
use crate::config::istio::gateway::ServerTlsMode;
use crate::config::istio::service_entry::{Protocol, Resolution, WorkloadEntry};
use crate::config::istio::virtual_service::RouteDestination;
use crate::config::istio::{Objects, Scope};
use crate::config::mesh::Settled;
use crate::config::registry::{Place, Policy, Registry, ServiceId, ServicePortEntry, Takes, TlsSource};
use crate::route::cluster::{
    Balance, Cluster, ClusterId, ClusterName, Destination, DnsEndpoint, Endpoints, HttpVersion, Original,
    StaticEndpoint, UpstreamTls, VerifyName,
};
use crate::route::host::{HostName, HostPattern};
use crate::route::subnets::SubnetMap;
use crate::route::table::ClusterRules;
use crate::route::traffic::Traffic;

use super::Entrance;

/// Clusters under construction.
pub(super) struct Clusters<'a, 'g> {
    registry: &'a Registry<'a>,
    defaults: &'a bootstrap::Tls,
    connect_timeout: Duration,
    upgrade_http: bool,
    pub(super) credentials: Credentials<'a>,
    pub(super) generation: &'a mut Generation<'g>,
    pub(super) report: &'a mut Report,
    list: Vec<Cluster>,
    rules: ClusterRules,
    known: HashMap<Key<'a>, Destination, foldhash::fast::RandomState>,
}

/// What makes two destinations the same cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key<'a> {
    service: ServiceId,
    port: u16,
    subset: Option<&'a str>,
    client: Client,
}

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Plain HTTP, which the gateway may put into TLS.
    Plain,
    /// TLS, which is never encrypted a second time.
    Tls,
    /// Whatever it is, the gateway does not know.
    Tcp,
}

impl<'a, 'g> Clusters<'a, 'g> {
    pub(super) fn new(
        objects: &'a Objects,
        registry: &'a Registry<'a>,
        bootstrap: &'a Bootstrap,
        connect_timeout: Duration,
        mesh: &'a Settled,
        generation: &'a mut Generation<'g>,
        report: &'a mut Report,
    ) -> Self {
        let defaults = &bootstrap.tls;
        let credentials = Credentials::new(defaults, &objects.secrets, registry.policies.root_namespace(), &mesh.tls);
        // Most ports become a cluster, and nearly all that become one have no other.
        let ports = registry.services.iter().map(|(_, service)| service.ports.len()).sum();
        let (list, rules) = (Vec::with_capacity(ports), Vec::new());
        let known = HashMap::with_capacity_and_hasher(ports, Default::default());
        let upgrade_http = mesh.upgrade_http;
        Self { registry, defaults, connect_timeout, upgrade_http, credentials, generation, report, list, rules, known }
    }

    /// The clusters, and the DestinationRules of each.
    pub(super) fn into_lists(self) -> (Vec<Cluster>, ClusterRules) {
        (exact(self.list), exact(self.rules))
    }

    /// The cluster that a route's destination names, for those who come through `entrance`.
    ///
    /// A wildcard service dials the name that the client asked for, so only names that it covers may be led there.
    pub(super) fn named(&mut self, named: &'a RouteDestination, entrance: Entrance<'_>, client: Client) -> Destination {
        let Some(host) = named.host.as_deref().and_then(|host| HostPattern::parse(host).ok()) else {
            return Destination::Missing;
        };
        let number = named.port.as_ref().map(|port| port.number.and_then(|number| u16::try_from(number).ok()));
        let subset = named.subset.as_deref().filter(|subset| !subset.is_empty());
        let Some(id) = self.registry.services.declared(&host) else {
            let port = number.unwrap_or(Some(entrance.port));
            return port.map_or(Destination::Missing, |port| self.gateway(&host, port, subset, entrance, client));
        };
        let service = self.registry.services.service(id);
        let port = match number {
            Some(None) => None,
            Some(number) => service.destination_port(number, entrance.port),
            None => service.destination_port(None, entrance.port),
        };
        let Some(port) = port else { return Destination::Missing };
        let can_serve = match client {
            Client::Plain | Client::Tls => {
                let is_covered = entrance.pattern.is_some_and(|pattern| service.pattern.covers(pattern));
                is_covered || !self.registry.services.dials_requested_name(id, port)
            }
            // A session without a name cannot ask for one.
            Client::Tcp => port.resolution() != Resolution::DynamicDns,
        };
        if !can_serve {
            return Destination::Missing;
        }
        self.cluster(id, port, subset, client)
    }

    /// The servers of this node's Gateways, if `host` is their own service. What a DestinationRule says of TLS on the
    /// way there stays within this process; but a server that asks for TLS is open only to those whose rule opens it.
    fn gateway(
        &self,
        host: &HostPattern,
        port: u16,
        subset: Option<&str>,
        entrance: Entrance<'_>,
        client: Client,
    ) -> Destination {
        if entrance.place != Place::Mesh || !self.registry.gateways.is_own_service(host) {
            return Destination::Missing;
        }
        let Some(policy) = self.registry.policies.policy(host, gateway_namespace(host), port, subset) else {
            return Destination::Missing;
        };
        let mode = policy.tls.and_then(|source| source.tls.mode);
        let gateways = &self.registry.gateways;
        let mut takes = gateways
            .takes_on(port)
            .filter(|takes| match takes {
                Takes::Http | Takes::HttpInTls(_) => client == Client::Plain,
                Takes::Tls => client == Client::Tls,
                Takes::Tcp | Takes::TcpInTls(_) | Takes::Nothing => false,
            })
            .peekable();
        if takes.peek().is_some() {
            let is_served = takes.all(|takes| is_opened(takes, mode));
            return if is_served { Destination::Gateway(port) } else { Destination::Missing };
        }
        let is_served = |takes| match client {
            Client::Plain => false,
            // It would take the client's own TLS for that of the mesh.
            Client::Tls => is_opened(takes, mode) && (takes == Takes::Tcp || opens_tls(mode)),
            Client::Tcp => is_opened(takes, mode),
        };
        if gateways.tcp_hop(port).is_some_and(is_served) { Destination::GatewayTcp(port) } else { Destination::Missing }
    }

    /// The cluster of a port and subset of a service.
    pub(super) fn cluster(
        &mut self,
        service: ServiceId,
        port: &ServicePortEntry<'a>,
        subset: Option<&'a str>,
        client: Client,
    ) -> Destination {
        let key = Key { service, port: port.number, subset, client };
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let host = &self.registry.services.service(service).pattern;
        let destination = match self.registry.policies.policy(host, port.namespace(), port.number, subset) {
            Some(policy) => Destination::Cluster(self.build(key, port, &policy)),
            None => Destination::Missing,
        };
        self.known.insert(key, destination);
        destination
    }

    fn build(&mut self, key: Key<'a>, port: &ServicePortEntry<'a>, policy: &Policy<'a>) -> ClusterId {
        let service = self.registry.services.service(key.service);
        let endpoints = self.endpoints(key, port);
        let tls = match (key.client, &policy.tls) {
            (Client::Plain, Some(source)) => self.upstream_tls(source, port),
            (Client::Tcp, Some(source)) => self.tcp_tls(source, port, service.name()),
            (Client::Plain | Client::Tcp, None) | (Client::Tls, _) => None,
        };
        let tls_key = tls.as_ref().map(|tls| (tls.sni.as_ref(), tls.profile.as_ref().ok().map(|profile| profile.id)));
        let name = format!("outbound|{}|{}|{}", port.number, key.subset.unwrap_or_default(), service.host);
        let traffic = super::traffic::traffic(policy, key.client != Client::Plain, || self.generation.account(&name));
        self.judge_tunnel(traffic.as_ref(), policy);
        let traffic_key = traffic.as_ref();
        let version = self.version(key.client, port, policy);
        let pool_key =
            PoolKey { service: service.host, endpoints: &endpoints, tls: tls_key, version, traffic: traffic_key };
        let pool = self.generation.pool(&pool_key);
        let connect_timeout = policy.pool.and_then(|pool| pool.tcp.as_ref()).and_then(|tcp| tcp.connect_timeout);
        let id = ClusterId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        let mut rules: Vec<_> = policy.origins.iter().map(|origin| Arc::clone(&origin.object)).collect();
        rules.dedup();
        if !rules.is_empty() {
            self.rules.push((id, rules.into()));
        }
        self.list.push(Cluster {
            name: ClusterName::new(&name, service.host),
            endpoints,
            balance: balance(policy.balance),
            tls: tls.map(Box::new),
            version,
            connect_timeout: connect_timeout.map_or(self.connect_timeout, |timeout| timeout.0),
            traffic: traffic.map(Arc::new),
            pool,
        });
        id
    }

    /// A DestinationRule that upgrades, or follows the client, knows better than the port; the mesh's word is about ports of
    /// HTTP alone.
    fn version(&self, client: Client, port: &ServicePortEntry<'_>, policy: &Policy<'_>) -> HttpVersion {
        let http = policy.pool.and_then(|pool| pool.http.as_ref());
        let upgrade = http.and_then(|http| http.h2_upgrade_policy).unwrap_or(H2UpgradePolicy::Default);
        let follows = http.is_some_and(|http| http.use_client_protocol == Some(true));
        match (client, upgrade, port.protocol) {
            (Client::Tls | Client::Tcp, _, _) => HttpVersion::One,
            (Client::Plain, _, _) if follows => HttpVersion::Client,
            (Client::Plain, H2UpgradePolicy::Upgrade, _) | (Client::Plain, _, Protocol::Http2) => HttpVersion::Two,
            (Client::Plain, H2UpgradePolicy::Default, Protocol::Http) if self.upgrade_http => HttpVersion::Two,
            (Client::Plain, H2UpgradePolicy::Default | H2UpgradePolicy::DoNotUpgrade, _) => HttpVersion::One,
        }
    }

    /// TLS to the proxy itself would have to be opened beneath the client's.
    fn judge_tunnel(&mut self, traffic: Option<&Traffic>, policy: &Policy<'a>) {
        let Some(source) = policy.tls.as_ref().filter(|_| traffic.is_some_and(|traffic| traffic.tunnel.is_some()))
        else {
            return;
        };
        if source.tls.mode.unwrap_or(TlsMode::Disable) != TlsMode::Disable {
            let message = "a tunnel through a proxy that is spoken to in TLS is not supported";
            Scope::new(source.origin, self.report).refuse(source.field.as_str(), message);
        }
    }

    fn endpoints(&self, key: Key<'a>, port: &ServicePortEntry<'a>) -> Endpoints {
        let service = self.registry.services.service(key.service);
        let subset =
            key.subset.and_then(|name| self.registry.policies.subset(&service.pattern, port.namespace(), name));
        let selected = |endpoint: &&WorkloadEntry| {
            let mut labels = subset.iter().flat_map(|subset| &subset.labels);
            labels.all(|(label, value)| endpoint.labels.get(label) == Some(value))
        };
        let declared = &port.entry.spec.endpoints;
        let selected: Vec<&WorkloadEntry> = declared.iter().filter(selected).collect();
        let is_labelled = subset.is_some_and(|subset| !subset.labels.is_empty());
        let resolution = port.resolution();
        if key.client == Client::Tcp && resolution == Resolution::None {
            let mut ranges = SubnetMap::default();
            for range in port.entry.spec.ranges() {
                let _ = ranges.insert(range, ());
            }
            let port = port.port.target_port.map(|_| port.target());
            return Endpoints::Original(Original { ranges, port });
        }
        match (resolution, service.name()) {
            (Resolution::None | Resolution::DynamicDns, None) => Endpoints::Requested { port: port.target() },
            (Resolution::Dns | Resolution::DnsRoundRobin, None) if declared.is_empty() => {
                Endpoints::Requested { port: port.target() }
            }
            (Resolution::Static, _) => addresses(&selected, port),
            (Resolution::DnsRoundRobin, name) => dns(&selected, name, is_labelled, port, Endpoints::DnsRoundRobin),
            (Resolution::None | Resolution::DynamicDns | Resolution::Dns, name) => {
                dns(&selected, name, is_labelled, port, Endpoints::Dns)
            }
        }
    }

    /// TLS around TCP. A session says no name, so that of the service is sent and verified where no `sni` is set (Istio
    /// would send none, and verify the chain alone).
    fn tcp_tls(
        &mut self,
        source: &TlsSource<'a>,
        port: &ServicePortEntry<'a>,
        service: Option<&HostName>,
    ) -> Option<UpstreamTls> {
        let UpstreamTls { sni, profile } = self.upstream_tls(source, port)?;
        match (sni.or_else(|| service.cloned()), profile) {
            (None, Ok(_)) => {
                let reason = "the service is a wildcard: nothing says which name a TCP session means, set sni";
                let message = format!("{reason}; TCP sessions are closed with UH");
                Scope::new(source.origin, self.report).warning(code::VERIFICATION, source.field.as_str(), message);
                Some(UpstreamTls { sni: None, profile: Err(reason.into()) })
            }
            (sni, profile) => Some(UpstreamTls { sni, profile }),
        }
    }

    fn upstream_tls(&mut self, source: &TlsSource<'a>, port: &ServicePortEntry<'a>) -> Option<UpstreamTls> {
        let tls = source.tls;
        match tls.mode.unwrap_or(TlsMode::Disable) {
            TlsMode::Disable => return None,
            TlsMode::Simple | TlsMode::Mutual | TlsMode::IstioMutual => {}
        }
        let sni = tls.sni.as_deref().filter(|sni| !sni.is_empty()).map(str::parse::<HostName>);
        let verify = self.verify(tls, &port.entry.spec.subject_alt_names, sni.is_some());
        let profile = match sni {
            Some(Err(error)) => Err(format!("sni: {error}").into()),
            Some(Ok(_)) | None => self.credentials.profile(tls, verify, source.origin, self.generation),
        };
        if let Err(reason) = &profile {
            let message = format!("{reason}; requests get 503 UH until a reload finds it");
            Scope::new(source.origin, self.report).warning(code::CREDENTIAL, source.field.as_str(), message);
        }
        let ended =
            profile.as_ref().ok().and_then(|profile| profile.identity_end).filter(|end| *end <= SystemTime::now());
        if let Some(ended) = ended.and_then(|ended| jiff::Timestamp::try_from(ended).ok()) {
            let message = format!("the client certificate has ended on {ended}; upstreams will refuse it");
            Scope::new(source.origin, self.report).warning(code::CREDENTIAL, source.field.as_str(), message);
        }
        Some(UpstreamTls { sni: sni.and_then(Result::ok), profile })
    }

    fn verify(&self, tls: &ClientTls, of_entry: &[String], has_sni: bool) -> VerifyName {
        if tls.insecure_skip_verify == Some(true) {
            return VerifyName::Nothing;
        }
        let names = if tls.subject_alt_names.is_empty() { of_entry } else { &tls.subject_alt_names };
        if !names.is_empty() {
            return VerifyName::AnyOf(names.iter().map(|name| name.as_str().into()).collect::<SmallVec<_>>());
        }
        if has_sni && !self.defaults.strict_names { VerifyName::ChainOnly } else { VerifyName::Sni }
    }
}

/// Whether the TLS that a DestinationRule opens towards a server is what the server asks for.
fn is_opened(takes: Takes, mode: Option<TlsMode>) -> bool {
    match takes {
        Takes::HttpInTls(ServerTlsMode::Simple) | Takes::TcpInTls(ServerTlsMode::Simple) => opens_tls(mode),
        Takes::HttpInTls(ServerTlsMode::Mutual) | Takes::TcpInTls(ServerTlsMode::Mutual) => {
            matches!(mode, Some(TlsMode::Mutual | TlsMode::IstioMutual))
        }
        Takes::Http | Takes::HttpInTls(_) | Takes::Tls | Takes::Tcp | Takes::TcpInTls(_) | Takes::Nothing => true,
    }
}

fn opens_tls(mode: Option<TlsMode>) -> bool {
    matches!(mode, Some(TlsMode::Simple | TlsMode::Mutual | TlsMode::IstioMutual))
}

/// The namespace in the name of a Kubernetes Service, where its DestinationRules are looked for.
pub(in crate::config) fn gateway_namespace(host: &HostPattern) -> &str {
    match host {
        HostPattern::Exact(name) | HostPattern::Below(name) => name.as_str().split('.').nth(1).unwrap_or_default(),
    }
}

fn balance(balancer: Option<&LoadBalancer>) -> Balance {
    if balancer.is_some_and(|balancer| balancer.consistent_hash.is_some()) {
        return Balance::Hash;
    }
    match balancer.and_then(|balancer| balancer.simple) {
        Some(SimpleBalance::RoundRobin) => Balance::RoundRobin,
        Some(SimpleBalance::Random) => Balance::Random,
        Some(
            SimpleBalance::Unspecified
            | SimpleBalance::LeastConn
            | SimpleBalance::LeastRequest
            | SimpleBalance::Passthrough,
        )
        | None => Balance::LeastRequest,
    }
}

/// The port of an endpoint: by the name of the service port, else `targetPort`, else the service port.
pub(in crate::config) fn dial_port(endpoint: &WorkloadEntry, port: &ServicePortEntry<'_>) -> u16 {
    let named = port.port.name.as_ref().and_then(|name| endpoint.ports.get(name)).and_then(|port| port.0);
    named.and_then(|port| u16::try_from(port).ok()).unwrap_or_else(|| port.target())
}

fn weight(endpoint: &WorkloadEntry) -> u32 {
    endpoint.weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1).max(1)
}

fn addresses(endpoints: &[&WorkloadEntry], port: &ServicePortEntry<'_>) -> Endpoints {
    let endpoint = |endpoint: &&WorkloadEntry| {
        let address: IpAddr = endpoint.address.as_deref()?.parse().ok()?;
        let address = SocketAddr::new(address, dial_port(endpoint, port));
        Some(StaticEndpoint { address, weight: weight(endpoint) })
    };
    Endpoints::Static(endpoints.iter().filter_map(endpoint).collect())
}

/// Names under `endpoints:`, or the service's own. Addresses written under `resolution: DNS` need no resolving and
/// are the operator's as those of STATIC are; validation refuses a mixture of both.
fn dns(
    endpoints: &[&WorkloadEntry],
    name: Option<&HostName>,
    is_labelled: bool,
    port: &ServicePortEntry<'_>,
    make: impl Fn(Box<[DnsEndpoint]>) -> Endpoints,
) -> Endpoints {
    if port.entry.spec.endpoints.is_empty() {
        // A subset that selects by labels has no endpoint here: nothing carries labels.
        let name = name.filter(|_| !is_labelled);
        let endpoint = |name: &HostName| DnsEndpoint { name: name.clone(), port: port.target(), weight: 1 };
        return make(exact(name.into_iter().map(endpoint)).into());
    }
    let named = |endpoint: &&WorkloadEntry| {
        let name = endpoint.address.as_deref()?.parse().ok()?;
        Some(DnsEndpoint { name, port: dial_port(endpoint, port), weight: weight(endpoint) })
    };
    let names = exact(endpoints.iter().filter_map(named));
    if names.is_empty() { addresses(endpoints, port) } else { make(names.into()) }
}

/// A list without room for more. `shrink_to_fit` would leave it where it is, as far as the allocator is concerned.
pub(super) fn exact<T>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let items: Vec<T> = items.into_iter().collect();
    if items.len() == items.capacity() {
        return items;
    }
    let mut exact = Vec::with_capacity(items.len());
    exact.extend(items);
    exact
}
