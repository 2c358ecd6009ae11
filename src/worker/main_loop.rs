//! A worker's main task: bind, accept, obey the inbox, drain.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use monoio::net::UnixStream;

use crate::net::{Either, Listener, Spinner, Ticker, either, sleep, within};
use crate::route::traffic::Share;
use crate::session::Context;

use super::accept::{Outcome, accept, accept_waiting};
use super::inbox::{Event, Inbox, Order};
use super::{ListenerSpec, ServicePort, WorkerSpec};

/// How often idle upstream connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How often a drain looks whether the last session has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long cut-off sessions get to tell their end.
const LAST_WORDS: Duration = Duration::from_millis(500);

type Events = tokio::sync::mpsc::UnboundedSender<Event>;

/// A bound listener with what the configuration says of it.
type Bound = (Rc<Listener>, ListenerSpec);

/// Runs until drained.
///
/// # Errors
/// What the operator should know when a listener cannot be bound.
pub(super) async fn run(spec: WorkerSpec, inbox: Inbox, driver: &'static str) -> Result<(), String> {
    let WorkerSpec { index, workers, listeners, snapshot, events, log, spin, .. } = spec;
    let ask = {
        let events = events.clone();
        // A closed queue means that the process is ending.
        move |name| drop(events.send(Event::Resolve(index, name)))
    };
    let context = Rc::new(Context::new(snapshot, Share::new(index, workers), seed(), log, ask));
    let bound = bind(&listeners)?;
    let bell = Bell::new(inbox.doorbell).map_err(|error| format!("the worker's inbox: {error}"))?;
    let master = Master { context: Rc::clone(&context), index, orders: inbox.orders, bell, events };
    master.tell(Event::Ready(index, driver));
    let ticker = Ticker::new().map_err(|error| format!("the worker's timer: {error}"))?;
    monoio::spawn(ticker.run());
    if !spin.is_zero() && !monoio::utils::is_legacy() {
        let spinner = Spinner::new(spin).map_err(|error| format!("the worker's spinner: {error}"))?;
        monoio::spawn(spinner.run());
    }
    for (listener, spec) in &bound {
        monoio::spawn(accept(Rc::clone(&context), Rc::clone(listener), spec.clone()));
    }
    let Either::Second(patience) = either(sweep(&context), master.obey()).await else {
        return Err("the housekeeping ended".to_owned());
    };
    context.draining.set(true);
    // Connections that the kernel has completed already would be reset by the close.
    for (listener, spec) in &bound {
        while accept_waiting(&context, listener, spec) == Outcome::More {}
        // Closing takes a turn of the ring, and until then the kernel would complete handshakes that nobody serves.
        listener.shutdown();
    }
    drop(bound);
    // Orders still matter while sessions end: they may need names resolved.
    either(drain(&context, patience), master.obey_for_ever()).await;
    // Upstreams that are spoken to in HTTP/2 are told, too, and no task may outlive the runtime.
    let _ = within(LAST_WORDS, all_closed(&context)).await;
    context.flush_log();
    Ok(())
}

/// Random numbers of workers must differ, and need not be secret.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn bind(listeners: &[ListenerSpec]) -> Result<Vec<Bound>, String> {
    let bind = |spec: &ListenerSpec| match Listener::bind(spec.bind, spec.service == ServicePort::Transparent) {
        Ok(listener) => Ok((Rc::new(listener), spec.clone())),
        Err(error) => {
            let hint = match spec.service {
                ServicePort::Transparent => " (capture: TPROXY needs CAP_NET_ADMIN)",
                ServicePort::Fixed(_) | ServicePort::Redirected => "",
            };
            Err(format!("listener {}: cannot bind {}: {error}{hint}", spec.name, spec.bind))
        }
    };
    listeners.iter().map(bind).collect()
}

/// Throws out upstream connections that have been idle for too long; never ends.
async fn sweep(context: &Context) {
    loop {
        sleep(SWEEP_INTERVAL).await;
        context.sweep();
    }
}

/// Waits for the sessions, and the copies of their requests, to end, at most `patience`; then cuts off what is left.
async fn drain(context: &Context, patience: Duration) {
    context.clients.close_idle();
    let finished = within(patience, all_ended(context)).await;
    if finished.is_none() {
        context.drain_expired.set(true);
        context.clients.close_all();
        context.cut_off_copies();
        // Whoever has not ended by then hangs in a call that we cannot reach; its line is lost.
        let _ = within(LAST_WORDS, all_ended(context)).await;
    }
}

async fn all_closed(context: &Context) {
    while !context.pool.links.close() {
        sleep(DRAIN_LOOK).await;
    }
}

async fn all_ended(context: &Context) {
    while !(context.clients.is_empty() && context.has_no_copies()) {
        sleep(DRAIN_LOOK).await;
        context.clients.close_idle();
    }
}

/// The worker's side of its inbox.
struct Master {
    context: Rc<Context>,
    index: usize,
    orders: Receiver<Order>,
    bell: Bell,
    events: Events,
}

impl Master {
    /// Carries out orders until one says to drain; returns how long that may take.
    async fn obey(&self) -> Duration {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Drain(patience)) => return patience,
                Ok(order) => self.carry_out(order),
                Err(TryRecvError::Empty) => self.bell.wait().await,
                // The control thread is gone, and with it everybody who could stop us later.
                Err(TryRecvError::Disconnected) => return Duration::ZERO,
            }
        }
    }

    async fn obey_for_ever(&self) {
        loop {
            let patience = self.obey().await;
            if patience.is_zero() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn carry_out(&self, order: Order) {
        match order {
            Order::Apply(snapshot) => {
                let generation = snapshot.generation;
                self.context.apply(*snapshot);
                self.tell(Event::Applied(self.index, generation));
            }
            Order::Resolved(name, result) => self.context.resolver.answered(name, result),
            Order::Report(reply) => {
                // Whoever asked may have given up.
                let _ = reply.send(self.context.report());
            }
            Order::Drain(_) => {}
        }
    }

    fn tell(&self, event: Event) {
        // The control thread may have ended first; then nobody needs to know.
        let _ = self.events.send(event);
    }
}

/// Wakes the worker when there may be orders.
struct Bell {
    polled: UnixStream,
    socket: StdUnixStream,
}

impl Bell {
    fn new(socket: StdUnixStream) -> std::io::Result<Self> {
        Ok(Self { polled: UnixStream::from_std(socket.try_clone()?)?, socket })
    }

    /// Waits for a ring, and takes all rings so far off the socket.
    async fn wait(&self) {
        // An error of the poll would show at the read.
        let _ = self.polled.readable(false).await;
        let mut rings = [0; 64];
        loop {
            match (&self.socket).read(&mut rings) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}
