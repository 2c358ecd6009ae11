//! Shares: no domain takes all look-ups.
//!
//! A wildcard lets a client ask for as many names below a suffix as it likes, and the name servers of that suffix may
//! never answer. Names of other domains must not wait behind those.

use std::collections::HashMap;

use crate::limits::{DNS_LOOKUPS_PER_DOMAIN, DNS_WAITING_PER_DOMAIN};
use crate::route::host::HostName;

/// The names of each domain that wait. Domains without any take no room.
#[derive(Debug, Default)]
pub(super) struct Domains {
    loads: HashMap<Box<str>, Load>,
}

#[derive(Debug, Default)]
struct Load {
    /// Names that are asked for, those that are being looked up included.
    waiting: usize,
    running: usize,
}

impl Domains {
    /// A name begins to wait. False: too many of its domain do so already.
    pub(super) fn enter(&mut self, name: &HostName) -> bool {
        let load = self.loads.entry(domain(name).into()).or_default();
        let has_room = load.waiting < DNS_WAITING_PER_DOMAIN;
        load.waiting += usize::from(has_room);
        has_room
    }

    /// Whether another look-up in the domain of this name may begin.
    pub(super) fn may_start(&self, name: &HostName) -> bool {
        self.loads.get(domain(name)).is_none_or(|load| load.running < DNS_LOOKUPS_PER_DOMAIN)
    }

    /// The look-up of a name that waits begins.
    pub(super) fn start(&mut self, name: &HostName) {
        self.loads.entry(domain(name).into()).or_default().running += 1;
    }

    /// The look-up of a name has ended, and nobody waits for it any more.
    pub(super) fn leave(&mut self, name: &HostName) {
        let Some(load) = self.loads.get_mut(domain(name)) else { return };
        load.waiting = load.waiting.saturating_sub(1);
        load.running = load.running.saturating_sub(1);
        if load.waiting == 0 {
            self.loads.remove(domain(name));
        }
    }
}

/// The last two labels: who owns them owns what is below. Where the public suffix is longer (`co.uk`) strangers share,
/// which costs them time and nothing else.
fn domain(name: &HostName) -> &str {
    let name = name.as_str();
    let mut dots = memchr::memrchr_iter(b'.', name.as_bytes());
    dots.nth(1).map_or(name, |dot| &name[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    #[test]
    fn a_domain_is_the_last_two_labels() {
        for (text, expected) in [("a.b.example.com", "example.com"), ("example.com", "example.com"), ("local", "local")]
        {
            assert_eq!(domain(&name(text)), expected);
        }
    }

    #[test]
    fn a_domain_has_its_share_and_gets_it_back() {
        let mut domains = Domains::default();
        let names: Vec<_> = (0..DNS_WAITING_PER_DOMAIN).map(|number| name(&format!("n{number}.example.com"))).collect();
        assert!(names.iter().all(|name| domains.enter(name)));
        assert!(!domains.enter(&name("more.example.com")) && domains.enter(&name("more.example.org")));
        for name in &names[..DNS_LOOKUPS_PER_DOMAIN] {
            assert!(domains.may_start(name));
            domains.start(name);
        }
        assert!(!domains.may_start(&name("more.example.com")) && domains.may_start(&name("more.example.org")));
        names.iter().for_each(|name| domains.leave(name));
        domains.leave(&name("more.example.org"));
        assert!(domains.loads.is_empty());
    }
}
