//! How often limits of a cluster were reached and endpoints ejected. Labels are services of resources and fixed words.

use std::collections::HashMap;

use crate::limits::METRIC_ROWS_MAX;

use super::labels::UNKNOWN;

type Rows = HashMap<(Box<str>, &'static str), u64, foldhash::fast::RandomState>;

/// The numbers of a worker.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By service and limit: `connections`, `pending`, `requests`, `retries`.
    pub overflows: Rows,
    /// By service and reason: `5xx`, `gateway`, `local_origin`.
    pub ejections: Rows,
}

impl Tally {
    /// Counts a limit that was reached.
    pub fn overflow(&mut self, service: &str, limit: &'static str) {
        add(&mut self.overflows, service, limit, 1);
    }

    /// Counts an endpoint that was ejected.
    pub fn ejection(&mut self, service: &str, reason: &'static str) {
        add(&mut self.ejections, service, reason, 1);
    }

    /// Adds the numbers of another worker.
    pub fn merge(&mut self, other: &Self) {
        for ((service, limit), count) in &other.overflows {
            add(&mut self.overflows, service, limit, *count);
        }
        for ((service, reason), count) in &other.ejections {
            add(&mut self.ejections, service, reason, *count);
        }
    }
}

fn add(rows: &mut Rows, service: &str, what: &'static str, count: u64) {
    let service = if rows.len() < METRIC_ROWS_MAX { service } else { UNKNOWN };
    *rows.entry((service.into(), what)).or_default() += count;
}
