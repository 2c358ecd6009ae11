//! Attacks by HTTP requests: smuggling, malformed heads and bodies, abuse of methods and fields.

use std::io::Write;

use crate::scene::{HOST, Scene, answers_to, statuses};
use crate::support::client;
use crate::support::gateway::Gateway;
use crate::support::resources;
use crate::support::service;

/// What a smuggler would like to be taken for a second request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: api.example.com\r\n\r\n";

/// Sends `head`, `body` and a smuggled request in one piece: one refusal, then the end, and nothing goes upstream.
#[track_caller]
fn assert_refused(scene: &Scene, head: &str, body: &str) {
    let answers = answers_to(&scene.gateway, format!("{head}{body}{SMUGGLED}"));
    assert_eq!(statuses(&answers), [400], "{head:?}: {answers}");
    let line = scene.next_line(head);
    assert_eq!((line.code, line.flags.as_str()), (400, "DPE"), "{head:?}");
    assert_eq!(scene.connections(), 0, "{head:?}");
}

fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n")
}

#[test]
fn two_lengths_smuggle_nothing() {
    let scene = Scene::http();
    let pairs = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTRANSFER-ENCODING: Chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Connection: content-length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Connection: transfer-encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ];
    for lines in pairs {
        assert_refused(&scene, &post(lines), "0\r\n\r\n");
    }
    scene.assert_serves();
}

#[test]
fn lengths_that_are_no_plain_number_smuggle_nothing() {
    let scene = Scene::http();
    let lengths = [
        "+5",
        "-5",
        "0x5",
        "5,5",
        "5, 6",
        "5 5",
        "5;q=1",
        "5.0",
        "",
        "\x0b5",
        "5\x0c",
        "\u{665}",
        "18446744073709551621",
        "9223372036854775808",
        "99999999999999999999999",
        "0000000000000000000000000005",
    ];
    for length in lengths {
        assert_refused(&scene, &post(&format!("Content-Length: {length}\r\n")), "12345");
    }
    for name in ["Content-Length ", "Content-Length\t", "Content-Length\x0b", " Content-Length", "Content-Length\0"] {
        assert_refused(&scene, &post(&format!("{name}: 5\r\n")), "12345");
    }
}

#[test]
fn transfer_codings_in_disguise_smuggle_nothing() {
    let scene = Scene::http();
    let codings = [
        "identity",
        "gzip, chunked",
        "chunked, identity",
        "chunked , identity",
        "chunked, chunked",
        "chunked,",
        ", chunked",
        "xchunked",
        "chunkedx",
        "\"chunked\"",
        "chunked;x=y",
        "chunked\u{a0}",
        "\x0bchunked",
        "chunked\x0b",
        "chunked\0",
        "x chunked",
        "cow",
        "",
    ];
    for coding in codings {
        assert_refused(&scene, &post(&format!("Transfer-Encoding: {coding}\r\n")), "0\r\n\r\n");
    }
    let lines = [
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer\u{2d}Encoding\u{0}: chunked\r\n",
        "\x7fTransfer-Encoding: chunked\r\n",
        ": chunked\r\n",
    ];
    for lines in lines {
        assert_refused(&scene, &post(lines), "0\r\n\r\n");
    }
    let old =
        format!("POST / HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n");
    assert_refused(&scene, &old, "0\r\n\r\n");
}

#[test]
fn lines_that_end_or_begin_in_other_ways_are_refused() {
    let scene = Scene::http();
    let heads = [
        format!("GET / HTTP/1.1\nHost: {HOST}\n\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: a\rb\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: a\0b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: a\r\n folded\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n Host: {HOST}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nno colon\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX y: z\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\u{e4}: z\r\n\r\n"),
        format!("GET  / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET / HTTP/1.1 \r\nHost: {HOST}\r\n\r\n"),
        format!("GET /a b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET\t/\tHTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /\u{e4} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /#fragment HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET {HOST} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET * HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("G(T / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("{} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "M".repeat(65)),
        format!("GET https://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET ftp://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    ];
    for head in heads {
        assert_refused(&scene, &head, "");
    }
    scene.assert_serves();
}

#[test]
fn versions_that_are_not_spoken_are_refused() {
    let scene = Scene::http();
    for (version, expected) in
        [("HTTP/2.0", 505), ("HTTP/0.9", 505), ("HTTP/1.2", 505), ("http/1.1", 400), ("ICY/1.1", 400)]
    {
        let answers = answers_to(&scene.gateway, format!("GET / {version}\r\nHost: {HOST}\r\n\r\n"));
        assert!(
            matches!(statuses(&answers)[..], [status] if status == expected || status == 400),
            "{version}: {answers}"
        );
        scene.next_line(version);
    }
    for line in [&b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n"[..], b"GET /\r\n\r\n", b"GET / \r\n\r\n"] {
        let answers = answers_to(&scene.gateway, line);
        assert!(matches!(statuses(&answers)[..], [400] | [505]), "{answers}");
        scene.next_line("a request without a version");
    }
    assert_eq!(scene.connections(), 0);
}

#[test]
fn hosts_that_are_missing_double_or_unlike_the_target_are_refused() {
    let scene = Scene::http();
    let heads = [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost:\r\nX-Host: {HOST}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: evil.example\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nhOST: {HOST}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost : {HOST}\r\n\r\n"),
        format!("GET http://{HOST}/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        format!("GET http://evil.example/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET http://{HOST}:81/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET http://evil.example@{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET http://{HOST}\\@evil.example/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET http:///{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
    ];
    for head in heads {
        assert_refused(&scene, &head, "");
    }
    let answers = answers_to(
        &scene.gateway,
        format!("GET http://{HOST}/x HTTP/1.1\r\nHost: {HOST}:80\r\nConnection: close\r\n\r\n"),
    );
    assert!(answers.contains("GET /x HTTP/1.1\r\nHost: api.example.com\r\n"), "{answers}");
}

#[test]
fn chunks_that_break_their_framing_end_both_connections_and_never_look_complete() {
    let scene = Scene::http();
    let bodies = [
        "ffffffffffffffff\r\nx",
        "8000000000000000\r\nx",
        "10000000000000000\r\nx",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nx\r\n",
        "\r\nhello\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5\r\nhello\r\n0\r\n folded: 1\r\n\r\n",
    ];
    for body in bodies {
        let head = post("Transfer-Encoding: chunked\r\n");
        let answers = answers_to(&scene.gateway, format!("{head}{body}{SMUGGLED}"));
        assert!(matches!(statuses(&answers)[..], [] | [400]), "{body:?}: {answers}");
        assert_eq!(scene.next_line(body).flags, "DPE", "{body:?}");
    }
    assert_eq!(scene.requests(), [""; 0], "nothing of a body that is bad from the start is sent");
    scene.assert_serves();
}

#[test]
fn a_body_that_turns_bad_breaks_off_visibly_for_the_upstream() {
    let scene = Scene::http();
    for (count, tail) in ["zz\r\n", "0\r\nbad\r\n\r\n", "5\r\nhelloX", "5;a\nb\r\n"].into_iter().enumerate() {
        let mut client = scene.gateway.client();
        client.send(post("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n");
        scene.upstream.seen().wait_for("the request", |counts| counts.requests.len() == count + 1);
        client.send(format!("{tail}{SMUGGLED}"));
        let answers = client::read_to_end(client.socket());
        assert!(answers.is_empty() || answers.starts_with(b"HTTP/1.1 400 "), "{tail:?}");
        assert_eq!(scene.next_line(tail).flags, "DPE", "{tail:?}");
        // The service notes an error only if the body did not come to its end.
        scene.upstream.seen().wait_for("a broken body", |counts| counts.errors.len() == count + 1);
    }
    assert_eq!(scene.requests().len(), 4);
}

#[test]
fn chunk_extensions_and_trailers_are_bounded_and_dropped() {
    let scene = Scene::with(
        Gateway::builder().setting("limits: {trailerBytes: 1KiB, chunkExtensionBytes: 1KiB}\n"),
        service::http,
    );
    let head = post("Transfer-Encoding: chunked\r\nTrailer: Host\r\nConnection: close\r\n");
    let answers = answers_to(
        &scene.gateway,
        format!("{head}5;a=b;c=\"d\"\r\nhello\r\n0;x\r\nX-Trailer: 1\r\nX-Other: 2\r\n\r\n"),
    );
    assert_eq!(statuses(&answers)[0], 200, "{answers}");
    assert!(answers.ends_with("\r\n\r\nhello"), "the upstream repeats head and body: {answers}");
    for field in ["X-Trailer", "X-Other", "Trailer:", "a=b"] {
        assert!(!answers.contains(field), "{field} was passed on: {answers}");
    }
    scene.next_line("trailers");
    let bad = [
        "0\r\nHost: evil.example\r\n\r\n".to_owned(),
        "0\r\nContent-Length: 9\r\n\r\n".to_owned(),
        "0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(2_000)),
        format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(100)).repeat(20)),
        format!("0\r\nX: {}\r\n\r\n", "a".repeat(2_000)),
        format!("0\r\n{}\r\n", "X: y\r\n".repeat(300)),
    ];
    for body in bad {
        let answers = answers_to(&scene.gateway, head.clone() + &body);
        assert!(matches!(statuses(&answers)[..], [] | [400]), "{answers}");
        assert_eq!(scene.next_line("a bad body").flags, "DPE");
    }
}

#[test]
fn requests_in_one_piece_are_each_judged_and_answered_in_order() {
    let scene = Scene::http();
    let get = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let post = format!("POST /two HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    let last = format!("GET /three HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let piece = [get(HOST, "/status/201"), get("evil.example", "/"), post, get("evil.example", "/"), last].concat();
    let answers = answers_to(&scene.gateway, piece + &get(HOST, "/after-close"));
    // The third answer repeats the body of the second request, which looks like a request and is none.
    let lines = scene.gateway.log().wait_for_count(5);
    let told: Vec<_> = lines.iter().map(|line| (line.code, line.authority.as_str())).collect();
    let evil = "evil.example";
    assert_eq!(told, [(201, HOST), (502, evil), (200, HOST), (502, evil), (200, HOST)], "{answers}");
    let paths: Vec<_> = scene.requests().iter().map(|head| head.split(' ').nth(1).map(str::to_owned)).collect();
    assert_eq!(paths, [Some("/status/201".to_owned()), Some("/two".to_owned()), Some("/three".to_owned())]);
}

#[test]
fn an_upgrade_without_a_101_opens_no_tunnel() {
    let scene = Scene::http();
    let upgrades = [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", true),
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", false),
        ("Connection: upgrade\r\nUpgrade: TLS/1.0, h2c\r\n", false),
        ("Upgrade: websocket\r\n", false),
    ];
    for (lines, _) in upgrades {
        let mut client = scene.gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n"));
        assert_eq!(client.response().status, 200);
        // What follows is a request, judged like any other, not bytes of a tunnel.
        assert_eq!(client.get("evil.example", "/").status, 502);
    }
    for (head, (lines, is_asked)) in scene.requests().iter().zip(upgrades) {
        let head = head.to_ascii_lowercase();
        assert_eq!(head.contains("upgrade"), is_asked, "{lines}: {head}");
        assert!(!head.contains("http2-settings"), "{head}");
    }
}

#[test]
fn connect_is_405_and_its_bytes_go_nowhere() {
    let scene = Scene::http();
    for target in ["api.example.com:443", "api.example.com:80", "169.254.169.254:80"] {
        let answers = answers_to(
            &scene.gateway,
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n\x16\x03\x01"),
        );
        assert_eq!(statuses(&answers), [405], "{target}: {answers}");
        scene.next_line(target);
    }
    for line in ["CONNECT / HTTP/1.1", "CONNECT api.example.com HTTP/1.1", "CONNECT http://api.example.com/ HTTP/1.1"] {
        let answers = answers_to(&scene.gateway, format!("{line}\r\nHost: {HOST}\r\n\r\n"));
        assert_eq!(statuses(&answers), [400], "{line}: {answers}");
        scene.next_line(line);
    }
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_method_is_what_the_request_line_says() {
    let policy = "  action: ALLOW\n  rules: [{to: [{operation: {methods: [GET]}}]}]\n";
    let policy = resources::authorization_policy("get-only", policy);
    let scene = Scene::with_resources(Gateway::builder(), &policy, service::http);
    for method in ["get", "Get", "GETT", "POST", "DELETE", "PROPFIND", "GET,POST"] {
        let head =
            format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\nX-HTTP-Method-Override: GET\r\n");
        let answers = answers_to(&scene.gateway, head + "Connection: close\r\n\r\n");
        assert!(matches!(statuses(&answers)[..], [403] | [400]), "{method}: {answers}");
        scene.next_line(method);
    }
    assert_eq!(scene.connections(), 0);
    scene.assert_serves();
}

#[test]
fn a_field_sent_twice_or_in_other_bytes_is_judged_whole() {
    let policies = [
        ("only-good", "  action: ALLOW\n  rules: [{when: [{key: 'request.headers[x-team]', values: [good]}]}]\n"),
        ("no-evil", "  action: DENY\n  rules: [{when: [{key: 'request.headers[x-tag]', values: ['evil*']}]}]\n"),
    ];
    let policies = policies.map(|(name, rest)| resources::authorization_policy(name, rest)).concat();
    let scene = Scene::with_resources(Gateway::builder(), &policies, service::http);
    let ask = |lines: &[u8]| {
        let head = format!("GET /bytes/10 HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n");
        statuses(&answers_to(&scene.gateway, [head.as_bytes(), lines, b"\r\n"].concat()))
    };
    let refused: [&[u8]; 5] = [
        b"X-Team: good\r\nX-Team: evil\r\n",
        b"X-Team: evil\r\nX-Team: good\r\n",
        b"X-Team: good\r\nx-team:\r\n",
        b"X-Team: good\xff\r\n",
        b"X-Team: good\r\nX-Tag: evil\xff\r\n",
    ];
    for lines in refused {
        assert_eq!(ask(lines), [403], "{:?}", String::from_utf8_lossy(lines));
    }
    assert_eq!(scene.connections(), 0);
    assert_eq!(ask(b"X-Team: good\r\nX-Tag: fine\r\n"), [200]);
}

#[test]
fn a_head_too_large_is_431_and_one_at_the_limit_passes() {
    let scene = Scene::http();
    let with = |lines: String| format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{lines}\r\n");
    let bombs = [
        with("X: y\r\n".repeat(99)),
        with("X: y\r\n".repeat(10_000)),
        with(format!("X: {}\r\n", "y".repeat(64 * 1024))),
        with(format!("X: {}\r\n", "y".repeat(1024 * 1024))),
        with(format!("{}: y\r\n", "X".repeat(64 * 1024))),
        with("Cookie: a=b\r\n".repeat(5_000)),
        with(format!("Connection: {}\r\n", "x,".repeat(10_000))),
        format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "a".repeat(70_000)),
    ];
    for bomb in bombs {
        let answers = answers_to(&scene.gateway, &bomb);
        // A bomb that is still being written when the answer comes may lose it to a reset.
        assert!(matches!(statuses(&answers)[..], [431] | [414] | []), "{}: {answers}", &bomb[..80]);
        let line = scene.next_line("a bomb");
        assert!(matches!(line.code, 431 | 414), "{line:?}");
    }
    assert_eq!(scene.connections(), 0);
    assert_eq!(statuses(&answers_to(&scene.gateway, with("X: y\r\n".repeat(98)))), [200]);
    assert!(scene.gateway.peak_memory_kib() < 256 * 1024);
}

#[test]
fn connection_options_cannot_remove_what_the_gateway_vouches_for() {
    let scene = Scene::http();
    let options = "Connection: host, content-length, transfer-encoding, x-forwarded-for, x-hop, expect, close\r\n";
    let lines = format!(
        "{options}X-Hop: 1\r\nX-Keep: 2\r\nContent-Length: 5\r\nX-Forwarded-For: 10.0.0.1\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\n"
    );
    let answers = answers_to(&scene.gateway, format!("{}hello", post(&lines)));
    assert_eq!(statuses(&answers)[0], 200, "{answers}");
    let head = scene.requests().remove(0).to_ascii_lowercase();
    assert!(head.contains("host: api.example.com\r\n") && head.contains("content-length: 5\r\n"), "{head}");
    assert!(head.contains("x-keep: 2\r\n"), "{head}");
    for gone in ["x-hop", "te:", "keep-alive", "proxy-", "connection:"] {
        assert!(!head.contains(gone), "{gone} was passed on: {head}");
    }
}

#[test]
fn what_a_client_sends_cannot_forge_a_log_line() {
    let scene = Scene::http();
    let requests = [
        "GET /\" 200 - \" HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nUser-Agent: a\" \"b\\\r\n\r\n"
            .to_owned(),
        format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nUser-Agent: \u{1b}[31m\tred\u{85}\r\nX-Request-Id: \"\r\n\r\n"
        ),
        "\u{7f}GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\x1b[2J\r\nHost: x\r\n\r\n".to_owned(),
        "A\x0bB\x00 / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ];
    for request in requests {
        answers_to(&scene.gateway, &request);
        scene.next_line(&request);
    }
    let text = scene.gateway.log().text();
    let raw = text.bytes().find(|byte| !(byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n')));
    assert_eq!(raw, None, "{text}");
}

#[test]
fn a_client_that_expects_100_of_a_denied_host_gets_the_refusal_alone() {
    let scene = Scene::http();
    let mut client = scene.gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: evil.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.response().status, 502);
    // It may or may not send the body now: the connection cannot go on.
    let _ = client.socket().write_all(b"hello");
    assert_eq!(client::read_to_end(client.socket()), b"");
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_body_behind_a_refusal_is_not_taken_for_a_request() {
    let scene = Scene::http();
    let mut client = scene.gateway.client();
    let length = SMUGGLED.len();
    client.send(format!("POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"));
    assert_eq!(client.response().status, 502);
    assert_eq!(client.get(HOST, "/status/201").status, 201);
    assert_eq!(scene.requests().len(), 1);
    let chunked = "POST / HTTP/1.1\r\nHost: evil.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answers = answers_to(&scene.gateway, format!("{chunked}zz\r\n{SMUGGLED}"));
    assert_eq!(statuses(&answers), [502], "{answers}");
    assert_eq!(scene.requests().len(), 1);
}
