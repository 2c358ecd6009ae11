//! Sessions that are served as TCP, whatever the client speaks.

use std::net::{IpAddr, SocketAddr};

use crate::failure::Failure;
use crate::route::authorization::Policy;
use crate::route::cluster::{Cluster, UpstreamTls};
use crate::route::decide::{self, Detection, Source, TcpVerdict};
use crate::route::host::{HostName, HostPattern};
use crate::session::tunnel::BLACK_HOLE_CLUSTER;

use super::answer::{Answer, Verdict};
use super::traffic;
use super::verdict::{Explainer, mode};

impl Explainer<'_> {
    /// A captured connection of a client that has said nothing yet. Where nothing captures, one that comes to a listener
    /// whose port takes TCP alone.
    pub(super) fn captured(&self, address: SocketAddr, every_port_listens: bool) -> Answer {
        let (host, port) = (Some(address.ip().to_string()), address.port());
        let mut answer = Answer { host, port, ..Answer::default() };
        let source = self.source(port);
        if self.captures(every_port_listens) {
            let source = Source { gateway: false, destination: Some(address.ip()), ..source };
            return self.tcp(source, None, answer);
        }
        let listens = self.bootstrap.listeners.iter().any(|listener| listener.service.fixed() == Some(port));
        if listens && self.is_opaque(source) {
            return self.tcp(source, None, answer);
        }
        "no_listener".clone_into(&mut answer.reason);
        answer.hint = Some("no listener has `capture`".to_owned());
        answer
    }

    fn captures(&self, every_port_listens: bool) -> bool {
        every_port_listens || self.bootstrap.listeners.iter().any(|listener| listener.service.fixed().is_none())
    }

    fn is_opaque(&self, source: Source) -> bool {
        matches!(decide::detection(self.snapshot, source), Detection::Nothing | Detection::ServerName)
    }

    /// Where a client that asks for a host is served as TCP before it has said anything; `None`: what it says decides.
    pub(super) fn opaque(&self, host: &str, port: u16, every_port_listens: bool) -> Option<Source<'_>> {
        let source = self.source(port);
        if self.is_opaque(source) {
            return Some(source);
        }
        if source.gateway || !self.captures(every_port_listens) {
            return None;
        }
        let destination = Some(host.parse().ok().or_else(|| self.address_of(host, port))?);
        let source = Source { destination, ..source };
        self.is_opaque(source).then_some(source)
    }

    /// An address at which a service takes TCP, on a port on which no name is looked at.
    fn address_of(&self, host: &str, port: u16) -> Option<IpAddr> {
        let name = HostName::parse(host.as_bytes()).ok()?;
        if self.snapshot.routes.takes_names(port) != (false, false) {
            return None;
        }
        let mut addresses = self.snapshot.routes.tcp_addresses(port);
        let named = addresses.find(|(_, of)| HostPattern::parse(&of.host).is_ok_and(|pattern| pattern.matches(&name)));
        named.map(|(address, _)| address)
    }

    /// A client that speaks TLS to what takes TCP.
    pub(super) fn tls_as_tcp(&self, host: &str, source: Source, mut answer: Answer) -> Answer {
        let name = HostName::parse(host.as_bytes()).ok();
        // Nobody reads it, unless a policy asks for it.
        let name = name.filter(|_| decide::detection(self.snapshot, source) == Detection::ServerName);
        answer = self.tcp(source, name.as_ref(), answer);
        let is_put_into_tls = matches!(answer.tls, Some("SIMPLE" | "MUTUAL"));
        if is_put_into_tls && answer.verdict == Verdict::Allow {
            let answer = Answer { verdict: Verdict::Deny, tls: None, sni: None, endpoints: None, ..answer };
            return self.refuse_tcp(&Failure::ClientSpeaksTls, source, answer);
        }
        answer
    }

    /// What becomes of a TCP session; `name` is the SNI, as far as it is known.
    pub(super) fn tcp(&self, source: Source, name: Option<&HostName>, mut answer: Answer) -> Answer {
        let snapshot = self.snapshot;
        let found = snapshot.routes.tcp_at(source).map(|host| &host.objects[..]);
        self.add_objects(found, |objects| decide::tcp_session(source, name, objects), &mut answer);
        decide::tcp_audits(snapshot, source, name, |policy: &Policy, rule| answer.add_audit(policy, rule));
        let weighted = match decide::tcp(snapshot, source, name) {
            Ok(TcpVerdict::Forward(_, weighted)) => weighted,
            Ok(TcpVerdict::Anywhere) => {
                let cluster = decide::passthrough_cluster(source, snapshot);
                return self.forward_tcp(&cluster, source, answer);
            }
            Err(failure) => return self.refuse_tcp(&failure, source, answer),
        };
        match self.enter_tunnel(source, name, weighted, &mut answer) {
            Ok(cluster) => self.forward_tcp(cluster, source, answer),
            Err(failure) => self.refuse_tcp(&failure, source, answer),
        }
    }

    fn forward_tcp(&self, cluster: &Cluster, source: Source, answer: Answer) -> Answer {
        let traffic = cluster.traffic.as_deref().map(traffic::words);
        let mut answer = Answer { cluster: Some(cluster.name.to_string()), traffic, ..answer };
        let tls = match cluster.tls.as_deref() {
            None if source.tls.is_some() => "NONE",
            None => "PASSTHROUGH",
            Some(UpstreamTls { sni, profile }) => match profile {
                Ok(profile) => {
                    answer.sni = sni.as_ref().map(ToString::to_string);
                    mode(profile)
                }
                Err(reason) => {
                    answer = self.refuse_tcp(&Failure::NoHealthyUpstream, source, answer);
                    answer.hint = Some(reason.to_string());
                    return answer;
                }
            },
        };
        let endpoints = match decide::original(self.snapshot, cluster, source) {
            Ok(Some(address)) => vec![address.to_string()],
            Ok(None) => self.endpoints(cluster, None),
            Err((failure, reason)) => {
                answer = self.refuse_tcp(&failure, source, answer);
                answer.hint = Some(reason);
                return answer;
            }
        };
        if endpoints.is_empty() {
            return self.refuse_tcp(&Failure::NoHealthyUpstream, source, answer);
        }
        let (verdict, reason) = (Verdict::Allow, "via_upstream".to_owned());
        Answer { verdict, reason, tls: Some(tls), endpoints: Some(endpoints), ..answer }
    }

    fn refuse_tcp(&self, failure: &Failure, source: Source, mut answer: Answer) -> Answer {
        answer.reason = failure.details().into_owned();
        answer.response_flags = Some(failure.flag());
        answer.hint = Some(if *failure == Failure::NotListed {
            answer.cluster = Some(BLACK_HOLE_CLUSTER.to_owned());
            self.hint_by_name(source)
        } else if *failure == Failure::NoRoute {
            format!("no tcp rule leads on what arrives at port {}", source.port)
        } else {
            self.hint(failure, None, &answer, "TCP")
        });
        answer
    }

    /// A client that says a name may pass where one that says nothing does not.
    fn hint_by_name(&self, source: Source) -> String {
        let refused = format!("no ServiceEntry takes TCP to this address on port {}", source.port);
        match self.snapshot.routes.takes_names(source.port) {
            (false, false) => refused,
            (true, false) => refused + "; plain HTTP is judged by its Host: ask for http://HOST",
            (false, true) => refused + "; TLS is judged by its server name: ask for https://HOST",
            (true, true) => {
                refused + "; TLS and plain HTTP are judged by their names: ask for https://HOST, http://HOST"
            }
        }
    }
}
