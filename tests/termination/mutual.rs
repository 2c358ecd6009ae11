//! Servers that let in only clients that show a certificate.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::scene::{API, MUTUAL, SIMPLE, Scene, server};
use crate::support::certificates::{Authority, Identity};
use crate::support::{client, wait_until};

/// Whether a client with this certificate gets an answer.
#[track_caller]
fn passes(scene: &Scene, identity: Option<&Identity>) -> bool {
    let config = match identity {
        Some(identity) => scene.showing(identity),
        None => client::trusting(&scene.authority),
    };
    let Ok(mut client) = scene.try_client(&config, API) else { return false };
    client.send(format!("GET /bytes/1 HTTP/1.1\r\nHost: {API}\r\n\r\n"));
    client.response().is_ok_and(|response| response.status == 200)
}

#[test]
fn only_a_certificate_of_the_right_authority_that_is_valid_opens_the_server() {
    let scene = Scene::new(MUTUAL);
    assert!(passes(&scene, Some(&scene.clients.issue("workload"))));
    for (what, identity) in [
        ("none", None),
        ("of another authority", Some(Authority::new().issue("workload"))),
        ("of the server's authority", Some(scene.authority.issue("workload"))),
        ("expired", Some(scene.clients.issue_expired("workload"))),
        ("not yet valid", Some(scene.clients.issue_not_yet_valid("workload"))),
        ("self-signed", Some(Identity::self_signed("workload"))),
    ] {
        assert!(!passes(&scene, identity.as_ref()), "{what}");
    }
    let refused = "portcullis_denied_total{reason=\"client_certificate_refused\",rule=\"\"}";
    assert_eq!(scene.gateway.metric(refused), Some(6.0));
    let lines = scene.gateway.log().wait_for_count(7);
    let reasons: Vec<_> = lines[1..].iter().map(|line| line.transport_failure.clone()).collect();
    assert!(reasons[0].contains("no certificates"), "{reasons:?}");
    assert!(reasons[3].contains("xpired"), "{reasons:?}");
    assert!(lines[1..].iter().all(|line| line.server_name == API && line.code == 0));
    assert_eq!(scene.upstream.seen().counts().requests.len(), 1);
}

#[test]
fn a_client_without_a_certificate_learns_why_from_an_alert() {
    let scene = Scene::new(MUTUAL);
    let mut client = scene.client();
    let error = client.stream().read(&mut [0; 8]).expect_err("an alert");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[test]
fn curl_and_openssl_pass_with_a_client_certificate() {
    let scene = Scene::new(MUTUAL);
    let identity = scene.clients.issue("workload");
    let folder = scene.gateway.directory();
    let (certificate, key) = (folder.join("client.crt"), folder.join("client.key"));
    std::fs::write(&certificate, &identity.certificate_pem).expect("the folder is ours");
    std::fs::write(&key, &identity.key_pem).expect("the folder is ours");
    let (certificate, key) = (certificate.to_str().expect("text"), key.to_str().expect("text"));
    let url = "https://api.example.com/books";
    if let Some(output) = scene.curl(&["--cert", certificate, "--key", key, url]) {
        assert!(output.status.success() && output.stdout.starts_with(b"GET /books"), "{output:?}");
    }
    if let Some(output) = scene.curl(&[url]) {
        assert!(!output.status.success(), "{output:?}");
    }
    let request = format!("GET /books HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n");
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = [version, "-servername", API, "-cert", certificate, "-key", key, "-ign_eof"];
        if let Some(output) = scene.openssl(&arguments, &request) {
            assert!(output.stdout.starts_with(b"HTTP/1.1 200"), "{version}: {output:?}");
        }
        if let Some(output) = scene.openssl(&[version, "-servername", API, "-ign_eof"], &request) {
            assert!(!output.stdout.starts_with(b"HTTP/1.1 200"), "{version}: {output:?}");
        }
    }
}

#[test]
fn a_revoked_certificate_is_refused() {
    let clients = Authority::new();
    let (good, bad) = (clients.issue("good"), clients.issue("bad"));
    let list = clients.revoke(&bad);
    let scene = Scene::with(
        |_| server("https", "HTTPS", API, "mode: MUTUAL, credentialName: egress"),
        |builder| builder.file("credentials/egress/ca.crl", &list).file("credentials/egress/ca.crt", clients.pem()),
    );
    assert!(passes(&scene, Some(&good)));
    assert!(!passes(&scene, Some(&bad)));
    assert!(scene.gateway.log().wait_for_count(2)[1].transport_failure.contains("evoked"));
}

#[test]
fn names_and_pins_narrow_down_who_may_come() {
    let names = Scene::new(&format!("{MUTUAL}, subjectAltNames: [first, 'spiffe://cluster/ns/a']"));
    assert!(passes(&names, Some(&names.clients.issue("first"))));
    assert!(!passes(&names, Some(&names.clients.issue("second"))));
    assert!(!passes(&names, Some(&names.clients.issue_common_name_only("first"))));
    let line = names.gateway.log().wait_for_count(3)[1].clone();
    assert!(line.transport_failure.contains("subjectAltNames"), "{}", line.transport_failure);

    let clients = Authority::new();
    let (known, other) = (clients.issue("known"), clients.issue("other"));
    let Some((of_certificate, of_key)) = pins(&known) else { return };
    for pin in [
        format!("verifyCertificateHash: ['{of_certificate}']"),
        format!("verifyCertificateSpki: ['{of_key}']"),
        format!("verifyCertificateHash: ['{}'], verifyCertificateSpki: ['{of_key}']", "00".repeat(32)),
    ] {
        let scene = Scene::with(
            |_| server("https", "HTTPS", API, &format!("{MUTUAL}, {pin}")),
            |builder| builder.file("credentials/egress/ca.crt", clients.pem()),
        );
        assert!(passes(&scene, Some(&known)), "{pin}");
        assert!(!passes(&scene, Some(&other)), "{pin}");
    }
}

/// The pins of a certificate as OpenSSL makes them: its hash in hexadecimal, and its key's in base64.
fn pins(identity: &Identity) -> Option<(String, String)> {
    use std::io::Write;
    let script = "cat > c.pem; openssl x509 -in c.pem -noout -fingerprint -sha256 | cut -d= -f2; \
                  openssl x509 -in c.pem -noout -pubkey | openssl pkey -pubin -outform der | \
                  openssl dgst -sha256 -binary | openssl base64";
    let folder = tempfile::tempdir().expect("a writable temporary folder");
    let mut child = std::process::Command::new("sh")
        .args(["-c", script])
        .current_dir(folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    child.stdin.take().expect("piped").write_all(identity.certificate_pem.as_bytes()).expect("cat reads");
    let told = String::from_utf8(child.wait_with_output().expect("ours").stdout).expect("text");
    let mut lines = told.lines().map(str::to_owned);
    let pins = lines.next().zip(lines.next());
    if pins.is_none() {
        eprintln!("NOT TESTED: openssl is not installed");
    }
    pins
}

#[test]
fn a_weaker_server_is_no_way_around_a_stricter_one() {
    let scene = Scene::with(
        |_| server("strict", "HTTPS", API, MUTUAL) + &server("wide", "HTTPS", "'*.example.com', '*'", SIMPLE),
        |builder| builder,
    );
    let mut config = client::trusting(&scene.authority);
    // The certificate of the wide server names another host; that is the client's business.
    config.dangerous().set_certificate_verifier(crate::scene::anything());
    for name in ["other.example.com", "elsewhere.org"] {
        let mut client = scene.try_client(&config, name).expect("a handshake");
        assert_eq!(client.get(API, "/books").status, 421, "{name}");
    }
    assert_eq!(scene.upstream.seen().counts().requests.len(), 0);
}

#[test]
fn a_session_of_one_server_is_not_resumed_at_another() {
    let scene = Scene::with(
        |_| server("strict", "HTTPS", API, MUTUAL) + &server("wide", "HTTPS", "'*.example.com'", SIMPLE),
        |builder| builder,
    );
    let mut config = client::trusting(&scene.authority);
    config.dangerous().set_certificate_verifier(crate::scene::anything());
    let mut client = scene.try_client(&config, "other.example.com").expect("a handshake");
    assert_eq!(client.get("other.example.com", "/").status, 404);
    assert!(!passes(&scene, None));
    let resumed = "portcullis_downstream_tls_handshakes_total{result=\"success\",resumed=\"true\"}";
    assert_eq!(scene.gateway.metric(resumed), Some(0.0));
}

/// A ticket carries the certificate as it was verified once.
#[test]
fn a_session_is_not_resumed_when_its_certificate_has_expired() {
    let scene = Scene::new(MUTUAL);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let end = Duration::from_secs(now.as_secs() + 4);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let identity = scene.clients.issue_with("workload", |parameters| parameters.not_after = epoch + end);
    let config = scene.showing(&identity);
    assert_eq!(scene.try_client(&config, API).expect("a handshake").get(API, "/bytes/1").status, 200);
    assert_eq!(scene.try_client(&config, API).expect("a handshake").get(API, "/bytes/1").status, 200);
    let resumed = "portcullis_downstream_tls_handshakes_total{result=\"success\",resumed=\"true\"}";
    assert_eq!(scene.gateway.metric(resumed), Some(1.0));
    wait_until("the certificate has expired", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        (now > end + Duration::from_secs(1)).then_some(())
    });
    if let Ok(mut client) = scene.try_client(&config, API) {
        client.send(format!("GET /bytes/1 HTTP/1.1\r\nHost: {API}\r\n\r\n"));
        assert!(client.response().is_err());
    }
    assert_eq!(scene.gateway.metric(resumed), Some(1.0));
    let refused = "portcullis_denied_total{reason=\"client_certificate_refused\",rule=\"\"}";
    assert_eq!(scene.gateway.metric(refused), Some(1.0));
}
