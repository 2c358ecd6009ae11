//! Streams: places on connections in HTTP/2, which requests share.

use std::rc::Rc;
use std::time::Instant;

use crate::failure::Failure;
use crate::upstream::account::{Account, Lease};
use crate::upstream::connection::Connection;
use crate::upstream::http2::{Link, Opening, Outcome, Stream};
use crate::upstream::pool::PoolKey;

use super::super::forward::{AttemptError, Cause, overflowed};
use super::super::turn::Turn;
use super::{Making, Obtained, open};

/// A stream on a connection that has room, or on a new one. One is made at a time: whoever comes meanwhile shares it, or
/// its failure.
pub(super) async fn obtain(
    turn: &mut Turn<'_>,
    account: Option<&Rc<Account>>,
    key: PoolKey,
    making: Making<'_>,
) -> Result<Obtained, AttemptError> {
    let context = Rc::clone(turn.context);
    let until = Instant::now() + making.cluster.connect_timeout;
    loop {
        if let Some(stream) = context.pool.links.stream(&key) {
            return Ok(Obtained { connection: Connection::over(stream), key, reused: true });
        }
        let ticket = match context.pool.links.begin(&key) {
            Ok(ticket) => ticket,
            Err(opening) => match join(turn, account, &opening).await? {
                // It may lead to another address than was meant, which need not be one of ours: one that could not be reached
                // may stand in the answers for several names.
                Outcome::Made(link) if !making.candidates.contains(&link.address()) => continue,
                Outcome::Made(link) => match Stream::open(&link) {
                    Some(stream) => return Ok(Obtained { connection: Connection::over(stream), key, reused: true }),
                    None => continue,
                },
                Outcome::Failed(failure, reason) => {
                    let failure = turn.story.transport(failure, &reason);
                    return Err(AttemptError { failure, cause: Cause::Connect });
                }
                Outcome::Abandoned => continue,
            },
        };
        let lease = match account.map(|account| lease(turn, account, &key)) {
            None => None,
            Some(Some(lease)) => Some(lease),
            // Every connection that may be made is there, and full.
            Some(None) => {
                drop(ticket);
                wait(turn, account, until).await?;
                continue;
            }
        };
        return match make(turn, making, lease).await {
            Ok((link, stream)) => {
                let connection = Connection::over(stream);
                let key = PoolKey { address: connection.address, ..key };
                // After a reload its cluster may be gone, and nobody would ever take it.
                ticket.made(context.keeps(turn.snapshot, key.pool).then(|| key.clone()), &link);
                Ok(Obtained { connection, key, reused: false })
            }
            Err(error) => {
                let reason = turn.story.transport_failure.as_deref().unwrap_or_default();
                ticket.failed(error.failure.clone(), reason);
                Err(error)
            }
        };
    }
}

fn lease(turn: &Turn<'_>, account: &Rc<Account>, key: &PoolKey) -> Option<Box<Lease>> {
    loop {
        match account.lease() {
            None if turn.context.pool.make_room(key.pool) => {}
            lease => return lease,
        }
    }
}

/// Waits for the connection that another request makes, among those that may wait.
async fn join(turn: &mut Turn<'_>, account: Option<&Rc<Account>>, opening: &Opening) -> Result<Outcome, AttemptError> {
    let place = account.map(|account| account.join()).transpose();
    let place = place.map_err(|overflow| AttemptError::last(overflowed(turn, overflow)))?;
    let outcome = opening.outcome().await;
    drop(place);
    Ok(outcome)
}

async fn wait(turn: &mut Turn<'_>, account: Option<&Rc<Account>>, until: Instant) -> Result<(), AttemptError> {
    let Some(account) = account else { return Ok(()) };
    let waited = account.wait(until.saturating_duration_since(Instant::now())).await;
    waited.map_err(|overflow| AttemptError::last(overflowed(turn, overflow)))
}

async fn make(
    turn: &mut Turn<'_>,
    making: Making<'_>,
    lease: Option<Box<Lease>>,
) -> Result<(Rc<Link>, Stream), AttemptError> {
    let connection = open(turn, making, lease).await?;
    let limits = &turn.snapshot.settings.limits;
    let driver = turn.context.pool.links.driver();
    let link = Link::open(connection, &turn.context.scratch, limits, making.cluster, driver).await;
    let link = link.map_err(|error| error.to_string());
    let made = link.and_then(|link| match Stream::open(&link) {
        Some(stream) => Ok((link, stream)),
        None => Err("HTTP/2: the connection has ended".to_owned()),
    });
    made.map_err(|reason| {
        let failure = turn.story.transport(Failure::ConnectFailed, &reason);
        AttemptError { failure, cause: Cause::Connect }
    })
}
