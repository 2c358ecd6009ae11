//! The bootstrap file, `portcullis.yaml`. This file is ours: unknown keys are errors.

mod check;
mod file;
mod headers;
mod limits;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::route::host::HostPattern;
use crate::snapshot::Settings;
use crate::worker::{DriverChoice, ListenerSpec};

use super::finding::{Finding, Report, Severity, code};
use super::istio;
use super::load::{Document, load_single};
use super::mesh::Mesh;

/// The bootstrap file, checked, with every path resolved against the file's folder.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// `workers`; 0: one per CPU this process may run on.
    pub workers: usize,
    /// `spin`: how long a worker looks for more work before it sleeps.
    pub spin: Duration,
    /// `ioDriver`.
    pub driver: DriverChoice,
    /// `listeners`.
    pub listeners: Vec<ListenerSpec>,
    /// `resources`.
    pub resources: Vec<PathBuf>,
    /// `gatewayServices`: hosts that mean a Gateway's own service, besides `istio-egressgateway.*`.
    pub gateway_services: Vec<HostPattern>,
    /// `watch`.
    pub watch: bool,
    /// `meshConfig`, as far as this file says.
    pub mesh: Mesh,
    /// `meshConfig.accessLogFile` of whoever has the say; `None`: off.
    pub access_log_file: Option<PathBuf>,
    /// `dns`.
    pub dns: Dns,
    /// `tls`.
    pub tls: Tls,
    /// `admin.bind`.
    pub admin: AdminBind,
    /// `drain.timeout`.
    pub drain_timeout: Duration,
}

/// `dns:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// `servers`; empty: /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// `hosts`: asked first, exempt from the address policy.
    pub hosts: Vec<(crate::route::host::HostName, Vec<std::net::IpAddr>)>,
}

/// `tls:`, the defaults of TLS origination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `caCertificates`; `None`: the system's roots.
    pub ca_certificates: Option<PathBuf>,
    /// `serverNameVerification`: STRICT; else ISTIO.
    pub strict_names: bool,
    /// `credentials`: the folder in which `credentialName` is looked up.
    pub credentials: PathBuf,
}

impl Default for Tls {
    fn default() -> Self {
        Self { ca_certificates: None, strict_names: true, credentials: PathBuf::from("credentials") }
    }
}

/// `admin.bind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// `127.0.0.1:15000`.
    Tcp(SocketAddr),
    /// `unix:/run/portcullis/admin.sock`.
    Unix(PathBuf),
}

/// Where the admin listens unless told otherwise.
const ADMIN_BIND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15000);

/// How long live sessions may go on after SIGTERM unless told otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

impl Bootstrap {
    /// What holds where there is no bootstrap file: the defaults, no listener, these resources.
    #[must_use]
    pub fn without_file(resources: &[PathBuf]) -> (Self, Settings) {
        let bootstrap = Self {
            workers: 0,
            driver: DriverChoice::Auto,
            listeners: Vec::new(),
            resources: resources.to_vec(),
            gateway_services: Vec::new(),
            watch: false,
            mesh: Mesh::default(),
            access_log_file: None,
            dns: Dns::default(),
            tls: Tls::default(),
            admin: AdminBind::Tcp(ADMIN_BIND),
            spin: Duration::ZERO,
            drain_timeout: DRAIN_TIMEOUT,
        };
        (bootstrap, Settings::default())
    }

    /// Reads and checks the file. `None`: it cannot be read at all; else faults are reported and replaced by
    /// defaults, so that the resources are checked as well.
    pub fn read(path: &Path, report: &mut Report) -> Option<(Self, Settings)> {
        let (document, value) = load_bootstrap(path, report)?;
        let mut scope = Scope { document: &document, report };
        let file = decode(&value, &mut scope)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Some(check::check(file, folder, &mut scope))
    }
}

/// An empty file is a file without listeners and resources, which `check` names.
fn load_bootstrap(path: &Path, report: &mut Report) -> Option<(Arc<Document>, serde_yaml::Value)> {
    if path.is_dir() {
        report.file(Severity::Error, code::UNREADABLE, path.display().to_string(), "a folder, not a bootstrap file");
        return None;
    }
    let errors_before = report.error_count();
    let document = load_single(path, report);
    if document.is_none() && report.error_count() == errors_before {
        let message = "the file is empty; it needs at least `listeners` and `resources`";
        report.file(Severity::Error, code::BOOTSTRAP, path.display().to_string(), message);
    }
    document
}

fn decode(value: &serde_yaml::Value, scope: &mut Scope<'_>) -> Option<file::File> {
    let mut unknown = Vec::new();
    let decoded = istio::decode_strictly(value, &mut |field| unknown.push(field));
    for field in unknown {
        let field = field.trim_start_matches('.').to_owned();
        scope.error(&field, format!("unknown key {:?}", field.rsplit('.').next().unwrap_or_default()));
    }
    match decoded {
        Ok(file) => Some(file),
        Err((field, message)) => {
            scope.error(field.trim_start_matches('.'), message);
            None
        }
    }
}

/// Reports findings about the bootstrap file.
#[derive(Debug)]
struct Scope<'a> {
    document: &'a Document,
    report: &'a mut Report,
}

impl Scope<'_> {
    fn error(&mut self, field: &str, message: impl Into<String>) {
        self.add(Severity::Error, field, message.into());
    }

    fn warning(&mut self, field: &str, message: impl Into<String>) {
        self.add(Severity::Warning, field, message.into());
    }

    fn add(&mut self, severity: Severity, field: &str, message: String) {
        self.report.add(Finding {
            severity,
            code: code::BOOTSTRAP,
            kind: "Bootstrap".to_owned(),
            namespace: String::new(),
            name: String::new(),
            field: field.to_owned(),
            message,
            source: self.document.source(field).to_string(),
        });
    }
}
