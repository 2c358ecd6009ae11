//! Attacks on memory: many sessions in the state that costs the gateway most and the attacker least. What each may
//! cost is a constant of the gateway, and good requests pass meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use portcullis::limits::{
    HTTP2_CONNECTION_BYTES_MAX, HTTP2_SMALL_DATA_BYTES_MAX, SESSION_BYTES_MAX, SESSION_IDLE_BYTES_MAX,
};

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE, frame, get};
use crate::scene::{HOST, Scene};
use crate::support::client;
use crate::support::gateway::Gateway;
use crate::support::pattern;
use crate::support::resources;
use crate::support::service;
use crate::support::wait_until;

/// Sessions of each attack that hold no data.
const IDLE: usize = 400;

/// Sessions of each attack that hold as much as they can.
const FULL: usize = 40;

/// What the allocator and the pools may take besides, once.
const SLACK_BYTES: usize = 4 << 20;

/// Opens `count` sessions, brings each into its state, and compares what they cost. Each attack has a gateway of its own:
/// sessions of the last one may last.
#[track_caller]
fn assert_cost(scene: &Scene, what: &str, count: usize, most: usize, open: impl Fn(&Gateway) -> TcpStream) {
    let gateway = &scene.gateway;
    assert_eq!(gateway.client().get(HOST, "/bytes/10").status, 200, "{what}");
    // Buffers that are allocated once are there after the first of its kind.
    let first = open(gateway);
    let before = gateway.memory_kib();
    let sessions: Vec<TcpStream> = (0..count).map(|_| open(gateway)).collect();
    wait_until(&format!("{what}: the sessions to be there"), || {
        (gateway.metric("portcullis_sessions_active{worker=\"0\"}") > Some(count as f64)).then_some(())
    });
    for _ in 0..10 {
        assert_eq!(gateway.client().get(HOST, "/bytes/10").status, 200, "{what}");
    }
    let grown = usize::try_from(gateway.memory_kib().saturating_sub(before)).unwrap_or(usize::MAX) * 1024;
    println!("{what}: {} bytes per session", grown / count);
    assert!(grown <= count * most + SLACK_BYTES, "{what}: {} bytes per session", grown / count);
    drop((first, sessions));
    assert_eq!(gateway.client().get(HOST, "/bytes/10").status, 200, "{what}");
}

#[track_caller]
fn idle(what: &str, open: impl Fn(&Gateway) -> TcpStream) {
    assert_cost(&Scene::http(), what, IDLE, SESSION_IDLE_BYTES_MAX, open);
}

#[track_caller]
fn full(what: &str, open: impl Fn(&Gateway) -> TcpStream) {
    assert_cost(&Scene::http(), what, FULL, SESSION_BYTES_MAX, open);
}

fn sent(address: std::net::SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = client::connect(address);
    socket.write_all(bytes).expect("the gateway reads");
    socket
}

/// Sends until nobody takes any more.
fn stuffed(address: std::net::SocketAddr, first: &[u8], then: &[u8]) -> TcpStream {
    let mut socket = sent(address, first);
    socket.set_write_timeout(Some(Duration::from_millis(50))).expect("not zero");
    while !then.is_empty() && socket.write_all(then).is_ok() {}
    socket
}

#[test]
fn clients_that_wait_cost_little() {
    idle("nothing said", |gateway| client::connect(gateway.tls()));
    let hello = client::hello(HOST);
    idle("part of a hello", |gateway| sent(gateway.tls(), &hello[..300]));
    idle("part of a head", |gateway| sent(gateway.http(), b"GET / HTTP/1.1\r\nHost: a.example\r\n"));
    idle("between two requests", |gateway| {
        let mut socket = sent(gateway.http(), format!("GET /bytes/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        assert!(socket.read(&mut [0; 1024]).expect("an answer") > 0);
        socket
    });
    idle("between two refusals", |gateway| {
        let mut socket = sent(gateway.http(), b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert!(socket.read(&mut [0; 1024]).expect("an answer") > 0);
        socket
    });
}

/// The opening of a client of HTTP/2 that takes as much as the gateway sends.
fn opening() -> Vec<u8> {
    let window = 0x7fff_ffff_u32;
    let settings = [&4u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &settings),
        frame(WINDOW_UPDATE, 0, 0, &(window - 65_535).to_be_bytes()),
    ]
    .concat()
}

#[test]
fn clients_of_http2_cost_no_more_than_their_bounds() {
    assert_cost(&Scene::http(), "an idle connection in HTTP/2", IDLE, HTTP2_CONNECTION_BYTES_MAX, |gateway| {
        let mut socket = sent(gateway.http(), &opening());
        assert!(socket.read(&mut [0; 1024]).expect("settings") > 0);
        socket
    });
    let most = HTTP2_CONNECTION_BYTES_MAX + SESSION_BYTES_MAX;
    assert_cost(&Scene::http(), "an unread answer in HTTP/2", FULL, most, |gateway| {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get(HOST, "/bytes/100000000"));
        sent(gateway.http(), &[opening(), head].concat())
    });
    let most = most + HTTP2_SMALL_DATA_BYTES_MAX;
    assert_cost(&Scene::http(), "small pieces of a body", FULL, most, |gateway| {
        let head = frame(HEADERS, END_HEADERS, 1, &get(HOST, "/silent"));
        // Fewer than the connection would be closed for.
        sent(gateway.http(), &[opening(), head, frame(DATA, 0, 1, b"x").repeat(10_000)].concat())
    });
}

#[test]
fn clients_that_wait_for_their_upstream_cost_little() {
    idle("an answer that does not come", |gateway| {
        sent(gateway.http(), format!("GET /silent HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())
    });
    idle("a body that does not come", |gateway| {
        sent(gateway.http(), format!("POST /verdict HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\n").as_bytes())
    });
    // The upstream speaks HTTP: to it, a hello is a head that does not end.
    idle("a tunnel in which nothing happens", |gateway| sent(gateway.tls(), &client::hello(HOST)));
}

#[test]
fn clients_that_send_as_much_as_they_can_cost_no_more_than_their_bounds() {
    let hello = crate::hello::Hello::named(HOST.as_bytes()).with(21, &[0; 60_000]).bytes();
    full("a hello without its last byte", |gateway| sent(gateway.tls(), &hello[..hello.len() - 1]));
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}", "x".repeat(65_000));
    full("a head without its end", |gateway| sent(gateway.http(), head.as_bytes()));
    let requests = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".repeat(2_000);
    full("requests whose refusals nobody reads", |gateway| stuffed(gateway.http(), b"", requests.as_bytes()));
    let requests = format!("GET /silent HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(2_000);
    full("requests behind one that is not answered", |gateway| stuffed(gateway.http(), b"", requests.as_bytes()));
}

#[test]
fn clients_that_do_not_read_cost_no_more_than_their_bounds() {
    full("a large answer that nobody reads", |gateway| {
        let mut socket =
            sent(gateway.http(), format!("GET /bytes/100000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        assert!(socket.read(&mut [0; 16]).expect("its beginning") > 0);
        socket
    });
    full("a chunked answer that nobody reads", |gateway| {
        let mut socket =
            sent(gateway.http(), format!("GET /chunked/100000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
        assert!(socket.read(&mut [0; 16]).expect("its beginning") > 0);
        socket
    });
}

/// Where this name leads, the kernel takes connections and bytes until its buffers are full, and nobody reads them.
const STUCK: &str = "stuck.example";

#[test]
fn upstreams_that_never_accept_nor_read_cost_no_more_than_their_bounds() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    let stuck = resources::tls_entry("stuck-tls", STUCK, port) + &resources::http_entry("stuck-http", STUCK, port);
    let scene = || Scene::with_resources(Gateway::builder().host(STUCK), &stuck, service::http);
    let mut piece = Vec::new();
    pattern::write(&mut piece, 1 << 18).expect("a vector takes everything");
    let head = format!("POST / HTTP/1.1\r\nHost: {STUCK}\r\nContent-Length: 900000000\r\n\r\n");
    assert_cost(&scene(), "a body that the upstream does not read", FULL, SESSION_BYTES_MAX, |gateway| {
        stuffed(gateway.http(), head.as_bytes(), &piece)
    });
    assert_cost(&scene(), "a tunnel that the upstream does not read", FULL, SESSION_BYTES_MAX, |gateway| {
        stuffed(gateway.tls(), &client::hello(STUCK), &piece)
    });
}

#[test]
fn a_listener_that_is_full_refuses_and_serves_those_it_has() {
    let limits = "limits: {sessionsPerWorker: 50}\n";
    let scene = Scene::with(Gateway::builder().setting(limits), service::http);
    let mut first = scene.gateway.client();
    assert_eq!(first.get(HOST, "/bytes/10").status, 200);
    let kept: Vec<_> = (0..49).map(|_| client::connect(scene.gateway.tls())).collect();
    let active = "portcullis_sessions_active{worker=\"0\"}";
    wait_until("the listener to be full", || (scene.gateway.metric(active) == Some(50.0)).then_some(()));
    for _ in 0..100 {
        let mut refused = client::connect(scene.gateway.http());
        match refused.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(first.get(HOST, "/bytes/10").status, 200);
    assert_eq!(scene.gateway.metric("portcullis_sessions_refused_total"), Some(100.0));
    drop(kept);
    wait_until("the places to be free", || (scene.gateway.metric(active) == Some(1.0)).then_some(()));
    assert_eq!(scene.gateway.client().get(HOST, "/bytes/10").status, 200);
}
