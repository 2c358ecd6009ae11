//! The decision about one session: registry, then authorization, then routes.
//!
//! Sessions and `portcullis explain` ask these functions and nothing else, so that what is explained is what happens.
//! Nothing here allocates, except for a rewritten path and for the text of a refusal by policy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::failure::Failure;
use crate::snapshot::{Outbound, Snapshot};
use crate::wire::http1::HeadError;

use super::authorization::{Authorization, Decision, Policy, Session};
use super::cluster::{Balance, Cluster, ClusterName, Destination, Endpoints, HttpVersion, PoolId, Weighted};
use super::host::{Authority, AuthorityHost, HostName, HostPattern};
use super::http::{DirectResponse, Edits, Forward, HttpAction, Matched, Mirror, Redirect, RequestFacts};
use super::path::{self, Normalization};
use super::table::{ObjectRef, TcpHost, TlsHost, VirtualHost};
use super::termination::{Termination, TlsServer};

/// The cluster of hosts that no resource names, under ALLOW_ANY.
pub const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The peer's address.
    pub address: IpAddr,
    /// The service port that it came to, or that of the Gateways' servers.
    pub port: u16,
    /// Whether it came to a listener for Gateways.
    pub gateway: bool,
    /// The address that it meant to reach, if it was captured.
    pub destination: Option<IpAddr>,
    /// Its TLS, if that has ended here.
    pub tls: Option<EndedTls<'a>>,
}

/// TLS of a client that has ended at a server of a Gateway.
#[derive(Clone, Copy, Debug)]
pub struct EndedTls<'a> {
    /// The SNI, by which the client has chosen the server.
    pub server_name: Option<&'a HostName>,
}

/// What happens to a plain HTTP request that may pass.
#[derive(Clone, Copy, Debug)]
pub enum HttpVerdict<'s> {
    /// A route forwards it.
    Forward(&'s VirtualHost, Matched<'s>, &'s Forward),
    /// A route answers it.
    Respond(&'s VirtualHost, Matched<'s>, &'s DirectResponse),
    /// A route sends the client elsewhere.
    Redirect(&'s VirtualHost, Matched<'s>, &'s Redirect),
    /// No resource names the host, and the operator allows any.
    Anywhere,
}

impl<'s> HttpVerdict<'s> {
    /// The route that decides; `None`: no resource does.
    #[must_use]
    pub fn matched(self) -> Option<Matched<'s>> {
        match self {
            Self::Forward(_, matched, _) | Self::Respond(_, matched, _) | Self::Redirect(_, matched, _) => {
                Some(matched)
            }
            Self::Anywhere => None,
        }
    }
}

/// What happens to a TLS session that may pass.
#[derive(Clone, Copy, Debug)]
pub enum TlsVerdict<'s> {
    /// A route forwards it.
    Forward(&'s TlsHost, &'s Weighted),
    /// No resource names the host, and the operator allows any.
    Anywhere,
}

/// What happens to a TCP session that may pass.
#[derive(Clone, Copy, Debug)]
pub enum TcpVerdict<'s> {
    /// A route forwards it.
    Forward(&'s TcpHost, &'s Weighted),
    /// No resource names the address that the client meant to reach, and the operator allows any.
    Anywhere,
}

/// What the first bytes of a connection have a say in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Nothing: it is TCP, and nobody waits for the client to speak.
    Nothing,
    /// It is TCP, but a policy asks for the server name of TLS.
    ServerName,
    /// It is TLS, HTTP, or else TCP.
    Everything,
    /// The same, and the client has little time: no host of this port could be asked for.
    Briefly,
    /// It is TLS or HTTP, or it is refused.
    Names,
}

/// Where a route sends a request.
#[derive(Debug)]
pub struct Onward<'s> {
    /// The cluster.
    pub cluster: &'s Cluster,
    /// The name to resolve where the cluster leaves it to the request, and to put into the SNI.
    pub requested: HostName,
    /// The new path, if the route rewrites it.
    pub path: Option<String>,
    /// What changes in the heads.
    pub edits: &'s Edits,
}

/// Decides about a plain HTTP request; `host` is that of its authority, `None` for an address that stands for no host.
///
/// # Errors
/// The refusal.
pub fn http<'s>(
    snapshot: &'s Snapshot,
    source: Source,
    host: Option<&HostName>,
    facts: &impl RequestFacts,
) -> Result<HttpVerdict<'s>, Failure> {
    if facts.method() == "CONNECT" {
        return Err(Failure::ConnectMethod);
    }
    if let Some(tls) = source.tls
        && !snapshot.routes.shares_server(source.port, tls.server_name, host)
    {
        return Err(Failure::Misdirected);
    }
    let listed = host.and_then(|name| snapshot.routes.http_at(source, name));
    // An address is no name that we could resolve; a captured client goes where it meant to go.
    if host.is_none() && source.destination.is_none() {
        return Err(if source.gateway { Failure::NoRoute } else { Failure::NotListed });
    }
    if listed.is_none() {
        not_listed(snapshot, source)?;
    }
    if snapshot.routes.tables.path_policy && may_mean_another_path(facts.path(), snapshot.settings.normalization) {
        return Err(Failure::RequestMalformed(HeadError::Target));
    }
    authorize(snapshot, &http_session(source, host, facts, listed.map_or(&[], |host| &host.objects)))?;
    let Some(listed) = listed else { return Ok(HttpVerdict::Anywhere) };
    routed(listed, facts)
}

/// Whether an upstream that decodes what was not decoded here, or resolves what was not resolved, may see another path
/// than the one that is judged. Only [`Normalization::None`] leaves dot segments and backslashes.
fn may_mean_another_path(path: &str, normalization: Normalization) -> bool {
    path::has_escaped_slash(path) || normalization == Normalization::None && path::has_dot_segment(path)
}

/// Decides about a client that speaks TLS; `name` is its SNI.
///
/// # Errors
/// The refusal.
pub fn tls<'s>(snapshot: &'s Snapshot, source: Source, name: &HostName) -> Result<TlsVerdict<'s>, Failure> {
    if termination(snapshot, source, Some(name))?.is_some() {
        return Err(Failure::NoRoute); // Where TLS ends nothing passes as it is.
    }
    let listed = snapshot.routes.tls_at(source, name);
    if listed.is_none() {
        not_listed(snapshot, source)?;
    }
    authorize(snapshot, &tls_session(source, name, listed.map_or(&[], |host| &host.objects)))?;
    match listed {
        Some(host) => Ok(TlsVerdict::Forward(host, host.route_to(source.destination).ok_or(Failure::NoRoute)?)),
        None => Ok(TlsVerdict::Anywhere),
    }
}

/// The server of a Gateway at which the TLS of a client ends; `None`: it does not end here.
///
/// # Errors
/// [`Failure::NoRoute`]: the server that the name chooses is not served, and no other may stand in for it.
pub fn termination<'s>(
    snapshot: &'s Snapshot,
    source: Source,
    server_name: Option<&HostName>,
) -> Result<Option<&'s Termination>, Failure> {
    if !source.gateway {
        return Ok(None);
    }
    match snapshot.routes.tls_server(source.port, server_name) {
        Some(TlsServer::Terminating(termination)) => Ok(Some(termination)),
        Some(TlsServer::Closed) => Err(Failure::NoRoute),
        Some(TlsServer::Through) | None => Ok(None),
    }
}

/// What becomes of a host that nothing names: a Gateway has no route for it, in the mesh the operator decides.
fn not_listed(snapshot: &Snapshot, source: Source) -> Result<(), Failure> {
    match (source.gateway, snapshot.settings.outbound) {
        (true, _) => Err(Failure::NoRoute),
        (false, Outbound::RegistryOnly) => Err(Failure::NotListed),
        (false, Outbound::AllowAny) => Ok(()),
    }
}

/// What the first bytes of a connection decide.
///
/// An address that is declared as TCP settles it, as the longest prefix comes first among Envoy's filter chains. So does
/// a port on which no host takes HTTP or TLS: there a server may speak first.
#[must_use]
pub fn detection(snapshot: &Snapshot, source: Source) -> Detection {
    if source.gateway {
        return snapshot.routes.tcp_at(source).map_or(Detection::Names, |host| opaque(snapshot, host));
    }
    let (http, tls) = snapshot.routes.takes_names(source.port);
    match snapshot.routes.tcp(source.port, source.destination) {
        Some(found) if found.host.is_opaque && (found.by_address || !http && !tls) => opaque(snapshot, found.host),
        Some(_) => Detection::Everything,
        None if source.destination.is_none() => Detection::Names,
        None if http || tls => Detection::Everything,
        None => Detection::Briefly,
    }
}

/// What is known to be TCP is looked at for policies alone.
fn opaque(snapshot: &Snapshot, host: &TcpHost) -> Detection {
    match snapshot.routes.tables.authorization.looks_at_server_name(&host.objects) {
        true => Detection::ServerName,
        false => Detection::Nothing,
    }
}

/// Whether what is in the TLS that ends here for a client is TCP.
#[must_use]
pub fn carries_tcp(snapshot: &Snapshot, source: Source) -> bool {
    source.tls.is_some() && snapshot.routes.tcp_at(source).is_some()
}

/// Whether a client that speaks TLS is served as TCP: no host of this port has its server name, and the port or the
/// address takes TCP.
#[must_use]
pub fn carries_tls_as_tcp(snapshot: &Snapshot, source: Source, detection: Detection, name: Option<&HostName>) -> bool {
    let is_listed = || name.is_some_and(|name| snapshot.routes.tls(source.port, name).is_some());
    match detection {
        Detection::Nothing | Detection::ServerName => true,
        Detection::Everything | Detection::Briefly if is_listed() => false,
        Detection::Everything | Detection::Briefly => {
            let found = snapshot.routes.tcp(source.port, source.destination);
            match name {
                // A port that takes whatever clients speak takes TLS by its name.
                Some(_) => found.is_some_and(|found| found.host.is_opaque),
                None => {
                    found.is_some_and(|found| found.host.is_opaque || found.by_address)
                        || found.is_none() && may_pass_by_address(snapshot, source)
                }
            }
        }
        Detection::Names => false,
    }
}

/// Whether a client that speaks HTTP is served as TCP.
#[must_use]
pub fn carries_http_as_tcp(snapshot: &Snapshot, source: Source, detection: Detection) -> bool {
    match detection {
        Detection::Nothing | Detection::ServerName => true,
        Detection::Everything => {
            let (http, _) = snapshot.routes.takes_names(source.port);
            !http && snapshot.routes.tcp(source.port, source.destination).is_some()
        }
        Detection::Briefly | Detection::Names => false,
    }
}

/// ALLOW_ANY for captured traffic: it may go where it meant to go.
fn may_pass_by_address(snapshot: &Snapshot, source: Source) -> bool {
    source.destination.is_some() && !source.gateway && snapshot.settings.outbound == Outbound::AllowAny
}

/// Decides about a TCP session; `name` is the SNI, if the client speaks TLS and that is known, or spoke it until here.
///
/// # Errors
/// The refusal.
pub fn tcp<'s>(snapshot: &'s Snapshot, source: Source, name: Option<&HostName>) -> Result<TcpVerdict<'s>, Failure> {
    let found = snapshot.routes.tcp_at(source);
    if found.is_none() && !may_pass_by_address(snapshot, source) {
        return Err(if source.gateway { Failure::NoRoute } else { Failure::NotListed });
    }
    authorize(snapshot, &tcp_session(source, name, found.map_or(&[], |host| &host.objects)))?;
    match found {
        Some(host) => Ok(TcpVerdict::Forward(host, host.route_to(source.destination).ok_or(Failure::NoRoute)?)),
        None => Ok(TcpVerdict::Anywhere),
    }
}

/// The address to dial for a captured client where the cluster leaves it to the client, which may ask for nothing that
/// the operator has not written down. `None`: the cluster knows its endpoints.
///
/// # Errors
/// The refusal, and its reason for the log.
pub fn original(
    snapshot: &Snapshot,
    cluster: &Cluster,
    source: Source,
) -> Result<Option<SocketAddr>, (Failure, String)> {
    let Endpoints::Original(original) = &cluster.endpoints else { return Ok(None) };
    let Some(ip) = source.destination else {
        return Err((Failure::NoHealthyUpstream, "resolution NONE: the connection was not captured".to_owned()));
    };
    let address = SocketAddr::new(ip, original.port.unwrap_or(source.port));
    let Some((range, ())) = original.ranges.find_range(ip) else {
        let reason = format!("{ip} lies in no address of {}", cluster.name.service());
        return Err((Failure::NoHealthyUpstream, reason));
    };
    match snapshot.settings.addresses.judge_original(address, range) {
        Ok(()) => Ok(Some(address)),
        Err(closed) => Err((Failure::AddressClosed, format!("{address} is closed: {closed}"))),
    }
}

/// A plain HTTP request as the policies see it; `objects` are those behind its host.
pub(crate) fn http_session<'a>(
    source: Source<'a>,
    name: Option<&'a HostName>,
    facts: &'a impl RequestFacts,
    objects: &'a [Arc<ObjectRef>],
) -> Session<'a> {
    let Source { address, port, destination, tls, .. } = source;
    let host = name.map_or("", HostName::as_str);
    let sni = tls.and_then(|tls| tls.server_name).map(HostName::as_str);
    Session { source: address, port, destination, host, sni, request: Some(facts), objects }
}

/// A TLS session as the policies see it.
pub(crate) fn tls_session<'a>(source: Source, name: &'a HostName, objects: &'a [Arc<ObjectRef>]) -> Session<'a> {
    let host = name.as_str();
    let Source { address, port, destination, .. } = source;
    Session { source: address, port, destination, host, sni: Some(host), request: None, objects }
}

/// A TCP session as the policies see it.
pub(crate) fn tcp_session<'a>(
    source: Source,
    name: Option<&'a HostName>,
    objects: &'a [Arc<ObjectRef>],
) -> Session<'a> {
    let sni = name.map(HostName::as_str);
    let Source { address, port, destination, .. } = source;
    Session { source: address, port, destination, host: sni.unwrap_or_default(), sni, request: None, objects }
}

/// The AUDIT policies that a plain HTTP request matches, each with the first of its rules that does. Nearly always there
/// are no such policies.
pub fn http_audits<'s>(
    snapshot: &'s Snapshot,
    source: Source,
    host: Option<&HostName>,
    facts: &impl RequestFacts,
    each: impl FnMut(&'s Policy, usize),
) {
    let authorization = &snapshot.routes.tables.authorization;
    if authorization.audit.is_empty() {
        return;
    }
    let listed = host.and_then(|name| snapshot.routes.http_at(source, name));
    audits(authorization, &http_session(source, host, facts, listed.map_or(&[], |host| &host.objects)), each);
}

/// The same for a TLS session.
pub fn tls_audits<'s>(snapshot: &'s Snapshot, source: Source, name: &HostName, each: impl FnMut(&'s Policy, usize)) {
    let authorization = &snapshot.routes.tables.authorization;
    if authorization.audit.is_empty() {
        return;
    }
    let listed = snapshot.routes.tls_at(source, name);
    audits(authorization, &tls_session(source, name, listed.map_or(&[], |host| &host.objects)), each);
}

/// The same for a TCP session.
pub fn tcp_audits<'s>(
    snapshot: &'s Snapshot,
    source: Source,
    name: Option<&HostName>,
    each: impl FnMut(&'s Policy, usize),
) {
    let authorization = &snapshot.routes.tables.authorization;
    if authorization.audit.is_empty() {
        return;
    }
    let found = snapshot.routes.tcp_at(source);
    audits(authorization, &tcp_session(source, name, found.map_or(&[], |host| &host.objects)), each);
}

fn audits<'s>(authorization: &'s Authorization, session: &Session<'_>, mut each: impl FnMut(&'s Policy, usize)) {
    authorization.audits(session).for_each(|(policy, rule)| each(policy, rule));
}

fn authorize(snapshot: &Snapshot, session: &Session<'_>) -> Result<(), Failure> {
    let decision = snapshot.routes.tables.authorization.evaluate(session);
    match decision {
        Decision::Allow => Ok(()),
        Decision::Deny(_) => Err(Failure::AccessDenied(decision.to_string().into())),
    }
}

/// What was decided about a request in the end.
#[derive(Clone, Copy, Debug)]
pub struct Entered<'s> {
    /// The verdict of the last hop.
    pub verdict: HttpVerdict<'s>,
    /// What led to the Gateway, if one was entered: its timeout bounds the request too.
    pub before: Option<&'s Forward>,
    /// What chooses among the destinations of the last hop, for [`onward`].
    pub ticket: u32,
}

/// Follows a route that leads to this node's own Gateways: the request is decided anew, as one that arrives there.
/// Policies have been asked, of the client's own request. Every other verdict stays as it is. `ticket` chooses among
/// weighted destinations.
///
/// # Errors
/// [`Failure::NoRoute`], which is a gateway's answer to what it does not know.
pub fn enter<'s>(
    snapshot: &'s Snapshot,
    verdict: HttpVerdict<'s>,
    host: Option<&HostName>,
    facts: &impl RequestFacts,
    ticket: u32,
) -> Result<Entered<'s>, Failure> {
    let HttpVerdict::Forward(_, _, forward) = verdict else { return Ok(Entered { verdict, before: None, ticket }) };
    let Destination::Gateway(port) = forward.clusters.pick(ticket) else {
        return Ok(Entered { verdict, before: None, ticket });
    };
    let admitted = host.and_then(|name| snapshot.routes.gateway_http(port, name)).ok_or(Failure::NoRoute)?;
    Ok(Entered { verdict: routed(admitted, facts)?, before: Some(forward), ticket: next_ticket(ticket) })
}

/// The route of the last hop for a tunnel that `route` has taken over, which may lead to a Gateway, and the ticket that
/// chooses among its destinations. `name` is the SNI, if the client speaks TLS and that is known.
///
/// # Errors
/// [`Failure::NoRoute`] from a Gateway.
pub fn tunnel_enter<'s>(
    snapshot: &'s Snapshot,
    source: Source,
    name: Option<&HostName>,
    route: &'s Weighted,
    ticket: u32,
) -> Result<(&'s Weighted, u32), Failure> {
    let last = match route.pick(ticket) {
        Destination::Gateway(port) => {
            name.and_then(|name| snapshot.routes.gateway_tls(port, name)).and_then(|host| host.route.as_ref())
        }
        Destination::GatewayTcp(port) => {
            snapshot.routes.gateway_tcp(port).and_then(|host| host.route_to(source.destination))
        }
        Destination::Cluster(_) | Destination::Missing => return Ok((route, ticket)),
    };
    Ok((last.ok_or(Failure::NoRoute)?, next_ticket(ticket)))
}

/// A ticket that says nothing of the one it is made from: the shares of the second hop are those of all that arrive
/// there, whatever the share of the first hop that led them there.
///
/// The finalizer of MurmurHash3 maps `u32` onto itself, so an even distribution stays one. Moving bits around would
/// not do: what is left by a division by 3 or 5 survives a rotation by 16.
fn next_ticket(mut ticket: u32) -> u32 {
    ticket = (ticket ^ (ticket >> 16)).wrapping_mul(0x85eb_ca6b);
    ticket = (ticket ^ (ticket >> 13)).wrapping_mul(0xc2b2_ae35);
    ticket ^ (ticket >> 16)
}

fn routed<'s>(host: &'s VirtualHost, facts: &impl RequestFacts) -> Result<HttpVerdict<'s>, Failure> {
    let matched = host.decide(facts).ok_or(Failure::NoRoute)?;
    Ok(match &matched.route.action {
        HttpAction::Forward(forward) => HttpVerdict::Forward(host, matched, forward),
        HttpAction::Respond(response) => HttpVerdict::Respond(host, matched, response),
        HttpAction::Redirect(redirect) => HttpVerdict::Redirect(host, matched, redirect),
    })
}

/// Where a request goes that `forward` has taken over; `ticket` chooses among weighted destinations.
///
/// # Errors
/// [`Failure::NoCluster`]; [`Failure::NoRoute`] if the route rewrites to what is no host or no path;
/// [`Failure::RequestMalformed`] if the rewritten path would leave what the operator wrote.
pub fn onward<'s>(
    snapshot: &'s Snapshot,
    host: &HostName,
    facts: &impl RequestFacts,
    matched: Matched<'s>,
    forward: &'s Forward,
    ticket: u32,
) -> Result<Onward<'s>, Failure> {
    let (index, destination) = forward.clusters.pick_indexed(ticket);
    let cluster = cluster(snapshot, destination)?;
    let edits = forward.edits(index);
    let requested = requested(host, edits)?;
    if edits.authority.is_some() && !may_dial(cluster, &requested) {
        return Err(Failure::NoCluster);
    }
    let path = match &forward.rewrite_path {
        Some(rewrite) => {
            let path = rewrite.apply(facts.path(), matched).ok_or(Failure::RequestMalformed(HeadError::Target))?;
            // The target of a request would be something else altogether.
            Some(if path.starts_with('/') { path } else { return Err(Failure::NoRoute) })
        }
        None => None,
    };
    Ok(Onward { cluster, requested, path, edits })
}

/// The host that a request for `host` is for after a route has rewritten it.
fn requested(host: &HostName, edits: &Edits) -> Result<HostName, Failure> {
    let Some(authority) = edits.authority.as_deref() else { return Ok(host.clone()) };
    match Authority::parse(authority.as_bytes()).map(|authority| authority.host) {
        Ok(AuthorityHost::Name(name)) => Ok(name),
        Ok(AuthorityHost::Address(_)) | Err(_) => Err(Failure::NoRoute),
    }
}

/// The cluster that gets a copy of a request for this host, one that a route could lead it to; and the host that the copy
/// is for, after its route has rewritten that.
///
/// # Errors
/// [`Failure::NoCluster`], or [`Failure::NoRoute`].
pub fn mirrored<'s>(
    snapshot: &'s Snapshot,
    mirror: &Mirror,
    host: &HostName,
    edits: &Edits,
) -> Result<(&'s Cluster, HostName), Failure> {
    let (cluster, requested) = (cluster(snapshot, mirror.destination)?, requested(host, edits)?);
    if may_dial(cluster, &requested) { Ok((cluster, requested)) } else { Err(Failure::NoCluster) }
}

/// Whether a route may rewrite the host to this name: a wildcard service dials the name that it is asked for, and opens no
/// further one.
fn may_dial(cluster: &Cluster, name: &HostName) -> bool {
    !matches!(cluster.endpoints, Endpoints::Requested { .. })
        || HostPattern::parse(cluster.name.service()).is_ok_and(|pattern| pattern.matches(name))
}

/// The cluster of a destination that a route has picked.
///
/// # Errors
/// [`Failure::NoCluster`].
pub fn cluster(snapshot: &Snapshot, destination: Destination) -> Result<&Cluster, Failure> {
    match destination {
        Destination::Cluster(id) => snapshot.routes.cluster(id).ok_or(Failure::NoCluster),
        // A Gateway leads to no other: at most one re-entry.
        Destination::Gateway(_) | Destination::GatewayTcp(_) | Destination::Missing => Err(Failure::NoCluster),
    }
}

/// The cluster that stands for every host that no resource names: where a captured client meant to go, else the name
/// that it asks for.
#[must_use]
pub fn passthrough_cluster(source: Source, snapshot: &Snapshot) -> Cluster {
    let endpoints = match source.destination {
        Some(address) => Endpoints::Captured(SocketAddr::new(address, source.port)),
        None => Endpoints::Requested { port: source.port },
    };
    Cluster {
        name: ClusterName::new(PASSTHROUGH_CLUSTER, "unknown"),
        endpoints,
        balance: Balance::LeastRequest,
        tls: None,
        version: HttpVersion::One,
        connect_timeout: snapshot.settings.connect_timeout,
        traffic: None,
        pool: PoolId(u32::MAX),
    }
}
