//! Waiting with an end: a worker's timers, coarse and cheap.
//!
//! Nearly every timer of a gateway is armed and never fires. So arming one is a store into a slot: no clock is read and
//! no order is kept. One task per worker looks at all slots once per tick; ten thousand of them take it some ten
//! microseconds. monoio's own timers are exact, and cost a session 128-byte aligned kilobytes and a heap operation
//! per wait.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use monoio::net::UnixStream;
use pin_project_lite::pin_project;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use slab::Slab;

/// How often timers are looked at: no timer fires early, and none more than two of these late on an idle CPU.
const TICK: Duration = Duration::from_millis(20);

thread_local! {
    static TIMERS: Timers = Timers::new();
}

/// The timers of a worker.
struct Timers {
    /// The last tick, by both clocks.
    last: Cell<(Instant, SystemTime)>,
    slots: RefCell<Slab<Slot>>,
}

struct Slot {
    state: SlotState,
    waker: Waker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    /// Armed since the last tick, for so many ticks. The count starts at the next one: how long ago the last one was
    /// is unknown, and a timer that counted from it would fire early after a long turn of the worker.
    New(u32),
    /// The tick at which it fires, by a count that wraps around (every two and a half years).
    Due(u32),
    Fired,
}

/// What drives the timers of a worker: a timerfd(2) that is polled like a socket.
///
/// A timer of monoio's own would make every park of the worker read the clock and arm a timeout in the kernel, for each
/// batch of events; this one costs a wake-up per tick and nothing in between.
#[derive(Debug)]
pub struct Ticker {
    timer: OwnedFd,
    /// The same timer. monoio polls descriptors only as sockets; none of a socket's calls is made on it.
    polled: UnixStream,
    started: Instant,
}

impl Ticker {
    /// Starts ticking.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let tick = Timespec::try_from(TICK).map_err(io::Error::other)?;
        let interval = Itimerspec { it_interval: tick, it_value: tick };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &interval)?;
        let polled = UnixStream::from_std(timer.try_clone()?.into())?;
        Ok(Self { timer, polled, started: Instant::now() })
    }

    /// Runs the timers of this thread; never ends. Nothing times out on a thread that does not run it.
    pub async fn run(self) {
        loop {
            // An error of the poll would show at the read.
            let _ = self.polled.readable(false).await;
            // Taken off, so that the next poll waits for the next tick. How many were missed the clock says, too.
            let _ = rustix::io::read(&self.timer, &mut [0; 8]);
            let ticks = self.started.elapsed().as_nanos() / TICK.as_nanos();
            TIMERS.with(|timers| timers.fire(wrapped(ticks)));
        }
    }
}

impl Timers {
    fn new() -> Self {
        let last = Cell::new((Instant::now(), SystemTime::now()));
        Self { last, slots: RefCell::new(Slab::new()) }
    }

    fn fire(&self, now: u32) {
        self.last.set((Instant::now(), SystemTime::now()));
        for (_, slot) in self.slots.borrow_mut().iter_mut() {
            match slot.state {
                SlotState::New(ticks) => slot.state = SlotState::Due(now.wrapping_add(ticks)),
                // Half of the circle is past, half to come, and no timer is longer than half (`TICKS_MAX`).
                SlotState::Due(due) if now.wrapping_sub(due) <= TICKS_MAX => {
                    slot.state = SlotState::Fired;
                    // Waking only queues the task, so it does not come back here while the slots are borrowed.
                    slot.waker.wake_by_ref();
                }
                SlotState::Due(_) | SlotState::Fired => {}
            }
        }
    }
}

/// A count of ticks on the circle of [`SlotState::Due`].
fn wrapped(ticks: u128) -> u32 {
    u32::try_from(ticks % (1 << 32)).unwrap_or_default()
}

/// Now, to within a tick of the timers (20 ms) or the length of one turn of the worker: for what needs no better, without reading a clock.
#[must_use]
pub fn coarse_now() -> Instant {
    TIMERS.with(|timers| timers.last.get().0)
}

/// What the wall clock showed at a recent instant; exact, without reading it.
#[must_use]
pub fn wall_time(instant: Instant) -> SystemTime {
    let (reference, wall) = TIMERS.with(|timers| timers.last.get());
    match instant.checked_duration_since(reference) {
        Some(since) => wall + since,
        None => wall - reference.duration_since(instant),
    }
}

/// A timer that is armed when it is first polled. It is small, because nearly every session holds one.
#[derive(Debug)]
pub struct Timer {
    ticks: u32,
    slot: u32,
}

/// More than a year: longer than any limit.
const TICKS_MAX: u32 = u32::MAX / 2;

/// No slot: the timer has not been polled yet.
const UNARMED: u32 = u32::MAX;

impl Timer {
    /// A timer for this long, from its first poll on.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        let ticks = duration.as_nanos().div_ceil(TICK.as_nanos());
        Self { ticks: u32::try_from(ticks).unwrap_or(TICKS_MAX).min(TICKS_MAX), slot: UNARMED }
    }

    /// Starts anew at its next poll, for the same time.
    pub fn restart(&mut self) {
        *self = Self { ticks: self.ticks, slot: UNARMED };
    }

    /// Ready once the time has passed.
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        TIMERS.with(|timers| {
            let mut slots = timers.slots.borrow_mut();
            if self.slot == UNARMED {
                let state = SlotState::New(self.ticks);
                let index = slots.insert(Slot { state, waker: context.waker().clone() });
                self.slot =
                    u32::try_from(index).expect("a worker has fewer than 2^32 timers: each belongs to a descriptor");
                return Poll::Pending;
            }
            match &mut slots[self.slot as usize] {
                Slot { state: SlotState::Fired, .. } => Poll::Ready(()),
                Slot { waker, .. } => {
                    if !waker.will_wake(context.waker()) {
                        waker.clone_from(context.waker());
                    }
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.slot != UNARMED {
            // A task that is left over when its thread ends may be dropped by the timers that would have woken it.
            let _ = TIMERS.try_with(|timers| timers.slots.borrow_mut().remove(self.slot as usize));
        }
    }
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    let mut timer = Timer::new(duration);
    std::future::poll_fn(|context| timer.poll(context)).await;
}

/// Waits for `future`, at most `duration`. `None`: the time has passed, and the future was dropped.
pub fn within<F: Future>(duration: Duration, future: F) -> Within<F> {
    Within { future, timer: Timer::new(duration) }
}

/// Waits for the first of two futures, and drops the other.
pub fn either<A: Future, B: Future>(first: A, second: B) -> FirstOf<A, B> {
    FirstOf { first, second }
}

/// Which of two futures was ready first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first, which wins a tie.
    First(A),
    /// The second.
    Second(B),
}

pin_project! {
    /// See [`within`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Within<F> {
        #[pin]
        future: F,
        timer: Timer,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => this.timer.poll(context).map(|()| None),
        }
    }
}

pin_project! {
    /// See [`either`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct FirstOf<A, B> {
        #[pin]
        first: A,
        #[pin]
        second: B,
    }
}

impl<A: Future, B: Future> Future for FirstOf<A, B> {
    type Output = Either<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.first.poll(context) {
            Poll::Ready(value) => Poll::Ready(Either::First(value)),
            Poll::Pending => this.second.poll(context).map(Either::Second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("epoll works");
        match runtime.block_on(async { either(Ticker::new().expect("a descriptor is free").run(), test).await }) {
            Either::Second(value) => value,
            Either::First(()) => unreachable!("the timers never end"),
        }
    }

    #[test]
    fn a_timer_fires_late_but_never_early() {
        let wait = Duration::from_millis(50);
        let started = Instant::now();
        run(sleep(wait));
        assert!(started.elapsed() >= wait, "after {:?}", started.elapsed());
    }

    #[test]
    fn what_is_ready_in_time_arms_no_timer_that_stays() {
        run(async {
            assert_eq!(within(Duration::from_secs(60), std::future::ready(7)).await, Some(7));
            assert_eq!(within(Duration::from_millis(1), std::future::pending::<()>()).await, None);
            TIMERS.with(|timers| assert!(timers.slots.borrow().is_empty()));
        });
    }
}
