//! What clients see when they may not pass, or when what they may reach is not there.

mod support;

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use support::certificates::Authority;
use support::client::{self, Response};
use support::gateway::{Gateway, Port};
use support::nameserver::Nameserver;
use support::resources;
use support::service;
use support::upstream::Upstream;

const HOST: &str = "api.example.com";

/// Fatal alerts as a client reads them (RFC 8446 section 6), without the record version, which clients ignore.
const ACCESS_DENIED: [u8; 2] = [2, 49];
const INTERNAL_ERROR: [u8; 2] = [2, 80];
const UNRECOGNIZED_NAME: [u8; 2] = [2, 112];

/// Sends a hello for `name` and takes what comes back until the gateway closes.
fn answer_to_hello(gateway: &Gateway, name: &str) -> Vec<u8> {
    let mut socket = client::connect(gateway.tls());
    socket.write_all(&client::hello(name)).expect("the listener accepts");
    client::read_to_end(&mut socket)
}

/// The alert of a record, if it is an alert record and nothing else.
fn alert(record: &[u8]) -> Option<&[u8]> {
    match record {
        [21, 3, _, 0, 2, alert @ ..] => Some(alert),
        _ => None,
    }
}

/// Sends bytes to the HTTP listener and takes the answer.
fn answer_to(gateway: &Gateway, request: impl AsRef<[u8]>) -> Response {
    let mut client = gateway.client();
    client.send(request);
    client.response()
}

// --- Not listed ---------------------------------------------------------------------------------

#[test]
fn http_to_a_host_that_is_not_listed_gets_502_and_says_so() {
    let gateway = Gateway::builder().start();
    let response = gateway.client().get("blocked.example", "/secret?key=1");
    assert_eq!(response.status, 502);
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{}", response.head);
    assert!(response.text().contains("blocked.example") && response.text().contains("80"), "{}", response.text());

    let line = gateway.log().first();
    assert_eq!((line.code, line.flags.as_str()), (502, "-"));
    assert_eq!((line.upstream_cluster.as_str(), line.route.as_str()), ("BlackHoleCluster", "block_all"));
    assert_eq!((line.authority.as_str(), line.request.as_str()), ("blocked.example", "GET /secret?key=1 HTTP/1.1"));
    assert_eq!(line.upstream_host, "-");
}

#[test]
fn http_to_a_blocked_host_leaves_the_connection_to_allowed_ones() {
    let upstream = Upstream::plain(service::http);
    let gateway = Gateway::builder().host(HOST).resources(resources::http_entry("api", HOST, upstream.port())).start();
    let mut client = gateway.client();
    assert_eq!(client.post("blocked.example", "/", b"some body").status, 502);
    assert_eq!(client.get(HOST, "/bytes/1").status, 200);
}

#[test]
fn tls_to_a_host_that_is_not_listed_gets_unrecognized_name_and_the_log_names_it() {
    let gateway = Gateway::builder().start();
    let answer = answer_to_hello(&gateway, "blocked.example");
    assert_eq!(alert(&answer), Some(UNRECOGNIZED_NAME.as_slice()), "{answer:?}");

    let line = gateway.log().first();
    assert_eq!((line.request.as_str(), line.code, line.flags.as_str()), ("- - -", 0, "UH"));
    assert_eq!((line.upstream_cluster.as_str(), line.server_name.as_str()), ("BlackHoleCluster", "blocked.example"));
}

#[test]
fn a_tls_client_is_told_why() {
    let gateway = Gateway::builder().start();
    let error = client::tls(gateway.tls(), "blocked.example", &Authority::new()).unwrap_err();
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let expected = rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName);
    assert_eq!(cause, Some(&expected));
}

#[test]
fn a_listed_host_is_blocked_on_the_ports_that_its_entry_does_not_name() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::http);
    let gateway = Gateway::builder().host(HOST).resources(resources::tls_entry("api", HOST, upstream.port())).start();
    assert_eq!(gateway.client().get(HOST, "/").status, 502);
    client::tls(gateway.tls(), HOST, &authority).expect("port 443 is listed");
}

#[test]
fn a_hello_without_a_server_name_is_refused() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::http);
    let gateway = Gateway::builder().host(HOST).resources(resources::tls_entry("api", HOST, upstream.port())).start();
    let mut config = client::trusting(&authority);
    config.enable_sni = false;
    client::tls_with(&Arc::new(config), gateway.tls(), HOST).unwrap_err();
    let line = gateway.log().first();
    assert_eq!((line.flags.as_str(), line.server_name.as_str()), ("UH", "-"));
    assert_eq!(upstream.seen().counts().connections, 0);
}

#[test]
fn allow_any_still_obeys_the_address_policy() {
    let nameserver = Nameserver::answering(Ipv4Addr::LOCALHOST);
    let gateway =
        Gateway::builder().mesh("  outboundTrafficPolicy: {mode: ALLOW_ANY}\n").dns(&nameserver.setting()).start();
    assert_eq!(gateway.client().get("anything.example", "/").status, 503);
    gateway.log().wait_for(|line| line.authority == "anything.example" && line.flags == "UH");
    assert_eq!(alert(&answer_to_hello(&gateway, "anything.example")), Some(INTERNAL_ERROR.as_slice()));
}

// --- No route, no permission --------------------------------------------------------------------

#[test]
fn http_that_no_route_matches_gets_404() {
    let upstream = Upstream::plain(service::http);
    let route = format!("  - match: [{{method: {{exact: GET}}}}]\n    route: [{{destination: {{host: {HOST}}}}}]\n");
    let yaml =
        [resources::http_entry("api", HOST, upstream.port()), resources::virtual_service("only-get", HOST, &route)];
    let gateway = Gateway::builder().host(HOST).resources(yaml.concat()).start();
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
    assert_eq!(gateway.client().post(HOST, "/", b"x").status, 404);
    let line = gateway.log().wait_for(|line| line.code == 404);
    assert_eq!((line.flags.as_str(), line.details.as_str()), ("NR", "route_not_found"));
    assert_eq!(upstream.seen().counts().requests.len(), 1);
}

#[test]
fn tls_that_no_route_matches_is_closed_with_nr() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("a.example.com"), service::http);
    let routes = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: only-a}
spec:
  hosts: ['*.example.com']
  tls:
  - match: [{port: 443, sniHosts: [a.example.com]}]
    route: [{destination: {host: '*.example.com', port: {number: 443}}}]
";
    let routes = routes.replace("host: '*.example.com'", "host: a.example.com");
    let yaml = [
        resources::tls_entry("any", "*.example.com", upstream.port()).replace("DNS", "DYNAMIC_DNS"),
        resources::tls_entry("a", "a.example.com", upstream.port()),
        routes,
    ];
    let gateway = Gateway::builder().host("a.example.com").host("b.example.com").resources(yaml.concat()).start();
    client::tls(gateway.tls(), "a.example.com", &authority).expect("its route matches");
    let answer = answer_to_hello(&gateway, "b.example.com");
    assert_eq!(alert(&answer), Some(UNRECOGNIZED_NAME.as_slice()), "{answer:?}");
    gateway.log().wait_for(|line| line.server_name == "b.example.com" && line.flags == "NR");
}

#[test]
fn a_route_to_a_port_that_does_not_exist_gets_503_nc() {
    let upstream = Upstream::plain(service::http);
    let route = "  - route: [{destination: {host: nowhere.example, port: {number: 80}}}]\n";
    let yaml = [resources::http_entry("api", HOST, upstream.port()), resources::virtual_service("astray", HOST, route)];
    let gateway = Gateway::builder().host(HOST).resources(yaml.concat()).start();
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    assert_eq!(gateway.log().first().flags, "NC");
}

#[test]
fn http_that_an_authorization_policy_refuses_gets_403() {
    let upstream = Upstream::plain(service::http);
    let policy = "  action: ALLOW\n  rules:\n  - to: [{operation: {paths: [/books*], methods: [GET]}}]\n";
    let yaml =
        [resources::http_entry("api", HOST, upstream.port()), resources::authorization_policy("books-only", policy)];
    let gateway = Gateway::builder().host(HOST).resources(yaml.concat()).start();
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/books/1").status, 200);
    for path in ["/calendar", "/books/../calendar", "/books/%2e%2e/calendar"] {
        let response = client.get(HOST, path);
        assert_eq!((response.status, response.text()), (403, "RBAC: access denied"), "{path}");
    }
    assert_eq!(client.post(HOST, "/books/1", b"x").status, 403);
    let line = gateway.log().wait_for(|line| line.code == 403);
    assert_eq!(line.flags, "-");
    assert!(line.details.starts_with("rbac_access_denied_matched_policy["), "{line:?}");
    assert_eq!(upstream.seen().counts().requests.len(), 1);
}

#[test]
fn what_an_audit_policy_matches_passes_and_is_counted() {
    let upstream = Upstream::plain(service::http);
    let audit = "  action: AUDIT\n  rules:\n  - to: [{operation: {paths: [/books*]}}]\n  - {}\n";
    let resources =
        [resources::http_entry("api", HOST, upstream.port()), resources::authorization_policy("watched", audit)];
    let gateway = Gateway::builder().host(HOST).resources(resources.concat()).start();
    for path in ["/books", "/other", "/other", "/a%2fb"] {
        assert_eq!(gateway.client().get(HOST, path).status, 200, "{path}");
    }
    answer_to_hello(&gateway, "blocked.example");
    let metrics = gateway.ask("/metrics").expect("the admin endpoint answers");
    let counts: Vec<_> = metrics.text().lines().filter(|line| line.starts_with("portcullis_audited_total{")).collect();
    assert_eq!(
        counts,
        [
            "portcullis_audited_total{rule=\"ns[default]-policy[watched]-rule[0]\"} 1",
            "portcullis_audited_total{rule=\"ns[default]-policy[watched]-rule[1]\"} 4",
        ]
    );
    let lines = gateway.log().wait_for_count(5);
    let shown = |rule: u8| format!("rbac_audit_matched_policy[ns[default]-policy[watched]-rule[{rule}]]");
    assert_eq!((lines[0].code, &lines[0].termination), (200, &shown(0)));
    assert_eq!((lines[1].code, &lines[1].termination), (200, &shown(1)));
    // What was refused says why.
    assert_eq!(lines[4].termination, "host_not_listed");
}

#[test]
fn tls_that_an_authorization_policy_refuses_gets_access_denied() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("a.example.com"), service::http);
    let policy = "  action: DENY\n  rules:\n  - when: [{key: connection.sni, values: [b.example.com]}]\n";
    let yaml = [
        resources::tls_entry("a", "a.example.com", upstream.port()),
        resources::tls_entry("b", "b.example.com", upstream.port()),
        resources::authorization_policy("not-b", policy),
    ];
    let gateway = Gateway::builder().host("a.example.com").host("b.example.com").resources(yaml.concat()).start();
    client::tls(gateway.tls(), "a.example.com", &authority).expect("nothing refuses it");
    let answer = answer_to_hello(&gateway, "b.example.com");
    assert_eq!(alert(&answer), Some(ACCESS_DENIED.as_slice()), "{answer:?}");
    gateway.log().wait_for(|line| line.server_name == "b.example.com" && line.bytes_sent <= 7);
    assert_eq!(upstream.seen().counts().connections, 1);
}

// --- Allowed, but not there ---------------------------------------------------------------------

/// A gateway that may reach [`HOST`] on both ports, and asks this name server where it is.
fn resolving(nameserver: &Nameserver, setting: &str, http: u16, tls: u16) -> Gateway {
    let yaml = [resources::http_entry("http", HOST, http), resources::tls_entry("tls", HOST, tls)];
    Gateway::builder().dns(&nameserver.setting()).setting(setting).resources(yaml.concat()).start()
}

#[test]
fn a_name_that_does_not_exist_is_uh() {
    let nameserver = Nameserver::knowing_nothing();
    let gateway = resolving(&nameserver, "", 80, 443);
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    gateway.log().wait_for(|line| line.authority == HOST && line.flags == "UH");
    assert!(alert(&answer_to_hello(&gateway, HOST)).is_some());
    gateway.log().wait_for(|line| line.server_name == HOST && line.flags == "UH");
}

#[test]
fn a_name_that_resolves_to_a_closed_address_is_uh_and_is_not_dialled() {
    let upstream = Upstream::plain(service::http);
    let nameserver = Nameserver::answering(Ipv4Addr::LOCALHOST);
    let gateway = resolving(&nameserver, "", upstream.port(), upstream.port());
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    let line = gateway.log().wait_for(|line| line.authority == HOST);
    assert_eq!((line.flags.as_str(), line.details.as_str()), ("UH", "address_not_allowed"));
    assert!(alert(&answer_to_hello(&gateway, HOST)).is_some());
    gateway.log().wait_for(|line| line.server_name == HOST && line.flags == "UH");
    assert_eq!(upstream.seen().counts().connections, 0);
}

#[test]
fn the_metadata_address_is_closed() {
    let nameserver = Nameserver::answering(Ipv4Addr::new(169, 254, 169, 254));
    let gateway = resolving(&nameserver, "", 80, 443);
    assert_eq!(gateway.client().get(HOST, "/latest/meta-data").status, 503);
    assert_eq!(gateway.log().first().details, "address_not_allowed");
}

#[test]
fn a_closed_address_that_the_operator_opens_is_reached() {
    let upstream = Upstream::plain(service::http);
    let nameserver = Nameserver::answering(Ipv4Addr::LOCALHOST);
    let gateway = resolving(&nameserver, "addressPolicy: {allow: [127.0.0.0/8]}\n", upstream.port(), 443);
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
}

#[test]
fn deny_wins_over_allow_in_the_address_policy() {
    let upstream = Upstream::plain(service::http);
    let nameserver = Nameserver::answering(Ipv4Addr::LOCALHOST);
    let policy = "addressPolicy: {allow: [127.0.0.0/8], deny: [127.0.0.1/32]}\n";
    let gateway = resolving(&nameserver, policy, upstream.port(), 443);
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    assert_eq!(upstream.seen().counts().connections, 0);
}

#[test]
fn nothing_is_proxied_to_the_gateway_itself() {
    let gateway = Gateway::builder().host(HOST).start();
    for own in [gateway.admin(), gateway.http(), gateway.tls()] {
        // Refused as a configuration, or refused when dialled.
        if gateway.try_reload(&resources::http_entry("own", HOST, own.port())) {
            assert_eq!(gateway.client().get(HOST, "/server_info").status, 503, "{own}");
            gateway.log().wait_for(|line| line.authority == HOST && line.flags == "UH");
        } else {
            assert_eq!(gateway.client().get(HOST, "/server_info").status, 502, "{own}");
        }
        gateway.reload("");
    }
}

#[test]
fn an_upstream_that_refuses_connections_is_uf() {
    let port = Port::reserve();
    let yaml = [resources::http_entry("http", HOST, port.number()), resources::tls_entry("tls", HOST, port.number())];
    let gateway = Gateway::builder().host(HOST).resources(yaml.concat()).start();
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    let line = gateway.log().wait_for(|line| line.authority == HOST);
    assert!(line.flags.split(',').any(|flag| flag == "UF"), "{line:?}");
    assert!(line.transport_failure.to_lowercase().contains("refused"), "{line:?}");

    answer_to_hello(&gateway, HOST);
    gateway.log().wait_for(|line| line.server_name == HOST && line.flags == "UF");
}

#[test]
fn an_upstream_that_closes_before_its_response_is_uc() {
    let upstream = Upstream::plain(service::http);
    let gateway = Gateway::builder().host(HOST).resources(resources::http_entry("api", HOST, upstream.port())).start();
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/close").status, 503);
    let line = gateway.log().first();
    assert!(line.flags.split(',').any(|flag| flag == "UC"), "{line:?}");
    assert_eq!(client.get(HOST, "/bytes/1").status, 200);
}

#[test]
fn a_request_that_is_not_safe_to_repeat_is_sent_once() {
    let upstream = Upstream::plain(service::http);
    let gateway = Gateway::builder().host(HOST).resources(resources::http_entry("api", HOST, upstream.port())).start();
    assert_eq!(gateway.client().post(HOST, "/close", b"order one book").status, 503);
    assert_eq!(upstream.seen().counts().requests.len(), 1);
}

#[test]
fn a_request_that_outlives_its_route_timeout_gets_504() {
    let upstream = Upstream::plain(service::http);
    let route = format!("  - timeout: 300ms\n    route: [{{destination: {{host: {HOST}}}}}]\n");
    let yaml = [resources::http_entry("api", HOST, upstream.port()), resources::virtual_service("hurry", HOST, &route)];
    let gateway = Gateway::builder().host(HOST).resources(yaml.concat()).start();
    assert_eq!(gateway.client().get(HOST, "/silent").status, 504);
    assert_eq!(gateway.log().first().flags, "UT");
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
}

// --- Malformed, late, hostile -------------------------------------------------------------------

#[test]
fn malformed_requests_get_400_and_the_connection_ends() {
    let upstream = Upstream::plain(service::http);
    let gateway = Gateway::builder().host(HOST).resources(resources::http_entry("api", HOST, upstream.port())).start();
    let host = format!("Host: {HOST}\r\n");
    let requests = [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: user@{HOST}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host} folded: 1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Space : 1\r\n\r\n"),
        format!("GET / HTTP/1.1\n{host}\n"),
        format!("GET /a\0b HTTP/1.1\r\n{host}\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("GET http://other.example/ HTTP/1.1\r\n{host}\r\n"),
    ];
    for request in requests {
        let mut client = gateway.client();
        client.send(&request);
        assert_eq!(client.response().status, 400, "{request:?}");
        assert!(client.is_closed(), "{request:?}");
    }
    assert_eq!(upstream.seen().counts().connections, 0);
    gateway.log().wait_for(|line| line.code == 400 && line.flags == "DPE");
}

#[test]
fn a_chunked_body_that_breaks_its_framing_is_not_passed_on_as_complete() {
    let upstream = Upstream::plain(service::http);
    let gateway = Gateway::builder().host(HOST).resources(resources::http_entry("api", HOST, upstream.port())).start();
    let mut client = gateway.client();
    let head = format!("POST /verdict HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("{head}5\r\nhello\r\nXYZ\r\n"));
    if let Ok(response) = client.try_response() {
        assert_eq!(response.status, 400);
    }
    assert_eq!(gateway.log().first().flags, "DPE");
}

#[test]
fn connect_gets_405() {
    let gateway = Gateway::builder().start();
    let response = answer_to(&gateway, "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n");
    assert_eq!(response.status, 405);
}

#[test]
fn bytes_that_are_neither_tls_nor_http_are_closed() {
    let gateway = Gateway::builder().start();
    for bytes in [b"SSH-2.0-OpenSSH_9.6\r\n".as_slice(), &[0x80, 0x2e, 1, 0, 2, 0, 0, 0], &[22, 3, 1, 0, 0]] {
        let mut socket = client::connect(gateway.tls());
        socket.write_all(bytes).unwrap();
        let answer = client::read_to_end(&mut socket);
        assert!(answer.len() < 600, "{answer:?}");
    }
    assert_eq!(gateway.log().wait_for_count(3).iter().filter(|line| line.flags == "DPE").count(), 3);
}

#[test]
fn a_hello_that_does_not_end_is_cut_by_its_deadline() {
    let gateway = Gateway::builder().setting("limits: {helloTimeout: 300ms}\n").start();
    let mut socket = client::connect(gateway.tls());
    let hello = client::hello(HOST);
    socket.write_all(&hello[..hello.len() / 2]).unwrap();
    client::read_to_end(&mut socket);
    assert_eq!(gateway.log().first().flags, "DPE");
}

#[test]
fn a_request_head_that_does_not_end_is_cut_by_its_deadline() {
    let gateway = Gateway::builder().setting("limits: {requestHeadTimeout: 300ms}\n").start();
    let mut socket = client::connect(gateway.http());
    socket.write_all(b"GET / HTTP/1.1\r\nHost: api.exa").unwrap();
    client::read_to_end(&mut socket);
}

#[test]
fn a_request_head_without_end_is_cut_by_its_size() {
    let gateway = Gateway::builder().start();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: api.example.com\r\nX-Long: ");
    // The gateway may close while this is being written.
    let _ = client.socket().write_all(&vec![b'a'; 128 * 1024]);
    if let Ok(response) = client.try_response() {
        assert!(matches!(response.status, 400 | 431), "{}", response.status);
    }
    assert_eq!(gateway.log().wait_for_count(1).len(), 1);
}

#[test]
fn what_a_client_sends_cannot_forge_a_log_line() {
    let gateway = Gateway::builder().start();
    let agent = "a\" 200 - \"b\\";
    let response =
        answer_to(&gateway, format!("GET / HTTP/1.1\r\nHost: blocked.example\r\nUser-Agent: {agent}\r\n\r\n"));
    assert_eq!(response.status, 502);
    // Parsing it holds the line to its 22 fields.
    let line = gateway.log().first();
    assert_eq!((line.code, line.authority.as_str()), (502, "blocked.example"));
}

#[test]
fn what_was_denied_is_counted_and_listed_by_name() {
    let gateway = Gateway::builder().start();
    assert_eq!(gateway.client().get("http.example", "/").status, 502);
    answer_to_hello(&gateway, "tls.example");
    gateway.log().wait_for_count(2);
    let denied = gateway.ask("/denied").expect("the admin endpoint answers");
    for host in ["http.example", "tls.example"] {
        assert!(denied.text().contains(host), "{}", denied.text());
    }
    let metrics = gateway.ask("/metrics").expect("the admin endpoint answers");
    assert!(metrics.text().contains("portcullis_denied_total{"), "{}", metrics.text());
    assert!(!metrics.text().contains("http.example"), "a label took a value that a client chose");
}
