//! Gateways: what is led to them, what they admit, and what their VirtualServices make of it.

use super::*;
use crate::route::decide::{self, HttpVerdict};
use crate::session::http::facts::Facts;
use crate::snapshot::Snapshot;
use crate::wire::http1::{HeadLimits, Parsed, parse_request};

const OWN: &str = "istio-egressgateway.istio-system.svc.cluster.local";

/// A Gateway `egress` with these servers.
fn gateway(servers: &str) -> String {
    object("Gateway", "egress", &format!("{{selector: {{istio: egressgateway}}, servers: [{servers}]}}"))
}

fn plain(port: u16, hosts: &str) -> String {
    format!("{{port: {{number: {port}, name: http-{port}, protocol: HTTP}}, hosts: [{hosts}]}}")
}

fn tls_server(port: u16, protocol: &str, mode: &str, hosts: &str) -> String {
    format!(
        "{{port: {{number: {port}, name: tls-{port}, protocol: {protocol}}}, hosts: [{hosts}], tls: {{mode: {mode}}}}}"
    )
}

/// A server for plain HTTP that sends its clients to HTTPS.
fn redirecting(port: u16, hosts: &str) -> String {
    plain(port, hosts).replace("hosts:", "tls: {httpsRedirect: true}, hosts:")
}

/// A route from the mesh to the Gateway's own service on this port.
fn way(port: u16) -> String {
    format!("{{match: [{{gateways: [mesh]}}], route: [{{destination: {{host: {OWN}, port: {{number: {port}}}}}}}]}}")
}

/// A route of the Gateway.
fn onward(conditions: &str, host: &str) -> String {
    format!(
        "{{match: [{{gateways: [egress]{conditions}}}], route: [{{destination: {{host: {host}, port: {{number: 80}}}}}}]}}"
    )
}

fn routes(name: &str, host: &str, http: &[String]) -> String {
    let spec = format!("{{hosts: [{host}], gateways: [mesh, egress], http: [{}]}}", http.join(", "));
    object("VirtualService", name, &spec)
}

fn name(text: &str) -> crate::route::host::HostName {
    text.parse().expect("a valid name")
}

fn leads(loaded: &Loaded, port: u16, host: &str) -> Destination {
    destination(&http(loaded, port, host).expect("listed").routes[0])
}

/// The names of the routes that a host has at the Gateways on a port.
fn at_gateway(loaded: &Loaded, port: u16, host: &str) -> Option<usize> {
    loaded.routes.gateway_http(port, &name(host)).map(|host| host.routes.len())
}

fn a_and_b() -> String {
    entry("a", "a.com", HTTP, DNS) + &entry("b", "b.com", HTTP, DNS)
}

#[test]
fn a_route_to_the_service_of_a_gateway_enters_its_server() {
    let yaml = a_and_b() + &gateway(&plain(80, "a.com")) + &routes("r", "a.com", &[way(80), onward("", "a.com")]);
    let loaded = load(&yaml);
    assert_eq!(leads(&loaded, 80, "a.com"), Destination::Gateway(80));
    assert_eq!(at_gateway(&loaded, 80, "a.com"), Some(1));
    assert_eq!(at_gateway(&loaded, 80, "b.com"), None);
    assert_eq!(findings(&yaml), []);
}

#[test]
fn a_gateway_leads_to_no_other_gateway() {
    // The rule holds in both places, so at the gateway it would lead to itself.
    let both = format!("{{route: [{{destination: {{host: {OWN}, port: {{number: 80}}}}}}]}}");
    let loaded = load(&(a_and_b() + &gateway(&plain(80, "a.com")) + &routes("r", "a.com", &[both])));
    assert_eq!(leads(&loaded, 80, "a.com"), Destination::Gateway(80));
    let host = loaded.routes.gateway_http(80, &name("a.com")).expect("admitted");
    assert_eq!(destination(&host.routes[0]), Destination::Missing);
    let snapshot = Snapshot { generation: 1, routes: loaded.routes.clone(), settings: loaded.settings.clone() };
    assert!(decide::cluster(&snapshot, Destination::Gateway(80)).is_err());
}

#[test]
fn a_port_without_a_server_and_a_subset_without_a_rule_lead_nowhere() {
    let dangling = a_and_b() + &gateway(&plain(80, "a.com")) + &routes("r", "a.com", &[way(81)]);
    assert_eq!(leads(&load(&dangling), 80, "a.com"), Destination::Missing);
    let warning = (Severity::Warning, "IST0101", "spec.http[0].route[0].destination.port.number".to_owned());
    assert_eq!(findings(&dangling), [warning]);
    let subset = way(80).replace("port: {number: 80}", "subset: v1, port: {number: 80}");
    let subset = a_and_b() + &gateway(&plain(80, "a.com")) + &routes("r", "a.com", &[subset]);
    assert_eq!(leads(&load(&subset), 80, "a.com"), Destination::Missing);
    let rule = object("DestinationRule", "egress", &format!("{{host: {OWN}, subsets: [{{name: v1}}]}}"));
    assert_eq!(leads(&load(&(subset + &rule)), 80, "a.com"), Destination::Gateway(80));
}

#[test]
fn a_service_entry_for_the_name_of_the_service_holds_before_the_gateway() {
    let own = entry("own", OWN, HTTP, DNS);
    let yaml = a_and_b() + &own + &gateway(&plain(80, "a.com")) + &routes("r", "a.com", &[way(80)]);
    assert_eq!(cluster(&load(&yaml), leads(&load(&yaml), 80, "a.com")).name.as_str(), format!("outbound|80||{OWN}"));
}

#[test]
fn only_what_server_and_virtual_service_both_name_is_admitted() {
    let admits = |hosts: &str, host: &str| {
        let loaded = load(&(a_and_b() + &gateway(&plain(80, hosts)) + &routes("r", host, &[onward("", "a.com")])));
        ["a.com", "x.a.com", "y.x.a.com"].map(|host| at_gateway(&loaded, 80, host).is_some())
    };
    assert_eq!(admits("'*'", "'*.a.com'"), [false, true, true]);
    assert_eq!(admits("x.a.com", "'*.a.com'"), [false, true, false]);
    assert_eq!(admits("'*.x.a.com'", "'*.a.com'"), [false, false, true]);
    assert_eq!(admits("'default/*'", "a.com"), [true, false, false]);
    assert_eq!(admits("'other/*'", "a.com"), [false, false, false]);
}

#[test]
fn any_host_is_admitted_where_both_say_so() {
    let rules = "{hosts: ['*'], gateways: [egress], http: [{route: [{destination: {host: a.com}}]}]}";
    let yaml = a_and_b() + &gateway(&plain(80, "'*'")) + &object("VirtualService", "r", rules);
    assert_eq!(at_gateway(&load(&yaml), 80, "anything.example"), Some(1));
    assert_eq!(findings(&yaml), []);
}

#[test]
fn virtual_services_of_a_gateway_are_merged() {
    let first = routes("one", "a.com", &[onward(", uri: {prefix: /one}", "a.com")]);
    let second = routes("two", "a.com", &[onward("", "b.com")]);
    let loaded = load(&(a_and_b() + &gateway(&plain(80, "a.com")) + &first + &second));
    assert_eq!(at_gateway(&loaded, 80, "a.com"), Some(2));
}

/// What a host has at the servers for plain HTTP on port 80: the names of its routes.
fn for_clients(yaml: &str, host: &str) -> Option<Vec<String>> {
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    let source = decide::Source { address, port: 80, gateway: true, destination: None, tls: None };
    let loaded = load(yaml);
    let host = loaded.routes.http_at(source, &name(host))?;
    Some(host.routes.iter().map(|route| route.name.to_string()).collect())
}

fn redirected() -> Option<Vec<String>> {
    Some(vec!["https_redirect".to_owned()])
}

#[test]
fn a_server_with_https_redirect_redirects_each_of_its_hosts_whatever_is_routed() {
    let rules = routes("r", "a.com", &[way(80), onward("", "a.com")]);
    let yaml = a_and_b() + &gateway(&redirecting(80, "a.com, '*.b.com', 'other/c.com'")) + &rules;
    for host in ["a.com", "x.b.com", "c.com"] {
        assert_eq!(for_clients(&yaml, host), redirected(), "{host}");
        assert_eq!(at_gateway(&load(&yaml), 80, host), Some(1), "{host}");
    }
    assert_eq!(for_clients(&yaml, "b.com"), None);
    assert_eq!(leads(&load(&yaml), 80, "a.com"), Destination::Gateway(80));
    assert_eq!(findings(&yaml), []);
}

#[test]
fn https_redirect_of_any_host_needs_no_virtual_service() {
    let yaml = a_and_b() + &gateway(&redirecting(80, "'*'"));
    assert_eq!(for_clients(&yaml, "anything.example"), redirected());
    assert_eq!(for_clients(&yaml.replace("true", "false"), "anything.example"), None);
}

#[test]
fn no_other_server_opens_a_host_that_is_redirected() {
    let rules = routes("r", "x.a.com", &[onward("", "a.com")]);
    let (all, one) = (redirecting(80, "'*.a.com'"), plain(80, "x.a.com").replace("http-80", "other"));
    for servers in [format!("{all}, {one}"), format!("{one}, {all}")] {
        assert_eq!(for_clients(&(a_and_b() + &gateway(&servers) + &rules), "x.a.com"), redirected());
    }
}

#[test]
fn a_server_for_https_keeps_its_routes_beside_one_that_redirects_to_it() {
    let servers = redirecting(80, "a.com") + ", " + &tls_server(443, "HTTPS", "ISTIO_MUTUAL", "a.com");
    let yaml = a_and_b() + &gateway(&servers) + &routes("r", "a.com", &[way(443), onward("", "b.com")]);
    let loaded = load(&yaml);
    assert_eq!(for_clients(&yaml, "a.com"), redirected());
    let host = loaded.routes.gateway_http(443, &name("a.com")).expect("admitted");
    assert_eq!(cluster(&loaded, destination(&host.routes[0])).name.as_str(), "outbound|80||b.com");
}

#[test]
fn https_redirect_of_a_server_that_is_not_for_plain_http_is_warned_about() {
    let server = tls_server(443, "TLS", "PASSTHROUGH, httpsRedirect: true", "a.com");
    let warning = (Severity::Warning, "PC0010", "spec.servers[0].tls.httpsRedirect".to_owned());
    assert_eq!(findings(&(a_and_b() + &gateway(&server))), [warning]);
}

#[test]
fn tls_servers_take_the_names_that_their_virtual_services_route() {
    let rule = |gateways: &str, host: &str| {
        format!(
            "{{match: [{{gateways: [{gateways}], port: 443, sniHosts: [a.com]}}], route: [{{destination: {{host: {host}, port: {{number: 443}}}}}}]}}"
        )
    };
    let rules = format!(
        "{{hosts: [a.com], gateways: [mesh, egress], tls: [{}, {}]}}",
        rule("mesh", OWN),
        rule("egress", "a.com")
    );
    let with = |mode: &str| {
        load(
            &(entry("a", "a.com", HTTPS, DNS)
                + &gateway(&tls_server(443, "TLS", mode, "a.com"))
                + &object("VirtualService", "r", &rules)),
        )
    };
    let loaded = with("PASSTHROUGH");
    let route = |host: &TlsHost| host.route.as_ref().expect("routed").pick(0);
    assert_eq!(route(tls(&loaded, 443, "a.com").expect("listed")), Destination::Gateway(443));
    let host = loaded.routes.gateway_tls(443, &name("a.com")).expect("admitted");
    assert_eq!(cluster(&loaded, route(host)).name.as_str(), "outbound|443||a.com");
    // Nobody's TLS goes through a server at which it would end.
    let loaded = with("ISTIO_MUTUAL");
    assert_eq!(route(tls(&loaded, 443, "a.com").expect("listed")), Destination::Missing);
}

/// Two destinations, of these shares.
fn shares(first: (&str, u16, u32), second: (&str, u16, u32)) -> String {
    let share = |(host, port, weight): (&str, u16, u32)| {
        format!("{{destination: {{host: {host}, port: {{number: {port}}}}}, weight: {weight}}}")
    };
    format!("route: [{}, {}]", share(first), share(second))
}

/// How often each cluster is chosen, in thousandths, by tickets spread evenly over their range.
fn chosen(choose: impl Fn(u32) -> String) -> std::collections::BTreeMap<String, u32> {
    const DRAWN: u32 = 100_003;
    let mut counts = std::collections::BTreeMap::new();
    for draw in 0..DRAWN {
        *counts.entry(choose(draw.wrapping_mul(0x9e37_79b1))).or_insert(0) += 1;
    }
    counts.into_iter().map(|(cluster, count)| (cluster, (count + DRAWN / 2_000) / (DRAWN / 1_000))).collect()
}

/// Of ten requests `first` go to the Gateway, which leads one in five of those to `b.com`, and the others to `a.com`;
/// what does not go to the Gateway goes to `c.com`.
fn assert_joint_shares(chosen: &std::collections::BTreeMap<String, u32>, first: u32, port: u16) {
    let shares = [("a.com", first * 80), ("b.com", first * 20), ("c.com", 1_000 - first * 100)];
    for (host, expected) in shares {
        let found = chosen.get(&format!("outbound|{port}||{host}")).copied().unwrap_or(0);
        assert!(found.abs_diff(expected) <= 5, "{found} of 1000 to {host}, not {expected}: {chosen:?}");
    }
}

#[test]
fn the_shares_of_both_hops_are_independent_for_tls() {
    for first in [1, 5, 8] {
        let away = shares((OWN, 443, first), ("c.com", 443, 10 - first));
        let onward = shares(("a.com", 443, 80), ("b.com", 443, 20));
        let rule = |place: &str, route: &str| {
            format!("{{match: [{{gateways: [{place}], port: 443, sniHosts: [a.com]}}], {route}}}")
        };
        let rules = format!(
            "{{hosts: [a.com], gateways: [mesh, egress], tls: [{}, {}]}}",
            rule("mesh", &away),
            rule("egress", &onward)
        );
        let entries: String = ["a", "b", "c"].map(|it| entry(it, &format!("{it}.com"), HTTPS, DNS)).concat();
        let yaml = entries
            + &gateway(&tls_server(443, "TLS", "PASSTHROUGH", "a.com"))
            + &object("VirtualService", "r", &rules);
        let Loaded { routes, settings, .. } = load(&yaml);
        let snapshot = Snapshot { generation: 1, routes, settings };
        let route = snapshot.routes.tls(443, &name("a.com")).and_then(|host| host.route.as_ref()).expect("routed");
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let source = decide::Source { address, port: 443, gateway: false, destination: None, tls: None };
        let chosen = chosen(|ticket| {
            let entered = decide::tunnel_enter(&snapshot, source, Some(&name("a.com")), route, ticket);
            let (last, ticket) = entered.expect("admitted");
            decide::cluster(&snapshot, last.pick(ticket)).expect("a cluster").name.to_string()
        });
        assert_joint_shares(&chosen, first, 443);
    }
}

#[test]
fn the_shares_of_both_hops_are_independent_for_http() {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n";
    let limits = HeadLimits { bytes: 1024, fields: 8 };
    let Parsed::Complete(head) = parse_request(REQUEST, limits) else { panic!("a request") };
    for first in [1, 5, 8] {
        let way = format!("{{match: [{{gateways: [mesh]}}], {}}}", shares((OWN, 80, first), ("c.com", 80, 10 - first)));
        let onward = format!("{{match: [{{gateways: [egress]}}], {}}}", shares(("a.com", 80, 80), ("b.com", 80, 20)));
        let yaml = a_and_b() + &entry("c", "c.com", HTTP, DNS) + &gateway(&plain(80, "a.com"));
        let Loaded { routes, settings, .. } = load(&(yaml + &self::routes("r", "a.com", &[way, onward])));
        let snapshot = Snapshot { generation: 1, routes, settings };
        let facts = Facts::new(&head, REQUEST, snapshot.settings.normalization).expect("a path");
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let source = decide::Source { address, port: 80, gateway: false, destination: None, tls: None };
        let host = name("a.com");
        let verdict = decide::http(&snapshot, source, Some(&host), &facts).expect("allowed");
        let chosen = chosen(|ticket| {
            let entered = decide::enter(&snapshot, verdict, Some(&host), &facts, ticket).expect("admitted");
            let HttpVerdict::Forward(_, matched, forward) = entered.verdict else { panic!("not forwarded") };
            let onward = decide::onward(&snapshot, &host, &facts, matched, forward, entered.ticket);
            onward.expect("a cluster").cluster.name.to_string()
        });
        assert_joint_shares(&chosen, first, 80);
    }
}

#[test]
fn retries_on_the_way_to_a_gateway_are_warned_about_and_its_timeout_is_not() {
    let with = |settings: &str| {
        let way = way(80).replace("{match", &format!("{{{settings}, match"));
        findings(&(a_and_b() + &gateway(&plain(80, "a.com")) + &routes("r", "a.com", &[way, onward("", "a.com")])))
    };
    assert_eq!(with("retries: {attempts: 3, perTryTimeout: 2s}"), warning("PC0004", "spec.http[0].retries"));
    assert_eq!(with("retries: {attempts: 0}"), []);
    assert_eq!(with("timeout: 3s"), []);
}

/// A rule for TLS that leads these names to the Gateway, and one of the Gateway that leads them on.
fn names_through(name: &str, hosts: &str) -> String {
    let rule = |place: &str, host: &str| {
        format!(
            "{{match: [{{gateways: [{place}], port: 443, sniHosts: ['*.a.com']}}], route: [{{destination: {{host: {host}, port: {{number: 443}}}}}}]}}"
        )
    };
    let rules = [rule("mesh", OWN), rule("egress", "www.a.com")].join(", ");
    object("VirtualService", name, &format!("{{hosts: [{hosts}], gateways: [mesh, egress], tls: [{rules}]}}"))
}

#[test]
fn rules_that_do_not_have_a_host_open_none_of_its_names_through_a_gateway() {
    let base = entry("www", "www.a.com", HTTPS, DNS) + &gateway(&tls_server(443, "TLS", "PASSTHROUGH", "'*.a.com'"));
    let opens = |rules: &str| tls(&load(&(base.clone() + rules)), 443, "en.a.com").is_some();
    let through = names_through("through", "'*.a.com'");
    assert!(opens(&through), "one entry serves the names that the Gateway admits");
    // An older VirtualService has the host, and leads nothing but its one name anywhere.
    let direct = "{match: [{port: 443, sniHosts: [www.a.com]}], route: [{destination: {host: www.a.com}}]}";
    let older = object("VirtualService", "older", &format!("{{hosts: ['*.a.com'], tls: [{direct}]}}"));
    assert!(!opens(&(older.clone() + &through)), "the younger one does not hold");
    assert!(opens(&(through + &older)), "and it does where it is the older one");
}

#[test]
fn a_server_that_asks_for_tls_is_open_to_those_whose_rule_opens_it() {
    let leads_with = |server: &str, rule: &str| {
        let files = if server == "ISTIO_MUTUAL" { "" } else { ", credentialName: it" };
        let server = tls_server(443, "HTTPS", &format!("{server}{files}"), "a.com");
        let rule =
            object("DestinationRule", "egress", &format!("{{host: {OWN}, trafficPolicy: {{tls: {{mode: {rule}}}}}}}"));
        leads(&load(&(a_and_b() + &gateway(&server) + &rule + &routes("r", "a.com", &[way(443)]))), 80, "a.com")
    };
    assert_eq!(leads_with("ISTIO_MUTUAL", "DISABLE"), Destination::Gateway(443));
    assert_eq!(leads_with("SIMPLE", "DISABLE"), Destination::Missing);
    assert_eq!(leads_with("SIMPLE", "SIMPLE"), Destination::Gateway(443));
    assert_eq!(leads_with("MUTUAL", "SIMPLE"), Destination::Missing);
    assert_eq!(leads_with("MUTUAL", "ISTIO_MUTUAL"), Destination::Gateway(443));
}

#[test]
fn what_a_route_to_a_gateway_cannot_carry_is_refused() {
    let rewriting = way(80).replace("{match", "{rewrite: {uri: /x}, match");
    let yaml = a_and_b() + &gateway(&plain(80, "a.com")) + &routes("r", "a.com", &[rewriting]);
    assert_eq!(findings(&yaml), error("PC0004", "spec.http[0].rewrite"));
}

#[test]
fn gateways_that_are_not_there_and_hosts_that_are_not_admitted_are_warned_about() {
    let yaml = a_and_b() + &gateway(&plain(80, "b.com")) + &routes("r", "a.com", &[onward("", "a.com")]);
    assert_eq!(findings(&yaml), [(Severity::Warning, "IST0132", "spec.gateways[1]".to_owned())]);
    let yaml = a_and_b() + &routes("r", "a.com", &[onward("", "a.com")]);
    let missing = |field: &str| (Severity::Warning, "IST0101", field.to_owned());
    assert_eq!(findings(&yaml), [missing("spec.gateways[1]"), missing("spec.http[0].match[0].gateways[0]")]);
}

#[test]
fn what_istio_would_refuse_of_a_gateway_is_refused() {
    let refused = |servers: &str, field: &str| {
        let mut findings = findings(&(a_and_b() + &gateway(servers)));
        findings.retain(|(severity, ..)| *severity == Severity::Error);
        assert_eq!(findings, error("IST0106", field), "{servers}");
    };
    refused("", "spec.servers");
    refused(&plain(80, ""), "spec.servers[0].hosts");
    refused(&plain(80, "short"), "spec.servers[0].hosts[0]");
    refused(&plain(0, "a.com"), "spec.servers[0].port.number");
    refused("{port: {number: 80, protocol: HTTP}, hosts: [a.com]}", "spec.servers[0].port.name");
    refused(&(plain(80, "a.com") + ", " + &plain(80, "b.com")), "spec.servers[1].port.name");
    refused("{port: {number: 443, name: tls, protocol: TLS}, hosts: [a.com]}", "spec.servers[0]");
    refused(&tls_server(80, "HTTP", "SIMPLE, credentialName: it", "a.com"), "spec.servers[0].tls");
    refused(&tls_server(443, "HTTPS", "ISTIO_MUTUAL, credentialName: it", "a.com"), "spec.servers[0].tls");
    refused(&tls_server(443, "HTTPS", "SIMPLE, privateKey: k", "a.com"), "spec.servers[0].tls.serverCertificate");
}
