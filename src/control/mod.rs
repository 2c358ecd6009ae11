//! The control thread: signals, loading, names, admin. Nothing here is on a session's byte path.
//!
//! ```text
//! signals ──┐                                       ┌─▶ workers: Apply, Resolved, Report, Drain
//! admin ────┼─▶ gateway (one loop, one state) ──────┤
//! workers ──┤      │            │                   └─▶ log writer: open, finish
//! look-ups ─┤      └─ reload    └─ resolver
//! watcher ──┘
//! ```

pub(crate) mod admin;
mod gateway;
mod process;
mod reload;
mod resolver;
mod retired;
mod shared;
mod signals;
mod start;
pub mod version;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use crate::config::finding::{Finding, Severity};

/// The life of the gateway: loads the configuration, runs until a signal ends it, and says how it went.
///
/// Nothing is bound if the configuration has an error; then all findings are printed and the exit code is 1.
#[must_use]
pub fn run(config: &Path) -> ExitCode {
    process::refuse_huge_pages();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = tokio::task::LocalSet::new().block_on(&runtime, gateway::live(config));
    // A loader that is stuck in a file system must not keep the process.
    runtime.shutdown_background();
    code
}

/// Tells of findings, one line each.
fn tell(findings: &[Finding]) {
    for finding in findings {
        let text = line(finding);
        match finding.severity {
            Severity::Error => tracing::error!("{text}"),
            Severity::Warning => tracing::warn!("{text}"),
            Severity::Info => tracing::info!("{text}"),
        }
    }
}

/// `resources.d/a.yaml:12: VirtualService default/googleapis: spec.tls[0]: … [IST0101]`; parts that a finding lacks
/// are left out.
fn line(finding: &Finding) -> String {
    let object = match (finding.namespace.as_str(), finding.name.as_str()) {
        ("", "") => finding.kind.clone(),
        (namespace, name) => format!("{} {namespace}/{name}", finding.kind),
    };
    let mut text = String::new();
    for part in [&finding.source, &object, &finding.field] {
        if !part.is_empty() {
            text.push_str(part);
            text.push_str(": ");
        }
    }
    text.push_str(&finding.message);
    format!("{text} [{}]", finding.code)
}

#[cfg(test)]
mod fixture;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_with_what_it_knows() {
        let mut finding = Finding {
            severity: Severity::Error,
            code: "PC0001",
            kind: "VirtualService".to_owned(),
            namespace: "default".to_owned(),
            name: "a".to_owned(),
            field: "spec.hosts".to_owned(),
            message: "is empty".to_owned(),
            source: "a.yaml:3".to_owned(),
        };
        assert_eq!(line(&finding), "a.yaml:3: VirtualService default/a: spec.hosts: is empty [PC0001]");
        (finding.namespace, finding.name, finding.kind) = Default::default();
        assert_eq!(line(&finding), "a.yaml:3: spec.hosts: is empty [PC0001]");
    }
}
