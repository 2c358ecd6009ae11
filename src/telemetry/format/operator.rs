//! What the operators of a format stand for.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::super::record::{HttpRecord, Record};

/// A value of a record.
#[derive(Clone, Debug)]
pub(super) enum Operator {
    StartTime,
    Duration,
    ServiceTime,
    Code,
    BytesReceived,
    BytesSent,
    Protocol,
    Flags,
    Details,
    Termination,
    TransportFailure,
    Cluster,
    ServerName,
    Route,
    Audited,
    Address(Peer, Part),
    /// The first of these that the request has.
    Request(Vec<RequestPart>),
    /// The first of these fields that the answer has, in lower case.
    Answer(Vec<Box<str>>),
}

/// Whose address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    Upstream,
    UpstreamLocal,
    DownstreamLocal,
    DownstreamRemote,
}

/// Which part of an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Whole,
    Ip,
    Port,
}

/// What %REQ()% names.
#[derive(Clone, Debug)]
pub(super) enum RequestPart {
    Method,
    Path,
    Authority,
    Scheme,
    Field(Box<str>),
}

/// What an operator comes to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Absent,
    Number(u64),
    Text(&'a [u8]),
    Time(SystemTime),
    Address(SocketAddr),
    Ip(IpAddr),
}

/// The operators without arguments.
const PLAIN: [(&str, Operator); 30] = [
    ("START_TIME", Operator::StartTime),
    ("DURATION", Operator::Duration),
    ("RESPONSE_CODE", Operator::Code),
    ("BYTES_RECEIVED", Operator::BytesReceived),
    ("BYTES_SENT", Operator::BytesSent),
    ("PROTOCOL", Operator::Protocol),
    ("RESPONSE_FLAGS", Operator::Flags),
    ("RESPONSE_CODE_DETAILS", Operator::Details),
    ("CONNECTION_TERMINATION_DETAILS", Operator::Termination),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Operator::TransportFailure),
    ("UPSTREAM_CLUSTER", Operator::Cluster),
    ("UPSTREAM_CLUSTER_RAW", Operator::Cluster),
    ("REQUESTED_SERVER_NAME", Operator::ServerName),
    ("ROUTE_NAME", Operator::Route),
    ("UPSTREAM_HOST", Operator::Address(Peer::Upstream, Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS", Operator::Address(Peer::Upstream, Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Operator::Address(Peer::Upstream, Part::Ip)),
    ("UPSTREAM_REMOTE_PORT", Operator::Address(Peer::Upstream, Part::Port)),
    ("UPSTREAM_LOCAL_ADDRESS", Operator::Address(Peer::UpstreamLocal, Part::Whole)),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Operator::Address(Peer::UpstreamLocal, Part::Ip)),
    ("UPSTREAM_LOCAL_PORT", Operator::Address(Peer::UpstreamLocal, Part::Port)),
    ("DOWNSTREAM_LOCAL_ADDRESS", Operator::Address(Peer::DownstreamLocal, Part::Whole)),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Operator::Address(Peer::DownstreamLocal, Part::Ip)),
    ("DOWNSTREAM_LOCAL_PORT", Operator::Address(Peer::DownstreamLocal, Part::Port)),
    ("DOWNSTREAM_REMOTE_ADDRESS", Operator::Address(Peer::DownstreamRemote, Part::Whole)),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Operator::Address(Peer::DownstreamRemote, Part::Ip)),
    ("DOWNSTREAM_REMOTE_PORT", Operator::Address(Peer::DownstreamRemote, Part::Port)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Operator::Address(Peer::DownstreamRemote, Part::Whole)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Operator::Address(Peer::DownstreamRemote, Part::Ip)),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Operator::Address(Peer::DownstreamRemote, Part::Port)),
];

impl Operator {
    /// The operator of this name; `None`: there is none, or not with these arguments.
    pub(super) fn named(name: &str, arguments: Option<&str>) -> Option<Self> {
        match (name, arguments) {
            ("REQ", Some(names)) => alternatives(names, RequestPart::named).map(Self::Request),
            ("RESP", Some(names)) if names.eq_ignore_ascii_case(SERVICE_TIME) => Some(Self::ServiceTime),
            ("RESP", Some(names)) => alternatives(names, field_name).map(Self::Answer),
            ("DYNAMIC_METADATA", Some("portcullis:audit")) => Some(Self::Audited),
            (name, None) => PLAIN.into_iter().find(|(known, _)| *known == name).map(|(_, operator)| operator),
            (_, Some(_)) => None,
        }
    }

    /// Whether it comes to a text, which may be cut.
    pub(super) fn is_text(&self) -> bool {
        match self {
            Self::Protocol
            | Self::Flags
            | Self::Details
            | Self::Termination
            | Self::TransportFailure
            | Self::Cluster
            | Self::ServerName
            | Self::Route
            | Self::Audited
            | Self::Request(_)
            | Self::Answer(_) => true,
            Self::StartTime
            | Self::Duration
            | Self::ServiceTime
            | Self::Code
            | Self::BytesReceived
            | Self::BytesSent
            | Self::Address(..) => false,
        }
    }

    /// The fields of the answer that it shows.
    pub(super) fn answer_fields(&self) -> impl Iterator<Item = &str> {
        let fields = if let Self::Answer(fields) = self { fields.as_slice() } else { &[] };
        fields.iter().map(|field| &**field)
    }

    pub(super) fn value<'a>(&self, record: &'a Record<'a>) -> Value<'a> {
        let http = record.http.as_ref();
        let text = |text: Option<&'a str>| text.map_or(Value::Absent, |text| Value::Text(text.as_bytes()));
        let milliseconds = |duration: Duration| Value::Number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        match self {
            Self::StartTime => Value::Time(record.start),
            Self::Duration => milliseconds(record.duration),
            Self::ServiceTime => http.and_then(|http| http.upstream_service_time).map_or(Value::Absent, milliseconds),
            Self::Code => Value::Number(http.map_or(0, |http| u64::from(http.status))),
            Self::BytesReceived => Value::Number(record.bytes_received),
            Self::BytesSent => Value::Number(record.bytes_sent),
            Self::Protocol => text(http.map(|http| http.protocol)),
            Self::Flags => text(Some(record.flags)),
            Self::Details => text(http.map(|http| http.details)),
            Self::Termination => text(record.termination),
            Self::TransportFailure => text(record.transport_failure),
            Self::Cluster => text(record.cluster),
            Self::ServerName => text(record.server_name),
            Self::Route => text(record.route),
            Self::Audited => text(record.audited),
            Self::Address(peer, part) => address(*peer, *part, record),
            Self::Request(parts) => {
                let found = http.and_then(|http| parts.iter().find_map(|part| part.of(http)));
                found.map_or(Value::Absent, Value::Text)
            }
            Self::Answer(fields) => {
                let found = http.and_then(|http| fields.iter().find_map(|field| answer_field(http, field)));
                found.map_or(Value::Absent, Value::Text)
            }
        }
    }
}

/// What the upstream took, which we know and do not write into the answer.
const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

/// `NAME`, or `NAME?ALTERNATIVE`.
fn alternatives<T>(names: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    names.splitn(2, '?').map(read).collect()
}

fn field_name(name: &str) -> Option<Box<str>> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(legal)).then(|| name.to_ascii_lowercase().into())
}

impl RequestPart {
    /// The path that the client has sent is what Envoy keeps as its original one.
    fn named(name: &str) -> Option<Self> {
        Some(match &*name.to_ascii_lowercase() {
            ":method" => Self::Method,
            ":path" | "x-envoy-original-path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            _ => Self::Field(field_name(name)?),
        })
    }

    fn of<'a>(&self, http: &'a HttpRecord<'a>) -> Option<&'a [u8]> {
        match self {
            Self::Method => Some(http.method),
            Self::Path => Some(http.path),
            Self::Authority => http.authority,
            Self::Scheme => Some(if http.in_tls { b"https" } else { b"http" }),
            Self::Field(name) => match (&**name, http.head) {
                (name, Some((head, bytes))) => head.find(bytes, name),
                ("x-forwarded-for", None) => http.forwarded_for,
                ("user-agent", None) => http.user_agent,
                ("x-request-id", None) => http.request_id,
                (_, None) => None,
            },
        }
    }
}

fn answer_field<'a>(http: &'a HttpRecord<'a>, name: &str) -> Option<&'a [u8]> {
    http.answer_fields.iter().find(|(field, _)| **field == *name).map(|(_, value)| &**value)
}

fn address(peer: Peer, part: Part, record: &Record<'_>) -> Value<'static> {
    let address = match peer {
        Peer::Upstream => record.upstream,
        Peer::UpstreamLocal => record.upstream_local,
        Peer::DownstreamLocal => Some(record.downstream_local),
        Peer::DownstreamRemote => Some(record.downstream_remote),
    };
    match (address, part) {
        (None, _) => Value::Absent,
        (Some(address), Part::Whole) => Value::Address(address),
        (Some(address), Part::Ip) => Value::Ip(address.ip()),
        (Some(address), Part::Port) => Value::Number(u64::from(address.port())),
    }
}
