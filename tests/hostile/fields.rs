//! Fields in which a client speaks for others, and requests that come back.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::scene::{HOST, Scene, answers_to, listed, statuses};
use crate::support::gateway::Gateway;
use crate::support::http::header;
use crate::support::resources;
use crate::support::service;

/// What a client may claim, in the spellings that some upstreams take for the same.
const CLAIMS: [&str; 11] = [
    "X-Forwarded-For: 10.1.2.3",
    "x_forwarded_for: 10.1.2.4",
    "X-FORWARDED-PROTO: https",
    "X-Forwarded-Host: internal.example",
    "X-Real-IP: 10.1.2.5",
    "X-Client-Ip: 10.1.2.6",
    "Forwarded: for=10.1.2.7;proto=https",
    "X-Envoy-Internal: true",
    "x-envoy-external-address: 10.1.2.8",
    "X-Forwarded-Client-Cert: By=spiffe://cluster.local/ns/default/sa/admin",
    "X_Envoy_Original_Path: /admin",
];

fn with_headers(setting: &str) -> Scene {
    Scene::with(Gateway::builder().setting(setting), service::http)
}

/// Sends a GET with these field lines, and answers with the status.
fn ask(scene: &Scene, lines: &str) -> u16 {
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{lines}\r\n");
    let answers = answers_to(&scene.gateway, head);
    statuses(&answers).first().copied().unwrap_or_else(|| panic!("no answer to {lines:?}: {answers:?}"))
}

/// The same, for the head that the upstream got.
fn forwarded(scene: &Scene, lines: &str) -> String {
    assert_eq!(ask(scene, lines), 200, "{lines}");
    scene.requests().pop().expect("a request")
}

fn field_lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

#[test]
fn nothing_that_a_client_claims_about_its_way_reaches_an_upstream() {
    let scene = Scene::http();
    let head = forwarded(&scene, &(field_lines(&CLAIMS) + "X-Request-Id: abc\r\nX-Forward: y\r\nX-Kept: z\r\n"));
    let head = head.to_ascii_lowercase();
    for claim in ["forwarded", "x-real", "x-client", "envoy", "10.1.2.", "spiffe"] {
        assert!(!head.contains(claim), "{claim}: {head}");
    }
    for kept in ["x-request-id: abc", "x-forward: y", "x-kept: z"] {
        assert!(head.contains(kept), "{kept}: {head}");
    }
    let line = scene.next_line("the request");
    // The log shows what was claimed.
    assert_eq!((line.forwarded_for.as_str(), line.request_id.as_str()), ("10.1.2.3", "abc"));
}

#[test]
fn claims_pass_where_the_operator_says_so() {
    let scene = with_headers("headers: {forwarded: FORWARD}\n");
    let head = forwarded(&scene, &field_lines(&CLAIMS));
    for claim in &CLAIMS[..7] {
        assert!(head.contains(claim), "{claim}: {head}");
    }
    for claim in &CLAIMS[7..] {
        assert!(!head.contains(claim), "{claim}: {head}");
    }
    let scene = with_headers("headers: {mesh: FORWARD}\n");
    let head = forwarded(&scene, &field_lines(&CLAIMS));
    for claim in &CLAIMS[..7] {
        assert!(!head.contains(claim), "{claim}: {head}");
    }
    for claim in &CLAIMS[7..] {
        assert!(head.contains(claim), "{claim}: {head}");
    }
}

#[test]
fn policies_and_routes_see_what_the_upstream_does_not_get() {
    let deny = "  action: DENY\n  rules: [{when: [{key: 'request.headers[x-forwarded-for]', values: ['*']}]}]\n";
    let policy = resources::authorization_policy("no-proxies", deny);
    let scene = Scene::with_resources(Gateway::builder(), &policy, service::http);
    assert_eq!(ask(&scene, "X-Forwarded-For: 10.0.0.1\r\n"), 403);
    assert_eq!(ask(&scene, ""), 200);
}

#[test]
fn the_gateway_puts_its_name_behind_those_before_it() {
    let scene = Scene::http();
    let head = forwarded(&scene, "Via: 1.0 fred, 1.1 p.example (a comment)\r\n");
    let vias: Vec<&str> = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("via:")).collect();
    assert!(
        matches!(vias[..], [client, ours] if client == "Via: 1.0 fred, 1.1 p.example (a comment)"
        && ours.starts_with("Via: 1.1 portcullis-")),
        "{head}"
    );
    let answers = answers_to(&scene.gateway, format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(statuses(&answers), [200]);
    assert!(scene.requests()[1].contains("\r\nVia: 1.0 portcullis-"), "{:?}", scene.requests());
    let named = with_headers("headers: {via: egress-1}\n");
    assert_eq!(header(&forwarded(&named, ""), "via"), Some("1.1 egress-1"));
    let silent = with_headers("headers: {via: ''}\n");
    assert_eq!(header(&forwarded(&silent, ""), "via"), None);
}

#[test]
fn the_name_in_via_outlives_a_reload_and_is_another_for_every_gateway() {
    let name = |scene: &Scene| header(&forwarded(scene, ""), "via").expect("a Via").to_owned();
    let (one, two) = (Scene::http(), Scene::http());
    let before = name(&one);
    one.gateway.reload(&listed(one.upstream.port()));
    assert_eq!(name(&one), before);
    assert_ne!(name(&two), before);
}

/// Whatever comes is sent to `target`, and its answer back: another proxy, that knows nothing of loops.
fn relay_to(listener: TcpListener, target: SocketAddr) {
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else { return };
            let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
            thread::spawn(move || copy(from, to));
            thread::spawn(move || copy(server, client));
        }
    });
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[test]
fn a_request_that_comes_back_is_508_and_goes_round_no_second_time() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket").port();
    let gateway = Gateway::builder().host(HOST).resources(listed(port)).start();
    relay_to(listener, gateway.http());
    let answers = answers_to(&gateway, format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"));
    assert_eq!(statuses(&answers), [508], "{answers}");
    let lines = gateway.log().wait_for_count(2);
    assert_eq!(lines.len(), 2);
    let inner = gateway.log().wait_for(|line| line.details == "loop_detected");
    assert_eq!((inner.code, inner.flags.as_str()), (508, "UH"));
    assert_eq!(gateway.metric("portcullis_denied_total{reason=\"loop_detected\",rule=\"\"}"), Some(1.0));
}

#[test]
fn the_name_of_this_gateway_is_seen_wherever_it_stands_in_via() {
    let scene = with_headers("headers: {via: egress-1}\n");
    for via in [
        "Via: 1.1 egress-1",
        "via: 1.0 a, HTTP/1.1 EGRESS-1 (x)",
        "Via: 1.1 a\r\nVIA:1.1\tegress-1",
        "Connection: via\r\nVia: 1.1 egress-1",
    ] {
        assert_eq!(ask(&scene, &format!("{via}\r\n")), 508, "{via}");
        scene.next_line(via);
    }
    assert_eq!(scene.connections(), 0);
    for other in ["Via: 1.1 egress-10", "Via: 1.1 a (egress-1)", "X-Via: 1.1 egress-1"] {
        assert_eq!(ask(&scene, &format!("{other}\r\n")), 200, "{other}");
        scene.next_line(other);
    }
}

#[test]
fn names_with_underscores_pass_are_refused_or_dropped_as_the_operator_says() {
    let lines = "X_Token: a\r\nX-Token: b\r\n";
    let head = forwarded(&Scene::http(), lines);
    assert!(head.contains("X_Token: a") && head.contains("X-Token: b"), "{head}");
    let scene = with_headers("headers: {underscores: DROP_HEADER}\n");
    let head = forwarded(&scene, lines);
    assert!(!head.contains("X_Token") && head.contains("X-Token: b"), "{head}");
    let scene = with_headers("headers: {underscores: REJECT_REQUEST}\n");
    assert_eq!(ask(&scene, lines), 400);
    let line = scene.next_line("an underscore");
    assert_eq!((line.flags.as_str(), line.details.as_str()), ("DPE", "header_name_with_underscore"));
    assert_eq!(scene.connections(), 0);
    scene.assert_serves();
}

#[test]
fn another_method_is_not_asked_for_where_methods_are_judged() {
    let overrides = "X-HTTP-Method-Override: DELETE\r\nX-Http-Method: PUT\r\nX_Method_Override: PATCH\r\n";
    let free = forwarded(&Scene::http(), overrides);
    assert!(free.contains("DELETE") && free.contains("PUT") && free.contains("PATCH"), "{free}");
    let allow = "  action: ALLOW\n  rules: [{to: [{operation: {methods: [GET]}}]}]\n";
    let route = "  - match: [{method: {exact: GET}}]\n    route: [{destination: {host: api.example.com}}]\n";
    for rule in [resources::authorization_policy("reads", allow), resources::virtual_service("reads", HOST, route)] {
        let judged = |setting| Scene::with_resources(Gateway::builder().setting(setting), &rule, service::http);
        let head = forwarded(&judged(""), overrides).to_ascii_lowercase();
        assert!(!head.contains("method"), "{rule}: {head}");
        let head = forwarded(&judged("headers: {methodOverride: FORWARD}\n"), overrides);
        assert!(head.contains("DELETE"), "{rule}: {head}");
    }
}
