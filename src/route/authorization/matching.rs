//! Whether a policy applies to a session, and whether its rules match it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Condition, ConditionKey, Glob, Operation, Policy, Rule, Session, Source};
use crate::route::http::RequestFacts;
use crate::route::table::ObjectRef;

impl Policy {
    /// Whether the session goes to what the policy is about.
    pub(super) fn applies(&self, session: &Session<'_>) -> bool {
        self.applies_to(session.objects)
    }

    /// Whether a session with these objects behind it goes there.
    pub(super) fn applies_to(&self, objects: &[Arc<ObjectRef>]) -> bool {
        let is_target = |namespace: &str, name: &str| {
            let mut entries = objects.iter().filter(|object| object.kind == "ServiceEntry");
            entries.any(|entry| entry.namespace() == namespace && entry.name() == name)
        };
        self.targets.is_empty() || self.targets.iter().any(|(namespace, name)| is_target(namespace, name))
    }
}

impl Rule {
    /// Whether this rule of an ALLOW policy matches.
    pub(super) fn allows(&self, session: &Session<'_>) -> bool {
        !self.asks_for_more_than_is_known(session) && self.matches(session)
    }

    /// Whether this rule of a DENY policy matches.
    pub(super) fn denies(&self, session: &Session<'_>) -> bool {
        self.matches(session)
    }

    /// Whether anything in the rule is about HTTP, and the session is not (about hosts, and there is none).
    fn asks_for_more_than_is_known(&self, session: &Session<'_>) -> bool {
        let without_host = session.sni.is_none();
        session.request.is_none()
            && (self.to.iter().any(|operation| operation.names_http() || without_host && operation.names_hosts())
                || self.when.iter().any(|condition| match condition.key {
                    ConditionKey::Header(_) => true,
                    ConditionKey::Sni => without_host,
                    ConditionKey::Port | ConditionKey::SourceIp(..) | ConditionKey::DestinationIp(..) => false,
                }))
            || session.destination.is_none()
                && self.when.iter().any(|condition| matches!(condition.key, ConditionKey::DestinationIp(..)))
    }

    pub(super) fn looks_at_server_name(&self) -> bool {
        self.to.iter().any(Operation::names_hosts)
            || self.when.iter().any(|condition| condition.key == ConditionKey::Sni)
    }

    /// What is not known counts as matching here.
    fn matches(&self, session: &Session<'_>) -> bool {
        (self.from.is_empty() || self.from.iter().any(|source| source.matches(session.source)))
            && (self.to.is_empty() || self.to.iter().any(|operation| operation.matches(session)))
            && self.when.iter().all(|condition| condition.matches(session))
    }
}

impl Source {
    fn matches(&self, peer: IpAddr) -> bool {
        listed(&self.ip_blocks, &self.not_ip_blocks, |block| contains(*block, peer))
    }
}

impl Operation {
    fn names_http(&self) -> bool {
        !(self.methods.is_empty() && self.not_methods.is_empty() && self.paths.is_empty() && self.not_paths.is_empty())
    }

    fn names_hosts(&self) -> bool {
        !(self.hosts.is_empty() && self.not_hosts.is_empty())
    }

    fn matches(&self, session: &Session<'_>) -> bool {
        self.hosts_match(session)
            && listed(&self.ports, &self.not_ports, |port| *port == session.port)
            && session.request.is_none_or(|request| {
                listed(&self.methods, &self.not_methods, |glob| glob.matches(request.method()))
                    && listed(&self.paths, &self.not_paths, |glob| glob.matches(request.path()))
            })
    }

    /// HTTP: the host, and the host as the client sent it, which may carry a port. TLS: the SNI.
    fn hosts_match(&self, session: &Session<'_>) -> bool {
        let listed = |one: &str, other: &str| {
            let names = |glob: &Glob| glob.matches_ignoring_case(one) || glob.matches_ignoring_case(other);
            listed(&self.hosts, &self.not_hosts, names)
        };
        match (session.request, session.sni) {
            (Some(request), _) => listed(session.host, request.authority()),
            (None, Some(sni)) => listed(session.host, sni),
            (None, None) => true,
        }
    }
}

impl Condition {
    fn matches(&self, session: &Session<'_>) -> bool {
        match &self.key {
            ConditionKey::Sni => match session.sni {
                Some(sni) => self.holds(|glob| glob.matches_ignoring_case(sni)),
                // A hello that comes late, or in pieces too large to wait for, has a name that nobody here has seen.
                None => session.request.is_none() || self.holds(|_| false),
            },
            ConditionKey::Port => self.holds(|glob| glob.is_port(session.port)),
            ConditionKey::SourceIp(values, not_values) => {
                listed(values, not_values, |block| contains(*block, session.source))
            }
            ConditionKey::DestinationIp(values, not_values) => {
                session.destination.is_none_or(|address| listed(values, not_values, |block| contains(*block, address)))
            }
            ConditionKey::Header(name) => {
                session.request.is_none_or(|request| self.holds(|glob| glob.matches_header(request, name)))
            }
        }
    }

    fn holds(&self, matches: impl Fn(&Glob) -> bool) -> bool {
        listed(&self.values, &self.not_values, matches)
    }
}

/// Istio's rule for every pair of lists: one of the first, if there are any, and none of the second.
fn listed<T>(values: &[T], not_values: &[T], matches: impl Fn(&T) -> bool) -> bool {
    (values.is_empty() || values.iter().any(&matches)) && !not_values.iter().any(&matches)
}

/// An IPv4 peer of an IPv6 socket shows up as `::ffff:a.b.c.d`.
fn contains(block: IpNet, peer: IpAddr) -> bool {
    block.contains(&peer.to_canonical()) || block.contains(&peer)
}

impl Glob {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Present => !text.is_empty(),
            Self::Template(template) => template.matches(text),
        }
    }

    /// For hosts and SNIs, which compare without case.
    fn matches_ignoring_case(&self, text: &str) -> bool {
        let is = |part: Option<&str>, expected: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(expected));
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(text),
            Self::Prefix(prefix) => is(text.get(..prefix.len()), prefix),
            Self::Suffix(suffix) => {
                is(text.len().checked_sub(suffix.len()).and_then(|start| text.get(start..)), suffix)
            }
            Self::Present | Self::Template(_) => self.matches(text),
        }
    }

    /// An empty field is present, as in Envoy; an absent one matches nothing.
    fn matches_header(&self, request: &dyn RequestFacts, name: &str) -> bool {
        request.header(name).is_some_and(|value| matches!(self, Self::Present) || self.matches(&value))
    }

    /// Ports are numbers: patterns other than a whole one match none.
    fn is_port(&self, port: u16) -> bool {
        matches!(self, Self::Exact(text) if text.parse() == Ok(port))
    }
}
