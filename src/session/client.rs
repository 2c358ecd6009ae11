//! The client connections of a worker.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::limits::{DRAINED_BODY_BYTES_MAX, Limits};
use crate::net::{Address, Received, Scratch, Socket, within};
use crate::route::decide::{EndedTls, Source};

use super::stream::ClientStream;
use super::transport::Transport;
use super::{Context, tunnel};

/// Longest wait for a client to close after it was refused or told `Connection: close`.
const LINGER: Duration = Duration::from_secs(1);

/// One client connection.
pub struct Client {
    /// How its bytes come and go.
    pub transport: Transport,
    peer: Address,
    local: Address,
    /// The port that routes mean.
    pub service_port: u16,
    /// Whether it came to a listener for Gateways.
    gateway: bool,
    /// How it came here.
    pub arrival: Arrival,
    /// Whether it is between two requests, so that a drain may close it at once.
    pub idle: Cell<bool>,
    /// The upstream connection that its session waits for, so that a drain can end that wait.
    upstream: Cell<Option<Rc<Socket>>>,
    /// The one that it is a tunnel to, which is never another.
    tunnel: OnceCell<Socket>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Client")
            .field("peer", &self.peer())
            .field("local", &self.local())
            .finish_non_exhaustive()
    }
}

/// How a connection came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The client connected to us.
    Direct,
    /// The client connected to somebody else, and the packet filter has brought the connection here.
    Captured,
    /// The client connected to a listener that is for captured traffic alone.
    Stray,
}

/// All client connections of a worker, for limits and for drain.
#[derive(Debug, Default)]
pub struct Clients {
    open: RefCell<Slab<Rc<Client>>>,
    /// Sessions that have to be told of a drain, since they end by words of their protocol.
    bells: RefCell<Slab<Waker>>,
    /// Requests on connections in HTTP/2 beyond the first of each, which the connection itself stands for.
    streams: Cell<usize>,
    /// Connections, and such requests, by address.
    sources: RefCell<HashMap<IpAddr, usize, foldhash::fast::RandomState>>,
}

/// Keeps a client in the table; leaves it on drop.
#[derive(Debug)]
pub struct Registration {
    context: Rc<Context>,
    slot: usize,
}

impl Clients {
    /// Open connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `limits` allow one session more of this address: a connection, or a request that shares one with others
    /// and may cost as much.
    #[must_use]
    pub fn has_room(&self, source: IpAddr, limits: &Limits) -> bool {
        let of_source = self.sources.borrow().get(&source).copied().unwrap_or(0);
        self.len() + self.streams.get() < limits.sessions_per_worker
            && limits.sessions_per_source.is_none_or(|most| of_source < most)
    }

    /// Counts a request that shares a connection from this address with others.
    pub fn enter_stream(&self, source: IpAddr) {
        self.streams.set(self.streams.get() + 1);
        self.enter(source);
    }

    /// Counts it no more.
    pub fn leave_stream(&self, source: IpAddr) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.leave(source);
    }

    fn enter(&self, source: IpAddr) {
        *self.sources.borrow_mut().entry(source).or_insert(0) += 1;
    }

    fn leave(&self, source: IpAddr) {
        if let Entry::Occupied(mut entry) = self.sources.borrow_mut().entry(source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// Ends the connections between two requests; their sessions wake up to the end of the stream.
    pub fn close_idle(&self) {
        self.open
            .borrow()
            .iter()
            .filter(|(_, client)| client.idle.get())
            .for_each(|(_, client)| client.transport.close_idle());
        self.bells.borrow().iter().for_each(|(_, waker)| waker.wake_by_ref());
    }

    /// A bell for a session that looks for itself whether the worker is draining.
    pub fn bell(&self) -> Bell<'_> {
        Bell { clients: self, slot: self.bells.borrow_mut().insert(Waker::noop().clone()) }
    }

    /// Ends every connection, and whatever it waits for.
    pub fn close_all(&self) {
        self.open.borrow().iter().for_each(|(_, client)| client.cut());
    }
}

/// Rings when the worker begins to drain.
#[derive(Debug)]
pub struct Bell<'a> {
    clients: &'a Clients,
    slot: usize,
}

impl Bell<'_> {
    /// Whom to wake.
    pub fn set(&self, waker: &Waker) {
        if let Some(known) = self.clients.bells.borrow_mut().get_mut(self.slot) {
            known.clone_from(waker);
        }
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        let _ = self.clients.bells.borrow_mut().try_remove(self.slot);
    }
}

impl Registration {
    /// Enters a client into the table of its worker.
    #[must_use]
    pub fn new(context: &Rc<Context>, client: &Rc<Client>) -> Self {
        let clients = &context.clients;
        let slot = clients.open.borrow_mut().insert(Rc::clone(client));
        clients.enter(client.peer().ip());
        Self { context: Rc::clone(context), slot }
    }

    /// Tells of a session that a bug has ended, and ends its connection.
    pub fn tell_panic(&self) {
        self.context.counters.borrow_mut().sessions_panicked += 1;
        let client = self.context.clients.open.borrow().get(self.slot).map(Rc::clone);
        if let Some(client) = client {
            client.transport.reset_on_close();
            tunnel::tell_panic(&self.context, &client);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let clients = &self.context.clients;
        let Some(client) = clients.open.borrow_mut().try_remove(self.slot) else { return };
        clients.leave(client.peer().ip());
    }
}

impl Client {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(socket: Socket, peer: SocketAddr, local: SocketAddr, service_port: u16, arrival: Arrival) -> Self {
        Self {
            transport: Transport::new(socket),
            peer: peer.into(),
            local: local.into(),
            service_port,
            gateway: false,
            arrival,
            idle: Cell::new(false),
            upstream: Cell::new(None),
            tunnel: OnceCell::new(),
        }
    }

    /// The same, at a listener for Gateways or not.
    #[must_use]
    pub fn at_gateway(self, gateway: bool) -> Self {
        Self { gateway, ..self }
    }

    /// The same client, as far as one stream of its connection goes.
    pub(super) fn with_stream(&self, stream: ClientStream) -> Self {
        self.over(Transport::Stream(Box::new(stream)))
    }

    /// The same client, as far as it has nothing more to say, and hears nothing.
    pub(super) fn as_nobody(&self, answer_bytes: usize) -> Self {
        self.over(Transport::Nobody(Cell::new(answer_bytes)))
    }

    /// The same client at the beginning of another session.
    fn over(&self, transport: Transport) -> Self {
        let Self { service_port, gateway, arrival, .. } = *self;
        Self {
            transport,
            peer: self.peer.clone(),
            local: self.local.clone(),
            service_port,
            gateway,
            arrival,
            idle: Cell::new(false),
            upstream: Cell::new(None),
            tunnel: OnceCell::new(),
        }
    }

    /// Its address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer.get()
    }

    /// Our address, as the client knows it; of captured traffic the address that the client meant to reach.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local.get()
    }

    /// Who asks, and for what.
    #[must_use]
    pub fn source(&self) -> Source<'_> {
        let destination = (self.arrival == Arrival::Captured).then(|| self.local().ip());
        let tls = self.transport.tls().map(|tls| EndedTls { server_name: tls.server_name.as_ref() });
        Source { address: self.peer().ip(), port: self.service_port, gateway: self.gateway, destination, tls }
    }

    /// Notes the upstream connection of the session; `None`: it is over.
    pub fn set_upstream(&self, upstream: Option<Rc<Socket>>) {
        self.upstream.set(upstream);
    }

    /// Takes the upstream connection of a tunnel, which ends with the client's.
    pub fn join(&self, upstream: Socket) -> &Socket {
        self.tunnel.get_or_init(|| upstream)
    }

    /// The upstream connection of a tunnel.
    pub fn joined(&self) -> Option<&Socket> {
        self.tunnel.get()
    }

    /// Looks at the upstream connection of the session, if it has one.
    pub fn with_upstream<R>(&self, look: impl FnOnce(&Socket) -> R) -> Option<R> {
        if let Some(upstream) = self.tunnel.get() {
            return Some(look(upstream));
        }
        let upstream = self.upstream.take();
        let seen = upstream.as_deref().map(look);
        self.upstream.set(upstream);
        seen
    }

    /// Our address on the upstream connection of the session, if it has one.
    pub fn upstream_local(&self) -> Option<SocketAddr> {
        let local = self.with_upstream(|upstream| upstream.local_address().ok()).flatten();
        // A connection that was cut off has none any more.
        local.filter(|local| !local.ip().is_unspecified())
    }

    /// Resets both connections; whoever waits for them wakes up.
    fn cut(&self) {
        self.transport.cut();
        self.with_upstream(Socket::abort);
    }

    /// Whether nothing has arrived that nobody has read, nor will: within TLS a client says goodbye. What has arrived is
    /// thrown away.
    pub fn is_silent(&self, scratch: &Scratch) -> bool {
        self.transport.tls().is_none()
            && !matches!(self.transport.discard(&mut scratch.input.borrow_mut()), Ok(Received::Bytes(_)))
    }

    /// Closes our side and reads on for a moment. Closing at once, with unread bytes in the socket, would make the
    /// kernel send a reset that can overtake the answer (RFC 9112 section 9.6).
    pub async fn linger(&self, context: &Context) {
        // A client that reads slowly is waited for as it is in the middle of an answer: inside TLS it would take a body without
        // a length for cut off.
        let patience = context.snapshot().settings.limits.body_idle_timeout;
        let _ = within(patience, self.transport.finish_sending()).await;
        let drain = async {
            let mut drained = 0;
            while drained <= DRAINED_BODY_BYTES_MAX {
                match self.transport.discard(&mut context.scratch.input.borrow_mut()) {
                    Ok(Received::Bytes(count)) => {
                        drained += count as u64;
                        continue;
                    }
                    Ok(Received::End) | Err(_) => return,
                    Ok(Received::Pending) => {}
                }
                if self.transport.readable().await.is_err() {
                    return;
                }
            }
        };
        // Either way the connection is closed now.
        let _ = within(LINGER, drain).await;
    }
}
