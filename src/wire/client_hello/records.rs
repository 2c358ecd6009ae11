//! The record layer under a ClientHello (RFC 8446 section 5.1): where the message lies, in one record or in many.
//!
//! Every fault is reported as soon as its bytes are there, and in the order of the bytes, so that the answer does not
//! depend on how the network has cut them.

use std::borrow::Cow;

use super::Reject;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Bytes of a record's header: type, version, length.
const HEADER_BYTES: usize = 5;

/// Most bytes in a plaintext record.
const PAYLOAD_BYTES_MAX: usize = 1 << 14;

/// Bytes of a handshake message's header: type and length.
const MESSAGE_HEADER_BYTES: usize = 4;

/// The handshake message at the beginning of a connection, its header included; `None`: not complete yet.
///
/// The number of records is bounded with the bytes: none is empty, so each takes six or more of `bytes_max`.
pub(super) fn message(bytes: &[u8], bytes_max: usize) -> Result<Option<Cow<'_, [u8]>>, Reject> {
    check_first_byte(bytes)?;
    let mut header = MessageHeader::default();
    let mut records = Records { rest: bytes };
    let (mut taken, mut gathered) = (0, 0);
    while let Some(record) = records.next()? {
        taken += HEADER_BYTES + record.length;
        if taken > bytes_max {
            return Err(Reject::TooLarge);
        }
        header.extend(record.payload);
        let total = header.total()?;
        if let Some(total) = total {
            check_total(total, gathered + record.length, bytes_max)?;
        }
        if record.payload.len() < record.length {
            return Ok(None);
        }
        gathered += record.length;
        if total == Some(gathered) {
            return collect(bytes, gathered).map(Some);
        }
    }
    Ok(None)
}

/// Tells what is no TLS from TLS that is wrong. An SSLv2 hello has a length with the high bit set, then type 1 and
/// a version (RFC 5246 appendix E.2).
fn check_first_byte(bytes: &[u8]) -> Result<(), Reject> {
    match bytes {
        [] | [HANDSHAKE, ..] => Ok(()),
        [0x80..=0xff, _, CLIENT_HELLO, 0, 2, ..] | [0x80..=0xff, _, CLIENT_HELLO, 3, ..] => Err(Reject::Ssl2),
        _ => Err(Reject::NotTls),
    }
}

/// The declared length must leave room for the headers of the records it needs, and the records must not hold more
/// than the message: what follows a ClientHello begins a record of its own (RFC 8446 section 5.1).
fn check_total(total: usize, gathered: usize, bytes_max: usize) -> Result<(), Reject> {
    let records_min = total.div_ceil(PAYLOAD_BYTES_MAX);
    if total + records_min * HEADER_BYTES > bytes_max {
        return Err(Reject::TooLarge);
    }
    if gathered > total { Err(Reject::Length) } else { Ok(()) }
}

/// The message in place if the first record holds it, else the records' payloads put together.
fn collect(bytes: &[u8], total: usize) -> Result<Cow<'_, [u8]>, Reject> {
    let mut records = Records { rest: bytes };
    let mut message = Vec::new();
    while let Some(record) = records.next()? {
        if record.length == total {
            return Ok(Cow::Borrowed(record.payload));
        }
        if message.is_empty() {
            message.reserve_exact(total);
        }
        message.extend_from_slice(record.payload);
        if message.len() == total {
            break;
        }
    }
    Ok(Cow::Owned(message))
}

/// The first bytes of the message, which may be spread over records themselves.
#[derive(Default)]
struct MessageHeader {
    bytes: [u8; MESSAGE_HEADER_BYTES],
    length: usize,
}

impl MessageHeader {
    fn extend(&mut self, payload: &[u8]) {
        let missing = &mut self.bytes[self.length..];
        let length = missing.len().min(payload.len());
        missing[..length].copy_from_slice(&payload[..length]);
        self.length += length;
    }

    /// Bytes of the whole message; `None`: the header is not complete yet.
    fn total(&self) -> Result<Option<usize>, Reject> {
        let [kind, high, middle, low] = self.bytes;
        if self.length > 0 && kind != CLIENT_HELLO {
            return Err(Reject::NotClientHello);
        }
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        Ok((self.length == MESSAGE_HEADER_BYTES).then_some(MESSAGE_HEADER_BYTES + length))
    }
}

/// Handshake records from the front of a connection.
struct Records<'a> {
    rest: &'a [u8],
}

struct Record<'a> {
    /// The declared length.
    length: usize,
    /// What is there of it.
    payload: &'a [u8],
}

impl<'a> Records<'a> {
    /// The next record, whole or in part; `None`: its header is not complete.
    fn next(&mut self) -> Result<Option<Record<'a>>, Reject> {
        check_header(self.rest)?;
        let Some((header, rest)) = self.rest.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        self.rest = rest;
        Ok(Some(Record { length, payload }))
    }
}

/// Judges as much of a record header as is there. The version is a relic that middleboxes pinned to TLS 1.0 (RFC 8446
/// section 5.1), but an SSLv3 client says so here, and no other major version exists.
fn check_header(header: &[u8]) -> Result<(), Reject> {
    match header {
        [kind, ..] if *kind != HANDSHAKE => Err(Reject::Interleaved),
        [_, major, ..] if *major != 3 => Err(Reject::Version),
        [_, _, 0, ..] => Err(Reject::Version),
        [_, _, _, high, ..] if usize::from(*high) > PAYLOAD_BYTES_MAX >> 8 => Err(Reject::RecordTooLong),
        [_, _, _, 0x40, 1..=0xff, ..] => Err(Reject::RecordTooLong),
        [_, _, _, 0, 0, ..] => Err(Reject::EmptyRecord),
        _ => Ok(()),
    }
}
