//! How bytes come from a client and go to it.
//!
//! HTTP/1 is spoken over it without knowing what it is: every method means here what it means of a
//! [`Socket`](crate::net::Socket), and a plaintext connection pays one branch for the choice.

use std::future::Future;
use std::io;

use crate::net::{Received, Socket};

/// The client's side of a session.
#[derive(Debug)]
pub enum Transport {
    /// A TCP connection.
    Tcp(Socket),
}

impl Transport {
    /// The connection itself, if its bytes are the client's as they are: it may be relayed without a look at them.
    #[must_use]
    pub fn socket(&self) -> Option<&Socket> {
        match self {
            Self::Tcp(socket) => Some(socket),
        }
    }

    /// Waits until there is something to receive, or the end, or an error to collect.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        match self {
            Self::Tcp(socket) => socket.readable(),
        }
    }

    /// Waits until something can be sent, or there is an error to collect.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        match self {
            Self::Tcp(socket) => socket.writable(),
        }
    }

    /// Lets the other sessions of the worker have their turn.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub fn give_way(&self) -> impl Future<Output = io::Result<()>> + '_ {
        match self {
            Self::Tcp(socket) => socket.give_way(),
        }
    }

    /// Receives what the client says into `buffer`, which must not be empty, without waiting. Nothing that has been
    /// received is held back: after it [`Self::readable`] is about what comes next.
    ///
    /// # Errors
    /// When the connection has failed, or has ended where it must not.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Self::Tcp(socket) => socket.receive(buffer),
        }
    }

    /// Sends the beginning of `bytes` without waiting and returns how much was taken; less than all means that
    /// [`Self::writable`] is due, and that what is sent next must be the rest.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.send(bytes),
        }
    }

    /// As [`Self::send`], of two pieces that follow each other.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn send_both(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.send_both(first, second),
        }
    }

    /// Sends all of `bytes`, waiting as often as it takes.
    ///
    /// # Errors
    /// When the connection has failed.
    pub async fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = self.send(bytes)?;
        while sent < bytes.len() {
            self.writable().await?;
            sent += self.send(&bytes[sent..])?;
        }
        Ok(())
    }

    /// Whether the connection has failed, by a reset for instance.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.has_failed(),
        }
    }

    /// Tells the client that nothing more will be sent. A client that is gone already is no error.
    pub fn finish_sending(&self) {
        match self {
            Self::Tcp(socket) => socket.shutdown_write(),
        }
    }

    /// Receives once and throws it away, whatever it is.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn discard(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Self::Tcp(socket) => socket.receive(buffer),
        }
    }

    /// Ends the connection between two requests; whoever waits on it wakes up.
    pub fn close_idle(&self) {
        match self {
            Self::Tcp(socket) => socket.shutdown(),
        }
    }

    /// Cuts the connection off, whatever is under way; whoever waits on it wakes up.
    pub fn cut(&self) {
        match self {
            Self::Tcp(socket) => socket.shutdown(),
        }
    }

    /// Makes the close that follows a reset, so that the client cannot mistake a truncation for a clean end.
    pub fn reset_on_close(&self) {
        match self {
            Self::Tcp(socket) => socket.reset_on_close(),
        }
    }
}
