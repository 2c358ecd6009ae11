//! The embedded HTTPS service: monoio and monoio-rustls on a thread of its own, with certificates made at start.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{FusionDriver, RuntimeBuilder};
use monoio_rustls::TlsAcceptor;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig};

use super::{DemoError, cannot};

/// Most bytes of a request head; the demo's own are a tenth of it.
const HEAD_BYTES_MAX: usize = 4096;

const BODY: &str = r#"{"totalItems":1,"items":[{"volumeInfo":{"title":"A book, from the embedded service"}}]}"#;

/// The running service. Its thread ends with the process.
pub(super) struct Service {
    address: SocketAddr,
    authority: CertificateDer<'static>,
    authority_pem: String,
}

impl Service {
    /// Makes an authority and a certificate for `name`, and serves on a free port of loopback.
    pub(super) fn start(name: &str) -> Result<Self, DemoError> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, "portcullis demo authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = parameters.self_signed(&key)?;
        let config = server_config(name, &Issuer::new(parameters, key))?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(cannot("bind the service"))?;
        let address = listener.local_addr().map_err(cannot("bind the service"))?;
        thread::Builder::new()
            .name("demo-service".to_owned())
            .spawn(move || serve(listener, config))
            .map_err(cannot("start the service's thread"))?;
        Ok(Self { address, authority: certificate.der().clone(), authority_pem: certificate.pem() })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its authority, for the gateway's `tls.caCertificates`.
    pub(super) fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// A store that trusts its authority.
    pub(super) fn roots(&self) -> Result<RootCertStore, DemoError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        Ok(roots)
    }
}

fn server_config(name: &str, issuer: &Issuer<'_, KeyPair>) -> Result<ServerConfig, DemoError> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?)
}

/// The thread. The runtime belongs to the thread that runs it, so it is built here; failing to is told on stderr,
/// and the story then fails at its first allowed request.
fn serve(listener: std::net::TcpListener, config: ServerConfig) {
    let outcome = RuntimeBuilder::<FusionDriver>::new()
        .build()
        .and_then(|mut runtime| runtime.block_on(accept(listener, TlsAcceptor::from(config))));
    if let Err(error) = outcome {
        eprintln!("portcullis demo: the embedded service: {error}");
    }
}

async fn accept(listener: std::net::TcpListener, acceptor: TlsAcceptor) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        // A client that leaves in the middle concerns nobody but itself.
        monoio::spawn(async move { drop(connection(socket, acceptor).await) });
    }
}

/// Answers every request of a connection alike, and closes when the client asks for it.
async fn connection(socket: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    let mut stream = acceptor.accept(socket).await.map_err(io::Error::other)?;
    while let Some(head) = read_head(&mut stream).await? {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        stream.write_all(answer.into_bytes()).await.0?;
        stream.flush().await?;
        if head.to_ascii_lowercase().contains("\r\nconnection: close\r\n") {
            break;
        }
    }
    stream.shutdown().await
}

/// Reads to the empty line; `None`: the client has ended.
async fn read_head(stream: &mut impl AsyncReadRent) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let (count, piece) = stream.read(vec![0; HEAD_BYTES_MAX]).await;
        match count? {
            0 => return Ok(None),
            count => head.extend_from_slice(&piece[..count]),
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    String::from_utf8(head).map(Some).map_err(io::Error::other)
}
