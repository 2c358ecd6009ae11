//! What is wrong with a configuration, where, and what to do about it.

use serde::Serialize;

/// One finding of `check`, of a start or of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code: Istio's `IST0101` where Istio has one, else ours (`PC0001`).
    pub code: &'static str,
    /// `VirtualService`, `Bootstrap`, …; empty for a file that holds no object.
    pub kind: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.tls[0].match[0].sniHosts[0]`.
    pub field: String,
    /// What is wrong, in Istio's words where Istio has them, and what to do.
    pub message: String,
    /// `file.yaml:12`.
    pub source: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration does not take force.
    Error,
    /// It takes force, and probably not as meant. An error with `--strict`.
    Warning,
    /// Worth knowing.
    Info,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}
