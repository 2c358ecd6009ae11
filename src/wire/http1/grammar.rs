//! The byte classes of RFC 9110 section 5.6.2 and 5.5.

/// Whether `byte` may stand in a token: a method, a field name, a connection option.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `byte` may stand in a field value, surrounding white space included: no control character but the tab.
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The elements of a comma-separated list, without surrounding white space and without empty ones (RFC 9110
/// section 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Removes spaces and tabs at both ends: `trim_ascii` would also remove what is no white space in HTTP.
fn trim(mut element: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = element {
        element = rest;
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_lose_white_space_and_empty_elements() {
        let elements: Vec<&[u8]> = list(b" , a,\tb c ,,d").collect();
        assert_eq!(elements, [b"a".as_slice(), b"b c", b"d"]);
        assert_eq!(list(b"").count(), 0);
    }

    #[test]
    fn tokens_hold_no_delimiter_and_no_control_character() {
        for byte in 0..=u8::MAX {
            let delimiter = b"\"(),/:;<=>?@[\\]{} ".contains(&byte);
            assert_eq!(is_token_byte(byte), byte.is_ascii_graphic() && !delimiter, "{byte:#x}");
        }
    }
}
