//! Accepting: take connections off a listener and spawn their sessions; never wait for one.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::limits::ACCEPT_BATCH;
use crate::net::{Accepted, CatchPanic, Listener, Socket};
use crate::session::{self, Arrival, Client, Context, Registration, Serve};

use super::{ListenerSpec, ServicePort};

/// How long the accept task rests when the system refuses: sessions that end free descriptors.
const TROUBLE_REST: Duration = Duration::from_millis(10);

/// Accepts until the worker drains and the listener is shut down.
///
/// A task of its own, so that the sessions it spawns begin in the same turn of the driver; after the main task monoio
/// would first enter the kernel.
pub(super) async fn accept(context: Rc<Context>, listener: Rc<Listener>, spec: ListenerSpec) {
    loop {
        // An error of the poll would show at accept(2), where it is handled.
        let _ = listener.readable().await;
        if context.draining.get() {
            return;
        }
        match accept_waiting(&context, &listener, &spec) {
            Outcome::Done => {}
            // Under epoll the wait above is none while connections are waiting; sessions must get their turn.
            Outcome::More if monoio::utils::is_legacy() => crate::net::sleep(Duration::ZERO).await,
            Outcome::More => {}
            Outcome::Trouble => crate::net::sleep(TROUBLE_REST).await,
        }
    }
}

/// How a run of accepts ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every waiting connection was taken.
    Done,
    /// The batch is full; there may be more.
    More,
    /// The system refuses: trying again at once would spin.
    Trouble,
}

/// Takes the connections that are waiting, up to [`ACCEPT_BATCH`].
pub(super) fn accept_waiting(context: &Rc<Context>, listener: &Listener, spec: &ListenerSpec) -> Outcome {
    for _ in 0..ACCEPT_BATCH {
        match listener.accept() {
            Ok(Accepted::Connection(socket, peer)) => enter(context, socket, peer, listener.address(), spec),
            Ok(Accepted::Aborted) => {}
            Ok(Accepted::Pending) => return Outcome::Done,
            Ok(Accepted::Exhausted) => {
                tracing::warn!("out of descriptors: a connection was closed unanswered");
                return Outcome::Trouble;
            }
            Err(error) => {
                tracing::error!(%error, "accept failed");
                return Outcome::Trouble;
            }
        }
    }
    Outcome::More
}

/// Begins a session; `address` is the listener's, if it has only one.
fn enter(context: &Rc<Context>, socket: Socket, peer: SocketAddr, address: Option<SocketAddr>, spec: &ListenerSpec) {
    if !context.clients.has_room(peer.ip(), &context.snapshot().settings.limits) {
        context.counters.borrow_mut().sessions_refused += 1;
        socket.reset_on_close();
        return;
    }
    // A connection that was reset already may have none; its session would end at once.
    let Some(local) = address.or_else(|| socket.local_address().ok()) else { return };
    let (peer, local, service_port, arrival) = match spec.service {
        ServicePort::Fixed(port) => (peer, local, port, Arrival::Direct),
        ServicePort::Redirected | ServicePort::Transparent => {
            let (local, service_port, arrival) = captured(&socket, local, spec);
            (canonical(peer), local, service_port, arrival)
        }
    };
    let client = Rc::new(Client::new(socket, peer, local, service_port, arrival).at_gateway(spec.gateway));
    // Entered at once: the limits above count connections, not tasks that have begun to run.
    let registration = Registration::new(context, &client);
    let serve = CatchPanic::new(session::serve(Rc::clone(context), client));
    monoio::spawn(Session { serve, registration });
}

/// Where a connection to a listener for captured traffic was meant to go. One that came to the listener itself would be
/// dialled back to it, for ever.
fn captured(socket: &Socket, local: SocketAddr, spec: &ListenerSpec) -> (SocketAddr, u16, Arrival) {
    let is_listener = match spec.service {
        ServicePort::Redirected => None,
        // A listener on all addresses cannot tell which of them are this machine's at the moment: its port is none that
        // a client can have meant.
        ServicePort::Fixed(_) | ServicePort::Transparent => {
            Some(local.port() == spec.bind.port() && (spec.bind.ip().is_unspecified() || local.ip() == spec.bind.ip()))
        }
    };
    let destination = match is_listener {
        Some(false) => Some(local),
        Some(true) => None,
        // The kernel also remembers connections that nothing has redirected.
        None => socket.original_destination().ok().filter(|original| *original != canonical(local)),
    };
    match destination.map(canonical) {
        Some(destination) => (destination, destination.port(), Arrival::Captured),
        None => (local, spec.bind.port(), Arrival::Stray),
    }
}

/// IPv4 on a socket of `[::]` is what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

pin_project! {
    /// A session as its worker runs it.
    ///
    /// An `async` block would hold what it awaits twice: as it was captured, and pinned.
    struct Session {
        #[pin]
        serve: CatchPanic<Serve>,
        registration: Registration,
    }
}

impl Future for Session {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<()> {
        let this = self.project();
        if ready!(this.serve.poll(context)).is_err() {
            // The panic hook has reported where; the session's connections close as it is dropped.
            this.registration.tell_panic();
        }
        Poll::Ready(())
    }
}
