//! Attacks by the name that a client asks for, as SNI and as Host.

use crate::hello::{Hello, ILLEGAL_PARAMETER, UNRECOGNIZED_NAME, assert_passes};
use crate::scene::{HOST, Scene, alert, answer_to_tls, answers_to, statuses};
use crate::support::gateway::Gateway;
use crate::support::resources;
use crate::support::service;
use crate::support::upstream::Upstream;

/// Names that are no names, whoever reads them.
const ILLEGAL: [&[u8]; 30] = [
    b"",
    b".",
    b"..",
    b".api.example.com",
    b"api..example.com",
    b"api.example.com..",
    b"-api.example.com",
    b"api-.example.com",
    b"*.example.com",
    b"*",
    b"api.example.com\0.evil.example",
    b"api.example.com\0",
    b"\0api.example.com",
    b" api.example.com",
    b"api.example.com ",
    b"api.example.com\r\nX: y",
    b"api.example.com\n",
    b"api.example.com/evil",
    b"api.example.com:443",
    b"api.example.com%00",
    b"%61pi.example.com",
    b"user@api.example.com",
    b"\xc3\xa4pi.example.com",
    b"\xff\xfe",
    b"api.example.com#",
    b"127.0.0.1",
    b"127.1",
    b"2130706433",
    b"0x7f.0x1",
    b"::1",
];

fn wildcard() -> Scene {
    let any = resources::tls_entry("any", "*.example.com", 443).replace("DNS", "DYNAMIC_DNS");
    Scene::with_resources(Gateway::builder(), &any, service::record)
}

#[test]
fn names_that_are_no_names_are_refused_in_a_hello() {
    let scene = wildcard();
    let long_label = [b"a".repeat(64), b".example.com".to_vec()].concat();
    let long_name = [b"a.".repeat(121), b"example.com.x".to_vec()].concat();
    for name in ILLEGAL.into_iter().chain([&long_label[..], &long_name[..]]) {
        let answer = answer_to_tls(&scene.gateway, &Hello::named(name).bytes());
        assert!(matches!(alert(&answer), ILLEGAL_PARAMETER), "{name:?}: {answer:?}");
        let line = scene.next_line(&format!("{name:?}"));
        assert_eq!((line.flags.as_str(), line.server_name.as_str()), ("DPE", "-"), "{name:?}");
        assert!(matches!(line.termination.as_str(), "bad_sni" | "bad_server_name_list"), "{name:?}: {line:?}");
    }
    assert_eq!(scene.connections(), 0);
}

#[test]
fn names_that_are_only_alike_are_not_listed() {
    let scene = Scene::tunnel();
    let alike = [
        "example.com",
        "xapi.example.com",
        "x.api.example.com",
        "api.example.com.evil.example",
        "api.example.co",
        "api.example.comm",
        "api_example.com",
        "api.example_com",
        "xn--pi-jia.example.com",
        "localhost",
    ];
    for name in alike {
        let answer = answer_to_tls(&scene.gateway, &Hello::named(name.as_bytes()).bytes());
        assert_eq!(alert(&answer), UNRECOGNIZED_NAME, "{name}");
        let line = scene.next_line(name);
        assert_eq!((line.flags.as_str(), line.server_name.as_str()), ("UH", name));
        assert_eq!(line.upstream_cluster, "BlackHoleCluster", "{name}");
        assert_eq!(scene.gateway.client().get(name, "/").status, 502, "{name}");
        assert_eq!(scene.next_line(name).route, "block_all", "{name}");
    }
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_name_in_any_case_or_with_a_trailing_dot_is_the_same_name_for_policy_and_dialling() {
    let scene = Scene::tunnel();
    for name in ["API.Example.COM", "api.example.com.", "aPI.eXAMPLE.cOM."] {
        assert_passes(&scene, name, &Hello::named(name.as_bytes()).bytes());
    }
    assert!(scene.gateway.log().lines().iter().all(|line| line.server_name == HOST));
}

#[test]
fn a_wildcard_takes_no_name_outside_of_it() {
    let scene = wildcard();
    for name in ["example.com", "xexample.com", "a.example.com.evil.example", "a.example.org"] {
        let answer = answer_to_tls(&scene.gateway, &Hello::named(name.as_bytes()).bytes());
        assert_eq!(alert(&answer), UNRECOGNIZED_NAME, "{name}");
        assert_eq!(scene.next_line(name).flags, "UH");
    }
}

#[test]
fn a_host_that_is_no_authority_gets_400() {
    let scene = Scene::http();
    let hosts = [
        "user@api.example.com",
        "user:secret@api.example.com",
        "evil.example@api.example.com",
        "api.example.com@evil.example",
        "api.example.com:",
        "api.example.com:80:80",
        "api.example.com:x",
        "api.example.com:65536",
        "api.example.com:-1",
        "api.example.com:+80",
        "api.example.com,evil.example",
        "api.example.com evil.example",
        "api.example.com/evil",
        "api.example.com?x",
        "api.example.com#x",
        "api.example.com\\evil",
        "http://api.example.com",
        "%61pi.example.com",
        "api%2eexample.com",
        "api..example.com",
        ".api.example.com",
        "-api.example.com",
        "*.example.com",
        "[::1",
        "[::1]x",
        "[api.example.com]",
        "::1",
        "\u{e4}pi.example.com",
        "",
    ];
    for host in hosts {
        let answers = answers_to(&scene.gateway, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(statuses(&answers), [400], "{host:?}: {answers}");
        let line = scene.next_line(host);
        assert_eq!((line.code, line.flags.as_str()), (400, "DPE"), "{host:?}");
    }
    assert_eq!(scene.connections(), 0);
    scene.assert_serves();
}

#[test]
fn hosts_in_the_dress_of_numbers_are_never_dialled() {
    let any = Gateway::builder().mesh("  outboundTrafficPolicy: {mode: ALLOW_ANY}\n");
    let scene = Scene::with(any, service::http);
    let hosts = ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1", "[::1]", "[::ffff:7f00:1]"];
    for host in hosts {
        for port in ["".to_owned(), format!(":{}", scene.upstream.port())] {
            let host = format!("{host}{port}");
            let answers =
                answers_to(&scene.gateway, format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
            assert!(matches!(statuses(&answers)[..], [400] | [502]), "{host}: {answers}");
            scene.next_line(&host);
        }
    }
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_port_in_the_host_is_never_what_is_dialled() {
    let scene = Scene::http();
    for host in ["api.example.com:80", "API.EXAMPLE.COM", "api.example.com."] {
        assert_eq!(scene.gateway.client().get(host, "/").status, 200, "{host}");
        scene.next_line(host);
    }
    // Istio ignores the port of a Host, and the service port is the listener's: no port of the client's is dialled.
    let port = Upstream::plain(service::http);
    let status = scene.gateway.client().get(&format!("api.example.com:{}", port.port()), "/").status;
    assert_eq!((status, port.seen().counts().connections), (200, 0));
}
