//! Lines of fields: `spec.tls[0].match[0].sniHosts[0]` → 12.
//!
//! serde_yaml keeps no positions of values, so a document is parsed a second time, by saphyr-parser, when a finding
//! first asks for one of its lines. Documents without findings cost nothing.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Span};

/// The line of every field of one document, counted from 1 within the document's text.
#[derive(Debug, Default)]
pub(super) struct Positions {
    lines: HashMap<String, u32>,
}

impl Positions {
    /// Reads a document. What cannot be parsed has no lines.
    pub(super) fn read(text: &str) -> Self {
        let mut walk = Walk::default();
        let mut parser = Parser::new_from_str(text);
        while let Some(Ok((event, span))) = parser.next_event() {
            walk.step(&event, &span);
        }
        Self { lines: walk.lines }
    }

    /// The line of a field, or of the nearest parent that the document does have (a missing field has no line).
    pub(super) fn line(&self, field: &str) -> Option<u32> {
        let mut path = canonical(field);
        loop {
            if let Some(line) = self.lines.get(&path) {
                return Some(*line);
            }
            path.truncate(path.rfind(['.', '['])?);
        }
    }
}

/// Where the walk is: inside one collection.
#[derive(Debug)]
struct Frame {
    path: String,
    inside: Inside,
}

#[derive(Debug)]
enum Inside {
    /// Next comes a key.
    MappingKey,
    /// Next comes the value of this key, which stands on this line.
    MappingValue(String, u32),
    /// Next comes the element of this index.
    Sequence(usize),
}

#[derive(Debug, Default)]
struct Walk {
    frames: Vec<Frame>,
    lines: HashMap<String, u32>,
}

impl Walk {
    fn step(&mut self, event: &Event<'_>, span: &Span) {
        let line = u32::try_from(span.start.line()).unwrap_or(u32::MAX);
        match event {
            Event::Scalar(text, ..) => self.scalar(text, line),
            Event::Alias(_) => self.scalar("", line),
            Event::MappingStart(..) => self.open(Inside::MappingKey, line),
            Event::SequenceStart(..) => self.open(Inside::Sequence(0), line),
            Event::MappingEnd | Event::SequenceEnd => drop(self.frames.pop()),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
        }
    }

    fn scalar(&mut self, text: &str, line: u32) {
        match self.frames.last_mut() {
            Some(Frame { path, inside: inside @ Inside::MappingKey }) => {
                let separator = if path.is_empty() { "" } else { "." };
                *inside = Inside::MappingValue(format!("{path}{separator}{}", canonical(text)), line);
            }
            Some(_) => drop(self.begin_node(line)),
            None => {}
        }
    }

    fn open(&mut self, inside: Inside, line: u32) {
        let path = self.begin_node(line);
        self.frames.push(Frame { path, inside });
    }

    /// Records the line of the node that begins here and makes its parent expect the next one.
    fn begin_node(&mut self, line: u32) -> String {
        let (path, line) = match self.frames.last_mut() {
            None => (String::new(), line),
            Some(frame) => match std::mem::replace(&mut frame.inside, Inside::MappingKey) {
                // A collection as a key: legal YAML that no object uses. Its fields get no useful path.
                Inside::MappingKey => (String::from("?"), line),
                Inside::MappingValue(path, key_line) => (path, key_line),
                Inside::Sequence(index) => {
                    frame.inside = Inside::Sequence(index + 1);
                    (format!("{}[{index}]", frame.path), line)
                }
            },
        };
        self.lines.entry(path.clone()).or_insert(line);
        path
    }
}

/// Both spellings of a key become the camelCase one, so that a path finds its line however the file spells it.
fn canonical(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    let mut upper = false;
    for character in key.chars() {
        match character {
            '_' => upper = true,
            _ if upper => {
                text.push(character.to_ascii_uppercase());
                upper = false;
            }
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "---\n# comment\nspec:\n  hosts:\n  - a\n  -   b\n  tls:\n  - match:\n    - port: 443\n      sni_hosts:\n      - a\n";

    #[test]
    fn fields_and_elements_have_the_line_on_which_they_stand() {
        let positions = Positions::read(DOCUMENT);
        for (field, line) in [
            ("spec", 3),
            ("spec.hosts[1]", 6),
            ("spec.tls[0].match[0].port", 9),
            ("spec.tls[0].match[0].sniHosts[0]", 11),
        ] {
            assert_eq!(positions.line(field), Some(line), "{field}");
        }
    }

    #[test]
    fn a_missing_field_has_the_line_of_its_nearest_parent() {
        let positions = Positions::read(DOCUMENT);
        assert_eq!(positions.line("spec.tls[0].match[0].gateways[3]"), Some(8 + 1));
        assert_eq!(positions.line("metadata.name"), None);
    }
}
