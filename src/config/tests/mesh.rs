//! MeshConfig among the resources, Sidecars, and who has the last word.

use std::time::Duration;

use super::*;
use crate::route::http::RetryPolicy;
use crate::route::path::Normalization;
use crate::snapshot::{AccessLog, Outbound};

const OPERATOR: &str = "---\napiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  profile: minimal\n  meshConfig:\n    accessLogFile: /dev/stderr\n    accessLogEncoding: JSON\n    outboundTrafficPolicy: {mode: ALLOW_ANY}\n    enableTracing: true\n    defaultHttpRetryPolicy: {attempts: 0}\n";
const CONFIG_MAP: &str = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |-\n    connectTimeout: 3s\n    path_normalization: {normalization: MERGE_SLASHES}\n    rootNamespace: mesh\n  meshNetworks: 'networks: {}'\n";
const PLAIN: &str = "---\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\naccessLogFile: ''\n";

fn sidecar(name: &str, spec: &str) -> String {
    object("Sidecar", name, spec)
}

fn with_bootstrap(resources: &str, mesh: &str) -> Loaded {
    let files = Files::new(resources);
    let bootstrap =
        format!("listeners: [{{name: a, bind: '127.0.0.1:1'}}]\nresources: [resources.yaml]\nmeshConfig: {mesh}\n");
    files.write("portcullis.yaml", &bootstrap);
    Loader::default().load(&files.path("portcullis.yaml")).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

fn retry(loaded: &Loaded) -> &RetryPolicy {
    match &http(loaded, 80, "a.example.com").expect("listed").routes[0].action {
        HttpAction::Forward(forward) => &forward.retry,
        HttpAction::Respond(_) | HttpAction::Redirect(_) => panic!("not forwarded"),
    }
}

#[test]
fn every_form_of_a_mesh_config_is_read() {
    let a = entry("a", "a.example.com", HTTP, DNS);
    let loaded = load(&[&a, OPERATOR, CONFIG_MAP].concat());
    let settings = &loaded.settings;
    assert_eq!((settings.outbound, settings.access_log), (Outbound::AllowAny, AccessLog::Json));
    assert_eq!(loaded.bootstrap.access_log_file, Some(PathBuf::from("/dev/stderr")));
    assert_eq!(settings.connect_timeout, Duration::from_secs(3));
    assert_eq!(http_cluster(&loaded, 80, "a.example.com").connect_timeout, Duration::from_secs(3));
    assert_eq!(settings.normalization, Normalization::MergeSlashes);
    assert_eq!(retry(&loaded).attempts, 0);
    // What is about the mesh is named, what opens everything is a warning.
    let fields: Vec<_> = loaded.findings.iter().map(|it| (it.severity, it.code, it.field.as_str())).collect();
    assert!(fields.contains(&(Severity::Info, "PC0004", "spec.meshConfig.enableTracing")), "{fields:?}");
    assert!(fields.contains(&(Severity::Warning, "PC0016", "spec.meshConfig.outboundTrafficPolicy")), "{fields:?}");
}

#[test]
fn a_later_mesh_config_overrides_an_earlier_one_field_by_field() {
    let loaded = load(&[OPERATOR, PLAIN].concat());
    assert_eq!((loaded.settings.outbound, loaded.settings.access_log), (Outbound::RegistryOnly, AccessLog::Off));
    assert_eq!(loaded.bootstrap.access_log_file, None);
    assert_eq!(load(&[PLAIN, OPERATOR].concat()).settings.access_log, AccessLog::Json);
}

#[test]
fn the_bootstrap_file_has_the_last_word() {
    let a = entry("a", "a.example.com", HTTP, "resolution: DNS");
    let explicit =
        "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}, accessLogFile: log, defaultHttpRetryPolicy: {attempts: 1}}";
    let loaded = with_bootstrap(&[&a, OPERATOR, CONFIG_MAP].concat(), explicit);
    assert_eq!((loaded.settings.outbound, loaded.settings.access_log), (Outbound::RegistryOnly, AccessLog::Json));
    assert!(loaded.bootstrap.access_log_file.as_ref().is_some_and(|file| file.ends_with("log")));
    assert_eq!((retry(&loaded).attempts, loaded.settings.connect_timeout), (1, Duration::from_secs(3)));
    // Without a word there, the resources decide; an empty policy is Istio's zero value.
    assert_eq!(with_bootstrap(OPERATOR, "{}").settings.outbound, Outbound::AllowAny);
    assert_eq!(with_bootstrap(OPERATOR, "{outboundTrafficPolicy: {}}").settings.outbound, Outbound::RegistryOnly);
}

#[test]
fn a_sidecar_comes_before_mesh_config_and_the_closing_one_wins() {
    let any = sidecar("any", "{outboundTrafficPolicy: {mode: ALLOW_ANY}}");
    let only = sidecar("only", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ['*/*']}]}");
    assert_eq!(load(&[PLAIN, &any].concat()).settings.outbound, Outbound::AllowAny);
    assert_eq!(load(&[OPERATOR, &only].concat()).settings.outbound, Outbound::RegistryOnly);
    assert_eq!(load(&[&*any, &only].concat()).settings.outbound, Outbound::RegistryOnly);
    assert_eq!(load(&[&*only, &any].concat()).settings.outbound, Outbound::RegistryOnly);
}

#[test]
fn what_cannot_be_enforced_of_them_is_refused() {
    let any = "outboundTrafficPolicy: {mode: ALLOW_ANY}";
    for (text, field) in [
        (sidecar("a", &format!("{{workloadSelector: {{labels: {{app: a}}}}, {any}}}")), "spec.workloadSelector"),
        (sidecar("a", "{egress: [{hosts: ['*/a.example.com']}]}"), "spec.egress[0].hosts[0]"),
        (sidecar("a", "{egress: [{hosts: ['~/*']}]}"), "spec.egress[0].hosts[0]"),
        (sidecar("a", "{egress: [{port: {number: 80}, hosts: ['*/*']}]}"), "spec.egress[0].port"),
        (
            sidecar("a", "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a}}}"),
            "spec.outboundTrafficPolicy.egressProxy",
        ),
        ("accessLogFormat: '%HOSTNAME%'\n".to_owned(), "accessLogFormat"),
        ("tlsDefaults: {minProtocolVersion: TLSV1_1}\n".to_owned(), "tlsDefaults.minProtocolVersion"),
        ("tlsDefaults: {cipherSuites: [AES128-SHA]}\n".to_owned(), "tlsDefaults.cipherSuites"),
        ("tlsDefaults: {ecdhCurves: [P-521]}\n".to_owned(), "tlsDefaults.ecdhCurves"),
        (OPERATOR.replace("mode: ALLOW_ANY", "mode: ANY"), "spec.meshConfig.outboundTrafficPolicy.mode"),
        (CONFIG_MAP.replace("3s", "3"), "data.mesh.connectTimeout"),
        (OPERATOR.replace("attempts: 0", "attempts: -1"), "spec.meshConfig.defaultHttpRetryPolicy.attempts"),
    ] {
        let errors: Vec<_> = findings(&text).into_iter().filter(|(it, ..)| *it == Severity::Error).collect();
        assert_eq!(errors.iter().map(|(.., field)| field.as_str()).collect::<Vec<_>>(), [field], "{text}");
    }
}

#[test]
fn other_config_maps_are_skipped() {
    let other = CONFIG_MAP.replace("name: istio,", "name: other,");
    let loaded = load(&other);
    assert_eq!(loaded.settings.connect_timeout, Duration::from_secs(10));
    assert!(loaded.findings.iter().any(|it| it.code == "PC0005"));
}

#[test]
fn a_log_format_means_the_encoding_that_stands_beside_it() {
    let load = |text: &str| load(text).settings.clone();
    let text = load("accessLogFormat: '%PROTOCOL%'\n");
    assert_eq!((text.access_log, text.log_format.is_some()), (AccessLog::Custom, true));
    assert_eq!(load("accessLogFormat: ''\naccessLogEncoding: JSON\n").access_log, AccessLog::Json);
    assert!(
        findings("accessLogFormat: '%PROTOCOL%'\naccessLogEncoding: JSON\n").iter().any(|it| it.2 == "accessLogFormat")
    );
}
