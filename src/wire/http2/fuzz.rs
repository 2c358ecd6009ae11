//! What must hold of HTTP/2 for every sequence of bytes: see [`crate::wire::fuzz`].

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};

use crate::wire::http1::{BodyLength, HeadLimits, Parsed, parse_request, parse_response};

use super::frames::{CONTINUATION, DATA, END_HEADERS, HEAD_BYTES, HEADERS, PADDED, RST_STREAM};
use super::{
    Body, Frame, Frames, PREFACE, content_length, forwardable, read_request, read_response, write_request,
    write_response,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 1 << 18, fields: 1000 };

/// A direction of a connection, of which the first byte says whether it begins with the preface: however it is cut, the
/// same frames are seen, and they are those that a reader of the whole sees.
pub fn frames(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let preface = if first % 2 == 1 { PREFACE.len() } else { 0 };
    let expected = read_whole(bytes.get(preface..).unwrap_or_default());
    for size in [1, 2, 8, 9, 10, 13, 64, bytes.len().max(1)] {
        let mut frames = Frames::after(preface);
        let mut seen = Vec::new();
        bytes.chunks(size).for_each(|piece| frames.follow(piece, |frame| seen.push(frame)));
        assert_eq!((seen, frames.in_head()), expected, "in pieces of {size}");
    }
}

/// The frames of which enough is there, and whether a head has begun and not ended.
fn read_whole(mut bytes: &[u8]) -> (Vec<Frame>, bool) {
    let (mut frames, mut in_head) = (Vec::new(), false);
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() {
        let [high, middle, low, kind, flags, stream @ ..] = *head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        let frame = match kind {
            DATA if flags & PADDED != 0 && length > 0 => {
                let Some(padding) = rest.first() else { break };
                Frame::Data { stream, length: (length - 1).saturating_sub(usize::from(*padding)) }
            }
            DATA => Frame::Data { stream, length },
            HEADERS => Frame::Head { stream },
            RST_STREAM if length == 4 => {
                let Some(code) = rest.first_chunk() else { break };
                Frame::Reset { stream, code: u32::from_be_bytes(*code) }
            }
            _ => Frame::Other,
        };
        frames.push(frame);
        in_head |= kind == HEADERS;
        let Some(behind) = rest.get(length..) else { break };
        if matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0 {
            in_head = false;
        }
        bytes = behind;
    }
    (frames, in_head)
}

/// A message, as lines: what h2 hands over of it is written as one head of HTTP/1.1, which is refused or means the same again.
/// The first byte says what it is, and whether a body follows.
pub fn message(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let (is_answer, ends, to_head) = (first & 1 != 0, first & 2 != 0, first & 4 != 0);
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let start = [line(), line()];
    let mut fields = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().skip(1).position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon + 1);
        // HTTP/2 knows no upper case.
        let name = HeaderName::from_lowercase(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value[1..])) {
            fields.append(name, value);
        }
    }
    assert_trailers_frame_nothing(fields.clone());
    if is_answer {
        answer(start[0], fields, ends, to_head);
    } else {
        request(start, fields, ends);
    }
}

fn request([method, uri]: [&[u8]; 2], fields: HeaderMap, ends: bool) {
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(uri)) else { return };
    let mut sent = Request::new(());
    (*sent.method_mut(), *sent.uri_mut(), *sent.headers_mut()) = (method, uri, fields);
    let sent = sent.into_parts().0;
    let mut written = Vec::new();
    if write_request(&sent, ends, &mut written).is_err() {
        return;
    }
    let head = match parse_request(&written, LIMITS) {
        Parsed::Complete(head) => head,
        Parsed::Rejected(_) => return,
        Parsed::Incomplete => panic!("half a head: {:?}", String::from_utf8_lossy(&written)),
    };
    assert_eq!(head.head.len as usize, written.len(), "one request, and nothing behind it");
    assert_eq!(head.method.of(&written), sent.method.as_str().as_bytes());
    assert_ne!(head.body, BodyLength::UntilClose);
    assert_eq!(head.body == BodyLength::Chunked, !ends && !sent.headers.contains_key(header::CONTENT_LENGTH));
    if let BodyLength::Fixed(length @ 1..) = head.body {
        assert_eq!(content_length(&sent.headers), Some(length));
    }
    // A tunnel has no path, and goes out in no other way.
    if sent.method == Method::CONNECT || sent.uri.path() == "*" {
        return;
    }
    let Ok(Some((read, _))) = read_request(&written, true, false) else { return };
    assert_eq!(read.method(), sent.method);
    assert_eq!(read.uri().path(), sent.uri.path());
    assert_eq!(read.uri().query().unwrap_or_default(), sent.uri.query().unwrap_or_default());
    if let Some(authority) = sent.uri.authority() {
        assert!(read.uri().authority().is_some_and(|read| read.as_str().eq_ignore_ascii_case(authority.as_str())));
    }
    let other = |name: &HeaderName| [header::HOST, header::COOKIE].contains(name);
    assert_same(read.headers(), &sent.headers, other);
}

fn answer(status: &[u8], fields: HeaderMap, ends: bool, to_head: bool) {
    let mut sent = Response::new(());
    let Ok(status) = http::StatusCode::from_bytes(status) else { return };
    (*sent.status_mut(), *sent.headers_mut()) = (status, fields);
    let sent = sent.into_parts().0;
    let mut written = Vec::new();
    let Ok(body) = write_response(&sent, ends, to_head, &mut written) else { return };
    let head = match parse_response(&written, LIMITS, to_head) {
        Parsed::Complete(head) => head,
        Parsed::Rejected(_) => return,
        Parsed::Incomplete => panic!("half a head: {:?}", String::from_utf8_lossy(&written)),
    };
    assert_eq!(head.head.len as usize, written.len(), "one answer, and nothing behind it");
    assert_eq!(head.status, sent.status.as_u16());
    assert_eq!(head.body == BodyLength::Chunked, body == Body::Chunked);
    assert_ne!(head.body, BodyLength::UntilClose, "it would end with a connection that does not");
    let Ok(Some((read, _))) = read_response(&written, to_head) else { return };
    // What we have said of its length ourselves.
    assert_same(read.headers(), &sent.headers, |name| *name == header::CONTENT_LENGTH);
}

/// That the end-to-end fields are the same, but for these.
fn assert_same(read: &HeaderMap, sent: &HeaderMap, but: impl Fn(&HeaderName) -> bool) {
    for name in sent.keys().chain(read.keys()).filter(|name| !but(name)) {
        let values = |fields: &HeaderMap| -> Vec<Vec<u8>> {
            fields.get_all(name).iter().map(|value| value.as_bytes().trim_ascii().to_vec()).collect()
        };
        // Fields of a single connection stay behind.
        assert!(values(read) == values(sent) || !read.contains_key(name), "{name}");
    }
}

fn assert_trailers_frame_nothing(trailers: HeaderMap) {
    let Some(kept) = forwardable(trailers, 1 << 12) else { return };
    for name in [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::TE] {
        assert!(!kept.contains_key(&name), "{name}");
    }
}
