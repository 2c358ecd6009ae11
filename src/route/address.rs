//! The address policy: which resolved addresses may be dialled.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// `addressPolicy` of the bootstrap file, with our own addresses. Deny wins over allow.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    /// Ranges opened on purpose.
    pub allow: Vec<IpNet>,
    /// Ranges closed on top of the built-in list.
    pub deny: Vec<IpNet>,
    /// Our own listeners and admin, wildcard binds included: always refused.
    pub own: Vec<SocketAddr>,
    /// This machine's own interface addresses, which a wildcard bind listens on.
    pub local: Vec<IpAddr>,
}

/// Why an address is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// One of our own listeners, or admin.
    OwnAddress,
    /// In `addressPolicy.deny`.
    Denied,
    /// Not globally routable; the class, for the log.
    Class(&'static str),
}

impl AddressPolicy {
    /// Judges an address that a name resolved to.
    ///
    /// # Errors
    /// Why it may not be dialled.
    pub fn judge_resolved(&self, address: SocketAddr) -> Result<(), Closed> {
        self.judge_configured(address)
    }

    /// Judges an address that the operator wrote (STATIC endpoints, `dns.hosts`): only our own are refused.
    ///
    /// # Errors
    /// [`Closed::OwnAddress`].
    pub fn judge_configured(&self, address: SocketAddr) -> Result<(), Closed> {
        if self.own.contains(&address) { Err(Closed::OwnAddress) } else { Ok(()) }
    }
}
