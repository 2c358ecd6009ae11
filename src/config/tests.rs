//! From text to tables: what a configuration comes to.

mod closed;
mod gateway_tcp;
mod gateways;
mod mesh;
mod namespaces;
mod outbound;
mod refused;
mod routes;
mod rules;
mod samples;
mod secrets;
mod services;
mod tcp;
mod validation;

use std::path::PathBuf;

use super::finding::{Finding, Severity};
use super::{Loaded, Loader};
use crate::route::cluster::{Balance, Cluster, Destination, DnsEndpoint, Endpoints, StaticEndpoint, VerifyName};
use crate::route::http::{HttpAction, HttpRoute};
use crate::route::table::{TlsHost, VirtualHost};

/// A folder with one file of resources, gone at the end of the test.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(resources: &str) -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        files.write("resources.yaml", resources);
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self, loader: &mut Loader) -> Result<Loaded, Vec<Finding>> {
        loader.load_paths(&[self.path("resources.yaml")])
    }
}

fn load(resources: &str) -> Loaded {
    Files::new(resources).load(&mut Loader::default()).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

fn http<'a>(loaded: &'a Loaded, port: u16, host: &str) -> Option<&'a VirtualHost> {
    loaded.routes.http(port, &host.parse().expect("a valid name"))
}

fn tls<'a>(loaded: &'a Loaded, port: u16, host: &str) -> Option<&'a TlsHost> {
    loaded.routes.tls(port, &host.parse().expect("a valid name"))
}

fn cluster(loaded: &Loaded, destination: Destination) -> &Cluster {
    match destination {
        Destination::Cluster(id) => loaded.routes.cluster(id).expect("a cluster of the tables"),
        Destination::Gateway(port) | Destination::GatewayTcp(port) => panic!("a Gateway on {port}"),
        Destination::Missing => panic!("the destination does not exist"),
    }
}

fn destination(route: &HttpRoute) -> Destination {
    match &route.action {
        HttpAction::Forward(forward) => forward.clusters.pick(0),
        HttpAction::Respond(_) | HttpAction::Redirect(_) => panic!("not forwarded"),
    }
}

/// The cluster of the first route of a host.
fn http_cluster<'a>(loaded: &'a Loaded, port: u16, host: &str) -> &'a Cluster {
    let host = http(loaded, port, host).expect("a virtual host");
    cluster(loaded, destination(&host.routes[0]))
}

fn tls_cluster<'a>(loaded: &'a Loaded, port: u16, host: &str) -> &'a Cluster {
    let host = tls(loaded, port, host).expect("a TLS host");
    cluster(loaded, host.route.as_ref().expect("a route").pick(0))
}

fn dns(name: &str, port: u16) -> Endpoints {
    Endpoints::Dns([DnsEndpoint { name: name.parse().expect("a valid name"), port, weight: 1 }].into())
}

const PASSTHROUGH: &str = include_str!("../../config/passthrough/resources.d/googleapis.yaml");
const ORIGINATION: &str = include_str!("../../config/origination/resources.d/googleapis.yaml");

/// A ServiceEntry named after its host's first label.
fn entry(name: &str, host: &str, ports: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{hosts: ['{host}'], ports: [{ports}], {rest}}}\n"
    )
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    let group = if kind == "AuthorizationPolicy" { "security" } else { "networking" };
    format!("---\napiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

const HTTP: &str = "{number: 80, name: http, protocol: HTTP}";
const HTTPS: &str = "{number: 443, name: https, protocol: HTTPS}";
const DNS: &str = "resolution: DNS";

/// Codes and fields of the warnings and errors.
fn findings(resources: &str) -> Vec<(Severity, &'static str, String)> {
    let loaded = Files::new(resources).load(&mut Loader::default());
    let findings = loaded.map_or_else(|findings| findings, |loaded| loaded.findings);
    let serious = findings.into_iter().filter(|finding| finding.severity != Severity::Info);
    serious.map(|finding| (finding.severity, finding.code, finding.field)).collect()
}

fn error(code: &'static str, field: &str) -> Vec<(Severity, &'static str, String)> {
    vec![(Severity::Error, code, field.to_owned())]
}

fn warning(code: &'static str, field: &str) -> Vec<(Severity, &'static str, String)> {
    vec![(Severity::Warning, code, field.to_owned())]
}

/// A self-signed authority in PEM form, and its key.
fn authority() -> (String, String) {
    let certified = rcgen::generate_simple_self_signed(["client.example.com".to_owned()]).expect("a certificate");
    (certified.cert.pem(), certified.signing_key.serialize_pem())
}
