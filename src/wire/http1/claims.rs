//! Request fields in which a client says what only a proxy before it could know, or asks for another method than that
//! of its request line. Nobody vouches for them, and upstreams may believe them.

/// Kinds of such fields, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims(u8);

impl Claims {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// `Via`: the gateways that the request came through (RFC 9110 section 7.6.3).
    pub const VIA: Self = Self(1);
    /// `Forwarded` (RFC 7239), `X-Forwarded-*`, `X-Real-IP` and their like: whom the request came from.
    pub const FORWARDED: Self = Self(2);
    /// `X-Envoy-*` and `X-Forwarded-Client-Cert`: what the proxies of a mesh tell each other.
    pub const MESH: Self = Self(4);
    /// `X-HTTP-Method-Override` and its like: another method than the one that was judged.
    pub const METHOD: Self = Self(8);

    /// Whether the sets share a kind.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The kinds of both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The kind of a field, if it is of one. Most fields are none by their first letter: every field of every request
    /// passes here.
    ///
    /// Upstreams that hand fields on as variables (CGI, RFC 3875 section 4.1.18) take `_` for `-`; so does this.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        match name.first() {
            Some(b'x' | b'X' | b'v' | b'V' | b'f' | b'F') => Self::of_suspect(name),
            Some(_) | None => Self::NONE,
        }
    }

    fn of_suspect(name: &[u8]) -> Self {
        match name {
            [b'x' | b'X', b'-' | b'_', rest @ ..] => extension(rest),
            [b'v' | b'V', ..] if is(name, b"via") => Self::VIA,
            [b'f' | b'F', ..] if is(name, b"forwarded") => Self::FORWARDED,
            _ => Self::NONE,
        }
    }
}

/// The kind of a field by what follows its `X-`.
fn extension(rest: &[u8]) -> Claims {
    const FORWARDED: &[u8] = b"forwarded-";
    const ENVOY: &[u8] = b"envoy-";
    let begins = |prefix: &[u8]| rest.get(..prefix.len()).is_some_and(|start| is(start, prefix));
    match rest.first() {
        Some(b'f' | b'F') if is(rest, b"forwarded-client-cert") => Claims::MESH,
        Some(b'f' | b'F') if begins(FORWARDED) || is(rest, b"forwarded") => Claims::FORWARDED,
        Some(b'e' | b'E') if begins(ENVOY) => Claims::MESH,
        Some(b'r' | b'R') if is(rest, b"real-ip") => Claims::FORWARDED,
        Some(b'c' | b'C') if is(rest, b"client-ip") || is(rest, b"cluster-client-ip") => Claims::FORWARDED,
        Some(b'h' | b'H') if is(rest, b"http-method-override") || is(rest, b"http-method") => Claims::METHOD,
        Some(b'm' | b'M') if is(rest, b"method-override") => Claims::METHOD,
        _ => Claims::NONE,
    }
}

/// Whether a name is `known`, which is in lower case and has `-` between its words.
fn is(name: &[u8], known: &[u8]) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == known.len() && name.iter().zip(known).all(|(byte, known)| fold(*byte) == *known)
}

/// Whether the value of a Via field names `pseudonym` as one of those that received the message.
///
/// A comment may hold commas, so its parts are read as entries, too: whoever writes another's name there is refused.
#[must_use]
pub fn via_names(value: &[u8], pseudonym: &str) -> bool {
    let received_by = |entry: &[u8]| {
        let mut words = entry.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|word| word.eq_ignore_ascii_case(pseudonym.as_bytes()))
    };
    value.split(|byte| *byte == b',').any(received_by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_in_any_case_and_with_either_separator() {
        for (kind, names) in [
            (Claims::VIA, &["Via", "VIA"] as &[&str]),
            (
                Claims::FORWARDED,
                &[
                    "Forwarded",
                    "x-forwarded-for",
                    "X_Forwarded_For",
                    "X-FORWARDED-anything",
                    "X-Forwarded",
                    "x-real_ip",
                    "X-Client-IP",
                    "X-Cluster-Client-Ip",
                ],
            ),
            (Claims::MESH, &["x-envoy-internal", "X-Envoy-", "x_envoy_retry_on", "X-Forwarded-Client-Cert"]),
            (Claims::METHOD, &["X-HTTP-Method-Override", "X-Http-Method", "x_method_override"]),
            (Claims::NONE, &["x-forwardedfor", "X", "x-", "viaduct", "Forward", "x-real-ipx", "x-envoy", "Accept", ""]),
        ] {
            for name in names {
                assert_eq!(Claims::of(name.as_bytes()), kind, "{name}");
            }
        }
    }

    #[test]
    fn a_via_entry_names_whoever_received_the_message() {
        for (value, expected) in [
            ("1.1 me", true),
            ("1.0 fred, 1.1 ME", true),
            ("HTTP/1.1\tme (a comment)", true),
            ("1.1 a (one, two), 1.1  me", true),
            ("1.1 meme", false),
            ("me", false),
            ("1.1 a (me)", false),
            ("1.1 me:80", false),
            ("", false),
        ] {
            assert_eq!(via_names(value.as_bytes(), "me"), expected, "{value}");
        }
    }
}
