//! `portcullis check`: load everything, report all findings, change nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::Loader;
use crate::config::finding::{Finding, Severity};

use super::{ConfigFile, Output};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,

    /// Istio files or folders to check without a bootstrap file.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,

    /// Form of the findings on stdout.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

impl Check {
    /// Runs the verb.
    pub(super) fn execute(self) -> ExitCode {
        let mut loader = Loader::default();
        let loaded = match self.paths.as_slice() {
            [] => loader.load(&self.config.config),
            paths => loader.load_paths(paths),
        };
        let findings = loaded.map_or_else(|findings| findings, |loaded| loaded.findings);
        let text = match self.output {
            Output::Text => text(&findings),
            Output::Json => format!("{}\n", serde_json::json!({ "findings": findings })),
        };
        // A closed pipe (`check | head`) is the reader's choice; the exit code still tells.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        exit_code(&findings, self.strict)
    }
}

fn exit_code(findings: &[Finding], strict: bool) -> ExitCode {
    let fails = |finding: &Finding| match finding.severity {
        Severity::Error => true,
        Severity::Warning => strict,
        Severity::Info => false,
    };
    if findings.iter().any(fails) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// One line per finding, then a summary.
pub(super) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push_str(&line(finding));
        text.push('\n');
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings, infos) = (count(Severity::Error), count(Severity::Warning), count(Severity::Info));
    text.push_str(&match (errors, warnings, infos) {
        (0, 0, 0) => "no findings\n".to_owned(),
        _ => format!("{errors} errors, {warnings} warnings, {infos} infos\n"),
    });
    text
}

/// `error VirtualService default/x spec.tls[0] file.yaml:12: message [CODE]`, without the parts that do not apply.
fn line(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let identity = match (&*finding.namespace, &*finding.name) {
        ("", "") => String::new(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let parts = [severity, &finding.kind, &identity, &finding.field, &finding.source];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    // One line per finding, whatever a value from a file holds.
    let message = finding.message.replace(char::is_control, " ");
    format!("{}: {message} [{}]", parts.join(" "), finding.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_without_the_parts_that_do_not_apply() {
        let finding = Finding {
            severity: Severity::Error,
            code: "IST0106",
            kind: "VirtualService".into(),
            namespace: "default".into(),
            name: "x".into(),
            field: "spec.tls[0]".into(),
            message: "TLS route\nis required".into(),
            source: "file.yaml:12".into(),
        };
        assert_eq!(
            line(&finding),
            "error VirtualService default/x spec.tls[0] file.yaml:12: TLS route is required [IST0106]"
        );
        let (kind, namespace, name, field) = Default::default();
        let bare = Finding { kind, namespace, name, field, ..finding };
        assert_eq!(line(&bare), "error file.yaml:12: TLS route is required [IST0106]");
    }
}
