//! The ClientHello message itself: its vectors, its extensions, its name.

use smallvec::SmallVec;

use crate::route::host::HostName;

use super::{ClientHello, Reject};

/// RFC 6066 section 3.
const SERVER_NAME: u16 = 0;
/// RFC 9849 section 5.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Reads a complete handshake message, of which the header is known to be right.
pub(super) fn read(message: &[u8]) -> Result<ClientHello, Reject> {
    let mut reader = Reader { rest: message };
    reader.take(4)?;
    check_version(reader.number()?)?;
    reader.take(32)?;
    let session = reader.vector8()?;
    let cipher_suites = reader.vector16()?;
    let compression_methods = reader.vector8()?;
    let sound = session.len() <= 32 && !cipher_suites.is_empty() && cipher_suites.len().is_multiple_of(2);
    if !sound || compression_methods.is_empty() {
        return Err(Reject::Length);
    }
    // Before TLS 1.3 a hello may end here (RFC 5246 section 7.4.1.2).
    let extensions = if reader.rest.is_empty() { &[] } else { reader.vector16()? };
    reader.end()?;
    read_extensions(extensions)
}

/// Any version above SSLv3: what a hello asks for is negotiated elsewhere, and newer ones are answered with an older.
fn check_version(version: u16) -> Result<(), Reject> {
    if matches!(version, 0x0301..=0x03ff) { Ok(()) } else { Err(Reject::Version) }
}

fn read_extensions(extensions: &[u8]) -> Result<ClientHello, Reject> {
    let mut reader = Reader { rest: extensions };
    let mut seen = Seen::default();
    let mut hello = ClientHello { server_name: None, encrypted: false };
    while !reader.rest.is_empty() {
        let kind = reader.number()?;
        let data = reader.vector16()?;
        seen.insert(kind)?;
        match kind {
            SERVER_NAME => hello.server_name = Some(read_server_name(data)?),
            ENCRYPTED_CLIENT_HELLO => hello.encrypted = true,
            _ => {}
        }
    }
    seen.check()?;
    Ok(hello)
}

/// RFC 6066 section 3: a list, of which only one form was ever defined. Names of another type are refused with it,
/// since their syntax is not known, and so are two names, of which the server might take the other.
fn read_server_name(extension: &[u8]) -> Result<HostName, Reject> {
    const HOST_NAME: u8 = 0;
    let mut reader = Reader { rest: extension };
    let mut list = Reader { rest: reader.vector16()? };
    reader.end()?;
    match list.rest {
        [HOST_NAME, ..] => list.take(1)?,
        _ => return Err(Reject::NameList),
    };
    let name = list.vector16()?;
    if !list.rest.is_empty() {
        return Err(Reject::NameList);
    }
    HostName::parse(name).map_err(Reject::Name)
}

/// The types of the extensions so far. The low ones, which are most, are bits; the others are sorted at the end, so
/// that sixteen thousand of them cost no more than their sort.
#[derive(Default)]
struct Seen {
    low: u64,
    others: SmallVec<[u16; 16]>,
}

impl Seen {
    fn insert(&mut self, kind: u16) -> Result<(), Reject> {
        if kind >= 64 {
            self.others.push(kind);
            return Ok(());
        }
        let bit = 1 << kind;
        if self.low & bit != 0 {
            return Err(Reject::DuplicateExtension);
        }
        self.low |= bit;
        Ok(())
    }

    fn check(mut self) -> Result<(), Reject> {
        self.others.sort_unstable();
        let duplicate = self.others.windows(2).any(|pair| pair[0] == pair[1]);
        if duplicate { Err(Reject::DuplicateExtension) } else { Ok(()) }
    }
}

/// Takes numbers and vectors from the front of bytes (RFC 8446 section 3). What is too short is [`Reject::Length`].
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Reject> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Reject::Length)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, Reject> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(Reject::Length)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*number))
    }

    fn vector8(&mut self) -> Result<&'a [u8], Reject> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Result<&'a [u8], Reject> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    fn end(&self) -> Result<(), Reject> {
        if self.rest.is_empty() { Ok(()) } else { Err(Reject::Length) }
    }
}
