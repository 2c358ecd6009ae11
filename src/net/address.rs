//! Socket addresses, in half the bytes where they are IPv4: every session holds three for as long as it lives.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// Equal to a [`SocketAddr`] in all but size.
#[derive(Clone, Debug)]
pub enum Address {
    /// An address of IPv4.
    V4(SocketAddrV4),
    /// One of IPv6.
    V6(Box<SocketAddrV6>),
}

const _: () = assert!(size_of::<Address>() == 16 && size_of::<SocketAddr>() == 32);

impl Address {
    /// The address.
    #[must_use]
    pub fn get(&self) -> SocketAddr {
        match self {
            Self::V4(address) => SocketAddr::V4(*address),
            Self::V6(address) => SocketAddr::V6(**address),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(address),
            SocketAddr::V6(address) => Self::V6(Box::new(address)),
        }
    }
}
