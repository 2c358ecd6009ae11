//! TLS around TCP: the client speaks a protocol of its own in the clear, as databases' clients do, and the gateway
//! opens verified TLS around it.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::Signal;
use support::certificates::Authority;
use support::client;
use support::gateway::{Builder, Gateway, Port};
use support::pattern::{self, Checker, intact};
use support::service;
use support::stream::Stream;
use support::upstream::{Seen, Upstream};

const DB: &str = "db.example.com";

/// TCP on port 9000 to `host`, whose server is on this machine, inside the TLS of these settings.
fn resources(host: &str, target: u16, tls: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: db}}
spec:
  hosts: ['{host}']
  ports: [{{number: 9000, name: tcp-db, protocol: TCP, targetPort: {target}}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: db}}
spec:
  host: '{host}'
  trafficPolicy: {{tls: {{{tls}}}}}
"
    )
}

/// A gateway with a listener for service port 9000.
struct Scene {
    gateway: Gateway,
    address: SocketAddr,
    _port: Port,
}

impl Scene {
    fn start(builder: Builder) -> Self {
        let port = Port::reserve();
        let address: SocketAddr = ([127, 0, 0, 1], port.number()).into();
        let listener = format!("- {{name: db, bind: '{address}', servicePort: 9000}}\n");
        Self { gateway: builder.extra_listener(&listener).start(), address, _port: port }
    }

    fn connect(&self) -> TcpStream {
        client::connect(self.address)
    }
}

/// An upstream with a good certificate, and a gateway that trusts it.
fn before(service: impl Fn(&mut Stream, &Seen) -> std::io::Result<()> + Send + Sync + 'static) -> (Upstream, Builder) {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(DB), service);
    let builder = Gateway::builder().trust(&authority).resources(resources(DB, upstream.port(), "mode: SIMPLE"));
    (upstream, builder)
}

fn exchange(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).expect("the tunnel is open");
    let mut back = vec![0; text.len()];
    socket.read_exact(&mut back).expect("the tunnel is open");
    assert_eq!(back, text.as_bytes());
}

#[test]
fn what_a_plain_client_says_arrives_inside_verified_tls() {
    let (upstream, builder) = before(service::echo);
    let scene = Scene::start(builder);
    let mut socket = scene.connect();
    exchange(&mut socket, "\0\0\0\x08\x04\u{2}\x10/");
    socket.shutdown(Shutdown::Write).expect("the tunnel is open");
    assert_eq!(client::read_to_end(&mut socket), b"");
    let counts = upstream.seen().counts();
    assert_eq!((counts.server_names, counts.handshakes_full), (vec![DB.to_owned()], 1));
    let line = scene.gateway.log().first();
    assert_eq!((line.request.as_str(), line.flags.as_str()), ("- - -", "-"));
    assert_eq!((line.bytes_received, line.bytes_sent), (8, 8), "those of the client, not those on the wire");
    assert_eq!(line.upstream_cluster, format!("outbound|9000||{DB}"));
    let metrics = scene.gateway.ask("/metrics").expect("the admin endpoint answers");
    let sent = metrics.text().lines().find(|line| line.starts_with("istio_tcp_sent_bytes_total{"));
    let sent = sent.expect("a row of the session");
    assert!(sent.contains("connection_security_policy=\"tls\"") && sent.ends_with(" 8"), "{sent}");
}

#[test]
fn a_server_may_speak_first_right_behind_its_handshake() {
    let (_upstream, builder) = before(|stream: &mut Stream, seen: &Seen| {
        stream.write_all(b"220 ready\r\n")?;
        stream.flush()?;
        service::echo(stream, seen)
    });
    let scene = Scene::start(builder);
    for _ in 0..5 {
        let mut socket = scene.connect();
        let mut greeting = [0; 11];
        socket.read_exact(&mut greeting).expect("the server speaks first");
        exchange(&mut socket, "EHLO");
    }
}

/// A server may send data as soon as it has sent its Finished (RFC 8446 section 4.4.4): it comes with the handshake.
#[test]
fn a_server_may_speak_before_it_has_heard_the_end_of_the_handshake() {
    let authority = Authority::new();
    let port = speaks_early(authority.issue(DB).server(), b"220 ready\r\n");
    let scene = Scene::start(Gateway::builder().trust(&authority).resources(resources(DB, port, "mode: SIMPLE")));
    let mut socket = scene.connect();
    let mut greeting = [0; 11];
    socket.read_exact(&mut greeting).expect("the server speaks first");
    assert_eq!(&greeting, b"220 ready\r\n");
    exchange(&mut socket, "EHLO");
}

/// A server that sends `greeting` with its side of the handshake, and echoes. Returns its port.
fn speaks_early(mut config: rustls::ServerConfig, greeting: &'static [u8]) -> u16 {
    config.send_half_rtt_data = true;
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the gateway connects");
        let mut connection = rustls::ServerConnection::new(Arc::new(config)).expect("the configuration is complete");
        connection.writer().write_all(greeting).expect("it is buffered");
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).expect("the gateway reads");
        }
    });
    port
}

#[test]
fn the_name_of_the_rule_is_sent_before_that_of_the_service() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("inner.example.com"), service::echo);
    let yaml = resources(DB, upstream.port(), "mode: SIMPLE, sni: inner.example.com");
    let scene = Scene::start(Gateway::builder().trust(&authority).resources(yaml));
    exchange(&mut scene.connect(), "ping");
    assert_eq!(upstream.seen().counts().server_names, ["inner.example.com"]);
}

#[test]
fn an_upstream_that_is_not_the_service_hears_nothing() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("other.example.com"), service::record);
    let yaml = resources(DB, upstream.port(), "mode: SIMPLE");
    let scene = Scene::start(Gateway::builder().trust(&authority).resources(yaml));
    let mut socket = scene.connect();
    socket.write_all(b"SECRET").expect("the connection is open");
    assert_eq!(client::read_to_end(&mut socket), b"");
    let line = scene.gateway.log().first();
    assert_eq!(line.flags, "UF");
    assert!(line.transport_failure.contains("TLS_error"), "{}", line.transport_failure);
    assert_eq!(upstream.seen().counts().bytes_received, 0);
}

#[test]
fn mutual_tls_presents_the_gateways_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls_with(servers.issue(DB).server_for(&clients), service::echo);
    let identity = clients.issue("client.example.com");
    let builder = Gateway::builder()
        .file("credentials/db/tls.crt", &identity.certificate_pem)
        .file("credentials/db/tls.key", &identity.key_pem)
        .file("credentials/db/ca.crt", servers.pem());
    let yaml = resources(DB, upstream.port(), "mode: MUTUAL, credentialName: db");
    exchange(&mut Scene::start(builder.resources(yaml)).connect(), "ping");
}

#[test]
fn a_credential_that_is_missing_closes_sessions_unheard() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(DB), service::record);
    let yaml = resources(DB, upstream.port(), "mode: MUTUAL, credentialName: nowhere");
    let scene = Scene::start(Gateway::builder().trust(&authority).resources(yaml));
    assert_eq!(client::read_to_end(&mut scene.connect()), b"");
    assert_eq!(scene.gateway.log().first().flags, "UH");
    assert_eq!(upstream.seen().counts().connections, 0);
}

#[test]
fn a_client_that_finishes_first_is_answered() {
    let (_upstream, builder) = before(service::verdict);
    let scene = Scene::start(builder);
    let mut socket = scene.connect();
    pattern::write(&mut socket, 300_000).expect("the tunnel is open");
    socket.shutdown(Shutdown::Write).expect("the tunnel is open");
    assert_eq!(client::read_to_end(&mut socket), intact(300_000).as_bytes());
    let line = scene.gateway.log().first();
    assert_eq!((line.bytes_received, line.flags.as_str()), (300_000, "-"));
}

#[test]
fn a_server_that_finishes_first_is_heard_out_and_told_the_rest() {
    let (upstream, builder) = before(service::send(300_000));
    let scene = Scene::start(builder);
    let mut socket = scene.connect();
    let mut checker = Checker::default();
    checker.feed(&client::read_to_end(&mut socket));
    assert_eq!(checker.verdict(), intact(300_000));
    socket.write_all(b"goodbye").expect("this direction is open");
    socket.shutdown(Shutdown::Write).expect("this direction is open");
    upstream.seen().wait_for("the rest", |counts| counts.recorded == b"goodbye");
    assert_eq!(scene.gateway.log().first().flags, "-");
}

#[test]
fn an_upstream_that_ends_without_close_notify_is_no_clean_end() {
    let (_upstream, builder) = before(|stream: &mut Stream, _: &Seen| {
        stream.write_all(b"half an ans")?;
        stream.flush()?;
        stream.truncate()
    });
    let scene = Scene::start(builder);
    let mut socket = scene.connect();
    let mut answer = Vec::new();
    let error = socket.read_to_end(&mut answer).expect_err("a FIN without close_notify may be an attack");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let line = scene.gateway.log().first();
    assert_eq!(line.flags, "UC");
    assert!(line.transport_failure.contains("close_notify"), "{}", line.transport_failure);
}

#[test]
fn a_client_that_vanishes_ends_the_session_on_both_sides() {
    let (upstream, builder) = before(service::echo);
    let scene = Scene::start(builder);
    let mut socket = scene.connect();
    exchange(&mut socket, "ping");
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).expect("a TCP socket takes it");
    drop(socket); // A reset.
    assert_eq!(scene.gateway.log().first().flags, "DC");
    upstream.seen().wait_for("the end of the connection", |counts| counts.ended == 1);
}

#[test]
fn a_client_that_speaks_tls_itself_is_not_encrypted_twice() {
    let (upstream, builder) = before(service::record);
    let scene = Scene::start(builder);
    let mut socket = scene.connect();
    socket.write_all(&client::hello(DB)).expect("the connection is open");
    assert_eq!(client::read_to_end(&mut socket), b"");
    let line = scene.gateway.log().first();
    assert_eq!((line.flags.as_str(), line.termination.as_str()), ("DPE", "client_speaks_tls"));
    upstream.seen().wait_for("the end of the connection", |counts| counts.ended == 1);
    assert_eq!(upstream.seen().counts().bytes_received, 0);
}

#[test]
fn a_hello_in_pieces_is_not_encrypted_either() {
    for cut in 1..6 {
        let (upstream, builder) = before(service::echo);
        let scene = Scene::start(builder);
        let (mut socket, mut other) = (scene.connect(), scene.connect());
        exchange(&mut other, "somebody else");
        let before = upstream.seen().counts().bytes_received;
        let hello = client::hello(DB);
        socket.write_all(&hello[..cut]).expect("the connection is open");
        // When this is back, the piece has been read.
        exchange(&mut other, "!");
        socket.write_all(&hello[cut..]).expect("the connection is open");
        assert_eq!(client::read_to_end(&mut socket), b"", "{cut}");
        assert_eq!(scene.gateway.log().first().termination, "client_speaks_tls", "{cut}");
        assert_eq!(upstream.seen().counts().bytes_received, before + 1, "{cut}");
    }
}

#[test]
fn the_beginning_of_a_hello_that_is_none_passes() {
    let (_upstream, builder) = before(service::echo);
    let scene = Scene::start(builder);
    for opening in [&b"\x16"[..], b"\x16\x03", b"\x16\x03\x01\x00\x05"] {
        let (mut socket, mut other) = (scene.connect(), scene.connect());
        socket.write_all(opening).expect("the connection is open");
        exchange(&mut other, "!");
        socket.write_all(b"\x02 and more").expect("the connection is open");
        let mut back = vec![0; opening.len() + 10];
        socket.read_exact(&mut back).expect("the tunnel is open");
        assert_eq!(back, [opening, b"\x02 and more"].concat());
    }
}

#[test]
fn a_client_that_does_not_go_on_with_its_hello_is_not_waited_for() {
    let (upstream, builder) = before(service::record);
    let scene = Scene::start(builder.setting("limits: {helloTimeout: 300ms}\n"));
    let mut socket = scene.connect();
    socket.write_all(b"\x16\x03\x01").expect("the connection is open");
    assert_eq!(client::read_to_end(&mut socket), b"");
    assert_eq!(scene.gateway.log().first().termination, "client_speaks_tls");
    upstream.seen().wait_for("the end of the connection", |counts| counts.ended == 1);
    assert_eq!(upstream.seen().counts().bytes_received, 0);
}

/// A policy on server names has the first bytes looked at, before there is a connection.
#[test]
fn a_client_that_is_known_to_speak_tls_is_refused_before_anything_is_dialled() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(DB), service::record);
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: names}\nspec:\n  action: DENY\n  rules: [{when: [{key: connection.sni, values: [evil.example]}]}]\n";
    let yaml = resources(DB, upstream.port(), "mode: SIMPLE") + policy;
    let scene = Scene::start(Gateway::builder().trust(&authority).resources(yaml));
    assert!(client::tls(scene.address, DB, &authority).is_err());
    assert_eq!(scene.gateway.log().first().termination, "client_speaks_tls");
    assert_eq!(upstream.seen().counts().connections, 0);
}

/// Sends so many bytes of the pattern and reads them back.
fn assert_echo(mut socket: TcpStream, bytes: u64) {
    let mut writer = socket.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        pattern::write(&mut writer, bytes).expect("the tunnel is open");
        writer.shutdown(Shutdown::Write).expect("the tunnel is open");
    });
    let mut checker = Checker::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match socket.read(&mut buffer).expect("the tunnel is open") {
            0 => break,
            count => checker.feed(&buffer[..count]),
        }
    }
    sender.join().expect("all is sent");
    assert_eq!(checker.verdict(), intact(bytes));
}

#[test]
fn bulk_passes_intact_both_ways_through_bounded_memory() {
    const BYTES: u64 = 16 * 1024 * 1024;
    for driver in ["auto", "epoll"] {
        let (_upstream, builder) = before(service::echo);
        let scene = Scene::start(builder.setting(&format!("ioDriver: {driver}\n")));
        let before = scene.gateway.peak_memory_kib();
        assert_echo(scene.connect(), BYTES);
        let grown = scene.gateway.peak_memory_kib() - before;
        assert!(grown < 16 * 1024, "{driver}: 32 MiB took {grown} KiB of memory");
        let line = scene.gateway.log().first();
        assert_eq!((line.bytes_received, line.bytes_sent), (BYTES, BYTES), "{driver}");
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_upstream_and_costs_no_memory() {
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&sent);
    let (_upstream, builder) = before(move |stream: &mut Stream, _: &Seen| {
        let piece = vec![b'x'; 64 * 1024];
        loop {
            stream.write_all(&piece)?;
            counted.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let scene = Scene::start(builder.setting("limits: {tunnelIdleTimeout: 1s}\n"));
    let before = scene.gateway.peak_memory_kib();
    let _socket = scene.connect();
    // It stops moving, and is cut.
    assert_eq!(scene.gateway.log().first().flags, "SI");
    let grown = scene.gateway.peak_memory_kib() - before;
    let sent = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(grown < 8 * 1024, "{sent} bytes that nobody reads took {grown} KiB of memory");
}

#[test]
fn new_keys_in_the_middle_change_nothing() {
    let (_upstream, builder) = before(|stream: &mut Stream, seen: &Seen| {
        stream.renew_keys()?;
        let mut buffer = [0; 4];
        for _ in 0..3 {
            stream.read_exact(&mut buffer)?;
            stream.renew_keys()?;
            stream.write_all(&buffer)?;
            stream.flush()?;
        }
        service::echo(stream, seen)
    });
    let scene = Scene::start(builder);
    let mut socket = scene.connect();
    for text in ["ping", "pong", "pang", "and more"] {
        exchange(&mut socket, text);
    }
    drop(socket);
    assert_eq!(scene.gateway.log().first().flags, "-");
}

#[test]
fn bytes_that_are_no_record_end_the_session_and_reach_nobody() {
    let (_upstream, builder) = before(|stream: &mut Stream, seen: &Seen| {
        stream.write_all(b"good")?;
        stream.flush()?;
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer)?;
        stream.inject(b"HTTP/1.1 200 OK\r\n\r\n")?;
        service::record(stream, seen)
    });
    let scene = Scene::start(builder);
    let mut socket = scene.connect();
    socket.write_all(b"ping").expect("the tunnel is open");
    let mut answer = Vec::new();
    let error = socket.read_to_end(&mut answer).expect_err("no end is said");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(String::from_utf8_lossy(&answer), "good");
    let line = scene.gateway.log().first();
    assert_eq!(line.flags, "UC");
    assert!(line.transport_failure.contains("TLS_error"), "{}", line.transport_failure);
}

#[test]
fn a_session_in_which_nothing_moves_ends_with_the_idle_timeout() {
    let (_upstream, builder) = before(service::echo);
    let scene = Scene::start(builder.setting("limits: {tunnelIdleTimeout: 1s}\n"));
    let mut socket = scene.connect();
    exchange(&mut socket, "ping");
    assert_eq!(client::read_to_end(&mut socket), b"");
    let line = scene.gateway.log().first();
    assert_eq!((line.flags.as_str(), line.termination.as_str()), ("SI", "idle_timeout"));
}

#[test]
fn a_session_lasts_for_no_longer_than_its_rule_says() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(DB), service::echo);
    let yaml = resources(DB, upstream.port(), "mode: SIMPLE")
        .replace("trafficPolicy: {", "trafficPolicy: {connectionPool: {tcp: {maxConnectionDuration: 1s}}, ");
    let scene = Scene::start(Gateway::builder().trust(&authority).resources(yaml));
    let mut socket = scene.connect();
    exchange(&mut socket, "ping");
    assert_eq!(client::read_to_end(&mut socket), b"");
    assert_eq!(scene.gateway.log().first().flags, "DT");
}

#[test]
fn a_drain_waits_for_a_session_until_its_time_is_over() {
    let (_upstream, builder) = before(service::echo);
    let mut scene = Scene::start(builder.setting("drain: {timeout: 1s}\n"));
    let mut socket = scene.connect();
    exchange(&mut socket, "ping");
    scene.gateway.signal(Signal::TERM);
    scene.gateway.wait_for_diagnostic("drain");
    exchange(&mut socket, "still here");
    assert!(scene.gateway.wait_exit().success());
    assert_eq!(scene.gateway.log().first().flags, "DT");
}
