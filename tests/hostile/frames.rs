//! HTTP/2 by hand: frames that no library would send.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::client;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame (RFC 9113 section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that are not indexed, without Huffman (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A string with its length, an integer with a prefix of seven bits (RFC 7541 sections 5.1 and 5.2).
pub(crate) fn text(text: &[u8]) -> Vec<u8> {
    let mut length = Vec::new();
    match text.len() {
        short @ 0..127 => length.push(u8::try_from(short).expect("short")),
        long => {
            let mut rest = long - 127;
            length.push(127);
            while rest >= 128 {
                length.push(u8::try_from(rest % 128).expect("below 128") | 128);
                rest /= 128;
            }
            length.push(u8::try_from(rest).expect("below 128"));
        }
    }
    [length, text.to_vec()].concat()
}

/// The head of a good GET.
pub(crate) fn get(host: &str, path: &str) -> Vec<u8> {
    block(&[(b":method", b"GET"), (b":scheme", b"http"), (b":path", path.as_bytes()), (b":authority", host.as_bytes())])
}

/// A connection.
pub(crate) struct Raw<S = TcpStream> {
    socket: S,
    received: Vec<u8>,
}

/// A frame that was received.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// Connects, and opens with the preface and these settings.
    pub(crate) fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::over(client::connect(address), settings)
    }
}

impl<S: Read + Write> Raw<S> {
    /// Opens with the preface and these settings.
    pub(crate) fn over(socket: S, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self { socket, received: Vec::new() };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [name.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
            .collect();
        let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &payload)].concat();
        raw.socket.write_all(&opening).expect("the gateway reads");
        raw
    }

    /// Sends bytes; an error is that the gateway has had enough.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// The next frame; `None`: the gateway has closed.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.received.first_chunk::<9>() {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                if self.received.len() >= 9 + length {
                    let (kind, stream) = (head[3], u32::from_be_bytes([head[5] & 127, head[6], head[7], head[8]]));
                    let payload = self.received[9..9 + length].to_vec();
                    self.received.drain(..9 + length);
                    return Some(Frame { kind, stream, payload });
                }
            }
            let mut buffer = [0; 16 * 1024];
            match self.socket.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Reads to the end; the code of the GOAWAY that announced it, if there was one.
    pub(crate) fn end(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = frame.payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().expect("four bytes")));
            }
        }
        code
    }

    /// Sends a request, and reads to what ends it: its status, or `None` for a reset or the end of the connection.
    pub(crate) fn ask(&mut self, stream: u32, head: &[u8]) -> Option<u16> {
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, head)).ok()?;
        loop {
            let frame = self.next()?;
            match frame.kind {
                HEADERS if frame.stream == stream => return status(&frame.payload),
                RST_STREAM if frame.stream == stream => return None,
                _ => {}
            }
        }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }
}

/// The status at the front of a block, from the static table or as a literal with its name from there (RFC 7541).
fn status(block: &[u8]) -> Option<u16> {
    match block {
        [index @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)]),
        [0x48 | 0x08, length, rest @ ..] => {
            let digits = if length & 128 == 0 { rest.get(..3).map(<[u8]>::to_vec) } else { huffman(rest) };
            std::str::from_utf8(&digits?).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Three digits in Huffman's code (RFC 7541 appendix B): 0, 1 and 2 have five bits, the others six.
fn huffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bits = bytes.iter().take(3).flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    let mut digits = Vec::new();
    while digits.len() < 3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next()?;
        }
        if code <= 2 {
            digits.push(b'0' + u8::try_from(code).ok()?);
            continue;
        }
        code = code << 1 | bits.next()?;
        digits.push(b'3' + u8::try_from(code.checked_sub(0x19)?).ok()?);
    }
    Some(digits)
}
