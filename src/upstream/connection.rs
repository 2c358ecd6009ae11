//! A connection to an upstream as the HTTP session sees it: in plain text, in TLS that we opened, or a stream of a
//! connection in HTTP/2.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::HeaderMap;

use crate::failure::Failure;
use crate::http2::StreamError;
use crate::limits::{GATHERED_BYTES_MAX, GATHERED_BYTES_MIN, SCRATCH_BYTES};
use crate::net::{Received, Scratch, Socket, WatchedSocket};
use crate::tls::session::TlsError;

use super::account::{Account, Lease};
use super::http2::Stream;
use super::tls::UpstreamSession;

/// One upstream connection.
#[derive(Debug)]
pub struct Connection {
    /// Whom we are connected to.
    pub address: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Its place in the account of its cluster; `None`: nobody counts, or the connection of the stream is counted.
    pub lease: Option<Box<Lease>>,
    carrier: Carrier,
    /// How many bytes the socket gathers before it is readable.
    gathers: u32,
    /// Whether close_notify has been received; it may come in the same read as data, and rustls tells of it once.
    ended: bool,
    /// Bytes for the wire that the socket, or the stream, has not taken yet.
    pending: Vec<u8>,
}

/// What carries the bytes.
#[derive(Debug)]
enum Carrier {
    Socket(WatchedSocket, Option<UpstreamSession>),
    Stream(Rc<Stream>),
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
    /// The stream.
    #[error("{0}")]
    Stream(#[from] StreamError),
}

impl ConnectionError {
    /// What it means before a response.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Io(_) | Self::Tls(_) | Self::Stream(StreamError::Connection(_)) => Failure::UpstreamClosed,
            Self::Stream(StreamError::Refused(_)) => Failure::UpstreamRefused,
            Self::Stream(StreamError::Reset(_) | StreamError::Unread) => Failure::UpstreamReset,
            Self::Stream(StreamError::Crowded) => Failure::ConnectTimeout,
            Self::Stream(StreamError::Protocol(_) | StreamError::Untranslatable(_) | StreamError::Trailers) => {
                Failure::ResponseMalformed
            }
        }
    }
}

impl Connection {
    /// A connection over `socket`, inside `tls` if there is one. Boxed: it changes hands several times per request.
    ///
    /// # Errors
    /// When the socket has been reset already.
    pub fn new(socket: Socket, address: SocketAddr, tls: Option<UpstreamSession>) -> io::Result<Box<Self>> {
        let local = socket.local_address()?;
        let carrier = Carrier::Socket(WatchedSocket::new(socket), tls);
        Ok(Self::new_over(carrier, address, local))
    }

    /// A stream, which serves one request.
    #[must_use]
    pub fn over(stream: Stream) -> Box<Self> {
        let (address, local) = stream.addresses();
        Self::new_over(Carrier::Stream(Rc::new(stream)), address, local)
    }

    fn new_over(carrier: Carrier, address: SocketAddr, local: SocketAddr) -> Box<Self> {
        Box::new(Self { address, local, lease: None, carrier, gathers: 1, ended: false, pending: Vec::new() })
    }

    /// The socket that carries it.
    #[must_use]
    pub fn share(&self) -> Rc<Socket> {
        match &self.carrier {
            Carrier::Socket(socket, _) => socket.share(),
            Carrier::Stream(stream) => stream.share_socket(),
        }
    }

    /// Whether it is a stream: it never serves another request.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.carrier, Carrier::Stream(_))
    }

    /// Who counts it.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        match &self.carrier {
            Carrier::Socket(..) => self.lease.as_ref().map(|lease| lease.account()),
            Carrier::Stream(stream) => stream.account(),
        }
    }

    /// Polls for bytes, the end or an error.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        match &self.carrier {
            Carrier::Socket(_, Some(tls)) if tls.has_early() => Poll::Ready(()),
            Carrier::Socket(socket, _) => socket.poll_readable(context),
            Carrier::Stream(stream) => stream.poll_readable(context),
        }
    }

    /// Ready once a stream has been given up, which nothing else shows to whoever takes nothing from it at the moment.
    pub fn poll_failed(&self, context: &Context<'_>) -> Poll<()> {
        match &self.carrier {
            Carrier::Socket(..) => Poll::Pending,
            Carrier::Stream(stream) => stream.poll_failed(context),
        }
    }

    /// Waits until something can be sent. An error shows at the call that follows.
    pub async fn writable(&self) {
        match &self.carrier {
            Carrier::Socket(socket, _) => drop(socket.writable().await),
            Carrier::Stream(stream) => poll_fn(|context| stream.poll_writable(context)).await,
        }
    }

    /// Says, before the request, that the trailers of its answer will be read.
    pub fn want_trailers(&self) {
        if let Carrier::Stream(stream) = &self.carrier {
            stream.want_trailers();
        }
    }

    /// What follows the body of the request; to be called before its end is sent. Nothing does in HTTP/1.1.
    pub fn set_trailers(&self, trailers: HeaderMap) {
        if let Carrier::Stream(stream) = &self.carrier {
            stream.set_trailers(trailers);
        }
    }

    /// What has followed the body of the answer. Those of HTTP/1.1 have been thrown away.
    #[must_use]
    pub fn take_trailers(&self) -> Option<HeaderMap> {
        match &self.carrier {
            Carrier::Socket(..) => None,
            Carrier::Stream(stream) => stream.take_trailers(),
        }
    }

    /// Sends `plain`, as far as the socket takes it; the rest is kept, and [`Self::is_blocked`] says so. To be called
    /// only while nothing is kept, so that what is kept stays within one read of the client.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn send(&mut self, plain: &[u8], scratch: &Scratch) -> Result<(), ConnectionError> {
        self.send_both(plain, &[], scratch)
    }

    /// As [`Self::send`], of two pieces that follow each other. Inside TLS they share no record.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn send_both(&mut self, first: &[u8], second: &[u8], scratch: &Scratch) -> Result<(), ConnectionError> {
        debug_assert!(!self.is_blocked(), "sending behind kept bytes would grow them without bound");
        let sent = match &mut self.carrier {
            Carrier::Socket(socket, Some(tls)) => {
                let mut output = scratch.output.borrow_mut();
                output.clear();
                tls.seal(first, &mut output)?;
                tls.seal(second, &mut output)?;
                let sent = socket.send(&output)?;
                self.pending.extend_from_slice(&output[sent..]);
                output.clear();
                return Ok(());
            }
            Carrier::Socket(socket, None) => socket.send_pieces(&[IoSlice::new(first), IoSlice::new(second)])?,
            Carrier::Stream(stream) => match stream.send(first)? {
                sent if sent < first.len() => sent,
                sent => sent + stream.send(second)?,
            },
        };
        self.pending.extend_from_slice(first.get(sent..).unwrap_or_default());
        self.pending.extend_from_slice(second.get(sent.saturating_sub(first.len())..).unwrap_or_default());
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
    /// [`ConnectionError`].
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        let sent = match &self.carrier {
            Carrier::Socket(socket, _) => socket.send(&self.pending)?,
            Carrier::Stream(stream) => stream.send(&self.pending)?,
        };
        if sent == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..sent);
        }
        Ok(())
    }

    /// Receives once, about `most` bytes at most, appending plain text to `plain`.
    ///
    /// # Errors
    /// [`ConnectionError`]; what `plain` has gained until then is good.
    pub fn receive(&mut self, scratch: &Scratch, most: usize, plain: &mut Vec<u8>) -> Result<Intake, ConnectionError> {
        let (mut input, mut pieces) = (scratch.input.borrow_mut(), scratch.pieces.borrow_mut());
        let intake = self.receive_pieces(&mut input, most, &mut pieces);
        pieces.drain(..).for_each(|piece| plain.extend_from_slice(&input[piece]));
        intake
    }

    /// Receives once, about `most` bytes at most, into `input`, which is one of [`Scratch`]; the plain text lies there in
    /// these pieces then, in order.
    ///
    /// # Errors
    /// [`ConnectionError`]; what `pieces` has gained until then is good.
    pub fn receive_pieces(
        &mut self,
        input: &mut [u8],
        most: usize,
        pieces: &mut Vec<Range<usize>>,
    ) -> Result<Intake, ConnectionError> {
        let most = most.min(input.len());
        let (socket, tls) = match &mut self.carrier {
            Carrier::Socket(socket, Some(tls)) => (socket, tls),
            Carrier::Socket(socket, None) => return Ok(intake(socket.receive(&mut input[..most])?, pieces)),
            Carrier::Stream(stream) => return Ok(intake(stream.receive(&mut input[..most])?, pieces)),
        };
        if tls.has_early() {
            let early = tls.take_early();
            input[..early.len()].copy_from_slice(&early);
            return Ok(intake(Received::Bytes(early.len()), pieces));
        }
        let kept = tls.restore(input);
        let end = (kept + most).min(input.len());
        let received = socket.receive(&mut input[kept..end]);
        let count = match &received {
            Ok(Received::Bytes(count)) => *count,
            Ok(Received::Pending | Received::End) | Err(_) => 0,
        };
        let before = pieces.len();
        self.ended |= tls.open(&mut input[..kept + count], pieces, &mut self.pending)?;
        if self.is_blocked() {
            self.flush()?;
        }
        match received? {
            _ if pieces.len() > before => Ok(Intake::Data),
            _ if self.ended => Ok(Intake::End),
            Received::End => Ok(Intake::Truncated),
            Received::Bytes(_) | Received::Pending => Ok(Intake::Pending),
        }
    }

    /// Lets the socket gather what comes next, of which `missing` bytes of plain text are certain: it becomes readable
    /// when they are there, or [`GATHERED_BYTES_MAX`] of them. 0: with the first byte. Costs a system call when it
    /// changes something.
    pub fn gather(&mut self, missing: u64) {
        let Carrier::Socket(socket, tls) = &self.carrier else { return };
        // TLS only adds to the plain text, but part of it may have been received.
        let received = tls.as_ref().map_or(0, UpstreamSession::kept_bytes);
        let missing = usize::try_from(missing).unwrap_or(usize::MAX).saturating_sub(received);
        let bytes =
            if missing < GATHERED_BYTES_MIN { 1 } else { u32::try_from(missing.min(GATHERED_BYTES_MAX)).unwrap_or(1) };
        if bytes != self.gathers {
            socket.set_low_water(bytes);
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
        let Carrier::Socket(socket, _) = &self.carrier else { return false };
        if self.ended {
            return false;
        }
        if !socket.has_fired() {
            return !self.is_blocked();
        }
        socket.clear();
        let mut plain = scratch.plain.borrow_mut();
        plain.clear();
        let intake = self.receive(scratch, SCRATCH_BYTES, &mut plain);
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
        let Carrier::Socket(_, Some(tls)) = &mut self.carrier else { return Ok(()) };
        tls.seal_end(&mut self.pending);
        self.flush()
    }

    /// Says goodbye as TLS wants it (RFC 8446 section 6.1); the socket is closed on drop.
    pub fn close(mut self) {
        if self.is_blocked() {
            return;
        }
        if let Carrier::Socket(socket, Some(tls)) = &mut self.carrier {
            let mut end = Vec::new();
            tls.seal_end(&mut end);
            // The peer may be gone; then there is nobody to tell.
            let _ = socket.send(&end);
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
        match &self.carrier {
            Carrier::Socket(_, tls) => tls.is_some(),
            Carrier::Stream(stream) => stream.is_secure(),
        }
    }

    /// Starts to watch an idle connection for what it should not bring.
    pub fn watch(&self) {
        if let Carrier::Socket(socket, _) = &self.carrier {
            socket.has_fired();
        }
    }
}

/// What was received, to the front of the buffer.
fn intake(received: Received, pieces: &mut Vec<Range<usize>>) -> Intake {
    match received {
        Received::Bytes(count) => {
            pieces.push(0..count);
            Intake::Data
        }
        Received::Pending => Intake::Pending,
        Received::End => Intake::End,
    }
}
