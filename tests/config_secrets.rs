//! A Secret among the resources is what the gateway shows to an upstream, and is shown to nobody else.

mod support;

use support::certificates::Authority;
use support::gateway::Gateway;
use support::resources;
use support::service;
use support::upstream::Upstream;

const HOST: &str = "api.example.com";

fn secret(name: &str, values: &[(&str, &str)]) -> String {
    let block = |(key, text): &(&str, &str)| format!("  {key}: |\n    {}\n", text.trim_end().replace('\n', "\n    "));
    let values: String = values.iter().map(block).collect();
    format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n{values}")
}

#[test]
fn a_secret_verifies_an_upstream_and_is_never_shown() {
    let authority = Authority::new();
    let upstream = Upstream::tls(&authority.issue(HOST), service::http);
    let entry = resources::http_entry("api", HOST, upstream.port());
    let rule = resources::destination_rule("api", HOST, "      mode: SIMPLE\n      credentialName: api\n");
    let good = secret("api-cacert", &[("cacert", authority.pem())]);
    let gateway = Gateway::builder().host(HOST).resources([&*entry, &rule, &good].concat()).start();
    assert_eq!(gateway.client().get(HOST, "/").status, 200);

    let line = authority.pem().lines().nth(1).expect("a line of base64").to_owned();
    for path in ["/config_dump", "/serviceentries", "/destinationrules", "/server_info", "/metrics"] {
        let answer = gateway.ask(path).expect("admin answers");
        assert!(!answer.text().contains(&line) && !answer.text().contains("stringData"), "{path}: {}", answer.text());
    }

    // Another authority's Secret: the upstream is not trusted any more; without any, the cluster is not available.
    gateway.reload(&[&*entry, &rule, &secret("api-cacert", &[("cacert", Authority::new().pem())])].concat());
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    gateway.reload(&[&*entry, &*rule].concat());
    assert_eq!(gateway.client().get(HOST, "/").status, 503);
    gateway.reload(&[&*entry, &*rule, &*good].concat());
    assert_eq!(gateway.client().get(HOST, "/").status, 200);
}
