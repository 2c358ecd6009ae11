//! Attacks by an upstream: responses that two readers would read in two ways, and responses without end.

use std::io::{Read, Write};

use crate::scene::{HOST, Scene, answering, answering_once, answers_to, read_head, statuses};
use crate::support::client::Http;
use crate::support::gateway::Gateway;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An answer that nobody has asked for.
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL";

const ASK: &str = "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
const ASK_ONCE: &str = "GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";

/// The client of an upstream that answers every request with these bytes gets a failure of this status and flag.
#[track_caller]
fn assert_fails(bytes: String, status: u16, flag: &str) {
    let what = format!("{:?}", &bytes[..bytes.len().min(120)]);
    let scene = Scene::with(Gateway::builder(), answering_once(bytes));
    let answers = answers_to(&scene.gateway, ASK_ONCE);
    assert_eq!(statuses(&answers), [status], "{what}: {answers}");
    assert!(!answers.contains("EVIL"), "{what}: {answers}");
    let line = scene.next_line(&what);
    assert_eq!((line.code, line.flags.as_str()), (status, flag), "{what}: {line:?}");
    assert_ne!(line.transport_failure, "-", "{what}: {line:?}");
}

#[test]
fn responses_that_can_be_read_in_two_ways_are_502() {
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 50\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\n",
        "HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 600 High\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 2000 Long\r\nContent-Length: 2\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "\x15\x03\x01\x00\x02\x02\x28\r\n\r\n",
    ];
    for head in heads {
        assert_fails(format!("{head}{EVIL}"), 502, "UPE");
    }
}

#[test]
fn a_response_head_without_end_is_502() {
    for endless in [
        format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(1_000_000)),
        format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(100_000)),
        "H".repeat(1_000_000),
    ] {
        assert_fails(endless, 502, "UPE");
    }
}

#[test]
fn a_flood_of_interim_responses_is_502_and_a_few_pass() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let scene = Scene::with(Gateway::builder(), answering(format!("{}{OK}", interim.repeat(16))));
    let answers = answers_to(&scene.gateway, ASK_ONCE);
    assert_eq!(statuses(&answers), [[103; 16].as_slice(), &[200]].concat(), "{answers}");
    // A client of HTTP/1.0 knows no interim responses.
    let answers = answers_to(&scene.gateway, format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(statuses(&answers), [200], "{answers}");

    let flood = Scene::with(Gateway::builder(), answering(interim.repeat(10_000)));
    let answers = answers_to(&flood.gateway, ASK_ONCE);
    let statuses = statuses(&answers);
    assert!(statuses.len() <= 17 && statuses.ends_with(&[502]), "{statuses:?}");
    assert_eq!(flood.next_line("the flood").flags, "UPE");
}

#[test]
fn bytes_behind_a_response_never_reach_the_next_client() {
    let more = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{EVIL}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nEVIL{EVIL}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n{EVIL}"),
        format!("{OK}E"),
    ];
    for bytes in more {
        let scene = Scene::with(Gateway::builder(), answering(bytes));
        for _ in 0..3 {
            let response = scene.gateway.client().get(HOST, "/");
            assert!(matches!(response.text(), "ok" | ""), "{response:?}");
            assert_ne!(response.status, 502);
        }
        assert_eq!(scene.connections(), 3, "a connection with bytes behind its response is not used again");
    }
}

#[test]
fn a_body_to_head_is_not_the_answer_to_the_next_request() {
    let scene =
        Scene::with(Gateway::builder(), answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n{EVIL}")));
    let mut client = scene.gateway.client();
    for _ in 0..2 {
        client.send(format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        let head = client.head().expect("a head");
        assert!(head.contains("Content-Length: 55\r\n"), "{head}");
    }
    assert_eq!(scene.connections(), 2);
}

#[test]
fn bytes_that_come_late_never_reach_the_next_client() {
    // The answer is complete and passed on; only then the upstream sends another.
    let scene = Scene::with(Gateway::builder(), |stream, seen| {
        while read_head(stream)?.is_some() {
            stream.write_all(OK.as_bytes())?;
            seen.wait_at_gate();
            stream.write_all(EVIL.as_bytes())?;
            seen.update(|counts| counts.recorded.push(1));
        }
        Ok(())
    });
    let mut client = scene.gateway.client();
    assert_eq!(client.get(HOST, "/").text(), "ok");
    scene.upstream.seen().open_gate();
    scene.upstream.seen().wait_for("the late bytes", |counts| !counts.recorded.is_empty());
    assert_eq!(client.get(HOST, "/").text(), "ok");
    assert_eq!(scene.connections(), 2);
}

#[test]
fn bodies_that_break_off_or_break_their_framing_never_look_complete() {
    let bodies = [
        "Content-Length: 10\r\n\r\nshort",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ];
    for body in bodies {
        let scene = Scene::with(Gateway::builder(), answering_once(format!("HTTP/1.1 200 OK\r\n{body}")));
        let mut client = scene.gateway.client();
        client.send(ASK);
        client.try_response().expect_err(body);
        assert_eq!(scene.next_line(body).flags, "UC", "{body:?}");
    }
}

#[test]
fn a_body_without_a_length_is_whole_only_if_its_connection_ends_well() {
    let scene =
        Scene::with(Gateway::builder(), answering_once("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"));
    assert_eq!(scene.gateway.client().get(HOST, "/").text(), "all of it");
    assert_eq!(scene.next_line("a body").flags, "-");
}

#[test]
fn a_redirect_is_never_followed() {
    let redirect =
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\nContent-Length: 0\r\n\r\n";
    let scene = Scene::with(Gateway::builder(), answering(redirect));
    let response = scene.gateway.client().get(HOST, "/");
    assert_eq!((response.status, response.header("location")), (302, Some("http://169.254.169.254/latest/meta-data")));
    assert_eq!((scene.connections(), scene.requests().len()), (1, 1));
}

#[test]
fn an_upstream_that_sends_for_ever_fills_no_memory() {
    let endless: [(&str, &[u8]); 4] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n", &[b'x'; 64 * 1024]),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &[b'x'; 64 * 1024]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;extension=1\r\nx\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n"),
    ];
    for (head, piece) in endless {
        let scene = Scene::with(Gateway::builder(), move |stream, seen| {
            read_head(stream)?;
            stream.write_all(head.as_bytes())?;
            let block = piece.repeat(64 * 1024 / piece.len());
            for _ in 0..512 {
                stream.write_all(&block)?;
                seen.update(|counts| counts.bytes_received += 1);
            }
            Ok(())
        });
        // The first client does not read at all; the second is served meanwhile.
        let mut idle = scene.gateway.client();
        idle.send(ASK);
        scene.upstream.seen().wait_for("the response to begin", |counts| counts.bytes_received > 0);
        let mut client = scene.gateway.client();
        client.send(ASK);
        read_some(&mut client);
        assert_eq!(scene.gateway.client().get("evil.example", "/").status, 502);
        assert!(scene.gateway.peak_memory_kib() < 96 * 1024, "{head}: {} KiB", scene.gateway.peak_memory_kib());
    }
}

/// Reads up to 16 MiB, or to the end.
fn read_some(client: &mut Http) {
    let mut taken = 0;
    let mut buffer = vec![0; 64 * 1024];
    while taken < 16 << 20 {
        match client.socket().read(&mut buffer) {
            Ok(count @ 1..) => taken += count,
            Ok(0) | Err(_) => return,
        }
    }
}
