//! ServiceEntries: hosts, ports and endpoints.

use super::*;

#[test]
fn a_port_without_protocol_takes_both_and_tcp_neither() {
    let ports = "{number: 8443, name: any}, {number: 9000, name: tcp, protocol: TCP}";
    let loaded = load(&entry("a", "a.example.com", ports, DNS));
    assert!(http(&loaded, 8443, "a.example.com").is_some());
    assert!(tls(&loaded, 8443, "a.example.com").is_some());
    assert!(http(&loaded, 9000, "a.example.com").is_none() && tls(&loaded, 9000, "a.example.com").is_none());
    assert_eq!(loaded.findings[0].code, "PC0017");
}

#[test]
fn wildcards_and_names_without_resolution_dial_what_was_matched() {
    let loaded = load(
        &[entry("w", "*.example.com", HTTPS, "resolution: DYNAMIC_DNS"), entry("n", "www.example.net", HTTPS, "")]
            .concat(),
    );
    assert_eq!(tls_cluster(&loaded, 443, "a.b.example.com").endpoints, Endpoints::Requested { port: 443 });
    assert_eq!(tls_cluster(&loaded, 443, "www.example.net").endpoints, dns("www.example.net", 443));
    assert!(tls(&loaded, 443, "example.com").is_none());
}

#[test]
fn endpoints_have_the_port_of_their_map_else_the_target_port() {
    let rest =
        "resolution: STATIC, endpoints: [{address: 192.0.2.1, ports: {https: 8443}, weight: 3}, {address: 192.0.2.2}]";
    let ports = "{number: 443, name: https, protocol: HTTPS, targetPort: 9443}";
    let loaded = load(&entry("a", "a.example.com", ports, rest));
    let endpoint = |address: &str, weight| StaticEndpoint { address: address.parse().expect("an address"), weight };
    assert_eq!(
        tls_cluster(&loaded, 443, "a.example.com").endpoints,
        Endpoints::Static([endpoint("192.0.2.1:8443", 3), endpoint("192.0.2.2:9443", 1)].into_iter().collect())
    );
}

#[test]
fn entries_for_one_host_unite_their_ports_and_the_oldest_has_a_port() {
    let first = entry("one", "a.example.com", HTTP, DNS);
    let second = entry(
        "two",
        "a.example.com",
        &format!("{HTTPS}, {{number: 80, name: h, protocol: HTTP, targetPort: 81}}"),
        DNS,
    );
    let text = [first, second].concat();
    let loaded = load(&text);
    assert_eq!(http_cluster(&loaded, 80, "a.example.com").endpoints, dns("a.example.com", 80));
    assert!(tls(&loaded, 443, "a.example.com").is_some());
    assert_eq!(findings(&text), warning("IST0109", "spec.ports"));
}

#[test]
fn entries_that_are_exported_to_nobody_open_nothing() {
    let loaded = load(&entry("a", "a.example.com", HTTP, "resolution: DNS, exportTo: ['~']"));
    assert!(http(&loaded, 80, "a.example.com").is_none());
}
