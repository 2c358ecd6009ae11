//! How bytes come from a client and go to it.
//!
//! HTTP/1 is spoken over it without knowing what it is: every method means here what it means of a
//! [`Socket`](crate::net::Socket), and a plaintext connection pays one branch for the choice.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use ::http::HeaderMap;
use pin_project_lite::pin_project;

use crate::net::{Received, Socket, send_all};

use super::stream::ClientStream;
use super::tls::Tls;

/// The client's side of a session.
#[derive(Debug)]
pub enum Transport {
    /// A TCP connection, and the client's TLS inside it if that ends here.
    Tcp(Socket, OnceCell<Box<Tls>>),
    /// A stream of a connection in HTTP/2.
    Stream(Box<ClientStream>),
    /// Nobody: what is sent is thrown away, up to so many bytes more, and nothing is to be received.
    Nobody(Cell<usize>),
}

// Whoever waits for hours pays for no kind but his own, and for the word that tells them apart.
const _: () = assert!(size_of::<Transport>() <= size_of::<(Socket, OnceCell<Box<Tls>>, usize)>());

pin_project! {
    /// A wait on a [`Transport`].
    #[project = WaitProjection]
    #[must_use = "futures do nothing unless polled"]
    enum Wait<'a, F> {
        Connection { #[pin] wait: F },
        Stream { stream: &'a ClientStream, sends: bool },
        Nobody { sends: bool },
    }
}

impl<F: Future<Output = io::Result<()>>> Future for Wait<'_, F> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            WaitProjection::Connection { wait } => wait.poll(context),
            WaitProjection::Stream { stream, sends: true } => stream.poll_writable(context).map(Ok),
            WaitProjection::Stream { stream, sends: false } => stream.poll_readable(context).map(Ok),
            WaitProjection::Nobody { sends: true } => Poll::Ready(Ok(())),
            WaitProjection::Nobody { sends: false } => Poll::Pending,
        }
    }
}

impl Transport {
    /// A connection in plain text, or one whose TLS is none of our business.
    pub(super) fn new(socket: Socket) -> Self {
        Self::Tcp(socket, OnceCell::new())
    }

    /// Puts what follows into TLS, once and for all.
    pub(super) fn put_into(&self, tls: Tls) {
        if let Self::Tcp(_, inside) = self {
            // A second one would be a bug; the first stays.
            let _ = inside.set(Box::new(tls));
        }
    }

    /// The client's TLS, if it ends here.
    pub(super) fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Tcp(_, tls) => tls.get().map(|tls| &**tls),
            Self::Stream(stream) => stream.tls(),
            Self::Nobody(_) => None,
        }
    }

    /// The connection itself, if its bytes are the client's as they are: it may be relayed without a look at them.
    #[must_use]
    pub fn socket(&self) -> Option<&Socket> {
        match self {
            Self::Tcp(socket, tls) => tls.get().is_none().then_some(socket),
            Self::Stream(_) | Self::Nobody(_) => None,
        }
    }

    /// The TCP connection beneath, unless this is one of many streams on it.
    #[must_use]
    pub fn connection(&self) -> Option<&Socket> {
        match self {
            Self::Tcp(socket, _) => Some(socket),
            Self::Stream(_) | Self::Nobody(_) => None,
        }
    }

    /// The stream, if it is one.
    #[must_use]
    pub fn stream(&self) -> Option<&ClientStream> {
        match self {
            Self::Tcp(..) | Self::Nobody(_) => None,
            Self::Stream(stream) => Some(stream),
        }
    }

    /// Ready once a stream has been given up, which nothing else would show to a session that waits for its upstream.
    pub fn poll_given_up(&self, context: &mut Context<'_>) -> Poll<()> {
        self.stream().map_or(Poll::Pending, |stream| stream.poll_given_up(context))
    }

    /// Whether it is a stream that the client has given up. A connection is not asked: that would cost every request.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.stream().is_some_and(ClientStream::is_given_up)
    }

    /// What follows the body of the answer; to be called before its end is sent. Nothing does in HTTP/1.1.
    pub fn set_trailers(&self, trailers: HeaderMap) {
        if let Self::Stream(stream) = self {
            stream.set_trailers(trailers);
        }
    }

    /// Waits until there is something to receive, or the end, or an error to collect.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        match self {
            Self::Tcp(socket, _) => Wait::Connection { wait: socket.readable() },
            Self::Stream(stream) => Wait::Stream { stream, sends: false },
            Self::Nobody(_) => Wait::Nobody { sends: false },
        }
    }

    /// Waits until something can be sent, or there is an error to collect.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        match self {
            Self::Tcp(socket, _) => Wait::Connection { wait: socket.writable() },
            Self::Stream(stream) => Wait::Stream { stream, sends: true },
            Self::Nobody(_) => Wait::Nobody { sends: true },
        }
    }

    /// Lets the other sessions of the worker have their turn.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub async fn give_way(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket, _) => socket.give_way().await,
            // It serves one request, and its connection sees to the rest.
            Self::Stream(_) | Self::Nobody(_) => Ok(()),
        }
    }

    /// Receives what the client says into `buffer`, which must not be empty, without waiting. Nothing that has been
    /// received is held back: after it [`Self::readable`] is about what comes next.
    ///
    /// # Errors
    /// When the connection has failed, or has ended where it must not.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Self::Tcp(socket, tls) => match tls.get() {
                None => socket.receive(buffer),
                Some(tls) => tls.receive(socket, buffer),
            },
            Self::Stream(stream) => stream.receive(buffer),
            Self::Nobody(_) => Ok(Received::End),
        }
    }

    /// Sends the beginning of `bytes` without waiting and returns how much was taken; less than all means that
    /// [`Self::writable`] is due, and that what is sent next must be the rest.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket, tls) => match tls.get() {
                None => socket.send(bytes),
                Some(tls) => tls.send(socket, &[IoSlice::new(bytes)]),
            },
            Self::Stream(stream) => stream.send(bytes),
            Self::Nobody(left) => throw_away(left, bytes.len()),
        }
    }

    /// As [`Self::send`], of pieces that follow each other.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn send_pieces(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket, tls) => match tls.get() {
                None => socket.send_pieces(pieces),
                Some(tls) => tls.send(socket, pieces),
            },
            Self::Stream(stream) => {
                let mut sent = 0;
                for piece in pieces {
                    let taken = stream.send(piece)?;
                    sent += taken;
                    if taken < piece.len() {
                        break;
                    }
                }
                Ok(sent)
            }
            Self::Nobody(left) => throw_away(left, pieces.iter().map(|piece| piece.len()).sum()),
        }
    }

    /// Sends all of `bytes`, waiting as often as it takes.
    ///
    /// # Errors
    /// When the connection has failed.
    pub async fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        send_all(bytes, |rest| self.send(rest), || self.writable()).await
    }

    /// Whether the connection has failed, by a reset for instance.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        match self {
            Self::Tcp(socket, _) => socket.has_failed(),
            Self::Stream(stream) => stream.is_given_up(),
            Self::Nobody(_) => false,
        }
    }

    /// Tells a client inside TLS that nothing more will be sent. False: its socket is full.
    fn say_goodbye(&self) -> bool {
        match self {
            Self::Tcp(socket, tls) => tls.get().is_none_or(|tls| tls.finish_sending(socket)),
            // A message ends with itself.
            Self::Stream(_) | Self::Nobody(_) => true,
        }
    }

    /// Tells the client that nothing more will be sent, as far as that goes without waiting; false: [`Self::writable`] and
    /// another call are due. A client that is gone already is no error.
    pub fn try_finish_sending(&self) -> bool {
        let is_told = self.say_goodbye();
        if let (true, Self::Tcp(socket, _)) = (is_told, self) {
            socket.shutdown_write();
        }
        is_told
    }

    /// Tells the client that nothing more will be sent, and waits until its socket has taken that. Dropped, it leaves a client
    /// inside TLS with a truncation.
    pub async fn finish_sending(&self) {
        while !self.try_finish_sending() {
            if self.writable().await.is_err() {
                return;
            }
        }
    }

    /// Receives once and throws it away, whatever it is.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn discard(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match self {
            Self::Tcp(socket, _) => socket.receive(buffer),
            Self::Stream(stream) => stream.receive(buffer),
            Self::Nobody(_) => Ok(Received::End),
        }
    }

    /// Ends the connection between two requests; whoever waits on it wakes up.
    pub fn close_idle(&self) {
        // Its last answer has said where it ends.
        let _ = self.say_goodbye();
        match self {
            Self::Tcp(socket, _) => socket.shutdown(),
            Self::Stream(stream) => stream.reset(),
            Self::Nobody(_) => {}
        }
    }

    /// Cuts the connection off, whatever is under way; whoever waits on it wakes up.
    pub fn cut(&self) {
        match self {
            Self::Tcp(socket, _) => socket.abort(),
            Self::Stream(stream) => stream.reset(),
            Self::Nobody(_) => {}
        }
    }

    /// Makes the close that follows a reset, so that the client cannot mistake a truncation for a clean end.
    pub fn reset_on_close(&self) {
        match self {
            Self::Tcp(socket, _) => socket.reset_on_close(),
            Self::Stream(stream) => stream.reset(),
            Self::Nobody(_) => {}
        }
    }
}

/// Takes bytes for nobody, as long as some are left.
fn throw_away(left: &Cell<usize>, count: usize) -> io::Result<usize> {
    let rest = left.get().checked_sub(count).ok_or(io::ErrorKind::QuotaExceeded)?;
    left.set(rest);
    Ok(count)
}
