//! The JSON that is neither an object of Istio's nor a metric.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::control::shared::{LastReload, ReloadResult, Shared};
use crate::control::version;
use crate::telemetry::metrics::{Counters, DeniedKey, DeniedRow, Spoken};

/// `/server_info`.
pub(super) fn server_info(shared: &Shared) -> Value {
    let status = shared.status.borrow();
    json!({
        "version": version::VERSION,
        "commit": version::COMMIT,
        "state": status.phase.as_str(),
        "uptimeSeconds": shared.uptime().as_secs(),
        "driver": status.drivers.first().copied().flatten(),
        "drivers": status.drivers,
        "workers": status.drivers.len(),
        "generation": status.generation,
        "lastReload": last_reload(&status.last_reload),
    })
}

fn last_reload(last: &LastReload) -> Value {
    json!({ "time": time(last.time), "successful": last.successful, "findings": &last.findings[..] })
}

/// The answer to `POST /reload`.
pub(super) fn reload(result: &ReloadResult) -> Value {
    json!({
        "successful": result.successful,
        "generation": result.generation,
        "findings": &result.findings[..],
    })
}

/// `/denied`: the most frequent first.
pub(super) fn denied(workers: &[(usize, Counters)]) -> Value {
    let mut total = Counters::default();
    for (_, counters) in workers {
        total.merge(counters);
    }
    let mut rows: Vec<_> = total.denied_destinations.into_iter().collect();
    rows.sort_by(|(one_key, one), (other_key, other)| {
        let by_count = other.count.cmp(&one.count);
        by_count.then_with(|| (&one_key.host, one_key.port).cmp(&(&other_key.host, other_key.port)))
    });
    rows.iter().map(denied_row).collect()
}

fn denied_row((key, row): &(DeniedKey, DeniedRow)) -> Value {
    json!({
        "host": key.host,
        "port": key.port,
        "source": key.source,
        "reason": key.reason,
        "tls": key.spoken == Spoken::Tls,
        "protocol": key.spoken.as_str(),
        "count": row.count,
        "lastSeen": time(row.last_seen),
    })
}

/// RFC 3339; null for a clock outside of the calendar.
pub(super) fn time(time: SystemTime) -> Option<String> {
    let milliseconds = jiff::Timestamp::try_from(time).ok()?.as_millisecond();
    Some(jiff::Timestamp::from_millisecond(milliseconds).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn denied_rows_of_all_workers_are_added_and_sorted() {
        let key = |host: &str| DeniedKey {
            host: host.into(),
            port: 443,
            source: "192.0.2.1".parse().unwrap(),
            reason: "host_not_listed",
            spoken: Spoken::Tls,
        };
        let mut one = Counters::default();
        one.deny("host_not_listed", "", key("rare.example"), UNIX_EPOCH);
        one.deny("host_not_listed", "", key("often.example"), UNIX_EPOCH);
        let mut other = Counters::default();
        other.deny("host_not_listed", "", key("often.example"), UNIX_EPOCH + Duration::from_millis(1_500));
        let rows = denied(&[(0, one), (1, other)]);
        assert_eq!(rows[0]["host"], "often.example");
        assert_eq!((&rows[0]["count"], &rows[0]["lastSeen"]), (&json!(2), &json!("1970-01-01T00:00:01.5Z")));
        assert_eq!(rows[1]["host"], "rare.example");
    }
}
