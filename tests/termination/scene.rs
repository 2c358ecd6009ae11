//! A Gateway at which TLS ends, in front of an upstream to which TLS is opened again.

use std::net::TcpStream;
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::support::certificates::{Authority, Identity, provider};
use crate::support::client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::http::{Framing, Reader, framing};
use crate::support::resources;
use crate::support::service;
use crate::support::upstream::Upstream;

/// The host that most tests ask for.
pub(crate) const API: &str = "api.example.com";

/// SIMPLE, by the credential `egress`.
pub(crate) const SIMPLE: &str = "mode: SIMPLE, credentialName: egress";

/// MUTUAL, by the credential `egress`.
pub(crate) const MUTUAL: &str = "mode: MUTUAL, credentialName: egress";

/// One server of a Gateway on port 443.
pub(crate) fn server(name: &str, protocol: &str, hosts: &str, tls: &str) -> String {
    format!("  - {{port: {{number: 443, name: {name}, protocol: {protocol}}}, hosts: [{hosts}], tls: {{{tls}}}}}\n")
}

/// A Gateway of these servers.
pub(crate) fn gateway(name: &str, servers: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n  servers:\n{servers}"
    )
}

/// A VirtualService for `host` at a Gateway; `blocks` are its routes.
pub(crate) fn routes(name: &str, host: &str, gateway: &str, blocks: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{host}]\n  gateways: [{gateway}]\n{blocks}"
    )
}

/// Routes that send everything to [`API`].
pub(crate) const TO_API: &str = "  http:\n  - route: [{destination: {host: api.example.com, port: {number: 80}}}]\n";

/// A gateway whose clients' TLS ends, and everything around it.
pub(crate) struct Scene {
    /// Who has issued the gateway's own certificate, and the upstream's.
    pub(crate) authority: Authority,
    /// Who issues clients' certificates.
    pub(crate) clients: Authority,
    /// What is behind it.
    pub(crate) upstream: Upstream,
    /// The gateway.
    pub(crate) gateway: Gateway,
}

impl Scene {
    /// A Gateway `egress` with one server for [`API`], of these settings.
    pub(crate) fn new(tls: &str) -> Self {
        Self::with(|_| server("https", "HTTPS", API, tls), |builder| builder)
    }

    /// The same with other servers, and more in the configuration.
    pub(crate) fn with(servers: impl FnOnce(&Authority) -> String, more: impl FnOnce(Builder) -> Builder) -> Self {
        let (authority, clients) = (Authority::new(), Authority::new());
        let upstream = Upstream::tls(&authority.issue(API), service::http);
        let yaml = resources_of(&servers(&clients), upstream.port());
        let builder = Gateway::builder().host(API).trust(&authority).at_gateways().resources(yaml);
        let builder = credential(builder, "egress", &authority.issue(API), &clients);
        Self { gateway: more(builder).start(), authority, clients, upstream }
    }

    /// The resources in force, with other servers.
    pub(crate) fn resources(&self, servers: &str) -> String {
        resources_of(servers, self.upstream.port())
    }

    /// A client without a certificate, that trusts the gateway's authority.
    pub(crate) fn client(&self) -> Client {
        self.try_client(&client::trusting(&self.authority), API).expect("the handshake succeeds")
    }

    /// A client that shows a certificate if it is asked.
    pub(crate) fn showing_client(&self) -> Client {
        let config = self.showing(&self.clients.issue("workload"));
        self.try_client(&config, API).expect("the handshake succeeds")
    }

    /// A client of this configuration.
    ///
    /// # Errors
    /// What the handshake ends with, or the first read: in TLS 1.3 a client learns of its refusal there.
    pub(crate) fn try_client(&self, config: &ClientConfig, name: &str) -> std::io::Result<Client> {
        Client::connect(&Arc::new(config.clone()), &self.gateway, name)
    }

    /// A configuration with a client certificate.
    pub(crate) fn showing(&self, identity: &Identity) -> ClientConfig {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_root_certificates(self.authority.roots())
            .with_client_auth_cert(chain, key)
            .expect("key and certificate belong together")
    }

    /// Writes a credential that the next reload finds.
    pub(crate) fn write_credential(&self, name: &str, file: &str, content: &str) {
        let path = self.gateway.directory().join("credentials").join(name).join(file);
        std::fs::write(path, content).expect("the folder is ours");
    }

    /// A command of curl that trusts the gateway's authority.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Option<Output> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--cacert"])
            .arg(self.gateway.directory().join("roots.pem"))
            .args(["--connect-to", &format!("::{}", self.gateway.tls())])
            .args(arguments);
        output(&mut curl)
    }

    /// `openssl s_client` with these arguments; it says `input`.
    pub(crate) fn openssl(&self, arguments: &[&str], input: &str) -> Option<Output> {
        use std::io::Write;
        use std::process::Stdio;
        let mut openssl = Command::new("openssl");
        openssl
            .args(["s_client", "-quiet", "-connect", &self.gateway.tls().to_string(), "-CAfile"])
            .arg(self.gateway.directory().join("roots.pem"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match openssl.spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("NOT TESTED: openssl: {error}");
                return None;
            }
        };
        // A handshake that is refused closes the pipe first.
        let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
        Some(child.wait_with_output().expect("the child is ours"))
    }
}

/// Puts a credential beside the bootstrap file.
pub(crate) fn credential(builder: Builder, name: &str, identity: &Identity, clients: &Authority) -> Builder {
    builder
        .file(&format!("credentials/{name}/tls.crt"), &identity.certificate_pem)
        .file(&format!("credentials/{name}/tls.key"), &identity.key_pem)
        .file(&format!("credentials/{name}/ca.crt"), clients.pem())
}

fn resources_of(servers: &str, port: u16) -> String {
    resources::originating_entry("api", API, port)
        + &gateway("egress", servers)
        + &routes("routes", API, "egress", TO_API)
}

fn output(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("NOT TESTED: {}: {error}", command.get_program().display());
            None
        }
    }
}

/// A client that speaks HTTP within TLS.
pub(crate) struct Client {
    reader: Reader<StreamOwned<ClientConnection, TcpStream>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    fn connect(config: &Arc<ClientConfig>, gateway: &Gateway, name: &str) -> std::io::Result<Self> {
        Ok(Self { reader: Reader::new(client::tls_with(config, gateway.tls(), name)?) })
    }

    /// The connection.
    pub(crate) fn stream(&mut self) -> &mut StreamOwned<ClientConnection, TcpStream> {
        self.reader.stream()
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        use std::io::Write;
        self.stream().write_all(bytes.as_ref()).expect("the gateway reads");
        self.stream().flush().expect("the gateway reads");
    }

    /// Sends a GET and takes its answer.
    #[track_caller]
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        self.response().expect("a complete answer")
    }

    /// The head of an answer.
    ///
    /// # Errors
    /// When the connection ends before it does.
    pub(crate) fn head(&mut self) -> std::io::Result<String> {
        self.reader.head()?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// When the connection ends before it does.
    pub(crate) fn response(&mut self) -> std::io::Result<Response> {
        let head = self.head()?;
        let mut body = Vec::new();
        self.reader.body(framing(&head).unwrap_or(Framing::UntilClose), &mut |piece| body.extend_from_slice(piece))?;
        Ok(Response { status: client::status(&head), head, body })
    }

    /// The connection, and what was read of it and not taken.
    pub(crate) fn into_rest(self) -> (StreamOwned<ClientConnection, TcpStream>, Vec<u8>) {
        self.reader.into_rest()
    }
}

/// A verifier that takes any certificate, for clients that mean no good.
pub(crate) fn anything() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anything)
}

#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
