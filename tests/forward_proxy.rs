//! Ahead of the client's bytes: the PROXY protocol, and tunnels through another proxy.

mod support;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use support::certificates::Authority;
use support::client::{self, read_to_end};
use support::gateway::Gateway;
use support::resources;
use support::service;
use support::stream::Stream;
use support::upstream::{Seen, Upstream};

const HOST: &str = "api.example";

fn rule(policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: rule}}\n\
         spec: {{host: {HOST}, trafficPolicy: {policy}}}\n"
    )
}

/// A proxy that answers in these pieces, and then leads to a port of this machine, if there is one.
struct Proxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(answer: &[&str], target: Option<u16>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (answer.concat(), Arc::clone(&heads));
        // It ends with the process of the test.
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                thread::spawn(move || serve(socket, answer.as_bytes(), target, &seen));
            }
        });
        Self { port, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("nobody panics with it").clone()
    }
}

fn serve(mut socket: TcpStream, answer: &[u8], target: Option<u16>, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    seen.lock().expect("nobody panics with it").push(String::from_utf8_lossy(&head).into_owned());
    socket.set_nodelay(true)?;
    for piece in answer.chunks(7) {
        socket.write_all(piece)?;
    }
    let Some(target) = target else { return socket.read(&mut byte).map(drop) };
    let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    let (mut from, mut to) = (socket.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    io::copy(&mut &upstream, &mut socket)?;
    socket.shutdown(Shutdown::Write)
}

/// Tunnels for `api.example` through this proxy.
fn through(proxy: &Proxy, more: &str) -> Gateway {
    let tunnel = "tunnel: {protocol: CONNECT, targetHost: www.target.example, targetPort: 443}";
    let yaml = resources::tls_entry("api", HOST, proxy.port) + &rule(&format!("{{{tunnel}{more}}}"));
    Gateway::builder().host(HOST).resources(yaml).start()
}

#[test]
fn a_session_is_carried_by_a_tunnel_through_a_proxy() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::echo);
    let proxy =
        Proxy::start(&["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n"], Some(upstream.port()));
    let gateway = through(&proxy, "");
    let mut client = client::tls(gateway.tls(), HOST, &authority).unwrap();
    client.write_all(b"ping").unwrap();
    client.flush().unwrap();
    let mut echo = [0; 4];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping");
    let target = "www.target.example:443";
    assert_eq!(proxy.heads(), [format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")]);
    assert_eq!(upstream.seen().counts().server_names, [HOST]);
}

#[test]
fn what_follows_the_answer_of_the_proxy_reaches_the_client() {
    let proxy = Proxy::start(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "from the target"], None);
    let gateway = through(&proxy, "");
    let mut client = client::connect(gateway.tls());
    client.write_all(&client::hello(HOST)).unwrap();
    assert_eq!(read_to_end(&mut client), b"from the target");
}

#[test]
fn a_proxy_that_refuses_or_babbles_ends_the_session() {
    let endless = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n", "a".repeat(20_000));
    for (answer, reason) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 3\r\n\r\nno!", "the proxy answered 407"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n", "101"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "answer"),
        (endless.as_str(), "answer"),
        (&"HTTP/1.1 100 Continue\r\n\r\n".repeat(50), "interim"),
    ] {
        let proxy = Proxy::start(&[answer], None);
        let gateway = through(&proxy, "");
        let mut client = client::connect(gateway.tls());
        client.write_all(&client::hello(HOST)).unwrap();
        assert_eq!(read_to_end(&mut client), b"", "{reason}");
        let line = gateway.log().first();
        assert_eq!(line.flags, "UF", "{line:?}");
        assert!(line.transport_failure.contains(reason), "{reason}: {line:?}");
    }
}

#[test]
fn a_proxy_that_does_not_answer_is_waited_for_as_long_as_connecting_may_take() {
    let proxy = Proxy::start(&["HTTP/1.1 200 OK\r\n"], None);
    let gateway = through(&proxy, ", connectionPool: {tcp: {connectTimeout: 100ms}}");
    let mut client = client::connect(gateway.tls());
    client.write_all(&client::hello(HOST)).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    assert!(gateway.log().first().transport_failure.contains("no answer within"));
}

#[test]
fn tunnels_that_cannot_be_made_as_written_are_refused() {
    let gateway = Gateway::builder().start();
    let entry = resources::tls_entry("api", HOST, 1);
    let target = "targetHost: a.example, targetPort: 443";
    for policy in [
        format!("{{tunnel: {{protocol: POST, {target}}}}}"),
        format!("{{tunnel: {{{target}}}, proxyProtocol: {{version: V1}}}}"),
        format!("{{tunnel: {{{target}}}, tls: {{mode: SIMPLE}}}}"),
        "{tunnel: {targetHost: 'a b', targetPort: 443}}".to_owned(),
        "{tunnel: {targetHost: a.example}}".to_owned(),
    ] {
        gateway.reload_in_vain(&(entry.clone() + &rule(&policy)));
        gateway.reload("");
    }
}

/// Notes the line of version 1 of the PROXY protocol, and serves on.
fn behind_line(stream: &mut Stream, seen: &Seen) -> io::Result<()> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    seen.update(|counts| counts.recorded.extend_from_slice(&line));
    service::http(stream, seen)
}

#[test]
fn connections_begin_with_their_clients_address_and_are_nobody_elses() {
    let upstream = Upstream::plain(behind_line);
    let yaml = resources::http_entry("api", HOST, upstream.port()) + &rule("{proxyProtocol: {version: V1}}");
    let gateway = Gateway::builder().host(HOST).resources(yaml).start();
    let mut expected = String::new();
    for _ in 0..2 {
        let mut client = gateway.client();
        let own = client.socket().local_addr().unwrap();
        expected += &format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), gateway.http().port());
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    let counts = upstream.seen().counts();
    assert_eq!((String::from_utf8_lossy(&counts.recorded).as_ref(), counts.connections), (expected.as_str(), 2));
}

#[test]
fn the_binary_header_goes_ahead_of_a_tunnels_hello() {
    let upstream = Upstream::plain(service::record);
    let yaml = resources::tls_entry("api", HOST, upstream.port()) + &rule("{proxyProtocol: {version: V2}}");
    let gateway = Gateway::builder().host(HOST).resources(yaml).start();
    let mut client = client::connect(gateway.tls());
    let hello = client::hello(HOST);
    client.write_all(&hello).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let counts = upstream.seen().wait_for("the hello", |counts| counts.recorded.len() >= 28 + hello.len());
    let (header, rest) = counts.recorded.split_at(28);
    let port = client.local_addr().unwrap().port().to_be_bytes();
    let expected = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"[..],
        &port,
        &gateway.tls().port().to_be_bytes(),
    ];
    assert_eq!((header, rest), (&*expected.concat(), &*hello));
}
