//! Hellos for tests: captures, and a builder that can get every length wrong.

/// A capture under `tests/data` (its README tells where each comes from) and what it says.
pub(super) struct Capture {
    pub(super) file: &'static str,
    pub(super) bytes: &'static [u8],
    pub(super) name: Option<&'static str>,
    pub(super) encrypted: bool,
}

macro_rules! capture {
    ($file:literal, $name:expr, $encrypted:literal) => {
        Capture {
            file: $file,
            bytes: include_bytes!(concat!("../../../tests/data/", $file)),
            name: $name,
            encrypted: $encrypted,
        }
    };
}

pub(super) const CAPTURES: [Capture; 9] = [
    capture!("openssl_tls13.bin", Some("www.example.com"), false),
    capture!("openssl_tls12.bin", Some("www.example.com"), false),
    capture!("openssl_no_name.bin", None, false),
    capture!("curl.bin", Some("www.example.com"), false),
    capture!("wget_gnutls.bin", Some("localhost"), false),
    capture!("node.bin", Some("www.example.com"), false),
    capture!("java.bin", Some("www.example.com"), false),
    capture!("rustls_mlkem.bin", Some("www.example.com"), false),
    capture!("rustls_ech_grease.bin", Some("www.example.com"), true),
];

/// A hello, field by field.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) version: u16,
    pub(super) session: Vec<u8>,
    pub(super) cipher_suites: Vec<u8>,
    pub(super) compression_methods: Vec<u8>,
    /// `None`: the hello ends before the vector.
    pub(super) extensions: Option<Vec<(u16, Vec<u8>)>>,
    /// Bytes after the extensions, inside the message.
    pub(super) trailing: Vec<u8>,
}

impl Sample {
    /// The least that a TLS library accepts, for `www.example.com`.
    pub(super) fn small() -> Self {
        Self {
            version: 0x0303,
            session: vec![],
            cipher_suites: vec![0x13, 0x01],
            compression_methods: vec![0],
            extensions: Some(vec![(0, server_name(&[(0, b"www.example.com")])), signature_algorithms()]),
            trailing: vec![],
        }
    }

    pub(super) fn with_extensions(extensions: Vec<(u16, Vec<u8>)>) -> Self {
        Self { extensions: Some(extensions), ..Self::small() }
    }

    pub(super) fn with_name(name: &[u8]) -> Self {
        Self::with_extensions(vec![(0, server_name(&[(0, name)]))])
    }

    /// What Chrome sends since version 131, composed from public descriptions of its fingerprint (JA4
    /// `t13d1516h2_8daaf6152771_d8a2da3f94cd`): GREASE (RFC 8701) as cipher suite, group, key share, version and as
    /// first and last extension; X25519MLKEM768; ALPS (0x44cd); certificate compression; ECH GREASE (RFC 9849
    /// section 6.2); and the padding (RFC 7685) of its shorter hellos.
    pub(super) fn chrome() -> Self {
        let suites = "0a0a130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035";
        let key_shares = [entry(0x2a2a, &[0]), entry(0x11ec, &[7; 1216]), entry(0x001d, &[9; 32])].concat();
        let ech = [&hex("0000010001aa0020")[..], &[5; 32], &hex("00d0"), &[6; 208]].concat();
        let extensions = vec![
            (0x1a1a, vec![]),
            (0x002d, hex("0101")),
            (0x0033, vector16(&key_shares)),
            (0x0010, hex("000c02683208687474702f312e31")),
            (0xfe0d, ech),
            (0x0017, vec![]),
            (0x44cd, hex("0003026832")),
            (0x0000, server_name(&[(0, b"www.example.com")])),
            (0x000b, hex("0100")),
            (0x000a, hex("000a2a2a11ec001d00170018")),
            (0x002b, hex("063a3a03040303")),
            (0xff01, hex("00")),
            (0x0023, vec![]),
            (0x0012, vec![]),
            (0x0005, hex("0100000000")),
            (0x000d, hex("001004030804040105030805050108060601")),
            (0x001b, hex("020002")),
            (0x7a7a, hex("00")),
            (0x0015, vec![0; 24]),
        ];
        Self { session: vec![8; 32], cipher_suites: hex(suites), ..Self::with_extensions(extensions) }
    }

    /// The handshake message.
    pub(super) fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend_from_slice(&[0x52; 32]);
        body.extend(vector8(&self.session));
        body.extend(vector16(&self.cipher_suites));
        body.extend(vector8(&self.compression_methods));
        if let Some(extensions) = &self.extensions {
            let entries: Vec<_> = extensions.iter().map(|(kind, data)| entry(*kind, data)).collect();
            body.extend(vector16(&entries.concat()));
        }
        body.extend_from_slice(&self.trailing);
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    /// The message in one record.
    pub(super) fn record(&self) -> Vec<u8> {
        record(&self.message())
    }
}

/// An extension without which no library goes on to look at the name.
pub(super) fn signature_algorithms() -> (u16, Vec<u8>) {
    (13, hex("00020403"))
}

/// One handshake record.
pub(super) fn record(payload: &[u8]) -> Vec<u8> {
    [&hex("160301")[..], &vector16(payload)].concat()
}

/// The message in records of `size` bytes.
pub(super) fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(record).collect()
}

/// The handshake message in the only record of a capture.
pub(super) fn message(record: &[u8]) -> &[u8] {
    &record[5..]
}

/// A server_name extension with entries of any type.
pub(super) fn server_name(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().flat_map(|(kind, name)| [&[*kind][..], &vector16(name)].concat()).collect();
    vector16(&entries)
}

pub(super) fn vector8(data: &[u8]) -> Vec<u8> {
    [&[u8::try_from(data.len()).unwrap()][..], data].concat()
}

pub(super) fn vector16(data: &[u8]) -> Vec<u8> {
    [&u16::try_from(data.len()).unwrap().to_be_bytes()[..], data].concat()
}

fn entry(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(data)].concat()
}

pub(super) fn hex(digits: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(byte).collect()
}
