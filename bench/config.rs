//! What a configuration costs: reading and compiling it, the copy that each worker takes, and a decision made in it.

use std::borrow::Cow;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use portcullis::config::{Loaded, Loader};
use portcullis::route::decide::{self, Source};
use portcullis::route::host::HostName;
use portcullis::route::http::RequestFacts;
use portcullis::snapshot::Snapshot;

/// Resources in a folder of their own.
struct Resources {
    _folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

impl Resources {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("resources.yaml");
        std::fs::write(&path, text).expect("written");
        Self { _folder: folder, paths: vec![path] }
    }

    fn load(&self, loader: &mut Loader) -> Loaded {
        loader.load_paths(&self.paths).expect("no errors")
    }
}

fn host(index: u32) -> String {
    format!("api-{index}.zone-{}.example.com", index / 100)
}

fn entry(index: u32) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: e-{index}\nspec:\n  hosts:\n  - {}\n  \
         ports:\n  - number: 443\n    name: https\n    protocol: HTTPS\n  - number: 80\n    name: http\n    protocol: HTTP\n  \
         resolution: DNS\n",
        host(index)
    )
}

/// Four rules, of which the last takes the request of the bench.
fn service(index: u32) -> String {
    let host = host(index);
    let rule = |condition: &str| {
        format!("  - match:\n    - {condition}\n    route:\n    - destination:\n        host: {host}\n")
    };
    let rules =
        ["uri: {regex: '/health|/sport/[0-9]+'}", "headers: {x-team: {exact: search}}", "method: {exact: POST}"];
    let rules: String = rules.into_iter().chain(["uri: {prefix: /v1/}"]).map(rule).collect();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: v-{index}\nspec:\n  hosts:\n  - \
         {host}\n  http:\n{rules}"
    )
}

fn loads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("configuration");
    for hosts in [100, 1_000, 10_000] {
        let resources = Resources::new(&(0..hosts).map(entry).collect::<String>());
        group.throughput(Throughput::Elements(u64::from(hosts)));
        let mut loader = Loader::default();
        group.bench_function(BenchmarkId::new("read and compile", hosts), |bencher| {
            bencher.iter_batched(|| (), |()| resources.load(&mut loader), BatchSize::PerIteration);
        });
        let routes = resources.load(&mut loader).routes;
        group.bench_function(BenchmarkId::new("copy for a worker", hosts), |bencher| {
            bencher.iter_batched(|| (), |()| routes.clone(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// A GET below `/v1/`.
struct Request(String);

impl RequestFacts for Request {
    fn method(&self) -> &str {
        "GET"
    }
    fn path(&self) -> &str {
        "/v1/projects/a/topics"
    }
    fn query(&self) -> &str {
        "alt=json"
    }
    fn authority(&self) -> &str {
        &self.0
    }
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let fields = [("accept", "*/*"), ("user-agent", "bench"), ("x-team", "payments")];
        fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into())
    }
}

fn decisions(criterion: &mut Criterion) {
    const SERVICES: u32 = 1_000;
    let text: String = (0..SERVICES).map(|index| entry(index) + &service(index)).collect();
    let loaded = Resources::new(&text).load(&mut Loader::default());
    let snapshot = Snapshot { generation: 1, routes: loaded.routes, settings: loaded.settings };
    let source =
        Source { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 80, gateway: false, destination: None, tls: None };
    // Every host once, in an order that no prefetcher foresees (619 and 1,000 have no common divisor).
    let hosts: Vec<HostName> =
        (0..SERVICES).map(|index| host(index * 619 % SERVICES).parse().expect("a valid name")).collect();
    let requests: Vec<Request> = hosts.iter().map(|host| Request(host.to_string())).collect();
    let mut group = criterion.benchmark_group("decision");
    group.throughput(Throughput::Elements(u64::from(SERVICES)));
    group.bench_function("plain HTTP, 1000 VirtualServices of four rules", |bencher| {
        bencher.iter(|| {
            for (host, request) in hosts.iter().zip(&requests) {
                black_box(decide::http(&snapshot, source, Some(host), request)).expect("it passes");
            }
        });
    });
    group.finish();
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = costs; config = config(); targets = loads, decisions }
criterion_main!(costs);
