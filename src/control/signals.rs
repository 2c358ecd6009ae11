//! Signals, as streams of the control thread.
//!
//! They are not blocked in workers: no safe interface to `pthread_sigmask` is among the dependencies, and none is
//! needed. The handler (tokio's) only writes a byte to a pipe that the control thread reads, so it may run on any
//! thread; what a worker sees of it is at most a system call that ends with EINTR, which its driver repeats.
//!
//! SIGPIPE is ignored by the standard library before `main`.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// SIGHUP.
    Reload,
    /// SIGTERM.
    Drain,
    /// SIGINT.
    Exit,
    /// SIGUSR1.
    ReopenLogs,
}

/// The handlers. Signals that arrive while one of their kind waits are one.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    user: Signal,
}

impl Signals {
    /// Installs the handlers. Done before anything else, since the default action of all four is to end the process.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next signal. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Request {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Request::Exit,
            _ = self.terminate.recv() => Request::Drain,
            _ = self.user.recv() => Request::ReopenLogs,
            _ = self.hangup.recv() => Request::Reload,
        }
    }

    /// Waits for a signal that ends a start; a SIGHUP stays for later, since the files may have changed meanwhile.
    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
