//! What an operator adds to the end-to-end fields of a forwarded head, and takes from them.
//!
//! Fields that concern one connection, the framing and Host are out of reach: [`FieldEdits::is_editable`] knows them.

use super::fields::is_end_to_end;
use super::grammar::{is_token_byte, is_value_byte};
use super::write::write_field;

/// Changes to the fields of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Names, in lower case, whose fields are left out.
    dropped: Vec<Box<str>>,
    /// Fields that follow the others.
    added: Vec<(Box<str>, Box<str>)>,
}

/// No changes.
pub static NO_FIELD_EDITS: FieldEdits = FieldEdits::new();

impl FieldEdits {
    /// No changes yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { dropped: Vec::new(), added: Vec::new() }
    }

    /// Whether a field of this name may be edited: a token (RFC 9110 section 5.1) that is no business of a single
    /// connection or of the framing, which the writers settle whatever the operator says.
    #[must_use]
    pub fn is_editable(name: &str) -> bool {
        !name.is_empty() && name.bytes().all(is_token_byte) && is_end_to_end(name.as_bytes())
    }

    /// Whether a text may stand as a value: no CR, LF, NUL or other control character (RFC 9110 section 5.5).
    #[must_use]
    pub fn is_value(value: &str) -> bool {
        value.bytes().all(is_value_byte)
    }

    /// Leaves out every field of this name, those added so far included.
    pub fn remove(&mut self, name: &str) {
        self.added.retain(|(added, _)| !added.eq_ignore_ascii_case(name));
        let name = name.to_ascii_lowercase().into_boxed_str();
        if !self.dropped.contains(&name) {
            self.dropped.push(name);
        }
    }

    /// Puts one field in place of all of this name.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    /// Adds one field.
    pub fn add(&mut self, name: &str, value: &str) {
        self.added.push((name.into(), value.trim_matches([' ', '\t']).into()));
    }

    /// Makes other changes, too, after these.
    pub fn extend(&mut self, later: &Self) {
        later.dropped.iter().for_each(|name| self.remove(name));
        self.added.extend(later.added.iter().cloned());
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.added.is_empty()
    }

    /// The names whose fields are left out, and the fields that are added.
    pub fn changes(&self) -> (impl Iterator<Item = &str>, impl Iterator<Item = (&str, &str)>) {
        let added = self.added.iter().map(|(name, value)| (&**name, &**value));
        (self.dropped.iter().map(|name| &**name), added)
    }

    pub(super) fn drops_some(&self) -> bool {
        !self.dropped.is_empty()
    }

    /// Whether fields of this name are left out.
    #[must_use]
    pub fn drops(&self, name: &[u8]) -> bool {
        self.dropped.iter().any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()))
    }

    pub(super) fn adds(&self, name: &str) -> bool {
        self.added.iter().any(|(added, _)| added.eq_ignore_ascii_case(name))
    }

    pub(super) fn write_added(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.added {
            write_field(name.as_bytes(), value.as_bytes(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_edits_overrule_earlier_ones() {
        let mut edits = FieldEdits::default();
        edits.add("X-Team", "red");
        edits.set("x-team", "blue");
        edits.add("X-Team", " green ");
        let mut out = Vec::new();
        edits.write_added(&mut out);
        assert_eq!(out, b"x-team: blue\r\nX-Team: green\r\n");
        assert!(edits.drops(b"X-TEAM") && !edits.drops(b"x-tea"));
        edits.remove("X-Team");
        assert!(!edits.adds("x-team") && edits.drops(b"x-team"));
    }

    #[test]
    fn framing_and_hop_by_hop_fields_are_out_of_reach() {
        for name in ["Connection", "transfer-encoding", "Content-Length", "HOST", "te", "Upgrade", "expect", "Trailer"]
        {
            assert!(!FieldEdits::is_editable(name), "{name}");
        }
        for name in ["", "a b", "a:b", ":path", "x\r\ny", "é"] {
            assert!(!FieldEdits::is_editable(name), "{name:?}");
        }
        assert!(FieldEdits::is_editable("X-Team") && FieldEdits::is_editable("authorization"));
        assert!(FieldEdits::is_value("a b\tc é") && FieldEdits::is_value(""));
        for value in ["a\rb", "a\nb", "\0", "\x7f"] {
            assert!(!FieldEdits::is_value(value), "{value:?}");
        }
    }
}
