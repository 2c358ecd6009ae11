//! The core of the other files where the kernel has no io_uring to offer, or may not: `ioDriver: epoll`.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use rustix::process::Signal;

use support::certificates::Authority;
use support::client;
use support::gateway::{Builder, Gateway};
use support::pattern::{self, Checker, intact};
use support::resources::{self, GOOGLEAPIS};
use support::service;
use support::upstream::Upstream;

const MIB: u64 = 1024 * 1024;

fn builder() -> Builder {
    Gateway::builder().host(GOOGLEAPIS).setting("ioDriver: epoll\n")
}

#[test]
fn the_driver_in_use_is_told() {
    let gateway = builder().workers(2).start();
    let metrics = gateway.ask("/metrics").expect("the admin endpoint answers");
    let workers: Vec<_> =
        metrics.text().lines().filter(|line| line.starts_with("portcullis_io_driver_info{")).collect();
    assert!(!workers.is_empty(), "{}", metrics.text());
    assert!(workers.iter().all(|line| line.contains("driver=\"epoll\"") && line.ends_with(" 1")), "{workers:?}");
}

#[test]
fn passthrough_works_in_both_directions_at_once() {
    let upstream = Upstream::plain(service::echo);
    let gateway = builder().resources(resources::passthrough(upstream.port())).start();
    let hello = client::hello(GOOGLEAPIS);
    let mut socket = client::connect(gateway.tls());
    socket.write_all(&hello).unwrap();
    let mut writing = socket.try_clone().unwrap();
    let writer = thread::spawn(move || {
        pattern::write(&mut writing, 16 * MIB).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut echoed = vec![0; hello.len()];
    socket.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, hello);
    let mut checker = Checker::default();
    checker.feed(&client::read_to_end(&mut socket));
    assert_eq!(checker.verdict(), intact(16 * MIB));
    writer.join().unwrap();
}

#[test]
fn a_hello_in_single_bytes_is_read() {
    let upstream = Upstream::plain(service::record);
    let gateway = builder().resources(resources::passthrough(upstream.port())).start();
    let hello = client::hello(GOOGLEAPIS);
    let mut socket = client::connect(gateway.tls());
    for byte in &hello {
        socket.write_all(std::slice::from_ref(byte)).unwrap();
    }
    upstream.seen().wait_for("the hello", |counts| counts.recorded == hello);
}

#[test]
fn origination_works_with_bodies_both_ways_and_keeps_connections() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let gateway = builder().trust(&authority).resources(resources::origination(upstream.port())).start();
    let mut client = gateway.client();
    for path in ["/bytes/300000", "/chunked/300000"] {
        let mut checker = Checker::default();
        checker.feed(&client.get(GOOGLEAPIS, path).body);
        assert_eq!(checker.verdict(), intact(300_000), "{path}");
    }
    assert_eq!(client.post(GOOGLEAPIS, "/verdict", &pattern::bytes(300_000)).text(), intact(300_000));
    assert_eq!(upstream.seen().counts().connections, 1);
}

#[test]
fn blocked_traffic_is_refused() {
    let gateway = builder().start();
    assert_eq!(gateway.client().get(GOOGLEAPIS, "/").status, 502);
    client::tls(gateway.tls(), GOOGLEAPIS, &Authority::new()).expect_err("nothing is listed");
}

#[test]
fn deadlines_pass() {
    let gateway = builder().setting("limits: {helloTimeout: 300ms}\n").start();
    let mut socket = client::connect(gateway.tls());
    socket.write_all(&client::hello(GOOGLEAPIS)[..100]).unwrap();
    client::read_to_end(&mut socket);
    assert_eq!(gateway.log().first().flags, "DPE");
}

#[test]
fn reloads_and_drains_work() {
    let upstream = Upstream::plain(service::http);
    let mut gateway = builder().start();
    gateway.reload(&resources::http_entry("api", GOOGLEAPIS, upstream.port()));
    let mut client = gateway.client();
    client.send(format!("GET /gate/500000 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    let head = client.head().unwrap();
    gateway.signal(Signal::TERM);
    upstream.seen().open_gate();
    let mut checker = Checker::default();
    client.body(&head, &mut |piece| checker.feed(piece)).unwrap();
    assert_eq!(checker.verdict(), intact(500_000));
    assert_eq!(gateway.wait_exit().code(), Some(0));
}
