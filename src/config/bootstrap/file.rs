//! The serde mirror of `portcullis.yaml`: spelling only. What the values must be is judged in [`super::check`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_yaml::Value;

use crate::config::istio::mesh_config::MeshConfig;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct File {
    pub(super) workers: Option<usize>,
    pub(super) io_driver: Option<String>,
    pub(super) spin: Option<String>,
    pub(super) listeners: Option<Vec<Listener>>,
    pub(super) resources: Option<Vec<PathBuf>>,
    pub(super) gateway_services: Option<Vec<String>>,
    pub(super) watch: Option<bool>,
    pub(super) mesh_config: Option<MeshConfig>,
    pub(super) dns: Option<Dns>,
    pub(super) tls: Option<Tls>,
    pub(super) headers: Option<Headers>,
    pub(super) address_policy: Option<AddressPolicy>,
    pub(super) admin: Option<Admin>,
    pub(super) limits: Option<BTreeMap<String, Value>>,
    pub(super) drain: Option<Drain>,
}

/// One entry of `listeners:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Listener {
    pub(super) name: Option<String>,
    pub(super) bind: Option<String>,
    pub(super) service_port: Option<u16>,
    pub(super) capture: Option<String>,
    pub(super) gateway: Option<bool>,
}

/// `dns:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Dns {
    pub(super) servers: Option<Vec<String>>,
    pub(super) hosts: Option<BTreeMap<String, Vec<String>>>,
}

/// `tls:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Tls {
    pub(super) ca_certificates: Option<String>,
    pub(super) server_name_verification: Option<String>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) ech: Option<String>,
}

/// `headers:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Headers {
    pub(super) forwarded: Option<String>,
    pub(super) mesh: Option<String>,
    pub(super) method_override: Option<String>,
    pub(super) underscores: Option<String>,
    pub(super) via: Option<String>,
}

/// `addressPolicy:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AddressPolicy {
    pub(super) allow: Option<Vec<String>>,
    pub(super) deny: Option<Vec<String>>,
}

/// `admin:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Admin {
    pub(super) bind: Option<String>,
}

/// `drain:`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Drain {
    pub(super) timeout: Option<String>,
}
