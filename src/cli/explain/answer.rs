//! What is answered, as JSON and as text.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::route::authorization::Policy;
use crate::route::table::ObjectRef;

/// The answer; fields that do not apply are null.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    /// What the access log shows as the reason.
    pub(super) reason: String,
    pub(super) host: Option<String>,
    pub(super) port: u16,
    pub(super) route: Option<String>,
    pub(super) cluster: Option<String>,
    pub(super) tls: Option<&'static str>,
    /// `SIMPLE` or `MUTUAL`: the client's own TLS ends at a server of a Gateway.
    pub(super) client_tls: Option<&'static str>,
    pub(super) sni: Option<String>,
    /// What is spoken to the upstream of a plain request.
    pub(super) upstream_protocol: Option<&'static str>,
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) status: Option<u16>,
    pub(super) response_flags: Option<&'static str>,
    pub(super) objects: Vec<Object>,
    /// Every destination with its share, where the route has several; `cluster` is then the first of them.
    pub(super) destinations: Option<Vec<Share>>,
    /// The same of the route that leads to the Gateway whose route this is. Each hop draws its own lot.
    pub(super) entrances: Option<Vec<Share>>,
    /// What the cluster's DestinationRule bounds.
    pub(super) traffic: Option<Vec<String>>,
    /// Where a redirect sends the client.
    pub(super) location: Option<String>,
    /// What the route changes on the way, and the failures that it injects.
    pub(super) notes: Option<Vec<String>>,
    /// The rules of AUDIT policies that it matches, which decide nothing.
    pub(super) audited: Option<Vec<String>>,
    /// A sentence for people.
    #[serde(skip)]
    pub(super) hint: Option<String>,
}

/// Whether the request passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Allow,
    #[default]
    Deny,
}

/// One object behind the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Object {
    kind: &'static str,
    namespace: Box<str>,
    name: Box<str>,
    source: String,
}

/// One destination of a route with several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Share {
    pub(super) cluster: Option<String>,
    pub(super) weight: u32,
}

impl Answer {
    /// Whether the request passes.
    pub(super) fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// One line, the fields in the order in which they are documented.
    pub(super) fn to_json(&self) -> String {
        // Texts and numbers can always be written as JSON.
        let json = serde_json::to_string(self).unwrap_or_default();
        json + "\n"
    }

    /// Adds a policy that audits, whatever becomes of the session.
    pub(super) fn add_audit(&mut self, policy: &Policy, rule: usize) {
        self.audited.get_or_insert_default().push(policy.rule_name(rule).to_string());
        self.add_objects([&policy.object]);
    }

    /// Adds objects that are not there yet.
    pub(super) fn add_objects<'a>(&mut self, objects: impl IntoIterator<Item = &'a Arc<ObjectRef>>) {
        for object in objects {
            let (namespace, name) = (object.namespace().into(), object.name().into());
            let object = Object { kind: object.kind, namespace, name, source: object.source().to_string() };
            if !self.objects.contains(&object) {
                self.objects.push(object);
            }
        }
    }
}

/// One `key: value` per line, without the lines that do not apply.
impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_allowed() { "allow" } else { "deny" };
        let endpoints = self.endpoints.as_ref().map(|endpoints| endpoints.join(", "));
        let status = self.status.map(|status| status.to_string());
        let host = self.host.as_ref().map(|host| format!("{host}:{}", self.port));
        let lines = [
            ("verdict", Some(verdict)),
            ("reason", Some(self.reason.as_str())),
            ("because", self.hint.as_deref()),
            ("host", host.as_deref()),
            ("client tls", self.client_tls),
            ("route", self.route.as_deref()),
            ("cluster", self.cluster.as_deref()),
            ("tls", self.tls),
            ("sni", self.sni.as_deref()),
            // Of HTTP/1.1 nobody has to be told.
            ("upstream", self.upstream_protocol.filter(|protocol| *protocol != "HTTP/1.1")),
            ("endpoints", endpoints.as_deref()),
            ("status", status.as_deref()),
            ("flags", self.response_flags),
            ("location", self.location.as_deref()),
        ];
        for (key, value) in lines {
            if let Some(value) = value {
                writeln!(formatter, "{key:<10} {}", value.replace(char::is_control, " "))?;
            }
        }
        for bound in self.traffic.iter().flatten() {
            writeln!(formatter, "{:<10} {}", "bound", bound.replace(char::is_control, " "))?;
        }
        for note in self.notes.iter().flatten() {
            writeln!(formatter, "{:<10} {}", "note", note.replace(char::is_control, " "))?;
        }
        for rule in self.audited.iter().flatten() {
            writeln!(formatter, "{:<10} {rule}", "audited")?;
        }
        for (key, shares) in [("entrance", &self.entrances), ("weight", &self.destinations)] {
            for share in shares.iter().flatten() {
                let cluster = share.cluster.as_deref().unwrap_or("a destination that does not exist");
                writeln!(formatter, "{key:<10} {} to {cluster}", share.weight)?;
            }
        }
        for Object { kind, namespace, name, source } in &self.objects {
            writeln!(formatter, "{:<10} {kind} {namespace}/{name} ({source})", "object")?;
        }
        Ok(())
    }
}
