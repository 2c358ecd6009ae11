//! AuthorizationPolicy: who may send what where.
//!
//! Evaluated as Istio does: a DENY rule that matches refuses; otherwise, if any ALLOW policy applies, one of its
//! rules must match. A policy without rules matches nothing, so an ALLOW policy without rules closes what it
//! applies to; an empty rule matches everything.
//!
//! On a session that is not HTTP, methods, paths and headers cannot be judged. An ALLOW rule that names any of them,
//! in whichever alternative, never matches there; in a DENY rule they are taken as matching. Both err towards
//! refusing. `hosts` are judged by the SNI, which is all that a gateway knows of a TLS session's host; where there
//! is no SNI either, they count among the former. (Istio, inside a mesh, treats them as HTTP-only on TLS too.)

mod matching;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::http::{RequestFacts, TextMatch};
use super::table::ObjectRef;

/// The policies of one generation, by action.
#[derive(Clone, Debug, Default)]
pub struct Authorization {
    /// Evaluated first: any that matches refuses.
    pub deny: Vec<Policy>,
    /// Then: if any applies and none matches, the request is refused.
    pub allow: Vec<Policy>,
    /// Whatever these match is counted, and goes on as the others say.
    pub audit: Vec<Policy>,
}

/// One AuthorizationPolicy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which object this is.
    pub object: Arc<ObjectRef>,
    /// `targetRefs`: the ServiceEntries (namespace, name) it applies to; empty: to all traffic.
    pub targets: Vec<(Box<str>, Box<str>)>,
    /// Alternatives; none at all matches nothing.
    pub rules: Vec<Rule>,
}

/// One entry of `rules:`: `from`, `to` and `when` must all hold; an empty list holds.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Alternatives on the source.
    pub from: Vec<Source>,
    /// Alternatives on the operation.
    pub to: Vec<Operation>,
    /// Conditions, all of which must hold.
    pub when: Vec<Condition>,
}

/// `from.source`.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `ipBlocks` and `remoteIpBlocks`: the peer's address must lie in one; empty: any.
    pub ip_blocks: Vec<IpNet>,
    /// `notIpBlocks` and `notRemoteIpBlocks`.
    pub not_ip_blocks: Vec<IpNet>,
}

/// `to.operation`. An empty list holds. On TLS sessions, lists about HTTP make an ALLOW rule not match and are
/// ignored in a DENY rule, so that neither opens what the operator meant to restrict (Istio does the same).
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// Host patterns, compared without case: with the Host of HTTP, and the SNI of TLS.
    pub hosts: Vec<Glob>,
    /// Negation of `hosts`.
    pub not_hosts: Vec<Glob>,
    /// Service ports.
    pub ports: Vec<u16>,
    /// Negation of `ports`.
    pub not_ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<Glob>,
    /// Negation of `methods`.
    pub not_methods: Vec<Glob>,
    /// Normalised paths without the query.
    pub paths: Vec<Glob>,
    /// Negation of `paths`.
    pub not_paths: Vec<Glob>,
}

/// `when`.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What is looked at.
    pub key: ConditionKey,
    /// One must match; empty: any.
    pub values: Vec<Glob>,
    /// None may match.
    pub not_values: Vec<Glob>,
}

/// The `key` of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionKey {
    /// `connection.sni`.
    Sni,
    /// `request.headers[name]`, name in lower case.
    Header(Box<str>),
    /// `destination.port`.
    Port,
    /// `source.ip` and `remote.ip`: the values are CIDR blocks.
    SourceIp(Vec<IpNet>, Vec<IpNet>),
    /// `destination.ip`: where a captured client meant to go; the values are CIDR blocks.
    DestinationIp(Vec<IpNet>, Vec<IpNet>),
}

/// Istio's value pattern: `exact`, `prefix*`, `*suffix`, `*` (present), and path templates.
#[derive(Clone, Debug)]
pub enum Glob {
    /// The whole text.
    Exact(Box<str>),
    /// `prefix*`.
    Prefix(Box<str>),
    /// `*suffix`.
    Suffix(Box<str>),
    /// `*`: anything, if there is something.
    Present,
    /// A path template with `{*}` or `{**}`, compiled to an anchored expression.
    Template(TextMatch),
}

/// What is known about a session when it is judged.
pub struct Session<'a> {
    /// The peer's address.
    pub source: IpAddr,
    /// The service port.
    pub port: u16,
    /// The address that the client meant to reach, if it was captured.
    pub destination: Option<IpAddr>,
    /// The host that was matched: from the Host of HTTP, or the SNI; empty on a TCP session.
    pub host: &'a str,
    /// The SNI, if the client spoke TLS.
    pub sni: Option<&'a str>,
    /// The HTTP request; `None` on a TLS or TCP session.
    pub request: Option<&'a dyn RequestFacts>,
    /// The objects behind the host, for `targetRefs`.
    pub objects: &'a [Arc<ObjectRef>],
}

/// The outcome.
#[derive(Clone, Debug)]
pub enum Decision<'a> {
    /// Allowed.
    Allow,
    /// Refused, by a DENY policy and the index of its rule, or because no ALLOW policy matched.
    Deny(Option<(&'a Policy, usize)>),
}

impl Authorization {
    /// Judges a session: DENY, then ALLOW, in Istio's order.
    #[must_use]
    pub fn evaluate(&self, session: &Session<'_>) -> Decision<'_> {
        let denied = self.deny.iter().filter(|policy| policy.applies(session));
        for policy in denied {
            if let Some(index) = policy.rules.iter().position(|rule| rule.denies(session)) {
                return Decision::Deny(Some((policy, index)));
            }
        }
        let mut allowed = self.allow.iter().filter(|policy| policy.applies(session)).peekable();
        let nothing_asked = allowed.peek().is_none();
        if nothing_asked || allowed.any(|policy| policy.rules.iter().any(|rule| rule.allows(session))) {
            Decision::Allow
        } else {
            Decision::Deny(None)
        }
    }
}

impl Authorization {
    /// The AUDIT policies that match a session, each with the first of its rules that does. What is not known of a
    /// session matches no rule, as with ALLOW.
    pub fn audits<'a>(&'a self, session: &Session<'_>) -> impl Iterator<Item = (&'a Policy, usize)> {
        let applying = self.audit.iter().filter(|policy| policy.applies(session));
        applying.filter_map(|policy| Some((policy, policy.rules.iter().position(|rule| rule.allows(session))?)))
    }

    /// The policies behind the decision about a session, for `explain`: the one that refuses, the one that lets it
    /// pass, or all those that apply and do not.
    #[must_use]
    pub fn behind(&self, session: &Session<'_>) -> Vec<&Policy> {
        let allows = |policy: &&Policy| policy.rules.iter().any(|rule| rule.allows(session));
        let mut applying = self.allow.iter().filter(|policy| policy.applies(session));
        match self.evaluate(session) {
            Decision::Deny(Some((policy, _))) => vec![policy],
            Decision::Deny(None) => applying.collect(),
            Decision::Allow => applying.find(allows).into_iter().collect(),
        }
    }
}

impl Authorization {
    /// Whether any policy for these objects looks at the server name, so that TCP sessions are asked for one.
    #[must_use]
    pub fn looks_at_server_name(&self, objects: &[Arc<ObjectRef>]) -> bool {
        let mut policies = self.deny.iter().chain(&self.allow).filter(|policy| policy.applies_to(objects));
        policies.any(|policy| policy.rules.iter().any(Rule::looks_at_server_name))
    }
}

impl Decision<'_> {
    /// Whether the session may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow)
    }
}

/// What Envoy puts in brackets after `rbac_access_denied_matched_policy`: the rule that refused, else `none`.
impl fmt::Display for Decision<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow | Self::Deny(None) => formatter.write_str("none"),
            Self::Deny(Some((policy, index))) => policy.rule_name(*index).fmt(formatter),
        }
    }
}

impl Policy {
    /// Envoy's name of a rule: `ns[default]-policy[no-posts]-rule[0]`.
    pub fn rule_name(&self, index: usize) -> impl fmt::Display {
        fmt::from_fn(move |formatter| {
            let (namespace, name) = (self.object.namespace(), self.object.name());
            write!(formatter, "ns[{namespace}]-policy[{name}]-rule[{index}]")
        })
    }
}

#[cfg(test)]
mod tests;
