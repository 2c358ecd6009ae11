//! The resolver against a name server of its own, on loopback.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;
use crate::limits::{DNS_STALE_MAX, DNS_TTL_MIN};

/// Answers by the first label of the name: see [`answer`]. Counts its queries.
struct NameServer {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = queries.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                let query = Message::from_vec(&buffer[..length]).unwrap();
                socket.send_to(&answer(&query).to_vec().unwrap(), client).await.unwrap();
            }
        });
        Self { address, queries }
    }

    fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

fn answer(query: &Message) -> Message {
    let question = query.queries[0].clone();
    let name = question.name().clone();
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_available = true;
    message.add_query(question.clone());
    let four = RData::A(A::new(192, 0, 2, 7));
    let six = RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
    let label = name.iter().next().unwrap().to_ascii_lowercase();
    let data = if question.query_type() == RecordType::A { four } else { six };
    match label.as_slice() {
        b"absent" => message.metadata.response_code = ResponseCode::NXDomain,
        b"broken" => message.metadata.response_code = ResponseCode::ServFail,
        b"alias" => {
            let target = Name::from_ascii("target.example.").unwrap();
            message.add_answer(Record::from_rdata(name, 60, RData::CNAME(CNAME(target.clone()))));
            message.add_answer(Record::from_rdata(target, 60, data));
        }
        b"brief" => {
            message.add_answer(Record::from_rdata(name, 0, data));
        }
        _ => {
            message.add_answer(Record::from_rdata(name, 600, data));
        }
    }
    message
}

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn dns(servers: Vec<SocketAddr>) -> Dns {
    Dns { servers, hosts: Vec::new() }
}

fn both_addresses() -> Vec<IpAddr> {
    vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]
}

/// Asks and waits for the reply.
async fn resolve(resolver: &mut Resolver, finished: &mut UnboundedReceiver<Finished>, text: &str) -> Reply {
    if let Some(reply) = resolver.ask(0, &name(text), Instant::now()) {
        return reply;
    }
    let ended = finished.recv().await.unwrap();
    resolver.finish(ended, Instant::now()).2
}

#[tokio::test]
async fn a_name_has_the_addresses_of_both_families_and_is_asked_for_once() {
    let server = NameServer::start().await;
    let (mut resolver, mut finished) = Resolver::new(dns(vec![server.address]));
    let first = resolve(&mut resolver, &mut finished, "www.example").await.unwrap();
    assert_eq!(first.addresses, both_addresses());
    assert!(!first.configured && first.valid > Duration::from_secs(590) && first.valid <= Duration::from_secs(600));
    let again = resolver.ask(1, &name("www.example"), Instant::now()).unwrap().unwrap();
    assert_eq!(again.addresses, both_addresses());
    assert_eq!(server.queries(), 2);
}

#[tokio::test]
async fn workers_that_ask_for_one_name_share_one_look_up() {
    let server = NameServer::start().await;
    let (mut resolver, mut finished) = Resolver::new(dns(vec![server.address]));
    for worker in [0, 1, 1, 2] {
        assert!(resolver.ask(worker, &name("www.example"), Instant::now()).is_none());
    }
    let ended = finished.recv().await.unwrap();
    let (resolved, workers, reply) = resolver.finish(ended, Instant::now());
    assert_eq!((resolved, workers), (name("www.example"), vec![0, 1, 2]));
    assert!(reply.is_ok());
    assert_eq!(server.queries(), 2);
}

#[tokio::test]
async fn names_are_absolute_and_aliases_are_followed() {
    let server = NameServer::start().await;
    let (mut resolver, mut finished) = Resolver::new(dns(vec![server.address]));
    assert_eq!(resolve(&mut resolver, &mut finished, "alias.example").await.unwrap().addresses, both_addresses());
    assert_eq!(resolve(&mut resolver, &mut finished, "absent").await.unwrap_err().reason, "NXDOMAIN");
    assert_eq!(server.queries(), 4);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_remembered() {
    let server = NameServer::start().await;
    let (mut resolver, mut finished) = Resolver::new(dns(vec![server.address]));
    resolve(&mut resolver, &mut finished, "absent.example").await.unwrap_err();
    let asked = server.queries();
    let again = resolver.ask(0, &name("absent.example"), Instant::now()).unwrap().unwrap_err();
    assert_eq!(again.reason, "NXDOMAIN");
    assert_eq!((server.queries(), resolver.counts()["absent"]), (asked, 1));
}

#[tokio::test]
async fn a_validity_of_zero_is_raised_to_the_floor() {
    let server = NameServer::start().await;
    let (mut resolver, mut finished) = Resolver::new(dns(vec![server.address]));
    assert_eq!(resolve(&mut resolver, &mut finished, "brief.example").await.unwrap().valid, DNS_TTL_MIN);
}

#[tokio::test]
async fn hosts_of_the_operator_come_first_and_cost_no_query() {
    let server = NameServer::start().await;
    let hosts = vec![(name("www.example"), vec![IpAddr::from([10, 0, 0, 1])])];
    let (mut resolver, _finished) = Resolver::new(Dns { servers: vec![server.address], hosts });
    let answer = resolver.ask(0, &name("www.example"), Instant::now()).unwrap().unwrap();
    assert_eq!((answer.addresses, answer.configured), (vec![IpAddr::from([10, 0, 0, 1])], true));
    assert_eq!(server.queries(), 0);
}

#[tokio::test]
async fn a_failure_is_told_and_asked_again() {
    let server = NameServer::start().await;
    let (mut resolver, mut finished) = Resolver::new(dns(vec![server.address]));
    assert_eq!(resolve(&mut resolver, &mut finished, "broken.example").await.unwrap_err().valid, DNS_FAILURE_TTL);
    assert_eq!(resolver.counts()["error"], 1);
    assert!(resolver.ask(0, &name("broken.example"), Instant::now()).is_none());
}

#[tokio::test]
async fn the_last_answer_serves_while_the_name_servers_fail_and_not_for_ever() {
    let server = NameServer::start().await;
    let (mut resolver, mut finished) = Resolver::new(dns(vec![server.address]));
    resolve(&mut resolver, &mut finished, "www.example").await.unwrap();
    let expired = Instant::now() + Duration::from_secs(601);
    let failed =
        || Finished { name: name("www.example"), outcome: Outcome::Failed("timeout".to_owned(), "timeout"), epoch: 0 };

    assert!(resolver.ask(0, &name("www.example"), expired).is_none());
    let (_, _, reply) = resolver.finish(failed(), expired);
    let answer = reply.unwrap();
    assert_eq!((answer.addresses, answer.valid), (both_addresses(), DNS_STALE_TTL));
    assert_eq!(resolver.counts()["stale"], 1);

    assert!(resolver.ask(0, &name("www.example"), expired + DNS_STALE_MAX).is_none());
    let (_, _, reply) = resolver.finish(failed(), expired + DNS_STALE_MAX);
    assert_eq!(reply.unwrap_err().reason, "timeout");
}

#[tokio::test]
async fn names_that_wait_are_bounded_and_so_are_look_ups() {
    let server = NameServer::start().await;
    let (mut resolver, _finished) = Resolver::new(dns(vec![server.address]));
    for number in 0..DNS_WAITING_MAX {
        assert!(resolver.ask(0, &name(&format!("host-{number}.example")), Instant::now()).is_none());
    }
    assert_eq!(resolver.running, DNS_LOOKUPS_MAX);
    assert!(resolver.ask(0, &name("one-more.example"), Instant::now()).unwrap().is_err());
    assert_eq!(resolver.counts()["overload"], 1);
}

#[tokio::test]
async fn new_name_servers_are_asked_afresh() {
    let (old, new) = (NameServer::start().await, NameServer::start().await);
    let (mut resolver, mut finished) = Resolver::new(dns(vec![old.address]));
    resolve(&mut resolver, &mut finished, "www.example").await.unwrap();
    assert!(resolver.ask(0, &name("late.example"), Instant::now()).is_none());
    resolver.configure(dns(vec![new.address]));
    let late = finished.recv().await.unwrap();
    resolver.finish(late, Instant::now()).2.unwrap();
    for asked in ["www.example", "late.example"] {
        resolve(&mut resolver, &mut finished, asked).await.unwrap();
    }
    assert_eq!((old.queries(), new.queries()), (4, 4));
}
