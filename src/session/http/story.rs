//! What will be told of a request: gathered on its way, told once.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::net::wall_time;
use crate::route::host::HostName;
use crate::telemetry::format::Format;
use crate::telemetry::metrics::Spoken;
use crate::telemetry::record::{HttpRecord, Record};
use crate::wire::http1::{Head, RequestHead, Version};

use super::super::context::{Denied, audit_details};
use super::super::tunnel::BLACK_HOLE_CLUSTER;
use super::{Client, Context};

/// The facts of a turn.
#[derive(Debug)]
pub(super) struct Story<'a> {
    /// When the head was complete.
    pub(super) started: Instant,
    /// When the last byte of the answer was passed on, if that is known already.
    pub(super) ended: Option<Instant>,
    pub(super) status: u16,
    pub(super) details: &'static str,
    pub(super) transport_failure: Option<String>,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) upstream_local: Option<SocketAddr>,
    pub(super) upstream_service_time: Option<Duration>,
    pub(super) cluster: Option<&'a str>,
    pub(super) service: Option<&'a str>,
    pub(super) route: Option<Cow<'a, str>>,
    pub(super) originated_tls: bool,
    /// Whether the route's `fault.delay` has held it up.
    pub(super) delayed: bool,
    /// The rules of AUDIT policies that it matches.
    pub(super) audited: Option<Box<str>>,
    /// The fields of the answer that the log format asks for.
    pub(super) answer_fields: Vec<(Box<str>, Box<[u8]>)>,
    pub(super) host: Option<HostName>,
}

/// The texts of a story that outlives the configuration they were borrowed from.
#[derive(Debug)]
pub(super) struct Names {
    cluster: Option<Box<str>>,
    service: Option<Box<str>>,
    route: Option<Box<str>>,
}

impl Names {
    /// Puts the texts back.
    pub(super) fn rejoin<'a>(&'a self, story: Story<'a>) -> Story<'a> {
        let route = self.route.as_deref().map(Cow::Borrowed);
        Story { cluster: self.cluster.as_deref(), service: self.service.as_deref(), route, ..story }
    }
}

impl Story<'_> {
    /// Keeps what the log format shows of an answer.
    pub(super) fn keep_fields(&mut self, format: &Format, head: &Head, bytes: &[u8]) {
        let names = format.answer_fields().iter();
        let found = names.filter_map(|name| head.find(bytes, name).map(|value| (name.clone(), value.into())));
        self.answer_fields = found.collect();
    }

    /// Takes the texts out, so that what is left borrows nothing.
    pub(super) fn detach(&mut self) -> (Story<'static>, Names) {
        let names = Names {
            cluster: self.cluster.map(Into::into),
            service: self.service.map(Into::into),
            route: self.route.take().map(|route| route.into_owned().into_boxed_str()),
        };
        let story = Story {
            started: self.started,
            ended: None,
            status: self.status,
            details: self.details,
            transport_failure: self.transport_failure.take(),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            upstream: self.upstream,
            upstream_local: self.upstream_local,
            upstream_service_time: self.upstream_service_time,
            cluster: None,
            service: None,
            route: None,
            originated_tls: self.originated_tls,
            delayed: self.delayed,
            audited: self.audited.take(),
            answer_fields: std::mem::take(&mut self.answer_fields),
            host: self.host.take(),
        };
        (story, names)
    }

    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            ended: None,
            status: 0,
            details: "via_upstream",
            transport_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            upstream: None,
            upstream_local: None,
            upstream_service_time: None,
            cluster: None,
            service: None,
            route: None,
            originated_tls: false,
            delayed: false,
            audited: None,
            answer_fields: Vec::new(),
            host: None,
        }
    }

    /// Notes the cause of a failure for %UPSTREAM_TRANSPORT_FAILURE_REASON%.
    pub(super) fn transport(&mut self, failure: Failure, reason: &str) -> Failure {
        self.transport_failure = Some(reason.to_owned());
        failure
    }

    /// Tells of a request whose head was understood.
    pub(super) fn tell_request(
        &self,
        context: &Rc<Context>,
        client: &Client,
        head: &RequestHead,
        bytes: &[u8],
        failure: Option<Failure>,
    ) {
        let path_end = if head.has_query { head.query.end } else { head.path.end };
        let http = HttpRecord {
            method: head.method.of(bytes),
            path: bytes.get(head.path.start as usize..path_end as usize).unwrap_or_default(),
            protocol: match head.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            },
            forwarded_for: head.head.find(bytes, "x-forwarded-for"),
            user_agent: head.head.find(bytes, "user-agent"),
            request_id: head.head.find(bytes, "x-request-id"),
            authority: Some(head.authority.of(bytes)),
            head: Some((&head.head, bytes)),
            answer_fields: &self.answer_fields,
            ..HttpRecord::default()
        };
        self.tell(context, client, http, failure);
    }

    /// Tells of bytes that were no request; only their first line is worth showing.
    pub(super) fn tell_malformed(&self, context: &Rc<Context>, client: &Client, bytes: &[u8], failure: &Failure) {
        const SHOWN_BYTES: usize = 64;
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let method = &line[..line.len().min(SHOWN_BYTES)];
        let http = HttpRecord { method, path: b"-", protocol: "-", ..HttpRecord::default() };
        self.tell(context, client, http, Some(failure.clone()));
    }

    /// Tells of a request of which nothing is known but that it was one.
    pub(super) fn tell_unseen(&self, context: &Rc<Context>, client: &Client, failure: &Failure) {
        let http = HttpRecord { method: b"-", path: b"-", protocol: "HTTP/2", ..HttpRecord::default() };
        self.tell(context, client, http, Some(failure.clone()));
    }

    fn tell(&self, context: &Rc<Context>, client: &Client, http: HttpRecord<'_>, failure: Option<Failure>) {
        let cut_off = failure.is_some() && context.drain_expired.get();
        let failure = if cut_off { Some(Failure::DrainTimeout) } else { failure };
        let not_listed = matches!(failure, Some(Failure::NotListed));
        let details = failure.as_ref().map(Failure::details);
        let flags = failure.as_ref().map_or("-", Failure::http_flag);
        let flags = if self.delayed { with_delay(flags) } else { Cow::Borrowed(flags) };
        let audited = self.audited.as_deref().map(audit_details);
        let tls = client.transport.tls();
        let record = Record {
            start: wall_time(self.started),
            duration: self.ended.unwrap_or_else(Instant::now).duration_since(self.started),
            http: Some(HttpRecord {
                status: self.status,
                details: details.as_deref().unwrap_or(self.details),
                upstream_service_time: self.upstream_service_time,
                in_tls: tls.is_some(),
                ..http
            }),
            flags: &flags,
            termination: audited.as_deref(),
            transport_failure: self.transport_failure.as_deref(),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            upstream: self.upstream,
            cluster: if not_listed { Some(BLACK_HOLE_CLUSTER) } else { self.cluster },
            service: self.service,
            upstream_local: self.upstream_local,
            downstream_local: client.local(),
            downstream_remote: client.peer(),
            server_name: tls.and_then(|tls| tls.server_name.as_ref()).map(HostName::as_str),
            route: if not_listed { Some("block_all") } else { self.route.as_deref() },
            originated_tls: self.originated_tls,
            audited: self.audited.as_deref(),
        };
        let denied = Denied {
            host: self.host.as_ref().map_or("-", HostName::as_str),
            port: client.service_port,
            source: client.peer().ip(),
            spoken: Spoken::Http,
        };
        let failure = failure.as_ref().map(|failure| (failure, denied));
        context.finish(&record, failure, context.snapshot().settings.access_log);
    }
}

/// Adds the flag of an injected delay where Envoy's order of flags has it.
fn with_delay(flags: &'static str) -> Cow<'static, str> {
    match flags {
        "-" => Cow::Borrowed("DI"),
        "UH" | "UT" | "LR" | "UF" | "UC" | "UO" | "NR" => Cow::Owned(format!("{flags},DI")),
        later => Cow::Owned(format!("DI,{later}")),
    }
}
