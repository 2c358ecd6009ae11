//! `portcullis explain` as scripts rely on it, and beside a running gateway that must agree with it.

mod support;

use std::cell::Cell;
use std::io::Write as _;
use std::process::Output;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use support::client;
use support::gateway::{Gateway, Port, command};
use support::log::Line;
use support::resources::{self, GOOGLEAPIS};

/// Exit code and JSON of one question about `resources`.
fn explain(resources: &str, arguments: &[&str]) -> (i32, Value) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("resources.yaml");
    std::fs::write(&file, resources).expect("the folder is ours");
    let output = command().args(["explain", "-o", "json"]).arg(&file).args(arguments).output().expect("it runs");
    answer(&output)
}

fn answer(output: &Output) -> (i32, Value) {
    let code = output.status.code().expect("no signal");
    let json = serde_json::from_slice(&output.stdout);
    (code, json.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

fn kinds(answer: &Value) -> Vec<&str> {
    let objects = answer["objects"].as_array().expect("a list");
    objects.iter().map(|object| object["kind"].as_str().expect("a text")).collect()
}

#[test]
fn the_passthrough_example_is_explained_field_by_field() {
    let (code, answer) = explain(resources::PUBLISHED_PASSTHROUGH, &["https://www.googleapis.com/ignored"]);
    assert_eq!(code, 0, "{answer}");
    let source = answer["objects"][0]["source"].as_str().expect("a text").to_owned();
    assert!(source.ends_with("resources.yaml:1"), "{source}");
    assert_eq!(kinds(&answer), ["ServiceEntry", "VirtualService"]);
    let mut rest = answer.clone();
    rest.as_object_mut().expect("an object").remove("objects");
    assert_eq!(
        rest,
        json!({
            "verdict": "allow", "reason": "via_upstream", "host": GOOGLEAPIS, "port": 443, "route": null,
            "cluster": "outbound|443||www.googleapis.com", "tls": "PASSTHROUGH", "sni": GOOGLEAPIS,
            "endpoints": ["www.googleapis.com:443"], "status": null, "responseFlags": null, "destinations": null,
            "upstreamProtocol": null, "entrances": null, "traffic": null, "clientTls": null,
            "location": null, "notes": null, "audited": null,
        })
    );
}

#[test]
fn the_origination_example_names_its_rule_and_the_tls_that_is_opened() {
    let (code, answer) = explain(resources::PUBLISHED_ORIGINATION, &["http://www.googleapis.com/x"]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(
        (&answer["tls"], &answer["sni"], &answer["route"]),
        (&json!("SIMPLE"), &json!(GOOGLEAPIS), &json!("default"))
    );
    assert_eq!(kinds(&answer), ["ServiceEntry", "VirtualService", "DestinationRule"]);
    // A client that speaks TLS is never encrypted a second time.
    let (_, answer) = explain(resources::PUBLISHED_ORIGINATION, &["https://www.googleapis.com"]);
    assert_eq!(answer["tls"], "PASSTHROUGH");
}

#[test]
fn the_protocol_towards_the_upstream_is_told() {
    for (protocol, policy, expected) in [
        ("HTTP", "{}", "HTTP/1.1"),
        ("GRPC", "{}", "HTTP/2"),
        ("HTTP", "{h2UpgradePolicy: UPGRADE}", "HTTP/2"),
        ("HTTP2", "{useClientProtocol: true}", "as the client"),
    ] {
        let entry = resources::http_entry("a", GOOGLEAPIS, 80);
        let entry = entry.replace("protocol: HTTP\n", &format!("protocol: {protocol}\n"));
        let rule = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\n\
             spec: {{host: {GOOGLEAPIS}, trafficPolicy: {{connectionPool: {{http: {policy}}}}}}}\n"
        );
        let (code, answer) = explain(&(entry + &rule), &[&format!("http://{GOOGLEAPIS}/")]);
        assert_eq!((code, &answer["upstreamProtocol"]), (0, &json!(expected)), "{protocol} {policy}: {answer}");
    }
}

#[test]
fn the_bounds_of_a_destination_are_listed() {
    let policy = "{connectionPool: {tcp: {maxConnections: 7, idleTimeout: 5m}}, outlierDetection: {}, \
                  loadBalancer: {consistentHash: {httpHeaderName: X-User}}, proxyProtocol: {version: V2}}";
    let rule = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\n\
         spec: {{host: {GOOGLEAPIS}, trafficPolicy: {policy}}}\n"
    );
    let resources = resources::http_entry("a", GOOGLEAPIS, 80) + &rule;
    let (code, answer) = explain(&resources, &[&format!("http://{GOOGLEAPIS}/")]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(
        answer["traffic"],
        json!([
            "maxConnections 7",
            "maxRequestsPerConnection 1",
            "http.idleTimeout 300s",
            "tcp.idleTimeout 300s",
            "outlierDetection, for 30s and more, at most 10 % of the endpoints",
            "consistentHash by header x-user",
            "proxyProtocol V2",
        ])
    );
}

#[test]
fn refusals_say_what_the_client_and_the_log_see() {
    let policy = resources::authorization_policy(
        "no-posts",
        "  action: DENY\n  rules:\n  - to:\n    - operation: {methods: [POST]}\n",
    );
    let routes = resources::virtual_service(
        "some-paths",
        GOOGLEAPIS,
        "  - match: [{uri: {prefix: /health}}]\n    directResponse: {status: 204}\n  - match: [{uri: {prefix: /void}}]\n    route: [{destination: {host: nowhere.example}}]\n",
    );
    let resources = [&resources::http_entry("a", GOOGLEAPIS, 80), &routes, &policy].map(String::as_str).concat();
    let url = |path: &str| format!("http://{GOOGLEAPIS}{path}");
    for (arguments, code, reason, status, flags) in [
        (vec!["http://blocked.example"], 1, "host_not_listed", json!(502), json!("-")),
        (vec!["https://blocked.example"], 1, "host_not_listed", json!(null), json!("UH")),
        (vec!["http://192.0.2.1"], 1, "host_not_listed", json!(502), json!("-")),
        (vec!["https://192.0.2.1"], 1, "no_sni", json!(null), json!("UH")),
        (vec!["https://127.1"], 1, "bad_sni", json!(null), json!("DPE")),
        (vec!["tcp://192.0.2.1:5432"], 1, "host_not_listed", json!(null), json!("UH")),
        (vec![&url("/other")], 1, "route_not_found", json!(404), json!("NR")),
        (vec![&url("/void")], 1, "cluster_not_found", json!(503), json!("NC")),
        (vec![&url("/health/../void")], 1, "cluster_not_found", json!(503), json!("NC")),
        (vec![&url("/health")], 0, "direct_response", json!(204), json!(null)),
        (
            vec![&url("/health"), "--method", "POST"],
            1,
            "rbac_access_denied_matched_policy[ns[default]-policy[no-posts]-rule[0]]",
            json!(403),
            json!("-"),
        ),
        (vec!["http://x", "--header", "Host: blocked.example:80"], 1, "host_not_listed", json!(502), json!("-")),
    ] {
        let (exit, answer) = explain(&resources, &arguments);
        assert_eq!((exit, &answer["reason"]), (code, &json!(reason)), "{arguments:?}: {answer}");
        assert_eq!((&answer["status"], &answer["responseFlags"]), (&status, &flags), "{arguments:?}: {answer}");
        assert_eq!(answer["verdict"], if code == 0 { "allow" } else { "deny" });
    }
    let (_, answer) = explain(&resources, &[&url("/health"), "--method", "POST"]);
    assert!(kinds(&answer).contains(&"AuthorizationPolicy"), "{answer}");
}

#[test]
fn redirects_faults_and_edits_are_told() {
    let routes = resources::virtual_service(
        "routes",
        GOOGLEAPIS,
        "  - match: [{uri: {prefix: /old}}]\n    redirect: {uri: /new, scheme: https}\n  - fault: {delay: {fixedDelay: 2s, percentage: {value: 50}}, abort: {httpStatus: 503, percentage: {value: 10}}}\n    rewrite: {uri: /v1/, authority: up.example}\n    headers: {request: {set: {x-a: b}, remove: [cookie]}, response: {add: {x-c: d}}}\n    route: [{destination: {host: www.googleapis.com}}]\n",
    );
    let resources = [resources::http_entry("a", GOOGLEAPIS, 8080), routes].concat();
    let (code, answer) = explain(&resources, &["http://www.googleapis.com/old?q"]);
    assert_eq!((code, &answer["status"], &answer["reason"]), (0, &json!(301), &json!("direct_response")), "{answer}");
    assert_eq!(answer["location"], "https://www.googleapis.com/new?q");
    let (_, answer) = explain(&resources, &["http://www.googleapis.com/x"]);
    let notes = json!([
        "fault: 50% of the requests wait for 2s",
        "fault: 10% of the requests are answered with 503",
        "request: path /v1/x",
        "request: Host up.example",
        "request: without cookie",
        "request: without x-a",
        "request: with x-a: b",
        "answer: with x-c: d"
    ]);
    assert_eq!(answer["notes"], notes);
}

#[test]
fn captured_connections_are_explained_by_their_address() {
    let entry = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: db}\nspec:\n  hosts: [db.example]\n  addresses: [198.51.100.0/24]\n  ports: [{number: 5432, name: tcp, protocol: TCP}]\n  resolution: NONE\n";
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: not-there}\nspec:\n  action: DENY\n  rules:\n  - when: [{key: destination.ip, values: [198.51.100.128/25]}]\n";
    let resources = [entry, policy].concat();
    let (code, answer) = explain(&resources, &["tcp://198.51.100.7:5432"]);
    assert_eq!((code, &answer["cluster"]), (0, &json!("outbound|5432||db.example")), "{answer}");
    assert_eq!((&answer["endpoints"], &answer["tls"]), (&json!(["198.51.100.7:5432"]), &json!("PASSTHROUGH")));
    assert_eq!(kinds(&answer), ["ServiceEntry"]);

    let (code, answer) = explain(&resources, &["tcp://198.51.100.129:5432"]);
    assert_eq!(code, 1, "{answer}");
    assert_eq!(kinds(&answer), ["ServiceEntry", "AuthorizationPolicy"]);
    assert!(answer["reason"].as_str().expect("a text").starts_with("rbac_access_denied"), "{answer}");

    let (code, answer) = explain(&resources, &["tcp://203.0.113.1:5432"]);
    assert_eq!((code, &answer["cluster"]), (1, &json!("BlackHoleCluster")), "{answer}");
    assert_eq!(answer["reason"], "host_not_listed");
}

#[test]
fn clients_that_speak_tls_to_a_port_that_takes_tcp_alone_are_told_what_a_session_gets() {
    let entry = |name: &str, port: u16, addresses: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{name}.example]\n{addresses}  ports: [{{number: {port}, name: tcp, protocol: TCP}}]\n  resolution: STATIC\n  endpoints: [{{address: 192.0.2.1}}]\n"
        )
    };
    let resources = entry("db", 5432, "  addresses: [198.51.100.0/24]\n") + &entry("any", 9000, "");
    for url in ["https://db.example:5432", "https://198.51.100.7:5432", "tcp://198.51.100.7:5432"] {
        let (code, answer) = explain(&resources, &[url]);
        assert_eq!((code, &answer["cluster"]), (0, &json!("outbound|5432||db.example")), "{url}: {answer}");
        assert_eq!(answer["tls"], "PASSTHROUGH", "{url}: {answer}");
    }
    let (code, answer) = explain(&resources, &["https://whatever.example:9000"]);
    assert_eq!((code, &answer["cluster"]), (0, &json!("outbound|9000||any.example")), "{answer}");
    let (code, answer) = explain(&resources, &["https://other.example:5432"]);
    assert_eq!((code, &answer["reason"]), (1, &json!("host_not_listed")), "{answer}");
    // Where names count, they do.
    let named =
        resources.clone() + &resources::tls_entry("web", GOOGLEAPIS, 443).replace("number: 443", "number: 9000");
    let (code, answer) = explain(&named, &[&format!("https://{GOOGLEAPIS}:9000")]);
    assert_eq!((code, &answer["sni"]), (0, &json!(GOOGLEAPIS)), "{answer}");
}

#[test]
fn what_an_audit_policy_matches_is_named_whatever_the_verdict() {
    let audit = "  action: AUDIT\n  rules:\n  - to: [{operation: {paths: [/books*]}}]\n";
    let policy = resources::authorization_policy("watched", audit);
    let resources = [resources::http_entry("a", GOOGLEAPIS, 8080), policy].concat();
    let rule = json!(["ns[default]-policy[watched]-rule[0]"]);
    let (code, answer) = explain(&resources, &["http://www.googleapis.com/books"]);
    assert_eq!((code, &answer["audited"]), (0, &rule), "{answer}");
    assert_eq!(kinds(&answer), ["ServiceEntry", "AuthorizationPolicy"]);
    let (code, answer) = explain(&resources, &["http://blocked.example/books"]);
    assert_eq!((code, &answer["audited"]), (1, &rule), "{answer}");
    let (_, answer) = explain(&resources, &["http://www.googleapis.com/other"]);
    assert_eq!(answer["audited"], json!(null));
}

#[test]
fn tls_around_tcp_is_explained() {
    const RULED: &str = "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.example]
  addresses: [198.51.100.7]
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: db.example, trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}}
";
    let (code, answer) = explain(RULED, &["tcp://198.51.100.7:5432"]);
    assert_eq!((code, &answer["tls"], &answer["sni"]), (0, &json!("SIMPLE"), &json!("db.example")), "{answer}");
    assert_eq!(kinds(&answer), ["ServiceEntry", "DestinationRule"]);
    let (code, answer) =
        explain(&RULED.replace("db.example", "'*.db.example'").replace("DNS", "NONE"), &["tcp://198.51.100.7:5432"]);
    assert_eq!((code, &answer["responseFlags"]), (1, &json!("UH")), "{answer}");
}

#[test]
fn several_destinations_are_all_named() {
    let routes = resources::virtual_service(
        "split",
        GOOGLEAPIS,
        "  - route:\n    - {destination: {host: nowhere.example}, weight: 1}\n    - {destination: {host: www.googleapis.com}, weight: 3}\n",
    );
    let (code, answer) =
        explain(&[resources::http_entry("a", GOOGLEAPIS, 8080), routes].concat(), &["http://www.googleapis.com"]);
    assert_eq!((code, &answer["cluster"]), (0, &json!("outbound|80||www.googleapis.com")), "{answer}");
    assert_eq!(answer["endpoints"], json!(["www.googleapis.com:8080"]));
    let shares = json!([{"cluster": null, "weight": 1}, {"cluster": "outbound|80||www.googleapis.com", "weight": 3}]);
    assert_eq!(answer["destinations"], shares);
}

#[test]
fn the_shares_of_both_hops_are_named() {
    const HOPS: &str = "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [www.googleapis.com]}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: [www.googleapis.com], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hops}
spec:
  hosts: [www.googleapis.com]
  gateways: [mesh, egress]
  http:
  - match: [{gateways: [mesh]}]
    route: [{destination: {host: istio-egressgateway}, weight: 9}, {destination: {host: www.googleapis.com}, weight: 1}]
  - match: [{gateways: [egress]}]
    route: [{destination: {host: nowhere.example}, weight: 1}, {destination: {host: www.googleapis.com}, weight: 3}]
  tls:
  - match: [{gateways: [mesh], port: 443, sniHosts: [www.googleapis.com]}]
    route: [{destination: {host: istio-egressgateway}, weight: 9}, {destination: {host: www.googleapis.com}, weight: 1}]
  - match: [{gateways: [egress], port: 443, sniHosts: [www.googleapis.com]}]
    route: [{destination: {host: nowhere.example}, weight: 1}, {destination: {host: www.googleapis.com}, weight: 3}]
";
    let entries = [resources::http_entry("a", GOOGLEAPIS, 8080), resources::tls_entry("b", GOOGLEAPIS, 8443)];
    for (url, port) in [("http://www.googleapis.com", 80), ("https://www.googleapis.com", 443)] {
        let (code, answer) = explain(&[entries.concat(), HOPS.to_owned()].concat(), &[url]);
        let cluster = format!("outbound|{port}||www.googleapis.com");
        assert_eq!((code, &answer["cluster"]), (0, &json!(cluster)), "{answer}");
        let entrances = json!([{"cluster": format!("Gateway|{port}"), "weight": 9}, {"cluster": cluster, "weight": 1}]);
        assert_eq!(answer["entrances"], entrances);
        let shares = json!([{"cluster": null, "weight": 1}, {"cluster": cluster, "weight": 3}]);
        assert_eq!(answer["destinations"], shares);
    }
}

#[test]
fn without_listener_nothing_passes_and_a_bad_configuration_is_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("the folder is ours");
    write("portcullis.yaml", "listeners: [{name: a, bind: '127.0.0.1:1', servicePort: 443}]\nresources: [r.yaml]\n");
    write("r.yaml", resources::PUBLISHED_ORIGINATION);
    write("bad.yaml", &resources::PUBLISHED_ORIGINATION.replace("resolution: DNS", "resolution: SOON"));
    let run = |arguments: &[&str]| {
        let mut command = command();
        command.current_dir(folder.path()).env("PORTCULLIS_CONFIG", "portcullis.yaml");
        command.arg("explain").args(arguments).output().expect("it runs")
    };
    let output = run(&["http://www.googleapis.com", "-o", "json"]);
    assert_eq!(answer(&output).1["reason"], "no_listener");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(run(&["https://www.googleapis.com"]).status.code(), Some(0));
    assert_eq!(run(&["r.yaml", "http://www.googleapis.com"]).status.code(), Some(0));
    assert_eq!(run(&["--config", "portcullis.yaml", "r.yaml", "http://www.googleapis.com"]).status.code(), Some(1));
    for arguments in [
        &["bad.yaml", "http://www.googleapis.com"][..],
        &["nowhere.yaml", "http://www.googleapis.com"],
        &["--config", "nowhere.yaml", "http://www.googleapis.com"],
        &["www.googleapis.com"],
        &["http://www.googleapis.com", "--header", "X"],
        &[],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

// --- Beside a gateway ---------------------------------------------------------------------------

const HOSTS: [&str; 5] = ["a.example.com", "b.example.com", "x.wild.example", "wild.example", "other.example"];
const PATHS: [&str; 10] = [
    "/",
    "/api",
    "/api/",
    "/api/../secret",
    "/secret",
    "/SECRET",
    "/%73ecret",
    "/api%2f..%2fsecret",
    "//secret",
    "/%zz",
];
const METHODS: [&str; 4] = ["GET", "POST", "OPTIONS", "CONNECT"];

/// Resources in front of a port where nobody listens.
fn configurations(closed: u16) -> impl Strategy<Value = String> {
    let hosts =
        prop_oneof![Just("a.example.com"), Just("b.example.com"), Just("*.wild.example"), Just("*.example.com")];
    let port = prop_oneof![
        Just("number: 80, protocol: HTTP"),
        Just("number: 443, protocol: TLS"),
        Just("number: 80"),
        Just("number: 443"),
    ];
    let entry = (hosts.clone(), port).prop_map(move |(host, port)| {
        format!(
            "hosts: ['{host}'], ports: [{{name: p, {port}}}], resolution: STATIC, \
             endpoints: [{{address: 127.0.0.1, ports: {{p: {closed}}}}}]"
        )
    });
    let condition = prop_oneof![
        Just("uri: {prefix: /api}"),
        Just("uri: {exact: /secret}, ignoreUriCase: true"),
        Just("uri: {regex: '/(api|secret).*'}"),
        Just("method: {exact: POST}"),
        Just("headers: {x-team: {exact: blue}}"),
    ];
    let action = prop_oneof![
        Just("directResponse: {status: 418, body: {string: tea}}"),
        Just("redirect: {uri: /elsewhere, redirectCode: 307}"),
        Just("fault: {abort: {httpStatus: 429, percentage: {value: 100}}}, redirect: {scheme: https}"),
        Just("route: [{destination: {host: a.example.com}}], retries: {attempts: 0}"),
        Just("route: [{destination: {host: a.example.com}}], rewrite: {uri: /v1/}, retries: {attempts: 0}"),
        Just("route: [{destination: {host: missing.example.com}}]"),
    ];
    let rule = (condition, action).prop_map(|(condition, action)| format!("{{match: [{{{condition}}}], {action}}}"));
    let http = (hosts.clone(), proptest::collection::vec(rule, 1..4))
        .prop_map(|(host, rules)| format!("hosts: ['{host}'], http: [{}]", rules.join(", ")));
    let target = prop_oneof![Just("a.example.com"), Just("b.example.com"), Just("missing.example.com")];
    let tls = (hosts, target).prop_map(|(host, target)| {
        let route = format!("route: [{{destination: {{host: {target}}}}}]");
        format!("hosts: ['{host}'], tls: [{{match: [{{sniHosts: ['{}']}}], {route}}}]", host.replace('*', "x"))
    });
    let service = prop_oneof![3 => http, 1 => tls];
    let several = |specs: BoxedStrategy<String>, most| proptest::collection::vec(specs, 0..=most);
    let all = (several(entry.boxed(), 3), several(service.boxed(), 2), several(policies().boxed(), 2), hops());
    all.prop_map(|(entries, services, policies, hops)| {
        let kinds = [("networking", "ServiceEntry", entries), ("networking", "VirtualService", services)];
        let kinds = kinds.into_iter().chain([("security", "AuthorizationPolicy", policies)]);
        let documents = kinds.flat_map(|(group, kind, specs)| {
            specs.into_iter().enumerate().map(move |(index, spec)| {
                format!("---\napiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: o{index}}}\nspec: {{{spec}}}\n")
            })
        });
        documents.chain([hops]).collect()
    })
}

/// The way through a Gateway, or none.
fn hops() -> impl Strategy<Value = String> {
    let host = prop_oneof![Just("a.example.com"), Just("b.example.com"), Just("*.wild.example"), Just("*.example.com")];
    let redirects = prop_oneof![3 => Just(""), 1 => Just(", tls: {httpsRedirect: true}")];
    let onward = prop_oneof![
        Just("{match: [{gateways: [egress]}], route: [{destination: {host: a.example.com}}], retries: {attempts: 0}}"),
        Just("{match: [{gateways: [egress], uri: {prefix: /api}}], directResponse: {status: 418}}"),
        Just("{match: [{gateways: [egress]}], route: [{destination: {host: missing.example.com}}]}"),
    ];
    let way = (host, redirects, onward).prop_map(|(host, redirects, onward)| {
        let sni = host.replace('*', "x");
        let rule = |place: &str, host: &str| {
            format!("{{match: [{{gateways: [{place}], sniHosts: ['{sni}']}}], route: [{{destination: {{host: {host}}}}}]}}")
        };
        let through = "{match: [{gateways: [mesh], uri: {prefix: /a}}], route: [{destination: {host: istio-egressgateway}}]}";
        let tls = [rule("mesh", "istio-egressgateway"), rule("egress", "a.example.com")].join(", ");
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: egress}}\nspec:\n  servers:\n  \
             - {{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']{redirects}}}\n  \
             - {{port: {{number: 443, name: tls, protocol: TLS}}, hosts: ['*'], tls: {{mode: PASSTHROUGH}}}}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: hops, creationTimestamp: '2020-01-01T00:00:00Z'}}\n\
             spec: {{hosts: ['{host}'], gateways: [mesh, egress], http: [{through}, {onward}], tls: [{tls}]}}\n"
        )
    });
    prop_oneof![1 => Just(String::new()), 2 => way]
}

fn policies() -> impl Strategy<Value = String> {
    let rules = [
        "to: [{operation: {paths: ['/api*']}}]",
        "to: [{operation: {paths: ['*secret']}}]",
        "to: [{operation: {paths: ['/{*}']}}]",
        "to: [{operation: {notPaths: [/secret]}}]",
        "to: [{operation: {methods: [GET, OPTIONS]}}]",
        "to: [{operation: {notMethods: [POST], ports: ['80']}}]",
        "to: [{operation: {hosts: ['*.example.com']}}]",
        "to: [{operation: {notHosts: [a.example.com]}}]",
        "to: [{operation: {ports: ['443']}}]",
        "to: [{operation: {notPorts: ['443']}}]",
        "from: [{source: {ipBlocks: [127.0.0.0/8]}}]",
        "from: [{source: {notIpBlocks: [127.0.0.1]}}]",
        "when: [{key: 'request.headers[x-team]', values: [blue]}]",
        "when: [{key: 'request.headers[x-team]', notValues: [blue]}]",
        "when: [{key: connection.sni, values: ['a.*', '*.wild.example']}]",
        "when: [{key: connection.sni, notValues: [a.example.com]}]",
        "when: [{key: destination.port, values: ['80']}]",
        "when: [{key: source.ip, values: [10.0.0.0/8]}]",
    ];
    let action = proptest::sample::select(vec!["ALLOW", "ALLOW", "DENY", "DENY", "AUDIT"]);
    let target = "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: o0}], ";
    let target = proptest::sample::select(vec!["", "", target]);
    let rule = proptest::sample::select(rules.to_vec());
    (action, target, rule).prop_map(|(action, target, rule)| format!("action: {action}, {target}rules: [{{{rule}}}]"))
}

#[derive(Clone, Debug)]
enum Ask {
    Tls(&'static str),
    Http { host: &'static str, path: &'static str, method: &'static str, team: bool },
}

fn questions() -> impl Strategy<Value = Vec<Ask>> {
    let host = proptest::sample::select(&HOSTS[..]);
    let http =
        (host.clone(), proptest::sample::select(&PATHS[..]), proptest::sample::select(&METHODS[..]), any::<bool>())
            .prop_map(|(host, path, method, team)| Ask::Http { host, path, method, team });
    proptest::collection::vec(prop_oneof![1 => host.prop_map(Ask::Tls), 3 => http], 12)
}

impl Ask {
    fn explain(&self, gateway: &Gateway) -> Value {
        let mut command = command();
        command.args(["explain", "-o", "json", "--config"]).arg(gateway.config());
        match self {
            Self::Tls(host) => command.arg(format!("https://{host}")),
            Self::Http { host, path, method, team } => {
                command.args(["--method", method]).args(team.then_some("--header=X-Team: blue"));
                command.arg(format!("http://{host}{path}"))
            }
        };
        let (code, answer) = answer(&command.output().expect("it runs"));
        assert_eq!(code, i32::from(answer["verdict"] == "deny"), "{answer}");
        answer
    }

    fn send(&self, gateway: &Gateway) {
        match self {
            Self::Tls(host) => {
                let mut socket = client::connect(gateway.tls());
                socket.write_all(&client::hello(host)).expect("the listener accepts");
                client::read_to_end(&mut socket);
            }
            Self::Http { host, path, method, team } => {
                let mut socket = client::connect(gateway.http());
                let target = if *method == "CONNECT" { host } else { path };
                let team = if *team { "X-Team: blue\r\n" } else { "" };
                let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{team}Connection: close\r\n\r\n");
                socket.write_all(head.as_bytes()).expect("the listener accepts");
                client::read_to_end(&mut socket);
            }
        }
    }
}

/// What the log must show of a session that was explained so.
fn agree(answer: &Value, line: &Line, is_tls: bool) -> Result<(), TestCaseError> {
    let text = |field: &str| answer[field].as_str().unwrap_or("-").to_owned();
    prop_assert_eq!(text("cluster"), &*line.upstream_cluster);
    prop_assert_eq!(text("route"), &*line.route);
    // What ended a session of TLS stands where its audits would.
    if !is_tls {
        let rules =
            answer["audited"].as_array().map(|rules| rules.iter().filter_map(Value::as_str).collect::<Vec<_>>());
        let audited = rules.map(|rules| format!("rbac_audit_matched_policy[{}]", rules.join(",")));
        prop_assert_eq!(audited.as_deref().unwrap_or("-"), &*line.termination);
    }
    let reason = text("reason");
    match (answer["verdict"] == "allow", is_tls) {
        (true, _) if reason == "direct_response" => {
            prop_assert_eq!(&answer["status"], &json!(line.code));
            prop_assert_eq!(&reason, &line.details);
        }
        // It went where nobody listens.
        (true, _) => prop_assert_eq!("UF", &*line.flags),
        (false, true) => {
            prop_assert_eq!(text("responseFlags"), &*line.flags);
            prop_assert!(reason.starts_with(&line.termination), "{} is not {}", line.termination, reason);
        }
        (false, false) => {
            prop_assert_eq!(&answer["status"], &json!(line.code));
            prop_assert_eq!(text("responseFlags"), &*line.flags);
            prop_assert_eq!(&reason, &line.details);
        }
    }
    Ok(())
}

#[test]
fn a_running_gateway_does_what_explain_says() {
    let closed = Port::reserve();
    // Each question starts a process, so there are few cases, and no failures are kept in files.
    let config = Config { cases: 16, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let cases = (configurations(closed.number()), questions());
    let gateway = Gateway::builder().start();
    let lines = Cell::new(0);
    let result = TestRunner::new(config).run(&cases, |(resources, asks)| {
        gateway.reload(&resources);
        for ask in &asks {
            let answer = ask.explain(&gateway);
            ask.send(&gateway);
            lines.set(lines.get() + 1);
            let line = gateway.log().wait_for_count(lines.get()).pop().expect("a line");
            let agreed = agree(&answer, &line, matches!(ask, Ask::Tls(_)));
            agreed
                .map_err(|error| TestCaseError::fail(format!("{ask:?}: {error}\n{answer}\n{line:?}\n{resources}")))?;
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
