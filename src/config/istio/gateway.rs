//! `Gateway` (istio/api networking/v1alpha3/gateway.proto).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::scalar::{Enumeration, List, enumeration, integer};

/// Servers at the edge of a mesh; here, what routes to a gateway re-enter through.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Ports and the hosts that they take.
    pub servers: List<Server>,
    /// Selects gateway workloads; every selector means this node.
    pub selector: BTreeMap<String, String>,
}

/// One entry of `servers:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Server {
    /// The port that routes and listeners mean.
    pub port: Option<ServerPort>,
    /// An address to listen on; listeners are the bootstrap file's.
    pub bind: Option<String>,
    /// `[namespace/]host`, with `*`, `*.suffix` and `./`.
    pub hosts: List<String>,
    /// What the client must speak.
    pub tls: Option<ServerTls>,
    /// Nothing reads it, in Istio neither.
    #[serde(alias = "default_endpoint")]
    pub default_endpoint: Option<String>,
    /// A prefix of metrics.
    pub name: Option<String>,
}

/// `port:` of a server.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerPort {
    /// The port.
    #[serde(deserialize_with = "integer")]
    pub number: Option<i64>,
    /// `HTTP`, `HTTPS`, `TLS`, ….
    pub protocol: Option<String>,
    /// A label for it.
    pub name: Option<String>,
    /// Nothing reads it, in Istio neither.
    #[serde(alias = "target_port", deserialize_with = "integer")]
    pub target_port: Option<i64>,
}

/// `tls:` of a server.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerTls {
    /// Answer plain HTTP with a redirect to `https`.
    #[serde(alias = "https_redirect")]
    pub https_redirect: Option<bool>,
    /// Whose TLS it is.
    #[serde(deserialize_with = "enumeration")]
    pub mode: Option<ServerTlsMode>,
    /// Our certificate.
    #[serde(alias = "server_certificate")]
    pub server_certificate: Option<String>,
    /// Its key.
    #[serde(alias = "private_key")]
    pub private_key: Option<String>,
    /// Roots that clients' certificates are verified by.
    #[serde(alias = "ca_certificates")]
    pub ca_certificates: Option<String>,
    /// Revocation lists of clients' certificates.
    #[serde(alias = "ca_crl")]
    pub ca_crl: Option<String>,
    /// A Secret or a folder of credentials instead of files.
    #[serde(alias = "credential_name")]
    pub credential_name: Option<String>,
    /// The same, several.
    #[serde(alias = "credential_names")]
    pub credential_names: List<String>,
    /// Several certificates.
    #[serde(alias = "tls_certificates")]
    pub tls_certificates: List<TlsCertificate>,
    /// Names that clients' certificates must carry.
    #[serde(alias = "subject_alt_names")]
    pub subject_alt_names: List<String>,
    /// Pins of clients' keys.
    #[serde(alias = "verify_certificate_spki")]
    pub verify_certificate_spki: List<String>,
    /// Pins of clients' certificates.
    #[serde(alias = "verify_certificate_hash")]
    pub verify_certificate_hash: List<String>,
    /// Oldest version.
    #[serde(alias = "min_protocol_version", deserialize_with = "enumeration")]
    pub min_protocol_version: Option<TlsVersion>,
    /// Newest version.
    #[serde(alias = "max_protocol_version", deserialize_with = "enumeration")]
    pub max_protocol_version: Option<TlsVersion>,
    /// OpenSSL's names of suites.
    #[serde(alias = "cipher_suites")]
    pub cipher_suites: List<String>,
}

/// An entry of `tlsCertificates:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsCertificate {
    /// Our certificate.
    #[serde(alias = "server_certificate")]
    pub server_certificate: Option<String>,
    /// Its key.
    #[serde(alias = "private_key")]
    pub private_key: Option<String>,
    /// Roots that clients' certificates are verified by.
    #[serde(alias = "ca_certificates")]
    pub ca_certificates: Option<String>,
}

/// `tls.mode` of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTlsMode {
    /// The client's own TLS goes on as it is, by its SNI.
    #[default]
    Passthrough,
    /// TLS ends here.
    Simple,
    /// TLS ends here, and the client shows a certificate.
    Mutual,
    /// Passthrough by the names of a mesh's own clusters.
    AutoPassthrough,
    /// The mesh's own TLS: a hop within this process.
    IstioMutual,
    /// TLS ends here, and the client may show a certificate.
    OptionalMutual,
}

impl Enumeration for ServerTlsMode {
    const VALUES: &'static [(&'static str, i64, Self)] = &[
        ("PASSTHROUGH", 0, Self::Passthrough),
        ("SIMPLE", 1, Self::Simple),
        ("MUTUAL", 2, Self::Mutual),
        ("AUTO_PASSTHROUGH", 3, Self::AutoPassthrough),
        ("ISTIO_MUTUAL", 4, Self::IstioMutual),
        ("OPTIONAL_MUTUAL", 5, Self::OptionalMutual),
    ];
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// The default: 1.2 and newer.
    Auto,
    /// Too old to be spoken here.
    V1_0,
    /// Too old to be spoken here.
    V1_1,
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

impl Enumeration for TlsVersion {
    const VALUES: &'static [(&'static str, i64, Self)] = &[
        ("TLS_AUTO", 0, Self::Auto),
        ("TLSV1_0", 1, Self::V1_0),
        ("TLSV1_1", 2, Self::V1_1),
        ("TLSV1_2", 3, Self::V1_2),
        ("TLSV1_3", 4, Self::V1_3),
    ];
}
