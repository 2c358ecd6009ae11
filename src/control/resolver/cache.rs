//! Answers that are remembered, in bounded space.
//!
//! Two generations of half the bound each: a new answer goes to the young one; when that is full it becomes the old
//! one, whose predecessor is dropped. Nothing is ever searched for a victim, and what is asked for stays.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::limits::DNS_STALE_MAX;
use crate::route::host::HostName;

/// An answer with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Addresses, or why there are none.
    pub(super) answer: Result<Vec<IpAddr>, String>,
    /// From when on it must be asked again.
    pub(super) expires: Instant,
}

impl Entry {
    /// Whether it may be used without asking.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now < self.expires
    }

    /// The addresses, if they may be used because asking has failed (RFC 8767).
    pub(super) fn stale(&self, now: Instant) -> Option<&[IpAddr]> {
        let addresses = self.answer.as_ref().ok()?;
        (now < self.expires + DNS_STALE_MAX).then_some(addresses)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    young: HashMap<HostName, Entry>,
    old: HashMap<HostName, Entry>,
    half: usize,
}

impl Cache {
    /// A cache of at most `bound` names.
    pub(super) fn new(bound: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: bound / 2 }
    }

    pub(super) fn find(&self, name: &HostName) -> Option<&Entry> {
        self.young.get(name).or_else(|| self.old.get(name))
    }

    pub(super) fn insert(&mut self, name: HostName, entry: Entry) {
        if self.young.len() >= self.half && !self.young.contains_key(&name) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry(now: Instant) -> Entry {
        Entry { answer: Ok(vec![[192, 0, 2, 1].into()]), expires: now + Duration::from_secs(1) }
    }

    fn name(number: usize) -> HostName {
        format!("host-{number}.example").parse().unwrap()
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_the_latest() {
        let now = Instant::now();
        let mut cache = Cache::new(100);
        for number in 0..1_000 {
            cache.insert(name(number), entry(now));
            assert!(cache.young.len() + cache.old.len() <= 100);
        }
        assert!(cache.find(&name(999)).is_some() && cache.find(&name(950)).is_some());
        assert!(cache.find(&name(0)).is_none());
    }

    #[test]
    fn addresses_may_be_stale_for_a_bounded_time() {
        let now = Instant::now();
        let entry = entry(now);
        let later = now + Duration::from_secs(1);
        assert!(entry.is_fresh(now) && !entry.is_fresh(later));
        assert!(entry.stale(later).is_some());
        assert!(entry.stale(later + DNS_STALE_MAX).is_none());
    }

    #[test]
    fn a_refusal_is_never_stale() {
        let now = Instant::now();
        assert!(Entry { answer: Err("NXDOMAIN".to_owned()), expires: now }.stale(now).is_none());
    }
}
