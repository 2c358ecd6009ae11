//! Copies of requests: `mirror`, `mirrors` and their shares.

mod support;

use std::io::Write;

use rustix::process::Signal;
use serde_json::json;
use support::certificates::Authority;
use support::client::{connect_from, read_to_end};
use support::gateway::{Gateway, Port, command};
use support::http::{Reader, header};
use support::http2;
use support::resources;
use support::service;
use support::stream::Stream;
use support::upstream::{Seen, Upstream};
use support::wait_until;

const HOST: &str = "api.example.com";
const COPY: &str = "copy.example.com";

/// Everything goes to [`HOST`], and a copy to [`COPY`]; `more` stands in the rule.
fn rule(more: &str) -> String {
    format!("  - {{route: [{{destination: {{host: {HOST}}}}}], {more}}}\n")
}

const MIRROR: &str = "mirror: {host: copy.example.com, port: {number: 80}}";

struct Scene {
    original: Upstream,
    copy: Upstream,
    gateway: Gateway,
}

impl Scene {
    fn new(more: &str) -> Self {
        Self::before(Upstream::plain(service::http), more)
    }

    fn before(copy: Upstream, more: &str) -> Self {
        let original = Upstream::plain(service::http);
        let yaml = resources_of(original.port(), copy.port(), more);
        let gateway = Gateway::builder().host(HOST).host(COPY).resources(yaml).start();
        Self { original, copy, gateway }
    }

    /// The heads that the copies' service has got, once there are as many.
    #[track_caller]
    fn copies(&self, count: usize) -> Vec<String> {
        self.copy.seen().wait_for("the copies", |counts| counts.requests.len() >= count);
        self.copy.seen().counts().requests
    }

    /// Waits until so many copies have ended so.
    #[track_caller]
    fn wait_for(&self, result: &str, count: f64) {
        let name = format!("portcullis_mirrored_requests_total{{result=\"{result}\"}}");
        wait_until(&format!("{count} of {name}"), || (self.gateway.metric(&name) == Some(count)).then_some(()));
    }
}

fn resources_of(original: u16, copy: u16, more: &str) -> String {
    resources::http_entry("api", HOST, original)
        + "---\n"
        + &resources::http_entry("copy", COPY, copy)
        + "---\n"
        + &resources::virtual_service("api", HOST, &rule(more))
}

#[test]
fn a_copy_goes_to_the_mirror_with_a_host_that_says_so_and_its_answer_nowhere() {
    let scene = Scene::new(MIRROR);
    let mut client = scene.gateway.client();
    let answer = client.get(HOST, "/books?page=2");
    assert!(answer.text().starts_with("GET /books?page=2 HTTP/1.1\r\n"), "{}", answer.text());
    let copies = scene.copies(1);
    assert!(copies[0].starts_with("GET /books?page=2 HTTP/1.1\r\n"), "{copies:?}");
    assert_eq!(header(&copies[0], "host"), Some("api.example.com-shadow"));
    assert_eq!(header(answer.text(), "host"), Some(HOST));
    scene.wait_for("answered", 1.0);
    // The connection is in order: nothing of the copy's answer has come here.
    assert_eq!(client.get(HOST, "/bytes/10").body.len(), 10);
    scene.wait_for("answered", 2.0);
    let lines = scene.gateway.log().wait_for_count(2);
    assert_eq!(lines.len(), 2, "copies have no lines of their own");
    assert!(lines.iter().all(|line| line.upstream_cluster == "outbound|80||api.example.com"));
}

#[test]
fn a_body_is_copied_once_it_is_whole() {
    let scene = Scene::new(MIRROR);
    let mut client = scene.gateway.client();
    let head = format!("POST /verdict HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(head);
    client.send("5\r\nfirst\r\n");
    scene.original.seen().wait_for("the request", |counts| counts.requests.len() == 1);
    assert_eq!(scene.copy.seen().counts().requests.len(), 0);
    client.send("6\r\nsecond\r\n0\r\n\r\n");
    client.response();
    scene.copies(1);
    scene.wait_for("answered", 1.0);
    let body = vec![b'x'; 60_000];
    assert_eq!(client.post(HOST, "/verdict", &body).status, 200);
    scene.wait_for("answered", 2.0);
    assert_eq!(header(&scene.copies(2)[1], "content-length"), Some("60000"));
}

#[test]
fn what_is_too_large_to_be_kept_is_not_copied_and_counted() {
    let scene = Scene::new(MIRROR);
    let mut client = scene.gateway.client();
    let body = vec![b'x'; 70_000];
    assert_eq!(client.post(HOST, "/verdict", &body).status, 200);
    scene.wait_for("dropped", 1.0);
    client.send(format!("POST /verdict HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n"));
    client.send(&body);
    client.send("\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    scene.wait_for("dropped", 2.0);
    assert_eq!(scene.copy.seen().counts().requests.len(), 0);
}

#[test]
fn a_mirror_that_is_silent_broken_or_gone_keeps_nobody_waiting() {
    let scene = Scene::new(MIRROR);
    let mut client = scene.gateway.client();
    assert_eq!(client.get(HOST, "/close").status, 503, "the original's own failure");
    scene.wait_for("failed", 1.0);
    let closed = Port::reserve();
    scene.gateway.reload(&resources_of(scene.original.port(), closed.number(), MIRROR));
    for _ in 0..3 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    scene.wait_for("failed", 4.0);
    scene.gateway.reload(&resources_of(scene.original.port(), 9, "mirror: {host: missing.example.com}"));
    assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    scene.wait_for("failed", 5.0);
}

#[test]
fn copies_are_bounded_and_those_beyond_are_not_sent() {
    let copy = Upstream::plain(|stream, seen| {
        // It takes whatever comes, and never answers.
        service::record(stream, seen)
    });
    let scene = Scene::before(copy, MIRROR);
    let mut client = scene.gateway.client();
    for _ in 0..300 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    scene.wait_for("dropped", 44.0);
    assert_eq!(scene.gateway.metric("portcullis_mirrored_requests_total{result=\"answered\"}"), Some(0.0));
}

#[test]
fn shares_say_how_many_requests_are_copied() {
    for (more, expected) in [
        (format!("{MIRROR}, mirrorPercentage: {{value: 0}}"), 0..=0),
        (format!("{MIRROR}, mirror_percent: 0"), 0..=0),
        (format!("{MIRROR}, mirrorPercentage: {{value: 50}}"), 20..=80),
        (format!("{MIRROR}, mirrorPercent: 1, mirrorPercentage: {{value: 100}}"), 100..=100),
    ] {
        let scene = Scene::new(&more);
        let mut client = scene.gateway.client();
        for _ in 0..100 {
            assert_eq!(client.get(HOST, "/bytes/1").status, 200);
        }
        let ended = || {
            let of =
                |result| scene.gateway.metric(&format!("portcullis_mirrored_requests_total{{result=\"{result}\"}}"));
            Some(of("answered")? + of("failed")? + of("dropped")?)
        };
        let copies = wait_until("the copies", || {
            let seen = scene.copy.seen().counts().requests.len();
            (ended() == Some(seen as f64) && (*expected.start()..=*expected.end()).contains(&seen)).then_some(seen)
        });
        assert!(expected.contains(&copies), "{more}: {copies}");
    }
}

#[test]
fn several_mirrors_each_get_a_copy_of_what_the_route_makes_of_a_request() {
    let second = Upstream::plain(service::http);
    let mirrors = "mirrors: [{destination: {host: copy.example.com, port: {number: 80}}, percentage: {value: 100}}, \
                   {destination: {host: second.example.com}}], rewrite: {uri: /v2/}, \
                   headers: {request: {set: {x-team: blue}}}";
    let original = Upstream::plain(service::http);
    let copy = Upstream::plain(service::http);
    let yaml = resources_of(original.port(), copy.port(), mirrors)
        + "---\n"
        + &resources::http_entry("second", "second.example.com", second.port());
    let gateway = Gateway::builder().host(HOST).host(COPY).host("second.example.com").resources(yaml).start();
    assert_eq!(gateway.client().get(HOST, "/books").status, 200);
    for upstream in [&copy, &second] {
        upstream.seen().wait_for("the copy", |counts| counts.requests.len() == 1);
        let head = upstream.seen().counts().requests[0].clone();
        assert!(head.starts_with("GET /v2/books HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "x-team"), Some("blue"));
    }
    let url = format!("http://{HOST}/books");
    let told = command().args(["explain", "-o", "json", &url, "--config"]).arg(gateway.config()).output();
    let told = told.expect("it runs");
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let notes = told["notes"].as_array().expect("a list");
    assert!(notes.contains(&json!("copy: 100% of the requests to outbound|80||copy.example.com")), "{told}");
    assert!(notes.contains(&json!("copy: 100% of the requests to outbound|80||second.example.com")), "{told}");
}

#[test]
fn a_copy_that_goes_out_in_tls_is_verified_as_its_request_would_be() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let original = Upstream::plain(service::http);
    let rule = resources::destination_rule("copy", COPY, "      mode: SIMPLE\n      sni: copy.example.com\n");
    for (authority, result) in [(&known, "answered"), (&unknown, "failed")] {
        let copy = Upstream::tls(&authority.issue(COPY), service::http);
        let yaml = resources_of(original.port(), copy.port(), MIRROR) + &rule;
        let gateway = Gateway::builder().host(HOST).host(COPY).trust(&known).resources(yaml).start();
        assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
        let name = format!("portcullis_mirrored_requests_total{{result=\"{result}\"}}");
        wait_until("the end of the copy", || (gateway.metric(&name) == Some(1.0)).then_some(()));
        assert_eq!(copy.seen().counts().requests.len(), usize::from(result == "answered"));
    }
}

#[test]
fn requests_that_a_policy_or_the_route_refuses_are_not_copied() {
    let scene = Scene::new(&format!("{MIRROR}, match: [{{uri: {{prefix: /open}}}}]"));
    let mut client = scene.gateway.client();
    assert_eq!(client.get(HOST, "/closed").status, 404);
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: closed}\nspec: {action: DENY, rules: [{to: [{operation: {paths: ['/open/secret']}}]}]}\n";
    let yaml = resources_of(scene.original.port(), scene.copy.port(), MIRROR);
    scene.gateway.reload(&(yaml + policy));
    assert_eq!(client.get(HOST, "/open/secret").status, 403);
    assert_eq!(client.get(HOST, "/open/door").status, 200);
    assert!(scene.copies(1)[0].starts_with("GET /open/door"));
}

#[test]
fn requests_in_http2_are_copied_too() {
    let scene = Scene::new(MIRROR);
    let mut client = http2::Client::connect(scene.gateway.http());
    assert_eq!(client.get(HOST, "/books").expect("an answer").status, 200);
    let copies = scene.copies(1);
    assert!(copies[0].starts_with("GET /books HTTP/1.1\r\n"), "{copies:?}");
    scene.wait_for("answered", 1.0);
}

#[test]
fn a_mirror_that_speaks_http2_gets_its_copies_so() {
    let server = http2::Server::start();
    let original = Upstream::plain(service::http);
    let copy = resources::http_entry("copy", COPY, server.port()).replace("protocol: HTTP\n", "protocol: HTTP2\n");
    let yaml = resources::http_entry("api", HOST, original.port())
        + "---\n"
        + &copy
        + "---\n"
        + &resources::virtual_service("api", HOST, &rule(MIRROR));
    let gateway = Gateway::builder().host(HOST).host(COPY).resources(yaml).start();
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    let seen = server.wait_for("the copies", |seen| seen.requests == 3);
    assert_eq!((seen.connections, seen.given_up), (1, 0));
}

#[test]
fn an_upgrade_is_not_copied() {
    let scene = Scene::new(MIRROR);
    let mut client = scene.gateway.client();
    let head =
        "GET /switch/echo HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.socket().write_all(head.as_bytes()).expect("open");
    assert!(client.head().expect("an answer").starts_with("HTTP/1.1 101"));
    scene.wait_for("dropped", 1.0);
    assert_eq!(scene.copy.seen().counts().requests.len(), 0);
}

#[test]
fn a_mirror_that_leads_to_a_gateway_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("resources.yaml");
    let gateway = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: egress}\nspec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n";
    for (more, field) in [
        ("mirror: {host: istio-egressgateway, port: {number: 80}}", "spec.http[0].mirror.host"),
        ("mirror: {port: {number: 80}}", "spec.http[0].mirror.host"),
        ("mirrors: [{percentage: {value: 5}}]", "spec.http[0].mirrors[0].destination"),
        ("mirror: {host: copy.example.com}, mirrorPercentage: {value: 101}", "spec.http[0].mirrorPercentage"),
    ] {
        std::fs::write(&file, resources_of(1, 2, more) + gateway).expect("the folder is ours");
        let output = command().args(["check"]).arg(&file).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(field), "{more}: {told}");
    }
}

/// Reads requests and answers none.
fn mute(stream: &mut Stream, seen: &Seen) -> std::io::Result<()> {
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head()? {
        seen.update(|counts| counts.requests.push(head.clone()));
    }
    Ok(())
}

#[test]
fn a_copy_that_runs_out_of_time_is_counted_against_its_endpoint_and_then_no_more() {
    let scene = Scene::before(Upstream::plain(mute), &format!("{MIRROR}, timeout: 300ms"));
    let outliers = "\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: copy}\n\
                    spec: {host: copy.example.com, trafficPolicy: {outlierDetection: {consecutiveGatewayErrors: 1, \
                    consecutive5xxErrors: 1, baseEjectionTime: 60s, maxEjectionPercent: 100}}}\n";
    let yaml = resources_of(scene.original.port(), scene.copy.port(), &format!("{MIRROR}, timeout: 300ms"));
    scene.gateway.reload(&(yaml + outliers));
    assert_eq!(scene.gateway.client().get(HOST, "/bytes/1").status, 200);
    scene.copies(1);
    scene.wait_for("failed", 1.0);
    let active = "portcullis_upstream_connections{state=\"active\"}";
    wait_until("no session with an upstream", || (scene.gateway.metric(active) == Some(0.0)).then_some(()));
    let ejected = format!("portcullis_outlier_ejected_endpoints{{destination_service=\"{COPY}\"}}");
    wait_until("the ejection", || scene.gateway.metric(&ejected).filter(|count| *count == 1.0));
}

#[test]
fn an_answer_to_a_copy_is_not_read_on_and_on() {
    let copy = Upstream::plain(|stream, seen| {
        let head = Reader::new(&mut *stream).head()?.unwrap_or_default();
        seen.update(|counts| counts.requests.push(head));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")?;
        loop {
            stream.write_all(&[b'x'; 64 * 1024])?;
        }
    });
    let scene = Scene::before(copy, MIRROR);
    assert_eq!(scene.gateway.client().get(HOST, "/bytes/1").status, 200);
    scene.wait_for("answered", 1.0);
    scene.copy.seen().wait_for("the end of the connection", |counts| counts.ended == 1);
}

#[test]
fn requests_that_have_not_been_sent_whole_take_no_place_of_a_copy() {
    let scene = Scene::new(MIRROR);
    let head = format!("POST /verdict HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\n");
    let mut unfinished: Vec<_> = (0..256).map(|_| scene.gateway.client()).collect();
    unfinished.iter_mut().for_each(|client| client.send(&head));
    scene.original.seen().wait_for("their heads", |counts| counts.requests.len() == 256);
    assert_eq!(scene.gateway.client().get(HOST, "/bytes/1").status, 200);
    scene.wait_for("answered", 1.0);
    assert_eq!(scene.gateway.metric("portcullis_mirrored_requests_total{result=\"dropped\"}"), Some(0.0));
}

#[test]
fn a_client_has_so_many_bytes_of_requests_kept_and_no_more_until_they_end() {
    let scene = Scene::new(MIRROR);
    let mut head = format!("POST /verdict HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 60001\r\n\r\n").into_bytes();
    head.resize(head.len() + 60_000, b'x');
    let mut unfinished: Vec<_> = (0..20).map(|_| scene.gateway.client()).collect();
    unfinished.iter_mut().for_each(|client| client.send(&head));
    let name = "portcullis_mirrored_requests_total{result=\"dropped\"}";
    wait_until("the bound", || scene.gateway.metric(name).filter(|dropped| *dropped >= 3.0));
    // Somebody else is not concerned, nor is the same client afterwards.
    let (other, gateway) = ("127.0.0.2", scene.gateway.http().to_string());
    let mut other = connect_from(other, &gateway);
    write!(other, "GET /other HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").expect("open");
    read_to_end(&mut other);
    scene.wait_for("answered", 1.0);
    drop(unfinished);
    wait_until("room", || {
        assert_eq!(scene.gateway.client().post(HOST, "/verdict", &[b'x'; 60_000]).status, 200);
        scene.gateway.metric("portcullis_mirrored_requests_total{result=\"answered\"}").filter(|count| *count >= 2.0)
    });
}

#[test]
fn a_copy_whose_configuration_has_been_replaced_is_dropped() {
    let scene = Scene::new(MIRROR);
    let mut client = scene.gateway.client();
    client.send(format!("POST /verdict HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nab"));
    scene.original.seen().wait_for("the request", |counts| counts.requests.len() == 1);
    scene.gateway.reload(&resources_of(scene.original.port(), scene.copy.port(), &format!("{MIRROR}, timeout: 9s")));
    client.send("cde");
    assert_eq!(client.response().status, 200);
    scene.wait_for("dropped", 1.0);
    assert_eq!(scene.gateway.metric("portcullis_mirrored_requests_total{result=\"failed\"}"), Some(0.0));
}

#[test]
fn a_drain_waits_for_copies() {
    let copy = Upstream::plain(|stream, seen| {
        let head = Reader::new(&mut *stream).head()?.unwrap_or_default();
        seen.update(|counts| counts.requests.push(head));
        seen.wait_at_gate();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        stream.flush()
    });
    let mut scene = Scene::before(copy, MIRROR);
    let mut client = scene.gateway.client();
    assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    scene.copies(1);
    scene.gateway.signal(Signal::TERM);
    assert!(client.is_closed());
    // Without the copy it would have ended in the meantime.
    for _ in 0..100 {
        assert!(scene.gateway.metric("portcullis_mirrored_requests_total{result=\"answered\"}").is_some());
    }
    scene.copy.seen().open_gate();
    assert_eq!(scene.gateway.wait_exit().code(), Some(0));
}

#[test]
fn a_drain_cuts_off_copies_when_its_time_is_up() {
    let copy = Upstream::plain(mute);
    let original = Upstream::plain(service::http);
    let yaml = resources_of(original.port(), copy.port(), MIRROR);
    let gateway = Gateway::builder().host(HOST).host(COPY).setting("drain: {timeout: 300ms}\n");
    let mut gateway = gateway.resources(yaml).start();
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
    copy.seen().wait_for("the copy", |counts| counts.requests.len() == 1);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    copy.seen().wait_for("its end", |counts| counts.ended == 1);
}

#[test]
fn what_a_route_says_of_its_own_destination_is_not_said_to_a_mirror() {
    let headers = |name: &str| format!("headers: {{request: {{set: {{{name}: secret}}}}}}");
    let rule = format!(
        "  - {{route: [{{destination: {{host: {HOST}}}, {}}}], {}, {MIRROR}}}\n",
        headers("x-of-destination"),
        headers("x-of-route")
    );
    let (original, copy) = (Upstream::plain(service::http), Upstream::plain(service::http));
    let yaml = resources::http_entry("api", HOST, original.port())
        + "---\n"
        + &resources::http_entry("copy", COPY, copy.port())
        + "---\n"
        + &resources::virtual_service("api", HOST, &rule);
    let gateway = Gateway::builder().host(HOST).host(COPY).resources(yaml).start();
    let answer = gateway.client().get(HOST, "/books");
    assert_eq!(header(answer.text(), "x-of-destination"), Some("secret"));
    copy.seen().wait_for("the copy", |counts| counts.requests.len() == 1);
    let head = copy.seen().counts().requests[0].clone();
    assert_eq!((header(&head, "x-of-destination"), header(&head, "x-of-route")), (None, Some("secret")));
}

#[test]
fn a_mirror_that_does_not_exist_is_told_of_as_what_it_costs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("resources.yaml");
    for more in
        ["mirror: {host: missing.example.com}", "mirrors: [{destination: {host: copy.example.com, subset: v9}}]"]
    {
        std::fs::write(&file, resources_of(1, 2, more)).expect("the folder is ours");
        let output = command().args(["check"]).arg(&file).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains("copies of requests go nowhere, and count as failed"), "{told}");
        assert!(!told.contains("requests get 503"), "{told}");
    }
}
