//! From files to findings or a configuration. Plain blocking code; knows Istio, knows no runtime.
//!
//! ```text
//! portcullis.yaml ─ bootstrap ─┐
//! resources.d/*   ─ load ──────┼─ validate (each object, then across objects) ─ compile ─▶ Loaded
//! certificates    ─────────────┘                    └─▶ findings, all at once
//! ```

pub mod bootstrap;
pub mod finding;
pub mod fuzz;
pub mod istio;
pub mod load;
pub mod registry;
pub mod validate;
pub mod written;

mod compile;
mod credentials;
mod delegate;
mod identity;
mod local;
mod mesh;
mod position;
#[cfg(test)]
mod tests;
mod yaml;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::route::table::{ObjectRef, RouteTable};
use crate::route::termination::{Termination, TlsServer};
use crate::snapshot::Settings;

use bootstrap::Bootstrap;
use finding::{Finding, Report};
use identity::{Generation, Store};
use istio::Objects;
use registry::Registry;
use written::Written;

/// Loads configurations. Lives as long as the process: it remembers which clusters and TLS profiles were the same
/// in earlier generations, so that their pools and sessions survive a reload.
#[derive(Debug, Default)]
pub struct Loader {
    store: Store,
}

/// A configuration that may take force.
#[derive(Debug)]
pub struct Loaded {
    /// The bootstrap file.
    pub bootstrap: Bootstrap,
    /// Hosts, routes, clusters, policies.
    pub routes: RouteTable,
    /// What sessions look at.
    pub settings: Arc<Settings>,
    /// Every Istio object that is in force, for the admin endpoints and `get`.
    pub objects: Vec<LoadedObject>,
    /// When the certificates end that the operator named.
    pub certificates: Vec<CertificateEnd>,
    /// Warnings and infos.
    pub findings: Vec<Finding>,
}

/// The end of a certificate, for the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEnd {
    /// The host of the service that it is for; of a server's certificate its Gateway, as `namespace/name`.
    pub service: Box<str>,
    /// `client`, or `ca`; of a server `server`, or `client-ca`.
    pub kind: &'static str,
    /// The first moment at which it is not valid any more.
    pub end: std::time::SystemTime,
}

/// An Istio object as it was loaded.
#[derive(Clone, Debug)]
pub struct LoadedObject {
    /// Which.
    pub object: Arc<ObjectRef>,
    /// The whole document, with the operator's spelling.
    pub document: Written,
    /// `metadata.creationTimestamp`, which files written by hand have not.
    pub created: Option<Box<jiff::Timestamp>>,
}

impl Loader {
    /// Loads the bootstrap file, the resources it names and the certificates that they name.
    ///
    /// # Errors
    /// All findings, at least one of which is an error.
    pub fn load(&mut self, config: &Path) -> Result<Loaded, Vec<Finding>> {
        let mut report = Report::default();
        match Bootstrap::read(config, &mut report) {
            Some((bootstrap, settings)) => self.load_resources(bootstrap, settings, report),
            None => Err(report.into_findings()),
        }
    }

    /// Loads the bootstrap file, with these resources in place of its own.
    ///
    /// # Errors
    /// All findings, at least one of which is an error.
    pub fn load_with(&mut self, config: &Path, paths: &[PathBuf]) -> Result<Loaded, Vec<Finding>> {
        let mut report = Report::default();
        match Bootstrap::read(config, &mut report) {
            Some((bootstrap, settings)) => {
                let bootstrap = Bootstrap { resources: paths.to_vec(), ..bootstrap };
                self.load_resources(bootstrap, settings, report)
            }
            None => Err(report.into_findings()),
        }
    }

    /// Loads Istio files and folders without a bootstrap file: its defaults hold, and there is no listener.
    ///
    /// # Errors
    /// All findings, at least one of which is an error.
    pub fn load_paths(&mut self, paths: &[PathBuf]) -> Result<Loaded, Vec<Finding>> {
        let (bootstrap, settings) = Bootstrap::without_file(paths);
        self.load_resources(bootstrap, settings, Report::default())
    }

    fn load_resources(
        &mut self,
        mut bootstrap: Bootstrap,
        mut settings: Settings,
        mut report: Report,
    ) -> Result<Loaded, Vec<Finding>> {
        let errors_before = report.error_count();
        let mut objects = Objects::read(&bootstrap.resources, &mut report);
        // Without the objects that could not be read, what refers to them only looks wrong.
        let is_complete = report.error_count() == errors_before;
        let mesh = mesh::settle(&objects, &mut bootstrap, &mut settings, &mut report);
        validate::validate(&objects, &mut report);
        let delegated = delegate::is_used(&objects);
        if delegated {
            // Findings are about the objects as they are written.
            if is_complete {
                let registry = Registry::new(&objects, &mesh.root_namespace, &bootstrap.gateway_services);
                validate::analyze::analyze(&objects, &registry, &bootstrap, &settings, &mut report);
            }
            delegate::expand(&mut objects, &mut report);
        }
        let registry = Registry::new(&objects, &mesh.root_namespace, &bootstrap.gateway_services);
        if is_complete && delegated {
            validate::analyze::delegated(&objects, &registry, &mut report);
        } else if is_complete {
            validate::analyze::analyze(&objects, &registry, &bootstrap, &settings, &mut report);
        }
        let mut generation = Generation::after(&self.store);
        let routes = compile::compile(&objects, &registry, &bootstrap, &settings, &mesh, &mut generation, &mut report);
        if report.error_count() > 0 {
            return Err(report.into_findings());
        }
        self.store = generation.finish();
        let documents = std::mem::take(&mut objects.documents);
        let findings = report.into_findings();
        let certificates = certificates(&routes);
        Ok(Loaded { bootstrap, routes, settings: Arc::new(settings), objects: documents, certificates, findings })
    }
}

/// The ends of all certificates, one per service and kind: the first.
fn certificates(routes: &RouteTable) -> Vec<CertificateEnd> {
    let profiles = routes.tables.clusters.iter().filter_map(|cluster| {
        let profile = cluster.tls.as_ref()?.profile.as_ref().ok()?;
        Some((Box::<str>::from(cluster.name.service()), [("ca", profile.roots_end), ("client", profile.identity_end)]))
    });
    let terminations = routes.tables.tls_servers.iter().filter_map(TlsServer::termination);
    let servers = terminations.map(|Termination { gateway, profile, .. }| {
        let roots_end = profile.clients.as_ref().and_then(|check| check.roots_end);
        let name = format!("{}/{}", gateway.namespace(), gateway.name());
        (name.into(), [("server", profile.identity_end), ("client-ca", roots_end)])
    });
    let mut first: std::collections::BTreeMap<(Box<str>, _), _> = std::collections::BTreeMap::new();
    for (service, ends) in profiles.chain(servers) {
        for (kind, end) in ends.into_iter().filter_map(|(kind, end)| Some((kind, end?))) {
            let known = first.entry((service.clone(), kind)).or_insert(end);
            *known = end.min(*known);
        }
    }
    first.into_iter().map(|((service, kind), end)| CertificateEnd { service, kind, end }).collect()
}
