//! The other end, for `portcullis get` and its kin: one request, blocking, with deadlines.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{ADMIN_ANSWER_BYTES_MAX, ADMIN_TIMEOUT};

/// Longest wait for a connection to a gateway, which is usually on the same machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the gateway's admin listens: `127.0.0.1:15000` or `unix:/run/portcullis/admin.sock`.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| "expected IP:PORT or unix:PATH".to_owned()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// The body of `GET path`.
///
/// # Errors
/// If there is no gateway, or it answers with anything but 200.
pub(crate) fn get(address: &Address, path: &str) -> io::Result<Vec<u8>> {
    match address {
        Address::Tcp(socket) => {
            let stream = TcpStream::connect_timeout(socket, CONNECT_TIMEOUT)?;
            stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
            stream.set_write_timeout(Some(ADMIN_TIMEOUT))?;
            exchange(stream, &socket.to_string(), path)
        }
        Address::Unix(file) => {
            let stream = UnixStream::connect(file)?;
            stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
            stream.set_write_timeout(Some(ADMIN_TIMEOUT))?;
            exchange(stream, "localhost", path)
        }
    }
}

/// HTTP/1.0, so that the body is what comes until the end.
fn exchange(mut stream: impl Read + Write, host: &str, path: &str) -> io::Result<Vec<u8>> {
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ADMIN_ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    body(&answer).map(<[u8]>::to_vec)
}

fn body(answer: &[u8]) -> io::Result<&[u8]> {
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut short");
    let end = memchr::memmem::find(answer, b"\r\n\r\n").ok_or_else(cut)?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let head = String::from_utf8_lossy(head);
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim());
    if length.filter_map(|value| value.parse::<usize>().ok()).any(|length| length != body.len()) {
        return Err(cut());
    }
    match head.split(' ').nth(1) {
        Some("200") => Ok(body),
        status => {
            let reason = String::from_utf8_lossy(body).trim().to_owned();
            Err(io::Error::other(format!("the answer is {}: {reason}", status.unwrap_or("malformed"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_good_answer_is_returned() {
        let answer = b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n[]";
        assert_eq!(body(answer).unwrap(), b"[]");
    }

    #[test]
    fn answers_that_are_cut_short_or_not_200_are_errors() {
        assert!(body(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n[]").is_err());
        assert!(body(b"HTTP/1.0 200 OK\r\n").is_err());
        let error = body(b"HTTP/1.0 403 Forbidden\r\n\r\nnot ours\n").unwrap_err();
        assert_eq!(error.to_string(), "the answer is 403: not ours");
    }

    #[test]
    fn addresses_are_tcp_or_unix() {
        assert_eq!("127.0.0.1:15000".parse::<Address>().unwrap().to_string(), "127.0.0.1:15000");
        assert_eq!("unix:/run/a.sock".parse::<Address>().unwrap().to_string(), "unix:/run/a.sock");
        assert!("localhost".parse::<Address>().is_err());
    }
}
