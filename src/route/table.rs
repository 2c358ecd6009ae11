//! The compiled tables: from service port and host to what may happen there.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::authorization::Authorization;
use super::cluster::{Cluster, ClusterId, PoolId, Weighted};
use super::decide::Source;
use super::few::Few;
use super::host::HostName;
use super::http::{HttpRoute, Matched, RequestFacts};
use super::subnets::SubnetMap;
use super::termination::{Inside, Termination, TlsServer};
use super::traffic::{AccountId, Traffic};
use super::trie::HostTrie;

/// Routes of one generation, in two parts: the host tries, of which every worker has its own copy because each
/// session walks one, and everything that a walk leads to, which is immutable and shared for reading. The `Arc` is
/// cloned once per worker and reload, never per session.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// Tries by service port, sorted by port.
    pub ports: Vec<PortTries>,
    /// What the tries' values index.
    pub tables: Arc<Tables>,
}

/// The host tries of one service port.
#[derive(Clone, Debug, Default)]
pub struct PortTries {
    /// The service port.
    pub port: u16,
    /// Hosts that take plain HTTP; the values index [`Tables::virtual_hosts`].
    pub http: HostTrie,
    /// Hosts that take the client's own TLS; the values index [`Tables::tls_hosts`].
    pub tls: HostTrie,
    /// Services that take TCP.
    pub tcp: TcpTable,
    /// Addresses that a plain HTTP client may ask for in place of a host.
    pub aliases: SubnetMap<HostName>,
}

/// TCP services of one port by the address that a captured client meant to reach; the values index
/// [`Tables::tcp_hosts`].
#[derive(Clone, Debug, Default)]
pub struct TcpTable {
    /// Those with `addresses`.
    pub ranges: SubnetMap<u32>,
    /// The one without, which takes whatever no range does, captured or not.
    pub any: Option<u32>,
}

/// What the tries lead to.
#[derive(Debug, Default)]
pub struct Tables {
    /// Hosts that take plain HTTP.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Hosts that take TLS.
    pub tls_hosts: Vec<TlsHost>,
    /// Services that take TCP.
    pub tcp_hosts: Vec<TcpHost>,
    /// Every cluster that a route may lead to.
    pub clusters: Vec<Cluster>,
    /// The DestinationRules of the clusters, for `explain`.
    pub cluster_rules: ClusterRules,
    /// Servers of this node's Gateways, sorted by port.
    pub gateways: Vec<GatewayPort>,
    /// Their servers that take TLS.
    pub tls_servers: Vec<TlsServer>,
    /// What AuthorizationPolicies say.
    pub authorization: Authorization,
    /// Whether any rule looks at a path, so that escaped slashes in paths must be refused.
    pub path_policy: bool,
    /// Whether any rule looks at a method, so that no field may ask the upstream for another one.
    pub method_policy: bool,
    /// What outlives a reload.
    pub survivors: Survivors,
}

/// What the servers of all Gateways admit on one port. Few sessions come here, so workers share these tries.
#[derive(Debug, Default)]
pub struct GatewayPort {
    /// The port of the servers.
    pub port: u16,
    /// Hosts for HTTP that a route of the mesh leads here; the values index [`Tables::virtual_hosts`].
    pub http: GatewayHosts,
    /// Those of them that servers take as plain HTTP, from clients too.
    pub plain: GatewayHosts,
    /// Hosts for the client's own TLS; the values index [`Tables::tls_hosts`].
    pub tls: GatewayHosts,
    /// The server for TCP that a route of the mesh leads here; indexes [`Tables::tcp_hosts`].
    pub tcp: Option<u32>,
    /// The server that takes plain TCP from clients, on a port that takes nothing else.
    pub plain_tcp: Option<u32>,
    /// The servers that take TLS, by the server name; the values index [`Tables::tls_servers`].
    pub servers: GatewayHosts,
}

/// Hosts that are admitted at a Gateway.
#[derive(Debug, Default)]
pub struct GatewayHosts {
    /// Those that are named.
    pub named: HostTrie,
    /// All others.
    pub any: Option<u32>,
}

impl GatewayHosts {
    /// The value for a host, the most specific first.
    #[must_use]
    pub fn find(&self, host: &HostName) -> Option<u32> {
        self.named.find(host).or(self.any)
    }
}

/// The pools, TLS profiles and bounds that the clusters of one generation use: what a worker keeps when it takes over the
/// generation. Sorted when the tables are compiled, so that no worker has to go through all clusters.
#[derive(Debug, Default)]
pub struct Survivors {
    pools: Box<[PoolId]>,
    profiles: Box<[u32]>,
    servers: Box<[u32]>,
    /// By account.
    traffic: Box<[Arc<Traffic>]>,
}

impl Survivors {
    /// Those of these clusters and servers.
    #[must_use]
    pub fn of(clusters: &[Cluster], servers: &[TlsServer]) -> Self {
        let profiles = clusters.iter().filter_map(|cluster| cluster.tls.as_ref()?.profile.as_ref().ok());
        Self {
            pools: sorted(clusters.iter().map(|cluster| cluster.pool)),
            profiles: sorted(profiles.map(|profile| profile.id)),
            servers: sorted(servers.iter().filter_map(TlsServer::termination).map(|it| it.profile.id)),
            traffic: {
                let mut traffic: Vec<_> = clusters.iter().filter_map(|cluster| cluster.traffic.clone()).collect();
                traffic.sort_unstable_by_key(|traffic| traffic.account);
                traffic.into()
            },
        }
    }

    /// Whether a cluster has this pool.
    #[must_use]
    pub fn has_pool(&self, pool: PoolId) -> bool {
        self.pools.binary_search(&pool).is_ok()
    }

    /// Whether a cluster has the profile of this identifier.
    #[must_use]
    pub fn has_profile(&self, id: u32) -> bool {
        self.profiles.binary_search(&id).is_ok()
    }

    /// Whether a server has the profile of this identifier.
    #[must_use]
    pub fn has_server(&self, id: u32) -> bool {
        self.servers.binary_search(&id).is_ok()
    }

    /// What is said of the clusters that are counted in this account.
    #[must_use]
    pub fn traffic(&self, account: AccountId) -> Option<&Traffic> {
        let index = self.traffic.binary_search_by_key(&account, |traffic| traffic.account).ok()?;
        Some(&self.traffic[index])
    }
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Box<[T]> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values.into()
}

/// The DestinationRules of those clusters that have any, sorted by cluster.
pub type ClusterRules = Vec<(ClusterId, Box<[Arc<ObjectRef>]>)>;

/// The objects that make a host what it is; most often there is one.
pub type ObjectRefs = SmallVec<[Arc<ObjectRef>; 1]>;

/// One object of the configuration, for `explain`, `rbac_access_denied` details and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// `ServiceEntry`, `VirtualService`, ….
    pub kind: &'static str,
    /// Namespace and name: there is an allocation less for each of very many objects.
    text: Box<str>,
    namespace_bytes: u32,
    /// The parts of a [`Place`], which fill what `namespace_bytes` leaves of its word.
    line: u32,
    file: Arc<String>,
}

impl ObjectRef {
    /// The object of this kind and name that stands there.
    #[must_use]
    pub fn new(kind: &'static str, namespace: &str, name: &str, source: Place) -> Self {
        let Place { file, line } = source;
        let namespace_bytes = u32::try_from(namespace.len()).expect("a file is far shorter than 4 GiB");
        Self { kind, text: [namespace, name].concat().into(), namespace_bytes, line, file }
    }

    /// `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.text[..self.namespace_bytes as usize]
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[self.namespace_bytes as usize..]
    }

    /// `file.yaml:12`.
    #[must_use]
    pub fn source(&self) -> Place {
        Place { file: Arc::clone(&self.file), line: self.line }
    }
}

/// A line of a file, shown as `file.yaml:12`. All objects of a file share its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    file: Arc<String>,
    line: u32,
}

impl Place {
    /// A line, counted from 1.
    #[must_use]
    pub fn new(file: Arc<String>, line: u32) -> Self {
        Self { file, line }
    }

    /// The file's path.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// One host that takes plain HTTP on one port.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// The host as the operator wrote it, wildcard included.
    pub host: Box<str>,
    /// The ServiceEntry that opens it, and the VirtualService that routes it, if any.
    pub objects: ObjectRefs,
    /// Tried in order; the first whose match holds decides. None holds: 404 `NR`.
    pub routes: Vec<HttpRoute>,
}

/// One host that takes the client's own TLS on one port.
#[derive(Clone, Debug)]
pub struct TlsHost {
    /// The host as the operator wrote it, wildcard included.
    pub host: Box<str>,
    /// The ServiceEntry that opens it, and the VirtualService that routes it, if any.
    pub objects: Few<Arc<ObjectRef>>,
    /// Where the bytes go; `None`: listed, but no route matches (`NR`).
    pub route: Option<Weighted>,
    /// Where the bytes of captured clients go, by the address that they meant to reach (`destinationSubnets`), which few
    /// hosts have.
    pub by_destination: Option<Box<SubnetMap<Weighted>>>,
}

/// One service that takes TCP on one port, or one server of a Gateway.
#[derive(Clone, Debug)]
pub struct TcpHost {
    /// The host as the operator wrote it, wildcard included; of a server, those that it admits.
    pub host: Box<str>,
    /// The ServiceEntry that opens it, and the VirtualService that routes it, if any. Of a server, those of all services that
    /// it may lead to.
    pub objects: ObjectRefs,
    /// Where the bytes go; `None`: listed, but no route matches (`NR`).
    pub route: Option<Weighted>,
    /// Where the bytes of captured clients go, by the address that they meant to reach (`destinationSubnets`).
    pub by_destination: SubnetMap<Weighted>,
    /// Whether the port is declared as TCP, so that nobody needs to know what the client speaks.
    pub is_opaque: bool,
}

/// The TCP service that a connection belongs to.
#[derive(Clone, Copy, Debug)]
pub struct TcpFound<'t> {
    /// The service.
    pub host: &'t TcpHost,
    /// Whether one of its addresses says so; else it takes the whole port.
    pub by_address: bool,
}

impl Tables {
    /// The DestinationRules whose policy a cluster has.
    #[must_use]
    pub fn rules_of(&self, id: ClusterId) -> &[Arc<ObjectRef>] {
        let index = self.cluster_rules.binary_search_by_key(&id, |(id, _)| *id);
        index.map_or(&[], |index| &self.cluster_rules[index].1)
    }
}

impl TlsHost {
    /// Where the bytes of a client go that meant to reach this address, if it was captured.
    #[must_use]
    pub fn route_to(&self, destination: Option<IpAddr>) -> Option<&Weighted> {
        let by_destination = self.by_destination.as_deref().zip(destination);
        by_destination.and_then(|(routes, address)| routes.find(address)).or(self.route.as_ref())
    }
}

impl TcpHost {
    /// As [`TlsHost::route_to`].
    #[must_use]
    pub fn route_to(&self, destination: Option<IpAddr>) -> Option<&Weighted> {
        destination.and_then(|address| self.by_destination.find(address)).or(self.route.as_ref())
    }
}

impl VirtualHost {
    /// The route for a request that has passed the authorization policies; `None`: 404 `NR`.
    #[must_use]
    pub fn decide(&self, facts: &(impl RequestFacts + ?Sized)) -> Option<Matched<'_>> {
        HttpRoute::find(&self.routes, facts)
    }
}

impl RouteTable {
    /// The virtual host for a plain HTTP request, most specific pattern first; `None`: the host is not listed
    /// on this port.
    #[must_use]
    pub fn http(&self, port: u16, host: &HostName) -> Option<&VirtualHost> {
        let index = self.port(port)?.http.find(host)?;
        self.tables.virtual_hosts.get(index as usize)
    }

    /// The entry for a TLS client that asked for `sni`; `None`: the host is not listed on this port.
    #[must_use]
    pub fn tls(&self, port: u16, sni: &HostName) -> Option<&TlsHost> {
        let index = self.port(port)?.tls.find(sni)?;
        self.tables.tls_hosts.get(index as usize)
    }

    /// The virtual host for a plain HTTP request, where it came to; `None`: the host is not listed there.
    #[must_use]
    pub fn http_at(&self, source: Source, host: &HostName) -> Option<&VirtualHost> {
        if !source.gateway {
            return self.http(source.port, host);
        }
        let hosts = match source.tls {
            None => &self.gateway(source.port)?.plain,
            Some(tls) => match &self.termination(source.port, tls.server_name)?.inside {
                Inside::Http(hosts) => hosts,
                Inside::Tcp(_) => return None,
            },
        };
        self.tables.virtual_hosts.get(hosts.find(host)? as usize)
    }

    /// The server of the Gateways on `port` that a TLS client chooses by its server name; one without takes whoever any
    /// server may take.
    #[must_use]
    pub fn tls_server(&self, port: u16, server_name: Option<&HostName>) -> Option<&TlsServer> {
        let servers = &self.gateway(port)?.servers;
        let index = server_name.map_or(servers.any, |name| servers.find(name))?;
        self.tables.tls_servers.get(index as usize)
    }

    /// The same, if TLS ends there.
    #[must_use]
    pub fn termination(&self, port: u16, server_name: Option<&HostName>) -> Option<&Termination> {
        self.tls_server(port, server_name)?.termination()
    }

    /// Whether the server that `server_name` chooses is the one that `host` would: a request for another server's host
    /// must not come in by this one, which may have asked less of the client.
    #[must_use]
    pub fn shares_server(&self, port: u16, server_name: Option<&HostName>, host: Option<&HostName>) -> bool {
        let chosen = self.termination(port, server_name);
        let asked = self.termination(port, host);
        chosen.zip(asked).is_some_and(|(chosen, asked)| std::ptr::eq(chosen, asked))
    }

    /// The entry for a TLS client, where it came to; `None`: the name is not listed there.
    #[must_use]
    pub fn tls_at(&self, source: Source, sni: &HostName) -> Option<&TlsHost> {
        if source.gateway { self.gateway_tls(source.port, sni) } else { self.tls(source.port, sni) }
    }

    /// The entry for a TCP session, where it came to; `None`: nothing takes it there.
    #[must_use]
    pub fn tcp_at(&self, source: Source) -> Option<&TcpHost> {
        if !source.gateway {
            return self.tcp(source.port, source.destination).map(|found| found.host);
        }
        let index = match source.tls {
            None => self.gateway(source.port)?.plain_tcp?,
            Some(tls) => self.termination(source.port, tls.server_name)?.tcp()?,
        };
        self.tables.tcp_hosts.get(index as usize)
    }

    /// The entry for bytes that a route has led to the Gateways on `port`.
    #[must_use]
    pub fn gateway_tcp(&self, port: u16) -> Option<&TcpHost> {
        self.tables.tcp_hosts.get(self.gateway(port)?.tcp? as usize)
    }

    /// The virtual host for a plain HTTP request that a route has led to the Gateways on `port`.
    #[must_use]
    pub fn gateway_http(&self, port: u16, host: &HostName) -> Option<&VirtualHost> {
        let index = self.gateway(port)?.http.find(host)?;
        self.tables.virtual_hosts.get(index as usize)
    }

    /// The entry for a TLS client that a route has led to the Gateways on `port`.
    #[must_use]
    pub fn gateway_tls(&self, port: u16, sni: &HostName) -> Option<&TlsHost> {
        let index = self.gateway(port)?.tls.find(sni)?;
        self.tables.tls_hosts.get(index as usize)
    }

    fn gateway(&self, port: u16) -> Option<&GatewayPort> {
        let gateways = &self.tables.gateways;
        let index = gateways.binary_search_by_key(&port, |gateway| gateway.port).ok()?;
        gateways.get(index)
    }

    /// The TCP service for a connection to this port; `destination` is where it was meant to go, if it was captured.
    #[must_use]
    pub fn tcp(&self, port: u16, destination: Option<IpAddr>) -> Option<TcpFound<'_>> {
        let table = &self.port(port)?.tcp;
        let by_address = destination.and_then(|address| table.ranges.find(address));
        let index = *by_address.or(table.any.as_ref())?;
        let host = self.tables.tcp_hosts.get(index as usize)?;
        Some(TcpFound { host, by_address: by_address.is_some() })
    }

    /// The services that take TCP at some addresses of a port, with one of those, for `explain`.
    pub fn tcp_addresses(&self, port: u16) -> impl Iterator<Item = (IpAddr, &TcpHost)> {
        let networks = self.port(port).into_iter().flat_map(|tries| tries.tcp.ranges.networks());
        networks.filter_map(|(address, index)| Some((address, self.tables.tcp_hosts.get(*index as usize)?)))
    }

    /// Whether any host of this port takes plain HTTP, and whether any takes TLS.
    #[must_use]
    pub fn takes_names(&self, port: u16) -> (bool, bool) {
        self.port(port).map_or((false, false), |tries| (!tries.http.is_empty(), !tries.tls.is_empty()))
    }

    /// The host that an address stands for in requests to this port.
    #[must_use]
    pub fn alias(&self, port: u16, address: IpAddr) -> Option<&HostName> {
        self.port(port)?.aliases.find(address)
    }

    /// A cluster of this generation.
    #[must_use]
    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        self.tables.clusters.get(id.0 as usize)
    }

    fn port(&self, port: u16) -> Option<&PortTries> {
        let index = self.ports.binary_search_by_key(&port, |tries| tries.port).ok()?;
        self.ports.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::HostPattern;
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().expect("a valid name")
    }

    fn tries(port: u16, http: &str, tls: &str) -> PortTries {
        let mut tries = PortTries { port, ..PortTries::default() };
        tries.http.insert(&HostPattern::parse(http).expect("a valid pattern"), 0).expect("the trie is empty");
        tries.tls.insert(&HostPattern::parse(tls).expect("a valid pattern"), 0).expect("the trie is empty");
        tries
    }

    #[test]
    fn a_host_is_open_on_its_port_and_for_its_protocol_alone() {
        let tables = Tables {
            virtual_hosts: vec![VirtualHost { host: "*.a.com".into(), objects: ObjectRefs::new(), routes: Vec::new() }],
            tls_hosts: vec![TlsHost {
                host: "b.com".into(),
                objects: Few::default(),
                route: None,
                by_destination: None,
            }],
            ..Tables::default()
        };
        let ports = vec![tries(80, "*.a.com", "b.com"), tries(443, "*.a.com", "b.com")];
        let table = RouteTable { ports, tables: Arc::new(tables) };
        assert_eq!(table.http(80, &name("x.a.com")).map(|host| &*host.host), Some("*.a.com"));
        assert_eq!(table.tls(443, &name("b.com")).map(|host| &*host.host), Some("b.com"));
        assert!(table.http(80, &name("b.com")).is_none());
        assert!(table.tls(443, &name("x.a.com")).is_none());
        assert!(table.http(8080, &name("x.a.com")).is_none());
        assert!(table.cluster(ClusterId(0)).is_none());
    }

    #[test]
    fn an_index_beyond_the_tables_opens_nothing() {
        let table = RouteTable { ports: vec![tries(80, "a.com", "b.com")], tables: Arc::default() };
        assert!(table.http(80, &name("a.com")).is_none());
        assert!(table.tls(80, &name("b.com")).is_none());
    }
}
