//! A connection as an upstream's service sees it: plain or TLS, counted.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::{ServerConnection, StreamOwned};

use super::upstream::Seen;

/// A connection from the gateway.
pub(crate) struct Stream {
    inner: Inner,
    seen: Arc<Seen>,
    /// How many bytes the next writes take, over and over; empty: as many as they are given.
    cuts: &'static [usize],
    writes: usize,
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    /// A connection without TLS.
    pub(crate) fn plain(socket: TcpStream, seen: Arc<Seen>) -> Self {
        Self { inner: Inner::Plain(socket), seen, cuts: &[], writes: 0 }
    }

    /// A connection after its handshake.
    pub(crate) fn tls(stream: StreamOwned<ServerConnection, TcpStream>, seen: Arc<Seen>) -> Self {
        Self { inner: Inner::Tls(Box::new(stream)), seen, cuts: &[], writes: 0 }
    }

    /// Cuts what is written from here on into records (or segments) of these sizes, over and over.
    pub(crate) fn cut_into(&mut self, sizes: &'static [usize]) {
        self.cuts = sizes;
    }

    /// Ends the sending direction properly: `close_notify` where there is TLS, then FIN.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Plain(socket) => socket.shutdown(Shutdown::Write),
            Inner::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush()?;
                stream.sock.shutdown(Shutdown::Write)
            }
        }
    }

    /// Sends a KeyUpdate that asks for another in return (RFC 8446 section 4.6.3).
    pub(crate) fn renew_keys(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Plain(_) => Err(io::ErrorKind::Unsupported.into()),
            Inner::Tls(stream) => {
                stream.conn.refresh_traffic_keys().map_err(io::Error::other)?;
                stream.flush()
            }
        }
    }

    /// Sends bytes past the TLS session, as whoever sits on the way does.
    pub(crate) fn inject(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.inner {
            Inner::Plain(socket) => socket.write_all(bytes),
            Inner::Tls(stream) => stream.sock.write_all(bytes),
        }
    }

    /// Ends the sending direction with FIN alone, as a server does that crashed.
    pub(crate) fn truncate(&mut self) -> io::Result<()> {
        match &self.inner {
            Inner::Plain(socket) => socket.shutdown(Shutdown::Write),
            Inner::Tls(stream) => stream.sock.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.inner {
            Inner::Plain(socket) => socket.read(buffer)?,
            Inner::Tls(stream) => stream.read(buffer)?,
        };
        self.seen.update(|counts| counts.bytes_received += count as u64);
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = if self.cuts.is_empty() { bytes.len() } else { self.cuts[self.writes % self.cuts.len()] };
        self.writes += 1;
        let bytes = &bytes[..most.min(bytes.len())];
        match &mut self.inner {
            Inner::Plain(socket) => socket.write(bytes),
            Inner::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Plain(socket) => socket.flush(),
            Inner::Tls(stream) => stream.flush(),
        }
    }
}
