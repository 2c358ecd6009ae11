//! From text to tables: what a configuration comes to.

mod closed;
mod gateways;
mod mesh;
mod namespaces;
mod secrets;
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
        Destination::Gateway(port) => panic!("a Gateway on {port}"),
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
    Endpoints::Dns(vec![DnsEndpoint { name: name.parse().expect("a valid name"), port, weight: 1 }])
}

const PASSTHROUGH: &str = include_str!("../../config/passthrough/resources.d/googleapis.yaml");
const ORIGINATION: &str = include_str!("../../config/origination/resources.d/googleapis.yaml");

#[test]
fn the_passthrough_sample_routes_by_sni() {
    let loaded = load(PASSTHROUGH);
    let cluster = tls_cluster(&loaded, 443, "www.googleapis.com");
    assert_eq!(&*cluster.name, "outbound|443||www.googleapis.com");
    assert_eq!(cluster.endpoints, dns("www.googleapis.com", 443));
    assert!(cluster.tls.is_none());
    assert!(tls(&loaded, 443, "googleapis.com").is_none());
    assert!(http(&loaded, 443, "www.googleapis.com").is_none());
    assert_eq!(tls(&loaded, 443, "www.googleapis.com").expect("listed").objects.len(), 2);
}

#[test]
fn the_origination_sample_opens_tls_for_plain_http_only() {
    let loaded = load(ORIGINATION);
    let originated = http_cluster(&loaded, 80, "www.googleapis.com");
    assert_eq!(originated.endpoints, dns("www.googleapis.com", 443));
    let tls = originated.tls.as_ref().expect("TLS");
    assert_eq!(tls.sni, None);
    // A machine without system roots is a reason not to connect, never one not to verify.
    if let Ok(profile) = &tls.profile {
        assert_eq!(profile.verify, VerifyName::Sni);
        assert!(!profile.roots.is_empty());
    }
    // portLevelSettings replaces the policy of the destination, ROUND_ROBIN included.
    assert_eq!(originated.balance, Balance::LeastRequest);
    assert!(tls_cluster(&loaded, 443, "www.googleapis.com").tls.is_none());
}

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

#[test]
fn both_spellings_all_versions_and_lists_are_the_same() {
    let snake = PASSTHROUGH.replace("v1alpha3", "v1beta1");
    let camel = PASSTHROUGH.replace("sni_hosts", "sniHosts").replace("v1alpha3", "v1");
    let items: String =
        PASSTHROUGH.split("---\n").map(|item| format!("- {}\n", item.trim_end().replace('\n', "\n  "))).collect();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{items}");
    for text in [snake, camel, list] {
        let loaded = load(&text);
        assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
        assert_eq!(tls_cluster(&loaded, 443, "www.googleapis.com").endpoints, dns("www.googleapis.com", 443));
        assert_eq!(loaded.objects.len(), 2);
    }
}

#[test]
fn objects_of_a_list_know_their_own_lines() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n- apiVersion: networking.istio.io/v1\n  kind: ServiceEntry\n  metadata:\n    name: a\n  spec:\n    hosts:\n    - '*'\n    ports: []\n";
    let findings = Files::new(text).load(&mut Loader::default()).expect_err("a bad host");
    let at = |code: &str| {
        let finding = findings.iter().find(|finding| finding.code == code).expect("a finding");
        finding.source.rsplit_once(':').map(|(_, line)| line.to_owned())
    };
    assert_eq!(at("PC0005").as_deref(), Some("4"));
    assert_eq!(at("IST0106").as_deref(), Some("12"));
}

#[test]
fn a_port_without_protocol_takes_both_and_tcp_neither() {
    let ports = "{number: 8443, name: any}, {number: 9000, name: tcp, protocol: TCP}";
    let loaded = load(&entry("a", "a.example.com", ports, DNS));
    assert!(http(&loaded, 8443, "a.example.com").is_some());
    assert!(tls(&loaded, 8443, "a.example.com").is_some());
    assert!(http(&loaded, 9000, "a.example.com").is_none() && tls(&loaded, 9000, "a.example.com").is_none());
    assert_eq!(loaded.findings[0].code, "PC0017");
}

#[test]
fn wildcards_and_names_without_resolution_dial_what_was_matched() {
    let loaded = load(
        &[entry("w", "*.example.com", HTTPS, "resolution: DYNAMIC_DNS"), entry("n", "www.example.net", HTTPS, "")]
            .concat(),
    );
    assert_eq!(tls_cluster(&loaded, 443, "a.b.example.com").endpoints, Endpoints::Requested { port: 443 });
    assert_eq!(tls_cluster(&loaded, 443, "www.example.net").endpoints, dns("www.example.net", 443));
    assert!(tls(&loaded, 443, "example.com").is_none());
}

#[test]
fn endpoints_have_the_port_of_their_map_else_the_target_port() {
    let rest =
        "resolution: STATIC, endpoints: [{address: 192.0.2.1, ports: {https: 8443}, weight: 3}, {address: 192.0.2.2}]";
    let ports = "{number: 443, name: https, protocol: HTTPS, targetPort: 9443}";
    let loaded = load(&entry("a", "a.example.com", ports, rest));
    let endpoint = |address: &str, weight| StaticEndpoint { address: address.parse().expect("an address"), weight };
    assert_eq!(
        tls_cluster(&loaded, 443, "a.example.com").endpoints,
        Endpoints::Static(vec![endpoint("192.0.2.1:8443", 3), endpoint("192.0.2.2:9443", 1)])
    );
}

#[test]
fn entries_for_one_host_unite_their_ports_and_the_oldest_has_a_port() {
    let first = entry("one", "a.example.com", HTTP, DNS);
    let second = entry(
        "two",
        "a.example.com",
        &format!("{HTTPS}, {{number: 80, name: h, protocol: HTTP, targetPort: 81}}"),
        DNS,
    );
    let text = [first, second].concat();
    let loaded = load(&text);
    assert_eq!(http_cluster(&loaded, 80, "a.example.com").endpoints, dns("a.example.com", 80));
    assert!(tls(&loaded, 443, "a.example.com").is_some());
    assert_eq!(findings(&text), warning("IST0109", "spec.ports"));
}

#[test]
fn an_object_replaces_an_earlier_one_of_the_same_name() {
    let text = [entry("a", "a.example.com", HTTP, DNS), entry("a", "b.example.com", HTTP, DNS)].concat();
    let loaded = load(&text);
    assert!(http(&loaded, 80, "a.example.com").is_none());
    assert!(http(&loaded, 80, "b.example.com").is_some());
    assert_eq!(loaded.objects.len(), 1);
    assert_eq!(findings(&text), warning("PC0006", "metadata.name"));
}

#[test]
fn entries_that_are_exported_to_nobody_open_nothing() {
    let loaded = load(&entry("a", "a.example.com", HTTP, "resolution: DNS, exportTo: ['~']"));
    assert!(http(&loaded, 80, "a.example.com").is_none());
}

#[test]
fn the_oldest_virtual_service_of_a_host_routes_it_alone() {
    let service = |name: &str, created: &str, status: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, creationTimestamp: {created}}}\nspec: {{hosts: [a.example.com], http: [{{name: {name}, directResponse: {{status: {status}}}}}]}}\n"
        )
    };
    let text = [
        entry("a", "a.example.com", HTTP, DNS),
        service("younger", "2024-02-01T00:00:00Z", 404),
        service("older", "2024-01-01T00:00:00Z", 403),
    ]
    .concat();
    let loaded = load(&text);
    let host = http(&loaded, 80, "a.example.com").expect("listed");
    assert_eq!(host.routes.len(), 1);
    assert_eq!(&*host.routes[0].name, "older");
    assert_eq!(findings(&text), warning("IST0109", "spec.hosts[0]"));
}

#[test]
fn rules_for_another_port_or_gateway_are_no_catch_all() {
    let service = "{hosts: [a.example.com], http: [{match: [{port: 81}], directResponse: {status: 200}}, {match: [{gateways: [other]}], directResponse: {status: 201}}, {match: [{scheme: {exact: https}}], directResponse: {status: 202}}]}";
    let loaded = load(&[entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "a", service)].concat());
    assert!(http(&loaded, 80, "a.example.com").expect("listed").routes.is_empty());
}

#[test]
fn a_wildcard_virtual_service_covers_entries_and_opens_nothing_else() {
    let service = "{hosts: ['*.example.com'], http: [{directResponse: {status: 403}}], tls: [{match: [{sniHosts: ['*.example.com']}], route: [{destination: {host: a.example.com}}]}]}";
    let ports = format!("{HTTP}, {HTTPS}");
    let loaded = load(&[entry("a", "a.example.com", &ports, DNS), object("VirtualService", "v", service)].concat());
    let host = http(&loaded, 80, "a.example.com").expect("listed");
    assert!(matches!(host.routes[0].action, HttpAction::Respond(_)));
    assert!(tls(&loaded, 443, "a.example.com").is_some());
    for other in ["b.example.com", "a.a.example.com"] {
        assert!(http(&loaded, 80, other).is_none() && tls(&loaded, 443, other).is_none(), "{other}");
    }
}

#[test]
fn a_virtual_service_below_a_wildcard_entry_takes_its_ports() {
    let service = "{hosts: [a.example.com], http: [{directResponse: {status: 403}}]}";
    let ports = "{number: 8080, name: http, protocol: HTTP}";
    let wildcard = entry("w", "*.example.com", ports, "resolution: DYNAMIC_DNS");
    let loaded = load(&[wildcard, object("VirtualService", "v", service)].concat());
    let routed = http(&loaded, 8080, "a.example.com").expect("listed");
    assert!(matches!(routed.routes[0].action, HttpAction::Respond(_)));
    assert_eq!(http_cluster(&loaded, 8080, "b.example.com").endpoints, Endpoints::Requested { port: 8080 });
    assert!(http(&loaded, 80, "a.example.com").is_none());
}

#[test]
fn a_virtual_service_without_an_entry_is_served_on_port_80_only() {
    let service =
        "{hosts: [alias.example.com], http: [{route: [{destination: {host: a.example.com, port: {number: 80}}}]}]}";
    let text = [entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "v", service)].concat();
    let loaded = load(&text);
    assert_eq!(http_cluster(&loaded, 80, "alias.example.com").endpoints, dns("a.example.com", 80));
    assert!(tls(&loaded, 443, "alias.example.com").is_none() && http(&loaded, 443, "alias.example.com").is_none());
    assert_eq!(findings(&text), warning("IST0101", "spec.hosts[0]"));
}

#[test]
fn a_foreign_name_is_never_led_to_a_service_that_dials_the_requested_name() {
    let service = "{hosts: [evil.example.net], http: [{route: [{destination: {host: '*.example.com'}}]}]}";
    let wildcard = entry("w", "*.example.com", HTTP, "resolution: DYNAMIC_DNS");
    let loaded = load(&[wildcard, object("VirtualService", "v", service)].concat());
    let host = http(&loaded, 80, "evil.example.net").expect("listed");
    assert_eq!(destination(&host.routes[0]), Destination::Missing);
}

#[test]
fn names_of_a_routed_wildcard_that_no_rule_names_have_no_route() {
    let service = "{hosts: ['*.example.com'], tls: [{match: [{port: 443, sniHosts: [a.example.com]}], route: [{destination: {host: '*.example.com'}}]}]}";
    let wildcard = entry("w", "*.example.com", HTTPS, "resolution: DYNAMIC_DNS");
    let loaded = load(&[wildcard, object("VirtualService", "v", service)].concat());
    assert!(tls(&loaded, 443, "a.example.com").expect("listed").route.is_some());
    assert!(tls(&loaded, 443, "b.example.com").expect("listed").route.is_none());
}

#[test]
fn a_destination_that_does_not_exist_is_missing_and_reported() {
    for (destination, field) in [
        ("{host: other.example.com}", "host"),
        ("{host: a.example.com, port: {number: 81}}", "port.number"),
        ("{host: a.example.com, subset: v1}", "subset"),
    ] {
        let service = format!("{{hosts: [a.example.com], http: [{{route: [{{destination: {destination}}}]}}]}}");
        let text = [entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "v", &service)].concat();
        let loaded = load(&text);
        let host = http(&loaded, 80, "a.example.com").expect("listed");
        assert_eq!(self::destination(&host.routes[0]), Destination::Missing, "{destination}");
        assert_eq!(findings(&text), warning("IST0101", &format!("spec.http[0].route[0].destination.{field}")));
    }
}

#[test]
fn the_policy_of_a_subset_overrides_part_by_part() {
    let rule = "{host: a.example.com, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {connectTimeout: 3s}}}, subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]}";
    let service = "{hosts: [a.example.com], http: [{match: [{uri: {prefix: /v1}}], route: [{destination: {host: a.example.com, subset: v1}}]}, {route: [{destination: {host: a.example.com}}]}]}";
    let rest = "resolution: STATIC, endpoints: [{address: 192.0.2.1, labels: {version: v1}}, {address: 192.0.2.2}]";
    let text = [
        entry("a", "a.example.com", HTTP, rest),
        object("DestinationRule", "d", rule),
        object("VirtualService", "v", service),
    ]
    .concat();
    let loaded = load(&text);
    let host = http(&loaded, 80, "a.example.com").expect("listed");
    let [subset, all] = [0, 1].map(|index| cluster(&loaded, destination(&host.routes[index])));
    assert_eq!(&*subset.name, "outbound|80|v1|a.example.com");
    assert_eq!((subset.balance, subset.connect_timeout.as_secs()), (Balance::RoundRobin, 3));
    assert_eq!((all.balance, all.connect_timeout.as_secs()), (Balance::Random, 3));
    let count = |cluster: &Cluster| {
        let Endpoints::Static(endpoints) = &cluster.endpoints else { panic!("{:?}", cluster.endpoints) };
        endpoints.len()
    };
    assert_eq!((count(subset), count(all)), (1, 2));
    assert_ne!(subset.pool, all.pool);
}

#[test]
fn weights_are_shares_and_a_lone_destination_needs_none() {
    let service = "{hosts: [a.example.com], http: [{route: [{destination: {host: a.example.com}, weight: 3}, {destination: {host: b.example.com}, weight: 1}]}]}";
    let text = [
        entry("a", "a.example.com", HTTP, DNS),
        entry("b", "b.example.com", HTTP, DNS),
        object("VirtualService", "v", service),
    ]
    .concat();
    let loaded = load(&text);
    let host = http(&loaded, 80, "a.example.com").expect("listed");
    let HttpAction::Forward(forward) = &host.routes[0].action else { panic!("not forwarded") };
    assert_eq!(forward.clusters.iter().map(|(_, weight)| weight).collect::<Vec<_>>(), [3, 1]);
    assert!(
        findings(&text.replace("weight: 3", "weight: 0").replace("weight: 1", "weight: 0"))
            .iter()
            .any(|(severity, ..)| *severity == Severity::Error)
    );
}

#[test]
fn credentials_that_are_missing_close_one_cluster_and_no_other() {
    let rule = "{host: a.example.com, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: nowhere.pem}}}";
    let text = [
        entry("a", "a.example.com", HTTP, DNS),
        entry("b", "b.example.com", HTTP, DNS),
        object("DestinationRule", "d", rule),
    ]
    .concat();
    let loaded = load(&text);
    let tls = http_cluster(&loaded, 80, "a.example.com").tls.as_ref().expect("TLS");
    assert!(tls.profile.as_ref().is_err_and(|reason| reason.contains("nowhere.pem")));
    assert!(http_cluster(&loaded, 80, "b.example.com").tls.is_none());
    assert_eq!(findings(&text), warning("PC0007", "spec.trafficPolicy.tls"));
}

/// A self-signed authority in PEM form, and its key.
fn authority() -> (String, String) {
    let certified = rcgen::generate_simple_self_signed(["client.example.com".to_owned()]).expect("a certificate");
    (certified.cert.pem(), certified.signing_key.serialize_pem())
}

fn mutual(files: &Files) -> std::sync::Arc<crate::route::cluster::TlsProfile> {
    let loaded = files.load(&mut Loader::default()).expect("valid");
    let tls = http_cluster(&loaded, 80, "a.example.com").tls.as_ref().expect("TLS");
    tls.profile.clone().unwrap_or_else(|reason| panic!("{reason}"))
}

#[test]
fn mutual_tls_reads_its_identity_from_files_relative_to_the_rule() {
    let rule = "{host: a.example.com, trafficPolicy: {tls: {mode: MUTUAL, caCertificates: ca.pem, clientCertificate: c.pem, privateKey: k.pem, subjectAltNames: [x.example.com]}}}";
    let files = Files::new(&[entry("a", "a.example.com", HTTP, DNS), object("DestinationRule", "d", rule)].concat());
    let (certificate, key) = authority();
    files.write("ca.pem", &certificate);
    files.write("c.pem", &certificate);
    files.write("k.pem", &key);
    let profile = mutual(&files);
    assert_eq!(profile.verify, VerifyName::AnyOf(smallvec::smallvec!["x.example.com".into()]));
    assert_eq!((profile.roots.len(), profile.identity.as_ref().map(|identity| identity.chain.len())), (1, Some(1)));
    files.write("k.pem", &authority().1);
    let loaded = files.load(&mut Loader::default()).expect("valid");
    let tls = http_cluster(&loaded, 80, "a.example.com").tls.as_ref().expect("TLS");
    assert!(tls.profile.is_err(), "a key that does not belong to the certificate");
}

#[test]
fn an_unchanged_cluster_keeps_its_pool_and_profile_and_a_changed_one_does_not() {
    let rule = "{host: a.example.com, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: ca.pem}}}";
    let text = [entry("a", "a.example.com", HTTP, DNS), object("DestinationRule", "d", rule)].concat();
    let files = Files::new(&text);
    files.write("ca.pem", &authority().0);
    let mut loader = Loader::default();
    let mut reload = || {
        let loaded = files.load(&mut loader).expect("valid");
        let cluster = http_cluster(&loaded, 80, "a.example.com");
        let profile = cluster.tls.as_ref().and_then(|tls| tls.profile.as_ref().ok()).map(|profile| profile.id);
        (cluster.pool, profile.expect("a profile"))
    };
    let first = reload();
    files.write("resources.yaml", &[entry("z", "z.example.com", HTTPS, DNS), text.clone()].concat());
    assert_eq!(reload(), first, "another object changed");
    files.write("resources.yaml", "spec: [");
    files.write("ca.pem", &authority().0);
    files.write("resources.yaml", &text);
    let changed = reload();
    assert!(changed.0 != first.0 && changed.1 != first.1, "the certificate changed");
}

#[test]
fn a_failed_load_forgets_nothing() {
    let text = entry("a", "a.example.com", HTTP, DNS);
    let files = Files::new(&text);
    let mut loader = Loader::default();
    let pool = |loaded: &Loaded| http_cluster(loaded, 80, "a.example.com").pool;
    let first = pool(&files.load(&mut loader).expect("valid"));
    files.write("resources.yaml", "kind: [");
    assert!(files.load(&mut loader).is_err());
    files.write("resources.yaml", &text);
    assert_eq!(pool(&files.load(&mut loader).expect("valid")), first);
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    let a = entry("a", "a.example.com", HTTP, DNS);
    let route = "route: [{destination: {host: a.example.com}}]";
    let service =
        |http: &str| object("VirtualService", "v", &format!("{{hosts: [a.example.com], http: [{{{http}}}]}}"));
    let policy = |spec: &str| object("AuthorizationPolicy", "p", spec);
    let rule =
        |policy: &str| object("DestinationRule", "d", &format!("{{host: a.example.com, trafficPolicy: {policy}}}"));
    let cases = [
        (service(&format!("{route}, fault: {{abort: {{grpcStatus: A}}}}")), "spec.http[0].fault.abort.grpcStatus"),
        (
            service(&format!("{route}, headers: {{request: {{remove: [connection]}}}}")),
            "spec.http[0].headers.request.remove[0]",
        ),
        (
            service(&format!("{route}, headers: {{response: {{set: {{content-length: '0'}}}}}}")),
            "spec.http[0].headers.response.set.content-length",
        ),
        (
            service(&format!("{route}, headers: {{request: {{add: {{x-a: '%HOSTNAME%'}}}}}}")),
            "spec.http[0].headers.request.add.x-a",
        ),
        (service(&format!("{route}, match: [{{sourceLabels: {{a: b}}}}]")), "spec.http[0].match[0].sourceLabels"),
        (rule("{tunnel: {protocol: POST, targetHost: a, targetPort: 1}}"), "spec.trafficPolicy.tunnel.protocol"),
        (policy("{action: CUSTOM, rules: [{}]}"), "spec.action"),
        (policy("{rules: [{from: [{source: {principals: [a]}}]}]}"), "spec.rules[0].from[0].source.principals"),
        (policy("{rules: [{from: [{source: {not_namespaces: [a]}}]}]}"), "spec.rules[0].from[0].source.notNamespaces"),
        (policy("{rules: [{when: [{key: source.namespace, values: [a]}]}]}"), "spec.rules[0].when[0].key"),
        (
            policy("{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}"),
            "spec.targetRefs[0].kind",
        ),
    ];
    for (text, field) in cases {
        let found = findings(&[a.clone(), text.clone()].concat());
        assert!(found.contains(&(Severity::Error, "PC0004", field.to_owned())), "{text}{found:?}");
    }
}

#[test]
fn what_istio_refuses_is_an_error_with_its_field() {
    let service = |spec: &str| object("VirtualService", "v", spec);
    let cases = [
        (entry("a", "*", HTTP, DNS), "spec.hosts[0]"),
        (entry("a", "*a.example.com", HTTP, DNS), "spec.hosts[0]"),
        (entry("a", "*.example.com", HTTP, DNS), "spec.hosts[0]"),
        (entry("a", "a.example.com", HTTP, "resolution: DYNAMIC_DNS"), "spec.hosts[0]"),
        (entry("a", "a.example.com", "{number: 70000, name: http, protocol: HTTP}", DNS), "spec.ports[0].number"),
        (entry("a", "a.example.com", "{number: 80, name: http, protocol: FTP}", DNS), "spec.ports[0].protocol"),
        (entry("a", "a.example.com", "{number: x, name: http}", DNS), "spec.ports[0].number"),
        (entry("a", "a.example.com", HTTP, "resolution: SOMETIMES"), "spec.resolution"),
        (entry("a", "a.example.com", HTTP, "endpoints: [{address: 192.0.2.1}]"), "spec.endpoints"),
        (
            entry("a", "a.example.com", HTTP, "resolution: STATIC, endpoints: [{address: b}]"),
            "spec.endpoints[0].address",
        ),
        (service("{hosts: [a.example.com]}"), "spec"),
        (service("{hosts: ['*'], http: [{directResponse: {status: 200}}]}"), "spec.hosts[0]"),
        (
            service(
                "{hosts: [a.example.com], tls: [{match: [{sniHosts: [b.example.com]}], route: [{destination: {host: a.example.com}}]}]}",
            ),
            "spec.tls[0].match[0].sniHosts[0]",
        ),
        (
            service("{hosts: [a.example.com], http: [{match: [{uri: {regex: '('}}], directResponse: {status: 200}}]}"),
            "spec.http[0].match[0].uri",
        ),
        (
            object(
                "DestinationRule",
                "d",
                "{host: a.example.com, trafficPolicy: {tls: {mode: MUTUAL, privateKey: k}}}",
            ),
            "spec.trafficPolicy.tls.clientCertificate",
        ),
        (object("AuthorizationPolicy", "p", "{action: DENY}"), "spec.rules"),
        (
            object("AuthorizationPolicy", "p", "{rules: [{when: [{key: a.b, values: [c]}]}]}"),
            "spec.rules[0].when[0].key",
        ),
        (object("AuthorizationPolicy", "p", "{rules: [{to: [{operation: {}}]}]}"), "spec.rules[0].to[0].operation"),
    ];
    for (text, field) in cases {
        let found: Vec<_> = findings(&text).into_iter().filter(|(severity, ..)| *severity == Severity::Error).collect();
        assert_eq!(found, error("IST0106", field), "{text}");
    }
}

#[test]
fn unknown_fields_are_warnings_and_status_is_none() {
    let text = entry("a", "a.example.com", HTTP, "resolution: DNS, resolutoin: DNS");
    assert_eq!(findings(&text), warning("PC0003", "spec.resolutoin"));
    let status = format!("{}status: {{conditions: []}}\n", entry("a", "a.example.com", HTTP, DNS));
    assert_eq!(findings(&status), []);
}

#[test]
fn a_null_condition_never_widens_a_match() {
    let service = "{hosts: [a.example.com], http: [{match: [{headers: {x-key: }}], directResponse: {status: 200}}]}";
    let text = [entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "v", service)].concat();
    match Files::new(&text).load(&mut Loader::default()) {
        Err(findings) => assert_eq!(findings[0].field, "spec.http[0].match[0].headers.x-key"),
        Ok(loaded) => {
            let host = http(&loaded, 80, "a.example.com").expect("listed");
            assert_eq!(host.routes[0].matches[0].headers.len(), 1);
        }
    }
}

#[test]
fn routing_a_port_that_speaks_tls_in_the_clear_is_reported() {
    let without_rule = ORIGINATION.split("---\n").take(2).collect::<Vec<_>>().join("---\n");
    assert_eq!(findings(&without_rule), warning("PC0014", "spec.http[0].route[0].destination"));
    assert_eq!(findings(ORIGINATION), warning("PC0009", "spec.trafficPolicy.portLevelSettings[0].tls"));
}

#[test]
fn a_policy_without_rules_is_kept_because_it_refuses_everything() {
    let text = [entry("a", "a.example.com", HTTP, DNS), object("AuthorizationPolicy", "p", "{}")].concat();
    let loaded = load(&text);
    let authorization = &loaded.routes.tables.authorization;
    assert_eq!((authorization.allow.len(), authorization.deny.len()), (1, 0));
    assert!(authorization.allow[0].rules.is_empty());
}

#[test]
fn paths_in_routes_or_policies_turn_the_strict_path_rules_on() {
    let a = entry("a", "a.example.com", HTTP, DNS);
    assert!(!load(&a).routes.tables.path_policy);
    let policy = object("AuthorizationPolicy", "p", "{rules: [{to: [{operation: {not_paths: [/admin*]}}]}]}");
    assert!(load(&[a, policy].concat()).routes.tables.path_policy);
}

#[test]
fn objects_are_shown_as_they_were_written() {
    let item = PASSTHROUGH.split("---\n").nth(1).expect("the VirtualService").trim_end().replace('\n', "\n  ");
    for text in [PASSTHROUGH.to_owned(), format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n")] {
        let loaded = load(&text);
        let object = loaded.objects.last().expect("an object");
        let shown = serde_json::to_value(&object.document).expect("JSON");
        assert_eq!(shown["spec"]["tls"][0]["match"][0]["sni_hosts"][0], "www.googleapis.com");
        assert_eq!(shown["kind"], object.object.kind);
    }
}

#[test]
fn policies_that_do_not_hold_as_one_might_think_are_reported() {
    let a = entry("a", "a.example.com", HTTP, DNS);
    let rule = |name: &str| {
        object("DestinationRule", name, "{host: a.example.com, trafficPolicy: {loadBalancer: {simple: RANDOM}}}")
    };
    assert_eq!(findings(&[a.clone(), rule("one"), rule("two")].concat()), warning("IST0109", "spec.trafficPolicy"));
    let replaced = "{host: a.example.com, trafficPolicy: {tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}";
    let text = [a.clone(), object("DestinationRule", "d", replaced)].concat();
    assert_eq!(findings(&text), warning("PC0014", "spec.trafficPolicy.portLevelSettings[0]"));
    let deny = "{action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}";
    let text = [a, object("AuthorizationPolicy", "p", deny)].concat();
    assert_eq!(findings(&text), warning("PC0015", "spec.rules[0]"));
}
