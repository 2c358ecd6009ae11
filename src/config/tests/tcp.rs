//! TCP by port and captured address.

use std::net::IpAddr;

use super::*;
use crate::route::cluster::{Original, Weighted};
use crate::route::table::TcpHost;

const TCP: &str = "{number: 5432, name: tcp, protocol: TCP}";
const NONE: &str = "resolution: NONE";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn tcp<'a>(loaded: &'a Loaded, port: u16, destination: Option<&str>) -> Option<&'a TcpHost> {
    loaded.routes.tcp(port, destination.map(ip)).map(|found| found.host)
}

fn cluster_name<'a>(loaded: &'a Loaded, route: Option<&'a Weighted>) -> &'a str {
    cluster(loaded, route.expect("a route").pick(0)).name.as_str()
}

#[test]
fn captured_tcp_belongs_to_the_longest_range() {
    let text = [
        entry("wide", "wide.example", TCP, &format!("addresses: [192.0.2.0/24, '2001:db8::/32'], {NONE}")),
        entry("one", "one.example", TCP, &format!("addresses: [192.0.2.7], {NONE}")),
    ]
    .concat();
    let loaded = load(&text);
    assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    for (destination, host) in [
        (Some("192.0.2.7"), Some("one.example")),
        (Some("192.0.2.8"), Some("wide.example")),
        (Some("2001:db8::1"), Some("wide.example")),
        (Some("198.51.100.1"), None),
        (None, None),
    ] {
        assert_eq!(tcp(&loaded, 5432, destination).map(|found| &*found.host), host, "{destination:?}");
    }
    assert!(tcp(&loaded, 5433, Some("192.0.2.7")).is_none());
    let one = tcp(&loaded, 5432, Some("192.0.2.7")).expect("listed");
    let Endpoints::Original(Original { ranges, port: None }) =
        &cluster(&loaded, one.route.as_ref().expect("a route").pick(0)).endpoints
    else {
        panic!("another address is dialled")
    };
    assert!(ranges.find(ip("192.0.2.7")).is_some() && ranges.find(ip("192.0.2.8")).is_none());
}

#[test]
fn tcp_without_addresses_takes_the_port_unless_only_the_client_knows_where_to() {
    let endpoints = "resolution: STATIC, endpoints: [{address: 192.0.2.9}]";
    let loaded = load(&[entry("a", "a.example", TCP, endpoints), entry("b", "b.example", TCP, DNS)].concat());
    for destination in [None, Some("198.51.100.1")] {
        assert_eq!(tcp(&loaded, 5432, destination).map(|found| &*found.host), Some("a.example"));
    }
    let mut codes: Vec<_> = loaded.findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["IST0109", "PC0017", "PC0017"], "{:#?}", loaded.findings);

    let text = entry("a", "a.example", TCP, NONE);
    assert_eq!(findings(&text), warning("PC0011", "spec.ports[0].protocol"));
    assert!(tcp(&load(&text), 5432, Some("198.51.100.1")).is_none());
}

#[test]
fn a_port_without_protocol_takes_tcp_at_its_addresses_too() {
    let ports = "{number: 8443, name: any}";
    let loaded = load(&entry(
        "a",
        "a.example",
        ports,
        "addresses: [192.0.2.7], resolution: STATIC, endpoints: [{address: 192.0.2.9}]",
    ));
    assert!(http(&loaded, 8443, "a.example").is_some() && tls(&loaded, 8443, "a.example").is_some());
    assert!(!tcp(&loaded, 8443, Some("192.0.2.7")).expect("listed").is_opaque);
    assert!(tcp(&loaded, 8443, Some("192.0.2.8")).is_none());
}

#[test]
fn a_single_address_stands_for_its_host_in_requests() {
    let loaded = load(&entry(
        "a",
        "a.example",
        HTTP,
        "addresses: [192.0.2.7, 192.0.2.64/26], resolution: STATIC, endpoints: [{address: 192.0.2.9}]",
    ));
    assert_eq!(loaded.routes.alias(80, ip("192.0.2.7")), Some(&"a.example".parse().expect("a name")));
    assert_eq!(loaded.routes.alias(80, ip("192.0.2.65")), None);
    assert_eq!(loaded.routes.alias(8080, ip("192.0.2.7")), None);
}

#[test]
fn subnets_choose_among_tcp_routes_and_the_first_rule_without_them_ends_the_list() {
    let service = "{hosts: [a.example], tcp: [
        {match: [{port: 5432, destinationSubnets: [192.0.2.0/28]}], route: [{destination: {host: b.example}}]},
        {match: [{port: 9999}], route: [{destination: {host: nowhere.example}}]},
        {match: [{port: 5432}], route: [{destination: {host: b.example}, weight: 1}, {destination: {host: a.example}, weight: 3}]},
        {route: [{destination: {host: nowhere.example}}]}]}";
    let text = [
        entry("a", "a.example", TCP, &format!("addresses: [192.0.2.0/24], {NONE}")),
        entry(
            "b",
            "b.example",
            TCP,
            "resolution: STATIC, addresses: [198.51.100.1], endpoints: [{address: 192.0.2.9}]",
        ),
        object("VirtualService", "v", service),
    ]
    .concat();
    let loaded = load(&text);
    let host = tcp(&loaded, 5432, Some("192.0.2.1")).expect("listed");
    assert_eq!(cluster_name(&loaded, host.route_to(Some(ip("192.0.2.1")))), "outbound|5432||b.example");
    let base = host.route_to(Some(ip("192.0.2.100"))).expect("a route");
    assert_eq!(base.iter().map(|(_, weight)| weight).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(host.objects.len(), 2);
}

#[test]
fn without_a_matching_tcp_rule_a_service_routes_itself() {
    let service = "{hosts: [a.example], tcp: [{match: [{gateways: [outside]}, {port: 1}], route: [{destination: {host: nowhere.example}}]}]}";
    let text = [
        entry("a", "a.example", TCP, &format!("addresses: [192.0.2.7], {NONE}")),
        object("VirtualService", "v", service),
    ]
    .concat();
    let loaded = load(&text);
    let host = tcp(&loaded, 5432, Some("192.0.2.7")).expect("listed");
    assert_eq!(cluster_name(&loaded, host.route.as_ref()), "outbound|5432||a.example");
}

#[test]
fn subnets_choose_among_routes_of_one_server_name() {
    let service = "{hosts: ['*.a.example'], tls: [
        {match: [{sniHosts: [x.a.example], destinationSubnets: [10.0.0.0/8]}], route: [{destination: {host: b.example}}]},
        {match: [{sniHosts: ['*.a.example']}], route: [{destination: {host: '*.a.example'}}]}]}";
    let text = [
        entry("a", "*.a.example", HTTPS, NONE),
        entry("b", "b.example", HTTPS, "resolution: STATIC, endpoints: [{address: 192.0.2.9}]"),
        object("VirtualService", "v", service),
    ]
    .concat();
    let loaded = load(&text);
    let host = tls(&loaded, 443, "x.a.example").expect("listed");
    assert_eq!(cluster_name(&loaded, host.route_to(Some(ip("10.1.2.3")))), "outbound|443||b.example");
    for elsewhere in [Some(ip("192.0.2.1")), None] {
        assert_eq!(cluster_name(&loaded, host.route_to(elsewhere)), "outbound|443||*.a.example");
    }
    let only_subnets = text.replace("sniHosts: ['*.a.example']", "sniHosts: [y.a.example]");
    let loaded = load(&only_subnets);
    let host = tls(&loaded, 443, "x.a.example").expect("listed");
    assert!(host.route_to(Some(ip("192.0.2.1"))).is_none() && host.route_to(None).is_none());
}

#[test]
fn faults_of_tcp_routes_are_named() {
    let text = |rule: &str| {
        let service = format!("{{hosts: [a.example], tcp: [{rule}]}}");
        [
            entry("a", "a.example", TCP, &format!("addresses: [192.0.2.7], {NONE}")),
            object("VirtualService", "v", &service),
        ]
        .concat()
    };
    let route = "route: [{destination: {host: a.example}}]";
    for (rule, code, field) in [
        ("{match: [{port: 1}]}".to_owned(), "IST0106", "spec.tcp[0].route"),
        (format!("{{match: [{{port: 0}}], {route}}}"), "IST0106", "spec.tcp[0].match[0].port"),
        (
            format!("{{match: [{{destinationSubnets: [here]}}], {route}}}"),
            "IST0106",
            "spec.tcp[0].match[0].destinationSubnets[0]",
        ),
        (format!("{{match: [{{sourceSubnet: 10.0.0.0/8}}], {route}}}"), "PC0004", "spec.tcp[0].match[0].sourceSubnet"),
        (format!("{{match: [{{sourceLabels: {{a: b}}}}], {route}}}"), "PC0004", "spec.tcp[0].match[0].sourceLabels"),
    ] {
        assert_eq!(findings(&text(&rule)), error(code, field), "{rule}");
    }
}

#[test]
fn tls_that_a_rule_asks_for_is_not_left_out_of_tcp() {
    let text = [
        entry("a", "a.example", TCP, &format!("addresses: [192.0.2.7], {NONE}")),
        object("DestinationRule", "d", "{host: a.example, trafficPolicy: {tls: {mode: SIMPLE}}}"),
    ]
    .concat();
    let loaded = load(&text);
    let host = tcp(&loaded, 5432, Some("192.0.2.7")).expect("listed");
    assert!(cluster(&loaded, host.route.as_ref().expect("a route").pick(0)).tls.is_some());
}

#[test]
fn tls_around_tcp_has_the_name_of_the_rule_else_that_of_the_service() {
    const TLS: &str = "{host: 'HOST', trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: trueREST}}}";
    let with = |host: &str, rest: &str| {
        let rule = TLS.replace("HOST", host).replace("REST", rest);
        entry("db", host, TCP, "resolution: STATIC, endpoints: [{address: 192.0.2.1}]")
            + &object("DestinationRule", "db", &rule)
    };
    let sni = |yaml: &str| {
        let loaded = load(yaml);
        let host = tcp(&loaded, 5432, None).expect("listed");
        let tls = cluster(&loaded, host.route.as_ref().expect("a route").pick(0)).tls.clone().expect("TLS");
        (tls.sni.map(|sni| sni.to_string()), tls.profile.is_ok())
    };
    assert_eq!(sni(&with("a.com", "")), (Some("a.com".to_owned()), true));
    assert_eq!(sni(&with("a.com", ", sni: b.com")), (Some("b.com".to_owned()), true));
    assert_eq!(sni(&with("*.a.com", ", sni: b.com")), (Some("b.com".to_owned()), true));
    assert_eq!(sni(&with("*.a.com", "")), (None, false));
    let told = findings(&with("*.a.com", ""));
    assert!(told.contains(&(Severity::Warning, "PC0010", "spec.trafficPolicy.tls".to_owned())), "{told:?}");
}
