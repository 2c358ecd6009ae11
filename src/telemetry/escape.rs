//! Escaping: a field stays one field and a line one line, whatever bytes the client chose.
//!
//! Both forms copy runs of harmless bytes whole and look closer only at the byte that ends a run.

/// Hexadecimal digits, as the escapes show them.
const HEX: &[u8; 16] = b"0123456789abcdef";

/// A text between quotes in a text line: `\"`, `\\`, and `\xHH` for everything outside printable ASCII, so that no
/// terminal control, no bidirectional override and no half character reaches a log viewer.
pub(super) fn quoted(text: &[u8], out: &mut Vec<u8>) {
    escape(text, |byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\', out);
}

/// A text that ends at the next space of a text line: as [`quoted`], and the space is `\x20`.
pub(super) fn bare(text: &[u8], out: &mut Vec<u8>) {
    escape(text, |byte| matches!(byte, b'!'..=b'~') && byte != b'"' && byte != b'\\', out);
}

fn escape(text: &[u8], harmless: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(index) = rest.iter().position(|byte| !harmless(*byte)) {
        out.extend_from_slice(&rest[..index]);
        match rest[index] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => out.extend_from_slice(&[b'\\', b'x', high_digit(byte), low_digit(byte)]),
        }
        rest = &rest[index + 1..];
    }
    out.extend_from_slice(rest);
}

/// A JSON string with its quotes (RFC 8259 section 7). Bytes that are no UTF-8 become U+FFFD, since JSON has no other
/// way to be valid; DEL is escaped too, for terminals.
pub(super) fn json(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    json_part(text, out);
    out.push(b'"');
}

/// As [`json`], without the quotes.
pub(super) fn json_part(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        json_valid(chunk.valid().as_bytes(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn json_valid(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(index) = rest.iter().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f)) {
        out.extend_from_slice(&rest[..index]);
        match rest[index] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high_digit(byte), low_digit(byte)]),
        }
        rest = &rest[index + 1..];
    }
    out.extend_from_slice(rest);
}

fn high_digit(byte: u8) -> u8 {
    HEX[usize::from(byte >> 4)]
}

fn low_digit(byte: u8) -> u8 {
    HEX[usize::from(byte & 15)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(form: fn(&[u8], &mut Vec<u8>), text: &[u8]) -> String {
        let mut out = Vec::new();
        form(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn quoted_text_keeps_spaces_and_escapes_quotes_controls_and_foreign_bytes() {
        assert_eq!(with(quoted, b"a b\"c\\d\r\n\x1b\x7f\xff\xc3\xa9"), r#"a b\"c\\d\x0d\x0a\x1b\x7f\xff\xc3\xa9"#);
    }

    #[test]
    fn bare_text_is_one_word() {
        assert_eq!(with(bare, b"a b\tc"), r"a\x20b\x09c");
    }

    #[test]
    fn json_of_any_bytes_reads_back() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let read: String = serde_json::from_str(&with(json, &every_byte)).unwrap();
        assert_eq!(read, String::from_utf8_lossy(&every_byte));
    }

    #[test]
    fn json_keeps_characters_beyond_ascii() {
        assert_eq!(with(json, "é\n".as_bytes()), "\"é\\u000a\"");
    }
}
