//! Heads and chunks as the gateway sends them.

use super::edits::FieldEdits;
use super::head::{Head, Version};
use super::response::{SWITCHING_PROTOCOLS, is_bodiless};
use super::{BodyLength, RequestHead, ResponseHead};

/// What the writers add to a head beyond the fields they copy, the target and the Host: one reservation suffices.
const HEAD_SLACK: usize = 128;

/// What changes in a forwarded request head.
#[derive(Clone, Copy, Debug)]
pub struct RequestEdits<'a> {
    /// Path and query to send, in origin form.
    pub target: &'a str,
    /// The Host to send.
    pub host: &'a str,
    /// Whether `Upgrade` is forwarded, if the request asks for one.
    pub upgrade: bool,
    /// The name to add to Via; `None`: Via is left alone.
    pub via: Option<&'a str>,
    /// Changes to the other fields.
    pub fields: &'a FieldEdits,
}

/// What changes in a forwarded response head.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEdits<'a> {
    /// Whether the client's connection stays open; `Connection: close` is written if not.
    pub keep_alive: bool,
    /// Whether the client speaks HTTP/1.0: never chunked, and `Connection: keep-alive` is written if it stays.
    pub http10: bool,
    /// Changes to the other fields.
    pub fields: &'a FieldEdits,
}

/// Appends the head of a forwarded request: always HTTP/1.1, one Host first, hop-by-hop fields left out, and the
/// framing of `head.body` written anew (RFC 9112 section 6).
pub fn write_request(head: &RequestHead, bytes: &[u8], edits: &RequestEdits<'_>, out: &mut Vec<u8>) {
    debug_assert!(edits.target.bytes().all(|byte| byte.is_ascii_graphic()), "a target would break the line");
    debug_assert!(edits.host.bytes().all(|byte| byte.is_ascii_graphic()), "a Host would break the line");
    let via = edits.via.map_or(0, str::len);
    out.reserve(head.head.len as usize + edits.target.len() + edits.host.len() + via + HEAD_SLACK);
    out.extend_from_slice(head.method.of(bytes));
    out.push(b' ');
    out.extend_from_slice(edits.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_field(b"Host", edits.host.as_bytes(), out);
    write_end_to_end(&head.head, bytes, edits.fields, out);
    if let Some(pseudonym) = edits.via {
        write_via(head.version, pseudonym, out);
    }
    write_framing(head.body, out);
    if let Some(upgrade) = head.upgrade.filter(|_| edits.upgrade) {
        write_upgrade(upgrade.of(bytes), out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a forwarded response, with the framing that [`downstream_length`] says.
///
/// A response without a body to HEAD or of status 304 keeps its Content-Length, which tells of the body that there
/// would be. A 101 keeps its Upgrade; forward one only if the request's was. An interim response says nothing about
/// the connection; HTTP/1.0 knows none, so drop it there. What ends with the connection is marked `close` whatever
/// `edits` says.
pub fn write_response(head: &ResponseHead, bytes: &[u8], edits: ResponseEdits<'_>, out: &mut Vec<u8>) {
    let length = downstream_length(head.body, edits.http10);
    out.reserve(head.head.len as usize + HEAD_SLACK);
    write_status_line(head.status, head.phrase.of(bytes), out);
    write_end_to_end(&head.head, bytes, edits.fields, out);
    write_framing(length, out);
    if length == BodyLength::None
        && !is_bodiless(head.status)
        && let Some(length) = head.head.find(bytes, "content-length")
    {
        write_field(b"Content-Length", length, out);
    }
    if head.status == SWITCHING_PROTOCOLS {
        write_upgrade(head.head.find(bytes, "upgrade").unwrap_or_default(), out);
    } else if head.status >= 200 {
        write_connection(edits.keep_alive && length != BodyLength::UntilClose, edits.http10, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends one chunk of a chunked body; nothing for empty data, which would end the body.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + CHUNK_FRAMING_MAX);
    write_hexadecimal(data.len(), out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body.
pub fn write_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Most bytes that [`write_chunk`] adds to the data: sixteen digits and two line ends.
const CHUNK_FRAMING_MAX: usize = 16 + 4;

pub(super) fn write_status_line(status: u16, phrase: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(u64::from(status), out);
    out.push(b' ');
    out.extend_from_slice(phrase);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_framing(length: BodyLength, out: &mut Vec<u8>) {
    match length {
        BodyLength::None | BodyLength::UntilClose => {}
        BodyLength::Chunked => write_field(b"Transfer-Encoding", b"chunked", out),
        BodyLength::Fixed(length) => {
            write_field(b"Content-Length", itoa::Buffer::new().format(length).as_bytes(), out);
        }
    }
}

/// Persistence is the default of HTTP/1.1 and has to be said in HTTP/1.0 (RFC 9112 section 9.3).
fn write_connection(keep_alive: bool, http10: bool, out: &mut Vec<u8>) {
    match (keep_alive, http10) {
        (false, _) => write_field(b"Connection", b"close", out),
        (true, true) => write_field(b"Connection", b"keep-alive", out),
        (true, false) => {}
    }
}

fn write_upgrade(protocols: &[u8], out: &mut Vec<u8>) {
    write_field(b"Connection", b"upgrade", out);
    write_field(b"Upgrade", protocols, out);
}

/// Behind the client's own, in the version that the request came in (RFC 9110 section 7.6.3).
fn write_via(version: Version, pseudonym: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(match version {
        Version::Http10 => b"Via: 1.0 ".as_slice(),
        Version::Http11 => b"Via: 1.1 ",
        Version::Http2 => b"Via: 2 ",
    });
    out.extend_from_slice(pseudonym.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_end_to_end(head: &Head, bytes: &[u8], edits: &FieldEdits, out: &mut Vec<u8>) {
    let drops_some = edits.drops_some();
    for field in head.fields.iter().filter(|field| !field.hop) {
        let name = field.name.of(bytes);
        if !drops_some || !edits.drops(name) {
            write_field(name, field.value.of(bytes), out);
        }
    }
    edits.write_added(out);
}

fn write_decimal(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_hexadecimal(number: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = number.max(1).ilog2() / 4 + 1;
    out.extend((0..digits).rev().map(|position| DIGITS[(number >> (4 * position)) & 15]));
}

/// How a body is framed towards the client: a body that ends with the upstream's connection, or a chunked one, is
/// chunked for HTTP/1.1 and ends with the connection for HTTP/1.0.
#[must_use]
pub fn downstream_length(body: BodyLength, http10: bool) -> BodyLength {
    match body {
        BodyLength::None | BodyLength::Fixed(_) => body,
        BodyLength::Chunked | BodyLength::UntilClose if http10 => BodyLength::UntilClose,
        BodyLength::Chunked | BodyLength::UntilClose => BodyLength::Chunked,
    }
}
