//! `accessLogFormat`: a line of the operator's own making, compiled once into a list of pieces.
//!
//! The syntax is Envoy's: `%OPERATOR%`, `%OPERATOR(arguments)%`, `%OPERATOR(arguments):LENGTH%`, and `%%` for a percent
//! sign. What is not known is refused by name, so that no column is silently empty.

mod json;
mod operator;
mod parse;

use super::record::Record;
use super::{escape, field};

use operator::{Operator, Value};

pub use parse::FormatError;

/// A compiled format.
#[derive(Clone, Debug)]
pub struct Format {
    pieces: Vec<Piece>,
    /// Fields of the answer that it shows, in lower case.
    answer_fields: Vec<Box<str>>,
}

/// A part of a line.
#[derive(Clone, Debug)]
enum Piece {
    /// As it stands.
    Literal(Box<[u8]>),
    /// A value that ends at the next space.
    Bare(Slot),
    /// A value between quotes.
    Quoted(Slot),
    /// A JSON value with its own type.
    Json(Slot),
    /// A value within a JSON string.
    JsonPart(Slot),
}

/// An operator, and the most bytes that it may fill if it is a text.
#[derive(Clone, Debug)]
struct Slot {
    operator: Operator,
    length: Option<usize>,
}

impl Format {
    /// Compiles a line of text; a line end is added if it has none.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn text(format: &str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut in_quotes = false;
        for part in parse::parse(format)? {
            pieces.push(match part {
                parse::Part::Literal(literal) => {
                    in_quotes ^= literal.matches('"').count() % 2 == 1;
                    Piece::Literal(literal.into_bytes().into())
                }
                parse::Part::Slot(slot) if in_quotes => Piece::Quoted(slot),
                parse::Part::Slot(slot) => Piece::Bare(slot),
            });
        }
        let ends = matches!(pieces.last(), Some(Piece::Literal(literal)) if literal.ends_with(b"\n"));
        if !ends {
            pieces.push(Piece::Literal(b"\n".as_slice().into()));
        }
        Ok(Self::new(pieces))
    }

    /// Compiles a JSON object whose texts hold operators. A text that is one operator becomes a value of its own type.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn json(format: &str) -> Result<Self, FormatError> {
        json::compile(format).map(Self::new)
    }

    fn new(pieces: Vec<Piece>) -> Self {
        let mut answer_fields = Vec::new();
        for piece in &pieces {
            match piece {
                Piece::Literal(_) => {}
                Piece::Bare(slot) | Piece::Quoted(slot) | Piece::Json(slot) | Piece::JsonPart(slot) => {
                    answer_fields.extend(slot.operator.answer_fields().map(Into::into));
                }
            }
        }
        Self { pieces, answer_fields }
    }

    /// The fields of answers that must be kept until the line is written, in lower case.
    #[must_use]
    pub fn answer_fields(&self) -> &[Box<str>] {
        &self.answer_fields
    }

    /// Appends the line of `record`.
    pub fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => out.extend_from_slice(literal),
                Piece::Bare(slot) => text(slot.value(record), escape::bare, out),
                Piece::Quoted(slot) => text(slot.value(record), escape::quoted, out),
                Piece::Json(slot) => json_value(slot.value(record), out),
                Piece::JsonPart(slot) => text(slot.value(record), escape::json_part, out),
            }
        }
    }
}

impl Slot {
    fn value<'a>(&'a self, record: &'a Record<'a>) -> Value<'a> {
        match (self.operator.value(record), self.length) {
            (Value::Text(text), Some(length)) => Value::Text(&text[..text.len().min(length)]),
            (value, _) => value,
        }
    }
}

/// Absent values, and empty texts, are a dash: the fields behind them must not move up.
fn text(value: Value<'_>, escape: fn(&[u8], &mut Vec<u8>), out: &mut Vec<u8>) {
    match value {
        Value::Absent | Value::Text([]) => out.push(b'-'),
        Value::Text(text) => escape(text, out),
        Value::Number(number) => field::number(number, out),
        Value::Time(time) => field::time(time, out),
        Value::Address(address) => field::address(address, out),
        Value::Ip(address) => field::ip(address, out),
    }
}

fn json_value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Absent | Value::Text([]) => out.extend_from_slice(b"null"),
        Value::Text(text) => escape::json(text, out),
        Value::Number(number) => field::number(number, out),
        Value::Time(_) | Value::Address(_) | Value::Ip(_) => {
            out.push(b'"');
            text(value, escape::json_part, out);
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::record::HttpRecord;
    use super::*;

    const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
        %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
        \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
        %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
        \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
        %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

    fn record(http: Option<HttpRecord<'static>>) -> Record<'static> {
        Record {
            start: UNIX_EPOCH + Duration::from_millis(1_772_352_930_042),
            duration: Duration::from_millis(12),
            http,
            flags: "-",
            termination: None,
            transport_failure: None,
            bytes_received: 3,
            bytes_sent: 5_120,
            upstream: Some("192.0.2.9:443".parse().unwrap()),
            cluster: Some("outbound|443||a.example"),
            service: None,
            upstream_local: None,
            downstream_local: "[2001:db8::1]:80".parse().unwrap(),
            downstream_remote: "127.0.0.1:40000".parse().unwrap(),
            server_name: None,
            route: Some("default"),
            originated_tls: true,
            audited: None,
        }
    }

    fn request() -> Record<'static> {
        record(Some(HttpRecord {
            method: b"GET",
            path: b"/a\"b",
            protocol: "HTTP/1.1",
            status: 200,
            details: "via_upstream",
            upstream_service_time: Some(Duration::from_millis(11)),
            user_agent: Some(b"curl/8 \"x\""),
            authority: Some(b"a.example"),
            ..HttpRecord::default()
        }))
    }

    fn line(format: &Format, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        format.write(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn text_line(format: &str) -> String {
        line(&Format::text(format).expect(format), &request())
    }

    #[test]
    fn istios_default_written_out_is_the_default() {
        let format = Format::text(DEFAULT).unwrap();
        for record in [request(), record(None)] {
            let mut expected = Vec::new();
            super::super::access_log::format(&record, crate::snapshot::AccessLog::Text, &mut expected);
            assert_eq!(line(&format, &record).as_bytes(), expected);
        }
    }

    #[test]
    fn a_client_cannot_add_a_field_or_a_line() {
        assert_eq!(text_line("%REQ(USER-AGENT)% \"%REQ(USER-AGENT)%\""), "curl/8\\x20\\\"x\\\" \"curl/8 \\\"x\\\"\"\n");
    }

    #[test]
    fn parts_of_addresses_lengths_and_percent_signs_are_understood() {
        assert_eq!(
            text_line("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_PORT% 100%%\n"),
            "2001:db8::1 40000 - 100%\n"
        );
        assert_eq!(text_line("%REQ(user-agent):4% %REQ(x-none?:METHOD)%"), "curl GET\n");
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (format, named) in [
            ("%NOTHING%", "NOTHING"),
            ("%REQ%", "REQ"),
            ("%REQ(a b)%", "REQ"),
            ("%REQ(:status)%", "REQ"),
            ("%DURATION(x)%", "DURATION"),
            ("%START_TIME(%s)%", "START_TIME"),
            ("%DURATION:3%", "DURATION"),
            ("%REQ(x):y%", "REQ"),
            ("50% of %DURATION%", "of"),
            ("%DURATION", "%"),
        ] {
            let error = Format::text(format).expect_err(format).to_string();
            assert!(error.contains(named), "{format}: {error}");
        }
    }

    #[test]
    fn a_json_format_keeps_the_types_of_values() {
        let format = r#"{"code": "%RESPONSE_CODE%", "line": "%REQ(:METHOD)% %REQ(:PATH)%", "none": "%REQ(x)%",
            "nested": {"list": ["%UPSTREAM_HOST%", 1, true, null]}, "time": "%START_TIME%"}"#;
        let line = line(&Format::json(format).unwrap(), &request());
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "code": 200, "line": "GET /a\"b", "none": null, "time": "2026-03-01T08:15:30.042Z",
            "nested": {"list": ["192.0.2.9:443", 1, true, null]},
        });
        assert_eq!(read, expected);
        for format in ["[]", "{", "\"%DURATION%\"", "{\"a\": \"%NOTHING%\"}"] {
            Format::json(format).expect_err(format);
        }
    }

    #[test]
    fn fields_of_answers_are_announced() {
        let format = Format::text("%RESP(X-A?x-b)% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%").unwrap();
        assert_eq!(format.answer_fields(), ["x-a".into(), "x-b".into()]);
        assert_eq!(line(&format, &request()), "- 11\n");
    }
}
