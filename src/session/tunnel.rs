//! Sessions whose bytes are relayed as they are: TLS, of which the gateway reads the server name, and TCP, which a
//! DestinationRule may put into TLS.

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::net::{Address, Socket, wall_time, within};
use crate::relay::{self, End, Transferred};
use crate::route::authorization::Policy;
use crate::route::cluster::{Cluster, ClusterName, TlsProfile, UpstreamTls, Weighted};
use crate::route::decide::{self, Source, TcpVerdict, TlsVerdict};
use crate::route::host::HostName;
use crate::snapshot::{AccessLog, Ech, Snapshot};
use crate::telemetry::metrics::Spoken;
use crate::telemetry::record::Record;
use crate::upstream::account::{Account, Lease, Overflow};
use crate::upstream::balance::{Candidates, NoCandidate, Wanted};
use crate::upstream::connection::Connection;
use crate::upstream::dial;
use crate::upstream::outlier::Outcome;
use crate::wire::client_hello::ClientHello;

use super::context::{Denied, audit_details};
use super::http::facts::Facts;
use super::http::originate;
use super::sealed::{self, Early, is_hello, may_be_hello};
use super::{Client, Context, terminate};

/// The cluster of hosts that no resource names, under REGISTRY_ONLY.
pub(crate) const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";

/// By what a session is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// By the server name: the client speaks TLS.
    ServerName,
    /// By port and address, whatever the client speaks.
    Address,
}

/// The facts of a tunnel, gathered on its way.
pub(super) struct Story {
    by: By,
    started: Instant,
    server_name: Option<Box<str>>,
    /// Whether the hello offered Encrypted ClientHello.
    offers_ech: bool,
    cluster: Option<Rc<ClusterName>>,
    upstream: Option<Address>,
    /// Whether it was reached: then the stream is the upstream's, and no alert of ours may enter it.
    reached: bool,
    /// Whether what the client says is inside TLS that we opened.
    originated_tls: bool,
    notes: Option<Box<Notes>>,
    transferred: Transferred,
}

const _: () = assert!(size_of::<Story>() <= 96);

/// What is to be said of few tunnels.
#[derive(Default)]
struct Notes {
    transport_failure: Option<Box<str>>,
    /// The rules of AUDIT policies that it matches.
    audited: Option<Box<str>>,
}

/// Serves a client whose first bytes are `bytes`; they begin with `hello`, if it is known to speak TLS.
///
/// What the future holds it holds for hours: connecting and lingering are boxed, and an `async` block, unlike an `async`
/// function, keeps no second copy of its arguments.
pub(super) fn serve(
    context: Rc<Context>,
    client: Rc<Client>,
    by: By,
    hello: Option<ClientHello>,
    bytes: Vec<u8>,
) -> impl Future<Output = ()> {
    let opening = Box::pin(open(Rc::clone(&context), Rc::clone(&client), by, hello, bytes));
    async move {
        // Taken apart at once: what is bound as a whole is held to the end.
        let Some((mut story, Tunnel { sealed, idle, lease })) = opening.await else { return };
        let end = if let Some(sealed) = sealed {
            Box::pin(carry(&context, &client, sealed, &story.transferred, idle, time_left(&lease))).await
        } else if let (Some(downstream), Some(upstream)) = (client.transport.socket(), client.joined()) {
            let relay = relay::relay(downstream, upstream, context.tools(), &story.transferred, idle);
            match time_left(&lease) {
                None => Some(relay.await),
                Some(left) => Box::pin(within(left, relay)).await,
            }
        } else {
            // Only whoever has a connection to himself is passed through.
            return story.end(&context, &client, Some(Failure::Internal));
        };
        drop(lease);
        let failure = story.judge(end, &context, &client).err();
        story.end(&context, &client, failure);
    }
}

/// Refuses a client whose first bytes were not fit to be served.
pub(super) async fn refuse(context: &Rc<Context>, client: &Client, failure: &Failure) {
    Story::new(By::ServerName).fail(context, client, failure.clone()).await;
}

/// Tells of a session that a bug has ended; what it was about is lost with it.
pub(super) fn tell_panic(context: &Rc<Context>, client: &Client) {
    Story::new(By::ServerName).tell(context, client, Some(Failure::Internal));
}

/// What there is to know of the connection to the upstream, which the [`Client`] has.
struct Tunnel {
    /// The connection if it takes more than a socket on each side, and what is to be said in it first.
    sealed: Option<Box<(Box<Connection>, Early)>>,
    /// How long it may be silent.
    idle: Duration,
    /// Its place in the account of a bounded cluster.
    lease: Option<Box<Lease>>,
}

/// How long the connection may last.
fn time_left(lease: &Option<Box<Lease>>) -> Option<Duration> {
    lease.as_ref().and_then(|lease| lease.time_left())
}

/// Relays through TLS that we opened, or that ends here; `None`: it has lasted for as long as it may.
async fn carry(
    context: &Context,
    client: &Client,
    sealed: Box<(Box<Connection>, Early)>,
    transferred: &Transferred,
    idle: Duration,
    time_left: Option<Duration>,
) -> Option<End> {
    let (connection, early) = *sealed;
    let relay = sealed::relay(&client.transport, connection, early, &context.scratch, transferred, idle);
    match time_left {
        None => Some(relay.await),
        Some(left) => within(left, relay).await,
    }
}

/// Opens the tunnel; `None`: it has failed, and all is said.
async fn open(
    context: Rc<Context>,
    client: Rc<Client>,
    by: By,
    hello: Option<ClientHello>,
    bytes: Vec<u8>,
) -> Option<(Box<Story>, Tunnel)> {
    let mut story = Box::new(Story::new(by));
    match connect(&context, &client, hello, bytes, &mut story).await {
        Ok(tunnel) => Some((story, tunnel)),
        Err(failure) => {
            story.fail(&context, &client, failure).await;
            None
        }
    }
}

/// Decides, connects and sends the hello on. The configuration is let go of here: a tunnel of hours must not keep an
/// old one alive.
async fn connect(
    context: &Context,
    client: &Client,
    hello: Option<ClientHello>,
    bytes: Vec<u8>,
    story: &mut Story,
) -> Result<Tunnel, Failure> {
    let name = match (hello, client.transport.tls()) {
        (Some(hello), _) => {
            story.note_hello(context, &hello);
            hello.server_name
        }
        (None, Some(ended)) => {
            story.server_name = ended.server_name.as_ref().map(|name| name.as_str().into());
            ended.server_name.clone()
        }
        (None, None) => None,
    };
    let snapshot = context.snapshot();
    let (reached, lease) = reach(context, &snapshot, client, (name.as_ref(), &bytes), story).await?;
    let idle = lease.as_ref().and_then(|lease| lease.tunnel_idle());
    let idle = idle.unwrap_or(snapshot.settings.limits.tunnel_idle_timeout);
    let sealed = match reached {
        Reached::Sealed(connection) => {
            client.set_upstream(Some(connection.share()));
            // What has been read so far is not TLS; with too little of it, what comes shows.
            let may_speak = story.originated_tls && may_be_hello(&bytes);
            let refuses_tls = may_speak.then_some(snapshot.settings.limits.hello_timeout);
            let early = Early { refuses_tls, up: bytes, down: Vec::new() };
            Some(Box::new((connection, early)))
        }
        Reached::Open(socket) => {
            let sent = within(idle, client.join(socket).send_all(&bytes)).await.ok_or(Failure::IdleTimeout)?;
            sent.map_err(|error| story.transport(Failure::UpstreamClosed, &error.to_string()))?;
            story.transferred.upstream.set(bytes.len() as u64);
            None
        }
    };
    if let Some(address) = &story.upstream {
        context.balancer.began(address.get());
    }
    Ok(Tunnel { sealed, idle, lease })
}

/// A connection to the upstream.
enum Reached {
    /// As it is.
    Open(Socket),
    /// Inside TLS that we opened, or for a client whose own has ended here.
    Sealed(Box<Connection>),
}

async fn reach(
    context: &Context,
    snapshot: &Snapshot,
    client: &Client,
    (name, bytes): (Option<&HostName>, &[u8]),
    story: &mut Story,
) -> Result<(Reached, Option<Box<Lease>>), Failure> {
    let anywhere;
    let source = client.source();
    terminate::confirm(context, client, snapshot)?;
    let by = story.by;
    let audit = |policy: &Policy, rule| story.audit(context, policy, rule);
    match (by, name) {
        (By::ServerName, Some(name)) => decide::tls_audits(snapshot, source, name, audit),
        (By::ServerName, None) => {}
        (By::Address, name) => decide::tcp_audits(snapshot, source, name, audit),
    }
    let route = decide(snapshot, source, story.by, name)?;
    if story.offers_ech && snapshot.settings.ech == Ech::Deny {
        return Err(Failure::EchDenied);
    }
    let ticket = context.balancer.random();
    let cluster = match route {
        Some(route) => {
            let (route, ticket) = decide::tunnel_enter(snapshot, source, name, route, ticket)?;
            decide::cluster(snapshot, route.pick(ticket))?
        }
        None => {
            anywhere = decide::passthrough_cluster(source, snapshot);
            &anywhere
        }
    };
    story.cluster = Some(context.names.share(&cluster.name));
    let origination = match &cluster.tls {
        None => None,
        Some(_) if is_hello(bytes) => return Err(story.transport(Failure::ClientSpeaksTls, ENCRYPTED_TWICE)),
        Some(tls) => {
            let origination = origination(tls);
            Some(origination.map_err(|reason| story.transport(Failure::NoHealthyUpstream, reason))?)
        }
    };
    let account = context.accounts.of(cluster);
    let lease = account.as_ref().map(|account| place(account, story)).transpose()?;
    let hash = cluster.traffic.as_ref().and_then(|traffic| traffic.hash.as_ref());
    let key = hash.and_then(|hash| hash.key(source.address, None::<&Facts<'_>>));
    let wanted = Wanted { host: name, key, account: account.as_deref() };
    let candidates = candidates(context, snapshot, cluster, source, wanted).await;
    let candidates = candidates.map_err(|(failure, reason)| story.transport(failure, &reason))?;
    let mut failure = Failure::NoHealthyUpstream;
    let ends = dial::Client { source: client.peer(), destination: client.local() };
    let is_bare = client.transport.socket().is_some();
    for address in candidates {
        story.upstream = Some(address.into());
        match make(context, cluster, address, ends, (is_bare, origination)).await {
            Ok(reached) => {
                account.inspect(|account| account.report(address, Outcome::Connected));
                story.reached = true;
                story.notes.as_mut().map(|notes| notes.transport_failure.take());
                story.originated_tls = origination.is_some();
                return Ok((reached, lease));
            }
            Err((error, reason)) => {
                let outcome = if error == Failure::ConnectTimeout { Outcome::TimedOut } else { Outcome::Failed };
                account.as_ref().inspect(|account| account.report(address, outcome));
                failure = story.transport(error, &reason);
            }
        }
    }
    Err(failure)
}

/// A place for the session where sessions are counted.
fn place(account: &Rc<Account>, story: &mut Story) -> Result<Box<Lease>, Failure> {
    account.lease().ok_or_else(|| {
        let overflow = account.overflow(Overflow::Connections).as_str();
        story.transport(Failure::UpstreamOverflow, &format!("overflow: {overflow}"))
    })
}

/// What the log says of clients that are not put into TLS since they speak it.
const ENCRYPTED_TWICE: &str = "the client speaks TLS itself, and a DestinationRule asks for TLS around it";

/// How TLS is opened, and for which name.
type Origination<'s> = (&'s Arc<TlsProfile>, &'s HostName);

/// What a cluster asks for; or why that cannot be done.
fn origination(tls: &UpstreamTls) -> Result<Origination<'_>, &str> {
    let profile = tls.profile.as_ref().map_err(|reason| &**reason)?;
    // Without a name nothing could be verified; the configuration gives one to every cluster for TCP.
    tls.sni.as_ref().map(|name| (profile, name)).ok_or("TLS without a name")
}

/// A connection to one address, inside TLS if that is asked for. `is_bare`: the client's socket can be relayed as it is.
async fn make(
    context: &Context,
    cluster: &Cluster,
    address: SocketAddr,
    ends: dial::Client,
    (is_bare, origination): (bool, Option<Origination<'_>>),
) -> Result<Reached, (Failure, String)> {
    let socket = dial::reach(cluster, address, ends).await.map_err(|error| (error.failure, error.reason))?;
    if is_bare && origination.is_none() {
        return Ok(Reached::Open(socket));
    }
    let session = originate(context, &socket, origination, false).await;
    let session = session.map_err(|reason| (Failure::HandshakeFailed, reason))?;
    let connection = Connection::new(socket, address, session);
    connection.map(Reached::Sealed).map_err(|error| (Failure::ConnectFailed, error.to_string()))
}

/// The route; `None`: no resource names the destination, and the operator allows any.
fn decide<'s>(
    snapshot: &'s Snapshot,
    source: Source,
    by: By,
    name: Option<&HostName>,
) -> Result<Option<&'s Weighted>, Failure> {
    Ok(match by {
        By::ServerName => match decide::tls(snapshot, source, name.ok_or(Failure::NoServerName)?)? {
            TlsVerdict::Forward(_, route) => Some(route),
            TlsVerdict::Anywhere => None,
        },
        By::Address => match decide::tcp(snapshot, source, name)? {
            TcpVerdict::Forward(_, route) => Some(route),
            TcpVerdict::Anywhere => None,
        },
    })
}

/// Where to connect: where a captured client meant to go, if the cluster leaves that to the client, else to an endpoint.
async fn candidates(
    context: &Context,
    snapshot: &Snapshot,
    cluster: &Cluster,
    source: Source<'_>,
    wanted: Wanted<'_>,
) -> Result<Candidates, NoCandidate> {
    match decide::original(snapshot, cluster, source)? {
        Some(address) => Ok(smallvec::smallvec![address]),
        None => {
            let policy = &snapshot.settings.addresses;
            context.balancer.candidates(cluster, wanted, &context.resolver, policy).await
        }
    }
}

/// Sends the alert that is due to a client that speaks TLS, unless an upstream was reached: then the stream is its own.
/// Returns whether the client has something to read before the connection closes.
fn alert(client: &Client, failure: &Failure, story: &Story) -> bool {
    let speaks_tls = story.by == By::ServerName || story.server_name.is_some();
    // Where its TLS has ended here, an alert of ours would be data.
    let due = failure.alert().filter(|_| speaks_tls && !story.reached && client.transport.tls().is_none());
    due.is_some_and(|alert| client.transport.send(&alert.record()).is_ok())
}

impl Story {
    pub(super) fn new(by: By) -> Self {
        Self {
            by,
            started: Instant::now(),
            server_name: None,
            offers_ech: false,
            cluster: None,
            upstream: None,
            reached: false,
            originated_tls: false,
            notes: None,
            transferred: Transferred::default(),
        }
    }

    pub(super) fn note_hello(&mut self, context: &Context, hello: &ClientHello) {
        self.server_name = hello.server_name.as_ref().map(|name| name.as_str().into());
        self.offers_ech = hello.encrypted;
        context.counters.borrow_mut().ech_hellos += u64::from(hello.encrypted);
    }

    /// Counts and notes that an AUDIT policy matches.
    pub(super) fn audit(&mut self, context: &Context, policy: &Policy, rule: usize) {
        context.audit(policy, rule, &mut self.notes.get_or_insert_default().audited);
    }

    /// What the end of the relay means; `None`: it has lasted as long as it may. A reset is passed on as one, so that
    /// neither peer takes a truncation for an end.
    fn judge(&mut self, end: Option<End>, context: &Context, client: &Client) -> Result<(), Failure> {
        if let Some(address) = &self.upstream {
            context.balancer.ended(address.get());
        }
        match end {
            None => Err(Failure::DurationTimeout),
            Some(End::Finished) => Ok(()),
            Some(End::Idle) => Err(Failure::IdleTimeout),
            Some(End::Refused) => Err(self.transport(Failure::ClientSpeaksTls, ENCRYPTED_TWICE)),
            Some(End::Downstream(_)) => {
                client.with_upstream(Socket::reset_on_close);
                Err(Failure::DownstreamClosed)
            }
            Some(End::Upstream(error)) => {
                client.transport.reset_on_close();
                Err(self.transport(Failure::UpstreamTruncated, &error.to_string()))
            }
        }
    }

    /// Tells of a session that has come to nothing, the client too, who is lingered for so that it can read it.
    pub(super) async fn fail(&self, context: &Rc<Context>, client: &Client, failure: Failure) {
        let alerted = alert(client, &failure, self);
        self.end(context, client, Some(failure));
        if alerted {
            Box::pin(client.linger(context)).await;
        }
    }

    /// Tells of the session.
    fn end(&self, context: &Rc<Context>, client: &Client, failure: Option<Failure>) {
        self.tell(context, client, failure);
        client.set_upstream(None);
    }

    /// Notes the cause of a failure for %UPSTREAM_TRANSPORT_FAILURE_REASON%.
    pub(super) fn transport(&mut self, failure: Failure, reason: &str) -> Failure {
        self.notes.get_or_insert_default().transport_failure = Some(reason.into());
        failure
    }

    /// What the log says of a session that no failure ended.
    fn note(&self, context: &Context) -> Option<&'static str> {
        let noted = self.offers_ech && context.snapshot().settings.ech == Ech::Log;
        noted.then_some("ech_offered")
    }

    pub(super) fn tell(&self, context: &Rc<Context>, client: &Client, failure: Option<Failure>) {
        // A tunnel that was cut off looks finished: both sides have ended.
        let cut_off = context.drain_expired.get();
        let failure = if cut_off { Some(Failure::DrainTimeout) } else { failure };
        let not_listed = matches!(failure, Some(Failure::NotListed | Failure::NoServerName));
        let server_name = self.server_name.as_deref();
        let notes = self.notes.as_deref();
        let rules = notes.and_then(|notes| notes.audited.as_deref());
        let audited = rules.map(audit_details);
        let form = context.snapshot().settings.access_log;
        let record = Record {
            start: wall_time(self.started),
            duration: self.started.elapsed(),
            http: None,
            flags: failure.as_ref().map_or("-", Failure::flag),
            termination: failure.as_ref().map(Failure::reason).or(self.note(context)).or(audited.as_deref()),
            transport_failure: notes.and_then(|notes| notes.transport_failure.as_deref()),
            bytes_received: self.transferred.upstream.get(),
            bytes_sent: self.transferred.downstream.get(),
            upstream: self.upstream.as_ref().map(Address::get),
            cluster: if not_listed {
                Some(BLACK_HOLE_CLUSTER)
            } else {
                self.cluster.as_ref().map(|name| name.as_str())
            },
            service: self.cluster.as_ref().map(|name| name.service()),
            upstream_local: (form != AccessLog::Off).then(|| client.upstream_local()).flatten(),
            downstream_local: client.local(),
            downstream_remote: client.peer(),
            server_name,
            route: None,
            originated_tls: self.originated_tls,
            audited: rules,
        };
        let address = match self.by {
            By::Address => client.local().ip().to_string(),
            By::ServerName => String::new(),
        };
        let host = match (server_name, self.by) {
            (Some(name), _) => name,
            (None, By::Address) => &address,
            (None, By::ServerName) => "-",
        };
        let spoken = if self.by == By::Address { Spoken::Tcp } else { Spoken::Tls };
        let denied = Denied { host, port: client.service_port, source: client.peer().ip(), spoken };
        let failure = failure.as_ref().map(|failure| (failure, denied));
        context.finish(&record, failure, form);
    }
}
