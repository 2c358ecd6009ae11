//! The samples under `config/`, and the forms in which objects may come.

use super::*;

#[test]
fn the_passthrough_sample_routes_by_sni() {
    let loaded = load(PASSTHROUGH);
    let cluster = tls_cluster(&loaded, 443, "www.googleapis.com");
    assert_eq!(cluster.name.as_str(), "outbound|443||www.googleapis.com");
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
fn an_object_replaces_an_earlier_one_of_the_same_name() {
    let text = [entry("a", "a.example.com", HTTP, DNS), entry("a", "b.example.com", HTTP, DNS)].concat();
    let loaded = load(&text);
    assert!(http(&loaded, 80, "a.example.com").is_none());
    assert!(http(&loaded, 80, "b.example.com").is_some());
    assert_eq!(loaded.objects.len(), 1);
    assert_eq!(findings(&text), warning("PC0006", "metadata.name"));
}

#[test]
fn routing_a_port_that_speaks_tls_in_the_clear_is_reported() {
    let without_rule = ORIGINATION.split("---\n").take(2).collect::<Vec<_>>().join("---\n");
    assert_eq!(findings(&without_rule), warning("PC0014", "spec.http[0].route[0].destination"));
    assert_eq!(findings(ORIGINATION), warning("PC0009", "spec.trafficPolicy.portLevelSettings[0].tls"));
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
