//! Workloads: what speaks to the gateway.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::DEADLINE;
use super::certificates::{Authority, provider};
use super::http::{Framing, Reader, framing, header};

/// A TLS connection through the gateway, encrypted end to end.
pub(crate) type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// A TCP connection on which no read takes longer than the deadline.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).expect("the listener accepts")
}

/// The same from an address of our own.
pub(crate) fn connect_from(source: &str, address: &str) -> TcpStream {
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    let address: SocketAddr = address.parse().expect("an address");
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a descriptor is left");
    rustix::net::bind(&socket, &source).expect("the address is ours");
    rustix::net::connect(&socket, &address).expect("the listener accepts");
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    socket
}

fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Does a TLS handshake for `name`, trusting only `authority`.
///
/// # Errors
/// What the handshake ends with when the gateway or the upstream refuses.
pub(crate) fn tls(address: SocketAddr, name: &str, authority: &Authority) -> io::Result<TlsClient> {
    let config = Arc::new(trusting(authority));
    tls_with(&config, address, name)
}

/// The same with a configuration that lives longer than one connection.
pub(crate) fn tls_with(config: &Arc<ClientConfig>, address: SocketAddr, name: &str) -> io::Result<TlsClient> {
    let mut socket = connect(address);
    let mut connection = connection(config, name);
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// A client's configuration that trusts only `authority`.
pub(crate) fn trusting(authority: &Authority) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_root_certificates(authority.roots())
        .with_no_client_auth()
}

/// The ClientHello that a client would send for `name`: one record, with a post-quantum key share.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let mut hello = Vec::new();
    let mut connection = connection(&Arc::new(trusting(&Authority::new())), name);
    connection.write_tls(&mut hello).expect("a vector takes everything");
    hello
}

/// Cuts a hello of one record into many records of at most `bytes` each (RFC 8446 section 5.1 allows it).
pub(crate) fn into_records(hello: &[u8], bytes: usize) -> Vec<u8> {
    let (header, message) = hello.split_at(5);
    let record = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).expect("a piece fits a record").to_be_bytes();
        [&header[..3], &length, piece].concat()
    };
    message.chunks(bytes).flat_map(record).collect()
}

fn connection(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("tests use good names");
    ClientConnection::new(Arc::clone(config), name).expect("the configuration is complete")
}

/// Everything until the other side ends; a reset ends it too.
pub(crate) fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the connection stays open after {bytes:?}"),
        Ok(_) | Err(_) => bytes,
    }
}

/// Ends the sending direction of a TLS connection properly, and leaves the other open.
pub(crate) fn finish(client: &mut TlsClient) {
    client.conn.send_close_notify();
    client.flush().expect("the connection is open");
    client.sock.shutdown(Shutdown::Write).expect("the connection is open");
}

/// A plain HTTP connection to the gateway.
pub(crate) struct Http {
    reader: Reader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status.
    pub(crate) status: u16,
    /// The head with its empty line.
    pub(crate) head: String,
    /// The body, out of its framing.
    pub(crate) body: Vec<u8>,
}

impl Http {
    /// Connects.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self { reader: Reader::new(connect(address)) }
    }

    /// Takes over a connection that the test made.
    pub(crate) fn over(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
        Self { reader: Reader::new(socket) }
    }

    /// Connects, if somebody listens.
    ///
    /// # Errors
    /// When nobody does.
    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { reader: Reader::new(try_connect(address)?) })
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.stream().write_all(bytes.as_ref()).expect("the gateway reads requests");
    }

    /// The socket.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        self.reader.stream()
    }

    /// The socket, and what was read of it and not taken.
    pub(crate) fn into_rest(self) -> (TcpStream, Vec<u8>) {
        self.reader.into_rest()
    }

    /// Sends a GET and takes its answer.
    #[track_caller]
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.response()
    }

    /// Sends a request with a body and takes its answer.
    #[track_caller]
    pub(crate) fn post(&mut self, host: &str, path: &str, body: &[u8]) -> Response {
        self.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len()));
        self.send(body);
        self.response()
    }

    /// Takes an answer.
    ///
    /// # Panics
    /// When the connection ends before the answer does.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().expect("a complete answer")
    }

    /// Takes an answer to a GET or POST.
    ///
    /// # Errors
    /// When the connection ends before the answer does.
    pub(crate) fn try_response(&mut self) -> io::Result<Response> {
        let head = self.head()?;
        let status = status(&head);
        let framing = match status {
            100..200 | 204 | 304 => Framing::Length(0),
            _ => framing(&head).unwrap_or(Framing::UntilClose),
        };
        let mut body = Vec::new();
        self.reader.body(framing, &mut |piece| body.extend_from_slice(piece))?;
        Ok(Response { status, head, body })
    }

    /// Takes a head alone, as after HEAD, or to take its body with [`Self::body`].
    ///
    /// # Errors
    /// When the connection ends before the head does.
    pub(crate) fn head(&mut self) -> io::Result<String> {
        self.reader.head()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Hands the body that `head` announces to `sink`.
    ///
    /// # Errors
    /// When the connection ends before the body does.
    pub(crate) fn body(&mut self, head: &str, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.reader.body(framing(head).unwrap_or(Framing::UntilClose), sink)
    }

    /// Whether the gateway has closed the connection, with nothing left to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.reader.head() {
            Ok(head) => head.is_none(),
            Err(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
        }
    }
}

impl Response {
    /// The first field called `name`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// The status of a response head.
pub(crate) fn status(head: &str) -> u16 {
    let word = head.split(' ').nth(1).unwrap_or_default();
    word.parse().unwrap_or_else(|_| panic!("no status in {head:?}"))
}
