//! What Istio would refuse, in its words, and what `istioctl analyze` would say.

use super::*;

/// Severity, code, field and message of everything that is found.
fn said(resources: &str) -> Vec<(Severity, &'static str, String, String)> {
    let loaded = Files::new(resources).load(&mut Loader::default());
    let findings = loaded.map_or_else(|findings| findings, |loaded| loaded.findings);
    findings.into_iter().map(|it| (it.severity, it.code, it.field, it.message)).collect()
}

#[track_caller]
fn assert_said(resources: &str, severity: Severity, code: &str, field: &str, message: &str) {
    let said = said(resources);
    let found = said.iter().any(|it| it.0 == severity && it.1 == code && it.2 == field && it.3.contains(message));
    assert!(found, "no {severity:?} {code} {field}: {message} of\n{resources}\nin {said:#?}");
}

const A: &str = "a.example.com";
const ROUTE: &str = "route: [{destination: {host: a.example.com}}]";

fn service(spec: &str) -> String {
    [entry("a", A, &format!("{HTTP}, {HTTPS}"), DNS), object("VirtualService", "v", spec)].concat()
}

fn routes(http: &str) -> String {
    service(&format!("{{hosts: [{A}], http: [{http}]}}"))
}

#[test]
fn traffic_policies_are_refused_in_the_words_of_istio() {
    let hash = "loadBalancer: {consistentHash:";
    for (policy, field, message) in [
        ("connectionPool: {}", "connectionPool", "connection pool must have at least one field"),
        ("connectionPool: {tcp: {maxConnections: -1}}", "connectionPool.tcp.maxConnections", "must be non-negative"),
        (
            "connectionPool: {http: {maxRetries: -1}}",
            "connectionPool.http.maxRetries",
            "max retries must be non-negative",
        ),
        ("connectionPool: {tcp: {idleTimeout: 1us}}", "connectionPool.tcp.idleTimeout", "greater than 1ms"),
        (
            "connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}",
            "connectionPool.http",
            "use client protocol must not be true when H2UpgradePolicy is UPGRADE",
        ),
        ("outlierDetection: {maxEjectionPercent: 101}", "outlierDetection.maxEjectionPercent", "not in range 0..100"),
        (
            "outlierDetection: {consecutiveLocalOriginFailures: 1}",
            "outlierDetection.consecutiveLocalOriginFailures",
            "split external local origin errors is set to false",
        ),
        (
            &format!("{hash} {{httpCookie: {{ttl: 0s}}}}}}"),
            "loadBalancer.consistentHash.httpCookie.name",
            "name required",
        ),
        (
            &format!("{hash} {{httpCookie: {{name: 'a b', ttl: 0s}}}}}}"),
            "loadBalancer.consistentHash.httpCookie.name",
            "no cookie can be made of this name",
        ),
        (
            &format!("{hash} {{httpCookie: {{name: a, path: '/; Domain=b', ttl: 0s}}}}}}"),
            "loadBalancer.consistentHash.httpCookie.path",
            "not the path of a cookie",
        ),
        (
            &format!("{hash} {{useSourceIp: true, maglev: {{tableSize: 10}}}}}}"),
            "loadBalancer.consistentHash.maglev.tableSize",
            "tableSize must be a prime number for maglev",
        ),
        (
            &format!("{hash} {{useSourceIp: true, httpHeaderName: a}}}}"),
            "loadBalancer.consistentHash",
            "oneof already set",
        ),
        ("tunnel: {targetHost: a, targetPort: 0}", "tunnel.targetPort", "tunnel target port is invalid"),
        ("tunnel: {protocol: PUT, targetHost: a, targetPort: 1}", "tunnel.protocol", "must be \"CONNECT\" or \"POST\""),
        (
            "tunnel: {targetHost: a, targetPort: 1}, proxyProtocol: {}",
            "",
            "tunnel and proxyProtocol must not be set together",
        ),
        ("retryBudget: {percent: 200}", "retryBudget.percent", "not in range 0..100"),
    ] {
        let rule = object("DestinationRule", "d", &format!("{{host: {A}, trafficPolicy: {{{policy}}}}}"));
        let field = ["spec.trafficPolicy", field].join(".");
        assert_said(&rule, Severity::Error, "IST0106", field.trim_end_matches('.'), message);
    }
}

#[test]
fn what_the_settings_of_a_port_take_away_is_named() {
    let policy = "connectionPool: {tcp: {maxConnections: 1}}, outlierDetection: {}, \
                  tunnel: {targetHost: a, targetPort: 1}, retryBudget: {}, \
                  portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]";
    let rule = object("DestinationRule", "d", &format!("{{host: {A}, trafficPolicy: {{{policy}}}}}"));
    for name in ["connectionPool", "outlierDetection", "tunnel", "retryBudget"] {
        let message = format!("the {name} of trafficPolicy does not apply to this port");
        let field = "spec.trafficPolicy.portLevelSettings[0]";
        assert_said(&rule, Severity::Warning, "IST0109", field, &message);
    }
}

#[test]
fn service_entries_are_refused_in_the_words_of_istio() {
    let entry = |ports: &str, rest: &str| entry("a", A, ports, rest);
    let several = object(
        "ServiceEntry",
        "a",
        "{hosts: [a.example, b.example], ports: [{number: 1, name: a, protocol: TCP}], resolution: DNS}",
    );
    for (text, field, message) in [
        (several, "spec.hosts", "multiple hosts provided with non-HTTP, non-TLS ports"),
        (
            entry(HTTP, "workloadSelector: {}, resolution: STATIC, endpoints: [{address: 192.0.2.1}]"),
            "spec",
            "only one of WorkloadSelector or Endpoints is allowed",
        ),
        (
            object(
                "ServiceEntry",
                "a",
                &format!("{{hosts: ['*.example'], addresses: [192.0.2.1], ports: [{HTTP}], resolution: DYNAMIC_DNS}}"),
            ),
            "spec.addresses",
            "DYNAMIC_DNS",
        ),
        (entry(HTTP, "exportTo: ['*', b]"), "spec.exportTo", "cannot have both public (*) and non-public"),
        (entry(HTTP, "exportTo: ['~', b]"), "spec.exportTo", "cannot export service entry to no one (~) and someone"),
        (entry(HTTP, "exportTo: [b, b]"), "spec.exportTo", "duplicate entries in exportTo for entry b"),
        (entry(HTTP, "exportTo: [default, .]"), "spec.exportTo", "duplicate entries in exportTo for entry ."),
        (entry(HTTP, "exportTo: [a.b]"), "spec.exportTo", "only ., *, or a valid DNS 1123 label is allowed"),
    ] {
        assert_said(&text, Severity::Error, "IST0106", field, message);
    }
    let hidden =
        object("DestinationRule", "d", &format!("{{host: {A}, exportTo: ['~'], trafficPolicy: {{tls: {{}}}}}}"));
    assert_said(&hidden, Severity::Error, "IST0106", "spec.exportTo", "only ., *, or");
}

#[test]
fn virtual_services_are_refused_in_the_words_of_istio() {
    let wide = service(&format!("{{hosts: ['*.example.com', {A}], http: [{{{ROUTE}}}]}}"));
    let twice = service(&format!("{{hosts: [{A}, A.example.com], http: [{{{ROUTE}}}]}}"));
    let gateway = |name: &str| service(&format!("{{hosts: [{A}], gateways: [mesh, {name}], http: [{{{ROUTE}}}]}}"));
    for (text, field, message) in [
        (wide, "spec.hosts", "duplicate hosts in virtual service: *.example.com & a.example.com"),
        (twice, "spec.hosts", "duplicate hosts in virtual service: a.example.com & a.example.com"),
        (gateway("/a"), "spec.gateways[1]", "config namespace and gateway name cannot be empty"),
        (gateway("A/a"), "spec.gateways[1]", "invalid value for namespace"),
        (gateway("a/A"), "spec.gateways[1]", "invalid value for gateway name"),
        (
            routes(&format!("{{{ROUTE}, redirect: {{uri: /}}}}")),
            "spec.http[0]",
            "cannot contain both route and redirect",
        ),
        (
            routes("{directResponse: {status: 200}, redirect: {uri: /}}"),
            "spec.http[0]",
            "cannot contain both redirect and direct_response",
        ),
        (routes("{}"), "spec.http[0]", "HTTP route, redirect or direct_response is required"),
        (routes(&format!("{{{ROUTE}, timeout: 1us}}")), "spec.http[0].timeout", "greater than 1ms"),
        (routes(&format!("{{{ROUTE}, timeout: 1.0005s}}")), "spec.http[0].timeout", "only durations to ms precision"),
        (
            routes(
                "{route: [{destination: {host: a.example.com}, weight: 0}, {destination: {host: a.example.com}, weight: 0}]}",
            ),
            "spec.http[0].route",
            "total destination weight = 0",
        ),
        (
            routes(&format!("{{{ROUTE}, retries: {{attempts: 1, retryOn: sometimes}}}}")),
            "spec.http[0].retries.retryOn",
            "\"sometimes\" is not a valid retryOn policy",
        ),
    ] {
        assert_said(&text, Severity::Error, "IST0106", field, message);
    }
    let legacy = "using legacy gatewayName format";
    assert_said(&gateway("a.b.svc.cluster.local"), Severity::Warning, "PC0004", "spec.gateways[1]", legacy);
    let address = service(&format!("{{hosts: [{A}], tls: [{{match: [{{sniHosts: [192.0.2.1]}}], {ROUTE}}}]}}"));
    assert_said(&address, Severity::Warning, "PC0011", "spec.tls[0].match[0].sniHosts[0]", "goes against SNI spec");
}

#[test]
fn matches_that_no_request_reaches_are_named() {
    let api = "match: [{uri: {prefix: /api}}]";
    let dead = |second: &str| routes(&format!("{{{api}, {ROUTE}}}, {{{second}, {ROUTE}}}"));
    let field = "spec.http[1].match[0]";
    let duplicate = dead("match: [{uri: {prefix: /api}, name: again}]");
    assert_said(
        &duplicate,
        Severity::Warning,
        "IST0131",
        field,
        "#1 match #0 is not used (duplicate match in rule #0)",
    );
    assert_said(&duplicate, Severity::Warning, "IST0130", "spec.http[1]", "all matches used by prior rules");
    let below = dead("match: [{uri: {exact: /api/v1}, method: {exact: GET}}]");
    assert_said(&below, Severity::Warning, "IST0131", field, "overlapping match in rule #0");
    let deaths = |text: &str| findings(text).iter().filter(|it| it.1.starts_with("IST013")).count();
    // A narrower match before a wider one, other paths, and a prefix with further conditions take nothing away.
    for second in
        ["match: [{uri: {prefix: /}}]", "match: [{uri: {regex: '/api.*'}}]", "match: [{method: {exact: GET}}]"]
    {
        assert_eq!(deaths(&dead(second)), 0, "{second}");
    }
    let narrow = "match: [{uri: {prefix: /api}, method: {exact: GET}}]";
    assert_eq!(deaths(&routes(&format!("{{{narrow}, {ROUTE}}}, {{{api}, {ROUTE}}}"))), 0);
    let sni =
        format!("{{match: [{{sniHosts: [{A}]}}], route: [{{destination: {{host: {A}, port: {{number: 443}}}}}}]}}");
    let twice = service(&format!("{{hosts: [{A}], tls: [{sni}, {sni}]}}"));
    assert_said(
        &twice,
        Severity::Warning,
        "IST0131",
        "spec.tls[1].match[0]",
        "duplicate match of a.example.com in rule #0",
    );
}

#[test]
fn rules_without_roots_and_subsets_without_endpoints_are_named() {
    let a = entry("a", A, HTTP, DNS);
    let top = object("DestinationRule", "d", &format!("{{host: {A}, trafficPolicy: {{tls: {{mode: SIMPLE}}}}}}"));
    assert_said(&[&*a, &top].concat(), Severity::Info, "IST0128", "spec.trafficPolicy.tls", "the system's roots");
    let policy = "{portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}";
    let port = object("DestinationRule", "d", &format!("{{host: {A}, trafficPolicy: {policy}}}"));
    let field = "spec.trafficPolicy.portLevelSettings[0].tls";
    assert_said(&[&*a, &port].concat(), Severity::Info, "IST0129", field, "the system's roots");
    let subset = object("DestinationRule", "d", &format!("{{host: {A}, subsets: [{{name: v1, labels: {{v: one}}}}]}}"));
    assert_said(
        &[&*a, &subset].concat(),
        Severity::Warning,
        "IST0173",
        "spec.subsets[0].labels",
        "selects no endpoint",
    );
}

#[test]
fn an_audit_policy_is_taken_and_blocks_nothing() {
    let policy = object("AuthorizationPolicy", "p", "{action: AUDIT, rules: [{to: [{operation: {paths: [/x]}}]}]}");
    let text = [entry("a", A, HTTP, DNS), policy].concat();
    assert_eq!(findings(&text), []);
    let tables = &load(&text).routes.tables;
    assert!(tables.authorization.allow.is_empty() && tables.authorization.deny.is_empty());
    assert_eq!(tables.authorization.audit.len(), 1);
    assert!(!tables.path_policy, "what blocks nothing must not make paths be refused");
    let empty = [entry("a", A, HTTP, DNS), object("AuthorizationPolicy", "p", "{action: AUDIT}")].concat();
    assert_said(&empty, Severity::Warning, "IST0130", "spec.rules", "meaningless");
}

#[test]
fn an_empty_list_of_alternatives_is_not_taken_for_none() {
    for list in ["[]", "null", ""] {
        for name in ["from", "to"] {
            let policy = object("AuthorizationPolicy", "p", &format!("{{rules: [{{{name}: {list}}}]}}"));
            let text = [entry("a", A, HTTP, DNS), policy].concat();
            let message = format!("`{name}` must not be empty, found at rule 0");
            assert_said(&text, Severity::Error, "IST0106", &format!("spec.rules[0].{name}"), &message);
        }
    }
}

#[test]
fn paths_that_normalisation_leaves_to_no_request_are_named() {
    let policy = |action: &str, operation: &str, mode: &str| {
        let spec = format!("{{action: {action}, rules: [{{to: [{{operation: {{{operation}}}}}]}}]}}");
        let mesh = format!("---\npathNormalization: {{normalization: {mode}}}\n");
        [entry("a", A, HTTP, DNS), object("AuthorizationPolicy", "p", &spec), mesh].concat()
    };
    let field = "spec.rules[0].to[0].operation.paths[0]";
    for (path, why) in [
        ("/a/../b", "would be \"/b\""),
        ("/a//b", "would be \"/a/b\""),
        ("/%61*", "would be \"/ax\""),
        ("*/./b", "would be \"/x/b\""),
        ("api", "begins with a slash"),
        ("/a?b=c", "queries and fragments"),
        ("/a%zz", "percent sign"),
    ] {
        let text = policy("ALLOW", &format!("paths: ['{path}']"), "MERGE_SLASHES");
        assert_said(&text, Severity::Warning, "PC0018", field, why);
    }
    let fine = "paths: ['/a', '/a/*', '*/b', '*', '/a.b*', '/%7B', '/a/%7*', '/{*}/b']";
    assert_eq!(findings(&policy("ALLOW", fine, "MERGE_SLASHES")), []);
    let route = routes(&format!("{{match: [{{uri: {{prefix: /a/../b}}}}], {ROUTE}}}"));
    assert_said(&route, Severity::Warning, "PC0018", "spec.http[0].match[0].uri", "would be \"/bx\"");
}

#[test]
fn a_list_of_forbidden_paths_is_said_to_miss_other_spellings_of_them() {
    let policy = |action: &str, operation: &str, mode: &str| {
        let spec = format!("{{action: {action}, rules: [{{to: [{{operation: {{{operation}}}}}]}}]}}");
        let mesh = format!("---\npathNormalization: {{normalization: {mode}}}\n");
        [entry("a", A, HTTP, DNS), object("AuthorizationPolicy", "p", &spec), mesh].concat()
    };
    let field = "spec.rules[0].to[0].operation";
    for (action, name) in [("DENY", "paths"), ("ALLOW", "notPaths")] {
        let operation = format!("{name}: [/admin]");
        let said = |mode: &str, example: &str| {
            let text = policy(action, &operation, mode);
            assert_said(&text, Severity::Warning, "PC0018", &format!("{field}.{name}"), example);
        };
        said("BASE", "//admin is another path");
        said("NONE", "//admin is another path");
        let merged = findings(&policy(action, &operation, "MERGE_SLASHES"));
        assert!(merged.iter().all(|it| it.1 != "PC0018"), "{merged:?}");
    }
    assert_eq!(findings(&policy("ALLOW", "paths: [/books]", "BASE")), []);
}

#[test]
fn names_that_are_resolved_here_and_not_in_istio_are_said_once() {
    let two = [entry("a", A, HTTP, ""), entry("b", "b.example.com", HTTP, "")].concat();
    assert_said(&two, Severity::Info, "PC0019", "spec.resolution", "and for 1 further entries");
    assert_eq!(said(&two).iter().filter(|it| it.1 == "PC0019").count(), 1);
    assert_eq!(findings(&entry("a", "*.example.com", HTTP, "")), []);
}

#[test]
fn rules_behind_a_catch_all_are_named_in_the_words_of_istio() {
    let last = routes(&format!("{{{ROUTE}}}, {{{ROUTE}}}"));
    let message = "#1 not used (only the last rule can have no matches)";
    assert_said(&last, Severity::Warning, "IST0130", "spec.http[1]", message);
    let behind = routes(&format!("{{{ROUTE}}}, {{match: [{{uri: {{prefix: /a}}}}], {ROUTE}}}"));
    assert_said(&behind, Severity::Warning, "IST0130", "spec.http[1]", "route without matches defined before");
    let all = routes(&format!(
        "{{match: [{{uri: {{prefix: /}}}}], {ROUTE}}}, {{match: [{{method: {{exact: GET}}}}], {ROUTE}}}"
    ));
    assert_said(&all, Severity::Warning, "IST0131", "spec.http[1].match[0]", "overlapping match in rule #0");
}

#[test]
fn ports_and_path_templates_of_policies_are_judged() {
    let policy = |operation: &str| {
        let spec = format!("{{action: DENY, rules: [{{to: [{{operation: {{{operation}}}}}]}}]}}");
        [entry("a", A, HTTP, DNS), object("AuthorizationPolicy", "p", &spec)].concat()
    };
    let field = "spec.rules[0].to[0].operation";
    for (operation, field) in [
        ("ports: ['0']", "ports[0]"),
        ("notPorts: ['http']", "notPorts[0]"),
        ("paths: ['/a/{**}/{*}']", "paths[0]"),
        ("paths: ['/a{*}']", "paths[0]"),
        ("paths: ['{*}']", "paths[0]"),
    ] {
        assert_eq!(
            findings(&policy(operation))[0],
            error("IST0106", &format!("{}.{field}", "spec.rules[0].to[0].operation"))[0]
        );
    }
    assert!(
        !findings(&policy("ports: ['80'], paths: ['/a/{*}/b', '/c/{**}']")).iter().any(|it| it.0 == Severity::Error)
    );
    assert!(said(&policy("paths: ['/{a}']")).iter().any(|it| it.2.starts_with(field)));
}
