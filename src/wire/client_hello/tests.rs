//! What real clients send is read; what breaks a rule is refused, for that rule; no cut of the bytes matters.

use proptest::prelude::*;

use crate::wire::fuzz;

use super::samples::{CAPTURES, Sample, hex, message, record, records, server_name, signature_algorithms};
use super::*;

const BYTES_MAX: usize = 64 * 1024;

fn parse(bytes: &[u8]) -> Parsed {
    super::parse(bytes, BYTES_MAX)
}

fn hello(name: Option<&str>, encrypted: bool) -> Parsed {
    let server_name = name.map(|name| name.parse().expect("a valid name"));
    Parsed::Complete(ClientHello { server_name, encrypted })
}

/// Captures and samples, each with its answer.
fn legal() -> Vec<(&'static str, Vec<u8>, Parsed)> {
    let captures = CAPTURES.iter();
    let mut all: Vec<_> = captures.map(|one| (one.file, one.bytes.to_vec(), hello(one.name, one.encrypted))).collect();
    all.push(("small", Sample::small().record(), hello(Some("www.example.com"), false)));
    all.push(("chrome", Sample::chrome().record(), hello(Some("www.example.com"), true)));
    all
}

#[test]
fn hellos_of_real_clients_are_read() {
    for (source, bytes, expected) in legal() {
        assert_eq!(parse(&bytes), expected, "{source}");
    }
}

#[test]
fn the_hello_of_the_tls_library_in_use_is_read() {
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "api.example.com".try_into().expect("a name");
    let mut connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).expect("a connection");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("a hello");
    assert!(bytes.len() > 1184, "without the post-quantum share this would prove little");
    assert_eq!(parse(&bytes), hello(Some("api.example.com"), false));
}

#[test]
fn every_proper_prefix_is_incomplete() {
    for (source, bytes, _) in legal() {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::Incomplete, "{end} bytes of {source}");
        }
    }
}

#[test]
fn records_of_any_size_hold_the_same_hello() {
    for (source, bytes, expected) in legal() {
        let message = message(&bytes);
        for size in (1..64).chain([100, message.len() / 2, message.len() - 1, message.len()]) {
            assert_eq!(parse(&records(message, size)), expected, "{source} in records of {size} bytes");
        }
    }
}

#[test]
fn every_proper_prefix_of_a_hello_in_many_records_is_incomplete() {
    let message = Sample::small().message();
    for size in 1..message.len() {
        let bytes = records(&message, size);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::Incomplete, "{end} bytes in records of {size}");
        }
    }
}

#[test]
fn a_hello_in_one_record_is_not_copied() {
    let bytes = Sample::chrome().record();
    let message = records::message(&bytes, BYTES_MAX).expect("legal").expect("complete");
    assert!(matches!(message, std::borrow::Cow::Borrowed(_)));
}

#[test]
fn bytes_after_the_hello_do_not_matter() {
    for after in [hex("1403030001"), hex("1703030005"), hex("160301"), hex("00"), vec![0xff; 40]] {
        for size in [7, 4096] {
            let bytes = [records(&Sample::small().message(), size), after.clone()].concat();
            assert_eq!(parse(&bytes), hello(Some("www.example.com"), false), "{after:?}");
        }
    }
}

#[test]
fn a_name_is_not_owed() {
    assert_eq!(parse(&Sample::with_extensions(vec![]).record()), hello(None, false));
    assert_eq!(parse(&Sample { extensions: None, ..Sample::small() }.record()), hello(None, false));
}

#[test]
fn names_are_folded_and_lose_one_dot() {
    assert_eq!(parse(&Sample::with_name(b"WWW.Example.com.").record()), hello(Some("www.example.com"), false));
    assert_eq!(parse(&Sample::with_name(b"a_b.example").record()), hello(Some("a_b.example"), false));
}

#[test]
fn every_fault_is_refused_for_what_it_is() {
    for (fault, bytes, reject) in faults::all() {
        assert_eq!(parse(&bytes), Parsed::Rejected(reject), "{fault}");
    }
}

#[test]
fn what_is_refused_stays_refused_whatever_follows() {
    for (fault, bytes, _) in faults::all() {
        let mut rejected = false;
        for end in 0..=bytes.len() {
            match parse(&bytes[..end]) {
                Parsed::Incomplete => assert!(!rejected, "{fault}: {end} bytes"),
                Parsed::Rejected(_) => rejected = true,
                Parsed::Complete(hello) => panic!("{fault}: {end} bytes are {hello:?}"),
            }
        }
        for byte in [0x00, 0x16, 0xff] {
            let longer = [bytes.clone(), vec![byte; 64]].concat();
            assert!(matches!(parse(&longer), Parsed::Rejected(_)), "{fault}, then {byte:#x}");
        }
    }
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused_before_its_bytes_come() {
    let declared = |length: u32| [hex("16030140000100"), length.to_be_bytes()[2..].to_vec()].concat();
    // Four records of 2^14 bytes hold a message of 2^16 - 20 bytes, and have 20 bytes of headers.
    assert_eq!(parse(&declared(0xffff - 23)), Parsed::Incomplete);
    assert_eq!(parse(&declared(0xffff - 22)), Parsed::Rejected(Reject::TooLarge));
    assert_eq!(super::parse(&hex("1603010100"), 256), Parsed::Rejected(Reject::TooLarge));
    assert_eq!(super::parse(&hex("16030100fb"), 256), Parsed::Incomplete);
}

#[test]
fn tiny_records_are_cut_at_the_limit() {
    let message = Sample::small().message();
    let bytes = records(&message, 1);
    assert_eq!(super::parse(&bytes, bytes.len()), hello(Some("www.example.com"), false));
    assert_eq!(super::parse(&bytes, bytes.len() - 1), Parsed::Rejected(Reject::TooLarge));
}

#[test]
fn a_hello_over_several_full_records_is_read() {
    let padding = vec![(21, vec![0; 40_000])];
    let sample = Sample::with_extensions([Sample::small().extensions.expect("some"), padding].concat());
    assert_eq!(parse(&records(&sample.message(), 1 << 14)), hello(Some("www.example.com"), false));
}

#[test]
fn thousands_of_extensions_are_counted_once_each() {
    let mut extensions: Vec<_> = (0x1000..0x4000).map(|kind| (kind, vec![])).collect();
    assert_eq!(parse(&records(&Sample::with_extensions(extensions.clone()).message(), 1 << 14)), hello(None, false));
    extensions.push((0x1000, vec![]));
    let duplicate = records(&Sample::with_extensions(extensions).message(), 1 << 14);
    assert_eq!(parse(&duplicate), Parsed::Rejected(Reject::DuplicateExtension));
}

/// The name that the TLS library sees in the same bytes; `None`: it refuses them or sees none.
fn name_by_rustls(bytes: &[u8]) -> Option<String> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        }
    }
    None
}

/// Asserts that no other reader of these bytes can have seen another name.
fn assert_one_name(bytes: &[u8]) {
    let Parsed::Complete(hello) = parse(bytes) else { return };
    let ours = hello.server_name.as_ref().map(HostName::as_str);
    if let Some(theirs) = name_by_rustls(bytes) {
        assert_eq!(ours, Some(theirs.trim_end_matches('.')), "{bytes:02x?}");
    }
}

#[test]
fn the_tls_library_sees_the_same_names() {
    for (source, bytes, _) in legal() {
        let Parsed::Complete(hello) = parse(&bytes) else { panic!("{source}") };
        let ours = hello.server_name.map(|name| name.to_string());
        assert_eq!(name_by_rustls(&bytes), ours, "{source}");
    }
}

#[test]
fn one_changed_byte_outside_the_name_never_makes_another_name() {
    let capture = &CAPTURES[0];
    let name = capture.name.expect("a capture with a name");
    let start = capture.bytes.windows(name.len()).position(|part| part == name.as_bytes()).expect("the name");
    for position in (0..capture.bytes.len()).filter(|position| !(start..start + name.len()).contains(position)) {
        for byte in 0..=u8::MAX {
            let mut bytes = capture.bytes.to_vec();
            bytes[position] = byte;
            if let Parsed::Complete(hello) = parse(&bytes) {
                let found = hello.server_name.as_ref().map(HostName::as_str);
                assert!(found.is_none_or(|found| found == name), "{byte:#x} at {position} makes {found:?}");
            }
        }
    }
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let source = proptest::sample::select(legal()).prop_map(|(_, bytes, _)| bytes);
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6);
    (source, changes, 1usize..2000).prop_map(|(bytes, changes, size)| {
        let mut message = message(&bytes).to_vec();
        for (index, byte) in changes {
            let position = index.index(message.len());
            message[position] = byte;
        }
        records(&message, size)
    })
}

proptest! {
    #[test]
    fn mutated_hellos_keep_the_promises(bytes in mutated()) {
        fuzz::client_hello(&bytes);
        assert_one_name(&bytes);
    }

    #[test]
    fn any_bytes_keep_the_promises(bytes: Vec<u8>) {
        fuzz::client_hello(&bytes);
        fuzz::client_hello(&record(&bytes));
        fuzz::client_hello(&record(&[&[1, 0, 0][..], &[u8::try_from(bytes.len()).unwrap_or(0)], &bytes].concat()));
    }

    #[test]
    fn any_extensions_keep_the_promises(
        mut extensions in proptest::collection::vec((0u16..8, proptest::collection::vec(0u8..8, 0..12)), 0..8),
        names in proptest::collection::vec((0u8..3, proptest::collection::vec(b'`'..b'd', 0..4)), 1..3),
    ) {
        let names: Vec<_> = names.iter().map(|(kind, name)| (*kind, name.as_slice())).collect();
        extensions.push((0, server_name(&names)));
        extensions.push(signature_algorithms());
        let bytes = Sample::with_extensions(extensions).record();
        fuzz::client_hello(&bytes);
        assert_one_name(&bytes);
    }
}
