//! One connection.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};

use crate::http2::{Meter, Patience, Wire};
use crate::limits::{
    HTTP2_FRAME_BYTES_MAX, HTTP2_RESET_STREAMS_REMEMBERED, HTTP2_RESETS_MAX, HTTP2_SEND_BUFFER_BYTES,
    HTTP2_STREAMS_MAX, HTTP2_UPSTREAM_WINDOW_BYTES, Limits, POOL_IDLE_TIMEOUT,
};
use crate::net::{CatchPanic, Scratch, Socket, coarse_now};
use crate::route::cluster::Cluster;
use crate::upstream::account::{Account, Lease};
use crate::upstream::connection::Connection;

use super::Driver;
use super::asked::{Asked, drive};
use super::line::UpstreamLine;

/// A connection that carries many streams.
pub struct Link {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) addresses: (SocketAddr, SocketAddr),
    pub(super) socket: Rc<Socket>,
    pub(super) secure: bool,
    pub(super) meter: Rc<Meter>,
    pub(super) asked: Rc<Asked>,
    pub(super) trailer_bytes_max: usize,
    /// How long a request waits for the upstream to allow another stream.
    pub(super) patience: Duration,
    lease: Option<Box<Lease>>,
    streams: Cell<u32>,
    /// Requests so far, and how many of them were taken back.
    asked_for: Cell<u32>,
    given_up: Cell<u32>,
    streams_max: u32,
    /// Whether no stream may follow those under way.
    retired: Cell<bool>,
    idle_since: Cell<Instant>,
}

/// Why no connection in HTTP/2 came of one.
#[derive(Debug, thiserror::Error)]
#[error("HTTP/2: {0}")]
pub struct LinkError(h2::Error);

impl Link {
    /// Begins to speak HTTP/2 over a fresh connection to `cluster`, and spawns the task that drives it.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn open(
        mut connection: Box<Connection>,
        scratch: &Rc<Scratch>,
        limits: &Limits,
        cluster: &Cluster,
        counted: Driver,
    ) -> Result<Rc<Self>, LinkError> {
        let lease = connection.lease.take();
        let streams_max = cluster.traffic.as_ref().and_then(|traffic| traffic.streams_per_connection_max);
        let (addresses, socket, secure) =
            ((connection.address, connection.local), connection.share(), connection.is_tls());
        let meter = Rc::new(Meter::new(false));
        let line = UpstreamLine::new(connection, scratch);
        let patience = Patience { head: limits.request_head_timeout, send: limits.body_idle_timeout };
        let wire = Wire::new(line, Vec::new(), Rc::clone(&meter), patience);
        let (sender, connection) = builder(limits).handshake(wire).await.map_err(LinkError)?;
        let asked = Rc::<Asked>::default();
        let driven = drive(connection, Rc::clone(&meter), Rc::clone(&asked));
        monoio::spawn(async move {
            // Whoever waits on one of its streams hears how it ended, and the next one finds its end at the look.
            let _ = CatchPanic::new(driven).await;
            drop(counted);
        });
        Ok(Rc::new(Self {
            sender,
            addresses,
            socket,
            secure,
            meter,
            asked,
            trailer_bytes_max: limits.trailer_bytes,
            patience: cluster.connect_timeout,
            lease,
            streams: Cell::new(0),
            asked_for: Cell::new(0),
            given_up: Cell::new(0),
            streams_max: streams_max.unwrap_or(u32::MAX).min(HTTP2_STREAMS_MAX),
            retired: Cell::new(false),
            idle_since: Cell::new(coarse_now()),
        }))
    }

    /// Whom it leads to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses.0
    }

    /// Who counts it.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.lease.as_ref().map(|lease| lease.account())
    }

    /// Whether there is room for one more stream.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let most = (self.streams_max as usize).min(self.sender.current_max_send_streams());
        (self.streams.get() as usize) < most
    }

    /// Whether it has more streams than the upstream allows by now.
    pub(super) fn is_crowded(&self) -> bool {
        self.streams.get() as usize > self.sender.current_max_send_streams()
    }

    /// Whether it will carry no further stream: it has ended, is about to, or has carried all that it may.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.retired.get()
            // It allows none, not even the first.
            || (self.is_idle() && !self.has_room())
            || self.lease.as_ref().is_some_and(|lease| lease.time_left().is_some_and(|left| left.is_zero()))
            || self.has_ended()
    }

    /// Whether the connection has ended, or the upstream has said that it takes no further stream (GOAWAY).
    fn has_ended(&self) -> bool {
        let mut sender = self.sender.clone();
        matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Whether nobody has needed it for too long.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        let idle_since = self.idle_since.get();
        self.streams.get() == 0
            && (coarse_now().saturating_duration_since(idle_since) >= POOL_IDLE_TIMEOUT
                || self.lease.as_ref().is_some_and(|lease| !lease.is_good(idle_since)))
    }

    /// Whether it carries no stream.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// Lets no stream follow those under way.
    pub fn retire(&self) {
        self.retired.set(true);
    }

    pub(super) fn enter(&self) {
        self.streams.set(self.streams.get() + 1);
        self.asked_for.set(self.asked_for.get().saturating_add(1));
        self.meter.asked();
        if self.lease.as_ref().is_some_and(|lease| !lease.serves_another()) {
            self.retire();
        }
    }

    /// `given_up`: before it had its answer. Each client may take back but so many requests of its own; those of all
    /// clients together must not make this end of the connection look like an attacker to the upstream either.
    pub(super) fn leave(&self, given_up: bool) {
        if given_up {
            let count = self.given_up.get().saturating_add(1);
            self.given_up.set(count);
            if count > HTTP2_RESETS_MAX && count > self.asked_for.get() / 2 {
                self.retire();
            }
        }
        self.streams.set(self.streams.get().saturating_sub(1));
        self.idle_since.set(coarse_now());
        // Whoever waits for a connection to this cluster may find room on this one.
        self.account().inspect(|account| account.wake_next());
    }
}

/// Streams that nobody reads must not stop the others: the connection's window has room for all of theirs.
fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .header_table_size(4096)
        .initial_window_size(HTTP2_UPSTREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_UPSTREAM_WINDOW_BYTES * HTTP2_STREAMS_MAX)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .max_header_list_size(crate::http2::header_list_bytes(limits))
        .max_send_buffer_size(HTTP2_SEND_BUFFER_BYTES)
        .initial_max_send_streams(HTTP2_STREAMS_MAX as usize)
        .max_concurrent_reset_streams(HTTP2_RESET_STREAMS_REMEMBERED)
        .reset_stream_duration(Duration::from_secs(1))
        // Among them are frames that come late to streams which nobody remembers, and a connection may live for weeks.
        .max_local_error_reset_streams(None)
        // Each stream is counted for itself, see `Unread`; h2 would end the connection, and counts frames for ever that come to
        // streams which were given up.
        .data_frame_budget(usize::MAX);
    builder
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Link").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
