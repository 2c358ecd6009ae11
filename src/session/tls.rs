//! A client inside TLS that ends here: its records are opened and sealed through the worker's buffers.
//!
//! Nothing that has been opened is kept, so the readiness of the socket is that of the client. What has been sealed and
//! the socket does not take is kept, one call's worth at most, and the caller is told that a byte of its own is left: it
//! comes back with that byte when the socket is writable again, and learns so that the rest is gone.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice};
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
        let mut pieces = self.scratch.pieces.borrow_mut();
        let before = state.pending.len();
        let opened = state.session.open(&mut buffer[..kept + count], &mut pieces, &mut state.pending);
        state.answers += state.pending.len() - before;
        let length = pieces.drain(..).fold(0, |length, piece| {
            buffer.copy_within(piece.clone(), length);
            length + piece.len()
        });
        drop(pieces);
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

    /// As [`super::Transport::send_pieces`].
    pub(super) fn send(&self, socket: &Socket, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        state.flush(socket)?;
        if !state.pending.is_empty() {
            return Ok(0);
        }
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut sealed = self.scratch.tls.borrow_mut();
        sealed.clear();
        let mut owed = usize::from(state.owing);
        for piece in pieces {
            let known = owed.min(piece.len());
            owed -= known;
            state.session.seal(&piece[known..], &mut sealed).map_err(io::Error::other)?;
        }
        let sent = if sealed.is_empty() { 0 } else { socket.send(&sealed)? };
        state.pending.extend_from_slice(&sealed[sent..]);
        sealed.clear();
        state.owing = !state.pending.is_empty();
        Ok(total - usize::from(state.owing))
    }

    /// Says that nothing more will be sent (RFC 8446 section 6.1). False: the socket has not taken all of that, and this is
    /// due again once it is writable. A client that has been left in the middle of something is not told: it must not take
    /// that for the whole.
    pub(super) fn finish_sending(&self, socket: &Socket) -> bool {
        let state = &mut *self.state.borrow_mut();
        if !state.finished {
            if state.owing {
                return true;
            }
            state.finished = true;
            state.session.seal_end(&mut state.pending);
        }
        // The client may be gone; then there is nobody to tell.
        state.flush(socket).is_err() || state.pending.is_empty()
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

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::server::UnbufferedServerConnection;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

    use super::*;
    use crate::net::{Either, Ticker, either, within};
    use crate::session::Transport;
    use crate::tls::session::handshake;

    const NAME: &str = "a.example";

    /// No beginning of it is in a record by chance.
    const NOISE: [u8; 64] = *b"what fills the socket, and is not the rest of anything else; ...";

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(aws_lc_rs::default_provider())
    }

    fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a name of DNS");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let server = server.expect("they suit the provider").with_no_client_auth();
        let server = server.with_single_cert(vec![made.cert.der().clone()], key).expect("the key is its own");
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let client = client.expect("they suit the provider").with_root_certificates(roots).with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    /// A client: its handshake, and then whatever comes.
    fn client(listener: TcpListener, config: Arc<ClientConfig>) -> JoinHandle<(ClientConnection, TcpStream)> {
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("somebody connects");
            let name = ServerName::try_from(NAME).expect("a name of DNS");
            let mut session = ClientConnection::new(config, name).expect("a good configuration");
            while session.is_handshaking() {
                session.complete_io(&mut socket).expect("a handshake");
            }
            (session, socket)
        })
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("epoll works");
        match runtime.block_on(async { either(Ticker::new().expect("a descriptor is free").run(), test).await }) {
            Either::Second(value) => value,
            Either::First(()) => unreachable!("the timers never end"),
        }
    }

    /// Bytes that are nobody's, until the socket takes no more.
    fn fill(socket: &Socket) -> usize {
        let mut filled = 0;
        loop {
            match socket.send(&NOISE).expect("the client is there") {
                0 => return filled,
                count => filled += count,
            }
        }
    }

    #[test]
    fn a_client_whose_socket_is_full_hears_of_the_end_once_it_reads() {
        let (server, config) = configs();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let address = listener.local_addr().expect("it is bound");
        let client = client(listener, config);
        run(async {
            let socket = Socket::connect(address).await.expect("somebody listens");
            let connection = Box::new(UnbufferedServerConnection::new(server).expect("a good configuration"));
            let established = handshake(connection, &socket, Vec::new()).await.expect("a handshake");
            let (mut session, mut peer) = client.join().expect("no panics");
            let filled = fill(&socket);
            let transport = Transport::new(socket);
            transport.put_into(Tls::new(established.session, false, None, Rc::new(Scratch::default())));

            let mut end = std::pin::pin!(transport.finish_sending());
            assert!(within(Duration::from_millis(50), end.as_mut()).await.is_none(), "the socket is full");
            let reader = thread::spawn(move || {
                // The client's own tickets come before what has filled its socket.
                peer.set_read_timeout(Some(Duration::from_secs(10))).expect("not zero");
                let mut bytes = Vec::new();
                peer.read_to_end(&mut bytes).expect("an end");
                let from = bytes.windows(NOISE.len()).position(|bytes| bytes == NOISE).expect("it was full");
                bytes.drain(from..from + filled);
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    session.read_tls(&mut rest).expect("memory can be read");
                    session.process_new_packets().expect("good records");
                }
                session.read_tls(&mut std::io::empty()).expect("memory can be read");
                session.reader().read(&mut [0; 16]).map_err(|error| error.kind())
            });
            within(Duration::from_secs(10), end).await.expect("an end");
            // Without close_notify this would be `UnexpectedEof`.
            assert_eq!(reader.join().expect("no panics"), Ok::<_, ErrorKind>(0));
        });
    }
}
