//! What DestinationRules say of connections, endpoints and requests, kept by the running gateway.

mod support;

use std::io::{self, Read, Write};

use support::certificates::Authority;
use support::client::{self, Http, read_to_end};
use support::gateway::{Gateway, Port};
use support::http::Reader;
use support::resources;
use support::service;
use support::stream::Stream;
use support::upstream::{Seen, Upstream};
use support::wait_until;

const HOST: &str = "api.example";

/// A DestinationRule with this `trafficPolicy`.
fn rule(policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: rule}}\n\
         spec: {{host: {HOST}, trafficPolicy: {policy}}}\n"
    )
}

/// Plain HTTP to one upstream, under this `trafficPolicy`.
fn http(upstream: &Upstream, policy: &str) -> Gateway {
    let yaml = resources::http_entry("api", HOST, upstream.port()) + &rule(policy);
    Gateway::builder().host(HOST).resources(yaml).start()
}

/// Tunnels to one upstream, under this `trafficPolicy`.
fn tunnels(upstream: &Upstream, policy: &str) -> Gateway {
    let yaml = resources::tls_entry("api", HOST, upstream.port()) + &rule(policy);
    Gateway::builder().host(HOST).resources(yaml).start()
}

/// A service on this port whose endpoints are these, each with its weight.
fn static_entry(number: u16, protocol: &str, endpoints: &[(u16, u32)]) -> String {
    let endpoint =
        |(port, weight): &(u16, u32)| format!("  - {{address: 127.0.0.1, ports: {{it: {port}}}, weight: {weight}}}\n");
    let endpoints: String = endpoints.iter().map(endpoint).collect();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec:\n  hosts: [{HOST}]\n  \
         ports: [{{number: {number}, name: it, protocol: {protocol}}}]\n  resolution: STATIC\n  endpoints:\n{endpoints}"
    )
}

fn overflows(gateway: &Gateway, limit: &str) -> Option<f64> {
    gateway.metric(&format!("portcullis_upstream_overflows_total{{destination_service=\"{HOST}\",limit=\"{limit}\"}}"))
}

fn ejections(gateway: &Gateway, reason: &str) -> Option<f64> {
    gateway.metric(&format!("portcullis_outlier_ejections_total{{destination_service=\"{HOST}\",reason=\"{reason}\"}}"))
}

fn ask(client: &mut Http, path: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
}

/// A client whose request holds its connection until the gate opens.
fn holder(gateway: &Gateway, upstream: &Upstream) -> Http {
    let mut client = gateway.client();
    let before = upstream.seen().counts().requests.len();
    ask(&mut client, "/gate/10");
    upstream.seen().wait_for("the request that holds the connection", |counts| counts.requests.len() > before);
    client
}

#[test]
fn a_request_waits_for_a_connection_where_no_more_may_be_made() {
    let upstream = Upstream::plain(service::http);
    let gateway = http(&upstream, "{connectionPool: {tcp: {maxConnections: 1}}}");
    let mut first = holder(&gateway, &upstream);
    let mut second = gateway.client();
    ask(&mut second, "/bytes/1");
    upstream.seen().open_gate();
    assert_eq!(first.response().body.len(), 10);
    assert_eq!(second.response().body.len(), 1);
    assert_eq!(upstream.seen().counts().connections, 1);
}

#[test]
fn more_requests_than_may_wait_are_answered_with_503_uo() {
    let upstream = Upstream::plain(service::http);
    let policy = "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}}";
    let gateway = http(&upstream, policy);
    let mut first = holder(&gateway, &upstream);
    let mut others = [gateway.client(), gateway.client()];
    others.iter_mut().for_each(|client| ask(client, "/bytes/1"));
    let line = gateway.log().wait_for(|line| line.code == 503);
    assert_eq!((line.flags.as_str(), line.transport_failure.as_str()), ("UO", "overflow: pending"));
    assert!(line.details.contains("overflow"), "{line:?}");
    upstream.seen().open_gate();
    assert_eq!(first.response().status, 200);
    let mut statuses = others.map(|mut client| client.response().status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    assert_eq!(overflows(&gateway, "pending"), Some(1.0));
}

#[test]
fn a_request_waits_for_a_connection_no_longer_than_connecting_may_take() {
    let upstream = Upstream::plain(service::http);
    let gateway = http(&upstream, "{connectionPool: {tcp: {maxConnections: 1, connectTimeout: 100ms}}}");
    let _first = holder(&gateway, &upstream);
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 503);
    assert_eq!(gateway.log().first().flags, "UO");
}

#[test]
fn an_idle_connection_to_elsewhere_makes_room() {
    let (one, other) = (Upstream::plain(service::http), Upstream::plain(service::http));
    let yaml = static_entry(80, "HTTP", &[(one.port(), 1), (other.port(), 1)])
        + &rule("{loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {maxConnections: 1}}}");
    let gateway = Gateway::builder().resources(yaml).start();
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    let requests = [&one, &other].map(|upstream| upstream.seen().counts().requests.len());
    assert_eq!(requests, [2, 2]);
}

#[test]
fn no_more_requests_are_under_way_than_may_be() {
    let upstream = Upstream::plain(service::http);
    let gateway = http(&upstream, "{connectionPool: {http: {http2MaxRequests: 1}}}");
    let mut first = holder(&gateway, &upstream);
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 503);
    assert_eq!(overflows(&gateway, "requests"), Some(1.0));
    upstream.seen().open_gate();
    assert_eq!(first.response().status, 200);
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
}

#[test]
fn a_connection_serves_no_more_requests_than_it_may() {
    let upstream = Upstream::plain(service::http);
    let gateway = http(&upstream, "{connectionPool: {http: {maxRequestsPerConnection: 2}}}");
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    assert_eq!(upstream.seen().counts().connections, 3);
}

#[test]
fn a_pooled_connection_is_given_up_when_its_time_has_come() {
    for pool in ["tcp: {maxConnectionDuration: 50ms}", "http: {idleTimeout: 1ms}"] {
        let upstream = Upstream::plain(service::http);
        let gateway = http(&upstream, &format!("{{connectionPool: {{{pool}}}}}"));
        let mut client = gateway.client();
        wait_until("a second connection", || {
            assert_eq!(client.get(HOST, "/bytes/1").status, 200);
            (upstream.seen().counts().connections > 1).then_some(())
        });
    }
}

/// Answers 503, but for the second request, which it answers when the gate opens.
fn failing_twice(stream: &mut Stream, seen: &Seen) -> io::Result<()> {
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head()? {
        let mut number = 0;
        seen.update(|counts| {
            counts.requests.push(head);
            number = counts.requests.len();
        });
        let status = if number == 2 { "200 OK" } else { "503 Broken" };
        if number == 2 {
            seen.wait_at_gate();
        }
        reader.stream().write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
        reader.stream().flush()?;
    }
    Ok(())
}

#[test]
fn retries_beyond_the_limit_are_not_made() {
    let routes = "  - retries: {attempts: 2, retryOn: '503'}\n    route:\n    - destination: {host: api.example}\n";
    for policy in ["{retryBudget: {percent: 0, minRetryConcurrency: 1}}", "{connectionPool: {http: {maxRetries: 1}}}"] {
        let upstream = Upstream::plain(failing_twice);
        let yaml = resources::http_entry("api", HOST, upstream.port())
            + &resources::virtual_service("api", HOST, routes)
            + &rule(policy);
        let gateway = Gateway::builder().host(HOST).resources(yaml).start();
        let mut first = gateway.client();
        ask(&mut first, "/");
        upstream.seen().wait_for("the retry", |counts| counts.requests.len() == 2);
        assert_eq!(gateway.client().get(HOST, "/").status, 503, "{policy}");
        assert_eq!(upstream.seen().counts().requests.len(), 3);
        assert_eq!(overflows(&gateway, "retries"), Some(1.0));
        upstream.seen().open_gate();
        assert_eq!(first.response().status, 200);
    }
}

/// Whether the kernel watches the connection from this process to a port of 127.0.0.1 by a timer of keepalive, as
/// proc_pid_net(5) shows it: `tr`, the sixth field, is 02.
fn is_probed(gateway: &Gateway, port: u16) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", gateway.process())).expect("the process runs");
    let remote = format!("0100007F:{port:04X}");
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    table.lines().map(fields).any(|fields| fields.get(2) == Some(&remote) && fields[5].starts_with("02:"))
}

#[test]
fn a_silent_upstream_is_probed_where_that_is_asked_for() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::echo);
    for (pool, expected) in
        [("tcpKeepalive: {time: 600s, interval: 75s, probes: 3}", true), ("connectTimeout: 1s", false)]
    {
        let gateway = tunnels(&upstream, &format!("{{connectionPool: {{tcp: {{{pool}}}}}}}"));
        let _client = client::tls(gateway.tls(), HOST, &authority).unwrap();
        // Until what was sent is acknowledged, another timer may be in its place.
        wait_until("the timer", || (is_probed(&gateway, upstream.port()) == expected).then_some(()));
    }
}

#[test]
fn a_tunnel_beyond_the_limit_is_closed_and_its_place_comes_back() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::echo);
    let gateway = tunnels(&upstream, "{connectionPool: {tcp: {maxConnections: 1}}}");
    let mut first = client::tls(gateway.tls(), HOST, &authority).unwrap();
    client::tls(gateway.tls(), HOST, &authority).unwrap_err();
    let line = gateway.log().first();
    assert_eq!((line.flags.as_str(), line.server_name.as_str()), ("UO", HOST));
    assert_eq!(overflows(&gateway, "connections"), Some(1.0));

    client::finish(&mut first);
    read_to_end(&mut first);
    gateway.log().wait_for_count(2);
    client::tls(gateway.tls(), HOST, &authority).unwrap();
}

#[test]
fn a_silent_tunnel_ends_after_its_idle_timeout() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::echo);
    let gateway = tunnels(&upstream, "{connectionPool: {tcp: {idleTimeout: 100ms}}}");
    let mut client = client::tls(gateway.tls(), HOST, &authority).unwrap();
    read_to_end(&mut client);
    assert_eq!(gateway.log().first().termination, "idle_timeout");
}

#[test]
fn a_tunnel_ends_when_it_has_lasted_for_its_duration_however_busy() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::echo);
    let gateway = tunnels(&upstream, "{connectionPool: {tcp: {maxConnectionDuration: 300ms}}}");
    let mut client = client::tls(gateway.tls(), HOST, &authority).unwrap();
    let mut rounds = 0;
    let mut echo = [0; 4];
    while client.write_all(b"ping").and_then(|()| client.flush()).and_then(|()| client.read_exact(&mut echo)).is_ok() {
        rounds += 1;
    }
    assert!(rounds > 0);
    let line = gateway.log().first();
    assert_eq!((line.flags.as_str(), line.termination.as_str()), ("DT", "max_connection_duration"));
}

/// Agrees to any upgrade, and sends back what arrives.
fn switching(stream: &mut Stream, seen: &Seen) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    stream.flush()?;
    service::echo(stream, seen)
}

#[test]
fn an_upgraded_connection_keeps_its_place_and_its_timeouts() {
    let upstream = Upstream::plain(switching);
    let gateway = http(&upstream, "{connectionPool: {tcp: {maxConnections: 1, connectTimeout: 50ms}}}");
    let upgrade = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let mut first = gateway.client();
    first.send(&upgrade);
    assert!(first.head().unwrap().starts_with("HTTP/1.1 101"));
    let mut second = gateway.client();
    second.send(&upgrade);
    assert_eq!(second.response().status, 503);
    drop(first);
    gateway.log().wait_for(|line| line.code == 101);
    let mut third = gateway.client();
    third.send(&upgrade);
    assert!(third.head().unwrap().starts_with("HTTP/1.1 101"));

    for (pool, termination) in [
        ("tcp: {idleTimeout: 100ms}", "idle_timeout"),
        ("tcp: {maxConnectionDuration: 100ms}", "max_connection_duration"),
    ] {
        let gateway = http(&upstream, &format!("{{connectionPool: {{{pool}}}}}"));
        let mut client = gateway.client();
        client.send(&upgrade);
        assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
        assert!(client.is_closed());
        assert_eq!(gateway.log().first().details, termination);
    }
}

/// Answers 503, whatever is asked.
fn broken(stream: &mut Stream, seen: &Seen) -> io::Result<()> {
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head()? {
        seen.update(|counts| counts.requests.push(head));
        reader.stream().write_all(b"HTTP/1.1 503 Broken\r\nContent-Length: 0\r\n\r\n")?;
        reader.stream().flush()?;
    }
    Ok(())
}

#[test]
fn an_endpoint_that_fails_in_a_row_is_left_out() {
    let (good, bad) = (Upstream::plain(service::http), Upstream::plain(broken));
    let outliers = "{consecutive5xxErrors: 3, baseEjectionTime: 1h, maxEjectionPercent: 50}";
    let yaml = static_entry(80, "HTTP", &[(good.port(), 1), (bad.port(), 1)])
        + &rule(&format!("{{loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {outliers}}}"));
    let gateway = Gateway::builder().resources(yaml).start();
    let mut client = gateway.client();
    let statuses: Vec<u16> = (0..20).map(|_| client.get(HOST, "/bytes/1").status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 3, "{statuses:?}");
    assert_eq!(bad.seen().counts().requests.len(), 3);
    assert_eq!(ejections(&gateway, "5xx"), Some(1.0));
    let ejected = format!("portcullis_outlier_ejected_endpoints{{destination_service=\"{HOST}\"}}");
    assert_eq!(gateway.metric(&ejected), Some(1.0));
}

#[test]
fn an_ejected_endpoint_comes_back() {
    let upstream = Upstream::plain(service::http);
    let outliers = "{consecutiveGatewayErrors: 1, interval: 1ms, baseEjectionTime: 100ms, maxEjectionPercent: 100}";
    let gateway = http(&upstream, &format!("{{outlierDetection: {outliers}}}"));
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/status/502").status, 502);
    let refused = client.get(HOST, "/bytes/1");
    assert_eq!(refused.status, 503);
    let line = gateway.log().wait_for(|line| line.code == 503);
    assert_eq!(line.flags, "UH");
    assert!(line.transport_failure.contains("ejected"), "{line:?}");
    assert_eq!(ejections(&gateway, "gateway"), Some(1.0));
    wait_until("the endpoint to come back", || (client.get(HOST, "/bytes/1").status == 200).then_some(()));
}

#[test]
fn with_too_few_endpoints_in_place_the_ejected_ones_are_used_all_the_same() {
    let upstream = Upstream::plain(service::http);
    let outliers = "{consecutive5xxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100, minHealthPercent: 50}";
    let gateway = http(&upstream, &format!("{{outlierDetection: {outliers}}}"));
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/status/500").status, 500);
    assert_eq!(ejections(&gateway, "5xx"), Some(1.0));
    assert_eq!(client.get(HOST, "/bytes/1").status, 200);
}

#[test]
fn an_endpoint_that_takes_no_tunnel_is_left_out() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::echo);
    let closed = Port::reserve();
    let outliers = "{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2, baseEjectionTime: 1h, \
                    maxEjectionPercent: 50}";
    let yaml = static_entry(443, "TLS", &[(upstream.port(), 1), (closed.number(), 1)])
        + &rule(&format!("{{loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {outliers}}}"));
    let gateway = Gateway::builder().resources(yaml).start();
    for _ in 0..6 {
        client::tls(gateway.tls(), HOST, &authority).expect("the other endpoint is tried");
    }
    assert_eq!(ejections(&gateway, "local_origin"), Some(1.0));
}

/// How many requests with these values of `x-user` each upstream gets.
fn spread(policy: &str, requests: &[String]) -> Vec<usize> {
    let upstreams: Vec<Upstream> = (0..3).map(|_| Upstream::plain(service::http)).collect();
    let endpoints: Vec<(u16, u32)> = upstreams.iter().map(|upstream| (upstream.port(), 1)).collect();
    let yaml = static_entry(80, "HTTP", &endpoints) + &rule(policy);
    let gateway = Gateway::builder().resources(yaml).start();
    let mut client = gateway.client();
    for request in requests {
        client.send(request);
        assert_eq!(client.response().status, 200);
    }
    let mut counts: Vec<usize> = upstreams.iter().map(|upstream| upstream.seen().counts().requests.len()).collect();
    counts.sort_unstable();
    counts
}

fn request(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

#[test]
fn requests_of_one_key_go_to_one_endpoint() {
    let keys: [(&str, String); 4] = [
        ("httpHeaderName: X-User", request("/bytes/1", "x-user: a\r\n")),
        ("httpCookie: {name: user}", request("/bytes/1", "Cookie: other=1; user=a\r\n")),
        ("httpQueryParameterName: user", request("/bytes/1?user=a", "")),
        ("useSourceIp: true", request("/bytes/1", "")),
    ];
    for (key, request) in keys {
        let policy = format!("{{loadBalancer: {{consistentHash: {{{key}}}}}}}");
        assert_eq!(spread(&policy, &vec![request; 12]), [0, 0, 12], "{key}");
    }
}

#[test]
fn a_client_without_the_cookie_is_given_one_that_leads_to_the_same_endpoint() {
    let upstreams: Vec<Upstream> = (0..3).map(|_| Upstream::plain(service::http)).collect();
    let endpoints: Vec<(u16, u32)> = upstreams.iter().map(|upstream| (upstream.port(), 1)).collect();
    let cookie = "httpCookie: {name: seat, path: /bytes, ttl: 90s}";
    let policy = format!("{{loadBalancer: {{consistentHash: {{{cookie}}}}}}}");
    let gateway = Gateway::builder().resources(static_entry(80, "HTTP", &endpoints) + &rule(&policy)).start();
    let mut client = gateway.client();
    let counts = || -> Vec<usize> { upstreams.iter().map(|it| it.seen().counts().requests.len()).collect() };
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let before = counts();
        client.send(request("/bytes/1", "Cookie: other=1\r\n"));
        let answer = client.response();
        let set = answer.header("set-cookie").expect("a cookie").to_owned();
        let (pair, rest) = set.split_once("; ").expect("attributes");
        assert_eq!(rest, "Max-Age=90; Path=/bytes; HttpOnly");
        let first: Vec<usize> = counts().iter().zip(&before).map(|(now, before)| now - before).collect();
        let before = counts();
        for _ in 0..3 {
            client.send(request("/bytes/1", &format!("Cookie: other=1; {pair}\r\n")));
            assert_eq!(client.response().header("set-cookie"), None, "the client has one");
        }
        let later: Vec<usize> = counts().iter().zip(&before).map(|(now, before)| now - before).collect();
        assert_eq!(later, first.iter().map(|count| count * 3).collect::<Vec<_>>(), "{pair}");
        given.insert(pair.to_owned());
    }
    assert_eq!(given.len(), 8, "each client has its own: {given:?}");
}

#[test]
fn a_made_cookie_comes_beside_what_route_and_upstream_say() {
    let upstream = Upstream::plain(service::http);
    let yaml = static_entry(80, "HTTP", &[(upstream.port(), 1)])
        + &rule("{loadBalancer: {consistentHash: {httpCookie: {name: seat, ttl: 0s}}}}")
        + &resources::virtual_service(
            "marked",
            HOST,
            &format!(
                "  - headers: {{response: {{set: {{x-team: red}}}}}}\n    corsPolicy: {{allowOrigins: [{{exact: 'https://a.example'}}]}}\n    route: [{{destination: {{host: {HOST}}}}}]\n"
            ),
        );
    let gateway = Gateway::builder().resources(yaml).start();
    let mut client = gateway.client();
    client.send(request("/bytes/1", "Origin: https://a.example\r\n"));
    let answer = client.response();
    let cookie = answer.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with("seat=\"") && cookie.ends_with("\"; HttpOnly"), "{cookie}");
    assert_eq!(answer.header("x-team"), Some("red"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
}

#[test]
fn requests_of_many_keys_go_to_all_endpoints() {
    let requests: Vec<String> =
        (0..60).map(|number| request("/bytes/1", &format!("x-user: user-{number}\r\n"))).collect();
    let counts = spread("{loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {}}}}", &requests);
    assert!(counts.iter().all(|count| *count >= 8), "{counts:?}");
}

#[test]
fn weights_are_kept_when_endpoints_take_turns() {
    let (one, other) = (Upstream::plain(service::http), Upstream::plain(service::http));
    let yaml = static_entry(80, "HTTP", &[(one.port(), 3), (other.port(), 1)])
        + &rule("{loadBalancer: {simple: ROUND_ROBIN}}");
    let gateway = Gateway::builder().resources(yaml).start();
    let mut client = gateway.client();
    for _ in 0..12 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    let requests = [&one, &other].map(|upstream| upstream.seen().counts().requests.len());
    assert_eq!(requests, [9, 3]);
}
