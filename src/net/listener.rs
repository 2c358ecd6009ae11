//! A listening socket that one worker owns.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::limits::ACCEPT_BACKLOG;

use super::Socket;
use super::socket::set_no_delay;

/// A listening socket, bound with `SO_REUSEPORT`: the kernel spreads connections over the workers.
#[derive(Debug)]
pub struct Listener {
    /// For readiness. The second descriptor of the same socket, below, is for accept4(2): monoio offers its own as a
    /// bare number only, and a dropped monoio accept would leak the connection.
    polled: monoio::net::TcpListener,
    accepting: TcpListener,
    /// Our end of every connection; `None`: it differs from one to the next.
    address: Option<SocketAddr>,
    /// Given up for a moment when the process runs out of descriptors, so that a connection can be accepted and
    /// closed instead of waking the worker for ever.
    reserve: RefCell<Option<File>>,
}

/// The outcome of [`Listener::accept`].
#[derive(Debug)]
pub enum Accepted {
    /// A connection and its peer.
    Connection(Socket, SocketAddr),
    /// No connection is waiting.
    Pending,
    /// The peer was gone before we looked; there may be more connections.
    Aborted,
    /// No descriptors: one connection was closed unanswered, or none could be. Wait before trying again.
    Exhausted,
}

impl Listener {
    /// Binds and listens. A transparent listener takes connections to addresses that are not this machine's, where the
    /// packet filter hands them to it (TPROXY).
    ///
    /// # Errors
    /// What bind(2) and listen(2) report: address in use, not available, permission denied; setsockopt(2) for
    /// IP_TRANSPARENT, which needs CAP_NET_ADMIN (ip(7)).
    pub fn bind(address: SocketAddr, transparent: bool) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        sockopt::set_socket_reuseport(&fd, true)?;
        set_no_delay(&fd)?;
        if transparent {
            let socket = socket2::SockRef::from(&fd);
            match address {
                SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
            }
        }
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, ACCEPT_BACKLOG)?;
        let accepting = TcpListener::from(fd);
        let polled = monoio::net::TcpListener::from_std(accepting.try_clone()?)?;
        // With TPROXY it is the address that the client meant.
        let bound = accepting.local_addr()?;
        let address = (!transparent && !bound.ip().is_unspecified()).then_some(bound);
        Ok(Self { polled, accepting, address, reserve: RefCell::new(File::open("/dev/null").ok()) })
    }

    /// Our address on every connection that it accepts; `None`: each has its own.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Waits until a connection may be waiting.
    ///
    /// # Errors
    /// When the driver refuses the poll.
    pub async fn readable(&self) -> io::Result<()> {
        self.polled.readable(false).await
    }

    /// Stops listening at once; connections that are waiting are reset.
    pub fn shutdown(&self) {
        // It fails only if the socket does not listen any more.
        let _ = rustix::net::shutdown(&self.accepting, rustix::net::Shutdown::Both);
    }

    /// Accepts one connection without waiting.
    ///
    /// # Errors
    /// What accept4(2) reports, except what [`Accepted`] names.
    pub fn accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::acceptfrom_with(&self.accepting, flags) {
            Ok((fd, peer)) => Self::accepted(fd, peer),
            Err(Errno::AGAIN) => Ok(Accepted::Pending),
            // The connection ended in the queue, or the network told so (accept(2), "Error handling").
            Err(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH,
            ) => Ok(Accepted::Aborted),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                self.close_one();
                Ok(Accepted::Exhausted)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn accepted(fd: OwnedFd, peer: Option<rustix::net::SocketAddrAny>) -> io::Result<Accepted> {
        let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) else { return Ok(Accepted::Aborted) };
        Ok(Accepted::Connection(Socket::new(fd)?, peer))
    }

    /// Uses the reserved descriptor to take one connection off the queue and close it.
    fn close_one(&self) {
        let mut reserve = self.reserve.borrow_mut();
        if reserve.take().is_some() {
            drop(rustix::net::accept_with(&self.accepting, SocketFlags::CLOEXEC));
        }
        *reserve = File::open("/dev/null").ok();
    }
}
