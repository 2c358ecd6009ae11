//! A connection to an upstream, in plain text or in TLS that we opened, as the HTTP session sees it.

use std::io;
use std::net::SocketAddr;

use crate::limits::{GATHERED_BYTES_MAX, GATHERED_BYTES_MIN};
use crate::net::{Received, Scratch, Socket, WatchedSocket};

use super::account::Lease;
use super::tls::{TlsError, TlsSession};

/// One upstream connection.
#[derive(Debug)]
pub struct Connection {
    /// The socket, for readiness.
    pub socket: WatchedSocket,
    /// Whom we are connected to.
    pub address: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Its place in the account of its cluster; `None`: nobody counts.
    pub lease: Option<Box<Lease>>,
    tls: Option<TlsSession>,
    /// How many bytes the socket gathers before it is readable.
    gathers: u32,
    /// Whether close_notify has been received; it may come in the same read as data, and rustls tells of it once.
    ended: bool,
    /// Bytes for the wire that the socket has not taken yet.
    pending: Vec<u8>,
}

/// The outcome of [`Connection::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// There is new plain text.
    Data,
    /// Nothing at the moment: wait until the socket is readable.
    Pending,
    /// The upstream has finished sending, and said so: by close_notify, or by the end of a plain connection.
    End,
    /// The connection ended without close_notify: what came before may have been cut off.
    Truncated,
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The TLS session.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

impl Connection {
    /// A connection over `socket`, inside `tls` if there is one. Boxed: it changes hands several times per request.
    ///
    /// # Errors
    /// When the socket has been reset already.
    pub fn new(socket: Socket, address: SocketAddr, tls: Option<TlsSession>) -> io::Result<Box<Self>> {
        let local = socket.local_address()?;
        Ok(Box::new(Self {
            socket: WatchedSocket::new(socket),
            address,
            local,
            lease: None,
            tls,
            gathers: 1,
            ended: false,
            pending: Vec::new(),
        }))
    }

    /// Sends `plain`, as far as the socket takes it; the rest is kept, and [`Self::is_blocked`] says so. To be called
    /// only while nothing is kept, so that what is kept stays within one read of the client.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn send(&mut self, plain: &[u8], scratch: &Scratch) -> Result<(), ConnectionError> {
        debug_assert!(!self.is_blocked(), "sending behind kept bytes would grow them without bound");
        let Some(tls) = &mut self.tls else {
            let sent = self.socket.send(plain)?;
            self.pending.extend_from_slice(&plain[sent..]);
            return Ok(());
        };
        let mut output = scratch.output.borrow_mut();
        output.clear();
        tls.seal(plain, &mut output)?;
        let sent = self.socket.send(&output)?;
        self.pending.extend_from_slice(&output[sent..]);
        output.clear();
        Ok(())
    }

    /// Whether bytes wait for the socket to become writable.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives up sending: what is kept is dropped, and receiving goes on.
    pub fn abandon_sending(&mut self) {
        self.pending = Vec::new();
    }

    /// Sends more of what is kept.
    ///
    /// # Errors
    /// [`ConnectionError::Io`].
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        let sent = self.socket.send(&self.pending)?;
        if sent == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..sent);
        }
        Ok(())
    }

    /// Receives once, appending plain text to `plain`.
    ///
    /// # Errors
    /// [`ConnectionError`]; what `plain` has gained until then is good.
    pub fn receive(&mut self, scratch: &Scratch, plain: &mut Vec<u8>) -> Result<Intake, ConnectionError> {
        let mut input = scratch.input.borrow_mut();
        let Some(tls) = &mut self.tls else {
            return Ok(match self.socket.receive(&mut input)? {
                Received::Bytes(count) => {
                    plain.extend_from_slice(&input[..count]);
                    Intake::Data
                }
                Received::Pending => Intake::Pending,
                Received::End => Intake::End,
            });
        };
        let kept = tls.restore(&mut input);
        let received = self.socket.receive(&mut input[kept..]);
        let count = match &received {
            Ok(Received::Bytes(count)) => *count,
            Ok(Received::Pending | Received::End) | Err(_) => 0,
        };
        let before = plain.len();
        self.ended |= tls.open(&mut input[..kept + count], plain, &mut self.pending)?;
        if self.is_blocked() {
            self.flush()?;
        }
        match received? {
            _ if plain.len() > before => Ok(Intake::Data),
            _ if self.ended => Ok(Intake::End),
            Received::End => Ok(Intake::Truncated),
            Received::Bytes(_) | Received::Pending => Ok(Intake::Pending),
        }
    }

    /// Lets the socket gather what comes next, of which `missing` bytes of plain text are certain: it becomes readable
    /// when they are there, or [`GATHERED_BYTES_MAX`] of them. 0: with the first byte. Costs a system call when it
    /// changes something.
    pub fn gather(&mut self, missing: u64) {
        // TLS only adds to the plain text, but part of it may have been received.
        let received = self.tls.as_ref().map_or(0, TlsSession::kept_bytes);
        let missing = usize::try_from(missing).unwrap_or(usize::MAX).saturating_sub(received);
        let bytes =
            if missing < GATHERED_BYTES_MIN { 1 } else { u32::try_from(missing.min(GATHERED_BYTES_MAX)).unwrap_or(1) };
        if bytes != self.gathers {
            self.socket.set_low_water(bytes);
            self.gathers = bytes;
        }
    }

    /// Whether the socket holds bytes back, see [`Self::gather`].
    #[must_use]
    pub fn gathers(&self) -> bool {
        self.gathers > 1
    }

    /// Whether an idle connection can serve another request: still open, and silent but for TLS housekeeping
    /// (session tickets, key updates). Asks the kernel only if something has arrived.
    pub fn is_reusable(&mut self, scratch: &Scratch) -> bool {
        if self.ended {
            return false;
        }
        if !self.socket.has_fired() {
            return !self.is_blocked();
        }
        self.socket.clear();
        let mut plain = scratch.plain.borrow_mut();
        plain.clear();
        let intake = self.receive(scratch, &mut plain);
        let reusable = plain.is_empty() && matches!(intake, Ok(Intake::Pending)) && !self.is_blocked();
        plain.clear();
        reusable
    }

    /// Says that nothing more will be sent; what the socket does not take is kept. The peer sees the end of the
    /// connection itself once [`Socket::shutdown_write`] follows.
    ///
    /// # Errors
    /// [`ConnectionError::Io`].
    pub fn finish_sending(&mut self) -> Result<(), ConnectionError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.seal_end(&mut self.pending);
        self.flush()
    }

    /// Says goodbye as TLS wants it (RFC 8446 section 6.1); the socket is closed on drop.
    pub fn close(mut self) {
        if self.is_blocked() {
            return;
        }
        if let Some(tls) = &mut self.tls {
            let mut end = Vec::new();
            tls.seal_end(&mut end);
            // The peer may be gone; then there is nobody to tell.
            let _ = self.socket.send(&end);
        }
    }

    /// Whether the upstream has said that it will send no more. That may come with the last data, and an upstream that
    /// then waits for us would never make the socket readable again.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether we opened TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}
