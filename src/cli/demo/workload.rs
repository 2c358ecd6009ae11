//! The workload: a client that speaks TLS or plain HTTP to the gateway, as an application on the node would.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, StreamOwned};

use super::service::Service;
use super::{DemoError, cannot};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of an answer; the demo's own are a few hundred.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The client.
pub(super) struct Workload {
    name: ServerName<'static>,
    host: String,
    tls: Arc<ClientConfig>,
    https: SocketAddr,
    http: SocketAddr,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An HTTP answer with this status.
    Status(u16),
    /// The TLS alert `unrecognized_name`.
    Alert,
    /// Anything else.
    Other(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status @ 200..300) => write!(formatter, "passed: status {status}"),
            Self::Status(status) => write!(formatter, "refused: status {status}"),
            Self::Alert => formatter.write_str("refused: TLS alert unrecognized_name"),
            Self::Other(what) => formatter.write_str(what),
        }
    }
}

impl Workload {
    /// A client of these two listeners that trusts the service's authority and no other.
    pub(super) fn new(name: &str, service: &Service, https: SocketAddr, http: SocketAddr) -> Result<Self, DemoError> {
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(service.roots()?)
            .with_no_client_auth();
        Ok(Self {
            name: ServerName::try_from(name.to_owned()).map_err(io::Error::other).map_err(cannot("use the name"))?,
            host: name.to_owned(),
            tls: Arc::new(tls),
            https,
            http,
        })
    }

    /// A GET with TLS from end to end.
    pub(super) fn https(&self, path: &str) -> Outcome {
        self.encrypted(path).unwrap_or_else(|error| refusal(&error))
    }

    /// A GET in plain text.
    pub(super) fn http(&self, path: &str) -> Outcome {
        let outcome = connect(self.http).and_then(|mut socket| self.get(&mut socket, path));
        outcome.unwrap_or_else(|error| refusal(&error))
    }

    fn encrypted(&self, path: &str) -> io::Result<Outcome> {
        let socket = connect(self.https)?;
        let connection = ClientConnection::new(Arc::clone(&self.tls), self.name.clone()).map_err(io::Error::other)?;
        self.get(&mut StreamOwned::new(connection, socket), path)
    }

    /// Sends the request and reads to the end, so that the session ends as sessions should.
    fn get(&self, stream: &mut (impl Read + Write), path: &str) -> io::Result<Outcome> {
        let host = &self.host;
        let fields = format!("Host: {host}\r\nUser-Agent: portcullis-demo\r\nConnection: close\r\n");
        write!(stream, "GET {path} HTTP/1.1\r\n{fields}\r\n")?;
        stream.flush()?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        Ok(status.map_or_else(|| Outcome::Other(format!("not an answer: {answer:?}")), Outcome::Status))
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

fn refusal(error: &io::Error) -> Outcome {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)) => Outcome::Alert,
        Some(other) => Outcome::Other(other.to_string()),
        None => Outcome::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The demo without its middle: what it shows must come from the gateway alone.
    #[test]
    fn workload_and_service_understand_each_other() {
        let service = Service::start("www.example.com").unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], service.port()));
        let workload = Workload::new("www.example.com", &service, address, address).unwrap();
        assert_eq!(workload.https("/books"), Outcome::Status(200));
        assert!(matches!(workload.http("/books"), Outcome::Other(_)), "the service speaks TLS only");
    }

    #[test]
    fn a_client_with_another_name_does_not_trust_the_service() {
        let service = Service::start("www.example.com").unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], service.port()));
        let workload = Workload::new("other.example.com", &service, address, address).unwrap();
        assert!(matches!(workload.https("/books"), Outcome::Other(_)));
    }
}
