//! Heads and chunks as the gateway sends them.

use super::{BodyLength, RequestHead, ResponseHead};

/// What changes in a forwarded request head.
#[derive(Clone, Copy, Debug)]
pub struct RequestEdits<'a> {
    /// Path and query to send, in origin form.
    pub target: &'a str,
    /// The Host to send.
    pub host: &'a str,
    /// Whether `Upgrade` is forwarded: the route allows it and the request asks for it.
    pub upgrade: bool,
}

/// What changes in a forwarded response head.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEdits {
    /// Whether the client's connection stays open; `Connection: close` is written if not.
    pub keep_alive: bool,
    /// Whether the client speaks HTTP/1.0: never chunked, and `Connection: keep-alive` is written if it stays.
    pub http10: bool,
}

/// Appends the head of a forwarded request: always HTTP/1.1, one Host first, hop-by-hop fields left out, and the
/// framing of `head.body` written anew (RFC 9112 section 6).
pub fn write_request(head: &RequestHead, bytes: &[u8], edits: &RequestEdits<'_>, out: &mut Vec<u8>) {
    let _ = (head, bytes, edits, out);
}

/// Appends the head of a forwarded response, with the framing that [`downstream_length`] says.
pub fn write_response(head: &ResponseHead, bytes: &[u8], edits: ResponseEdits, out: &mut Vec<u8>) {
    let _ = (head, bytes, edits, out);
}

/// Appends one chunk of a chunked body; nothing for empty data, which would end the body.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    let _ = (data, out);
}

/// Appends the end of a chunked body.
pub fn write_last_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

/// Appends a complete answer of the gateway itself, `text/plain`. `to_head`: without the body, its length stated.
pub fn write_local_response(status: u16, body: &str, keep_alive: bool, to_head: bool, out: &mut Vec<u8>) {
    let _ = (status, body, keep_alive, to_head, out);
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
