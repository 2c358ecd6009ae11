//! Policies for services that get copies of requests.

use std::collections::HashMap;

use crate::config::finding::Report;
use crate::config::istio::authorization_policy::{Action, AuthorizationPolicy};
use crate::config::istio::virtual_service::VirtualService;
use crate::config::istio::{Object, Objects, Scope};
use crate::config::registry::{Registry, ServiceId};
use crate::route::host::HostPattern;

/// Policies are asked about the request, by the services of its host, and never about its copy. One that is for the mirror
/// and not for every host of its route would let copies pass to what it closes.
pub(super) fn policies(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    let in_force = objects.virtual_services.iter().filter(|object| registry.gateways.is_in_force(object));
    let mut mirroring = in_force.filter(|object| super::references::mirrors(&object.spec).next().is_some()).peekable();
    if mirroring.peek().is_none() {
        return;
    }
    let judging = judging(objects, registry);
    for rules in mirroring {
        let own = own(&rules.spec, registry);
        for (field, mirror) in super::references::mirrors(&rules.spec) {
            let Some(id) = mirror.host.as_deref().and_then(|host| registry.services.named(host)) else { continue };
            for policy in judging.get(&id).into_iter().flatten() {
                let is_for = |id: &ServiceId| {
                    judging.get(id).is_some_and(|policies| policies.iter().any(|it| std::ptr::eq(*it, *policy)))
                };
                if own.iter().all(|host| host.as_ref().is_some_and(is_for)) {
                    continue;
                }
                let (namespace, name) = policy.origin.identity();
                let message = format!(
                    "AuthorizationPolicy {namespace}/{name} is for {} by targetRefs, and copies of requests are not asked \
                     about: let its targetRefs name the services of all hosts of this VirtualService as well, or mirror to \
                     another service",
                    registry.services.service(id).host
                );
                Scope::new(&rules.origin, report).refuse(format!("{field}.host"), message);
            }
        }
    }
}

/// The policies that are for a service by `targetRefs`, and do more than tell.
fn judging<'o>(
    objects: &'o Objects,
    registry: &Registry<'_>,
) -> HashMap<ServiceId, Vec<&'o Object<AuthorizationPolicy>>> {
    let mut entries: HashMap<(&str, &str), Vec<ServiceId>> = HashMap::new();
    for (id, service) in registry.services.iter() {
        for entry in service.objects.iter().filter(|it| it.kind == "ServiceEntry") {
            entries.entry((entry.namespace(), entry.name())).or_default().push(id);
        }
    }
    let mut judging: HashMap<ServiceId, Vec<&Object<AuthorizationPolicy>>> = HashMap::new();
    for policy in objects.authorization_policies.iter().filter(|it| it.spec.action != Some(Action::Audit)) {
        for target in policy.spec.target_refs.iter().chain(&policy.spec.target_ref) {
            let own = policy.origin.object.namespace();
            let namespace = target.namespace.as_deref().filter(|it| !it.is_empty()).unwrap_or(own);
            for id in entries.get(&(namespace, target.name.as_deref().unwrap_or_default())).into_iter().flatten() {
                let known = judging.entry(*id).or_default();
                if !known.iter().any(|it| std::ptr::eq(*it, policy)) {
                    known.push(policy);
                }
            }
        }
    }
    judging
}

/// By what services policies are asked about the requests of a VirtualService: one for each host that it may serve. `None`:
/// by no service.
fn own(rules: &VirtualService, registry: &Registry<'_>) -> Vec<Option<ServiceId>> {
    let services = &registry.services;
    let mut own = Vec::new();
    for pattern in rules.hosts.iter().filter_map(|host| HostPattern::parse(host).ok()) {
        let before = own.len();
        own.extend(services.below(&pattern).iter().copied().map(Some));
        match services.declared(&pattern) {
            Some(id) => own.push(Some(id)),
            None => own.extend(services.covering(&pattern).map(Some)),
        }
        if own.len() == before {
            own.push(None);
        }
    }
    own
}
