//! TLS that begins or ends in this process: rustls, driven over the worker's buffers.
//!
//! rustls' unbuffered interface is used rather than monoio-rustls, whose stream holds 32 KiB of buffers while idle,
//! copies every byte three times, loses data when a read is dropped, and cannot be taken apart safely: bytes that
//! arrive behind the last flight of a handshake (session tickets, half-RTT data) stay in a buffer that `into_parts`
//! drops.

mod clients;
pub mod in_place;
pub mod server;
pub mod session;
mod tickets;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

use crate::route::cluster::TlsBounds;

/// The provider without what the operator has ruled out. Cipher suites of TLS 1.3 are not subject to choice, as in Envoy.
pub(crate) fn bounded(provider: &Arc<CryptoProvider>, bounds: &TlsBounds) -> Arc<CryptoProvider> {
    if bounds.suites.is_empty() && bounds.groups.is_empty() {
        return Arc::clone(provider);
    }
    let mut provider = CryptoProvider::clone(provider);
    if !bounds.suites.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| suite.version() == &TLS13 || bounds.suites.contains(&u16::from(suite.suite())));
    }
    if !bounds.groups.is_empty() {
        provider.kx_groups.retain(|group| bounds.groups.contains(&u16::from(group.name())));
    }
    Arc::new(provider)
}

/// The versions that are spoken.
pub(crate) fn versions(only_13: bool, only_12: bool) -> Vec<&'static SupportedProtocolVersion> {
    match (only_13, only_12) {
        (true, _) => vec![&TLS13],
        (false, true) => vec![&TLS12],
        (false, false) => vec![&TLS13, &TLS12],
    }
}
