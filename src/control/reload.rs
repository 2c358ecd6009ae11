//! Reloads: all or nothing, one at a time.
//!
//! Loading happens on a thread of its own, so that names and admin go on. Requests that come meanwhile are one more
//! reload afterwards, since the files may have changed after they were read.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::config::bootstrap::{AdminBind, Bootstrap};
use crate::config::finding::{Finding, Severity};
use crate::config::{CertificateEnd, Loaded, LoadedObject, Loader};
use crate::snapshot::{Settings, Snapshot};

use super::shared::ReloadResult;

/// A load that has ended. The loader comes back with it: it knows earlier generations.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) loader: Loader,
    pub(super) result: Result<Loaded, Vec<Finding>>,
}

/// Loads on a thread of its own; the end is told to `ended`.
pub(super) fn load(mut loader: Loader, config: PathBuf, ended: UnboundedSender<Ended>) -> std::io::Result<()> {
    std::thread::Builder::new().name("loader".to_owned()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| loader.load(&config))).unwrap_or_else(|_| Err(vec![bug()]));
        // Nobody listens once the gateway ends.
        let _ = ended.send(Ended { loader, result });
    })?;
    Ok(())
}

fn bug() -> Finding {
    finding(Severity::Error, "PC0900", "", "the loader failed; this is a bug in portcullis, please report it")
}

/// A finding about the bootstrap file that only a running gateway can make.
pub(super) fn finding(severity: Severity, code: &'static str, field: &str, message: &str) -> Finding {
    Finding {
        severity,
        code,
        kind: "Bootstrap".to_owned(),
        namespace: String::new(),
        name: String::new(),
        field: field.to_owned(),
        message: message.to_owned(),
        source: String::new(),
    }
}

/// Where a reload is.
#[derive(Debug, Default)]
pub(super) enum Stage {
    #[default]
    Idle,
    /// Since when.
    Loading(Instant),
    Applying(Applying),
}

/// A configuration that is on its way to the workers.
#[derive(Debug)]
pub(super) struct Applying {
    pub(super) generation: u64,
    pub(super) since: Instant,
    /// When waiting for workers ends.
    pub(super) deadline: Instant,
    /// Workers that have not confirmed it.
    pub(super) pending: BTreeSet<usize>,
    pub(super) objects: Arc<[LoadedObject]>,
    /// The certificates that it names.
    pub(super) certificates: Arc<[CertificateEnd]>,
    pub(super) findings: Arc<[Finding]>,
}

/// The reload in progress, and who waits for which.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    pub(super) stage: Stage,
    /// Generations that were handed to workers after the first, whether or not they took force.
    issued: u64,
    /// Whether another was asked for since the one in progress began.
    again: bool,
    /// Who waits for the one in progress.
    current: Vec<oneshot::Sender<ReloadResult>>,
    /// Who waits for the next.
    next: Vec<oneshot::Sender<ReloadResult>>,
}

impl Reloads {
    /// A generation's number, never given twice; the configuration of the start is number 1.
    pub(super) fn number(&mut self) -> u64 {
        self.issued += 1;
        self.issued + 1
    }

    /// Notes a request. Returns whether a reload must begin now.
    pub(super) fn request(&mut self, waiter: Option<oneshot::Sender<ReloadResult>>) -> bool {
        self.next.extend(waiter);
        let idle = matches!(self.stage, Stage::Idle);
        self.again |= !idle;
        idle
    }

    /// A reload begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.stage = Stage::Loading(now);
        self.again = false;
        self.current = std::mem::take(&mut self.next);
    }

    /// The reload has ended. Returns whether the next must begin now.
    pub(super) fn end(&mut self, result: &ReloadResult) -> bool {
        self.stage = Stage::Idle;
        for waiter in self.current.drain(..) {
            // Whoever waited may have gone.
            let _ = waiter.send(result.clone());
        }
        self.again
    }
}

/// One warning for each change that a running gateway cannot make.
pub(super) fn restart_needed(running: &Bootstrap, loaded: &Bootstrap) -> Vec<Finding> {
    let changes = [
        ("listeners", running.listeners != loaded.listeners),
        ("workers", running.workers != loaded.workers),
        ("ioDriver", running.driver != loaded.driver),
        ("spin", running.spin != loaded.spin),
        ("admin.bind", running.admin != loaded.admin),
    ];
    let message = "has changed, and takes effect at the next restart only; everything else is in force";
    let changed = changes.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(field, _)| finding(Severity::Warning, "PC0901", field, message)).collect()
}

/// The snapshot of a loaded configuration. The listeners that run are ours, even if the file names others by now.
pub(super) fn snapshot(generation: u64, loaded: &Loaded, running: &Bootstrap) -> Snapshot {
    let mut settings: Settings = (*loaded.settings).clone();
    let admin = match running.admin {
        AdminBind::Tcp(address) => Some(address),
        AdminBind::Unix(_) => None,
    };
    for address in running.listeners.iter().map(|listener| listener.bind).chain(admin) {
        if !settings.addresses.own.contains(&address) {
            settings.addresses.own.push(address);
        }
    }
    Snapshot { generation, routes: loaded.routes.clone(), settings: Arc::new(settings) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture;
    use crate::worker::{ListenerSpec, ServicePort};

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            listeners: vec![ListenerSpec {
                name: "tls".into(),
                bind: "127.0.0.1:8443".parse().unwrap(),
                service: ServicePort::Fixed(443),
                gateway: false,
            }],
            admin: AdminBind::Tcp("127.0.0.1:15000".parse().unwrap()),
            ..fixture::bootstrap()
        }
    }

    fn result(generation: u64) -> ReloadResult {
        ReloadResult { successful: true, generation, findings: Arc::default() }
    }

    #[test]
    fn requests_during_a_reload_are_one_more_reload() {
        let mut reloads = Reloads::default();
        assert!(reloads.request(None));
        reloads.begin(Instant::now());
        for _ in 0..100 {
            assert!(!reloads.request(None));
        }
        assert!(reloads.end(&result(2)));
        reloads.begin(Instant::now());
        assert!(!reloads.end(&result(3)));
    }

    #[test]
    fn whoever_asks_during_a_reload_hears_of_the_next() {
        let mut reloads = Reloads::default();
        let (first, mut heard_first) = oneshot::channel();
        let (second, mut heard_second) = oneshot::channel();
        reloads.request(Some(first));
        reloads.begin(Instant::now());
        reloads.request(Some(second));
        reloads.end(&result(2));
        assert_eq!(heard_first.try_recv().unwrap().generation, 2);
        assert!(heard_second.try_recv().is_err());
        reloads.begin(Instant::now());
        reloads.end(&result(3));
        assert_eq!(heard_second.try_recv().unwrap().generation, 3);
    }

    #[test]
    fn changes_that_need_a_restart_are_named() {
        let changed = Bootstrap {
            workers: 2,
            listeners: Vec::new(),
            drain_timeout: std::time::Duration::from_secs(1),
            ..bootstrap()
        };
        let fields: Vec<String> =
            restart_needed(&bootstrap(), &changed).into_iter().map(|finding| finding.field).collect();
        assert_eq!(fields, ["listeners", "workers"]);
        assert!(restart_needed(&bootstrap(), &bootstrap()).is_empty());
    }

    #[test]
    fn listeners_that_run_stay_our_own_addresses() {
        let loaded = fixture::loaded();
        let own = snapshot(2, &loaded, &bootstrap()).settings.addresses.own.clone();
        assert_eq!(own, ["127.0.0.1:8443".parse().unwrap(), "127.0.0.1:15000".parse().unwrap()]);
    }
}
