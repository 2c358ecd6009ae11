//! Configurations that change, and ends that come, while traffic passes.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use support::certificates::Authority;
use support::client::{self, status};
use support::gateway::Gateway;
use support::http::Reader;
use support::pattern::{Checker, intact};
use support::resources::{self, GOOGLEAPIS};
use support::service;
use support::upstream::Upstream;
use support::wait_until;

const HOST: &str = "api.example.com";
const OTHER: &str = "other.example.com";

/// A gateway that may reach [`HOST`] with plain HTTP, and the resources that say so.
fn open(upstream: &Upstream) -> (Gateway, String) {
    let yaml = resources::http_entry("api", HOST, upstream.port());
    (Gateway::builder().host(HOST).host(OTHER).resources(yaml.clone()).start(), yaml)
}

#[test]
fn tls_is_blocked_allowed_and_blocked_again() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let gateway = Gateway::builder().host(GOOGLEAPIS).start();
    client::tls(gateway.tls(), GOOGLEAPIS, &authority).expect_err("nothing is listed");
    gateway.reload(&resources::passthrough(upstream.port()));
    client::tls(gateway.tls(), GOOGLEAPIS, &authority).expect("it is listed");
    gateway.reload("");
    client::tls(gateway.tls(), GOOGLEAPIS, &authority).expect_err("it is listed no more");
}

#[test]
fn http_is_blocked_allowed_and_blocked_again() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let gateway = Gateway::builder().host(GOOGLEAPIS).trust(&authority).start();
    assert_eq!(gateway.client().get(GOOGLEAPIS, "/").status, 502);
    gateway.reload(&resources::origination(upstream.port()));
    assert_eq!(gateway.client().get(GOOGLEAPIS, "/").status, 200);
    gateway.reload("");
    assert_eq!(gateway.client().get(GOOGLEAPIS, "/").status, 502);
}

#[test]
fn a_live_keep_alive_connection_obeys_the_new_configuration() {
    let upstream = Upstream::plain(service::http);
    let (gateway, yaml) = open(&upstream);
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    gateway.reload("");
    client.send(format!("GET /bytes/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    // The contract leaves the choice: the new answer, or a closed connection.
    if let Ok(response) = client.try_response() {
        assert_eq!(response.status, 502);
    }
    assert_eq!(upstream.seen().counts().requests.len(), 1);
    gateway.reload(&yaml);
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
}

#[test]
fn a_response_under_way_survives_the_end_of_its_entry() {
    let upstream = Upstream::plain(service::http);
    let (gateway, _) = open(&upstream);
    let mut client = gateway.client();
    client.send(format!("GET /gate/500000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let head = client.head().unwrap();
    gateway.reload("");
    assert_eq!(gateway.client().get(HOST, "/").status, 502);
    upstream.seen().open_gate();
    let mut checker = Checker::default();
    client.body(&head, &mut |piece| checker.feed(piece)).unwrap();
    assert_eq!((status(&head), checker.verdict()), (200, intact(500_000)));
}

#[test]
fn an_upstream_connection_in_use_during_a_reload_serves_the_next_request() {
    let upstream = Upstream::plain(service::http);
    let (gateway, yaml) = open(&upstream);
    let mut client = gateway.client();
    client.send(format!("GET /gate/500000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let head = client.head().unwrap();
    gateway.reload(&format!("{yaml}{}", resources::http_entry("other", OTHER, upstream.port())));
    upstream.seen().open_gate();
    client.body(&head, &mut |_| {}).unwrap();
    assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    assert_eq!(upstream.seen().counts().connections, 1);
}

#[test]
fn an_upstream_connection_in_use_ends_with_its_request_where_a_reload_has_changed_its_cluster() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let entry = resources::http_entry("api", GOOGLEAPIS, upstream.port());
    let yaml = |tls: &str| format!("{entry}{}", resources::destination_rule("api", GOOGLEAPIS, tls));
    let resources = yaml("      mode: SIMPLE\n");
    let gateway = Gateway::builder().host(GOOGLEAPIS).trust(&authority).resources(resources).start();
    let mut client = gateway.client();
    client.send(format!("GET /gate/500000 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    let head = client.head().unwrap();
    gateway.reload(&yaml(&format!("      mode: SIMPLE\n      subjectAltNames: [{GOOGLEAPIS}]\n")));
    upstream.seen().open_gate();
    client.body(&head, &mut |_| {}).unwrap();
    upstream.seen().wait_for("the connection to end", |counts| counts.ended == 1);
    assert_eq!(client.get(GOOGLEAPIS, "/bytes/1").status, 200);
    assert_eq!(upstream.seen().counts().connections, 2);
}

#[test]
fn a_tunnel_under_way_survives_the_end_of_its_entry() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let gateway = Gateway::builder().host(GOOGLEAPIS).resources(resources::passthrough(upstream.port())).start();
    let mut tunnel = Reader::new(client::tls(gateway.tls(), GOOGLEAPIS, &authority).unwrap());
    write!(tunnel.stream(), "GET /gate/500000 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n").unwrap();
    let head = tunnel.head().unwrap().expect("an answer");
    gateway.reload("");
    client::tls(gateway.tls(), GOOGLEAPIS, &authority).expect_err("new sessions are refused");
    upstream.seen().open_gate();
    let mut checker = Checker::default();
    tunnel.body(support::http::framing(&head).unwrap(), &mut |piece| checker.feed(piece)).unwrap();
    assert_eq!(checker.verdict(), intact(500_000));
}

#[test]
fn a_broken_file_leaves_the_running_configuration_in_force_and_says_why() {
    let upstream = Upstream::plain(service::http);
    let (gateway, yaml) = open(&upstream);
    let broken = yaml.replace("resolution: DNS", "resolution: GUESS") + "---\nnot: [closed\n";
    gateway.reload_in_vain(&broken);
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
    gateway.wait_for_diagnostic("resources.yaml");

    gateway.reload("");
    assert_eq!(gateway.client().get(HOST, "/").status, 502);
    assert_eq!(gateway.metric("portcullis_config_last_reload_successful"), Some(1.0));
}

#[test]
fn one_bad_document_keeps_the_good_ones_of_the_same_reload_out() {
    let upstream = Upstream::plain(service::http);
    let (gateway, yaml) = open(&upstream);
    let addition = resources::http_entry("other", OTHER, upstream.port());
    gateway.reload_in_vain(&format!("{yaml}{addition}---\nkind: ServiceEntry\nmetadata: {{name: bad}}\nspec: 7\n"));
    assert_eq!(gateway.client().get(OTHER, "/bytes/1").status, 502);
}

#[test]
fn a_resources_folder_that_vanished_leaves_the_running_configuration_in_force() {
    let upstream = Upstream::plain(service::http);
    let (gateway, _) = open(&upstream);
    fs::rename(gateway.directory().join("resources.d"), gateway.directory().join("elsewhere")).unwrap();
    gateway.signal(Signal::HUP);
    wait_until("the reload to be refused", || {
        gateway.metric("portcullis_config_last_reload_successful").filter(|value| *value == 0.0)
    });
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
}

#[test]
fn a_reload_reads_certificates_again() {
    let (wrong, right) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls(&right.issue(HOST), service::http);
    let yaml = resources::originating_entry("api", HOST, upstream.port());
    let gateway = Gateway::builder().host(HOST).trust(&wrong).resources(yaml.clone()).start();
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 503);
    fs::write(gateway.directory().join("roots.pem"), right.pem()).unwrap();
    gateway.reload(&yaml);
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
    // Back again: a pooled connection of the old trust must not serve the new one.
    fs::write(gateway.directory().join("roots.pem"), wrong.pem()).unwrap();
    gateway.reload(&yaml);
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 503);
}

#[test]
fn a_storm_of_signals_under_load_fails_no_request() {
    let upstream = Upstream::plain(service::http);
    let yaml = resources::http_entry("api", HOST, upstream.port());
    let more = format!("{yaml}{}", resources::http_entry("other", OTHER, upstream.port()));
    let gateway = Gateway::builder().host(HOST).host(OTHER).workers(2).resources(yaml.clone()).start();
    let before = gateway.generation();
    let (done, requests) = (AtomicBool::new(false), AtomicUsize::new(0));

    thread::scope(|scope| {
        for keep in [true, true, false, false] {
            let (gateway, done, requests) = (&gateway, &done, &requests);
            scope.spawn(move || load(gateway, keep, done, requests));
        }
        // A guard: a panic below must end the load too, or the scope would wait for it for ever.
        let _end = RaiseOnDrop(&done);
        for round in 0..60 {
            gateway.write_resources(if round % 2 == 0 { &more } else { &yaml });
            gateway.signal(Signal::HUP);
            let seen = requests.load(Ordering::Relaxed);
            wait_until("the load to go on", || (requests.load(Ordering::Relaxed) > seen).then_some(()));
        }
    });
    assert!(gateway.generation() > before, "no reload took force");
}

struct RaiseOnDrop<'a>(&'a AtomicBool);

impl Drop for RaiseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn load(gateway: &Gateway, keep: bool, done: &AtomicBool, requests: &AtomicUsize) {
    let mut client = gateway.client();
    while !done.load(Ordering::Relaxed) {
        if !keep {
            client = gateway.client();
        }
        assert_eq!(client.get(HOST, "/bytes/1000").status, 200);
        requests.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn reload_after_reload_holds_no_more_memory() {
    let entry = |index: usize| resources::tls_entry(&format!("n{index}"), &format!("n{index}.example.com"), 443);
    let yaml = |hosts: usize| (0..hosts).map(entry).collect::<String>();
    let gateway = Gateway::builder().resources(yaml(2_000)).start();
    let reload = |number: usize| gateway.reload(&yaml(2_000 + number % 2));
    // The first ones find how much a load needs beside the configuration in force.
    (0..5).for_each(reload);
    let before = gateway.memory_kib();
    (5..20).for_each(reload);
    // Were one configuration of each reload kept, it would be at least 18 MiB.
    let grown = gateway.memory_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

#[test]
fn resources_that_change_are_noticed_where_watching_is_on() {
    let upstream = Upstream::plain(service::http);
    let gateway = Gateway::builder().host(HOST).setting("watch: true\n").start();
    gateway.write_resources(&resources::http_entry("api", HOST, upstream.port()));
    wait_until("the new resources to be in force", || {
        (gateway.client().get(HOST, "/bytes/1").status == 200).then_some(())
    });
}

#[test]
fn sigusr1_opens_the_access_log_anew() {
    let gateway = Gateway::builder().start();
    assert_eq!(gateway.client().get("one.example", "/").status, 502);
    gateway.log().wait_for(|line| line.authority == "one.example");
    fs::rename(gateway.directory().join("access.log"), gateway.directory().join("access.log.1")).unwrap();
    gateway.signal(Signal::USR1);
    // Until the file is there again, requests go to the renamed one.
    wait_until("a line in the new file", || {
        assert_eq!(gateway.client().get("two.example", "/").status, 502);
        gateway.log().lines().into_iter().find(|line| line.authority == "two.example")
    });
}

#[test]
fn sigterm_lets_requests_finish_and_then_ends_well() {
    let upstream = Upstream::plain(service::http);
    let (mut gateway, _) = open(&upstream);
    let mut client = gateway.client();
    client.send(format!("GET /gate/500000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let head = client.head().unwrap();

    gateway.signal(Signal::TERM);
    let refused = || std::net::TcpStream::connect(gateway.http()).is_err().then_some(());
    wait_until("the listener to close", refused);
    assert!(gateway.is_running(), "a request is under way");

    upstream.seen().open_gate();
    let mut checker = Checker::default();
    client.body(&head, &mut |piece| checker.feed(piece)).unwrap();
    assert_eq!(checker.verdict(), intact(500_000));
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert_eq!(gateway.log().first().code, 200);
}

#[test]
fn a_drain_ends_idle_keep_alive_connections() {
    let upstream = Upstream::plain(service::http);
    let (mut gateway, _) = open(&upstream);
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    gateway.signal(Signal::TERM);
    assert!(client.is_closed());
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_drain_ends_when_its_time_is_up() {
    let upstream = Upstream::plain(service::http);
    let yaml = resources::http_entry("api", HOST, upstream.port());
    let mut gateway = Gateway::builder().host(HOST).setting("drain: {timeout: 300ms}\n").resources(yaml).start();
    let mut client = gateway.client();
    client.send(format!("GET /gate/500000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    client.head().unwrap();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

/// What a peer finds at the end of what it reads.
fn end_of(stream: &mut impl Read) -> Result<usize, ErrorKind> {
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return Ok(0),
            Ok(_) => {}
            Err(error) => return Err(error.kind()),
        }
    }
}

#[test]
fn an_answer_that_a_drain_cuts_does_not_look_whole() {
    let upstream = Upstream::plain(|stream, seen| {
        let mut reader = Reader::new(stream);
        reader.head()?;
        reader.stream().write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")?;
        seen.wait_at_gate();
        Ok(())
    });
    let yaml = resources::http_entry("api", HOST, upstream.port());
    let mut gateway = Gateway::builder().host(HOST).setting("drain: {timeout: 200ms}\n").resources(yaml).start();
    let mut client = gateway.client();
    // To HTTP/1.0 a body without a length ends with the connection.
    client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    client.head().unwrap();
    gateway.signal(Signal::TERM);
    assert_eq!(end_of(client.socket()), Err(ErrorKind::ConnectionReset));
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert_eq!(gateway.log().first().flags, "DT");
}

#[test]
fn a_tunnel_that_a_drain_cuts_is_reset_on_both_sides() {
    let upstream = Upstream::plain(|stream, seen| {
        let count = stream.read(&mut [0; 4096])?;
        stream.write_all(&vec![0; count])?;
        let end = end_of(stream);
        seen.update(|counts| counts.requests.push(format!("{end:?}")));
        Ok(())
    });
    let yaml = resources::passthrough(upstream.port());
    let mut gateway = Gateway::builder().host(GOOGLEAPIS).setting("drain: {timeout: 200ms}\n").resources(yaml).start();
    let mut client = client::connect(gateway.tls());
    client.write_all(&client::hello(GOOGLEAPIS)).unwrap();
    client.read_exact(&mut [0; 8]).unwrap();
    gateway.signal(Signal::TERM);
    assert_eq!(end_of(&mut client), Err(ErrorKind::ConnectionReset));
    assert_eq!(gateway.wait_exit().code(), Some(0));
    let counts = upstream.seen().wait_for("the end of the tunnel", |counts| !counts.requests.is_empty());
    assert_eq!(counts.requests, ["Err(ConnectionReset)"]);
    assert_eq!(gateway.log().first().flags, "DT");
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let upstream = Upstream::plain(service::http);
    let (mut gateway, _) = open(&upstream);
    let mut client = gateway.client();
    client.send(format!("GET /gate/500000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    client.head().unwrap();
    gateway.signal(Signal::TERM);
    let refused = || std::net::TcpStream::connect(gateway.http()).is_err().then_some(());
    wait_until("the drain to begin", refused);
    gateway.signal(Signal::TERM);
    // drain.timeout is 30 s here, longer than a wait may take.
    gateway.wait_exit();
}

#[test]
fn sigint_ends_at_once() {
    let upstream = Upstream::plain(service::http);
    let (mut gateway, _) = open(&upstream);
    let mut client = gateway.client();
    client.send(format!("GET /gate/500000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    client.head().unwrap();
    gateway.signal(Signal::INT);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn tls_sessions_of_one_client_resume_across_a_reload() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let yaml = resources::passthrough(upstream.port());
    let gateway = Gateway::builder().host(GOOGLEAPIS).resources(yaml.clone()).start();
    let config = Arc::new(client::trusting(&authority));
    for _ in 0..2 {
        let mut tunnel = Reader::new(client::tls_with(&config, gateway.tls(), GOOGLEAPIS).unwrap());
        write!(tunnel.stream(), "GET /bytes/1 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n").unwrap();
        assert_eq!(status(&tunnel.head().unwrap().unwrap()), 200);
        gateway.reload(&yaml);
    }
    assert_eq!(upstream.seen().counts().handshakes_resumed, 1);
}
