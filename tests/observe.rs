//! `portcullis observe`: what it prints opens what was denied, and nothing else.

mod support;

use std::io::{Read, Write};
use std::process::Output;

use support::certificates::Authority;
use support::client;
use support::gateway::{Gateway, command};
use support::resources;
use support::service;
use support::upstream::Upstream;

fn observe(admin: &str) -> Output {
    command().args(["observe", "--admin", admin]).output().expect("it runs")
}

#[test]
fn what_it_prints_opens_what_was_denied() {
    let authority = Authority::new();
    let secure = Upstream::tls(&authority.issue("api.example.com"), service::http);
    let plain = Upstream::plain(service::http);
    let gateway = Gateway::builder().host("api.example.com").host("www.example.org").start();
    assert!(client::tls(gateway.tls(), "api.example.com", &authority).is_err());
    for host in ["www.example.org", "192.0.2.1"] {
        assert_eq!(gateway.client().get(host, "/").status, 502);
    }

    let output = observe(&gateway.admin().to_string());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let yaml = String::from_utf8(output.stdout).expect("text");
    assert!(!yaml.contains("192.0.2.1"), "{yaml}");

    // The upstreams listen on ports of their own; nothing else is changed.
    let target = |yaml: &str, protocol: &str, port: u16| {
        let (from, to) = (format!("protocol: {protocol}\n"), format!("protocol: {protocol}\n    targetPort: {port}\n"));
        assert_eq!(yaml.matches(&from).count(), 1, "{yaml}");
        yaml.replace(&from, &to)
    };
    gateway.reload(&target(&target(&yaml, "HTTPS", secure.port()), "HTTP", plain.port()));
    let mut client = client::tls(gateway.tls(), "api.example.com", &authority).expect("it is open now");
    client.write_all(b"GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n").expect("it is open");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(gateway.client().get("www.example.org", "/").status, 200);
    assert!(client::tls(gateway.tls(), "www.example.org", &authority).is_err(), "TLS was never asked for");
}

#[test]
fn a_gateway_that_denied_nothing_gets_nothing() {
    let gateway = Gateway::builder().resources(resources::PUBLISHED_PASSTHROUGH).start();
    let output = observe(&gateway.admin().to_string());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
}

#[test]
fn without_gateway_it_fails() {
    let output = observe("unix:/does/not/exist.sock");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    assert_eq!(observe("nowhere").status.code(), Some(2));
}
