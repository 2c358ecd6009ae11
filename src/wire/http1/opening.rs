//! Whether the first bytes of a connection are those of an HTTP/1 request, where they might be something else.

use super::grammar::is_token_byte;

/// Longest method that is taken for one: the longest registered has 17 characters (RFC 9110 section 16.1).
const METHOD_BYTES_MAX: usize = 32;

/// Longest request line that is waited for.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Judges the bytes so far by the request line (RFC 9112 section 3). `None`: more are needed.
///
/// Stricter than the parser of heads, which answers a bad request with 400: here it is left to another protocol.
#[must_use]
pub fn is_http1(bytes: &[u8]) -> Option<bool> {
    // Servers skip empty lines before a request (RFC 9112 section 2.2), some of them any number: they must not hide one.
    let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if empty > LINE_BYTES_MAX {
        return Some(true); // The parser of heads refuses it.
    }
    let bytes = &bytes[empty..];
    let line = bytes.iter().position(|byte| *byte == b'\n').map(|end| &bytes[..end]);
    let seen = line.unwrap_or(bytes);
    let method = seen.iter().position(|byte| *byte == b' ').unwrap_or(seen.len());
    let is_method = method <= METHOD_BYTES_MAX && seen[..method].iter().all(|byte| is_token_byte(*byte));
    if !is_method || bytes.len() > LINE_BYTES_MAX {
        return Some(false);
    }
    let line = line?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Some(method > 0 && (line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_known_by_its_end() {
        for whole in ["GET / HTTP/1.1\r\n", "OPTIONS * HTTP/1.0\n", "M-SEARCH * HTTP/1.1\r\nHost: a\r\n"] {
            let line = whole.find('\n').expect("a line");
            for end in 0..line {
                assert_eq!(is_http1(&whole.as_bytes()[..end]), None, "{whole:?} {end}");
            }
            assert_eq!(is_http1(whole.as_bytes()), Some(true), "{whole:?}");
        }
    }

    #[test]
    fn an_empty_line_hides_no_request() {
        for empty in ["\r\n", "\n", "\r\n\r\n"] {
            let whole = format!("{empty}GET /x HTTP/1.1\r\n");
            for end in 0..whole.len() - 1 {
                assert_eq!(is_http1(&whole.as_bytes()[..end]), None, "{whole:?} {end}");
            }
            assert_eq!(is_http1(whole.as_bytes()), Some(true), "{whole:?}");
            assert_eq!(is_http1(format!("{empty}PING\r\n").as_bytes()), Some(false));
        }
    }

    #[test]
    fn other_protocols_are_known_as_soon_as_they_differ() {
        let long = [b"GET /".as_slice(), &[b'a'; LINE_BYTES_MAX]].concat();
        let cases: [&[u8]; 7] = [
            b"PING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b" HTTP/1.1\r\n",
            b"A-WORD-THAT-IS-LONGER-THAN-ANY-METHOD",
            &long,
        ];
        for bytes in cases {
            assert_eq!(is_http1(bytes), Some(false), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(40)]));
        }
    }
}
