//! A connected stream socket.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use monoio::net::UnixStream;
use pin_project_lite::pin_project;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType, ipproto, sockopt,
};

use super::spin::note_activity;

/// A TCP connection. Closed on drop; if a poll was given up, once the driver has forgotten it.
///
/// The descriptor is non-blocking: under io_uring monoio leaves sockets blocking, and one `splice` on a blocking
/// socket would stop the whole worker.
#[derive(Debug)]
pub struct Socket {
    /// The descriptor, registered for polls. None of a stream's own calls is made on it, and monoio's `TcpStream` would
    /// add 72 bytes to every connection: a cache of two addresses that nobody reads.
    polled: ManuallyDrop<UnixStream>,
    /// Polls that have not been answered, those included that were dropped before.
    polls: Cell<u32>,
}

pin_project! {
    /// A wait for readiness, which the socket counts: as long as the driver may refer to the descriptor, only the driver
    /// may close it.
    #[derive(Debug)]
    struct Readiness<'a, F> {
        #[pin]
        poll: F,
        socket: &'a Socket,
    }
}

impl<'a, F> Readiness<'a, F> {
    fn new(socket: &'a Socket, poll: F) -> Self {
        socket.polls.set(socket.polls.get() + 1);
        Self { poll, socket }
    }
}

impl<F: Future<Output = io::Result<()>>> Future for Readiness<'_, F> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let ready = ready!(this.poll.poll(context));
        this.socket.polls.set(this.socket.polls.get() - 1);
        Poll::Ready(ready)
    }
}

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, at least one.
    Bytes(usize),
    /// The peer has finished sending.
    End,
    /// Nothing at the moment: wait for [`Socket::readable`].
    Pending,
}

impl Socket {
    /// Takes over a non-blocking socket on which `TCP_NODELAY` is set.
    ///
    /// # Errors
    /// When the driver cannot register it.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let polled = ManuallyDrop::new(UnixStream::from_std(fd.into())?);
        Ok(Self { polled, polls: Cell::new(0) })
    }

    /// Opens a connection to `address`. May be dropped at any time, which abandons the attempt.
    ///
    /// # Errors
    /// What connect(2) reports.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        set_no_delay(&fd)?;
        match rustix::net::connect(&fd, &address) {
            Ok(()) => return Self::new(fd),
            Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let socket = Self::new(fd)?;
        socket.writable().await?;
        sockopt::socket_error(socket.fd())??;
        Ok(socket)
    }

    /// Waits until there is something to receive, or the end, or an error to collect.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        // `false`: under epoll monoio keeps a readiness flag that only its own calls would clear.
        Readiness::new(self, self.polled.readable(false))
    }

    /// Waits until something can be sent, or there is an error to collect.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub fn writable(&self) -> impl Future<Output = io::Result<()>> + '_ {
        Readiness::new(self, self.polled.writable(false))
    }

    /// Lets the other sessions of the worker have their turn; to be called now and then by whoever finds work at every
    /// look.
    ///
    /// Waking oneself would starve the driver: monoio puts a self-woken task in front of all others. Under io_uring a
    /// poll of a ready socket goes through the ring, behind everybody else; under epoll it is ready at once, so there
    /// the way out is a timer.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub async fn give_way(&self) -> io::Result<()> {
        if monoio::utils::is_legacy() {
            super::sleep(Duration::ZERO).await;
            return Ok(());
        }
        self.writable().await
    }

    /// Receives into `buffer`, which must not be empty, without waiting.
    ///
    /// # Errors
    /// What recv(2) reports, connection reset included.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        debug_assert!(!buffer.is_empty(), "an empty buffer would read as the end of the stream");
        loop {
            return match rustix::net::recv(self.fd(), &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => Ok(Received::End),
                Ok((count, _)) => {
                    note_activity();
                    Ok(Received::Bytes(count))
                }
                Err(Errno::AGAIN) => Ok(Received::Pending),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// As [`Self::receive`], but what was received stays in the socket.
    ///
    /// # Errors
    /// What recv(2) reports.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            return match rustix::net::recv(self.fd(), &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
                Ok((0, _)) => Ok(Received::End),
                Ok((count, _)) => Ok(Received::Bytes(count)),
                Err(Errno::AGAIN) => Ok(Received::Pending),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Sends the beginning of `bytes` without waiting and returns how much was taken; less than all means that the
    /// socket is full and [`Self::writable`] is due.
    ///
    /// # Errors
    /// What send(2) reports, connection reset included.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            return match rustix::net::send(self.fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => Ok(count),
                Err(Errno::AGAIN) => Ok(0),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// As [`Self::send`], of pieces that follow each other, no more of them than the 1024 of sendmsg(2).
    ///
    /// # Errors
    /// What sendmsg(2) reports.
    pub fn send_pieces(&self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if let [piece] = pieces {
            return self.send(piece);
        }
        loop {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            return match rustix::net::sendmsg(self.fd(), pieces, &mut SendAncillaryBuffer::default(), flags) {
                Ok(count) => Ok(count),
                Err(Errno::AGAIN) => Ok(0),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Sends all of `bytes`, waiting as often as it takes.
    ///
    /// # Errors
    /// What send(2) reports.
    pub async fn send_all(&self, bytes: &[u8]) -> io::Result<()> {
        send_all(bytes, |rest| self.send(rest), || self.writable()).await
    }

    /// Whether the connection has failed, by a reset for instance. A peer that has only finished sending has not failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !matches!(sockopt::socket_error(self.fd()), Ok(Ok(())))
    }

    /// Tells the peer that nothing more will be sent. A peer that is gone already is no error.
    pub fn shutdown_write(&self) {
        let _ = rustix::net::shutdown(self.fd(), Shutdown::Write);
    }

    /// Receives nothing more; whoever waits to do so wakes up.
    pub fn shutdown_read(&self) {
        let _ = rustix::net::shutdown(self.fd(), Shutdown::Read);
    }

    /// Ends both directions; whoever waits on this socket wakes up.
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(self.fd(), Shutdown::Both);
    }

    /// Resets the connection at once, so that the peer cannot mistake a truncation for a clean end; whoever waits on this
    /// socket wakes up to an error.
    pub fn abort(&self) {
        // A TCP connection that is told to connect to nothing is dissolved (connect(2), tcp(7)).
        if rustix::net::connect_unspec(self.fd()).is_err() {
            self.reset_on_close();
            self.shutdown();
        }
    }

    /// Makes the close that follows a reset, so that the peer cannot mistake a truncation for a clean end.
    pub fn reset_on_close(&self) {
        let _ = sockopt::set_socket_linger(self.fd(), Some(Duration::ZERO));
    }

    /// Lets the kernel probe a silent peer; what is `None` stays as the system has it.
    pub fn keep_alive(&self, probes: Option<u32>, time: Option<Duration>, interval: Option<Duration>) {
        // What the kernel refuses stays at its default.
        let _ = sockopt::set_socket_keepalive(self.fd(), true);
        let _ = probes.map(|probes| sockopt::set_tcp_keepcnt(self.fd(), probes));
        let _ = time.map(|time| sockopt::set_tcp_keepidle(self.fd(), time));
        let _ = interval.map(|interval| sockopt::set_tcp_keepintvl(self.fd(), interval));
    }

    /// Lets the socket become readable only once this many bytes have arrived, or the end, an error, or as much as the
    /// receive window holds (SO_RCVLOWAT, tcp(7)); 1 is how a socket begins. A poll under way heeds it, too.
    #[expect(unsafe_code, reason = "no crate wraps this option")]
    pub fn set_low_water(&self, bytes: u32) {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: the descriptor is open as long as `self` is borrowed; the value is an int that lives until the call
        // returns, its length is given, and the kernel only reads it.
        let status = unsafe {
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(
                self.fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const bytes).cast(),
                length,
            )
        };
        debug_assert_eq!(status, 0, "a TCP socket takes any positive number");
    }

    /// Our end's address.
    ///
    /// # Errors
    /// What getsockname(2) reports.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getsockname(self.fd())?;
        SocketAddr::try_from(address).map_err(Into::into)
    }

    /// Where a connection went that the packet filter has redirected to us (REDIRECT). A connection that came to us
    /// directly has our own address here, or none at all if nothing keeps track of connections.
    ///
    /// # Errors
    /// What getsockopt(2) reports for SO_ORIGINAL_DST.
    pub fn original_destination(&self) -> io::Result<SocketAddr> {
        // IPv4 on a socket of [::] is kept track of as IPv4.
        match self.local_address()?.ip().to_canonical() {
            IpAddr::V4(_) => Ok(sockopt::ip_original_dst(self.fd())?.into()),
            IpAddr::V6(_) => Ok(sockopt::ipv6_original_dst(self.fd())?.into()),
        }
    }

    /// The descriptor, for calls that monoio does not offer.
    #[expect(unsafe_code, reason = "monoio's stream offers its descriptor as a bare number only")]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.polled` owns the descriptor and closes it no earlier than its drop; the returned borrow of
        // `self` cannot outlive that.
        unsafe { BorrowedFd::borrow_raw(self.polled.as_raw_fd()) }
    }
}

impl Drop for Socket {
    /// monoio closes through the ring, and asks it at once to give that up again, since nobody waits for the outcome: two
    /// operations and an allocation for what is one call here.
    #[expect(unsafe_code, reason = "monoio's stream must be taken out of its field to get the descriptor back")]
    fn drop(&mut self) {
        // SAFETY: `self` is being dropped, so nobody looks at the field after this.
        let polled = unsafe { ManuallyDrop::take(&mut self.polled) };
        if self.polls.get() == 0 {
            // No operation shares the descriptor, which monoio would refuse to give up otherwise.
            let fd = polled.into_raw_fd();
            // SAFETY: the stream has just given up the descriptor, which it owned alone.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

/// Sends all of `bytes` by `send`, which takes the beginning of what it is given, and waits by `writable` as often as it takes.
///
/// # Errors
/// Those of the two.
pub async fn send_all<W: Future<Output = io::Result<()>>>(
    bytes: &[u8],
    send: impl Fn(&[u8]) -> io::Result<usize>,
    writable: impl Fn() -> W,
) -> io::Result<()> {
    let mut sent = send(bytes)?;
    while sent < bytes.len() {
        writable().await?;
        sent += send(&bytes[sent..])?;
    }
    Ok(())
}

/// Heads and TLS flights are sent whole; Nagle's algorithm would only delay their last segment. A connection that is
/// accepted inherits this from its listener.
pub(super) fn set_no_delay(fd: &OwnedFd) -> io::Result<()> {
    Ok(sockopt::set_tcp_nodelay(fd, true)?)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::super::{Either, Ticker, either, within};
    use super::*;

    /// A connection, and its other end.
    fn connected() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("somebody listens");
        let (accepted, _) = listener.accept().expect("a connection waits");
        accepted.set_nonblocking(true).expect("a socket can be");
        (Socket::new(accepted.into()).expect("a descriptor is free"), peer)
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("epoll works");
        match runtime.block_on(async { either(Ticker::new().expect("a descriptor is free").run(), test).await }) {
            Either::Second(value) => value,
            Either::First(()) => unreachable!("the timers never end"),
        }
    }

    #[test]
    fn what_is_below_the_low_water_mark_wakes_nobody() {
        const MOMENT: Duration = Duration::from_millis(50);
        run(async {
            let (socket, mut peer) = connected();
            socket.set_low_water(1000);
            peer.write_all(&[0; 999]).expect("the peer is there");
            assert!(within(MOMENT, socket.readable()).await.is_none());
            peer.write_all(&[0]).expect("the peer is there");
            assert!(within(MOMENT, socket.readable()).await.is_some());
            assert!(matches!(socket.receive(&mut [0; 2000]), Ok(Received::Bytes(1000))));

            peer.write_all(&[0]).expect("the peer is there");
            assert!(within(MOMENT, socket.readable()).await.is_none());
            socket.set_low_water(1);
            assert!(within(MOMENT, socket.readable()).await.is_some());
        });
    }

    /// Whether the other end has seen the close, without any turn of the driver.
    fn is_closed(mut peer: TcpStream) -> bool {
        peer.set_nonblocking(true).expect("a socket can be");
        matches!(peer.read(&mut [0]), Ok(0))
    }

    #[test]
    fn a_drop_closes_at_once() {
        run(async {
            let (socket, mut peer) = connected();
            peer.write_all(&[0]).expect("the peer is there");
            assert!(socket.readable().await.is_ok());
            assert!(matches!(socket.receive(&mut [0; 10]), Ok(Received::Bytes(1))));
            drop(socket);
            assert!(is_closed(peer));
        });
    }

    #[test]
    fn a_drop_after_a_poll_that_was_given_up_leaves_the_close_to_the_driver() {
        run(async {
            let (socket, peer) = connected();
            assert!(within(Duration::from_millis(1), socket.readable()).await.is_none());
            assert_eq!(socket.polls.get(), 1);
            drop(socket);
            assert!(is_closed(peer));
        });
    }

    #[test]
    fn an_abort_wakes_its_own_side_and_resets_the_peer() {
        run(async {
            let (socket, mut peer) = connected();
            let waiting = async {
                let woken = within(Duration::from_secs(5), socket.readable()).await;
                (woken.is_some(), socket.receive(&mut [0; 10]).is_err())
            };
            let mut waiting = std::pin::pin!(waiting);
            assert!(within(Duration::from_millis(1), waiting.as_mut()).await.is_none());
            socket.abort();
            assert_eq!(waiting.await, (true, true));
            let end = peer.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
        });
    }

    #[test]
    fn the_end_is_heard_below_the_low_water_mark() {
        run(async {
            let (socket, peer) = connected();
            socket.set_low_water(1000);
            drop(peer);
            assert!(within(Duration::from_secs(5), socket.readable()).await.is_some());
        });
    }
}
