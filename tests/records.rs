//! Records of any size from an upstream, in TLS 1.2 and 1.3, and answers that come in one read or in many.

mod support;

use std::io::{self, Read, Write};

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use support::certificates::Authority;
use support::client::Http;
use support::gateway::{Builder, Gateway};
use support::pattern::{self, Checker, intact};
use support::resources::{self, GOOGLEAPIS};
use support::service;
use support::stream::Stream;
use support::upstream::{Seen, Upstream};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// One byte and a full record; sizes around those at which data is copied or not; a head in several records, and a record
/// with the end of a head and the beginning of a body.
const ODD_SIZES: &[usize] = &[1, 30, 16_384, 4_096, 4_097, 1, 16_383, 2, 9_000];

fn upstream(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    service: impl Fn(&mut Stream, &Seen) -> io::Result<()> + Send + Sync + 'static,
) -> Upstream {
    Upstream::tls_with(authority.issue(GOOGLEAPIS).server_of(version), service)
}

fn before(upstream: &Upstream, authority: &Authority) -> Builder {
    Gateway::builder().host(GOOGLEAPIS).trust(authority).resources(resources::origination(upstream.port()))
}

/// A site whose every write makes records of these sizes, and the gateway in front of it.
fn cutting(version: &'static SupportedProtocolVersion, sizes: &'static [usize]) -> (Upstream, Gateway) {
    let authority = Authority::new();
    let upstream = upstream(&authority, version, move |stream, seen| {
        stream.cut_into(sizes);
        service::http(stream, seen)
    });
    let gateway = before(&upstream, &authority).start();
    (upstream, gateway)
}

/// How the pattern arrived in the answer to `path`, and whether the answer came to its proper end.
fn fetch(client: &mut Http, path: &str) -> (String, bool) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    let head = client.head().expect(path);
    let mut checker = Checker::default();
    let is_whole = client.body(&head, &mut |piece| checker.feed(piece)).is_ok();
    (checker.verdict(), is_whole)
}

#[test]
fn answers_arrive_intact_in_records_of_any_size() {
    for version in VERSIONS {
        let (_upstream, gateway) = cutting(version, ODD_SIZES);
        for path in ["/bytes/1", "/bytes/300000", "/chunked/300000", "/bytes/65536", "/until-close/300000"] {
            let (_, count) = path[1..].split_once('/').unwrap();
            let expected = (intact(count.parse().unwrap()), true);
            assert_eq!(fetch(&mut gateway.client(), path), expected, "{path} {version:?}");
        }
        let verdict = gateway.client().post(GOOGLEAPIS, "/verdict", &pattern::bytes(100_000));
        assert_eq!(verdict.text(), intact(100_000), "{version:?}");
    }
}

#[test]
fn answers_arrive_intact_in_records_of_one_byte() {
    for version in VERSIONS {
        let (_upstream, gateway) = cutting(version, &[1]);
        for path in ["/bytes/3000", "/chunked/3000", "/until-close/3000"] {
            assert_eq!(fetch(&mut gateway.client(), path), (intact(3000), true), "{path} {version:?}");
        }
    }
}

#[test]
fn old_clients_get_chunks_in_records_of_any_size_without_their_framing() {
    let (_upstream, gateway) = cutting(&TLS13, ODD_SIZES);
    let mut client = gateway.client();
    client.send(format!("GET /chunked/300000 HTTP/1.0\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    let mut checker = Checker::default();
    checker.feed(&client.response().body);
    assert_eq!(checker.verdict(), intact(300_000));
}

#[test]
fn an_answer_that_breaks_off_between_records_is_visibly_broken() {
    for version in VERSIONS {
        let (_upstream, gateway) = cutting(version, ODD_SIZES);
        for path in ["/truncated/100000", "/truncated/60000", "/vanish/60000"] {
            let (verdict, is_whole) = fetch(&mut gateway.client(), path);
            assert!(!is_whole && verdict.ends_with("intact"), "{path} {version:?}: {verdict}");
        }
    }
}

#[test]
fn protocols_that_follow_an_upgrade_arrive_intact_in_records_of_any_size() {
    let (_upstream, gateway) = cutting(&TLS13, ODD_SIZES);
    let mut client = gateway.client();
    client.send(format!(
        "GET /switch/send HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    ));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    let (mut socket, mut received) = client.into_rest();
    let begun = received.len();
    received.resize(100 * 1024, 0);
    socket.read_exact(&mut received[begun..]).unwrap();
    assert!(received == pattern::bytes(100 * 1024));
}

/// What was read before a forged record is passed on, nothing of the record nor of what follows it.
#[test]
fn a_forged_record_ends_an_answer_and_nothing_of_it_is_passed_on() {
    const HEADER: [u8; 5] = [0x17, 0x03, 0x03, 0x00, 0x20];
    for version in VERSIONS {
        let authority = Authority::new();
        let upstream = upstream(&authority, version, |stream, _| {
            support::http::Reader::new(&mut *stream).head()?;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")?;
            pattern::write(stream, 20_000)?;
            stream.inject(&[&HEADER[..], &[0; 0x20]].concat())?;
            pattern::write_range(stream, 20_000, 60_000)
        });
        let gateway = before(&upstream, &authority).start();
        assert_eq!(fetch(&mut gateway.client(), "/"), (intact(20_000), false), "{version:?}");
        let line = gateway.log().first();
        assert!(line.transport_failure.contains("TLS_error"), "{}", line.transport_failure);
    }
}

#[test]
fn an_upstream_that_becomes_slow_has_what_it_has_sent_passed_on() {
    let (upstream, gateway) = cutting(&TLS13, &[]);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(fetch(&mut client, "/bytes/65536"), (intact(65_536), true));
    }
    client.send(format!("GET /gate/60000 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    let head = client.head().unwrap();
    let (mut checker, mut received) = (Checker::default(), 0);
    let whole = client.body(&head, &mut |piece| {
        checker.feed(piece);
        received += piece.len();
        if received == 30_000 {
            upstream.seen().open_gate();
        }
    });
    assert!(whole.is_ok(), "{received} bytes, {whole:?}");
    assert_eq!(checker.verdict(), intact(60_000));
    assert_eq!(upstream.seen().counts().connections, 1);
}

#[test]
fn an_answer_that_breaks_off_while_its_rest_is_gathered_is_passed_on_as_far_as_it_came() {
    let (_upstream, gateway) = cutting(&TLS13, &[]);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(fetch(&mut client, "/bytes/65536"), (intact(65_536), true));
    }
    assert_eq!(fetch(&mut client, "/truncated/60000"), (intact(30_000), false));
}

/// A client that takes little at a time gets slices of which each may stop anywhere.
#[test]
fn a_client_with_a_small_window_gets_everything() {
    let (_upstream, gateway) = cutting(&TLS13, ODD_SIZES);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&gateway.http().into()).unwrap();
    let mut client = Http::over(socket.into());
    assert_eq!(fetch(&mut client, "/bytes/3000000"), (intact(3_000_000), true));
}
