//! Configurations that hold no longer, and who frees them.
//!
//! The tables of a hundred thousand hosts take tens of milliseconds to free. The last to let go of them would be a
//! worker, between two events, or in the middle of a session that began before a reload. So the control thread keeps
//! each until every worker has let go, and frees it on a thread of its own.
//!
//! What is freed is not given back at once. mimalloc keeps it for a second, and looks again only when somebody allocates a
//! great deal or a thread ends; a gateway at rest does neither, and would go on holding all that a load needs for a moment,
//! several times what stays of it. So a thread ends a while after each load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::route::table::Tables;

/// How long the allocator keeps what was freed (mimalloc's `purge_delay`), and some.
const KEPT: Duration = Duration::from_millis(1_100);

/// The tables that some worker may look at.
#[derive(Debug, Default)]
pub(super) struct Retired {
    current: Arc<Tables>,
    earlier: Vec<Arc<Tables>>,
    /// When a great deal was freed last, until it has been given back.
    freed: Option<Instant>,
}

impl Retired {
    /// The workers get these tables.
    pub(super) fn hand_out(&mut self, tables: &Arc<Tables>) {
        self.earlier.push(std::mem::replace(&mut self.current, Arc::clone(tables)));
    }

    /// A load has ended, however it went.
    pub(super) fn load_ended(&mut self) {
        self.freed = Some(Instant::now());
    }

    /// Frees earlier tables that nobody looks at any more. Nobody can come back to them: whoever could make another
    /// reference has one. To be called now and then.
    pub(super) fn sweep(&mut self) {
        if self.freed.is_some_and(|freed| freed.elapsed() >= KEPT) {
            self.freed = None;
            // The allocator takes part in the end of those threads only that have used it.
            on_a_thread(|| drop(std::hint::black_box(Box::new(0_u8))));
        }
        let (unused, used): (Vec<_>, _) = self.earlier.drain(..).partition(|tables| Arc::strong_count(tables) == 1);
        self.earlier = used;
        if !unused.is_empty() {
            self.freed = Some(Instant::now());
        }
        free(unused);
    }
}

/// Frees what takes long to free, on a thread of its own.
pub(super) fn free(garbage: Vec<impl Send + 'static>) {
    if !garbage.is_empty() {
        on_a_thread(move || drop(garbage));
    }
}

fn on_a_thread(work: impl FnOnce() + Send + 'static) {
    // Where no thread is to be had the closure is dropped here, and with it the garbage.
    let _ = std::thread::Builder::new().name("free".to_owned()).spawn(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stay_until_the_last_worker_has_let_go() {
        let mut retired = Retired::default();
        let tables: Arc<Tables> = Arc::default();
        let session = Arc::clone(&tables);
        retired.hand_out(&tables);
        retired.hand_out(&Arc::default());
        drop(tables);
        retired.sweep();
        assert_eq!(Arc::strong_count(&session), 2, "a worker must not be the last");
        assert_eq!(retired.earlier.len(), 1);
        drop(session);
        retired.sweep();
        assert!(retired.earlier.is_empty());
    }
}
