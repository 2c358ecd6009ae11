//! The host trie: labels from the right, so that a name and its wildcards share one walk.

use super::host::{HostName, HostPattern};

/// Maps host patterns to numbers; the most specific pattern wins (exact before wildcard, longer before shorter).
#[derive(Clone, Debug, Default)]
pub struct HostTrie {
    entries: Vec<(HostPattern, u32)>,
}

impl HostTrie {
    /// Adds a pattern. A pattern that is there already keeps its value, which is returned.
    ///
    /// # Errors
    /// The value that the pattern has already.
    pub fn insert(&mut self, pattern: &HostPattern, value: u32) -> Result<(), u32> {
        if let Some((_, value)) = self.entries.iter().find(|(known, _)| known == pattern) {
            return Err(*value);
        }
        self.entries.push((pattern.clone(), value));
        Ok(())
    }

    /// The value of the most specific pattern that opens `name`.
    #[must_use]
    pub fn find(&self, name: &HostName) -> Option<u32> {
        let matching = self.entries.iter().filter(|(pattern, _)| pattern.matches(name));
        let specificity = |pattern: &HostPattern| (!pattern.is_wildcard(), pattern.to_string().len());
        matching.max_by_key(|(pattern, _)| specificity(pattern)).map(|(_, value)| *value)
    }
}
