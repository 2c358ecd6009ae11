//! Attacks by number: connections that come and go, and the descriptors that must come back.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::scene::{HOST, Scene, reset};
use crate::support::client;
use crate::support::gateway::Gateway;
use crate::support::log::Line;
use crate::support::service;
use crate::support::wait_until;

/// Cycles of each storm.
const CYCLES: usize = 1_000;

/// Runs a storm, and waits until every descriptor has come back; what the upstream and the log must show is the
/// caller's business.
#[track_caller]
fn storm(scene: &Scene, what: &str, cycle: impl Fn(usize)) {
    // Pools and pipes have been opened by now, and stay.
    scene.assert_serves();
    let before = scene.gateway.open_descriptors();
    (0..CYCLES).for_each(cycle);
    wait_until(&format!("the descriptors to come back after {what}"), || {
        (scene.gateway.open_descriptors() <= before).then_some(())
    });
    assert_eq!(scene.gateway.client().get(HOST, "/bytes/10").status, 200, "{what}");
}

/// Lines beside those of good requests.
fn lines(scene: &Scene, count: usize) -> Vec<Line> {
    let of_storm = |line: &Line| !line.request.starts_with("GET /bytes/10 ");
    wait_until(&format!("{count} lines"), || {
        Some(scene.gateway.log().lines().into_iter().filter(of_storm).collect::<Vec<_>>())
            .filter(|lines| lines.len() >= count)
    })
}

#[test]
fn a_storm_of_connections_that_say_nothing_leaves_nothing_behind() {
    let scene = Scene::http();
    storm(&scene, "silent connections", |count| {
        let socket = client::connect(if count % 2 == 0 { scene.gateway.tls() } else { scene.gateway.http() });
        if count % 3 == 0 { drop(socket) } else { reset(socket) }
    });
    assert_eq!(scene.connections(), 1);
}

#[test]
fn a_storm_of_resets_inside_a_hello_leaves_one_line_each() {
    let scene = Scene::http();
    let hello = client::hello(HOST);
    storm(&scene, "halves of hellos", |_| {
        let mut socket = client::connect(scene.gateway.tls());
        socket.write_all(&hello[..200]).expect("the gateway reads");
        reset(socket);
    });
    assert_eq!(scene.connections(), 1);
    // Those whose reset was there before anybody looked have brought nothing.
    let lines = lines(&scene, 0);
    assert!(lines.len() <= CYCLES && lines.iter().all(|line| line.flags == "DC"), "{}", lines.len());
}

#[test]
fn a_storm_of_resets_inside_tunnels_leaves_nothing_behind() {
    let scene = Scene::with(Gateway::builder().workers(2), service::http);
    let hello = client::hello(HOST);
    storm(&scene, "tunnels", |_| {
        let mut socket = client::connect(scene.gateway.tls());
        socket.write_all(&hello).expect("the gateway reads");
        // Whether the reset comes before, while, or after the gateway dials is left to chance: every place is one.
        reset(socket);
    });
    let counts = scene.upstream.seen().wait_for("every tunnel to end", |counts| counts.ended + 2 >= counts.connections);
    assert!(counts.connections <= CYCLES + 4, "{}", counts.connections);
    let lines = lines(&scene, 0);
    assert!(lines.len() <= CYCLES, "{}", lines.len());
}

#[test]
fn a_storm_of_resets_inside_requests_and_responses_leaves_nothing_behind() {
    let scene = Scene::http();
    let requests = [
        format!("GET /bytes/1000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\nhalf"),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}"),
        "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
    ];
    storm(&scene, "requests", |count| {
        let mut socket = client::connect(scene.gateway.http());
        socket.write_all(requests[count % requests.len()].as_bytes()).expect("the gateway reads");
        reset(socket);
    });
    let lines = lines(&scene, 0);
    assert!(lines.len() <= CYCLES, "{}", lines.len());
}

#[test]
fn a_storm_of_refused_clients_is_counted_to_the_last_one() {
    let scene = Scene::http();
    storm(&scene, "refused clients", |_| {
        assert_eq!(scene.gateway.client().get("evil.example", "/").status, 502);
    });
    assert_eq!(lines(&scene, CYCLES).len(), CYCLES);
    assert_eq!(scene.connections(), 1);
    let denied = "portcullis_denied_total{reason=\"host_not_listed\",rule=\"\"}";
    assert_eq!(scene.gateway.metric(denied), Some(1000.0));
}

#[test]
fn a_storm_of_names_grows_no_table_without_bound() {
    let scene = Scene::http();
    let mut client = scene.gateway.client();
    let requests: Vec<_> = (0..5_000).map(|count| format!("flood-{count}.example")).collect();
    for piece in requests.chunks(50) {
        client.send(piece.iter().map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).collect::<String>());
        for _ in piece {
            assert_eq!(client.response().status, 502);
        }
    }
    let denied = scene.gateway.ask("/denied").expect("the admin endpoint answers");
    assert!(denied.text().matches("flood-").count() <= 1024);
    let metrics = scene.gateway.ask("/metrics").expect("the admin endpoint answers");
    assert!(!metrics.text().contains("flood-"), "a label took a value that a client chose");
}

#[test]
fn one_source_cannot_take_all_places() {
    let scene = Scene::with(Gateway::builder().setting("limits: {sessionsPerSource: 20}\n"), service::http);
    let mut kept: Vec<_> = (0..20).map(|_| scene.gateway.client()).collect();
    for client in &mut kept {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    assert!(scene.gateway.client().is_closed());
    assert_eq!(kept[0].get(HOST, "/bytes/1").status, 200);
    kept.clear();
    wait_until("a place to be free", || {
        let mut client = scene.gateway.client();
        client.socket().write_all(format!("GET /bytes/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).ok()?;
        client.try_response().ok()
    });
}

/// Sends requests in large pieces, without end, and throws away the answers.
fn ask_without_end(address: SocketAddr, stop: &AtomicBool) {
    let piece = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".repeat(5_000);
    let mut socket = client::connect(address);
    let mut reader = socket.try_clone().expect("a descriptor is left");
    thread::scope(|scope| {
        scope.spawn(move || io::copy(&mut reader, &mut io::sink()));
        while !stop.load(Ordering::Relaxed) && socket.write_all(piece.as_bytes()).is_ok() {}
        let _ = socket.shutdown(Shutdown::Both);
    });
}

#[test]
fn clients_that_send_thousands_of_requests_in_one_piece_leave_others_their_turn() {
    let scene = Scene::http();
    let (stop, address) = (AtomicBool::new(false), scene.gateway.http());
    let slowest = thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| ask_without_end(address, &stop));
        }
        let mut client = scene.gateway.client();
        let slowest = (0..20).map(|_| {
            let started = Instant::now();
            assert_eq!(client.get(HOST, "/bytes/10").status, 200);
            started.elapsed()
        });
        let slowest = slowest.max();
        stop.store(true, Ordering::Relaxed);
        slowest
    });
    assert!(slowest.is_some_and(|slowest| slowest < Duration::from_millis(500)), "{slowest:?}");
}
