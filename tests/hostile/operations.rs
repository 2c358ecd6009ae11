//! Bad days of an operator, some of them made by others: hostile files, swapped files, logs that nobody reads, signals
//! without end, and web pages that find the admin endpoint.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::hello::Hello;
use crate::scene::{HOST, Scene, answer_to_tls, listed};
use crate::support::client::{self, Http};
use crate::support::gateway::Gateway;
use crate::support::resources;
use crate::support::service;
use crate::support::upstream::Upstream;
use crate::support::wait_until;

/// Files that cost a careless reader its memory, its stack, its time or its mind.
fn hostile_files() -> Vec<(&'static str, Vec<u8>)> {
    let bomb: String = (1..30).map(|level| format!("b{level}: &b{level} [{}]\n", aliases(level - 1))).collect();
    let entry = resources::http_entry("api", HOST, 80);
    let half = &entry[..entry.len() / 2];
    vec![
        ("a bomb of aliases", format!("b0: &b0 [x]\n{bomb}").into_bytes()),
        ("nested brackets", "[".repeat(1 << 20).into_bytes()),
        ("nested dashes", "- ".repeat(1 << 18).into_bytes()),
        (
            "nested mappings",
            (0..20_000).map(|depth| format!("{}a:\n", " ".repeat(depth % 500))).collect::<String>().into(),
        ),
        ("a key twice", entry.replace("spec:\n", "spec:\n  hosts: [evil.example]\n").into_bytes()),
        ("half a file", format!("{}\n  hosts: [", half.trim_end()).into_bytes()),
        ("no object", b"- 1\n- 2\n".to_vec()),
        ("bytes that are no text", b"a: \xff\xfe\n".to_vec()),
        ("control characters", b"a: \0\x01\n".to_vec()),
        ("an endless quote", format!("a: \"{}", "x".repeat(1 << 20)).into_bytes()),
    ]
}

fn aliases(level: usize) -> String {
    vec![format!("*b{level}"); 9].join(", ")
}

#[test]
fn hostile_files_never_take_force_and_cost_neither_time_nor_memory() {
    let scene = Scene::http();
    let gateway = &scene.gateway;
    let good = listed(scene.upstream.port());
    for (what, bytes) in hostile_files() {
        gateway.reload(&good);
        let started = Instant::now();
        fs::write(gateway.directory().join("resources.d/hostile.yaml"), &bytes).expect("the folder is ours");
        let generation = gateway.generation();
        gateway.signal(Signal::HUP);
        wait_until(what, || (gateway.metric("portcullis_config_last_reload_successful") == Some(0.0)).then_some(()));
        assert!(started.elapsed().as_secs() < 10, "{what}: {:?}", started.elapsed());
        assert_eq!(gateway.generation(), generation, "{what}");
        wait_until(what, || gateway.diagnostics().contains("hostile.yaml").then_some(()));
        assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200, "{what}");
        fs::remove_file(gateway.directory().join("resources.d/hostile.yaml")).expect("the file is there");
    }
    assert!(gateway.peak_memory_kib() < 512 * 1024, "{} KiB", gateway.peak_memory_kib());
}

#[test]
fn a_resource_that_is_no_file_stops_no_reload() {
    let scene = Scene::http();
    let fifo = scene.gateway.directory().join("resources.d/fifo.yaml");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo is there");
    assert!(made.success());
    scene.gateway.signal(Signal::HUP);
    scene.gateway.wait_for_diagnostic("fifo.yaml");
    fs::remove_file(fifo).expect("it is there");
    scene.gateway.reload(&listed(scene.upstream.port()));
    scene.assert_serves();
}

/// A folder as Kubernetes mounts a ConfigMap: each version in a hidden folder, `..data` linked to one of them.
fn write_version(folder: &Path, version: usize) {
    let data = folder.join(format!("..v{version}"));
    fs::create_dir(&data).expect("the folder is ours");
    for name in ["a", "b"] {
        let entry = resources::http_entry(name, &format!("{name}{version}.example"), 80);
        // Large, so that reading one takes as long as several swaps.
        fs::write(data.join(format!("{name}.yaml")), entry + &"# padding\n".repeat(50_000))
            .expect("the folder is ours");
    }
}

fn swap(folder: &Path, version: usize) {
    symlink(format!("..v{version}"), folder.join("..next")).expect("the folder is ours");
    fs::rename(folder.join("..next"), folder.join("..data")).expect("the folder is ours");
}

#[test]
fn files_that_are_swapped_while_they_are_read_are_taken_from_one_version() {
    let gateway = Gateway::builder().start();
    let folder = gateway.directory().join("resources.d");
    (0..2).for_each(|version| write_version(&folder, version));
    swap(&folder, 0);
    for name in ["a.yaml", "b.yaml"] {
        symlink(format!("..data/{name}"), folder.join(name)).expect("the folder is ours");
    }
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Ends the thread below however this ends.
        let _stop = stop;
        let folder = &folder;
        scope.spawn(move || {
            let mut versions = (0..2).cycle();
            // As fast as a disk, not as fast as a loop: a reader must have a chance.
            while stopped.recv_timeout(Duration::from_millis(3)) == Err(RecvTimeoutError::Timeout) {
                versions.by_ref().take(1).for_each(|version| swap(folder, version));
            }
        });
        for _ in 0..100 {
            let reloads = reloads(&gateway);
            gateway.signal(Signal::HUP);
            wait_until("a reload", || (self::reloads(&gateway) > reloads).then_some(()));
            let text = gateway.ask("/serviceentries").expect("the admin endpoint answers").text().to_owned();
            let has = |host: &str| text.contains(host);
            let (old, new) = (has("a0.example"), has("a1.example"));
            assert_eq!((has("b0.example"), has("b1.example")), (old, new), "two versions in one: {text}");
        }
    });
    swap(&folder, 1);
    gateway.signal(Signal::HUP);
    wait_until("the last version", || {
        gateway.ask("/serviceentries").filter(|answer| answer.text().contains("a1.example"))
    });
}

/// Reloads that have ended, well or not.
fn reloads(gateway: &Gateway) -> u64 {
    let count = |result| gateway.metric(&format!("portcullis_reloads_total{{result=\"{result}\"}}")).unwrap_or(0.0);
    (count("success") + count("failure")) as u64
}

#[test]
fn a_storm_of_signals_over_broken_and_good_files_fails_no_request() {
    let scene = Scene::http();
    let gateway = &scene.gateway;
    let good = listed(scene.upstream.port());
    let mut client = gateway.client();
    for round in 0..200 {
        gateway.write_resources(if round % 2 == 0 { "kind: [" } else { &good });
        gateway.signal(Signal::HUP);
        assert_eq!(client.get(HOST, "/bytes/10").status, 200, "round {round}");
        assert_eq!(gateway.client().get(HOST, "/bytes/10").status, 200, "round {round}");
    }
    gateway.reload(&good);
    assert_eq!(gateway.metric("portcullis_config_last_reload_successful"), Some(1.0));
    assert!(gateway.peak_memory_kib() < 256 * 1024, "{} KiB", gateway.peak_memory_kib());
}

/// Makes thousands of long lines, for a listed host and for another.
fn fill_the_log(gateway: &Gateway) {
    let request = format!("GET /{} HTTP/1.1\r\nHost: evil.example\r\n\r\n", "x".repeat(60_000));
    let mut client = gateway.client();
    for _ in 0..1_500 {
        client.send(&request);
        assert_eq!(client.response().status, 502);
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nobody_and_what_is_lost_is_counted() {
    let upstream = Upstream::plain(service::http);
    let fifo = |directory: &Path| {
        assert!(Command::new("mkfifo").arg(directory.join("access.log")).status().expect("mkfifo is there").success());
    };
    let gateway = Gateway::builder().host(HOST).resources(listed(upstream.port())).prepare(fifo).start();
    // A reader that holds the FIFO open and never reads.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(gateway.directory().join("access.log"));
    fill_the_log(&gateway);
    assert_eq!(gateway.client().get(HOST, "/bytes/10").status, 200);
    wait_until("lines to be dropped", || {
        gateway.metric("portcullis_access_log_dropped_total").filter(|dropped| *dropped > 0.0)
    });
    assert!(gateway.peak_memory_kib() < 192 * 1024, "{} KiB", gateway.peak_memory_kib());
}

#[test]
fn a_full_disk_stops_nobody_and_what_is_lost_is_counted() {
    let upstream = Upstream::plain(service::http);
    let full = |directory: &Path| symlink("/dev/full", directory.join("access.log")).expect("the folder is ours");
    let mut gateway = Gateway::builder().host(HOST).resources(listed(upstream.port())).prepare(full).start();
    for _ in 0..100 {
        assert_eq!(gateway.client().get(HOST, "/bytes/10").status, 200);
    }
    wait_until("every line to be counted as lost", || {
        gateway.metric("portcullis_access_log_dropped_total").filter(|dropped| *dropped >= 100.0)
    });
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
}

#[test]
fn metrics_do_not_grow_with_what_clients_make_up() {
    let scene = Scene::http();
    let rows = || scene.gateway.ask("/metrics").expect("the admin endpoint answers").text().lines().count();
    let mut client = scene.gateway.client();
    let mut ask = |number: usize| {
        let method = format!("M{number}");
        let head = format!("{method} /p{number}?q{number} HTTP/1.1\r\nUser-Agent: u{number}\r\nX-{number}: y\r\n");
        client.send(format!("{head}Host: {HOST}\r\n\r\n"));
        assert_eq!(client.response().status, 200);
        client.send(format!("{head}Host: n{number}.example\r\n\r\n"));
        assert_eq!(client.response().status, 502);
        answer_to_tls(&scene.gateway, &Hello::named(format!("s{number}.example").as_bytes()).bytes());
    };
    ask(0);
    let before = rows();
    (1..500).for_each(&mut ask);
    assert_eq!(rows(), before);
}

/// Sends a request to the admin endpoint as it stands; the status.
fn admin(gateway: &Gateway, request: &str) -> u16 {
    let mut client = Http::connect(gateway.admin());
    client.send(request);
    client.response().status
}

#[test]
fn no_web_page_reaches_the_admin_endpoint() {
    let scene = Scene::http();
    let gateway = &scene.gateway;
    let (own, generation) = (gateway.admin(), gateway.generation());
    let foreign = "Host: rebound.example\r\n";
    for (what, request, status) in [
        ("a name that was bound to our address", format!("GET /config_dump HTTP/1.1\r\n{foreign}\r\n"), 403),
        ("the same with our port", format!("GET / HTTP/1.1\r\nHost: rebound.example:{}\r\n\r\n", own.port()), 403),
        ("an absolute target", format!("GET http://rebound.example/ HTTP/1.1\r\nHost: {own}\r\n\r\n"), 403),
        ("a form", format!("POST /reload HTTP/1.1\r\nHost: {own}\r\nOrigin: http://evil.example\r\n\r\n"), 403),
        ("a sandboxed form", format!("POST /drain HTTP/1.1\r\nHost: {own}\r\nOrigin: null\r\n\r\n"), 403),
        ("an image", format!("GET /drain HTTP/1.1\r\nHost: {own}\r\n\r\n"), 405),
        ("a link", format!("GET /reload HTTP/1.1\r\nHost: {own}\r\n\r\n"), 405),
        ("another method", format!("PUT /reload HTTP/1.1\r\nHost: {own}\r\n\r\n"), 405),
    ] {
        assert_eq!(admin(gateway, &request), status, "{what}");
    }
    assert_eq!((gateway.generation(), reloads(gateway)), (generation, 0));
    assert_eq!(admin(gateway, &format!("POST /reload HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{own}\r\n\r\n")), 200);
    scene.assert_serves();
}

#[test]
fn clients_that_hold_the_admin_endpoint_do_not_keep_it() {
    let scene = Scene::http();
    let held: Vec<_> = (0..200)
        .map(|_| {
            let mut socket = client::connect(scene.gateway.admin());
            socket.write_all(b"GET /ready HTTP/1.1\r\nHost: ").expect("the kernel takes it");
            socket
        })
        .collect();
    scene.assert_serves();
    wait_until("the admin endpoint to be free", || scene.gateway.ask("/ready").filter(|answer| answer.status == 200));
    drop(held);
    scene.assert_serves();
}

#[test]
fn a_trust_that_turned_to_rubbish_closes_its_host_and_no_other() {
    let authority = crate::support::certificates::Authority::new();
    let secure = Upstream::tls(&authority.issue("secure.example"), service::http);
    let plain = Upstream::plain(service::http);
    let tls = "      mode: SIMPLE\n      caCertificates: ../ca.pem\n";
    let yaml = [
        resources::http_entry("secure", "secure.example", secure.port()),
        resources::destination_rule("secure", "secure.example", tls),
        resources::http_entry("plain", HOST, plain.port()),
    ]
    .concat();
    let gateway = Gateway::builder()
        .host(HOST)
        .host("secure.example")
        .file("ca.pem", authority.pem())
        .resources(yaml.clone())
        .start();
    let statuses = || ["secure.example", HOST].map(|host| gateway.client().get(host, "/bytes/1").status);
    assert_eq!(statuses(), [200, 200]);
    for rubbish in ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(gateway.directory().join("ca.pem"), rubbish).expect("the folder is ours");
        gateway.reload(&yaml);
        assert_eq!(statuses(), [503, 200], "{rubbish:?}");
    }
    fs::write(gateway.directory().join("ca.pem"), authority.pem()).expect("the folder is ours");
    gateway.reload(&yaml);
    assert_eq!(statuses(), [200, 200]);
}

#[test]
fn rubbish_on_the_admin_endpoint_is_refused() {
    let gateway = Gateway::builder().start();
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n", &[b'A'; 1 << 20]] {
        let mut socket = client::connect(gateway.admin());
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(gateway.ask("/ready").expect("the admin endpoint answers").status, 200);
}
