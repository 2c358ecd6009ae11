//! As much HTTP/1.1 as the two ends of a test need: heads, and bodies in each framing.

use std::io::{self, Read};

const READ_BYTES: usize = 64 * 1024;

/// Reads messages from a stream.
pub(crate) struct Reader<S> {
    stream: S,
    /// Read, but not taken yet.
    buffer: Vec<u8>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; 0: none.
    Length(u64),
    /// Until the last chunk.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

impl<S: Read> Reader<S> {
    /// Starts with nothing read.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The stream, for writing.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream, and what was read of it and not taken.
    pub(crate) fn into_rest(self) -> (S, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// A head with its empty line; `None` when the connection ends before the first byte.
    ///
    /// # Errors
    /// `UnexpectedEof` when it ends in the middle.
    pub(crate) fn head(&mut self) -> io::Result<Option<String>> {
        let length = loop {
            if let Some(start) = find(&self.buffer, b"\r\n\r\n") {
                break start + 4;
            }
            if self.fill()? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        Ok(Some(text(self.buffer.drain(..length).collect())))
    }

    /// Hands a body to `sink`, piece by piece.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends before the body does.
    pub(crate) fn body(&mut self, framing: Framing, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        match framing {
            Framing::Length(length) => self.take(length, sink),
            Framing::Chunked => self.chunks(sink),
            Framing::UntilClose => self.rest(sink),
        }
    }

    fn chunks(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16).map_err(|_| bad(&format!("chunk size {line:?}")))?;
            self.take(length, sink)?;
            if length == 0 {
                while !self.line()?.is_empty() {}
                return Ok(());
            }
            if !self.line()?.is_empty() {
                return Err(bad("a chunk without its line end"));
            }
        }
    }

    fn rest(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        loop {
            sink(&self.buffer);
            self.buffer.clear();
            if self.fill()? == 0 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, mut length: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        while length > 0 {
            if self.buffer.is_empty() && self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(self.buffer.len());
            sink(&self.buffer[..count]);
            self.buffer.drain(..count);
            length -= count as u64;
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(length) = find(&self.buffer, b"\r\n") {
                let line = self.buffer.drain(..length + 2).take(length).collect();
                return Ok(text(line));
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let read = self.stream.read(&mut self.buffer[start..]);
        self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        read
    }
}

/// The value of the first field called `name`, if there is one.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Whether the first field called `name` has `token` in its list.
pub(crate) fn header_lists(head: &str, name: &str, token: &str) -> bool {
    header(head, name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

/// The framing that a head announces; `None`: it says nothing.
pub(crate) fn framing(head: &str) -> Option<Framing> {
    if header_lists(head, "transfer-encoding", "chunked") {
        return Some(Framing::Chunked);
    }
    header(head, "content-length").map(|length| Framing::Length(length.parse().expect("a length is a number")))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("heads of tests are ASCII")
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
