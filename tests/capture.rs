//! Captured traffic: the client connects to somebody else, the packet filter brings it here.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use support::certificates::Authority;
use support::client::{self, Http};
use support::gateway::Gateway;
use support::http::{Reader, framing};
use support::namespace::{Filter, NODE_V4, World, in_world};
use support::resources::{self, GOOGLEAPIS};
use support::service;
use support::stream::Stream;
use support::upstream::{Seen, Upstream};

/// Where captured connections arrive, on all addresses of both families.
const LISTENER: &str = "[::]:15001";

/// Documentation addresses (RFC 5737, RFC 3849) at which nobody listens: where clients believe the service to be.
const SOMEWHERE_V4: &str = "203.0.113.7";
const SOMEWHERE_V6: &str = "2001:db8::7";

fn tls_upstream(authority: &Authority) -> Upstream {
    Upstream::tls(&authority.issue(GOOGLEAPIS), service::http)
}

/// A GET over TLS to `address`, as the client's namespace makes it.
fn get_tls(world: &World, address: &str, authority: &Authority) -> String {
    let address = address.parse().expect("an address");
    let tls = world.client(|| client::tls(address, GOOGLEAPIS, authority)).expect("a handshake");
    let mut reader = Reader::new(tls);
    write!(reader.stream(), "GET /books HTTP/1.1\r\nHost: {GOOGLEAPIS}\r\n\r\n").expect("the tunnel is open");
    let head = reader.head().expect("an answer").expect("an answer");
    let mut body = Vec::new();
    let framing = framing(&head).expect("the upstream frames its answers");
    reader.body(framing, &mut |piece| body.extend_from_slice(piece)).expect("a whole body");
    String::from_utf8(body).expect("text")
}

/// Both families, by name and by plain HTTP, over one kind of capture.
fn names_decide(world: &World, filter: Filter, capture: &str) {
    let authority = Authority::new();
    let tls = tls_upstream(&authority);
    let plain = Upstream::plain(service::http);
    let yaml = [
        resources::passthrough(tls.port()),
        "---\n".to_owned(),
        resources::http_entry("plain", "plain.example", plain.port()),
    ];
    let gateway = Gateway::builder()
        .host(GOOGLEAPIS)
        .host("plain.example")
        .resources(yaml.concat())
        .capture(LISTENER, capture)
        .start();
    world.capture(filter);

    for address in [format!("{SOMEWHERE_V4}:443"), format!("[{SOMEWHERE_V6}]:443")] {
        assert!(get_tls(world, &address, &authority).starts_with("GET /books HTTP/1.1\r\n"));
        let line = gateway.log().wait_for(|line| line.downstream_local == address);
        assert_eq!((line.server_name.as_str(), line.flags.as_str()), (GOOGLEAPIS, "-"));
        assert_eq!(line.upstream_host, format!("127.0.0.1:{}", tls.port()));
    }
    for address in [format!("{SOMEWHERE_V4}:80"), format!("[{SOMEWHERE_V6}]:80")] {
        let target = address.parse().expect("an address");
        let mut client = world.client(|| Http::connect(target));
        assert_eq!(client.get("plain.example", "/hello").status, 200);
        assert_eq!(client.get("other.example", "/hello").status, 502);
        let line = gateway.log().wait_for(|line| line.downstream_local == address && line.code == 200);
        assert_eq!(line.upstream_cluster, "outbound|80||plain.example");
    }
    // The service port is that of the original destination: port 80 opens no TLS, port 443 no plain HTTP.
    let wrong = format!("{SOMEWHERE_V4}:443").parse().expect("an address");
    let answer = world.client(|| Http::connect(wrong)).get("plain.example", "/");
    assert_eq!(answer.status, 502);
    assert!(answer.text().starts_with("plain.example:443 is blocked"), "{}", answer.text());
}

#[test]
fn redirected_connections_are_judged_by_name_at_their_original_port() {
    in_world(|world| names_decide(world, Filter::Redirect(15001), "REDIRECT"));
}

#[test]
fn transparent_connections_are_judged_by_name_at_their_original_port() {
    in_world(|world| names_decide(world, Filter::Tproxy(15001), "TPROXY"));
}

#[test]
fn a_connection_that_was_not_captured_is_refused() {
    in_world(|world| {
        for (bind, capture) in [("0.0.0.0:15001", "REDIRECT"), ("0.0.0.0:15002", "TPROXY")] {
            let gateway = Gateway::builder()
                .resources(resources::http_entry("plain", "plain.example", 1))
                .host("plain.example")
                .capture(bind, capture)
                .start();
            let port = bind.rsplit(':').next().expect("a port");
            let address = format!("{NODE_V4}:{port}");
            let target = address.parse().expect("an address");
            let mut socket = world.client(|| client::connect(target));
            // The gateway may have closed already.
            let _ = socket.write_all(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n");
            assert_eq!(client::read_to_end(&mut socket), b"");
            let line = gateway.log().first();
            assert_eq!((line.flags.as_str(), line.termination.as_str()), ("UH", "not_captured"));
            assert_eq!((line.downstream_local.as_str(), line.upstream_host.as_str()), (address.as_str(), "-"));
        }
    });
}

#[test]
fn allow_any_leads_to_the_original_destination_under_the_address_policy() {
    in_world(|world| {
        world.outside("8.20.30.40/32");
        world.outside("203.0.113.9/32");
        let open = Upstream::plain_on(listen("8.20.30.40:80"), service::http);
        let closed = Upstream::plain_on(listen("203.0.113.9:80"), service::http);
        let gateway = Gateway::builder()
            .mesh("  outboundTrafficPolicy: {mode: ALLOW_ANY}\n")
            .capture(LISTENER, "REDIRECT")
            .start();
        world.capture(Filter::Redirect(15001));

        // The name does not resolve: it is not what is dialled.
        let target = "8.20.30.40:80".parse().expect("an address");
        assert_eq!(world.client(|| Http::connect(target)).get("nowhere.invalid", "/").status, 200);
        let line = gateway.log().wait_for(|line| line.code == 200);
        assert_eq!(line.upstream_cluster, "PassthroughCluster");
        assert_eq!((line.upstream_host.as_str(), line.downstream_local.as_str()), ("8.20.30.40:80", "8.20.30.40:80"));

        let target = "203.0.113.9:80".parse().expect("an address");
        assert_eq!(world.client(|| Http::connect(target)).get("nowhere.invalid", "/").status, 503);
        let line = gateway.log().wait_for(|line| line.code == 503);
        assert_eq!((line.flags.as_str(), line.details.as_str()), ("UH", "address_not_allowed"));
        assert_eq!((open.seen().counts().connections, closed.seen().counts().connections), (1, 0));
    });
}

/// A ServiceEntry for TCP at addresses, which leads to where clients mean to go.
fn tcp_entry(name: &str, addresses: &str, port: u16) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{name}.example]\n  addresses: [{addresses}]\n  ports: [{{number: {port}, name: tcp, protocol: TCP}}]\n  resolution: NONE\n"
    )
}

/// A server that speaks first and then sends back what arrives.
fn greeter(stream: &mut Stream, seen: &Seen) -> std::io::Result<()> {
    stream.write_all(b"220 ready\r\n")?;
    stream.flush()?;
    service::echo(stream, seen)
}

/// Takes the greeting before saying anything, then says something; what comes back.
fn talk(socket: &mut TcpStream) -> String {
    let mut greeting = [0; 11];
    socket.read_exact(&mut greeting).expect("the server speaks first");
    socket.write_all(b"and hello").expect("the tunnel is open");
    socket.shutdown(Shutdown::Write).expect("the tunnel is open");
    let rest = client::read_to_end(socket);
    [String::from_utf8_lossy(&greeting), String::from_utf8_lossy(&rest)].concat()
}

fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).expect("the address is ours")
}

/// Never reached: whoever waits for the client to speak first fails the test.
const PATIENT: &str = "limits: {helloTimeout: 1h}\n";

#[test]
fn tcp_goes_to_its_original_destination_at_once_and_nowhere_else() {
    in_world(|world| {
        let mut servers = Vec::new();
        for address in ["203.0.113.9", "203.0.113.10", "2001:db8::9"] {
            world.outside(address);
            let address = if address.contains(':') { format!("[{address}]:5432") } else { format!("{address}:5432") };
            servers.push(Upstream::plain_on(listen(&address), greeter));
        }
        let gateway = Gateway::builder()
            .resources(tcp_entry("db", "203.0.113.9, '2001:db8::/64'", 5432))
            .setting(PATIENT)
            .capture(LISTENER, "REDIRECT")
            .start();
        world.capture(Filter::Redirect(15001));

        for address in ["203.0.113.9:5432", "[2001:db8::9]:5432"] {
            let target = address.parse().expect("an address");
            let mut socket = world.client(|| client::connect(target));
            assert_eq!(talk(&mut socket), "220 ready\r\nand hello");
            let line = gateway.log().wait_for(|line| line.downstream_local == address);
            assert_eq!((line.request.as_str(), line.code, line.flags.as_str()), ("- - -", 0, "-"));
            assert_eq!((line.upstream_host.as_str(), line.bytes_received, line.bytes_sent), (address, 9, 20));
            assert_eq!(line.upstream_cluster, "outbound|5432||db.example");
            assert_eq!((line.server_name.as_str(), line.route.as_str()), ("-", "-"));
        }

        let target = "203.0.113.10:5432".parse().expect("an address");
        let mut socket = world.client(|| client::connect(target));
        socket.write_all(b"hello").expect("the connection is open for now");
        assert_eq!(client::read_to_end(&mut socket), b"");
        let line = gateway.log().wait_for(|line| line.downstream_local == "203.0.113.10:5432");
        assert_eq!((line.flags.as_str(), line.upstream_cluster.as_str()), ("UH", "BlackHoleCluster"));
        assert_eq!(servers[1].seen().counts().connections, 0);
        let denied = gateway.ask("/denied").expect("the admin endpoint answers");
        assert!(denied.text().contains("\"203.0.113.10\"") && denied.text().contains("\"tcp\""), "{}", denied.text());
        let metrics = gateway.ask("/metrics").expect("the admin endpoint answers");
        let opened = metrics.text().lines().find(|line| line.starts_with("istio_tcp_connections_opened_total{"));
        assert!(opened.is_some_and(|line| line.contains("db.example") && line.ends_with(" 2")), "{opened:?}");
    });
}

/// The published task "Accessing External Services through a proxy": the workload speaks to the proxy of the company, at
/// an address that a TCP entry names, and asks it for whatever it likes.
#[test]
fn a_proxy_opened_by_a_tcp_entry_is_the_way_out() {
    in_world(|world| {
        world.outside("203.0.113.9");
        let proxy = Upstream::plain_on(listen("203.0.113.9:3128"), |stream, _| {
            let mut reader = Reader::new(stream);
            let head = reader.head()?.unwrap_or_default();
            assert!(head.starts_with("CONNECT en.wikipedia.org:443 HTTP/1.1\r\n"), "{head}");
            reader.stream().write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")?;
            reader.stream().finish()
        });
        let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: proxy\nspec:\n  hosts:\n  - my-company-proxy.com # ignored\n  addresses:\n  - 203.0.113.9/32\n  ports:\n  - number: 3128\n    name: tcp\n    protocol: TCP\n  location: MESH_EXTERNAL\n  resolution: NONE\n";
        let gateway = Gateway::builder().resources(entry).capture(LISTENER, "REDIRECT").start();
        world.capture(Filter::Redirect(15001));

        let target = "203.0.113.9:3128".parse().expect("an address");
        let mut socket = world.client(|| client::connect(target));
        socket.write_all(b"CONNECT en.wikipedia.org:443 HTTP/1.1\r\nHost: en.wikipedia.org:443\r\n\r\n").expect("open");
        assert_eq!(client::read_to_end(&mut socket), b"HTTP/1.1 200 Connection Established\r\n\r\n");
        drop(socket);
        let line = gateway.log().wait_for(|line| line.flags == "-");
        assert_eq!(line.upstream_cluster, "outbound|3128||my-company-proxy.com");
        assert_eq!(proxy.seen().counts().connections, 1);
        // Around the proxy nothing passes.
        let target = "203.0.113.9:443".parse().expect("an address");
        let authority = Authority::new();
        assert!(world.client(|| client::tls(target, "en.wikipedia.org", &authority)).is_err());
        assert_eq!(gateway.log().wait_for(|line| line.flags == "UH").server_name, "en.wikipedia.org");
    });
}

/// The database's client speaks in the clear to the address of its database, and verified TLS arrives there.
#[test]
fn captured_tcp_goes_out_in_the_tls_of_its_rule_to_its_original_destination() {
    in_world(|world| {
        let authority = Authority::new();
        world.outside("203.0.113.9");
        let db = Upstream::tls_on(listen("203.0.113.9:5432"), &authority.issue("db.example"), greeter);
        let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: db}\nspec: {host: db.example, trafficPolicy: {tls: {mode: SIMPLE}}}\n";
        let gateway = Gateway::builder()
            .trust(&authority)
            .resources(tcp_entry("db", "203.0.113.9", 5432) + rule)
            .setting(PATIENT)
            .capture(LISTENER, "REDIRECT")
            .start();
        world.capture(Filter::Redirect(15001));

        let target = "203.0.113.9:5432".parse().expect("an address");
        let mut socket = world.client(|| client::connect(target));
        assert_eq!(talk(&mut socket), "220 ready\r\nand hello");
        assert_eq!(db.seen().counts().server_names, ["db.example"]);
        let line = gateway.log().first();
        assert_eq!((line.upstream_host.as_str(), line.flags.as_str()), ("203.0.113.9:5432", "-"));
        assert_eq!((line.bytes_received, line.bytes_sent), (9, 20));
    });
}

#[test]
fn policies_judge_tcp_by_source_destination_port_and_server_name() {
    in_world(|world| {
        let authority = Authority::new();
        for address in ["203.0.113.9", "203.0.113.10"] {
            world.outside(address);
        }
        let one = Upstream::plain_on(listen("203.0.113.9:5432"), greeter);
        let other = Upstream::plain_on(listen("203.0.113.10:5432"), greeter);
        let tls = Upstream::tls_on(listen("203.0.113.9:8443"), &authority.issue(GOOGLEAPIS), service::http);
        let policy = |name: &str, rest: &str| {
            format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec:\n  {rest}\n"
            )
        };
        let entries = [tcp_entry("db", "203.0.113.0/24", 5432), tcp_entry("tls", "203.0.113.9", 8443)].concat();
        let not_there =
            policy("not-there", "action: DENY\n  rules: [{when: [{key: destination.ip, values: [203.0.113.10]}]}]");
        let gateway = Gateway::builder()
            .resources([entries.as_str(), &not_there].concat())
            .setting(PATIENT)
            .capture(LISTENER, "REDIRECT")
            .start();
        world.capture(Filter::Redirect(15001));
        let try_to_talk = |address: &str| {
            let target = address.parse().expect("an address");
            let mut socket = world.client(|| client::connect(target));
            let mut greeting = [0; 3];
            socket.read_exact(&mut greeting).is_ok()
        };

        assert!(try_to_talk("203.0.113.9:5432") && !try_to_talk("203.0.113.10:5432"));
        let line = gateway.log().wait_for(|line| line.downstream_local == "203.0.113.10:5432");
        assert_eq!((line.flags.as_str(), line.termination.as_str()), ("-", "rbac_access_denied_matched_policy"));

        let nobody = policy(
            "nobody",
            "action: DENY\n  rules: [{from: [{source: {ipBlocks: [10.77.0.0/24]}}], to: [{operation: {ports: ['5432']}}]}]",
        );
        gateway.reload(&[entries.as_str(), &nobody].concat());
        assert!(!try_to_talk("203.0.113.9:5432"));

        let targets = "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: tls}]";
        let names = format!("{targets}\n  rules: [{{when: [{{key: connection.sni, values: [{GOOGLEAPIS}]}}]}}]");
        gateway.reload(&[entries.as_str(), &policy("names", &names)].concat());
        // The policy is about another entry: here the server may still speak first.
        assert!(try_to_talk("203.0.113.9:5432"));
        let target = "203.0.113.9:8443".parse().expect("an address");
        assert!(world.client(|| client::tls(target, GOOGLEAPIS, &authority)).is_ok());
        assert!(world.client(|| client::tls(target, "other.example", &authority)).is_err());
        let line = gateway.log().wait_for(|line| line.server_name == "other.example");
        assert_eq!(line.termination, "rbac_access_denied_matched_policy");
        assert_eq!(other.seen().counts().connections, 0);
        assert!(one.seen().counts().connections > 0 && tls.seen().counts().handshakes_full == 1);
    });
}

#[test]
fn allow_any_lets_a_server_speak_first_on_a_port_of_which_nobody_speaks() {
    in_world(|world| {
        world.outside("8.20.30.40");
        let server = Upstream::plain_on(listen("8.20.30.40:2525"), greeter);
        let gateway = Gateway::builder()
            .mesh("  outboundTrafficPolicy: {mode: ALLOW_ANY}\n")
            .setting(PATIENT)
            .capture(LISTENER, "REDIRECT")
            .start();
        world.capture(Filter::Redirect(15001));
        let target = "8.20.30.40:2525".parse().expect("an address");
        let mut socket = world.client(|| client::connect(target));
        assert_eq!(talk(&mut socket), "220 ready\r\nand hello");
        let line = gateway.log().first();
        assert_eq!(
            (line.upstream_cluster.as_str(), line.upstream_host.as_str()),
            ("PassthroughCluster", "8.20.30.40:2525")
        );
        assert_eq!(server.seen().counts().connections, 1);
    });
}

#[test]
fn the_sample_rules_capture_what_leaves_the_node_itself_and_what_passes_through_it() {
    in_world(|world| {
        world.outside("203.0.113.9");
        let server = Upstream::plain_on(listen("203.0.113.9:5432"), greeter);
        let gateway = Gateway::builder()
            .resources(tcp_entry("db", "203.0.113.9", 5432))
            .setting(PATIENT)
            .capture(LISTENER, "REDIRECT")
            .start();
        // Here the gateway has no user of its own, so its connections are told apart by their address; and the outside
        // is on this machine.
        let rules = include_str!("../config/capture/nftables.conf")
            .replace("meta skuid \"portcullis\" return", "ip saddr != 10.77.0.1 return")
            .replace("fib daddr type local return", "ip daddr 10.77.0.1 return");
        world.filter(&rules);

        let mut socket = client::connect_from(NODE_V4, "203.0.113.9:5432");
        assert_eq!(talk(&mut socket), "220 ready\r\nand hello");
        let target = "203.0.113.9:5432".parse().expect("an address");
        let mut socket = world.client(|| client::connect(target));
        assert_eq!(talk(&mut socket), "220 ready\r\nand hello");
        for line in gateway.log().wait_for_count(2) {
            assert_eq!((line.downstream_local.as_str(), line.flags.as_str()), ("203.0.113.9:5432", "-"));
        }
        assert_eq!(server.seen().counts().connections, 2);
    });
}
