//! The host trie: labels from the right, so that a name and its wildcards share one walk.
//!
//! A node stands for a suffix (`com`, `example.com`, …) and knows what is mapped to exactly that name and to
//! everything below it. There are no child lists: every node lies in one table (`slots.rs`), where it is found by its
//! parent's number and its label. That has three merits. A clone, one per worker, copies two flat arrays. A label
//! of up to eleven bytes is compared in the cache line that the hash led to. And because the hash of
//! a node is the hash of its whole suffix, the processor may fetch the node of the next label before this one has
//! arrived: a walk waits for memory once, not once per label.
//!
//! A lookup, each waiting for the one before, of names in random order, takes (bench/route.rs; the best of several
//! runs on one core of a busy cloud instance, where repeated runs differ by half):
//!
//! | hosts | exact | wildcard, five labels | miss in a known zone | miss |
//! | ---: | ---: | ---: | ---: | ---: |
//! | 1,000 | 32 ns | 30 ns | 38 ns | 28 ns |
//! | 100,000 | 87 ns | 99 ns | 55 ns | 40 ns |
//! | 1,000,000 | 79 ns | 107 ns | 75 ns | 41 ns |
//!
//! A host takes 44 to 47 bytes, and just under 100 where it shares no zone (`www.domain-7.com`: two nodes).
//!
//! Clients choose the names that are looked up. The seed of the hash is random and nothing they send is stored, so
//! they can neither learn nor make collisions; a probe is bounded by the longest run of the table.

mod slots;

use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU32;

use foldhash::quality::RandomState;

use super::host::{HostName, HostPattern};
use slots::{ROOT, Slots};

/// Maps host patterns to numbers; the most specific pattern wins (exact before wildcard, longer before shorter).
#[derive(Clone, Debug, Default)]
pub struct HostTrie {
    seed: RandomState,
    slots: Slots,
}

impl HostTrie {
    /// Adds a pattern. A pattern that is there already keeps its value, which is returned.
    ///
    /// `u32::MAX` is no value: a pattern that gets it stays closed.
    ///
    /// # Errors
    /// The value that the pattern has already.
    pub fn insert(&mut self, pattern: &HostPattern, value: u32) -> Result<(), u32> {
        let value = pack(value);
        match pattern {
            HostPattern::Exact(name) => fill(&mut self.node_mut(name).exact, value),
            HostPattern::Below(suffix) => fill(&mut self.node_mut(suffix).below, value),
        }
    }

    /// The value of the most specific pattern that opens `name`.
    #[must_use]
    pub fn find(&self, name: &HostName) -> Option<u32> {
        let mut hasher = self.seed.build_hasher();
        let (mut parent, mut exact, mut below, mut closest) = (ROOT, None, None, None);
        for label in labels(name) {
            // This label lies below the node before it, whose wildcard is the longest so far.
            closest = below.or(closest);
            hasher.write(label);
            let Some(node) = self.slots.find(tag(&hasher), parent, label) else {
                return closest.map(unpack);
            };
            (parent, exact, below) = (node.id, node.exact, node.below);
        }
        exact.or(closest).map(unpack)
    }

    /// Whether no pattern was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes on the heap. A clone, which is what a worker owns, takes no more than it needs.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.slots.heap_bytes()
    }

    /// The node of `name`, added with its parents where missing.
    fn node_mut(&mut self, name: &HostName) -> &mut slots::Slot {
        let mut hasher = self.seed.build_hasher();
        let (mut parent, mut index) = (ROOT, 0);
        for label in labels(name) {
            hasher.write(label);
            index = self.slots.find_or_insert(tag(&hasher), parent, label);
            parent = self.slots.at(index).id;
        }
        self.slots.at(index)
    }
}

/// Labels from the right.
fn labels(name: &HostName) -> impl Iterator<Item = &[u8]> {
    name.as_bytes().rsplit(|byte| *byte == b'.')
}

/// The hash of the labels written so far; the upper half is the better mixed one.
fn tag(hasher: &impl Hasher) -> u32 {
    (hasher.finish() >> 32) as u32
}

fn fill(place: &mut Option<NonZeroU32>, value: Option<NonZeroU32>) -> Result<(), u32> {
    match *place {
        Some(known) => Err(unpack(known)),
        None => {
            *place = value;
            Ok(())
        }
    }
}

/// A value in four bytes, absence included.
fn pack(value: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(!value)
}

fn unpack(value: NonZeroU32) -> u32 {
    !value.get()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().expect("a valid name")
    }

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).expect("a valid pattern")
    }

    fn trie(patterns: &[&str]) -> HostTrie {
        let mut trie = HostTrie::default();
        for (value, text) in (0..).zip(patterns) {
            trie.insert(&pattern(text), value).expect("patterns are distinct");
        }
        trie
    }

    #[test]
    fn an_empty_trie_knows_nothing() {
        assert_eq!(HostTrie::default().find(&name("example.com")), None);
    }

    #[test]
    fn exact_wins_over_wildcard_and_the_longer_wildcard_over_the_shorter() {
        let trie = trie(&["*.com", "*.example.com", "www.example.com", "*.www.example.com"]);
        assert_eq!(trie.find(&name("other.com")), Some(0));
        assert_eq!(trie.find(&name("api.example.com")), Some(1));
        assert_eq!(trie.find(&name("www.example.com")), Some(2));
        assert_eq!(trie.find(&name("a.b.www.example.com")), Some(3));
        assert_eq!(trie.find(&name("example.org")), None);
    }

    #[test]
    fn a_wildcard_does_not_open_its_own_suffix() {
        let trie = trie(&["*.foo.com"]);
        assert_eq!(trie.find(&name("foo.com")), None);
        assert_eq!(trie.find(&name("barfoo.com")), None);
        assert_eq!(trie.find(&name("com")), None);
    }

    #[test]
    fn a_name_that_ends_at_an_inner_node_falls_back_to_the_wildcard_above() {
        let trie = trie(&["*.com", "a.b.example.com"]);
        assert_eq!(trie.find(&name("example.com")), Some(0));
        assert_eq!(trie.find(&name("b.example.com")), Some(0));
        assert_eq!(trie.find(&name("a.b.example.com")), Some(1));
        assert_eq!(trie.find(&name("c.a.b.example.com")), Some(0));
    }

    #[test]
    fn a_pattern_keeps_its_first_value() {
        let mut trie = trie(&["a.com", "*.a.com"]);
        assert_eq!(trie.insert(&pattern("a.com"), 7), Err(0));
        assert_eq!(trie.insert(&pattern("*.a.com"), 7), Err(1));
        assert_eq!(trie.find(&name("a.com")), Some(0));
    }

    #[test]
    fn the_greatest_number_is_no_value() {
        let mut trie = HostTrie::default();
        assert_eq!(trie.insert(&pattern("a.com"), u32::MAX), Ok(()));
        assert_eq!(trie.insert(&pattern("b.com"), u32::MAX - 1), Ok(()));
        assert_eq!(trie.find(&name("a.com")), None);
        assert_eq!(trie.find(&name("b.com")), Some(u32::MAX - 1));
    }

    #[test]
    fn long_labels_that_differ_in_the_last_byte_are_told_apart() {
        let (left, right) = (format!("{}a.com", "x".repeat(62)), format!("{}b.com", "x".repeat(62)));
        let trie = trie(&[&left, &right]);
        assert_eq!(trie.find(&name(&left)), Some(0));
        assert_eq!(trie.find(&name(&right)), Some(1));
        assert_eq!(trie.find(&name(&format!("{}c.com", "x".repeat(62)))), None);
        assert_eq!(trie.find(&name(&format!("{}.com", "x".repeat(62)))), None);
    }

    #[test]
    fn the_deepest_name_has_127_labels() {
        let deepest = vec!["a"; 127].join(".");
        let trie = trie(&[&deepest, "*.a.a"]);
        assert_eq!(trie.find(&name(&deepest)), Some(0));
        assert_eq!(trie.find(&name(&vec!["a"; 126].join("."))), Some(1));
        assert_eq!(trie.find(&name("a.a")), None);
    }

    #[test]
    fn a_hundred_thousand_hosts_take_at_most_100_bytes_each() {
        let shapes: [fn(u32) -> String; 3] = [
            |index| format!("service-{index}.eu-central-1.example.com"),
            |index| format!("www.domain-{index}.com"),
            |index| format!("*.customer-{index}-production.example.com"),
        ];
        for shape in shapes {
            let mut trie = HostTrie::default();
            for index in 0..100_000 {
                trie.insert(&pattern(&shape(index)), index).expect("patterns are distinct");
            }
            let bytes = trie.clone().heap_bytes() / 100_000;
            assert!(bytes <= 100, "{bytes} bytes for {}", shape(0));
            assert_eq!(trie.find(&name(&shape(99_999).replace('*', "a"))), Some(99_999));
        }
    }

    /// What the trie must be indistinguishable from.
    fn scan(entries: &[(HostPattern, u32)], name: &HostName) -> Option<u32> {
        let specificity = |pattern: &HostPattern| (!pattern.is_wildcard(), pattern.to_string().len());
        let matching = entries.iter().filter(|(pattern, _)| pattern.matches(name));
        matching.max_by_key(|(pattern, _)| specificity(pattern)).map(|(_, value)| *value)
    }

    /// Few distinct labels, so that suffixes are shared and lookups come close to what is stored.
    fn any_name() -> impl Strategy<Value = String> {
        let label = prop_oneof![
            8 => "[ab]",
            2 => "[ab]{11,12}",
            1 => "[ab]{62}c",
        ];
        prop_oneof![
            9 => prop::collection::vec(label, 1..6),
            1 => prop::collection::vec("[a]", 100..127),
        ]
        .prop_map(|labels| labels.join("."))
        .prop_filter("too long", |name| name.len() <= 250)
    }

    fn any_pattern() -> impl Strategy<Value = HostPattern> {
        (any_name(), any::<bool>())
            .prop_map(|(name, wildcard)| pattern(&if wildcard { format!("*.{name}") } else { name }))
    }

    proptest! {
        #[test]
        fn the_trie_answers_as_a_linear_scan_does(
            patterns in prop::collection::vec(any_pattern(), 0..60),
            names in prop::collection::vec(any_name(), 1..60),
        ) {
            let (mut trie, mut entries) = (HostTrie::default(), Vec::new());
            for (value, pattern) in (0..).zip(patterns) {
                let known = entries.iter().find(|(known, _)| *known == pattern).map(|(_, value)| *value);
                prop_assert_eq!(trie.insert(&pattern, value), known.map_or(Ok(()), Err));
                if known.is_none() {
                    entries.push((pattern, value));
                }
            }
            let copy = trie.clone();
            for text in names {
                prop_assert_eq!(trie.find(&name(&text)), scan(&entries, &name(&text)), "{}", text);
                prop_assert_eq!(copy.find(&name(&text)), trie.find(&name(&text)));
            }
            for (pattern, _) in &entries {
                let text = pattern.to_string().replace('*', "z");
                prop_assert_eq!(trie.find(&name(&text)), scan(&entries, &name(&text)), "{}", text);
            }
        }
    }
}
