//! Every sample in `config/` loads, and says what its comments promise.

use std::path::{Path, PathBuf};

use portcullis::config::bootstrap::AdminBind;
use portcullis::config::finding::Severity;
use portcullis::config::{Loaded, Loader};
use portcullis::limits::Limits;
use portcullis::snapshot::{AccessLog, Outbound};
use serde::Deserialize;
use serde_yaml::Value;

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

/// The objects of the Kubernetes sample.
fn kubernetes() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("kubernetes/daemonset.yaml")).expect("the sample");
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents.map(|document| Value::deserialize(document).expect("YAML")).collect()
}

#[test]
fn the_kubernetes_sample_mounts_a_configuration_that_loads() {
    let objects = kubernetes();
    let of = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).collect::<Vec<_>>();
    let pod = &of("DaemonSet")[0]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let list = |value: &Value| value.as_sequence().expect("a list").clone();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    // As kubelet would mount the ConfigMaps.
    let root = tempfile::tempdir().expect("a temporary folder");
    let inside = |path: &str| root.path().join(path.trim_start_matches('/'));
    for volume in list(&pod["volumes"]) {
        let mounts = list(&container["volumeMounts"]);
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).expect("every volume is mounted");
        let folder = inside(&text(&mount["mountPath"]));
        std::fs::create_dir_all(&folder).expect("created");
        let maps = of("ConfigMap");
        let map = maps.iter().find(|map| map["metadata"]["name"] == volume["configMap"]["name"]);
        for (file, content) in map.expect("every ConfigMap is there")["data"].as_mapping().expect("files") {
            std::fs::write(folder.join(text(file)), text(content)).expect("written");
        }
    }
    let arguments = list(&container["args"]);
    assert_eq!(arguments[..2], ["run", "--config"]);
    let loaded = Loader::default().load(&inside(&text(&arguments[2])));
    let loaded = loaded.unwrap_or_else(|findings| panic!("{findings:#?}"));
    assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    assert!(loaded.routes.tls(443, &"www.googleapis.com".parse().expect("a name")).is_some());
    assert!(loaded.bootstrap.watch, "a ConfigMap that changes is not followed by a signal");
    let probe = &container["readinessProbe"]["httpGet"];
    let admin = format!("{}:{}", text(&probe["host"]), probe["port"].as_u64().expect("a port"));
    assert_eq!(loaded.bootstrap.admin, AdminBind::Tcp(admin.parse().expect("an address")));
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(loaded.bootstrap.drain_timeout.as_secs() < grace);
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
