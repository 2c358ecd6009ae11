//! Istio's tasks about egress, followed on one machine: their YAML, local servers, and the outcomes that they promise.
//!
//! Where a task dials a well-known port, `targetPort` is added, so that the tests need no privilege; nothing else is
//! changed. The task that opens a company's proxy by a TCP entry needs captured traffic: it is followed in `tests/capture.rs`.

#[path = "../support/mod.rs"]
mod support;

use std::io::{self, Write};
use std::process::Output;

use support::certificates::Authority;
use support::client::{self, TlsClient};
use support::gateway::{Builder, Gateway, command};
use support::http::{Reader, framing, header};
use support::service;
use support::upstream::Upstream;

const CNN: &str = "edition.cnn.com";
const NGINX: &str = "my-nginx.mesh-external.svc.cluster.local";

/// The YAML of a task.
macro_rules! task {
    ($name:literal) => {
        include_str!(concat!("resources/", $name, ".yaml"))
    };
}

/// The ports of a ServiceEntry lead to these upstreams, by protocol.
fn on_ports(yaml: &str, targets: &[(&str, u16)]) -> String {
    let mut yaml = yaml.to_owned();
    for (protocol, target) in targets {
        // Servers of Gateways are indented more deeply, and have no target.
        let line = format!("\n    protocol: {protocol}\n");
        assert!(yaml.contains(&line), "the task has no port for {protocol}");
        yaml = yaml.replace(&line, &format!("{line}    targetPort: {target}\n"));
    }
    yaml
}

/// A GET over TLS through the gateway; the upstream's copy of the request.
fn get(client: TlsClient, host: &str) -> io::Result<String> {
    let mut reader = Reader::new(client);
    write!(reader.stream(), "GET /politics HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let head = reader.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut body = Vec::new();
    reader.body(framing(&head).ok_or(io::ErrorKind::InvalidData)?, &mut |piece| body.extend_from_slice(piece))?;
    String::from_utf8(body).map_err(io::Error::other)
}

/// A client that speaks TLS to `host`.
fn https(gateway: &Gateway, host: &str, authority: &Authority) -> io::Result<String> {
    get(client::tls(gateway.tls(), host, authority)?, host)
}

fn explained(gateway: &Gateway, url: &str) -> String {
    let config = gateway.directory().join("portcullis.yaml");
    let output: Output = command().args(["explain", "--config"]).arg(config).arg(url).output().expect("it runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn assert_lists(explained: &str, objects: &[&str]) {
    for object in objects {
        assert!(explained.contains(&format!("object     {object} (")), "no {object} in:\n{explained}");
    }
}

#[test]
fn control_opens_one_name_for_http_and_one_for_https_and_blocks_the_rest() {
    let authority = Authority::new();
    let plain = Upstream::plain(service::http);
    let secure = Upstream::tls(&authority.issue("www.google.com"), service::http);
    let yaml = on_ports(task!("control"), &[("HTTP", plain.port()), ("HTTPS", secure.port())]);
    let gateway = Gateway::builder().host("httpbin.org").host("www.google.com").resources(yaml).start();

    let answer = gateway.client().get("httpbin.org", "/headers");
    assert_eq!((answer.status, header(answer.text(), "host")), (200, Some("httpbin.org")));
    assert!(https(&gateway, "www.google.com", &authority).is_ok());
    // Blocked as a sidecar blocks: 502 for HTTP, no connection for HTTPS.
    assert_eq!(gateway.client().get("edition.cnn.com", "/politics").status, 502);
    assert!(https(&gateway, "edition.cnn.com", &authority).is_err());

    // Tunnels are told of when they end, so the order is not that of the requests.
    let lines = gateway.log().wait_for_count(4);
    let mut shown: Vec<_> = lines.iter().map(|line| (line.upstream_cluster.as_str(), line.code)).collect();
    shown.sort_unstable();
    let expected = [
        ("BlackHoleCluster", 0),
        ("BlackHoleCluster", 502),
        ("outbound|443||www.google.com", 0),
        ("outbound|80||httpbin.org", 200),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn control_cuts_a_slow_answer_off_at_the_timeout_of_the_route() {
    let plain = Upstream::plain(service::http);
    let yaml = format!("{}{}", task!("control"), task!("control-timeout")).replace("timeout: 3s", "timeout: 300ms");
    let yaml = on_ports(&yaml, &[("HTTP", plain.port())]);
    let gateway = Gateway::builder().host("httpbin.org").resources(yaml).start();
    assert_eq!(gateway.client().get("httpbin.org", "/silent").status, 504);
    let line = gateway.log().first();
    assert_eq!((line.code, line.flags.as_str()), (504, "UT"));
}

#[test]
fn tls_origination_encrypts_http_and_lets_https_pass() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(CNN), service::http);
    let yaml = task!("tls-origination").replace("targetPort: 443", &format!("targetPort: {}", upstream.port()));
    let yaml = on_ports(&yaml, &[("HTTPS", upstream.port())]);
    let gateway = Gateway::builder().host(CNN).trust(&authority).resources(yaml).start();
    assert_eq!(gateway.client().get(CNN, "/politics").status, 200);
    assert!(https(&gateway, CNN, &authority).is_ok());
    assert_eq!(upstream.seen().counts().server_names, [CNN, CNN]);
}

/// Servers that take clients with a certificate of the second authority only, and the credentials for them.
fn mutual() -> (Upstream, Builder) {
    let (servers, clients) = (Authority::new(), Authority::new());
    let upstream = Upstream::tls_with(servers.issue(NGINX).server_for(&clients), service::http);
    let identity = clients.issue("client.example.com");
    let builder = Gateway::builder()
        .host(NGINX)
        .file("credentials/client-credential/tls.crt", &identity.certificate_pem)
        .file("credentials/client-credential/tls.key", &identity.key_pem)
        .file("credentials/client-credential/ca.crt", servers.pem());
    (upstream, builder)
}

#[test]
fn mutual_tls_origination_presents_the_clients_certificate() {
    let (upstream, builder) = mutual();
    let yaml = task!("mutual-origination").replace("targetPort: 443", &format!("targetPort: {}", upstream.port()));
    let gateway = builder.resources(yaml).start();
    assert_eq!(gateway.client().get(NGINX, "/").status, 200);
}

#[test]
fn http_goes_through_the_egress_gateway() {
    let upstream = Upstream::plain(service::http);
    let yaml = format!("{}{}", task!("cnn-entry"), task!("egress-gateway-http"));
    let gateway = Gateway::builder().host(CNN).resources(on_ports(&yaml, &[("HTTP", upstream.port())])).start();
    assert_eq!(gateway.client().get(CNN, "/politics").status, 200);
    // One line, with the cluster of the last hop, and the path as the client sent it.
    let lines = gateway.log().wait_for_count(1);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].request, "GET /politics HTTP/1.1");
    assert_eq!(lines[0].upstream_cluster, "outbound|80||edition.cnn.com");
    let explained = explained(&gateway, "http://edition.cnn.com/politics");
    let objects = [
        "ServiceEntry default/cnn",
        "VirtualService default/direct-cnn-through-egress-gateway",
        "Gateway default/istio-egressgateway",
    ];
    assert_lists(&explained, &objects);
}

#[test]
fn https_goes_through_the_egress_gateway_as_it_is() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(CNN), service::http);
    let yaml = format!("{}{}", task!("cnn-entry"), task!("egress-gateway-https"));
    let gateway = Gateway::builder().host(CNN).resources(on_ports(&yaml, &[("HTTPS", upstream.port())])).start();
    assert!(https(&gateway, CNN, &authority).is_ok());
    let line = gateway.log().first();
    assert_eq!((line.server_name.as_str(), line.flags.as_str()), (CNN, "-"));
    assert_eq!(line.upstream_cluster, "outbound|443||edition.cnn.com");
    assert_lists(&explained(&gateway, "https://edition.cnn.com"), &["Gateway default/istio-egressgateway"]);
}

#[test]
fn the_egress_gateway_originates_tls() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(CNN), service::http);
    let yaml = format!("{}{}", task!("cnn-entry"), task!("gateway-origination"));
    let yaml = on_ports(&yaml, &[("HTTPS", upstream.port())]);
    let gateway = Gateway::builder().host(CNN).trust(&authority).resources(yaml).start();
    assert_eq!(gateway.client().get(CNN, "/politics").status, 200);
    assert_eq!(gateway.log().first().upstream_cluster, "outbound|443||edition.cnn.com");
    assert_eq!(upstream.seen().counts().server_names, [CNN]);
    let explained = explained(&gateway, "http://edition.cnn.com/politics");
    assert!(explained.contains("tls        SIMPLE\n"), "{explained}");
    assert_lists(&explained, &["DestinationRule default/originate-tls-for-edition-cnn-com"]);
}

#[test]
fn the_egress_gateway_originates_mutual_tls() {
    let (upstream, builder) = mutual();
    let yaml = on_ports(task!("gateway-mutual-origination"), &[("HTTPS", upstream.port())]);
    let gateway = builder.resources(yaml).start();
    assert_eq!(gateway.client().get(NGINX, "/").status, 200);
    assert_eq!(gateway.log().first().upstream_cluster, format!("outbound|443||{NGINX}"));
}

/// An upstream for every name below wikipedia.org that the tests ask for.
fn wikipedia(authority: &Authority) -> Upstream {
    Upstream::tls(&authority.issue("*.wikipedia.org"), service::http)
}

#[test]
fn wildcard_hosts_pass_directly() {
    let authority = Authority::new();
    let upstream = wikipedia(&authority);
    for yaml in [task!("wildcard-direct"), task!("wildcard-dynamic")] {
        let protocol = if yaml.contains("HTTPS") { "HTTPS" } else { "TLS" };
        let yaml = on_ports(&format!("{yaml}\n"), &[(protocol, upstream.port())]);
        let gateway = Gateway::builder().host("en.wikipedia.org").host("de.wikipedia.org").resources(yaml).start();
        assert!(https(&gateway, "en.wikipedia.org", &authority).is_ok());
        assert!(https(&gateway, "de.wikipedia.org", &authority).is_ok());
        assert!(https(&gateway, "wikipedia.org", &authority).is_err());
    }
}

/// One server serves all names: the gateway leads every one of them to it.
#[test]
fn wildcard_hosts_of_one_set_of_servers_go_through_the_egress_gateway() {
    let authority = Authority::new();
    let upstream = wikipedia(&authority);
    let yaml = on_ports(task!("wildcard-gateway"), &[("HTTPS", upstream.port())]);
    let gateway = Gateway::builder().host("www.wikipedia.org").resources(yaml).start();
    assert!(https(&gateway, "en.wikipedia.org", &authority).is_ok());
    assert!(https(&gateway, "de.wikipedia.org", &authority).is_ok());
    assert!(https(&gateway, "en.wikipedia.com", &authority).is_err());
    let lines = gateway.log().wait_for_count(3);
    let line = lines.iter().find(|line| line.server_name == "en.wikipedia.org").expect("a line of its own");
    assert_eq!((line.upstream_cluster.as_str(), line.flags.as_str()), ("outbound|443||www.wikipedia.org", "-"));
}

#[test]
fn a_policy_on_the_server_name_narrows_what_a_wildcard_opens() {
    let authority = Authority::new();
    let upstream = wikipedia(&authority);
    let yaml = format!("{}{}", task!("wildcard-gateway"), task!("sni-policy"));
    let yaml = on_ports(&yaml, &[("HTTPS", upstream.port())]);
    let gateway = Gateway::builder().host("www.wikipedia.org").resources(yaml).start();
    assert!(https(&gateway, "en.wikipedia.org", &authority).is_ok());
    assert!(https(&gateway, "de.wikipedia.org", &authority).is_err());
    let lines = gateway.log().wait_for_count(2);
    let denied = lines.iter().find(|line| line.server_name == "de.wikipedia.org").expect("a line of its own");
    assert!(denied.termination.starts_with("rbac_access_denied"), "{}", denied.termination);
}
