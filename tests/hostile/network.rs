//! Attacks by addresses: names that lead where no name has business, and back into the gateway.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hello::Hello;
use crate::scene::{alert, answer_to_tls};
use crate::stub::{NXDOMAIN, Reply, Stub};
use crate::support::certificates::Authority;
use crate::support::client;
use crate::support::gateway::{Builder, Gateway};
use crate::support::resources;
use crate::support::service;
use crate::support::upstream::Upstream;
use crate::support::wait_until;

/// Where names must not lead, and the word for it in the log.
const CLOSED: [(&str, &str); 33] = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("0.0.0.1", "this-network"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("192.168.0.1", "private"),
    ("100.64.0.1", "shared"),
    ("169.254.1.1", "link-local"),
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "metadata"),
    ("100.100.100.200", "metadata"),
    ("168.63.129.16", "metadata"),
    ("192.0.0.192", "metadata"),
    ("198.18.0.1", "benchmarking"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::127.0.0.1", "v4-compatible"),
    ("64:ff9b::7f00:1", "nat64"),
    ("64:ff9b::a9fe:a9fe", "nat64"),
    ("64:ff9b:1::a00:1", "nat64"),
    ("2002:7f00:1::", "6to4"),
    ("2001:0:4136:e378:8000:63bf:80ff:fffe", "teredo"),
    ("fd00:ec2::254", "metadata"),
    ("fc00::1", "unique-local"),
    ("fe80::1", "link-local"),
    ("ff02::1", "multicast"),
];

/// Lets every name below `example.com` through on both ports, to the port that its own upstream would have.
fn anything_below_example(port: u16) -> String {
    let any =
        [resources::tls_entry("tls", "*.example.com", port), resources::http_entry("http", "*.example.com", port)];
    any.concat().replace("resolution: DNS", "resolution: DYNAMIC_DNS")
}

fn resolving(stub: &Stub, port: u16) -> Builder {
    Gateway::builder().dns(&stub.setting()).resources(anything_below_example(port))
}

/// The number in `n12.example.com`.
fn number(name: &str) -> usize {
    let digits = name.trim_start_matches('n').split('.').next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number in {name}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_name_that_leads_to_a_closed_address_is_refused_with_its_class() {
    let stub = Stub::start(|name| Reply::Addresses(vec![ip(CLOSED[number(name)].0)], 60));
    let upstream = Upstream::plain(service::http);
    let gateway = resolving(&stub, upstream.port()).start();
    for (index, (address, class)) in CLOSED.into_iter().enumerate() {
        let name = format!("n{index}.example.com");
        assert_eq!(gateway.client().get(&name, "/").status, 503, "{address}");
        let answer = answer_to_tls(&gateway, &Hello::named(name.as_bytes()).bytes());
        assert_eq!(alert(&answer), Some([2, 80]), "{address}");
        let lines = gateway.log().wait_for_count(2 * index + 2);
        assert_eq!(lines.len(), 2 * index + 2, "{address}");
        for line in &lines[2 * index..] {
            assert_eq!(line.flags, "UH", "{address}: {line:?}");
            assert!(line.transport_failure.contains(class), "{address}: {line:?}");
            assert_eq!(line.upstream_local, "-", "{address}: {line:?}");
        }
        assert_eq!(lines[2 * index].details, "address_not_allowed");
        assert_eq!(lines[2 * index + 1].termination, "address_not_allowed");
    }
    assert_eq!(upstream.seen().counts().connections, 0);
}

#[test]
fn of_many_addresses_only_the_open_ones_are_dialled() {
    let closed = CLOSED.map(|(address, _)| ip(address)).to_vec();
    let stub = Stub::start(move |_| Reply::Addresses([&closed[..10], &[ip("127.0.0.2")], &closed[10..]].concat(), 60));
    let authority = Authority::new();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("all of 127.0.0.0/8 is ours");
    let open = Upstream::tls_on(listener, &authority.issue("a.example.com"), service::http);
    // At 127.0.0.1, on the same port, sits somebody whom nobody may reach.
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, open.port())).expect("the port is free on this address");
    closed.set_nonblocking(true).expect("a socket");
    let gateway = resolving(&stub, open.port()).setting("addressPolicy: {allow: [127.0.0.2/32]}\n").start();
    for _ in 0..20 {
        client::tls(gateway.tls(), "a.example.com", &authority).expect("the open address is reached");
    }
    assert_eq!(open.seen().counts().connections, 20);
    closed.accept().expect_err("nobody dialled the closed address");
}

#[test]
fn a_name_that_changes_its_address_is_judged_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let stub = Stub::start(move |_| {
        let first = counter.fetch_add(1, Ordering::Relaxed) < 2;
        Reply::Addresses(vec![if first { ip("127.0.0.2") } else { ip("127.0.0.1") }], 0)
    });
    let authority = Authority::new();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).expect("all of 127.0.0.0/8 is ours");
    let open = Upstream::tls_on(listener, &authority.issue("a.example.com"), service::http);
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, open.port())).expect("the port is free on this address");
    closed.set_nonblocking(true).expect("a socket");
    let gateway = resolving(&stub, open.port()).setting("addressPolicy: {allow: [127.0.0.2/32]}\n").start();
    client::tls(gateway.tls(), "a.example.com", &authority).expect("the open address is reached");
    // The answer may be used for a second, the least there is, and not for longer.
    wait_until("the new address to be refused", || client::tls(gateway.tls(), "a.example.com", &authority).err());
    gateway.log().wait_for(|line| line.flags == "UH" && line.transport_failure.contains("loopback"));
    closed.accept().expect_err("nobody dialled the closed address");
}

#[test]
fn the_gateway_is_never_dialled_whoever_points_at_it() {
    let stub = Stub::start(|name| match name {
        "four.example.com" => Reply::Addresses(vec![ip("127.0.0.1")], 60),
        "any.example.com" => Reply::Addresses(vec![ip("0.0.0.0")], 60),
        "mapped.example.com" => Reply::Addresses(vec![ip("::ffff:127.0.0.1")], 60),
        _ => Reply::Fault(NXDOMAIN),
    });
    let setting = "addressPolicy: {allow: [0.0.0.0/0, '::/0']}\n";
    let gateway = resolving(&stub, 9).setting(setting).start();
    for own in [gateway.admin(), gateway.http(), gateway.tls()] {
        gateway.reload(&anything_below_example(own.port()));
        for name in ["four.example.com", "any.example.com", "mapped.example.com"] {
            let response = gateway.client().get(name, "/server_info");
            assert_eq!(response.status, 503, "{name} {own}: {}", response.text());
            let answer = answer_to_tls(&gateway, &Hello::named(name.as_bytes()).bytes());
            assert_eq!(alert(&answer), Some([2, 80]), "{name} {own}");
        }
        let fixed = resources::http_entry("own", "fixed.example.org", own.port());
        let fixed = fixed.replace("resolution: DNS\n", "resolution: STATIC\n  endpoints: [{address: 127.0.0.1}]\n");
        gateway.try_reload(&fixed);
        let status = gateway.client().get("fixed.example.org", "/server_info").status;
        assert!(matches!(status, 502 | 503), "{own}: {status}");
        gateway.reload("");
    }
    assert!(gateway.log().lines().iter().all(|line| matches!(line.flags.as_str(), "UH" | "-") && line.code != 200));
}

#[test]
fn a_port_that_takes_no_connections_is_given_up_at_the_connect_timeout() {
    // A queue of one, full: the kernel drops what comes behind, as a firewall would.
    let full = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    rustix::net::listen(&full, 0).expect("a listener");
    let address = full.local_addr().expect("a bound socket has an address");
    let _fill: Vec<_> = (0..4)
        .map(|_| {
            let socket = rustix::net::socket_with(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::STREAM,
                rustix::net::SocketFlags::NONBLOCK,
                None,
            )
            .expect("a descriptor is left");
            let _ = rustix::net::connect(&socket, &address);
            socket
        })
        .collect();
    let gateway = Gateway::builder()
        .host("api.example.com")
        .mesh("  connectTimeout: 300ms\n")
        .resources(crate::scene::listed(address.port()))
        .start();
    let mut socket = client::connect(gateway.tls());
    socket.write_all(&client::hello("api.example.com")).expect("the gateway reads");
    assert_eq!(client::read_to_end(&mut socket), b"");
    assert_eq!(gateway.client().get("api.example.com", "/").status, 503);
    for line in gateway.log().wait_for_count(2) {
        assert_eq!(line.flags, "UF", "{line:?}");
        assert!(line.transport_failure.contains("no answer within"), "{line:?}");
    }
}

#[test]
fn a_gateway_that_listens_everywhere_is_dialled_at_none_of_its_addresses() {
    // An address of this machine that is not loopback, if it has a way out at all.
    let outside = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let mut own = vec![ip("127.0.0.1"), ip("127.8.8.8"), ip("0.0.0.0"), ip("::ffff:127.9.9.9")];
    own.extend(outside.ok().map(|address| address.ip()));
    let addresses = own.clone();
    let stub = Stub::start(move |name| Reply::Addresses(vec![addresses[number(name)]], 60));
    let setting = "addressPolicy: {allow: [0.0.0.0/0, '::/0']}\n";
    let gateway = resolving(&stub, 9).everywhere().setting(setting).start();
    gateway.reload(&anything_below_example(gateway.http().port()));
    for (index, address) in own.iter().enumerate() {
        let name = format!("n{index}.example.com");
        assert_eq!(gateway.client().get(&name, "/").status, 503, "{address}");
        let line = gateway.log().wait_for(|line| line.authority == name);
        assert_eq!((line.flags.as_str(), line.details.as_str()), ("UH", "address_not_allowed"), "{address}: {line:?}");
    }
}

#[test]
fn no_attempt_dials_an_address_that_was_not_judged() {
    // Nobody listens at the first address, so that every attempt fails and asks again.
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let stub = Stub::start(move |_| {
        let open = counter.fetch_add(1, Ordering::Relaxed) % 4 < 2;
        Reply::Addresses(vec![if open { ip("127.0.0.2") } else { ip("127.0.0.1") }], 0)
    });
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    closed.set_nonblocking(true).expect("a socket");
    let port = closed.local_addr().expect("a bound socket").port();
    let route =
        "  - retries: {attempts: 5, retryOn: connect-failure}\n    route: [{destination: {host: a.example.com}}]\n";
    let yaml =
        resources::http_entry("a", "a.example.com", port) + &resources::virtual_service("a", "a.example.com", route);
    let gateway = Gateway::builder()
        .dns(&stub.setting())
        .setting("addressPolicy: {allow: [127.0.0.2/32]}\n")
        .resources(yaml)
        .start();
    let seen = |flag: &str| gateway.log().lines().iter().filter(|line| line.flags == flag).count();
    wait_until("answers of both kinds, twice", || {
        assert_eq!(gateway.client().get("a.example.com", "/").status, 503);
        (seen("UF") > 1 && seen("UH") > 1 && count.load(Ordering::Relaxed) > 8).then_some(())
    });
    closed.accept().expect_err("nobody dialled the closed address");
}

/// Says to a test that it runs in a network of its own, with few ports.
const FEW_PORTS: &str = "PORTCULLIS_TEST_FEW_PORTS";

#[test]
fn an_upstream_for_which_no_port_is_left_is_named_and_recovers() {
    if std::env::var_os(FEW_PORTS).is_some() {
        return exhaust_ports();
    }
    let this = std::env::current_exe().expect("a test is a file");
    let name = "network::an_upstream_for_which_no_port_is_left_is_named_and_recovers";
    let prepare = "ip link set lo up && echo 40000 40023 > /proc/sys/net/ipv4/ip_local_port_range";
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", &format!("{prepare} || exit 77; exec \"$0\" --exact {name} --nocapture")])
        .arg(this)
        .env(FEW_PORTS, "1")
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if output.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Ok(_) | Err(_) => eprintln!("NOT TESTED: no network namespace of its own for this test"),
    }
}

fn exhaust_ports() {
    let upstream = Upstream::plain(service::http);
    let host = "api.example.com";
    let gateway = Gateway::builder().host(host).resources(crate::scene::listed(upstream.port())).start();
    let mut tunnels = Vec::new();
    // Client and gateway run out of ports in the same moment, as each tunnel takes one of both.
    while let Ok(mut socket) = TcpStream::connect(gateway.tls()) {
        socket.write_all(&client::hello(host)).expect("the gateway reads");
        tunnels.push(socket);
        assert!(tunnels.len() <= 24, "more tunnels than ports");
    }
    upstream.seen().wait_for("the tunnels", |counts| counts.connections == tunnels.len());
    assert_eq!(gateway.client().get(host, "/").status, 503);
    let line = gateway.log().wait_for(|line| line.flags == "UF");
    assert!(line.transport_failure.contains("assign requested address"), "{line:?}");
    assert_eq!(gateway.client().get("evil.example", "/").status, 502);
    drop(tunnels);
    wait_until("a port to be free", || (gateway.client().get(host, "/bytes/1").status == 200).then_some(()));
}
