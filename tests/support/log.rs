//! The access log, read as an operator's tools read it: by the positions of Istio's default text format.

use std::fs;
use std::path::{Path, PathBuf};

use super::wait_until;

/// The access log of a gateway.
pub(crate) struct Log {
    path: PathBuf,
}

/// One line, field by field, in the order of the format.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) start_time: String,
    /// `GET /path HTTP/1.1`, or `- - -`.
    pub(crate) request: String,
    pub(crate) code: u16,
    pub(crate) flags: String,
    pub(crate) details: String,
    pub(crate) termination: String,
    pub(crate) transport_failure: String,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) duration: String,
    pub(crate) service_time: String,
    pub(crate) forwarded_for: String,
    pub(crate) user_agent: String,
    pub(crate) request_id: String,
    pub(crate) authority: String,
    pub(crate) upstream_host: String,
    pub(crate) upstream_cluster: String,
    pub(crate) upstream_local: String,
    pub(crate) downstream_local: String,
    pub(crate) downstream_remote: String,
    pub(crate) server_name: String,
    pub(crate) route: String,
}

impl Log {
    /// The log in this file.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Every whole line so far.
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.text().split_inclusive('\n').filter(|line| line.ends_with('\n')).map(Line::parse).collect()
    }

    /// Everything so far, as written.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    /// Waits for a line.
    ///
    /// # Panics
    /// When the deadline has passed.
    #[track_caller]
    pub(crate) fn wait_for(&self, condition: impl Fn(&Line) -> bool) -> Line {
        wait_until("a line of the access log", || self.lines().into_iter().find(&condition))
    }

    /// Waits for the first line.
    #[track_caller]
    pub(crate) fn first(&self) -> Line {
        self.wait_for(|_| true)
    }

    /// Waits until there are `count` lines.
    #[track_caller]
    pub(crate) fn wait_for_count(&self, count: usize) -> Vec<Line> {
        wait_until(&format!("{count} lines of the access log"), || Some(self.lines()).filter(|all| all.len() >= count))
    }
}

impl Line {
    fn parse(line: &str) -> Self {
        let mut fields = Fields { rest: line.trim_end(), line };
        let parsed = Self {
            start_time: fields.next(),
            request: fields.next(),
            code: fields.number(),
            flags: fields.next(),
            details: fields.next(),
            termination: fields.next(),
            transport_failure: fields.next(),
            bytes_received: fields.number(),
            bytes_sent: fields.number(),
            duration: fields.next(),
            service_time: fields.next(),
            forwarded_for: fields.next(),
            user_agent: fields.next(),
            request_id: fields.next(),
            authority: fields.next(),
            upstream_host: fields.next(),
            upstream_cluster: fields.next(),
            upstream_local: fields.next(),
            downstream_local: fields.next(),
            downstream_remote: fields.next(),
            server_name: fields.next(),
            route: fields.next(),
        };
        assert_eq!(fields.rest, "", "more than 22 fields: {line:?}");
        parsed
    }
}

struct Fields<'a> {
    rest: &'a str,
    line: &'a str,
}

impl<'a> Fields<'a> {
    /// The next field, without its quotes or brackets.
    fn next(&mut self) -> String {
        let (field, rest) = match self.rest.as_bytes().first() {
            Some(b'"') => self.enclosed(quote_end(&self.rest[1..])),
            // Later fields may be IPv6 addresses with a port.
            Some(b'[') if self.rest == self.line.trim_end() => self.enclosed(self.rest[1..].find(']')),
            Some(_) => self.rest.split_at(self.rest.find(' ').unwrap_or(self.rest.len())),
            None => panic!("fewer than 22 fields: {:?}", self.line),
        };
        self.rest = rest.strip_prefix(' ').unwrap_or(rest);
        field.to_owned()
    }

    fn enclosed(&self, end: Option<usize>) -> (&'a str, &'a str) {
        let end = end.unwrap_or_else(|| panic!("an open quote or bracket: {:?}", self.line));
        (&self.rest[1..=end], &self.rest[end + 2..])
    }

    fn number<N: std::str::FromStr>(&mut self) -> N {
        let field = self.next();
        field.parse().unwrap_or_else(|_| panic!("{field:?} is no number: {:?}", self.line))
    }
}

fn quote_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}
