//! Forwarding: find a connection, exchange request and response over it, and try again where that is safe.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use crate::failure::Failure;
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::net::within;
use crate::route::cluster::{Cluster, TlsProfile};
use crate::route::host::{Authority, AuthorityHost, HostName};
use crate::route::http::{Forward, Matched, RequestFacts as _, RetryPolicy};
use crate::snapshot::Snapshot;
use crate::upstream::balance::Candidates;
use crate::upstream::connection::Connection;
use crate::upstream::dial;
use crate::upstream::pool::PoolKey;
use crate::upstream::tls;

use super::super::tunnel::{cluster_of, passthrough_cluster};
use super::exchange::{self, Attempt};
use super::facts::Facts;
use super::turn::{Ending, Turn};
use super::{Client, Context};

/// First wait before another attempt, doubled each time: Envoy's default.
const RETRY_BACK_OFF: Duration = Duration::from_millis(25);

/// Everything about a request that its route has settled.
pub(super) struct Plan<'s> {
    cluster: ClusterRef<'s>,
    /// Path and query to send.
    pub(super) target: String,
    /// The Host to send; `None`: as the client sent it.
    pub(super) host: Option<&'s str>,
    /// The name to resolve where the cluster leaves it to the request, and to put into the SNI.
    requested: HostName,
    timeout: Option<Duration>,
    retry: RetryPolicy,
}

enum ClusterRef<'s> {
    Route(&'s Cluster),
    Anywhere(Box<Cluster>),
}

impl ClusterRef<'_> {
    fn get(&self) -> &Cluster {
        match self {
            Self::Route(cluster) => cluster,
            Self::Anywhere(cluster) => cluster,
        }
    }
}

impl<'s> Plan<'s> {
    /// What a route makes of a request.
    ///
    /// # Errors
    /// [`Failure::NoCluster`]; [`Failure::NoRoute`] for a rewrite that names no valid host.
    pub(super) fn new(
        snapshot: &'s Snapshot,
        context: &Context,
        facts: &Facts<'_>,
        matched: Matched<'s>,
        route: &'s Forward,
    ) -> Result<Self, Failure> {
        let cluster = cluster_of(snapshot, route.clusters.pick(context.balancer.random()))?;
        let host = route.rewrite_authority.as_deref();
        let requested = match host {
            Some(host) => match Authority::parse(host.as_bytes()).map(|authority| authority.host) {
                Ok(AuthorityHost::Name(name)) => name,
                Ok(AuthorityHost::Address(_)) | Err(_) => return Err(Failure::NoRoute),
            },
            None => facts.host.clone().ok_or(Failure::NotListed)?,
        };
        let rewritten = route.rewrite_path.as_ref().and_then(|rewrite| rewrite.apply(facts.path(), matched));
        Ok(Self {
            cluster: ClusterRef::Route(cluster),
            target: facts.target(rewritten.as_deref()),
            host,
            requested,
            timeout: route.timeout,
            retry: route.retry.clone(),
        })
    }

    /// Forwarding to a host that no resource names, under ALLOW_ANY.
    ///
    /// # Errors
    /// [`Failure::NotListed`] for a request that names no host.
    pub(super) fn anywhere(snapshot: &Snapshot, client: &Client, facts: &Facts<'_>) -> Result<Self, Failure> {
        Ok(Self {
            cluster: ClusterRef::Anywhere(Box::new(passthrough_cluster(client.service_port, snapshot))),
            target: facts.target(None),
            host: None,
            requested: facts.host.clone().ok_or(Failure::NotListed)?,
            timeout: None,
            retry: RetryPolicy::default(),
        })
    }
}

/// Forwards the request of `turn` and its response.
///
/// # Errors
/// The failure to answer; nothing has been sent to the client yet.
pub(super) async fn forward(turn: &mut Turn<'_>, plan: Plan<'_>) -> Result<Ending, Failure> {
    let cluster = plan.cluster.get();
    turn.story.cluster = Some(cluster.name.clone());
    let deadline = plan.timeout.map(|timeout| Instant::now() + timeout);
    let attempts = async { attempts(turn, &plan).await };
    match deadline {
        None => attempts.await,
        Some(deadline) => todo_deadline(attempts, deadline).await,
    }
}
