//! Objects as they were written, for those who ask what is in force.
//!
//! What is kept is the text, which takes a tenth of the memory of the decoded value; it is decoded again when somebody
//! asks. For objects that stand in a file of their own documents, the text is the file's, shared.

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use serde_yaml::Value;

use super::istio::Origin;
use super::load::Excerpt;
use super::yaml::Node;

/// One object with the operator's spelling. Serializes as the document.
#[derive(Clone, Debug)]
pub struct Written(Text);

#[derive(Clone, Debug)]
enum Text {
    Document(Excerpt),
    /// An item of a `kind: List`, or an object that came from elsewhere.
    Own(Box<str>),
}

impl Written {
    /// The object that `node` was decoded to.
    pub(super) fn new(origin: &Origin, node: &Node<'_>) -> Self {
        match origin.document() {
            Some(document) => Self(Text::Document(document.excerpt.clone())),
            None => Self::own(node),
        }
    }

    fn own(value: &impl Serialize) -> Self {
        // Whatever was decoded from YAML can be written as YAML.
        Self(Text::Own(serde_yaml::to_string(value).unwrap_or_default().into()))
    }

    /// The decoded document.
    #[must_use]
    pub fn value(&self) -> Value {
        match &self.0 {
            // It has been decoded before, or there would be no object.
            Text::Document(text) => text.parse().ok().flatten().map(|node| node.to_value()).unwrap_or_default(),
            Text::Own(text) => serde_yaml::from_str(text).unwrap_or_default(),
        }
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
