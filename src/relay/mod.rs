//! Bytes both ways between two sockets, unchanged, with half-close kept.
//!
//! Small messages are copied through the worker's scratch buffer; a read that fills it switches that direction to
//! splice(2) until the source runs dry. A direction that waits owns no buffer and no pipe.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::limits::RELAY_ROUNDS_MAX;
use crate::net::{Moved, Pipe, Pipes, Received, Scratch, Socket, Timer};

/// Bytes moved so far. Counted as they are sent, so they are right however the relay ends.
#[derive(Debug, Default)]
pub struct Transferred {
    /// From downstream to upstream.
    pub upstream: Cell<u64>,
    /// From upstream to downstream.
    pub downstream: Cell<u64>,
    /// Whether any have moved since this was last looked at.
    active: Cell<bool>,
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
    /// The client speaks TLS itself, which was not to be encrypted a second time.
    Refused,
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
pub fn relay<'a>(
    downstream: &'a Socket,
    upstream: &'a Socket,
    tools: Tools<'a>,
    transferred: &'a Transferred,
    idle: Duration,
) -> impl Future<Output = End> + 'a {
    let ends = Ends { downstream, upstream, transferred, tools };
    Relay {
        up_readable: downstream.readable(),
        down_readable: upstream.readable(),
        arm: Socket::readable,
        ends,
        up: Stage::Waiting,
        down: Stage::Waiting,
        quiet: Quiet::new(idle),
    }
}

/// What a relay stands between, and what it works with.
struct Ends<'a> {
    downstream: &'a Socket,
    upstream: &'a Socket,
    transferred: &'a Transferred,
    tools: Tools<'a>,
}

impl<'a> Ends<'a> {
    fn up(&self) -> Direction<'a> {
        let Self { downstream, upstream, transferred, tools } = *self;
        Direction { source: downstream, target: upstream, moved: &transferred.upstream, transferred, tools }
    }

    fn down(&self) -> Direction<'a> {
        let Self { downstream, upstream, transferred, tools } = *self;
        Direction { source: upstream, target: downstream, moved: &transferred.downstream, transferred, tools }
    }
}

pin_project! {
    /// A relay under way: some three hundred bytes that may live for hours, in thousands.
    struct Relay<'a, F, A> {
        #[pin]
        up_readable: F,
        #[pin]
        down_readable: F,
        arm: A,
        ends: Ends<'a>,
        up: Stage<'a>,
        down: Stage<'a>,
        quiet: Quiet,
    }
}

impl<'a, F, A> Future for Relay<'a, F, A>
where
    F: Future<Output = io::Result<()>>,
    A: Fn(&'a Socket) -> F,
{
    type Output = End;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<End> {
        let this = self.project();
        let last = matches!(this.down, Stage::Done);
        let up_done = match this.ends.up().poll(this.up, this.up_readable, this.arm, last, context) {
            Poll::Ready(Err(Fault::Source(error))) => return Poll::Ready(End::Downstream(error)),
            Poll::Ready(Err(Fault::Target(error))) => return Poll::Ready(End::Upstream(error)),
            done @ (Poll::Ready(Ok(())) | Poll::Pending) => done.is_ready(),
        };
        let last = up_done;
        let down_done = match this.ends.down().poll(this.down, this.down_readable, this.arm, last, context) {
            Poll::Ready(Err(Fault::Source(error))) => return Poll::Ready(End::Upstream(error)),
            Poll::Ready(Err(Fault::Target(error))) => return Poll::Ready(End::Downstream(error)),
            done @ (Poll::Ready(Ok(())) | Poll::Pending) => done.is_ready(),
        };
        if up_done && down_done {
            return Poll::Ready(End::Finished);
        }
        this.quiet.poll(&this.ends.transferred.active, context).map(|()| End::Idle)
    }
}

/// Looks whether bytes have moved, four times per period: that costs nothing per byte, where a timer reset by every
/// read would.
#[derive(Debug)]
pub struct Quiet {
    timer: Timer,
    quiet_looks: u8,
}

impl Quiet {
    const LOOKS: u8 = 4;

    /// Begins to look.
    #[must_use]
    pub fn new(idle: Duration) -> Self {
        Self { timer: Timer::new(idle / u32::from(Self::LOOKS)), quiet_looks: 0 }
    }

    /// Ready when `active` has not been set for the whole period.
    pub fn poll(&mut self, active: &Cell<bool>, context: &task::Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.poll(context));
            self.quiet_looks = if active.replace(false) { 0 } else { self.quiet_looks + 1 };
            if self.quiet_looks == Self::LOOKS {
                return Poll::Ready(());
            }
            self.timer.restart();
        }
    }
}

/// One direction of a relay.
#[derive(Clone, Copy)]
struct Direction<'a> {
    source: &'a Socket,
    target: &'a Socket,
    moved: &'a Cell<u64>,
    transferred: &'a Transferred,
    tools: Tools<'a>,
}

/// What a direction is doing. All that most tunnels ever hold is a poll for bytes; what needs more is boxed, so that an
/// idle tunnel does not pay for it.
enum Stage<'a> {
    /// It waits for bytes.
    Waiting,
    /// It moves more than one read, or waits for its target.
    Busy(Pin<Box<dyn Future<Output = Result<Next, Fault>> + 'a>>),
    /// Its source has finished sending.
    Done,
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

impl<'a> Direction<'a> {
    /// Goes on until it has to wait. `readable` is the poll of the source, which `arm` makes anew; `last`: the other
    /// direction has ended.
    fn poll<F: Future<Output = io::Result<()>>>(
        self,
        stage: &mut Stage<'a>,
        mut readable: Pin<&mut F>,
        arm: &impl Fn(&'a Socket) -> F,
        last: bool,
        context: &mut task::Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        let mut rounds = 0;
        loop {
            let next = match stage {
                Stage::Waiting if rounds >= RELAY_ROUNDS_MAX => {
                    // Under epoll the waits below are none while there is more to do.
                    rounds = 0;
                    *stage = Stage::Busy(Box::pin(self.give_way()));
                    continue;
                }
                Stage::Waiting => {
                    ready!(readable.as_mut().poll(context)).map_err(Fault::Source)?;
                    rounds += 1;
                    match self.copy()? {
                        Copied::All => {}
                        Copied::Rest(rest) => *stage = Stage::Busy(Box::pin(self.send_rest(rest))),
                        Copied::Full => *stage = Stage::Busy(Box::pin(self.bulk())),
                        // No new poll: one that nobody waits for would only have to be taken back.
                        Copied::Ended => break,
                    }
                    readable.set(arm(self.source));
                    continue;
                }
                Stage::Busy(work) => ready!(work.as_mut().poll(context))?,
                Stage::Done => return Poll::Ready(Ok(())),
            };
            match next {
                Next::Read => *stage = Stage::Waiting,
                Next::End => break,
            }
        }
        *stage = Stage::Done;
        if !last {
            // The last end is told by the close that follows.
            self.target.shutdown_write();
        }
        Poll::Ready(Ok(()))
    }

    async fn give_way(self) -> Result<Next, Fault> {
        self.target.give_way().await.map_err(Fault::Target)?;
        Ok(Next::Read)
    }

    /// Copies one read through the worker's buffer.
    fn copy(&self) -> Result<Copied, Fault> {
        let mut scratch = self.tools.scratch.input.borrow_mut();
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

    async fn send_rest(self, rest: Vec<u8>) -> Result<Next, Fault> {
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
        self.transferred.active.set(true);
    }

    /// Moves bytes through a pipe until the source runs dry or ends.
    async fn bulk(self) -> Result<Next, Fault> {
        // Without a pipe to be had, the copying goes on.
        let Ok(mut pipe) = self.tools.pipes.take() else { return Ok(Next::Read) };
        let next = self.splice(&mut pipe).await;
        // Only an empty pipe is kept for others: after a fault this one may still hold bytes.
        self.tools.pipes.give(pipe);
        next
    }

    async fn splice(self, pipe: &mut Pipe) -> Result<Next, Fault> {
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

#[cfg(test)]
mod tests;
