//! What objects say about each other: dangling references, conflicts, dead rules, surprises. Warnings, except where
//! a destination is the gateway itself.

mod gateways;
mod mirrors;
mod origination;
mod paths;
mod references;
mod routes;
mod services;

use crate::config::bootstrap::Bootstrap;
use crate::config::finding::{Report, Severity, code};
use crate::config::istio::Objects;
use crate::config::registry::Registry;
use crate::snapshot::Settings;

/// Judges the objects together.
pub fn analyze(
    objects: &Objects,
    registry: &Registry<'_>,
    bootstrap: &Bootstrap,
    settings: &Settings,
    report: &mut Report,
) {
    if objects.service_entries.is_empty() && objects.virtual_services.is_empty() {
        let source = bootstrap.resources.first().map(|path| path.display().to_string()).unwrap_or_default();
        report.file(Severity::Warning, code::EMPTY, source, "no ServiceEntry: nothing is allowed");
    }
    services::conflicts(registry, report);
    services::resolved_here(objects, report);
    paths::of_policies(objects, settings.normalization, report);
    paths::of_routes(objects, settings.normalization, report);
    services::listeners(registry, bootstrap, report);
    services::capture(objects, bootstrap, report);
    services::tcp_conflicts(registry, report);
    services::own_addresses(objects, registry, bootstrap, settings, report);
    references::destinations(objects, registry, report);
    references::rules(objects, registry, report);
    references::labels(objects, registry, report);
    references::targets(objects, report);
    mirrors::policies(objects, registry, report);
    gateways::analyze(objects, registry, report);
    gateways::listeners(registry, bootstrap, report);
    gateways::conflicts(objects, report);
    gateways::tcp_conflicts(objects, registry, report);
    gateways::policies(objects, registry, bootstrap, report);
    routes::hosts(objects, registry, report);
    routes::dead_rules(objects, report);
    origination::double_encryption(registry, report);
    origination::server_names(objects, registry, bootstrap, report);
    origination::system_roots(objects, registry, bootstrap, report);
    origination::plain_text(objects, registry, report);
}

/// Judges what has only come together by delegation.
pub fn delegated(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    gateways::delegated(objects, registry, report);
    mirrors::policies(objects, registry, report);
}
