//! YAML documents as trees that borrow from their text.
//!
//! Two parsers make them. [`plain`] knows the part of YAML in which nearly every resource is written, in one pass over
//! the text, ten times as fast as a whole YAML parser; whatever goes beyond that part it declines, and serde_yaml reads
//! the document. A property test and a fuzz target hold the two together: what the first reads, the second reads
//! likewise.

mod decode;
mod plain;

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_yaml::Value;

pub(super) use decode::Decoder;

/// A value of a document. Tags of one's own are left out, as Istio leaves them out.
#[derive(Clone, Debug, PartialEq)]
pub enum Node<'t> {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer from 0.
    Unsigned(u64),
    /// An integer below 0.
    Signed(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(Cow<'t, str>),
    /// A list.
    Sequence(Vec<Node<'t>>),
    /// Keys, no two alike, and their values.
    Mapping(Vec<(Node<'t>, Node<'t>)>),
}

/// Reads a document.
///
/// # Errors
/// That of serde_yaml.
pub(super) fn parse(text: &str) -> Result<Node<'_>, serde_yaml::Error> {
    match plain::parse(text) {
        Some(node) => Ok(node),
        None => parse_any(text),
    }
}

/// Reads a document with all that YAML has.
fn parse_any(text: &str) -> Result<Node<'static>, serde_yaml::Error> {
    let mut value: Value = serde_yaml::from_str(text)?;
    if text.contains("<<") {
        value.apply_merge()?;
    }
    Ok(Node::from(value))
}

impl Node<'_> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Mapping(fields) = self else { return None };
        fields.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null
            | Self::Bool(_)
            | Self::Unsigned(_)
            | Self::Signed(_)
            | Self::Float(_)
            | Self::Sequence(_)
            | Self::Mapping(_) => None,
        }
    }

    /// The keys of a mapping that are texts; `?` stands for any other.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let fields = if let Self::Mapping(fields) = self { &fields[..] } else { &[] };
        fields.iter().map(|(key, _)| key.as_str().unwrap_or("?"))
    }

    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// As serde_yaml has it.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Unsigned(value) => Value::Number((*value).into()),
            Self::Signed(value) => Value::Number((*value).into()),
            Self::Float(value) => Value::Number((*value).into()),
            Self::Text(text) => Value::String(text.clone().into_owned()),
            Self::Sequence(items) => Value::Sequence(items.iter().map(Node::to_value).collect()),
            Self::Mapping(fields) => {
                let fields = fields.iter().map(|(key, value)| (key.to_value(), value.to_value()));
                Value::Mapping(fields.collect())
            }
        }
    }
}

impl From<Value> for Node<'static> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => Self::Unsigned(value),
                (None, Some(value)) => Self::Signed(value),
                (None, None) => Self::Float(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Self::Text(Cow::Owned(text)),
            Value::Sequence(items) => Self::Sequence(items.into_iter().map(Self::from).collect()),
            Value::Mapping(fields) => {
                Self::Mapping(fields.into_iter().map(|(key, value)| (Self::from(key), Self::from(value))).collect())
            }
            Value::Tagged(tagged) => Self::from(tagged.value),
        }
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Sequence(items) => {
                let mut sequence = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| sequence.serialize_element(item))?;
                sequence.end()
            }
            Self::Mapping(fields) => {
                let mut mapping = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(key, value)| mapping.serialize_entry(key, value))?;
                mapping.end()
            }
        }
    }
}

/// What must hold for every text: both parsers read the same, where the first reads at all.
///
/// # Panics
/// If they do not.
pub(super) fn assert_agreement(text: &str) {
    let Some(node) = plain::parse(text) else { return };
    match parse_any(text) {
        Ok(other) => assert_eq!(node, other, "the two parsers differ about {text:?}"),
        Err(error) => panic!("{error}: only one parser reads {text:?}"),
    }
}
