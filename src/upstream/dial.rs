//! One TCP connection to the first candidate that takes it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::failure::Failure;
use crate::net::{Socket, within};
use crate::route::cluster::Cluster;
use crate::route::traffic::Traffic;
use crate::wire::proxy_protocol;

use super::forward_proxy;

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
pub async fn reach(cluster: &Cluster, address: SocketAddr, client: Client) -> Result<Socket, DialError> {
    let socket = dial(address, cluster.connect_timeout).await?;
    if let Some(traffic) = &cluster.traffic {
        // Boxed: few clusters ask for more than a connection.
        Box::pin(prepare(&socket, traffic, cluster.connect_timeout, client)).await.map_err(|reason| DialError {
            failure: Failure::ConnectFailed,
            address,
            reason,
        })?;
    }
    Ok(socket)
}

/// Whose connection is carried on, for those who want to be told.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its address.
    pub source: SocketAddr,
    /// The address that it connected to.
    pub destination: SocketAddr,
}

/// What comes before the first byte of the client.
async fn prepare(socket: &Socket, traffic: &Traffic, patience: Duration, client: Client) -> Result<(), String> {
    traffic.keepalive.inspect(|keepalive| socket.keep_alive(keepalive.probes, keepalive.time, keepalive.interval));
    if let Some(version) = traffic.proxy_protocol {
        let header = proxy_protocol::header(version, client.source, client.destination);
        socket.send_all(&header).await.map_err(|error| format!("PROXY header: {error}"))?;
    }
    if let Some(target) = &traffic.tunnel {
        forward_proxy::connect(socket, target, patience).await?;
    }
    Ok(())
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
