//! TLS that ends at a server of a Gateway: what the server shows, what it asks of clients, and what is found behind it.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::CertificateRevocationListDer;

use super::cluster::{Identity, TlsBounds};
use super::table::{GatewayHosts, ObjectRef};

/// A server that clients choose by the server name of their hello.
#[derive(Debug)]
pub enum TlsServer {
    /// The client's own TLS goes on as it is.
    Through,
    /// It ends here, and something else is found in it.
    Terminating(Box<Termination>),
    /// It is of a kind that is not served: whoever asks for it is refused, and no wider server takes him.
    Closed,
}

impl TlsServer {
    /// The server, if TLS ends at it.
    #[must_use]
    pub fn termination(&self) -> Option<&Termination> {
        match self {
            Self::Terminating(termination) => Some(termination),
            Self::Through | Self::Closed => None,
        }
    }
}

/// A server at which TLS ends.
#[derive(Debug)]
pub struct Termination {
    /// Its Gateway.
    pub gateway: Arc<ObjectRef>,
    /// What it shows and asks for.
    pub profile: Arc<ServerProfile>,
    /// What is in the TLS.
    pub inside: Inside,
}

/// What a server finds in TLS that ends at it.
#[derive(Debug)]
pub enum Inside {
    /// HTTP, for the hosts of its VirtualServices; the values index [`super::table::Tables::virtual_hosts`].
    Http(GatewayHosts),
    /// Any bytes; indexes [`super::table::Tables::tcp_hosts`].
    Tcp(u32),
}

impl Termination {
    /// Where its bytes go, if they may be anything.
    #[must_use]
    pub fn tcp(&self) -> Option<u32> {
        match self.inside {
            Inside::Http(_) => None,
            Inside::Tcp(index) => Some(index),
        }
    }
}

/// What a server shows and asks for, shared by all servers that agree on every setting.
///
/// Workers build their own rustls configuration from this. A session is resumed under the profile that it was made
/// under, and for the same server name: rustls asks for the latter, the key of the tickets sees to the former.
#[derive(Debug)]
pub struct ServerProfile {
    /// Equal exactly for equal settings, certificates included, over the life of the process.
    pub id: u32,
    /// Certificates with their keys. Which one a client gets depends on what it can verify.
    pub identities: Vec<Identity>,
    /// What clients must show (`tls.mode: MUTUAL`).
    pub clients: Option<Arc<ClientCheck>>,
    /// Versions, cipher suites and groups that may be used.
    pub bounds: TlsBounds,
    /// TLS 1.2 alone; else 1.3 as well.
    pub only_12: bool,
    /// Whether HTTP is spoken inside, on whose version both sides agree by ALPN. A client that offers other protocols would be
    /// turned away.
    pub speaks_http: bool,
    /// From which the keys of the session tickets are made.
    pub tickets: TicketSecret,
    /// When the first certificate of the chains ends.
    pub identity_end: Option<SystemTime>,
}

/// What the certificate of a client must be.
#[derive(Debug)]
pub struct ClientCheck {
    /// Equal exactly for equal checks, over the life of the process.
    pub id: u32,
    /// Roots of trust.
    pub roots: Arc<RootCertStore>,
    /// Revocation lists; empty: revocation is not checked.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    /// Subject alternative names, of which it must carry one; empty: any.
    pub names: Vec<Box<str>>,
    /// SHA-256 of certificates and of public keys, of which one must be its; both empty: any.
    pub certificates: Vec<[u8; 32]>,
    /// See [`Self::certificates`].
    pub keys: Vec<[u8; 32]>,
    /// When the first certificate of the roots ends.
    pub roots_end: Option<SystemTime>,
}

/// The beginning of a chain of ticket keys, and when it began. Every worker goes along the same chain, so that a ticket
/// of one is good for all.
#[derive(Clone)]
pub struct TicketSecret {
    /// The first link.
    pub bytes: [u8; 32],
    /// When it was in force.
    pub born: Instant,
}

/// Never the bytes.
impl fmt::Debug for TicketSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TicketSecret").field("born", &self.born).finish_non_exhaustive()
    }
}
