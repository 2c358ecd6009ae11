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
async fn quiet(active: &Cell<bool>, idle: Duration) {
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

/// Why a direction stopped reading for now.
enum Pause {
    /// The source has nothing at the moment.
    Dry,
    /// The source has more, and others must get their turn first.
    Turn,
    /// The source has finished sending.
    Ended,
}

impl Direction<'_> {
    async fn run(self, tools: Tools<'_>) -> Result<(), Fault> {
        loop {
            // Also how a busy direction gives way: waking itself instead would starve the ring (monoio puts a
            // self-woken task in front of all others).
            self.source.readable().await.map_err(Fault::Source)?;
            match self.copy(tools).await? {
                Pause::Dry | Pause::Turn => {}
                Pause::Ended => {
                    self.target.shutdown_write();
                    return Ok(());
                }
            }
        }
    }

    /// Copies one read; hands over to [`Self::splice`] when the read fills the scratch buffer.
    async fn copy(&self, tools: Tools<'_>) -> Result<Pause, Fault> {
        let (count, rest) = {
            let mut scratch = tools.scratch.input.borrow_mut();
            let count = match self.source.receive(&mut scratch).map_err(Fault::Source)? {
                Received::Bytes(count) => count,
                Received::Pending => return Ok(Pause::Dry),
                Received::End => return Ok(Pause::Ended),
            };
            let sent = self.send(&scratch[..count])?;
            let rest = if sent < count { scratch[sent..count].to_vec() } else { Vec::new() };
            (count, rest)
        };
        // The target is full: the rest must leave the shared buffer before others use it.
        let mut sent = 0;
        while sent < rest.len() {
            self.target.writable().await.map_err(Fault::Target)?;
            sent += self.send(&rest[sent..])?;
        }
        if count < crate::limits::SCRATCH_BYTES {
            // A short read has emptied the socket; asking again would only cost a call to hear so.
            return Ok(Pause::Dry);
        }
        match tools.pipes.take() {
            Ok(mut pipe) => {
                let pause = self.splice(&mut pipe).await;
                tools.pipes.give(pipe);
                pause
            }
            Err(_) => Ok(Pause::Turn),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Fault> {
        let sent = self.target.send(bytes).map_err(Fault::Target)?;
        self.count(sent);
        Ok(sent)
    }

    fn count(&self, bytes: usize) {
        self.moved.set(self.moved.get() + bytes as u64);
        self.active.set(true);
    }

    /// Moves bytes through a pipe until the source runs dry or the turn is over. The pipe is empty again when this
    /// returns without a fault.
    async fn splice(&self, pipe: &mut Pipe) -> Result<Pause, Fault> {
        for _ in 0..RELAY_ROUNDS_MAX {
            let filled = pipe.fill(self.source).map_err(Fault::Source)?;
            while pipe.held() > 0 {
                match pipe.empty(self.target).map_err(Fault::Target)? {
                    Moved::Bytes(count) => self.count(count),
                    Moved::Pending => self.target.writable().await.map_err(Fault::Target)?,
                    Moved::End => return Err(Fault::Target(io::ErrorKind::WriteZero.into())),
                }
            }
            match filled {
                Moved::Bytes(_) => {}
                Moved::Pending => return Ok(Pause::Dry),
                Moved::End => return Ok(Pause::Ended),
            }
        }
        Ok(Pause::Turn)
    }
}
