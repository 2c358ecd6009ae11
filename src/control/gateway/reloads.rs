//! Reloads, from the wish to the generation that is in force.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use sd_notify::NotifyState;

use crate::config::Loaded;
use crate::config::finding::{Finding, Severity};
use crate::limits::APPLY_TIMEOUT;
use crate::worker::inbox::Order;

use super::super::reload::{self, Applying, Ended, Stage};
use super::super::retired::free;
use super::super::shared::{LastReload, Phase, ReloadResult};
use super::super::{tell, watch};
use super::{Gateway, Step, notify};

impl Gateway {
    pub(super) fn request_reload(&mut self, waiter: Option<tokio::sync::oneshot::Sender<ReloadResult>>) -> Step {
        // Whoever waits hears of the end by the end of the channel.
        if self.phase() != Phase::Draining && self.reloads.request(waiter) {
            self.begin_reload();
        }
        Step::Continue(())
    }

    pub(super) fn on_change(&mut self) -> Step {
        tracing::info!("watched files have changed");
        self.request_reload(None)
    }

    fn begin_reload(&mut self) {
        self.reloads.begin(Instant::now());
        notify_reloading();
        let loader = self.loader.take().unwrap_or_default();
        if let Err(error) = reload::load(loader, self.config.clone(), self.sources.load_ended.clone()) {
            // The loader is lost with the thread that could not start, and with it what it knew of pools.
            let message = format!("cannot start a thread to load in: {error}");
            self.refuse_reload(vec![reload::finding(Severity::Error, "PC0902", "", &message)]);
        }
    }

    pub(super) fn on_loaded(&mut self, ended: Ended) -> Step {
        self.loader = Some(ended.loader);
        self.retired.load_ended();
        match ended.result {
            Ok(loaded) => self.apply(loaded),
            Err(findings) => self.refuse_reload(findings),
        }
        Step::Continue(())
    }

    fn refuse_reload(&mut self, findings: Vec<Finding>) {
        tell(&findings);
        let generation = {
            let mut status = self.shared.status.borrow_mut();
            status.reloads_failed += 1;
            status.last_reload = LastReload { time: SystemTime::now(), successful: false, findings: findings.into() };
            status.generation
        };
        tracing::error!("reload refused; generation {generation} stays in force");
        self.end_reload(false);
    }

    /// Hands every worker its copy; [`Self::on_applied`] hears of each.
    fn apply(&mut self, mut loaded: Loaded) {
        let since = match self.reloads.stage {
            Stage::Loading(since) => since,
            Stage::Idle | Stage::Applying(_) => Instant::now(),
        };
        let generation = self.reloads.number();
        let snapshot = reload::snapshot(generation, &loaded, &self.running);
        self.shared.resolver.borrow_mut().configure(loaded.bootstrap.dns.clone());
        self.retired.hand_out(&snapshot.routes.tables);
        self.shared.order(|| Order::Apply(Box::new(snapshot.clone())));
        loaded.findings.extend(reload::restart_needed(&self.running, &loaded.bootstrap));
        if self.access_log_file != loaded.bootstrap.access_log_file {
            self.access_log_file.clone_from(&loaded.bootstrap.access_log_file);
            self.shared.log.reopen(self.access_log_file.clone());
        }
        self.drain_timeout = loaded.bootstrap.drain_timeout;
        self.watcher.set(watch::paths(&self.config, &loaded.bootstrap, &loaded.objects));
        self.reloads.stage = Stage::Applying(Applying {
            generation,
            since,
            deadline: Instant::now() + APPLY_TIMEOUT,
            pending: (0..self.threads.len()).filter(|worker| !self.drained.contains(worker)).collect(),
            objects: loaded.objects.into(),
            certificates: loaded.certificates.into(),
            findings: loaded.findings.into(),
        });
    }

    pub(super) fn on_applied(&mut self, worker: usize, generation: u64) -> Step {
        if let Stage::Applying(applying) = &mut self.reloads.stage
            && applying.generation == generation
        {
            applying.pending.remove(&worker);
            if applying.pending.is_empty() {
                self.publish();
            }
        }
        Step::Continue(())
    }

    /// A generation is in force when every worker says so, and not before: a host that was taken away may still pass
    /// through a worker that lags behind. Later reloads are not held up by it.
    pub(super) fn complain_of_workers(&mut self) -> Step {
        if let Stage::Applying(applying) = &self.reloads.stage
            && applying.deadline <= Instant::now()
        {
            let (workers, generation) = (&applying.pending, applying.generation);
            let message = format!(
                "workers {workers:?} have not put generation {generation} in force in time; others enforce it already"
            );
            self.refuse_reload(vec![reload::finding(Severity::Error, "PC0903", "", &message)]);
        }
        Step::Continue(())
    }

    /// The new generation is what the gateway enforces.
    fn publish(&mut self) {
        let Stage::Applying(applied) = std::mem::take(&mut self.reloads.stage) else { return };
        tell(&applied.findings);
        let elapsed = applied.since.elapsed().as_millis();
        tracing::info!("configuration generation {} in force after {elapsed} ms", applied.generation);
        let now = SystemTime::now();
        self.retired.sweep();
        {
            let mut status = self.shared.status.borrow_mut();
            status.generation = applied.generation;
            free(vec![std::mem::replace(&mut status.objects, applied.objects)]);
            status.certificates = applied.certificates;
            status.in_force_since = now;
            status.reloads_succeeded += 1;
            status.last_reload = LastReload { time: now, successful: true, findings: applied.findings };
        }
        self.end_reload(true);
    }

    fn end_reload(&mut self, successful: bool) {
        let result = {
            let status = self.shared.status.borrow();
            let findings = Arc::clone(&status.last_reload.findings);
            ReloadResult { successful, generation: status.generation, findings }
        };
        if self.phase() == Phase::Live {
            notify(&[NotifyState::Ready]);
        }
        if self.reloads.end(&result) {
            self.begin_reload();
        }
    }
}

/// `Type=notify-reload` wants the time along.
fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("cannot notify systemd: {error}"),
    }
}
