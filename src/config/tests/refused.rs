//! What is refused, and what is warned about.

use super::*;

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    let a = entry("a", "a.example.com", HTTP, DNS);
    let route = "route: [{destination: {host: a.example.com}}]";
    let service =
        |http: &str| object("VirtualService", "v", &format!("{{hosts: [a.example.com], http: [{{{http}}}]}}"));
    let policy = |spec: &str| object("AuthorizationPolicy", "p", spec);
    let rule =
        |policy: &str| object("DestinationRule", "d", &format!("{{host: a.example.com, trafficPolicy: {policy}}}"));
    let cases = [
        (service(&format!("{route}, fault: {{abort: {{grpcStatus: A}}}}")), "spec.http[0].fault.abort.grpcStatus"),
        (
            service(&format!("{route}, headers: {{request: {{remove: [connection]}}}}")),
            "spec.http[0].headers.request.remove[0]",
        ),
        (
            service(&format!("{route}, headers: {{response: {{set: {{content-length: '0'}}}}}}")),
            "spec.http[0].headers.response.set.content-length",
        ),
        (
            service(&format!("{route}, headers: {{request: {{add: {{x-a: '%HOSTNAME%'}}}}}}")),
            "spec.http[0].headers.request.add.x-a",
        ),
        (service(&format!("{route}, match: [{{sourceLabels: {{a: b}}}}]")), "spec.http[0].match[0].sourceLabels"),
        (rule("{tunnel: {protocol: POST, targetHost: a, targetPort: 1}}"), "spec.trafficPolicy.tunnel.protocol"),
        (policy("{action: CUSTOM, rules: [{}]}"), "spec.action"),
        (policy("{rules: [{from: [{source: {principals: [a]}}]}]}"), "spec.rules[0].from[0].source.principals"),
        (policy("{rules: [{from: [{source: {not_namespaces: [a]}}]}]}"), "spec.rules[0].from[0].source.notNamespaces"),
        (policy("{rules: [{when: [{key: source.namespace, values: [a]}]}]}"), "spec.rules[0].when[0].key"),
        (
            policy("{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}"),
            "spec.targetRefs[0].kind",
        ),
    ];
    for (text, field) in cases {
        let found = findings(&[a.clone(), text.clone()].concat());
        assert!(found.contains(&(Severity::Error, "PC0004", field.to_owned())), "{text}{found:?}");
    }
}

#[test]
fn what_istio_refuses_is_an_error_with_its_field() {
    let service = |spec: &str| object("VirtualService", "v", spec);
    let cases = [
        (entry("a", "*", HTTP, DNS), "spec.hosts[0]"),
        (entry("a", "*a.example.com", HTTP, DNS), "spec.hosts[0]"),
        (entry("a", "*.example.com", HTTP, DNS), "spec.hosts[0]"),
        (entry("a", "a.example.com", HTTP, "resolution: DYNAMIC_DNS"), "spec.hosts[0]"),
        (entry("a", "a.example.com", "{number: 70000, name: http, protocol: HTTP}", DNS), "spec.ports[0].number"),
        (entry("a", "a.example.com", "{number: 80, name: http, protocol: FTP}", DNS), "spec.ports[0].protocol"),
        (entry("a", "a.example.com", "{number: x, name: http}", DNS), "spec.ports[0].number"),
        (entry("a", "a.example.com", HTTP, "resolution: SOMETIMES"), "spec.resolution"),
        (entry("a", "a.example.com", HTTP, "endpoints: [{address: 192.0.2.1}]"), "spec.endpoints"),
        (
            entry("a", "a.example.com", HTTP, "resolution: STATIC, endpoints: [{address: b}]"),
            "spec.endpoints[0].address",
        ),
        (service("{hosts: [a.example.com]}"), "spec"),
        (service("{hosts: ['*'], http: [{directResponse: {status: 200}}]}"), "spec.hosts[0]"),
        (
            service(
                "{hosts: [a.example.com], tls: [{match: [{sniHosts: [b.example.com]}], route: [{destination: {host: a.example.com}}]}]}",
            ),
            "spec.tls[0].match[0].sniHosts[0]",
        ),
        (
            service("{hosts: [a.example.com], http: [{match: [{uri: {regex: '('}}], directResponse: {status: 200}}]}"),
            "spec.http[0].match[0].uri",
        ),
        (
            object(
                "DestinationRule",
                "d",
                "{host: a.example.com, trafficPolicy: {tls: {mode: MUTUAL, privateKey: k}}}",
            ),
            "spec.trafficPolicy.tls.clientCertificate",
        ),
        (object("AuthorizationPolicy", "p", "{action: DENY}"), "spec.rules"),
        (
            object("AuthorizationPolicy", "p", "{rules: [{when: [{key: a.b, values: [c]}]}]}"),
            "spec.rules[0].when[0].key",
        ),
        (object("AuthorizationPolicy", "p", "{rules: [{to: [{operation: {}}]}]}"), "spec.rules[0].to[0].operation"),
    ];
    for (text, field) in cases {
        let found: Vec<_> = findings(&text).into_iter().filter(|(severity, ..)| *severity == Severity::Error).collect();
        assert_eq!(found, error("IST0106", field), "{text}");
    }
}

#[test]
fn unknown_fields_are_warnings_and_status_is_none() {
    let text = entry("a", "a.example.com", HTTP, "resolution: DNS, resolutoin: DNS");
    assert_eq!(findings(&text), warning("PC0003", "spec.resolutoin"));
    let status = format!("{}status: {{conditions: []}}\n", entry("a", "a.example.com", HTTP, DNS));
    assert_eq!(findings(&status), []);
}

#[test]
fn a_null_condition_never_widens_a_match() {
    let service = "{hosts: [a.example.com], http: [{match: [{headers: {x-key: }}], directResponse: {status: 200}}]}";
    let text = [entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "v", service)].concat();
    match Files::new(&text).load(&mut Loader::default()) {
        Err(findings) => assert_eq!(findings[0].field, "spec.http[0].match[0].headers.x-key"),
        Ok(loaded) => {
            let host = http(&loaded, 80, "a.example.com").expect("listed");
            assert_eq!(host.routes[0].matches[0].headers.len(), 1);
        }
    }
}

#[test]
fn a_policy_without_rules_is_kept_because_it_refuses_everything() {
    let text = [entry("a", "a.example.com", HTTP, DNS), object("AuthorizationPolicy", "p", "{}")].concat();
    let loaded = load(&text);
    let authorization = &loaded.routes.tables.authorization;
    assert_eq!((authorization.allow.len(), authorization.deny.len()), (1, 0));
    assert!(authorization.allow[0].rules.is_empty());
}

#[test]
fn paths_in_routes_or_policies_turn_the_strict_path_rules_on() {
    let a = entry("a", "a.example.com", HTTP, DNS);
    assert!(!load(&a).routes.tables.path_policy);
    let policy = object("AuthorizationPolicy", "p", "{rules: [{to: [{operation: {not_paths: [/admin*]}}]}]}");
    assert!(load(&[a, policy].concat()).routes.tables.path_policy);
}

#[test]
fn policies_that_do_not_hold_as_one_might_think_are_reported() {
    let a = entry("a", "a.example.com", HTTP, DNS);
    let rule = |name: &str| {
        object("DestinationRule", name, "{host: a.example.com, trafficPolicy: {loadBalancer: {simple: RANDOM}}}")
    };
    assert_eq!(findings(&[a.clone(), rule("one"), rule("two")].concat()), warning("IST0109", "spec.trafficPolicy"));
    let replaced = "{host: a.example.com, trafficPolicy: {tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}";
    let text = [a.clone(), object("DestinationRule", "d", replaced)].concat();
    assert_eq!(findings(&text), warning("PC0014", "spec.trafficPolicy.portLevelSettings[0]"));
    let deny = "{action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}";
    let text = [a, object("AuthorizationPolicy", "p", deny)].concat();
    assert_eq!(findings(&text), warning("PC0015", "spec.rules[0]"));
}
