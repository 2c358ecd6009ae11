//! What objects say about each other: dangling references, conflicts, dead rules, surprises. Warnings, except where
//! a destination is the gateway itself.

use crate::config::bootstrap::Bootstrap;
use crate::config::finding::Report;
use crate::config::istio::Objects;
use crate::config::registry::Registry;
use crate::route::table::RouteTable;
use crate::snapshot::Settings;

/// Judges the objects together.
pub fn analyze(
    objects: &Objects,
    registry: &Registry<'_>,
    bootstrap: &Bootstrap,
    settings: &Settings,
    report: &mut Report,
) {
    let _ = (objects, registry, bootstrap, settings, report);
}

/// Judges what the objects came to.
pub fn analyze_routes(routes: &RouteTable, bootstrap: &Bootstrap, settings: &Settings, report: &mut Report) {
    let _ = (routes, bootstrap, settings, report);
}
