//! Plain HTTP from the client, verified TLS to the upstream.

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::thread;

use support::certificates::{Authority, Identity};
use support::client::{Http, status};
use support::gateway::Gateway;
use support::http::header;
use support::pattern::{self, Checker, intact};
use support::resources::{self, GOOGLEAPIS, PUBLISHED_ORIGINATION};
use support::service;
use support::upstream::Upstream;

const MIB: u64 = 1024 * 1024;

/// An upstream, and the gateway with the second published example in front of it.
fn published() -> (Upstream, Gateway) {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let gateway = Gateway::builder()
        .host(GOOGLEAPIS)
        .trust(&authority)
        .resources(resources::origination(upstream.port()))
        .start();
    (upstream, gateway)
}

#[test]
fn the_published_example_encrypts_plain_http() {
    let (upstream, gateway) = published();
    let response = gateway.client().get(GOOGLEAPIS, "/books/v1/volumes?q=isbn:0486424618");
    assert_eq!(response.status, 200);
    assert!(response.text().starts_with("GET /books/v1/volumes?q=isbn:0486424618 HTTP/1.1\r\n"), "{}", response.text());

    let line = gateway.log().first();
    assert_eq!(line.request, "GET /books/v1/volumes?q=isbn:0486424618 HTTP/1.1");
    assert_eq!((line.code, line.flags.as_str(), line.details.as_str()), (200, "-", "via_upstream"));
    assert_eq!(line.authority, GOOGLEAPIS);
    assert_eq!(line.upstream_cluster, "outbound|443||www.googleapis.com");
    assert_eq!(line.upstream_host, format!("127.0.0.1:{}", upstream.port()));
    assert_eq!((line.bytes_received, line.bytes_sent), (0, response.body.len() as u64));
}

/// As with passthrough: word for word where port 443 of a loopback address may be bound.
#[test]
fn the_published_example_works_word_for_word() {
    let address = Ipv4Addr::new(127, 44, 3, 2);
    let authority = Authority::new();
    let identity = authority.issue(GOOGLEAPIS);
    let (upstream, yaml) = match TcpListener::bind((address, 443)) {
        Ok(listener) => (Upstream::tls_on(listener, &identity, service::http), PUBLISHED_ORIGINATION.to_owned()),
        Err(error) => {
            eprintln!("NOT WORD FOR WORD: {address}:443: {error}; with targetPort instead");
            let upstream = Upstream::tls(&identity, service::http);
            let yaml = resources::origination(upstream.port());
            (upstream, yaml)
        }
    };
    let at = if upstream.port() == 443 { address } else { Ipv4Addr::LOCALHOST };
    let gateway = Gateway::builder().host_at(GOOGLEAPIS, at).trust(&authority).resources(yaml).start();
    assert_eq!(gateway.client().get(GOOGLEAPIS, "/books").status, 200);
}

#[test]
fn the_upstream_sees_the_name_as_sni_and_as_host() {
    let (upstream, gateway) = published();
    let response = gateway.client().get("www.googleapis.com:80", "/headers");
    assert_eq!(response.status, 200);
    assert_eq!(upstream.seen().counts().server_names, [GOOGLEAPIS]);
    let host = header(response.text(), "host").unwrap();
    assert!(host == GOOGLEAPIS || host == "www.googleapis.com:80", "{host}");
}

#[test]
fn the_newer_form_with_a_rule_for_port_80_works_too() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("api.example.com"), service::http);
    let gateway = Gateway::builder()
        .host("api.example.com")
        .trust(&authority)
        .resources(resources::originating_entry("api", "api.example.com", upstream.port()))
        .start();
    assert_eq!(gateway.client().get("api.example.com", "/").status, 200);
    assert_eq!(gateway.log().first().upstream_cluster, "outbound|80||api.example.com");
}

#[test]
fn plain_http_stays_plain_without_a_destination_rule() {
    let upstream = Upstream::plain(service::http);
    let gateway = Gateway::builder()
        .host("api.example.com")
        .resources(resources::http_entry("api", "api.example.com", upstream.port()))
        .start();
    assert_eq!(gateway.client().get("api.example.com", "/").status, 200);
}

#[test]
fn requests_of_many_clients_share_an_upstream_connection() {
    let (upstream, gateway) = published();
    for _ in 0..3 {
        let mut client = gateway.client();
        for _ in 0..5 {
            assert_eq!(client.get(GOOGLEAPIS, "/bytes/100").status, 200);
        }
    }
    let counts = upstream.seen().counts();
    assert_eq!((counts.requests.len(), counts.connections), (15, 1));
    assert_eq!(gateway.log().wait_for_count(15).len(), 15);
}

#[test]
fn a_second_handshake_resumes_the_session() {
    let (upstream, gateway) = published();
    for _ in 0..3 {
        assert_eq!(gateway.client().get(GOOGLEAPIS, "/bye").status, 200);
    }
    let counts = upstream.seen().counts();
    assert_eq!((counts.connections, counts.handshakes_full, counts.handshakes_resumed), (3, 1, 2));
}

#[test]
fn bodies_arrive_intact_in_every_framing() {
    let (_upstream, gateway) = published();
    for path in ["/bytes/0", "/bytes/1", "/bytes/300000", "/chunked/0", "/chunked/300000", "/until-close/300000"] {
        let response = gateway.client().get(GOOGLEAPIS, path);
        let count = path.rsplit('/').next().unwrap().parse().unwrap();
        let mut checker = Checker::default();
        checker.feed(&response.body);
        assert_eq!((response.status, checker.verdict()), (200, intact(count)), "{path}");
    }
}

#[test]
fn a_request_body_arrives_intact_with_a_length() {
    let (_upstream, gateway) = published();
    let response = gateway.client().post(GOOGLEAPIS, "/verdict", &pattern::bytes(300_000));
    assert_eq!(response.text(), intact(300_000));
    assert_eq!(gateway.log().first().bytes_received, 300_000);
}

#[test]
fn a_request_body_arrives_intact_in_chunks() {
    let (_upstream, gateway) = published();
    let mut client = gateway.client();
    client.send(format!("POST /verdict HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for piece in pattern::bytes(300_000).chunks(7_777) {
        client.send(format!("{:x};name=value\r\n", piece.len()));
        client.send(piece);
        client.send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.response().text(), intact(300_000));
    // Nothing of the body is left on the connection.
    assert_eq!(client.get(GOOGLEAPIS, "/bytes/1").status, 200);
}

#[test]
fn large_bodies_stream_through_bounded_memory() {
    let (_upstream, gateway) = published();
    assert_eq!(gateway.client().get(GOOGLEAPIS, "/bytes/1").status, 200);
    let before = gateway.peak_memory_kib();
    assert_eq!(download(&mut gateway.client(), 128 * MIB), intact(128 * MIB));
    assert_eq!(upload(&mut gateway.client(), 128 * MIB), intact(128 * MIB));
    let grown = gateway.peak_memory_kib() - before;
    assert!(grown < 32 * 1024, "256 MiB of bodies took {grown} KiB of memory");
}

/// The client reads nothing for as long as the upstream can send: the gateway must stop reading, not keep everything.
#[test]
fn a_client_that_does_not_read_is_not_buffered_for() {
    let (upstream, gateway) = published();
    assert_eq!(gateway.client().get(GOOGLEAPIS, "/bytes/1").status, 200);
    let before = gateway.peak_memory_kib();
    let mut stalled = gateway.client();
    stalled.send(format!("GET /bytes/{} HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n", 256 * MIB));
    upstream.seen().wait_for("the request", |counts| counts.requests.len() == 2);
    // Other traffic passes meanwhile, and shows that time has passed for the stalled one too.
    assert_eq!(download(&mut gateway.client(), 32 * MIB), intact(32 * MIB));
    let grown = gateway.peak_memory_kib() - before;
    assert!(grown < 32 * 1024, "a stalled client took {grown} KiB of memory");
}

fn download(client: &mut Http, count: u64) -> String {
    client.send(format!("GET /bytes/{count} HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    let head = client.head().expect("an answer");
    let mut checker = Checker::default();
    client.body(&head, &mut |piece| checker.feed(piece)).expect("a complete body");
    checker.verdict()
}

fn upload(client: &mut Http, count: u64) -> String {
    client.send(format!("POST /verdict HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\nContent-Length: {count}\r\n\r\n"));
    pattern::write(client.socket(), count).expect("the gateway reads bodies");
    client.response().text().to_owned()
}

#[test]
fn head_204_and_304_have_no_body_and_leave_the_connection_usable() {
    let (_upstream, gateway) = published();
    let mut client = gateway.client();
    client.send(format!("HEAD /bytes/5000 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    let head = client.head().unwrap();
    assert_eq!((status(&head), header(&head, "content-length")), (200, Some("5000")));

    let empty = client.get(GOOGLEAPIS, "/status/204");
    assert_eq!((empty.status, empty.header("x-kind"), empty.body.len()), (204, Some("empty"), 0));

    let unchanged = client.get(GOOGLEAPIS, "/status/304");
    assert_eq!((unchanged.status, unchanged.header("etag"), unchanged.body.len()), (304, Some("\"a\""), 0));

    assert_eq!(client.get(GOOGLEAPIS, "/bytes/10").body.len(), 10);
}

#[test]
fn errors_of_the_upstream_are_its_own() {
    let (_upstream, gateway) = published();
    for code in [400, 401, 404, 429, 500] {
        let response = gateway.client().get(GOOGLEAPIS, &format!("/status/{code}"));
        assert_eq!((response.status, response.text()), (code, "as asked"));
        gateway.log().wait_for(|line| line.code == code && line.flags == "-" && line.details == "via_upstream");
    }
}

#[test]
fn a_client_that_expects_100_gets_it_before_its_body() {
    let (_upstream, gateway) = published();
    let mut client = gateway.client();
    let fields = format!("Host: {GOOGLEAPIS}\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n");
    client.send(format!("POST /verdict HTTP/1.1\r\n{fields}\r\n"));
    assert_eq!(status(&client.head().unwrap()), 100);
    client.send(pattern::bytes(5000));
    assert_eq!(client.response().text(), intact(5000));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_upstream, gateway) = published();
    let mut client = gateway.client();
    let requests = ["one", "two", "three"].map(|name| format!("GET /{name} HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    client.send(requests.concat());
    for name in ["one", "two", "three"] {
        assert!(client.response().text().starts_with(&format!("GET /{name} ")));
    }
}

#[test]
fn http_1_0_is_served_and_ends_the_connection() {
    let (_upstream, gateway) = published();
    for path in ["/bytes/300000", "/chunked/300000"] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.0\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.header("transfer-encoding")), (200, None), "{path}");
        let mut checker = Checker::default();
        checker.feed(&response.body);
        assert_eq!(checker.verdict(), intact(300_000), "{path}");
        assert!(client.is_closed(), "{path}");
    }
}

#[test]
fn connection_close_is_obeyed() {
    let (_upstream, gateway) = published();
    let mut client = gateway.client();
    client.send(format!("GET /bytes/5 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\nConnection: close\r\n\r\n"));
    assert_eq!(client.response().body.len(), 5);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_its_answer() {
    let (_upstream, gateway) = published();
    let mut client = gateway.client();
    client.send(format!("GET /bytes/300000 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.response().body.len(), 300_000);
}

#[test]
fn fields_of_one_hop_end_at_the_hop() {
    let (_upstream, gateway) = published();
    let mut client = gateway.client();
    let fields = "Connection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
                  Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Public: 1\r\n";
    client.send(format!("GET /headers HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n{fields}\r\n"));
    let seen = client.response().text().to_owned();
    assert_eq!(header(&seen, "x-public"), Some("1"));
    for field in ["x-private", "keep-alive", "te", "proxy-connection", "upgrade"] {
        assert_eq!(header(&seen, field), None, "{seen}");
    }

    let response = client.get(GOOGLEAPIS, "/hop");
    assert_eq!((response.header("x-public"), response.text()), (Some("yes"), "hop"));
    assert_eq!((response.header("x-secret"), response.header("keep-alive")), (None, None));
}

#[test]
fn an_answer_that_breaks_off_is_visibly_broken_for_the_client() {
    let (_upstream, gateway) = published();
    for path in ["/truncated/1000", "/truncated-chunks/1000", "/vanish/1000"] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
        client.try_response().expect_err(path);
    }
}

#[test]
fn a_route_by_path_lets_only_that_path_pass() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("api.example.com"), service::http);
    let yaml = [
        resources::originating_entry("api", "api.example.com", upstream.port()),
        resources::virtual_service(
            "books-only",
            "api.example.com",
            "  - name: books\n    match: [{uri: {prefix: /books}}]\n    \
             route: [{destination: {host: api.example.com, port: {number: 80}}}]\n",
        ),
    ];
    let gateway = Gateway::builder().host("api.example.com").trust(&authority).resources(yaml.concat()).start();
    let mut client = gateway.client();
    assert_eq!(client.get("api.example.com", "/books/v1").status, 200);
    assert_eq!(client.get("api.example.com", "/calendar").status, 404);
    assert_eq!(client.get("api.example.com", "/books/../calendar").status, 404);
    assert_eq!(client.get("api.example.com", "/%62ooks/v1").status, 200);
    gateway.log().wait_for(|line| line.code == 200 && line.route == "books");
    gateway.log().wait_for(|line| line.code == 404 && line.flags == "NR" && line.details == "route_not_found");
    assert_eq!(upstream.seen().counts().requests.len(), 2);
}

#[test]
fn a_client_certificate_is_shown_where_a_rule_says_mutual() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls_with(servers.issue("api.example.com").server_for(&clients), service::http);
    let identity = clients.issue("the-gateway");
    let tls = "      mode: MUTUAL\n      credentialName: ours\n";
    let gateway = Gateway::builder()
        .host("api.example.com")
        .file("credentials/ours/tls.crt", &identity.certificate_pem)
        .file("credentials/ours/tls.key", &identity.key_pem)
        .file("credentials/ours/ca.crt", servers.pem())
        .resources(
            [
                resources::http_entry("api", "api.example.com", upstream.port()),
                resources::destination_rule("api", "api.example.com", tls),
            ]
            .concat(),
        )
        .start();
    assert_eq!(gateway.client().get("api.example.com", "/").status, 200);
}

#[test]
fn an_upstream_that_wants_a_client_certificate_is_a_failure_without_one() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls_with(servers.issue("api.example.com").server_for(&clients), service::http);
    let gateway = Gateway::builder()
        .host("api.example.com")
        .trust(&servers)
        .resources(resources::originating_entry("api", "api.example.com", upstream.port()))
        .start();
    // TLS 1.3 lets the client finish before the server has looked: the refusal may come after the handshake.
    assert_eq!(gateway.client().get("api.example.com", "/").status, 503);
    assert_eq!(upstream.seen().counts().requests.len(), 0);
}

/// One bad certificate: what it is called, and words of which one must be in the log.
struct Bad {
    host: &'static str,
    identity: Identity,
    words: &'static [&'static str],
}

fn bad_certificates(trusted: &Authority, unknown: &Authority) -> Vec<Bad> {
    let bad = |host, identity, words| Bad { host, identity, words };
    vec![
        bad("expired.example", trusted.issue_expired("expired.example"), &["expired"]),
        bad("early.example", trusted.issue_not_yet_valid("early.example"), &["not yet", "notyet", "not valid yet"]),
        bad("name.example", trusted.issue("another.example"), &["name"]),
        bad("self.example", Identity::self_signed("self.example"), &["issuer", "self"]),
        bad("unknown.example", unknown.issue("unknown.example"), &["issuer", "authority"]),
        bad("common.example", trusted.issue_common_name_only("common.example"), &["name"]),
    ]
}

#[test]
fn a_bad_certificate_is_refused_with_its_reason_and_gets_not_one_byte_of_the_request() {
    let (trusted, unknown) = (Authority::new(), Authority::new());
    let mut gateway = Gateway::builder().trust(&trusted);
    let mut yaml = String::new();
    let mut cases = Vec::new();
    for (index, bad) in bad_certificates(&trusted, &unknown).into_iter().enumerate() {
        let upstream = Upstream::tls(&bad.identity, service::http);
        yaml += &resources::originating_entry(&format!("bad-{index}"), bad.host, upstream.port());
        gateway = gateway.host(bad.host);
        cases.push((bad, upstream));
    }
    let gateway = gateway.resources(yaml).start();

    for (bad, upstream) in &cases {
        let response = gateway.client().post(bad.host, "/secret", b"secret");
        assert_eq!(response.status, 503, "{}", bad.host);
        let line = gateway.log().wait_for(|line| line.authority == bad.host);
        assert!(line.flags.split(',').any(|flag| flag == "UF"), "{line:?}");
        let reason = line.transport_failure.to_lowercase();
        assert!(bad.words.iter().any(|word| reason.contains(word)), "{}: {reason}", bad.host);
        let counts = upstream.seen().counts();
        assert_eq!((counts.bytes_received, counts.requests.len()), (0, 0), "{}", bad.host);
    }
}

#[test]
fn many_clients_at_once_are_served_by_several_workers() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(GOOGLEAPIS), service::http);
    let gateway = Gateway::builder()
        .host(GOOGLEAPIS)
        .trust(&authority)
        .workers(2)
        .resources(resources::origination(upstream.port()))
        .start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = gateway.client();
                for _ in 0..20 {
                    assert_eq!(client.get(GOOGLEAPIS, "/chunked/20000").body.len(), 20_000);
                }
            });
        }
    });
    assert_eq!(gateway.log().wait_for_count(160).len(), 160);
}

#[test]
fn a_slow_request_head_is_read() {
    let (_upstream, gateway) = published();
    let mut client = gateway.client();
    for byte in format!("GET /bytes/5 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n").as_bytes() {
        client.socket().write_all(std::slice::from_ref(byte)).unwrap();
    }
    assert_eq!(client.response().body.len(), 5);
}

#[test]
fn a_status_that_the_route_retries_on_is_tried_again_and_the_last_answer_passed_on() {
    let upstream = Upstream::plain(service::http);
    let routes =
        "  - retries: {attempts: 2, retryOn: gateway-error}\n    route:\n    - destination: {host: api.example}\n";
    let yaml = resources::http_entry("api", "api.example", upstream.port())
        + &resources::virtual_service("api", "api.example", routes);
    let gateway = Gateway::builder().host("api.example").resources(yaml).start();
    assert_eq!(gateway.client().get("api.example", "/status/503").status, 503);
    assert_eq!(upstream.seen().counts().requests.len(), 3);
    assert_eq!(gateway.client().get("api.example", "/status/404").status, 404);
    assert_eq!(upstream.seen().counts().requests.len(), 4);
    let lines = gateway.log().wait_for_count(2);
    assert_eq!((lines[0].code, lines[1].code), (503, 404));
}

/// Answers of known length are read in large pieces; what there is of one goes on all the same.
#[test]
fn what_a_slow_upstream_has_sent_does_not_wait_for_the_rest() {
    let (upstream, gateway) = published();
    let mut client = gateway.client();
    client.send(format!("GET /gate/200000 HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n"));
    let head = client.head().unwrap();
    let (mut checker, mut received) = (Checker::default(), 0);
    let whole = client.body(&head, &mut |piece| {
        checker.feed(piece);
        received += piece.len();
        if received >= 100_000 {
            upstream.seen().open_gate();
        }
    });
    assert!(whole.is_ok(), "{received} bytes, {whole:?}");
    assert_eq!(checker.verdict(), intact(200_000));
    assert_eq!(client.get(GOOGLEAPIS, "/a-short-answer-on-the-same-connection").status, 200);
    assert_eq!(upstream.seen().counts().connections, 1);
}
