//! A client inside TLS that ends here: its records are opened and sealed through the worker's buffers.
//!
//! Nothing that has been opened is kept, so the readiness of the socket is that of the client. What has been sealed and
//! the socket does not take is kept, one call's worth at most, and the caller is told that a byte of its own is left: it
//! comes back with that byte when the socket is writable again, and learns so that the rest is gone.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use rustls::pki_types::CertificateDer;

use crate::limits::TLS_ANSWERS_BYTES_MAX;
use crate::net::{Received, Scratch, Socket};
use crate::route::host::HostName;
use crate::tls::server::ClientSession;

/// The TLS of one client.
pub struct Tls {
    /// Borrowed between two waits, never across one.
    state: RefCell<State>,
    scratch: Rc<Scratch>,
    /// The SNI, by which the client has chosen a server.
    pub server_name: Option<HostName>,
    /// The check that its certificate has passed, by [`crate::route::termination::ClientCheck::id`].
    pub passed: Cell<Option<u32>>,
}

struct State {
    session: ClientSession,
    /// Sealed bytes that the socket has not taken yet.
    pending: Vec<u8>,
    /// Bytes in `pending` that nobody has asked for: answers to key updates.
    answers: usize,
    /// Whether the first byte of the next call has been sealed by the last one.
    owing: bool,
    /// Whether close_notify has been received.
    ended: bool,
    /// Whether ours has been sealed.
    finished: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Takes over a session whose handshake is done. `ended`: the client has sent its close_notify.
    pub(super) fn new(
        session: ClientSession,
        ended: bool,
        server_name: Option<HostName>,
        scratch: Rc<Scratch>,
    ) -> Self {
        let state = State { session, pending: Vec::new(), answers: 0, owing: false, ended, finished: false };
        Self { state: RefCell::new(state), scratch, server_name, passed: Cell::new(None) }
    }

    /// Whether the client has agreed to speak HTTP/2 inside.
    pub(super) fn speaks_http2(&self) -> bool {
        self.state.borrow().session.speaks_http2()
    }

    /// As [`super::Transport::receive`].
    pub(super) fn receive(&self, socket: &Socket, buffer: &mut [u8]) -> io::Result<Received> {
        let state = &mut *self.state.borrow_mut();
        if state.ended {
            return Ok(Received::End);
        }
        let kept = state.session.restore(buffer);
        let received = socket.receive(&mut buffer[kept..]);
        let count = match &received {
            Ok(Received::Bytes(count)) => *count,
            Ok(Received::Pending | Received::End) | Err(_) => 0,
        };
        let mut plain = self.scratch.tls.borrow_mut();
        plain.clear();
        let before = state.pending.len();
        let opened = state.session.open(&mut buffer[..kept + count], &mut plain, &mut state.pending);
        state.answers += state.pending.len() - before;
        let length = plain.len();
        buffer[..length].copy_from_slice(&plain);
        plain.clear();
        drop(plain);
        // A fault has left its alert there.
        let flushed = state.flush(socket);
        if opened.map_err(io::Error::other)? {
            state.ended = true;
            // Whoever waits for more wakes up, though the client may leave the connection open.
            socket.shutdown_read();
        }
        flushed?;
        if state.answers > TLS_ANSWERS_BYTES_MAX {
            return Err(io::Error::other("TLS_error: key updates from a client that reads nothing"));
        }
        match received? {
            _ if length > 0 => Ok(Received::Bytes(length)),
            _ if state.ended => Ok(Received::End),
            Received::End => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "TLS_error: the client closed the connection without close_notify",
            )),
            Received::Bytes(_) | Received::Pending => Ok(Received::Pending),
        }
    }

    /// As [`super::Transport::send_both`].
    pub(super) fn send(&self, socket: &Socket, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        state.flush(socket)?;
        if !state.pending.is_empty() {
            return Ok(0);
        }
        let total = first.len() + second.len();
        let (first, second) = match (state.owing, first) {
            (true, [_, rest @ ..]) => (rest, second),
            (true, []) => (first, second.get(1..).unwrap_or_default()),
            (false, _) => (first, second),
        };
        let mut sealed = self.scratch.tls.borrow_mut();
        sealed.clear();
        state.session.seal(first, &mut sealed).map_err(io::Error::other)?;
        state.session.seal(second, &mut sealed).map_err(io::Error::other)?;
        let sent = if sealed.is_empty() { 0 } else { socket.send(&sealed)? };
        state.pending.extend_from_slice(&sealed[sent..]);
        sealed.clear();
        state.owing = !state.pending.is_empty();
        Ok(total - usize::from(state.owing))
    }

    /// Says that nothing more will be sent (RFC 8446 section 6.1). A client that takes nothing more does not hear it.
    pub(super) fn finish_sending(&self, socket: &Socket) {
        let state = &mut *self.state.borrow_mut();
        if !state.finished && !state.owing {
            state.finished = true;
            state.session.seal_end(&mut state.pending);
            // The client may be gone; then there is nobody to tell.
            let _ = state.flush(socket);
        }
    }

    /// What the client has shown, if it was asked.
    pub(super) fn with_certificates<T>(&self, look: impl FnOnce(Option<&[CertificateDer<'static>]>) -> T) -> T {
        look(self.state.borrow().session.peer_certificates())
    }
}

impl State {
    fn flush(&mut self, socket: &Socket) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let sent = socket.send(&self.pending)?;
        if sent == self.pending.len() {
            (self.pending, self.answers) = (Vec::new(), 0);
        } else {
            self.pending.drain(..sent);
        }
        Ok(())
    }
}
