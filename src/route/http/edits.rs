//! What a route changes in the heads that it passes on.

use crate::wire::http1::FieldEdits;

/// `headers` and `rewrite.authority`, of a route and one of its destinations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// A new Host; the SNI of an originated connection follows it.
    pub authority: Option<Box<str>>,
    /// Changes to requests.
    pub request: FieldEdits,
    /// Changes to their answers.
    pub response: FieldEdits,
}

/// Those of a route that changes nothing.
pub static NO_EDITS: Edits = Edits { authority: None, request: FieldEdits::new(), response: FieldEdits::new() };

impl Edits {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.authority.is_none() && self.request.is_empty() && self.response.is_empty()
    }
}
