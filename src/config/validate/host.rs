//! Host names in Istio's words.

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::route::host::{HostName, HostPattern};

/// Reads a name or a `*.` wildcard.
pub(super) fn pattern(text: &str, field: &str, scope: &mut Scope<'_>) -> Option<HostPattern> {
    match HostPattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            scope.error(field, describe(text, &error.to_string()));
            None
        }
    }
}

fn describe(text: &str, error: &str) -> String {
    match text {
        "*" => "invalid host *".to_owned(),
        _ if text.starts_with('*') && !text.starts_with("*.") => {
            format!("partial wildcard {text:?} not allowed; write *.suffix")
        }
        _ => format!("domain name {text:?} invalid ({error})"),
    }
}

/// Reads an SNI to send.
pub(super) fn name(text: &str, field: &str, scope: &mut Scope<'_>) -> Option<HostName> {
    match text.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            scope.error(field, describe(text, &format!("{error}")));
            None
        }
    }
}

/// The hosts of one object: duplicates and overlaps are dead or ambiguous.
pub(super) fn duplicates(hosts: &[String], field: &str, scope: &mut Scope<'_>) {
    let mut seen = std::collections::HashMap::new();
    for (index, host) in hosts.iter().enumerate() {
        if let Some(first) = seen.insert(host.to_ascii_lowercase(), index) {
            let message = format!("duplicate of {field}[{first}]");
            scope.warning(code::CONFLICT, format!("{field}[{index}]"), message);
        }
    }
}
