//! What `check` says of servers at which TLS ends.

use crate::scene::{API, SIMPLE, gateway, server};
use crate::support::certificates::{Authority, Identity};
use crate::support::gateway::command;

/// The findings about servers of Gateways: severity, field and message.
fn findings(yaml: &str, files: &[(&str, &str)], listens: bool) -> Vec<(String, String, String)> {
    let folder = tempfile::tempdir().expect("a writable temporary folder");
    std::fs::create_dir(folder.path().join("resources.d")).expect("the folder is ours");
    for (name, content) in files {
        std::fs::write(folder.path().join("resources.d").join(name), content).expect("the folder is ours");
    }
    std::fs::write(folder.path().join("resources.d/gateway.yaml"), yaml).expect("the folder is ours");
    let bootstrap = format!(
        "listeners: [{{name: tls, bind: '127.0.0.1:0', servicePort: 443, gateway: {listens}}}]\nresources: [resources.d]\n"
    );
    std::fs::write(folder.path().join("portcullis.yaml"), bootstrap).expect("the folder is ours");
    let mut check = command();
    check.args(["check", "-o", "json", "--config"]).arg(folder.path().join("portcullis.yaml"));
    let told: serde_json::Value = serde_json::from_slice(&check.output().expect("it runs").stdout).expect("JSON");
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().expect("a text").to_owned();
    let findings = told["findings"].as_array().expect("a list").iter();
    let about_servers =
        findings.filter(|it| it["field"].as_str().is_some_and(|field| field.starts_with("spec.servers")));
    about_servers.map(|it| (text(it, "severity"), text(it, "field"), text(it, "message"))).collect()
}

/// Whether a finding of this severity about this field contains this text.
#[track_caller]
fn assert_says(tls: &str, severity: &str, field: &str, message: &str) {
    let yaml = gateway("egress", &server("https", "HTTPS", API, tls));
    let found = findings(&yaml, &[], true);
    let is_it = |(is, at, says): &&(String, String, String)| {
        is == severity && *at == format!("spec.servers[0].tls{field}") && says.contains(message)
    };
    assert!(found.iter().any(|finding| is_it(&finding)), "{tls}: {found:?}");
}

#[test]
fn what_a_server_lacks_or_says_twice_is_an_error_at_its_field() {
    let files = "serverCertificate: a.crt, privateKey: a.key";
    for (tls, field, message) in [
        ("mode: SIMPLE", ".serverCertificate", "SIMPLE TLS requires a server certificate"),
        ("mode: SIMPLE, serverCertificate: a.crt", ".privateKey", "SIMPLE TLS requires a private key"),
        (&*format!("mode: MUTUAL, {files}"), ".caCertificates", "MUTUAL TLS requires a client CA bundle"),
        (&*format!("mode: SIMPLE, {files}, credentialName: a"), ".credentialName", "cannot be set together with"),
        ("mode: SIMPLE, tlsCertificates: [{serverCertificate: a.crt}]", ".tlsCertificates[0].privateKey", "requires"),
        (&*format!("mode: SIMPLE, {files}"), ".serverCertificate", "a.crt"),
        ("mode: SIMPLE, credentialName: ../a", ".credentialName", "is not the name of a Secret"),
        (&*format!("{SIMPLE}, subjectAltNames: [a]"), ".subjectAltNames", "is for mode MUTUAL"),
        (&*format!("{SIMPLE}, verifyCertificateHash: [a]"), ".verifyCertificateHash", "is for mode MUTUAL"),
        (&*format!("{SIMPLE}, cipherSuites: [AES128-SHA]"), ".cipherSuites[0]", "is not spoken here"),
        (&*format!("{SIMPLE}, maxProtocolVersion: TLSV1_1"), ".maxProtocolVersion", "TLS before 1.2"),
        (
            &*format!("{SIMPLE}, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2"),
            ".maxProtocolVersion",
            "older than minProtocolVersion",
        ),
        ("mode: ISTIO_MUTUAL, credentialName: a", "", "ISTIO_MUTUAL TLS cannot have associated"),
    ] {
        assert_says(tls, "error", field, message);
    }
    assert_says("mode: OPTIONAL_MUTUAL, credentialName: a", "warning", ".mode", "nobody can reach this server");
    let twice = format!("{SIMPLE}, cipherSuites: [ECDHE-RSA-AES256-GCM-SHA384, ECDHE-RSA-AES256-GCM-SHA384]");
    assert_says(&twice, "warning", ".cipherSuites[1]", "duplicate cipher suite");
}

#[test]
fn a_pin_that_is_none_is_an_error() {
    let (authority, tls) =
        (Authority::new(), "mode: MUTUAL, serverCertificate: a.crt, privateKey: a.key, caCertificates: ca.crt");
    let identity = authority.issue(API);
    let files = [("a.crt", &*identity.certificate_pem), ("a.key", &*identity.key_pem), ("ca.crt", authority.pem())];
    let said = |more: &str| {
        findings(&gateway("egress", &server("https", "HTTPS", API, &format!("{tls}{more}"))), &files, true)
    };
    assert_eq!(said(""), []);
    for field in ["verifyCertificateHash", "verifyCertificateSpki"] {
        let found = said(&format!(", {field}: [abc]"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].1, format!("spec.servers[0].tls.{field}[0]"));
    }
}

#[test]
fn a_key_of_another_certificate_is_an_error_that_names_both_files() {
    let (one, other) = (Identity::self_signed(API), Identity::self_signed(API));
    let files = [("a.crt", &*one.certificate_pem), ("a.key", &*other.key_pem)];
    let tls = "mode: SIMPLE, serverCertificate: a.crt, privateKey: a.key";
    let found = findings(&gateway("egress", &server("https", "HTTPS", API, tls)), &files, true);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].2.contains("a.crt and") && found[0].2.contains("a.key: ") && found[0].2.contains("KeyMismatch"));
    // Where nobody can come, nothing is lost: routes from the mesh need no certificate.
    let found = findings(&gateway("egress", &server("https", "HTTPS", API, tls)), &files, false);
    assert!(found.iter().all(|(severity, ..)| severity == "warning") && found.len() == 1, "{found:?}");
}

#[test]
fn a_server_of_tcp_within_tls_that_leads_nowhere_is_named() {
    let found = findings(&gateway("egress", &server("tls", "TLS", API, SIMPLE)), &[], true);
    let said = found.iter().find(|(_, field, _)| field == "spec.servers[0].port");
    assert!(said.is_some_and(|(severity, _, message)| severity == "warning" && message.contains("is refused")));
}

#[test]
fn two_gateways_that_want_the_same_clients_are_named() {
    let yaml = gateway("first", &server("https", "HTTPS", API, "mode: PASSTHROUGH"))
        + &gateway("second", &server("https", "HTTPS", API, "mode: PASSTHROUGH"));
    let found = findings(&yaml, &[], true);
    let conflict = found.iter().find(|(_, _, message)| message.contains("Conflict with gateways default/first"));
    assert_eq!(
        conflict.map(|(severity, field, _)| (&**severity, &**field)),
        Some(("warning", "spec.servers[0].hosts[0]"))
    );
}
