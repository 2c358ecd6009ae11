//! The I/O driver: io_uring with the best flags that this kernel takes, else epoll.

use std::future::Future;
use std::io;

use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

use super::DriverChoice;

/// Submission entries of a ring. More operations than this in one turn only cost one more submission.
const RING_ENTRIES: u32 = 1024;

/// What [`with`] runs on; the name is the label of `portcullis_io_driver_info`.
pub(super) const EPOLL: &str = "epoll";

/// A name for the log and the metrics, and what it sets.
type FlagSet = (&'static str, fn(&mut io_uring::Builder));

/// Set-up flags of a ring, best first.
///
/// A default ring interrupts the worker for every completion. `DEFER_TASKRUN` (Linux 6.1) runs completions when the
/// worker asks for them, `COOP_TASKRUN` (Linux 5.19) at its next system call (io_uring_setup(2)).
const FLAG_SETS: [FlagSet; 3] = [
    ("io_uring (DEFER_TASKRUN)", |ring| {
        ring.setup_single_issuer().setup_defer_taskrun();
    }),
    ("io_uring (COOP_TASKRUN)", |ring| {
        ring.setup_coop_taskrun();
    }),
    ("io_uring", |_| {}),
];

/// Runs a future on the calling thread, on the driver that `choice` and the kernel allow. `main` learns its name.
///
/// # Errors
/// What the operator should know when no driver starts.
pub(super) fn with<F: Future>(choice: DriverChoice, main: impl FnOnce(&'static str) -> F) -> Result<F::Output, String> {
    if choice != DriverChoice::Epoll {
        match ring() {
            Ok((mut runtime, name)) => return Ok(runtime.block_on(main(name))),
            Err(error) if choice == DriverChoice::IoUring => return Err(refused(&error)),
            Err(error) => tracing::warn!("{}; using epoll", refused(&error)),
        }
    }
    let epoll = RuntimeBuilder::<LegacyDriver>::new().build();
    let mut runtime = epoll.map_err(|error| format!("epoll cannot be set up: {error}"))?;
    Ok(runtime.block_on(main(EPOLL)))
}

/// Without monoio's timers, which [`crate::net::Ticker`] replaces. Whether flags work shows only when a ring is set up with them.
fn ring() -> io::Result<(Runtime<IoUringDriver>, &'static str)> {
    let mut result = Err(io::ErrorKind::Unsupported.into());
    for (name, set_flags) in FLAG_SETS {
        let mut ring = io_uring::IoUring::builder();
        set_flags(&mut ring);
        let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).with_entries(RING_ENTRIES);
        match builder.build() {
            Ok(runtime) => return Ok((runtime, name)),
            Err(error) => result = Err(error),
        }
    }
    result
}

fn refused(error: &io::Error) -> String {
    format!(
        "the kernel refuses io_uring ({error}): likely a container's seccomp profile, or the sysctl \
         kernel.io_uring_disabled"
    )
}
