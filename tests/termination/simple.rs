//! What happens to a request within TLS that ends here.

use std::io::{Read, Write};

use rustix::process::Signal;

use crate::scene::{API, SIMPLE, Scene, server};
use crate::support::client::{self, read_to_end};
use crate::support::gateway::command;
use crate::support::pattern::{self, Checker};
use crate::support::resources;

#[test]
fn a_request_within_tls_goes_out_in_tls_of_our_own_and_is_logged_with_its_server_name() {
    let scene = Scene::new(SIMPLE);
    let Some(output) = scene.curl(&["--http1.1", "https://api.example.com/books/1?page=2"]) else { return };
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(
        told.starts_with("GET /books/1?page=2 HTTP/1.1\r\n") && told.contains("Host: api.example.com\r\n"),
        "{told}"
    );
    let line = scene.gateway.log().first();
    assert_eq!((line.code, line.flags.as_str(), line.server_name.as_str()), (200, "-", API));
    assert_eq!(line.upstream_cluster, "outbound|80||api.example.com");
    assert_eq!(scene.upstream.seen().counts().server_names, [API]);
    let handshakes = "portcullis_downstream_tls_handshakes_total{result=\"success\",resumed=\"false\"}";
    assert_eq!(scene.gateway.metric(handshakes), Some(1.0));
}

#[test]
fn a_connection_serves_one_request_after_another_and_bodies_of_any_size() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    assert_eq!(client.get(API, "/books").status, 200);
    for size in [0, 1, 16_384, 16_385, 3_000_000] {
        assert_eq!(client.get(API, &format!("/bytes/{size}")).body.len(), size, "{size}");
    }
    client.send(format!("POST /verdict HTTP/1.1\r\nHost: {API}\r\nContent-Length: 2000000\r\n\r\n"));
    pattern::write(client.stream(), 2_000_000).expect("the gateway reads");
    let response = client.response().expect("an answer");
    assert_eq!(String::from_utf8_lossy(&response.body), pattern::intact(2_000_000));
    // Several requests in one record are answered in their order.
    client.send(format!("GET /bytes/1 HTTP/1.1\r\nHost: {API}\r\n\r\nGET /bytes/2 HTTP/1.1\r\nHost: {API}\r\n\r\n"));
    assert_eq!(client.response().expect("the first").body.len(), 1);
    assert_eq!(client.response().expect("the second").body.len(), 2);
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_a_large_answer() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    client.send(format!("GET /bytes/30000000 HTTP/1.1\r\nHost: {API}\r\n\r\n"));
    scene.upstream.seen().wait_for("the request", |counts| counts.requests.len() == 1);
    let head = client.head().expect("a head");
    assert_eq!(client::status(&head), 200);
    let (mut stream, early) = client.into_rest();
    let mut checker = Checker::default();
    checker.feed(&early);
    let (mut buffer, mut left) = (vec![0; 4096], 30_000_000 - early.len());
    while left > 0 {
        let count = stream.read(&mut buffer).expect("the answer goes on");
        assert!(count > 0, "{left} bytes are missing");
        checker.feed(&buffer[..count]);
        left -= count;
    }
    assert_eq!(checker.verdict(), pattern::intact(30_000_000));
}

#[test]
fn what_no_route_takes_is_404_and_what_a_policy_refuses_403() {
    let policy = resources::authorization_policy(
        "names",
        "  action: DENY\n  rules:\n  - to: [{operation: {paths: [/secret*]}}]\n    when: [{key: connection.sni, values: [api.example.com]}]\n",
    );
    let scene = Scene::with(|_| server("https", "HTTPS", "'*.example.com'", SIMPLE) + &policy, |builder| builder);
    let mut client = scene.client();
    assert_eq!(client.get(API, "/books").status, 200);
    assert_eq!(client.get(API, "/secret/1").status, 403);
    assert_eq!(client.get("other.example.com", "/books").status, 404);
}

#[test]
fn a_request_for_a_host_of_another_server_is_misdirected() {
    let scene = Scene::with(
        |_| {
            server("wide", "HTTPS", "'*.example.com'", SIMPLE)
                + &server("narrow", "HTTPS", "strict.example.com", SIMPLE)
        },
        |builder| builder,
    );
    for (host, status) in [(API, 200), ("strict.example.com", 421), ("other.org", 421), ("192.0.2.1", 421)] {
        assert_eq!(scene.client().get(host, "/").status, status, "{host}");
    }
    let line = scene.gateway.log().wait_for(|line| line.authority == "other.org");
    assert_eq!((line.code, line.details.as_str(), line.server_name.as_str()), (421, "misdirected_request", API));
    let counted = "portcullis_denied_total{reason=\"misdirected_request\",rule=\"\"}";
    assert_eq!(scene.gateway.metric(counted), Some(3.0));
    let Some(output) =
        scene.curl(&["--http1.1", "-w", "%{http_code}", "-H", "Host: other.org", "https://api.example.com/"])
    else {
        return;
    };
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("421"), "{output:?}");
}

#[test]
fn an_upgrade_becomes_a_tunnel_within_tls() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    client
        .send(format!("GET /switch/echo HTTP/1.1\r\nHost: {API}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert_eq!(client::status(&client.head().expect("an answer")), 101);
    let (mut stream, early) = client.into_rest();
    assert!(early.is_empty());
    for text in ["ping".to_owned(), "x".repeat(100_000)] {
        stream.write_all(text.as_bytes()).expect("the tunnel is open");
        stream.flush().expect("the tunnel is open");
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).expect("the tunnel is open");
        assert!(answer == text.as_bytes());
    }
    client::finish(&mut stream);
    // A clean end both ways: rustls would say if close_notify were missing.
    assert_eq!(stream.read(&mut [0; 8]).expect("close_notify"), 0);
    let line = scene.gateway.log().first();
    assert_eq!((line.code, line.flags.as_str(), line.bytes_received, line.bytes_sent), (101, "-", 100_004, 100_004));
}

#[test]
fn a_tunnel_that_the_client_cuts_off_reaches_the_upstream_as_a_reset() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    client
        .send(format!("GET /switch/echo HTTP/1.1\r\nHost: {API}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert_eq!(client::status(&client.head().expect("an answer")), 101);
    let (stream, _) = client.into_rest();
    stream.sock.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    assert_eq!(scene.gateway.log().first().flags, "DC");
    scene.upstream.seen().wait_for("the reset", |counts| !counts.errors.is_empty());
}

#[test]
fn a_body_that_ends_without_close_notify_is_not_complete() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    client.send(format!("POST /verdict HTTP/1.1\r\nHost: {API}\r\nContent-Length: 100\r\n\r\nhalf"));
    scene.upstream.seen().wait_for("the request", |counts| counts.requests.len() == 1);
    let (stream, _) = client.into_rest();
    stream.sock.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    let line = scene.gateway.log().first();
    assert_eq!((line.code, line.flags.as_str()), (0, "DC"));
    assert!(line.transport_failure.contains("without close_notify"), "{}", line.transport_failure);
}

#[test]
fn an_answer_that_is_cut_off_upstream_does_not_look_complete() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    client.send(format!("GET /truncated/1000 HTTP/1.1\r\nHost: {API}\r\n\r\n"));
    assert!(client.response().is_err());
}

#[test]
fn a_client_that_has_finished_gets_its_answer_and_a_farewell() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    client.send(format!("GET /bytes/10 HTTP/1.1\r\nHost: {API}\r\n\r\n"));
    // close_notify, and the connection stays open: the gateway has to end it.
    client.stream().conn.send_close_notify();
    client.stream().flush().expect("the connection is open");
    assert_eq!(client.response().expect("an answer").body.len(), 10);
    assert_eq!(client.stream().read(&mut [0; 8]).expect("close_notify"), 0);
}

#[test]
fn connections_end_with_close_notify_when_the_client_says_so_and_when_the_gateway_drains() {
    let mut scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    client.send(format!("GET /bytes/1 HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n"));
    assert_eq!(client.response().expect("an answer").body.len(), 1);
    assert_eq!(client.stream().read(&mut [0; 8]).expect("close_notify"), 0);

    let mut idle = scene.client();
    assert_eq!(idle.get(API, "/bytes/1").status, 200);
    let mut busy = scene.client();
    busy.send(format!("GET /silent HTTP/1.1\r\nHost: {API}\r\n\r\n"));
    scene.upstream.seen().wait_for("the request", |counts| counts.requests.len() == 3);
    scene.gateway.signal(Signal::TERM);
    assert_eq!(idle.stream().read(&mut [0; 8]).expect("close_notify"), 0);
    scene.upstream.seen().open_gate();
    let response = busy.response().expect("an answer");
    assert!(response.head.to_ascii_lowercase().contains("connection: close"), "{}", response.head);
    assert_eq!(busy.stream().read(&mut [0; 8]).expect("close_notify"), 0);
    assert!(scene.gateway.wait_exit().success());
}

#[test]
fn sessions_are_resumed_by_whichever_worker_takes_the_connection() {
    let scene = Scene::with(|_| server("https", "HTTPS", API, SIMPLE), |builder| builder.workers(2));
    let config = client::trusting(&scene.authority);
    for _ in 0..12 {
        assert_eq!(scene.try_client(&config, API).expect("a handshake").get(API, "/bytes/1").status, 200);
    }
    let resumed = "portcullis_downstream_tls_handshakes_total{result=\"success\",resumed=\"true\"}";
    assert_eq!(scene.gateway.metric(resumed), Some(11.0));
}

#[test]
fn a_client_that_speaks_plain_text_to_a_server_of_tls_finds_no_route() {
    let scene = Scene::new(SIMPLE);
    let mut socket = client::connect(scene.gateway.tls());
    socket
        .write_all(format!("GET / HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n").as_bytes())
        .expect("it reads");
    let answer = String::from_utf8_lossy(&read_to_end(&mut socket)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(scene.upstream.seen().counts().connections, 0);
}

#[test]
fn explain_tells_of_the_server_and_of_what_is_found_behind_it() {
    let scene = Scene::new(SIMPLE);
    let explain = |url: &str| {
        let output =
            command().args(["explain", url, "--config"]).arg(scene.gateway.config()).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let (code, told) = explain("https://api.example.com/books");
    assert_eq!(code, Some(0), "{told}");
    for part in ["client tls SIMPLE", "Gateway default/egress", "VirtualService default/routes", "tls        SIMPLE"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (code, told) = explain("https://other.example.com/");
    assert_eq!(code, Some(1), "{told}");
}
