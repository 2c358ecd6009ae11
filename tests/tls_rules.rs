//! TLS that the gateway opens: what DestinationRules and MeshConfig say of it, and which connections may be shared.

mod support;

use rustls::ServerConfig;
use support::certificates::{Authority, Identity, provider};
use support::gateway::{Builder, Gateway};
use support::resources;
use support::service;
use support::upstream::Upstream;
use support::wait_until;

const HOST: &str = "api.example";

/// Plain HTTP to an upstream with these TLS settings.
fn originate(upstream: &Upstream, tls: &str) -> String {
    resources::http_entry("api", HOST, upstream.port())
        + &format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\n\
             spec: {{host: {HOST}, trafficPolicy: {{tls: {tls}}}}}\n"
        )
}

fn gateway(authority: &Authority) -> Builder {
    Gateway::builder().host(HOST).trust(authority)
}

fn status(gateway: &Gateway) -> u16 {
    gateway.client().get(HOST, "/bytes/1").status
}

#[test]
fn a_common_name_is_taken_with_an_sni_only_where_names_are_verified_as_istio_does() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue_common_name_only(HOST), service::http);
    let yaml = originate(&upstream, &format!("{{mode: SIMPLE, sni: {HOST}}}"));
    for (mode, expected) in [("STRICT", 503), ("ISTIO", 200)] {
        let gateway = gateway(&authority)
            .tls_setting(&format!("  serverNameVerification: {mode}\n"))
            .resources(yaml.clone())
            .start();
        assert_eq!(status(&gateway), expected, "{mode}");
    }
}

#[test]
fn client_certificates_are_rotated_by_a_reload() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let upstream = Upstream::tls_with(servers.issue(HOST).server_for(&clients), service::http);
    let (good, bad) = (clients.issue("the-gateway"), strangers.issue("somebody"));
    let yaml = originate(&upstream, "{mode: MUTUAL, credentialName: ours}");
    let gateway = gateway(&servers)
        .file("credentials/ours/tls.crt", &bad.certificate_pem)
        .file("credentials/ours/tls.key", &bad.key_pem)
        .file("credentials/ours/ca.crt", servers.pem())
        .resources(yaml.clone())
        .start();
    let rotate = |identity: &Identity| {
        let folder = gateway.directory().join("credentials/ours");
        std::fs::write(folder.join("tls.crt"), &identity.certificate_pem).unwrap();
        std::fs::write(folder.join("tls.key"), &identity.key_pem).unwrap();
        gateway.reload(&yaml);
    };
    assert_eq!(status(&gateway), 503);
    rotate(&good);
    assert_eq!(status(&gateway), 200);
    rotate(&bad);
    assert_eq!(status(&gateway), 503, "a connection that the good certificate has opened must not be used");
    rotate(&good);
    assert_eq!(status(&gateway), 200);
}

#[test]
fn roots_are_rotated_by_a_reload() {
    let (right, wrong) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls(&right.issue(HOST), service::http);
    let yaml = originate(&upstream, "{mode: SIMPLE, credentialName: theirs}");
    let gateway = gateway(&right).file("credentials/theirs/ca.crt", wrong.pem()).resources(yaml.clone()).start();
    for (authority, expected) in [(&wrong, 503), (&right, 200), (&wrong, 503), (&right, 200)] {
        std::fs::write(gateway.directory().join("credentials/theirs/ca.crt"), authority.pem()).unwrap();
        gateway.reload(&yaml);
        assert_eq!(status(&gateway), expected);
    }
}

#[test]
fn a_handshake_that_nobody_verifies_is_counted() {
    let (trusted, unknown) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls(&unknown.issue("another.example"), service::http);
    let gateway = gateway(&trusted).resources(originate(&upstream, "{mode: SIMPLE, insecureSkipVerify: true}")).start();
    assert_eq!(status(&gateway), 200);
    assert_eq!(gateway.metric("portcullis_upstream_tls_unverified_total"), Some(1.0));
}

#[test]
fn the_ends_of_certificates_are_shown() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls(&servers.issue(HOST), service::http);
    let identity = clients.issue_expired("the-gateway");
    let gateway = gateway(&servers)
        .file("resources.d/ours.crt", &identity.certificate_pem)
        .file("resources.d/ours.key", &identity.key_pem)
        .resources(originate(&upstream, "{mode: MUTUAL, clientCertificate: ours.crt, privateKey: ours.key}"))
        .start();
    let end = |kind: &str| {
        let name = "portcullis_certificate_expiration_timestamp_seconds";
        gateway.metric(&format!("{name}{{destination_service=\"{HOST}\",kind=\"{kind}\"}}"))
    };
    assert_eq!(end("client"), Some(1_577_836_800.0), "2020-01-01");
    gateway.wait_for_diagnostic("the client certificate has ended on 2020-01-01");
    assert!(end("ca").is_some_and(|end| end > 1_577_836_800.0));
}

/// A server of one version, with the cipher suites whose names contain `word`.
fn server(identity: &Identity, version: &'static rustls::SupportedProtocolVersion, word: &str) -> ServerConfig {
    let mut provider = (*provider()).clone();
    provider.cipher_suites.retain(|suite| format!("{suite:?}").contains(word));
    let mut config = ServerConfig::builder_with_provider(std::sync::Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("the provider has suites for it")
        .with_no_client_auth()
        .with_cert_resolver(identity.server().cert_resolver);
    config.alpn_protocols = Vec::new();
    config
}

#[test]
fn an_upstream_below_the_lowest_version_is_a_failure() {
    let authority = Authority::new();
    let config = server(&authority.issue(HOST), &rustls::version::TLS12, "TLS");
    let upstream = Upstream::tls_with(config, service::http);
    let yaml = originate(&upstream, "{mode: SIMPLE}");
    for (version, expected) in [("TLSV1_2", 200), ("TLSV1_3", 503)] {
        let mesh = format!("  tlsDefaults: {{minProtocolVersion: {version}}}\n");
        let gateway = gateway(&authority).mesh(&mesh).resources(yaml.clone()).start();
        assert_eq!(status(&gateway), expected, "{version}");
    }
}

#[test]
fn no_cipher_suite_is_offered_but_those_that_are_listed() {
    let authority = Authority::new();
    let config = server(&authority.issue(HOST), &rustls::version::TLS12, "AES_128");
    let upstream = Upstream::tls_with(config, service::http);
    let yaml = originate(&upstream, "{mode: SIMPLE}");
    for (suite, expected) in [("ECDHE-ECDSA-AES128-GCM-SHA256", 200), ("ECDHE-ECDSA-AES256-GCM-SHA384", 503)] {
        let mesh = format!("  tlsDefaults: {{cipherSuites: [{suite}]}}\n");
        let gateway = gateway(&authority).mesh(&mesh).resources(yaml.clone()).start();
        assert_eq!(status(&gateway), expected, "{suite}");
    }
}

#[test]
fn connections_with_different_server_names_are_not_shared() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::http);
    let subset = |name: &str| {
        format!(
            "{{name: {name}, trafficPolicy: {{tls: {{mode: SIMPLE, sni: {name}.example, insecureSkipVerify: true}}}}}}"
        )
    };
    let rule = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\n\
         spec: {{host: {HOST}, subsets: [{}, {}]}}\n",
        subset("one"),
        subset("two")
    );
    let route = |name: &str| {
        format!(
            "  - match: [{{uri: {{prefix: /{name}}}}}]\n    route: [{{destination: {{host: {HOST}, subset: {name}}}}}]\n"
        )
    };
    let yaml = resources::http_entry("api", HOST, upstream.port())
        + &resources::virtual_service("api", HOST, &(route("one") + &route("two")))
        + &rule;
    let gateway = gateway(&authority).resources(yaml).start();
    let mut client = gateway.client();
    for path in ["/one", "/two", "/one", "/two"] {
        assert_eq!(client.get(HOST, path).status, 200);
    }
    assert_eq!(upstream.seen().counts().server_names, ["one.example", "two.example"]);
}

#[test]
fn names_below_a_wildcard_share_no_connection() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue("*.wild.example"), service::http);
    let yaml = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: wild}}\nspec:\n  \
         hosts: ['*.wild.example']\n  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {}}}]\n  \
         resolution: DYNAMIC_DNS\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: wild}}\nspec: {{host: '*.wild.example', trafficPolicy: {{tls: {{mode: SIMPLE}}}}}}\n",
        upstream.port()
    );
    let gateway =
        Gateway::builder().host("a.wild.example").host("b.wild.example").trust(&authority).resources(yaml).start();
    let mut client = gateway.client();
    for host in ["a.wild.example", "b.wild.example", "a.wild.example"] {
        assert_eq!(client.get(host, "/bytes/1").status, 200);
    }
    assert_eq!(upstream.seen().counts().server_names, ["a.wild.example", "b.wild.example"]);
}

#[test]
fn a_connection_is_not_used_under_a_stricter_rule_than_it_was_opened_under() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::http);
    let lax = originate(&upstream, "{mode: SIMPLE}");
    let gateway = gateway(&authority).resources(lax.clone()).start();
    for strict in ["{mode: SIMPLE, subjectAltNames: [other.example]}", "{mode: SIMPLE, sni: other.example}"] {
        gateway.reload(&lax);
        assert_eq!(status(&gateway), 200);
        gateway.reload(&originate(&upstream, strict));
        assert_eq!(status(&gateway), 503, "{strict}");
    }
}

#[test]
fn a_reload_that_changes_nothing_keeps_connections() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::http);
    let yaml = originate(&upstream, "{mode: SIMPLE}");
    let gateway = gateway(&authority).resources(yaml.clone()).start();
    assert_eq!(status(&gateway), 200);
    let idle = "portcullis_upstream_connections{state=\"idle\"}";
    wait_until("the connection to be idle", || (gateway.metric(idle) == Some(1.0)).then_some(()));
    gateway.reload(&yaml);
    assert_eq!(status(&gateway), 200);
    assert_eq!(upstream.seen().counts().connections, 1);
}
