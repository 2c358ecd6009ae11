//! What Istio would refuse, in its words, and what this gateway cannot enforce, by name.
//!
//! One file per kind judges each object by itself; [`analyze`] judges what objects say about each other. Nothing stops
//! at the first finding.

pub mod analyze;
pub mod authorization_policy;
mod destination_rule;
mod host;
mod http;
mod service_entry;
mod sidecar;
mod virtual_service;

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
    for object in &objects.sidecars {
        sidecar::validate(&object.spec, &mut Scope::new(&object.origin, report));
    }
    for object in &objects.authorization_policies {
        authorization_policy::validate(&object.spec, &mut Scope::new(&object.origin, report));
    }
}

/// `exportTo` of any kind: one namespace here, so all but `~` on a ServiceEntry is without effect.
fn export_to(export_to: &[String], scope: &mut Scope<'_>) {
    let everywhere = export_to.iter().any(|target| target == "*");
    if everywhere && export_to.len() > 1 {
        scope.error("spec.exportTo", "cannot have both * and namespace names in exportTo");
    }
    if export_to.iter().any(|target| target != "*" && target != "~") {
        let message = "every object is visible to this gateway, whatever namespaces exportTo names";
        scope.info(super::finding::code::UNSUPPORTED, "spec.exportTo", message);
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
