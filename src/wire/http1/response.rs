//! Response heads (RFC 9112 section 4).

use httparse::Status;

use super::BodyLength;
use super::fields::{self, Facts};
use super::grammar::list;
use super::head::{Head, HeadError, HeadLimits, Parsed, Span, Version};
use super::scan::{self, Extent};

/// The status after which the connection speaks another protocol.
pub const SWITCHING_PROTOCOLS: u16 = 101;

const NOT_MODIFIED: u16 = 304;

/// A response head, as offsets into the bytes it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Length and fields.
    pub head: Head,
    /// The status, 100 to 599.
    pub status: u16,
    /// The reason phrase; may be empty, and is if it holds more than ASCII.
    pub phrase: Span,
    /// The version.
    pub version: Version,
    /// How the body ends, seen from the request's method and the status (RFC 9112 section 6.3).
    pub body: BodyLength,
    /// Whether the upstream keeps the connection for another request: not after a 101.
    pub keep_alive: bool,
}

impl ResponseHead {
    /// Whether every protocol that this 101 switches to is in `asked`, the value of the request's Upgrade.
    #[must_use]
    pub fn switches_to_one_of(&self, asked: &[u8], bytes: &[u8]) -> bool {
        let mut protocols = list(self.head.find(bytes, "upgrade").unwrap_or_default()).peekable();
        let is_asked = |protocol: &[u8]| list(asked).any(|asked| asked.eq_ignore_ascii_case(protocol));
        protocols.peek().is_some() && protocols.all(is_asked)
    }
}

/// Reads a response head from the beginning of `bytes`. `to_head` says that the request's method was HEAD.
///
/// As strict as requests are: an upstream may be hostile too, and a response with two lengths is the answer to two
/// requests.
#[must_use]
pub fn parse_response(bytes: &[u8], limits: HeadLimits, to_head: bool) -> Parsed<ResponseHead> {
    match scan::extent(bytes, 0, limits) {
        Ok(Some(extent)) => read(&bytes[..extent.end], extent, to_head).into(),
        Ok(None) if may_begin(bytes) => Parsed::Incomplete,
        Ok(None) => Parsed::Rejected(HeadError::Syntax),
        Err(error) => Parsed::Rejected(error),
    }
}

/// Whether a legal head may begin like this.
fn may_begin(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"HTTP/1.";
    let length = bytes.len().min(BEGIN.len());
    bytes[..length] == BEGIN[..length]
}

fn read(bytes: &[u8], extent: Extent, to_head: bool) -> Result<ResponseHead, HeadError> {
    scan::with_slots(extent.fields, |slots| {
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut response, bytes, slots) {
            Ok(Status::Complete(len)) if len == bytes.len() => judge(&response, bytes, to_head),
            Ok(_) => Err(HeadError::Syntax),
            Err(error) => Err(scan::fault(error, bytes.split(|byte| *byte == b' ').next())),
        }
    })
}

fn judge(response: &httparse::Response<'_, '_>, bytes: &[u8], to_head: bool) -> Result<ResponseHead, HeadError> {
    let (Some(minor), Some(status @ 100..=599)) = (response.version, response.code) else {
        return Err(HeadError::Syntax);
    };
    let version = Version::from_minor(minor);
    let (head, facts) = fields::gather(response.headers, bytes, bytes.len())?;
    facts.check_framing(version)?;
    check_status(status, &facts)?;
    let body = body_length(status, &facts, to_head);
    let ends_connection = body == BodyLength::UntilClose || status == SWITCHING_PROTOCOLS;
    Ok(ResponseHead {
        head,
        status,
        phrase: fields::span(bytes, response.reason.unwrap_or_default().as_bytes()),
        version,
        body,
        keep_alive: facts.keep_alive(version) && !ends_connection,
    })
}

/// 1xx and 204 announce no body (RFC 9110 section 8.6, RFC 9112 section 6.1; a length of nought, which is common,
/// announces none either). 101 says what to (RFC 9110 section 15.2.2).
fn check_status(status: u16, facts: &Facts) -> Result<(), HeadError> {
    if is_bodiless(status) && facts.chunked {
        return Err(HeadError::TransferEncoding);
    }
    if is_bodiless(status) && facts.content_length.unwrap_or(0) > 0 {
        return Err(HeadError::ContentLength);
    }
    if status == SWITCHING_PROTOCOLS && facts.upgrade.is_none() {
        return Err(HeadError::Syntax);
    }
    Ok(())
}

/// RFC 9112 section 6.3.
fn body_length(status: u16, facts: &Facts, to_head: bool) -> BodyLength {
    match facts.content_length {
        _ if to_head || is_bodiless(status) || status == NOT_MODIFIED => BodyLength::None,
        Some(length) => BodyLength::Fixed(length),
        None if facts.chunked => BodyLength::Chunked,
        None => BodyLength::UntilClose,
    }
}

/// Whether a response of this status has neither a body nor a length, whatever the request was.
pub(super) fn is_bodiless(status: u16) -> bool {
    status < 200 || status == 204
}
