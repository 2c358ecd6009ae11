//! JSON formats.

use serde_json::Value;

use super::parse::{self, FormatError, Part};
use super::{Piece, escape};

/// Compiles an object; keys are in the order of the alphabet.
pub(super) fn compile(format: &str) -> Result<Vec<Piece>, FormatError> {
    let value: Value = serde_json::from_str(format).map_err(|error| FormatError::Json(error.to_string()))?;
    if !value.is_object() {
        return Err(FormatError::Json("it must be an object".to_owned()));
    }
    let mut writer = Writer::default();
    writer.value(&value)?;
    writer.literal.push(b'\n');
    writer.flush();
    Ok(writer.pieces)
}

#[derive(Default)]
struct Writer {
    pieces: Vec<Piece>,
    literal: Vec<u8>,
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<(), FormatError> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.literal.extend(value.to_string().into_bytes()),
            Value::String(text) => self.text(text)?,
            Value::Array(values) => {
                self.literal.push(b'[');
                for (index, value) in values.iter().enumerate() {
                    self.comma(index);
                    self.value(value)?;
                }
                self.literal.push(b']');
            }
            Value::Object(values) => {
                self.literal.push(b'{');
                for (index, (key, value)) in values.iter().enumerate() {
                    self.comma(index);
                    escape::json(key.as_bytes(), &mut self.literal);
                    self.literal.push(b':');
                    self.value(value)?;
                }
                self.literal.push(b'}');
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), FormatError> {
        let mut parts = parse::parse(text)?;
        if let [Part::Slot(_)] = &parts[..] {
            if let Some(Part::Slot(slot)) = parts.pop() {
                self.flush();
                self.pieces.push(Piece::Json(slot));
            }
            return Ok(());
        }
        self.literal.push(b'"');
        for part in parts {
            match part {
                Part::Literal(literal) => escape::json_part(literal.as_bytes(), &mut self.literal),
                Part::Slot(slot) => {
                    self.flush();
                    self.pieces.push(Piece::JsonPart(slot));
                }
            }
        }
        self.literal.push(b'"');
        Ok(())
    }

    fn comma(&mut self, index: usize) {
        if index > 0 {
            self.literal.push(b',');
        }
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.pieces.push(Piece::Literal(std::mem::take(&mut self.literal).into()));
        }
    }
}
