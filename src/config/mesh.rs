//! MeshConfig: judged wherever it stands, then settled.
//!
//! What the bootstrap file's `meshConfig` says explicitly holds. Else, for the outbound policy, what Sidecars say; else
//! what MeshConfig documents among the resources say, the later over the earlier; else the default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::route::cluster::TlsBounds;
use crate::route::http::RetryPolicy;
use crate::route::path::Normalization;
use crate::snapshot::{AccessLog, Outbound, Settings};
use crate::telemetry::format::Format;

use super::bootstrap::Bootstrap;
use super::compile;
use super::finding::{Report, code};
use super::istio::mesh_config::{MeshConfig, OutboundTrafficPolicy, TlsDefaults};
use super::istio::scalar::parse_duration;
use super::istio::sidecar::Sidecar;
use super::istio::{Object, Objects, Origin, Scope};
use super::validate::retry_faults;

/// Longest `connectTimeout`: TCP itself gives up after about two minutes.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// Longest wait for a TCP connection unless told otherwise, as Istio's default.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the access log goes unless told otherwise.
const ACCESS_LOG_FILE: &str = "/dev/stdout";

/// The namespace whose DestinationRules hold for all others, unless told otherwise, as Istio's default.
const ROOT_NAMESPACE: &str = "istio-system";

/// What a MeshConfig says; `None`: nothing.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    outbound: Option<Outbound>,
    /// The inner `None`: no access log.
    access_log_file: Option<Option<PathBuf>>,
    access_log_form: Option<LogForm>,
    connect_timeout: Option<Duration>,
    normalization: Option<Normalization>,
    retry: Option<RetryPolicy>,
    root_namespace: Option<Box<str>>,
    tls: Option<TlsBounds>,
    upgrade_http: Option<bool>,
}

/// What is in force and is no setting of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// For routes without `retries`.
    pub(super) retry: RetryPolicy,
    /// Whose DestinationRules hold for all namespaces.
    pub(super) root_namespace: Box<str>,
    /// For TLS that the gateway opens, and TLS that ends at it.
    pub(super) tls: TlsBounds,
    /// Whether ports of HTTP are spoken to in HTTP/2 where no DestinationRule says otherwise.
    pub(super) upgrade_http: bool,
}

/// `accessLogEncoding` and `accessLogFormat`: a format means the encoding that stands beside it.
#[derive(Clone, Debug)]
struct LogForm {
    encoding: AccessLog,
    format: Option<Format>,
}

/// Takes a field and what is wrong with it.
type Refuse<'a> = &'a mut dyn FnMut(&str, String);

/// Judges a MeshConfig; what is wrong is refused and left out. Relative paths are relative to `folder`.
pub(super) fn judge(config: &MeshConfig, folder: &Path, refuse: Refuse<'_>) -> Mesh {
    let file = config.access_log_file.as_deref();
    Mesh {
        outbound: outbound(config.outbound_traffic_policy.as_ref(), refuse),
        access_log_file: file.map(|file| (!file.is_empty()).then(|| folder.join(file))),
        access_log_form: log_form(config, refuse),
        connect_timeout: connect_timeout(config.connect_timeout.as_deref(), refuse),
        normalization: normalization(config, refuse),
        retry: config.default_http_retry_policy.as_ref().map(|retries| {
            for (field, message) in retry_faults(retries) {
                refuse(&format!("defaultHttpRetryPolicy{field}"), message);
            }
            compile::retry(retries)
        }),
        root_namespace: config.root_namespace.as_deref().filter(|name| !name.is_empty()).map(Into::into),
        tls: config.tls_defaults.as_ref().map(|defaults| tls_bounds(defaults, refuse)),
        upgrade_http: choice(
            config.h2_upgrade_policy.as_deref(),
            "h2UpgradePolicy",
            &[("DO_NOT_UPGRADE", false), ("UPGRADE", true)],
            refuse,
        ),
    }
}

/// Envoy's names of the cipher suites of TLS 1.2 that are spoken here.
const SUITES: [(&str, u16); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", 0xc02b),
    ("ECDHE-RSA-AES128-GCM-SHA256", 0xc02f),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", 0xc02c),
    ("ECDHE-RSA-AES256-GCM-SHA384", 0xc030),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", 0xcca9),
    ("ECDHE-RSA-CHACHA20-POLY1305", 0xcca8),
];

/// The number of a cipher suite of TLS 1.2 that is spoken here.
pub(super) fn suite(name: &str) -> Option<u16> {
    SUITES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Envoy's names of the groups that are spoken here.
const GROUPS: [(&str, u16); 4] = [("P-256", 0x0017), ("P-384", 0x0018), ("X25519", 0x001d), ("X25519MLKEM768", 0x11ec)];

fn tls_bounds(defaults: &TlsDefaults, refuse: Refuse<'_>) -> TlsBounds {
    let versions = [("TLS_AUTO", false), ("TLSV1_2", false), ("TLSV1_3", true)];
    let version = defaults.min_protocol_version.as_deref();
    let only_13 = choice(version, "tlsDefaults.minProtocolVersion", &versions, refuse);
    let mut listed = |names: &[String], field: &str, known: &[(&str, u16)]| {
        let choices = names.iter().filter_map(|name| choice(Some(name), field, known, refuse));
        choices.collect::<Vec<u16>>()
    };
    TlsBounds {
        only_13: only_13.unwrap_or(false),
        suites: listed(&defaults.cipher_suites, "tlsDefaults.cipherSuites", &SUITES),
        groups: listed(&defaults.ecdh_curves, "tlsDefaults.ecdhCurves", &GROUPS),
    }
}

fn log_form(config: &MeshConfig, refuse: Refuse<'_>) -> Option<LogForm> {
    let choices = [("TEXT", AccessLog::Text), ("JSON", AccessLog::Json)];
    let encoding = choice(config.access_log_encoding.as_deref(), "accessLogEncoding", &choices, refuse);
    let Some(text) = config.access_log_format.as_deref().filter(|format| !format.is_empty()) else {
        return encoding.map(|encoding| LogForm { encoding, format: None });
    };
    let encoding = encoding.unwrap_or(AccessLog::Text);
    let format = if encoding == AccessLog::Json { Format::json(text) } else { Format::text(text) };
    match format {
        Ok(format) => return Some(LogForm { encoding, format: Some(format) }),
        Err(error) => refuse("accessLogFormat", error.to_string()),
    }
    None
}

fn outbound(policy: Option<&OutboundTrafficPolicy>, refuse: Refuse<'_>) -> Option<Outbound> {
    let policy = policy?;
    if policy.egress_proxy.is_some() {
        refuse("outboundTrafficPolicy.egressProxy", "egressProxy is not supported yet".to_owned());
    }
    let choices = [("REGISTRY_ONLY", Outbound::RegistryOnly), ("ALLOW_ANY", Outbound::AllowAny)];
    match policy.mode.as_deref() {
        mode @ Some(_) => choice(mode, "outboundTrafficPolicy.mode", &choices, refuse),
        // The zero value of Istio's enum.
        None => Some(Outbound::RegistryOnly),
    }
}

fn normalization(config: &MeshConfig, refuse: Refuse<'_>) -> Option<Normalization> {
    let choices = [
        ("DEFAULT", Normalization::Base),
        ("NONE", Normalization::None),
        ("BASE", Normalization::Base),
        ("MERGE_SLASHES", Normalization::MergeSlashes),
        ("DECODE_AND_MERGE_SLASHES", Normalization::DecodeAndMergeSlashes),
    ];
    let word = config.path_normalization.as_ref()?.normalization.as_deref();
    choice(word, "pathNormalization.normalization", &choices, refuse)
}

fn connect_timeout(text: Option<&str>, refuse: Refuse<'_>) -> Option<Duration> {
    let text = text?;
    let field = "connectTimeout";
    match parse_duration(text) {
        Some(timeout) if timeout >= Duration::from_millis(1) && timeout <= CONNECT_TIMEOUT_MAX => return Some(timeout),
        Some(_) => refuse(field, format!("must be from 1ms to {}s", CONNECT_TIMEOUT_MAX.as_secs())),
        None => refuse(field, format!("{text:?} is not a duration such as 10s or 1h")),
    }
    None
}

/// One of the words.
fn choice<T: Copy>(word: Option<&str>, field: &str, choices: &[(&str, T)], refuse: Refuse<'_>) -> Option<T> {
    let word = word?;
    let known = choices.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    if known.is_none() {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        refuse(field, format!("unknown value {word:?}; it must be one of {}", names.join(", ")));
    }
    known
}

impl Mesh {
    /// What this says, and what `other` says where this says nothing.
    fn or(self, other: Self) -> Self {
        Self {
            outbound: self.outbound.or(other.outbound),
            access_log_file: self.access_log_file.or(other.access_log_file),
            access_log_form: self.access_log_form.or(other.access_log_form),
            connect_timeout: self.connect_timeout.or(other.connect_timeout),
            normalization: self.normalization.or(other.normalization),
            retry: self.retry.or(other.retry),
            root_namespace: self.root_namespace.or(other.root_namespace),
            tls: self.tls.or(other.tls),
            upgrade_http: self.upgrade_http.or(other.upgrade_http),
        }
    }

    /// The fields that both set.
    fn overlap(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let both = [
            ("outboundTrafficPolicy", self.outbound.is_some() && other.outbound.is_some()),
            ("accessLogFile", self.access_log_file.is_some() && other.access_log_file.is_some()),
            ("accessLogEncoding", self.access_log_form.is_some() && other.access_log_form.is_some()),
            ("connectTimeout", self.connect_timeout.is_some() && other.connect_timeout.is_some()),
            ("pathNormalization", self.normalization.is_some() && other.normalization.is_some()),
            ("defaultHttpRetryPolicy", self.retry.is_some() && other.retry.is_some()),
            ("tlsDefaults", self.tls.is_some() && other.tls.is_some()),
            ("h2UpgradePolicy", self.upgrade_http.is_some() && other.upgrade_http.is_some()),
            ("rootNamespace", self.root_namespace.is_some() && other.root_namespace.is_some()),
        ];
        both.into_iter().filter(|(_, both)| *both).map(|(field, _)| field)
    }
}

/// Puts what holds into the settings and the bootstrap.
pub(super) fn settle(
    objects: &Objects,
    bootstrap: &mut Bootstrap,
    settings: &mut Settings,
    report: &mut Report,
) -> Settled {
    let mut mesh = bootstrap.mesh.clone();
    if mesh.outbound.is_none() {
        mesh.outbound = sidecars(&objects.sidecars, report);
    }
    let mut documents = Mesh::default();
    for (origin, prefix, config) in &objects.mesh_configs {
        let mut refuse = |field: &str, message: String| {
            let field = [prefix, field].concat();
            Scope::new(origin, report).error_with(code::UNSUPPORTED, field, message);
        };
        let own = judge(config, origin.folder(), &mut refuse);
        overridden(&own, &mesh, "the bootstrap file's meshConfig or a Sidecar", origin, prefix, report);
        overridden(&documents, &own, "a later MeshConfig", origin, prefix, report);
        if own.outbound == Some(Outbound::AllowAny) && mesh.outbound.is_none() {
            opens_everything(origin, &format!("{prefix}outboundTrafficPolicy"), report);
        }
        documents = own.or(documents);
    }
    let mesh = mesh.or(documents);
    settings.outbound = mesh.outbound.unwrap_or_default();
    settings.normalization = mesh.normalization.unwrap_or_default();
    settings.connect_timeout = mesh.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    bootstrap.access_log_file = mesh.access_log_file.unwrap_or_else(|| Some(PathBuf::from(ACCESS_LOG_FILE)));
    let form = mesh.access_log_form.unwrap_or(LogForm { encoding: AccessLog::Text, format: None });
    settings.access_log = match (&bootstrap.access_log_file, &form.format) {
        (Some(_), None) => form.encoding,
        (Some(_), Some(_)) => AccessLog::Custom,
        (None, _) => AccessLog::Off,
    };
    settings.log_format = form.format.filter(|_| settings.access_log == AccessLog::Custom);
    let root_namespace = mesh.root_namespace.unwrap_or_else(|| ROOT_NAMESPACE.into());
    Settled {
        retry: mesh.retry.unwrap_or_default(),
        root_namespace,
        tls: mesh.tls.unwrap_or_default(),
        upgrade_http: mesh.upgrade_http.unwrap_or_default(),
    }
}

fn overridden(one: &Mesh, other: &Mesh, by: &str, origin: &Origin, prefix: &str, report: &mut Report) {
    for field in one.overlap(other) {
        let message = format!("{by} says so too; the order is bootstrap file, Sidecar, last MeshConfig");
        Scope::new(origin, report).info(code::CONFLICT, format!("{prefix}{field}"), message);
    }
}

fn opens_everything(origin: &Origin, field: &str, report: &mut Report) {
    let message = "ALLOW_ANY: whatever no ServiceEntry names may pass, to any address that addressPolicy leaves open";
    Scope::new(origin, report).warning(code::ALLOW_ANY, field, message);
}

/// What Sidecars say: one that closes wins over one that opens, whichever is older.
fn sidecars(sidecars: &[Object<Sidecar>], report: &mut Report) -> Option<Outbound> {
    let field = "spec.outboundTrafficPolicy";
    let mut found = None;
    for sidecar in sidecars {
        let mut refuse = |field: &str, message: String| {
            Scope::new(&sidecar.origin, report).error_with(code::UNSUPPORTED, format!("spec.{field}"), message);
        };
        let own = outbound(sidecar.spec.outbound_traffic_policy.as_ref(), &mut refuse);
        match (own, found) {
            (None, _) => continue,
            (Some(own), Some(other)) if own != other => {
                let message = "Sidecars differ, and all of them mean this node: REGISTRY_ONLY holds";
                Scope::new(&sidecar.origin, report).warning(code::CONFLICT, field, message);
                found = Some(Outbound::RegistryOnly);
            }
            (Some(own), _) => {
                if own == Outbound::AllowAny {
                    opens_everything(&sidecar.origin, field, report);
                }
                found = Some(own);
            }
        }
    }
    found
}
