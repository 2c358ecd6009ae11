//! Host names and host patterns: the one grammar by which a name is judged, wherever it came from.
//!
//! An SNI (RFC 6066 section 3), a Host header (RFC 9110 section 7.2) and a `hosts:` entry of an Istio
//! resource all pass through here, so what is matched, what is logged and what is resolved are the same
//! bytes. Nothing here allocates for names of up to 48 bytes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use smallvec::SmallVec;

/// Longest name in bytes, without the trailing dot (RFC 1035 section 2.3.4: 255 octets on the wire).
pub const NAME_BYTES_MAX: usize = 253;

/// Longest label in bytes (RFC 1035 section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// Names up to this many bytes live inline; longer ones cost one allocation.
const NAME_BYTES_INLINE: usize = 48;

/// A DNS host name in lower case, without a trailing dot, that obeys the grammar of [`HostName::parse`].
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName {
    bytes: SmallVec<[u8; NAME_BYTES_INLINE]>,
}

impl Clone for HostName {
    /// In one copy; the derived clone would go byte by byte.
    fn clone(&self) -> Self {
        Self { bytes: SmallVec::from_slice(&self.bytes) }
    }
}

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There was no name at all.
    #[error("the name is empty")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("the name is longer than 253 bytes")]
    TooLong,
    /// A label of no bytes: a leading dot or two dots in a row.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// A label of more than [`LABEL_BYTES_MAX`] bytes.
    #[error("a label of the name is longer than 63 bytes")]
    LabelTooLong,
    /// A byte that is not a letter, a digit, a hyphen or an underscore.
    #[error("the name has a character that is not a letter, digit, hyphen or underscore")]
    ForbiddenByte,
    /// A label that starts or ends with a hyphen.
    #[error("a label of the name starts or ends with a hyphen")]
    HyphenAtEdge,
    /// An address, or a form that some resolver would take for one (`127.1`, `0x7f.1`, `2130706433`).
    #[error("the name is an IP address or could be taken for one")]
    Numeric,
}

impl HostName {
    /// Judges a name: letters, digits, hyphens and underscores in labels of 1 to 63 bytes, at most
    /// 253 bytes in all, one trailing dot stripped, upper case folded.
    ///
    /// A last label made of digits alone, or one in the hexadecimal form `0x…`, is refused: parsers of the
    /// `inet_aton` family would read such a name as an IPv4 address (RFC 1123 section 2.1).
    ///
    /// # Errors
    /// Every [`NameError`]; the first fault from the left is reported.
    pub fn parse(name: &[u8]) -> Result<Self, NameError> {
        let name = name.strip_suffix(b".").unwrap_or(name);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        for label in name.split(|byte| *byte == b'.') {
            judge_label(label)?;
        }
        if is_numeric(last_label(name)) {
            return Err(NameError::Numeric);
        }
        let mut bytes = SmallVec::from_slice(name);
        bytes.make_ascii_lowercase();
        Ok(Self { bytes })
    }

    /// The name, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The grammar admits ASCII only, so the fallback is never taken.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// The name, in lower case, as the bytes that it is made of.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn judge_label(label: &[u8]) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(NameError::LabelTooLong);
    }
    if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return Err(NameError::ForbiddenByte);
    }
    if label.starts_with(b"-") || label.ends_with(b"-") {
        return Err(NameError::HyphenAtEdge);
    }
    Ok(())
}

fn last_label(name: &[u8]) -> &[u8] {
    name.rsplit(|byte| *byte == b'.').next().unwrap_or(name)
}

fn is_numeric(label: &[u8]) -> bool {
    let hexadecimal = matches!(label, [b'0', b'x' | b'X', rest @ ..] if rest.iter().all(u8::is_ascii_hexdigit));
    hexadecimal || label.iter().all(u8::is_ascii_digit)
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name.as_bytes())
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

/// What a `hosts:` entry opens: one name, or every name below a suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(HostName),
    /// `*.suffix`: every name with at least one label before the suffix, at any depth. Not the suffix itself.
    Below(HostName),
}

impl HostPattern {
    /// Reads `name` or `*.name`.
    ///
    /// # Errors
    /// What [`HostName::parse`] says of the name or the suffix. `*` alone and partial wildcards (`*name`,
    /// `a*.name`) are [`NameError::ForbiddenByte`].
    pub fn parse(pattern: &str) -> Result<Self, NameError> {
        match pattern.strip_prefix("*.") {
            Some(suffix) => HostName::parse(suffix.as_bytes()).map(Self::Below),
            None => HostName::parse(pattern.as_bytes()).map(Self::Exact),
        }
    }

    /// Whether `name` is opened by this pattern.
    #[must_use]
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => is_below(name.as_str(), suffix.as_str()),
        }
    }

    /// Whether every name that `other` opens is opened by this pattern too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (pattern, Self::Exact(name)) => pattern.matches(name),
            (Self::Exact(_), Self::Below(_)) => false,
            (Self::Below(suffix), Self::Below(inner)) => suffix == inner || is_below(inner.as_str(), suffix.as_str()),
        }
    }

    /// Whether this is a wildcard.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Below(_))
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|prefix| prefix.ends_with('.') && prefix.len() > 1)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(formatter),
            Self::Below(suffix) => write!(formatter, "*.{suffix}"),
        }
    }
}

/// The target of an HTTP request: a name or an address, with the port if one was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Whom the request is for.
    pub host: AuthorityHost,
    /// The port after the colon.
    pub port: Option<u16>,
}

/// The host part of an [`Authority`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityHost {
    /// A DNS name.
    Name(HostName),
    /// An IPv4 literal in dotted-decimal form, or an IPv6 literal in brackets.
    Address(IpAddr),
}

/// A Host header or an absolute-form authority that is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The host part is neither a name nor an address.
    #[error("{0}")]
    Host(#[from] NameError),
    /// The part after the colon is not a port from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl Authority {
    /// Reads `host`, `host:port`, `1.2.3.4:port` or `[v6]:port` (RFC 3986 section 3.2, without userinfo).
    ///
    /// # Errors
    /// [`AuthorityError`]; userinfo is a forbidden byte.
    pub fn parse(text: &[u8]) -> Result<Self, AuthorityError> {
        let (host, port) = split_port(text)?;
        Ok(Self { host: AuthorityHost::parse(host)?, port })
    }
}

impl AuthorityHost {
    fn parse(host: &[u8]) -> Result<Self, NameError> {
        let text = std::str::from_utf8(host).map_err(|_| NameError::ForbiddenByte)?;
        if let Some(literal) = text.strip_prefix('[') {
            let literal = literal.strip_suffix(']').ok_or(NameError::ForbiddenByte)?;
            let address = Ipv6Addr::from_str(literal).map_err(|_| NameError::ForbiddenByte)?;
            return Ok(Self::Address(IpAddr::V6(address)));
        }
        match text.parse() {
            Ok(address @ IpAddr::V4(_)) => Ok(Self::Address(address)),
            // An IPv6 literal without brackets is not an authority; the grammar refuses its colons.
            Ok(IpAddr::V6(_)) | Err(_) => HostName::parse(host).map(Self::Name),
        }
    }
}

fn split_port(text: &[u8]) -> Result<(&[u8], Option<u16>), AuthorityError> {
    let colon = match memchr::memrchr(b':', text) {
        Some(colon) if !text[colon..].contains(&b']') => colon,
        _ => return Ok((text, None)),
    };
    let digits = &text[colon + 1..];
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(AuthorityError::Port);
    }
    let port = digits.iter().fold(0u32, |port, digit| port * 10 + u32::from(digit - b'0'));
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok((&text[..colon], Some(port))),
        _ => Err(AuthorityError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().expect("a valid name")
    }

    #[test]
    fn names_are_folded_and_lose_one_trailing_dot() {
        assert_eq!(name("WWW.Example.com.").as_str(), "www.example.com");
        assert_eq!(HostName::parse(b"example.com.."), Err(NameError::EmptyLabel));
    }

    #[test]
    fn forms_that_a_resolver_could_take_for_an_address_are_refused() {
        for form in ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "1.2.3.0x4", "example.123"] {
            assert_eq!(HostName::parse(form.as_bytes()), Err(NameError::Numeric), "{form}");
        }
        assert!(HostName::parse(b"0x7f.example").is_ok());
    }

    #[test]
    fn every_fault_has_its_error() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = vec!["abcdefg"; 40].join(".");
        let cases: [(&[u8], NameError); 11] = [
            (b"", NameError::Empty),
            (b".", NameError::Empty),
            (b".example.com", NameError::EmptyLabel),
            (b"a..b", NameError::EmptyLabel),
            (long_label.as_bytes(), NameError::LabelTooLong),
            (long_name.as_bytes(), NameError::TooLong),
            (b"*.example.com", NameError::ForbiddenByte),
            (b"a\0.example.com", NameError::ForbiddenByte),
            (b"ex ample.com", NameError::ForbiddenByte),
            ("exämple.com".as_bytes(), NameError::ForbiddenByte),
            (b"-a.example.com", NameError::HyphenAtEdge),
        ];
        for (text, error) in cases {
            assert_eq!(HostName::parse(text), Err(error), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_wildcard_covers_any_depth_but_not_its_own_suffix() {
        let wildcard = HostPattern::parse("*.foo.com").expect("a valid pattern");
        assert!(wildcard.matches(&name("a.foo.com")));
        assert!(wildcard.matches(&name("a.b.foo.com")));
        assert!(!wildcard.matches(&name("foo.com")));
        assert!(!wildcard.matches(&name("barfoo.com")));
        assert!(wildcard.covers(&HostPattern::parse("*.b.foo.com").expect("a valid pattern")));
        assert!(!wildcard.covers(&HostPattern::parse("*.com").expect("a valid pattern")));
    }

    #[test]
    fn partial_wildcards_are_refused() {
        for pattern in ["*", "*foo.com", "a*.foo.com", "a.*.com", "**.com"] {
            assert!(HostPattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn authorities_split_into_host_and_port() {
        let authority = Authority::parse(b"Example.com:8443").expect("valid");
        assert_eq!(authority.host, AuthorityHost::Name(name("example.com")));
        assert_eq!(authority.port, Some(8443));
        let v6 = Authority::parse(b"[::1]:80").expect("valid");
        assert_eq!(v6.host, AuthorityHost::Address("::1".parse().expect("an address")));
        for bad in ["a:b", "a:0", "a:65536", "a:", "u@a", "::1", "[::1", "a b", "", ":80", "a:80:80", "[::1]x:80"] {
            assert!(Authority::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
