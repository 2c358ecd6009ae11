//! The table in which the nodes of a [`super::HostTrie`] lie: open addressing, sorted.
//!
//! The upper bits of a node's hash name its home slot, so homes rise with the hash; a node that finds its home taken
//! goes to the right of it, and nodes stay in the order of their hashes throughout. That makes a miss as cheap as a
//! hit (the search ends at the first greater hash, and an empty slot counts as the greatest), it lets the table run
//! fuller than plain linear probing would, and growing is one pass from left to right.

use std::num::NonZeroU32;

/// The number of the node above all labels, which itself lies in no slot.
pub(super) const ROOT: u32 = 0;

/// Labels of up to this many bytes lie in their slot, which makes a slot half a cache line. Of a longer one, the
/// slot holds where it begins among the long labels.
const TEXT_BYTES_INLINE: usize = 11;

/// No node has this hash: it marks empty slots.
const EMPTY_HASH: u32 = u32::MAX;

/// Slots after the last home, for nodes that lie to the right of theirs; the very last is always empty.
const TAIL_SLOTS: usize = 64;

/// The table of nodes.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// Labels of more than [`TEXT_BYTES_INLINE`] bytes, one after the other.
    long_labels: Vec<u8>,
    /// Slots that are some hash's home; the tail follows them.
    homes: u32,
    nodes: u32,
}

/// One node, or an empty slot.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Slot {
    hash: u32,
    parent: u32,
    /// The node's number.
    pub(super) id: u32,
    /// What this very name maps to.
    pub(super) exact: Option<NonZeroU32>,
    /// What every name below maps to.
    pub(super) below: Option<NonZeroU32>,
    label_bytes: u8,
    text: [u8; TEXT_BYTES_INLINE],
}

const _: () = assert!(size_of::<Slot>() == 32);

const EMPTY: Slot = Slot {
    hash: EMPTY_HASH,
    parent: ROOT,
    id: ROOT,
    exact: None,
    below: None,
    label_bytes: 0,
    text: [0; TEXT_BYTES_INLINE],
};

impl Default for Slots {
    fn default() -> Self {
        Self { slots: vec![EMPTY], long_labels: Vec::new(), homes: 0, nodes: 0 }
    }
}

impl Slots {
    /// The node with this label below `parent`; `hash` is that of the whole suffix.
    pub(super) fn find(&self, hash: u32, parent: u32, label: &[u8]) -> Option<&Slot> {
        let hash = storable(hash);
        for slot in self.slots.get(self.home(hash)..)? {
            if slot.hash > hash {
                return None;
            }
            if slot.hash == hash && slot.parent == parent && self.label(slot) == label {
                return Some(slot);
            }
        }
        None
    }

    /// The index of the node with this label below `parent`, which is added if there is none.
    pub(super) fn find_or_insert(&mut self, hash: u32, parent: u32, label: &[u8]) -> usize {
        let hash = storable(hash);
        let mut index = self.home(hash);
        while self.slots[index].hash <= hash {
            let slot = &self.slots[index];
            if slot.hash == hash && slot.parent == parent && self.label(slot) == label {
                return index;
            }
            index += 1;
        }
        self.insert(hash, parent, label)
    }

    /// The node at an index that [`Self::find_or_insert`] has just returned.
    pub(super) fn at(&mut self, index: usize) -> &mut Slot {
        &mut self.slots[index]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes == 0
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.long_labels.capacity()
    }

    /// Scales the hash to the homes, keeping its order.
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * u64::from(self.homes)) >> 32) as usize
    }

    fn label<'a>(&'a self, slot: &'a Slot) -> &'a [u8] {
        let bytes = usize::from(slot.label_bytes);
        match slot.text.get(..bytes) {
            Some(label) => label,
            None => {
                let [a, b, c, d, ..] = slot.text;
                let start = u32::from_le_bytes([a, b, c, d]) as usize;
                self.long_labels.get(start..start + bytes).unwrap_or_default()
            }
        }
    }

    fn insert(&mut self, hash: u32, parent: u32, label: &[u8]) -> usize {
        if self.is_full() {
            self.grow();
        }
        loop {
            if let Some(index) = self.open(hash) {
                self.nodes += 1;
                let text = self.store(label);
                let label_bytes = u8::try_from(label.len()).expect("a label of a HostName has at most 63 bytes");
                self.slots[index] = Slot { hash, parent, id: self.nodes, label_bytes, text, ..EMPTY };
                return index;
            }
            self.grow();
        }
    }

    /// Four fifths: at that load a search looks at three slots on average, and a node takes 40 to 45 bytes.
    fn is_full(&self) -> bool {
        u64::from(self.nodes) * 5 >= u64::from(self.homes) * 4
    }

    /// Moves what lies to the right of a new hash by one slot, up to the next gap. `None`: the tail is used up.
    fn open(&mut self, hash: u32) -> Option<usize> {
        let from = |start: usize| self.slots.iter().enumerate().skip(start);
        let (index, _) = from(self.home(hash)).find(|(_, slot)| slot.hash > hash)?;
        let (gap, _) = from(index).find(|(_, slot)| slot.hash == EMPTY_HASH)?;
        if gap + 1 == self.slots.len() {
            return None;
        }
        self.slots.copy_within(index..gap, index + 1);
        Some(index)
    }

    /// Keeps the text of a label: what the slot holds of it.
    fn store(&mut self, label: &[u8]) -> [u8; TEXT_BYTES_INLINE] {
        let mut text = [0; TEXT_BYTES_INLINE];
        if let Some(inline) = text.get_mut(..label.len()) {
            inline.copy_from_slice(label);
        } else {
            let start = u32::try_from(self.long_labels.len()).expect("a configuration is far smaller than 4 GiB");
            text[..4].copy_from_slice(&start.to_le_bytes());
            self.long_labels.extend_from_slice(label);
        }
        text
    }

    /// An eighth more homes, so that little of the table is unused; each node moves about eight times in all.
    fn grow(&mut self) {
        self.homes = (self.homes + self.homes / 8).max(16);
        let grown = vec![EMPTY; self.homes as usize + TAIL_SLOTS];
        let mut free = 0;
        for node in std::mem::replace(&mut self.slots, grown) {
            if node.hash == EMPTY_HASH {
                continue;
            }
            let index = self.home(node.hash).max(free);
            free = index + 1;
            if free >= self.slots.len() {
                self.slots.resize(free + TAIL_SLOTS, EMPTY);
            }
            self.slots[index] = node;
        }
    }
}

/// The hash of empty slots is not available to nodes.
fn storable(hash: u32) -> u32 {
    hash.min(EMPTY_HASH - 1)
}
