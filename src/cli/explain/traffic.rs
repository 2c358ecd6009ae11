//! The bounds of a cluster, in the words of the DestinationRule that sets them.

use std::time::Duration;

use crate::route::traffic::{HashBy, Traffic};

/// One sentence per bound.
pub(super) fn words(traffic: &Traffic) -> Vec<String> {
    let numbers = [
        ("maxConnections", traffic.connections_max),
        ("http1MaxPendingRequests", traffic.pending_max),
        ("http2MaxRequests", traffic.requests_max),
        ("maxRetries", traffic.retries_max),
        ("maxRequestsPerConnection", traffic.requests_per_connection_max),
        ("maxConcurrentStreams", traffic.streams_per_connection_max),
    ];
    let times = [
        ("http.idleTimeout", traffic.pool_idle_timeout),
        ("tcp.idleTimeout", traffic.tunnel_idle_timeout),
        ("maxConnectionDuration", traffic.connection_duration_max),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, number)| Some(format!("{name} {}", number?)));
    let times = times.into_iter().filter_map(|(name, time)| Some(format!("{name} {}", seconds(time?))));
    let others = [
        traffic.keepalive.map(|_| "tcpKeepalive".to_owned()),
        traffic.retry_budget.map(|budget| {
            let share = f64::from(budget.share) / 100.0;
            format!("retryBudget {share} %, at least {}", budget.retries_min)
        }),
        traffic.outliers.map(|outliers| {
            let most = outliers.ejected_percent_max;
            let time = seconds(outliers.base_ejection);
            format!("outlierDetection, for {time} and more, at most {most} % of the endpoints")
        }),
        traffic.hash.as_ref().map(|hash| match hash {
            HashBy::Header(name) => format!("consistentHash by header {name}"),
            HashBy::Cookie(name, None) => format!("consistentHash by cookie {name}"),
            HashBy::Cookie(name, Some(_)) => format!("consistentHash by cookie {name}, made where a client has none"),
            HashBy::Query(name) => format!("consistentHash by query parameter {name}"),
            HashBy::SourceIp => "consistentHash by source address".to_owned(),
        }),
        traffic.proxy_protocol.map(|version| format!("proxyProtocol {version:?}")),
        traffic.tunnel.as_ref().map(|target| format!("tunnel CONNECT {target}")),
    ];
    numbers.chain(times).chain(others.into_iter().flatten()).collect()
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}
