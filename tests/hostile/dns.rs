//! Attacks by name servers: silent, failing, lying, endless. Good names are served meanwhile.

use std::net::IpAddr;
use std::time::Instant;

use crate::scene::{HOST, listed};
use crate::stub::{NXDOMAIN, REFUSED, Reply, SERVFAIL, Stub};
use crate::support::gateway::Gateway;
use crate::support::resources;
use crate::support::service;
use crate::support::upstream::Upstream;

fn here() -> Vec<IpAddr> {
    vec!["127.0.0.1".parse().expect("an address")]
}

/// What each name gets. Every name that gets the address at all would be reached: nothing else stands in the way.
fn answers(name: &str) -> Reply {
    match name.split('.').next().unwrap_or_default() {
        "good" => Reply::Addresses(here(), 60),
        "elsewhere" => Reply::Addresses(here(), 60),
        "alias" => Reply::AliasOf("elsewhere.example".to_owned(), here()),
        "truncated" => Reply::Truncated(here()),
        "four-only" => Reply::FourOnly(here()),
        "many" => Reply::Addresses((0..60_u8).map(|last| [127, 0, 0, last].into()).collect(), u32::MAX),
        "loop" => Reply::Alias("loop.example.com".to_owned()),
        "chain" => Reply::Alias(format!("chain.x{name}")),
        "nobody" => Reply::Fault(NXDOMAIN),
        "broken" => Reply::Fault(SERVFAIL),
        "refused" => Reply::Fault(REFUSED),
        "garbage" => Reply::Garbage,
        "wrong-number" => Reply::WrongNumber(here()),
        "wrong-name" => Reply::WrongName(here()),
        "empty" => Reply::Addresses(Vec::new(), 60),
        "truncated-for-ever" => Reply::TruncatedForEver,
        _ => Reply::Silence,
    }
}

const UNRESOLVED: [&str; 11] = [
    "nobody",
    "broken",
    "refused",
    "empty",
    "loop",
    "chain",
    "garbage",
    "wrong-number",
    "wrong-name",
    "truncated-for-ever",
    "silent",
];

fn gateway(stub: &Stub, upstream: &Upstream) -> Gateway {
    let any = [
        resources::http_entry("any", "*.example.com", upstream.port()),
        resources::http_entry("other", "*.example.net", upstream.port()),
    ];
    let any = any.concat().replace("DNS", "DYNAMIC_DNS");
    Gateway::builder()
        .host(HOST)
        .dns(&stub.setting())
        .setting("addressPolicy: {allow: [127.0.0.1/32]}\n")
        .resources(listed(upstream.port()) + &any)
        .start()
}

#[test]
fn name_servers_that_fail_lie_or_loop_end_in_a_refusal_and_stop_nobody_else() {
    let (stub, upstream) = (Stub::start(answers), Upstream::plain(service::http));
    let gateway = gateway(&stub, &upstream);
    let mut waiting: Vec<_> = UNRESOLVED
        .iter()
        .map(|name| {
            let mut client = gateway.client();
            client.send(format!("GET / HTTP/1.1\r\nHost: {name}.example.com\r\n\r\n"));
            (*name, client)
        })
        .collect();
    for _ in 0..50 {
        let started = Instant::now();
        assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
        assert!(started.elapsed().as_secs() < 5, "a good name waited for bad ones");
    }
    for (name, client) in &mut waiting {
        assert_eq!(client.response().status, 503, "{name}");
        let host = format!("{name}.example.com");
        let line = gateway.log().wait_for(|line| line.authority == host);
        assert_eq!((line.flags.as_str(), line.details.as_str()), ("UH", "dns_resolution_failure"), "{name}");
        assert_ne!(line.transport_failure, "-", "{name}");
    }
    let requests = upstream.seen().counts().requests;
    assert!(requests.iter().all(|head| head.contains("Host: api.example.com\r\n")), "{requests:?}");
}

#[test]
fn honest_answers_in_unusual_forms_are_taken() {
    let (stub, upstream) = (Stub::start(answers), Upstream::plain(service::http));
    let gateway = gateway(&stub, &upstream);
    for name in ["good", "alias", "truncated", "many"] {
        assert_eq!(gateway.client().get(&format!("{name}.example.com"), "/bytes/1").status, 200, "{name}");
    }
}

#[test]
fn a_name_server_that_drops_the_questions_of_one_family_delays_nobody_for_long() {
    let (stub, upstream) = (Stub::start(answers), Upstream::plain(service::http));
    let gateway = gateway(&stub, &upstream);
    let started = Instant::now();
    assert_eq!(gateway.client().get("four-only.example.com", "/bytes/1").status, 200);
    assert!(started.elapsed().as_secs() < 2, "the silent family was waited for");
}

#[test]
fn a_name_is_asked_for_once_however_many_want_it_and_a_no_is_remembered() {
    let (stub, upstream) = (Stub::start(answers), Upstream::plain(service::http));
    let gateway = gateway(&stub, &upstream);
    let mut clients: Vec<_> = (0..50).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: nobody.example.com\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response().status, 503);
    }
    // Once for each family.
    assert_eq!(stub.asked().iter().filter(|name| *name == "nobody.example.com").count(), 2, "{:?}", stub.asked());
}

#[test]
fn a_flood_of_unlisted_names_asks_nobody() {
    let (stub, upstream) = (Stub::start(answers), Upstream::plain(service::http));
    let gateway = gateway(&stub, &upstream);
    let mut client = gateway.client();
    for count in 0..300 {
        assert_eq!(client.get(&format!("flood-{count}.example.org"), "/").status, 502);
    }
    assert_eq!(stub.asked(), [""; 0]);
}

#[test]
fn a_flood_of_names_that_nobody_answers_leaves_room_for_others() {
    let (stub, upstream) = (Stub::start(answers), Upstream::plain(service::http));
    let gateway = gateway(&stub, &upstream);
    let _waiting: Vec<_> = (0..500)
        .map(|count| {
            let mut client = gateway.client();
            client.send(format!("GET / HTTP/1.1\r\nHost: silent.n{count}.example.com\r\n\r\n"));
            client
        })
        .collect();
    assert_eq!(gateway.client().get(HOST, "/bytes/1").status, 200);
    // A name of another domain that has to be asked for does not wait behind them.
    let started = Instant::now();
    assert_eq!(gateway.client().get("good.example.net", "/bytes/1").status, 200);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    assert!(gateway.peak_memory_kib() < 128 * 1024);
}
