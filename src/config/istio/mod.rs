//! Istio's resources as serde mirrors, one file per kind, and the step from YAML documents to them.
//!
//! Istio decodes with golang's jsonpb, which takes the proto name and the lowerCamel name of every field, so each
//! multi-word field here has an alias in snake_case. A field that Istio knows and the gateway does not is
//! mirrored as a plain [`serde_yaml::Value`], so that validation can refuse or warn by name; a field that nobody knows is
//! a finding of [`decode`]. Nothing is silently ignored.

pub mod authorization_policy;
pub mod destination_rule;
pub mod gateway;
pub mod http_action;
pub mod mesh_config;
pub mod scalar;
pub mod secret;
pub mod service_entry;
pub mod sidecar;
pub mod virtual_service;

mod decode;
mod object;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::LoadedObject;
use super::finding::{Report, Severity, code};
use super::load::{Document, decode as decode_documents, load};
use super::written::Packer;
use super::yaml::{self, Node};
use crate::route::table::{ObjectRef, Place};

use authorization_policy::AuthorizationPolicy;
use destination_rule::DestinationRule;
use gateway::Gateway;
use mesh_config::MeshConfig;
use secret::Secret;
use service_entry::ServiceEntry;
use sidecar::Sidecar;
use virtual_service::VirtualService;

pub use decode::decode;
pub(super) use decode::decode_strictly;
pub use object::{Object, Origin, Scope};

/// Most threads that decode: beyond these, memory is what is waited for.
const THREADS_MAX: usize = 16;

/// Fewer documents than these are not worth a thread.
const RUN_DOCUMENTS_MIN: usize = 256;

/// Every object of a configuration, by kind, oldest first.
#[derive(Debug, Default)]
pub struct Objects {
    /// `ServiceEntry`.
    pub service_entries: Vec<Object<ServiceEntry>>,
    /// `VirtualService`.
    pub virtual_services: Vec<Object<VirtualService>>,
    /// `DestinationRule`.
    pub destination_rules: Vec<Object<DestinationRule>>,
    /// `Gateway`.
    pub gateways: Vec<Object<Gateway>>,
    /// `AuthorizationPolicy`.
    pub authorization_policies: Vec<Object<AuthorizationPolicy>>,
    /// `Sidecar`.
    pub sidecars: Vec<Object<Sidecar>>,
    /// MeshConfigs, in the order in which they were loaded, each with the prefix of its fields.
    pub mesh_configs: Vec<(Origin, &'static str, MeshConfig)>,
    /// What `Secret`s hold for `credentialName`.
    pub secrets: Vec<Object<Secret>>,
    /// All objects of Istio as they were written.
    pub documents: Vec<LoadedObject>,
    packer: Packer,
    /// See [`Objects::settle`].
    unsettled: Vec<Arc<ObjectRef>>,
}

impl Objects {
    /// Reads the files and folders. Faults are reported and their objects left out.
    ///
    /// Decoding is most of the work of a load and every document stands by itself, so it is spread over the CPUs: each
    /// thread takes a run of documents, and the runs are put together in their order.
    #[must_use]
    pub fn read(paths: &[PathBuf], report: &mut Report) -> Self {
        let documents = load(paths, report);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let run = documents.len().div_ceil(threads).max(RUN_DOCUMENTS_MIN);
        let mut objects = match documents.len() <= run {
            true => Self::decode(documents, report),
            false => Self::decode_runs(documents, run, report),
        };
        objects.settle();
        let replaced = replace_earlier(&mut objects.service_entries, report)
            + replace_earlier(&mut objects.virtual_services, report)
            + replace_earlier(&mut objects.destination_rules, report)
            + replace_earlier(&mut objects.gateways, report)
            + replace_earlier(&mut objects.authorization_policies, report)
            + replace_earlier(&mut objects.sidecars, report)
            + replace_earlier(&mut objects.secrets, report);
        if replaced > 0 {
            objects.drop_replaced_documents();
        }
        objects
    }

    fn decode(documents: impl IntoIterator<Item = Document>, report: &mut Report) -> Self {
        let mut objects = Self::default();
        decode_documents(documents, report, |document, node, report| objects.add_document(document, node, report));
        objects.packer = Packer::default();
        objects
    }

    fn decode_runs(documents: Vec<Document>, run: usize, report: &mut Report) -> Self {
        let mut documents = documents.into_iter();
        let mut runs: Vec<Vec<Document>> = Vec::new();
        while documents.len() > 0 {
            runs.push(documents.by_ref().take(run).collect());
        }
        let decode = |run: Vec<Document>| {
            let mut report = Report::default();
            let objects = Self::decode(run, &mut report);
            (objects, report.into_findings())
        };
        let mut objects = Self::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = runs.into_iter().map(|run| scope.spawn(move || decode(run))).collect();
            for thread in threads {
                match thread.join() {
                    Ok((run, findings)) => {
                        objects.append(run);
                        findings.into_iter().for_each(|finding| report.add(finding));
                    }
                    // As if it had happened on this thread.
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        objects
    }

    fn append(&mut self, other: Self) {
        self.service_entries.extend(other.service_entries);
        self.virtual_services.extend(other.virtual_services);
        self.destination_rules.extend(other.destination_rules);
        self.gateways.extend(other.gateways);
        self.authorization_policies.extend(other.authorization_policies);
        self.sidecars.extend(other.sidecars);
        self.mesh_configs.extend(other.mesh_configs);
        self.secrets.extend(other.secrets);
        self.documents.extend(other.documents);
    }

    fn add_document(&mut self, document: &Arc<Document>, node: &Node<'_>, report: &mut Report) {
        if node.get("kind").and_then(Node::as_str) != Some("List") {
            let source = document.excerpt.start();
            self.add_object(document, String::new(), source, node, report);
            return;
        }
        let Some(Node::Sequence(items)) = node.get("items") else {
            report.file(
                Severity::Error,
                code::SCHEMA,
                document.excerpt.start().to_string(),
                "kind: List needs a list of items",
            );
            return;
        };
        for (index, item) in items.iter().enumerate() {
            let prefix = format!("items[{index}]");
            let source = document.source(&prefix);
            self.add_object(document, prefix, source, item, report);
        }
    }

    fn add_object(
        &mut self,
        document: &Arc<Document>,
        prefix: String,
        source: Place,
        node: &Node<'_>,
        report: &mut Report,
    ) {
        if node.get("kind").is_none() && mesh_config::looks_like(node) {
            let origin = Origin::without_identity("MeshConfig", Arc::clone(document), prefix, source);
            self.add_mesh_config(&origin, "", node, report);
            return;
        }
        let Some((kind, origin)) = object::identify(document, prefix, source, node, report) else { return };
        let spec = node.get("spec").unwrap_or(&Node::Null);
        match kind {
            object::Kind::ServiceEntry => push(&mut self.service_entries, &origin, spec, report),
            object::Kind::VirtualService => push(&mut self.virtual_services, &origin, spec, report),
            object::Kind::DestinationRule => push(&mut self.destination_rules, &origin, spec, report),
            object::Kind::Gateway => push(&mut self.gateways, &origin, spec, report),
            object::Kind::AuthorizationPolicy => push(&mut self.authorization_policies, &origin, spec, report),
            object::Kind::Sidecar => push(&mut self.sidecars, &origin, spec, report),
            object::Kind::Secret => {
                let secret = Secret::read(node, &mut Scope::new(&origin, report));
                self.secrets.extend(secret.map(|spec| Object { origin, spec }));
                // Never among the documents: those are shown to whoever asks.
                return;
            }
            object::Kind::IstioOperator => {
                let config = spec.get("meshConfig").or_else(|| spec.get("mesh_config")).unwrap_or(&Node::Null);
                return self.add_mesh_config(&origin, "spec.meshConfig.", config, report);
            }
            object::Kind::ConfigMap => return self.add_config_map(&origin, node, report),
        }
        let document = self.packer.add(&origin, node);
        self.documents.push(LoadedObject {
            object: Arc::clone(&origin.object),
            document,
            created: origin.created.map(Box::new),
        });
    }

    fn add_mesh_config(&mut self, origin: &Origin, prefix: &'static str, node: &Node<'_>, report: &mut Report) {
        let mut scope = Scope::new(origin, report);
        let root = prefix.strip_suffix('.').unwrap_or(prefix);
        let mut node = node.clone();
        if let Node::Mapping(fields) = &mut node {
            fields.retain(|(key, _)| {
                let Some(key) = key.as_str().filter(|key| mesh_config::is_without_effect(key)) else { return true };
                scope.info(code::UNSUPPORTED, format!("{prefix}{key}"), format!("{key} has no effect here"));
                false
            });
        }
        if let Some(config) = decode(&node, root, &mut scope) {
            self.mesh_configs.push((origin.clone(), prefix, config));
        }
    }

    /// The ConfigMap `istio`, in which the control plane keeps its MeshConfig as a text.
    fn add_config_map(&mut self, origin: &Origin, node: &Node<'_>, report: &mut Report) {
        let text = node.get("data").and_then(|data| data.get("mesh")).and_then(Node::as_str);
        match yaml::parse(text.unwrap_or_default()) {
            Ok(mesh) => self.add_mesh_config(origin, "data.mesh.", &mesh, report),
            Err(error) => Scope::new(origin, report).error("data.mesh", error.to_string()),
        }
    }

    /// Gives the identities of objects, which stay as long as the configuration, memory of their own. Made while objects
    /// were decoded, each lies among parts of its object that are of the same size and go when the load ends: memory
    /// between things that stay is not given back, and is of little use. For the same reason the first ones go with the
    /// objects, and not before: what is compiled next would take their places.
    fn settle(&mut self) {
        self.unsettled.reserve_exact(self.documents.len());
        settle(&mut self.service_entries, &mut self.documents, &mut self.unsettled);
        settle(&mut self.virtual_services, &mut self.documents, &mut self.unsettled);
        settle(&mut self.destination_rules, &mut self.documents, &mut self.unsettled);
        settle(&mut self.gateways, &mut self.documents, &mut self.unsettled);
        settle(&mut self.authorization_policies, &mut self.documents, &mut self.unsettled);
        settle(&mut self.sidecars, &mut self.documents, &mut self.unsettled);
    }

    /// Leaves one document per identity: the last, as [`replace_earlier`] does.
    fn drop_replaced_documents(&mut self) {
        let mut seen = std::collections::HashSet::new();
        self.documents.reverse();
        self.documents.retain(|document| {
            let object = &document.object;
            seen.insert((object.kind, object.namespace().to_owned(), object.name().to_owned()))
        });
        self.documents.reverse();
    }
}

fn push<T>(objects: &mut Vec<Object<T>>, origin: &Origin, spec: &Node<'_>, report: &mut Report)
where
    T: serde::de::DeserializeOwned + Default,
{
    if let Some(spec) = decode(spec, "spec", &mut Scope::new(origin, report)) {
        objects.push(Object { origin: origin.clone(), spec });
    }
}

/// See [`Objects::settle`]. Documents are in the order of their objects, of which some may have been left out.
fn settle<T>(objects: &mut [Object<T>], documents: &mut [LoadedObject], unsettled: &mut Vec<Arc<ObjectRef>>) {
    let mut documents = documents.iter_mut();
    for Object { origin, .. } in objects {
        let settled = Arc::new(ObjectRef::clone(&origin.object));
        if let Some(document) = documents.find(|document| Arc::ptr_eq(&document.object, &origin.object)) {
            document.object = Arc::clone(&settled);
        }
        unsettled.push(std::mem::replace(&mut origin.object, settled));
    }
}

/// Of two objects with one name the later replaces the earlier, as `kubectl apply` of the same files would have it.
/// Then sorts: oldest first, the order of every precedence among objects.
///
/// Returns how many were replaced.
fn replace_earlier<T>(objects: &mut Vec<Object<T>>, report: &mut Report) -> usize {
    let hasher = foldhash::fast::RandomState::default();
    let mut last = HashMap::with_capacity_and_hasher(objects.len(), hasher);
    let mut replaced = vec![false; objects.len()];
    for (index, object) in objects.iter().enumerate() {
        if let Some(earlier) = last.insert(object.origin.identity(), index) {
            replaced[earlier] = true;
            let earlier: &Object<T> = &objects[earlier];
            let message = format!("replaced by the object of the same name at {}", object.origin.object.source());
            Scope::new(&earlier.origin, report).warning(code::DUPLICATE, "metadata.name", message);
        }
    }
    let mut fates = replaced.iter();
    objects.retain(|_| fates.next() == Some(&false));
    objects.sort_by(|one, other| one.origin.age(&other.origin));
    replaced.len() - objects.len()
}
