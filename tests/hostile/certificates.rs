//! Attacks by an upstream's TLS: old versions, weak suites, revoked certificates, and connections that outlive trust.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose,
    NameConstraints, SanType,
};
use rustix::process::Signal;
use rustls::ServerConnection;
use tempfile::TempDir;

use crate::scene::HOST;
use crate::support::certificates::{Authority, Identity};
use crate::support::gateway::{Gateway, Port};
use crate::support::resources;
use crate::support::service;
use crate::support::upstream::Upstream;
use crate::support::wait_until;

/// `openssl s_server`, which still speaks what nobody should.
struct Openssl {
    child: Child,
    port: Port,
    _directory: TempDir,
}

impl Openssl {
    /// Starts it; `None`: not installed, or this build does not know the options.
    fn start(identity: &Identity, options: &[&str]) -> Option<Self> {
        let (port, directory) = (Port::reserve(), tempfile::tempdir().expect("a writable temporary folder"));
        let write = |name, content: &str| fs::write(directory.path().join(name), content).expect("the folder is ours");
        write("cert.pem", &identity.certificate_pem);
        write("key.pem", &identity.key_pem);
        let mut child = Command::new("openssl")
            .current_dir(directory.path())
            .args(["s_server", "-www", "-cert", "cert.pem", "-key", "key.pem", "-naccept", "8", "-accept"])
            .arg(format!("127.0.0.1:{}", port.number()))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // It says ACCEPT when it listens, and ends when it does not know its options.
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let listens = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("ACCEPT"));
        // Its further output is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { child, port, _directory: directory };
        listens.then_some(server)
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn originating(port: u16, authority: &Authority) -> Gateway {
    let yaml = resources::originating_entry("api", HOST, port);
    Gateway::builder().host(HOST).trust(authority).resources(yaml).start()
}

#[test]
fn old_versions_and_weak_suites_are_refused_with_a_reason() {
    let authority = Authority::new();
    let identity = authority.issue(HOST);
    let weak: [(&str, &[&str]); 5] = [
        ("TLS 1.0", &["-tls1", "-cipher", "ALL:@SECLEVEL=0"]),
        ("TLS 1.1", &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]),
        ("no encryption", &["-tls1_2", "-cipher", "NULL:eNULL:@SECLEVEL=0"]),
        ("no certificate", &["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"]),
        ("CBC with SHA-1", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"]),
    ];
    for (what, options) in weak {
        let Some(server) = Openssl::start(&identity, options) else {
            eprintln!("NOT TESTED: openssl s_server does not serve {what} here");
            continue;
        };
        let gateway = originating(server.port.number(), &authority);
        assert_eq!(gateway.client().get(HOST, "/").status, 503, "{what}");
        let line = gateway.log().first();
        assert_eq!(line.flags, "UF", "{what}: {line:?}");
        assert!(line.transport_failure.starts_with("TLS_error"), "{what}: {line:?}");
    }
    let Some(server) = Openssl::start(&identity, &["-tls1_2"]) else { return };
    let gateway = originating(server.port.number(), &authority);
    assert_eq!(gateway.client().get(HOST, "/").status, 200, "the instrument works with what is good");
}

/// Certificates that nearly fit [`HOST`], all of them from an authority that is trusted.
fn nearly_good(authority: &Authority) -> Vec<(String, Identity)> {
    let names = [
        "*",
        "*.com",
        "a*.example.com",
        "*i.example.com",
        "*.api.example.com",
        "example.com",
        ".example.com",
        "api.example.com.evil.example",
        "xapi.example.com",
    ];
    let mut cases: Vec<_> = names.iter().map(|name| ((*name).to_owned(), authority.issue(name))).collect();
    let address = |parameters: &mut CertificateParams| {
        parameters.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    };
    let for_clients = |parameters: &mut CertificateParams| {
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let ca = |parameters: &mut CertificateParams| {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    };
    let constrained = |parameters: &mut CertificateParams| {
        ca(parameters);
        let permitted_subtrees = vec![GeneralSubtree::DnsName("other.example".to_owned())];
        parameters.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    };
    cases.push(("an address only".to_owned(), authority.issue_with(HOST, address)));
    cases.push(("a certificate for clients".to_owned(), authority.issue_with(HOST, for_clients)));
    cases.push(("signed by what is no authority".to_owned(), authority.issue_through(|_| {}, HOST)));
    cases.push(("signed by an authority for other names".to_owned(), authority.issue_through(constrained, HOST)));
    cases
}

#[test]
fn certificates_that_nearly_fit_are_refused_and_get_not_one_byte_of_the_request() {
    let authority = Authority::new();
    for (what, identity) in nearly_good(&authority) {
        let upstream = Upstream::tls(&identity, service::http);
        let gateway = originating(upstream.port(), &authority);
        assert_eq!(gateway.client().post(HOST, "/", b"secret").status, 503, "{what}");
        let line = gateway.log().first();
        assert_eq!(line.flags, "UF", "{what}: {line:?}");
        assert!(line.transport_failure.starts_with("TLS_error"), "{what}: {line:?}");
        assert_eq!(upstream.seen().counts().bytes_received, 0, "{what}");
    }
    let between = |parameters: &mut CertificateParams| parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for good in [authority.issue("*.example.com"), authority.issue_through(between, HOST)] {
        let upstream = Upstream::tls(&good, service::http);
        assert_eq!(
            originating(upstream.port(), &authority).client().get(HOST, "/").status,
            200,
            "the instrument works"
        );
    }
}

/// Does a handshake, takes one request, and says what belongs to the answer and its end on the wire.
fn sealed(socket: &mut TcpStream, identity: &Identity, answer: &[u8], ends: bool) -> io::Result<Vec<u8>> {
    let mut connection = ServerConnection::new(Arc::new(identity.server())).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(socket)?;
    }
    let mut request = [0; 1024];
    while connection.reader().read(&mut request).is_err() {
        connection.complete_io(socket)?;
    }
    connection.writer().write_all(answer)?;
    if ends {
        connection.send_close_notify();
    }
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}

/// A TLS server that sends a whole answer with its end in one piece, and then waits for the client to close.
fn answer_and_wait(listener: &TcpListener, identity: &Identity) -> io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it";
    let bytes = sealed(&mut socket, identity, answer, true)?;
    socket.write_all(&bytes)?;
    while socket.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

#[test]
fn an_end_that_comes_with_the_last_data_is_an_end_though_the_upstream_waits() {
    let authority = Authority::new();
    let identity = authority.issue(HOST);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    let server = std::thread::spawn(move || answer_and_wait(&listener, &identity));
    let gateway = originating(port, &authority);
    assert_eq!(gateway.client().get(HOST, "/").text(), "all of it");
    server.join().expect("the server does not panic").expect("the gateway closes in good order");
    assert_eq!(gateway.log().first().flags, "-");
}

/// A server that reads a hello and then sends this piece for as long as somebody takes it; how many bytes that was so
/// far. Its thread ends with the process.
fn send_for_ever(piece: Vec<u8>) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    std::thread::spawn(move || {
        // A failed handshake is tried again by default, as in Istio.
        while let Ok((mut socket, _)) = listener.accept() {
            let _ = socket.read(&mut [0; 4096]);
            while let Ok(count @ 1..) = socket.write(&piece) {
                counter.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    });
    (port, sent)
}

#[test]
fn a_handshake_without_end_is_cut_and_fills_no_memory() {
    let authority = Authority::new();
    let pieces: [(&str, Vec<u8>); 6] = [
        ("a message of 16 MiB", [&[22, 3, 3, 0x40, 0, 2, 0xff, 0xff, 0xff], &[0; 16_380][..]].concat()),
        ("one message in single bytes", [22, 3, 3, 0, 1, 2].repeat(2_000)),
        ("empty records", [22, 3, 3, 0, 0].repeat(2_000)),
        ("warnings", [21, 3, 3, 0, 2, 1, 0].repeat(2_000)),
        ("changes of cipher", [20, 3, 3, 0, 1, 1].repeat(2_000)),
        ("data", [&[23, 3, 3, 0x40, 0], &[0; 16_384][..]].concat()),
    ];
    for (what, piece) in pieces {
        let (port, sent) = send_for_ever(piece);
        let gateway = originating(port, &authority);
        assert_eq!(gateway.client().get(HOST, "/").status, 503, "{what}");
        let line = gateway.log().first();
        assert_eq!(line.flags, "UF", "{what}: {line:?}");
        assert!(line.transport_failure.starts_with("TLS_error"), "{what}: {line:?}");
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < 32 << 20, "{what}: {sent} bytes were taken");
        assert!(gateway.peak_memory_kib() < 96 * 1024, "{what}: {} KiB", gateway.peak_memory_kib());
    }
}

#[test]
fn rubbish_behind_an_answer_ends_that_connection_and_nothing_else() {
    let authority = Authority::new();
    let rubbish: [(&str, bool, Vec<u8>); 7] = [
        ("a record that does not decrypt", false, [&[23, 3, 3, 0, 32], &[7; 32][..]].concat()),
        ("a record too long", false, [&[23, 3, 3, 0xff, 0xff], &[7; 100][..]].concat()),
        ("no record", false, vec![0xff; 1_000]),
        ("half a record", false, [&[23, 3, 3, 0x20, 0], &[7; 1_000][..]].concat()),
        ("a handshake in the clear", false, [22, 3, 3, 0, 4, 1, 0, 0, 0].repeat(10)),
        ("an alert in the clear", false, vec![21, 3, 3, 0, 2, 2, 40]),
        ("megabytes behind the end", true, vec![7; 1 << 20]),
    ];
    for (what, ends, rubbish) in rubbish {
        let identity = authority.issue(HOST);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        std::thread::spawn(move || {
            // Ends with the process; what a connection ends with is the gateway's choice.
            for mut socket in listener.incoming().map_while(Result::ok) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if let Ok(bytes) = sealed(&mut socket, &identity, answer, ends) {
                    let _ = socket.write_all(&[&bytes[..], &rubbish].concat());
                }
            }
        });
        let gateway = originating(port, &authority);
        let mut client = gateway.client();
        for _ in 0..3 {
            assert_eq!(client.get(HOST, "/").text(), "ok", "{what}");
        }
        assert!(gateway.peak_memory_kib() < 96 * 1024, "{what}");
    }
}

#[test]
fn a_revoked_certificate_is_refused_and_gets_not_one_byte_of_the_request() {
    let authority = Authority::new();
    let (bad, good) = (authority.issue(HOST), authority.issue("good.example.com"));
    let revoked = Upstream::tls(&bad, service::http);
    let valid = Upstream::tls(&good, service::http);
    let tls = "      mode: SIMPLE\n      credentialName: theirs\n";
    let rule = |name: &str, host: &str, port| {
        resources::http_entry(name, host, port) + &resources::destination_rule(name, host, tls)
    };
    let gateway = Gateway::builder()
        .host(HOST)
        .host("good.example.com")
        .file("credentials/theirs/ca.crt", authority.pem())
        .file("credentials/theirs/ca.crl", &authority.revoke(&bad))
        .resources(rule("bad", HOST, revoked.port()) + &rule("good", "good.example.com", valid.port()))
        .start();
    assert_eq!(gateway.client().get(HOST, "/secret").status, 503);
    let line = gateway.log().first();
    assert_eq!(line.flags, "UF");
    assert!(line.transport_failure.to_lowercase().contains("revoked"), "{line:?}");
    assert_eq!(gateway.client().get("good.example.com", "/").status, 200);
    assert_eq!(revoked.seen().counts().requests.len(), 0);
}

#[test]
fn a_certificate_revoked_by_reload_ends_the_use_of_open_connections_and_sessions() {
    let authority = Authority::new();
    let (identity, other) = (authority.issue(HOST), authority.issue("other.example"));
    let upstream = Upstream::tls(&identity, service::http);
    let tls = "      mode: SIMPLE\n      credentialName: theirs\n";
    let yaml = resources::http_entry("api", HOST, upstream.port()) + &resources::destination_rule("api", HOST, tls);
    let gateway = Gateway::builder()
        .host(HOST)
        .file("credentials/theirs/ca.crt", authority.pem())
        .file("credentials/theirs/ca.crl", &authority.revoke(&other))
        .resources(yaml)
        .start();
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/").status, 200);
    assert_eq!(client.get(HOST, "/").status, 200);
    assert_eq!(upstream.seen().counts().connections, 1);

    let before = gateway.generation();
    let list = gateway.directory().join("credentials/theirs/ca.crl");
    fs::write(list, authority.revoke(&identity)).expect("the folder is ours");
    gateway.signal(Signal::HUP);
    wait_until("the new list to be in force", || (gateway.generation() > before).then_some(()));
    assert_eq!(client.get(HOST, "/").status, 503);
    let line = gateway.log().wait_for(|line| line.code == 503);
    assert!(line.transport_failure.to_lowercase().contains("revoked"), "{line:?}");
    assert_eq!(upstream.seen().counts().requests.len(), 2);
}

#[test]
fn a_reload_that_trusts_another_authority_ends_the_use_of_open_connections() {
    let (authority, successor) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls(&authority.issue(HOST), service::http);
    let gateway = originating(upstream.port(), &authority);
    let mut client = gateway.client();
    assert_eq!(client.get(HOST, "/").status, 200);
    let before = gateway.generation();
    fs::write(gateway.directory().join("roots.pem"), successor.pem()).expect("the folder is ours");
    gateway.signal(Signal::HUP);
    wait_until("the new roots to be in force", || (gateway.generation() > before).then_some(()));
    assert_eq!(client.get(HOST, "/").status, 503);
    assert_eq!(upstream.seen().counts().requests.len(), 1);
}

#[test]
fn connections_are_not_shared_between_names() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("*.example.com"), service::http);
    let any = resources::http_entry("any", "*.example.com", upstream.port()).replace("DNS", "DYNAMIC_DNS");
    let rule = resources::destination_rule("any", "'*.example.com'", "      mode: SIMPLE\n");
    let gateway =
        Gateway::builder().host("a.example.com").host("b.example.com").trust(&authority).resources(any + &rule).start();
    for name in ["a.example.com", "b.example.com", "a.example.com", "b.example.com"] {
        assert_eq!(gateway.client().get(name, "/").status, 200, "{name}");
    }
    let counts = upstream.seen().counts();
    assert_eq!(counts.server_names, ["a.example.com", "b.example.com"]);
    assert_eq!(counts.connections, 2);
}
