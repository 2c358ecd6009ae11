//! A connection to an upstream as the carrier of frames.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::http2::Line;
use crate::limits::HTTP2_LINE_BYTES;
use crate::net::{Received, Scratch, Socket, Watch};
use crate::upstream::connection::{Connection, ConnectionError, Intake};

/// See [`Line`].
pub(super) struct UpstreamLine {
    connection: Box<Connection>,
    socket: Rc<Socket>,
    scratch: Rc<Scratch>,
    /// Plain text that has not been asked for yet.
    plain: Vec<u8>,
    writable: Watch,
    others: Watch,
}

impl UpstreamLine {
    pub(super) fn new(connection: Box<Connection>, scratch: &Rc<Scratch>) -> Self {
        let socket = connection.share();
        // Errors of the polls show at the calls that follow.
        let polled = Rc::clone(&socket);
        let writable = Watch::new(async move || drop(polled.writable().await));
        let polled = Rc::clone(&socket);
        let others = Watch::new(async move || drop(polled.give_way().await));
        Self { connection, socket, scratch: Rc::clone(scratch), plain: Vec::new(), writable, others }
    }

    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.plain.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.plain[..count]);
        if count == self.plain.len() {
            self.plain = Vec::new();
        } else {
            self.plain.drain(..count);
        }
        count
    }
}

impl Line for UpstreamLine {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        if !self.plain.is_empty() {
            return Ok(Received::Bytes(self.give(buffer)));
        }
        if !self.connection.is_tls() {
            return self.socket.receive(buffer);
        }
        match self.connection.receive(&self.scratch, HTTP2_LINE_BYTES, &mut self.plain) {
            // What came before a fault is good, and the fault will be found again.
            _ if !self.plain.is_empty() => Ok(Received::Bytes(self.give(buffer))),
            Ok(Intake::Data | Intake::Pending) => Ok(Received::Pending),
            // Streams have ends of their own: nothing can be cut off without showing there.
            Ok(Intake::End | Intake::Truncated) => Ok(Received::End),
            Err(error) => Err(other(error)),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.connection.is_tls() {
            return self.socket.send(bytes);
        }
        self.connection.send(bytes, &self.scratch).map_err(other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<bool> {
        if self.connection.is_blocked() {
            self.connection.flush().map_err(other)?;
        }
        Ok(!self.connection.is_blocked())
    }

    fn finish(&mut self) {
        // A peer that is gone needs no farewell.
        let _ = self.connection.finish_sending();
        self.socket.shutdown_write();
    }

    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.connection.poll_readable(context)
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.writable.poll(context)
    }

    fn poll_others(&self, context: &mut Context<'_>) -> Poll<()> {
        self.others.poll(context)
    }
}

fn other(error: ConnectionError) -> io::Error {
    match error {
        ConnectionError::Io(error) => error,
        error @ (ConnectionError::Tls(_) | ConnectionError::Stream(_)) => io::Error::other(error),
    }
}
