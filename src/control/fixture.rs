//! A gateway whose workers are played by threads that only obey, for the tests of the loop and of admin.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::config::bootstrap::{Bootstrap, Dns};
use crate::config::{Loaded, LoadedObject, Loader};
use crate::route::table::{ObjectRef, Place, RouteTable};
use crate::telemetry::log_writer::LogWriter;
use crate::telemetry::metrics::Counters;
use crate::worker::inbox::{Event, Inbox, Order, channel};

use super::gateway::{self, Gateway};
use super::reload::Reloads;
use super::resolver::Resolver;
use super::retired::Retired;
use super::shared::{Command, LastReload, Phase, Shared, Status};
use super::watch::Watcher;

/// A gateway with `workers` workers that are accepting already, and where admin sends its commands.
pub(super) fn gateway(workers: usize) -> (Gateway, UnboundedSender<Command>) {
    let bootstrap = bootstrap();
    let (resolver, lookups) = Resolver::new(bootstrap.dns.clone());
    let (change, changes) = unbounded_channel();
    let (sources, events, commands) = gateway::sources(lookups, changes);
    let (mut mailboxes, mut threads) = (Vec::new(), Vec::new());
    for index in 0..workers {
        let (mailbox, inbox) = channel().unwrap();
        let events = events.clone();
        mailboxes.push(mailbox);
        threads.push(std::thread::spawn(move || obey(index, &inbox, &events)));
    }
    let shared = Rc::new(Shared {
        status: RefCell::new(status(workers)),
        resolver: RefCell::new(resolver),
        workers: RefCell::new(mailboxes),
        log: LogWriter::spawn(None).unwrap(),
        started: Instant::now(),
    });
    let gateway = Gateway {
        config: "/does/not/exist/portcullis.yaml".into(),
        shared,
        drain_timeout: bootstrap.drain_timeout,
        access_log_file: None,
        running: bootstrap,
        loader: Some(Loader::default()),
        reloads: Reloads::default(),
        retired: Retired::default(),
        watcher: Watcher::spawn(change).unwrap(),
        threads,
        drained: BTreeSet::new(),
        deadline: None,
        code: ExitCode::SUCCESS,
        sources,
    };
    (gateway, commands)
}

/// A worker without sessions. Every worker that has ever been told to report has refused one host.
fn obey(index: usize, inbox: &Inbox, events: &UnboundedSender<Event>) {
    while let Ok(order) = inbox.orders.recv() {
        match order {
            Order::Apply(snapshot) => events.send(Event::Applied(index, snapshot.generation)).unwrap(),
            Order::Report(sender) => {
                let counters = Counters { sessions_active: 10 + index as u64, ..Counters::default() };
                // The asker may have given up.
                let _ = sender.send(counters);
            }
            Order::Resolved(..) => {}
            Order::Drain(_) => {
                events.send(Event::Drained(index)).unwrap();
                return;
            }
        }
    }
}

pub(super) fn bootstrap() -> Bootstrap {
    Bootstrap {
        dns: Dns { servers: vec![SocketAddr::from(([127, 0, 0, 1], 9))], hosts: Vec::new() },
        ..Bootstrap::without_file(&[]).0
    }
}

/// A configuration with one object.
pub(super) fn loaded() -> Loaded {
    Loaded {
        bootstrap: bootstrap(),
        routes: RouteTable { ports: Vec::new(), tables: Arc::default() },
        settings: Arc::default(),
        objects: vec![object()],
        certificates: Vec::new(),
        findings: Vec::new(),
    }
}

fn object() -> LoadedObject {
    LoadedObject {
        object: Arc::new(ObjectRef::new(
            "ServiceEntry",
            "default",
            "googleapis",
            Place::new(Arc::new("a.yaml".to_owned()), 1),
        )),
        document: serde_yaml::from_str("{kind: ServiceEntry, spec: {hosts: [www.googleapis.com]}}").unwrap(),
        created: None,
    }
}

fn status(workers: usize) -> Status {
    let now = SystemTime::now();
    Status {
        phase: Phase::Live,
        drivers: vec![Some("io_uring"); workers],
        generation: 1,
        objects: Arc::default(),
        certificates: Arc::default(),
        last_reload: LastReload { time: now, successful: true, findings: Arc::default() },
        in_force_since: now,
        reloads_succeeded: 0,
        reloads_failed: 0,
    }
}
