//! The bootstrap file, `portcullis.yaml`. This file is ours: unknown keys are errors.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::worker::{DriverChoice, ListenerSpec};

/// The bootstrap file, checked, with every path resolved against the file's folder.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// `workers`; 0: one per CPU this process may run on.
    pub workers: usize,
    /// `ioDriver`.
    pub driver: DriverChoice,
    /// `listeners`.
    pub listeners: Vec<ListenerSpec>,
    /// `resources`.
    pub resources: Vec<PathBuf>,
    /// `watch`.
    pub watch: bool,
    /// `meshConfig.accessLogFile`; `None`: off.
    pub access_log_file: Option<PathBuf>,
    /// `dns`.
    pub dns: Dns,
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

/// `admin.bind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// `127.0.0.1:15000`.
    Tcp(SocketAddr),
    /// `unix:/run/portcullis/admin.sock`.
    Unix(PathBuf),
}
