//! A tunnel of which a side is more than a socket, inside TLS that we opened for instance: each read goes through the
//! worker's buffers, and a side that takes no more stops the other. At most one read's worth of bytes waits for each side.
//!
//! The end of one side is that of the other: the client's half-close becomes close_notify, and the upstream's
//! close_notify a half-close. An upstream that ends without one is an error, so that nobody takes it for an end.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::limits::RELAY_ROUNDS_MAX;
use crate::limits::SCRATCH_BYTES;
use crate::net::{Received, SEALED_OFFSET, Scratch, Socket, within};
use crate::relay::{End, Quiet, Transferred};
use crate::upstream::connection::{Connection, ConnectionError, Intake};

use super::Transport;
use super::outgoing::{Outgoing, keep};

/// A tunnel under way.
struct Sealed<'a> {
    downstream: &'a Transport,
    /// Borrowed between two waits, never across one.
    upstream: RefCell<Box<Connection>>,
    socket: Rc<Socket>,
    scratch: &'a Scratch,
    moved: &'a Transferred,
    active: Cell<bool>,
}

/// What was there before the tunnel.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// For the upstream.
    pub(super) up: Vec<u8>,
    /// For the client; it has been counted.
    pub(super) down: Vec<u8>,
    /// Whether a client that begins to speak TLS now is refused: it would be encrypted twice. How long it may take until
    /// that is clear, from its first byte on.
    pub(super) refuses_tls: Option<Duration>,
}

/// Relays until both directions have ended, one has failed, or nothing has moved for `idle`.
pub(super) async fn relay(
    downstream: &Transport,
    upstream: Box<Connection>,
    early: Early,
    scratch: &Scratch,
    moved: &Transferred,
    idle: Duration,
) -> End {
    let socket = upstream.share();
    let active = Cell::new(true);
    let tunnel = Sealed { downstream, upstream: RefCell::new(upstream), socket, scratch, moved, active };
    let mut up = pin!(tunnel.up(early.up, early.refuses_tls));
    let mut down = pin!(tunnel.down(early.down));
    let mut quiet = Quiet::new(idle);
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|context| {
        if !up_done && let Poll::Ready(result) = up.as_mut().poll(context) {
            match result {
                Ok(()) => up_done = true,
                Err(end) => return Poll::Ready(end),
            }
        }
        if !down_done && let Poll::Ready(result) = down.as_mut().poll(context) {
            match result {
                Ok(()) => down_done = true,
                Err(end) => return Poll::Ready(end),
            }
        }
        if up_done && down_done {
            return Poll::Ready(End::Finished);
        }
        quiet.poll(&tunnel.active, context).map(|()| End::Idle)
    })
    .await
}

impl Sealed<'_> {
    /// From the client to the upstream.
    async fn up(&self, mut early: Vec<u8>, refuses_tls: Option<Duration>) -> Result<(), End> {
        self.flush().await?;
        if let Some(patience) = refuses_tls {
            early = Box::pin(self.opening(early, patience)).await?;
        }
        self.seal(&early)?;
        drop(early);
        for round in 1.. {
            self.flush().await?;
            self.downstream.readable().await.map_err(End::Downstream)?;
            if round % RELAY_ROUNDS_MAX == 0 {
                self.downstream.give_way().await.map_err(End::Downstream)?;
            }
            // The other direction may have had to answer a key update meanwhile.
            self.flush().await?;
            let mut input = self.scratch.input.borrow_mut();
            let input = &mut input[SEALED_OFFSET..];
            match self.downstream.receive(input).map_err(End::Downstream)? {
                Received::Bytes(count) => self.seal(&input[..count])?,
                Received::Pending => {}
                Received::End => break,
            }
        }
        // All data is out. An upstream that is gone already has no use for a farewell.
        if self.upstream.borrow_mut().finish_sending().is_ok() && self.flush().await.is_ok() {
            self.socket.shutdown_write();
        }
        Ok(())
    }

    /// The first bytes of a client that does not speak TLS. Until it is clear that it does not, the upstream gets none of them:
    /// the pieces of a hello may be as small as its sender likes.
    async fn opening(&self, mut bytes: Vec<u8>, patience: Duration) -> Result<Vec<u8>, End> {
        // A client may leave the first word to the server, for as long as the tunnel lasts.
        if !bytes.is_empty() || self.more(&mut bytes).await? {
            let rest = async {
                while may_be_hello(&bytes) {
                    if is_hello(&bytes) {
                        return Err(End::Refused);
                    }
                    if !self.more(&mut bytes).await? {
                        break;
                    }
                }
                Ok(())
            };
            within(patience, rest).await.unwrap_or(Err(End::Refused))?;
        }
        Ok(bytes)
    }

    /// Waits until there are more bytes of the client. False: it has finished.
    async fn more(&self, bytes: &mut Vec<u8>) -> Result<bool, End> {
        loop {
            self.downstream.readable().await.map_err(End::Downstream)?;
            let mut input = self.scratch.input.borrow_mut();
            match self.downstream.receive(&mut input).map_err(End::Downstream)? {
                Received::Bytes(count) => {
                    bytes.extend_from_slice(&input[..count]);
                    return Ok(true);
                }
                Received::Pending => {}
                Received::End => return Ok(false),
            }
        }
    }

    fn seal(&self, plain: &[u8]) -> Result<(), End> {
        if plain.is_empty() {
            return Ok(());
        }
        self.upstream.borrow_mut().send(plain, self.scratch).map_err(upstream_end)?;
        self.count(&self.moved.upstream, plain.len());
        Ok(())
    }

    /// Waits until the upstream's socket has taken everything.
    async fn flush(&self) -> Result<(), End> {
        while self.upstream.borrow().is_blocked() {
            self.socket.writable().await.map_err(End::Upstream)?;
            self.upstream.borrow_mut().flush().map_err(upstream_end)?;
            self.active.set(true);
        }
        Ok(())
    }

    /// From the upstream to the client.
    async fn down(&self, pending: Vec<u8>) -> Result<(), End> {
        self.downstream.send_all(&pending).await.map_err(End::Downstream)?;
        drop(pending);
        for round in 1.. {
            if self.upstream.borrow().has_ended() {
                break;
            }
            // What a server has said right behind its handshake is there already, and would wake nobody.
            if round > 1 {
                poll_fn(|context| self.upstream.borrow().poll_readable(context)).await;
            }
            if round % RELAY_ROUNDS_MAX == 0 {
                self.downstream.give_way().await.map_err(End::Downstream)?;
            }
            let (intake, rest) = self.open()?;
            self.send_rest(&rest).await?;
            match intake.map_err(upstream_end)? {
                Intake::Data | Intake::Pending => {}
                Intake::End => break,
                Intake::Truncated => {
                    let reason = "the upstream closed the connection without close_notify";
                    return Err(End::Upstream(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
                }
            }
        }
        self.downstream.finish_sending().await;
        Ok(())
    }

    /// Receives once and sends on what has come; returns what the client's socket has not taken.
    fn open(&self) -> Result<(Result<Intake, ConnectionError>, Vec<u8>), End> {
        let Scratch { input, pieces, output, .. } = self.scratch;
        let (mut input, mut pieces, mut output) = (input.borrow_mut(), pieces.borrow_mut(), output.borrow_mut());
        let intake = self.upstream.borrow_mut().receive_pieces(&mut input, SCRATCH_BYTES, &mut pieces);
        let mut outgoing = Outgoing::new(&mut output);
        pieces.drain(..).for_each(|piece| outgoing.push(&input[piece]));
        let rest = self.send(&outgoing);
        drop(outgoing);
        output.clear();
        Ok((intake, rest.map_err(End::Downstream)?))
    }

    /// Sends what the client's socket takes at once; returns the rest.
    fn send(&self, outgoing: &Outgoing<'_>) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        let slices = outgoing.pieces();
        if !slices.is_empty() {
            let sent = self.downstream.send_pieces(&slices)?;
            self.count(&self.moved.downstream, sent);
            keep(&slices, sent, &mut rest);
        }
        Ok(rest)
    }

    async fn send_rest(&self, rest: &[u8]) -> Result<(), End> {
        let mut sent = 0;
        while sent < rest.len() {
            self.downstream.writable().await.map_err(End::Downstream)?;
            let more = self.downstream.send(&rest[sent..]).map_err(End::Downstream)?;
            self.count(&self.moved.downstream, more);
            sent += more;
        }
        Ok(())
    }

    fn count(&self, moved: &Cell<u64>, bytes: usize) {
        moved.set(moved.get() + bytes as u64);
        self.active.set(self.active.get() || bytes > 0);
    }
}

/// Whether the first bytes of a client are those of a ClientHello (RFC 8446 sections 4 and 5.1). Few protocols begin so.
pub(super) fn is_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [0x16, 0x03, _, _, _, 0x01, ..])
}

/// Whether more bytes may make a ClientHello of them, or have.
pub(super) fn may_be_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [] | [0x16] | [0x16, 0x03] | [0x16, 0x03, _] | [0x16, 0x03, _, _] | [0x16, 0x03, _, _, _])
        || is_hello(bytes)
}

fn upstream_end(error: ConnectionError) -> End {
    End::Upstream(io::Error::other(error))
}
