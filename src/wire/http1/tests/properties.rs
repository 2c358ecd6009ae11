//! What holds for every message, not only for the ones in the tables.

use proptest::prelude::*;

use crate::wire::fuzz;

use super::*;

const REQUEST: &[u8] =
    b"\r\nPOST http://h.example:80/a?b HTTP/1.1\r\nHost: h.example\r\nConnection: close, x\r\nX: y\r\n\
    Content-Length: 5\r\nExpect: 100-continue\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\
    Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
const CHUNKED: &[u8] = b"5;a=b\r\nhello\r\n0a\r\n0123456789\r\n000\r\nX-Sum: 1\r\nY:\r\n\r\nnext";

#[test]
fn every_proper_prefix_of_a_legal_head_is_incomplete() {
    for end in 0..REQUEST.len() {
        assert_eq!(parse_request(&REQUEST[..end], LIMITS), Parsed::Incomplete, "{end} bytes");
    }
    request(REQUEST);
    for end in 0..RESPONSE.len() {
        assert_eq!(parse_response(&RESPONSE[..end], LIMITS, false), Parsed::Incomplete, "{end} bytes");
    }
    response(RESPONSE);
}

#[test]
fn a_body_reads_the_same_however_it_is_split() {
    let whole = fuzz::read_body(BodyLength::Chunked, &[CHUNKED]);
    assert_eq!(whole, Ok((b"hello0123456789".to_vec(), true, 4)));
    for first in 0..CHUNKED.len() {
        for second in first..CHUNKED.len() {
            let pieces = [&CHUNKED[..first], &CHUNKED[first..second], &CHUNKED[second..]];
            assert_eq!(fuzz::read_body(BodyLength::Chunked, &pieces), whole, "split at {first} and {second}");
        }
    }
}

#[test]
fn a_body_of_fixed_length_takes_no_byte_more() {
    assert_eq!(fuzz::read_body(BodyLength::Fixed(3), &[b"ab", b"cd"]), Ok((b"abc".to_vec(), true, 1)));
    assert_eq!(fuzz::read_body(BodyLength::Fixed(3), &[b"ab"]), Ok((b"ab".to_vec(), false, 0)));
    assert_eq!(fuzz::read_body(BodyLength::Fixed(0), &[b"ab"]), Ok((vec![], true, 2)));
    assert_eq!(fuzz::read_body(BodyLength::None, &[b"ab"]), Ok((vec![], true, 2)));
    assert_eq!(fuzz::read_body(BodyLength::UntilClose, &[b"ab"]), Ok((b"ab".to_vec(), false, 0)));
}

#[test]
fn the_end_of_the_connection_completes_only_a_body_that_waits_for_it() {
    let limits = BodyLimits { trailer_bytes: 64, chunk_extension_bytes: 64 };
    for (length, complete) in [
        (BodyLength::None, true),
        (BodyLength::Fixed(0), true),
        (BodyLength::Fixed(1), false),
        (BodyLength::Chunked, false),
        (BodyLength::UntilClose, true),
    ] {
        let mut reader = BodyReader::new(length, limits);
        assert_eq!(reader.end_of_stream(), complete, "{length:?}");
        assert_eq!(reader.is_done(), complete, "{length:?}");
    }
}

/// A message with some bytes replaced by ones that mean something to a parser.
fn mutated(message: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![proptest::sample::select(b"\r\n\t\0 :,;/?#*10aF\x7f\x80".to_vec()), any::<u8>()];
    proptest::collection::vec((0..message.len(), byte), 0..4).prop_map(move |changes| {
        let mut bytes = message.to_vec();
        for (position, byte) in changes {
            bytes[position] = byte;
        }
        bytes
    })
}

/// Field lines that are likely to collide in what they say.
fn lines() -> impl Strategy<Value = String> {
    let line = proptest::sample::select(vec![
        "Host: h.example",
        "Host: h.example:80",
        "Content-Length: 3",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "Connection: upgrade, te",
        "Connection: x-a,host",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "TE: trailers",
        "X-A: 1",
        "X-A:\t2 ",
        "X-B:",
        "Keep-Alive: 3",
        "Trailer: X-Sum",
    ]);
    proptest::collection::vec(line, 0..8).prop_map(|lines| lines.iter().map(|line| format!("{line}\r\n")).collect())
}

proptest! {
    #[test]
    fn any_bytes_keep_the_promises(bytes: Vec<u8>) {
        fuzz::request_head(&bytes);
        fuzz::response_head(&bytes);
        fuzz::chunked_body(&bytes);
    }

    #[test]
    fn mutated_requests_keep_the_promises(bytes in mutated(REQUEST)) {
        fuzz::request_head(&bytes);
    }

    #[test]
    fn mutated_responses_keep_the_promises(bytes in mutated(RESPONSE), first: u8) {
        fuzz::response_head(&[&[first], bytes.as_slice()].concat());
    }

    #[test]
    fn mutated_bodies_keep_the_promises(bytes in mutated(CHUNKED)) {
        fuzz::chunked_body(&bytes);
    }

    #[test]
    fn combined_fields_keep_the_promises(lines in lines(), status in 100u16..600, first: u8, version in 0..2) {
        let request = format!("GET http://h.example/a?b HTTP/1.{version}\r\nHost: h.example\r\n{lines}\r\n");
        fuzz::request_head(request.as_bytes());
        let response = format!("HTTP/1.{version} {status} X\r\n{lines}\r\n");
        fuzz::response_head(&[&[first], response.as_bytes()].concat());
    }

    #[test]
    fn written_chunks_read_back(pieces: Vec<Vec<u8>>) {
        let mut out = Vec::new();
        for piece in &pieces {
            write_chunk(piece, &mut out);
        }
        write_last_chunk(&mut out);
        prop_assert_eq!(fuzz::read_body(BodyLength::Chunked, &[&out]), Ok((pieces.concat(), true, 0)));
    }
}
