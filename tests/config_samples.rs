//! Every sample in `config/` loads, and says what its comments promise.

use std::path::{Path, PathBuf};

use portcullis::config::finding::Severity;
use portcullis::config::{Loaded, Loader};
use portcullis::limits::Limits;
use portcullis::snapshot::{AccessLog, Outbound};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn load(sample: &str) -> Loaded {
    let path = folder().join(sample);
    Loader::default().load(&path).unwrap_or_else(|findings| panic!("{sample}: {findings:#?}"))
}

/// The bootstrap files under `config/`.
fn samples() -> Vec<String> {
    let mut samples = vec!["portcullis.yaml".to_owned()];
    for entry in std::fs::read_dir(folder()).expect("the samples").map(|entry| entry.expect("an entry")) {
        if entry.path().join("portcullis.yaml").is_file() {
            samples.push(format!("{}/portcullis.yaml", entry.file_name().display()));
        }
    }
    samples
}

#[test]
fn every_sample_loads() {
    let samples = samples();
    assert!(samples.len() >= 3, "{samples:?}");
    for sample in samples {
        assert!(!load(&sample).objects.is_empty(), "{sample}");
    }
}

#[test]
fn the_passthrough_sample_opens_one_name_on_the_tls_listener() {
    let loaded = load("passthrough/portcullis.yaml");
    assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    let host = "www.googleapis.com".parse().expect("a name");
    let port = loaded.bootstrap.listeners[0].service.fixed().expect("traffic is not captured");
    assert!(loaded.routes.tls(port, &host).is_some());
    assert!(loaded.routes.tls(port, &"example.com".parse().expect("a name")).is_none());
    assert_eq!(loaded.settings.outbound, Outbound::RegistryOnly);
}

#[test]
fn the_origination_sample_opens_plain_http_and_warns_of_double_encryption() {
    let loaded = load("origination/portcullis.yaml");
    let codes: Vec<_> = loaded.findings.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"PC0009"), "{codes:?}");
    let host = "www.googleapis.com".parse().expect("a name");
    assert!(loaded.routes.http(80, &host).is_some());
}

#[test]
fn the_egress_gateway_sample_leads_both_protocols_through_its_gateway() {
    let loaded = load("egress-gateway/portcullis.yaml");
    let host = "edition.cnn.com".parse().expect("a name");
    assert!(loaded.routes.http(80, &host).is_some() && loaded.routes.tls(443, &host).is_some());
    assert!(loaded.routes.gateway_http(80, &host).is_some() && loaded.routes.gateway_tls(443, &host).is_some());
    let warnings: Vec<_> = loaded.findings.iter().filter(|finding| finding.severity == Severity::Warning).collect();
    // A client that speaks TLS is not encrypted twice, which Istio would do.
    assert!(warnings.iter().all(|finding| finding.code == "PC0009"), "{warnings:?}");
}

#[test]
fn the_reference_shows_the_defaults() {
    let reference = load("portcullis.yaml");
    let shortest = load("passthrough/portcullis.yaml");
    assert_eq!(reference.settings.limits, Limits::default());
    assert_eq!(reference.settings.access_log, AccessLog::Text);
    assert_eq!(reference.settings.connect_timeout, shortest.settings.connect_timeout);
    assert_eq!(reference.settings.normalization, shortest.settings.normalization);
    let (reference, shortest) = (reference.bootstrap, shortest.bootstrap);
    assert_eq!((reference.workers, reference.driver), (shortest.workers, shortest.driver));
    assert_eq!((reference.watch, reference.dns), (shortest.watch, shortest.dns));
    assert_eq!((reference.admin, reference.drain_timeout), (shortest.admin, shortest.drain_timeout));
    assert_eq!(reference.access_log_file, shortest.access_log_file);
}

#[test]
fn the_capture_sample_opens_names_and_addresses() {
    let loaded = load("capture/portcullis.yaml");
    assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    assert_eq!(loaded.bootstrap.listeners[0].service.fixed(), None);
    assert!(loaded.routes.tls(443, &"en.wikipedia.org".parse().expect("a name")).is_some());
    let tcp = |port, address: &str| {
        let address = address.parse().expect("an address");
        loaded.routes.tcp(port, Some(address)).map(|found| found.host.host.to_string())
    };
    assert_eq!(tcp(3128, "192.0.2.10").as_deref(), Some("my-company-proxy.com"));
    assert_eq!(tcp(3306, "198.51.100.200").as_deref(), Some("orders.db.example"));
    assert_eq!(tcp(3306, "192.0.2.10"), None);
}
