//! Servers of Gateways that take TCP: what arrives at them, and where it goes.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::failure::Failure;
use crate::route::cluster::Weighted;
use crate::route::decide::{self, Detection, EndedTls, Source, TcpVerdict};
use crate::snapshot::Snapshot;

const OWN: &str = "istio-egressgateway.istio-system.svc.cluster.local";
const TCP: &str = "{number: 5432, name: tcp, protocol: TCP}";
const FIXED: &str = "resolution: STATIC, endpoints: [{address: 192.0.2.9}]";

/// A Gateway with these servers.
fn gateway(name: &str, servers: &[String]) -> String {
    object("Gateway", name, &format!("{{servers: [{}]}}", servers.join(", ")))
}

fn plain(port: u16) -> String {
    format!("{{port: {{number: {port}, name: tcp-{port}, protocol: MYSQL}}, hosts: ['*']}}")
}

fn in_tls(port: u16, mode: &str, host: &str) -> String {
    let name = host.replace(['\'', '*', '.'], "");
    format!("{{port: {{number: {port}, name: 'tls-{name}', protocol: TLS}}, hosts: [{host}], tls: {{mode: {mode}}}}}")
}

fn rules(name: &str, gateways: &str, kind: &str, rules: &[String]) -> String {
    object(
        "VirtualService",
        name,
        &format!("{{hosts: [a.com], gateways: [{gateways}], {kind}: [{}]}}", rules.join(", ")),
    )
}

/// A rule that leads what meets `conditions` to a host.
fn to(conditions: &str, host: &str, port: u16) -> String {
    format!("{{match: [{{{conditions}}}], route: [{{destination: {{host: {host}, port: {{number: {port}}}}}}}]}}")
}

fn a_and_b() -> String {
    entry("a", "a.com", TCP, FIXED) + &entry("b", "b.com", TCP, &format!("addresses: [198.51.100.7], {FIXED}"))
}

fn snapshot(yaml: &str) -> Snapshot {
    let Loaded { routes, settings, .. } = load(yaml);
    Snapshot { generation: 1, routes, settings }
}

/// A client of a listener for Gateways.
fn client(port: u16) -> Source<'static> {
    Source { address: Ipv4Addr::LOCALHOST.into(), port, gateway: true, destination: None, tls: None }
}

fn picked(snapshot: &Snapshot, route: &Weighted) -> Result<String, Failure> {
    decide::cluster(snapshot, route.pick(0)).map(|cluster| cluster.name.as_str().to_owned())
}

/// Where a client of a listener for Gateways gets to.
fn arrives(snapshot: &Snapshot, source: Source<'_>) -> Result<String, Failure> {
    match decide::tcp(snapshot, source, None)? {
        TcpVerdict::Forward(_, route) => picked(snapshot, route),
        TcpVerdict::Anywhere => panic!("nothing opens everything"),
    }
}

#[test]
fn the_first_rule_for_a_server_leads_on_what_arrives_there() {
    let first = rules("first", "egress", "tcp", &[to("port: 9001", "b.com", 5432), to("port: 9000", "a.com", 5432)]);
    let second = rules("second", "egress", "tcp", &[to("", "b.com", 5432)]);
    let yaml = a_and_b() + &gateway("egress", &[plain(9000), plain(9001), plain(9002)]) + &first + &second;
    let snapshot = snapshot(&yaml);
    let led = [9000, 9001, 9002].map(|port| arrives(&snapshot, client(port)).expect("led on"));
    assert_eq!(led, ["outbound|5432||a.com", "outbound|5432||b.com", "outbound|5432||b.com"]);
    assert_eq!(decide::detection(&snapshot, client(9000)), Detection::Nothing, "servers may speak first");
    assert_eq!(findings(&(yaml.clone() + "\n")), warning("PC0017", "spec.ports[0].protocol"));
}

#[test]
fn what_no_rule_leads_on_is_refused_and_warned_about() {
    for other in [to("port: 9001", "a.com", 5432), to("gateways: [mesh]", "a.com", 5432)] {
        let yaml = a_and_b() + &gateway("egress", &[plain(9000)]) + &rules("r", "egress, mesh", "tcp", &[other]);
        let refused = snapshot(&yaml);
        assert_eq!(arrives(&refused, client(9000)), Err(Failure::NoRoute));
        assert_eq!(decide::detection(&refused, client(9000)), Detection::Nothing);
        let found = findings(&yaml);
        assert!(found.contains(&(Severity::Warning, "PC0011", "spec.servers[0].port".to_owned())), "{found:?}");
    }
    let nobody = snapshot(&(a_and_b() + &gateway("egress", &[plain(9000)])));
    assert_eq!(arrives(&nobody, client(9001)), Err(Failure::NoRoute));
}

#[test]
fn a_virtual_service_without_a_host_of_the_server_does_not_hold_there() {
    let yaml = a_and_b()
        + &gateway("egress", &[plain(9000).replace("'*'", "b.com")])
        + &rules("r", "egress", "tcp", &[to("", "a.com", 5432)]);
    assert_eq!(arrives(&snapshot(&yaml), client(9000)), Err(Failure::NoRoute));
}

#[test]
fn beside_servers_for_http_or_tls_tcp_is_for_the_mesh_alone() {
    let http = "{port: {number: 9000, name: http, protocol: HTTP}, hosts: ['*']}".to_owned();
    let way = to("gateways: [mesh], port: 5432", OWN, 9000);
    let led = rules("r", "mesh, egress", "tcp", &[way, to("gateways: [egress]", "b.com", 5432)]);
    let yaml = a_and_b() + &gateway("egress", &[plain(9000), http]) + &led;
    let snapshot = snapshot(&yaml);
    assert_eq!(decide::detection(&snapshot, client(9000)), Detection::Names);
    assert_eq!(arrives(&snapshot, client(9000)), Err(Failure::NoRoute));
    assert_eq!(through(&snapshot, None), Ok("outbound|5432||b.com".to_owned()));
    let told = (Severity::Warning, "IST0145", "spec.servers[0].port".to_owned());
    assert!(findings(&yaml).contains(&told), "{:?}", findings(&yaml));
}

#[test]
fn of_two_servers_for_tcp_on_one_port_the_first_has_it() {
    let (older, younger) = (gateway("egress", &[plain(9000)]), gateway("later", &[plain(9000)]));
    let (one, two) = (
        rules("one", "egress", "tcp", &[to("", "a.com", 5432)]),
        rules("two", "later", "tcp", &[to("", "b.com", 5432)]),
    );
    let yaml = [a_and_b(), older, younger, two, one].concat();
    assert_eq!(arrives(&snapshot(&yaml), client(9000)), Ok("outbound|5432||a.com".to_owned()));
    assert!(findings(&yaml).contains(&(Severity::Warning, "IST0145", "spec.servers[0].port".to_owned())));
}

/// Where TCP of the mesh for `a.com` gets to; `destination` is where a captured client meant to go.
fn through(snapshot: &Snapshot, destination: Option<&str>) -> Result<String, Failure> {
    let destination = destination.map(|address| address.parse::<IpAddr>().expect("an address"));
    let source = Source { gateway: false, port: 5432, destination, ..client(0) };
    let TcpVerdict::Forward(_, route) = decide::tcp(snapshot, source, None)? else {
        panic!("nothing opens everything")
    };
    picked(snapshot, decide::tunnel_enter(snapshot, source, None, route, 0)?.0)
}

/// The way of `a.com` from the mesh to port 9000 of the Gateway, a DestinationRule for it, and what follows there.
fn led(server: &str, mode: &str, onward: &[String]) -> String {
    let way = to("gateways: [mesh], port: 5432", OWN, 9000);
    let rule = object("DestinationRule", "own", &format!("{{host: {OWN}, trafficPolicy: {{tls: {{mode: {mode}}}}}}}"));
    let list = [vec![way], onward.to_vec()].concat();
    a_and_b() + &gateway("egress", &[server.to_owned()]) + &rule + &rules("r", "mesh, egress", "tcp", &list)
}

#[test]
fn tcp_of_the_mesh_enters_a_server_whose_tls_its_rule_opens() {
    let onward = [to("gateways: [egress], port: 9000", "b.com", 5432)];
    let goes = |server: &str, mode: &str| through(&snapshot(&led(server, mode, &onward)), None);
    let tls = |mode: &str| in_tls(9000, mode, "'*'");
    let b = Ok("outbound|5432||b.com".to_owned());
    assert_eq!(goes(&plain(9000), "DISABLE"), b);
    assert_eq!(goes(&tls("ISTIO_MUTUAL"), "ISTIO_MUTUAL"), b);
    assert_eq!(goes(&tls("SIMPLE, credentialName: it"), "SIMPLE"), b);
    assert_eq!(goes(&tls("MUTUAL, credentialName: it"), "ISTIO_MUTUAL"), b);
    assert_eq!(goes(&tls("SIMPLE, credentialName: it"), "DISABLE"), Err(Failure::NoCluster));
    assert_eq!(goes(&tls("MUTUAL, credentialName: it"), "SIMPLE"), Err(Failure::NoCluster));
    assert_eq!(goes(&tls("PASSTHROUGH"), "DISABLE"), Err(Failure::NoCluster));
    assert_eq!(goes(&plain(9001), "DISABLE"), Err(Failure::NoCluster));
}

#[test]
fn several_servers_within_tls_leave_open_which_one_tcp_of_the_mesh_means() {
    let servers = in_tls(9000, "ISTIO_MUTUAL", "a.com") + ", " + &in_tls(9000, "ISTIO_MUTUAL", "b.com");
    let yaml = led(&servers, "ISTIO_MUTUAL", &[to("gateways: [egress]", "b.com", 5432)]);
    assert_eq!(through(&snapshot(&yaml), None), Err(Failure::NoCluster));
    let told = (Severity::Warning, "IST0101", "spec.tcp[0].route[0].destination.port.number".to_owned());
    assert!(findings(&yaml).contains(&told), "{:?}", findings(&yaml));
}

#[test]
fn subnets_choose_at_a_gateway_by_where_a_captured_client_meant_to_go() {
    let narrow = to("gateways: [egress], destinationSubnets: [198.51.100.0/28]", "b.com", 5432);
    let only = snapshot(&led(&plain(9000), "DISABLE", std::slice::from_ref(&narrow)));
    assert_eq!(through(&only, Some("203.0.113.1")), Err(Failure::NoRoute));
    assert_eq!(through(&only, None), Err(Failure::NoRoute));
    // Clients of a listener for Gateways were captured by nobody.
    assert_eq!(arrives(&only, client(9000)), Err(Failure::NoRoute));
    let both = snapshot(&led(&plain(9000), "DISABLE", &[narrow, to("gateways: [egress]", "a.com", 5432)]));
    assert_eq!(through(&both, Some("198.51.100.1")), Ok("outbound|5432||b.com".to_owned()));
    assert_eq!(through(&both, Some("203.0.113.1")), Ok("outbound|5432||a.com".to_owned()));
    assert_eq!(arrives(&both, client(9000)), Ok("outbound|5432||a.com".to_owned()));
}

#[test]
fn a_gateway_leads_tcp_to_no_other_gateway() {
    let yaml = led(&plain(9000), "DISABLE", &[to("gateways: [egress]", OWN, 9000)]);
    assert_eq!(through(&snapshot(&yaml), None), Err(Failure::NoCluster));
    assert_eq!(arrives(&snapshot(&yaml), client(9000)), Err(Failure::NoCluster));
}

#[test]
fn tls_of_a_client_goes_inside_that_of_the_mesh_to_a_server_for_tcp() {
    let names = |mode: &str, server: &str| {
        let way = to("gateways: [mesh], port: 443, sniHosts: [a.com]", OWN, 9000);
        let tls = object("VirtualService", "t", &format!("{{hosts: [a.com], gateways: [mesh], tls: [{way}]}}"));
        let yaml = led(server, mode, &[to("gateways: [egress]", "b.com", 5432)]);
        let snapshot = snapshot(&(yaml + &entry("https", "a.com", HTTPS, FIXED) + &tls));
        let name = "a.com".parse().expect("a name");
        let source = Source { gateway: false, port: 443, ..client(0) };
        let route = snapshot.routes.tls(443, &name).and_then(|host| host.route.as_ref()).expect("routed");
        let (last, _) = decide::tunnel_enter(&snapshot, source, Some(&name), route, 0)?;
        picked(&snapshot, last)
    };
    let mutual = in_tls(9000, "ISTIO_MUTUAL", "'*'");
    assert_eq!(names("ISTIO_MUTUAL", &mutual), Ok("outbound|5432||b.com".to_owned()));
    assert_eq!(names("DISABLE", &plain(9000)), Ok("outbound|5432||b.com".to_owned()));
    assert_eq!(names("DISABLE", &mutual), Err(Failure::NoCluster), "its TLS is not the mesh's");
}

#[test]
fn a_policy_with_targets_for_a_part_of_what_the_mesh_is_led_to_is_refused() {
    let policy = |names: &str| {
        object("AuthorizationPolicy", "closed", &format!("{{action: DENY, targetRefs: [{names}], rules: [{{}}]}}"))
    };
    let of = |name: &str| format!("{{kind: ServiceEntry, group: networking.istio.io, name: {name}}}");
    for (server, mode) in [(plain(9000), "DISABLE"), (in_tls(9000, "ISTIO_MUTUAL", "'*'"), "ISTIO_MUTUAL")] {
        let yaml = led(&server, mode, &[to("gateways: [egress]", "b.com", 5432)]);
        let is_refused = |policy: &str| {
            let found = findings(&(yaml.clone() + policy));
            found.iter().any(|(severity, _, field)| *severity == Severity::Error && field == "spec.targetRefs")
        };
        assert!(is_refused(&policy(&of("b"))), "{mode}");
        assert!(!is_refused(&policy(&format!("{}, {}", of("a"), of("b")))), "{mode}");
    }
}

#[test]
fn a_policy_with_targets_holds_for_all_that_a_server_leads_to_or_is_refused() {
    let target = |names: &str| {
        let spec = format!("{{action: DENY, targetRefs: [{names}], rules: [{{}}]}}");
        object("AuthorizationPolicy", "closed", &spec)
    };
    let of = |name: &str| format!("{{kind: ServiceEntry, group: networking.istio.io, name: {name}}}");
    let base = a_and_b() + &gateway("egress", &[plain(9000)]);
    let one = base.clone() + &rules("r", "egress", "tcp", &[to("", "a.com", 5432)]);
    assert!(matches!(
        arrives(&snapshot(&(one.clone() + &target(&of("a")))), client(9000)),
        Err(Failure::AccessDenied(_))
    ));
    assert!(arrives(&snapshot(&(one + &target(&of("b")))), client(9000)).is_ok());
    // The host of the rules counts, and so does that of the destination: whichever is meant, it is not passed by.
    let two = base + &rules("r", "egress", "tcp", &[to("", "b.com", 5432)]);
    let both = format!("{}, {}", of("a"), of("b"));
    assert!(matches!(arrives(&snapshot(&(two.clone() + &target(&both))), client(9000)), Err(Failure::AccessDenied(_))));
    let listening = |policy: &str| {
        let files = Files::new(&(two.clone() + policy));
        let listener = "listeners: [{name: db, bind: '127.0.0.1:9000', gateway: true}]\nresources: [resources.yaml]\n";
        files.write("portcullis.yaml", listener);
        Loader::default().load(&files.path("portcullis.yaml"))
    };
    let refused = listening(&target(&of("b"))).err().unwrap_or_default();
    assert!(refused.iter().any(|it| it.severity == Severity::Error && it.field == "spec.targetRefs"), "{refused:?}");
    assert!(listening(&target(&both)).is_ok());
}

#[test]
fn what_is_in_tls_that_ends_is_led_by_the_rules_of_its_server() {
    let (certificate, key) = authority();
    let files = |credential: &str| {
        let encode = |text: &str| super::secrets::base64(text.as_bytes());
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {credential}}}\ntype: kubernetes.io/tls\ndata: {{tls.crt: {}, tls.key: {}}}\n",
            encode(&certificate),
            encode(&key)
        )
    };
    let server = in_tls(9000, "SIMPLE, credentialName: it", "a.com");
    let yaml = |rule: String| {
        files("it")
            + &a_and_b()
            + &gateway("egress", std::slice::from_ref(&server))
            + &rules("r", "egress", "tcp", &[rule])
    };
    let name = "a.com".parse().expect("a name");
    let source = Source { tls: Some(EndedTls { server_name: Some(&name) }), ..client(9000) };
    let led = snapshot(&yaml(to("port: 9000", "b.com", 5432)));
    assert!(matches!(decide::termination(&led, source, Some(&name)), Ok(Some(_))));
    assert!(decide::carries_tcp(&led, source));
    assert_eq!(arrives(&led, source), Ok("outbound|5432||b.com".to_owned()));
    // Nothing that speaks plainly gets there, and neither does HTTP.
    assert_eq!(arrives(&led, client(9000)), Err(Failure::NoRoute));
    assert!(led.routes.http_at(source, &name).is_none());
    let nowhere = snapshot(&yaml(to("port: 9001", "b.com", 5432)));
    assert_eq!(decide::termination(&nowhere, source, Some(&name)).err(), Some(Failure::NoRoute));
}
