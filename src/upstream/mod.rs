//! From a cluster to a connection: choose an endpoint, resolve it, dial it, open TLS, keep it for reuse.

pub mod account;
pub mod balance;
pub mod connection;
pub mod dial;
pub mod forward_proxy;
pub mod http2;
pub mod outlier;
pub mod pool;
pub mod resolve;
pub mod tls;
