//! `portcullis get`: what the running gateway enforces now.

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::Value;

use crate::control::admin::client::{self, Address};

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// What to show.
    #[arg(value_enum)]
    kind: Kind,

    /// The gateway's admin address: IP:PORT or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:15000")]
    admin: Address,

    /// How to show it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
enum Kind {
    ServiceEntries,
    VirtualServices,
    DestinationRules,
    Gateways,
    AuthorizationPolicies,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Yaml,
    Json,
}

impl Get {
    /// Runs the verb: 0, or 1 if the gateway cannot be reached.
    pub(super) fn execute(self) -> ExitCode {
        match self.fetch() {
            Ok(text) => {
                // A reader that has seen enough closes the pipe, which is no failure of ours.
                let _ = std::io::stdout().write_all(text.as_bytes());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("portcullis: cannot ask the gateway at {}: {error}; does it run?", self.admin);
                ExitCode::FAILURE
            }
        }
    }

    fn fetch(&self) -> std::io::Result<String> {
        let body = client::get(&self.admin, self.kind.path())?;
        let objects: Vec<Value> = serde_json::from_slice(&body)?;
        Ok(match self.output {
            Output::Table => table(self.kind, &objects, Timestamp::now()),
            Output::Yaml => yaml(&objects)?,
            Output::Json => serde_json::to_string_pretty(&objects)? + "\n",
        })
    }
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::ServiceEntries => "/serviceentries",
            Self::VirtualServices => "/virtualservices",
            Self::DestinationRules => "/destinationrules",
            Self::Gateways => "/gateways",
            Self::AuthorizationPolicies => "/authorizationpolicies",
        }
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::ServiceEntries => &["NAMESPACE", "NAME", "HOSTS", "PORTS", "RESOLUTION", "AGE"],
            Self::Gateways => &["NAMESPACE", "NAME", "HOSTS", "PORTS", "AGE"],
            Self::VirtualServices | Self::DestinationRules => &["NAMESPACE", "NAME", "HOSTS", "AGE"],
            Self::AuthorizationPolicies => &["NAMESPACE", "NAME", "ACTION", "AGE"],
        }
    }
}

/// The documents as the operator wrote them, ready to be applied again.
fn yaml(objects: &[Value]) -> std::io::Result<String> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&object["document"]).map_err(std::io::Error::other)?);
    }
    Ok(text)
}

fn table(kind: Kind, objects: &[Value], now: Timestamp) -> String {
    let columns = kind.columns();
    let mut rows = vec![columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>()];
    rows.extend(objects.iter().map(|object| columns.iter().map(|column| cell(object, column, now)).collect()));
    let widths: Vec<usize> =
        (0..columns.len()).map(|index| rows.iter().map(|row| row[index].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(object: &Value, column: &str, now: Timestamp) -> String {
    match column {
        "NAMESPACE" => one(&object["namespace"]),
        "NAME" => one(&object["name"]),
        "HOSTS" => list(&object["hosts"]),
        "PORTS" => list(&object["ports"]),
        // Istio's defaults, where the document leaves them out.
        "RESOLUTION" => object["resolution"].as_str().unwrap_or("NONE").to_owned(),
        "ACTION" => object["document"]["spec"]["action"].as_str().unwrap_or("ALLOW").to_owned(),
        _ => age(object["created"].as_str(), now),
    }
}

fn one(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn list(values: &Value) -> String {
    let texts: Vec<&str> = values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
}

/// As kubectl shows ages: the largest unit that fits; `-` if the document does not say when it was made.
fn age(created: Option<&str>, now: Timestamp) -> String {
    let Some(created) = created.and_then(|text| text.parse::<Timestamp>().ok()) else { return "-".to_owned() };
    let seconds = now.duration_since(created).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-03-03T08:00:00Z".parse().unwrap()
    }

    #[test]
    fn service_entries_are_a_table_with_aligned_columns() {
        let objects = [
            json!({"namespace": "default", "name": "googleapis", "hosts": ["www.googleapis.com", "*.example.com"],
                   "ports": ["443/TLS", "80/HTTP"], "resolution": "DNS", "created": "2026-03-01T08:00:00Z"}),
            json!({"namespace": "x", "name": "y", "hosts": ["a.example"], "ports": [], "resolution": null, "created": null}),
        ];
        assert_eq!(
            table(Kind::ServiceEntries, &objects, now()),
            "NAMESPACE   NAME         HOSTS                              PORTS             RESOLUTION   AGE\n\
             default     googleapis   www.googleapis.com,*.example.com   443/TLS,80/HTTP   DNS          2d\n\
             x           y            a.example                          -                 NONE         -\n"
        );
    }

    #[test]
    fn an_empty_table_has_its_header() {
        assert_eq!(table(Kind::AuthorizationPolicies, &[], now()), "NAMESPACE   NAME   ACTION   AGE\n");
    }

    #[test]
    fn ages_are_short() {
        for (created, shown) in [
            (Some("2026-03-03T07:59:01Z"), "59s"),
            (Some("2026-03-03T07:55:00Z"), "5m"),
            (Some("2026-03-02T08:00:00Z"), "24h"),
            (Some("2026-02-01T08:00:00Z"), "30d"),
            (Some("2027-01-01T00:00:00Z"), "0s"),
            (Some("yesterday"), "-"),
            (None, "-"),
        ] {
            assert_eq!(age(created, now()), shown, "{created:?}");
        }
    }

    #[test]
    fn yaml_is_the_documents_in_the_operators_spelling() {
        let objects = [json!({"document": {"kind": "ServiceEntry", "spec": {"hosts": ["a.example"]}}})];
        assert_eq!(yaml(&objects).unwrap(), "---\nkind: ServiceEntry\nspec:\n  hosts:\n  - a.example\n");
    }
}
