//! The parsers and writers that run once per session or request, on what real peers send.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portcullis::wire::client_hello;
use portcullis::wire::http1::{
    BodyLength, BodyLimits, BodyReader, HeadLimits, NO_FIELD_EDITS, Parsed, RequestEdits, ResponseEdits, parse_request,
    parse_response, write_request, write_response,
};

const OPENSSL: &[u8] = include_bytes!("../tests/data/openssl_tls13.bin");
const RUSTLS_MLKEM: &[u8] = include_bytes!("../tests/data/rustls_mlkem.bin");
const HELLO_BYTES_MAX: usize = 64 * 1024;

const HEAD: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100 };
const BODY: BodyLimits = BodyLimits { trailer_bytes: 8 * 1024, chunk_extension_bytes: 4 * 1024 };

/// As curl sends it.
const SMALL_REQUEST: &[u8] =
    b"GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";

/// As a browser sends it.
const BROWSER_REQUEST: &[u8] = b"GET /search?q=egress+gateway&hl=en HTTP/1.1\r\nHost: www.example.com\r\n\
    Connection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) \
    AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,\
    application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: example\r\n\
    Content-Type: application/json\r\nContent-Length: 1024\r\nCache-Control: no-store\r\nETag: \"0123456789\"\r\n\
    Vary: Accept-Encoding\r\nConnection: keep-alive\r\n\r\n";

fn hellos(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("client_hello");
    let fragmented: Vec<u8> = RUSTLS_MLKEM[5..].chunks(512).flat_map(in_record).collect();
    for (name, bytes) in
        [("openssl", OPENSSL), ("rustls_mlkem", RUSTLS_MLKEM), ("rustls_mlkem_in_3_records", &fragmented)]
    {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| client_hello::parse(black_box(bytes), HELLO_BYTES_MAX));
        });
    }
    group.finish();
}

fn in_record(payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    [&[22, 3, 1, high, low], payload].concat()
}

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    for (name, bytes) in [("request_small", SMALL_REQUEST), ("request_browser", BROWSER_REQUEST)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| parse_request(black_box(bytes), HEAD)));
    }
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |bencher| bencher.iter(|| parse_response(black_box(RESPONSE), HEAD, false)));
    // What a client that sends a byte a time makes us do for each.
    let incomplete = &BROWSER_REQUEST[..BROWSER_REQUEST.len() - 1];
    group.bench_function("request_incomplete", |bencher| bencher.iter(|| parse_request(black_box(incomplete), HEAD)));
    group.finish();
}

fn writers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    let mut out = Vec::with_capacity(4096);
    if let Parsed::Complete(head) = parse_request(BROWSER_REQUEST, HEAD) {
        let edits = RequestEdits {
            target: "/search?q=egress+gateway&hl=en",
            host: "www.example.com",
            upgrade: false,
            via: None,
            fields: &NO_FIELD_EDITS,
        };
        group.bench_function("request_browser", |bencher| {
            bencher.iter(|| {
                out.clear();
                write_request(black_box(&head), BROWSER_REQUEST, &edits, &mut out);
            });
        });
    }
    if let Parsed::Complete(head) = parse_response(RESPONSE, HEAD, false) {
        group.bench_function("response", |bencher| {
            bencher.iter(|| {
                out.clear();
                let edits = ResponseEdits { keep_alive: true, http10: false, fields: &NO_FIELD_EDITS };
                write_response(black_box(&head), RESPONSE, edits, &mut out);
            });
        });
    }
    group.finish();
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunked");
    for size in [16, 16 * 1024] {
        let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        let body = [chunk.repeat(64 * 1024 / size), "0\r\n\r\n".to_owned()].concat();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("chunks_of_{size}"), |bencher| {
            bencher.iter(|| drain(black_box(body.as_bytes())));
        });
    }
    group.finish();
}

/// The number of data bytes in a chunked body.
fn drain(body: &[u8]) -> usize {
    let mut reader = BodyReader::new(BodyLength::Chunked, BODY);
    let (mut rest, mut data) = (body, 0);
    while let Ok(step) = reader.step(rest) {
        data += step.data.len();
        rest = &rest[step.consumed..];
        if step.done {
            break;
        }
    }
    data
}

criterion_group!(benches, hellos, heads, writers, bodies);
criterion_main!(benches);
