//! TLS origination: what the gateway shows to upstreams, and what it accepts of them.

mod verify;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;

use crate::net::Socket;
use crate::route::cluster::TlsProfile;
use crate::tls::in_place;
use crate::tls::session::{self, Established, HandshakeError, TlsSession};
use crate::tls::{bounded, versions};
use crate::wire::http2::ALPN;

/// A session with an upstream.
pub type UpstreamSession = TlsSession<UnbufferedClientConnection>;

/// Opens TLS over a fresh connection. May be dropped at any time, with the socket.
///
/// # Errors
/// [`HandshakeError`]; the alert that is due has been sent as far as the socket took it.
pub async fn handshake(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: &Socket,
) -> Result<UpstreamSession, HandshakeError> {
    let connection = Box::new(UnbufferedClientConnection::new(config, name)?);
    let Established { mut session, plain, ended } = session::handshake(connection, socket, Vec::new()).await?;
    if ended {
        return Err(HandshakeError::Closed);
    }
    // A server may speak before it has heard the end of our handshake (RFC 8446 section 4.4.4): a greeting, or its settings
    // for HTTP/2.
    session.put_back(plain);
    Ok(session)
}

/// TLS sessions that a worker remembers for resumption, per profile.
const SESSIONS_REMEMBERED: usize = 1024;

/// A worker's rustls configurations, one per profile, each with its own session cache: a session is never resumed
/// under a profile that would not have accepted its certificate.
#[derive(Debug)]
pub struct TlsConfigs {
    provider: Arc<CryptoProvider>,
    /// By profile, and whether it offers HTTP/2.
    configs: RefCell<HashMap<(u32, bool), Arc<ClientConfig>, foldhash::fast::RandomState>>,
}

impl Default for TlsConfigs {
    fn default() -> Self {
        Self { provider: Arc::new(in_place::provider()), configs: RefCell::default() }
    }
}

impl TlsConfigs {
    /// The configuration for a profile, made on first use; `http2` offers HTTP/2 and nothing else.
    ///
    /// # Errors
    /// When rustls refuses the profile: a key that does not fit its certificate, CRLs that cannot be parsed.
    pub fn get(&self, profile: &TlsProfile, http2: bool) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.configs.borrow().get(&(profile.id, http2)) {
            return Ok(Arc::clone(config));
        }
        let mut config = self.build(profile)?;
        if http2 {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        let config = Arc::new(config);
        self.configs.borrow_mut().insert((profile.id, http2), Arc::clone(&config));
        Ok(config)
    }

    /// Forgets profiles that are gone, with their sessions.
    pub fn retain(&self, keep: impl Fn(u32) -> bool) {
        self.configs.borrow_mut().retain(|(id, _), _| keep(*id));
    }

    fn build(&self, profile: &TlsProfile) -> Result<ClientConfig, rustls::Error> {
        let verifier = verify::verifier(profile, &self.provider)?;
        let builder = ClientConfig::builder_with_provider(bounded(&self.provider, &profile.bounds))
            .with_protocol_versions(&versions(profile.bounds.only_13, false))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &profile.identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::in_memory_sessions(SESSIONS_REMEMBERED);
        Ok(config)
    }
}
