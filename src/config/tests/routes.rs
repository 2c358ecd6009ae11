//! VirtualServices: whose rules hold for a host, and where they lead.

use super::*;

#[test]
fn the_oldest_virtual_service_of_a_host_routes_it_alone() {
    let service = |name: &str, created: &str, status: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, creationTimestamp: {created}}}\nspec: {{hosts: [a.example.com], http: [{{name: {name}, directResponse: {{status: {status}}}}}]}}\n"
        )
    };
    let text = [
        entry("a", "a.example.com", HTTP, DNS),
        service("younger", "2024-02-01T00:00:00Z", 404),
        service("older", "2024-01-01T00:00:00Z", 403),
    ]
    .concat();
    let loaded = load(&text);
    let host = http(&loaded, 80, "a.example.com").expect("listed");
    assert_eq!(host.routes.len(), 1);
    assert_eq!(&*host.routes[0].name, "older");
    assert_eq!(findings(&text), warning("IST0109", "spec.hosts[0]"));
}

#[test]
fn rules_for_another_port_or_gateway_are_no_catch_all() {
    let service = "{hosts: [a.example.com], http: [{match: [{port: 81}], directResponse: {status: 200}}, {match: [{gateways: [other]}], directResponse: {status: 201}}, {match: [{scheme: {exact: https}}], directResponse: {status: 202}}]}";
    let loaded = load(&[entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "a", service)].concat());
    assert!(http(&loaded, 80, "a.example.com").expect("listed").routes.is_empty());
}

#[test]
fn a_wildcard_virtual_service_covers_entries_and_opens_nothing_else() {
    let service = "{hosts: ['*.example.com'], http: [{directResponse: {status: 403}}], tls: [{match: [{sniHosts: ['*.example.com']}], route: [{destination: {host: a.example.com}}]}]}";
    let ports = format!("{HTTP}, {HTTPS}");
    let loaded = load(&[entry("a", "a.example.com", &ports, DNS), object("VirtualService", "v", service)].concat());
    let host = http(&loaded, 80, "a.example.com").expect("listed");
    assert!(matches!(host.routes[0].action, HttpAction::Respond(_)));
    assert!(tls(&loaded, 443, "a.example.com").is_some());
    for other in ["b.example.com", "a.a.example.com"] {
        assert!(http(&loaded, 80, other).is_none() && tls(&loaded, 443, other).is_none(), "{other}");
    }
}

#[test]
fn a_virtual_service_below_a_wildcard_entry_takes_its_ports() {
    let service = "{hosts: [a.example.com], http: [{directResponse: {status: 403}}]}";
    let ports = "{number: 8080, name: http, protocol: HTTP}";
    let wildcard = entry("w", "*.example.com", ports, "resolution: DYNAMIC_DNS");
    let loaded = load(&[wildcard, object("VirtualService", "v", service)].concat());
    let routed = http(&loaded, 8080, "a.example.com").expect("listed");
    assert!(matches!(routed.routes[0].action, HttpAction::Respond(_)));
    assert_eq!(http_cluster(&loaded, 8080, "b.example.com").endpoints, Endpoints::Requested { port: 8080 });
    assert!(http(&loaded, 80, "a.example.com").is_none());
}

#[test]
fn a_virtual_service_without_an_entry_is_served_on_port_80_only() {
    let service =
        "{hosts: [alias.example.com], http: [{route: [{destination: {host: a.example.com, port: {number: 80}}}]}]}";
    let text = [entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "v", service)].concat();
    let loaded = load(&text);
    assert_eq!(http_cluster(&loaded, 80, "alias.example.com").endpoints, dns("a.example.com", 80));
    assert!(tls(&loaded, 443, "alias.example.com").is_none() && http(&loaded, 443, "alias.example.com").is_none());
    assert_eq!(findings(&text), warning("IST0101", "spec.hosts[0]"));
}

#[test]
fn a_foreign_name_is_never_led_to_a_service_that_dials_the_requested_name() {
    let service = "{hosts: [evil.example.net], http: [{route: [{destination: {host: '*.example.com'}}]}]}";
    let wildcard = entry("w", "*.example.com", HTTP, "resolution: DYNAMIC_DNS");
    let loaded = load(&[wildcard, object("VirtualService", "v", service)].concat());
    let host = http(&loaded, 80, "evil.example.net").expect("listed");
    assert_eq!(destination(&host.routes[0]), Destination::Missing);
}

#[test]
fn names_of_a_routed_wildcard_that_no_rule_names_have_no_route() {
    let service = "{hosts: ['*.example.com'], tls: [{match: [{port: 443, sniHosts: [a.example.com]}], route: [{destination: {host: '*.example.com'}}]}]}";
    let wildcard = entry("w", "*.example.com", HTTPS, "resolution: DYNAMIC_DNS");
    let loaded = load(&[wildcard, object("VirtualService", "v", service)].concat());
    assert!(tls(&loaded, 443, "a.example.com").expect("listed").route.is_some());
    assert!(tls(&loaded, 443, "b.example.com").expect("listed").route.is_none());
}

#[test]
fn a_destination_that_does_not_exist_is_missing_and_reported() {
    for (destination, field) in [
        ("{host: other.example.com}", "host"),
        ("{host: a.example.com, port: {number: 81}}", "port.number"),
        ("{host: a.example.com, subset: v1}", "subset"),
    ] {
        let service = format!("{{hosts: [a.example.com], http: [{{route: [{{destination: {destination}}}]}}]}}");
        let text = [entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "v", &service)].concat();
        let loaded = load(&text);
        let host = http(&loaded, 80, "a.example.com").expect("listed");
        assert_eq!(self::destination(&host.routes[0]), Destination::Missing, "{destination}");
        assert_eq!(findings(&text), warning("IST0101", &format!("spec.http[0].route[0].destination.{field}")));
    }
}

#[test]
fn weights_are_shares_and_a_lone_destination_needs_none() {
    let service = "{hosts: [a.example.com], http: [{route: [{destination: {host: a.example.com}, weight: 3}, {destination: {host: b.example.com}, weight: 1}]}]}";
    let text = [
        entry("a", "a.example.com", HTTP, DNS),
        entry("b", "b.example.com", HTTP, DNS),
        object("VirtualService", "v", service),
    ]
    .concat();
    let loaded = load(&text);
    let host = http(&loaded, 80, "a.example.com").expect("listed");
    let HttpAction::Forward(forward) = &host.routes[0].action else { panic!("not forwarded") };
    assert_eq!(forward.clusters.iter().map(|(_, weight)| weight).collect::<Vec<_>>(), [3, 1]);
    assert!(
        findings(&text.replace("weight: 3", "weight: 0").replace("weight: 1", "weight: 0"))
            .iter()
            .any(|(severity, ..)| *severity == Severity::Error)
    );
}

/// The clusters that get copies of the first route's requests, and their shares in percent.
fn copies(loaded: &Loaded) -> Vec<(String, f64)> {
    let host = http(loaded, 80, "a.example.com").expect("listed");
    let HttpAction::Forward(forward) = &host.routes[0].action else { panic!("not forwarded") };
    let copies = forward.mirrors.iter().flat_map(|mirrors| &mirrors.to);
    copies.map(|it| (cluster(loaded, it.destination).name.to_string(), it.share.as_percent())).collect()
}

#[test]
fn mirrors_have_shares_and_those_of_a_root_hold_for_its_delegates() {
    let base = [entry("a", "a.example.com", HTTP, DNS), entry("b", "b.example.com", HTTP, DNS)].concat();
    let route = "route: [{destination: {host: a.example.com}}]";
    let rule = |rest: &str| {
        let spec = format!("{{hosts: [a.example.com], http: [{{{route}, {rest}}}]}}");
        load(&(base.clone() + &object("VirtualService", "v", &spec)))
    };
    let b = |percent: f64| vec![("outbound|80||b.example.com".to_owned(), percent)];
    assert_eq!(copies(&rule("mirror: {host: b.example.com}")), b(100.0));
    assert_eq!(copies(&rule("mirror: {host: b.example.com}, mirror_percentage: {value: 12.5}")), b(12.5));
    assert_eq!(copies(&rule("mirror: {host: b.example.com}, mirrorPercent: 30")), b(30.0));
    assert_eq!(copies(&rule("mirror: {host: b.example.com}, mirrorPercentage: {value: 0}")), []);
    assert_eq!(copies(&rule("mirrors: [{destination: {host: b.example.com}, percentage: {value: 5}}]")), b(5.0));
    let root = "{hosts: [a.example.com], http: [{delegate: {name: part}, mirror: {host: b.example.com}}]}";
    let part = object("VirtualService", "part", &format!("{{http: [{{{route}}}]}}"));
    assert_eq!(copies(&load(&(base.clone() + &object("VirtualService", "v", root) + &part))), b(100.0));
}

#[test]
fn a_policy_for_a_mirror_that_is_not_asked_about_the_request_is_refused() {
    let entries = ["a", "b", "c"].map(|name| entry(name, &format!("{name}.com"), HTTP, DNS)).concat();
    let refused = |hosts: &str, action: &str, names: &[&str]| {
        let targets =
            names.iter().map(|name| format!("{{kind: ServiceEntry, group: networking.istio.io, name: {name}}}"));
        let targets = targets.collect::<Vec<_>>().join(", ");
        let policy = format!("{{action: {action}, targetRefs: [{targets}], rules: [{{}}]}}");
        let rules = format!(
            "{{hosts: [{hosts}], http: [{{route: [{{destination: {{host: a.com}}}}], mirror: {{host: b.com}}}}]}}"
        );
        let yaml =
            entries.clone() + &object("VirtualService", "r", &rules) + &object("AuthorizationPolicy", "p", &policy);
        let told = |(severity, _, field): &(Severity, &str, String)| {
            *severity == Severity::Error && field == "spec.http[0].mirror.host"
        };
        findings(&yaml).iter().any(told)
    };
    for action in ["DENY", "ALLOW"] {
        assert!(refused("a.com", action, &["b"]));
        assert!(refused("a.com, c.com", action, &["a", "b"]), "nobody asks it about c.com");
        assert!(refused("'*.com'", action, &["a", "b"]));
        assert!(refused("x.org", action, &["a", "b"]), "no service has the host");
        assert!(!refused("a.com", action, &["a", "b"]));
        assert!(!refused("a.com", action, &["a"]));
        assert!(!refused("b.com", action, &["b"]));
    }
    assert!(!refused("a.com", "AUDIT", &["b"]));
}
