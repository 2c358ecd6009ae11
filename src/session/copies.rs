//! What copies of requests may cost a worker, and their end when the worker's does. Nobody waits for a copy, so nothing
//! else bounds them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

use crate::limits::{COPIED_BYTES_PER_SOURCE, COPIED_BYTES_PER_WORKER, COPIES_MAX};

use super::Context;

/// The copies of a worker.
#[derive(Debug, Default)]
pub(super) struct Copies {
    under_way: Cell<usize>,
    /// Bytes of requests that have not been sent whole yet.
    gathered: Cell<usize>,
    /// The same by client.
    sources: RefCell<HashMap<IpAddr, usize, foldhash::fast::RandomState>>,
    /// The tasks of copies, to be woken when they are cut off.
    tasks: RefCell<Slab<Waker>>,
    is_cut_off: Cell<bool>,
}

impl Copies {
    /// Ends them all.
    fn cut_off(&self) {
        self.is_cut_off.set(true);
        self.tasks.borrow().iter().for_each(|(_, task)| task.wake_by_ref());
    }
}

impl Context {
    /// Whether no copy of a request is under way.
    #[must_use]
    pub fn has_no_copies(&self) -> bool {
        self.copies.under_way.get() == 0
    }

    /// Ends the copies that are under way.
    pub fn cut_off_copies(&self) {
        self.copies.cut_off();
    }
}

/// The place of a copy that is under way; given back on drop.
pub(super) struct Place {
    context: Rc<Context>,
    slot: usize,
}

impl Place {
    /// `None`: all are taken.
    pub(super) fn take(context: &Rc<Context>) -> Option<Self> {
        let copies = &context.copies;
        if copies.under_way.get() >= COPIES_MAX {
            return None;
        }
        copies.under_way.set(copies.under_way.get() + 1);
        let slot = copies.tasks.borrow_mut().insert(Waker::noop().clone());
        Some(Self { context: Rc::clone(context), slot })
    }

    /// Ready when all copies are to end.
    pub(super) async fn cut_off(&self) {
        let copies = &self.context.copies;
        poll_fn(|context| {
            if copies.is_cut_off.get() {
                return Poll::Ready(());
            }
            if let Some(task) = copies.tasks.borrow_mut().get_mut(self.slot) {
                task.clone_from(context.waker());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let copies = &self.context.copies;
        copies.under_way.set(copies.under_way.get().saturating_sub(1));
        let _ = copies.tasks.borrow_mut().try_remove(self.slot);
    }
}

/// What is kept of a request until it has been sent whole; given back on drop.
pub(super) struct Gathered {
    context: Rc<Context>,
    source: IpAddr,
    bytes: usize,
}

impl Gathered {
    pub(super) fn new(context: &Rc<Context>, source: IpAddr) -> Self {
        Self { context: Rc::clone(context), source, bytes: 0 }
    }

    /// Takes note of how much it is now. False: there is no room for that, neither more nor less is noted.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        let copies = &self.context.copies;
        let mut sources = copies.sources.borrow_mut();
        let all = copies.gathered.get() - self.bytes + bytes;
        let of_source = sources.get(&self.source).copied().unwrap_or(0) - self.bytes + bytes;
        if bytes > self.bytes && (all > COPIED_BYTES_PER_WORKER || of_source > COPIED_BYTES_PER_SOURCE) {
            return false;
        }
        copies.gathered.set(all);
        match of_source {
            0 => drop(sources.remove(&self.source)),
            _ => drop(sources.insert(self.source, of_source)),
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.set(0);
    }
}
