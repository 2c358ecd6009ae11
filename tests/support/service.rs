//! What upstreams do with a connection: [`http`], and byte streams for tunnels.

use std::io::{self, Read, Write};

use super::http::{Framing, Reader, framing, header, header_lists};
use super::pattern::{self, Checker};
use super::stream::Stream;
use super::upstream::Seen;

/// Sends back what arrives, to the end.
pub(crate) fn echo(stream: &mut Stream, _: &Seen) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.finish(),
            count => stream.write_all(&buffer[..count])?,
        }
        stream.flush()?;
    }
}

/// Reads the pattern to the client's end, then says how it arrived: shows that a half-closed client is answered.
pub(crate) fn verdict(stream: &mut Stream, _: &Seen) -> io::Result<()> {
    let verdict = check_rest(stream)?;
    stream.write_all(verdict.as_bytes())?;
    stream.finish()
}

/// Sends `count` bytes of the pattern and its end, and only then reads: shows that a half-closed server is heard out.
pub(crate) fn send(count: u64) -> impl Fn(&mut Stream, &Seen) -> io::Result<()> {
    move |stream, seen| {
        pattern::write(stream, count)?;
        stream.finish()?;
        record(stream, seen)
    }
}

/// Keeps every byte that arrives, as it arrived.
pub(crate) fn record(stream: &mut Stream, seen: &Seen) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => seen.update(|counts| counts.recorded.extend_from_slice(&buffer[..count])),
        }
    }
}

fn check_rest(stream: &mut Stream) -> io::Result<String> {
    let mut checker = Checker::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(checker.verdict()),
            count => checker.feed(&buffer[..count]),
        }
    }
}

/// A web site whose paths say how it answers.
///
/// | path | answer |
/// | --- | --- |
/// | `/bytes/N`, `/chunked/N`, `/until-close/N` | N bytes of the pattern, in that framing |
/// | `/truncated/N`, `/truncated-chunks/N`, `/vanish/N` | half of them, then a FIN without a proper end |
/// | `/gate/N` | the head and half of the bytes, the rest when the test opens the gate |
/// | `/silent` | nothing until the gate opens |
/// | `/close` | none: the connection ends |
/// | `/verdict` | how the pattern arrived in the request's body |
/// | `/status/S` | that status; 204 and 304 without a body |
/// | `/hop` | fields that concern only one hop |
/// | `/switch/HOW` | to a request for an upgrade: a 101, and what [`switch`] does then |
/// | `/bye` | as others, but with `Connection: close` |
/// | others | the request's head, and its body |
pub(crate) fn http(stream: &mut Stream, seen: &Seen) -> io::Result<()> {
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head()? {
        seen.update(|counts| counts.requests.push(head.clone()));
        let request = Request::parse(head);
        if let Some(how) = request.path.strip_prefix("/switch/").filter(|_| request.asks_for_upgrade()) {
            return switch(reader, how, seen);
        }
        if request.expects_continue() {
            reader.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            reader.stream().flush()?;
        }
        let body = request.read_body(&mut reader)?;
        match request.answer(reader.stream(), seen, &body)? {
            After::KeepAlive => {}
            After::Close => return reader.stream().finish(),
            After::Vanish => return reader.stream().truncate(),
        }
    }
    reader.stream().finish()
}

/// Answers a request with a body that neither ends nor pauses.
pub(crate) fn flood(stream: &mut Stream, _: &Seen) -> io::Result<()> {
    let mut reader = Reader::new(stream);
    reader.head()?;
    reader.stream().write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    loop {
        reader.stream().write_all(&[b'x'; 64 * 1024])?;
    }
}

/// Switches protocols and speaks the other one: `echo`; `early`, which greets in the same write; `gate`, which agrees
/// only when the gate opens; `send`, 100 KiB of the pattern and then an echo; `verdict`; `crash`; `other`, another
/// protocol than the one asked for.
fn switch(reader: Reader<&mut Stream>, how: &str, seen: &Seen) -> io::Result<()> {
    const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (stream, early) = reader.into_rest();
    if how == "gate" {
        seen.wait_at_gate();
    }
    match how {
        "early" => stream.write_all(format!("{AGREED}welcome").as_bytes())?,
        "other" => stream.write_all(AGREED.replace("websocket", "chess").as_bytes())?,
        _ => stream.write_all(AGREED.as_bytes())?,
    }
    stream.flush()?;
    match how {
        "verdict" => return verdict(stream, seen),
        "crash" => return stream.truncate(),
        "send" => pattern::write(stream, 100 * 1024)?,
        _ => stream.write_all(&early)?,
    }
    stream.flush()?;
    echo(stream, seen)
}

struct Request {
    head: String,
    method: String,
    path: String,
}

/// The body of a request: checked against the pattern where it may be large, else kept.
enum Body {
    Checked(String),
    Kept(Vec<u8>),
}

/// What becomes of the connection after an answer.
enum After {
    KeepAlive,
    Close,
    Vanish,
}

impl Request {
    fn parse(head: String) -> Self {
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        Self { head, method, path }
    }

    fn asks_for_upgrade(&self) -> bool {
        header_lists(&self.head, "connection", "upgrade") && header(&self.head, "upgrade").is_some()
    }

    fn expects_continue(&self) -> bool {
        header(&self.head, "expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    fn read_body(&self, reader: &mut Reader<&mut Stream>) -> io::Result<Body> {
        let framing = framing(&self.head).unwrap_or(Framing::Length(0));
        if self.path.starts_with("/verdict") {
            let mut checker = Checker::default();
            reader.body(framing, &mut |piece| checker.feed(piece))?;
            return Ok(Body::Checked(checker.verdict()));
        }
        let mut body = Vec::new();
        reader.body(framing, &mut |piece| body.extend_from_slice(piece))?;
        Ok(Body::Kept(body))
    }

    fn answer(&self, stream: &mut Stream, seen: &Seen, body: &Body) -> io::Result<After> {
        let (word, argument) = self.path.trim_start_matches('/').split_once('/').unwrap_or((&self.path[1..], ""));
        let count: u64 = argument.parse().unwrap_or(0);
        match word {
            "bytes" => self.fixed(stream, count),
            "chunked" => chunked(stream, count),
            "until-close" => until_close(stream, count),
            "truncated" => truncated(stream, &format!("Content-Length: {count}"), count),
            "vanish" => truncated(stream, "Connection: close", count),
            "truncated-chunks" => truncated_chunks(stream, count),
            "gate" => gated(stream, seen, count),
            "silent" => {
                seen.wait_at_gate();
                respond(stream, "200 OK", "", b"at last")
            }
            "close" => Ok(After::Close),
            "status" => status(stream, count),
            "hop" => respond(stream, "200 OK", HOP_FIELDS, b"hop"),
            "bye" => respond(stream, "200 OK", "Connection: close\r\n", b"bye").map(|_| After::Close),
            _ => self.repeat(stream, body),
        }
    }

    fn fixed(&self, stream: &mut Stream, count: u64) -> io::Result<After> {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n")?;
        if self.method != "HEAD" {
            pattern::write(stream, count)?;
        }
        stream.flush()?;
        Ok(After::KeepAlive)
    }

    fn repeat(&self, stream: &mut Stream, body: &Body) -> io::Result<After> {
        let text = match body {
            Body::Checked(verdict) => verdict.clone().into_bytes(),
            Body::Kept(bytes) => [self.head.as_bytes(), bytes].concat(),
        };
        let after = if header_lists(&self.head, "connection", "close") { After::Close } else { After::KeepAlive };
        respond(stream, "200 OK", "", &text).map(|_| after)
    }
}

const HOP_FIELDS: &str = "Connection: X-Secret\r\nX-Secret: of this hop\r\nKeep-Alive: timeout=5\r\nX-Public: yes\r\n";

fn respond(stream: &mut Stream, status: &str, fields: &str, body: &[u8]) -> io::Result<After> {
    write!(stream, "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    stream.flush()?;
    Ok(After::KeepAlive)
}

fn chunked(stream: &mut Stream, count: u64) -> io::Result<After> {
    // Neither a divisor of the gateway's buffers nor of the pattern's period.
    const CHUNK_BYTES: u64 = 10_007;
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut position = 0;
    while position < count {
        let end = count.min(position + CHUNK_BYTES);
        write!(stream, "{:x}\r\n", end - position)?;
        pattern::write_range(stream, position, end)?;
        stream.write_all(b"\r\n")?;
        position = end;
    }
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()?;
    Ok(After::KeepAlive)
}

fn until_close(stream: &mut Stream, count: u64) -> io::Result<After> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    pattern::write(stream, count)?;
    Ok(After::Close)
}

fn truncated(stream: &mut Stream, field: &str, count: u64) -> io::Result<After> {
    write!(stream, "HTTP/1.1 200 OK\r\n{field}\r\n\r\n")?;
    pattern::write(stream, count / 2)?;
    Ok(After::Vanish)
}

fn truncated_chunks(stream: &mut Stream, count: u64) -> io::Result<After> {
    write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{count:x}\r\n")?;
    pattern::write(stream, count)?;
    stream.write_all(b"\r\n")?;
    stream.flush()?;
    Ok(After::Vanish)
}

fn gated(stream: &mut Stream, seen: &Seen, count: u64) -> io::Result<After> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n")?;
    pattern::write(stream, count / 2)?;
    seen.wait_at_gate();
    pattern::write_range(stream, count / 2, count)?;
    Ok(After::KeepAlive)
}

fn status(stream: &mut Stream, status: u64) -> io::Result<After> {
    match status {
        // RFC 9110 section 15.3.5: never a body, and no Content-Length either.
        204 => stream.write_all(b"HTTP/1.1 204 No Content\r\nX-Kind: empty\r\n\r\n")?,
        // Section 15.4.5: the length of what was not sent.
        304 => stream.write_all(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n")?,
        other => return respond(stream, &format!("{other} Status"), "", b"as asked"),
    }
    stream.flush()?;
    Ok(After::KeepAlive)
}
