//! Which server a client gets, and in which version of TLS.

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};

use crate::scene::{API, SIMPLE, Scene, TO_API, credential, gateway, routes, server};
use crate::support::certificates::Authority;
use crate::support::client::{self, tls};
use crate::support::resources;
use crate::support::service;
use crate::support::upstream::Upstream;

#[test]
fn a_name_of_no_server_and_no_name_at_all_are_refused_with_unrecognized_name() {
    let scene = Scene::new(SIMPLE);
    let error = scene.try_client(&client::trusting(&scene.authority), "other.example.com").err().expect("a refusal");
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    let line = scene.gateway.log().first();
    assert_eq!((line.flags.as_str(), line.server_name.as_str()), ("NR", "other.example.com"));
    // An address is no server name: none is sent.
    let error = scene.try_client(&client::trusting(&scene.authority), "127.0.0.1").err().expect("a refusal");
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    if let Some(output) = scene.openssl(&["-noservername"], "") {
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("112"), "{output:?}");
    }
}

#[test]
fn a_server_for_any_host_takes_clients_that_send_no_name() {
    let scene = Scene::with(|_| server("https", "HTTPS", "'*'", SIMPLE), |builder| builder);
    let request = format!("GET /books HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n");
    let Some(output) = scene.openssl(&["-noservername", "-ign_eof"], &request) else { return };
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200 OK"), "{output:?}");
    assert_eq!(scene.gateway.log().first().server_name, "-");
}

#[test]
fn of_two_servers_the_one_of_the_narrower_name_has_the_client() {
    let other = Authority::new();
    let scene = Scene::with(
        |_| {
            server("wide", "HTTPS", "'*.example.com'", "mode: SIMPLE, credentialName: wide")
                + &server("narrow", "HTTPS", API, SIMPLE)
        },
        |builder| credential(builder, "wide", &other.issue("*.example.com"), &other),
    );
    assert_eq!(scene.client().get(API, "/").status, 200);
    let wide = |name| tls(scene.gateway.tls(), name, &other).is_ok();
    assert!(wide("other.example.com") && !wide(API));
}

#[test]
fn a_port_may_have_servers_of_several_gateways_of_which_some_pass_tls_through() {
    let outside = Authority::new();
    let through = Upstream::tls(&outside.issue("through.example.com"), service::http);
    let second = gateway("second", &server("tls", "TLS", "'*.example.com'", "mode: PASSTHROUGH"))
        + &resources::tls_entry("through", "through.example.com", through.port())
        + &routes(
            "through",
            "'*.example.com'",
            "second",
            "  tls:\n  - match: [{sniHosts: ['*.example.com']}]\n    route: [{destination: {host: through.example.com}}]\n",
        );
    let scene =
        Scene::with(|_| server("https", "HTTPS", API, SIMPLE) + &second, |builder| builder.host("through.example.com"));
    assert_eq!(scene.client().get(API, "/").status, 200);
    assert!(tls(scene.gateway.tls(), "through.example.com", &outside).is_ok());
    let seen = through.seen().wait_for("the handshake", |counts| counts.handshakes_full == 1);
    assert_eq!(seen.server_names, ["through.example.com"]);
    // What passes through is of another server than what ends here.
    assert_eq!(scene.client().get("through.example.com", "/").status, 421);
}

#[test]
fn the_rules_of_another_gateway_do_not_hold_at_a_server() {
    let other = gateway("other", &server("https", "HTTPS", API, SIMPLE))
        + &routes("other", API, "other", "  http:\n  - directResponse: {status: 418}\n");
    let first = "  http:\n  - match: [{uri: {prefix: /books}}]\n    route: [{destination: {host: api.example.com, port: {number: 80}}}]\n";
    let scene = Scene::with(|_| server("https", "HTTPS", API, SIMPLE), |builder| builder);
    let yaml = scene.resources(&(server("https", "HTTPS", API, SIMPLE) + &other));
    assert!(yaml.contains(TO_API));
    scene.gateway.reload(&yaml.replace(TO_API, first));
    let mut client = scene.client();
    assert_eq!(client.get(API, "/books").status, 200);
    assert_eq!(client.get(API, "/health").status, 404);
}

#[test]
fn versions_are_bounded_by_the_server_and_by_the_mesh() {
    let cases: [(&str, &str, [bool; 2]); 5] = [
        ("", "", [true, true]),
        (", minProtocolVersion: TLSV1_3", "", [false, true]),
        (", maxProtocolVersion: TLSV1_2", "", [true, false]),
        ("", "  tlsDefaults: {minProtocolVersion: TLSV1_3}\n", [false, true]),
        (", minProtocolVersion: TLSV1_2", "  tlsDefaults: {minProtocolVersion: TLSV1_3}\n", [true, true]),
    ];
    for (own, mesh, [old, new]) in cases {
        let tls = format!("{SIMPLE}{own}");
        let scene = Scene::with(|_| server("https", "HTTPS", API, &tls), |builder| builder.mesh(mesh));
        let request = format!("GET /bytes/1 HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n");
        for (version, expected) in [("-tls1_2", old), ("-tls1_3", new)] {
            let arguments = [version, "-servername", API, "-ign_eof"];
            let Some(output) = scene.openssl(&arguments, &request) else { return };
            let answered = String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200");
            assert_eq!(answered, expected, "{own}{mesh} {version}: {output:?}");
        }
    }
}

#[test]
fn cipher_suites_are_those_of_the_server() {
    let tls = format!("{SIMPLE}, cipherSuites: [ECDHE-ECDSA-AES256-GCM-SHA384]");
    let scene = Scene::new(&tls);
    for (suite, expected) in [("ECDHE-ECDSA-AES256-GCM-SHA384", true), ("ECDHE-ECDSA-AES128-GCM-SHA256", false)] {
        let arguments = ["-tls1_2", "-cipher", suite, "-servername", API];
        let request = format!("GET /bytes/1 HTTP/1.1\r\nHost: {API}\r\nConnection: close\r\n\r\n");
        let Some(output) = scene.openssl(&arguments, &request) else { return };
        let answered = String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200");
        assert_eq!(answered, expected, "{suite}: {output:?}");
    }
}

/// A certificate of an RSA key, which OpenSSL makes: PEM of the certificate and of the key.
fn rsa() -> Option<(String, String)> {
    let made = std::process::Command::new("openssl").args(["genpkey", "-algorithm", "RSA", "-quiet"]).output().ok()?;
    let pem = String::from_utf8(made.stdout).expect("PEM is text");
    let key = KeyPair::from_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).expect("a key of RSA");
    let parameters = CertificateParams::new(vec![API.to_owned()]).expect("a good name");
    Some((parameters.self_signed(&key).expect("the parameters are complete").pem(), pem))
}

#[test]
fn of_several_certificates_a_client_gets_the_one_that_it_can_verify() {
    let Some((certificate, key)) = rsa() else { return eprintln!("NOT TESTED: openssl is not installed") };
    let scene = Scene::with(
        |_| server("https", "HTTPS", API, "mode: SIMPLE, credentialNames: [rsa, egress]"),
        |builder| builder.file("credentials/rsa/tls.crt", &certificate).file("credentials/rsa/tls.key", &key),
    );
    for (arguments, algorithm) in [
        (&["-tls1_3"][..], "ECDSA"),
        (&["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "RSA"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "RSA"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "ECDSA"),
    ] {
        let arguments = [arguments, &["-servername", API, "-no-interactive", "-showcerts"]].concat();
        let arguments: Vec<&str> = arguments.into_iter().filter(|it| *it != "-no-interactive").collect();
        let mut all = vec!["s_client", "-connect"];
        let address = scene.gateway.tls().to_string();
        all.push(&address);
        all.extend(arguments);
        let output = std::process::Command::new("openssl")
            .args(&all)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl was there");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = if algorithm == "RSA" { "Peer signature type: rsa" } else { "Peer signature type: ecdsa" };
        let is_it = told.contains(expected)
            || told.to_lowercase().contains(&expected.to_lowercase())
            || algorithm == "RSA" && told.contains("Peer signature type: RSA");
        assert!(is_it, "{all:?}: {told}");
    }
}
