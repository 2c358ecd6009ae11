//! The names of clusters that tunnels hold, to be told at their end: once each, for there are many tunnels to few clusters.
//!
//! They are the worker's own. Those of the tables belong to a configuration, which a tunnel of hours must not keep alive.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use crate::route::cluster::ClusterName;

/// As few are not worth a look at which of them nobody holds any more.
const UNSWEPT_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names(RefCell<Shared>);

#[derive(Debug, Default)]
struct Shared {
    names: HashSet<Rc<ClusterName>, foldhash::fast::RandomState>,
    /// How many were held at the last look.
    held: usize,
}

impl Names {
    /// The name, for whoever holds it on.
    pub(super) fn share(&self, name: &ClusterName) -> Rc<ClusterName> {
        let mut shared = self.0.borrow_mut();
        if let Some(known) = shared.names.get(name) {
            return Rc::clone(known);
        }
        // At most as many lie here unused as are in use, and some.
        if shared.names.len() > 2 * shared.held + UNSWEPT_MAX {
            shared.names.retain(|name| Rc::strong_count(name) > 1);
            shared.held = shared.names.len();
        }
        let name = Rc::new(name.clone());
        shared.names.insert(Rc::clone(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_there_once_and_leaves_when_nobody_holds_it() {
        let names = Names::default();
        let name = |index: usize| ClusterName::new(&format!("outbound|443||{index}.example"), "");
        let held = names.share(&name(0));
        assert!(Rc::ptr_eq(&held, &names.share(&name(0))));
        for index in 1..10_000 {
            names.share(&name(index));
        }
        assert!(names.0.borrow().names.len() <= UNSWEPT_MAX + 4);
        assert!(Rc::ptr_eq(&held, &names.share(&name(0))));
    }
}
