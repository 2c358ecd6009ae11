//! Bytes both ways between two sockets, unchanged, with half-close kept.
//!
//! Small messages are copied through the worker's scratch buffer; a read that fills it switches that direction to
//! splice(2) until the source runs dry. A direction that waits owns no buffer and no pipe.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::limits::RELAY_ROUNDS_MAX;
use crate::net::{Moved, Pipe, Pipes, Received, Scratch, Socket};

/// Bytes moved so far. Counted as they are sent, so they are right however the relay ends.
#[derive(Debug, Default)]
pub struct Transferred {
    /// From downstream to upstream.
    pub upstream: Cell<u64>,
    /// From upstream to downstream.
    pub downstream: Cell<u64>,
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides have finished sending, and all of it has arrived.
    Finished,
    /// Reading from or writing to the client failed.
    Downstream(io::Error),
    /// Reading from or writing to the upstream failed.
    Upstream(io::Error),
    /// Nothing moved for the idle timeout.
    Idle,
}

/// What a relay works with.
#[derive(Clone, Copy, Debug)]
pub struct Tools<'a> {
    /// The worker's buffers.
    pub scratch: &'a Scratch,
    /// The worker's pipes.
    pub pipes: &'a Pipes,
}

/// Relays until both directions have ended, one has failed, or nothing has moved for `idle` (to within a quarter).
pub async fn relay(
    downstream: &Socket,
    upstream: &Socket,
    tools: Tools<'_>,
    transferred: &Transferred,
    idle: Duration,
) -> End {
    let active = Cell::new(true);
    let mut up = pin!(
        Direction { source: downstream, target: upstream, moved: &transferred.upstream, active: &active }.run(tools)
    );
    let mut down = pin!(
        Direction { source: upstream, target: downstream, moved: &transferred.downstream, active: &active }.run(tools)
    );
    let mut quiet = pin!(quiet(&active, idle));
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|context| {
        if !up_done && let Poll::Ready(result) = up.as_mut().poll(context) {
            match result {
                Ok(()) => up_done = true,
                Err(Fault::Source(error)) => return Poll::Ready(End::Downstream(error)),
                Err(Fault::Target(error)) => return Poll::Ready(End::Upstream(error)),
            }
        }
        if !down_done && let Poll::Ready(result) = down.as_mut().poll(context) {
            match result {
                Ok(()) => down_done = true,
                Err(Fault::Source(error)) => return Poll::Ready(End::Upstream(error)),
                Err(Fault::Target(error)) => return Poll::Ready(End::Downstream(error)),
            }
        }
        if up_done && down_done {
            return Poll::Ready(End::Finished);
        }
        quiet.as_mut().poll(context).map(|()| End::Idle)
    })
    .await
}

/// Returns when `active` has not been set for `idle`. Looking four times per period costs nothing per byte, where a
/// timer reset by every read would.
pub async fn quiet(active: &Cell<bool>, idle: Duration) {
    const LOOKS: u32 = 4;
    let mut quiet_looks = 0;
    while quiet_looks < LOOKS {
        crate::net::sleep(idle / LOOKS).await;
        quiet_looks = if active.replace(false) { 0 } else { quiet_looks + 1 };
    }
}

/// One direction of a relay.
struct Direction<'a> {
    source: &'a Socket,
    target: &'a Socket,
    moved: &'a Cell<u64>,
    active: &'a Cell<bool>,
}

/// On which side a direction failed.
enum Fault {
    Source(io::Error),
    Target(io::Error),
}

/// What one read has come to.
enum Copied {
    /// All of it has been sent, and the source has no more at the moment.
    All,
    /// The target is full: this is left to send.
    Rest(Vec<u8>),
    /// The read filled the buffer: there is more where that came from.
    Full,
    /// The source has finished sending.
    Ended,
}

/// Whether a direction goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    End,
}

impl Direction<'_> {
    /// Runs until the source has finished sending. Waiting, it owns nothing; the stages that need more are boxed, so
    /// that an idle tunnel does not pay for them.
    async fn run(self, tools: Tools<'_>) -> Result<(), Fault> {
        for round in 1.. {
            self.source.readable().await.map_err(Fault::Source)?;
            if round % RELAY_ROUNDS_MAX == 0 && monoio::utils::is_legacy() {
                // Under epoll the wait above is none while there is more to read.
                self.target.give_way().await.map_err(Fault::Target)?;
            }
            let next = match self.copy(tools)? {
                Copied::All => Next::Read,
                Copied::Rest(rest) => Box::pin(self.send_rest(rest)).await?,
                Copied::Full => Box::pin(self.bulk(tools)).await?,
                Copied::Ended => Next::End,
            };
            if next == Next::End {
                self.target.shutdown_write();
                break;
            }
        }
        Ok(())
    }

    /// Copies one read through the worker's buffer.
    fn copy(&self, tools: Tools<'_>) -> Result<Copied, Fault> {
        let mut scratch = tools.scratch.input.borrow_mut();
        let count = match self.source.receive(&mut scratch).map_err(Fault::Source)? {
            Received::Bytes(count) => count,
            Received::Pending => return Ok(Copied::All),
            Received::End => return Ok(Copied::Ended),
        };
        let sent = self.target.send(&scratch[..count]).map_err(Fault::Target)?;
        self.count(sent);
        if sent < count {
            // It must leave the shared buffer before others use that.
            return Ok(Copied::Rest(scratch[sent..count].to_vec()));
        }
        // A short read has emptied the socket; asking again would only cost a call to hear so.
        Ok(if count == scratch.len() { Copied::Full } else { Copied::All })
    }

    async fn send_rest(&self, rest: Vec<u8>) -> Result<Next, Fault> {
        let mut sent = 0;
        while sent < rest.len() {
            self.target.writable().await.map_err(Fault::Target)?;
            let more = self.target.send(&rest[sent..]).map_err(Fault::Target)?;
            self.count(more);
            sent += more;
        }
        Ok(Next::Read)
    }

    fn count(&self, bytes: usize) {
        self.moved.set(self.moved.get() + bytes as u64);
        self.active.set(true);
    }

    /// Moves bytes through a pipe until the source runs dry or ends.
    async fn bulk(&self, tools: Tools<'_>) -> Result<Next, Fault> {
        // Without a pipe to be had, the copying goes on.
        let Ok(mut pipe) = tools.pipes.take() else { return Ok(Next::Read) };
        let next = self.splice(&mut pipe).await;
        // Only an empty pipe is kept for others: after a fault this one may still hold bytes.
        tools.pipes.give(pipe);
        next
    }

    async fn splice(&self, pipe: &mut Pipe) -> Result<Next, Fault> {
        for round in 1.. {
            let filled = pipe.fill(self.source).map_err(Fault::Source)?;
            while pipe.held() > 0 {
                match pipe.empty(self.target).map_err(Fault::Target)? {
                    Moved::Bytes(count) => self.count(count),
                    Moved::Pending => self.target.writable().await.map_err(Fault::Target)?,
                    Moved::End => return Err(Fault::Target(io::ErrorKind::WriteZero.into())),
                }
            }
            match filled {
                Moved::Bytes(_) if round % RELAY_ROUNDS_MAX != 0 => {}
                Moved::Bytes(_) => self.target.give_way().await.map_err(Fault::Target)?,
                Moved::Pending => return Ok(Next::Read),
                Moved::End => return Ok(Next::End),
            }
        }
        Ok(Next::Read)
    }
}
