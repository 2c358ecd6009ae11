//! Attacks by the first bytes of a TLS client.

use std::io::{Read, Write};

use crate::scene::{HOST, Scene, alert, answer_to_tls, half_close, listed};
use crate::support::client;
use crate::support::gateway::Gateway;
use crate::support::pattern;
use crate::support::resources;
use crate::support::service;

/// Fatal alerts (RFC 8446 section 6.2).
pub(crate) const UNEXPECTED_MESSAGE: Option<[u8; 2]> = Some([2, 10]);
pub(crate) const ILLEGAL_PARAMETER: Option<[u8; 2]> = Some([2, 47]);
pub(crate) const ACCESS_DENIED: Option<[u8; 2]> = Some([2, 49]);
pub(crate) const DECODE_ERROR: Option<[u8; 2]> = Some([2, 50]);
pub(crate) const PROTOCOL_VERSION: Option<[u8; 2]> = Some([2, 70]);
pub(crate) const UNRECOGNIZED_NAME: Option<[u8; 2]> = Some([2, 112]);

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const PADDING: u16 = 21;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// A ClientHello made field by field, so that any of them can be wrong.
pub(crate) struct Hello {
    pub(crate) extensions: Vec<(u16, Vec<u8>)>,
    record_version: [u8; 2],
    version: [u8; 2],
    ciphers: Vec<u8>,
}

impl Hello {
    /// A legal one without extensions.
    pub(crate) fn bare() -> Self {
        Self { extensions: Vec::new(), record_version: [3, 1], version: [3, 3], ciphers: vec![0x13, 1, 0x13, 2] }
    }

    /// A legal one for a name, legal or not.
    pub(crate) fn named(name: &[u8]) -> Self {
        Self::bare().with(SERVER_NAME, &name_list(&[name]))
    }

    /// Adds an extension.
    pub(crate) fn with(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions.push((kind, body.to_vec()));
        self
    }

    /// The handshake message.
    fn message(&self) -> Vec<u8> {
        let extensions: Vec<u8> =
            self.extensions.iter().flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &sized(body)].concat()).collect();
        let body = [&self.version[..], &[7; 32], &[0], &sized(&self.ciphers), &[1, 0], &sized(&extensions)].concat();
        let length = u32::try_from(body.len()).expect("tests stay below 4 GiB").to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    /// The bytes on the wire, in as few records as it takes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.message().chunks(1 << 14).flat_map(|piece| record(22, self.record_version, piece)).collect()
    }
}

fn record(kind: u8, version: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[kind], &version[..], &sized(payload)].concat()
}

/// A vector behind its length of two bytes.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("a vector fits its length").to_be_bytes()[..], bytes].concat()
}

/// The body of a server_name extension (RFC 6066 section 3).
fn name_list(names: &[&[u8]]) -> Vec<u8> {
    sized(&names.iter().flat_map(|name| [&[0], &sized(name)[..]].concat()).collect::<Vec<_>>())
}

/// Sends a hello that must be refused with this alert and reason.
#[track_caller]
fn assert_refused(scene: &Scene, what: &str, bytes: &[u8], expected: Option<[u8; 2]>, reason: &str) {
    let answer = answer_to_tls(&scene.gateway, bytes);
    assert_eq!(alert(&answer), expected, "{what}: {answer:?}");
    let line = scene.next_line(what);
    let flag = if expected == UNRECOGNIZED_NAME { "UH" } else { "DPE" };
    assert_eq!((line.flags.as_str(), line.termination.as_str()), (flag, reason), "{what}");
    assert_eq!(scene.connections(), 0, "{what}");
}

/// Sends bytes that must reach the upstream as they are, over one new connection.
#[track_caller]
pub(crate) fn assert_passes(scene: &Scene, what: &str, bytes: &[u8]) {
    let before = scene.upstream.seen().counts();
    let mut socket = client::connect(scene.gateway.tls());
    socket.write_all(bytes).expect("the gateway reads");
    half_close(&socket);
    assert_eq!(client::read_to_end(&mut socket), b"", "{what}");
    let after = scene.upstream.seen().wait_for("the end of the tunnel", |counts| counts.ended > before.ended);
    assert_eq!(after.connections, before.connections + 1, "{what}");
    assert!(after.recorded[before.recorded.len()..] == *bytes, "{what}: other bytes arrived");
    let line = scene.next_line(what);
    assert_eq!((line.flags.as_str(), line.bytes_received), ("-", bytes.len() as u64), "{what}");
}

#[test]
fn a_hello_cut_into_records_of_any_size_passes_as_it_was_cut() {
    let scene = Scene::tunnel();
    let hello = client::hello(HOST);
    for bytes in [1, 2, 3, 4, 5, 100, hello.len() - 6] {
        assert_passes(&scene, &format!("records of {bytes}"), &client::into_records(&hello, bytes));
    }
}

#[test]
fn an_empty_record_before_or_inside_the_hello_is_refused() {
    let scene = Scene::tunnel();
    let (hello, empty) = (client::into_records(&client::hello(HOST), 50), record(22, [3, 1], b""));
    assert_refused(&scene, "first", &[&empty[..], &hello].concat(), UNEXPECTED_MESSAGE, "empty_record");
    let inside = [&hello[..55], &empty, &hello[55..]].concat();
    assert_refused(&scene, "inside", &inside, UNEXPECTED_MESSAGE, "empty_record");
}

#[test]
fn another_record_type_inside_the_hello_is_refused() {
    let scene = Scene::tunnel();
    let hello = client::into_records(&client::hello(HOST), 50);
    let inside = [&hello[..55], &record(21, [3, 1], &[1, 0]), &hello[55..]].concat();
    assert_refused(&scene, "an alert", &inside, UNEXPECTED_MESSAGE, "interleaved_record");
}

#[test]
fn a_length_that_no_hello_may_have_is_refused_before_it_arrives() {
    let scene = Scene::tunnel();
    // The gateway answers though the client has sent these few bytes and waits.
    let declared = [22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    assert_refused(&scene, "16 MiB", &declared, DECODE_ERROR, "hello_too_large");
    assert_refused(&scene, "a long record", &[22, 3, 1, 0x40, 1], DECODE_ERROR, "record_too_long");
    assert_refused(&scene, "64 KiB", &[22, 3, 1, 0x40, 0, 1, 1, 0, 0], DECODE_ERROR, "hello_too_large");
}

#[test]
fn a_hello_just_below_the_limit_passes_and_one_above_does_not() {
    let scene = Scene::tunnel();
    let padded = |bytes| Hello::named(HOST.as_bytes()).with(PADDING, &vec![0; bytes]).bytes();
    let above = padded(65_450);
    assert!(above.len() > 64 * 1024, "{}", above.len());
    assert_refused(&scene, "above", &above, DECODE_ERROR, "hello_too_large");
    assert_passes(&scene, "below", &padded(65_400));
}

#[test]
fn a_post_quantum_hello_passes() {
    let scene = Scene::tunnel();
    let hello = client::hello(HOST);
    assert!(hello.len() > 1_200, "X25519MLKEM768 alone takes 1,216 bytes");
    assert_passes(&scene, "X25519MLKEM768", &hello);
}

#[test]
fn a_hello_without_a_name_is_refused_as_such() {
    let scene = Scene::tunnel();
    assert_refused(&scene, "no extension", &Hello::bare().bytes(), UNRECOGNIZED_NAME, "no_sni");
}

#[test]
fn two_names_are_refused_whichever_is_listed() {
    let scene = Scene::tunnel();
    let (good, evil) = (HOST.as_bytes(), b"evil.example".as_slice());
    for names in [[good, evil], [evil, good], [good, good]] {
        let twice = Hello::bare().with(SERVER_NAME, &name_list(&names)).bytes();
        assert_refused(&scene, "two entries", &twice, ILLEGAL_PARAMETER, "bad_server_name_list");
        let twice = Hello::named(names[0]).with(SERVER_NAME, &name_list(&[names[1]])).bytes();
        assert_refused(&scene, "two extensions", &twice, ILLEGAL_PARAMETER, "duplicate_extension");
    }
    let none = Hello::bare().with(SERVER_NAME, &[0, 0]).bytes();
    assert_refused(&scene, "an empty list", &none, ILLEGAL_PARAMETER, "bad_server_name_list");
    let other = [&[1], &sized(good)[..]].concat();
    let other = Hello::bare().with(SERVER_NAME, &sized(&other)).bytes();
    assert_refused(&scene, "another name type", &other, ILLEGAL_PARAMETER, "bad_server_name_list");
}

#[test]
fn lengths_that_lie_are_refused_wherever_they_stand() {
    let scene = Scene::tunnel();
    let good = Hello::named(HOST.as_bytes()).with(ALPN, &[0, 3, 2, b'h', b'2']).bytes();
    // Offsets of the low byte of each length: message, session, ciphers, compression, extensions, extension, list,
    // name.
    for offset in [8, 43, 45, 50, 53, 57, 59, 62] {
        for change in [1_u8, 255] {
            let mut lying = good.clone();
            lying[offset] = lying[offset].wrapping_add(change);
            let answer = answer_to_tls_finished(&scene.gateway, &lying);
            assert!(alert(&answer).is_some() || answer.is_empty(), "{offset}: {answer:?}");
            let line = scene.next_line(&format!("a lie at {offset}"));
            assert!(matches!(line.flags.as_str(), "DPE" | "DC"), "{offset}: {line:?}");
        }
    }
    let trailing = [&good[..], b"x"].concat();
    let mut trailing = trailing;
    trailing[4] += 1;
    assert_refused(&scene, "a byte behind the message", &trailing, DECODE_ERROR, "hello_length");
    assert_eq!(scene.connections(), 0);
}

/// Sends bytes and their end: a hello that claims to be longer than it is must not wait for its deadline.
fn answer_to_tls_finished(gateway: &Gateway, bytes: &[u8]) -> Vec<u8> {
    let mut socket = client::connect(gateway.tls());
    socket.write_all(bytes).expect("the gateway reads");
    half_close(&socket);
    client::read_to_end(&mut socket)
}

#[test]
fn grease_and_encrypted_hellos_pass_by_their_outer_name_only() {
    let scene = Scene::tunnel();
    let grease = |hello: Hello| hello.with(0x0a0a, &[]).with(ENCRYPTED_CLIENT_HELLO, &[0; 200]).with(0xfafa, &[0]);
    let refused = grease(Hello::named(b"public.example")).bytes();
    assert_refused(&scene, "an outer name that is not listed", &refused, UNRECOGNIZED_NAME, "host_not_listed");
    let nameless = grease(Hello::bare()).bytes();
    assert_refused(&scene, "no outer name", &nameless, UNRECOGNIZED_NAME, "no_sni");
    assert_passes(&scene, "a listed outer name", &grease(Hello::named(HOST.as_bytes())).bytes());
}

/// A hello of a listed name that offers Encrypted ClientHello, or pretends to (RFC 9849 section 6.2).
fn offering_ech() -> Vec<u8> {
    Hello::named(HOST.as_bytes()).with(ENCRYPTED_CLIENT_HELLO, &[0; 200]).bytes()
}

#[test]
fn an_encrypted_hello_is_noted_unless_the_operator_does_not_want_to_know() {
    for (setting, noted) in [("", "ech_offered"), ("  ech: log\n", "ech_offered"), ("  ech: allow\n", "-")] {
        let scene = Scene::with(Gateway::builder().tls_setting(setting), service::record);
        assert_passes(&scene, setting, &offering_ech());
        let line = scene.gateway.log().first();
        assert_eq!((line.flags.as_str(), line.termination.as_str()), ("-", noted), "{setting}");
        assert_eq!(scene.gateway.metric("portcullis_ech_hellos_total"), Some(1.0), "{setting}");
        assert_passes(&scene, "a hello without the offer", &Hello::named(HOST.as_bytes()).bytes());
        assert_eq!(scene.gateway.log().wait_for_count(2)[1].termination, "-");
    }
}

#[test]
fn an_encrypted_hello_is_refused_where_the_operator_says_so() {
    for mode in ["", "  outboundTrafficPolicy: {mode: ALLOW_ANY}\n"] {
        let scene = Scene::with(Gateway::builder().tls_setting("  ech: deny\n").mesh(mode), service::record);
        let answer = answer_to_tls(&scene.gateway, &offering_ech());
        assert_eq!(alert(&answer), ACCESS_DENIED, "{answer:?}");
        let line = scene.next_line("an encrypted hello");
        assert_eq!((line.termination.as_str(), line.server_name.as_str()), ("ech_not_allowed", HOST));
        assert_eq!(scene.connections(), 0);
        let counted = "portcullis_denied_total{reason=\"ech_not_allowed\",rule=\"\"}";
        assert_eq!(scene.gateway.metric(counted), Some(1.0));
        assert_passes(&scene, "a hello without the offer", &Hello::named(HOST.as_bytes()).bytes());
    }
}

#[test]
fn hellos_of_ssl_2_and_3_are_refused() {
    let scene = Scene::tunnel();
    let ssl2 = [0x80, 0x2e, 1, 0, 2, 0, 21, 0, 0, 0, 16];
    assert_refused(&scene, "SSLv2", &ssl2, None, "ssl2_hello");
    let mut ssl3 = Hello::named(HOST.as_bytes());
    ssl3.record_version = [3, 0];
    assert_refused(&scene, "SSLv3 record", &ssl3.bytes(), PROTOCOL_VERSION, "tls_version");
    (ssl3.record_version, ssl3.version) = ([3, 1], [3, 0]);
    assert_refused(&scene, "SSLv3 hello", &ssl3.bytes(), PROTOCOL_VERSION, "tls_version");
}

#[test]
fn what_is_not_tls_on_the_tls_listener_is_refused() {
    let scene = Scene::tunnel();
    assert_refused(&scene, "zeros", &[0; 64], None, "not_tls");
    assert_refused(&scene, "an alert", &[21, 3, 1, 0, 2, 2, 40], None, "not_tls");
    assert_refused(&scene, "a server hello", &[22, 3, 3, 0, 4, 2, 0, 0, 0], UNEXPECTED_MESSAGE, "not_client_hello");
    let ssh = String::from_utf8(answer_to_tls(&scene.gateway, b"SSH-2.0-OpenSSH_9.6\r\n")).expect("text");
    assert!(ssh.starts_with("HTTP/1.1 400 "), "{ssh}");
    assert_eq!(scene.next_line("SSH").flags, "DPE");
    // Port 443 of the host is TLS: plain HTTP must not slip to it.
    let http = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let http = String::from_utf8(answer_to_tls(&scene.gateway, http.as_bytes())).expect("text");
    assert!(http.starts_with("HTTP/1.1 502 "), "{http}");
    assert_eq!(scene.next_line("HTTP").upstream_cluster, "BlackHoleCluster");
    assert_eq!(scene.connections(), 0);
}

#[test]
fn tls_on_the_http_listener_is_judged_by_the_port_of_that_listener() {
    let scene = Scene::tunnel();
    let mut socket = client::connect(scene.gateway.http());
    socket.write_all(&client::hello(HOST)).expect("the gateway reads");
    assert_eq!(alert(&client::read_to_end(&mut socket)), UNRECOGNIZED_NAME);
    assert_eq!(scene.next_line("a hello").flags, "UH");
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_second_hello_with_another_name_goes_to_the_first_ones_host() {
    // As after a HelloRetryRequest; the server must then refuse a changed name (RFC 8446 section 4.1.2).
    let scene = Scene::tunnel();
    let both = [Hello::named(HOST.as_bytes()).bytes(), Hello::named(b"evil.example").bytes()].concat();
    assert_passes(&scene, "two hellos", &both);
    assert_eq!(scene.connections(), 1);
}

#[test]
fn a_list_of_thousands_of_empty_protocols_costs_nothing() {
    let scene = Scene::tunnel();
    let bomb = Hello::named(HOST.as_bytes()).with(ALPN, &sized(&vec![0; 60_000])).bytes();
    assert_passes(&scene, "ALPN", &bomb);
    assert!(scene.gateway.peak_memory_kib() < 256 * 1024);
}

#[test]
fn thousands_of_extensions_are_read_in_linear_time() {
    let scene = Scene::tunnel();
    let many = (0..14_000).fold(Hello::named(HOST.as_bytes()), |hello, kind| hello.with(0x1000 + kind, &[]));
    assert_passes(&scene, "14,000 extensions", &many.bytes());
    let twice = many.with(0x1000, &[]).bytes();
    let answer = answer_to_tls(&scene.gateway, &twice);
    assert_eq!(alert(&answer), ILLEGAL_PARAMETER);
}

#[test]
fn data_right_behind_the_hello_arrives_once_and_in_order() {
    let scene = Scene::tunnel();
    let early = [client::hello(HOST), pattern::bytes(300_000)].concat();
    assert_passes(&scene, "early data", &early);
}

#[test]
fn a_client_that_ends_inside_its_hello_leaves_one_line_and_no_connection() {
    let scene = Scene::tunnel();
    let hello = client::hello(HOST);
    let answer = answer_to_tls_finished(&scene.gateway, &hello[..hello.len() - 1]);
    assert_eq!(answer, b"");
    assert_eq!(scene.next_line("an early FIN").flags, "DC");
    assert_eq!(scene.connections(), 0);
}

#[test]
fn a_forged_name_leads_to_the_host_of_that_name_whatever_address_it_was_sent_to() {
    let scene = Scene::tunnel();
    // Two hosts, two upstreams: the name alone decides, and only by the gateway's own resolution.
    let other = Scene::tunnel();
    let more = resources::tls_entry("other", "other.example.com", other.upstream.port());
    let more = more.replace("  resolution: DNS\n", "  resolution: STATIC\n  endpoints: [{address: 127.0.0.1}]\n");
    scene.gateway.reload(&(listed(scene.upstream.port()) + &more));
    assert_passes(&scene, "the listed host", &Hello::named(HOST.as_bytes()).bytes());
    let mut socket = client::connect(scene.gateway.tls());
    socket.write_all(&Hello::named(b"OTHER.example.com").bytes()).expect("the gateway reads");
    other.upstream.seen().wait_for("the other connection", |counts| counts.connections == 1);
    half_close(&socket);
    assert_eq!(socket.read(&mut [0; 1]).expect("a clean end"), 0);
    assert_eq!(scene.connections(), 1);
}
