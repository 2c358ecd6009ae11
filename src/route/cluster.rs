//! Clusters: where a route leads, and how the gateway connects there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use super::few::Few;
use super::host::HostName;
use super::subnets::SubnetMap;
use super::traffic::Traffic;

/// Index of a cluster in [`super::table::Tables::clusters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u32);

/// One destination: a service host, a port, and the policy that a DestinationRule gives it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// What it is called.
    pub name: ClusterName,
    /// Where connections go.
    pub endpoints: Endpoints,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Whether and how the gateway opens TLS; `None`: plain text (or the client's own TLS, untouched). Most clusters have
    /// none, so it is boxed.
    pub tls: Option<Box<UpstreamTls>>,
    /// What the gateway speaks to it.
    pub version: HttpVersion,
    /// Longest wait for a TCP connection to one address.
    pub connect_timeout: Duration,
    /// Bounds, timeouts and whatever else a DestinationRule says of its connections; `None`: nothing.
    pub traffic: Option<Arc<Traffic>>,
    /// Equal for two clusters (of any two generations) exactly if a connection opened for one may serve the
    /// other: same service, endpoints, TLS settings (certificates and CRLs included), version of HTTP and [`Traffic`]. Pools are keyed by it,
    /// so an unchanged cluster keeps its connections across a reload and a changed one never reuses them.
    pub pool: PoolId,
}

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1.
    One,
    /// HTTP/2: agreed on by ALPN inside TLS, taken for granted in plain text.
    Two,
    /// What the client speaks (`useClientProtocol`).
    Client,
}

/// The names of a cluster, in one text: the second is the end of the first nearly always.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterName {
    text: Box<str>,
    /// Where the name ends.
    end: u32,
    /// Where the service begins.
    service: u32,
}

impl ClusterName {
    /// A cluster of this name, for this service.
    #[must_use]
    pub fn new(name: &str, service: &str) -> Self {
        let text: Box<str> = if name.ends_with(service) { name.into() } else { format!("{name}{service}").into() };
        let position = |bytes: usize| u32::try_from(bytes).expect("a name is far shorter than 4 GiB");
        Self { end: position(name.len()), service: position(text.len() - service.len()), text }
    }

    /// Istio's name for logs and metrics: `outbound|443||www.googleapis.com`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text[..self.end as usize]
    }

    /// The host as the operator wrote it; the only form of a host that may become a metric label.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.text[self.service as usize..]
    }
}

impl std::fmt::Display for ClusterName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// See [`Cluster::pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

/// Where the connections of a cluster go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoints {
    /// Addresses written by the operator (`resolution: STATIC`): exempt from the address policy, except
    /// that our own listeners and admin address are refused.
    Static(Few<StaticEndpoint>),
    /// Names written by the operator (`resolution: DNS`), resolved by us; every address is an endpoint.
    Dns(Box<[DnsEndpoint]>),
    /// As [`Self::Dns`], but one address per new connection, in the resolver's order (`DNS_ROUND_ROBIN`).
    DnsRoundRobin(Box<[DnsEndpoint]>),
    /// The name that the client asked for, which the route has matched (`resolution: NONE`, `DYNAMIC_DNS`
    /// and wildcard hosts), resolved by us when the session needs it.
    Requested {
        /// The port to dial.
        port: u16,
    },
    /// Where each captured client meant to go, if the operator wrote that down (`resolution: NONE` of TCP).
    Original(Original),
    /// Where one captured client meant to go, which no resource names (ALLOW_ANY); subject to the address policy.
    Captured(SocketAddr),
}

/// Where captured clients may go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Original {
    /// `addresses` of the ServiceEntry.
    pub ranges: SubnetMap<()>,
    /// `targetPort`, which takes the place of the port that the client meant.
    pub port: Option<u16>,
}

/// One address of a [`Endpoints::Static`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StaticEndpoint {
    /// Address and port to dial.
    pub address: SocketAddr,
    /// Relative share, at least 1.
    pub weight: u32,
}

/// One name of a [`Endpoints::Dns`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsEndpoint {
    /// The name to resolve.
    pub name: HostName,
    /// The port to dial.
    pub port: u16,
    /// Relative share of each of its addresses, at least 1.
    pub weight: u32,
}

/// How an endpoint is chosen among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Fewest sessions in progress of two picked at random (Istio's default).
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
    /// By a key of the session ([`Traffic::hash`]).
    Hash,
}

/// TLS that the gateway opens itself.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// The SNI to send; `None`: the host of the request, port stripped.
    pub sni: Option<HostName>,
    /// What to verify and what to present, or why that is not available: then every request gets 503 `UH`
    /// with this reason, until a reload finds the missing file.
    pub profile: Result<Arc<TlsProfile>, Box<str>>,
}

/// Verification and identity, shared by all clusters that agree on every setting.
///
/// Workers build their own rustls configuration, with their own session cache, from this; the `Arc` is
/// touched at reload only.
#[derive(Debug)]
pub struct TlsProfile {
    /// Equal exactly for equal settings, certificates included, over the life of the process: the key under
    /// which a worker keeps the rustls configuration made from this profile.
    pub id: u32,
    /// Roots of trust.
    pub roots: Arc<rustls::RootCertStore>,
    /// Certificate revocation lists (RFC 5280 section 5), PEM or DER decoded; empty: revocation is not checked.
    pub crls: Vec<rustls::pki_types::CertificateRevocationListDer<'static>>,
    /// The name check that follows the chain check.
    pub verify: VerifyName,
    /// Our own certificate chain and key (`tls.mode: MUTUAL`).
    pub identity: Option<Identity>,
    /// Versions, cipher suites and groups that may be used.
    pub bounds: TlsBounds,
    /// When the first certificate of the roots ends, if the operator named them: `caCertificates`, not the system's.
    pub roots_end: Option<SystemTime>,
    /// When the first certificate of our own chain ends.
    pub identity_end: Option<SystemTime>,
}

/// `meshConfig.tlsDefaults`; numbers are those of IANA's TLS registries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsBounds {
    /// TLS 1.3 alone; else 1.2 as well.
    pub only_13: bool,
    /// The cipher suites of TLS 1.2; empty: all.
    pub suites: Vec<u16>,
    /// The groups of the key exchange; empty: all.
    pub groups: Vec<u16>,
}

/// Which name the upstream's certificate must carry, as a subject alternative name; the common name is never read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VerifyName {
    /// The SNI that was sent.
    Sni,
    /// Any of these, written by the operator as `subjectAltNames`.
    AnyOf(SmallVec<[Box<str>; 1]>),
    /// None: the chain alone (`serverNameVerification: ISTIO` with an explicit `sni` and no `subjectAltNames`).
    ChainOnly,
    /// Nothing at all: `insecureSkipVerify: true`.
    Nothing,
}

/// A certificate of our own.
#[derive(Debug)]
pub struct Identity {
    /// The chain, leaf first.
    pub chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: rustls::pki_types::PrivateKeyDer<'static>,
}

/// Destinations of a route with their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted(Shares);

/// There are as many of them as there are hosts, and nearly all have one destination, whose weight says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shares {
    One(Destination),
    Several(Box<Several>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Several {
    choices: Box<[(Destination, u32)]>,
    total: u32,
}

/// One destination of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A cluster of the tables.
    Cluster(ClusterId),
    /// The servers of this node's own Gateways on this port, whose routes decide again: once, and never from there.
    Gateway(u16),
    /// The same, of bytes that no name tells apart: the server that takes TCP on this port.
    GatewayTcp(u16),
    /// The route names a host, port or subset that does not exist: 503 `NC`.
    Missing,
}

impl Weighted {
    /// All of the traffic to one destination.
    #[must_use]
    pub fn single(destination: Destination) -> Self {
        Self(Shares::One(destination))
    }

    /// Shares relative to their sum; destinations of weight 0 are left out. `None` if nothing is left.
    #[must_use]
    pub fn new(choices: impl IntoIterator<Item = (Destination, u32)>) -> Option<Self> {
        let choices: Box<[_]> = choices.into_iter().filter(|(_, weight)| *weight > 0).collect();
        let total = choices.iter().try_fold(0u32, |total, (_, weight)| total.checked_add(*weight))?;
        match &*choices {
            [] => None,
            [(only, _)] => Some(Self::single(*only)),
            _ => Some(Self(Shares::Several(Box::new(Several { choices, total })))),
        }
    }

    /// The destination for one session; `ticket` is any number, evenly distributed over `u32`.
    #[must_use]
    pub fn pick(&self, ticket: u32) -> Destination {
        self.pick_indexed(ticket).1
    }

    /// [`Self::pick`], with the position of the destination among those of [`Self::iter`].
    #[must_use]
    pub fn pick_indexed(&self, ticket: u32) -> (usize, Destination) {
        let Several { choices, total } = match &self.0 {
            Shares::One(destination) => return (0, *destination),
            Shares::Several(several) => &**several,
        };
        let mut ticket = ticket % total;
        for (index, (destination, weight)) in choices.iter().enumerate() {
            if ticket < *weight {
                return (index, *destination);
            }
            ticket -= weight;
        }
        (choices.len(), Destination::Missing)
    }

    /// Every destination with its weight, in the order of the route.
    pub fn iter(&self) -> impl Iterator<Item = (Destination, u32)> + '_ {
        let (only, several) = match &self.0 {
            Shares::One(destination) => (Some((*destination, 1)), None),
            Shares::Several(several) => (None, Some(&several.choices)),
        };
        only.into_iter().chain(several.into_iter().flatten().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_for_every_host_is_small() {
        assert_eq!(size_of::<Option<Weighted>>(), 16);
        assert_eq!(size_of::<Endpoints>(), 40);
        assert_eq!(size_of::<Cluster>(), 104);
    }

    fn cluster(id: u32) -> Destination {
        Destination::Cluster(ClusterId(id))
    }

    #[test]
    fn a_cluster_and_its_service_have_their_names() {
        for (name, service) in [("outbound|443||*.a.com", "*.a.com"), ("PassthroughCluster", "unknown"), ("a", "")] {
            let both = ClusterName::new(name, service);
            assert_eq!((both.as_str(), both.service()), (name, service));
        }
    }

    #[test]
    fn shares_are_relative_to_their_sum() {
        let weighted = Weighted::new([(cluster(0), 1), (cluster(1), 0), (cluster(2), 3)]).expect("something is left");
        let picks: Vec<_> = (0..4).map(|ticket| weighted.pick(ticket)).collect();
        assert_eq!(picks, [cluster(0), cluster(2), cluster(2), cluster(2)]);
        assert_eq!(weighted.pick(4), weighted.pick(0));
        assert_eq!(weighted.pick(u32::MAX), cluster(2));
    }

    #[test]
    fn shares_of_nothing_or_beyond_counting_are_refused() {
        assert_eq!(Weighted::new([]), None);
        assert_eq!(Weighted::new([(cluster(0), 0)]), None);
        assert_eq!(Weighted::new([(cluster(0), u32::MAX), (cluster(1), 1)]), None);
    }
}
