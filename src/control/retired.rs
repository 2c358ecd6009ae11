//! Configurations that hold no longer, and who frees them.
//!
//! The tables of a hundred thousand hosts take tens of milliseconds to free. The last to let go of them would be a
//! worker, between two events, or in the middle of a session that began before a reload. So the control thread keeps
//! each until every worker has let go, and frees it on a thread of its own.

use std::sync::Arc;

use crate::route::table::Tables;

/// The tables that some worker may look at.
#[derive(Debug, Default)]
pub(super) struct Retired {
    current: Arc<Tables>,
    earlier: Vec<Arc<Tables>>,
}

impl Retired {
    /// The workers get these tables.
    pub(super) fn hand_out(&mut self, tables: &Arc<Tables>) {
        self.earlier.push(std::mem::replace(&mut self.current, Arc::clone(tables)));
    }

    /// Frees earlier tables that nobody looks at any more. Nobody can come back to them: whoever could make another
    /// reference has one.
    pub(super) fn sweep(&mut self) {
        let (unused, used) = self.earlier.drain(..).partition(|tables| Arc::strong_count(tables) == 1);
        self.earlier = used;
        free(unused);
    }
}

/// Frees what takes long to free, on a thread of its own.
pub(super) fn free(garbage: Vec<impl Send + 'static>) {
    if garbage.is_empty() {
        return;
    }
    // Where no thread is to be had the closure is dropped here, and with it the garbage.
    let _ = std::thread::Builder::new().name("free".to_owned()).spawn(move || drop(garbage));
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
