//! What the sessions of one worker share. Nothing here is seen by another thread.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use std::time::{Instant, SystemTime};

use crate::failure::Failure;
use crate::limits::{AUDITED_BYTES_MAX, DENIED_ROWS_MAX, LOG_BATCH_DELAY};
use crate::net::{Pipes, Scratch};
use crate::relay::Tools;
use crate::route::authorization::Policy;
use crate::route::cluster::PoolId;
use crate::route::host::HostName;
use crate::route::traffic::Share;
use crate::snapshot::{AccessLog, Snapshot};
use crate::telemetry::batch::{Batch, LogBatch, Pushed};
use crate::telemetry::metrics::{Counters, DeniedKey, DeniedRow, Spoken};
use crate::telemetry::record::Record;
use crate::tls::server::TlsServers;
use crate::upstream::account::Accounts;
use crate::upstream::balance::Balancer;
use crate::upstream::pool::Pool;
use crate::upstream::resolve::Resolver;
use crate::upstream::tls::TlsConfigs;

use super::client::Clients;
use super::copies::Copies;
use super::names::Names;

/// Everything that belongs to one worker.
#[derive(Debug)]
pub struct Context {
    snapshot: RefCell<Rc<Snapshot>>,
    /// Buffers.
    pub scratch: Rc<Scratch>,
    /// Pipes for bulk transfers.
    pub pipes: Pipes,
    /// Answers of the resolver.
    pub resolver: Resolver,
    /// Choice of endpoints.
    pub balancer: Balancer,
    /// What is counted for clusters with bounds.
    pub accounts: Accounts,
    /// Idle upstream connections.
    pub pool: Pool,
    /// rustls configurations for TLS that we open.
    pub tls: TlsConfigs,
    /// Those for TLS that ends here.
    pub tls_servers: TlsServers,
    /// Numbers.
    pub counters: RefCell<Counters>,
    /// Open client connections.
    pub clients: Clients,
    /// What tunnels hold of their clusters.
    pub(super) names: Names,
    /// Copies of requests.
    pub(super) copies: Copies,
    /// Whether the worker is draining: no request follows the one under way.
    pub draining: Cell<bool>,
    /// Whether the time to drain has passed: sessions that end now were cut off.
    pub drain_expired: Cell<bool>,
    log: Batch,
    /// Whether a task waits to hand the current batch over.
    flush_due: Cell<bool>,
}

/// What a refusal was about, for `/denied` and the metrics.
#[derive(Clone, Copy, Debug)]
pub struct Denied<'a> {
    /// The host that was asked for; `-`: none.
    pub host: &'a str,
    /// The service port.
    pub port: u16,
    /// The client.
    pub source: IpAddr,
    /// What the client spoke.
    pub spoken: Spoken,
}

/// What %CONNECTION_TERMINATION_DETAILS% says where nothing else does, so that every log format shows audits.
pub(super) fn audit_details(rules: &str) -> String {
    format!("rbac_audit_matched_policy[{rules}]")
}

impl Context {
    /// A worker's state, with its first configuration; `share` is its part of what is meant for the node. `ask` puts a
    /// question to the resolver.
    #[must_use]
    pub fn new(
        snapshot: Snapshot,
        share: Share,
        seed: u64,
        log: SyncSender<LogBatch>,
        ask: impl Fn(HostName) + 'static,
    ) -> Self {
        Self {
            snapshot: RefCell::new(Rc::new(snapshot)),
            scratch: Rc::default(),
            pipes: Pipes::default(),
            resolver: Resolver::new(ask),
            balancer: Balancer::new(seed),
            accounts: Accounts::new(share),
            pool: Pool::default(),
            tls: TlsConfigs::default(),
            tls_servers: TlsServers::default(),
            counters: RefCell::default(),
            clients: Clients::default(),
            names: Names::default(),
            copies: Copies::default(),
            draining: Cell::new(false),
            drain_expired: Cell::new(false),
            log: Batch::new(log),
            flush_due: Cell::new(false),
        }
    }

    /// The configuration in force now.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Puts a configuration in force, between two events of the worker, and lets go of what it no longer needs. What
    /// that takes does not grow with the number of hosts.
    pub fn apply(&self, snapshot: Snapshot) {
        let survivors = &snapshot.routes.tables.survivors;
        self.pool.keep_clusters(|pool| survivors.has_pool(pool));
        self.balancer.retain(|pool| survivors.has_pool(pool));
        self.accounts.apply(survivors);
        self.tls.retain(|id| survivors.has_profile(id));
        self.tls_servers.retain(|id| survivors.has_server(id));
        self.resolver.forget();
        self.snapshot.replace(Rc::new(snapshot));
    }

    /// Whether connections of this pool, used under `snapshot`, may be kept for other requests. After a reload they may
    /// if some cluster has the pool still: a reload under load must not cost every upstream connection that was in use.
    pub fn keeps(&self, snapshot: &Snapshot, pool: PoolId) -> bool {
        let current = self.snapshot.borrow();
        let is_current = current.generation == snapshot.generation;
        !self.draining.get() && (is_current || current.routes.tables.survivors.has_pool(pool))
    }

    /// What a relay works with.
    pub fn tools(&self) -> Tools<'_> {
        Tools { scratch: &self.scratch, pipes: &self.pipes }
    }

    /// Tells about a finished request or session: the one place where log lines and counts come from.
    pub fn finish(self: &Rc<Self>, record: &Record<'_>, failure: Option<(&Failure, Denied<'_>)>, form: AccessLog) {
        self.counters.borrow_mut().count(record);
        if let Some((failure, denied)) = failure.filter(|(failure, _)| failure.is_denial()) {
            self.count_denial(failure, denied);
        }
        if form == AccessLog::Off {
            return;
        }
        let pushed = match (form, &self.snapshot.borrow().settings.log_format) {
            (AccessLog::Custom, Some(format)) => self.log.push_with(|bytes| format.write(record, bytes)),
            _ => self.log.push(record, form),
        };
        match pushed {
            Pushed::Kept => {}
            Pushed::Full => self.flush_log(),
            // One at a time: a burst that fills batch after batch must not fill the run queue with tasks.
            Pushed::Started if self.flush_due.get() => {}
            Pushed::Started => {
                self.flush_due.set(true);
                let context = Rc::clone(self);
                monoio::spawn(async move {
                    crate::net::sleep(LOG_BATCH_DELAY).await;
                    context.flush_due.set(false);
                    context.flush_log();
                });
            }
        }
    }

    /// Hands the lines so far to the writer.
    pub fn flush_log(&self) {
        self.counters.borrow_mut().access_log_dropped += u64::from(self.log.flush());
    }

    /// Counts a session or request that matches a rule of an AUDIT policy, and adds the rule to `names` for the log.
    pub fn audit(&self, policy: &Policy, rule: usize, names: &mut Option<Box<str>>) {
        let rule = policy.rule_name(rule).to_string();
        self.counters.borrow_mut().audit(&rule);
        *names = Some(match names.take() {
            None => rule.into(),
            Some(before) if before.len() > AUDITED_BYTES_MAX => before,
            Some(before) => format!("{before},{rule}").into(),
        });
    }

    fn count_denial(&self, failure: &Failure, denied: Denied<'_>) {
        let mut counters = self.counters.borrow_mut();
        *counters.denied.entry((failure.reason(), failure.rule().into())).or_insert(0) += 1;
        let key = DeniedKey {
            host: denied.host.into(),
            port: denied.port,
            source: denied.source,
            reason: failure.reason(),
            spoken: denied.spoken,
        };
        let rows = &mut counters.denied_destinations;
        if rows.len() >= DENIED_ROWS_MAX && !rows.contains_key(&key) {
            // The table shows what is being refused now; the oldest row says the least about that.
            let oldest = rows.iter().min_by_key(|(_, row)| row.last_seen).map(|(key, _)| key.clone());
            oldest.map(|key| rows.remove(&key));
        }
        let row = rows.entry(key).or_insert(DeniedRow { count: 0, last_seen: SystemTime::UNIX_EPOCH });
        row.count += 1;
        row.last_seen = SystemTime::now();
    }

    /// A copy of the counters, with the gauges as they are now.
    pub fn report(&self) -> Counters {
        let mut counters = self.counters.borrow().clone();
        counters.sessions_active = self.clients.len() as u64;
        counters.upstream_active = self.balancer.active();
        counters.upstream_idle = self.pool.len() as u64;
        counters.upstream_events = self.accounts.tally();
        counters.endpoints_ejected = self.accounts.ejected();
        counters
    }

    /// Housekeeping, every now and then.
    pub fn sweep(&self) {
        self.pool.sweep(Instant::now(), &self.scratch);
    }
}
