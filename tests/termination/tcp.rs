//! Servers of protocol TLS at which TLS ends: what is in it is TCP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::scene::{API, MUTUAL, SIMPLE, credential, gateway, routes, server};
use crate::support::certificates::Authority;
use crate::support::client;
use crate::support::gateway::{Gateway, command};
use crate::support::pattern::{self, Checker, intact};
use crate::support::service;
use crate::support::stream::Stream;
use crate::support::upstream::{Seen, Upstream};

const TO_DB: &str =
    "  tcp:\n  - match: [{port: 443}]\n    route: [{destination: {host: db.example.com, port: {number: 5432}}}]\n";

/// What opens TLS to the upstream.
const ORIGINATES: &str = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: db}\nspec: {host: db.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}\n";

/// The resources: a service, and a server of these settings that leads there.
fn resources(tls: &str, blocks: &str, target: u16) -> String {
    let entry = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: db}}\nspec:\n  hosts: [db.example.com]\n  ports: [{{number: 5432, name: tcp, protocol: TCP, targetPort: {target}}}]\n  resolution: STATIC\n  endpoints: [{{address: 127.0.0.1}}]\n"
    );
    entry + &gateway("egress", &server("tls", "TLS", API, tls)) + &routes("routes", API, "egress", blocks)
}

/// A gateway at which TLS ends around TCP.
struct Scene {
    /// Who has issued the gateway's own certificate, and the upstream's.
    authority: Authority,
    /// Who issues clients' certificates.
    clients: Authority,
    gateway: Gateway,
}

impl Scene {
    fn new(yaml: String) -> Self {
        let (authority, clients) = (Authority::new(), Authority::new());
        Self::with(yaml, authority, clients)
    }

    fn with(yaml: String, authority: Authority, clients: Authority) -> Self {
        let builder = Gateway::builder().trust(&authority).at_gateways().resources(yaml);
        let builder = credential(builder, "egress", &authority.issue(API), &clients);
        Self { gateway: builder.start(), authority, clients }
    }

    fn config(&self) -> ClientConfig {
        client::trusting(&self.authority)
    }

    fn connect(&self, config: &ClientConfig) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        client::tls_with(&Arc::new(config.clone()), self.gateway.tls(), API)
    }

    fn client(&self) -> StreamOwned<ClientConnection, TcpStream> {
        self.connect(&self.config()).expect("the handshake succeeds")
    }
}

/// A server that speaks first, and then sends back what arrives.
fn greeter(stream: &mut Stream, seen: &Seen) -> std::io::Result<()> {
    stream.write_all(b"220 ready\r\n")?;
    stream.flush()?;
    service::echo(stream, seen)
}

fn greeting(client: &mut impl Read) -> std::io::Result<String> {
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting)?;
    Ok(String::from_utf8_lossy(&greeting).into_owned())
}

#[test]
fn what_is_in_the_tls_of_a_client_is_led_on_as_tcp() {
    let upstream = Upstream::plain(greeter);
    let scene = Scene::new(resources(SIMPLE, TO_DB, upstream.port()));
    let mut client = scene.client();
    assert_eq!(greeting(&mut client).expect("the server speaks first"), "220 ready\r\n");
    client.write_all(b"and hello").expect("the tunnel is open");
    client::finish(&mut client);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("it ends with close_notify");
    assert_eq!(rest, b"and hello");
    let line = scene.gateway.log().first();
    assert_eq!((line.request.as_str(), line.code, line.flags.as_str()), ("- - -", 0, "-"));
    assert_eq!((line.bytes_received, line.bytes_sent), (9, 20), "without those of TLS");
    assert_eq!(line.upstream_cluster, "outbound|5432||db.example.com");
    assert_eq!(line.server_name, API);
    let handshakes = "portcullis_downstream_tls_handshakes_total{result=\"success\",resumed=\"false\"}";
    assert_eq!(scene.gateway.metric(handshakes), Some(1.0));
}

#[test]
fn tls_that_ends_may_be_opened_again_towards_the_upstream() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("db.example.com"), greeter);
    let yaml = resources(SIMPLE, TO_DB, upstream.port()) + ORIGINATES;
    let scene = Scene::with(yaml, authority, Authority::new());
    assert_eq!(greeting(&mut scene.client()).expect("the server speaks first"), "220 ready\r\n");
    assert_eq!(upstream.seen().counts().server_names, ["db.example.com"]);
    let url = format!("https://{API}/");
    let told = command().args(["explain", "-o", "json", &url, "--config"]).arg(scene.gateway.config()).output();
    let told: serde_json::Value = serde_json::from_slice(&told.expect("it runs").stdout).expect("JSON");
    assert_eq!(
        (&told["verdict"], &told["clientTls"], &told["tls"]),
        (&"allow".into(), &"SIMPLE".into(), &"SIMPLE".into())
    );
    assert_eq!(told["cluster"], "outbound|5432||db.example.com");
}

#[test]
fn an_upstream_that_cannot_be_verified_hears_nothing() {
    let upstream = Upstream::tls(&Authority::new().issue("db.example.com"), service::record);
    let scene = Scene::new(resources(SIMPLE, TO_DB, upstream.port()) + ORIGINATES);
    let mut client = scene.client();
    client.write_all(b"SECRET").expect("the connection is open for now");
    assert!(client.read(&mut [0; 8]).is_err(), "no clean end");
    let line = scene.gateway.log().first();
    assert_eq!((line.flags.as_str(), line.server_name.as_str()), ("UF", API));
    assert!(line.transport_failure.contains("TLS_error"), "{}", line.transport_failure);
    assert_eq!(upstream.seen().counts().bytes_received, 0);
}

/// What is in TLS that ends may be TLS again; around that none is opened, however small its first pieces are.
#[test]
fn tls_within_tls_that_ends_is_not_encrypted_twice() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("db.example.com"), service::record);
    let yaml = resources(SIMPLE, TO_DB, upstream.port()) + ORIGINATES;
    let scene = Scene::with(yaml, authority, Authority::new());
    let hello = client::hello("db.example.com");
    for first in [3, hello.len()] {
        let mut client = scene.client();
        for piece in [&hello[..first], &hello[first..]] {
            // It may have been refused already.
            let _ = client.write_all(piece).and_then(|()| client.flush());
        }
        assert!(client.read(&mut [0; 8]).is_err(), "no clean end");
    }
    let lines = scene.gateway.log().wait_for_count(2);
    assert!(lines.iter().all(|line| line.termination == "client_speaks_tls" && line.flags == "DPE"), "{lines:?}");
    assert_eq!(upstream.seen().counts().bytes_received, 0);
}

#[test]
fn bulk_passes_intact_both_ways() {
    const BYTES: u64 = 8 * 1024 * 1024;
    let authority = Authority::new();
    let plain = Upstream::plain(service::verdict);
    let scene = Scene::with(resources(SIMPLE, TO_DB, plain.port()), authority, Authority::new());
    let mut client = scene.client();
    pattern::write(&mut client, BYTES).expect("the tunnel is open");
    client::finish(&mut client);
    assert_eq!(client::read_to_end(&mut client), intact(BYTES).as_bytes());
    let sender = Upstream::plain(service::send(BYTES));
    scene.gateway.reload(&resources(SIMPLE, TO_DB, sender.port()));
    let mut client = scene.client();
    let mut checker = Checker::default();
    checker.feed(&client::read_to_end(&mut client));
    assert_eq!(checker.verdict(), intact(BYTES));
    client.write_all(b"goodbye").expect("this direction is open");
    client::finish(&mut client);
    sender.seen().wait_for("the rest", |counts| counts.recorded == b"goodbye");
    assert!(scene.gateway.log().wait_for_count(2).iter().all(|line| line.flags == "-"));
}

#[test]
fn a_truncation_of_either_side_is_no_clean_end_for_the_other() {
    let upstream = Upstream::plain(greeter);
    let scene = Scene::new(resources(SIMPLE, TO_DB, upstream.port()));
    let mut client = scene.client();
    greeting(&mut client).expect("the tunnel is open");
    // A FIN without close_notify.
    client.sock.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    assert!(client.read(&mut [0; 8]).is_err());
    assert_eq!(scene.gateway.log().first().flags, "DC");
    upstream.seen().wait_for("the end of the connection", |counts| counts.ended == 1);

    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("db.example.com"), |stream: &mut Stream, _: &Seen| {
        stream.write_all(b"half an ans")?;
        stream.flush()?;
        stream.truncate()
    });
    let yaml = resources(SIMPLE, TO_DB, upstream.port()) + ORIGINATES;
    let scene = Scene::with(yaml, authority, Authority::new());
    let mut client = scene.client();
    assert!(client.read_to_end(&mut Vec::new()).is_err());
    assert_eq!(scene.gateway.log().first().flags, "UC");
}

#[test]
fn only_clients_with_a_certificate_get_to_what_is_behind_a_mutual_server() {
    let upstream = Upstream::plain(greeter);
    let (authority, clients) = (Authority::new(), Authority::new());
    let scene = Scene::with(resources(MUTUAL, TO_DB, upstream.port()), authority, clients);
    let folder = scene.gateway.directory();
    let identity = scene.clients.issue("workload");
    let passes = |config: &ClientConfig| scene.connect(config).is_ok_and(|mut client| greeting(&mut client).is_ok());
    assert!(passes(&showing(&scene, &scene.clients.issue("workload"))));
    assert!(!passes(&scene.config()));
    assert!(!passes(&showing(&scene, &Authority::new().issue("workload"))));
    assert_eq!(upstream.seen().counts().connections, 1);
    let refused = "portcullis_denied_total{reason=\"client_certificate_refused\",rule=\"\"}";
    assert_eq!(scene.gateway.metric(refused), Some(2.0));
    for (file, content) in [("client.crt", &identity.certificate_pem), ("client.key", &identity.key_pem)] {
        std::fs::write(folder.join(file), content).expect("the folder is ours");
    }
    let path = |file: &str| folder.join(file).to_str().expect("text").to_owned();
    let (address, roots) = (scene.gateway.tls().to_string(), path("roots.pem"));
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-servername", API, "-connect", &address, "-CAfile", &roots]);
    openssl.args(["-cert", &path("client.crt"), "-key", &path("client.key")]).stdin(std::process::Stdio::null());
    match openssl.output() {
        Ok(output) => assert!(output.stdout.starts_with(b"220 ready\r\n"), "{output:?}"),
        Err(error) => eprintln!("NOT TESTED: openssl: {error}"),
    }
}

fn showing(scene: &Scene, identity: &crate::support::certificates::Identity) -> ClientConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes());
    let chain: Vec<_> = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).expect("a key");
    ClientConfig::builder_with_provider(crate::support::certificates::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_root_certificates(scene.authority.roots())
        .with_client_auth_cert(chain, key)
        .expect("key and certificate belong together")
}

#[test]
fn a_client_may_offer_whatever_protocol_it_likes() {
    let upstream = Upstream::plain(greeter);
    let scene = Scene::new(resources(SIMPLE, TO_DB, upstream.port()));
    for offered in [b"postgresql".as_slice(), b"h2"] {
        let mut config = scene.config();
        config.alpn_protocols = vec![offered.to_vec()];
        let mut client = scene.connect(&config).expect("the handshake succeeds");
        assert_eq!(greeting(&mut client).expect("the server speaks first"), "220 ready\r\n");
        assert_eq!(client.conn.alpn_protocol(), None);
    }
}

#[test]
fn a_refusal_is_an_alert_before_the_handshake() {
    let upstream = Upstream::plain(greeter);
    let base = resources(SIMPLE, TO_DB, upstream.port());
    let scene = Scene::new(base.clone());
    assert!(greeting(&mut scene.client()).is_ok());
    let refusal = || scene.connect(&scene.config()).map(drop).expect_err("an alert").to_string();
    for closed in [
        "{to: [{operation: {ports: ['443']}}]}",
        "{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}",
        "{when: [{key: connection.sni, values: [api.example.com]}]}",
    ] {
        let policy = format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: closed}}\nspec: {{action: DENY, rules: [{closed}]}}\n"
        );
        scene.gateway.reload(&(base.clone() + &policy));
        let told = refusal();
        assert!(told.contains("AccessDenied"), "{closed}: {told}");
    }
    let rule = "portcullis_denied_total{reason=\"rbac_access_denied_matched_policy\",rule=\"ns[default]-policy[closed]-rule[0]\"}";
    assert_eq!(scene.gateway.metric(rule), Some(3.0));
    // No rule for the port: as if nobody had the name.
    scene.gateway.reload(&base.replace("match: [{port: 443}]", "match: [{port: 444}]"));
    let told = refusal();
    assert!(told.contains("UnrecognisedName"), "{told}");
    let line = scene.gateway.log().wait_for(|line| line.flags == "NR");
    assert_eq!((line.termination.as_str(), line.server_name.as_str()), ("route_not_found", API));
    assert_eq!(upstream.seen().counts().connections, 1);
}

#[test]
fn sessions_of_a_server_for_http_are_not_resumed_at_one_for_tcp() {
    let upstream = Upstream::plain(greeter);
    let yaml = resources(SIMPLE, TO_DB, upstream.port());
    let http = "  http:\n  - directResponse: {status: 200}\n".to_owned() + TO_DB;
    let scene = Scene::new(yaml.replace("protocol: TLS", "protocol: HTTPS").replace(TO_DB, &http));
    let config = scene.config();
    let mut client = scene.connect(&config).expect("a handshake");
    write!(client, "GET / HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n").expect("the connection is open");
    assert!(client::read_to_end(&mut client).starts_with(b"HTTP/1.1 200"));
    scene.gateway.reload(&yaml);
    let mut client = scene.connect(&config).expect("a handshake");
    assert_eq!(greeting(&mut client).expect("the server speaks first"), "220 ready\r\n");
    let resumed = "portcullis_downstream_tls_handshakes_total{result=\"success\",resumed=\"true\"}";
    assert_eq!(scene.gateway.metric(resumed), Some(0.0));
}

#[test]
fn tunnels_outlive_a_reload_and_new_sessions_obey_it() {
    let (one, two) = (Upstream::plain(greeter), Upstream::plain(service::echo));
    let scene = Scene::new(resources(SIMPLE, TO_DB, one.port()));
    let mut old = scene.client();
    greeting(&mut old).expect("the tunnel is open");
    scene.gateway.reload(&resources(MUTUAL, TO_DB, two.port()));
    let refused = scene.connect(&scene.config()).and_then(|mut client| client.read(&mut [0; 8]));
    assert!(refused.is_err(), "no certificate, no session");
    old.write_all(b"still there").expect("the tunnel is open");
    assert_eq!(greeting(&mut old).expect("the tunnel is open"), "still there");
    assert_eq!(two.seen().counts().connections, 0);
}
