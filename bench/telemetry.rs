//! Cost of one access-log line: paid by a worker once per request or session.

use std::hint::black_box;
use std::time::{Duration, UNIX_EPOCH};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use portcullis::snapshot::AccessLog;
use portcullis::telemetry::access_log;
use portcullis::telemetry::format::Format;
use portcullis::telemetry::metrics::Counters;
use portcullis::telemetry::record::{HttpRecord, Record};

fn record() -> Record<'static> {
    Record {
        start: UNIX_EPOCH + Duration::from_millis(1_772_352_930_042),
        duration: Duration::from_millis(12),
        http: Some(HttpRecord {
            in_tls: false,
            method: b"GET",
            path: b"/books/v1/volumes?q=isbn:0486424618",
            protocol: "HTTP/1.1",
            status: 200,
            details: "via_upstream",
            upstream_service_time: Some(Duration::from_millis(11)),
            forwarded_for: None,
            user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            request_id: Some(b"3fd4ad60-4d2f-46a9-8c4e-0a4b8b3f3a12"),
            authority: Some(b"www.googleapis.com"),
            head: None,
            answer_fields: &[],
        }),
        flags: "-",
        termination: None,
        transport_failure: None,
        bytes_received: 0,
        bytes_sent: 5_120,
        upstream: Some(([142, 250, 74, 74], 443).into()),
        cluster: Some("outbound|443||www.googleapis.com"),
        service: Some("www.googleapis.com"),
        upstream_local: Some(([10, 0, 0, 5], 51_234).into()),
        downstream_local: ([127, 0, 0, 1], 8_080).into(),
        downstream_remote: ([127, 0, 0, 1], 40_000).into(),
        server_name: None,
        route: Some("default"),
        originated_tls: true,
        audited: None,
    }
}

fn lines(criterion: &mut Criterion) {
    let record = record();
    let mut group = criterion.benchmark_group("access_log");
    group.throughput(Throughput::Elements(1));
    for (name, form) in [("text", AccessLog::Text), ("json", AccessLog::Json)] {
        let mut out = Vec::with_capacity(4096);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                access_log::format(black_box(&record), form, &mut out);
                out.len()
            });
        });
    }
    let format = Format::text(DEFAULT).expect("a format");
    let mut out = Vec::with_capacity(4096);
    group.bench_function("own_format", |bencher| {
        bencher.iter(|| {
            out.clear();
            format.write(black_box(&record), &mut out);
            out.len()
        });
    });
    group.finish();
}

/// The default written out, which says the same by another way.
const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

fn counters(criterion: &mut Criterion) {
    let record = record();
    let mut counters = Counters::default();
    criterion.bench_function("counters/count", |bencher| bencher.iter(|| counters.count(black_box(&record))));
}

criterion_group!(benches, lines, counters);
criterion_main!(benches);
