//! TLS that the client encrypts end to end: the gateway reads the server name and passes the bytes on.

mod support;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use support::certificates::Authority;
use support::client::{self, TlsClient};
use support::gateway::Gateway;
use support::http::{Reader, framing};
use support::pattern::{self, Checker, intact};
use support::resources::{self, GOOGLEAPIS, PUBLISHED_PASSTHROUGH};
use support::service;
use support::upstream::Upstream;

const MIB: u64 = 1024 * 1024;

/// The gateway with the first published example in front of this upstream.
fn published(upstream: &Upstream) -> Gateway {
    Gateway::builder().host(GOOGLEAPIS).resources(resources::passthrough(upstream.port())).start()
}

/// A GET over a TLS connection through the gateway; the upstream's copy of the request.
fn get(client: TlsClient, path: &str) -> String {
    exchange(client, path).expect("a complete answer")
}

fn exchange(client: TlsClient, path: &str) -> io::Result<String> {
    let mut reader = Reader::new(client);
    write!(reader.stream(), "GET {path} HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n")?;
    let head = reader.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut body = Vec::new();
    reader.body(framing(&head).ok_or(io::ErrorKind::InvalidData)?, &mut |piece| body.extend_from_slice(piece))?;
    String::from_utf8(body).map_err(io::Error::other)
}

#[test]
fn the_published_example_lets_https_through() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let gateway = published(&upstream);

    let client = client::tls(gateway.tls(), GOOGLEAPIS, &authority).expect("the certificate is the upstream's own");
    let seen = get(client, "/books/v1/volumes?q=isbn:0486424618");

    assert!(seen.starts_with("GET /books/v1/volumes?q=isbn:0486424618 HTTP/1.1\r\n"), "{seen}");
    let line = gateway.log().first();
    assert_eq!((line.request.as_str(), line.code, line.flags.as_str()), ("- - -", 0, "-"));
    assert_eq!(line.server_name, GOOGLEAPIS);
    assert_eq!(line.upstream_cluster, "outbound|443||www.googleapis.com");
    assert_eq!(line.upstream_host, format!("127.0.0.1:{}", upstream.port()));
    assert_eq!(line.downstream_local, gateway.tls().to_string());
}

/// The other tests add `targetPort`, so that they need no privilege. This one changes nothing, where it may bind port
/// 443 of a loopback address of its own.
#[test]
fn the_published_example_works_word_for_word() {
    let address = Ipv4Addr::new(127, 44, 3, 1);
    let authority = Authority::new();
    let identity = authority.issue(GOOGLEAPIS);
    let (upstream, yaml) = match TcpListener::bind((address, 443)) {
        Ok(listener) => (Upstream::tls_on(listener, &identity, service::http), PUBLISHED_PASSTHROUGH.to_owned()),
        Err(error) => {
            eprintln!("NOT WORD FOR WORD: {address}:443: {error}; with targetPort instead");
            let upstream = Upstream::tls(&identity, service::http);
            let yaml = resources::passthrough(upstream.port());
            (upstream, yaml)
        }
    };
    let at = if upstream.port() == 443 { address } else { Ipv4Addr::LOCALHOST };
    let gateway = Gateway::builder().host_at(GOOGLEAPIS, at).resources(yaml).start();

    let client = client::tls(gateway.tls(), GOOGLEAPIS, &authority).unwrap();
    assert!(get(client, "/books").starts_with("GET /books HTTP/1.1\r\n"));
}

#[test]
fn a_service_entry_alone_is_enough() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("api.example.com"), service::http);
    let gateway = Gateway::builder()
        .host("api.example.com")
        .resources(resources::tls_entry("api", "api.example.com", upstream.port()))
        .start();
    let client = client::tls(gateway.tls(), "api.example.com", &authority).unwrap();
    assert!(get(client, "/").starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
fn a_wildcard_entry_opens_names_at_any_depth() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("a.b.example.com"), service::http);
    let yaml = resources::tls_entry("any", "*.example.com", upstream.port()).replace("DNS", "DYNAMIC_DNS");
    let gateway = Gateway::builder().host("a.b.example.com").host("example.com").resources(yaml).start();
    let client = client::tls(gateway.tls(), "a.b.example.com", &authority).unwrap();
    assert!(get(client, "/").starts_with("GET / HTTP/1.1\r\n"));
    client::tls(gateway.tls(), "example.com", &authority).expect_err("the apex is not under the wildcard");
}

#[test]
fn the_upstream_gets_every_byte_as_the_client_sent_it() {
    let upstream = Upstream::plain(service::record);
    let gateway = published(&upstream);
    let sent = [client::hello(GOOGLEAPIS), pattern::bytes(100_000)].concat();

    let mut socket = client::connect(gateway.tls());
    socket.write_all(&sent).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client::read_to_end(&mut socket), b"");

    upstream.seen().wait_for("the session to end", |counts| counts.ended == 1);
    assert!(upstream.seen().counts().recorded == sent, "the bytes differ");
    let line = gateway.log().first();
    assert_eq!((line.bytes_received, line.bytes_sent), (sent.len() as u64, 0));
}

#[test]
fn a_hello_in_single_bytes_is_read() {
    let upstream = Upstream::plain(service::record);
    let gateway = published(&upstream);
    let hello = client::hello(GOOGLEAPIS);

    let mut socket = client::connect(gateway.tls());
    for byte in &hello {
        // TCP_NODELAY: each write is a segment.
        socket.write_all(std::slice::from_ref(byte)).unwrap();
    }
    upstream.seen().wait_for("the hello", |counts| counts.recorded == hello);
}

#[test]
fn a_hello_in_many_records_is_read() {
    let upstream = Upstream::plain(service::record);
    let gateway = published(&upstream);
    for piece in [1, 4, 100, 1000] {
        let before = upstream.seen().counts().recorded.len();
        let hello = client::into_records(&client::hello(GOOGLEAPIS), piece);
        let mut socket = client::connect(gateway.tls());
        socket.write_all(&hello).unwrap();
        upstream.seen().wait_for("the hello", |counts| counts.recorded[before..] == hello);
        drop(socket);
        upstream.seen().wait_for("the session's end", |counts| counts.ended == counts.connections);
    }
}

#[test]
fn a_real_handshake_survives_a_hello_in_many_records() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let gateway = published(&upstream);
    let relay = fragmenting_relay(gateway.tls());

    let client = client::tls(relay, GOOGLEAPIS, &authority).unwrap();
    assert!(get(client, "/").starts_with("GET / HTTP/1.1\r\n"));
}

/// Stands between a client and the gateway and cuts the first record into records of 50 bytes.
fn fragmenting_relay(gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let address = listener.local_addr().expect("a bound listener has an address");
    thread::spawn(move || relay(&listener.accept()?.0, gateway));
    address
}

fn relay(mut client: &TcpStream, gateway: SocketAddr) -> io::Result<u64> {
    let mut hello = vec![0; 5];
    client.read_exact(&mut hello)?;
    hello.resize(5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
    client.read_exact(&mut hello[5..])?;
    let mut upstream = client::connect(gateway);
    upstream.write_all(&client::into_records(&hello, 50))?;
    let (mut source, mut target) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || io::copy(&mut source, &mut target));
    io::copy(&mut upstream, &mut client)
}

#[test]
fn a_server_name_is_matched_whatever_its_case() {
    let upstream = Upstream::plain(service::record);
    let gateway = published(&upstream);
    let mut hello = client::hello(GOOGLEAPIS);
    let start = hello.windows(GOOGLEAPIS.len()).position(|window| window == GOOGLEAPIS.as_bytes()).unwrap();
    hello[start..start + GOOGLEAPIS.len()].make_ascii_uppercase();

    let mut socket = client::connect(gateway.tls());
    socket.write_all(&hello).unwrap();
    upstream.seen().wait_for("the hello", |counts| counts.recorded == hello);
}

#[test]
fn large_uploads_arrive_intact() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::verdict);
    let gateway = published(&upstream);
    let mut client = client::tls(gateway.tls(), GOOGLEAPIS, &authority).unwrap();
    pattern::write(&mut client, 64 * MIB).unwrap();
    client::finish(&mut client);
    assert_eq!(String::from_utf8(client::read_to_end(&mut client)).unwrap(), intact(64 * MIB));
}

#[test]
fn large_downloads_arrive_intact() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::send(64 * MIB));
    let gateway = published(&upstream);
    let mut client = client::tls(gateway.tls(), GOOGLEAPIS, &authority).unwrap();
    assert_eq!(check(&mut client), intact(64 * MIB));
}

#[test]
fn transfers_in_both_directions_at_once_arrive_intact() {
    let upstream = Upstream::plain(service::echo);
    let gateway = published(&upstream);
    let hello = client::hello(GOOGLEAPIS);
    let mut socket = client::connect(gateway.tls());
    socket.write_all(&hello).unwrap();
    let writer = upload_and_finish(socket.try_clone().unwrap(), 64 * MIB);

    let mut echoed = vec![0; hello.len()];
    socket.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, hello);
    assert_eq!(check(&mut socket), intact(64 * MIB));
    writer.join().unwrap();
    let line = gateway.log().first();
    let all = 64 * MIB + hello.len() as u64;
    assert_eq!((line.bytes_received, line.bytes_sent), (all, all));
}

fn upload_and_finish(mut socket: TcpStream, count: u64) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        pattern::write(&mut socket, count).expect("the tunnel is open");
        socket.shutdown(Shutdown::Write).expect("the tunnel is open");
    })
}

fn check(stream: &mut impl Read) -> String {
    let mut checker = Checker::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer).expect("the tunnel ends properly") {
            0 => return checker.verdict(),
            count => checker.feed(&buffer[..count]),
        }
    }
}

#[test]
fn a_client_that_half_closes_gets_its_reply() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::verdict);
    let gateway = published(&upstream);
    let mut client = client::tls(gateway.tls(), GOOGLEAPIS, &authority).unwrap();
    pattern::write(&mut client, 1000).unwrap();
    client::finish(&mut client);
    assert_eq!(String::from_utf8(client::read_to_end(&mut client)).unwrap(), intact(1000));
}

#[test]
fn a_server_that_half_closes_is_still_heard_and_hears() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::send(1000));
    let gateway = published(&upstream);
    let mut client = client::tls(gateway.tls(), GOOGLEAPIS, &authority).unwrap();
    assert_eq!(check(&mut client), intact(1000));
    client.write_all(b"heard after your end").unwrap();
    client::finish(&mut client);
    upstream.seen().wait_for("the client's words", |counts| counts.recorded == b"heard after your end");
}

#[test]
fn a_client_that_vanishes_ends_the_upstream_connection() {
    let upstream = Upstream::plain(service::record);
    let gateway = published(&upstream);
    let hello = client::hello(GOOGLEAPIS);
    let mut socket = client::connect(gateway.tls());
    socket.write_all(&hello).unwrap();
    upstream.seen().wait_for("the hello", |counts| counts.recorded == hello);
    reset(socket);
    upstream.seen().wait_for("the end of the connection", |counts| counts.ended == 1);
    assert_eq!(gateway.log().first().server_name, GOOGLEAPIS);
}

/// Closes with RST instead of FIN.
fn reset(socket: TcpStream) {
    set_socket_linger(&socket, Some(Duration::ZERO)).expect("a TCP socket lingers");
    drop(socket);
}
