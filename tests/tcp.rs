//! TCP without capture: by the port alone. And ports that take whatever clients speak.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use support::certificates::Authority;
use support::client::{self, Http};
use support::gateway::{Gateway, Port};
use support::resources::GOOGLEAPIS;
use support::service;
use support::stream::Stream;
use support::upstream::{Seen, Upstream};

/// A ServiceEntry whose endpoint is on this machine.
fn entry(name: &str, host: &str, port: &str, target: u16) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  hosts: ['{host}']\n  ports: [{{{port}, targetPort: {target}}}]\n  resolution: STATIC\n  endpoints: [{{address: 127.0.0.1}}]\n"
    )
}

fn greeter(stream: &mut Stream, seen: &Seen) -> std::io::Result<()> {
    stream.write_all(b"220 ready\r\n")?;
    stream.flush()?;
    service::echo(stream, seen)
}

/// A gateway with a third listener, for service port 9000.
fn gateway(resources: &str, settings: &str) -> (Gateway, SocketAddr, Port) {
    let port = Port::reserve();
    let address: SocketAddr = ([127, 0, 0, 1], port.number()).into();
    let gateway = Gateway::builder()
        .resources(resources)
        .setting(settings)
        .extra_listener(&format!("- {{name: third, bind: '{address}', servicePort: 9000}}\n"))
        .start();
    (gateway, address, port)
}

const TCP: &str = "number: 9000, name: tcp, protocol: MYSQL";
const ANY: &str = "number: 9000, name: any";

#[test]
fn a_server_may_speak_first_on_a_port_that_takes_only_tcp() {
    let upstream = Upstream::plain(greeter);
    let (gateway, address, _port) =
        gateway(&entry("db", "db.example", TCP, upstream.port()), "limits: {helloTimeout: 1h}\n");
    let mut socket = client::connect(address);
    let mut greeting = [0; 11];
    socket.read_exact(&mut greeting).expect("the server speaks first");
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the tunnel is open");
    socket.shutdown(Shutdown::Write).expect("the tunnel is open");
    assert_eq!(client::read_to_end(&mut socket), b"GET / HTTP/1.1\r\n\r\n");
    let line = gateway.log().first();
    assert_eq!((line.request.as_str(), line.flags.as_str()), ("- - -", "-"));
    assert_eq!(line.upstream_cluster, "outbound|9000||db.example");
}

#[test]
fn resolution_none_has_nowhere_to_go_without_capture() {
    let upstream = Upstream::plain(greeter);
    let yaml = entry("db", "db.example", TCP, upstream.port()).replace(
        "resolution: STATIC\n  endpoints: [{address: 127.0.0.1}]",
        "addresses: [127.0.0.1]\n  resolution: NONE",
    );
    let (gateway, address, _port) = gateway(&yaml, "");
    let mut socket = client::connect(address);
    socket.write_all(b"hello\r\n\r\n").expect("the connection is open");
    assert_eq!(client::read_to_end(&mut socket).first(), Some(&b'H'), "plain HTTP's answer to what is no request");
    assert_eq!(gateway.log().first().code, 400);
    assert_eq!(upstream.seen().counts().connections, 0);
}

#[test]
fn a_port_without_protocol_takes_http_by_host_tls_by_name_and_the_rest_as_tcp() {
    let authority = Authority::new();
    let web = Upstream::plain(service::http);
    let tls = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let raw = Upstream::plain(service::echo);
    let yaml = [
        entry("raw", "raw.example", ANY, raw.port()),
        entry("web", "web.example", "number: 9000, name: http, protocol: HTTP", web.port()),
        entry("tls", GOOGLEAPIS, "number: 9000, name: tls, protocol: TLS", tls.port()),
    ]
    .concat();
    let (gateway, address, _port) = gateway(&yaml, "limits: {helloTimeout: 1h}\n");

    assert_eq!(Http::connect(address).get("web.example", "/").status, 200);
    assert_eq!(Http::connect(address).get("blocked.example", "/").status, 502);
    assert!(client::tls(address, GOOGLEAPIS, &authority).is_ok());
    assert!(client::tls(address, "blocked.example", &authority).is_err());
    for bytes in [b"PING\r\n".as_slice(), b"\x00\x01\x02", b"*1\r\n$4\r\nPING\r\n"] {
        let mut socket = client::connect(address);
        socket.write_all(bytes).expect("the tunnel is open");
        socket.shutdown(Shutdown::Write).expect("the tunnel is open");
        assert_eq!(client::read_to_end(&mut socket), bytes);
    }
    let lines = gateway.log().wait_for_count(7);
    assert_eq!(lines.iter().filter(|line| line.upstream_cluster == "outbound|9000||raw.example").count(), 3);
    assert_eq!(raw.seen().counts().connections, 3);
}

#[test]
fn a_silent_client_of_a_mixed_port_is_taken_for_tcp_when_the_hello_timeout_has_passed() {
    let upstream = Upstream::plain(greeter);
    let yaml = entry("raw", "raw.example", ANY, upstream.port());
    let (gateway, address, _port) = gateway(&yaml, "limits: {helloTimeout: 100ms}\n");
    let mut socket = client::connect(address);
    let mut greeting = [0; 11];
    socket.read_exact(&mut greeting).expect("the server speaks");
    drop(socket);
    assert_eq!(gateway.log().first().upstream_cluster, "outbound|9000||raw.example");
}

#[test]
fn a_request_for_an_address_reaches_the_host_that_it_stands_for() {
    let upstream = Upstream::plain(service::http);
    let yaml = entry("web", "web.example", "number: 9000, name: http, protocol: HTTP", upstream.port())
        .replace("  ports:", "  addresses: [198.51.100.7, '2001:db8::7']\n  ports:");
    let (gateway, address, _port) = gateway(&yaml, "");
    let mut client = Http::connect(address);
    for host in ["198.51.100.7:9000", "198.51.100.7", "[2001:db8::7]"] {
        let answer = client.get(host, "/");
        assert_eq!(answer.status, 200, "{host}");
        assert!(answer.text().contains(&format!("Host: {host}\r\n")), "{}", answer.text());
    }
    assert_eq!(client.get("198.51.100.8", "/").status, 502);
    assert_eq!(gateway.log().first().upstream_cluster, "outbound|9000||web.example");
}

#[test]
fn a_slow_hello_passes_no_policy_on_server_names() {
    let upstream = Upstream::plain(service::echo);
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: names}\nspec:\n  action: DENY\n  rules: [{when: [{key: connection.sni, values: [evil.example]}]}]\n";
    let yaml = [entry("db", "db.example", TCP, upstream.port()).as_str(), policy].concat();
    let (_gateway, address, _port) = gateway(&yaml, "limits: {helloTimeout: 100ms}\n");
    let mut socket = client::connect(address);
    // The beginning of a ClientHello; the name would come later.
    let begun = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    socket.write_all(begun).expect("open");
    let mut back = [0; 11];
    let outcome = socket.read_exact(&mut back);
    assert!(outcome.is_err(), "the policy was passed: {back:?}");
}

#[test]
fn a_rewrite_leads_no_wildcard_service_to_a_name_that_nobody_lists() {
    let upstream = Upstream::plain(service::http);
    let yaml = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: wild}}\nspec:\n  hosts: ['*.wild.example']\n  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {}}}]\n  resolution: DYNAMIC_DNS\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: wild}}\nspec:\n  hosts: [a.wild.example]\n  http:\n  - rewrite: {{authority: unlisted.test}}\n    route: [{{destination: {{host: '*.wild.example'}}}}]\n",
        upstream.port()
    );
    let gateway = Gateway::builder().host("unlisted.test").resources(&yaml).start();
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a.wild.example\r\n\r\n");
    let response = client.response();
    assert_ne!(response.status, 200, "unlisted.test was dialled: {}", response.text());
    assert_eq!(upstream.seen().counts().connections, 0);
}

#[test]
fn a_slow_hello_does_not_reach_a_port_without_protocol() {
    let raw = Upstream::plain(service::echo);
    let (_gateway, address, _port) =
        gateway(&entry("raw", "raw.example", ANY, raw.port()), "limits: {helloTimeout: 100ms}\n");
    let mut socket = client::connect(address);
    socket.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").expect("open");
    let mut back = [0; 11];
    let outcome = socket.read_exact(&mut back);
    assert!(outcome.is_err(), "{back:?}");
}
