//! What is wrong with a configuration, where, and what to do about it.

use serde::Serialize;

/// One finding of `check`, of a start or of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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

/// The stable codes: Istio's where `istioctl analyze` has one, else ours.
pub mod code {
    /// A file or folder cannot be read.
    pub const UNREADABLE: &str = "PC0001";
    /// Not YAML, or YAML that is refused: duplicate keys, alias bombs, absurd nesting.
    pub const SYNTAX: &str = "PC0002";
    /// Nothing reads this field.
    pub const UNKNOWN_FIELD: &str = "PC0003";
    /// Istio knows this field or value; the gateway does not, yet.
    pub const UNSUPPORTED: &str = "PC0004";
    /// An object of a kind that does not matter here.
    pub const SKIPPED: &str = "PC0005";
    /// Two objects of one kind share a name and namespace.
    pub const DUPLICATE: &str = "PC0006";
    /// A certificate, key, revocation list or credential cannot be read.
    pub const CREDENTIAL: &str = "PC0007";
    /// A destination is one of our own listeners.
    pub const OWN_ADDRESS: &str = "PC0008";
    /// A client that speaks TLS would be encrypted twice by Istio; here it passes as it is.
    pub const DOUBLE_ENCRYPTION: &str = "PC0009";
    /// Verification of an upstream is weaker or stricter than the operator may think.
    pub const VERIFICATION: &str = "PC0010";
    /// Traffic that the object describes can never arrive.
    pub const UNREACHABLE: &str = "PC0011";
    /// Nothing is allowed at all.
    pub const EMPTY: &str = "PC0012";
    /// Plain HTTP would reach a port that expects TLS.
    pub const PLAIN_TEXT: &str = "PC0014";
    /// A DENY rule about HTTP refuses all TLS that its other conditions meet.
    pub const HTTP_ONLY: &str = "PC0015";
    /// A resource opens everything.
    pub const ALLOW_ANY: &str = "PC0016";
    /// A TCP port without addresses takes every connection to it.
    pub const WHOLE_PORT: &str = "PC0017";
    /// A path that no request has once it is normalised, or one by which a policy could be gone around.
    pub const PATH: &str = "PC0018";
    /// Names are resolved by the gateway where Istio would dial the address that the client chose.
    pub const RESOLVED_HERE: &str = "PC0019";
    /// A key of the bootstrap file is wrong.
    pub const BOOTSTRAP: &str = "PC0013";
    /// Istio would refuse the object (SchemaValidationError).
    pub const SCHEMA: &str = "IST0106";
    /// A host, port or subset that does not exist (ReferencedResourceNotFound).
    pub const NOT_FOUND: &str = "IST0101";
    /// A host of a VirtualService that its Gateway does not admit (VirtualServiceHostNotFoundInGateway).
    pub const NOT_ADMITTED: &str = "IST0132";
    /// Two VirtualServices for one host (ConflictingMeshGatewayVirtualServiceHosts).
    pub const CONFLICT: &str = "IST0109";
    /// Two servers of Gateways want the same clients.
    pub const GATEWAY_CONFLICT: &str = "IST0145";
    /// A port must be named (VirtualServiceDestinationPortSelectorRequired).
    pub const PORT_REQUIRED: &str = "IST0112";
    /// A rule that no request reaches (VirtualServiceUnreachableRule).
    pub const DEAD_RULE: &str = "IST0130";
    /// A match that no request reaches (VirtualServiceIneffectiveMatch).
    pub const DEAD_MATCH: &str = "IST0131";
    /// Upstreams are verified by the system's roots (NoServerCertificateVerificationDestinationLevel).
    pub const SYSTEM_ROOTS: &str = "IST0128";
    /// The same at a port (NoServerCertificateVerificationPortLevel).
    pub const SYSTEM_ROOTS_AT_PORT: &str = "IST0129";
    /// A subset whose labels no endpoint has (DestinationRuleSubsetsNotSelectPods).
    pub const EMPTY_SUBSET: &str = "IST0173";
    /// A DestinationRule for a host that nothing declares.
    pub const RULE_HOST: &str = "IST0174";
    /// One host and port with two protocols (ConflictingServiceEntryPorts).
    pub const PROTOCOLS: &str = "IST0177";
}

/// Collects findings; loading goes on after an error, so that all are reported at once.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
    seen: std::collections::HashSet<Finding>,
    errors: usize,
}

impl Report {
    /// Adds a finding, unless it is there already (several clusters may read one missing file).
    pub fn add(&mut self, finding: Finding) {
        if self.seen.contains(&finding) {
            return;
        }
        self.errors += usize::from(finding.severity == Severity::Error);
        self.seen.insert(finding.clone());
        self.findings.push(finding);
    }

    /// Adds a finding about a file, not an object.
    pub fn file(&mut self, severity: Severity, code: &'static str, source: String, message: impl Into<String>) {
        let (kind, namespace, name, field) = Default::default();
        self.add(Finding { severity, code, kind, namespace, name, field, message: message.into(), source });
    }

    /// How many findings are errors.
    #[must_use]
    pub fn error_count(&self) -> usize {
        self.errors
    }

    /// The findings in the order in which they were found.
    #[must_use]
    pub fn into_findings(self) -> Vec<Finding> {
        self.findings
    }
}
