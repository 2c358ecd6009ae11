//! Objects of several namespaces: which DestinationRule holds, and whose VirtualService.

use super::*;

fn within(namespace: &str, text: &str) -> String {
    text.replace("metadata: {", &format!("metadata: {{namespace: {namespace}, "))
}

/// A rule that is told by its balancer.
fn rule(namespace: &str, host: &str, balance: &str) -> String {
    let spec = format!("{{host: '{host}', trafficPolicy: {{loadBalancer: {{simple: {balance}}}}}}}");
    within(namespace, &object("DestinationRule", "r", &spec))
}

fn balance(resources: &[String]) -> Balance {
    let service = within("shop", &entry("a", "a.example.com", HTTP, DNS));
    http_cluster(&load(&[service, resources.concat()].concat()), 80, "a.example.com").balance
}

#[test]
fn rules_are_looked_up_in_the_clients_the_services_and_the_root_namespace() {
    let host = "a.example.com";
    let (client, service) = (rule("default", host, "RANDOM"), rule("shop", host, "ROUND_ROBIN"));
    let (root, other) = (rule("istio-system", host, "LEAST_REQUEST"), rule("other", host, "ROUND_ROBIN"));
    assert_eq!(balance(&[other.clone(), root.clone(), service.clone(), client]), Balance::Random);
    assert_eq!(balance(&[other.clone(), root.clone(), service]), Balance::RoundRobin);
    assert_eq!(balance(&[other.clone(), root]), Balance::LeastRequest);
    assert_eq!(balance(&[other]), Balance::RoundRobin);
}

#[test]
fn the_first_namespace_with_any_rule_ends_the_search_even_for_a_wildcard() {
    let wide = rule("shop", "*.example.com", "RANDOM");
    let narrow = rule("istio-system", "a.example.com", "ROUND_ROBIN");
    assert_eq!(balance(&[narrow.clone(), wide.clone()]), Balance::Random);
    let service = within("shop", &entry("a", "a.example.com", HTTP, DNS));
    assert_eq!(findings(&[service, narrow, wide].concat()), warning("IST0109", "metadata.namespace"));
}

#[test]
fn rules_of_one_namespace_unite_and_a_second_subset_of_a_name_is_discarded() {
    let subset = |name: &str, balance: &str| {
        let policy = format!("trafficPolicy: {{loadBalancer: {{simple: {balance}}}}}");
        object("DestinationRule", name, &format!("{{host: a.example.com, subsets: [{{name: v1, {policy}}}]}}"))
    };
    let route = "{hosts: [a.example.com], http: [{route: [{destination: {host: a.example.com, subset: v1}}]}]}";
    let a = [entry("a", "a.example.com", HTTP, DNS), object("VirtualService", "a", route)].concat();
    let text = [a, subset("r", "RANDOM"), subset("s", "ROUND_ROBIN")].concat();
    assert_eq!(http_cluster(&load(&text), 80, "a.example.com").balance, Balance::Random);
    assert_eq!(findings(&text), warning("IST0109", "spec.subsets[0]"));
}

#[test]
fn the_oldest_virtual_service_of_any_namespace_has_a_host() {
    let answer = |status: u16| format!("{{hosts: [a.example.com], http: [{{directResponse: {{status: {status}}}}}]}}");
    let old = "creationTimestamp: '2024-01-01T00:00:00Z', ";
    let young = within("b", &object("VirtualService", "v", &answer(201)));
    let older =
        within("c", &object("VirtualService", "v", &answer(202))).replace("metadata: {", &format!("metadata: {{{old}"));
    let loaded = load(&[entry("a", "a.example.com", HTTP, DNS), young, older].concat());
    match &http(&loaded, 80, "a.example.com").expect("listed").routes[0].action {
        HttpAction::Respond(response) => assert_eq!(response.status, 202),
        HttpAction::Forward(_) | HttpAction::Redirect(_) => panic!("forwarded"),
    }
}

#[test]
fn objects_keep_their_order_when_many_threads_decode_them() {
    let count = 2_000;
    let port = |index: usize| format!("{{number: 80, name: http, protocol: HTTP, targetPort: {}}}", 1_000 + index);
    let entries: String =
        (0..count).map(|index| entry(&format!("e{index}"), "a.example.com", &port(index), DNS)).collect();
    let broken = "---\nkind: [\n";
    let loaded = load(&entries);
    assert_eq!(http_cluster(&loaded, 80, "a.example.com").endpoints, dns("a.example.com", 1_000));
    let names: Vec<_> = loaded.objects.iter().map(|object| object.object.name().to_string()).collect();
    assert_eq!(names, (0..count).map(|index| format!("e{index}")).collect::<Vec<_>>());
    let findings = Files::new(&[broken, &entries, broken].concat()).load(&mut Loader::default()).expect_err("broken");
    let lines: Vec<_> = findings.iter().filter(|it| it.code == "PC0002").map(|it| it.source.as_str()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let number = |source: &str| source.rsplit(':').next().and_then(|line| line.parse::<usize>().ok());
    assert!(number(lines[0]) < number(lines[1]), "{lines:?}");
}
