//! One thread per CPU: accept and spawn, obey the control thread, nothing else.

mod accept;
pub mod inbox;
mod main_loop;
mod runtime;

use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;

use crate::snapshot::Snapshot;
use crate::telemetry::batch::LogBatch;

use inbox::{Event, Inbox, Mailbox};

/// What a worker needs to start.
#[derive(Debug)]
pub struct WorkerSpec {
    /// Its number, from 0; the `worker` label of metrics.
    pub index: usize,
    /// How many workers there are.
    pub workers: usize,
    /// The CPU to pin it to; `None`: leave it to the kernel.
    pub cpu: Option<usize>,
    /// Which I/O driver it may use.
    pub driver: DriverChoice,
    /// How long to look for more work before it sleeps; under epoll it always sleeps at once.
    pub spin: std::time::Duration,
    /// Listeners to bind with `SO_REUSEPORT`; each worker binds its own set.
    pub listeners: Vec<ListenerSpec>,
    /// The configuration to start with.
    pub snapshot: Snapshot,
    /// Where events go.
    pub events: tokio::sync::mpsc::UnboundedSender<Event>,
    /// Where finished batches of access-log lines go.
    pub log: SyncSender<LogBatch>,
}

/// `ioDriver` of the bootstrap file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring, or epoll where the kernel refuses it.
    #[default]
    Auto,
    /// io_uring, or the worker does not start.
    IoUring,
    /// epoll.
    Epoll,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// `name` of the bootstrap file.
    pub name: Box<str>,
    /// Where to listen.
    pub bind: SocketAddr,
    /// How the port that routes mean is known.
    pub service: ServicePort,
    /// Whether it serves the servers that Gateways have on that port, instead of the mesh's routes.
    pub gateway: bool,
}

/// How the service port of a connection is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServicePort {
    /// It is the same for every connection of the listener (`servicePort`).
    Fixed(u16),
    /// The packet filter has redirected the connection: the kernel remembers where it went (`capture: REDIRECT`).
    Redirected,
    /// The packet filter has handed the connection over as it is: our end has the address that the client meant
    /// (`capture: TPROXY`).
    Transparent,
}

impl ServicePort {
    /// The port that is the same for every connection; `None`: the listener takes captured traffic, to any port.
    #[must_use]
    pub fn fixed(self) -> Option<u16> {
        match self {
            Self::Fixed(port) => Some(port),
            Self::Redirected | Self::Transparent => None,
        }
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// Its inbox.
    pub mailbox: Mailbox,
    /// Its thread; it ends after [`Event::Drained`] or [`Event::Failed`].
    pub thread: std::thread::JoinHandle<()>,
}

/// Starts a worker. It reports [`Event::Ready`] once its listeners accept, or [`Event::Failed`].
///
/// # Errors
/// When no thread or descriptor is to be had.
pub fn spawn(spec: WorkerSpec) -> std::io::Result<Worker> {
    let (mailbox, inbox) = inbox::channel()?;
    let thread = std::thread::Builder::new().name(format!("worker-{}", spec.index)).spawn(move || run(spec, inbox))?;
    Ok(Worker { mailbox, thread })
}

/// The life of a worker's thread.
fn run(spec: WorkerSpec, inbox: Inbox) {
    if let Some(cpu) = spec.cpu {
        pin(cpu);
    }
    let (index, events) = (spec.index, spec.events.clone());
    let result = runtime::with(spec.driver, |driver| main_loop::run(spec, inbox, driver));
    let event = match result.and_then(|ended| ended) {
        Ok(()) => Event::Drained(index),
        Err(reason) => Event::Failed(index, reason),
    };
    // The control thread may have ended first; then nobody needs to know.
    let _ = events.send(event);
}

/// Keeps the thread on one CPU, whose caches hold its tables. Not being allowed to costs speed only.
fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "a worker could not be pinned");
    }
}
