//! Request heads (RFC 9112 section 3).

use httparse::Status;

use super::BodyLength;
use super::claims::{self, Claims};
use super::fields::{self, Facts};
use super::grammar::is_token_byte;
use super::head::{Head, HeadError, HeadLimits, Parsed, Span, Version};
use super::scan::{self, Extent};
use super::target::Target;

/// A request head, as offsets into the bytes it was parsed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Length and fields.
    pub head: Head,
    /// The method.
    pub method: Span,
    /// The form of the target.
    pub form: TargetForm,
    /// The path; `/` is implied if it is empty (absolute form without a path). `*` in asterisk form.
    pub path: Span,
    /// The query without `?`; empty and the same start as its end if there is none.
    pub query: Span,
    /// Whether there was a `?`.
    pub has_query: bool,
    /// The effective authority: of the absolute target, else the Host field. Validated as an authority.
    pub authority: Span,
    /// The version.
    pub version: Version,
    /// How the body ends: never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// Whether the client wants the connection kept (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue`, in HTTP/1.1 and with a body to come (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// The value of Upgrade, if Connection names it too. None in HTTP/1.0, with a body (which would have to be read
    /// before the connection changes hands), with several Upgrade fields, or for `h2c`.
    pub upgrade: Option<Span>,
    /// What the client claims about its request's way and method.
    pub claims: Claims,
}

/// The form of a request target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `authority`, CONNECT only.
    Authority,
    /// `*`, OPTIONS only.
    Asterisk,
}

impl RequestHead {
    /// Keeps the fields of these kinds from the next hop.
    pub fn withhold(&mut self, bytes: &[u8], kinds: Claims) {
        if self.claims.any(kinds) {
            for field in &mut self.head.fields {
                field.hop |= Claims::of(field.name.of(bytes)).any(kinds);
            }
        }
    }

    /// Keeps the fields with `_` in their names from the next hop.
    pub fn withhold_underscores(&mut self, bytes: &[u8]) {
        for field in &mut self.head.fields {
            field.hop |= has_underscore(field.name.of(bytes));
        }
    }

    /// Whether a field has `_` in its name, which some upstreams take for `-`.
    #[must_use]
    pub fn has_underscores(&self, bytes: &[u8]) -> bool {
        self.head.fields.iter().any(|field| has_underscore(field.name.of(bytes)))
    }

    /// Whether the request has been through the gateway of this pseudonym (RFC 9110 section 7.6.3).
    #[must_use]
    pub fn came_through(&self, bytes: &[u8], pseudonym: &str) -> bool {
        let mut fields = self.head.fields.iter();
        self.claims.any(Claims::VIA)
            && fields.any(|field| {
                Claims::of(field.name.of(bytes)) == Claims::VIA && claims::via_names(field.value.of(bytes), pseudonym)
            })
    }
}

fn has_underscore(name: &[u8]) -> bool {
    memchr::memchr(b'_', name).is_some()
}

/// Longest method. The longest registered one has 17 bytes; the bound lets what is no HTTP be refused before its
/// first line has ended.
const METHOD_BYTES_MAX: usize = 64;

/// Reads a request head from the beginning of `bytes`. One empty line before it is skipped (RFC 9112 section 2.2)
/// and counts into [`Head::len`].
#[must_use]
pub fn parse_request(bytes: &[u8], limits: HeadLimits) -> Parsed<RequestHead> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    match scan::extent(bytes, start, limits) {
        Ok(Some(extent)) => read(&bytes[..extent.end], extent).into(),
        Ok(None) if may_begin(bytes, start) => Parsed::Incomplete,
        Ok(None) => Parsed::Rejected(HeadError::Syntax),
        Err(error) => Parsed::Rejected(error),
    }
}

/// Whether a legal head may begin like this: with a method and a space, as far as they are there.
fn may_begin(bytes: &[u8], start: usize) -> bool {
    let line = &bytes[start..];
    match line.iter().take(METHOD_BYTES_MAX + 1).position(|byte| !is_token_byte(*byte)) {
        Some(0) => bytes == b"\r",
        Some(end) => line[end] == b' ',
        None => line.len() <= METHOD_BYTES_MAX,
    }
}

fn read(bytes: &[u8], extent: Extent) -> Result<RequestHead, HeadError> {
    scan::with_slots(extent.fields, |slots| {
        let mut request = httparse::Request::new(&mut []);
        let line = &bytes[extent.start..];
        match request.parse_with_uninit_headers(line, slots) {
            Ok(Status::Complete(len)) if len == line.len() => judge(&request, bytes),
            Ok(_) => Err(HeadError::Syntax),
            Err(error) => Err(scan::fault(error, third_word(line))),
        }
    })
}

/// What stands where a request line has its version, if it consists of three words.
fn third_word(bytes: &[u8]) -> Option<&[u8]> {
    let line = &bytes[..memchr::memchr(b'\r', bytes)?];
    let mut words = line.split(|byte| *byte == b' ');
    words.nth(2).filter(|_| words.next().is_none())
}

fn judge(request: &httparse::Request<'_, '_>, bytes: &[u8]) -> Result<RequestHead, HeadError> {
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Syntax);
    };
    if method.len() > METHOD_BYTES_MAX {
        return Err(HeadError::Syntax);
    }
    let version = Version::from_minor(minor);
    let (head, facts) = fields::gather(request.headers, bytes, bytes.len())?;
    facts.check_framing(version)?;
    let target = Target::read(method.as_bytes(), fields::span(bytes, target.as_bytes()), bytes)?;
    let authority = target.effective_authority(facts.host.ok_or(HeadError::Host)?, bytes)?;
    let body = body_length(&facts);
    let has_body = !matches!(body, BodyLength::None | BodyLength::Fixed(0));
    Ok(RequestHead {
        head,
        method: fields::span(bytes, method.as_bytes()),
        form: target.form,
        path: target.path,
        query: target.query,
        has_query: target.has_query,
        authority,
        version,
        body,
        keep_alive: facts.keep_alive(version),
        expects_continue: facts.expects_continue && has_body && version == Version::Http11,
        upgrade: facts.upgrade(bytes, version).filter(|_| !has_body),
        claims: facts.claims,
    })
}

/// Without either field a request has no body (RFC 9112 section 6.3, rule 7).
fn body_length(facts: &Facts) -> BodyLength {
    match facts.content_length {
        Some(length) => BodyLength::Fixed(length),
        None if facts.chunked => BodyLength::Chunked,
        None => BodyLength::None,
    }
}
