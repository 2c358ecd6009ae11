//! `ServiceEntry` (istio/api networking/v1alpha3/service_entry.proto).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_yaml::Value;

use super::scalar::{Enumeration, List, Map, enumeration, integer};

/// What may leave, and where it goes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntry {
    /// Names and `*.` wildcards.
    pub hosts: List<String>,
    /// Where captured clients mean to go, and what plain HTTP clients may ask for in place of a host.
    pub addresses: List<String>,
    /// Service ports.
    pub ports: List<ServicePort>,
    /// Read, without effect on egress.
    #[serde(deserialize_with = "enumeration")]
    pub location: Option<Location>,
    /// How endpoints are found; absent: NONE.
    #[serde(deserialize_with = "enumeration")]
    pub resolution: Option<Resolution>,
    /// Where connections go.
    pub endpoints: List<WorkloadEntry>,
    /// Selects pods; there are none here.
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<Box<Value>>,
    /// Visibility.
    #[serde(alias = "export_to")]
    pub export_to: List<String>,
    /// Names that the upstream's certificate must carry, where no DestinationRule says.
    #[serde(alias = "subject_alt_names")]
    pub subject_alt_names: List<String>,
}

/// One entry of `ports:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// The port that clients use and rules mean.
    #[serde(deserialize_with = "integer")]
    pub number: Option<i64>,
    /// HTTP, HTTPS, TLS, …; absent: any.
    pub protocol: Option<String>,
    /// Unique in the entry.
    pub name: Option<String>,
    /// The port to dial; absent: `number`.
    #[serde(alias = "target_port", deserialize_with = "integer")]
    pub target_port: Option<i64>,
}

/// One entry of `endpoints:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// An address, or a name where the resolution is DNS.
    pub address: Option<String>,
    /// Ports to dial by the name of the service port.
    pub ports: Map<Port>,
    /// What subsets select by.
    pub labels: Map<String>,
    /// Multi-network meshes only.
    pub network: Option<Box<Value>>,
    /// Locality load balancing.
    pub locality: Option<Box<Value>>,
    /// Relative share.
    #[serde(deserialize_with = "integer")]
    pub weight: Option<i64>,
    /// Identity inside a mesh.
    #[serde(alias = "service_account")]
    pub service_account: Option<Box<Value>>,
}

/// A port in a map, which may be in quotes as any integer of protojson.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub struct Port(#[serde(deserialize_with = "integer")] pub Option<i64>);

/// `location`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Outside the mesh.
    MeshExternal,
    /// Inside.
    MeshInternal,
}

impl ServiceEntry {
    /// `addresses`, single ones as ranges of one. What does not parse has been reported.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.addresses.iter().filter_map(|text| range(text))
    }
}

/// A range, or a single address.
#[must_use]
pub fn range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

impl Enumeration for Location {
    const VALUES: &'static [(&'static str, i64, Self)] =
        &[("MESH_EXTERNAL", 0, Self::MeshExternal), ("MESH_INTERNAL", 1, Self::MeshInternal)];
}

/// `resolution`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// The name that the client asked for, resolved by us; of TCP the address that a captured client meant to reach.
    #[default]
    None,
    /// The addresses under `endpoints:`.
    Static,
    /// Names, all of whose addresses are endpoints.
    Dns,
    /// Names, one address per new connection.
    DnsRoundRobin,
    /// The requested name below a wildcard.
    DynamicDns,
}

impl Enumeration for Resolution {
    const VALUES: &'static [(&'static str, i64, Self)] = &[
        ("NONE", 0, Self::None),
        ("STATIC", 1, Self::Static),
        ("DNS", 2, Self::Dns),
        ("DNS_ROUND_ROBIN", 3, Self::DnsRoundRobin),
        ("DYNAMIC_DNS", 4, Self::DynamicDns),
    ];
}

/// `ports[].protocol`, reduced to what the gateway does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, HTTP_PROXY.
    Http,
    /// HTTP2, GRPC, GRPC-WEB: routed as HTTP.
    Http2,
    /// HTTPS, TLS: the client's own TLS, by SNI.
    Tls,
    /// TCP, MONGO, REDIS, MYSQL: by captured address, or by port alone.
    Tcp,
    /// Not carried at all.
    Udp,
    /// Absent: what the client speaks decides.
    Any,
}

impl Protocol {
    /// Reads Istio's word, without case. `None`: no such protocol.
    #[must_use]
    pub fn parse(word: Option<&str>) -> Option<Self> {
        let Some(word) = word.filter(|word| !word.is_empty()) else { return Some(Self::Any) };
        Some(match word.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTP_PROXY" => Self::Http,
            "HTTP2" | "GRPC" | "GRPC-WEB" => Self::Http2,
            "HTTPS" | "TLS" => Self::Tls,
            "TCP" | "MONGO" | "REDIS" | "MYSQL" => Self::Tcp,
            "UDP" => Self::Udp,
            _ => return None,
        })
    }

    /// Whether `http:` blocks apply.
    #[must_use]
    pub fn takes_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Any)
    }

    /// Whether `tcp:` blocks apply.
    #[must_use]
    pub fn takes_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Any)
    }

    /// Whether `tls:` blocks apply.
    #[must_use]
    pub fn takes_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Any)
    }
}
