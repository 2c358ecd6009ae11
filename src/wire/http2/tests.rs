//! What is written in HTTP/1.1 of a message in HTTP/2 is judged by the one parser, and means the same when it is read back.

use http::{HeaderMap, HeaderValue, Method, Request, Response, request, response};
use proptest::prelude::*;

use crate::wire::http1::{BodyLength, HeadError, HeadLimits, Parsed, RequestHead, parse_request, parse_response};

use super::{Body, forwardable, fuzz, read_request, read_response, write_request, write_response};

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100 };

fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("what h2 hands over").into_parts().0
}

fn translated(parts: &request::Parts, ends: bool) -> Result<(RequestHead, Vec<u8>), HeadError> {
    let mut bytes = Vec::new();
    write_request(parts, ends, &mut bytes)?;
    match parse_request(&bytes, LIMITS) {
        Parsed::Complete(head) => Ok((head, bytes)),
        Parsed::Rejected(error) => Err(error),
        Parsed::Incomplete => panic!("a whole head"),
    }
}

fn judged(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<String, HeadError> {
    let (head, bytes) = translated(&parts(method, uri, fields), true)?;
    let [authority, path] = [head.authority.text(&bytes), head.path.text(&bytes)];
    Ok(format!("{} {authority} {path}", head.method.text(&bytes)))
}

#[test]
fn the_authority_decides_and_a_host_must_agree() {
    let uri = "http://a.example/x?y";
    assert_eq!(judged("GET", uri, &[]), Ok("GET a.example /x".to_owned()));
    assert_eq!(judged("GET", uri, &[("host", "A.example")]), Ok("GET a.example /x".to_owned()));
    assert_eq!(judged("GET", "/x", &[("host", "b.example")]), Ok("GET b.example /x".to_owned()));
    assert_eq!(judged("GET", uri, &[("host", "b.example")]), Err(HeadError::AuthorityMismatch));
    assert_eq!(judged("GET", uri, &[("host", "a.example:81")]), Err(HeadError::AuthorityMismatch));
    assert_eq!(judged("GET", uri, &[("host", "a.example"), ("host", "b.example")]), Err(HeadError::Host));
    assert_eq!(judged("GET", "/x", &[]), Err(HeadError::Host));
    assert_eq!(judged("GET", "http://u@a.example/x", &[]), Err(HeadError::Authority));
}

#[test]
fn a_path_is_in_origin_form_or_a_star_for_options() {
    let mut star = parts("OPTIONS", "*", &[("host", "a.example")]);
    assert!(translated(&star, true).is_ok());
    star.method = Method::GET;
    assert_eq!(translated(&star, true).unwrap_err(), HeadError::Target);
    assert!(judged("CONNECT", "a.example:443", &[("host", "a.example:443")]).is_ok());
}

#[test]
fn what_concerns_a_connection_of_http1_is_refused() {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"] {
        assert_eq!(judged("GET", "http://a.example/", &[(name, "x")]), Err(HeadError::Syntax), "{name}");
    }
    assert_eq!(judged("GET", "ftp://a.example/", &[]), Err(HeadError::Target));
}

#[test]
fn crumbs_of_cookies_are_put_together() {
    let (head, bytes) =
        translated(&parts("GET", "http://a.example/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]), true)
            .unwrap();
    assert_eq!(head.head.find(&bytes, "cookie"), Some(b"a=1; b=2".as_slice()));
}

#[test]
fn a_body_is_framed_by_its_length_or_in_chunks() {
    let length = |fields: &[(&str, &str)], ends| {
        translated(&parts("POST", "http://a.example/", fields), ends).map(|(head, _)| head.body)
    };
    assert_eq!(length(&[], true), Ok(BodyLength::None));
    assert_eq!(length(&[], false), Ok(BodyLength::Chunked));
    assert_eq!(length(&[("content-length", "7")], false), Ok(BodyLength::Fixed(7)));
    assert_eq!(length(&[("content-length", "7"), ("content-length", "7")], false), Err(HeadError::ContentLength));
}

#[test]
fn a_request_leaves_with_its_authority_scheme_and_no_field_of_a_connection() {
    let head = b"POST /a?b HTTP/1.1\r\nHost: a.example:81\r\nX-One: 1\r\nConnection: x-two\r\nX-Two: 2\r\n\
        Upgrade: websocket\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\nrest";
    let (request, parsed) = read_request(head, true, false).unwrap().unwrap();
    assert_eq!(request.uri().to_string(), "https://a.example:81/a?b");
    assert_eq!(request.headers().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-one"]);
    assert_eq!(parsed.head.len as usize, head.len() - 4);
    let (request, _) = read_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, true).unwrap().unwrap();
    assert_eq!(
        (request.uri().scheme_str(), &request.headers()["te"]),
        (Some("http"), &HeaderValue::from_static("trailers"))
    );
    assert!(read_request(b"GET / HTTP/1.1\r\n", false, true).unwrap().is_none());
}

fn answer(status: u16, fields: &[(&str, &str)]) -> response::Parts {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).expect("what h2 hands over").into_parts().0
}

#[test]
fn a_response_is_framed_as_its_status_and_method_have_it() {
    let framed = |parts: &response::Parts, ends, to_head| {
        let mut bytes = Vec::new();
        let body = write_response(parts, ends, to_head, &mut bytes)?;
        match parse_response(&bytes, LIMITS, to_head) {
            Parsed::Complete(head) => Ok((body, head.body)),
            Parsed::Rejected(error) => Err(error),
            Parsed::Incomplete => panic!("a whole head"),
        }
    };
    assert_eq!(framed(&answer(200, &[]), false, false), Ok((Body::Chunked, BodyLength::Chunked)));
    assert_eq!(framed(&answer(200, &[]), true, false), Ok((Body::Plain, BodyLength::Fixed(0))));
    assert_eq!(framed(&answer(200, &[("content-length", "5")]), false, false), Ok((Body::Plain, BodyLength::Fixed(5))));
    assert_eq!(framed(&answer(200, &[("content-length", "5")]), true, true), Ok((Body::Plain, BodyLength::None)));
    assert_eq!(framed(&answer(204, &[]), true, false), Ok((Body::Plain, BodyLength::None)));
    assert_eq!(framed(&answer(304, &[]), true, false), Ok((Body::Plain, BodyLength::None)));
    assert_eq!(framed(&answer(103, &[]), false, false), Ok((Body::Plain, BodyLength::None)));
    assert_eq!(framed(&answer(101, &[]), false, false), Err(HeadError::Syntax));
    assert_eq!(framed(&answer(200, &[("transfer-encoding", "chunked")]), false, false), Err(HeadError::Syntax));
    assert_eq!(
        framed(&answer(200, &[("content-length", "5"), ("content-length", "5")]), false, false),
        Err(HeadError::ContentLength)
    );
}

#[test]
fn trailers_are_bounded_and_frame_nothing() {
    let mut trailers = HeaderMap::new();
    for name in ["grpc-status", "content-length", "host", "te", "set-cookie", "authorization"] {
        trailers.insert(name, HeaderValue::from_static("1"));
    }
    let kept = forwardable(trailers.clone(), 1024).unwrap();
    assert_eq!(kept.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["grpc-status"]);
    assert!(forwardable(trailers, 64).is_none());
}

/// A name and a value that HTTP/2 can carry and HTTP/1.1 as well.
fn field() -> impl Strategy<Value = (String, String)> {
    ("x-[a-z0-9!#$%&'*+.^_`|~-]{0,12}", "([!-~]([ -~]{0,20}[!-~])?)?")
}

/// A frame, or what looks like one.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![0u8..10, any::<u8>()], any::<u8>(), prop::collection::vec(any::<u8>(), 0..12), any::<[u8; 4]>())
        .prop_map(|(kind, flags, payload, stream)| {
            let length = u8::try_from(payload.len()).expect("short");
            [&[0, 0, length, kind, flags][..], &stream, &payload].concat()
        })
}

proptest! {
    #[test]
    fn any_bytes_keep_the_promises(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::frames(&bytes);
        fuzz::message(&bytes);
    }

    #[test]
    fn any_frames_keep_the_promises(
        preface in 0u8..2, frames in prop::collection::vec(frame(), 0..12), cut in 0usize..12,
    ) {
        let opening = if preface == 1 { super::PREFACE } else { b"" };
        let bytes = [&[preface], opening, &frames.concat()].concat();
        fuzz::frames(&bytes[..bytes.len().saturating_sub(cut).max(1)]);
    }

    #[test]
    fn any_message_keeps_the_promises(
        first: u8, method in "[A-Z]{1,5}|[1-5][0-9]{2}", uri in "(https?://[a-z.:@0-9]{1,10})?(/[ -~]{0,20}|\\*)?",
        fields in prop::collection::vec("(host|cookie|te|content-length|connection|x-[a-z_]{1,4}):[ -~\u{80}-\u{ff}]{0,12}", 0..6),
    ) {
        fuzz::message(&[&[first], method.as_bytes(), b"\n", uri.as_bytes(), b"\n", fields.join("\n").as_bytes()].concat());
    }

    #[test]
    fn a_request_means_the_same_after_both_translations(
        method in "[A-Z]{1,8}", path in "/[a-zA-Z0-9/_.~%?=&-]{0,40}", fields in prop::collection::vec(field(), 0..8), ends: bool,
    ) {
        prop_assume!(method != "CONNECT");
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let sent = parts(&method, &format!("http://a.example{path}"), &fields);
        let mut bytes = Vec::new();
        write_request(&sent, ends, &mut bytes).unwrap();
        let (read, head) = read_request(&bytes, false, false).unwrap().unwrap();
        prop_assert_eq!(head.head.len as usize, bytes.len());
        let read = read.into_parts().0;
        prop_assert_eq!(read.method, sent.method);
        prop_assert_eq!(read.uri.path_and_query(), sent.uri.path_and_query());
        prop_assert_eq!(read.uri.authority(), sent.uri.authority());
        prop_assert_eq!(read.headers, sent.headers);
    }

    #[test]
    fn a_response_means_the_same_after_both_translations(
        status in 200u16..600, fields in prop::collection::vec(field(), 0..8),
    ) {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let sent = answer(status, &fields);
        let mut bytes = Vec::new();
        write_response(&sent, false, false, &mut bytes).unwrap();
        let (read, _) = read_response(&bytes, false).unwrap().unwrap();
        let read = read.into_parts().0;
        prop_assert_eq!(read.status, sent.status);
        prop_assert_eq!(read.headers, sent.headers);
    }

    #[test]
    fn no_head_that_h2_hands_over_makes_more_than_one_request(
        path in "/[ -~]{0,30}", values in prop::collection::vec("[ -~\t\u{80}-\u{ff}]{0,30}", 0..6),
    ) {
        let Ok(uri) = http::Uri::builder().scheme("http").authority("a.example").path_and_query(path).build() else { return Ok(()) };
        let mut request = Request::builder().uri(uri).body(()).unwrap();
        for value in values {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                request.headers_mut().append("x-value", value);
            }
        }
        let mut bytes = Vec::new();
        write_request(&request.into_parts().0, true, &mut bytes).unwrap();
        match parse_request(&bytes, LIMITS) {
            Parsed::Complete(head) => prop_assert_eq!(head.head.len as usize, bytes.len()),
            Parsed::Rejected(_) => {}
            Parsed::Incomplete => prop_assert!(false, "{:?}", String::from_utf8_lossy(&bytes)),
        }
    }
}
