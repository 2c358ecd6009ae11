//! Counters: plain numbers that one worker owns, copied out when somebody asks.
//!
//! Every map is bounded ([`METRIC_ROWS_MAX`], [`DENIED_ROWS_MAX`]): what finds no room is counted in a row of its
//! own, so that sums stay right.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::limits::{DENIED_ROWS_MAX, METRIC_ROWS_MAX};

use super::labels::{LabelView, Labels, UNKNOWN};
use super::record::Record;
use super::tally::Tally;

/// Upper bounds of the buckets of `istio_request_duration_milliseconds`, in milliseconds, and, as in Envoy, of
/// `istio_request_bytes` and `istio_response_bytes`, in bytes.
pub const DURATION_BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Everything that one worker counts.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Client connections that are open now.
    pub sessions_active: u64,
    /// Client connections that were closed unserved because a limit of sessions was reached, and requests in HTTP/2 that were
    /// refused as there were too many at once.
    pub sessions_refused: u64,
    /// Sessions that ended in a panic: bugs.
    pub sessions_panicked: u64,
    /// Upstream connections in use now.
    pub upstream_active: u64,
    /// Upstream connections idle in pools now.
    pub upstream_idle: u64,
    /// Upstream TLS handshakes: done in full, resumed, failed.
    pub handshakes_full: u64,
    /// See [`Self::handshakes_full`].
    pub handshakes_resumed: u64,
    /// See [`Self::handshakes_full`].
    pub handshakes_failed: u64,
    /// Handshakes without any verification.
    pub handshakes_unverified: u64,
    /// Handshakes with clients whose TLS ends here: done in full, resumed, failed.
    pub client_handshakes_full: u64,
    /// See [`Self::client_handshakes_full`].
    pub client_handshakes_resumed: u64,
    /// See [`Self::client_handshakes_full`].
    pub client_handshakes_failed: u64,
    /// Hellos that offered Encrypted ClientHello.
    pub ech_hellos: u64,
    /// Copies of requests: answered, failed, not sent.
    pub copies_answered: u64,
    /// See [`Self::copies_answered`].
    pub copies_failed: u64,
    /// See [`Self::copies_answered`].
    pub copies_dropped: u64,
    /// Limits of `connectionPool` that were reached, and endpoints that were ejected.
    pub upstream_events: Tally,
    /// Endpoints that are ejected now, by service.
    pub endpoints_ejected: HashMap<Box<str>, u64, foldhash::fast::RandomState>,
    /// Access-log lines dropped because the writer's queue was full.
    pub access_log_dropped: u64,
    /// HTTP requests by label set.
    pub requests: HashMap<RequestLabels, RequestCounters, foldhash::fast::RandomState>,
    /// TLS and TCP sessions by label set.
    pub tunnels: HashMap<TunnelLabels, TunnelCounters, foldhash::fast::RandomState>,
    /// Refusals by reason and rule (the AuthorizationPolicy, or empty).
    pub denied: HashMap<(&'static str, Box<str>), u64, foldhash::fast::RandomState>,
    /// Sessions and requests that matched an AUDIT policy, by rule; there are as many as the operator wrote.
    pub audited: HashMap<Box<str>, u64, foldhash::fast::RandomState>,
    /// Refusals by destination, for `/denied` and `observe`; bounded by [`crate::limits::DENIED_ROWS_MAX`].
    pub denied_destinations: HashMap<DeniedKey, DeniedRow, foldhash::fast::RandomState>,
}

/// Labels of `istio_requests_total` and its companions. Hosts come from resources, never from clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLabels {
    /// The host as the operator wrote it, or `unknown`.
    pub service: Box<str>,
    /// The cluster's service name, `BlackHoleCluster` or `PassthroughCluster`.
    pub service_name: Box<str>,
    /// The status.
    pub status: u16,
    /// The flags.
    pub flags: &'static str,
    /// Whether the gateway originated TLS.
    pub originated_tls: bool,
}

/// Counters of one [`RequestLabels`].
#[derive(Clone, Debug, Default)]
pub struct RequestCounters {
    /// Their durations in milliseconds; its count is the number of requests.
    pub duration: Histogram,
    /// Body bytes received from clients.
    pub bytes_received: Histogram,
    /// Body bytes sent to clients.
    pub bytes_sent: Histogram,
}

/// A distribution over [`DURATION_BUCKETS`].
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Observations.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Observations by bucket, not cumulated; the last is above all bounds.
    pub buckets: [u64; DURATION_BUCKETS.len() + 1],
}

impl Histogram {
    fn observe(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.buckets[DURATION_BUCKETS.partition_point(|bound| *bound < value)] += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
    }
}

/// Labels of the `istio_tcp_…` metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelLabels {
    /// The host as the operator wrote it, or `unknown`.
    pub service: Box<str>,
    /// The cluster's service name, `BlackHoleCluster` or `PassthroughCluster`.
    pub service_name: Box<str>,
    /// The flags.
    pub flags: &'static str,
    /// Whether the gateway opened TLS around the session.
    pub originated_tls: bool,
}

/// Counters of one [`TunnelLabels`].
#[derive(Clone, Debug, Default)]
pub struct TunnelCounters {
    /// Sessions that reached an upstream.
    pub opened: u64,
    /// Sessions that ended, refused ones included.
    pub closed: u64,
    /// Bytes received from clients.
    pub received: u64,
    /// Bytes sent to clients.
    pub sent: u64,
}

/// Identity of a row of `/denied`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeniedKey {
    /// Host that was asked for; `-` if there was none.
    pub host: Box<str>,
    /// Service port.
    pub port: u16,
    /// The client.
    pub source: IpAddr,
    /// [`crate::failure::Failure::reason`].
    pub reason: &'static str,
    /// What the client spoke.
    pub spoken: Spoken,
}

/// What a client spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spoken {
    /// Plain HTTP.
    Http,
    /// TLS.
    Tls,
    /// Something else, or nothing that anybody looked at.
    Tcp,
}

impl Spoken {
    /// As `/denied` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

/// A row of `/denied`.
#[derive(Clone, Debug)]
pub struct DeniedRow {
    /// How often.
    pub count: u64,
    /// When last.
    pub last_seen: SystemTime,
}

impl Counters {
    /// Counts a finished request or session.
    pub fn count(&mut self, record: &Record<'_>) {
        if record.http.is_some() {
            self.count_request(record);
        } else {
            self.count_tunnel(record);
        }
    }

    /// Counts what matched a rule of an AUDIT policy.
    pub fn audit(&mut self, rule: &str) {
        let rule = if self.audited.len() < METRIC_ROWS_MAX || self.audited.contains_key(rule) { rule } else { UNKNOWN };
        *self.audited.entry(rule.into()).or_default() += 1;
    }

    /// Counts a refusal by policy. `rule` is the AuthorizationPolicy that refused, or empty.
    pub fn deny(&mut self, reason: &'static str, rule: &str, destination: DeniedKey, now: SystemTime) {
        let rule = if self.denied.len() < METRIC_ROWS_MAX { rule } else { UNKNOWN };
        *self.denied.entry((reason, rule.into())).or_default() += 1;
        self.remember(destination, DeniedRow { count: 1, last_seen: now });
    }

    /// Adds the numbers of another worker.
    pub fn merge(&mut self, other: &Self) {
        self.sessions_active += other.sessions_active;
        self.sessions_refused += other.sessions_refused;
        self.sessions_panicked += other.sessions_panicked;
        self.upstream_active += other.upstream_active;
        self.upstream_idle += other.upstream_idle;
        self.handshakes_full += other.handshakes_full;
        self.handshakes_resumed += other.handshakes_resumed;
        self.handshakes_failed += other.handshakes_failed;
        self.handshakes_unverified += other.handshakes_unverified;
        self.client_handshakes_full += other.client_handshakes_full;
        self.client_handshakes_resumed += other.client_handshakes_resumed;
        self.client_handshakes_failed += other.client_handshakes_failed;
        self.ech_hellos += other.ech_hellos;
        self.copies_answered += other.copies_answered;
        self.copies_failed += other.copies_failed;
        self.copies_dropped += other.copies_dropped;
        self.access_log_dropped += other.access_log_dropped;
        self.upstream_events.merge(&other.upstream_events);
        for (service, count) in &other.endpoints_ejected {
            *self.endpoints_ejected.entry(service.clone()).or_default() += count;
        }
        for (labels, theirs) in &other.requests {
            update(&mut self.requests, labels.view(), |row| row.merge(theirs));
        }
        for (labels, theirs) in &other.tunnels {
            update(&mut self.tunnels, labels.view(), |row| row.merge(theirs));
        }
        for (rule, count) in &other.audited {
            *self.audited.entry(rule.clone()).or_default() += count;
        }
        for (key, count) in &other.denied {
            *self.denied.entry(key.clone()).or_default() += count;
        }
        for (key, theirs) in &other.denied_destinations {
            self.remember(key.clone(), theirs.clone());
        }
    }

    fn count_request(&mut self, record: &Record<'_>) {
        update(&mut self.requests, LabelView::of(record), |row| {
            row.duration.observe(record.duration.as_secs_f64() * 1_000.0);
            row.bytes_received.observe(record.bytes_received as f64);
            row.bytes_sent.observe(record.bytes_sent as f64);
        });
    }

    /// A session that was refused or reached no upstream has closed without having opened, as in Istio. (`UF` names the
    /// upstream that could not be reached.)
    fn count_tunnel(&mut self, record: &Record<'_>) {
        update(&mut self.tunnels, LabelView::of(record), |row| {
            row.opened += u64::from(record.upstream.is_some() && record.flags != "UF");
            row.closed += 1;
            row.received += record.bytes_received;
            row.sent += record.bytes_sent;
        });
    }

    /// Hosts here come from clients, so the table is full one day: then rows that are there go on counting, and the
    /// rest is in `denied` alone.
    fn remember(&mut self, key: DeniedKey, seen: DeniedRow) {
        if let Some(row) = self.denied_destinations.get_mut(&key) {
            row.count += seen.count;
            row.last_seen = row.last_seen.max(seen.last_seen);
        } else if self.denied_destinations.len() < DENIED_ROWS_MAX {
            self.denied_destinations.insert(key, seen);
        }
    }
}

impl RequestCounters {
    fn merge(&mut self, other: &Self) {
        self.duration.merge(&other.duration);
        self.bytes_received.merge(&other.bytes_received);
        self.bytes_sent.merge(&other.bytes_sent);
    }
}

impl TunnelCounters {
    fn merge(&mut self, other: &Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.received += other.received;
        self.sent += other.sent;
    }
}

type Rows<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Updates the row of a label set; the overflow row if it is new and there is no room.
fn update<'view, K, V>(rows: &mut Rows<K, V>, view: LabelView<'view>, change: impl FnOnce(&mut V))
where
    K: Eq + Hash + From<LabelView<'view>> + Borrow<dyn Labels + 'view>,
    V: Default,
{
    if let Some(row) = rows.get_mut(&view as &dyn Labels) {
        return change(row);
    }
    let view = if rows.len() < METRIC_ROWS_MAX { view } else { view.overflow() };
    change(rows.entry(K::from(view)).or_default());
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::telemetry::record::HttpRecord;

    fn session(service: Option<&'static str>, cluster: &'static str, upstream: Option<&str>) -> Record<'static> {
        Record {
            start: UNIX_EPOCH,
            duration: Duration::from_millis(7),
            http: None,
            flags: "-",
            termination: None,
            transport_failure: None,
            bytes_received: 100,
            bytes_sent: 2_000,
            upstream: upstream.map(|address| address.parse().unwrap()),
            cluster: Some(cluster),
            service,
            upstream_local: None,
            downstream_local: "127.0.0.1:8443".parse().unwrap(),
            downstream_remote: "127.0.0.1:40000".parse().unwrap(),
            server_name: Some("chosen.by.the.client"),
            route: None,
            originated_tls: false,
            audited: None,
        }
    }

    fn request(status: u16) -> Record<'static> {
        let http = HttpRecord { status, authority: Some(b"chosen.by.the.client"), ..HttpRecord::default() };
        Record { http: Some(http), ..session(Some("*.example.com"), "outbound|443||*.example.com", None) }
    }

    fn denied(port: u16) -> DeniedKey {
        DeniedKey {
            host: "www.example.com".into(),
            port,
            source: "192.0.2.1".parse().unwrap(),
            reason: "host_not_listed",
            spoken: Spoken::Tls,
        }
    }

    #[test]
    fn a_session_that_reached_an_upstream_opened_and_closed() {
        let mut counters = Counters::default();
        counters.count(&session(Some("a.example"), "outbound|443||a.example", Some("192.0.2.1:443")));
        let (labels, row) = counters.tunnels.iter().next().unwrap();
        assert_eq!((&*labels.service, &*labels.service_name), ("a.example", "a.example"));
        assert_eq!((row.opened, row.closed, row.received, row.sent), (1, 1, 100, 2_000));
    }

    #[test]
    fn a_refused_session_closed_without_having_opened_and_its_host_is_no_label() {
        let mut counters = Counters::default();
        counters.count(&session(None, "BlackHoleCluster", None));
        let (labels, row) = counters.tunnels.iter().next().unwrap();
        assert_eq!((&*labels.service, &*labels.service_name), (UNKNOWN, "BlackHoleCluster"));
        assert_eq!((row.opened, row.closed), (0, 1));
    }

    #[test]
    fn requests_with_equal_labels_share_a_row() {
        let mut counters = Counters::default();
        for status in [200, 200, 503] {
            counters.count(&request(status));
        }
        let mut counts: Vec<_> = counters.requests.iter().map(|(key, row)| (key.status, row.duration.count)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [(200, 2), (503, 1)]);
        assert!(counters.tunnels.is_empty());
    }

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for value in [0.0, 0.5, 0.6, 3_600_000.0, 3_600_001.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.buckets[..2], [2, 1]);
        assert_eq!(histogram.buckets[DURATION_BUCKETS.len() - 1..], [1, 1]);
        assert_eq!(histogram.count, 5);
    }

    #[test]
    fn a_full_map_counts_new_labels_as_unknown() {
        let mut counters = Counters::default();
        let names: Vec<String> = (0..METRIC_ROWS_MAX + 50).map(|number| format!("host-{number}.example")).collect();
        for name in &names {
            counters.count(&Record { service: Some(name), ..session(None, "BlackHoleCluster", None) });
        }
        assert_eq!(counters.tunnels.len(), METRIC_ROWS_MAX + 1);
        assert_eq!(counters.tunnels.values().map(|row| row.closed).sum::<u64>(), names.len() as u64);
    }

    #[test]
    fn the_table_of_denied_destinations_is_bounded_and_the_counter_is_not() {
        let mut counters = Counters::default();
        for port in 0..2 * DENIED_ROWS_MAX {
            counters.deny("host_not_listed", "", denied(port as u16), UNIX_EPOCH);
        }
        assert_eq!(counters.denied_destinations.len(), DENIED_ROWS_MAX);
        assert_eq!(counters.denied[&("host_not_listed", "".into())], 2 * DENIED_ROWS_MAX as u64);
    }

    #[test]
    fn merging_adds_every_number() {
        let mut one = Counters { sessions_active: 1, handshakes_full: 2, access_log_dropped: 3, ..Counters::default() };
        one.count(&request(200));
        one.count(&session(None, "BlackHoleCluster", None));
        one.deny("host_not_listed", "", denied(443), UNIX_EPOCH);
        let mut other = one.clone();
        other.deny("host_not_listed", "", denied(443), UNIX_EPOCH + Duration::from_secs(9));
        one.merge(&other);
        assert_eq!((one.sessions_active, one.handshakes_full, one.access_log_dropped), (2, 4, 6));
        assert_eq!(one.requests.values().next().unwrap().duration.count, 2);
        assert_eq!(one.requests.values().next().unwrap().bytes_sent.sum, 4_000.0);
        assert_eq!(one.tunnels.values().next().unwrap().closed, 2);
        assert_eq!(one.denied.values().sum::<u64>(), 3);
        let row = &one.denied_destinations[&denied(443)];
        assert_eq!((row.count, row.last_seen), (3, UNIX_EPOCH + Duration::from_secs(9)));
    }
}
