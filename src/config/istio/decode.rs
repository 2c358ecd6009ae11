//! One node into one serde mirror, with the path of what is wrong.

use std::cell::Cell;

use serde::de::{DeserializeOwned, Deserializer};
use serde_ignored::Path as Ignored;
use serde_path_to_error::{Segment, Track};

use super::object::Scope;
use crate::config::finding::code;
use crate::config::yaml::{Decoder, Node};

/// Decodes `node`. A type error is an error that names its field; fields that `T` does not have are warnings.
#[must_use]
pub fn decode<T: DeserializeOwned + Default>(node: &Node<'_>, root: &str, scope: &mut Scope<'_>) -> Option<T> {
    if node.is_null() {
        return Some(T::default());
    }
    // Keeping track of paths takes as long as all the rest, and nearly every object has nothing that must be named.
    let has_unknown = Cell::new(false);
    if let Ok(decoded) = T::deserialize(Decoder::new(node, &has_unknown))
        && !has_unknown.get()
    {
        return Some(decoded);
    }
    let decoded = decode_strictly(Decoder::new(node, &has_unknown), &mut |field| {
        let name = field.rsplit('.').next().unwrap_or_default();
        let message = format!("unknown field {name:?}; nothing reads it (misspelt, or indented wrongly?)");
        scope.warning(code::UNKNOWN_FIELD, format!("{root}{field}"), message);
    });
    match decoded {
        Ok(decoded) => Some(decoded),
        Err((field, message)) => {
            scope.error(format!("{root}{field}"), message);
            None
        }
    }
}

/// Decodes a value and calls `unknown` with the path of each field that `T` does not have. Paths begin with a dot or
/// a bracket.
///
/// # Errors
/// The path of the first type error, and what is wrong.
pub(crate) fn decode_strictly<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    value: D,
    unknown: &mut dyn FnMut(String),
) -> Result<T, (String, String)> {
    let mut ignored = |path: Ignored<'_>| unknown(ignored_path(&path));
    let mut track = Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let deserializer = serde_ignored::Deserializer::new(tracked, &mut ignored);
    let decoded = T::deserialize(deserializer);
    decoded.map_err(|error| (error_path(&track.path()), error.to_string()))
}

fn error_path(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } | Segment::Enum { variant: key } => text.push_str(&format!(".{key}")),
            Segment::Unknown => {}
        }
    }
    text
}

fn ignored_path(path: &Ignored<'_>) -> String {
    match path {
        Ignored::Root => String::new(),
        Ignored::Seq { parent, index } => format!("{}[{index}]", ignored_path(parent)),
        Ignored::Map { parent, key } => format!("{}.{key}", ignored_path(parent)),
        Ignored::Some { parent } | Ignored::NewtypeStruct { parent } | Ignored::NewtypeVariant { parent } => {
            ignored_path(parent)
        }
    }
}
