//! What a legal request says, and the targets and hosts that are none.

use super::*;

fn text(span: Span, bytes: &[u8]) -> &str {
    span.text(bytes)
}

#[test]
fn a_request_is_taken_apart_in_place() {
    let bytes = b"GET /a/b?c=d&e HTTP/1.1\r\nHost: Api.Example.com:8080\r\nAccept:  */* \r\nX-Empty:\r\n\r\nrest";
    let head = request(bytes);
    assert_eq!(head.head.len as usize, bytes.len() - 4);
    assert_eq!((text(head.method, bytes), head.form), ("GET", TargetForm::Origin));
    assert_eq!((text(head.path, bytes), text(head.query, bytes), head.has_query), ("/a/b", "c=d&e", true));
    assert_eq!(text(head.authority, bytes), "Api.Example.com:8080");
    assert_eq!((head.version, head.body), (Version::Http11, BodyLength::None));
    assert!(head.keep_alive && !head.expects_continue && head.upgrade.is_none());
    assert_eq!(head.head.find(bytes, "accept"), Some(b"*/*".as_slice()));
    assert_eq!(head.head.find(bytes, "X-EMPTY"), Some(b"".as_slice()));
    assert_eq!(head.head.find(bytes, "x-missing"), None);
}

#[test]
fn every_form_of_target_is_understood() {
    let rows = [
        ("GET", "/", TargetForm::Origin, "/", "", false),
        ("GET", "/?", TargetForm::Origin, "/", "", true),
        ("GET", "/a?b?c", TargetForm::Origin, "/a", "b?c", true),
        ("GET", "//x/y", TargetForm::Origin, "//x/y", "", false),
        ("GET", "/http://other/", TargetForm::Origin, "/http://other/", "", false),
        ("GET", "http://h.example/a?b", TargetForm::Absolute, "/a", "b", true),
        ("GET", "HTTP://H.Example./a", TargetForm::Absolute, "/a", "", false),
        ("GET", "http://h.example:80", TargetForm::Absolute, "", "", false),
        ("GET", "http://h.example?b", TargetForm::Absolute, "", "b", true),
        ("OPTIONS", "*", TargetForm::Asterisk, "*", "", false),
        ("OPTIONS", "/a", TargetForm::Origin, "/a", "", false),
        ("CONNECT", "h.example:80", TargetForm::Authority, "", "", false),
    ];
    for (method, target, form, path, query, has_query) in rows {
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: h.example\r\n\r\n");
        let head = request(bytes.as_bytes());
        let bytes = bytes.as_bytes();
        assert_eq!(head.form, form, "{target}");
        assert_eq!((text(head.path, bytes), text(head.query, bytes), head.has_query), (path, query, has_query));
        assert_eq!(head.query.start == head.query.end, query.is_empty(), "{target}");
    }
}

#[test]
fn targets_that_are_none_are_refused() {
    let rows = [
        ("GET", "*"),
        ("GET", "a"),
        ("GET", "h.example:80"),
        ("GET", "h.example"),
        ("GET", "https://h.example/"),
        ("GET", "ftp://h.example/"),
        ("GET", "http:/h.example"),
        ("GET", "http:"),
        ("GET", "/a#b"),
        ("GET", "#"),
        ("GET", "http://h.example/#b"),
        ("GET", "/\u{e9}"),
        ("OPTIONS", "**"),
        ("connect", "h.example:80"),
        ("CONNECT", "h.example"),
    ];
    for (method, target) in rows {
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: h.example\r\n\r\n");
        assert_eq!(parse_request(bytes.as_bytes(), LIMITS), Parsed::Rejected(HeadError::Target), "{method} {target}");
    }
}

#[test]
fn there_is_exactly_one_host() {
    for hosts in ["", "Host: h\r\nHost: h\r\n", "Host: h\r\nhost: i\r\n", "Host:\r\n", "Host: \t \r\n"] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let bytes = format!("GET / {version}\r\n{hosts}\r\n");
            assert_eq!(parse_request(bytes.as_bytes(), LIMITS), Parsed::Rejected(HeadError::Host), "{hosts:?}");
        }
    }
}

#[test]
fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
    let bad = [
        "a, b",
        "a b",
        "user@h.example",
        "h.example:",
        "h.example:0",
        "h.example:x",
        "h.example:65536",
        "::1",
        "[::1",
        "h/a",
        "h?a",
        "h#a",
        "h%2e",
        "-h",
        "h..i",
        "*",
        "*.h",
        "0x7f.1",
        "127.1",
        "\u{e9}.example",
    ];
    for host in bad {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(parse_request(bytes.as_bytes(), LIMITS), Parsed::Rejected(HeadError::Authority), "{host}");
    }
    for host in ["h", "H.Example.", "h.example:8080", "127.0.0.1", "[::1]:80", "a_b.example"] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(text(request(bytes.as_bytes()).authority, bytes.as_bytes()), host);
    }
}

#[test]
fn an_absolute_target_agrees_with_the_host() {
    let rows = [
        ("http://a.example/", "b.example", HeadError::AuthorityMismatch),
        ("http://a.example:8080/", "a.example", HeadError::AuthorityMismatch),
        ("http://a.example/", "a.example:8080", HeadError::AuthorityMismatch),
        ("http://u@a.example/", "a.example", HeadError::Authority),
        ("http://a.example\\@b/", "a.example", HeadError::Authority),
        ("http:///", "a.example", HeadError::Authority),
        ("http://a.example/", "", HeadError::Host),
    ];
    for (target, host, error) in rows {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(parse_request(bytes.as_bytes(), LIMITS), Parsed::Rejected(error), "{target} {host}");
    }
    let bytes = b"CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n";
    assert_eq!(parse_request(bytes, LIMITS), Parsed::Rejected(HeadError::AuthorityMismatch));
}

#[test]
fn the_body_is_framed_by_one_field_or_none() {
    let rows = [
        ("", BodyLength::None),
        ("Content-Length: 0\r\n", BodyLength::Fixed(0)),
        ("Content-Length: 007\r\n", BodyLength::Fixed(7)),
        ("Content-Length: \t9223372036854775807 \r\n", BodyLength::Fixed((1 << 63) - 1)),
        ("Transfer-Encoding: chunked\r\n", BodyLength::Chunked),
        ("TRANSFER-ENCODING:Chunked\r\n", BodyLength::Chunked),
    ];
    for (lines, body) in rows {
        assert_eq!(complete(request_with(lines)).body, body, "{lines:?}");
    }
}

#[test]
fn connections_are_kept_as_the_version_says() {
    let rows = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "Connection: x, CLOSE\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("HTTP/1.1", "Proxy-Connection: close\r\n", true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ("HTTP/1.0", "Proxy-Connection: keep-alive\r\n", false),
    ];
    for (version, lines, keep_alive) in rows {
        let bytes = format!("GET / {version}\r\nHost: h\r\n{lines}\r\n");
        assert_eq!(request(bytes.as_bytes()).keep_alive, keep_alive, "{version} {lines:?}");
    }
}

#[test]
fn an_expectation_counts_in_http_1_1_and_with_a_body() {
    let rows = [
        ("HTTP/1.1", "Expect: 100-Continue\r\nContent-Length: 1\r\n", true),
        ("HTTP/1.1", "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", true),
        ("HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false),
        ("HTTP/1.1", "Expect: 100-continue\r\n", false),
        ("HTTP/1.1", "Expect: else\r\nContent-Length: 1\r\n", false),
        ("HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n", false),
    ];
    for (version, lines, expected) in rows {
        let bytes = format!("POST / {version}\r\nHost: h\r\n{lines}\r\n");
        assert_eq!(request(bytes.as_bytes()).expects_continue, expected, "{version} {lines:?}");
    }
}

#[test]
fn an_upgrade_needs_its_connection_option_and_is_not_h2c() {
    let rows = [
        ("HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
        ("HTTP/1.1", "Connection: keep-alive, upgrade\r\nUpgrade: a, b\r\n", Some("a, b")),
        ("HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", Some("websocket")),
        ("HTTP/1.1", "Upgrade: websocket\r\n", None),
        ("HTTP/1.1", "Connection: upgrade\r\n", None),
        ("HTTP/1.1", "Connection: upgrade\r\nUpgrade: ,\r\n", None),
        ("HTTP/1.1", "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", None),
        ("HTTP/1.1", "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\nUpgrade: c\r\n", None),
        ("HTTP/1.1", "Connection: upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: x\r\n", None),
        ("HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", None),
        ("HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", None),
        ("HTTP/1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", None),
    ];
    for (version, lines, upgrade) in rows {
        let bytes = format!("GET / {version}\r\nHost: h\r\n{lines}\r\n");
        let found = request(bytes.as_bytes()).upgrade.map(|span| span.text(bytes.as_bytes()).to_owned());
        assert_eq!(found.as_deref(), upgrade, "{version} {lines:?}");
    }
}

#[test]
fn methods_are_any_token_of_bounded_length() {
    for method in ["get", "PATCH", "X-!#$%&'*+-.^_`|~9", &"M".repeat(64)] {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(text(request(bytes.as_bytes()).method, bytes.as_bytes()), method);
    }
    let bytes = format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "M".repeat(65));
    assert_eq!(parse_request(bytes.as_bytes(), LIMITS), Parsed::Rejected(HeadError::Syntax));
}

#[test]
fn a_raised_limit_admits_more_fields_than_the_stack_holds() {
    let limits = HeadLimits { bytes: 1 << 16, fields: 1000 };
    let bytes = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(999));
    assert_eq!(complete(parse_request(bytes.as_bytes(), limits)).head.fields.len(), 1000);
    let bytes = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(1000));
    assert_eq!(parse_request(bytes.as_bytes(), limits), Parsed::Rejected(HeadError::TooManyFields));
}

#[test]
fn heads_without_end_are_cut_at_the_limit() {
    let limits = HeadLimits { bytes: 64, fields: 100 };
    let bytes = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(64));
    assert_eq!(parse_request(&bytes.as_bytes()[..63], limits), Parsed::Incomplete);
    assert_eq!(parse_request(&bytes.as_bytes()[..64], limits), Parsed::Rejected(HeadError::TooLarge));
    assert_eq!(parse_request(bytes.as_bytes(), limits), Parsed::Rejected(HeadError::TooLarge));
}
