//! The plain part of YAML: block mappings and sequences of one-line scalars, in printable ASCII.
//!
//! Everything else is declined with `None`, and so is everything that is wrong: the other parser then says what. A line
//! that is declined declines the document, so what is read here never depends on what was guessed.
//!
//! YAML 1.2 chapters 6.1 (indentation), 7.3 (flow scalars) and 8.2 (block collections); scalars mean what serde_yaml takes
//! them for (the core schema of chapter 10.3).

use std::borrow::Cow;

use super::Node;

/// Deepest nesting; deeper documents are left to the other parser, which has its own limit.
const DEPTH_MAX: usize = 32;

/// Longest key. YAML ends simple keys at 1,024 characters.
const KEY_BYTES_MAX: usize = 256;

/// Most fields of a mapping: each new key is looked for among those before it. Larger ones are left to the other parser.
const FIELDS_MAX: usize = 256;

/// Reads a document that is one block mapping or sequence.
pub(super) fn parse(text: &str) -> Option<Node<'_>> {
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
        return None;
    }
    let mut lines = Lines { rest: text, current: None };
    lines.advance();
    if lines.current.is_some_and(|line| line.column == 0 && line.text == "---") {
        lines.advance();
    }
    let root = lines.current?;
    let node = lines.block(root.column, DEPTH_MAX)?;
    lines.current.is_none().then_some(node)
}

/// The lines that hold more than a comment.
struct Lines<'t> {
    rest: &'t str,
    current: Option<Line<'t>>,
}

/// A line, or what is left of it behind the dash of a sequence.
#[derive(Clone, Copy)]
struct Line<'t> {
    /// Where the text begins, counted from 0.
    column: usize,
    /// Without blanks at either end.
    text: &'t str,
}

impl<'t> Lines<'t> {
    /// Goes to the next line.
    fn advance(&mut self) {
        self.current = None;
        while !self.rest.is_empty() {
            let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.rest = rest;
            let text = line.trim_start_matches(' ');
            let column = line.len() - text.len();
            let text = text.trim_end_matches(' ');
            if !text.is_empty() && !text.starts_with('#') {
                self.current = Some(Line { column, text });
                return;
            }
        }
    }

    /// The collection whose first entry is the current line.
    fn block(&mut self, column: usize, depth: usize) -> Option<Node<'t>> {
        let depth = depth.checked_sub(1)?;
        match behind_dash(self.current?.text) {
            Some(_) => self.sequence(column, depth),
            None => self.mapping(column, depth),
        }
    }

    fn sequence(&mut self, column: usize, depth: usize) -> Option<Node<'t>> {
        let mut items = Vec::new();
        while let Some(line) = self.current {
            let behind = if line.column == column { behind_dash(line.text) } else { None };
            let Some(text) = behind else {
                // A line that is neither an entry nor the end of the list goes on with an entry before.
                let ends = line.column < column || line.column == column && !items.is_empty();
                if ends { break } else { return None }
            };
            let item = match content(text) {
                None => {
                    self.advance();
                    match self.current {
                        Some(next) if next.column > column => self.block(next.column, depth)?,
                        Some(_) | None => Node::Null,
                    }
                }
                Some(text) if behind_dash(text).is_some() || split_key(text).is_some() => {
                    let column = line.column + line.text.len() - text.len();
                    self.current = Some(Line { column, text });
                    self.block(column, depth)?
                }
                Some(text) => self.scalar(text)?,
            };
            items.push(item);
        }
        Some(Node::Sequence(items))
    }

    fn mapping(&mut self, column: usize, depth: usize) -> Option<Node<'t>> {
        let mut fields: Vec<(Node<'t>, Node<'t>)> = Vec::with_capacity(4);
        while let Some(line) = self.current.filter(|line| line.column >= column) {
            if line.column > column {
                return None;
            }
            let (key, text) = split_key(line.text)?;
            let key = scalar(key).filter(|key| key.as_str().is_some())?;
            if fields.len() == FIELDS_MAX || fields.iter().any(|(known, _)| *known == key) {
                return None;
            }
            let value = match content(text) {
                None => {
                    self.advance();
                    self.value_below(column, depth)?
                }
                Some(text) => self.scalar(text)?,
            };
            fields.push((key, value));
        }
        Some(Node::Mapping(fields))
    }

    /// The value of a key that ends its line. A list may stand in the column of its key.
    fn value_below(&mut self, column: usize, depth: usize) -> Option<Node<'t>> {
        match self.current {
            Some(next) if next.column > column => self.block(next.column, depth),
            Some(next) if next.column == column && behind_dash(next.text).is_some() => self.block(column, depth),
            Some(_) | None => Some(Node::Null),
        }
    }

    fn scalar(&mut self, text: &'t str) -> Option<Node<'t>> {
        let node = scalar(text)?;
        self.advance();
        Some(node)
    }
}

/// What follows the dash of an entry.
fn behind_dash(text: &str) -> Option<&str> {
    let behind = text.strip_prefix('-')?;
    (behind.is_empty() || behind.starts_with(' ')).then_some(behind)
}

/// What a line holds behind a dash or a key; `None`: nothing but a comment.
fn content(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(' ');
    (!text.is_empty() && !text.starts_with('#')).then_some(text)
}

/// `key: rest`. A key is a word: letters first, no blanks.
fn split_key(text: &str) -> Option<(&str, &str)> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/');
    let end = text.bytes().position(|byte| !is_word(&byte))?;
    let (key, rest) = text.split_at(end);
    let rest = rest.strip_prefix(':').filter(|rest| rest.is_empty() || rest.starts_with(' '))?;
    let is_key = key.starts_with(|first: char| first.is_ascii_alphabetic()) && key.len() <= KEY_BYTES_MAX;
    is_key.then_some((key, rest))
}

/// A scalar with nothing but a comment behind it.
fn scalar(text: &str) -> Option<Node<'_>> {
    match text.as_bytes().first()? {
        quote @ (b'"' | b'\'') => quoted(&text[1..], char::from(*quote)),
        b'a'..=b'z' | b'A'..=b'Z' | b'/' | b'_' => plain(text).map(word),
        b'0'..=b'9' => number(plain(text)?),
        b'[' if uncommented(text) == "[]" => Some(Node::Sequence(Vec::new())),
        b'{' if uncommented(text) == "{}" => Some(Node::Mapping(Vec::new())),
        _ => None,
    }
}

/// A text in quotes, without escapes.
fn quoted(text: &str, quote: char) -> Option<Node<'_>> {
    let (inner, behind) = text.split_once(quote)?;
    let is_last = behind.is_empty() || behind.starts_with(' ') && content(behind).is_none();
    (is_last && !inner.contains('\\')).then_some(Node::Text(Cow::Borrowed(inner)))
}

/// A scalar without quotes: `: ` would begin a value, and ` #` begins a comment.
fn plain(text: &str) -> Option<&str> {
    let text = uncommented(text);
    let bytes = text.as_bytes();
    let is_plain = |index: usize| match bytes[index] {
        b':' => bytes.get(index + 1).is_some_and(|next| *next != b' '),
        b'#' => false,
        _ => true,
    };
    (0..bytes.len()).all(is_plain).then_some(text)
}

fn uncommented(text: &str) -> &str {
    let mut marks = memchr::memchr_iter(b'#', text.as_bytes());
    let comment = marks.find(|mark| text[..*mark].ends_with(' '));
    comment.map_or(text, |comment| text[..comment].trim_end_matches(' '))
}

fn word(text: &str) -> Node<'_> {
    match text {
        "null" | "Null" | "NULL" => Node::Null,
        "true" | "True" | "TRUE" => Node::Bool(true),
        "false" | "False" | "FALSE" => Node::Bool(false),
        _ => Node::Text(Cow::Borrowed(text)),
    }
}

/// A decimal integer, or a text that begins with a digit and cannot be a number of any kind.
fn number(text: &str) -> Option<Node<'_>> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_decimal = text == "0" || !text.starts_with('0') && text.len() <= 18;
        return is_decimal.then(|| text.parse().ok().map(Node::Unsigned)).flatten();
    }
    let in_no_number = |byte: u8| !byte.is_ascii_hexdigit() && !b"xob+-._".contains(&byte);
    let is_text = text.bytes().any(in_no_number) || text.parse::<std::net::Ipv4Addr>().is_ok();
    is_text.then_some(Node::Text(Cow::Borrowed(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::config::yaml::assert_agreement;

    fn json(text: &str) -> Option<String> {
        parse(text).map(|node| serde_json::to_string(&node).expect("it has no odd keys"))
    }

    #[test]
    fn what_resources_are_written_in_is_read() {
        let text = "--- \n# a comment\nkind: ServiceEntry # another\nmetadata:\n  name: a-1\n  labels: {}\nspec:\n  hosts:\n  - \
                    a.example.com\n  - '*.b.example.com' \n\n  ports:\n  - number: 443\n    name: https\n  -\n    number: 80\n  \
                    endpoints:\n    - address: 127.0.0.1\n      ports: {}\n  exportTo: []\n  note: \"a # b: c\"\n  url: \
                    http://a/b:c?d\n  timeout: 10s\n  off:\n  on: true\n  none: ~x\n";
        let text = text.replace("  none: ~x\n", "");
        assert_agreement(&text);
        assert_eq!(
            json(&text).as_deref(),
            Some(
                "{\"kind\":\"ServiceEntry\",\"metadata\":{\"name\":\"a-1\",\"labels\":{}},\"spec\":{\"hosts\":[\"a.example.com\",\
                 \"*.b.example.com\"],\"ports\":[{\"number\":443,\"name\":\"https\"},{\"number\":80}],\"endpoints\":[{\"address\":\
                 \"127.0.0.1\",\"ports\":{}}],\"exportTo\":[],\"note\":\"a # b: c\",\"url\":\"http://a/b:c?d\",\"timeout\":\"10s\",\
                 \"off\":null,\"on\":true}}"
            )
        );
    }

    /// Every key is compared with those before it.
    #[test]
    fn mappings_of_many_fields_are_left_to_the_parser_that_looks_keys_up() {
        let mapping = |count: usize| (0..count).map(|number| format!("key-{number}: 1\n")).collect::<String>();
        assert!(parse(&mapping(FIELDS_MAX)).is_some());
        assert!(parse(&mapping(FIELDS_MAX + 1)).is_none());
        assert_agreement(&mapping(FIELDS_MAX + 1));
        // A quarter of a million comparisons are made, not ten thousand millions.
        let started = std::time::Instant::now();
        let many = mapping(100_000);
        assert!(parse(&many).is_none());
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn what_is_more_than_plain_or_wrong_is_declined() {
        for text in [
            "",
            "# only a comment\n",
            "a",
            "a: |\n  b\n",
            "a: >-\n  b\n",
            "a: &b c\n",
            "a: *b\n",
            "a: !t b\n",
            "a: b\n c\n",
            "a: b\n  c: d\n",
            "a: [b]\n",
            "a: {b: c}\n",
            "a: b: c\n",
            "a: b:\n",
            "a:\tb\n",
            "a: é\n",
            "a: \"b\\n\"\n",
            "a: 'b''c'\n",
            "a: 'b\n  c'\n",
            "a: 0x10\n",
            "a: 010\n",
            "a: 1.5\n",
            "a: 1e3\n",
            "a: -1\n",
            "a: .5\n",
            "a: ~\n",
            "a: 1\na: 2\n",
            "true: 1\n",
            "1: 2\n",
            "'a': 1\n",
            "? a\n",
            "<<: *b\n",
            "%YAML 1.2\n---\na: b\n",
            "--- a: b\n",
            "a: b\n---\nc: d\n",
            "a: b\n...\n",
            "- a\n b\n",
            "- a\nb: c\n",
            "a:\n  - b\n  c: d\n",
            "a: b#c\n",
            "a: 'b'c\n",
            "a: 99999999999999999999\n",
            "a: 1_000\n",
            "a: @b\n",
            "a: `b\n",
            "a: - b\n",
            "a:\n  b\n",
            "a: 1.2.3.4.5e\n",
        ] {
            assert_eq!(json(text), None, "{text:?}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        assert!(parse(&format!("{}a", "- ".repeat(DEPTH_MAX))).is_some());
        assert!(parse(&format!("{}a", "- ".repeat(DEPTH_MAX + 1))).is_none());
    }

    #[rustfmt::skip]
    const INDENTS: [&str; 10] = [
        "", " ", "  ", "   ", "    ", "- ", "  - ", "-", "-   ", "    - - ",
    ];
    #[rustfmt::skip]
    const KEYS: [&str; 10] = [
        "a:", "b: ", "c-d.e/f:  ", "name: ", "a: ", "null: ", "x", "", "a :", "1: ",
    ];
    #[rustfmt::skip]
    const VALUES: [&str; 71] = [
        "", "b", "443", "0", "007", "0x1f", "1.5", "1.2.3.4", "1.2.3", "10s", "1e3", "1e", "12:30:45", "2026-03-01",
        "true", "Null", "~", "'q'", "\"q\"", "'q' # c", "'q'#", "\"a\\tb\"", "b # c", "b #c", "b#c", "# c", "a b",
        "a: b", "a:b", "b:", "[]", "{}", "[] # c", "[a]", "{a: b}", "*.a", "&a b", "!t b", "|", ">", "- b", "-", "-1",
        "+1", ".5", ".inf", "nan", "e5", "a,b", "/a/{*}", "_a", "@a", "%a", "?a", "a\tb", "\u{e9}", "0b1", "0o7",
        "1_000", "18446744073709551616", "123456789012345678", "1234567890123456789", "---", "...", "a'b", "a\"b",
        "<<", "0.0.0.0", "1-2", "1+2", "0xg",
    ];
    #[rustfmt::skip]
    const ENDS: [&str; 9] = [
        "", "", "", "", " ", "\n", "\n# c", "\n---", "\n...",
    ];

    /// Lines that are nearly plain, put together as they come.
    fn any_document() -> impl Strategy<Value = String> {
        let line = (select(&INDENTS[..]), select(&KEYS[..]), select(&VALUES[..]), select(&ENDS[..]));
        let line = line.prop_map(|(indent, key, value, end)| format!("{indent}{key}{value}{end}\n"));
        prop::collection::vec(line, 1..6).prop_map(|lines| lines.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn both_parsers_read_the_same(text in any_document()) {
            assert_agreement(&text);
        }

        #[test]
        fn any_text_is_read_alike(text in "[a-c0-9 :#'\"\n.-]{0,40}") {
            assert_agreement(&text);
        }
    }
}
