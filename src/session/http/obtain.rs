//! The connection that a request goes out on: an idle one, or one that is made for it.

mod shared;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;

use crate::failure::Failure;
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::net::{Socket, within};
use crate::route::cluster::{Cluster, HttpVersion, TlsProfile, VerifyName};
use crate::route::host::HostName;
use crate::upstream::account::{Account, Lease, Passage};
use crate::upstream::balance::{Candidates, Wanted};
use crate::upstream::connection::Connection;
use crate::upstream::dial;
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::PoolKey;
use crate::upstream::tls;
use crate::wire::http1::Version;

use super::Context;
use super::forward::{AttemptError, Cause, Plan, overflowed};
use super::turn::Turn;

/// What a request goes out on.
pub(super) struct Obtained {
    pub(super) connection: Box<Connection>,
    pub(super) key: PoolKey,
    /// Whether it has served a request before.
    pub(super) reused: bool,
}

/// What it takes to make a connection.
#[derive(Clone, Copy)]
pub(super) struct Making<'p> {
    pub(super) cluster: &'p Cluster,
    pub(super) candidates: &'p Candidates,
    /// TLS, and the name in it.
    origination: Option<(&'p Arc<TlsProfile>, &'p HostName)>,
    http2: bool,
}

/// A connection for the request: an idle one, or a new one to the first candidate that can be reached and verified.
pub(super) async fn obtain(
    turn: &mut Turn<'_>,
    plan: &Plan<'_>,
    tried: &[SocketAddr],
) -> Result<Obtained, AttemptError> {
    let context = Rc::clone(turn.context);
    let cluster = plan.cluster.get();
    let (profile, server_name) = match &cluster.tls {
        None => (None, None),
        Some(tls) => match &tls.profile {
            Ok(profile) => {
                let name = tls.sni.clone().or_else(|| plan.requested.clone());
                // Without a name nothing could be verified.
                (Some(profile), Some(name.ok_or(AttemptError::last(Failure::NoHealthyUpstream))?))
            }
            Err(reason) => return Err(AttemptError::last(turn.story.transport(Failure::NoHealthyUpstream, reason))),
        },
    };
    let policy = &turn.snapshot.settings.addresses;
    let account = plan.passage.as_ref().map(Passage::account);
    let wanted = Wanted { host: plan.requested.as_ref(), key: plan.key, account: account.map(|account| &**account) };
    let candidates = context.balancer.candidates(cluster, wanted, &context.resolver, policy).await;
    let mut candidates =
        candidates.map_err(|(failure, reason)| AttemptError::last(turn.story.transport(failure, &reason)))?;
    if !tried.is_empty() {
        candidates.sort_by_key(|address| tried.contains(address));
    }
    let key = |address| PoolKey { pool: cluster.pool, address, server_name: server_name.clone() };
    let first = key(candidates[0]);
    let origination = profile.zip(server_name.as_ref());
    let http2 = match cluster.version {
        HttpVersion::One => false,
        HttpVersion::Two => true,
        HttpVersion::Client => turn.head.version == Version::Http2,
    };
    let making = Making { cluster, candidates: &candidates, origination, http2 };
    if http2 {
        // Boxed, as everything that most requests do without.
        return Box::pin(shared::obtain(turn, account, first, making)).await;
    }
    if let Some(connection) = context.pool.take(&first, &context.scratch) {
        return Ok(Obtained { connection, key: first, reused: true });
    }
    let lease = match account {
        // Boxed: it is rare to have an account, and to wait for it rarer still.
        Some(account) => match Box::pin(place(turn, account, cluster, &first)).await? {
            Place::Idle(connection) => return Ok(Obtained { connection, key: first, reused: true }),
            Place::New(lease) => Some(lease),
        },
        None => None,
    };
    // Boxed: most requests find an idle connection, and should not carry what it takes to make one.
    let connection = Box::pin(open(turn, making, lease)).await?;
    let key = key(connection.address);
    Ok(Obtained { connection, key, reused: false })
}

/// How a request comes to its connection where connections are counted.
enum Place {
    /// One has become idle.
    Idle(Box<Connection>),
    /// One more may be made.
    New(Box<Lease>),
}

/// A place for another connection; at `maxConnections` the request waits for one, as long as connecting may take.
async fn place(
    turn: &mut Turn<'_>,
    account: &Rc<Account>,
    cluster: &Cluster,
    key: &PoolKey,
) -> Result<Place, AttemptError> {
    let context = Rc::clone(turn.context);
    let until = Instant::now() + cluster.connect_timeout;
    loop {
        if let Some(lease) = account.lease() {
            return Ok(Place::New(lease));
        }
        if context.pool.make_room(cluster.pool) {
            continue;
        }
        let patience = until.saturating_duration_since(Instant::now());
        let waited = account.wait(patience).await;
        waited.map_err(|overflow| AttemptError::last(overflowed(turn, overflow)))?;
        if let Some(connection) = context.pool.take(key, &context.scratch) {
            return Ok(Place::Idle(connection));
        }
    }
}

pub(super) async fn open(
    turn: &mut Turn<'_>,
    making: Making<'_>,
    mut lease: Option<Box<Lease>>,
) -> Result<Box<Connection>, AttemptError> {
    let Making { cluster, candidates, .. } = making;
    let mut error = AttemptError { failure: Failure::NoHealthyUpstream, cause: Cause::Final };
    let client = dial::Client { source: turn.client.peer(), destination: turn.client.local() };
    for address in candidates {
        turn.story.upstream = Some(*address);
        let failure = match dial::reach(cluster, *address, client).await {
            Err(dialled) => turn.story.transport(dialled.failure, &dialled.reason),
            Ok(socket) => match originate(turn.context, &socket, making.origination, making.http2).await {
                Err(reason) => turn.story.transport(Failure::HandshakeFailed, &reason),
                // In HTTP/1 a server has nothing to say before it is asked.
                Ok(Some(session)) if session.has_early() && !making.http2 => {
                    turn.story.transport(Failure::HandshakeFailed, "TLS_error: an answer before the request")
                }
                Ok(session) => match Connection::new(socket, *address, session) {
                    Ok(mut connection) => {
                        connection.lease = lease.take();
                        turn.story.transport_failure = None;
                        return Ok(connection);
                    }
                    Err(reset) => turn.story.transport(Failure::ConnectFailed, &reset.to_string()),
                },
            },
        };
        if let Some(lease) = &lease {
            let timed_out = failure == Failure::ConnectTimeout;
            lease.account().report(*address, if timed_out { Outcome::TimedOut } else { Outcome::Failed });
        }
        error = AttemptError { failure, cause: Cause::Connect };
    }
    Err(error)
}

/// Opens TLS over a fresh connection and counts how it went; the error is the text for the log. `http2`: to speak that and
/// nothing else inside it.
pub(in crate::session) async fn originate(
    context: &Context,
    socket: &Socket,
    origination: Option<(&Arc<TlsProfile>, &HostName)>,
    http2: bool,
) -> Result<Option<tls::UpstreamSession>, String> {
    let Some((profile, name)) = origination else { return Ok(None) };
    let config = context.tls.get(profile, http2).map_err(|error| format!("TLS_error: {error}"))?;
    let name = ServerName::try_from(name.as_str().to_owned()).map_err(|error| format!("TLS_error: {error}"))?;
    let result = match within(HANDSHAKE_TIMEOUT, tls::handshake(config, name, socket)).await {
        Some(Ok(session)) if http2 && !session.speaks_http2() => {
            Err("the upstream does not agree to speak HTTP/2 (ALPN)".to_owned())
        }
        Some(Ok(session)) => Ok(session),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("TLS_error: no handshake within {HANDSHAKE_TIMEOUT:?}")),
    };
    let mut counters = context.counters.borrow_mut();
    match &result {
        Ok(session) if session.is_resumed() => counters.handshakes_resumed += 1,
        Ok(_) => counters.handshakes_full += 1,
        Err(_) => counters.handshakes_failed += 1,
    }
    if result.is_ok() && profile.verify == VerifyName::Nothing {
        counters.handshakes_unverified += 1;
    }
    result.map(Some)
}
