//! Gateways by name, the VirtualServices bound to each, and the hosts that mean a Gateway's own service.

use std::collections::{BTreeMap, HashMap};

use crate::config::istio::gateway::{Gateway, Server, ServerTlsMode};
use crate::config::istio::service_entry::Protocol;
use crate::config::istio::virtual_service::VirtualService;
use crate::config::istio::{Object, Objects};
use crate::route::host::HostPattern;

/// The word for the sidecars of a mesh: whoever comes to a listener without being led to a Gateway.
const MESH: &str = "mesh";

/// The Service of Istio's egress gateway, as its tasks name it, whatever its namespace.
const EGRESS_GATEWAY: &str = "istio-egressgateway";

/// Where a rule may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// For clients that come to a listener.
    Mesh,
    /// For what arrives at the servers of a Gateway: its namespace and name.
    Gateway(&'a str, &'a str),
}

impl Place<'_> {
    /// Whether `gateways:` of an object in `namespace` names this place; none is `mesh`.
    #[must_use]
    pub fn is_named(self, gateways: &[String], namespace: &str) -> bool {
        match self {
            Self::Mesh => is_mesh(gateways),
            Self::Gateway(..) => gateways.iter().any(|gateway| self == resolve(gateway, namespace)),
        }
    }

    /// Whether `match[].gateways` of an object that holds here lets the match hold here too.
    #[must_use]
    pub fn is_within(self, gateways: &[String], namespace: &str) -> bool {
        gateways.is_empty() || self.is_named(gateways, namespace)
    }
}

/// What an entry of `gateways:` names: `mesh`, `namespace/name`, a name in the object's own namespace, or the
/// legacy `name.namespace…`.
#[must_use]
pub fn resolve<'a>(gateway: &'a str, namespace: &'a str) -> Place<'a> {
    if gateway == MESH {
        return Place::Mesh;
    }
    if let Some((namespace, name)) = gateway.split_once('/') {
        return Place::Gateway(namespace, name);
    }
    match gateway.split_once('.') {
        Some((name, rest)) => Place::Gateway(rest.split('.').next().unwrap_or_default(), name),
        None => Place::Gateway(namespace, gateway),
    }
}

/// Whether a list of gateways, empty meaning the default, names the mesh.
#[must_use]
pub fn is_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
}

/// What a server takes from those who arrive at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Plain HTTP.
    Http,
    /// HTTP within TLS that ends at the server; in the mesh's own TLS, a hop within this process.
    HttpInTls(ServerTlsMode),
    /// The client's own TLS, which goes on as it is.
    Tls,
    /// TCP, whatever is in it.
    Tcp,
    /// TCP within TLS that ends at the server; in the mesh's own TLS, a hop within this process.
    TcpInTls(ServerTlsMode),
    /// TLS of a kind that is not served here.
    Nothing,
}

impl Takes {
    /// Whether the TLS of clients ends here who come to a listener. That of the mesh is a hop within this process.
    #[must_use]
    pub fn ends_tls_of_clients(self) -> bool {
        matches!(self, Self::HttpInTls(mode) | Self::TcpInTls(mode) if matches!(mode, ServerTlsMode::Simple | ServerTlsMode::Mutual))
    }

    /// Whether what arrives goes where `tcp` rules lead it.
    #[must_use]
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::TcpInTls(_))
    }
}

/// The port of a server and what it takes there; `None`: the port is no port.
#[must_use]
pub fn entrance(server: &Server) -> Option<(u16, Takes)> {
    let port = server.port.as_ref()?;
    let number = port.number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)?;
    let mode = server.tls.as_ref().map(|tls| tls.mode.unwrap_or_default());
    let takes = match (Protocol::parse(port.protocol.as_deref())?, mode) {
        (Protocol::Http | Protocol::Http2, _) => Takes::Http,
        (Protocol::Tls, Some(ServerTlsMode::Passthrough)) => Takes::Tls,
        (Protocol::Tls, Some(mode @ (ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::IstioMutual))) => {
            if is_https(port.protocol.as_deref()) {
                Takes::HttpInTls(mode)
            } else {
                Takes::TcpInTls(mode)
            }
        }
        (Protocol::Tcp, None) => Takes::Tcp,
        (Protocol::Tls, Some(ServerTlsMode::AutoPassthrough | ServerTlsMode::OptionalMutual) | None)
        | (Protocol::Tcp, Some(_))
        | (Protocol::Udp | Protocol::Any, _) => Takes::Nothing,
    };
    Some((number, takes))
}

/// Within TLS that ends at the server, HTTPS is HTTP; TLS is any bytes.
fn is_https(protocol: Option<&str>) -> bool {
    protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("HTTPS"))
}

/// Every Gateway.
#[derive(Debug)]
pub struct Gateways<'a> {
    by_name: BTreeMap<(&'a str, &'a str), &'a Object<Gateway>>,
    /// VirtualServices by the Gateway that they are bound to, oldest first.
    bound: HashMap<(&'a str, &'a str), Vec<&'a Object<VirtualService>>>,
    /// Hosts that mean this gateway's own service, besides [`EGRESS_GATEWAY`].
    services: &'a [HostPattern],
}

impl<'a> Gateways<'a> {
    /// Indexes the Gateways and the VirtualServices, oldest first.
    pub(super) fn new(objects: &'a Objects, services: &'a [HostPattern]) -> Self {
        let by_name = objects.gateways.iter().map(|gateway| (gateway.origin.identity(), gateway)).collect();
        let mut bound: HashMap<_, Vec<&Object<VirtualService>>> = HashMap::new();
        for object in &objects.virtual_services {
            for gateway in &object.spec.gateways {
                let Place::Gateway(namespace, name) = resolve(gateway, object.origin.object.namespace()) else {
                    continue;
                };
                let list = bound.entry((namespace, name)).or_default();
                if !list.iter().any(|known| std::ptr::eq(*known, object)) {
                    list.push(object);
                }
            }
        }
        Self { by_name, bound, services }
    }

    /// The Gateway of this name.
    #[must_use]
    pub fn named(&self, namespace: &str, name: &str) -> Option<&'a Object<Gateway>> {
        self.by_name.get(&(namespace, name)).copied()
    }

    /// Whether the rules of a VirtualService hold anywhere: in the mesh, or at a Gateway that there is.
    #[must_use]
    pub fn is_in_force(&self, object: &Object<VirtualService>) -> bool {
        let names = &object.spec.gateways;
        is_mesh(names)
            || names.iter().any(|name| match resolve(name, object.origin.object.namespace()) {
                Place::Mesh => true,
                Place::Gateway(namespace, name) => self.named(namespace, name).is_some(),
            })
    }

    /// The VirtualServices bound to a Gateway, oldest first.
    #[must_use]
    pub fn bound(&self, gateway: &'a Object<Gateway>) -> &[&'a Object<VirtualService>] {
        self.bound.get(&gateway.origin.identity()).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a destination means a Gateway's own service, unless a ServiceEntry declares it.
    #[must_use]
    pub fn is_own_service(&self, host: &HostPattern) -> bool {
        let HostPattern::Exact(name) = host else { return false };
        let is_egress_gateway = name.as_str().split('.').next() == Some(EGRESS_GATEWAY);
        is_egress_gateway || self.services.iter().any(|own| own.matches(name))
    }

    /// The hosts that are admitted with their own TLS on a port, for the VirtualServices of a namespace.
    #[must_use]
    pub fn tls_hosts(&self, port: u16, namespace: &str) -> Vec<Admitted> {
        let mut hosts = Vec::new();
        for ((of, _), gateway) in &self.by_name {
            let servers = gateway.spec.servers.iter().filter(|server| entrance(server) == Some((port, Takes::Tls)));
            servers.for_each(|server| hosts.extend(admitted(server, of, namespace)));
        }
        hosts
    }

    /// What the servers of all Gateways take on a port.
    pub fn takes_on(&self, port: u16) -> impl Iterator<Item = Takes> {
        let servers = self.by_name.values().flat_map(|gateway| &gateway.spec.servers);
        servers.filter_map(entrance).filter(move |(number, _)| *number == port).map(|(_, takes)| takes)
    }

    /// What takes the TCP that a route of the mesh leads to a port; `None`: nothing does, or several servers within TLS do,
    /// among which only a server name could choose.
    #[must_use]
    pub fn tcp_hop(&self, port: u16) -> Option<Takes> {
        let mut taking = self.takes_on(port).filter(|takes| takes.is_tcp());
        let first = taking.next()?;
        taking.all(|other| (first, other) == (Takes::Tcp, Takes::Tcp)).then_some(first)
    }
}

/// A host that a server admits: `*` is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// Any host at all.
    Any,
    /// One name, or those below a suffix.
    Pattern(HostPattern),
}

impl Admitted {
    /// Reads a host of a VirtualService, or of a server without its namespace.
    #[must_use]
    pub fn parse(host: &str) -> Option<Self> {
        match host {
            "*" => Some(Self::Any),
            host => HostPattern::parse(host).ok().map(Self::Pattern),
        }
    }

    /// What both admit: the narrower of the two, if one covers the other.
    #[must_use]
    pub fn common(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, narrower) | (narrower, Self::Any) => Some(narrower.clone()),
            (Self::Pattern(one), Self::Pattern(other)) if one.covers(other) => Some(Self::Pattern(other.clone())),
            (Self::Pattern(one), Self::Pattern(other)) => other.covers(one).then(|| Self::Pattern(one.clone())),
        }
    }
}

impl std::fmt::Display for Admitted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => formatter.write_str("*"),
            Self::Pattern(pattern) => pattern.fmt(formatter),
        }
    }
}

/// The hosts that a server of a Gateway in `gateway_namespace` admits for VirtualServices of `namespace`:
/// `./host` and `other/host` admit those of one namespace only.
pub fn admitted<'s>(
    server: &'s Server,
    gateway_namespace: &'s str,
    namespace: &'s str,
) -> impl Iterator<Item = Admitted> + 's {
    server.hosts.iter().filter_map(move |host| match host.split_once('/') {
        None | Some(("*", _)) => Admitted::parse(host.rsplit('/').next().unwrap_or_default()),
        Some((".", host)) => (gateway_namespace == namespace).then(|| Admitted::parse(host))?,
        Some((of, host)) => (of == namespace).then(|| Admitted::parse(host))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_named_in_four_ways() {
        assert_eq!(resolve("mesh", "default"), Place::Mesh);
        assert_eq!(resolve("egress", "default"), Place::Gateway("default", "egress"));
        assert_eq!(resolve("istio-system/egress", "default"), Place::Gateway("istio-system", "egress"));
        assert_eq!(resolve("egress.istio-system.svc.cluster.local", "x"), Place::Gateway("istio-system", "egress"));
    }

    #[test]
    fn a_match_without_gateways_holds_where_its_object_does() {
        let here = Place::Gateway("default", "egress");
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(here.is_within(&[], "default"));
        assert!(here.is_within(&named(&["mesh", "egress"]), "default"));
        assert!(!here.is_within(&named(&["mesh"]), "default"));
        assert!(!here.is_within(&named(&["egress"]), "other"));
        assert!(Place::Mesh.is_named(&[], "default"));
        assert!(!here.is_named(&[], "default"));
    }

    #[test]
    fn what_two_hosts_have_in_common_is_the_narrower_one() {
        let common = |one: &str, other: &str| {
            let (one, other) = (Admitted::parse(one).expect("a host"), Admitted::parse(other).expect("a host"));
            one.common(&other).map(|both| both.to_string())
        };
        assert_eq!(common("*", "a.com").as_deref(), Some("a.com"));
        assert_eq!(common("*", "*").as_deref(), Some("*"));
        assert_eq!(common("*.a.com", "b.a.com").as_deref(), Some("b.a.com"));
        assert_eq!(common("*.b.a.com", "*.a.com").as_deref(), Some("*.b.a.com"));
        assert_eq!(common("a.com", "b.com"), None);
    }

    #[test]
    fn a_server_may_admit_hosts_for_the_virtual_services_of_one_namespace() {
        let hosts = "{hosts: [a.com, ./b.com, other/c.com, '*/d.com']}";
        let server: Server = serde_yaml::from_str(hosts).expect("a server");
        let of = |namespace| admitted(&server, "own", namespace).map(|host| host.to_string()).collect::<Vec<_>>();
        assert_eq!(of("own"), ["a.com", "b.com", "d.com"]);
        assert_eq!(of("other"), ["a.com", "c.com", "d.com"]);
    }
}
