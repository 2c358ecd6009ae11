//! What a legal response says, and what a hostile upstream may not.

use super::*;

#[test]
fn a_response_is_taken_apart_in_place() {
    let bytes = b"HTTP/1.1 404 Not  Found\r\nContent-Length: 12\r\nServer: x\r\n\r\nrest";
    let head = response(bytes);
    assert_eq!(head.head.len as usize, bytes.len() - 4);
    assert_eq!((head.status, head.phrase.text(bytes)), (404, "Not  Found"));
    assert_eq!((head.version, head.body, head.keep_alive), (Version::Http11, BodyLength::Fixed(12), true));
    assert_eq!(head.head.find(bytes, "server"), Some(b"x".as_slice()));
}

#[test]
fn the_phrase_may_be_missing() {
    for line in ["HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.1 200 \u{e9}"] {
        let bytes = format!("{line}\r\n\r\n");
        assert_eq!(response(bytes.as_bytes()).phrase.of(bytes.as_bytes()), b"", "{line:?}");
    }
}

#[test]
fn status_lines_have_a_status_of_three_digits_up_to_599() {
    for line in [
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 X",
        "HTTP/1.1 600 X",
        "HTTP/1.1 999 X",
        "HTTP/1.1 abc X",
        "HTTP/1.1 +20 X",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200 \0",
        "HTTP/1.1 200 a\rb",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1\t200 OK",
    ] {
        let bytes = format!("{line}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(parse_response(bytes.as_bytes(), LIMITS, false), Parsed::Rejected(HeadError::Syntax), "{line:?}");
    }
}

#[test]
fn the_body_follows_from_method_status_and_framing() {
    let rows = [
        (200, "Content-Length: 5\r\n", false, BodyLength::Fixed(5)),
        (200, "Content-Length: 0\r\n", false, BodyLength::Fixed(0)),
        (200, "Transfer-Encoding: chunked\r\n", false, BodyLength::Chunked),
        (200, "", false, BodyLength::UntilClose),
        (200, "Content-Length: 5\r\n", true, BodyLength::None),
        (200, "Transfer-Encoding: chunked\r\n", true, BodyLength::None),
        (200, "", true, BodyLength::None),
        (204, "", false, BodyLength::None),
        (204, "Content-Length: 0\r\n", false, BodyLength::None),
        (304, "Content-Length: 5\r\n", false, BodyLength::None),
        (100, "", false, BodyLength::None),
        (101, "Upgrade: x\r\n", false, BodyLength::None),
        (500, "", false, BodyLength::UntilClose),
    ];
    for (status, lines, to_head, body) in rows {
        let bytes = format!("HTTP/1.1 {status} X\r\n{lines}\r\n");
        let head = complete(parse_response(bytes.as_bytes(), LIMITS, to_head));
        assert_eq!(head.body, body, "{status} {lines:?} {to_head}");
    }
}

#[test]
fn statuses_without_a_body_announce_none() {
    for status in [100, 101, 103, 204] {
        let length = response_with(status, "Upgrade: x\r\nContent-Length: 5\r\n");
        assert_eq!(length, Parsed::Rejected(HeadError::ContentLength), "{status}");
        let coding = response_with(status, "Upgrade: x\r\nTransfer-Encoding: chunked\r\n");
        assert_eq!(coding, Parsed::Rejected(HeadError::TransferEncoding), "{status}");
    }
}

#[test]
fn switching_protocols_says_to_which() {
    assert_eq!(response_with(101, "Connection: upgrade\r\n"), Parsed::Rejected(HeadError::Syntax));
    assert!(matches!(response_with(101, "Upgrade: websocket\r\n"), Parsed::Complete(_)));
}

#[test]
fn connections_are_kept_only_if_the_end_of_the_body_is_known() {
    let rows = [
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\n", true),
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\nConnection: close\r\n", false),
        ("HTTP/1.1 200 OK", "", false),
        ("HTTP/1.1 204 OK", "", true),
        ("HTTP/1.1 101 OK", "Connection: upgrade\r\nUpgrade: websocket\r\n", false),
        ("HTTP/1.0 200 OK", "Content-Length: 5\r\n", false),
        ("HTTP/1.0 200 OK", "Content-Length: 5\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.0 200 OK", "Connection: keep-alive\r\n", false),
    ];
    for (line, lines, keep_alive) in rows {
        let bytes = format!("{line}\r\n{lines}\r\n");
        assert_eq!(response(bytes.as_bytes()).keep_alive, keep_alive, "{line} {lines:?}");
    }
}
