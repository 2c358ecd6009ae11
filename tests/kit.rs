//! The instruments measured against each other, without the gateway: a test that fails elsewhere then means the gateway.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use support::certificates::{Authority, Identity};
use support::client::{self, Http};
use support::log::Log;
use support::pattern::{self, Checker, intact};
use support::service;
use support::upstream::Upstream;

const NAME: &str = "api.example.com";

fn address(upstream: &Upstream) -> SocketAddr {
    ([127, 0, 0, 1], upstream.port()).into()
}

#[test]
fn the_web_site_answers_as_its_paths_say() {
    let upstream = Upstream::plain(service::http);
    let mut client = Http::connect(address(&upstream));
    for path in ["/bytes/300000", "/chunked/300000", "/until-close/300000"] {
        let mut checker = Checker::default();
        checker.feed(&client.get(NAME, path).body);
        assert_eq!(checker.verdict(), intact(300_000), "{path}");
    }
    assert!(client.is_closed());
    let mut client = Http::connect(address(&upstream));
    assert_eq!(client.post(NAME, "/verdict", &pattern::bytes(70_000)).text(), intact(70_000));
    assert_eq!(client.get(NAME, "/status/304").status, 304);
    assert!(client.get(NAME, "/headers").text().contains("Host: api.example.com\r\n"));
    for path in ["/truncated/1000", "/truncated-chunks/1000", "/close"] {
        let mut client = Http::connect(address(&upstream));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
        client.try_response().expect_err(path);
    }
}

#[test]
fn a_wrong_byte_is_noticed() {
    let mut bytes = pattern::bytes(200_000);
    bytes[150_000] ^= 1;
    let mut checker = Checker::default();
    checker.feed(&bytes);
    assert_ne!(checker.verdict(), intact(200_000));
}

#[test]
fn sessions_resume_and_are_counted() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(NAME), service::echo);
    let config = Arc::new(client::trusting(&authority));
    for _ in 0..2 {
        let mut client = client::tls_with(&config, address(&upstream), NAME).unwrap();
        client.write_all(b"ping").unwrap();
        let mut reply = [0; 4];
        client.read_exact(&mut reply).unwrap();
        client::finish(&mut client);
        assert_eq!((&reply, client::read_to_end(&mut client)), (b"ping", Vec::new()));
    }
    let counts = upstream.seen().counts();
    assert_eq!((counts.handshakes_full, counts.handshakes_resumed), (1, 1));
    assert_eq!((counts.server_names, counts.bytes_received), (vec![NAME.to_owned(); 2], 8));
}

#[test]
fn bad_certificates_are_bad() {
    let authority = Authority::new();
    let bad = [
        authority.issue_expired(NAME),
        authority.issue_not_yet_valid(NAME),
        authority.issue("other.example.com"),
        authority.issue_common_name_only(NAME),
        Authority::new().issue(NAME),
        Identity::self_signed(NAME),
    ];
    for identity in bad {
        let upstream = Upstream::tls(&identity, service::http);
        client::tls(address(&upstream), NAME, &authority).expect_err("a bad certificate");
    }
}

#[test]
fn a_server_that_wants_a_client_certificate_refuses_without_one() {
    let authority = Authority::new();
    let upstream = Upstream::tls_with(authority.issue(NAME).server_for(&authority), service::echo);
    let mut client = client::tls(address(&upstream), NAME, &authority).unwrap();
    client.read_exact(&mut [0]).unwrap_err();
    upstream.seen().wait_for("the refusal", |counts| counts.errors.len() == 1);
}

#[test]
fn a_hello_in_many_records_holds_the_same_message() {
    let hello = client::hello(NAME);
    let records = client::into_records(&hello, 100);
    let mut message = Vec::new();
    let mut rest = records.as_slice();
    while let [22, 3, _, high, low, after @ ..] = rest {
        let (piece, next) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(piece);
        rest = next;
    }
    assert_eq!((message.as_slice(), rest), (&hello[5..], [].as_slice()));
}

#[test]
fn log_lines_are_read_by_position() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let lines = "[2026-01-02T03:04:05.678Z] \"GET /a?b=c HTTP/1.1\" 200 - via_upstream - \"-\" 0 12 3 2 \"-\" \"a \\\"b\\\\\" \
                 \"-\" \"api.example.com\" \"127.0.0.1:443\" outbound|443||api.example.com 127.0.0.1:5 127.0.0.1:6 \
                 127.0.0.1:7 - default\n[2026-01-02T03:04:05.678Z] \"- - -\" 0 UH - host_not_li";
    fs::write(&path, lines).unwrap();
    let all = Log::new(&path).lines();
    assert_eq!(all.len(), 1, "the second is not whole yet");
    assert_eq!((all[0].request.as_str(), all[0].code, all[0].bytes_sent), ("GET /a?b=c HTTP/1.1", 200, 12));
    assert_eq!((all[0].user_agent.as_str(), all[0].authority.as_str()), ("a \\\"b\\\\", NAME));
    assert_eq!(all[0].route, "default");
}
