//! What a route does besides choosing a destination: header operations, redirects, faults, rewrites, retries.

mod support;

use std::io::Read;
use std::time::{Duration, Instant};

use support::DEADLINE;
use support::certificates::Authority;
use support::client::Response;
use support::gateway::Gateway;
use support::http::header;
use support::resources;
use support::service;
use support::upstream::Upstream;

const HOST: &str = "api.example.com";

/// An upstream, and a gateway with routes in front of it; `routes` are entries of `http:` in YAML's flow style.
fn with(routes: &[&str]) -> (Upstream, Gateway) {
    let upstream = Upstream::plain(service::http);
    let lines: String = routes.iter().map(|route| format!("  - {{{route}}}\n")).collect();
    let yaml = resources::http_entry("api", HOST, upstream.port()) + &resources::virtual_service("api", HOST, &lines);
    let gateway = Gateway::builder().host(HOST).resources(yaml).start();
    (upstream, gateway)
}

const ROUTE: &str = "route: [{destination: {host: api.example.com}}]";

fn ask(gateway: &Gateway, path: &str, fields: &str) -> Response {
    let mut client = gateway.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n"));
    client.response()
}

/// All values of a field, in their order.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

#[test]
fn request_fields_are_removed_set_and_added() {
    let operations = "headers: {request: {set: {x-team: blue}, add: {X-Added: 'one 100%%'}, remove: [Cookie]}}";
    let (_upstream, gateway) = with(&[&format!("{operations}, {ROUTE}")]);
    let seen = ask(&gateway, "/", "X-Team: red\r\nx-team: green\r\nX-Added: zero\r\nCookie: a\r\nX-Other: kept\r\n");
    let seen = seen.text();
    assert_eq!(values(seen, "x-team"), ["blue"]);
    assert_eq!(values(seen, "x-added"), ["zero", "one 100%"]);
    assert_eq!((header(seen, "cookie"), header(seen, "x-other")), (None, Some("kept")));
}

#[test]
fn answer_fields_are_removed_set_and_added_whoever_answers() {
    let operations =
        "headers: {response: {set: {x-public: mine}, add: {x-added: one}, remove: [x-kind, content-type]}}";
    let (_upstream, gateway) = with(&[
        &format!(
            "match: [{{uri: {{exact: /teapot}}}}], directResponse: {{status: 418, body: {{string: tea}}}}, {operations}"
        ),
        &format!("match: [{{uri: {{exact: /gone}}}}], redirect: {{uri: /new}}, {operations}"),
        &format!("{operations}, {ROUTE}"),
    ]);
    for (path, status) in [("/hop", 200), ("/status/204", 204), ("/teapot", 418), ("/gone", 301)] {
        let response = ask(&gateway, path, "");
        assert_eq!(response.status, status);
        assert_eq!(values(&response.head, "x-public"), ["mine"], "{path}");
        assert_eq!(values(&response.head, "x-added"), ["one"], "{path}");
        assert_eq!((response.header("x-kind"), response.header("content-type")), (None, None), "{path}");
    }
}

#[test]
fn a_destination_has_the_last_word_about_fields() {
    let of_route = "headers: {request: {set: {x-a: route, x-b: route}}}";
    let of_destination = "route: [{destination: {host: api.example.com}, headers: {request: {set: {x-a: destination}, \
                          remove: [x-b]}}}]";
    let (_upstream, gateway) = with(&[&format!("{of_route}, {of_destination}")]);
    let seen = ask(&gateway, "/", "");
    assert_eq!(values(seen.text(), "x-a"), ["destination"]);
    assert_eq!(values(seen.text(), "x-b"), Vec::<&str>::new());
}

#[test]
fn a_host_among_the_fields_rewrites_the_host_and_the_sni() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("other.example.com"), service::http);
    let routes = format!("  - {{headers: {{request: {{set: {{':authority': other.example.com}}}}}}, {ROUTE}}}\n");
    let yaml =
        resources::originating_entry("api", HOST, upstream.port()) + &resources::virtual_service("api", HOST, &routes);
    let gateway = Gateway::builder().host(HOST).trust(&authority).resources(yaml).start();
    let seen = ask(&gateway, "/", "");
    assert_eq!(values(seen.text(), "host"), ["other.example.com"]);
    assert_eq!(upstream.seen().counts().server_names, ["other.example.com"]);
    assert_eq!(gateway.log().first().authority, HOST, "the log keeps what the client asked for");
}

#[test]
fn framing_holds_whatever_is_edited() {
    let operations = "headers: {request: {remove: [X-Secret, Accept], add: {x-a: b}}}";
    let (upstream, gateway) = with(&[&format!("{operations}, {ROUTE}")]);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert!(client.post(HOST, "/echo", b"body").text().ends_with("\r\n\r\nbody"));
    }
    assert_eq!(upstream.seen().counts().connections, 1);
}

#[test]
fn a_redirect_is_answered_here_and_logged_as_such() {
    let (upstream, gateway) = with(&[
        "match: [{uri: {prefix: /old}}], name: moved, redirect: {uri: /new, authority: www.example.com, redirectCode: 308}",
        "match: [{uri: {prefix: /secure}}], redirect: {scheme: https}",
        "match: [{uri: {prefix: /port}}], redirect: {port: 8080}",
        "redirect: {scheme: https, derivePort: FROM_REQUEST_PORT, redirectCode: 303}",
    ]);
    for (path, status, location) in [
        ("/old/x?q=1", 308, "http://www.example.com/new?q=1"),
        ("/secure/../secure/a?b", 301, "https://api.example.com/secure/a?b"),
        ("/port", 301, "http://api.example.com:8080/port"),
        ("/", 303, "https://api.example.com:80/"),
    ] {
        let response = ask(&gateway, path, "");
        assert_eq!((response.status, response.header("location")), (status, Some(location)), "{path}");
        assert!(response.body.is_empty());
    }
    let line = gateway.log().wait_for(|line| line.code == 308);
    assert_eq!((line.flags.as_str(), line.details.as_str()), ("-", "direct_response"));
    assert_eq!((line.route.as_str(), line.upstream_cluster.as_str()), ("moved", "-"));
    assert_eq!(upstream.seen().counts().connections, 0);
}

#[test]
fn an_injected_abort_answers_its_share_of_the_requests() {
    let fault =
        |percent: &str, status| format!("fault: {{abort: {{httpStatus: {status}, percentage: {{value: {percent}}}}}}}");
    let (upstream, gateway) = with(&[
        &format!("match: [{{uri: {{prefix: /all}}}}], {}, {ROUTE}", fault("100", 421)),
        &format!("match: [{{uri: {{prefix: /none}}}}], {}, {ROUTE}", fault("0", 500)),
        &format!("{}, {ROUTE}", fault("50", 503)),
    ]);
    let response = ask(&gateway, "/all", "");
    assert_eq!((response.status, response.text()), (421, "fault filter abort"));
    let line = gateway.log().first();
    assert_eq!((line.code, line.flags.as_str(), line.details.as_str()), (421, "FI", "fault_filter_abort"));
    assert_eq!(upstream.seen().counts().connections, 0);
    assert_eq!(ask(&gateway, "/none", "").status, 200);
    let mut client = gateway.client();
    let aborted = (0..100).filter(|_| client.get(HOST, "/half").status == 503).count();
    assert!((20..80).contains(&aborted), "{aborted} of 100");
}

#[test]
fn an_injected_delay_holds_a_request_up_for_no_longer_than_its_timeout() {
    let fault = "fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}";
    let (upstream, gateway) = with(&[
        &format!("match: [{{uri: {{prefix: /late}}}}], timeout: 100ms, {fault}, {ROUTE}"),
        &format!("{fault}, {ROUTE}"),
    ]);
    let begun = Instant::now();
    assert_eq!(ask(&gateway, "/", "").status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let line = gateway.log().first();
    assert_eq!((line.flags.as_str(), line.details.as_str()), ("DI", "via_upstream"));
    assert_eq!(ask(&gateway, "/late", "").status, 504);
    let line = gateway.log().wait_for(|line| line.code == 504);
    assert_eq!((line.flags.as_str(), line.details.as_str()), ("UT,DI", "response_timeout"));
    assert_eq!(upstream.seen().counts().requests.len(), 1);
}

#[test]
fn a_timeout_ends_an_answer_that_never_pauses() {
    let upstream = Upstream::plain(service::flood);
    let route = format!("  - {{timeout: 300ms, {ROUTE}}}\n");
    let yaml = resources::http_entry("api", HOST, upstream.port()) + &resources::virtual_service("api", HOST, &route);
    for driver in ["auto", "epoll"] {
        let setting = format!("ioDriver: {driver}\n");
        let gateway = Gateway::builder().host(HOST).setting(&setting).resources(&yaml).start();
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let begun = Instant::now();
        // As fast as it comes, to an end or a fault; for no longer than the deadline of every test's reads.
        let mut bytes = vec![0; 1024 * 1024];
        while begun.elapsed() < DEADLINE && client.socket().read(&mut bytes).is_ok_and(|count| count > 0) {}
        assert!(begun.elapsed() < Duration::from_secs(3), "{driver}: {:?}", begun.elapsed());
        assert_eq!(gateway.log().first().flags, "UT", "{driver}");
    }
}

#[test]
fn a_path_is_rewritten_by_an_expression() {
    let rewrite = r"rewrite: {uriRegexRewrite: {match: '^/service/([^/]+)(/.*)$', rewrite: '\2/instance/\1'}}";
    let (upstream, gateway) = with(&[&format!("{rewrite}, {ROUTE}")]);
    let target = |path: &str| ask(&gateway, path, "").text().lines().next().unwrap_or_default().to_owned();
    assert_eq!(target("/service/foo/v1/api?q=1"), "GET /v1/api/instance/foo?q=1 HTTP/1.1");
    assert_eq!(target("/other"), "GET /other HTTP/1.1");
    assert_eq!(gateway.log().first().request, "GET /service/foo/v1/api?q=1 HTTP/1.1");
    assert_eq!(upstream.seen().counts().requests.len(), 2);
}

#[test]
fn a_direct_answer_may_hold_bytes() {
    let (_upstream, gateway) = with(&[
        "directResponse: {status: 200, body: {bytes: AP8K}}, headers: {response: {set: {content-type: application/octet-stream}}}",
    ]);
    let response = ask(&gateway, "/", "");
    assert_eq!((response.status, &response.body[..]), (200, &[0, 255, 10][..]));
    assert_eq!(values(&response.head, "content-type"), ["application/octet-stream"]);
}

#[test]
fn a_retry_waits_for_its_back_off_and_takes_another_endpoint() {
    let (one, other) = (Upstream::plain(service::http), Upstream::plain(service::http));
    let entry = |one: u16, other: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec:\n  \
             hosts: [{HOST}]\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  resolution: STATIC\n  endpoints:\n  \
             - {{address: 127.0.0.1, ports: {{http: {one}}}}}\n  - {{address: 127.0.0.1, ports: {{http: {other}}}}}\n"
        )
    };
    let routes = format!("  - {{retries: {{attempts: 1, retryOn: gateway-error, backoff: 200ms}}, {ROUTE}}}\n");
    let yaml = entry(one.port(), other.port()) + &resources::virtual_service("api", HOST, &routes);
    let gateway = Gateway::builder().resources(yaml).start();
    for count in 1..=5 {
        let begun = Instant::now();
        assert_eq!(ask(&gateway, "/status/503", "").status, 503);
        assert!(begun.elapsed() >= Duration::from_millis(200));
        let requests = [&one, &other].map(|upstream| upstream.seen().counts().requests.len());
        assert_eq!(requests, [count, count]);
    }
}

#[test]
fn a_cors_policy_answers_preflights_and_marks_answers() {
    let policy = "corsPolicy: {allowOrigins: [{exact: 'https://app.example'}, {regex: 'https://[a-z]+\\.dev'}], \
                  allowMethods: [GET, PUT], allowHeaders: [x-a], exposeHeaders: [x-count], maxAge: 1h, allowCredentials: true}";
    let (upstream, gateway) = with(&[&format!("name: api, {policy}, {ROUTE}")]);
    let preflight = |origin: &str| {
        let mut client = gateway.client();
        client.send(format!(
            "OPTIONS /x HTTP/1.1\r\nHost: {HOST}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n\r\n"
        ));
        client.response()
    };
    let response = preflight("https://some.dev");
    assert_eq!((response.status, response.body.len()), (200, 0));
    for (name, value) in [
        ("allow-origin", "https://some.dev"),
        ("allow-credentials", "true"),
        ("allow-methods", "GET,PUT"),
        ("allow-headers", "x-a"),
        ("max-age", "3600"),
    ] {
        assert_eq!(values(&response.head, &format!("access-control-{name}")), [value]);
    }
    assert_eq!(upstream.seen().counts().connections, 0);
    let line = gateway.log().first();
    assert_eq!(
        (line.code, line.flags.as_str(), line.details.as_str(), line.route.as_str()),
        (200, "-", "cors_response", "api")
    );

    let response = ask(&gateway, "/", "Origin: https://app.example\r\n");
    assert_eq!(values(&response.head, "access-control-allow-origin"), ["https://app.example"]);
    assert_eq!(values(&response.head, "access-control-expose-headers"), ["x-count"]);
    for response in [
        ask(&gateway, "/", "Origin: https://evil.example\r\n"),
        preflight("https://evil.example"),
        ask(&gateway, "/", ""),
    ] {
        assert_eq!(response.status, 200);
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    assert_eq!(upstream.seen().counts().requests.len(), 4, "the upstream answers preflights of others");
}

/// A VirtualService without hosts.
fn delegate(name: &str, http: &str) -> String {
    resources::virtual_service(name, HOST, http).replace(&format!("  hosts: [{HOST}]\n"), "")
}

#[test]
fn a_rule_may_leave_its_requests_to_the_rules_of_another_object() {
    let upstream = Upstream::plain(service::http);
    let root = "  - match: [{uri: {prefix: /team/}}]\n    name: team\n    delegate: {name: team}\n    \
                headers: {request: {set: {x-by: root}}}\n  - match: [{uri: {prefix: /lost}}]\n    delegate: {name: lost}\n  \
                - directResponse: {status: 410}\n";
    let team = "  - match: [{uri: {prefix: /team/books}}]\n    name: books\n    \
                route: [{destination: {host: api.example.com}}]\n  - match: [{uri: {prefix: /other}}]\n    \
                directResponse: {status: 418}\n";
    let yaml = resources::http_entry("api", HOST, upstream.port())
        + &resources::virtual_service("root", HOST, root)
        + &delegate("team", team);
    let gateway = Gateway::builder().host(HOST).resources(yaml).start();
    let response = ask(&gateway, "/team/books/1", "");
    assert_eq!((response.status, values(response.text(), "x-by")), (200, vec!["root"]));
    assert_eq!(gateway.log().first().route, "team-books");
    for (path, status) in [("/team/x", 410), ("/other", 410), ("/lost", 503)] {
        assert_eq!(ask(&gateway, path, "").status, status, "{path}");
    }
    assert_eq!(gateway.log().wait_for(|line| line.code == 503).flags, "NC");
}
