//! What must not open more than was written, though each part of it is allowed by itself.

use super::*;

const DENY_ALL: &str = "spec: {action: DENY, rules: [{}]}";

fn delegating(root: &str, delegate: &str) -> String {
    entry("a", "a.com", HTTP, DNS)
        + &object(
            "VirtualService",
            "root",
            &format!("{{hosts: [a.com], http: [{{{root}, delegate: {{name: part}}}}]}}"),
        )
        + &object("VirtualService", "part", &format!("{{{delegate}}}"))
}

const TO_A: &str = "route: [{destination: {host: a.com}}]";

#[test]
fn a_delegate_that_fits_nowhere_leaves_its_host_without_routes() {
    let root = "match: [{uri: {prefix: /v1/}}]";
    let loaded = load(&delegating(root, &format!("http: [{{match: [{{uri: {{prefix: /api/}}}}], {TO_A}}}]")));
    let host = http(&loaded, 80, "a.com").expect("listed");
    let forwards = |route: &HttpRoute| matches!(&route.action, HttpAction::Forward(_)) && route.matches.is_empty();
    assert!(!host.routes.iter().any(forwards), "{:?}", host.routes);
    assert!(!host.routes.is_empty(), "no rule at all would be the default route");
}

#[test]
fn a_delegate_speaks_for_no_gateway_of_its_own() {
    let text = delegating("match: [{uri: {prefix: /}}]", &format!("gateways: [egress], http: [{{{TO_A}}}]"));
    let errors: Vec<_> = findings(&text).into_iter().filter(|(severity, ..)| *severity == Severity::Error).collect();
    assert!(errors.iter().any(|(_, _, field)| field == "spec.gateways"), "{errors:?}");
}

#[test]
fn a_kind_that_is_enforced_is_never_skipped_for_its_envelope() {
    for head in [
        "apiVersion: security.istio.io\nkind: AuthorizationPolicy",
        "apiVersion: v1\nkind: AuthorizationPolicy",
        "apiVersion: networking.istio.io/v1\nkind: AuthorizationPolicy",
        "apiVersion: security.istio.io/v1\nkind: authorizationpolicy",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList",
    ] {
        let text = format!("{head}\nmetadata: {{name: p}}\n{DENY_ALL}\n");
        let refused = Files::new(&text).load(&mut Loader::default());
        assert!(refused.is_err(), "{head}");
    }
    let foreign = "apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {}\n";
    assert!(findings(foreign).iter().all(|(severity, ..)| *severity != Severity::Error));
}

#[test]
fn a_carriage_return_ends_a_comment() {
    let policy = format!(
        "# deny all\rapiVersion: security.istio.io/v1\rkind: AuthorizationPolicy\rmetadata: {{name: p}}\r{DENY_ALL}\r"
    );
    assert_eq!(load(&policy).objects.iter().filter(|object| object.object.kind == "AuthorizationPolicy").count(), 1);
}
