//! Where a ServiceEntry leads: endpoints by name, their ports, weights and labels.

mod support;

use std::net::Ipv4Addr;

use support::gateway::Gateway;
use support::http::header;
use support::resources;
use support::service;
use support::upstream::Upstream;

const HOST: &str = "api.example";

/// A service with two endpoints by name, on ports of their own.
fn entry(ports: [u16; 2]) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec:\n  hosts: [{HOST}]\n  \
         ports: [{{number: 80, name: http, protocol: HTTP}}]\n  resolution: DNS\n  endpoints:\n  \
         - {{address: one.internal.example, ports: {{http: {}}}, labels: {{version: v1}}, weight: 3}}\n  \
         - {{address: two.internal.example, ports: {{http: {}}}, labels: {{version: v2}}, weight: 1}}\n",
        ports[0], ports[1]
    )
}

fn rule(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\n\
         spec: {{host: {HOST}, {spec}}}\n"
    )
}

fn gateway(yaml: String) -> Gateway {
    Gateway::builder().host("one.internal.example").host("two.internal.example").resources(yaml).start()
}

#[test]
fn endpoints_by_name_have_their_own_ports_and_weights_and_the_host_stays() {
    let upstreams = [Upstream::plain(service::http), Upstream::plain(service::http)];
    let yaml = entry([upstreams[0].port(), upstreams[1].port()])
        + &rule("trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}");
    let gateway = gateway(yaml);
    let mut client = gateway.client();
    for _ in 0..8 {
        let response = client.get(HOST, "/headers");
        assert_eq!((response.status, header(response.text(), "host")), (200, Some(HOST)));
    }
    let requests = upstreams.map(|upstream| upstream.seen().counts().requests.len());
    assert_eq!(requests, [6, 2]);
}

#[test]
fn a_subset_leads_to_the_endpoints_with_its_labels() {
    let upstreams = [Upstream::plain(service::http), Upstream::plain(service::http)];
    let subsets = "subsets: [{name: new, labels: {version: v2}, trafficPolicy: {portLevelSettings: [{port: {number: 80}, \
                   connectionPool: {http: {maxRequestsPerConnection: 1}}}]}}]";
    let routes = "  - route: [{destination: {host: api.example, subset: new}}]\n";
    let yaml = entry([upstreams[0].port(), upstreams[1].port()])
        + &rule(subsets)
        + &resources::virtual_service("api", HOST, routes);
    let gateway = gateway(yaml);
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    let counts = upstreams.map(|upstream| upstream.seen().counts());
    assert_eq!((counts[0].requests.len(), counts[1].requests.len()), (0, 4));
    assert_eq!(counts[1].connections, 4, "the policy of the subset's port holds");
}

#[test]
fn the_policy_of_a_port_replaces_that_of_the_rule() {
    let upstream = Upstream::plain(service::http);
    let limited = "connectionPool: {http: {maxRequestsPerConnection: 1}}";
    let port = "portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]";
    let yaml =
        resources::http_entry("api", HOST, upstream.port()) + &rule(&format!("trafficPolicy: {{{limited}, {port}}}"));
    let gateway = Gateway::builder().host(HOST).resources(yaml).start();
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    assert_eq!(upstream.seen().counts().connections, 1);
}

#[test]
fn round_robin_by_dns_takes_the_first_address_for_a_new_connection() {
    let upstream = Upstream::plain(service::http);
    let yaml = resources::http_entry("api", HOST, upstream.port()).replace("DNS\n", "DNS_ROUND_ROBIN\n");
    let gateway =
        Gateway::builder().dns(&format!("  hosts: {{{HOST}: [127.0.0.1, 127.0.0.99]}}\n")).resources(yaml).start();
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.get(HOST, "/bytes/1").status, 200);
    }
    let first = format!("{}:{}", Ipv4Addr::LOCALHOST, upstream.port());
    assert!(gateway.log().wait_for_count(4).iter().all(|line| line.upstream_host == first));
}
