//! Everything that can end a session early, and the one map from it to what the client, the log and the metrics see.

use std::borrow::Cow;

use crate::wire::alert::Alert;
use crate::wire::client_hello::Reject;
use crate::wire::http1::HeadError;

/// A stage and its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    // --- Refused by policy --------------------------------------------------------------------
    /// The hello offers Encrypted ClientHello, which the operator refuses.
    EchDenied,
    /// The request has been through this gateway before.
    Loop,
    /// No resource names the host on this port.
    NotListed,
    /// The client spoke TLS without an SNI.
    NoServerName,
    /// The host is listed, but no route matches.
    NoRoute,
    /// The route leads to a host, port or subset that does not exist.
    NoCluster,
    /// The connection came to a listener for captured traffic, and was not captured.
    NotCaptured,
    /// An AuthorizationPolicy refuses; the text is Istio's `none` or `ns[…]-policy[…]-rule[…]`.
    AccessDenied(Box<str>),
    /// The route's `fault.abort` answers with this status.
    FaultAbort(u16),
    /// The request is for a host of another server than the one that the client's TLS has ended at.
    Misdirected,
    /// The client shows no certificate, or one that the server does not take; the transport failure reason says why.
    ClientCertificate,

    // --- The client's fault -------------------------------------------------------------------
    /// The first bytes are no ClientHello, or an illegal one.
    HelloMalformed(Reject),
    /// The hello did not end within `helloTimeout`.
    HelloTimeout,
    /// The handshake with the client failed otherwise; the transport failure reason says why.
    ClientHandshake,
    /// The handshake with the client did not end in time.
    ClientHandshakeTimeout,
    /// The request head is not valid HTTP/1.
    RequestMalformed(HeadError),
    /// The request head did not end within `requestHeadTimeout`.
    RequestHeadTimeout,
    /// The body broke its framing.
    RequestBodyMalformed,
    /// The body stopped for longer than `bodyIdleTimeout`.
    RequestBodyTimeout,
    /// `CONNECT` on an ordinary listener.
    ConnectMethod,
    /// The client speaks TLS where the gateway opens TLS for what clients say.
    ClientSpeaksTls,
    /// The client closed or reset before its answer was complete.
    DownstreamClosed,

    // --- The upstream's fault -----------------------------------------------------------------
    /// The name does not resolve.
    NotResolved,
    /// Every address of the name is closed by the address policy.
    AddressClosed,
    /// The cluster has no endpoint, or its certificates cannot be read.
    NoHealthyUpstream,
    /// No TCP connection could be made.
    ConnectFailed,
    /// No TCP connection within the connect timeout.
    ConnectTimeout,
    /// The TLS handshake failed; the transport failure reason says why.
    HandshakeFailed,
    /// The upstream closed or reset before a response.
    UpstreamClosed,
    /// The upstream refused a stream, and has not looked at its request (HTTP/2).
    UpstreamRefused,
    /// The upstream reset a stream before a response (HTTP/2).
    UpstreamReset,
    /// The upstream closed or reset in the middle of a response.
    UpstreamTruncated,
    /// The response is not valid HTTP.
    ResponseMalformed,
    /// The route's timeout passed before the response was complete.
    RequestDeadline,
    /// The upstream was silent for longer than `bodyIdleTimeout`.
    UpstreamTimeout,
    /// A limit of the cluster's `connectionPool` is reached; the transport failure reason says which.
    UpstreamOverflow,
    /// A tunnel has lasted for its `maxConnectionDuration`.
    DurationTimeout,

    // --- Ours ---------------------------------------------------------------------------------
    /// A tunnel was silent for longer than `tunnelIdleTimeout`.
    IdleTimeout,
    /// A limit of this worker is reached: sessions, resolutions.
    Overload,
    /// The gateway is shutting down and `drain.timeout` has passed.
    DrainTimeout,
    /// A bug: the session's task panicked.
    Internal,
}

impl Failure {
    /// Envoy's response flag, as the access log and the metrics show it.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match self {
            Self::NotListed
            | Self::NotCaptured
            | Self::NoServerName
            | Self::Loop
            | Self::NotResolved
            | Self::AddressClosed
            | Self::NoHealthyUpstream => "UH",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::FaultAbort(_) => "FI",
            Self::AccessDenied(_)
            | Self::EchDenied
            | Self::Misdirected
            | Self::ClientCertificate
            | Self::ConnectMethod => "-",
            Self::HelloMalformed(_)
            | Self::HelloTimeout
            | Self::ClientHandshake
            | Self::ClientHandshakeTimeout
            | Self::RequestMalformed(_)
            | Self::RequestBodyMalformed
            | Self::ClientSpeaksTls => "DPE",
            Self::RequestHeadTimeout | Self::RequestBodyTimeout | Self::UpstreamTimeout | Self::IdleTimeout => "SI",
            Self::DownstreamClosed => "DC",
            Self::ConnectFailed | Self::ConnectTimeout | Self::HandshakeFailed => "UF",
            Self::UpstreamClosed | Self::UpstreamTruncated => "UC",
            Self::UpstreamRefused | Self::UpstreamReset => "UR",
            Self::ResponseMalformed => "UPE",
            Self::RequestDeadline => "UT",
            Self::Overload | Self::UpstreamOverflow => "UO",
            Self::DrainTimeout | Self::DurationTimeout => "DT",
            Self::Internal => "LR",
        }
    }

    /// [`Self::flag`] for a plain HTTP request: a host that is not listed is answered by the route `block_all`, which
    /// is a direct response and carries no flag (Istio does the same).
    #[must_use]
    pub fn http_flag(&self) -> &'static str {
        if *self == Self::NotListed { "-" } else { self.flag() }
    }

    /// The status of the answer to a plain HTTP request; `None`: the connection is closed without one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::NotListed => Some(502),
            Self::NoRoute => Some(404),
            Self::AccessDenied(_) => Some(403),
            Self::FaultAbort(status) => Some(*status),
            Self::ConnectMethod => Some(405),
            Self::Misdirected => Some(421),
            Self::Loop => Some(508),
            Self::RequestMalformed(error) => Some(error.status()),
            Self::RequestBodyMalformed => Some(400),
            Self::RequestHeadTimeout | Self::RequestBodyTimeout => Some(408),
            Self::NoCluster
            | Self::NotResolved
            | Self::AddressClosed
            | Self::NoHealthyUpstream
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::HandshakeFailed
            | Self::UpstreamClosed
            | Self::UpstreamRefused
            | Self::UpstreamReset
            | Self::UpstreamOverflow
            | Self::Overload => Some(503),
            Self::ResponseMalformed => Some(502),
            Self::RequestDeadline | Self::UpstreamTimeout => Some(504),
            Self::Internal => Some(500),
            Self::NoServerName
            | Self::EchDenied
            | Self::NotCaptured
            | Self::HelloMalformed(_)
            | Self::HelloTimeout
            | Self::ClientSpeaksTls
            | Self::ClientCertificate
            | Self::ClientHandshake
            | Self::ClientHandshakeTimeout
            | Self::DownstreamClosed
            | Self::UpstreamTruncated
            | Self::IdleTimeout
            | Self::DurationTimeout
            | Self::DrainTimeout => None,
        }
    }

    /// The fatal alert for a TLS client that has not been relayed yet; `None`: the connection is closed without one.
    #[must_use]
    pub fn alert(&self) -> Option<Alert> {
        match self {
            Self::NotListed | Self::NoServerName | Self::NoRoute | Self::NoCluster => Some(Alert::UnrecognizedName),
            Self::AccessDenied(_) | Self::EchDenied => Some(Alert::AccessDenied),
            Self::HelloMalformed(reject) => reject.alert(),
            Self::NotResolved
            | Self::AddressClosed
            | Self::NoHealthyUpstream
            | Self::ClientSpeaksTls
            | Self::Overload
            | Self::Internal => Some(Alert::InternalError),
            // What failed within rustls has had its alert from there.
            Self::HelloTimeout
            | Self::ClientCertificate
            | Self::ClientHandshake
            | Self::ClientHandshakeTimeout
            | Self::Misdirected
            | Self::NotCaptured
            | Self::RequestMalformed(_)
            | Self::RequestHeadTimeout
            | Self::RequestBodyMalformed
            | Self::RequestBodyTimeout
            | Self::ConnectMethod
            | Self::Loop
            | Self::FaultAbort(_)
            | Self::DownstreamClosed
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::HandshakeFailed
            | Self::UpstreamClosed
            | Self::UpstreamRefused
            | Self::UpstreamReset
            | Self::UpstreamTruncated
            | Self::ResponseMalformed
            | Self::RequestDeadline
            | Self::UpstreamTimeout
            | Self::UpstreamOverflow
            | Self::DurationTimeout
            | Self::IdleTimeout
            | Self::DrainTimeout => None,
        }
    }

    /// %RESPONSE_CODE_DETAILS% for HTTP, %CONNECTION_TERMINATION_DETAILS% for tunnels, and the `reason` label of
    /// `portcullis_denied_total`. Envoy's words where it has them.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotListed => "host_not_listed",
            Self::EchDenied => "ech_not_allowed",
            Self::Loop => "loop_detected",
            Self::NoServerName => "no_sni",
            Self::NotCaptured => "not_captured",
            Self::NoRoute => "route_not_found",
            Self::NoCluster => "cluster_not_found",
            Self::AccessDenied(_) => "rbac_access_denied_matched_policy",
            Self::FaultAbort(_) => "fault_filter_abort",
            Self::HelloMalformed(reject) => reject.reason(),
            Self::HelloTimeout => "hello_timeout",
            Self::Misdirected => "misdirected_request",
            Self::ClientCertificate => "client_certificate_refused",
            Self::ClientHandshake => "client_tls_handshake_failure",
            Self::ClientHandshakeTimeout => "client_tls_handshake_timeout",
            Self::RequestMalformed(error) => error.reason(),
            Self::RequestHeadTimeout => "request_header_timeout",
            Self::RequestBodyMalformed => "http1.codec_error",
            Self::RequestBodyTimeout => "request_body_timeout",
            Self::ConnectMethod => "connect_not_enabled",
            Self::ClientSpeaksTls => "client_speaks_tls",
            Self::DownstreamClosed => "downstream_remote_disconnect",
            Self::NotResolved => "dns_resolution_failure",
            Self::AddressClosed => "address_not_allowed",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::ConnectFailed => "upstream_reset_before_response_started{remote_connection_failure}",
            Self::ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
            Self::HandshakeFailed => "upstream_reset_before_response_started{tls_handshake_failure}",
            Self::UpstreamClosed => "upstream_reset_before_response_started{connection_termination}",
            Self::UpstreamRefused => "upstream_reset_before_response_started{remote_refused_stream_reset}",
            Self::UpstreamReset => "upstream_reset_before_response_started{remote_reset}",
            Self::UpstreamTruncated => "upstream_reset_after_response_started{connection_termination}",
            Self::ResponseMalformed => "upstream_reset_before_response_started{protocol_error}",
            Self::RequestDeadline => "response_timeout",
            Self::UpstreamTimeout => "stream_idle_timeout",
            Self::UpstreamOverflow => "upstream_reset_before_response_started{overflow}",
            Self::DurationTimeout => "max_connection_duration",
            Self::IdleTimeout => "idle_timeout",
            Self::Overload => "overload",
            Self::DrainTimeout => "drain_timeout",
            Self::Internal => "internal_error",
        }
    }

    /// [`Self::reason`], with the policy that refused: `rbac_access_denied_matched_policy[none]`.
    #[must_use]
    pub fn details(&self) -> Cow<'static, str> {
        match self.rule() {
            "" => Cow::Borrowed(self.reason()),
            policy => Cow::Owned(format!("{}[{policy}]", self.reason())),
        }
    }

    /// The policy that refused, for the `rule` label of `portcullis_denied_total`; empty for other failures.
    #[must_use]
    pub fn rule(&self) -> &str {
        if let Self::AccessDenied(policy) = self { policy } else { "" }
    }

    /// Whether this is a refusal by policy, which `portcullis_denied_total` and `/denied` count.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::NotListed
                | Self::NoServerName
                | Self::NotCaptured
                | Self::NoRoute
                | Self::AccessDenied(_)
                | Self::EchDenied
                | Self::Misdirected
                | Self::ClientCertificate
                | Self::Loop
                | Self::AddressClosed
                | Self::ConnectMethod
        )
    }
}
