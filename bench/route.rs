//! What a decision costs: host lookup by number of hosts, routes of a thousand virtual hosts, the copy that each
//! worker takes at a reload, and path normalisation.
//!
//! Lookups go through many names in an order that no prefetcher foresees, as real traffic does; one name over and
//! over would only measure the first-level cache.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use portcullis::route::cluster::{ClusterId, Destination, Weighted};
use portcullis::route::host::{HostName, HostPattern};
use portcullis::route::http::{Forward, HttpAction, HttpMatch, HttpRoute, RequestFacts, RetryPolicy, TextMatch};
use portcullis::route::path::{Normalization, normalize};
use portcullis::route::table::{ObjectRefs, VirtualHost};
use portcullis::route::trie::HostTrie;

/// Names looked up in one round.
const NAMES: u32 = 4096;

fn name(text: &str) -> HostName {
    text.parse().expect("a valid name")
}

/// Makes a name of a number.
type Spelling = fn(u32) -> String;

/// A trie of `hosts` patterns: three of four exact, one of four a wildcard, in zones of a hundred.
fn trie(hosts: u32) -> HostTrie {
    let mut trie = HostTrie::default();
    for index in 0..hosts {
        let pattern = HostPattern::parse(&pattern(index)).expect("a valid pattern");
        trie.insert(&pattern, index).expect("patterns are distinct");
    }
    trie
}

fn pattern(index: u32) -> String {
    let zone = index / 100;
    match index % 4 {
        0 => format!("*.tenant-{index}.zone-{zone}.com"),
        _ => format!("api-{index}.zone-{zone}.com"),
    }
}

/// Names spread evenly over all hosts, in an order without a pattern.
fn names(hosts: u32, of: impl Fn(u32) -> String) -> Vec<HostName> {
    // Multiples of the golden ratio visit the numbers below 2^32 evenly.
    let spread = |round: u32| u64::from(round.wrapping_mul(0x9e37_79b1)) * u64::from(hosts);
    (0..NAMES).map(|round| name(&of((spread(round) >> 32) as u32))).collect()
}

fn exact(index: u32) -> String {
    let index = if index.is_multiple_of(4) { index + 1 } else { index };
    pattern(index)
}

fn below(index: u32) -> String {
    pattern(index - index % 4).replace('*', "a.b")
}

fn stranger_in_a_zone(index: u32) -> String {
    format!("x{}", exact(index))
}

fn stranger(index: u32) -> String {
    format!("api.attacker-{index}.com")
}

/// Looks every name up, each only when the one before is known: the processor could otherwise overlap their waits for
/// memory, which sessions never let it do.
fn one_by_one(trie: &HostTrie, names: &[HostName]) -> u32 {
    let none_of_it = black_box(0);
    (0..names.len())
        .fold(0, |found, index| trie.find(&names[index + (found & none_of_it) as usize]).unwrap_or_default())
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("host");
    group.throughput(Throughput::Elements(u64::from(NAMES)));
    for hosts in [12, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let trie = trie(hosts).clone();
        println!("{hosts} hosts: {} bytes each", trie.heap_bytes() / hosts as usize);
        let kinds: [(&str, Spelling); 4] =
            [("exact", exact), ("wildcard", below), ("miss in a zone", stranger_in_a_zone), ("miss", stranger)];
        for (kind, of) in kinds {
            let names = names(hosts, of);
            let hit = matches!(kind, "exact" | "wildcard");
            assert!(names.iter().all(|name| trie.find(name).is_some() == hit), "{kind} of {hosts}");
            group.bench_function(BenchmarkId::new(kind, hosts), |bencher| bencher.iter(|| one_by_one(&trie, &names)));
        }
    }
    group.finish();
}

fn copies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("trie");
    for hosts in [100_000, 1_000_000] {
        let trie = trie(hosts);
        group.bench_function(BenchmarkId::new("clone", hosts), |bencher| {
            bencher.iter_batched(|| (), |()| trie.clone(), BatchSize::PerIteration);
        });
    }
    group.bench_function(BenchmarkId::new("build", 100_000), |bencher| {
        let patterns: Vec<_> = (0..100_000).map(|index| HostPattern::parse(&pattern(index)).expect("valid")).collect();
        bencher.iter(|| {
            let mut trie = HostTrie::default();
            for (value, pattern) in (0..).zip(&patterns) {
                trie.insert(pattern, value).expect("patterns are distinct");
            }
            trie
        });
    });
    group.finish();
}

/// A GET with a few fields.
struct Request {
    authority: String,
    path: &'static str,
}

impl RequestFacts for Request {
    fn method(&self) -> &str {
        "GET"
    }
    fn path(&self) -> &str {
        self.path
    }
    fn query(&self) -> &str {
        "alt=json&key=value"
    }
    fn authority(&self) -> &str {
        &self.authority
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let fields = [("accept", "*/*"), ("user-agent", "bench"), ("x-team", "payments")];
        fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into())
    }
}

fn route(name: &str, matches: Vec<HttpMatch>) -> HttpRoute {
    let forward = Forward {
        clusters: Weighted::single(Destination::Cluster(ClusterId(0))),
        timeout: None,
        retry: RetryPolicy::default(),
        rewrite_path: None,
        edits: Vec::new(),
        mirrors: None,
    };
    HttpRoute { name: name.into(), matches, cors: None, fault: None, action: HttpAction::Forward(forward) }
}

/// Five routes, of which the last matches: by expression, by header, by method and prefix, by exact path, by prefix.
fn virtual_host(index: u32) -> VirtualHost {
    let expression = regex::Regex::new("^(?:/health|/sport/[0-9]+)$").expect("a valid expression");
    let path = |condition| HttpMatch { path: Some(condition), ..HttpMatch::default() };
    let team = ("x-team".into(), TextMatch::Exact("search".into()));
    let post = TextMatch::Exact("POST".into());
    let routes = vec![
        route("expression", vec![path(TextMatch::Regex(expression))]),
        route("team", vec![HttpMatch { headers: vec![team], ..HttpMatch::default() }]),
        route("write", vec![HttpMatch { method: Some(post), ..path(TextMatch::Prefix("/v1/".into())) }]),
        route("exact", vec![path(TextMatch::Exact("/v1/projects".into()))]),
        route("read", vec![path(TextMatch::Prefix("/v1/".into()))]),
    ];
    VirtualHost { host: pattern(index).into(), objects: ObjectRefs::new(), routes }
}

fn routes(criterion: &mut Criterion) {
    let (trie, hosts) = (trie(1_000), (0..1_000).map(virtual_host).collect::<Vec<_>>());
    let names = names(1_000, exact);
    let requests: Vec<_> =
        names.iter().map(|name| Request { authority: name.to_string(), path: "/v1/projects/a/topics" }).collect();
    let mut group = criterion.benchmark_group("http");
    group.throughput(Throughput::Elements(u64::from(NAMES)));
    group.bench_function("host and fifth route of five, 1000 virtual hosts", |bencher| {
        bencher.iter(|| {
            let decided = names.iter().zip(&requests).filter(|(name, request)| {
                let host = trie.find(name).and_then(|index| hosts.get(index as usize));
                host.and_then(|host| host.decide(*request)).is_some()
            });
            assert_eq!(decided.count(), NAMES as usize);
        });
    });
    group.finish();
}

fn paths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    let cases = [
        ("normal, 33 bytes", "/v1/projects/a/topics/b:publish-x"),
        ("kept escapes, 33 bytes", "/v1/projects/a%20b/topics/b%3Ac/d"),
        ("rewritten, 33 bytes", "/v1/./projects/%61/../topics//b-c"),
    ];
    for (kind, path) in cases {
        group.bench_function(kind, |bencher| bencher.iter(|| normalize(black_box(path), Normalization::MergeSlashes)));
    }
    group.finish();
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = decisions; config = config(); targets = lookups, copies, routes, paths }
criterion_main!(decisions);
