//! Counters: plain numbers that one worker owns, copied out when somebody asks.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::SystemTime;

use super::record::Record;

/// Upper bounds of the buckets of `istio_request_duration_milliseconds`, in milliseconds: Envoy's.
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
    /// Access-log lines dropped because the writer's queue was full.
    pub access_log_dropped: u64,
    /// HTTP requests by label set.
    pub requests: HashMap<RequestLabels, RequestCounters, foldhash::fast::RandomState>,
    /// TLS and TCP sessions by label set.
    pub tunnels: HashMap<TunnelLabels, TunnelCounters, foldhash::fast::RandomState>,
    /// Refusals by reason and rule (the AuthorizationPolicy, or empty).
    pub denied: HashMap<(&'static str, Box<str>), u64, foldhash::fast::RandomState>,
    /// Refusals by destination, for `/denied` and `observe`; bounded by [`crate::limits::DENIED_ROWS_MAX`].
    pub denied_destinations: HashMap<DeniedKey, DeniedRow, foldhash::fast::RandomState>,
}

/// Labels of `istio_requests_total` and its companions. Hosts come from resources, never from clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// Requests.
    pub count: u64,
    /// Their durations in milliseconds, in all.
    pub duration_sum: f64,
    /// Their durations by [`DURATION_BUCKETS`], not cumulated; the last is above all bounds.
    pub duration_buckets: [u64; DURATION_BUCKETS.len() + 1],
    /// Body bytes received from clients.
    pub bytes_received: u64,
    /// Body bytes sent to clients.
    pub bytes_sent: u64,
}

/// Labels of the `istio_tcp_…` metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelLabels {
    /// The host as the operator wrote it, or `unknown`.
    pub service: Box<str>,
    /// The cluster's service name, `BlackHoleCluster` or `PassthroughCluster`.
    pub service_name: Box<str>,
    /// The flags.
    pub flags: &'static str,
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
    /// Whether the client spoke TLS.
    pub tls: bool,
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
        let _ = record;
    }

    /// Adds the numbers of another worker.
    pub fn merge(&mut self, other: &Self) {
        let _ = other;
    }
}
