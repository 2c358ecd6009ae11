//! Clients that mean no good, before and after their handshake.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use portcullis::limits::{SESSION_BYTES_MAX, SESSION_IDLE_BYTES_MAX};

use crate::scene::{API, MUTUAL, SIMPLE, Scene, server};
use crate::support::client::{self, read_to_end};
use crate::support::wait_until;

/// Clients of each crowd.
const CROWD: usize = 300;

/// What the allocator may take besides.
const SLACK_BYTES: usize = 4 << 20;

#[test]
fn a_handshake_that_does_not_go_on_is_cut_off_in_time() {
    let scene = Scene::with(
        |_| server("https", "HTTPS", API, SIMPLE),
        |builder| builder.setting("limits: {helloTimeout: 300ms}\n"),
    );
    let begun = Instant::now();
    let mut socket = client::connect(scene.gateway.tls());
    socket.write_all(&client::hello(API)).expect("the gateway reads");
    let answer = read_to_end(&mut socket);
    assert!(answer.first() == Some(&0x16), "a ServerHello: {:?}", answer.first());
    assert!(begun.elapsed().as_secs() < 10);
    let line = scene.gateway.log().first();
    assert_eq!((line.flags.as_str(), line.termination.as_str()), ("DPE", "client_tls_handshake_timeout"));
}

#[test]
fn garbage_in_place_of_a_hello_or_behind_it_is_refused() {
    let scene = Scene::new(SIMPLE);
    let mut socket = client::connect(scene.gateway.tls());
    socket.write_all(&[0x16, 0x03, 0x01, 0x00, 0x05, 0xff, 0xff, 0xff, 0xff, 0xff]).expect("the gateway reads");
    read_to_end(&mut socket);
    let mut socket = client::connect(scene.gateway.tls());
    socket
        .write_all(&[client::hello(API), vec![0x17, 0x03, 0x03, 0x00, 0x20], vec![0xaa; 32]].concat())
        .expect("it reads");
    read_to_end(&mut socket);
    let lines = scene.gateway.log().wait_for_count(2);
    assert_eq!((lines[0].flags.as_str(), lines[1].flags.as_str()), ("DPE", "DPE"));
    assert_eq!(lines[1].termination, "client_tls_handshake_failure");
    assert!(lines[1].transport_failure.starts_with("TLS_error"), "{}", lines[1].transport_failure);
    assert_eq!(scene.client().get(API, "/bytes/1").status, 200);
}

#[test]
fn a_record_that_was_touched_ends_the_session_with_an_alert() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    assert_eq!(client.get(API, "/bytes/1").status, 200);
    let (mut stream, _) = client.into_rest();
    let record = [&[0x17, 0x03, 0x03, 0x00, 0x20][..], &[0xaa; 32]].concat();
    stream.sock.write_all(&record).expect("the connection is open");
    let error = stream.read(&mut [0; 8]).expect_err("an alert");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_handshake_is_told_of() {
    let scene = Scene::new(SIMPLE);
    let mut socket = client::connect(scene.gateway.tls());
    socket.write_all(&client::hello(API)).expect("the gateway reads");
    assert!(socket.read(&mut [0; 16]).expect("a ServerHello") > 0);
    socket.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    let line = scene.gateway.log().first();
    assert_eq!(line.termination, "client_tls_handshake_failure");
    assert!(line.transport_failure.contains("closed the connection"), "{}", line.transport_failure);
}

/// Opens a crowd of clients, and compares what each costs.
#[track_caller]
fn assert_cost<T>(scene: &Scene, what: &str, most: usize, open: impl Fn() -> T) {
    assert!(scene.showing_client().get(API, "/bytes/10").status == 200);
    let first = open();
    let before = scene.gateway.memory_kib();
    let crowd: Vec<T> = (0..CROWD).map(|_| open()).collect();
    wait_until("the sessions to be there", || {
        (scene.gateway.metric("portcullis_sessions_active{worker=\"0\"}") > Some(CROWD as f64)).then_some(())
    });
    assert!(scene.showing_client().get(API, "/bytes/10").status == 200);
    let grown = usize::try_from(scene.gateway.memory_kib().saturating_sub(before)).unwrap_or(usize::MAX) * 1024;
    println!("{what}: {} bytes per session", grown / CROWD);
    assert!(grown <= CROWD * most + SLACK_BYTES, "{what}: {} bytes per session", grown / CROWD);
    drop((first, crowd));
}

#[test]
fn clients_that_wait_within_tls_own_no_buffers() {
    for tls in [SIMPLE, MUTUAL] {
        let scene = Scene::new(tls);
        assert_cost(&scene, tls, SESSION_IDLE_BYTES_MAX, || {
            let mut client = scene.showing_client();
            assert_eq!(client.get(API, "/bytes/10").status, 200);
            client
        });
    }
}

#[test]
fn clients_that_do_not_read_cost_no_more_than_their_bounds() {
    let scene = Scene::new(SIMPLE);
    assert_cost(&scene, "an answer that nobody reads", SESSION_BYTES_MAX, || {
        let mut client = scene.showing_client();
        client.send(format!("GET /bytes/100000000 HTTP/1.1\r\nHost: {API}\r\n\r\n"));
        client.head().expect("a head");
        client
    });
}

#[test]
fn a_flood_of_handshakes_that_do_not_go_on_is_bounded() {
    let scene = Scene::new(SIMPLE);
    let hello = client::hello(API);
    assert_cost(&scene, "half a handshake", 2 * SESSION_IDLE_BYTES_MAX, || -> TcpStream {
        let mut socket = client::connect(scene.gateway.tls());
        socket.write_all(&hello).expect("the gateway reads");
        assert!(socket.read(&mut [0; 16]).expect("a ServerHello") > 0);
        socket
    });
    let descriptors = scene.gateway.open_descriptors();
    assert!(descriptors < CROWD + 100, "{descriptors}");
}
