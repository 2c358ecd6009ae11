//! What the next hop gets to see.

use super::*;

const EDITS: RequestEdits<'_> =
    RequestEdits { target: "/t?q", host: "up.example", upgrade: false, via: None, fields: &NO_FIELD_EDITS };
const LOCAL: LocalResponse<'_> = LocalResponse {
    status: 200,
    body: b"",
    location: None,
    fields: &NO_FIELD_EDITS,
    keep_alive: false,
    to_head: false,
};
const KEPT: ResponseEdits<'_> = ResponseEdits { keep_alive: true, http10: false, fields: &NO_FIELD_EDITS };

fn forwarded(bytes: &str, edits: RequestEdits<'_>) -> String {
    let mut out = Vec::new();
    write_request(&request(bytes.as_bytes()), bytes.as_bytes(), &edits, &mut out);
    String::from_utf8(out).expect("text")
}

fn answered(bytes: &str, to_head: bool, edits: ResponseEdits<'_>) -> String {
    let head = complete(parse_response(bytes.as_bytes(), LIMITS, to_head));
    let mut out = Vec::new();
    write_response(&head, bytes.as_bytes(), edits, &mut out);
    String::from_utf8(out).expect("text")
}

#[test]
fn a_request_gets_our_target_host_and_framing_and_keeps_the_rest() {
    let bytes =
        "PUT http://h.example/a HTTP/1.0\r\nAccept:*/*\r\nContent-Length: 007\r\nhost: h.example\r\nx-A: b \r\n\r\n";
    let expected = "PUT /t?q HTTP/1.1\r\nHost: up.example\r\nAccept: */*\r\nx-A: b\r\nContent-Length: 7\r\n\r\n";
    assert_eq!(forwarded(bytes, EDITS), expected);
}

#[test]
fn hop_by_hop_fields_are_left_out() {
    let bytes = "GET / HTTP/1.1\r\nHost: h\r\nConnection: x-private, Keep-Alive\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
        Proxy-Connection: keep-alive\r\nProxy-Authorization: secret\r\nProxy-Authenticate: x\r\nTE: trailers\r\n\
        Proxy-Authentication-Info: x\r\nTrailer: x\r\nUpgrade: websocket\r\nHTTP2-Settings: x\r\nX-Public: 2\r\n\r\n";
    assert_eq!(forwarded(bytes, EDITS), "GET /t?q HTTP/1.1\r\nHost: up.example\r\nX-Public: 2\r\n\r\n");
}

#[test]
fn a_connection_option_cannot_remove_host_framing_or_expectation() {
    let bytes = "PUT / HTTP/1.1\r\nHost: h\r\nConnection: host, content-length, transfer-encoding, expect\r\n\
        Content-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let expected = "PUT /t?q HTTP/1.1\r\nHost: up.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(forwarded(bytes, EDITS), expected);
}

#[test]
fn an_upgrade_is_forwarded_only_if_the_route_allows_it() {
    let bytes = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(forwarded(bytes, EDITS), "GET /t?q HTTP/1.1\r\nHost: up.example\r\n\r\n");
    let expected = "GET /t?q HTTP/1.1\r\nHost: up.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(forwarded(bytes, RequestEdits { upgrade: true, ..EDITS }), expected);
    let h2c = bytes.replace("websocket", "h2c");
    assert!(!forwarded(&h2c, RequestEdits { upgrade: true, ..EDITS }).contains("h2c"));
}

#[test]
fn a_chunked_request_stays_chunked() {
    let bytes = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let expected = "POST /t?q HTTP/1.1\r\nHost: up.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(forwarded(bytes, EDITS), expected);
}

#[test]
fn responses_are_framed_for_the_client() {
    let closed = ResponseEdits { keep_alive: false, http10: false, fields: &NO_FIELD_EDITS };
    let http10 = ResponseEdits { keep_alive: true, http10: true, fields: &NO_FIELD_EDITS };
    let rows = [
        ("Content-Length: 5\r\nX: y\r\n", KEPT, "X: y\r\nContent-Length: 5\r\n"),
        ("Content-Length: 5\r\n", closed, "Content-Length: 5\r\nConnection: close\r\n"),
        ("Content-Length: 5\r\n", http10, "Content-Length: 5\r\nConnection: keep-alive\r\n"),
        ("Transfer-Encoding: chunked\r\n", KEPT, "Transfer-Encoding: chunked\r\n"),
        ("Transfer-Encoding: chunked\r\n", http10, "Connection: close\r\n"),
        ("", KEPT, "Transfer-Encoding: chunked\r\n"),
        ("", http10, "Connection: close\r\n"),
        ("Content-Length: 5\r\nConnection: close, x\r\nX: y\r\nTrailer: z\r\n", KEPT, "Content-Length: 5\r\n"),
    ];
    for (lines, edits, expected) in rows {
        let out = answered(&format!("HTTP/1.0 200 Fine\r\n{lines}\r\n").replace("/1.0", "/1.1"), false, edits);
        assert_eq!(out, format!("HTTP/1.1 200 Fine\r\n{expected}\r\n"), "{lines:?}");
    }
}

#[test]
fn answers_to_head_and_not_modified_keep_their_length_as_sent() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0123\r\n\r\n";
    assert_eq!(answered(ok, true, KEPT), ok);
    let not_modified = "HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(answered(not_modified, false, KEPT), not_modified);
    assert_eq!(answered("HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", false, KEPT), "HTTP/1.1 204 X\r\n\r\n");
    let unknown = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(answered(unknown, true, KEPT), "HTTP/1.1 200 OK\r\n\r\n");
}

#[test]
fn interim_responses_say_nothing_about_the_connection_but_a_switch_does() {
    let closed = ResponseEdits { keep_alive: false, http10: false, fields: &NO_FIELD_EDITS };
    assert_eq!(answered("HTTP/1.1 100 Continue\r\n\r\n", false, closed), "HTTP/1.1 100 Continue\r\n\r\n");
    let switch = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
    let expected = "HTTP/1.1 101 X\r\nSec-WebSocket-Accept: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(answered(switch, false, closed), expected);
}

#[test]
fn chunks_carry_their_size_in_hexadecimal() {
    let mut out = Vec::new();
    write_chunk(b"", &mut out);
    assert!(out.is_empty(), "an empty chunk would end the body");
    for (length, size) in [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (256, "100"), (0xabcd, "abcd")] {
        out.clear();
        let data = "x".repeat(length);
        write_chunk(data.as_bytes(), &mut out);
        assert_eq!(out, format!("{size}\r\n{data}\r\n").as_bytes());
    }
    out.clear();
    write_last_chunk(&mut out);
    assert_eq!(out, b"0\r\n\r\n");
}

#[test]
fn local_answers_are_complete_messages() {
    let rows = [
        (
            502,
            "no",
            true,
            false,
            "502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\nno",
        ),
        (
            403,
            "no",
            true,
            true,
            "403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\r\n",
        ),
        (404, "", false, false, "404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        (204, "x", true, false, "204 No Content\r\n\r\n"),
        (299, "", true, false, "299 \r\nContent-Length: 0\r\n\r\n"),
    ];
    for (status, body, keep_alive, to_head, expected) in rows {
        let mut out = Vec::new();
        write_local_response(&LocalResponse { status, body: body.as_bytes(), keep_alive, to_head, ..LOCAL }, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), format!("HTTP/1.1 {expected}"));
        assert_eq!(response(&out).keep_alive, keep_alive);
    }
}

#[test]
fn method_not_allowed_lists_what_is() {
    let mut out = Vec::new();
    write_local_response(&LocalResponse { status: 405, ..LOCAL }, &mut out);
    let allow = response(&out).head.find(&out, "allow").map(<[u8]>::to_vec).expect("a field");
    assert!(allow.starts_with(b"GET, ") && !allow.windows(7).any(|part| part == b"CONNECT"));
}

#[test]
fn edits_reach_end_to_end_fields_and_no_others() {
    let mut fields = FieldEdits::new();
    fields.remove("x-gone");
    fields.set("X-Set", "new");
    let bytes =
        "GET / HTTP/1.1\r\nHost: a.example\r\nX-Gone: 1\r\nx-set: old\r\nX-Kept: 1\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(
        forwarded(bytes, RequestEdits { fields: &fields, ..EDITS }),
        "GET /t?q HTTP/1.1\r\nHost: up.example\r\nX-Kept: 1\r\nX-Set: new\r\nContent-Length: 3\r\n\r\n"
    );
    let bytes = "HTTP/1.1 200 OK\r\nX-Gone: 1\r\nX-Set: old\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(
        answered(bytes, false, ResponseEdits { fields: &fields, ..KEPT }),
        "HTTP/1.1 200 OK\r\nX-Set: new\r\nContent-Length: 3\r\n\r\n"
    );
}

#[test]
fn an_answer_of_our_own_says_where_to_and_what_the_operator_adds() {
    let mut fields = FieldEdits::new();
    fields.set("content-type", "text/html");
    let mut out = Vec::new();
    let moved = LocalResponse { status: 301, body: b"x", location: Some("/new"), fields: &fields, ..LOCAL };
    write_local_response(&LocalResponse { keep_alive: true, ..moved }, &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        "HTTP/1.1 301 Moved Permanently\r\nLocation: /new\r\nContent-Length: 1\r\ncontent-type: text/html\r\n\r\nx"
    );
}
