//! What must hold for every sequence of bytes: the bodies of the fuzz targets, which unit tests run as well.
//!
//! Each takes bytes from nowhere and panics if a promise of the parsers is broken. Nothing of this runs in the gateway.

use super::certificate;
use super::client_hello::{self, Parsed as Hello};
use super::http1::{
    BodyError, BodyLength, BodyLimits, BodyReader, Claims, Field, Head, HeadLimits, NO_FIELD_EDITS, Parsed,
    RequestEdits, RequestHead, ResponseEdits, ResponseHead, TargetForm, parse_request, parse_response, write_request,
    write_response,
};

const HELLO_BYTES_MAX: usize = 64 * 1024;
const HEAD: HeadLimits = HeadLimits { bytes: 1 << 16, fields: 100 };
/// Written heads may be longer than what they were made from.
const HEAD_TWICE: HeadLimits = HeadLimits { bytes: 1 << 18, fields: 102 };
const BODY: BodyLimits = BodyLimits { trailer_bytes: 64, chunk_extension_bytes: 64 };

/// A hello: an answer for a beginning is the answer for the whole, unless it was "incomplete".
pub fn client_hello(bytes: &[u8]) {
    let whole = client_hello::parse(bytes, HELLO_BYTES_MAX);
    for end in cuts(bytes.len()) {
        match (client_hello::parse(&bytes[..end], HELLO_BYTES_MAX), &whole) {
            (Hello::Incomplete, _) | (Hello::Rejected(_), Hello::Rejected(_)) => {}
            (part, whole) => assert_eq!(&part, whole, "{end} bytes"),
        }
    }
}

/// A request head: beginnings agree with the whole, offsets lie inside, and what is written for the next hop says
/// the same again.
pub fn request_head(bytes: &[u8]) {
    let whole = parse_request(bytes, HEAD);
    for end in cuts(bytes.len()) {
        assert_agree(&parse_request(&bytes[..end], HEAD), &whole);
    }
    if let Parsed::Complete(head) = whole {
        assert_inside(&head.head, bytes);
        assert!(head.body != BodyLength::UntilClose, "a request does not end with its connection");
        if head.form != TargetForm::Authority {
            assert_request_survives(&head, bytes);
            assert_claims_are_withheld(head, bytes);
        }
    }
}

/// A response head, likewise. The first byte says whether it answers HEAD.
pub fn response_head(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let to_head = first % 2 == 1;
    let whole = parse_response(bytes, HEAD, to_head);
    for end in cuts(bytes.len()) {
        assert_agree(&parse_response(&bytes[..end], HEAD, to_head), &whole);
    }
    if let Parsed::Complete(head) = whole {
        assert_inside(&head.head, bytes);
        assert_response_survives(&head, bytes, to_head);
    }
}

/// A certificate: what follows it changes nothing about its end, and a part of it has the same end or none. Its names and
/// its key are parts of it.
pub fn certificate(bytes: &[u8]) {
    certificate::public_key(bytes).inspect(|key| assert!(bytes.windows(key.len()).any(|part| part == *key)));
    certificate::subject_alt_names(bytes).inspect(|names| assert!(names.len() <= bytes.len()));
    let Some(end) = certificate::not_after(bytes) else { return };
    assert_eq!(certificate::not_after(&[bytes, b"0"].concat()), Some(end));
    for cut in cuts(bytes.len()) {
        assert!(certificate::not_after(&bytes[..cut]).is_none_or(|part| part == end), "{cut} bytes");
    }
}

/// A chunked body: read in one piece, in two, and byte by byte it holds the same data or the same fault.
pub fn chunked_body(bytes: &[u8]) {
    let whole = read_body(BodyLength::Chunked, &[bytes]);
    for end in cuts(bytes.len()) {
        let (front, back) = bytes.split_at(end);
        assert_eq!(read_body(BodyLength::Chunked, &[front, back]), whole, "split at {end}");
    }
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read_body(BodyLength::Chunked, &pieces), whole, "byte by byte");
}

/// The data of a body that arrives in pieces, whether it is complete, and how many bytes are not part of it.
///
/// # Errors
/// The fault of the body.
pub fn read_body(length: BodyLength, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), BodyError> {
    let mut reader = BodyReader::new(length, BODY);
    let (mut data, mut left) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !reader.is_done() {
            let step = reader.step(rest)?;
            assert!(step.consumed > 0, "a step makes progress");
            assert!(step.data.end <= step.consumed, "data are consumed bytes");
            assert_eq!(step.done, reader.is_done());
            data.extend_from_slice(&rest[step.data]);
            rest = &rest[step.consumed..];
        }
        left += rest.len();
    }
    Ok((data, reader.is_done(), left))
}

/// Places to cut bytes at: the first few, the last few, and some between.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = (length / 16).max(1);
    (0..length.min(16)).chain((16..length).step_by(step)).chain(length.saturating_sub(4)..length)
}

fn assert_agree<T: PartialEq + std::fmt::Debug>(part: &Parsed<T>, whole: &Parsed<T>) {
    match (part, whole) {
        (Parsed::Incomplete, _) | (Parsed::Rejected(_), Parsed::Rejected(_)) => {}
        (part, whole) => assert_eq!(part, whole),
    }
}

fn assert_inside(head: &Head, bytes: &[u8]) {
    assert!(head.len as usize <= bytes.len());
    assert!(bytes[..head.len as usize].ends_with(b"\r\n\r\n"));
    for field in &head.fields {
        assert!(field.name.start < field.name.end && field.name.end < field.value.start);
        assert!(field.value.start <= field.value.end && field.value.end < head.len);
    }
}

fn assert_request_survives(head: &RequestHead, bytes: &[u8]) {
    let path = if head.path.of(bytes).is_empty() { "/" } else { head.path.text(bytes) };
    let query = head.query.text(bytes);
    let target = if head.has_query { format!("{path}?{query}") } else { path.to_owned() };
    let host = head.authority.text(bytes);
    let mut out = Vec::new();
    let edits = RequestEdits { target: &target, host, upgrade: true, via: None, fields: &NO_FIELD_EDITS };
    write_request(head, bytes, &edits, &mut out);
    let Parsed::Complete(again) = parse_request(&out, HEAD_TWICE) else {
        panic!("what was written is not legal: {:?}", String::from_utf8_lossy(&out));
    };
    assert_eq!(again.head.len as usize, out.len());
    assert_eq!(again.method.of(&out), head.method.of(bytes));
    assert_eq!((again.path.text(&out), again.query.text(&out)), (path, query));
    assert_eq!((again.has_query, again.body), (head.has_query, head.body));
    assert_eq!(again.authority.text(&out), host);
    assert_eq!(again.upgrade.map(|span| span.of(&out)), head.upgrade.map(|span| span.of(bytes)));
    assert_eq!(end_to_end(&again.head, &out), end_to_end(&head.head, bytes));
}

/// What is withheld is not written, and whoever is named in Via is known again.
fn assert_claims_are_withheld(mut head: RequestHead, bytes: &[u8]) {
    const PSEUDONYM: &str = "portcullis-fuzz";
    const WITHHELD: Claims = Claims::FORWARDED.with(Claims::MESH).with(Claims::METHOD);
    let (claimed, came_through) = (head.claims, head.came_through(bytes, PSEUDONYM));
    assert!(!came_through || claimed.any(Claims::VIA));
    head.withhold(bytes, WITHHELD);
    head.withhold_underscores(bytes);
    let host = head.authority.text(bytes);
    let edits = RequestEdits { target: "/", host, upgrade: false, via: Some(PSEUDONYM), fields: &NO_FIELD_EDITS };
    let mut out = Vec::new();
    write_request(&head, bytes, &edits, &mut out);
    let Parsed::Complete(again) = parse_request(&out, HEAD_TWICE) else {
        panic!("what was written is not legal: {:?}", String::from_utf8_lossy(&out));
    };
    assert!(!again.claims.any(WITHHELD) && !again.has_underscores(&out));
    assert!(again.came_through(&out, PSEUDONYM));
}

fn assert_response_survives(head: &ResponseHead, bytes: &[u8], to_head: bool) {
    let mut out = Vec::new();
    write_response(head, bytes, ResponseEdits { keep_alive: true, http10: false, fields: &NO_FIELD_EDITS }, &mut out);
    let Parsed::Complete(again) = parse_response(&out, HEAD_TWICE, to_head) else {
        panic!("what was written is not legal: {:?}", String::from_utf8_lossy(&out));
    };
    let body = if head.body == BodyLength::UntilClose { BodyLength::Chunked } else { head.body };
    assert_eq!((again.status, again.body), (head.status, body));
    assert_eq!(again.keep_alive, head.status != 101);
    assert_eq!(end_to_end(&again.head, &out), end_to_end(&head.head, bytes));
}

fn end_to_end<'a>(head: &Head, bytes: &'a [u8]) -> Vec<(&'a [u8], &'a [u8])> {
    let forwarded = |field: &&Field| !field.hop;
    head.fields.iter().filter(forwarded).map(|field| (field.name.of(bytes), field.value.of(bytes))).collect()
}
