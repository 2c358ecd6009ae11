//! `fault`: failures that an operator asks for, to see what becomes of them.

use std::time::Duration;

/// What is done to some of a route's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// They wait.
    pub delay: Option<(Share, Duration)>,
    /// They are answered with this status instead of being forwarded.
    pub abort: Option<(Share, u16)>,
}

/// A share of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// All of them.
    pub const ALL: Self = Self(1 << 32);

    /// So many of a hundred; beyond the ends of that range, the end.
    #[must_use]
    pub fn percent(percent: f64) -> Self {
        let part = (percent / 100.0).clamp(0.0, 1.0);
        // From 0 to 2^32: exact in f64, and NaN becomes 0.
        Self((part * Self::ALL.0 as f64).round() as u64)
    }

    /// Whether a request is among them; `ticket` is any number, evenly distributed over `u32`.
    #[must_use]
    pub fn takes(self, ticket: u32) -> bool {
        u64::from(ticket) < self.0
    }

    /// The share in percent, to the four digits that can be written.
    #[must_use]
    pub fn as_percent(self) -> f64 {
        (self.0 as f64 * 1_000_000.0 / Self::ALL.0 as f64).round() / 10_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_as_many_tickets_as_it_says() {
        assert!(!Share::percent(0.0).takes(0) && !Share::percent(f64::NAN).takes(0));
        assert!(Share::percent(100.0).takes(u32::MAX) && Share::percent(1e9).takes(u32::MAX));
        assert_eq!(Share::percent(100.0), Share::ALL);
        assert!(Share::percent(50.0).takes(u32::MAX / 2) && !Share::percent(50.0).takes(u32::MAX / 2 + 1));
        assert!(Share::percent(0.0001).takes(4_000) && !Share::percent(0.0001).takes(5_000));
    }
}
