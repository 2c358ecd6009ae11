//! Attacks in HTTP/2: floods of frames, heads that HTTP/1.1 would read in two ways, and clients that only make work.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use portcullis::wire::http2::{Frame, Frames};

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PRIORITY, REFUSED_STREAM,
    RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, frame, get, text,
};
use crate::scene::{HOST, Scene};
use crate::support::gateway::Gateway;
use crate::support::{service, wait_until};

fn limited(limits: &str) -> Scene {
    Scene::with(Gateway::builder().setting(&format!("limits: {{{limits}}}\n")), service::http)
}

/// Sends `flood` until the gateway has had enough, and shows that it has, at what cost, and to nobody else.
#[track_caller]
fn flooded(
    scene: &Scene,
    what: &str,
    settings: &[(u16, u32)],
    mut flood: impl FnMut(&mut Raw, u32) -> bool,
) -> Option<u32> {
    let mut raw = Raw::connect(scene.gateway.http(), settings);
    raw.socket().set_write_timeout(Some(Duration::from_secs(5))).expect("not zero");
    let most = 200_000;
    let sent = (0..most).take_while(|round| flood(&mut raw, *round)).count();
    assert!(sent < most as usize, "{what}: taken without end");
    let code = raw.end();
    assert!(scene.gateway.peak_memory_kib() < 160 * 1024, "{what}: {} KiB", scene.gateway.peak_memory_kib());
    assert_eq!(scene.gateway.client().get(HOST, "/bytes/10").status, 200, "{what}");
    code
}

#[test]
fn requests_that_are_taken_back_as_fast_as_they_come_end_the_connection() {
    let scene = Scene::http();
    let head = get(HOST, "/silent");
    flooded(&scene, "rapid reset", &[], |raw, round| {
        let stream = 2 * round + 1;
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        raw.send(&[frame(HEADERS, END_HEADERS | END_STREAM, stream, &head), reset].concat()).is_ok()
    });
    // Those whose reset was read later than themselves.
    assert!(scene.requests().len() < 100, "{}", scene.requests().len());
}

#[test]
fn requests_that_are_taken_back_with_the_same_breath_reach_no_upstream() {
    let scene = Scene::http();
    let mut raw = Raw::connect(scene.gateway.http(), &[]);
    let taken_back = |stream: u32, method: &[u8]| {
        let head = block(&[
            (b":method", method),
            (b":scheme", b"http"),
            (b":path", b"/silent"),
            (b":authority", HOST.as_bytes()),
        ]);
        let reset = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, &head), reset].concat()
    };
    // Fewer than would end the connection, and no more at once than may be waiting.
    for round in 0..10 {
        let method: &[u8] = if round % 2 == 0 { b"GET" } else { b"POST" };
        let burst: Vec<u8> = (0..10).flat_map(|index| taken_back(2 * (10 * round + index) + 1, method)).collect();
        raw.send(&burst).expect("the gateway reads");
        let lines = scene.gateway.log().wait_for_count(10 * (round as usize + 1));
        assert!(lines.iter().all(|line| line.flags == "DC" && line.code == 0), "{lines:?}");
    }
    assert_eq!(raw.ask(201, &get(HOST, "/bytes/10")), Some(200));
    assert_eq!(scene.requests().len(), 1, "{:?}", scene.requests());
}

#[test]
fn a_request_that_is_taken_back_while_it_waits_reaches_no_upstream() {
    let more = format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: one}}
spec:
  host: {HOST}
  trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 1}}}}}}
"
    );
    let scene = Scene::with_resources(Gateway::builder(), &more, service::http);
    let mut raw = Raw::connect(scene.gateway.http(), &[]);
    for stream in [1, 3] {
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &get(HOST, "/silent"))).expect("the gateway reads");
    }
    wait_until("the first to have the connection", || (scene.requests().len() == 1).then_some(()));
    // Its answer says that the second has been read as well.
    raw.send(&frame(PING, 0, 0, &[7; 8])).expect("the gateway reads");
    std::iter::from_fn(|| raw.next()).find(|frame| frame.kind == PING).expect("an answer");
    for stream in [3, 1] {
        raw.send(&frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())).expect("the gateway reads");
    }
    let lines = scene.gateway.log().wait_for_count(2);
    assert!(lines.iter().all(|line| line.flags == "DC"), "{lines:?}");
    assert_eq!(raw.ask(5, &get(HOST, "/bytes/10")), Some(200));
    assert_eq!(scene.requests().len(), 2, "{:?}", scene.requests());
}

#[test]
fn heads_without_end_are_cut_by_size_and_by_time() {
    let scene = limited("requestHeadTimeout: 500ms");
    flooded(&scene, "CONTINUATION flood", &[], |raw, round| match round {
        0 => raw.send(&frame(HEADERS, END_STREAM, 1, &get(HOST, "/"))).is_ok(),
        _ => raw.send(&frame(CONTINUATION, 0, 1, &block(&[(b"x", &[b'y'; 1000])]))).is_ok(),
    });
    let mut raw = Raw::connect(scene.gateway.http(), &[]);
    let begun = Instant::now();
    raw.send(&frame(HEADERS, END_STREAM, 1, &get(HOST, "/"))).expect("the gateway reads");
    raw.end();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn frames_without_a_message_end_the_connection() {
    let scene = Scene::http();
    let kinds: [(&str, Vec<u8>); 5] = [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("answers to pings", frame(PING, 1, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("unknown frames", frame(0xfa, 0, 0, b"?")),
    ];
    for (what, bytes) in kinds {
        let bytes = bytes.repeat(20);
        flooded(&scene, what, &[], |raw, _| raw.send(&bytes).is_ok());
    }
}

#[test]
fn empty_pieces_of_a_body_end_the_connection() {
    let scene = Scene::http();
    let code = flooded(&scene, "empty DATA", &[], |raw, round| match round {
        0 => raw.send(&frame(HEADERS, END_HEADERS, 1, &get(HOST, "/silent"))).is_ok(),
        _ => raw.send(&frame(DATA, 0, 1, &[])).is_ok(),
    });
    assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
}

#[test]
fn a_block_that_unpacks_to_much_is_refused() {
    let scene = Scene::http();
    scene.assert_serves();
    let mut raw = Raw::connect(scene.gateway.http(), &[]);
    // One field of 4,000 bytes enters the table (RFC 7541 section 6.2.1), and is then named a thousand times.
    let field = [vec![0x40], text(b"x"), text(&[b'y'; 3_900])].concat();
    let bomb = [get(HOST, "/"), field, vec![0xbe; 10_000]].concat();
    let status = raw.ask(1, &bomb);
    assert!(matches!(status, None | Some(431)), "{status:?}");
    assert!(scene.gateway.peak_memory_kib() < 128 * 1024, "{} KiB", scene.gateway.peak_memory_kib());
    assert_eq!(scene.requests().len(), 1);
}

#[test]
fn faults_that_make_the_gateway_reset_streams_end_the_connection() {
    let scene = Scene::http();
    let head = get(HOST, "/silent");
    // A window that grows by nothing is a fault of its stream (RFC 9113 section 6.9).
    flooded(&scene, "made resets", &[], |raw, round| {
        let stream = 2 * round + 1;
        let fault = frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
        raw.send(&[frame(HEADERS, END_HEADERS | END_STREAM, stream, &head), fault].concat()).is_ok()
    });
    assert!(scene.requests().len() < 2_000, "{}", scene.requests().len());
}

#[test]
fn heads_that_could_be_read_in_two_ways_reach_no_upstream() {
    let scene = Scene::http();
    let good: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b":authority", HOST.as_bytes())];
    let with = |more: &[(&'static [u8], &'static [u8])]| block(&[&good[..], more].concat());
    let but = |name: &[u8], value: &'static [u8]| {
        let fields: Vec<_> =
            good.iter().map(|(known, old)| (*known, if *known == name { value } else { old })).collect();
        block(&fields)
    };
    let without = |name: &[u8]| block(&good.iter().copied().filter(|(known, _)| *known != name).collect::<Vec<_>>());
    let cases = [
        ("a transfer coding", with(&[(b"transfer-encoding", b"chunked")])),
        ("a connection's field", with(&[(b"connection", b"close")])),
        ("an upgrade", with(&[(b"upgrade", b"websocket")])),
        ("another TE", with(&[(b"te", b"gzip")])),
        ("upper case", with(&[(b"X-Upper", b"1")])),
        ("a line feed in a value", with(&[(b"x", b"1\nhost: evil.example")])),
        ("a line end in a value", with(&[(b"x", b"1\r\n\r\nGET /evil HTTP/1.1\r\nhost: evil.example")])),
        ("a NUL in a value", with(&[(b"x", b"\0")])),
        ("a colon in a name", with(&[(b"x:y", b"1")])),
        ("a space in a name", with(&[(b"x y", b"1")])),
        ("another host", with(&[(b"host", b"evil.example")])),
        ("two hosts", with(&[(b"host", HOST.as_bytes()), (b"host", b"evil.example")])),
        ("two lengths", with(&[(b"content-length", b"0"), (b"content-length", b"5")])),
        ("a length that is not kept", with(&[(b"content-length", b"5")])),
        ("a length that is no number", with(&[(b"content-length", b"+0")])),
        ("two paths", with(&[(b":path", b"/y")])),
        ("a pseudo-field behind others", block(&[&[(b"x".as_slice(), b"1".as_slice())], &good[..]].concat())),
        ("a pseudo-field of answers", with(&[(b":status", b"200")])),
        ("an unknown pseudo-field", with(&[(b":evil", b"1")])),
        ("a protocol", with(&[(b":protocol", b"websocket")])),
        ("a space in the path", but(b":path", b"/x HTTP/1.1\r\nhost: evil.example\r\n\r\n")),
        ("a path that is a URL", but(b":path", b"http://evil.example/x")),
        ("a path without a slash", but(b":path", b"x")),
        ("an empty path", but(b":path", b"")),
        ("no path", without(b":path")),
        ("no method", without(b":method")),
        ("no scheme", without(b":scheme")),
        ("no authority", without(b":authority")),
        ("an authority with a user", but(b":authority", b"u@evil.example")),
        ("an authority with a path", but(b":authority", b"evil.example/x")),
        ("a method with a space", but(b":method", b"GET /evil")),
        ("a tunnel", but(b":method", b"CONNECT")),
        ("another scheme", but(b":scheme", b"ftp")),
    ];
    for (what, head) in cases {
        let mut raw = Raw::connect(scene.gateway.http(), &[]);
        let status = raw.ask(1, &head);
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{what}: {status:?}");
    }
    assert_eq!(scene.connections(), 0, "{:?}", scene.requests());
    let mut raw = Raw::connect(scene.gateway.http(), &[]);
    assert_eq!(raw.ask(1, &get(HOST, "/")), Some(200));
}

#[test]
fn requests_that_are_refused_before_anybody_sees_them_are_in_the_log() {
    let scene = Scene::http();
    let mut raw = Raw::connect(scene.gateway.http(), &[]);
    let too_long = [get(HOST, "/"), block(&[(b"x", &[b'y'; 3_000])]).repeat(46)].concat();
    let mut frames = too_long.chunks(16 * 1024).enumerate().peekable();
    while let Some((index, piece)) = frames.next() {
        let end = if frames.peek().is_none() { END_HEADERS } else { 0 };
        let (kind, flags) = if index == 0 { (HEADERS, END_STREAM | end) } else { (CONTINUATION, end) };
        raw.send(&frame(kind, flags, 1, piece)).expect("the gateway reads");
    }
    let malformed = [get(HOST, "/"), block(&[(b"transfer-encoding", b"chunked")])].concat();
    assert_eq!(raw.ask(3, &malformed), None);
    assert_eq!(raw.ask(5, &get(HOST, "/bytes/10")), Some(200));
    let lines = scene.gateway.log().wait_for_count(3);
    let told: Vec<_> = lines.iter().map(|line| (&*line.request, line.code, &*line.flags, &*line.details)).collect();
    assert_eq!(
        told,
        [
            ("- - HTTP/2", 431, "DPE", "request_headers_too_large"),
            ("- - HTTP/2", 0, "DPE", "http2.codec_error"),
            ("GET /bytes/10 HTTP/2", 200, "-", "via_upstream"),
        ]
    );
}

#[test]
fn more_streams_than_are_allowed_are_refused_and_the_others_served() {
    let scene = Scene::http();
    let mut raw = Raw::connect(scene.gateway.http(), &[]);
    let head = get(HOST, "/silent");
    for stream in 0..130 {
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &head)).expect("the gateway reads");
    }
    let mut refused = 0;
    while refused < 30 {
        let frame = raw.next().expect("the connection lives");
        refused += usize::from(frame.kind == RST_STREAM && frame.payload == 7u32.to_be_bytes());
    }
    wait_until("the others to reach the upstream", || (scene.requests().len() == 100).then_some(()));
    assert_eq!(scene.gateway.metric("portcullis_sessions_refused_total"), Some(30.0));
}

#[test]
fn streams_count_as_sessions() {
    for limits in ["sessionsPerSource: 5", "sessionsPerWorker: 5"] {
        let scene = limited(limits);
        let mut first = Raw::connect(scene.gateway.http(), &[]);
        for stream in 0..8 {
            first
                .send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &get(HOST, "/silent")))
                .expect("it reads");
        }
        for stream in [11, 13, 15] {
            let reset = std::iter::from_fn(|| first.next()).find(|frame| frame.kind == RST_STREAM).expect("a refusal");
            assert_eq!((reset.stream, reset.payload), (stream, REFUSED_STREAM.to_be_bytes().to_vec()), "{limits}");
        }
        // They leave no room for another connection either.
        assert!(Raw::over(scene.gateway.client().socket(), &[]).next().is_none(), "{limits}");
        assert_eq!(scene.gateway.metric("portcullis_sessions_refused_total"), Some(4.0), "{limits}");
        wait_until("the others to reach the upstream", || (scene.requests().len() == 5).then_some(()));
        // Where one ends, another may begin.
        first.send(&frame(RST_STREAM, 0, 1, &8u32.to_be_bytes())).expect("it reads");
        scene.next_line("the one that was given up");
        assert_eq!(first.ask(17, &get(HOST, "/bytes/10")), Some(200), "{limits}");
        first.send(&frame(RST_STREAM, 0, 3, &8u32.to_be_bytes())).expect("it reads");
        scene.gateway.log().wait_for_count(3);
        assert_eq!(Raw::connect(scene.gateway.http(), &[]).ask(1, &get(HOST, "/bytes/10")), Some(200), "{limits}");
    }
}

#[test]
fn a_client_that_opens_no_window_is_cut() {
    let scene = limited("bodyIdleTimeout: 300ms");
    // SETTINGS_INITIAL_WINDOW_SIZE
    let mut raw = Raw::connect(scene.gateway.http(), &[(4, 0)]);
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get(HOST, "/bytes/100000"))).expect("the gateway reads");
    let reset = std::iter::from_fn(|| raw.next()).find(|frame| frame.kind == RST_STREAM);
    assert_eq!(reset.expect("an end").stream, 1);
    assert_eq!(scene.next_line("a stalled stream").flags, "SI");
}

#[test]
fn a_client_that_reads_nothing_fills_no_memory_and_is_cut() {
    let scene = limited("bodyIdleTimeout: 500ms");
    let window = 0x7fff_ffff;
    let mut raw = Raw::connect(scene.gateway.http(), &[(4, window)]);
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &(window - 65_535).to_be_bytes())).expect("the gateway reads");
    for stream in 0..100 {
        let head = get(HOST, "/bytes/100000000");
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &head)).expect("the gateway reads");
    }
    wait_until("the session to end", || {
        (scene.gateway.metric("portcullis_sessions_active{worker=\"0\"}") == Some(0.0)).then_some(())
    });
    assert!(scene.gateway.peak_memory_kib() < 160 * 1024, "{} KiB", scene.gateway.peak_memory_kib());
}

#[test]
fn a_preface_that_is_cut_or_not_followed_up_ends_at_a_deadline() {
    let scene = limited("helloTimeout: 300ms, requestHeadTimeout: 300ms");
    for opening in [b"PRI".as_slice(), b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = scene.gateway.client();
        client.socket().write_all(opening).expect("the gateway reads");
        let begun = Instant::now();
        crate::support::client::read_to_end(client.socket());
        assert!(begun.elapsed() < Duration::from_secs(10), "{opening:?}");
    }
    assert_eq!(scene.connections(), 0);
}

#[test]
fn an_upstream_that_floods_a_stream_is_cut_and_stops_no_other() {
    let flood = |stream: &mut crate::support::stream::Stream, _: &crate::support::upstream::Seen| {
        let interim = frame(HEADERS, END_HEADERS, 1, &block(&[(b":status", b"103"), (b"link", &[b'x'; 500])]));
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        loop {
            stream.write_all(&interim)?;
        }
    };
    let scene = Scene::with(Gateway::builder(), service::http);
    let upstream = crate::support::upstream::Upstream::plain(flood);
    let other = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: flood}
spec:
  hosts: [flood.example.com]
  ports: [{number: 80, name: main, protocol: GRPC, targetPort: PORT}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]
---
";
    let yaml = other.replace("PORT", &upstream.port().to_string()) + &crate::scene::listed(scene.upstream.port());
    scene.gateway.reload(&yaml);
    for _ in 0..3 {
        let mut client = scene.gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: flood.example.com\r\nConnection: close\r\n\r\n");
        let answers = crate::support::client::read_to_end(client.socket());
        assert!(!String::from_utf8_lossy(&answers).contains("HTTP/1.1 200"), "no final answer was sent");
    }
    assert!(scene.gateway.peak_memory_kib() < 128 * 1024, "{} KiB", scene.gateway.peak_memory_kib());
    assert_eq!(scene.gateway.client().get(HOST, "/bytes/10").status, 200);
}

/// An upstream that speaks HTTP/2 by hand; `serve` has its first connection after the gateway's preface.
fn by_hand(serve: impl FnOnce(Link) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the gateway connects");
        socket.write_all(&frame(SETTINGS, 0, 0, &[])).expect("the gateway reads");
        serve(Link { socket, frames: Frames::after(24) });
    });
    port
}

/// Its connection.
struct Link {
    socket: TcpStream,
    frames: Frames,
}

impl Link {
    /// Reads until `wanted` shows up. False: the gateway has closed before.
    fn wait_for(&mut self, wanted: impl Fn(Frame) -> bool) -> bool {
        let (mut found, mut buffer) = (false, [0; 1024]);
        while !found {
            match self.socket.read(&mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(count) => self.frames.follow(&buffer[..count], |frame| found |= wanted(frame)),
            }
        }
        true
    }
}

/// Requests of many clients share a connection: small frames that one of them does not read are no reason to end it.
#[test]
fn small_frames_that_a_client_does_not_read_cost_its_own_stream_alone() {
    let (tell, told) = mpsc::channel();
    let port = by_hand(move |mut link| {
        link.wait_for(|frame| frame == Frame::Head { stream: 1 });
        tell.send("the first").expect("the test waits");
        link.wait_for(|frame| frame == Frame::Head { stream: 3 });
        let head = frame(HEADERS, END_HEADERS, 1, &block(&[(b":status", b"200")]));
        link.socket.write_all(&head).expect("the gateway reads");
        link.socket.write_all(&frame(DATA, 0, 1, b"x").repeat(60_000)).expect("the gateway reads");
        let is_reset = link.wait_for(|frame| matches!(frame, Frame::Reset { stream: 1, .. }));
        let head = block(&[(b":status", b"200"), (b"content-length", b"0")]);
        let _ = link.socket.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &head));
        tell.send(if is_reset { "a reset" } else { "an end" }).expect("the test waits");
        link.wait_for(|_| false);
    });
    let yaml = crate::scene::listed(port).replace("HTTP", "HTTP2");
    let gateway = Gateway::builder().host(HOST).resources(yaml).start();
    // A client that opens no window.
    let mut slow = Raw::connect(gateway.http(), &[(4, 0)]);
    slow.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get(HOST, "/slow"))).expect("the gateway reads");
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok("the first"));
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok("a reset"));
    let reset = std::iter::from_fn(|| slow.next()).find(|frame| frame.kind == RST_STREAM);
    assert_eq!(reset.expect("an end").stream, 1);
    let line = gateway.log().wait_for(|line| line.request.contains("/slow"));
    assert_eq!((&*line.flags, &*line.transport_failure), ("UC", "small frames that nobody takes"));
    assert!(gateway.peak_memory_kib() < 128 * 1024, "{} KiB", gateway.peak_memory_kib());
}
