//! Trees into serde mirrors: what serde_yaml does with its own values, for [`Node`]s.

use std::cell::Cell;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::Node;

/// Decodes a node, and notes whether a field was left over that the mirror does not have.
#[derive(Clone, Copy)]
pub(in crate::config) struct Decoder<'n, 't> {
    node: &'n Node<'t>,
    has_unknown: &'n Cell<bool>,
}

/// What serde says is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::config) struct Error(String);

impl de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl<'n, 't> Decoder<'n, 't> {
    /// Of this node; `has_unknown` is set if anything is left over.
    pub(in crate::config) fn new(node: &'n Node<'t>, has_unknown: &'n Cell<bool>) -> Self {
        Self { node, has_unknown }
    }

    fn of(self, node: &'n Node<'t>) -> Self {
        Self { node, ..self }
    }

    fn wrong_type<T>(self, expected: &dyn de::Expected) -> Result<T, Error> {
        let found = match self.node {
            Node::Null => Unexpected::Unit,
            Node::Bool(value) => Unexpected::Bool(*value),
            Node::Unsigned(value) => Unexpected::Unsigned(*value),
            Node::Signed(value) => Unexpected::Signed(*value),
            Node::Float(value) => Unexpected::Float(*value),
            Node::Text(text) => Unexpected::Str(text),
            Node::Sequence(_) => Unexpected::Seq,
            Node::Mapping(_) => Unexpected::Map,
        };
        Err(de::Error::invalid_type(found, expected))
    }

    fn sequence<'de, V: Visitor<'de>>(self, items: &'n [Node<'t>], visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { decoder: self, items: items.iter() })
    }

    fn mapping<'de, V: Visitor<'de>>(self, fields: &'n [(Node<'t>, Node<'t>)], visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { decoder: self, fields: fields.iter(), value: None })
    }
}

impl<'de> Deserializer<'de> for Decoder<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Unsigned(value) => visitor.visit_u64(*value),
            Node::Signed(value) => visitor.visit_i64(*value),
            Node::Float(value) => visitor.visit_f64(*value),
            Node::Text(text) => visitor.visit_str(text),
            Node::Sequence(items) => self.sequence(items, visitor),
            Node::Mapping(fields) => self.mapping(fields, visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.as_str() {
            Some(text) => visitor.visit_str(text),
            None => self.wrong_type(&visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// Nothing is an empty list, as in protojson.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Node::Sequence(items) = self.node {
            return self.sequence(items, visitor);
        }
        if self.node.is_null() { self.sequence(&[], visitor) } else { self.wrong_type(&visitor) }
    }

    /// Nothing is a message without fields.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Node::Mapping(fields) = self.node {
            return self.mapping(fields, visitor);
        }
        if self.node.is_null() { self.mapping(&[], visitor) } else { self.wrong_type(&visitor) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.has_unknown.set(true);
        visitor.visit_unit()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.node.as_str() {
            Some(text) => visitor.visit_enum(text.into_deserializer()),
            None => self.wrong_type(&visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

struct Items<'n, 't> {
    decoder: Decoder<'n, 't>,
    items: std::slice::Iter<'n, Node<'t>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.items.next().map(|item| seed.deserialize(self.decoder.of(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'n, 't> {
    decoder: Decoder<'n, 't>,
    fields: std::slice::Iter<'n, (Node<'t>, Node<'t>)>,
    value: Option<&'n Node<'t>>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.fields.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(self.decoder.of(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(self.decoder.of(value)),
            None => Err(de::Error::custom("a value without its key")),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.fields.len())
    }
}
