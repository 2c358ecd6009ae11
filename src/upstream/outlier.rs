//! Outlier detection: endpoints that fail time and again are left out for a while.
//!
//! As Envoy's detector of consecutive errors: an endpoint is ejected after so many errors in a row, for a time that
//! grows with every ejection and shrinks with every interval that it stays in place; never more than a share of the
//! endpoints at once. There is no timer: the interval's look happens when an endpoint is chosen after it has passed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::limits::OUTLIER_ENDPOINTS_MAX;
use crate::route::traffic::Outliers;

/// Longest ejection, unless the first is longer: Envoy's default.
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// An endpoint that has not been among the choices for so many intervals is forgotten, unless it is ejected.
const FORGOTTEN_AFTER_INTERVALS: u32 = 10;

/// How a connection or a request ended, as far as the endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered with this status.
    Answered(u16),
    /// A tunnel was connected.
    Connected,
    /// It could not be connected to, or closed before it answered.
    Failed,
    /// It did not answer in time.
    TimedOut,
}

/// What is known of the endpoints of one cluster.
#[derive(Debug, Default)]
pub(super) struct Health {
    endpoints: RefCell<HashMap<SocketAddr, Endpoint, foldhash::fast::RandomState>>,
    looked: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Endpoint {
    errors_5xx: u32,
    errors_gateway: u32,
    errors_local: u32,
    /// By how much the next ejection is longer than the first.
    ejections: u32,
    ejected: Option<Instant>,
    seen: Instant,
}

impl Endpoint {
    fn new(seen: Instant) -> Self {
        Self { errors_5xx: 0, errors_gateway: 0, errors_local: 0, ejections: 0, ejected: None, seen }
    }

    /// Counts an outcome; the reason to eject it, if there is one.
    fn count(&mut self, rules: &Outliers, outcome: Outcome) -> Option<&'static str> {
        let status = match (outcome, rules.consecutive_local) {
            (Outcome::Answered(status), local) => {
                if local.is_some() {
                    self.errors_local = 0;
                }
                status
            }
            (Outcome::Connected, Some(_)) => {
                self.errors_local = 0;
                return None;
            }
            (Outcome::Failed | Outcome::TimedOut, Some(most)) => {
                self.errors_local += 1;
                return (most > 0 && self.errors_local >= most).then_some("local_origin");
            }
            (Outcome::Connected, None) => 200,
            (Outcome::Failed, None) => 503,
            (Outcome::TimedOut, None) => 504,
        };
        let is_gateway_error = matches!(status, 502..=504);
        self.errors_gateway = if is_gateway_error { self.errors_gateway + 1 } else { 0 };
        self.errors_5xx = if status >= 500 { self.errors_5xx + 1 } else { 0 };
        let reached = |most: u32, count: u32| most > 0 && count >= most;
        if is_gateway_error && reached(rules.consecutive_gateway, self.errors_gateway) {
            return Some("gateway");
        }
        (status >= 500 && reached(rules.consecutive_5xx, self.errors_5xx)).then_some("5xx")
    }

    fn reset(&mut self) {
        (self.errors_5xx, self.errors_gateway, self.errors_local) = (0, 0, 0);
    }
}

impl Health {
    /// Counts an outcome; the reason, if the endpoint is ejected for it.
    pub(super) fn report(
        &self,
        rules: &Outliers,
        address: SocketAddr,
        outcome: Outcome,
        now: Instant,
    ) -> Option<&'static str> {
        let mut endpoints = self.endpoints.borrow_mut();
        let endpoint = endpoints.get_mut(&address)?;
        let reason = endpoint.count(rules, outcome)?;
        if endpoint.ejected.is_some() {
            return None;
        }
        let ejected = endpoints.values().filter(|endpoint| endpoint.ejected.is_some()).count();
        if (ejected + 1) * 100 > endpoints.len() * rules.ejected_percent_max as usize {
            return None;
        }
        let endpoint = endpoints.get_mut(&address)?;
        endpoint.ejected = Some(now);
        endpoint.ejections = endpoint.ejections.saturating_add(1);
        Some(reason)
    }

    /// See [`super::account::Account::keep_healthy`].
    pub(super) fn keep_healthy<T>(
        &self,
        rules: &Outliers,
        choices: &mut SmallVec<[T; 4]>,
        address: impl Fn(&T) -> SocketAddr,
        now: Instant,
    ) {
        self.look(rules, now);
        let mut endpoints = self.endpoints.borrow_mut();
        let mut ejected = 0;
        for choice in choices.iter() {
            if endpoints.len() >= OUTLIER_ENDPOINTS_MAX && !endpoints.contains_key(&address(choice)) {
                continue; // Nothing is known of it, so it stays in place.
            }
            let endpoint = endpoints.entry(address(choice)).or_insert_with(|| Endpoint::new(now));
            endpoint.seen = now;
            ejected += usize::from(endpoint.ejected.is_some());
        }
        let healthy = choices.len() - ejected;
        if ejected == 0 || healthy * 100 < choices.len() * rules.healthy_percent_min as usize {
            return;
        }
        choices.retain(|choice| endpoints.get(&address(choice)).is_none_or(|endpoint| endpoint.ejected.is_none()));
    }

    /// The look of every interval: who has been out for long enough comes back.
    fn look(&self, rules: &Outliers, now: Instant) {
        let since = self.looked.get().map(|looked| now.saturating_duration_since(looked));
        if since.is_some_and(|since| since < rules.interval) {
            return;
        }
        self.looked.set(Some(now));
        let intervals = since.map_or(0, |since| since.as_nanos() / rules.interval.as_nanos().max(1));
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            match endpoint.ejected {
                Some(ejected) => {
                    let most = EJECTION_MAX.max(rules.base_ejection);
                    let time = rules.base_ejection.saturating_mul(endpoint.ejections).min(most);
                    if now.saturating_duration_since(ejected) >= time {
                        endpoint.ejected = None;
                        endpoint.reset();
                    }
                }
                None => endpoint.ejections = endpoint.ejections.saturating_sub(intervals),
            }
            let unseen = now.saturating_duration_since(endpoint.seen);
            endpoint.ejected.is_some() || unseen < rules.interval.saturating_mul(FORGOTTEN_AFTER_INTERVALS)
        });
    }

    /// How many are ejected now.
    pub(super) fn ejected(&self) -> usize {
        self.endpoints.borrow().values().filter(|endpoint| endpoint.ejected.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules() -> Outliers {
        Outliers {
            consecutive_5xx: 3,
            consecutive_gateway: 0,
            consecutive_local: None,
            interval: SECOND,
            base_ejection: 10 * SECOND,
            ejected_percent_max: 50,
            healthy_percent_min: 0,
        }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// Which of the endpoints 1 to `count` are in place.
    fn chosen(health: &Health, rules: &Outliers, count: u16, now: Instant) -> Vec<u16> {
        let mut choices: SmallVec<[u16; 4]> = (1..=count).collect();
        health.keep_healthy(rules, &mut choices, |port| address(*port), now);
        choices.into_vec()
    }

    fn fail(health: &Health, rules: &Outliers, port: u16, times: usize, now: Instant) -> Option<&'static str> {
        (0..times).filter_map(|_| health.report(rules, address(port), Outcome::Failed, now)).last()
    }

    #[test]
    fn errors_in_a_row_eject_and_an_answer_between_them_does_not() {
        let (health, rules, now) = (Health::default(), rules(), Instant::now());
        assert_eq!(chosen(&health, &rules, 2, now), [1, 2]);
        assert_eq!(fail(&health, &rules, 1, 2, now), None);
        assert_eq!(health.report(&rules, address(1), Outcome::Answered(200), now), None);
        assert_eq!(fail(&health, &rules, 1, 2, now), None);
        assert_eq!(health.report(&rules, address(1), Outcome::Answered(500), now), Some("5xx"));
        assert_eq!(chosen(&health, &rules, 2, now), [2]);
        assert_eq!(health.ejected(), 1);
    }

    #[test]
    fn an_ejection_ends_and_the_next_lasts_longer() {
        let (health, rules, start) = (Health::default(), rules(), Instant::now());
        chosen(&health, &rules, 2, start);
        fail(&health, &rules, 1, 3, start);
        assert_eq!(chosen(&health, &rules, 2, start + 9 * SECOND), [2]);
        let back = start + 10 * SECOND;
        assert_eq!(chosen(&health, &rules, 2, back), [1, 2]);
        assert_eq!(fail(&health, &rules, 1, 3, back), Some("5xx"));
        assert_eq!(chosen(&health, &rules, 2, back + 19 * SECOND), [2]);
        assert_eq!(chosen(&health, &rules, 2, back + 20 * SECOND), [1, 2]);
    }

    #[test]
    fn no_more_than_the_share_is_ejected() {
        let (health, now) = (Health::default(), Instant::now());
        let rules = Outliers { ejected_percent_max: 10, ..rules() };
        chosen(&health, &rules, 9, now);
        assert_eq!(fail(&health, &rules, 1, 9, now), None, "one of nine is more than a tenth");
        chosen(&health, &rules, 10, now);
        assert_eq!(fail(&health, &rules, 1, 1, now), Some("5xx"));
        assert_eq!(fail(&health, &rules, 2, 9, now), None);
    }

    #[test]
    fn with_too_few_in_place_all_are_used() {
        let (health, now) = (Health::default(), Instant::now());
        let rules = Outliers { ejected_percent_max: 100, healthy_percent_min: 50, ..rules() };
        chosen(&health, &rules, 3, now);
        fail(&health, &rules, 1, 3, now);
        assert_eq!(chosen(&health, &rules, 3, now), [2, 3]);
        fail(&health, &rules, 2, 3, now);
        assert_eq!(chosen(&health, &rules, 3, now), [1, 2, 3]);
        let all_out = Outliers { healthy_percent_min: 0, ..rules };
        fail(&health, &all_out, 3, 3, now);
        assert!(chosen(&health, &all_out, 3, now).is_empty());
    }

    #[test]
    fn local_failures_are_told_apart_from_answers_where_that_is_asked_for() {
        let (health, now) = (Health::default(), Instant::now());
        let rules = Outliers { consecutive_local: Some(2), consecutive_gateway: 2, ..rules() };
        chosen(&health, &rules, 2, now);
        health.report(&rules, address(1), Outcome::Answered(502), now);
        assert_eq!(fail(&health, &rules, 1, 1, now), None);
        health.report(&rules, address(1), Outcome::Connected, now);
        assert_eq!(fail(&health, &rules, 1, 1, now), None);
        assert_eq!(health.report(&rules, address(1), Outcome::Answered(503), now), Some("gateway"));
        assert_eq!(fail(&health, &rules, 2, 2, now), None, "half of them are out already");
    }

    #[test]
    fn endpoints_that_are_gone_are_forgotten() {
        let (health, rules, start) = (Health::default(), rules(), Instant::now());
        chosen(&health, &rules, 4, start);
        chosen(&health, &rules, 1, start + 11 * SECOND);
        assert_eq!(health.endpoints.borrow().len(), 1);
    }
}
