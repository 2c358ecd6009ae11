//! What must hold for every configuration file: the bodies of the fuzz targets, which unit tests run as well.
//!
//! Each takes bytes from nowhere and panics if a promise is broken. Nothing of this runs in the gateway.

use std::cell::RefCell;
use std::path::Path;

use tempfile::TempDir;

use super::bootstrap::Bootstrap;
use super::finding::{Finding, Report, Severity};
use super::{Loaded, Loader};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, HELLO_BYTES_MAX, Limits, TIMEOUT_MAX};
use crate::route::host::HostName;

/// The bootstrap file beside resources. Its roots do not exist: the system's would take most of the time.
const BOOTSTRAP: &str = "\
listeners:
- {name: tls, bind: 127.0.0.1:8443, servicePort: 443}
- {name: http, bind: 127.0.0.1:8080, servicePort: 80}
resources: [resources.yaml]
tls: {caCertificates: missing.pem}
";

/// A host that no seed names: it passes only if a wildcard says so.
const UNLISTED: &str = "unlisted.invalid";

thread_local! {
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

/// Resources: they load or do not, twice in the same way, and open nothing that they do not name. What the parser of
/// plain YAML reads of them is what any YAML parser reads.
pub fn resources(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    text.split("\n---").for_each(super::yaml::assert_agreement);
    in_folder(|folder| {
        write(&folder.join("portcullis.yaml"), BOOTSTRAP.as_bytes());
        write(&folder.join("resources.yaml"), bytes);
        let load = |loader: &mut Loader| loader.load(&folder.join("portcullis.yaml"));
        let mut loader = Loader::default();
        let (first, second) = (load(&mut loader), load(&mut loader));
        assert_eq!(findings(&first), findings(&second), "the second load of the same files finds something else");
        let Ok(loaded) = first else { return };
        let text = String::from_utf8_lossy(bytes);
        if !text.contains('*') && !text.to_ascii_lowercase().contains(UNLISTED) {
            assert_closed(&loaded);
        }
    });
}

/// A bootstrap file: whatever it says, what is kept lies within the documented bounds.
pub fn bootstrap(bytes: &[u8]) {
    in_folder(|folder| {
        write(&folder.join("resources.yaml"), b"");
        write(&folder.join("portcullis.yaml"), bytes);
        let mut report = Report::default();
        match Bootstrap::read(&folder.join("portcullis.yaml"), &mut report) {
            Some((bootstrap, settings)) => {
                assert_limits(&settings.limits);
                if report.error_count() == 0 {
                    assert!(!bootstrap.listeners.is_empty() || !bootstrap.resources.is_empty());
                    assert!(bootstrap.listeners.iter().all(|listener| listener.bind.port() > 0));
                }
            }
            None => assert!(report.error_count() > 0, "a file that cannot be read has no finding"),
        }
    });
}

fn in_folder(run: impl FnOnce(&Path)) {
    FOLDER.with_borrow_mut(|folder| {
        // A promise that breaks here is about this machine, not about the input.
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a temporary folder"));
        run(folder.path());
    });
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the temporary folder takes files");
}

/// What was found, and the promise that it fits the outcome.
fn findings(outcome: &Result<Loaded, Vec<Finding>>) -> &[Finding] {
    let (findings, errors) = match outcome {
        Ok(loaded) => (&loaded.findings, false),
        Err(findings) => (findings, true),
    };
    assert_eq!(findings.iter().any(|finding| finding.severity == Severity::Error), errors, "{findings:#?}");
    assert!(findings.iter().all(|finding| !finding.message.is_empty()), "{findings:#?}");
    findings
}

fn assert_closed(loaded: &Loaded) {
    let Ok(name) = HostName::parse(UNLISTED.as_bytes()) else { return };
    for port in [80, 443] {
        assert!(loaded.routes.http(port, &name).is_none(), "an unlisted host has routes");
        assert!(loaded.routes.tls(port, &name).is_none(), "an unlisted host has routes");
    }
}

fn assert_limits(limits: &Limits) {
    assert!(limits.hello_bytes <= HELLO_BYTES_MAX);
    assert!(limits.request_head_bytes <= HEAD_BYTES_MAX);
    assert!((1..=HEADERS_MAX).contains(&limits.request_headers));
    for timeout in [
        limits.hello_timeout,
        limits.request_head_timeout,
        limits.body_idle_timeout,
        limits.http_idle_timeout,
        limits.tunnel_idle_timeout,
    ] {
        assert!(!timeout.is_zero() && timeout <= TIMEOUT_MAX, "{timeout:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const RESOURCES: &str = include_str!("../../config/origination/resources.d/googleapis.yaml");
    const BOOTSTRAP: &str = include_str!("../../config/portcullis.yaml");

    /// A file in which some places hold something else, some lines are missing and some are there twice.
    fn mutated(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let pieces = vec![
            "",
            "*",
            "&a ",
            "*a",
            "[]",
            "{}",
            "null",
            "-1",
            "65536",
            "1e9",
            "''",
            "\"",
            "!!binary ",
            "<<: *a",
            "true",
            "é",
            "\t",
            "---\n",
        ];
        let change = (0..lines.len(), 0..4_usize, prop::sample::select(pieces), 0..40_usize);
        prop::collection::vec(change, 0..4).prop_map(move |changes| {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            for (index, kind, piece, column) in changes {
                let index = index.min(lines.len() - 1);
                match kind {
                    0 => lines[index].clear(),
                    1 => lines.insert(index, lines[index].clone()),
                    _ => {
                        let column =
                            (0..=column.min(lines[index].len())).rev().find(|at| lines[index].is_char_boundary(*at));
                        lines[index].insert_str(column.unwrap_or(0), piece);
                    }
                }
            }
            lines.join("\n").into_bytes()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn mutated_resources_keep_the_promises(bytes in mutated(RESOURCES)) {
            super::resources(&bytes);
        }

        #[test]
        fn mutated_bootstrap_files_keep_the_promises(bytes in mutated(BOOTSTRAP)) {
            super::bootstrap(&bytes);
        }

        #[test]
        fn any_text_keeps_the_promises(text: String) {
            super::resources(text.as_bytes());
            super::bootstrap(text.as_bytes());
        }
    }
}
