//! HTTP/2 on either side, and on both: one policy, one log, and what gRPC needs.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use rustix::net;
use rustix::process::Signal;

use support::certificates::Authority;
use support::gateway::{Gateway, Port};
use support::http2::{Client, Server, read, request, send};
use support::log::Line;
use support::pattern::{Checker, intact};
use support::resources::{self, GOOGLEAPIS};
use support::upstream::Upstream;
use support::{service, wait_until};

const HOST: &str = "api.example.com";

/// A ServiceEntry of one port.
fn entry(protocol: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api}}
spec:
  hosts: [{HOST}]
  ports: [{{number: 80, name: main, protocol: {protocol}, targetPort: {port}}}]
  resolution: DNS
"
    )
}

/// A DestinationRule for it.
fn rule(policy: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: api}}
spec:
  host: {HOST}
  trafficPolicy: {policy}
"
    )
}

fn gateway(yaml: impl Into<String>) -> Gateway {
    Gateway::builder().host(HOST).resources(yaml).start()
}

/// A server of gRPC, and the gateway before it.
fn grpc() -> (Server, Gateway) {
    let server = Server::start();
    let gateway = gateway(entry("GRPC", server.port()));
    (server, gateway)
}

fn grpc_request(path: &str) -> http::Request<()> {
    let mut request = request("POST", HOST, path);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

// --- HTTP/2 to the upstream ---------------------------------------------------------------------

#[test]
fn clients_of_http1_reach_an_upstream_of_http2() {
    let (server, gateway) = grpc();
    let mut client = gateway.client();
    let response = client.get(HOST, "/a?b=c");
    assert_eq!(response.status, 200);
    assert!(response.text().starts_with(&format!("GET http://{HOST}/a?b=c\n")), "{}", response.text());
    let response = client.post(HOST, "/echo", b"to and fro");
    assert_eq!((response.status, response.text()), (200, "to and fro"));
    assert_eq!(server.seen().connections, 1);
    let lines = gateway.log().wait_for_count(2);
    assert_eq!(lines[0].request, "GET /a?b=c HTTP/1.1");
    assert_eq!((lines[1].bytes_received, lines[1].bytes_sent), (10, 10));
}

#[test]
fn requests_share_a_connection_as_far_as_its_streams_go() {
    let server = Server::allowing(4);
    let gateway = gateway(entry("HTTP2", server.port()));
    // The first tells how many streams the server allows.
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
    let mut clients: Vec<_> = (0..6).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send(format!("GET /hang HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    }
    let seen = server.wait_for("six requests at once", |seen| seen.most_at_once == 6);
    assert_eq!(seen.connections, 2);
}

#[test]
fn bodies_larger_than_any_window_pass() {
    let (_server, gateway) = grpc();
    let bytes = 3_000_000;
    let response = gateway.client().get(HOST, &format!("/bytes/{bytes}"));
    let mut checker = Checker::default();
    checker.feed(&response.body);
    assert_eq!(checker.verdict(), intact(bytes));
    let body = support::pattern::bytes(bytes);
    let response = gateway.client().post(HOST, "/echo", &body);
    assert!(response.body == body);
}

#[test]
fn a_refused_stream_is_asked_for_again_whatever_the_method() {
    let (server, gateway) = grpc();
    // In one piece: what has passed on already of a body cannot be sent again.
    let mut client = gateway.client();
    client.send(format!("POST /refuse HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\nx"));
    assert_eq!(client.response().status, 200);
    assert_eq!(server.seen().requests, 2);
}

#[test]
fn an_answer_that_the_upstream_breaks_off_does_not_look_whole() {
    let (_server, gateway) = grpc();
    let mut client = gateway.client();
    client.send(format!("GET /break HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(client.try_response().is_err());
    assert_eq!(gateway.log().first().flags, "UC");
}

#[test]
fn a_goaway_costs_no_request() {
    let (server, gateway) = grpc();
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/goaway").status, 200);
    assert_eq!(client.get(HOST, "/").status, 200);
    assert_eq!(client.post(HOST, "/echo", b"x").status, 200);
    assert_eq!(server.seen().connections, 2);
}

#[test]
fn interim_responses_pass() {
    let (_server, gateway) = grpc();
    let mut client = gateway.client();
    client.send(format!("GET /interim HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 103 "));
    assert_eq!(client.response().status, 200);
}

#[test]
fn an_upstream_that_does_not_speak_http2_is_named() {
    let upstream = Upstream::plain(service::http);
    let gateway = gateway(entry("HTTP2", upstream.port()));
    let response = gateway.client().get(HOST, "/");
    assert!(matches!(response.status, 502 | 503), "{}", response.status);
    let line = gateway.log().first();
    assert!(matches!(line.flags.as_str(), "UPE" | "UC"), "{line:?}");
}

#[test]
fn tls_without_http2_is_refused() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::http);
    let yaml = [entry("HTTP2", upstream.port()), rule("{tls: {mode: SIMPLE}}")].concat();
    let gateway = Gateway::builder().host(HOST).trust(&authority).resources(yaml).start();
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    let line = gateway.log().first();
    assert_eq!(line.flags, "UF");
    assert!(line.transport_failure.contains("ALPN"), "{}", line.transport_failure);
    assert!(upstream.seen().counts().requests.is_empty());
}

#[test]
fn nginx_speaks_http2_inside_tls() {
    let authority = Authority::new();
    let Some(nginx) = Nginx::start(&authority) else { return };
    let yaml = [
        entry("HTTP", nginx.port.number()),
        rule("{tls: {mode: SIMPLE}, connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}"),
    ]
    .concat();
    let gateway = Gateway::builder().host(HOST).trust(&authority).resources(yaml).start();
    assert_eq!(gateway.client().get(HOST, "/protocol").text(), "HTTP/2.0");
    let mut client = Client::connect(gateway.http());
    assert_eq!(client.get(HOST, "/protocol").unwrap().text(), "HTTP/2.0");
}

#[test]
fn the_mesh_upgrades_ports_of_http() {
    let server = Server::start();
    let gateway = Gateway::builder()
        .host(HOST)
        .mesh("  h2UpgradePolicy: UPGRADE\n")
        .resources(entry("HTTP", server.port()))
        .start();
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
}

#[test]
fn the_clients_protocol_is_the_upstreams_where_a_rule_says_so() {
    let server = Server::start();
    let yaml = [entry("HTTP", server.port()), rule("{connectionPool: {http: {useClientProtocol: true}}}")].concat();
    let gateway = gateway(yaml);
    assert_eq!(Client::connect(gateway.http()).get(HOST, "/").unwrap().status, 200);
    // A server that knows HTTP/2 alone has no answer to HTTP/1.1.
    assert_ne!(gateway.client().get(HOST, "/").status, 200);
}

#[test]
fn connections_carry_no_more_than_a_rule_says() {
    let server = Server::start();
    let yaml =
        [entry("HTTP2", server.port()), rule("{connectionPool: {http: {maxRequestsPerConnection: 2}}}")].concat();
    let gateway = gateway(yaml);
    let mut client = gateway.client();
    (0..4).for_each(|_| assert_eq!(client.get(HOST, "/").status, 200));
    assert_eq!(server.seen().connections, 2);
}

#[test]
fn a_connection_of_an_entry_that_is_gone_is_used_no_more() {
    let (server, gateway) = grpc();
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
    gateway
        .reload(&[entry("GRPC", server.port()), rule("{connectionPool: {http: {maxConcurrentStreams: 7}}}")].concat());
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
    assert_eq!(server.seen().connections, 2);
}

/// Requests of many clients share a connection: one that does not read must not stop the others.
#[test]
fn a_client_that_does_not_read_stops_nobody_on_the_same_upstream_connection() {
    let (server, gateway) = grpc();
    let mut slow: Vec<_> = (0..5).map(|_| gateway.client()).collect();
    for client in &mut slow {
        client.send(format!("GET /bytes/100000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    }
    server.wait_for("the slow ones", |seen| seen.requests == 5);
    for _ in 0..20 {
        assert_eq!(gateway.client().get(HOST, "/bytes/300000").body.len(), 300_000);
    }
    assert_eq!(server.seen().connections, 1);
    assert!(gateway.memory_kib() < 100_000, "{} KiB", gateway.memory_kib());
}

#[test]
fn a_connection_that_has_died_serves_no_further_request() {
    let server = Server::start();
    let route = format!("  - timeout: 2s\n    route: [{{destination: {{host: {HOST}}}}}]\n");
    let yaml =
        [entry("GRPC", server.port()), "---\n".to_owned(), resources::virtual_service("api", HOST, &route)].concat();
    let gateway = gateway(yaml);
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/").status, 200);
    assert_eq!(client.get(HOST, "/hang").status, 504);
    // Nothing at all has come for so long that the connection is taken for dead.
    assert_eq!(client.get(HOST, "/").status, 200);
    assert_eq!(server.seen().connections, 2);
}

/// What many requests share dies under all of them. Each may be repeated, but not as often as the others are.
#[test]
fn a_request_that_kills_its_connection_is_not_repeated_without_end() {
    let (server, gateway) = grpc();
    let mut client = Client::connect(gateway.http());
    client.run(async |sender| {
        let mut answers = Vec::new();
        for _ in 0..60 {
            let mut sender = sender.clone().ready().await.unwrap();
            answers.push(sender.send_request(request("GET", HOST, "/crash"), true).unwrap().0);
        }
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), 503);
        }
    });
    let connections = server.seen().connections;
    assert!(connections < 30, "{connections} connections");
}

/// A listener whose queue is full: whoever connects waits.
fn stuck(address: Ipv4Addr) -> (OwnedFd, Vec<TcpStream>, u16) {
    let listener = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).expect("a descriptor is free");
    net::bind(&listener, &SocketAddrV4::new(address, 0)).expect("loopback can be bound");
    net::listen(&listener, 0).expect("it is bound");
    let bound = SocketAddr::try_from(net::getsockname(&listener).expect("it is bound")).expect("an address of IPv4");
    let fill = (0..4).filter_map(|_| TcpStream::connect_timeout(&bound, Duration::from_millis(200)).ok());
    let fill = fill.collect();
    (listener, fill, bound.port())
}

/// Requests wait for a connection that one of them makes. It may lead to another address than was tried first, and that is
/// one of the maker's host alone.
#[test]
fn a_connection_to_another_hosts_address_is_not_shared() {
    let dead = Ipv4Addr::new(127, 44, 9, 1);
    let (first, second) = (Ipv4Addr::new(127, 44, 9, 2), Ipv4Addr::new(127, 44, 9, 3));
    let (_listener, _fill, port) = stuck(dead);
    let (one, two) = (Server::at((first, port).into()), Server::at((second, port).into()));
    let yaml = [
        entry("HTTP2", port).replace(HOST, "'*.example.com'").replace("DNS", "DYNAMIC_DNS"),
        rule("{connectionPool: {tcp: {connectTimeout: 1s}}}").replace(HOST, "'*.example.com'"),
    ]
    .concat();
    let hosts =
        format!("  hosts:\n    one.example.com: ['{dead}', '{first}']\n    two.example.com: ['{dead}', '{second}']\n");
    let gateway = Gateway::builder().dns(&hosts).resources(yaml).start();
    let asked: Vec<_> = (0..8)
        .map(|index| {
            let (name, mut client) = (["one", "two"][index % 2], gateway.client());
            client.send(format!("GET / HTTP/1.1\r\nHost: {name}.example.com\r\n\r\n"));
            client
        })
        .collect();
    for mut client in asked {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!((one.seen().requests, two.seen().requests), (4, 4));
}

/// An upstream may answer before it has the whole request, and close (RFC 9113 section 8.1).
#[test]
fn an_early_answer_is_passed_on_though_the_connection_ends_behind_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("bound").port();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the gateway connects");
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).expect("the preface");
        // SETTINGS; then, once the request is there, `:status: 413` with `content-length: 5`, and a body that ends.
        socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).expect("the gateway reads");
        let mut frames = Vec::new();
        let mut read = [0; 4096];
        while !frames.windows(5).any(|bytes| bytes == b"begin") {
            let count = socket.read(&mut read).expect("a request");
            assert!(count > 0, "no request");
            frames.extend_from_slice(&read[..count]);
        }
        let mut answer = vec![0, 0, 9, 1, 4, 0, 0, 0, 1, 0x08, 3, b'4', b'1', b'3', 0x0f, 0x0d, 1, b'5'];
        answer.extend_from_slice(&[0, 0, 5, 0, 1, 0, 0, 0, 1]);
        answer.extend_from_slice(b"large");
        socket.write_all(&answer).expect("the gateway reads");
        socket.shutdown(Shutdown::Write).expect("it is open");
        // Until the gateway has had enough.
        while matches!(socket.read(&mut read), Ok(1..)) {}
    });
    let gateway = gateway(entry("HTTP2", port));
    let mut client = gateway.client();
    client.send(format!("POST /early HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\nbegin"));
    let response = client.response();
    assert_eq!((response.status, response.text()), (413, "large"));
    drop((client, gateway));
    server.join().expect("the server saw what it expected");
}

#[test]
fn requests_wait_where_a_rule_bounds_connections_and_streams() {
    let server = Server::start();
    let pool = "{connectionPool: {tcp: {maxConnections: 1, connectTimeout: 1s}, http: {maxConcurrentStreams: 2}}}";
    let gateway = gateway([entry("HTTP2", server.port()), rule(pool)].concat());
    let mut waiting: Vec<_> = (0..2).map(|_| gateway.client()).collect();
    for client in &mut waiting {
        client.send(format!("GET /hang HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    }
    server.wait_for("two calls", |seen| seen.requests == 2);
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    assert_eq!(gateway.log().wait_for(|line| line.code == 503).flags, "UO");
    assert_eq!(server.seen().connections, 1);
}

#[test]
fn requests_that_wait_for_the_same_connection_are_pending() {
    let address = Ipv4Addr::new(127, 44, 9, 4);
    let (_listener, _fill, port) = stuck(address);
    let pool = "{connectionPool: {tcp: {connectTimeout: 1s}, http: {http1MaxPendingRequests: 1}}}";
    let gateway = Gateway::builder()
        .dns(&format!("  hosts:\n    {HOST}: ['{address}']\n"))
        .resources([entry("HTTP2", port), rule(pool)].concat())
        .start();
    let mut waiting: Vec<_> = (0..3).map(|_| gateway.client()).collect();
    for client in &mut waiting {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    }
    // One makes the connection, one waits for it, and the third is told at once.
    let line = gateway.log().first();
    assert_eq!((line.code, &*line.flags), (503, "UO"));
    assert!(waiting.iter_mut().all(|client| client.response().status == 503));
    let flags: Vec<String> = gateway.log().wait_for_count(3).into_iter().map(|line| line.flags).collect();
    assert_eq!(flags, ["UO", "UF", "UF"]);
}

/// What each client may take back of its own adds up at the upstream.
#[test]
fn requests_that_many_clients_take_back_are_not_all_taken_back_on_one_connection() {
    let (server, gateway) = grpc();
    for round in 1..=3 {
        Client::connect(gateway.http()).run(async |sender| {
            let mut streams = Vec::new();
            for _ in 0..90 {
                let mut sender = sender.clone().ready().await.unwrap();
                streams.push(sender.send_request(grpc_request("/hang"), true).unwrap());
            }
            while server.seen().requests < 90 * round {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            streams.iter_mut().for_each(|(_, stream)| stream.send_reset(h2::Reason::CANCEL));
            while server.seen().given_up < 90 * round {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    assert_eq!(server.seen().connections, 1);
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
    assert_eq!(server.seen().connections, 2);
}

/// An upstream that allows no stream (RFC 9113 section 6.5.2), and says so before it can have heard of any. Returns its
/// port, and a count of its connections.
fn allows_none(mut config: rustls::ServerConfig) -> (u16, Arc<AtomicUsize>) {
    config.send_half_rtt_data = true;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let port = listener.local_addr().expect("it is bound").port();
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        for socket in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let mut connection = rustls::ServerConnection::new(config).expect("the configuration is complete");
                let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
                connection.writer().write_all(&settings).expect("it is buffered");
                let mut stream = rustls::StreamOwned::new(connection, socket.expect("a connection"));
                while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
            });
        }
    });
    (port, connections)
}

#[test]
fn an_upstream_that_allows_no_stream_holds_nobody_for_longer_than_connecting_may_take() {
    let authority = Authority::new();
    let (port, connections) = allows_none(authority.issue(HOST).server());
    let yaml = [
        entry("HTTP2", port),
        rule("{tls: {mode: SIMPLE}, connectionPool: {tcp: {connectTimeout: 500ms}}}"),
        "---\n".to_owned(),
        resources::virtual_service(
            "api",
            HOST,
            &format!("  - retries: {{attempts: 1, retryOn: connect-failure}}\n    route: [{{destination: {{host: {HOST}}}}}]\n"),
        ),
    ]
    .concat();
    let gateway = Gateway::builder().host(HOST).trust(&authority).resources(yaml).start();
    let begun = Instant::now();
    assert_eq!(gateway.client().post(HOST, "/", b"x").status, 503);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let line = gateway.log().first();
    assert_eq!((&*line.flags, &*line.transport_failure), ("UF", "the upstream allows no further stream"));
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

// --- HTTP/2 from the client ---------------------------------------------------------------------

#[test]
fn clients_of_http2_reach_an_upstream_of_http1() {
    let upstream = Upstream::plain(service::http);
    let gateway = gateway(entry("HTTP", upstream.port()));
    let mut client = Client::connect(gateway.http());
    let answer = client.get(HOST, "/a?b=c").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("GET /a?b=c HTTP/1.1\r\n"), "{}", answer.text());
    let line = gateway.log().first();
    assert_eq!(line.request, "GET /a?b=c HTTP/2");
    assert_eq!((line.code, line.flags.as_str(), line.authority.as_str()), (200, "-", HOST));
    assert_eq!(line.bytes_sent, answer.body.len() as u64);
}

#[test]
fn the_published_example_serves_clients_of_http2() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let yaml = resources::origination(upstream.port());
    let gateway = Gateway::builder().host(GOOGLEAPIS).trust(&authority).resources(yaml).start();
    let mut client = Client::connect(gateway.http());
    assert_eq!(client.get(GOOGLEAPIS, "/books/v1/volumes").unwrap().status, 200);
}

/// What policy refuses in HTTP/1.1 it refuses in HTTP/2, with the same status, flag and reason.
#[test]
fn policy_is_the_same_in_either_version() {
    let upstream = Upstream::plain(service::http);
    let yaml = [
        entry("HTTP", upstream.port()),
        "---\n".to_owned(),
        resources::virtual_service(
            "api",
            HOST,
            &format!("  - match: [{{uri: {{prefix: /open}}}}]\n    route: [{{destination: {{host: {HOST}}}}}]\n"),
        ),
        "---\n".to_owned(),
        resources::authorization_policy(
            "closed",
            "  action: DENY\n  rules: [{to: [{operation: {paths: [/open/secret]}}]}]\n",
        ),
    ]
    .concat();
    let gateway = gateway(yaml);
    let mut second = Client::connect(gateway.http());
    let mut count = 0;
    for (host, path) in [
        (HOST, "/open"),
        (HOST, "/other"),
        (HOST, "/open/secret"),
        (HOST, "/open/./secret"),
        (HOST, "/open/%2e/secret"),
        ("elsewhere.example", "/open"),
        ("API.example.COM", "/open"),
        ("127.0.0.1", "/open"),
    ] {
        let one = gateway.client().get(host, path).status;
        let two = second.get(host, path).unwrap().status;
        count += 2;
        let lines = gateway.log().wait_for_count(count);
        let [first, second] = [&lines[count - 2], &lines[count - 1]];
        assert_eq!(one, two, "{host}{path}");
        assert_eq!(
            (first.code, &first.flags, &first.details, &first.route),
            (second.code, &second.flags, &second.details, &second.route),
            "{host}{path}"
        );
    }
}

#[test]
fn many_requests_share_a_clients_connection() {
    let upstream = Upstream::plain(service::http);
    let gateway = gateway(entry("HTTP", upstream.port()));
    let mut client = Client::connect(gateway.http());
    client.run(async |sender| {
        let mut answers = Vec::new();
        for index in 0..50 {
            let mut sender = sender.clone().ready().await.unwrap();
            let request = request("GET", HOST, &format!("/bytes/{}", index * 20));
            answers.push(sender.send_request(request, true).unwrap().0);
        }
        for (index, answer) in answers.into_iter().enumerate() {
            assert_eq!(read(answer.await.unwrap()).await.unwrap().body.len(), index * 20);
        }
    });
    gateway.log().wait_for_count(50);
}

#[test]
fn a_stream_whose_upstream_does_not_read_stops_no_other() {
    let upstream = Upstream::plain(service::http);
    let server = Server::start();
    let other = entry("GRPC", server.port()).replace(HOST, "other.example.com").replace("name: api", "name: other");
    let yaml = [entry("HTTP", upstream.port()), "---\n".to_owned(), other].concat();
    let gateway = Gateway::builder().host(HOST).host("other.example.com").resources(yaml).start();
    Client::connect(gateway.http()).run(async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let stuck = http::Request::from_parts(request("POST", "other.example.com", "/hang").into_parts().0, ());
        let (_answer, mut body) = sender.send_request(stuck, false).unwrap();
        let flood = async { while send(&mut body, vec![0; 16 * 1024].into()).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(1), flood).await.unwrap_err();
        for _ in 0..5 {
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, mut body) = sender.send_request(request("POST", HOST, "/x"), false).unwrap();
            send(&mut body, vec![b'x'; 200_000].into()).await.unwrap();
            body.send_data(Bytes::new(), true).unwrap();
            assert_eq!(read(answer.await.unwrap()).await.unwrap().status, 200);
        }
    });
}

#[test]
fn h2load_has_all_its_requests_answered() {
    let (server, gateway) = grpc();
    let load = Command::new("h2load")
        .args(["-n", "2000", "-c", "5", "-m", "20", "--connect-to", &gateway.http().to_string()])
        .arg(format!("http://{HOST}/bytes/5000"))
        .output();
    let Ok(output) = load else {
        eprintln!("NOT TESTED: h2load is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("2000 succeeded, 0 failed, 0 errored"), "{text}");
    assert_eq!(server.seen().requests, 2000);
    gateway.log().wait_for_count(2000);
    // Not one of them looked given up to the server.
    assert_eq!((server.seen().connections, server.seen().given_up), (1, 0));
}

#[test]
fn curl_passes_with_prior_knowledge() {
    let upstream = Upstream::plain(service::http);
    let gateway = gateway(entry("HTTP", upstream.port()));
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--http2-prior-knowledge"])
        .args(["--write-out", "%{http_version}", "--connect-to", &format!("::{}", gateway.http())])
        .args(["--data", "a body", &format!("http://{HOST}/x")])
        .output();
    let Ok(output) = curl else {
        eprintln!("NOT TESTED: curl is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("POST /x HTTP/1.1\r\n") && text.ends_with("a body2"), "{text}{output:?}");
}

#[test]
fn a_drain_lets_streams_end_and_says_goaway() {
    let (_server, mut gateway) = grpc();
    let mut client = Client::connect(gateway.http());
    client.run(async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut stream) = sender.send_request(grpc_request("/echo"), false).unwrap();
        let mut body = answer.await.unwrap().into_body();
        gateway.signal(Signal::TERM);
        // The gateway says that it takes no more.
        while sender.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        send(&mut stream, Bytes::from_static(b"late")).await.unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "late");
        stream.send_data(Bytes::new(), true).unwrap();
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
    client.end().unwrap();
    assert!(gateway.wait_exit().success());
}

#[test]
fn a_reload_closes_a_host_to_the_next_request_of_a_connection() {
    let upstream = Upstream::plain(service::http);
    let gateway = gateway(entry("HTTP", upstream.port()));
    let mut client = Client::connect(gateway.http());
    assert_eq!(client.get(HOST, "/").unwrap().status, 200);
    gateway.reload(&resources::http_entry("other", "other.example", upstream.port()));
    assert_eq!(client.get(HOST, "/").unwrap().status, 502);
}

// --- gRPC: HTTP/2 on both sides -----------------------------------------------------------------

#[test]
fn unary_calls_pass_with_trailers_both_ways() {
    let (_server, gateway) = grpc();
    let mut client = Client::connect(gateway.http());
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("17"));
    trailers.insert("content-length", HeaderValue::from_static("999"));
    let answer = client.ask(grpc_request("/echo"), Some((b"\0\0\0\0\x05hello", trailers))).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"\0\0\0\0\x05hello".as_slice()));
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    assert_eq!((answer.trailer("grpc-status"), answer.trailer("x-checksum")), (Some("0"), Some("17")));
    assert_eq!(answer.trailer("content-length"), None);
    let line = gateway.log().first();
    assert_eq!((line.request.as_str(), line.bytes_received, line.bytes_sent), ("POST /echo HTTP/2", 10, 10));
}

/// The server's answer has the trailers of the request.
#[test]
fn trailers_bring_nothing_that_heads_may_not() {
    let server = Server::start();
    let route = format!(
        "  - headers:
      request: {{remove: [x-inner], set: {{x-team: red}}}}
      response: {{remove: [x-server], set: {{x-answer: ours}}}}
    route: [{{destination: {{host: {HOST}}}}}]
"
    );
    let yaml = [&entry("GRPC", server.port()), "---\n", &resources::virtual_service("api", HOST, &route)].concat();
    // Those that heads may have by the operator's leave, trailers may not.
    let leave = "headers: {forwarded: FORWARD, mesh: FORWARD, methodOverride: FORWARD, underscores: ALLOW}\n";
    let gateway = Gateway::builder().host(HOST).setting(leave).resources(yaml).start();
    let withheld = [
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "via",
        "x-envoy-retry-on",
        "x-forwarded-client-cert",
        "x-http-method-override",
        "x_forwarded_for",
        "some_name",
        "x-inner",
        "x-team",
        "x-server",
        "x-answer",
    ];
    let trailers: HeaderMap = withheld
        .iter()
        .chain(&["x-checksum"])
        .map(|name| (name.parse().unwrap(), HeaderValue::from_static("theirs")))
        .collect();
    let mut client = Client::connect(gateway.http());
    let answer = client.ask(grpc_request("/echo"), Some((b"x", trailers))).unwrap();
    assert_eq!((answer.trailer("grpc-status"), answer.trailer("x-checksum")), (Some("0"), Some("theirs")));
    for name in withheld {
        assert_eq!(answer.trailer(name), None, "{name}");
    }
    assert_eq!(answer.header("x-answer"), Some("ours"));
    // What is closed to answers alone has reached the server.
    let seen = server.seen().trailers;
    assert_eq!(seen, ["grpc-status", "x-answer", "x-checksum", "x-server"]);
}

#[test]
fn an_answer_of_trailers_alone_is_one_head() {
    let (_server, gateway) = grpc();
    let answer = Client::connect(gateway.http()).ask(grpc_request("/denied"), Some((b"x", HeaderMap::new()))).unwrap();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("7")));
    assert!(answer.is_head_only && answer.body.is_empty() && answer.trailers.is_none());
}

#[test]
fn streams_flow_both_ways_at_once() {
    let (_server, gateway) = grpc();
    Client::connect(gateway.http()).run(async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut stream) = sender.send_request(grpc_request("/echo"), false).unwrap();
        let mut body = answer.await.unwrap().into_body();
        for round in 0..20u8 {
            send(&mut stream, vec![round; 1000].into()).await.unwrap();
            let mut received = 0;
            while received < 1000 {
                let data = body.data().await.unwrap().unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                received += data.len();
                assert!(data.iter().all(|byte| *byte == round));
            }
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn a_call_that_the_client_gives_up_is_given_up_upstream() {
    let (server, gateway) = grpc();
    let mut client = Client::connect(gateway.http());
    client.run(async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut stream) = sender.send_request(grpc_request("/hang"), true).unwrap();
        tokio::time::timeout(Duration::from_millis(300), answer).await.unwrap_err();
        stream.send_reset(h2::Reason::CANCEL);
        tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
    });
    server.wait_for("the call to be given up", |seen| seen.given_up == 1);
    assert_eq!(gateway.log().first().flags, "DC");
    assert_eq!(client.get(HOST, "/").unwrap().status, 200);
}

#[test]
fn a_broken_answer_is_a_reset_and_no_end() {
    let (_server, gateway) = grpc();
    let error = Client::connect(gateway.http()).get(HOST, "/break").unwrap_err();
    assert!(error.is_reset(), "{error}");
}

#[test]
fn a_side_that_stops_reading_stops_the_other() {
    let (server, gateway) = grpc();
    let mut client = Client::connect(gateway.http());
    client.run(async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut stream) = sender.send_request(grpc_request("/echo"), false).unwrap();
        // The answer is never read: sooner or later nothing more is taken.
        let flood = async { while send(&mut stream, vec![0; 16 * 1024].into()).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(3), flood).await.unwrap_err();
        drop(answer);
    });
    assert!(gateway.memory_kib() < 100_000, "{} KiB", gateway.memory_kib());
    assert_eq!(server.seen().requests, 1);
}

/// Begins a call, sends nothing more, and waits for what the gateway says.
fn fall_silent(gateway: &Gateway, path: &str) -> Line {
    Client::connect(gateway.http()).run(async |sender| {
        let mut sender = sender.ready().await.expect("an open connection");
        let (answer, _stream) = sender.send_request(grpc_request(path), false).expect("a good request");
        let answer = read(answer.await.expect("an answer")).await.expect("all of it");
        assert!(answer.is_head_only);
    });
    gateway.log().first()
}

#[test]
fn a_claim_to_be_a_call_buys_no_time_before_an_upstream_of_http1() {
    let upstream = Upstream::plain(service::http);
    let gateway = Gateway::builder()
        .host(HOST)
        .setting("limits: {bodyIdleTimeout: 300ms}\n")
        .resources(entry("HTTP", upstream.port()))
        .start();
    assert_eq!(fall_silent(&gateway, "/x").details, "request_body_timeout");
}

#[test]
fn a_call_may_be_silent_for_longer_than_a_body() {
    let server = Server::start();
    let gateway = Gateway::builder()
        .host(HOST)
        .setting("limits: {bodyIdleTimeout: 300ms}\n")
        .resources(entry("GRPC", server.port()))
        .start();
    Client::connect(gateway.http()).run(async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let (answer, _stream) = sender.send_request(grpc_request("/hang"), false).unwrap();
        tokio::time::timeout(Duration::from_secs(1), answer).await.unwrap_err();
    });
}

#[test]
fn a_client_that_falls_silent_is_not_held_against_the_upstream() {
    let outliers = "{outlierDetection: {consecutiveGatewayErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100}}";
    let route = format!("  - timeout: 300ms\n    route: [{{destination: {{host: {HOST}}}}}]\n");
    let timeout = ["---\n", &resources::virtual_service("api", HOST, &route)].concat();
    for (limits, more, details) in
        [("limits: {tunnelIdleTimeout: 300ms}\n", "", "request_body_timeout"), ("", &*timeout, "response_timeout")]
    {
        let server = Server::start();
        let yaml = [&entry("GRPC", server.port()), &*rule(outliers), more].concat();
        let gateway = Gateway::builder().host(HOST).setting(limits).resources(yaml).start();
        assert_eq!(fall_silent(&gateway, "/hang").details, details);
        assert_eq!(gateway.client().get(HOST, "/").status, 200);
    }
}

#[test]
fn refusals_of_grpc_are_told_in_its_words() {
    let (_server, gateway) = grpc();
    let mut blocked = grpc_request("/x");
    *blocked.uri_mut() = "http://blocked.example/x".parse().unwrap();
    let answer = Client::connect(gateway.http()).ask(blocked, Some((b"x", HeaderMap::new()))).unwrap();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("14")));
    assert!(answer.header("grpc-message").unwrap().contains("blocked.example"));
    assert!(answer.is_head_only);
    assert_eq!(gateway.log().first().details, "host_not_listed");
}

#[test]
fn calls_pass_on_epoll_and_cost_nothing_while_they_are_silent() {
    let server = Server::start();
    let gateway =
        Gateway::builder().host(HOST).setting("ioDriver: epoll\n").resources(entry("GRPC", server.port())).start();
    let mut client = Client::connect(gateway.http());
    let answer = client.ask(grpc_request("/echo"), Some((b"hello", HeaderMap::new()))).unwrap();
    assert_eq!(answer.trailer("grpc-status"), Some("0"));
    let bytes = 3_000_000;
    assert_eq!(client.get(HOST, &format!("/bytes/{bytes}")).unwrap().body.len() as u64, bytes);
    client.run(async |sender| {
        let mut sender = sender.ready().await.unwrap();
        let (answer, _stream) = sender.send_request(grpc_request("/hang"), false).unwrap();
        let before = gateway.processor_ticks();
        tokio::time::timeout(Duration::from_secs(2), answer).await.unwrap_err();
        assert!(gateway.processor_ticks() - before < 30, "{} ticks", gateway.processor_ticks() - before);
    });
}

/// nginx, with HTTP/2 in TLS.
struct Nginx {
    child: Child,
    port: Port,
    _directory: tempfile::TempDir,
}

impl Nginx {
    fn start(authority: &Authority) -> Option<Self> {
        let port = Port::reserve();
        let directory = tempfile::tempdir().expect("a writable temporary folder");
        let write = |name, content: &str| fs::write(directory.path().join(name), content).expect("the folder is ours");
        let identity = authority.issue(HOST);
        write("cert.pem", &identity.certificate_pem);
        write("key.pem", &identity.key_pem);
        write(
            "nginx.conf",
            &format!(
                "daemon off;
master_process off;
pid nginx.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path temp;
  proxy_temp_path temp;
  fastcgi_temp_path temp;
  uwsgi_temp_path temp;
  scgi_temp_path temp;
  server {{
    listen 127.0.0.1:{} ssl http2;
    ssl_certificate cert.pem;
    ssl_certificate_key key.pem;
    location /protocol {{ return 200 $server_protocol; }}
  }}
}}
",
                port.number()
            ),
        );
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("nginx")
            .env("PATH", path)
            .arg("-p")
            .arg(directory.path())
            .args(["-c", "nginx.conf", "-e", "stderr"])
            .stdin(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("NOT TESTED: nginx is not installed");
            return None;
        };
        wait_until("nginx to listen", || std::net::TcpStream::connect(("127.0.0.1", port.number())).ok());
        Some(Self { child, port, _directory: directory })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
