//! Upgrades (RFC 9110 section 7.8): a tunnel after the upstream's 101, and not one byte earlier.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::Signal;

use support::certificates::Authority;
use support::client::{Http, read_to_end, status};
use support::gateway::{Builder, Gateway};
use support::http::header;
use support::pattern::{self, Checker, intact};
use support::resources;
use support::service;
use support::upstream::Upstream;

const HOST: &str = "chat.example.com";
const MIB: u64 = 1024 * 1024;

/// A gateway in front of a service, by plain text or by TLS that the gateway opens.
fn before(tls: bool) -> (Upstream, Builder) {
    let authority = Authority::new();
    let (upstream, yaml) = match tls {
        true => {
            let upstream = Upstream::tls(&authority.issue(HOST), service::http);
            let yaml = resources::originating_entry("chat", HOST, upstream.port());
            (upstream, yaml)
        }
        false => {
            let upstream = Upstream::plain(service::http);
            let yaml = resources::http_entry("chat", HOST, upstream.port());
            (upstream, yaml)
        }
    };
    (upstream, Gateway::builder().host(HOST).trust(&authority).resources(yaml))
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n")
}

/// Asks for an upgrade, and takes the 101.
fn upgraded(gateway: &Gateway, path: &str) -> TcpStream {
    let mut client = gateway.client();
    client.send(request(path));
    let head = client.head().expect("an answer");
    assert_eq!(status(&head), 101, "{head}");
    assert_eq!(header(&head, "upgrade"), Some("websocket"));
    assert!(header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{head}");
    let (socket, early) = client.into_rest();
    assert!(early.is_empty());
    socket
}

fn exchange(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).expect("the tunnel is open");
    let mut answer = vec![0; text.len()];
    socket.read_exact(&mut answer).expect("the tunnel is open");
    assert_eq!(answer, text.as_bytes());
}

#[test]
fn after_the_101_bytes_pass_both_ways_and_one_line_tells_of_them_at_the_end() {
    for tls in [false, true] {
        let (upstream, gateway) = before(tls);
        let gateway = gateway.start();
        let mut socket = upgraded(&gateway, "/switch/echo");
        for text in ["ping", "and a longer message", "x"] {
            exchange(&mut socket, text);
        }
        assert_eq!(gateway.log().lines().len(), 0, "the request is not over");
        socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut socket), b"");

        let line = gateway.log().first();
        assert_eq!(line.request, "GET /switch/echo HTTP/1.1");
        assert_eq!((line.code, line.flags.as_str(), line.details.as_str()), (101, "-", "via_upstream"), "tls: {tls}");
        assert_eq!((line.bytes_received, line.bytes_sent), (25, 25), "tls: {tls}");
        assert_eq!((line.authority.as_str(), line.route.as_str()), (HOST, "default"));
        assert_eq!(line.upstream_cluster, format!("outbound|80||{HOST}"));
        assert_eq!(gateway.log().lines().len(), 1);

        // The connection was the tunnel's own.
        assert_eq!(gateway.client().get(HOST, "/").status, 200);
        assert_eq!(upstream.seen().counts().connections, 2);
    }
}

/// A 101 that does not come leaves what was sent behind the request where it was (CVE-2026-2833).
#[test]
fn nothing_reaches_the_upstream_before_its_101() {
    for tls in [false, true] {
        let (upstream, gateway) = before(tls);
        let gateway = gateway.start();
        let mut client = gateway.client();
        client.send(request("/switch/gate") + "early bird");
        let seen = upstream.seen().wait_for("the request", |counts| counts.requests.len() == 1);
        assert_eq!(seen.bytes_received, seen.requests[0].len() as u64, "tls: {tls}");
        upstream.seen().open_gate();
        assert_eq!(status(&client.head().unwrap()), 101);
        let (mut socket, early) = client.into_rest();
        let mut echoed = vec![0; "early bird".len() - early.len()];
        socket.read_exact(&mut echoed).unwrap();
        assert_eq!([early, echoed].concat(), b"early bird");
    }
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer_and_what_follows_is_a_request_to_be_judged() {
    let (upstream, gateway) = before(true);
    let gateway = gateway.start();
    let mut client = gateway.client();
    client.send(request("/bytes/3") + "GET /secret HTTP/1.1\r\nHost: blocked.example.com\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.body.len()), (200, 3));
    assert_eq!(client.response().status, 502);
    assert_eq!(client.get(HOST, "/").status, 200);
    let seen = upstream.seen().counts();
    assert_eq!((seen.requests.len(), seen.connections), (2, 1));
    assert_eq!(header(&seen.requests[0], "upgrade"), Some("websocket"));
    assert_eq!(gateway.log().wait_for_count(3).iter().map(|line| line.code).collect::<Vec<_>>(), [200, 502, 200]);
}

#[test]
fn what_the_upstream_says_with_its_101_arrives() {
    for tls in [false, true] {
        let (_upstream, gateway) = before(tls);
        let gateway = gateway.start();
        let mut client = gateway.client();
        client.send(request("/switch/early"));
        assert_eq!(status(&client.head().unwrap()), 101);
        let (mut socket, early) = client.into_rest();
        let mut rest = vec![0; "welcome".len() - early.len()];
        socket.read_exact(&mut rest).unwrap();
        assert_eq!([early, rest].concat(), b"welcome");
        drop(socket);
        assert_eq!(gateway.log().first().bytes_sent, 7);
    }
}

#[test]
fn a_switch_to_what_nobody_asked_for_is_refused() {
    let (_upstream, gateway) = before(false);
    let gateway = gateway.start();
    let mut client = gateway.client();
    client.send(request("/switch/other"));
    assert_eq!(client.response().status, 502);
    assert_eq!(gateway.log().first().flags, "UPE");
}

#[test]
fn no_upgrade_that_would_carry_requests_past_the_gateway_is_asked_for() {
    let (_upstream, gateway) = before(false);
    let gateway = gateway.start();
    for protocol in ["h2c", "H2C, websocket", "TLS/1.0", "HTTP/2.0"] {
        let mut client = gateway.client();
        let fields =
            format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n");
        client.send(format!("GET /headers HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n"));
        let seen = client.response().text().to_owned();
        for field in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(header(&seen, field), None, "{protocol}: {seen}");
        }
    }
}

#[test]
fn each_side_may_finish_before_the_other() {
    for tls in [false, true] {
        let (_upstream, gateway) = before(tls);
        let gateway = gateway.start();
        // The client first: it is answered after its end.
        let mut socket = upgraded(&gateway, "/switch/verdict");
        pattern::write(&mut socket, 100_000).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut socket), intact(100_000).as_bytes(), "tls: {tls}");
        gateway.log().wait_for(|line| line.code == 101 && line.bytes_received == 100_000 && line.flags == "-");
    }
}

#[test]
fn bulk_passes_intact_through_bounded_memory() {
    for tls in [false, true] {
        let (_upstream, gateway) = before(tls);
        let gateway = gateway.start();
        assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
        let before = gateway.peak_memory_kib();
        let mut socket = upgraded(&gateway, "/switch/echo");
        let mut writer = socket.try_clone().unwrap();
        let count = 64 * MIB;
        let sender = std::thread::spawn(move || {
            pattern::write(&mut writer, count).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut checker = Checker::default();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match socket.read(&mut buffer).unwrap() {
                0 => break,
                read => checker.feed(&buffer[..read]),
            }
        }
        sender.join().unwrap();
        assert_eq!(checker.verdict(), intact(count), "tls: {tls}");
        let grown = gateway.peak_memory_kib() - before;
        assert!(grown < 32 * 1024, "tls: {tls}: 128 MiB took {grown} KiB of memory");
        let line = gateway.log().wait_for(|line| line.code == 101);
        assert_eq!((line.bytes_received, line.bytes_sent), (count, count), "tls: {tls}");
    }
}

#[test]
fn an_idle_tunnel_ends_with_its_timeout() {
    for tls in [false, true] {
        let (_upstream, gateway) = before(tls);
        let gateway = gateway.setting("limits: {tunnelIdleTimeout: 1s}\n").start();
        let mut socket = upgraded(&gateway, "/switch/echo");
        exchange(&mut socket, "ping");
        assert_eq!(read_to_end(&mut socket), b"");
        let line = gateway.log().first();
        assert_eq!((line.code, line.flags.as_str(), line.details.as_str()), (101, "SI", "idle_timeout"), "tls: {tls}");
    }
}

#[test]
fn an_upstream_that_crashes_is_no_clean_end() {
    let (_upstream, gateway) = before(true);
    let gateway = gateway.start();
    let mut socket = upgraded(&gateway, "/switch/crash");
    let error = socket.read(&mut [0; 16]).expect_err("a FIN without close_notify may be an attack");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let line = gateway.log().first();
    assert_eq!((line.code, line.flags.as_str()), (101, "UC"));
}

#[test]
fn a_client_that_vanishes_ends_the_tunnel_on_both_sides() {
    for tls in [false, true] {
        let (upstream, gateway) = before(tls);
        let gateway = gateway.start();
        let mut client = gateway.client();
        client.send(request("/switch/send"));
        assert_eq!(status(&client.head().unwrap()), 101);
        upstream.seen().wait_for("the request", |counts| counts.requests.len() == 1);
        sockopt::set_socket_linger(client.socket(), Some(Duration::ZERO)).expect("a TCP socket takes it");
        drop(client); // A reset.
        let line = gateway.log().first();
        assert_eq!((line.code, line.flags.as_str()), (101, "DC"), "tls: {tls}");
        upstream.seen().wait_for("the end of the connection", |counts| counts.ended == 1);
    }
}

#[test]
fn a_drain_waits_for_a_tunnel_until_its_time_is_over() {
    for tls in [false, true] {
        let (_upstream, gateway) = before(tls);
        let mut gateway = gateway.setting("drain: {timeout: 1s}\n").start();
        let mut socket = upgraded(&gateway, "/switch/echo");
        gateway.signal(Signal::TERM);
        gateway.wait_for_diagnostic("drain");
        exchange(&mut socket, "still here");
        assert!(gateway.wait_exit().success());
        let line = gateway.log().first();
        assert_eq!((line.code, line.flags.as_str()), (101, "DT"), "tls: {tls}");
    }
}

#[test]
fn a_tunnel_outlives_a_reload_and_the_entry_it_came_by() {
    let (_upstream, gateway) = before(true);
    let gateway = gateway.start();
    let mut socket = upgraded(&gateway, "/switch/echo");
    gateway.reload("");
    exchange(&mut socket, "ping");
    assert_eq!(Http::connect(gateway.http()).get(HOST, "/").status, 502);
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut socket), b"");
    let line = gateway.log().wait_for(|line| line.code == 101);
    assert_eq!(line.upstream_cluster, format!("outbound|80||{HOST}"));
}
