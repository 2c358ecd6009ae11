//! Attacks by an upstream's TLS: old versions, weak suites, revoked certificates, and connections that outlive trust.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

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

/// A TLS server for one connection that sends its whole answer and its close_notify in one piece, and then waits for the
/// client to close.
fn answer_and_wait(listener: &TcpListener, identity: &Identity) -> io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    let mut connection = ServerConnection::new(Arc::new(identity.server())).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let mut request = [0; 1024];
    while connection.reader().read(&mut request).is_err() {
        connection.complete_io(&mut socket)?;
    }
    connection.writer().write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")?;
    connection.send_close_notify();
    let mut piece = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut piece)?;
    }
    socket.write_all(&piece)?;
    while socket.read(&mut request)? > 0 {}
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
