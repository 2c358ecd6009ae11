//! Sockets on monoio: wait for readiness, then make one direct non-blocking call.
//!
//! monoio's own reads hand a buffer to the kernel until the operation completes. Here a waiting session owns no
//! buffer: `readable` and `writable` are one-shot polls on the ring (or epoll), which may be dropped at any time
//! without losing a byte, and the call that follows works on a buffer of the worker. This is the only module that
//! contains unsafe code (`Socket`: its descriptor, its close, one socket option).

mod address;
mod listener;
mod panic;
mod pipe;
mod socket;
mod spin;
mod time;
mod watch;

pub use address::Address;
pub use listener::{Accepted, Listener};
pub use panic::CatchPanic;
pub use pipe::{Moved, Pipe, Pipes};
pub use socket::{Received, Socket, send_all};
pub use spin::Spinner;
pub use time::{Either, Ticker, Timer, Within, coarse_now, either, sleep, wall_time, within};
pub use watch::{Watch, WatchedSocket};

use std::cell::RefCell;
use std::ops::Range;

use crate::limits::SCRATCH_BYTES;

/// Where in [`Scratch::input`] that is read to which will be sealed: not to its beginning, which is that of a page.
///
/// rustls copies a record behind a header of five bytes, into an allocation that mostly begins with a page, too. glibc
/// before 2.39 copies so much with `rep movsb`, and processors by AMD take some 25 times as long for that when the
/// target lies up to 15 bytes behind the source, whole pages aside.
pub const SEALED_OFFSET: usize = 64;

/// A worker's buffers. They are borrowed between two waits, never across one, so one set serves every session.
#[derive(Debug)]
pub struct Scratch {
    /// Where sockets are read into: [`SCRATCH_BYTES`] long.
    pub input: RefCell<Vec<u8>>,
    /// Where in it the data lies that was read; empty between uses.
    pub pieces: RefCell<Vec<Range<usize>>>,
    /// Plain text of what was read, where TLS was opened by us; empty between uses.
    pub plain: RefCell<Vec<u8>>,
    /// What is about to be sent; empty between uses.
    pub output: RefCell<Vec<u8>>,
    /// What the TLS of a client is sealed into; empty between uses, and without room until the first.
    pub tls: RefCell<Vec<u8>>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            input: RefCell::new(vec![0; SCRATCH_BYTES]),
            pieces: RefCell::default(),
            plain: RefCell::new(Vec::with_capacity(SCRATCH_BYTES)),
            output: RefCell::new(Vec::with_capacity(SCRATCH_BYTES)),
            tls: RefCell::default(),
        }
    }
}
