//! TLS that ends here: a worker's rustls configurations, one per profile.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig, SignatureAlgorithm, SupportedCipherSuite};

use crate::route::termination::ServerProfile;
use crate::wire::http2::ALPN;

use super::in_place;
use super::session::TlsSession;
use super::tickets::Tickets;
use super::{bounded, clients, versions};

/// What is spoken inside, the most welcome first (RFC 7301). A client that offers nothing gets HTTP/1.1.
const PROTOCOLS: [&[u8]; 2] = [ALPN, b"http/1.1"];

/// A session with a client.
pub type ClientSession = TlsSession<UnbufferedServerConnection>;

/// A worker's rustls configurations for servers.
#[derive(Debug)]
pub struct TlsServers {
    provider: Arc<CryptoProvider>,
    servers: RefCell<HashMap<u32, Server, foldhash::fast::RandomState>>,
}

/// What a profile has become.
#[derive(Clone, Debug)]
pub struct Server {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Default for TlsServers {
    fn default() -> Self {
        Self { provider: Arc::new(in_place::provider()), servers: RefCell::default() }
    }
}

impl TlsServers {
    /// The configuration for a profile, made on first use.
    ///
    /// # Errors
    /// When rustls refuses the profile.
    pub fn get(&self, profile: &ServerProfile) -> Result<Server, Error> {
        if let Some(server) = self.servers.borrow().get(&profile.id) {
            return Ok(server.clone());
        }
        let server = Server::new(profile, &self.provider)?;
        self.servers.borrow_mut().insert(profile.id, server.clone());
        Ok(server)
    }

    /// Forgets profiles that are gone. Sessions that were made under them live on.
    pub fn retain(&self, keep: impl Fn(u32) -> bool) {
        self.servers.borrow_mut().retain(|id, _| keep(*id));
    }
}

impl Server {
    /// Builds the configuration of a profile.
    ///
    /// # Errors
    /// When rustls refuses it: a key that does not fit its certificate, revocation lists that cannot be parsed.
    pub fn new(profile: &ServerProfile, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let clients = match &profile.clients {
            Some(check) => Some(clients::verifier(check, provider)?),
            None => None,
        };
        let provider = bounded(provider, &profile.bounds);
        let certificates = Certificates::new(profile, &provider)?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(profile.bounds.only_13, profile.only_12))?;
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        if profile.speaks_http {
            config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        }
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Tickets::new(&profile.tickets));
        // Early data could be replayed by anybody who has seen it (RFC 8446 section 8).
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), clients })
    }

    /// Whether a client that has shown `certificates` would be let in.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<(), Error> {
        let Some(verifier) = &self.clients else { return Ok(()) };
        let Some((leaf, intermediates)) = certificates.and_then(<[_]>::split_first) else {
            return Err(Error::NoCertificatesPresented);
        };
        verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop)
    }
}

/// The certificates of a server, those with the cheaper signatures first.
#[derive(Debug)]
struct Certificates {
    keys: Vec<Arc<CertifiedKey>>,
    suites: Vec<SupportedCipherSuite>,
}

impl Certificates {
    fn new(profile: &ServerProfile, provider: &CryptoProvider) -> Result<Self, Error> {
        let certified = profile.identities.iter().map(|identity| {
            let key = CertifiedKey::from_der(identity.chain.clone(), identity.key.clone_key(), provider)?;
            Ok(Arc::new(key))
        });
        let mut keys: Vec<_> = certified.collect::<Result<_, Error>>()?;
        keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        Ok(Self { keys, suites: provider.cipher_suites.clone() })
    }

    /// Whether the client knows the signatures of this key; in TLS 1.2 its cipher suites name them too.
    fn suits(&self, key: &CertifiedKey, hello: &ClientHello<'_>) -> bool {
        let offered = hello.cipher_suites();
        let mut common = self.suites.iter().filter(|suite| offered.contains(&suite.suite()));
        key.key.choose_scheme(hello.signature_schemes()).is_some()
            && common.any(|suite| match suite {
                SupportedCipherSuite::Tls13(_) => true,
                SupportedCipherSuite::Tls12(suite) => key.key.choose_scheme(suite.sign).is_some(),
            })
    }
}

impl ResolvesServerCert for Certificates {
    /// A client that none suits gets the first: rustls tells it then what is missing.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let suiting = self.keys.iter().find(|key| self.suits(key, &hello));
        suiting.or(self.keys.first()).cloned()
    }
}
