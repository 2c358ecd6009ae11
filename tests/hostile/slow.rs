//! Attacks by slowness: every wait has an end that no trickle of bytes puts off.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::scene::{HOST, Scene, reset};
use crate::support::client::{self, Http};
use crate::support::gateway::Gateway;
use crate::support::pattern;
use crate::support::service;
use crate::support::{DEADLINE, wait_until};

/// Sends one byte at a time, each after a pause in which it looks whether the gateway has had enough; what the gateway
/// said then.
#[track_caller]
fn trickle(socket: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    socket.set_read_timeout(Some(Duration::from_millis(25))).expect("not zero");
    let deadline = Instant::now() + DEADLINE;
    for byte in bytes.iter().cycle() {
        assert!(Instant::now() < deadline, "a trickle of bytes goes on for ever");
        let _ = socket.write_all(&[*byte]);
        match socket.read(&mut buffer) {
            Ok(0) => return heard,
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return heard,
        }
    }
    heard
}

fn limited(limits: &str) -> Scene {
    Scene::with(Gateway::builder().setting(&format!("limits: {{{limits}}}\n")), service::http)
}

#[test]
fn a_hello_byte_by_byte_is_cut_at_its_deadline() {
    let scene = limited("helloTimeout: 400ms");
    let mut socket = client::connect(scene.gateway.tls());
    assert_eq!(trickle(&mut socket, &client::hello(HOST)), b"");
    let line = scene.next_line("a slow hello");
    assert_eq!((line.flags.as_str(), line.termination.as_str()), ("DPE", "hello_timeout"));
    scene.assert_serves();
    assert_eq!(scene.connections(), 1);
}

#[test]
fn a_client_that_says_nothing_is_cut_at_the_deadline_of_the_hello() {
    let scene = limited("helloTimeout: 200ms");
    let mut silent = [client::connect(scene.gateway.tls()), client::connect(scene.gateway.http())];
    for socket in &mut silent {
        assert_eq!(client::read_to_end(socket), b"");
    }
    assert_eq!(scene.gateway.log().wait_for_count(2).len(), 2);
}

#[test]
fn a_head_byte_by_byte_is_cut_at_its_deadline() {
    let scene = limited("requestHeadTimeout: 400ms");
    let mut socket = client::connect(scene.gateway.http());
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}", "X: yyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1_000));
    let heard = trickle(&mut socket, head.as_bytes());
    assert!(heard.starts_with(b"HTTP/1.1 408 "), "{heard:?}");
    assert_eq!(scene.next_line("a slow head").code, 408);
    // The clock starts anew with each request, also on a connection that has been good before.
    let mut client = scene.gateway.client();
    assert_eq!(client.get(HOST, "/").status, 200);
    scene.next_line("a good request");
    let heard = trickle(client.socket(), head.as_bytes());
    assert!(heard.starts_with(b"HTTP/1.1 408 "), "{heard:?}");
}

#[test]
fn a_body_that_stops_is_cut() {
    let scene = limited("bodyIdleTimeout: 300ms");
    let mut client = scene.gateway.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhello"));
    assert_eq!(client.response().status, 408);
    assert!(client.is_closed());
    assert_eq!((scene.next_line("a body").code, scene.requests().len()), (408, 1));
    scene.upstream.seen().wait_for("the upstream's connection to end", |counts| counts.ended == 1);
}

#[test]
fn a_response_that_stops_is_cut() {
    let scene = limited("bodyIdleTimeout: 300ms");
    let mut client = scene.gateway.client();
    client.send(format!("GET /gate/1000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    client.try_response().expect_err("half a response");
    assert_eq!(scene.next_line("half a response").flags, "SI");
}

#[test]
fn a_client_that_does_not_read_its_response_is_cut() {
    let scene = limited("bodyIdleTimeout: 300ms");
    let mut client = scene.gateway.client();
    client.send(format!("GET /bytes/100000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    scene.upstream.seen().wait_for("the upstream's connection to end", |counts| counts.ended == 1);
    let line = scene.next_line("an unread response");
    assert_eq!(line.flags, "SI");
    assert!(line.bytes_sent < 100_000_000, "{line:?}");
}

/// Sends requests that the gateway answers itself until it stops taking them, and reads no answer.
fn fill_with_refused_requests(client: &mut Http) {
    let piece = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".repeat(500);
    client.socket().set_write_timeout(Some(Duration::from_millis(100))).expect("not zero");
    while client.socket().write_all(piece.as_bytes()).is_ok() {}
}

#[test]
fn a_client_that_does_not_read_refusals_is_cut() {
    let scene = limited("bodyIdleTimeout: 300ms");
    let mut client = scene.gateway.client();
    fill_with_refused_requests(&mut client);
    wait_until("the session to end", || {
        (scene.gateway.metric("portcullis_sessions_active{worker=\"0\"}") == Some(0.0)).then_some(())
    });
    assert_eq!(scene.connections(), 0);
    assert!(scene.gateway.peak_memory_kib() < 128 * 1024);
}

#[test]
fn a_tunnel_that_stops_is_cut() {
    let setting = "limits: {tunnelIdleTimeout: 400ms}\n";
    let scene = Scene::with(Gateway::builder().setting(setting), service::record);
    let mut socket = client::connect(scene.gateway.tls());
    socket.write_all(&client::hello(HOST)).expect("the gateway reads");
    assert_eq!(client::read_to_end(&mut socket), b"");
    let line = scene.next_line("a silent tunnel");
    assert_eq!(line.termination, "idle_timeout");
}

#[test]
fn an_upstream_that_never_reads_stops_the_client_and_is_cut() {
    let setting = "limits: {tunnelIdleTimeout: 1s}\n";
    let scene = Scene::with(Gateway::builder().setting(setting), |_, seen| {
        seen.wait_at_gate();
        Ok(())
    });
    let mut socket = client::connect(scene.gateway.tls());
    socket.write_all(&client::hello(HOST)).expect("the gateway reads");
    socket.set_write_timeout(Some(Duration::from_millis(200))).expect("not zero");
    let taken = pattern::write(&mut socket, 1 << 30);
    assert!(taken.is_err(), "a gigabyte went somewhere");
    let line = scene.next_line("a stuck tunnel");
    assert!(line.bytes_received < 64 << 20, "{line:?}");
    assert!(scene.gateway.peak_memory_kib() < 128 * 1024);
}

#[test]
fn a_client_that_vanishes_while_its_upstream_is_silent_frees_both_connections() {
    let scene = Scene::http();
    let mut client = scene.gateway.client();
    client.send(format!("GET /silent HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    scene.upstream.seen().wait_for("the request", |counts| counts.requests.len() == 1);
    reset(client.socket().try_clone().expect("a descriptor is left"));
    drop(client);
    assert_eq!(scene.next_line("a client that vanished").flags, "DC");
}
