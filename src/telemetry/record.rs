//! The facts of one session or request, gathered on its way and told once.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::wire::http1::Head;

/// What the access log and the metrics say of one HTTP request, or of one TLS or TCP session.
///
/// Texts that the client chose are borrowed from the request head for the moment of writing; the access log
/// escapes them.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// %START_TIME%: of the request, or of the connection.
    pub start: SystemTime,
    /// %DURATION%.
    pub duration: Duration,
    /// The HTTP side; `None` on TLS and TCP sessions.
    pub http: Option<HttpRecord<'a>>,
    /// %RESPONSE_FLAGS%; `-` if none.
    pub flags: &'a str,
    /// %CONNECTION_TERMINATION_DETAILS%.
    pub termination: Option<&'a str>,
    /// %UPSTREAM_TRANSPORT_FAILURE_REASON%.
    pub transport_failure: Option<&'a str>,
    /// %BYTES_RECEIVED% from the client: body bytes of HTTP, all bytes of a session.
    pub bytes_received: u64,
    /// %BYTES_SENT% to the client.
    pub bytes_sent: u64,
    /// %UPSTREAM_HOST%.
    pub upstream: Option<SocketAddr>,
    /// %UPSTREAM_CLUSTER_RAW%: a cluster's name, `BlackHoleCluster`, `PassthroughCluster`.
    pub cluster: Option<&'a str>,
    /// The host as the operator wrote it, for metric labels; `None`: `unknown`.
    pub service: Option<&'a str>,
    /// %UPSTREAM_LOCAL_ADDRESS%.
    pub upstream_local: Option<SocketAddr>,
    /// %DOWNSTREAM_LOCAL_ADDRESS%.
    pub downstream_local: SocketAddr,
    /// %DOWNSTREAM_REMOTE_ADDRESS%.
    pub downstream_remote: SocketAddr,
    /// %REQUESTED_SERVER_NAME%.
    pub server_name: Option<&'a str>,
    /// %ROUTE_NAME%.
    pub route: Option<&'a str>,
    /// Whether the gateway originated TLS, for `connection_security_policy`.
    pub originated_tls: bool,
    /// %DYNAMIC_METADATA(portcullis:audit)%: the rules of AUDIT policies that it matches.
    pub audited: Option<&'a str>,
}

/// The HTTP side of a [`Record`]. Bytes, because a malformed request is logged too.
#[derive(Clone, Debug, Default)]
pub struct HttpRecord<'a> {
    /// %REQ(:METHOD)%.
    pub method: &'a [u8],
    /// %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%: as the client sent it, with the query.
    pub path: &'a [u8],
    /// %PROTOCOL%: `HTTP/1.1`.
    pub protocol: &'a str,
    /// %RESPONSE_CODE%; 0 if none was sent.
    pub status: u16,
    /// %RESPONSE_CODE_DETAILS%.
    pub details: &'a str,
    /// %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%: from the request's last byte sent to the response head.
    pub upstream_service_time: Option<Duration>,
    /// %REQ(X-FORWARDED-FOR)%.
    pub forwarded_for: Option<&'a [u8]>,
    /// %REQ(USER-AGENT)%.
    pub user_agent: Option<&'a [u8]>,
    /// %REQ(X-REQUEST-ID)%.
    pub request_id: Option<&'a [u8]>,
    /// %REQ(:AUTHORITY)%.
    pub authority: Option<&'a [u8]>,
    /// Every field of the request, with the bytes that they lie in.
    pub head: Option<(&'a Head, &'a [u8])>,
    /// The fields of the answer that a format asks for.
    pub answer_fields: &'a [(Box<str>, Box<[u8]>)],
    /// Whether it came within TLS that has ended here.
    pub in_tls: bool,
}
