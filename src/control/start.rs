//! The start: load, then bind; nothing is bound if the configuration has an error.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::config::{Loaded, Loader};
use crate::limits::START_TIMEOUT;
use crate::telemetry::log_writer::LogWriter;
use crate::worker::inbox::Event;
use crate::worker::{self, Worker, WorkerSpec};

use super::gateway::{self, Gateway};
use super::reload::{self, Reloads};
use super::resolver::Resolver;
use super::retired::Retired;
use super::shared::{LastReload, Phase, Shared, Status};
use super::watch::{self, Watcher};
use super::{admin, process, tell};

/// Loads the configuration, and starts admin and workers. That they accept is an event of the gateway's loop.
///
/// # Errors
/// What the operator should know; findings have been told already.
pub(super) async fn start(config: &Path) -> Result<Gateway, String> {
    let started = Instant::now();
    let (loader, loaded) = load(config).await?;
    tell(&loaded.findings);
    let running = loaded.bootstrap.clone();
    let access_log_file = running.access_log_file.clone();
    let log = LogWriter::spawn(access_log_file.clone()).map_err(|error| format!("cannot start: {error}"))?;
    let (resolver, lookups) = Resolver::new(running.dns.clone());
    let (change, changes) = unbounded_channel();
    let watcher = Watcher::spawn(change).map_err(|error| format!("cannot start: {error}"))?;
    watcher.set(watch::paths(config, &running, &loaded.objects));
    let (sources, events, commands) = gateway::sources(lookups, changes);
    let listener = admin::Listener::bind(&running.admin).await?;
    let mut retired = Retired::default();
    retired.load_ended();
    retired.hand_out(&loaded.routes.tables);
    let workers = workers(&loaded, &events, &log).map_err(|error| format!("cannot start the workers: {error}"))?;
    drop(events); // Only workers hold it, so its end is theirs.
    let (mailboxes, threads): (Vec<_>, Vec<_>) =
        workers.into_iter().map(|worker| (worker.mailbox, worker.thread)).unzip();
    let shared = Rc::new(Shared {
        status: RefCell::new(status(loaded, threads.len())),
        resolver: RefCell::new(resolver),
        workers: RefCell::new(mailboxes),
        log,
        started,
    });
    tokio::task::spawn_local(admin::serve(listener, shared.clone(), commands));
    Ok(Gateway {
        config: config.to_owned(),
        shared,
        drain_timeout: running.drain_timeout,
        access_log_file,
        running,
        loader: Some(loader),
        reloads: Reloads::default(),
        retired,
        watcher,
        threads,
        drained: BTreeSet::new(),
        deadline: Some(started + START_TIMEOUT),
        code: ExitCode::SUCCESS,
        sources,
    })
}

async fn load(config: &Path) -> Result<(Loader, Loaded), String> {
    let (sender, mut ended) = unbounded_channel();
    reload::load(Loader::default(), config.to_owned(), sender).map_err(|error| format!("cannot start: {error}"))?;
    let ended = ended.recv().await.ok_or_else(|| "the loader ended without a result".to_owned())?;
    match ended.result {
        Ok(loaded) => Ok((ended.loader, loaded)),
        Err(findings) => {
            tell(&findings);
            Err(format!("{}: the configuration has errors; nothing was started", config.display()))
        }
    }
}

fn workers(loaded: &Loaded, events: &UnboundedSender<Event>, log: &LogWriter) -> std::io::Result<Vec<Worker>> {
    let bootstrap = &loaded.bootstrap;
    let snapshot = reload::snapshot(1, loaded, bootstrap);
    let placement = process::placement(bootstrap.workers, &process::cpus());
    let workers = placement.len();
    let start = |(index, cpu)| {
        worker::spawn(WorkerSpec {
            index,
            workers,
            cpu,
            driver: bootstrap.driver,
            spin: bootstrap.spin,
            listeners: bootstrap.listeners.clone(),
            snapshot: snapshot.clone(),
            events: events.clone(),
            log: log.batches(),
        })
    };
    placement.into_iter().enumerate().map(start).collect()
}

fn status(loaded: Loaded, workers: usize) -> Status {
    let now = SystemTime::now();
    Status {
        phase: Phase::Starting,
        drivers: vec![None; workers],
        generation: 1,
        objects: loaded.objects.into(),
        certificates: loaded.certificates.into(),
        last_reload: LastReload { time: now, successful: true, findings: loaded.findings.into() },
        in_force_since: now,
        reloads_succeeded: 0,
        reloads_failed: 0,
    }
}
