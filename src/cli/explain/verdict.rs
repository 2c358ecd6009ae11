//! From a question to its answer: the decisions of the sessions, told instead of carried out.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::bootstrap::Bootstrap;
use crate::failure::Failure;
use crate::route::authorization::{Policy, Session};
use crate::route::cluster::{Cluster, Destination, HttpVersion, TlsProfile, UpstreamTls, Weighted};
use crate::route::decide::{self, EndedTls, HttpVerdict, Onward, Source, TlsVerdict};
use crate::route::host::HostName;
use crate::route::http::{CorsVerdict, Forward, Matched, Mirror, Mirrors};
use crate::route::table::ObjectRef;
use crate::route::termination::{Inside, Termination};
use crate::session::http::facts::Facts;
use crate::session::tunnel::BLACK_HOLE_CLUSTER;
use crate::snapshot::{Outbound, Snapshot};
use crate::wire::client_hello::Reject;
use crate::wire::http1::{HeadError, HeadLimits, Parsed, RequestHead, parse_request};

use super::answer::{Answer, Share, Verdict};
use super::notes;
use super::question::Question;
use super::traffic;

/// Istio's word for TLS that the gateway opens.
pub(super) fn mode(profile: &TlsProfile) -> &'static str {
    if profile.identity.is_some() { "MUTUAL" } else { "SIMPLE" }
}

/// What an answer is looked up in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Explainer<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) bootstrap: &'a Bootstrap,
    /// The client's address.
    pub(super) source: IpAddr,
}

impl Explainer<'_> {
    /// Answers a question. `every_port_listens`: as if each service port had a listener.
    pub(super) fn answer(&self, question: &Question, every_port_listens: bool) -> Answer {
        let (host, port) = match question {
            Question::Tls { host, port, .. } | Question::Http { host, port, .. } => (host, *port),
            Question::Captured(address) => return self.captured(*address, every_port_listens),
        };
        let mut answer = Answer { host: Some(host.clone()), port, ..Answer::default() };
        let listens =
            self.bootstrap.listeners.iter().any(|listener| listener.service.fixed().is_none_or(|fixed| fixed == port));
        if !listens && !every_port_listens {
            "no_listener".clone_into(&mut answer.reason);
            answer.hint = Some(format!("no listener has servicePort {port}"));
            return answer;
        }
        match question {
            Question::Tls { host, port, head } => match self.opaque(host, *port, every_port_listens) {
                Some(source) => self.tls_as_tcp(host, source, answer),
                None => self.tls(host, *port, head, answer),
            },
            Question::Http { port, head, .. } => self.http(head, self.source(*port), answer),
            Question::Captured(address) => self.captured(*address, every_port_listens),
        }
    }

    /// Where a port has listeners for Gateways alone, that is where the question goes.
    pub(super) fn source(&self, port: u16) -> Source<'_> {
        let mut listeners =
            self.bootstrap.listeners.iter().filter(|listener| listener.service.fixed() == Some(port)).peekable();
        let gateway = listeners.peek().is_some() && listeners.all(|listener| listener.gateway);
        Source { address: self.source, port, gateway, destination: None, tls: None }
    }

    fn tls(&self, host: &str, port: u16, head: &[u8], mut answer: Answer) -> Answer {
        // Clients put names into the SNI, and no addresses (RFC 6066 section 3).
        if host.parse::<IpAddr>().is_ok() {
            return match decide::termination(self.snapshot, self.source(port), None) {
                Ok(Some(server)) => self.within(server, None, port, head, answer),
                Ok(None) | Err(_) => self.refuse_tls(&Failure::NoServerName, None, answer),
            };
        }
        let name = match HostName::parse(host.as_bytes()) {
            Ok(name) => name,
            Err(error) => return self.refuse_tls(&Failure::HelloMalformed(Reject::Name(error)), None, answer),
        };
        answer.host = Some(name.to_string());
        if let Ok(Some(server)) = decide::termination(self.snapshot, self.source(port), Some(&name)) {
            return self.within(server, Some(&name), port, head, answer);
        }
        answer.sni = Some(name.to_string());
        let objects = self.snapshot.routes.tls_at(self.source(port), &name).map(|host| &host.objects[..]);
        self.add_objects(objects, |objects| decide::tls_session(self.source(port), &name, objects), &mut answer);
        let audited = |policy: &Policy, rule| answer.add_audit(policy, rule);
        decide::tls_audits(self.snapshot, self.source(port), &name, audited);
        let weighted = match decide::tls(self.snapshot, self.source(port), &name) {
            Ok(TlsVerdict::Forward(_, weighted)) => weighted,
            Ok(TlsVerdict::Anywhere) => {
                let cluster = decide::passthrough_cluster(self.source(port), self.snapshot);
                return self.forward(&cluster, &name, Some("PASSTHROUGH"), answer);
            }
            Err(failure) => return self.refuse_tls(&failure, Some(&name), answer),
        };
        match self.enter_tunnel(self.source(port), Some(&name), weighted, &mut answer) {
            Ok(cluster) if cluster.tls.is_some() => self.refuse_tls(&Failure::ClientSpeaksTls, Some(&name), answer),
            Ok(cluster) => self.forward(cluster, &name, Some("PASSTHROUGH"), answer),
            Err(failure) => self.refuse_tls(&failure, Some(&name), answer),
        }
    }

    /// A request within TLS that ends at a server of a Gateway.
    fn within(
        &self,
        server: &Termination,
        server_name: Option<&HostName>,
        port: u16,
        head: &[u8],
        mut answer: Answer,
    ) -> Answer {
        answer.add_objects([&server.gateway]);
        answer.client_tls = Some(if server.profile.clients.is_some() { "MUTUAL" } else { "SIMPLE" });
        let source = Source { tls: Some(EndedTls { server_name }), ..self.source(port) };
        match server.inside {
            Inside::Http(_) => self.http(head, source, answer),
            Inside::Tcp(_) => self.tcp(source, server_name, answer),
        }
    }

    fn refuse_tls(&self, failure: &Failure, name: Option<&HostName>, mut answer: Answer) -> Answer {
        answer.reason = failure.details().into_owned();
        answer.response_flags = Some(failure.flag());
        if matches!(failure, Failure::NotListed | Failure::NoServerName) {
            answer.cluster = Some(BLACK_HOLE_CLUSTER.to_owned());
        }
        answer.hint = Some(self.hint(failure, name, &answer, "TLS"));
        answer
    }

    fn http(&self, bytes: &[u8], source: Source<'_>, mut answer: Answer) -> Answer {
        let head = match self.read(bytes) {
            Ok(head) => head,
            Err(error) => return self.refuse_http(&Failure::RequestMalformed(error), None, answer),
        };
        answer.host = Some(head.authority.text(bytes).to_owned());
        let mut facts = match Facts::new(&head, bytes, self.snapshot.settings.normalization) {
            Ok(facts) => facts,
            Err(failure) => return self.refuse_http(&failure, None, answer),
        };
        facts.arrive(self.snapshot, source);
        let name = facts.host.as_ref();
        answer.host = name.map(ToString::to_string).or(answer.host);
        if let Some(name) = name {
            let objects = self.snapshot.routes.http_at(source, name).map(|host| &host.objects[..]);
            let session = |objects| decide::http_session(source, Some(name), &facts, objects);
            self.add_objects(objects, session, &mut answer);
        }
        if let Err(failure) = self.snapshot.settings.fields.judge(&head, bytes) {
            return self.refuse_http(&failure, name, answer);
        }
        let audited = |policy: &Policy, rule| answer.add_audit(policy, rule);
        decide::http_audits(self.snapshot, source, name, &facts, audited);
        let verdict = decide::http(self.snapshot, source, name, &facts);
        let verdict = verdict.and_then(|verdict| self.enter(verdict, &facts, &mut answer));
        let matched = verdict.as_ref().ok().and_then(|verdict| verdict.matched());
        if let Some(matched) = matched
            && let CorsVerdict::Preflight(fields) = matched.cors(&facts)
        {
            let route = Some(matched.name().to_string());
            let (verdict, reason, notes) = (Verdict::Allow, "cors_response".to_owned(), notes::of_preflight(&fields));
            return Answer { verdict, reason, route, status: Some(200), notes, ..answer };
        }
        match verdict {
            Ok(HttpVerdict::Forward(_, matched, forward)) => self.forward_http(&facts, matched, forward, answer),
            Ok(HttpVerdict::Respond(_, matched, response)) => {
                let notes = notes::of_answer(matched, &response.fields);
                self.respond(matched, name, Answer { status: Some(response.status), notes, ..answer })
            }
            Ok(HttpVerdict::Redirect(_, matched, redirect)) => {
                let location = Some(redirect.location(&facts));
                let notes = notes::of_answer(matched, &redirect.fields);
                self.respond(matched, name, Answer { status: Some(redirect.status), location, notes, ..answer })
            }
            Ok(HttpVerdict::Anywhere) => {
                answer.route = Some("allow_any".to_owned());
                let cluster = decide::passthrough_cluster(source, self.snapshot);
                match name {
                    Some(name) => self.forward(&cluster, name, Some("NONE"), answer),
                    None => self.refuse_http(&Failure::NotListed, None, answer),
                }
            }
            Err(failure) => self.refuse_http(&failure, name, answer),
        }
    }

    /// The end of a question that a route answers by itself.
    fn respond(&self, matched: Matched<'_>, name: Option<&HostName>, answer: Answer) -> Answer {
        let answer = Answer { route: Some(matched.name().to_string()), ..answer };
        if let Some(abort) = matched.certain_abort().map(Failure::FaultAbort) {
            return self.refuse_http(&abort, name, Answer { location: None, ..answer });
        }
        let (verdict, reason) = (Verdict::Allow, "direct_response".to_owned());
        Answer { verdict, reason, ..answer }
    }

    fn read(&self, bytes: &[u8]) -> Result<RequestHead, HeadError> {
        let limits = &self.snapshot.settings.limits;
        let limits = HeadLimits { bytes: limits.request_head_bytes, fields: limits.request_headers };
        match parse_request(bytes, limits) {
            Parsed::Complete(head) => Ok(head),
            Parsed::Incomplete => Err(HeadError::Syntax),
            Parsed::Rejected(error) => Err(error),
        }
    }

    /// Follows a route to a Gateway, by the first of its destinations that works out.
    fn enter<'s>(
        &'s self,
        verdict: HttpVerdict<'s>,
        facts: &Facts<'_>,
        answer: &mut Answer,
    ) -> Result<HttpVerdict<'s>, Failure> {
        let HttpVerdict::Forward(_, matched, forward) = verdict else { return Ok(verdict) };
        let Some(name) = facts.host.as_ref() else { return Ok(verdict) };
        if !forward.clusters.iter().any(|(destination, _)| matches!(destination, Destination::Gateway(_))) {
            return Ok(verdict);
        }
        let ask = |ticket| {
            let entered = decide::enter(self.snapshot, verdict, Some(name), facts, ticket)?;
            match entered.before {
                Some(_) => Ok(entered.verdict),
                None => decide::onward(self.snapshot, name, facts, matched, forward, ticket).map(|_| verdict),
            }
        };
        let (destination, verdict) = self.first(&forward.clusters, ask)?;
        if let (
            Destination::Gateway(_),
            HttpVerdict::Forward(host, ..) | HttpVerdict::Respond(host, ..) | HttpVerdict::Redirect(host, ..),
        ) = (destination, verdict)
        {
            answer.add_objects(&host.objects);
            answer.entrances = self.shares(&forward.clusters);
        }
        Ok(verdict)
    }

    /// The cluster that a tunnel is led to, by way of a Gateway or not; by the first destinations that work out.
    pub(super) fn enter_tunnel<'s>(
        &'s self,
        source: Source,
        name: Option<&HostName>,
        weighted: &'s Weighted,
        answer: &mut Answer,
    ) -> Result<&'s Cluster, Failure> {
        answer.destinations = self.shares(weighted);
        let onward = |ticket| {
            let (last, _) = decide::tunnel_enter(self.snapshot, source, name, weighted, ticket)?;
            let (destination, cluster) =
                self.first(last, |ticket| decide::cluster(self.snapshot, last.pick(ticket)))?;
            Ok((last, destination, cluster))
        };
        let (entrance, (last, destination, cluster)) = self.first(weighted, onward)?;
        self.add_gateway(entrance, name, last, answer);
        self.add_rules(destination, answer);
        Ok(cluster)
    }

    /// The objects of the Gateway that a route for a tunnel leads to, and the shares of its own route.
    fn add_gateway(&self, entrance: Destination, name: Option<&HostName>, last: &Weighted, answer: &mut Answer) {
        let routes = &self.snapshot.routes;
        let objects = match entrance {
            Destination::Gateway(port) => {
                name.and_then(|name| routes.gateway_tls(port, name)).map(|host| &host.objects[..])
            }
            Destination::GatewayTcp(port) => routes.gateway_tcp(port).map(|host| &host.objects[..]),
            Destination::Cluster(_) | Destination::Missing => return,
        };
        answer.add_objects(objects.into_iter().flatten());
        answer.entrances = answer.destinations.take();
        answer.destinations = self.shares(last);
    }

    fn forward_http(&self, facts: &Facts<'_>, matched: Matched<'_>, forward: &Forward, mut answer: Answer) -> Answer {
        answer.route = Some(matched.name().to_string());
        answer.destinations = self.shares(&forward.clusters);
        let Some(name) = facts.host.as_ref() else { return self.refuse_http(&Failure::NotListed, None, answer) };
        let ask = |ticket| decide::onward(self.snapshot, name, facts, matched, forward, ticket);
        match self.first(&forward.clusters, ask) {
            Ok((destination, Onward { cluster, requested, path, edits })) => {
                if let Some(abort) = matched.certain_abort().map(Failure::FaultAbort) {
                    return self.refuse_http(&abort, Some(name), answer);
                }
                self.add_rules(destination, &mut answer);
                let copies = self.copies(forward, name);
                answer.notes = notes::of_request(matched, path.as_deref(), edits, copies);
                answer.upstream_protocol = Some(match cluster.version {
                    HttpVersion::One => "HTTP/1.1",
                    HttpVersion::Two => "HTTP/2",
                    HttpVersion::Client => "as the client",
                });
                self.originate(cluster, &requested, answer)
            }
            Err(failure) => self.refuse_http(&failure, Some(name), answer),
        }
    }

    /// Where copies of the requests go.
    fn copies(&self, forward: &Forward, host: &HostName) -> Vec<String> {
        let Some(Mirrors { to, edits }) = forward.mirrors.as_deref() else { return Vec::new() };
        let tell = |mirror: &Mirror| match decide::mirrored(self.snapshot, mirror, host, edits) {
            Ok((cluster, _)) => format!("copy: {}% of the requests to {}", mirror.share.as_percent(), cluster.name),
            Err(_) => "copy: to a host, port or subset that does not exist".to_owned(),
        };
        to.iter().map(tell).collect()
    }

    /// A plain request to a cluster that may have TLS of its own.
    fn originate(&self, cluster: &Cluster, requested: &HostName, mut answer: Answer) -> Answer {
        let Some(UpstreamTls { sni, profile }) = cluster.tls.as_deref() else {
            return self.forward(cluster, requested, Some("NONE"), answer);
        };
        let mode = match profile {
            Ok(profile) => mode(profile),
            Err(reason) => {
                answer.cluster = Some(cluster.name.to_string());
                let mut answer = self.refuse_http(&Failure::NoHealthyUpstream, None, answer);
                answer.hint = Some(reason.to_string());
                return answer;
            }
        };
        answer.sni = Some(sni.as_ref().unwrap_or(requested).to_string());
        self.forward(cluster, requested, Some(mode), answer)
    }

    fn refuse_http(&self, failure: &Failure, name: Option<&HostName>, mut answer: Answer) -> Answer {
        answer.reason = failure.details().into_owned();
        answer.status = failure.status();
        answer.response_flags = Some(failure.http_flag());
        if *failure == Failure::NotListed {
            (answer.cluster, answer.route) = (Some(BLACK_HOLE_CLUSTER.to_owned()), Some("block_all".to_owned()));
        }
        answer.hint = Some(self.hint(failure, name, &answer, "plain HTTP"));
        answer
    }

    /// The end of every question that passes.
    fn forward(&self, cluster: &Cluster, requested: &HostName, tls: Option<&'static str>, answer: Answer) -> Answer {
        let endpoints = self.endpoints(cluster, Some(requested));
        let traffic = cluster.traffic.as_deref().map(traffic::words);
        let answer = Answer { cluster: Some(cluster.name.to_string()), tls, traffic, ..answer };
        if endpoints.is_empty() {
            let failure = &Failure::NoHealthyUpstream;
            return match tls {
                Some("PASSTHROUGH") => self.refuse_tls(failure, Some(requested), answer),
                Some(_) | None => self.refuse_http(failure, Some(requested), answer),
            };
        }
        let (verdict, reason) = (Verdict::Allow, "via_upstream".to_owned());
        Answer { verdict, reason, endpoints: Some(endpoints), ..answer }
    }

    /// The first destination that works out: a route with several may lead some requests nowhere.
    fn first<T>(
        &self,
        weighted: &Weighted,
        ask: impl Fn(u32) -> Result<T, Failure>,
    ) -> Result<(Destination, T), Failure> {
        let mut ticket = 0;
        let mut refusal = Failure::NoCluster;
        for (destination, weight) in weighted.iter() {
            match ask(ticket) {
                Ok(found) => return Ok((destination, found)),
                Err(failure) => refusal = failure,
            }
            ticket += weight;
        }
        Err(refusal)
    }

    fn shares(&self, weighted: &Weighted) -> Option<Vec<Share>> {
        let name = |destination| match destination {
            Destination::Gateway(port) | Destination::GatewayTcp(port) => Some(format!("Gateway|{port}")),
            Destination::Cluster(_) | Destination::Missing => {
                decide::cluster(self.snapshot, destination).ok().map(|it| it.name.to_string())
            }
        };
        let shares = weighted.iter().map(|(destination, weight)| Share { cluster: name(destination), weight });
        let shares: Vec<Share> = shares.collect();
        (shares.len() > 1).then_some(shares)
    }

    /// The objects behind a host, and the policies that judge sessions with it.
    pub(super) fn add_objects<'o>(
        &self,
        objects: Option<&'o [Arc<ObjectRef>]>,
        session: impl FnOnce(&'o [Arc<ObjectRef>]) -> Session<'o>,
        answer: &mut Answer,
    ) {
        if objects.is_none() && self.snapshot.settings.outbound == Outbound::RegistryOnly {
            return;
        }
        let objects = objects.unwrap_or_default();
        answer.add_objects(objects);
        let policies = self.snapshot.routes.tables.authorization.behind(&session(objects));
        answer.add_objects(policies.into_iter().map(|policy| &policy.object));
    }

    /// The DestinationRules of a cluster.
    fn add_rules(&self, destination: Destination, answer: &mut Answer) {
        if let Destination::Cluster(id) = destination {
            answer.add_objects(self.snapshot.routes.tables.rules_of(id));
        }
    }

    pub(super) fn hint(&self, failure: &Failure, name: Option<&HostName>, answer: &Answer, what: &str) -> String {
        let port = answer.port;
        match (failure, name) {
            (Failure::NotListed, Some(name)) => {
                let open = self.open_ports(name);
                let elsewhere = if open.is_empty() { String::new() } else { format!("; it is open for {open}") };
                format!("no ServiceEntry opens {name} for {what} on port {port}{elsewhere}")
            }
            (Failure::NotListed, None) => "an address is no name that a ServiceEntry could list".to_owned(),
            (Failure::NoServerName, _) => "the client sends no server name (SNI)".to_owned(),
            (Failure::NoRoute, _) => "the host is listed, but no route matches".to_owned(),
            (Failure::FaultAbort(_), _) => "the route's fault aborts every request".to_owned(),
            (Failure::ClientSpeaksTls, _) => {
                "the client speaks TLS itself, and a DestinationRule asks for TLS around it".to_owned()
            }
            (Failure::Misdirected, _) => "the server that the SNI chooses is not that of the Host".to_owned(),
            (Failure::NoCluster, _) => "the route leads to a host, port or subset that does not exist".to_owned(),
            (Failure::AccessDenied(policy), _) if **policy == *"none" => {
                "AuthorizationPolicies apply, and none of their ALLOW rules matches".to_owned()
            }
            (Failure::AccessDenied(policy), _) => format!("denied by {policy}"),
            (Failure::NoHealthyUpstream, _) => "the cluster has no endpoint that may be dialled".to_owned(),
            (Failure::RequestMalformed(error), _) => error.to_string(),
            (Failure::HelloMalformed(reject), _) => reject.to_string(),
            (failure, _) => failure.reason().to_owned(),
        }
    }

    /// Where else a name is listed: the most common mistake is the wrong port or protocol.
    fn open_ports(&self, name: &HostName) -> String {
        let routes = &self.snapshot.routes;
        let open = routes.ports.iter().flat_map(|tries| {
            let http = routes.http(tries.port, name).map(|_| format!("plain HTTP on port {}", tries.port));
            let tls = routes.tls(tries.port, name).map(|_| format!("TLS on port {}", tries.port));
            [http, tls].into_iter().flatten()
        });
        open.collect::<Vec<_>>().join(" and ")
    }
}
