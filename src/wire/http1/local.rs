//! Answers of the gateway itself.

use super::BodyLength;
use super::edits::FieldEdits;
use super::response::is_bodiless;
use super::write::{write_field, write_framing, write_status_line};

/// What a 405 lists (RFC 9110 section 15.5.6 wants a list): everything but CONNECT, the one method that gets it.
const ALLOWED_METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";

/// An answer of the gateway itself.
#[derive(Clone, Copy, Debug)]
pub struct LocalResponse<'a> {
    /// The status.
    pub status: u16,
    /// The body; a status that has none (204, 304) is answered without one, whatever this holds.
    pub body: &'a [u8],
    /// Where the client is sent.
    pub location: Option<&'a str>,
    /// Fields that an operator adds; Content-Type is among those that can be set or left out.
    pub fields: &'a FieldEdits,
    /// Whether the connection stays.
    pub keep_alive: bool,
    /// Without the body, its length stated.
    pub to_head: bool,
}

/// Appends an answer of the gateway itself, `text/plain` unless its fields say otherwise.
pub fn write_local_response(response: &LocalResponse<'_>, out: &mut Vec<u8>) {
    let LocalResponse { status, body, location, fields, keep_alive, to_head } = *response;
    write_status_line(status, phrase(status).as_bytes(), out);
    if status == 405 {
        write_field(b"Allow", ALLOWED_METHODS, out);
    }
    if let Some(location) = location {
        write_field(b"Location", location.as_bytes(), out);
    }
    let has_body = !is_bodiless(status) && status != 304;
    if has_body {
        if !body.is_empty() && !fields.drops(b"content-type") && !fields.adds("content-type") {
            write_field(b"Content-Type", b"text/plain; charset=utf-8", out);
        }
        write_framing(BodyLength::Fixed(body.len() as u64), out);
    }
    fields.write_added(out);
    if !keep_alive {
        write_field(b"Connection", b"close", out);
    }
    out.extend_from_slice(b"\r\n");
    if has_body && !to_head {
        out.extend_from_slice(body);
    }
}

/// The reason phrases of RFC 9110 section 15 and RFC 6585. A status without one here is sent without one, which is
/// legal: the phrase says nothing to programs.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "",
    }
}
