//! What Istio would refuse, in its words, and what this gateway cannot enforce, by name.
//!
//! One file per kind judges each object by itself; [`analyze`] judges what objects say about each other. Nothing stops
//! at the first finding.

pub mod analyze;
pub mod authorization_policy;
mod destination_rule;
mod gateway;
mod host;
mod http;
mod service_entry;
mod sidecar;
mod traffic_policy;
mod virtual_service;

use std::time::Duration;

use super::finding::Report;
use super::istio::{Objects, Scope};

pub(super) use http::retry_faults;

/// Judges every object by itself.
pub fn validate(objects: &Objects, report: &mut Report) {
    for object in &objects.service_entries {
        service_entry::validate(&object.spec, &mut Scope::new(&object.origin, report));
    }
    for object in &objects.virtual_services {
        virtual_service::validate(&object.spec, &mut Scope::new(&object.origin, report));
    }
    for object in &objects.destination_rules {
        destination_rule::validate(&object.spec, &mut Scope::new(&object.origin, report));
    }
    for object in &objects.gateways {
        gateway::validate(&object.spec, &mut Scope::new(&object.origin, report));
    }
    for object in &objects.sidecars {
        sidecar::validate(&object.spec, &mut Scope::new(&object.origin, report));
    }
    for object in &objects.authorization_policies {
        authorization_policy::validate(&object.spec, &mut Scope::new(&object.origin, report));
    }
}

/// `exportTo` of any kind: one namespace here, so all but `~` on a ServiceEntry is without effect.
fn export_to(export_to: &[String], scope: &mut Scope<'_>) {
    let field = "spec.exportTo";
    let mut seen = std::collections::HashSet::new();
    for target in export_to {
        let namespace = if target == "." { scope.origin.object.namespace() } else { target };
        if !seen.insert(namespace.to_owned()) {
            scope.error(field, format!("duplicate entries in exportTo for entry {target}"));
        }
        let is_hiding = target == "~" && scope.origin.object.kind == "ServiceEntry";
        if !is_hiding && !matches!(target.as_str(), "." | "*") && !is_label(target) {
            let message = format!("only ., *, or a valid DNS 1123 label is allowed as exportTo entry: {target:?}");
            scope.error(field, message);
        }
    }
    let has = |word: &str| export_to.iter().any(|target| target == word);
    if has("*") && export_to.len() > 1 {
        scope.error(field, "cannot have both public (*) and non-public exportTo values for a resource");
    }
    if has("~") && export_to.len() > 1 {
        scope.error(field, "cannot export service entry to no one (~) and someone");
    }
    if export_to.iter().any(|target| target != "*" && target != "~") {
        let message = "every object is visible to this gateway, whatever namespaces exportTo names";
        scope.info(super::finding::code::UNSUPPORTED, "spec.exportTo", message);
    }
}

/// A DNS label (RFC 1123), as names of ports, subsets and namespaces are.
fn is_label(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(legal) && !name.starts_with('-') && !name.ends_with('-')
}

/// What is wrong with a duration beyond its syntax, in Istio's words.
fn duration_fault(duration: Duration, most: Duration) -> Option<String> {
    if duration < Duration::from_millis(1) {
        Some("duration must be greater than 1ms".to_owned())
    } else if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        Some("only durations to ms precision are supported".to_owned())
    } else if duration > most {
        Some(format!("duration must not be longer than {}s", most.as_secs()))
    } else {
        None
    }
}

/// A port number in a field.
fn port(number: Option<i64>, field: &str, scope: &mut Scope<'_>) -> Option<u16> {
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
    if port.is_none() {
        let number = number.unwrap_or(0);
        scope.error(field, format!("port number {number} must be in the range 1..65535"));
    }
    port
}
