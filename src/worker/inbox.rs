//! What control thread and workers say to each other.
//!
//! Every worker has one inbox: a queue of [`Order`]s and a doorbell, a socket that one task of the worker reads.
//! Workers answer with [`Event`]s over a queue of the control thread.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use crate::route::host::HostName;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Counters;

pub use crate::upstream::resolve::{Answer, Unresolved};

/// From the control thread to a worker.
#[derive(Debug)]
pub enum Order {
    /// Put this configuration in force and answer [`Event::Applied`].
    Apply(Box<Snapshot>),
    /// The answer to an [`Event::Resolve`].
    Resolved(HostName, Result<Answer, Unresolved>),
    /// Send a copy of the counters.
    Report(tokio::sync::mpsc::UnboundedSender<Counters>),
    /// Stop accepting; end when the last session has ended or this much time has passed.
    Drain(Duration),
}

/// From a worker to the control thread.
#[derive(Debug)]
pub enum Event {
    /// The worker's listeners are bound and accepting; the name of its I/O driver.
    Ready(usize, &'static str),
    /// The worker runs this generation.
    Applied(usize, u64),
    /// The worker needs the addresses of this name; the answer is an [`Order::Resolved`].
    Resolve(usize, HostName),
    /// The worker has drained and its thread is about to end.
    Drained(usize),
    /// The worker could not start; what the operator should know.
    Failed(usize, String),
}

/// The control thread's end of an inbox.
#[derive(Debug)]
pub struct Mailbox {
    orders: mpsc::Sender<Order>,
    doorbell: UnixStream,
}

/// The worker's end of an inbox.
#[derive(Debug)]
pub struct Inbox {
    /// Orders, in order.
    pub orders: mpsc::Receiver<Order>,
    /// Readable when there may be orders.
    pub doorbell: UnixStream,
}

/// Makes an inbox.
///
/// # Errors
/// When the process has no descriptors left.
pub fn channel() -> io::Result<(Mailbox, Inbox)> {
    let (sender, receiver) = mpsc::channel();
    let (ring, bell) = UnixStream::pair()?;
    ring.set_nonblocking(true)?;
    bell.set_nonblocking(true)?;
    Ok((Mailbox { orders: sender, doorbell: ring }, Inbox { orders: receiver, doorbell: bell }))
}

impl Mailbox {
    /// Queues an order and rings. A worker that has ended takes no orders, which is no error here: its end is an
    /// event of its own.
    pub fn send(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // A full doorbell has been rung already.
            let _ = (&self.doorbell).write(&[1]);
        }
    }
}
