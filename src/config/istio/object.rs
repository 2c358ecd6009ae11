//! What all kinds share: identity, age, position, and findings that carry them.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::config::finding::{Finding, Report, Severity, code};
use crate::config::load::Document;
use crate::config::yaml::Node;
use crate::route::table::{ObjectRef, Place};

/// An object of one kind.
#[derive(Debug)]
pub struct Object<T> {
    /// Which, and where it stands.
    pub origin: Origin,
    /// `spec:`.
    pub spec: T,
}

/// Which object this is, and where it stands.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Kind, namespace, name, `file.yaml:12`.
    pub object: Arc<ObjectRef>,
    /// `metadata.creationTimestamp`.
    pub created: Option<jiff::Timestamp>,
    document: Arc<Document>,
    /// `items[3]` within a `kind: List`; else empty.
    prefix: Box<str>,
}

impl Origin {
    /// Its text, unless it is an item of a list.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.prefix.is_empty().then(|| self.document.excerpt.text())
    }

    /// Of a document that has neither name nor namespace.
    pub(super) fn without_identity(kind: &'static str, document: Arc<Document>, prefix: String, source: Place) -> Self {
        let object = ObjectRef::new(kind, "", "", source);
        Self { object: Arc::new(object), created: None, document, prefix: prefix.into() }
    }

    /// Name and namespace.
    #[must_use]
    pub fn identity(&self) -> (&str, &str) {
        (self.object.namespace(), self.object.name())
    }

    /// Oldest first. Objects without a timestamp follow, in the order in which they were loaded (the sort is stable):
    /// file path, then position in the file, stand for their age. Equal timestamps: by name, then namespace.
    #[must_use]
    pub fn age(&self, other: &Self) -> Ordering {
        match (self.created, other.created) {
            (Some(created), Some(other_created)) => created
                .cmp(&other_created)
                .then_with(|| self.object.name().cmp(other.object.name()))
                .then_with(|| self.object.namespace().cmp(other.object.namespace())),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }

    /// `file.yaml:12` of a field.
    #[must_use]
    pub fn source(&self, field: &str) -> Place {
        match &*self.prefix {
            "" => self.document.source(field),
            prefix => self.document.source(&format!("{prefix}.{field}")),
        }
    }

    /// The folder of the object's file, against which its relative paths are resolved.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.document.excerpt.path().parent().unwrap_or(std::path::Path::new(""))
    }
}

/// Reports findings about one object.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The object.
    pub origin: &'a Origin,
    report: &'a mut Report,
}

impl<'a> Scope<'a> {
    /// Findings about `origin` go to `report`.
    pub fn new(origin: &'a Origin, report: &'a mut Report) -> Self {
        Self { origin, report }
    }

    /// Istio would refuse this.
    pub fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, code::SCHEMA, field.into(), message.into());
    }

    /// Istio takes this; the gateway cannot, and doing without it would open traffic or lead it elsewhere.
    pub fn refuse(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, code::UNSUPPORTED, field.into(), message.into());
    }

    /// An error of another kind.
    pub fn error_with(&mut self, code: &'static str, field: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, code, field.into(), message.into());
    }

    /// It takes force, and probably not as meant.
    pub fn warning(&mut self, code: &'static str, field: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Warning, code, field.into(), message.into());
    }

    /// Worth knowing.
    pub fn info(&mut self, code: &'static str, field: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Info, code, field.into(), message.into());
    }

    /// Refuses fields that are present and would change which traffic passes, or where it goes.
    pub fn refuse_present<const N: usize>(&mut self, parent: &str, fields: [(&str, bool); N]) {
        for (field, _) in fields.into_iter().filter(|(_, present)| *present) {
            self.refuse(
                format!("{parent}.{field}"),
                format!("{field} is not supported yet, and cannot be left out safely"),
            );
        }
    }

    /// Warns of fields that are present and without effect.
    pub fn warn_present<const N: usize>(&mut self, parent: &str, fields: [(&str, bool); N]) {
        for (field, _) in fields.into_iter().filter(|(_, present)| *present) {
            let message = format!("{field} is not supported yet and has no effect");
            self.warning(code::UNSUPPORTED, format!("{parent}.{field}"), message);
        }
    }

    fn add(&mut self, severity: Severity, code: &'static str, field: String, message: String) {
        let object = &self.origin.object;
        self.report.add(Finding {
            severity,
            code,
            kind: object.kind.to_owned(),
            namespace: object.namespace().to_string(),
            name: object.name().to_string(),
            source: self.origin.source(&field).to_string(),
            field,
            message,
        });
    }
}

/// The kinds that are enforced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    ServiceEntry,
    VirtualService,
    DestinationRule,
    Gateway,
    AuthorizationPolicy,
    Sidecar,
    Secret,
    IstioOperator,
    ConfigMap,
}

const KINDS: [(&str, &str, &[&str], Kind); 9] = [
    ("ServiceEntry", "networking.istio.io", &VERSIONS, Kind::ServiceEntry),
    ("VirtualService", "networking.istio.io", &VERSIONS, Kind::VirtualService),
    ("DestinationRule", "networking.istio.io", &VERSIONS, Kind::DestinationRule),
    ("Gateway", "networking.istio.io", &VERSIONS, Kind::Gateway),
    ("AuthorizationPolicy", "security.istio.io", &VERSIONS, Kind::AuthorizationPolicy),
    ("Sidecar", "networking.istio.io", &VERSIONS, Kind::Sidecar),
    ("Secret", "", &["v1"], Kind::Secret),
    ("IstioOperator", "install.istio.io", &["v1alpha1"], Kind::IstioOperator),
    ("ConfigMap", "", &["v1"], Kind::ConfigMap),
];

/// The ConfigMap that holds a MeshConfig.
const MESH_CONFIG_MAP: &str = "istio";

/// The versions of Istio's API, which differ in nothing but their name.
const VERSIONS: [&str; 3] = ["v1alpha3", "v1beta1", "v1"];

/// Kind, name, namespace and age of a document; `None` if it is skipped or refused.
pub(super) fn identify(
    document: &Arc<Document>,
    prefix: String,
    source: Place,
    node: &Node<'_>,
    report: &mut Report,
) -> Option<(Kind, Origin)> {
    let text = |field: &str| node.get(field).and_then(Node::as_str);
    let (Some(kind_name), Some(api_version)) = (text("kind"), text("apiVersion").or_else(|| text("api_version")))
    else {
        report.file(Severity::Error, code::SCHEMA, source.to_string(), "the document has no apiVersion and kind");
        return None;
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let known = KINDS.iter().find(|(name, known_group, ..)| *name == kind_name && *known_group == group);
    let is_other_map = || node.get("metadata").and_then(|it| it.get("name")?.as_str()) != Some(MESH_CONFIG_MAP);
    let Some((kind_name, _, versions, kind)) = known.filter(|(name, ..)| *name != "ConfigMap" || !is_other_map())
    else {
        if is_misspelt(kind_name, group) {
            let message =
                format!("{group}/{kind_name} is no kind of Istio, and what it was meant to be cannot be left out");
            report.file(Severity::Error, code::SCHEMA, source.to_string(), message);
            return None;
        }
        skip(kind_name, group, source, report);
        return None;
    };
    if !versions.contains(&version) {
        let message = format!("unknown version {version:?} of {kind_name}; known are {}", versions.join(", "));
        report.file(Severity::Error, code::SCHEMA, source.to_string(), message);
        return None;
    }
    Some((*kind, read_origin(kind_name, document, prefix, source, node, report)?))
}

/// A kind that is enforced, in a group of Istio's or none that is not its own, in another case, or as a list of its own
/// (`AuthorizationPolicyList`); or a list within a list.
fn is_misspelt(kind: &str, group: &str) -> bool {
    let stem = kind.strip_suffix("List").unwrap_or(kind);
    let is_ours = |(name, of, ..): &(&str, &str, &[&str], Kind)| !of.is_empty() && name.eq_ignore_ascii_case(stem);
    let in_group = group.is_empty() || !group.contains('.') || group.ends_with("istio.io");
    in_group && (kind == "List" || KINDS.iter().any(is_ours))
}

/// Kinds of Istio that restrict or route traffic deserve a warning; Services and Deployments beside them do not.
fn skip(kind: &str, group: &str, source: Place, report: &mut Report) {
    let severity = if group.ends_with("istio.io") { Severity::Warning } else { Severity::Info };
    let (namespace, name, field) = Default::default();
    let message = format!("{kind} has no effect here and is skipped");
    report.add(Finding {
        severity,
        code: code::SKIPPED,
        kind: kind.to_owned(),
        namespace,
        name,
        field,
        message,
        source: source.to_string(),
    });
}

fn read_origin(
    kind: &'static str,
    document: &Arc<Document>,
    prefix: String,
    source: Place,
    node: &Node<'_>,
    report: &mut Report,
) -> Option<Origin> {
    let document = Arc::clone(document);
    let metadata = node.get("metadata").unwrap_or(&Node::Null);
    let name = metadata.get("name").and_then(Node::as_str).unwrap_or_default();
    let namespace = metadata.get("namespace").and_then(Node::as_str).unwrap_or("default");
    let created = metadata.get("creationTimestamp").filter(|created| !created.is_null());
    let timestamp = created.map(|created| created.as_str().and_then(|text| text.parse().ok()));
    let object = ObjectRef::new(kind, namespace, name, source);
    let origin =
        Origin { object: Arc::new(object), created: timestamp.flatten(), document, prefix: prefix.into_boxed_str() };
    let mut scope = Scope::new(&origin, report);
    // The files of `istioctl install -f` have no name.
    if !(is_name(name) || kind == "IstioOperator" && name.is_empty()) {
        scope.error("metadata.name", format!("invalid or missing metadata.name {name:?}"));
    }
    if !is_name(namespace) {
        scope.error("metadata.namespace", format!("invalid metadata.namespace {namespace:?}"));
    }
    if timestamp == Some(None) {
        scope.error("metadata.creationTimestamp", "creationTimestamp is not an RFC 3339 time");
    }
    judge_top_level(node, &mut scope);
    Some(origin)
}

/// `status` is what `kubectl get -o yaml` adds. Labels, annotations and the like mean nothing here.
fn judge_top_level(node: &Node<'_>, scope: &mut Scope<'_>) {
    const KNOWN: [&str; 6] = ["apiVersion", "api_version", "kind", "metadata", "spec", "status"];
    if matches!(scope.origin.object.kind, "Secret" | "ConfigMap") {
        return; // Their fields stand at the top, and what is not read holds nothing that matters here.
    }
    for key in node.keys().filter(|key| !KNOWN.contains(key)) {
        scope.warning(code::UNKNOWN_FIELD, key, format!("unknown field {key:?}"));
    }
}

/// A name as Kubernetes has them: dots, hyphens, lower case (RFC 1123 subdomain), plus nothing that could break a
/// log line or a file name.
fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !name.is_empty() && name.len() <= 253 && name.bytes().all(legal) && !name.starts_with(['-', '.'])
}
