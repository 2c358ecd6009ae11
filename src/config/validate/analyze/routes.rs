//! VirtualServices among themselves and with the services.

use crate::config::finding::{Report, code};
use crate::config::istio::virtual_service::VirtualService;
use crate::config::istio::{Object, Objects, Scope};
use crate::config::registry::{HostIndex, Registry, is_mesh};
use crate::route::host::HostPattern;

/// Hosts that another VirtualService has already, and hosts that no ServiceEntry opens.
pub(super) fn hosts(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    for object in objects.virtual_services.iter().filter(|object| is_mesh(&object.spec.gateways)) {
        for (index, host) in object.spec.hosts.iter().enumerate() {
            let Ok(pattern) = HostPattern::parse(host) else { continue };
            let field = format!("spec.hosts[{index}]");
            let scope = &mut Scope::new(&object.origin, report);
            conflict(object, &pattern, &registry.http, &field, scope);
            conflict(object, &pattern, &registry.tls, &field, scope);
            undeclared(object, &pattern, registry, &field, scope);
        }
    }
}

/// Rules for one host are not merged: the oldest VirtualService has it.
fn conflict(
    object: &Object<VirtualService>,
    pattern: &HostPattern,
    owners: &HostIndex<&Object<VirtualService>>,
    field: &str,
    scope: &mut Scope<'_>,
) {
    let Some(owner) = owners.exact(pattern) else { return };
    let is_rival = (!object.spec.http.is_empty() && !owner.spec.http.is_empty())
        || (!object.spec.tls.is_empty() && !owner.spec.tls.is_empty());
    if is_rival && !std::ptr::eq(*owner, object) {
        let by = &owner.origin.object;
        let message = format!(
            "host {pattern} is routed by VirtualService {}/{} ({}) already; this one is ignored for it",
            by.namespace, by.name, by.source
        );
        scope.warning(code::CONFLICT, field, message);
    }
}

fn undeclared(
    object: &Object<VirtualService>,
    pattern: &HostPattern,
    registry: &Registry<'_>,
    field: &str,
    scope: &mut Scope<'_>,
) {
    let services = &registry.services;
    if services.declared(pattern).is_some()
        || services.covering(pattern).next().is_some()
        || services.any_below(pattern)
    {
        return;
    }
    if !object.spec.tls.is_empty() {
        let message = format!("no ServiceEntry declares {pattern}: its tls routes never match");
        scope.warning(code::NOT_FOUND, field, message);
    }
    if !object.spec.http.is_empty() {
        let message = format!("no ServiceEntry declares {pattern}: it is served on port 80 only");
        scope.warning(code::NOT_FOUND, field, message);
    }
}

/// A rule without conditions takes every request; the rules after it get none.
pub(super) fn dead_rules(objects: &Objects, report: &mut Report) {
    for object in &objects.virtual_services {
        let catch_all = object.spec.http.iter().position(|rule| rule.matches.is_empty());
        let Some(catch_all) = catch_all else { continue };
        for dead in catch_all + 1..object.spec.http.len() {
            let message = format!("virtualService rule #{dead} not used (route without matches defined before)");
            Scope::new(&object.origin, report).warning(code::DEAD_RULE, format!("spec.http[{dead}]"), message);
        }
    }
}
