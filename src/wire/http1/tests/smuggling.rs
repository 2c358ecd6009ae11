//! Messages that two readers could read in two ways. Each row is refused with one exact fault.

use super::*;

fn assert_refused(rows: &[(&str, HeadError)]) {
    for (lines, error) in rows {
        assert_eq!(request_with(lines), Parsed::Rejected(*error), "request with {lines:?}");
        assert_eq!(response_with(200, lines), Parsed::Rejected(*error), "response with {lines:?}");
    }
}

#[test]
fn two_ways_to_find_the_end_are_refused() {
    assert_refused(&[
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", HeadError::AmbiguousLength),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", HeadError::AmbiguousLength),
        ("transfer-encoding: CHUNKED\r\ncontent-length: 0\r\n", HeadError::AmbiguousLength),
    ]);
}

#[test]
fn content_lengths_are_single_and_made_of_digits() {
    let values = ["", "+5", "-5", "0x5", "5,5", "5, 5", "5 5", "5;", "5.0", "1e3", "\u{665}", "five", "5\t5", "\"5\""];
    for value in values {
        let lines = format!("Content-Length: {value}\r\n");
        assert_refused(&[(&lines, HeadError::ContentLength)]);
    }
    assert_refused(&[
        ("Content-Length: 5\r\nContent-Length: 6\r\n", HeadError::ContentLength),
        ("Content-Length: 5\r\ncontent-length: 5\r\n", HeadError::ContentLength),
        ("Content-Length: 9223372036854775808\r\n", HeadError::ContentLength),
        ("Content-Length: 18446744073709551616\r\n", HeadError::ContentLength),
        ("Content-Length: 00000000000000000005\r\n", HeadError::ContentLength),
        ("Content-Length : 5\r\n", HeadError::Syntax),
        ("Content-Length\t: 5\r\n", HeadError::Syntax),
        ("Content-Length\0: 5\r\n", HeadError::Syntax),
        ("Content-Length: 5\0\r\n", HeadError::Syntax),
    ]);
}

#[test]
fn the_only_transfer_coding_is_chunked() {
    let values = [
        "",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, identity",
        "chunked , identity",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunkedx",
        "\"chunked\"",
        "'chunked'",
        "chunked;q=1",
        "chunked\u{a0}",
        "x chunked",
    ];
    for value in values {
        let lines = format!("Transfer-Encoding: {value}\r\n");
        assert_refused(&[(&lines, HeadError::TransferEncoding)]);
    }
    assert_refused(&[
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding: \x0bchunked\r\n", HeadError::Syntax),
        ("Transfer-Encoding: chunked\x0c\r\n", HeadError::Syntax),
        ("Transfer-Encoding : chunked\r\n", HeadError::Syntax),
        ("Transfer-Encoding:\r\n chunked\r\n", HeadError::Syntax),
        (" Transfer-Encoding: chunked\r\n", HeadError::Syntax),
        ("X: x\nTransfer-Encoding: chunked\r\n", HeadError::Syntax),
        ("X: x\rTransfer-Encoding: chunked\r\n", HeadError::Syntax),
    ]);
}

#[test]
fn http_1_0_has_no_transfer_coding() {
    let head = b"POST / HTTP/1.0\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse_request(head, LIMITS), Parsed::Rejected(HeadError::TransferEncoding));
    let head = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse_response(head, LIMITS, false), Parsed::Rejected(HeadError::TransferEncoding));
}

#[test]
fn lines_end_in_crlf_and_are_not_folded() {
    let rows = [
        "X: a\nY: b\r\n",
        "X: a\r\n\tb\r\n",
        "X: a\r\n b\r\n",
        "X: a\rb\r\n",
        "X: a\r\r\n",
        "X: a\0b\r\n",
        "X: \x01\r\n",
        "X: \x7f\r\n",
        "X : a\r\n",
        ": a\r\n",
        "X\r\n",
        "X a\r\n",
        "(X): a\r\n",
        "\u{e9}: a\r\n",
    ];
    for lines in rows {
        assert_refused(&[(lines, HeadError::Syntax)]);
    }
}

#[test]
fn no_control_character_but_the_tab_is_accepted_in_a_value_wherever_it_stands() {
    for position in 0..70 {
        for byte in (0..0x20).chain([0x7f]).filter(|byte| ![b'\t', b'\r', b'\n'].contains(byte)) {
            let mut head = b"GET / HTTP/1.1\r\nHost: h\r\nX: ".to_vec();
            let value = head.len();
            head.extend_from_slice(&[b'a'; 70]);
            head.extend_from_slice(b"\r\n\r\n");
            head[value + position] = byte;
            assert_eq!(parse_request(&head, LIMITS), Parsed::Rejected(HeadError::Syntax), "{byte:#x} at {position}");
        }
    }
}

#[test]
fn nothing_but_token_bytes_is_accepted_in_a_name_wherever_it_stands() {
    for position in 0..40 {
        // A colon would end the name, and a line feed the line.
        for byte in (0..=u8::MAX).filter(|byte| ![b':', b'\n'].contains(byte)) {
            let mut head = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
            let name = head.len();
            head.extend_from_slice(&[b'a'; 40]);
            head.extend_from_slice(b": x\r\n\r\n");
            head[name + position] = byte;
            let accepted = matches!(parse_request(&head, LIMITS), Parsed::Complete(_));
            assert_eq!(accepted, super::super::grammar::is_token_byte(byte), "{byte:#x} at {position}");
        }
    }
}

#[test]
fn start_lines_have_single_spaces_and_nothing_else() {
    let lines = [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / x HTTP/1.1",
        "GET /",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET / HTTP/11",
        "GET /\x7f HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "G(T / HTTP/1.1",
        "/ HTTP/1.1",
        "\u{16}\u{3}\u{1}",
    ];
    for line in lines {
        let head = format!("{line}\r\nHost: h.example\r\n\r\n");
        assert_eq!(parse_request(head.as_bytes(), LIMITS), Parsed::Rejected(HeadError::Syntax), "{line:?}");
    }
}

#[test]
fn only_one_empty_line_may_come_before_a_request() {
    assert_eq!(request(b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").head.len, 29);
    for before in ["\r\n\r\n", "\n", "\r\n\n", "\n\r\n"] {
        let head = format!("{before}GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(parse_request(head.as_bytes(), LIMITS), Parsed::Rejected(HeadError::Syntax), "{before:?}");
    }
    assert_eq!(parse_response(b"\r\nHTTP/1.1 200 OK\r\n\r\n", LIMITS, false), Parsed::Rejected(HeadError::Syntax));
}

#[test]
fn what_is_no_http_is_refused_at_once() {
    for bytes in [b"\x16\x03\x01".as_slice(), b"SSH-2.0-x\r\n", b"\0", b"GET\r\n", b"\n", &[b'A'; 65]] {
        assert_eq!(parse_request(bytes, LIMITS), Parsed::Rejected(HeadError::Syntax), "{bytes:?}");
    }
    for bytes in [b"SSH-2.0-x".as_slice(), b"\0\0\x12\x04", b"HTTP/2", b"\r"] {
        assert_eq!(parse_response(bytes, LIMITS, false), Parsed::Rejected(HeadError::Syntax), "{bytes:?}");
    }
}

#[test]
fn other_versions_are_told_apart_from_garbage() {
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3.0"] {
        let head = format!("GET / {version}\r\nHost: h\r\n\r\n");
        assert_eq!(parse_request(head.as_bytes(), LIMITS), Parsed::Rejected(HeadError::Version), "{version}");
    }
    assert_eq!(parse_request(b"PRI * HTTP/2.0\r\n\r\n", LIMITS), Parsed::Rejected(HeadError::Version));
    assert_eq!(parse_response(b"HTTP/1.2 200 OK\r\n\r\n", LIMITS, false), Parsed::Rejected(HeadError::Version));
}

#[test]
fn a_list_of_connection_options_without_end_is_refused() {
    let options = |count: usize| format!("Connection: {}\r\n", vec!["a"; count].join(","));
    assert!(matches!(request_with(&options(64)), Parsed::Complete(_)));
    assert_refused(&[(&options(65), HeadError::TooManyFields)]);
}
