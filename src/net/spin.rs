//! Looking for more work for a moment before the worker sleeps (`spin` of the bootstrap file).
//!
//! A worker that sleeps has to be woken: by the scheduler, and where the CPU has gone to sleep with it, by an interrupt. With
//! a connection or two this is most of a request's latency. A worker that keeps asking its ring for some tens of microseconds
//! after the last byte is awake when the next one comes. It pays with CPU time, so it is off unless asked for.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use monoio::net::UnixStream;

thread_local! {
    static ACTIVITY: Activity = const { Activity { watched: Cell::new(false), seen: Cell::new(false), waker: RefCell::new(None) } };
}

/// Whether bytes have arrived since somebody looked.
struct Activity {
    /// Whether anybody looks.
    watched: Cell<bool>,
    seen: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Notes that bytes have arrived. Costs a look at a flag where nobody wants to know.
pub(super) fn note_activity() {
    ACTIVITY.with(|activity| {
        if activity.watched.get() {
            activity.seen.set(true);
            if let Some(waker) = activity.waker.take() {
                waker.wake();
            }
        }
    });
}

/// Keeps a worker awake after bytes have arrived. For io_uring: under epoll its polls would be ready without a turn of the
/// driver, and nobody else would run.
#[derive(Debug)]
pub struct Spinner {
    duration: Duration,
    /// One end of a pair of which nothing is ever sent: it can always be written to, so a poll of it takes one turn of the
    /// ring and no time.
    ready: UnixStream,
    _other: StdUnixStream,
}

impl Spinner {
    /// A spinner that keeps the worker awake for `duration` after the last byte.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(duration: Duration) -> io::Result<Self> {
        let (ready, other) = StdUnixStream::pair()?;
        Ok(Self { duration, ready: UnixStream::from_std(ready)?, _other: other })
    }

    /// Never ends.
    pub async fn run(self) {
        ACTIVITY.with(|activity| activity.watched.set(true));
        loop {
            active().await;
            let mut until = Instant::now() + self.duration;
            loop {
                // An error would end the spinning, no more: the worker sleeps as it does without.
                if self.ready.writable(false).await.is_err() {
                    break;
                }
                let now = Instant::now();
                if ACTIVITY.with(|activity| activity.seen.take()) {
                    until = now + self.duration;
                } else if now >= until {
                    break;
                }
            }
        }
    }
}

/// Waits until bytes have arrived.
async fn active() {
    poll_fn(|context| {
        ACTIVITY.with(|activity| {
            if activity.seen.take() {
                return Poll::Ready(());
            }
            activity.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
    })
    .await;
}
