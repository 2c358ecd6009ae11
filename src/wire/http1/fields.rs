//! What the fields of a head say about framing and about the connection.
//!
//! The rules are the strictest reading of RFC 9112 section 6: one Content-Length of digits only (no list and no
//! repetition, not even an equal one), or one Transfer-Encoding that is exactly `chunked`, never both.

use smallvec::SmallVec;

use super::claims::Claims;
use super::grammar::list;
use super::head::{Field, Head, HeadError, Span, Version};

/// Most connection options of a head. Each is compared with each field, so a list without end would be a way to
/// make heads expensive.
const CONNECTION_OPTIONS_MAX: usize = 64;

/// Digits of the longest Content-Length that fits below 2^63.
const LENGTH_DIGITS_MAX: usize = 19;

/// The facts, without the message's kind.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The Host field.
    pub(super) host: Option<Span>,
    /// The Content-Length.
    pub(super) content_length: Option<u64>,
    /// Whether the transfer coding is chunked.
    pub(super) chunked: bool,
    /// `Expect: 100-continue`.
    pub(super) expects_continue: bool,
    /// The Upgrade field, if there is exactly one and it is not empty.
    pub(super) upgrade: Option<Span>,
    /// What the other fields claim.
    pub(super) claims: Claims,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
}

impl Facts {
    /// Whether the peer keeps the connection (RFC 9112 section 9.3).
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// The protocols of an upgrade that Connection names too (RFC 9110 section 7.8). None that carries HTTP is one of
    /// them: `h2c` (RFC 9113 section 3.1 withdrew it), `HTTP/2.0`, or `TLS/1.0` (RFC 2817), whose tunnel would take
    /// requests past every check.
    pub(super) fn upgrade(&self, bytes: &[u8], version: Version) -> Option<Span> {
        let upgrade = self.upgrade.filter(|_| self.connection_upgrade && version == Version::Http11)?;
        let protocols = || list(upgrade.of(bytes));
        let name = |protocol: &'_ [u8]| protocol.iter().position(|byte| *byte == b'/').unwrap_or(protocol.len());
        let carries_http = protocols().any(|protocol| {
            let name = &protocol[..name(protocol)];
            [b"h2c".as_slice(), b"h2", b"http", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
        });
        (protocols().next().is_some() && !carries_http).then_some(upgrade)
    }

    /// No transfer coding in HTTP/1.0 (RFC 9112 section 6.1), and none beside a Content-Length (section 6.3).
    pub(super) fn check_framing(&self, version: Version) -> Result<(), HeadError> {
        match (self.chunked, self.content_length, version) {
            (true, Some(_), _) => Err(HeadError::AmbiguousLength),
            (true, None, Version::Http10) => Err(HeadError::TransferEncoding),
            (true, None, Version::Http11 | Version::Http2) | (false, _, _) => Ok(()),
        }
    }
}

/// Fields that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    /// Not forwarded (RFC 9110 section 7.6.1).
    Hop,
    Other,
}

/// Names are told apart by length first: one comparison for most fields, none for the others.
///
/// Beyond the list of RFC 9110 section 7.6.1: credentials for a proxy are meant for this one (section 11.7); Trailer
/// announces what [`BodyReader`](super::BodyReader) drops; HTTP2-Settings belongs to an upgrade that is not made.
fn known(name: &[u8]) -> Known {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        2 if is("te") => Known::Hop,
        4 if is("host") => Known::Host,
        6 if is("expect") => Known::Expect,
        7 if is("upgrade") => Known::Upgrade,
        7 if is("trailer") => Known::Hop,
        10 if is("connection") => Known::Connection,
        10 if is("keep-alive") => Known::Hop,
        14 if is("content-length") => Known::ContentLength,
        14 if is("http2-settings") => Known::Hop,
        16 if is("proxy-connection") => Known::Hop,
        17 if is("transfer-encoding") => Known::TransferEncoding,
        18 if is("proxy-authenticate") => Known::Hop,
        19 if is("proxy-authorization") => Known::Hop,
        25 if is("proxy-authentication-info") => Known::Hop,
        _ => Known::Other,
    }
}

/// Whether a field concerns the two ends and neither the framing nor a single connection.
pub(super) fn is_end_to_end(name: &[u8]) -> bool {
    known(name) == Known::Other
}

/// Takes the tokenized fields of a head of `len` bytes over, and reads their facts.
pub(super) fn gather(headers: &[httparse::Header<'_>], bytes: &[u8], len: usize) -> Result<(Head, Facts), HeadError> {
    let mut head = Head { len: offset(len), fields: Vec::with_capacity(headers.len()) };
    let mut facts = Facts::default();
    let mut options = Options::default();
    let mut upgrades = 0;
    for header in headers {
        let known = known(header.name.as_bytes());
        let value = span(bytes, header.value);
        match known {
            Known::Host if facts.host.is_some() => return Err(HeadError::Host),
            Known::Host => facts.host = Some(value),
            Known::ContentLength if facts.content_length.is_some() => return Err(HeadError::ContentLength),
            Known::ContentLength => facts.content_length = Some(content_length(header.value)?),
            Known::TransferEncoding if facts.chunked => return Err(HeadError::TransferEncoding),
            Known::TransferEncoding => facts.chunked = chunked(header.value)?,
            Known::Connection => options.read(header.value, &mut facts)?,
            Known::Upgrade => {
                upgrades += 1;
                facts.upgrade = Some(value).filter(|_| upgrades == 1);
            }
            Known::Expect => facts.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue"),
            Known::Other => facts.claims = facts.claims.with(Claims::of(header.name.as_bytes())),
            Known::Hop => {}
        }
        let hop = !matches!(known, Known::Other | Known::Expect);
        head.fields.push(Field { name: span(bytes, header.name.as_bytes()), value, hop });
    }
    options.mark(&mut head.fields, bytes);
    Ok((head, facts))
}

/// Connection options that may name fields.
#[derive(Default)]
struct Options<'a> {
    names: SmallVec<[&'a [u8]; 4]>,
    count: usize,
}

impl<'a> Options<'a> {
    fn read(&mut self, value: &'a [u8], facts: &mut Facts) -> Result<(), HeadError> {
        for option in list(value) {
            self.count += 1;
            if self.count > CONNECTION_OPTIONS_MAX {
                return Err(HeadError::TooManyFields);
            }
            if option.eq_ignore_ascii_case(b"close") {
                facts.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                facts.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                facts.connection_upgrade = true;
            } else if !option.eq_ignore_ascii_case(b"expect") {
                // Expect is no business of a single connection: without it the client would wait for an answer that
                // nobody was asked for.
                self.names.push(option);
            }
        }
        Ok(())
    }

    /// Marks the fields that an option names (RFC 9110 section 7.6.1). Host and the framing cannot be removed that
    /// way: the writers set them whatever the client lists.
    fn mark(&self, fields: &mut [Field], bytes: &[u8]) {
        if self.names.is_empty() {
            return;
        }
        for field in fields.iter_mut() {
            let name = field.name.of(bytes);
            field.hop |= self.names.iter().any(|option| option.eq_ignore_ascii_case(name));
        }
    }
}

fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::ContentLength);
    }
    // 19 digits stay below 2^64; above 2^63 a length is no file's and a sign bit to somebody.
    let length = value.iter().fold(0u64, |length, digit| length * 10 + u64::from(digit - b'0'));
    if length >= 1 << 63 { Err(HeadError::ContentLength) } else { Ok(length) }
}

fn chunked(value: &[u8]) -> Result<bool, HeadError> {
    if value.eq_ignore_ascii_case(b"chunked") { Ok(true) } else { Err(HeadError::TransferEncoding) }
}

/// Where `part` lies in `bytes`, whose slice it is. Parts that lie elsewhere, such as the empty constant, are the
/// empty span.
pub(super) fn span(bytes: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    match start.checked_add(part.len()) {
        Some(end) if end <= bytes.len() => Span { start: offset(start), end: offset(end) },
        _ => Span::default(),
    }
}

/// Offsets fit: [`HEAD_BYTES_MAX`](crate::limits::HEAD_BYTES_MAX) bounds every head.
pub(super) fn offset(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
