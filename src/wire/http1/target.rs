//! Request targets (RFC 9112 section 3.2).

use crate::route::host::Authority;

use super::fields::offset;
use super::head::{HeadError, Span};
use super::request::TargetForm;

/// The port of a plain HTTP authority that names none.
const HTTP_PORT: u16 = 80;

/// A request target, taken apart.
pub(super) struct Target {
    pub(super) form: TargetForm,
    pub(super) path: Span,
    pub(super) query: Span,
    pub(super) has_query: bool,
    /// The authority in the target itself.
    pub(super) authority: Option<Span>,
}

impl Target {
    /// Takes the target of a request apart. Only visible ASCII: a byte above it would be text to one reader and
    /// part of something else to the next. No fragment: it is never sent (RFC 9110 section 4.2.5).
    pub(super) fn read(method: &[u8], target: Span, bytes: &[u8]) -> Result<Self, HeadError> {
        let text = target.of(bytes);
        if !text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
            return Err(HeadError::Target);
        }
        match (method, text) {
            (b"CONNECT", _) => Ok(Self::whole(TargetForm::Authority, target)),
            (b"OPTIONS", b"*") => Ok(Self::whole(TargetForm::Asterisk, target)),
            (_, [b'/', ..]) => Ok(Self::split(TargetForm::Origin, None, target, bytes)),
            _ => Self::absolute(target, bytes),
        }
    }

    fn whole(form: TargetForm, target: Span) -> Self {
        let end = Span { start: target.end, end: target.end };
        let (path, authority) = match form {
            TargetForm::Authority => (end, Some(target)),
            TargetForm::Origin | TargetForm::Absolute | TargetForm::Asterisk => (target, None),
        };
        Self { form, path, query: end, has_query: false, authority }
    }

    /// `http://authority/path?query`. `https` is not accepted: nobody speaks TLS to us here, and a proxy that took
    /// the scheme's word for it would send in the clear what was meant to be encrypted.
    fn absolute(target: Span, bytes: &[u8]) -> Result<Self, HeadError> {
        const SCHEME: &[u8] = b"http://";
        let text = target.of(bytes);
        if !text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
            return Err(HeadError::Target);
        }
        let rest = &text[SCHEME.len()..];
        let length = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let start = target.start + offset(SCHEME.len());
        let authority = Span { start, end: start + offset(length) };
        let after = Span { start: authority.end, end: target.end };
        Ok(Self::split(TargetForm::Absolute, Some(authority), after, bytes))
    }

    fn split(form: TargetForm, authority: Option<Span>, rest: Span, bytes: &[u8]) -> Self {
        let mark = memchr::memchr(b'?', rest.of(bytes)).map(|mark| rest.start + offset(mark));
        let path = Span { start: rest.start, end: mark.unwrap_or(rest.end) };
        let query = Span { start: mark.map_or(rest.end, |mark| mark + 1), end: rest.end };
        Self { form, path, query, has_query: mark.is_some(), authority }
    }

    /// The authority that the request is for. An absolute target and the Host field must agree (RFC 9112 section
    /// 3.2.2 lets the target win, which is how two readers come to see two hosts).
    pub(super) fn effective_authority(&self, host: Span, bytes: &[u8]) -> Result<Span, HeadError> {
        if host.start == host.end {
            return Err(HeadError::Host);
        }
        let of_host = parse(host, bytes)?;
        let Some(span) = self.authority else { return Ok(host) };
        let of_target = parse(span, bytes)?;
        let default_port = match (self.form, of_target.port) {
            (TargetForm::Authority, None) => return Err(HeadError::Target),
            (TargetForm::Authority, Some(port)) => port,
            (TargetForm::Origin | TargetForm::Absolute | TargetForm::Asterisk, _) => HTTP_PORT,
        };
        let port = |authority: &Authority| authority.port.unwrap_or(default_port);
        if of_host.host == of_target.host && port(&of_host) == port(&of_target) {
            Ok(span)
        } else {
            Err(HeadError::AuthorityMismatch)
        }
    }
}

fn parse(authority: Span, bytes: &[u8]) -> Result<Authority, HeadError> {
    Authority::parse(authority.of(bytes)).map_err(|_| HeadError::Authority)
}
