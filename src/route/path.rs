//! Path normalisation: what is matched is what is forwarded (RFC 3986 section 6.2.2).
//!
//! [`Normalization::Base`] does what Envoy's `normalize_path` does, which Istio turns on by default, so that a policy
//! written for Istio sees the same text here: escapes of unreserved characters are decoded (section 2.3), `\` becomes
//! `/`, characters that may not stand in a path unescaped (`"<>^`{|}`) are escaped, and dot segments are resolved
//! (section 5.2.4), where `..` at the root stays at the root. Other escapes keep the case of their digits: servers
//! may be sensitive to it, and signatures over the path are.
//!
//! Where Envoy lets a malformed path through (a `%` that starts no escape, control characters), it is refused here in
//! every mode, [`Normalization::None`] included. A normalised path is a fixed point: normalising it again, by us or
//! by an upstream, changes nothing.

use std::borrow::Cow;

/// MeshConfig `pathNormalization.normalization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalization {
    /// As sent.
    None,
    /// RFC 3986 dot segments and unreserved escapes; `\` becomes `/` (Istio's default).
    #[default]
    Base,
    /// [`Self::Base`], and runs of slashes become one.
    MergeSlashes,
    /// [`Self::MergeSlashes`], after `%2F`, `%5C` have been decoded.
    DecodeAndMergeSlashes,
}

/// A path that cannot be judged safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("the path has a percent sign that starts no escape")]
    BadEscape,
    /// A raw byte that no path may hold (RFC 3986 section 3.3): control, space, `#`, `?`, or not ASCII.
    #[error("the path has a character that must be escaped")]
    ForbiddenByte,
    /// `%00`.
    #[error("the path has an escaped NUL")]
    Nul,
}

/// Normalises a path without its query. Borrowed if nothing had to change.
///
/// # Errors
/// [`PathError`], in every mode.
pub fn normalize(path: &str, mode: Normalization) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_normal(path.as_bytes(), mode)? || mode == Normalization::None {
        return Ok(Cow::Borrowed(path));
    }
    let merge = matches!(mode, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
    Ok(Cow::Owned(resolve_segments(&decode(path.as_bytes(), mode), merge)))
}

/// Whether a server that decodes more than [`Normalization::Base`] does could see another segment boundary or dot
/// segment in this path: it holds an escaped slash or backslash, or a percent sign escaped, however often, before
/// the digits of a slash, a backslash or a dot (`%252e`). Hosts that carry a path policy refuse such paths.
#[must_use]
pub fn has_escaped_slash(path: &str) -> bool {
    memchr::memchr_iter(b'%', path.as_bytes()).any(|percent| {
        let mut digits = &path.as_bytes()[percent + 1..];
        let first = digits;
        while let Some(rest) = digits.strip_prefix(b"25") {
            digits = rest;
        }
        let nested = digits.len() < first.len();
        matches!(digits, [b'2', b'f' | b'F', ..] | [b'5', b'c' | b'C', ..])
            || nested && matches!(digits, [b'2', b'e' | b'E', ..])
    })
}

/// Whether a path that was not normalised holds a dot segment in any spelling, with `\` for a slash as well.
#[must_use]
pub fn has_dot_segment(path: &str) -> bool {
    path.split(['/', '\\']).any(is_dot_segment)
}

/// Whether a segment is `.` or `..`, in any spelling.
pub(super) fn is_dot_segment(segment: &str) -> bool {
    let mut rest = segment.as_bytes();
    let mut dots = 0;
    while let [b'.', tail @ ..] | [b'%', b'2', b'e' | b'E', tail @ ..] = rest {
        (rest, dots) = (tail, dots + 1);
    }
    rest.is_empty() && (1..=2).contains(&dots)
}

/// What a raw byte means in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself.
    Plain,
    Slash,
    Percent,
    Backslash,
    /// Must be escaped, and Envoy does so.
    Escape,
    Forbidden,
}

/// One load per byte instead of a cascade of comparisons: every request passes here.
static CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'\\' => Class::Backslash,
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Escape,
            0..=b' ' | b'#' | b'?' | 0x7f.. => Class::Forbidden,
            _ => Class::Plain,
        };
        byte += 1;
    }
    classes
};

/// Judges every byte, and tells whether the path is in normal form.
fn is_normal(path: &[u8], mode: Normalization) -> Result<bool, PathError> {
    let merge = matches!(mode, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
    let mut normal = true;
    for (index, byte) in path.iter().enumerate() {
        match CLASSES[usize::from(*byte)] {
            Class::Plain => {}
            Class::Slash => normal &= !starts_abnormal_segment(&path[index + 1..], merge),
            Class::Percent => normal &= !is_decoded(escaped(&path[index + 1..])?, mode),
            Class::Backslash | Class::Escape => normal = false,
            Class::Forbidden => return Err(PathError::ForbiddenByte),
        }
    }
    Ok(normal)
}

/// Whether what follows a slash is a dot segment, or a slash that must go. Escaped dots are found as escapes.
fn starts_abnormal_segment(rest: &[u8], merge: bool) -> bool {
    match rest {
        [b'/', ..] => merge,
        [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..] => true,
        _ => false,
    }
}

/// The byte that an escape stands for; `rest` follows its percent sign (RFC 3986 section 2.1).
fn escaped(rest: &[u8]) -> Result<u8, PathError> {
    let digit = |index: usize| rest.get(index).and_then(|byte| char::from(*byte).to_digit(16));
    let (high, low) = digit(0).zip(digit(1)).ok_or(PathError::BadEscape)?;
    match (high * 16 + low) as u8 {
        0 => Err(PathError::Nul),
        byte => Ok(byte),
    }
}

/// Whether an escape of this byte is replaced by the byte.
fn is_decoded(byte: u8, mode: Normalization) -> bool {
    match byte {
        b'/' | b'\\' => mode == Normalization::DecodeAndMergeSlashes,
        b'-' | b'.' | b'_' | b'~' => true,
        _ => byte.is_ascii_alphanumeric(),
    }
}

/// Decodes and escapes byte for byte. The path has passed [`is_normal`].
fn decode(path: &[u8], mode: Normalization) -> String {
    let mut decoded = String::with_capacity(path.len() + 16);
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match CLASSES[usize::from(*byte)] {
            Class::Percent => match escaped(tail) {
                Ok(value) if is_decoded(value, mode) => {
                    decoded.push(if value == b'\\' { '/' } else { char::from(value) });
                    rest = tail.get(2..).unwrap_or_default();
                }
                Ok(_) | Err(_) => decoded.push('%'),
            },
            Class::Backslash => decoded.push('/'),
            Class::Escape => {
                const DIGITS: [char; 16] =
                    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
                decoded.extend(['%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
            Class::Plain | Class::Slash | Class::Forbidden => decoded.push(char::from(*byte)),
        }
    }
    decoded
}

/// Removes dot segments (RFC 3986 section 5.2.4), and empty segments if slashes are merged: in this order, so that
/// `/a//../b` becomes `/a/b` in every mode, as in Envoy.
fn resolve_segments(path: &str, merge: bool) -> String {
    let mut resolved = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    resolved.truncate(resolved.rfind('/').unwrap_or(0));
                }
                if is_last {
                    resolved.push('/');
                }
            }
            _ => {
                resolved.push('/');
                resolved.push_str(segment);
            }
        }
    }
    if merge { merge_slashes(&resolved) } else { resolved }
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODES: [Normalization; 4] =
        [Normalization::None, Normalization::Base, Normalization::MergeSlashes, Normalization::DecodeAndMergeSlashes];

    fn base(path: &str) -> String {
        normalize(path, Normalization::Base).expect("a valid path").into_owned()
    }

    #[test]
    fn dot_segments_are_resolved_and_never_climb_above_the_root() {
        // The examples of RFC 3986 sections 5.2.4 and 5.4, and their edges.
        let cases = [
            ("/a/b/c/./../../g", "/a/g"),
            ("/..", "/"),
            ("/../../g", "/g"),
            ("/.", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c", "/a/.b/..c"),
            ("/a//../b", "/a/b"),
            ("//..", "/"),
        ];
        for (path, normal) in cases {
            assert_eq!(base(path), normal, "{path}");
        }
    }

    #[test]
    fn escapes_of_unreserved_characters_are_decoded_and_others_stay_as_sent() {
        assert_eq!(base("/%61%7e%2D%5f%39"), "/a~-_9");
        assert_eq!(base("/a%20b%c3%a4%2f%2F%5c%25"), "/a%20b%c3%a4%2f%2F%5c%25");
        assert_eq!(base("/a/%2e%2E/b"), "/b");
        assert_eq!(base("/a/.%2e/b"), "/b");
        assert_eq!(base("/%252e%252e/b"), "/%252e%252e/b");
    }

    #[test]
    fn backslashes_become_slashes_and_forbidden_delimiters_are_escaped() {
        assert_eq!(base("/a\\..\\b"), "/b");
        assert_eq!(base("/{a}|\"<>^`"), "/%7Ba%7D%7C%22%3C%3E%5E%60");
        assert_eq!(base("/[a]!$&'()*+,;=:@"), "/[a]!$&'()*+,;=:@");
    }

    #[test]
    fn slashes_merge_and_decode_only_where_the_mode_says_so() {
        let all = |path: &str| MODES.map(|mode| normalize(path, mode).expect("a valid path").into_owned());
        assert_eq!(all("//a///b//"), ["//a///b//", "//a///b//", "/a/b/", "/a/b/"]);
        assert_eq!(all("/a%2Fb%5cc"), ["/a%2Fb%5cc", "/a%2Fb%5cc", "/a%2Fb%5cc", "/a/b/c"]);
        assert_eq!(all("/a%2f..%2fb"), ["/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/b"]);
        assert_eq!(all("/a/../b"), ["/a/../b", "/b", "/b", "/b"]);
    }

    #[test]
    fn malformed_paths_are_refused_in_every_mode() {
        let cases = [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("/%", PathError::BadEscape),
            ("/%4", PathError::BadEscape),
            ("/%4g", PathError::BadEscape),
            ("/%%34", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/a b", PathError::ForbiddenByte),
            ("/a\tb", PathError::ForbiddenByte),
            ("/a\0", PathError::ForbiddenByte),
            ("/a\u{7f}", PathError::ForbiddenByte),
            ("/a#b", PathError::ForbiddenByte),
            ("/a?b", PathError::ForbiddenByte),
            ("/ä", PathError::ForbiddenByte),
            ("/a%00", PathError::Nul),
        ];
        for ((path, error), mode) in cases.into_iter().flat_map(|case| MODES.map(|mode| (case, mode))) {
            assert_eq!(normalize(path, mode), Err(error), "{path:?} {mode:?}");
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for path in ["/", "/a/b.c/..d/%20", "/a%2Fb", "/v1/projects/a/topics/b:publish"] {
            assert!(matches!(normalize(path, Normalization::MergeSlashes), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    #[test]
    fn escaped_slashes_are_seen_through_any_number_of_escapes() {
        for path in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a%5C", "/a%252f", "/a%25255C", "/%252e%252e/"] {
            assert!(has_escaped_slash(path), "{path}");
        }
        for path in ["/", "/a/b", "/a%20b", "/100%25", "/%25", "/a%2e", "/a2f", "/%252"] {
            assert!(!has_escaped_slash(path), "{path}");
        }
    }

    #[test]
    fn dot_segments_are_known_in_every_spelling() {
        for segment in [".", "..", "%2e", ".%2E", "%2e%2e"] {
            assert!(is_dot_segment(segment), "{segment}");
        }
        for segment in ["", "...", "a", ".a", "a.", "%2e%2e%2e", "%2"] {
            assert!(!is_dot_segment(segment), "{segment}");
        }
    }

    /// A lenient upstream: decodes every escape that it can, takes `\` for `/`, and resolves dot segments.
    fn upstream(path: &str) -> String {
        let (mut decoded, mut rest) = (String::new(), path.as_bytes());
        while let [byte, tail @ ..] = rest {
            rest = tail;
            match (byte, escaped(tail)) {
                (b'%', Ok(value)) => {
                    decoded.push(char::from(value));
                    rest = &tail[2..];
                }
                _ => decoded.push(char::from(*byte)),
            }
        }
        resolve_segments(&decoded.replace('\\', "/"), true)
    }

    /// Paths of everything that is used to get past a path policy.
    fn any_path() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => Just("/"),
            2 => prop::sample::select(vec!["/allowed/", "/allowed", "a", ";x", "%20", "{", "~"]),
            3 => prop::sample::select(vec![".", "..", "%2e", "%2E", "%2e%2e", "\\"]),
            2 => prop::sample::select(vec!["%252e", "%2f", "%5C", "%252F", "%25", "%255c", "2f", "2e", "%32%65", "%66"]),
        ];
        (prop_oneof!["/", "/allowed/"], prop::collection::vec(piece, 0..12))
            .prop_map(|(start, pieces)| start + &pieces.concat())
    }

    fn any_mode() -> impl Strategy<Value = Normalization> {
        prop::sample::select(MODES.to_vec())
    }

    proptest! {
        #[test]
        fn normalising_twice_is_normalising_once(path in any_path(), mode in any_mode()) {
            let once = normalize(&path, mode).expect("a valid path").into_owned();
            let twice = normalize(&once, mode);
            prop_assert!(matches!(twice, Ok(Cow::Borrowed(same)) if same == once), "{} {:?}", once, twice);
        }

        #[test]
        fn no_upstream_sees_a_judged_path_elsewhere(path in any_path(), mode in any_mode()) {
            let path = normalize(&path, mode).expect("a valid path").into_owned();
            let judged = mode != Normalization::None || !has_dot_segment(&path);
            if judged && path.starts_with("/allowed/") && !has_escaped_slash(&path) {
                let seen = upstream(&path);
                prop_assert!(seen.starts_with("/allowed/"), "{} is {}", path, seen);
                let seen = upstream(&seen);
                prop_assert!(seen.starts_with("/allowed/"), "{} is {}", path, seen);
            }
        }

        #[test]
        fn no_path_panics_and_no_normal_path_holds_a_dot_segment(path in "/[ -~]{0,30}", mode in any_mode()) {
            if let Ok(path) = normalize(&path, mode) {
                prop_assert!(mode == Normalization::None || !path.split('/').any(is_dot_segment), "{}", path);
            }
        }
    }
}
