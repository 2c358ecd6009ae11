//! From files to findings or a configuration. Plain blocking code; knows Istio, knows no runtime.
//!
//! ```text
//! portcullis.yaml ─ bootstrap ─┐
//! resources.d/*   ─ load ──────┼─ validate (each object, then across objects) ─ compile ─▶ Loaded
//! certificates    ─────────────┘                    └─▶ findings, all at once
//! ```

pub mod bootstrap;
pub mod finding;

use std::path::Path;
use std::sync::Arc;

use crate::route::table::{ObjectRef, RouteTable};
use crate::snapshot::Settings;

use bootstrap::Bootstrap;
use finding::Finding;

/// Loads configurations. Lives as long as the process: it remembers which clusters and TLS profiles were the same
/// in earlier generations, so that their pools and sessions survive a reload.
#[derive(Debug, Default)]
pub struct Loader {}

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
    /// Warnings and infos.
    pub findings: Vec<Finding>,
}

/// An Istio object as it was loaded.
#[derive(Clone, Debug)]
pub struct LoadedObject {
    /// Which.
    pub object: ObjectRef,
    /// The whole document, with the operator's spelling.
    pub document: serde_yaml::Value,
    /// `metadata.creationTimestamp`, else `None`.
    pub created: Option<jiff::Timestamp>,
}

impl Loader {
    /// Loads the bootstrap file, the resources it names and the certificates that they name.
    ///
    /// # Errors
    /// All findings, at least one of which is an error.
    pub fn load(&mut self, config: &Path) -> Result<Loaded, Vec<Finding>> {
        let _ = config;
        Err(Vec::new())
    }
}
