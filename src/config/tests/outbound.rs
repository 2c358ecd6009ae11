//! What becomes of a host that nothing names, on ports of every protocol: as Istio's own simulation of its sidecar has it
//! (pilot's TestPassthroughTraffic), for captured traffic.

use std::net::IpAddr;

use super::*;
use crate::failure::Failure;
use crate::route::decide::{self, Detection, HttpVerdict, Source, TcpVerdict, TlsVerdict};
use crate::session::http::facts::Facts;
use crate::snapshot::{Outbound, Settings, Snapshot};
use crate::wire::http1::{HeadLimits, Parsed, parse_request};

const PORTS: [(u16, &str); 7] =
    [(80, "HTTP"), (81, ""), (82, "TCP"), (83, "TLS"), (84, "HTTPS"), (85, "GRPC"), (86, "HTTP2")];

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Http,
    /// TLS, whatever is inside, and whatever its ALPN says.
    Tls,
    Tcp,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It reaches the service of this port.
    Service,
    /// It goes where it meant to go: Istio's PassthroughCluster.
    Anywhere,
    /// It is blocked: 502 where HTTP is spoken, else Istio's BlackHoleCluster.
    Blocked,
}

fn resources(addresses: &str) -> String {
    let ports = PORTS.map(|(number, protocol)| {
        let protocol = if protocol.is_empty() { String::new() } else { format!(", protocol: {protocol}") };
        format!("{{number: {number}, name: p{number}{protocol}}}")
    });
    entry("se", "istio.example", &ports.join(", "), &format!("location: MESH_EXTERNAL, resolution: DNS{addresses}"))
}

/// The decision of a session, in the order of its stages: what the first bytes have a say in, what they are, and then.
fn outcome(snapshot: &Snapshot, source: Source, call: Call, host: &str) -> Outcome {
    let name = host.parse().expect("a valid name");
    let detection = decide::detection(snapshot, source);
    let by_address = |name| match decide::tcp(snapshot, source, name) {
        Ok(TcpVerdict::Forward(..)) => Outcome::Service,
        Ok(TcpVerdict::Anywhere) => Outcome::Anywhere,
        Err(failure) => blocked(&failure),
    };
    match call {
        _ if detection == Detection::Nothing => by_address(None),
        Call::Tls if decide::carries_tls_as_tcp(snapshot, source, detection, Some(&name)) => by_address(Some(&name)),
        Call::Tls => match decide::tls(snapshot, source, &name) {
            Ok(TlsVerdict::Forward(..)) => Outcome::Service,
            Ok(TlsVerdict::Anywhere) => Outcome::Anywhere,
            Err(failure) => blocked(&failure),
        },
        Call::Http if decide::carries_http_as_tcp(snapshot, source, detection) => by_address(None),
        Call::Http => {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let limits = HeadLimits { bytes: 1024, fields: 8 };
            let Parsed::Complete(request) = parse_request(head.as_bytes(), limits) else { panic!("a request") };
            let facts = Facts::new(&request, head.as_bytes(), snapshot.settings.normalization).expect("a path");
            match decide::http(snapshot, source, Some(&name), &facts) {
                Ok(HttpVerdict::Anywhere) => Outcome::Anywhere,
                Ok(_) => Outcome::Service,
                Err(failure) => blocked(&failure),
            }
        }
        Call::Tcp => by_address(None),
    }
}

fn blocked(failure: &Failure) -> Outcome {
    assert_eq!(failure, &Failure::NotListed);
    Outcome::Blocked
}

/// Every port, call and outbound policy, to an address that no entry has.
fn assert_outcomes(addresses: &str, host: &str, expected: impl Fn(&str, Call, Outcome) -> Outcome) {
    let Loaded { routes, settings, .. } = load(&resources(addresses));
    for (outbound, unlisted) in [(Outbound::RegistryOnly, Outcome::Blocked), (Outbound::AllowAny, Outcome::Anywhere)] {
        let settings = Settings { outbound, ..Settings::clone(&settings) };
        let snapshot = Snapshot { generation: 1, routes: routes.clone(), settings: settings.into() };
        for (port, protocol) in PORTS {
            let elsewhere = IpAddr::from([203, 0, 113, 7]);
            let address = IpAddr::from([10, 0, 0, 1]);
            let source = Source { address, port, gateway: false, destination: Some(elsewhere), tls: None };
            for call in [Call::Http, Call::Tls, Call::Tcp] {
                let found = outcome(&snapshot, source, call, host);
                let expected = expected(protocol, call, unlisted);
                assert_eq!(found, expected, "{outbound:?}, port for {protocol:?}, {call:?} to {host}{addresses}");
            }
        }
    }
}

#[test]
fn with_addresses_an_unlisted_host_is_left_to_the_outbound_policy_on_every_port() {
    assert_outcomes(", addresses: [192.0.2.4]", "foo.example", |_, _, unlisted| unlisted);
}

/// A port for TCP without addresses captures everything, whatever its host. One without a protocol does so with what
/// shows no name; Istio gives it TLS to unlisted names too, which would go to a service that the client did not ask for.
#[test]
fn without_addresses_a_tcp_port_takes_whatever_comes() {
    assert_outcomes("", "foo.example", |protocol, call, unlisted| match (protocol, call) {
        ("TCP", _) | ("", Call::Tcp) => Outcome::Service,
        _ => unlisted,
    });
}

#[test]
fn a_listed_host_is_served_where_its_port_takes_what_the_client_speaks() {
    assert_outcomes(", addresses: [192.0.2.4]", "istio.example", |protocol, call, unlisted| match (protocol, call) {
        ("HTTP" | "GRPC" | "HTTP2" | "", Call::Http) | ("TLS" | "HTTPS" | "", Call::Tls) => Outcome::Service,
        _ => unlisted,
    });
}
