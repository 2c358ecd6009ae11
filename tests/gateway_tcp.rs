//! Servers of Gateways for TCP: clients that come to them, and TCP that a route of the mesh leads there.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use support::certificates::Authority;
use support::client;
use support::gateway::{Builder, Gateway, Port, command};
use support::namespace::{Filter, in_world};
use support::service;
use support::stream::Stream;
use support::upstream::{Seen, Upstream};

/// A Gateway `egress` with a server for TCP on port 9000.
const SERVER: &str = "---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  servers: [{port: {number: 9000, name: tcp-db, protocol: TCP}, hosts: [db.example]}]
";

/// A ServiceEntry for TCP on port 5432, whose endpoint is on this machine.
fn entry(name: &str, target: u16) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{name}.example]\n  addresses: [198.51.100.7]\n  ports: [{{number: 5432, name: tcp, protocol: TCP, targetPort: {target}}}]\n  resolution: STATIC\n  endpoints: [{{address: 127.0.0.1}}]\n"
    )
}

/// A VirtualService for `db.example` with these rules under `tcp`.
fn rules(gateways: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: routes}}\nspec:\n  hosts: [db.example]\n  gateways: [{gateways}]\n  tcp:\n{rules}"
    )
}

/// A rule that leads to a host what meets these conditions.
fn to(conditions: &str, host: &str, port: u16) -> String {
    format!("  - match: [{{{conditions}}}]\n    route: [{{destination: {{host: {host}, port: {{number: {port}}}}}}}]\n")
}

/// A policy with this `spec`.
fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: closed}}\nspec: {{action: DENY, rules: [{spec}]}}\n"
    )
}

/// A server that speaks first, and then sends back what arrives.
fn greeter(greeting: &'static [u8; 4]) -> impl Fn(&mut Stream, &Seen) -> std::io::Result<()> {
    move |stream, seen| {
        stream.write_all(greeting)?;
        stream.flush()?;
        service::echo(stream, seen)
    }
}

/// A gateway with a further listener for service port 9000.
struct Scene {
    gateway: Gateway,
    address: SocketAddr,
    _port: Port,
}

impl Scene {
    /// Its listener is for Gateways, and no client has to speak first.
    fn new(resources: String) -> Self {
        Self::with("9000, gateway: true", Gateway::builder().resources(resources))
    }

    fn with(service: &str, builder: Builder) -> Self {
        let port = Port::reserve();
        let address: SocketAddr = ([127, 0, 0, 1], port.number()).into();
        let listener = format!("- {{name: db, bind: '{address}', servicePort: {service}}}\n");
        let gateway = builder.extra_listener(&listener).setting("limits: {helloTimeout: 1h}\n").start();
        Self { gateway, address, _port: port }
    }

    fn connect(&self) -> TcpStream {
        client::connect(self.address)
    }

    /// What a server says first, if the client gets to one.
    fn greeting(&self) -> Option<String> {
        greeting(&mut self.connect())
    }

    fn explain(&self, url: &str) -> (i32, serde_json::Value) {
        let output = command().args(["explain", "-o", "json", url, "--config"]).arg(self.gateway.config()).output();
        let output = output.expect("it runs");
        let answer = serde_json::from_slice(&output.stdout);
        (output.status.code().expect("no signal"), answer.unwrap_or_else(|error| panic!("{error}: {output:?}")))
    }
}

fn greeting(socket: &mut TcpStream) -> Option<String> {
    let mut greeting = [0; 4];
    socket.read_exact(&mut greeting).ok()?;
    Some(String::from_utf8_lossy(&greeting).into_owned())
}

#[test]
fn a_client_of_a_server_for_tcp_gets_to_where_its_rule_leads() {
    let upstream = Upstream::plain(greeter(b"one\n"));
    let yaml = entry("db", upstream.port()) + SERVER + &rules("egress", &to("port: 9000", "db.example", 5432));
    let scene = Scene::new(yaml);
    let mut socket = scene.connect();
    assert_eq!(greeting(&mut socket).as_deref(), Some("one\n"), "the server speaks first");
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the tunnel is open");
    socket.shutdown(Shutdown::Write).expect("the tunnel is open");
    assert_eq!(client::read_to_end(&mut socket), b"GET / HTTP/1.1\r\n\r\n");
    let line = scene.gateway.log().first();
    assert_eq!((line.request.as_str(), line.code, line.flags.as_str()), ("- - -", 0, "-"));
    assert_eq!((line.bytes_received, line.bytes_sent), (18, 22));
    assert_eq!(line.upstream_cluster, "outbound|5432||db.example");
    assert_eq!(line.upstream_host, format!("127.0.0.1:{}", upstream.port()));
    assert_eq!(line.downstream_local, scene.address.to_string());
    assert_eq!((line.server_name.as_str(), line.route.as_str()), ("-", "-"));
    let metrics = scene.gateway.ask("/metrics").expect("the admin endpoint answers");
    let sent = metrics.text().lines().find(|line| line.starts_with("istio_tcp_sent_bytes_total{"));
    assert!(sent.is_some_and(|line| line.contains("db.example") && line.ends_with(" 22")), "{sent:?}");
}

#[test]
fn a_client_that_no_rule_leads_on_is_closed_and_named() {
    let upstream = Upstream::plain(greeter(b"one\n"));
    let yaml = entry("db", upstream.port()) + SERVER + &rules("egress", &to("port: 9001", "db.example", 5432));
    let scene = Scene::new(yaml);
    let mut socket = scene.connect();
    assert_eq!(client::read_to_end(&mut socket), b"");
    let line = scene.gateway.log().first();
    assert_eq!((line.flags.as_str(), line.termination.as_str()), ("NR", "route_not_found"));
    assert_eq!((line.request.as_str(), line.downstream_local.as_str()), ("- - -", &*scene.address.to_string()));
    let denied = "portcullis_denied_total{reason=\"route_not_found\",rule=\"\"}";
    assert_eq!(scene.gateway.metric(denied), Some(1.0));
    let table = scene.gateway.ask("/denied").expect("the admin endpoint answers");
    assert!(table.text().contains("\"127.0.0.1\"") && table.text().contains("\"tcp\""), "{}", table.text());
    assert_eq!(upstream.seen().counts().connections, 0);
    let checked = command().args(["check", "--config"]).arg(scene.gateway.config()).output().expect("it runs");
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(told.contains("spec.servers[0].port") && told.contains("what arrives is refused"), "{told}");
}

#[test]
fn the_rules_of_the_mesh_do_not_hold_at_a_server_for_tcp_and_any_opens_nothing_there() {
    let upstream = Upstream::plain(greeter(b"one\n"));
    let yaml =
        entry("db", upstream.port()).replace("  addresses: [198.51.100.7]\n", "").replace("5432", "9000") + SERVER;
    let mesh = "  outboundTrafficPolicy: {mode: ALLOW_ANY}\n";
    let scene = Scene::with("9000, gateway: true", Gateway::builder().mesh(mesh).resources(yaml));
    assert_eq!(scene.greeting(), None);
    assert_eq!(scene.gateway.log().first().flags, "NR");
}

#[test]
fn sessions_are_shared_out_by_weight() {
    let (one, two) = (Upstream::plain(greeter(b"one\n")), Upstream::plain(greeter(b"two\n")));
    let shares =
        "  - route: [{destination: {host: db.example}, weight: 1}, {destination: {host: other.example}, weight: 1}]\n";
    let yaml = entry("db", one.port()) + &entry("other", two.port()) + SERVER + &rules("egress", shares);
    let scene = Scene::new(yaml);
    for _ in 0..64 {
        assert!(scene.greeting().is_some());
    }
    let counts = [&one, &two].map(|upstream| upstream.seen().counts().connections);
    assert!(counts[0] + counts[1] == 64 && counts.iter().all(|count| *count >= 8), "{counts:?}");
}

#[test]
fn a_client_that_speaks_tls_passes_through_a_server_for_tcp_as_it_is() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("db.example"), service::echo);
    let yaml = entry("db", upstream.port()) + SERVER + &rules("egress", &to("", "db.example", 5432));
    let scene = Scene::new(yaml);
    let mut tls = client::tls(scene.address, "db.example", &authority).expect("a handshake, end to end");
    tls.write_all(b"ping").expect("the tunnel is open");
    client::finish(&mut tls);
    assert_eq!(client::read_to_end(&mut tls), b"ping");
}

#[test]
fn what_a_client_says_goes_out_in_the_tls_of_the_destinations_rule() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("db.example"), greeter(b"one\n"));
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: db}\nspec: {host: db.example, trafficPolicy: {tls: {mode: SIMPLE}}}\n";
    let yaml = entry("db", upstream.port()) + rule + SERVER + &rules("egress", &to("", "db.example", 5432));
    let scene = Scene::with("9000, gateway: true", Gateway::builder().trust(&authority).resources(yaml));
    assert_eq!(scene.greeting().as_deref(), Some("one\n"));
    assert_eq!(upstream.seen().counts().server_names, ["db.example"]);
    let (code, answer) = scene.explain("tcp://127.0.0.1:9000");
    assert_eq!((code, &answer["tls"], &answer["sni"]), (0, &"SIMPLE".into(), &"db.example".into()), "{answer}");
    // Whoever speaks TLS would be encrypted twice.
    let (code, answer) = scene.explain("https://db.example:9000");
    assert_eq!((code, &answer["reason"]), (1, &"client_speaks_tls".into()), "{answer}");
    assert!(client::tls(scene.address, "db.example", &authority).is_err());
    assert_eq!(scene.gateway.log().wait_for(|line| line.flags == "DPE").termination, "client_speaks_tls");
}

#[test]
fn policies_judge_the_clients_of_a_server_for_tcp() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("db.example"), service::echo);
    let base = entry("db", upstream.port()) + SERVER + &rules("egress", &to("", "db.example", 5432));
    let scene = Scene::new(base.clone());
    let passes = |name: &str| client::tls(scene.address, name, &authority).is_ok();
    assert!(passes("db.example"));
    for closed in [
        "{to: [{operation: {ports: ['9000']}}]}",
        "{from: [{source: {ipBlocks: [127.0.0.0/8]}}]}",
        "{when: [{key: connection.sni, values: [db.example]}]}",
    ] {
        scene.gateway.reload(&(base.clone() + &policy(closed)));
        assert!(!passes("db.example"), "{closed}");
    }
    let lines = scene.gateway.log().wait_for_count(4);
    let refused: Vec<_> = lines.iter().filter(|line| line.termination == "rbac_access_denied_matched_policy").collect();
    assert_eq!(refused.len(), 3);
    assert!(refused.iter().all(|line| line.flags == "-"));
    // The names are looked at for the policy alone: another name passes, as far as its certificate.
    assert_eq!(upstream.seen().counts().connections, 1);
    for open in ["{to: [{operation: {ports: ['5432']}}]}", "{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}"] {
        scene.gateway.reload(&(base.clone() + &policy(open)));
        assert!(passes("db.example"), "{open}");
    }
    let audit = policy("{to: [{operation: {ports: ['9000']}}]}").replace("DENY", "AUDIT");
    scene.gateway.reload(&(base + &audit));
    assert!(passes("db.example"));
    let rule = "ns[default]-policy[closed]-rule[0]";
    assert_eq!(scene.gateway.metric(&format!("portcullis_audited_total{{rule=\"{rule}\"}}")), Some(1.0));
    let (_, answer) = scene.explain("tcp://127.0.0.1:9000");
    assert_eq!(answer["audited"], serde_json::json!([rule]));
}

/// The way of TCP from the mesh to the server for TCP, and what follows there.
fn led_through(onward: &str) -> String {
    let way = to("gateways: [mesh], port: 5432", "istio-egressgateway.istio-system.svc.cluster.local", 9000);
    SERVER.to_owned() + &rules("mesh, egress", &(way + onward))
}

#[test]
fn tcp_of_the_mesh_takes_both_hops_and_is_one_line_of_the_log() {
    let (one, two) = (Upstream::plain(greeter(b"one\n")), Upstream::plain(greeter(b"two\n")));
    let own = entry("db", one.port()).replace("  addresses: [198.51.100.7]\n", "");
    let yaml = own + &entry("other", two.port()) + &led_through(&to("gateways: [egress]", "other.example", 5432));
    let scene = Scene::with("5432", Gateway::builder().resources(yaml.clone()));
    assert_eq!(scene.greeting().as_deref(), Some("two\n"));
    let line = scene.gateway.log().first();
    assert_eq!((line.upstream_cluster.as_str(), line.flags.as_str()), ("outbound|5432||other.example", "-"));
    assert_eq!(scene.gateway.log().lines().len(), 1);
    let (code, answer) = scene.explain("tcp://127.0.0.1:5432");
    assert_eq!((code, &answer["cluster"]), (0, &"outbound|5432||other.example".into()), "{answer}");
    let kinds: Vec<_> = answer["objects"].as_array().expect("a list").iter().map(|it| it["kind"].clone()).collect();
    assert!(kinds.contains(&"Gateway".into()) && kinds.contains(&"VirtualService".into()), "{answer}");

    // A server that leads nothing on is a gateway's refusal.
    scene.gateway.reload(&yaml.replace("gateways: [egress]}", "gateways: [egress], port: 1}"));
    assert_eq!(scene.greeting(), None);
    assert_eq!(scene.gateway.log().wait_for(|line| line.flags == "NR").termination, "route_not_found");
    // A port of no server is a destination that does not exist.
    scene.gateway.reload(&yaml.replace("9000", "9001").replace("number: 9001, name", "number: 9000, name"));
    assert_eq!(scene.greeting(), None);
    assert_eq!(scene.gateway.log().wait_for(|line| line.flags == "NC").termination, "cluster_not_found");
}

#[test]
fn subnets_lead_captured_tcp_on_at_the_gateway() {
    in_world(|world| {
        let (one, two) = (Upstream::plain(greeter(b"one\n")), Upstream::plain(greeter(b"two\n")));
        let own = entry("db", one.port()).replace("198.51.100.7", "203.0.113.0/24");
        let onward = to("gateways: [egress], destinationSubnets: [203.0.113.0/28]", "other.example", 5432)
            + &to("gateways: [egress], destinationSubnets: [203.0.113.16/28]", "db.example", 5432);
        let gateway = Gateway::builder()
            .resources(own + &entry("other", two.port()) + &led_through(&onward))
            .setting("limits: {helloTimeout: 1h}\n")
            .capture("[::]:15001", "REDIRECT")
            .start();
        world.capture(Filter::Redirect(15001));
        for (address, expected) in
            [("203.0.113.7", Some("two\n")), ("203.0.113.17", Some("one\n")), ("203.0.113.99", None)]
        {
            let target = format!("{address}:5432").parse().expect("an address");
            let mut socket = world.client(|| client::connect(target));
            assert_eq!(greeting(&mut socket).as_deref(), expected, "{address}");
        }
        let line = gateway.log().wait_for(|line| line.downstream_local == "203.0.113.99:5432");
        assert_eq!(line.flags, "NR");
    });
}

#[test]
fn new_sessions_obey_a_reload_and_those_under_way_go_on() {
    let (one, two) = (Upstream::plain(greeter(b"one\n")), Upstream::plain(greeter(b"two\n")));
    let yaml = |host: &str| {
        let entries = entry("db", one.port()) + &entry("other", two.port());
        entries + SERVER + &rules("egress", &to("", host, 5432))
    };
    let scene = Scene::new(yaml("db.example"));
    let mut first = scene.connect();
    assert_eq!(greeting(&mut first).as_deref(), Some("one\n"));
    scene.gateway.reload(&yaml("other.example"));
    assert_eq!(scene.greeting().as_deref(), Some("two\n"));
    scene.gateway.reload(&yaml("other.example").replace("number: 9000, name: tcp-db", "number: 9001, name: tcp-db"));
    // The port has no server any more: what a client says is looked at, and refused.
    let mut socket = scene.connect();
    socket.write_all(b"\x00\x01").expect("the connection is open for now");
    assert_eq!(client::read_to_end(&mut socket), b"");
    first.write_all(b"ping").expect("the tunnel is open");
    assert_eq!(greeting(&mut first).as_deref(), Some("ping"));
}
