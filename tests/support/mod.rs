//! A kit for tests against the real binary: certificates, upstreams, a name server, a gateway, clients.
//!
//! Everything runs on plain threads with blocking sockets, on ports of its own, and every wait is for an event with a
//! deadline. Nothing here knows the inside of the gateway: what a test sees is what an operator or a client sees.

#![allow(dead_code, reason = "every test file uses its own part of the kit")]

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod log;
pub(crate) mod nameserver;
pub(crate) mod namespace;
pub(crate) mod pattern;
pub(crate) mod resources;
pub(crate) mod service;
pub(crate) mod stream;
pub(crate) mod upstream;

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest that any single event may take. Generous: the suite shares small machines with compilers.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How often conditions are looked at that announce themselves to nobody (a file, another process).
const POLL: Duration = Duration::from_millis(10);

/// Asks `condition` until it has an answer.
///
/// # Panics
/// When [`DEADLINE`] has passed, naming `what` was waited for.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    // Nobody ever sends: receiving is a bounded pause.
    let (_silent, pause) = mpsc::channel::<()>();
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain for {what}");
        let _ = pause.recv_timeout(POLL);
    }
}
