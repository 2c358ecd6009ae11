//! What becomes of request fields that nobody vouches for.

use crate::failure::Failure;
use crate::wire::http1::{Claims, HeadError, RequestHead};

/// `headers:` of the bootstrap file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPolicy {
    /// The kinds that no upstream gets to see.
    pub withheld: Claims,
    /// The kinds that it does not get to see where a policy or a route looks at methods.
    pub withheld_with_methods: Claims,
    /// Field names with `_`.
    pub underscores: Underscores,
    /// The gateway's name in Via; `None`: it adds no Via, and does not see its own requests come back.
    pub via: Option<Box<str>>,
}

/// `headers.underscores`, in Envoy's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// `ALLOW`
    #[default]
    Allow,
    /// `REJECT_REQUEST`
    Reject,
    /// `DROP_HEADER`
    Drop,
}

impl Default for FieldPolicy {
    fn default() -> Self {
        Self {
            withheld: Claims::FORWARDED.with(Claims::MESH),
            withheld_with_methods: Claims::METHOD,
            underscores: Underscores::Allow,
            via: None,
        }
    }
}

impl FieldPolicy {
    /// Whether the fields of a request let it pass.
    ///
    /// # Errors
    /// [`Failure::RequestMalformed`] for a name that is not to pass; [`Failure::Loop`].
    pub fn judge(&self, head: &RequestHead, bytes: &[u8]) -> Result<(), Failure> {
        if self.underscores == Underscores::Reject && head.has_underscores(bytes) {
            return Err(Failure::RequestMalformed(HeadError::Underscore));
        }
        match &self.via {
            Some(pseudonym) if head.came_through(bytes, pseudonym) => Err(Failure::Loop),
            Some(_) | None => Ok(()),
        }
    }

    /// Marks what is not to reach the upstream; the matchers and the log still see it.
    pub fn withhold(&self, head: &mut RequestHead, bytes: &[u8], methods_matter: bool) {
        let methods = if methods_matter { self.withheld_with_methods } else { Claims::NONE };
        head.withhold(bytes, self.withheld.with(methods));
        if self.underscores == Underscores::Drop {
            head.withhold_underscores(bytes);
        }
    }
}
