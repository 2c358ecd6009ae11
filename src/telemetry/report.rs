//! Everything that `/metrics` says: the workers' counters, added up, and the facts of the control thread.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::limits::METRIC_ROWS_MAX;

use super::exposition::{Exposition, Kind};
use super::metrics::{Counters, Histogram, RequestCounters, RequestLabels, TunnelCounters, TunnelLabels};

/// What the control thread knows that workers do not.
#[derive(Clone, Debug, Default)]
pub struct GatewayFacts {
    /// The version of this build.
    pub version: &'static str,
    /// Its commit.
    pub commit: &'static str,
    /// The I/O driver of each worker.
    pub drivers: Vec<&'static str>,
    /// The generation in force.
    pub generation: u64,
    /// Whether the last reload took force; a start counts as one.
    pub last_reload_successful: bool,
    /// When the configuration in force took force.
    pub last_reload: Option<SystemTime>,
    /// Reloads that took force.
    pub reloads_succeeded: u64,
    /// Reloads that were refused.
    pub reloads_failed: u64,
    /// When certificates end: service, kind, end.
    pub certificates: Vec<(Box<str>, &'static str, SystemTime)>,
    /// DNS lookups by result.
    pub dns_queries: BTreeMap<&'static str, u64>,
    /// Access-log lines that the writer could not write.
    pub access_log_dropped: u64,
}

/// The text of `/metrics`. `workers` holds a copy of each worker's counters with its number.
#[must_use]
pub fn exposition(facts: &GatewayFacts, workers: &[(usize, Counters)]) -> String {
    let mut total = Counters::default();
    for (_, counters) in workers {
        total.merge(counters);
    }
    let mut out = Exposition::default();
    requests(&mut out, &total);
    tunnels(&mut out, &total);
    gateway(&mut out, facts);
    sessions(&mut out, workers);
    totals(&mut out, facts, &total);
    out.into_text()
}

fn requests(out: &mut Exposition, total: &Counters) {
    let mut rows: Vec<_> = total.requests.iter().collect();
    rows.sort_unstable_by_key(|(labels, _)| (&labels.service, &labels.service_name, labels.status, labels.flags));
    let mut metric = out.metric("istio_requests_total", Kind::Counter, "HTTP requests.");
    for (labels, row) in &rows {
        with_request_labels(labels, |labels| metric.sample(labels, row.duration.count as f64));
    }
    let mut histogram = |name, help, of: fn(&RequestCounters) -> &Histogram| {
        let mut metric = out.metric(name, Kind::Histogram, help);
        for (labels, row) in &rows {
            with_request_labels(labels, |labels| metric.histogram(labels, of(row)));
        }
    };
    histogram("istio_request_duration_milliseconds", "Durations of HTTP requests.", |row| &row.duration);
    histogram("istio_request_bytes", "Body bytes of HTTP requests.", |row| &row.bytes_received);
    histogram("istio_response_bytes", "Body bytes of HTTP responses.", |row| &row.bytes_sent);
}

fn with_request_labels(labels: &RequestLabels, write: impl FnOnce(&[(&'static str, &str)])) {
    write(&[
        ("reporter", "source"),
        ("destination_service", &labels.service),
        ("destination_service_name", &labels.service_name),
        ("request_protocol", "http"),
        ("response_code", &labels.status.to_string()),
        ("response_flags", labels.flags),
        ("connection_security_policy", if labels.originated_tls { "tls" } else { "none" }),
    ]);
}

fn tunnels(out: &mut Exposition, total: &Counters) {
    let mut rows: Vec<_> = total.tunnels.iter().collect();
    rows.sort_unstable_by_key(|(labels, _)| {
        (&labels.service, &labels.service_name, labels.flags, labels.originated_tls)
    });
    let mut counter = |name, help, of: fn(&TunnelCounters) -> u64| {
        let mut metric = out.metric(name, Kind::Counter, help);
        for (labels, row) in &rows {
            metric.sample(&tunnel_labels(labels), of(row) as f64);
        }
    };
    counter("istio_tcp_connections_opened_total", "TLS and TCP sessions that reached an upstream.", |row| row.opened);
    counter("istio_tcp_connections_closed_total", "TLS and TCP sessions that ended.", |row| row.closed);
    counter("istio_tcp_received_bytes_total", "Bytes received from clients.", |row| row.received);
    counter("istio_tcp_sent_bytes_total", "Bytes sent to clients.", |row| row.sent);
}

fn tunnel_labels(labels: &TunnelLabels) -> [(&'static str, &str); 6] {
    [
        ("reporter", "source"),
        ("destination_service", &labels.service),
        ("destination_service_name", &labels.service_name),
        ("request_protocol", "tcp"),
        ("response_flags", labels.flags),
        // What clients have encrypted themselves is not known.
        ("connection_security_policy", if labels.originated_tls { "tls" } else { "unknown" }),
    ]
}

fn gateway(out: &mut Exposition, facts: &GatewayFacts) {
    out.metric("portcullis_build_info", Kind::Gauge, "The build that runs; always 1.")
        .sample(&[("version", facts.version), ("commit", facts.commit)], 1.0);
    let mut drivers = out.metric("portcullis_io_driver_info", Kind::Gauge, "The I/O driver of each worker; always 1.");
    for (worker, driver) in facts.drivers.iter().enumerate() {
        drivers.sample(&[("worker", &worker.to_string()), ("driver", driver)], 1.0);
    }
    out.metric("portcullis_config_generation", Kind::Gauge, "The generation of the configuration in force.")
        .sample(&[], facts.generation as f64);
    out.metric(
        "portcullis_config_last_reload_successful",
        Kind::Gauge,
        "Whether the last reload took force (1) or was refused (0).",
    )
    .sample(&[], f64::from(u8::from(facts.last_reload_successful)));
    let since_epoch = facts.last_reload.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    out.metric(
        "portcullis_config_last_reload_timestamp_seconds",
        Kind::Gauge,
        "When the configuration in force took force, in seconds since 1970.",
    )
    .sample(&[], since_epoch.as_secs_f64());
    let help = "When the first certificate of a client chain or CA bundle ends, in seconds since 1970.";
    let mut ends = out.metric("portcullis_certificate_expiration_timestamp_seconds", Kind::Gauge, help);
    for (service, kind, end) in facts.certificates.iter().take(METRIC_ROWS_MAX) {
        let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        ends.sample(&[("destination_service", service), ("kind", kind)], end);
    }
    let mut reloads = out.metric("portcullis_reloads_total", Kind::Counter, "Reloads by result.");
    reloads.sample(&[("result", "success")], facts.reloads_succeeded as f64);
    reloads.sample(&[("result", "failure")], facts.reloads_failed as f64);
}

fn sessions(out: &mut Exposition, workers: &[(usize, Counters)]) {
    let mut metric = out.metric(
        "portcullis_sessions_active",
        Kind::Gauge,
        "Client connections that are open now, however many requests share one.",
    );
    for (worker, counters) in workers {
        metric.sample(&[("worker", &worker.to_string())], counters.sessions_active as f64);
    }
}

fn upstream_events(out: &mut Exposition, total: &Counters) {
    let mut rows = |name, help, label, events: &HashMap<(Box<str>, &'static str), u64, foldhash::fast::RandomState>| {
        let mut metric = out.metric(name, Kind::Counter, help);
        let mut rows: Vec<_> = events.iter().collect();
        rows.sort_unstable();
        for ((service, what), count) in rows {
            metric.sample(&[("destination_service", service), (label, what)], *count as f64);
        }
    };
    let events = &total.upstream_events;
    let help = "Requests and sessions that a limit of connectionPool has refused, and retries that it has prevented.";
    rows("portcullis_upstream_overflows_total", help, "limit", &events.overflows);
    rows("portcullis_outlier_ejections_total", "Endpoints ejected by a worker.", "reason", &events.ejections);
    let help = "Endpoints that are ejected now, added up over workers.";
    let mut ejected = out.metric("portcullis_outlier_ejected_endpoints", Kind::Gauge, help);
    let mut rows: Vec<_> = total.endpoints_ejected.iter().collect();
    rows.sort_unstable();
    for (service, count) in rows {
        ejected.sample(&[("destination_service", service)], *count as f64);
    }
}

fn audited(out: &mut Exposition, total: &Counters) {
    let mut audited = out.metric("portcullis_audited_total", Kind::Counter, "What matched an AUDIT policy.");
    let mut rows: Vec<_> = total.audited.iter().collect();
    rows.sort_unstable();
    for (rule, count) in rows {
        audited.sample(&[("rule", rule)], *count as f64);
    }
}

fn totals(out: &mut Exposition, facts: &GatewayFacts, total: &Counters) {
    out.metric(
        "portcullis_sessions_refused_total",
        Kind::Counter,
        "Client connections closed, and streams refused, at a limit of sessions.",
    )
    .sample(&[], total.sessions_refused as f64);
    out.metric("portcullis_sessions_panicked_total", Kind::Counter, "Sessions that a bug ended.")
        .sample(&[], total.sessions_panicked as f64);
    out.metric("portcullis_ech_hellos_total", Kind::Counter, "Hellos that offered Encrypted ClientHello, or GREASE.")
        .sample(&[], total.ech_hellos as f64);
    upstream_events(out, total);
    audited(out, total);
    let mut denied = out.metric("portcullis_denied_total", Kind::Counter, "Refusals by policy.");
    let mut rows: Vec<_> = total.denied.iter().collect();
    rows.sort_unstable();
    for ((reason, rule), count) in rows {
        denied.sample(&[("reason", reason), ("rule", rule)], *count as f64);
    }
    let mut upstream =
        out.metric("portcullis_upstream_connections", Kind::Gauge, "Upstream connections that are open now.");
    upstream.sample(&[("state", "active")], total.upstream_active as f64);
    upstream.sample(&[("state", "idle")], total.upstream_idle as f64);
    out.metric(
        "portcullis_upstream_tls_unverified_total",
        Kind::Counter,
        "TLS handshakes with upstreams that nobody verified (insecureSkipVerify).",
    )
    .sample(&[], total.handshakes_unverified as f64);
    let help = "TLS handshakes with clients at servers of Gateways.";
    let mut handshakes = out.metric("portcullis_downstream_tls_handshakes_total", Kind::Counter, help);
    handshakes.sample(&[("result", "success"), ("resumed", "false")], total.client_handshakes_full as f64);
    handshakes.sample(&[("result", "success"), ("resumed", "true")], total.client_handshakes_resumed as f64);
    handshakes.sample(&[("result", "failure"), ("resumed", "false")], total.client_handshakes_failed as f64);
    let mut handshakes =
        out.metric("portcullis_upstream_tls_handshakes_total", Kind::Counter, "TLS handshakes with upstreams.");
    handshakes.sample(&[("result", "success"), ("resumed", "false")], total.handshakes_full as f64);
    handshakes.sample(&[("result", "success"), ("resumed", "true")], total.handshakes_resumed as f64);
    handshakes.sample(&[("result", "failure"), ("resumed", "false")], total.handshakes_failed as f64);
    let help = "Copies of requests (mirror): answered, failed, or not sent.";
    let mut mirrored = out.metric("portcullis_mirrored_requests_total", Kind::Counter, help);
    mirrored.sample(&[("result", "answered")], total.copies_answered as f64);
    mirrored.sample(&[("result", "failed")], total.copies_failed as f64);
    mirrored.sample(&[("result", "dropped")], total.copies_dropped as f64);
    let mut queries = out.metric("portcullis_dns_queries_total", Kind::Counter, "DNS lookups by result.");
    for (result, count) in &facts.dns_queries {
        queries.sample(&[("result", result)], *count as f64);
    }
    let dropped = total.access_log_dropped + facts.access_log_dropped;
    out.metric("portcullis_access_log_dropped_total", Kind::Counter, "Access-log lines that were not written.")
        .sample(&[], dropped as f64);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn facts() -> GatewayFacts {
        GatewayFacts {
            version: "0.1.0",
            commit: "abc",
            drivers: vec!["io_uring", "epoll"],
            generation: 3,
            last_reload_successful: true,
            last_reload: Some(UNIX_EPOCH + Duration::from_millis(1_500)),
            reloads_succeeded: 2,
            reloads_failed: 1,
            certificates: vec![("a.example".into(), "ca", UNIX_EPOCH + Duration::from_secs(9))],
            dns_queries: [("success", 4)].into(),
            access_log_dropped: 5,
        }
    }

    #[test]
    fn every_metric_of_the_contract_is_declared_once() {
        let text = exposition(&facts(), &[(0, Counters::default())]);
        for name in [
            "istio_requests_total counter",
            "istio_request_duration_milliseconds histogram",
            "istio_request_bytes histogram",
            "istio_response_bytes histogram",
            "istio_tcp_sent_bytes_total counter",
            "istio_tcp_received_bytes_total counter",
            "istio_tcp_connections_opened_total counter",
            "istio_tcp_connections_closed_total counter",
            "portcullis_build_info gauge",
            "portcullis_io_driver_info gauge",
            "portcullis_config_generation gauge",
            "portcullis_config_last_reload_successful gauge",
            "portcullis_config_last_reload_timestamp_seconds gauge",
            "portcullis_reloads_total counter",
            "portcullis_audited_total counter",
            "portcullis_denied_total counter",
            "portcullis_ech_hellos_total counter",
            "portcullis_sessions_active gauge",
            "portcullis_upstream_connections gauge",
            "portcullis_upstream_tls_handshakes_total counter",
            "portcullis_upstream_overflows_total counter",
            "portcullis_outlier_ejections_total counter",
            "portcullis_outlier_ejected_endpoints gauge",
            "portcullis_dns_queries_total counter",
            "portcullis_access_log_dropped_total counter",
        ] {
            assert_eq!(text.matches(&format!("# TYPE {name}\n")).count(), 1, "{name}");
        }
    }

    #[test]
    fn numbers_of_workers_are_added_and_sessions_are_told_apart() {
        let one = Counters { sessions_active: 3, upstream_idle: 1, access_log_dropped: 1, ..Counters::default() };
        let text = exposition(&facts(), &[(0, one.clone()), (1, Counters { sessions_active: 4, ..one })]);
        for line in [
            "portcullis_sessions_active{worker=\"0\"} 3",
            "portcullis_sessions_active{worker=\"1\"} 4",
            "portcullis_upstream_connections{state=\"idle\"} 2",
            "portcullis_access_log_dropped_total 7",
            "portcullis_io_driver_info{worker=\"1\",driver=\"epoll\"} 1",
            "portcullis_config_last_reload_timestamp_seconds 1.5",
            "portcullis_reloads_total{result=\"failure\"} 1",
            "portcullis_certificate_expiration_timestamp_seconds{destination_service=\"a.example\",kind=\"ca\"} 9",
            "portcullis_dns_queries_total{result=\"success\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn requests_and_tunnels_carry_istios_labels() {
        let mut counters = Counters::default();
        let request = RequestLabels {
            service: "*.example.com".into(),
            service_name: "*.example.com".into(),
            status: 200,
            flags: "-",
            originated_tls: true,
        };
        counters.requests.entry(request).or_default().duration.count = 1;
        let tunnel = TunnelLabels {
            service: "unknown".into(),
            service_name: "BlackHoleCluster".into(),
            flags: "UH",
            originated_tls: false,
        };
        counters.tunnels.entry(tunnel).or_default().closed = 9;
        let text = exposition(&facts(), &[(0, counters)]);
        for line in [
            "istio_requests_total{reporter=\"source\",destination_service=\"*.example.com\",\
             destination_service_name=\"*.example.com\",request_protocol=\"http\",response_code=\"200\",\
             response_flags=\"-\",connection_security_policy=\"tls\"} 1",
            "istio_tcp_connections_closed_total{reporter=\"source\",destination_service=\"unknown\",\
             destination_service_name=\"BlackHoleCluster\",request_protocol=\"tcp\",response_flags=\"UH\",\
             connection_security_policy=\"unknown\"} 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
        }
    }
}
