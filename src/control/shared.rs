//! What the gateway's loop and the admin listener both look at. One thread; a borrow never lives across an await.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use crate::config::finding::Finding;
use crate::config::{CertificateEnd, LoadedObject};
use crate::limits::REPORT_TIMEOUT;
use crate::telemetry::log_writer::LogWriter;
use crate::telemetry::metrics::Counters;
use crate::telemetry::report::GatewayFacts;
use crate::worker::inbox::{Mailbox, Order};

use super::resolver::Resolver;
use super::version;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) status: RefCell<Status>,
    pub(super) resolver: RefCell<Resolver>,
    pub(super) workers: RefCell<Vec<Mailbox>>,
    pub(super) log: LogWriter,
    pub(super) started: Instant,
}

/// The state that is shown.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) phase: Phase,
    /// The I/O driver of each worker, once it is ready.
    pub(super) drivers: Vec<Option<&'static str>>,
    pub(super) generation: u64,
    pub(super) objects: Arc<[LoadedObject]>,
    pub(super) certificates: Arc<[CertificateEnd]>,
    pub(super) last_reload: LastReload,
    /// When the configuration in force took force.
    pub(super) in_force_since: SystemTime,
    pub(super) reloads_succeeded: u64,
    pub(super) reloads_failed: u64,
}

/// Where the gateway is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Some worker does not accept yet.
    Starting,
    /// All accept.
    Live,
    /// None accepts any more.
    Draining,
}

impl Phase {
    /// As `/ready` says it, in Envoy's words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "PRE_INITIALIZING",
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
        }
    }
}

/// How the last load ended; a start counts as one.
#[derive(Clone, Debug)]
pub(super) struct LastReload {
    pub(super) time: SystemTime,
    pub(super) successful: bool,
    pub(super) findings: Arc<[Finding]>,
}

/// What admin asks the gateway to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Reload, and tell how it went.
    Reload(oneshot::Sender<ReloadResult>),
    /// Drain and end.
    Drain,
}

/// How a reload went.
#[derive(Clone, Debug)]
pub(super) struct ReloadResult {
    pub(super) successful: bool,
    /// The generation in force afterwards.
    pub(super) generation: u64,
    pub(super) findings: Arc<[Finding]>,
}

impl Shared {
    /// Sends an order to every worker.
    pub(super) fn order(&self, make: impl Fn() -> Order) {
        for mailbox in self.workers.borrow().iter() {
            mailbox.send(make());
        }
    }

    /// A copy of the counters of each worker that answers in time, with its number.
    pub(super) async fn reports(&self) -> Vec<(usize, Counters)> {
        let asked: Vec<_> = self.workers.borrow().iter().map(ask).collect();
        let deadline = tokio::time::Instant::now() + REPORT_TIMEOUT;
        let mut reports = Vec::new();
        for (worker, mut answer) in asked.into_iter().enumerate() {
            if let Ok(Some(counters)) = tokio::time::timeout_at(deadline, answer.recv()).await {
                reports.push((worker, counters));
            }
        }
        reports
    }

    /// What the control thread adds to the metrics.
    pub(super) fn facts(&self) -> GatewayFacts {
        let status = self.status.borrow();
        GatewayFacts {
            version: version::VERSION,
            commit: version::COMMIT,
            drivers: status.drivers.iter().map(|driver| driver.unwrap_or("none")).collect(),
            generation: status.generation,
            last_reload_successful: status.last_reload.successful,
            last_reload: Some(status.in_force_since),
            reloads_succeeded: status.reloads_succeeded,
            reloads_failed: status.reloads_failed,
            certificates: status.certificates.iter().map(|it| (it.service.clone(), it.kind, it.end)).collect(),
            dns_queries: self.resolver.borrow().counts().clone(),
            access_log_dropped: self.log.dropped(),
        }
    }

    /// How long the gateway has been running.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

fn ask(mailbox: &Mailbox) -> tokio::sync::mpsc::UnboundedReceiver<Counters> {
    let (sender, receiver) = unbounded_channel();
    mailbox.send(Order::Report(sender));
    receiver
}
