//! Objects as they were written, for those who ask what is in force.
//!
//! What is kept is the text, compressed: it takes a fraction of the memory of the decoded value, and it is decoded again
//! when somebody asks. The files cannot be asked in its place: they may have changed since they were read.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use serde_yaml::Value;

use super::istio::Origin;
use super::yaml::{self, Node};

/// Texts are compressed by so many bytes at a time: few enough that looking at one object costs next to nothing, and
/// enough that what objects have in common, which is most of them, is stored once in dozens.
const PACK_BYTES: usize = 16 * 1024;

/// One object with the operator's spelling. Serializes as the document.
#[derive(Clone, Debug)]
pub struct Written {
    packs: Arc<Packs>,
    pack: u32,
    range: Range<u32>,
}

/// What the texts were compressed to that one [`Packer`] has collected; nothing until it is dropped.
type Packs = OnceLock<Vec<Box<[u8]>>>;

/// Collects texts. What it has given out can be looked at once it is dropped.
#[derive(Debug, Default)]
pub(super) struct Packer {
    packs: Arc<Packs>,
    full: Vec<Box<[u8]>>,
    /// What the next pack will hold.
    text: String,
}

impl Packer {
    /// Keeps the text that `node` was decoded from.
    pub(super) fn add(&mut self, origin: &Origin, node: &Node<'_>) -> Written {
        match origin.text() {
            Some(text) => self.add_text(text),
            None => self.add_value(node),
        }
    }

    fn add_value(&mut self, value: &impl Serialize) -> Written {
        // Whatever was decoded from YAML can be written as YAML.
        self.add_text(&serde_yaml::to_string(value).unwrap_or_default())
    }

    fn add_text(&mut self, text: &str) -> Written {
        if self.text.len() + text.len() > PACK_BYTES {
            self.pack();
        }
        let start = position(self.text.len());
        self.text.push_str(text);
        let range = start..position(self.text.len());
        Written { packs: Arc::clone(&self.packs), pack: position(self.full.len()), range }
    }

    fn pack(&mut self) {
        self.full.push(lz4_flex::compress_prepend_size(self.text.as_bytes()).into());
        self.text.clear();
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.pack();
        // It is set here and nowhere else.
        let _ = self.packs.set(std::mem::take(&mut self.full));
    }
}

fn position(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a configuration is far smaller than 4 GiB")
}

impl Written {
    fn own(value: &impl Serialize) -> Self {
        Packer::default().add_value(value)
    }

    /// The decoded document.
    #[must_use]
    pub fn value(&self) -> Value {
        let pack = self.packs.get().and_then(|packs| packs.get(self.pack as usize));
        let bytes = pack.and_then(|pack| lz4_flex::decompress_size_prepended(pack).ok()).unwrap_or_default();
        let text = bytes.get(self.range.start as usize..self.range.end as usize).unwrap_or_default();
        // It has been decoded before, or there would be no object.
        yaml::parse(std::str::from_utf8(text).unwrap_or_default()).map(|node| node.to_value()).unwrap_or_default()
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if !value.is_mapping() {
            return Err(de::Error::custom("an object is a mapping"));
        }
        Ok(Self::own(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_from_whichever_pack_they_are_in() {
        let texts: Vec<String> =
            (0..1_000).map(|index| format!("name: n{index}\nspec: {{hosts: [h{index}.example.com]}}\n")).collect();
        let mut packer = Packer::default();
        let written: Vec<Written> = texts.iter().map(|text| packer.add_text(text)).collect();
        drop(packer);
        assert_ne!(written[0].pack, written[999].pack);
        for (written, text) in written.iter().zip(&texts) {
            assert_eq!(written.value(), serde_yaml::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn a_text_larger_than_a_pack_is_kept_whole() {
        let text = format!("first: 1\nlast: \"{}\"\n", "x".repeat(3 * PACK_BYTES));
        let mut packer = Packer::default();
        let written = [packer.add_text("small: 1\n"), packer.add_text(&text), packer.add_text("small: 2\n")];
        drop(packer);
        assert_eq!(written[0].value()["small"], Value::from(1));
        assert_eq!(written[1].value()["last"].as_str().map(str::len), Some(3 * PACK_BYTES));
        assert_eq!(written[2].value()["small"], Value::from(2));
    }
}
