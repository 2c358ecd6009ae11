//! Istio objects as admin shows them: what a table needs, and the whole document without secrets.

use serde_json::{Value, json};

use crate::config::LoadedObject;

/// The kinds that have a path of their own: `/serviceentries` shows `ServiceEntry`.
pub(crate) const KINDS: [(&str, &str); 5] = [
    ("serviceentries", "ServiceEntry"),
    ("virtualservices", "VirtualService"),
    ("destinationrules", "DestinationRule"),
    ("gateways", "Gateway"),
    ("authorizationpolicies", "AuthorizationPolicy"),
];

/// Keys whose values may be secrets: header values that a route sets, mostly.
const SECRETS: [&str; 9] = [
    "authorization",
    "cookie",
    "set-cookie",
    "token",
    "password",
    "secret",
    "api-key",
    "apikey",
    // The whole object once more, as one text.
    "last-applied-configuration",
];

/// What a secret is replaced with.
const REDACTED: &str = "[redacted]";

/// All objects of a kind.
pub(super) fn list(objects: &[LoadedObject], kind: &str) -> Value {
    objects.iter().filter(|object| object.object.kind == kind).map(summary).collect()
}

/// Everything that is in force.
pub(super) fn dump(objects: &[LoadedObject]) -> Value {
    let full = |object: &LoadedObject| {
        json!({
            "kind": object.object.kind,
            "namespace": object.object.namespace(),
            "name": object.object.name(),
            "source": object.object.source().to_string(),
            "created": object.created.as_ref().map(|time| time.to_string()),
            "document": document(object),
        })
    };
    objects.iter().map(full).collect()
}

fn summary(object: &LoadedObject) -> Value {
    let document = document(object);
    let spec = &document["spec"];
    json!({
        "name": object.object.name(),
        "namespace": object.object.namespace(),
        "hosts": hosts(spec),
        "ports": ports(spec),
        "resolution": spec["resolution"],
        "created": object.created.as_ref().map(|time| time.to_string()),
        "source": object.object.source().to_string(),
        "document": document,
    })
}

/// `hosts` of a ServiceEntry or VirtualService, `host` of a DestinationRule, `servers[].hosts` of a Gateway.
fn hosts(spec: &Value) -> Vec<Value> {
    if let Some(hosts) = spec["hosts"].as_array() {
        return hosts.clone();
    }
    if spec["host"].is_string() {
        return vec![spec["host"].clone()];
    }
    each(&spec["servers"]).flat_map(|server| each(&server["hosts"])).cloned().collect()
}

/// `443/TLS` for each port of a ServiceEntry or server of a Gateway.
fn ports(spec: &Value) -> Vec<String> {
    let servers = each(&spec["servers"]).map(|server| &server["port"]);
    each(&spec["ports"]).chain(servers).map(port).collect()
}

fn port(port: &Value) -> String {
    match port["protocol"].as_str() {
        Some(protocol) => format!("{}/{protocol}", port["number"]),
        None => port["number"].to_string(),
    }
}

fn each(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// The document as JSON; null if YAML says what JSON cannot (keys that are no texts).
fn document(object: &LoadedObject) -> Value {
    let mut document = serde_json::to_value(&object.document).unwrap_or_default();
    redact(&mut document, false);
    document
}

/// `is_named`: a key above says so, as that of a condition does (`authorization: {exact: …}`).
fn redact(value: &mut Value, is_named: bool) {
    match value {
        Value::Object(fields) => {
            // The condition of a policy names its field in a value.
            let is_about = fields.get("key").and_then(Value::as_str).is_some_and(is_secret);
            for (key, value) in fields.iter_mut().filter(|(key, _)| *key != "key") {
                redact(value, is_named || is_about || is_secret(key));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, is_named)),
        Value::String(text) if is_named || text.contains("PRIVATE KEY-----") => *text = REDACTED.to_owned(),
        Value::Number(_) | Value::Bool(_) if is_named => *value = REDACTED.into(),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret(key: &str) -> bool {
    SECRETS.iter().any(|secret| key.to_ascii_lowercase().contains(secret))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::route::table::{ObjectRef, Place};

    fn object(kind: &'static str, yaml: &str) -> LoadedObject {
        LoadedObject {
            object: Arc::new(ObjectRef::new(kind, "default", "a", Place::new(Arc::new("a.yaml".to_owned()), 1))),
            document: serde_yaml::from_str(yaml).unwrap(),
            created: Some(Box::new("2026-03-01T08:15:30Z".parse().unwrap())),
        }
    }

    #[test]
    fn a_service_entry_shows_hosts_ports_resolution_and_age() {
        let entry = object(
            "ServiceEntry",
            "spec: {hosts: [a.example, '*.b.example'], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}",
        );
        let other = object("Gateway", "spec: {}");
        let listed = list(&[other, entry], "ServiceEntry");
        assert_eq!(listed.as_array().unwrap().len(), 1);
        assert_eq!(listed[0]["hosts"], json!(["a.example", "*.b.example"]));
        assert_eq!(listed[0]["ports"], json!(["443/TLS"]));
        assert_eq!(listed[0]["resolution"], "DNS");
        assert_eq!(listed[0]["created"], "2026-03-01T08:15:30Z");
        assert_eq!(listed[0]["document"]["spec"]["ports"][0]["name"], "tls");
    }

    #[test]
    fn other_kinds_show_their_hosts_too() {
        let rule = object("DestinationRule", "spec: {host: a.example}");
        assert_eq!(list(&[rule], "DestinationRule")[0]["hosts"], json!(["a.example"]));
        let gateway = object("Gateway", "spec: {servers: [{port: {number: 443, protocol: TLS}, hosts: [b.example]}]}");
        let listed = list(&[gateway], "Gateway");
        assert_eq!((&listed[0]["hosts"], &listed[0]["ports"]), (&json!(["b.example"]), &json!(["443/TLS"])));
    }

    #[test]
    fn secrets_are_not_shown() {
        let service = object(
            "VirtualService",
            "spec: {http: [{headers: {request: {set: {Authorization: Bearer x, x-team: blue}}}}], \
             note: \"-----BEGIN PRIVATE KEY-----\\nMII\"}",
        );
        let text = dump(&[service]).to_string();
        assert!(!text.contains("Bearer") && !text.contains("MII"), "{text}");
        assert!(text.contains("blue"), "{text}");
    }

    #[test]
    fn secrets_are_not_shown_however_deep_they_lie() {
        let service = object(
            "VirtualService",
            "spec: {http: [{match: [{headers: {authorization: {exact: hunter-1}, x-team: {exact: blue}}}], \
             route: [{headers: {request: {add: {x-api-key: 12345}}}}], \
             fault: {abort: {tokens: [[hunter-2, {deep: hunter-3}], true]}}}]}",
        );
        let policy = object(
            "AuthorizationPolicy",
            "spec: {rules: [{when: [{key: 'request.headers[Cookie]', values: [hunter-4], notValues: [hunter-5]}, \
             {key: source.ip, values: [192.0.2.1]}]}]}",
        );
        let annotated = object(
            "ServiceEntry",
            "metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: '{\"hunter-6\": 1}'}}",
        );
        let objects = [service, policy, annotated];
        let listed =
            ["VirtualService", "AuthorizationPolicy", "ServiceEntry"].map(|kind| list(&objects, kind).to_string());
        for text in [dump(&objects).to_string(), listed.concat()] {
            assert!(!text.contains("hunter") && !text.contains("12345"), "{text}");
            assert!(text.contains("blue") && text.contains("192.0.2.1"), "{text}");
            assert!(text.contains("request.headers[Cookie]"), "what is looked at is no secret: {text}");
        }
    }
}
