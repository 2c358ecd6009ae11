//! Servers outside: what the gateway stands in front of. They count what reaches them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};

use super::DEADLINE;
use super::certificates::Identity;
use super::stream::Stream;

/// A server on a port of its own; it ends with the test.
pub(crate) struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
    stopping: Arc<AtomicBool>,
}

/// What a server does with one connection; see [`super::service`].
pub(crate) type Service = dyn Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync;

impl Upstream {
    /// A TLS server.
    pub(crate) fn tls(
        identity: &Identity,
        service: impl Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(loopback(), Some(identity.server()), Arc::new(service))
    }

    /// A TLS server with a configuration that the test made.
    pub(crate) fn tls_with(
        config: ServerConfig,
        service: impl Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(loopback(), Some(config), Arc::new(service))
    }

    /// A TLS server on a listener that the test bound.
    pub(crate) fn tls_on(
        listener: TcpListener,
        identity: &Identity,
        service: impl Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(listener, Some(identity.server()), Arc::new(service))
    }

    /// A server without TLS.
    pub(crate) fn plain(service: impl Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start(loopback(), None, Arc::new(service))
    }

    /// A server without TLS on a listener that the test bound.
    pub(crate) fn plain_on(
        listener: TcpListener,
        service: impl Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(listener, None, Arc::new(service))
    }

    fn start(listener: TcpListener, tls: Option<ServerConfig>, service: Arc<Service>) -> Self {
        let address = listener.local_addr().expect("a bound listener has an address");
        let seen = Arc::new(Seen::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = Acceptor { listener, tls: tls.map(Arc::new), service, seen: Arc::clone(&seen) };
        let stop = Arc::clone(&stopping);
        thread::spawn(move || acceptor.run(&stop));
        Self { address, seen, stopping }
    }

    /// The port that `targetPort` names.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What reached the server so far.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.seen.open_gate();
        // Wakes the acceptor, which then looks at the flag.
        let _ = TcpStream::connect(self.address);
    }
}

fn loopback() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports")
}

struct Acceptor {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    service: Arc<Service>,
    seen: Arc<Seen>,
}

impl Acceptor {
    fn run(&self, stopping: &AtomicBool) {
        while let Ok((socket, _)) = self.listener.accept() {
            if stopping.load(Ordering::Acquire) {
                return;
            }
            self.seen.update(|counts| counts.connections += 1);
            let (tls, service, seen) = (self.tls.clone(), Arc::clone(&self.service), Arc::clone(&self.seen));
            thread::spawn(move || serve(socket, tls, &*service, &seen));
        }
    }
}

/// One connection. An error of the service is the test's business only where the test looks at it: a client that
/// leaves is an error here too.
fn serve(socket: TcpStream, tls: Option<Arc<ServerConfig>>, service: &Service, seen: &Arc<Seen>) {
    socket.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
    socket.set_nodelay(true).expect("a TCP socket takes TCP options");
    let stream = match tls {
        None => Ok(Stream::plain(socket, Arc::clone(seen))),
        Some(config) => handshake(socket, config, seen),
    };
    let outcome = stream.and_then(|mut stream| service(&mut stream, seen));
    seen.update(|counts| {
        counts.ended += 1;
        counts.errors.extend(outcome.err().map(|error| error.to_string()));
    });
}

fn handshake(mut socket: TcpStream, config: Arc<ServerConfig>, seen: &Arc<Seen>) -> io::Result<Stream> {
    let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        let (read, written) = connection.complete_io(&mut socket)?;
        if (read, written) == (0, 0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    seen.update(|counts| {
        counts.server_names.extend(connection.server_name().map(str::to_owned));
        match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => counts.handshakes_resumed += 1,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => counts.handshakes_full += 1,
        }
    });
    Ok(Stream::tls(StreamOwned::new(connection, socket), Arc::clone(seen)))
}

/// What reached a server, and a gate at which its service can be made to wait.
#[derive(Default)]
pub(crate) struct Seen {
    counts: Mutex<Counts>,
    changed: Condvar,
}

/// The numbers of [`Seen`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Connections accepted.
    pub(crate) connections: usize,
    /// Connections whose service has returned.
    pub(crate) ended: usize,
    /// TLS handshakes done in full.
    pub(crate) handshakes_full: usize,
    /// TLS handshakes that resumed an earlier session.
    pub(crate) handshakes_resumed: usize,
    /// The SNI of each handshake.
    pub(crate) server_names: Vec<String>,
    /// The head of each HTTP request.
    pub(crate) requests: Vec<String>,
    /// Bytes that services read, after decryption.
    pub(crate) bytes_received: u64,
    /// Bytes that [`super::service::record`] kept.
    pub(crate) recorded: Vec<u8>,
    /// What went wrong on connections.
    pub(crate) errors: Vec<String>,
    gate_open: bool,
}

impl Seen {
    /// A copy of the numbers.
    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().expect("no service panics while it counts").clone()
    }

    /// Changes the numbers.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().expect("no service panics while it counts"));
        self.changed.notify_all();
    }

    /// Waits until the numbers are as `condition` wants them.
    ///
    /// # Panics
    /// When the deadline has passed.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&Counts) -> bool) -> Counts {
        let counts = self.counts.lock().expect("no service panics while it counts");
        let (counts, timeout) = self
            .changed
            .wait_timeout_while(counts, DEADLINE, |counts| !condition(counts))
            .expect("no service panics while it counts");
        assert!(!timeout.timed_out(), "waited {DEADLINE:?} in vain for {what}: {counts:?}");
        counts.clone()
    }

    /// Lets services pass that wait at the gate, now and later.
    pub(crate) fn open_gate(&self) {
        self.update(|counts| counts.gate_open = true);
    }

    /// Waits at the gate, as a slow service does.
    pub(crate) fn wait_at_gate(&self) {
        self.wait_for("the gate to open", |counts| counts.gate_open);
    }
}
