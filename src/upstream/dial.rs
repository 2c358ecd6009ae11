//! One TCP connection to the first candidate that takes it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::failure::Failure;
use crate::net::{Socket, within};
use crate::route::cluster::Cluster;

/// Why a connection could not be made: the failure, the address that was tried, and what to write into the log.
#[derive(Debug)]
pub struct DialError {
    /// [`Failure::ConnectFailed`] or [`Failure::ConnectTimeout`].
    pub failure: Failure,
    /// The last address that was tried.
    pub address: SocketAddr,
    /// The system's word.
    pub reason: String,
}

/// Connects to an endpoint of a cluster, as its settings say.
///
/// # Errors
/// [`DialError`].
pub async fn reach(cluster: &Cluster, address: SocketAddr) -> Result<Socket, DialError> {
    let socket = dial(address, cluster.connect_timeout).await?;
    if let Some(traffic) = &cluster.traffic {
        // Probes that the kernel refuses to send are none that a peer could miss.
        traffic.keepalive.inspect(|keepalive| socket.keep_alive(keepalive.probes, keepalive.time, keepalive.interval));
    }
    Ok(socket)
}

/// Connects to exactly this address: it has been judged, and is never resolved again.
///
/// # Errors
/// [`DialError`].
pub async fn dial(address: SocketAddr, timeout: Duration) -> Result<Socket, DialError> {
    match within(timeout, Socket::connect(address)).await {
        Some(Ok(socket)) => Ok(socket),
        Some(Err(error)) => Err(DialError {
            failure: Failure::ConnectFailed,
            address,
            reason: format!("connect to {address}: {error}"),
        }),
        None => {
            let reason = format!("connect to {address}: no answer within {timeout:?}");
            Err(DialError { failure: Failure::ConnectTimeout, address, reason })
        }
    }
}
