//! What must hold for every name and every path: the bodies of the fuzz targets, which unit tests run as well.
//!
//! Each takes bytes from nowhere and panics if a promise is broken. Nothing of this runs in the gateway.

use std::net::IpAddr;

use super::host::{Authority, AuthorityHost, HostName, HostPattern, LABEL_BYTES_MAX, NAME_BYTES_MAX};
use super::path::{self, Normalization};

/// A name, an authority and a pattern: what is accepted is accepted again as it is written, and nothing that could be
/// an address is a name.
pub fn names(bytes: &[u8]) {
    if let Ok(name) = HostName::parse(bytes) {
        assert_name(&name, bytes);
    }
    if let Ok(authority) = Authority::parse(bytes) {
        assert_authority(&authority, bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(pattern) = HostPattern::parse(text)
    {
        assert_pattern(&pattern);
    }
}

/// A path: normal paths stay as they are, hold nothing that must not stand in a request line, and no dot segments.
/// The first byte chooses the mode.
pub fn path(bytes: &[u8]) {
    const MODES: [Normalization; 4] =
        [Normalization::None, Normalization::Base, Normalization::MergeSlashes, Normalization::DecodeAndMergeSlashes];
    let Some((first, bytes)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mode = MODES[usize::from(*first) % MODES.len()];
    let Ok(normal) = path::normalize(text, mode) else { return };
    assert!(normal.starts_with('/'), "{normal:?}");
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?')), "{normal:?}");
    assert_eq!(path::normalize(&normal, mode).as_deref(), Ok(&*normal), "normalising twice changes something");
    if mode != Normalization::None {
        assert!(!normal.split('/').any(path::is_dot_segment), "{normal:?}");
    }
    if matches!(mode, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes) {
        assert!(!normal.contains("//"), "{normal:?}");
    }
}

fn assert_name(name: &HostName, bytes: &[u8]) {
    let text = name.as_str();
    assert!(!text.is_empty() && text.len() <= NAME_BYTES_MAX, "{text:?}");
    assert!(text.split('.').all(|label| (1..=LABEL_BYTES_MAX).contains(&label.len())), "{text:?}");
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    assert!(text.bytes().all(legal), "{text:?}");
    assert!(text.parse::<IpAddr>().is_err(), "{text:?} is an address");
    assert!(bytes.eq_ignore_ascii_case(text.as_bytes()) || bytes.eq_ignore_ascii_case(format!("{text}.").as_bytes()));
    for same in [text.to_owned(), text.to_ascii_uppercase(), format!("{text}.")] {
        assert_eq!(HostName::parse(same.as_bytes()).as_ref(), Ok(name), "{same:?}");
    }
}

fn assert_authority(authority: &Authority, bytes: &[u8]) {
    assert!(bytes.iter().all(u8::is_ascii_graphic), "{bytes:?}");
    assert!(!bytes.iter().any(|byte| matches!(byte, b'@' | b'/' | b'?' | b'#' | b'%' | b'\\' | b',')), "{bytes:?}");
    assert_ne!(authority.port, Some(0));
    let host = match &authority.host {
        AuthorityHost::Name(name) => name.to_string(),
        AuthorityHost::Address(IpAddr::V4(address)) => address.to_string(),
        AuthorityHost::Address(IpAddr::V6(address)) => format!("[{address}]"),
    };
    let written = authority.port.map_or(host.clone(), |port| format!("{host}:{port}"));
    assert_eq!(Authority::parse(written.as_bytes()).as_ref(), Ok(authority), "{written:?}");
}

fn assert_pattern(pattern: &HostPattern) {
    assert_eq!(HostPattern::parse(&pattern.to_string()).as_ref(), Ok(pattern));
    match pattern {
        HostPattern::Exact(name) => assert!(pattern.matches(name)),
        HostPattern::Below(suffix) => {
            assert!(!pattern.matches(suffix), "{pattern} matches its own suffix");
            if let Ok(below) = HostName::parse(format!("a.{suffix}").as_bytes()) {
                assert!(pattern.matches(&below), "{pattern} does not match {below}");
            }
            if let Ok(beside) = HostName::parse(format!("a{suffix}").as_bytes()) {
                assert!(!pattern.matches(&beside), "{pattern} matches {beside}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn of(alphabet: &'static [u8], most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(alphabet), 0..most)
    }

    proptest! {
        #[test]
        fn any_bytes_keep_the_promises(bytes: Vec<u8>) {
            super::names(&bytes);
            super::path(&bytes);
        }

        #[test]
        fn bytes_of_names_keep_the_promises(bytes in of(b"aZ09-_..*:[]@%x", 40)) {
            super::names(&bytes);
        }

        #[test]
        fn bytes_of_paths_keep_the_promises(mode: u8, bytes in of(b"//..%%25eEfFcC0;\\a~?", 40)) {
            super::path(&[&[mode, b'/'], bytes.as_slice()].concat());
        }
    }
}
