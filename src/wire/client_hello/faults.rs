//! Hellos with one fault each.

use super::samples::{Sample, hex, record, server_name, vector16};
use super::{NameError, Reject};

/// What is wrong, the bytes, and the fault that is reported.
pub(super) type Fault = (&'static str, Vec<u8>, Reject);

/// All of them.
pub(super) fn all() -> Vec<Fault> {
    [of_records(), of_messages(), of_extensions(), of_names()].concat()
}

fn of_records() -> Vec<Fault> {
    let message = Sample::small().message();
    let spliced = |at: usize, between: &str| [record(&message[..at]), hex(between), record(&message[at..])].concat();
    vec![
        ("plain HTTP", b"GET / HTTP/1.1\r\n".to_vec(), Reject::NotTls),
        ("SSH", b"SSH-2.0-x\r\n".to_vec(), Reject::NotTls),
        ("a TLS alert", hex("15030100020228"), Reject::NotTls),
        ("a high first byte", hex("80"), Reject::NotTls),
        ("an SSLv2 hello", hex("802e0100020015"), Reject::Ssl2),
        ("an SSLv2 hello for TLS", hex("802e01030100"), Reject::Ssl2),
        ("an SSLv3 record", hex("1603000030"), Reject::Version),
        ("a DTLS record", hex("16feff"), Reject::Version),
        ("an empty first record", hex("1603010000"), Reject::EmptyRecord),
        ("an empty record inside", spliced(5, "1603010000"), Reject::EmptyRecord),
        ("a record of 2^14 + 1 bytes", hex("1603014001"), Reject::RecordTooLong),
        ("a record of 65535 bytes", hex("160301ffff"), Reject::RecordTooLong),
        ("an alert inside", spliced(5, "15030100020100"), Reject::Interleaved),
        ("a change of ciphers inside", spliced(5, "140303000101"), Reject::Interleaved),
        ("application data inside", spliced(2, "17"), Reject::Interleaved),
        ("a ServerHello", record(&hex("02000001aa")), Reject::NotClientHello),
        ("a declared length of 2^24 - 1", record(&hex("01ffffff")), Reject::TooLarge),
        ("a message shorter than its record", record(&[&message[..], &[0]].concat()), Reject::Length),
    ]
}

fn of_messages() -> Vec<Fault> {
    let small = Sample::small;
    vec![
        ("an SSLv3 hello", Sample { version: 0x0300, ..small() }.record(), Reject::Version),
        ("a TLS 2 hello", Sample { version: 0x0400, ..small() }.record(), Reject::Version),
        ("no room for a version", record(&hex("0100000103")), Reject::Length),
        ("an empty message", record(&hex("01000000")), Reject::Length),
        ("a session of 33 bytes", Sample { session: vec![0; 33], ..small() }.record(), Reject::Length),
        ("no cipher suites", Sample { cipher_suites: vec![], ..small() }.record(), Reject::Length),
        ("an odd suite", Sample { cipher_suites: vec![1, 2, 3], ..small() }.record(), Reject::Length),
        ("no compression", Sample { compression_methods: vec![], ..small() }.record(), Reject::Length),
        ("a byte after the message", Sample { trailing: vec![0], ..small() }.record(), Reject::Length),
    ]
}

fn of_extensions() -> Vec<Fault> {
    let extension = |data: Vec<u8>| Sample::with_extensions(vec![(0, data)]).record();
    let twice = |kind: u16| Sample::with_extensions(vec![(kind, vec![]), (1, vec![]), (kind, vec![])]).record();
    let name = server_name(&[(0, b"a.example")]);
    let names = server_name(&[(0, b"a.example"), (0, b"b.example")]);
    vec![
        ("half a length of extensions", without_extensions(&[0]), Reject::Length),
        ("extensions that are too long", without_extensions(&[0, 5, 0, 1, 0, 0]), Reject::Length),
        ("extensions that are too short", without_extensions(&[0, 3, 0, 1, 0, 0]), Reject::Length),
        ("half an extension", without_extensions(&[0, 3, 0, 1, 0]), Reject::Length),
        (
            "two names in two extensions",
            Sample::with_extensions(vec![(0, name.clone()), (0, name)]).record(),
            Reject::DuplicateExtension,
        ),
        ("a low extension twice", twice(16), Reject::DuplicateExtension),
        ("a high extension twice", twice(0xff01), Reject::DuplicateExtension),
        ("GREASE twice", twice(0x0a0a), Reject::DuplicateExtension),
        ("ECH twice", twice(0xfe0d), Reject::DuplicateExtension),
        ("an empty server_name", extension(vec![]), Reject::Length),
        ("an empty list of names", extension(vec![0, 0]), Reject::NameList),
        ("two names", extension(names), Reject::NameList),
        ("a name and another type", extension(server_name(&[(0, b"a.example"), (1, b"b")])), Reject::NameList),
        ("a name of another type", extension(server_name(&[(1, b"a.example")])), Reject::NameList),
        ("a byte after the name", extension(vector16(&hex("0000016100"))), Reject::NameList),
        ("a byte after the list", extension(hex("00040000016100")), Reject::Length),
        ("a name longer than the list", extension(vector16(&hex("00000261"))), Reject::Length),
        ("a list longer than the extension", extension(hex("000500000161")), Reject::Length),
    ]
}

fn of_names() -> Vec<Fault> {
    let name = |name: &[u8]| Sample::with_name(name).record();
    let fault = Reject::Name;
    vec![
        ("no name", name(b""), fault(NameError::Empty)),
        ("a lone dot", name(b"."), fault(NameError::Empty)),
        ("two dots at the end", name(b"a.example.."), fault(NameError::EmptyLabel)),
        ("a dot at the start", name(b".a.example"), fault(NameError::EmptyLabel)),
        ("a label of 64 bytes", name(&[b'a'; 64]), fault(NameError::LabelTooLong)),
        ("a name of 254 bytes", name(&b"ab.".repeat(85)), fault(NameError::TooLong)),
        ("a NUL", name(b"a.example\0.b.example"), fault(NameError::ForbiddenByte)),
        ("a wildcard", name(b"*.example"), fault(NameError::ForbiddenByte)),
        ("a port", name(b"a.example:443"), fault(NameError::ForbiddenByte)),
        ("a path", name(b"a.example/b"), fault(NameError::ForbiddenByte)),
        ("an escape", name(b"a%2eexample"), fault(NameError::ForbiddenByte)),
        ("a space", name(b"a.example "), fault(NameError::ForbiddenByte)),
        ("UTF-8", name("\u{e4}.example".as_bytes()), fault(NameError::ForbiddenByte)),
        ("a hyphen first", name(b"-a.example"), fault(NameError::HyphenAtEdge)),
        ("an IPv4 address", name(b"192.0.2.1"), fault(NameError::Numeric)),
        ("an address as a number", name(b"2130706433"), fault(NameError::Numeric)),
        ("an IPv6 address", name(b"2001:db8::1"), fault(NameError::ForbiddenByte)),
        ("an IPv6 literal", name(b"[::1]"), fault(NameError::ForbiddenByte)),
    ]
}

/// A hello with these bytes where its extensions would be.
fn without_extensions(instead: &[u8]) -> Vec<u8> {
    Sample { extensions: None, trailing: instead.to_vec(), ..Sample::small() }.record()
}
