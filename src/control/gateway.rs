//! The loop of the control thread: one event after the other, and the state they change.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sd_notify::NotifyState;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::bootstrap::Bootstrap;
use crate::config::finding::{Finding, Severity};
use crate::config::{Loaded, Loader};
use crate::limits::{
    APPLY_TIMEOUT, DRAIN_MARGIN, LOG_FLUSH_TIMEOUT, LOG_FLUSH_TIMEOUT_AT_ONCE, START_TIMEOUT, WATCHDOG_INTERVAL,
};
use crate::worker::inbox::{Event, Order};

use super::reload::{self, Applying, Ended, Reloads, Stage};
use super::resolver::Finished;
use super::retired::{Retired, free};
use super::shared::{Command, LastReload, Phase, ReloadResult, Shared};
use super::signals::{Request, Signals};
use super::watch::{self, Watcher};
use super::{process, start, tell};

/// What a step of the loop leads to: the next, or the end of the process.
type Step = ControlFlow<ExitCode>;

/// The state that only the loop sees.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) config: PathBuf,
    pub(super) shared: Rc<Shared>,
    /// The bootstrap file that the listeners and workers were started with.
    pub(super) running: Bootstrap,
    /// `drain.timeout` of the configuration in force.
    pub(super) drain_timeout: Duration,
    /// `meshConfig.accessLogFile` of the configuration in force.
    pub(super) access_log_file: Option<PathBuf>,
    /// `None` while it is loading.
    pub(super) loader: Option<Loader>,
    pub(super) reloads: Reloads,
    pub(super) retired: Retired,
    pub(super) watcher: Watcher,
    pub(super) threads: Vec<std::thread::JoinHandle<()>>,
    /// Workers that have ended as they should.
    pub(super) drained: BTreeSet<usize>,
    /// When the phase ends by itself: a start that does not finish, a drain that takes too long.
    pub(super) deadline: Option<Instant>,
    /// What the process ends with after a drain.
    pub(super) code: ExitCode,
    pub(super) sources: Sources,
}

/// Where events come from.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) events: UnboundedReceiver<Event>,
    pub(super) lookups: UnboundedReceiver<Finished>,
    pub(super) commands: UnboundedReceiver<Command>,
    pub(super) loads: UnboundedReceiver<Ended>,
    pub(super) load_ended: UnboundedSender<Ended>,
    /// Watched files have changed.
    pub(super) changes: UnboundedReceiver<()>,
}

/// From the first line of the configuration to the exit code.
pub(super) async fn live(config: &Path) -> ExitCode {
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!("cannot install signal handlers: {error}");
            return ExitCode::FAILURE;
        }
    };
    process::raise_descriptor_limit();
    let started = tokio::select! {
        biased;
        () = signals.end() => return ExitCode::SUCCESS,
        started = start::start(config) => started,
    };
    match started {
        Ok(gateway) => gateway.run(signals).await,
        Err(message) => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
    }
}

impl Gateway {
    async fn run(mut self, mut signals: Signals) -> ExitCode {
        let mut watchdog = tokio::time::interval(WATCHDOG_INTERVAL);
        watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self.next_deadline();
            let step = tokio::select! {
                request = signals.next() => self.on_signal(request),
                Some(event) = self.sources.events.recv() => self.on_event(event),
                Some(finished) = self.sources.lookups.recv() => self.on_looked_up(finished),
                Some(command) = self.sources.commands.recv() => self.on_command(command),
                Some(ended) = self.sources.loads.recv() => self.on_loaded(ended),
                Some(()) = self.sources.changes.recv() => self.on_change(),
                () = sleep_until(deadline) => self.on_deadline(),
                _ = watchdog.tick() => self.look_after_workers(),
            };
            if let ControlFlow::Break(code) = step {
                return code;
            }
        }
    }

    fn on_signal(&mut self, request: Request) -> Step {
        match request {
            Request::Exit => self.exit_at_once(),
            Request::Drain if self.phase() == Phase::Live => self.drain(),
            Request::Drain => self.exit_at_once(),
            Request::Reload => self.request_reload(None),
            Request::ReopenLogs => {
                self.shared.log.reopen(self.access_log_file.clone());
                Step::Continue(())
            }
        }
    }

    fn on_command(&mut self, command: Command) -> Step {
        match command {
            Command::Reload(waiter) => self.request_reload(Some(waiter)),
            Command::Drain if self.phase() == Phase::Draining => Step::Continue(()),
            Command::Drain => self.drain(),
        }
    }

    fn on_event(&mut self, event: Event) -> Step {
        match event {
            Event::Ready(worker, driver) => self.on_ready(worker, driver),
            Event::Applied(worker, generation) => self.on_applied(worker, generation),
            Event::Resolve(worker, name) => {
                let reply = self.shared.resolver.borrow_mut().ask(worker, &name, Instant::now());
                if let (Some(reply), Some(mailbox)) = (reply, self.shared.workers.borrow().get(worker)) {
                    mailbox.send(Order::Resolved(name, reply));
                }
                Step::Continue(())
            }
            Event::Drained(worker) => {
                self.drained.insert(worker);
                self.end_if_drained()
            }
            Event::Failed(worker, message) => {
                tracing::error!("worker {worker}: {message}");
                self.on_worker_lost(worker)
            }
        }
    }

    fn on_looked_up(&mut self, finished: Finished) -> Step {
        let (name, waiting, reply) = self.shared.resolver.borrow_mut().finish(finished, Instant::now());
        let mailboxes = self.shared.workers.borrow();
        for mailbox in waiting.into_iter().filter_map(|worker| mailboxes.get(worker)) {
            mailbox.send(Order::Resolved(name.clone(), reply.clone()));
        }
        Step::Continue(())
    }

    fn on_ready(&mut self, worker: usize, driver: &'static str) -> Step {
        tracing::info!("worker {worker}: accepting, I/O driver {driver}");
        let mut status = self.shared.status.borrow_mut();
        if let Some(slot) = status.drivers.get_mut(worker) {
            *slot = Some(driver);
        }
        if status.phase == Phase::Starting && status.drivers.iter().all(Option::is_some) {
            status.phase = Phase::Live;
            self.deadline = None;
            tracing::info!("ready after {} ms, generation {}", self.shared.uptime().as_millis(), status.generation);
            notify(&[NotifyState::Ready]);
        }
        Step::Continue(())
    }

    /// A worker that is gone leaves clients without their share of the listeners: the rest drains, and whoever
    /// supervises the process starts it anew.
    fn on_worker_lost(&mut self, worker: usize) -> Step {
        self.drained.insert(worker);
        match self.phase() {
            Phase::Starting => Step::Break(ExitCode::FAILURE),
            Phase::Draining => self.end_if_drained(),
            Phase::Live => {
                self.code = ExitCode::FAILURE;
                self.drain()
            }
        }
    }

    /// A thread that has ended without a word has panicked outside of any session.
    fn look_after_workers(&mut self) -> Step {
        self.retired.sweep();
        let ended: Vec<usize> = (0..self.threads.len()).filter(|worker| self.threads[*worker].is_finished()).collect();
        // Its last words, if any, are in the queue by now.
        while let Ok(event) = self.sources.events.try_recv() {
            self.on_event(event)?;
        }
        for worker in ended {
            if !self.drained.contains(&worker) {
                tracing::error!("worker {worker}: ended unexpectedly; this is a bug in portcullis, please report it");
                self.on_worker_lost(worker)?;
            }
        }
        Step::Continue(())
    }

    fn drain(&mut self) -> Step {
        tracing::info!("draining: sessions may take {} s to end", self.drain_timeout.as_secs());
        notify(&[NotifyState::Stopping]);
        self.shared.status.borrow_mut().phase = Phase::Draining;
        self.deadline = Some(Instant::now() + self.drain_timeout + DRAIN_MARGIN);
        self.shared.order(|| Order::Drain(self.drain_timeout));
        self.end_if_drained()
    }

    fn end_if_drained(&self) -> Step {
        let all = self.drained.len() >= self.threads.len();
        if self.phase() == Phase::Draining && all { self.end() } else { Step::Continue(()) }
    }

    fn end(&self) -> Step {
        if !self.shared.log.finish(LOG_FLUSH_TIMEOUT) {
            tracing::warn!("the access log is stuck; its last lines are lost");
        }
        tracing::info!("ended");
        Step::Break(self.code)
    }

    fn exit_at_once(&self) -> Step {
        // Lines that reached the writer take no time unless it is stuck.
        let _ = self.shared.log.finish(LOG_FLUSH_TIMEOUT_AT_ONCE);
        Step::Break(self.code)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let applying = match &self.reloads.stage {
            Stage::Applying(applying) => Some(applying.deadline),
            Stage::Idle | Stage::Loading(_) => None,
        };
        self.deadline.into_iter().chain(applying).min()
    }

    fn on_deadline(&mut self) -> Step {
        let overdue = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        match self.phase() {
            Phase::Starting if overdue => {
                tracing::error!("cannot start: not every worker accepts after {} s", START_TIMEOUT.as_secs());
                Step::Break(ExitCode::FAILURE)
            }
            Phase::Draining if overdue => {
                tracing::warn!("some workers have not drained in time");
                self.end()
            }
            Phase::Starting | Phase::Draining | Phase::Live => self.complain_of_workers(),
        }
    }

    fn phase(&self) -> Phase {
        self.shared.status.borrow().phase
    }
}

/// Reloads.
impl Gateway {
    fn request_reload(&mut self, waiter: Option<tokio::sync::oneshot::Sender<ReloadResult>>) -> Step {
        // Whoever waits hears of the end by the end of the channel.
        if self.phase() != Phase::Draining && self.reloads.request(waiter) {
            self.begin_reload();
        }
        Step::Continue(())
    }

    fn on_change(&mut self) -> Step {
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

    fn on_loaded(&mut self, ended: Ended) -> Step {
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

    fn on_applied(&mut self, worker: usize, generation: u64) -> Step {
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
    fn complain_of_workers(&mut self) -> Step {
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

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Tells systemd, if it listens (sd_notify(3)).
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot notify systemd: {error}");
    }
}

/// `Type=notify-reload` wants the time along.
fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("cannot notify systemd: {error}"),
    }
}

/// The channels of a gateway: what it reads, and where workers and admin write.
pub(super) fn sources(
    lookups: UnboundedReceiver<Finished>,
    changes: UnboundedReceiver<()>,
) -> (Sources, UnboundedSender<Event>, UnboundedSender<Command>) {
    let (event, events) = unbounded_channel();
    let (command, commands) = unbounded_channel();
    let (load_ended, loads) = unbounded_channel();
    (Sources { events, lookups, commands, loads, load_ended, changes }, event, command)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::control::fixture;
    use crate::telemetry::report;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Handles worker events until `done`.
    async fn until(gateway: &mut Gateway, done: impl Fn(&Gateway) -> bool) -> Step {
        let mut step = Step::Continue(());
        while !done(gateway) && step.is_continue() {
            let event = tokio::time::timeout(DEADLINE, gateway.sources.events.recv()).await.unwrap().unwrap();
            step = gateway.on_event(event);
        }
        step
    }

    fn generation(gateway: &Gateway) -> u64 {
        gateway.shared.status.borrow().generation
    }

    fn is_success(step: &Step) -> bool {
        // ExitCode has no equality.
        matches!(step, Step::Break(code) if format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS))
    }

    #[tokio::test]
    async fn a_generation_is_published_when_every_worker_has_it() {
        let (mut gateway, _commands) = fixture::gateway(2);
        let (waiter, mut heard) = oneshot::channel();
        gateway.reloads.request(Some(waiter));
        gateway.reloads.begin(Instant::now());
        let _ = gateway.on_loaded(Ended { loader: Loader::default(), result: Ok(fixture::loaded()) });
        assert_eq!(generation(&gateway), 1);
        let first = gateway.sources.events.recv().await.unwrap();
        let _ = gateway.on_event(first);
        assert_eq!(generation(&gateway), 1);
        assert!(heard.try_recv().is_err());
        let _ = until(&mut gateway, |gateway| generation(gateway) == 2).await;
        let result = heard.try_recv().unwrap();
        assert_eq!((result.successful, result.generation), (true, 2));
        assert_eq!(gateway.shared.status.borrow().objects.len(), 1);
        assert_eq!(gateway.shared.facts().reloads_succeeded, 1);
    }

    #[tokio::test]
    async fn a_refused_reload_leaves_the_generation_and_says_why() {
        let (mut gateway, _commands) = fixture::gateway(1);
        let (waiter, mut heard) = oneshot::channel();
        gateway.reloads.request(Some(waiter));
        gateway.reloads.begin(Instant::now());
        let findings = vec![reload::finding(Severity::Error, "PC0001", "listeners", "is missing")];
        let _ = gateway.on_loaded(Ended { loader: Loader::default(), result: Err(findings) });
        let result = heard.try_recv().unwrap();
        assert_eq!((result.successful, result.generation, result.findings.len()), (false, 1, 1));
        let text = report::exposition(&gateway.shared.facts(), &[]);
        assert!(text.contains("portcullis_config_last_reload_successful 0\n"), "{text}");
        assert!(text.contains("portcullis_reloads_total{result=\"failure\"} 1\n"), "{text}");
    }

    #[tokio::test]
    async fn a_reload_of_missing_files_is_refused_by_the_loader_thread() {
        let (mut gateway, _commands) = fixture::gateway(1);
        let _ = gateway.on_signal(Request::Reload);
        let ended = tokio::time::timeout(DEADLINE, gateway.sources.loads.recv()).await.unwrap().unwrap();
        let _ = gateway.on_loaded(ended);
        assert!(!gateway.shared.status.borrow().last_reload.successful);
        assert!(gateway.loader.is_some());
    }

    #[tokio::test]
    async fn the_gateway_ends_when_every_worker_has_drained() {
        let (mut gateway, _commands) = fixture::gateway(2);
        assert!(gateway.on_signal(Request::Drain).is_continue());
        assert_eq!(gateway.phase(), Phase::Draining);
        let step = until(&mut gateway, |_| false).await;
        assert!(is_success(&step));
        assert_eq!(gateway.drained.len(), 2);
    }

    #[tokio::test]
    async fn a_second_sigterm_and_a_sigint_end_at_once() {
        let (mut gateway, _commands) = fixture::gateway(2);
        assert!(gateway.on_signal(Request::Drain).is_continue());
        assert!(is_success(&gateway.on_signal(Request::Drain)));
        let (mut gateway, _commands) = fixture::gateway(1);
        assert!(is_success(&gateway.on_signal(Request::Exit)));
    }

    #[tokio::test]
    async fn a_worker_that_fails_takes_the_gateway_down_with_an_error() {
        let (mut gateway, _commands) = fixture::gateway(2);
        assert!(gateway.on_event(Event::Failed(0, "cannot bind".to_owned())).is_continue());
        assert_eq!(gateway.phase(), Phase::Draining);
        let step = until(&mut gateway, |_| false).await;
        assert!(step.is_break() && !is_success(&step));
    }

    #[tokio::test]
    async fn a_drain_does_not_wait_for_ever() {
        let (mut gateway, _commands) = fixture::gateway(1);
        let _ = gateway.on_signal(Request::Drain);
        gateway.deadline = Some(Instant::now());
        assert!(is_success(&gateway.on_deadline()));
    }

    #[tokio::test]
    async fn a_generation_that_a_worker_does_not_confirm_is_not_claimed_and_holds_up_no_later_reload() {
        let (mut gateway, _commands) = fixture::gateway(1);
        gateway.reloads.begin(Instant::now());
        let _ = gateway.on_loaded(Ended { loader: Loader::default(), result: Ok(fixture::loaded()) });
        if let Stage::Applying(applying) = &mut gateway.reloads.stage {
            applying.deadline = Instant::now();
        }
        let _ = gateway.on_deadline();
        assert_eq!(generation(&gateway), 1);
        assert!(gateway.reloads.request(None));
        assert_eq!(gateway.reloads.number(), 3, "a late confirmation must not pass for that of another generation");
    }
}
