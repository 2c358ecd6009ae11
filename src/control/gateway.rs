//! The loop of the control thread: one event after the other, and the state they change.

mod reloads;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::config::Loader;
use crate::config::bootstrap::Bootstrap;
use crate::limits::{DRAIN_MARGIN, LOG_FLUSH_TIMEOUT, LOG_FLUSH_TIMEOUT_AT_ONCE, START_TIMEOUT, WATCHDOG_INTERVAL};
use crate::worker::inbox::{Event, Order};

use super::reload::{Ended, Reloads, Stage};
use super::resolver::Finished;
use super::retired::Retired;
use super::shared::{Command, Phase, Shared};
use super::signals::{Request, Signals};
use super::watch::Watcher;
use super::{process, start};

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
