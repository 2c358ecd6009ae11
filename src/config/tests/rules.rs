//! DestinationRules: policies of subsets, certificates, and what survives a reload.

use super::*;

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
    assert_eq!(subset.name.as_str(), "outbound|80|v1|a.example.com");
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
