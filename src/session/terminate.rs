//! A client whose TLS ends here: the handshake, and later whether it would be let in still.

use std::rc::Rc;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::{CertificateError, Error, OtherError};

use crate::failure::Failure;
use crate::net::within;
use crate::route::decide::{self, EndedTls, Source};
use crate::route::host::HostName;
use crate::route::termination::Termination;
use crate::snapshot::{Ech, Snapshot};
use crate::tls::session::{Established, HandshakeError, handshake};
use crate::wire::client_hello::ClientHello;

use super::tls::Tls;
use super::{Client, Context, tunnel};

/// Ends the TLS of a client that began with `bytes`. Returns what it has said inside so far; `None`: it has been refused
/// and told of.
pub(super) async fn terminate(
    context: Rc<Context>,
    client: Rc<Client>,
    hello: ClientHello,
    bytes: Vec<u8>,
) -> Option<Vec<u8>> {
    let mut story = tunnel::Story::new(tunnel::By::ServerName);
    story.note_hello(&context, &hello);
    if hello.encrypted && context.snapshot().settings.ech == Ech::Deny {
        story.fail(&context, &client, Failure::EchDenied).await;
        return None;
    }
    if let Err(failure) = judge_tcp(&context, &client, hello.server_name.as_ref(), &mut story) {
        story.fail(&context, &client, failure).await;
        return None;
    }
    let failure = match open(&context, &client, hello.server_name, bytes).await {
        Ok(plain) => return Some(plain),
        Err((failure, reason)) => story.transport(failure, &reason),
    };
    story.tell(&context, &client, Some(failure));
    // An alert may be on its way, and the client in the middle of a flight.
    client.linger(&context).await;
    None
}

/// All that TCP is judged by is known before the handshake, when a client can still be told by an alert. Of HTTP nothing is.
fn judge_tcp(
    context: &Context,
    client: &Client,
    server_name: Option<&HostName>,
    story: &mut tunnel::Story,
) -> Result<(), Failure> {
    let snapshot = context.snapshot();
    let source = Source { tls: Some(EndedTls { server_name }), ..client.source() };
    if !decide::carries_tcp(&snapshot, source) {
        return Ok(());
    }
    let verdict = decide::tcp(&snapshot, source, server_name).map(drop);
    if verdict.is_err() {
        decide::tcp_audits(&snapshot, source, server_name, |policy, rule| story.audit(context, policy, rule));
    }
    verdict
}

async fn open(
    context: &Rc<Context>,
    client: &Client,
    name: Option<HostName>,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, (Failure, String)> {
    let internal = |reason: &str| (Failure::Internal, format!("TLS_error: {reason}"));
    let snapshot = context.snapshot();
    let server = snapshot.routes.termination(client.service_port, name.as_ref());
    let (Some(Termination { profile, .. }), Some(socket)) = (server, client.transport.socket()) else {
        return Err(internal("no server of this name"));
    };
    let own = context.tls_servers.get(profile).map_err(|error| internal(&error.to_string()))?;
    let connection = UnbufferedServerConnection::new(Arc::clone(&own.config));
    let connection = Box::new(connection.map_err(|error| internal(&error.to_string()))?);
    let patience = snapshot.settings.limits.hello_timeout;
    let outcome = within(patience, handshake(connection, socket, bytes)).await;
    let mut counters = context.counters.borrow_mut();
    match outcome {
        // rustls takes a certificate from the ticket as it was verified once; since then it may have expired, or what revokes it.
        Some(Ok(Established { session, .. }))
            if session.is_resumed() && own.judge(session.peer_certificates()).is_err() =>
        {
            counters.client_handshakes_failed += 1;
            Err((
                Failure::ClientCertificate,
                "TLS_error: the certificate of the session is not valid any more".to_owned(),
            ))
        }
        Some(Ok(Established { session, plain, ended })) => {
            match session.is_resumed() {
                true => counters.client_handshakes_resumed += 1,
                false => counters.client_handshakes_full += 1,
            }
            if ended {
                socket.shutdown_read(); // As when it comes later: see `Tls::receive`.
            }
            let tls = Tls::new(session, ended, name, Rc::clone(&context.scratch));
            tls.passed.set(profile.clients.as_ref().map(|check| check.id));
            client.transport.put_into(tls);
            Ok(plain)
        }
        Some(Err(error)) => {
            counters.client_handshakes_failed += 1;
            Err((failure(&error), reason(&error)))
        }
        None => {
            counters.client_handshakes_failed += 1;
            Err((Failure::ClientHandshakeTimeout, format!("TLS_error: no handshake within {patience:?}")))
        }
    }
}

/// rustls shows what a verifier of our own says as a structure.
fn reason(error: &HandshakeError) -> String {
    match error {
        HandshakeError::Tls(Error::InvalidCertificate(CertificateError::Other(OtherError(own)))) => {
            format!("TLS_error: {own}")
        }
        HandshakeError::Tls(_) | HandshakeError::Io(_) | HandshakeError::Closed | HandshakeError::Oversized => {
            error.to_string()
        }
    }
}

fn failure(error: &HandshakeError) -> Failure {
    match error {
        HandshakeError::Tls(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => {
            Failure::ClientCertificate
        }
        HandshakeError::Tls(_) | HandshakeError::Closed | HandshakeError::Oversized => Failure::ClientHandshake,
        HandshakeError::Io(_) => Failure::DownstreamClosed,
    }
}

/// Whether a client that has been let in would be let in by what is in force now. The answer is remembered: it is asked
/// before every request, and changes with a reload at most.
///
/// # Errors
/// [`Failure::Misdirected`]: a new connection would say why.
pub(super) fn confirm(context: &Context, client: &Client, snapshot: &Snapshot) -> Result<(), Failure> {
    let Some(tls) = client.transport.tls() else { return Ok(()) };
    let server = decide::termination(snapshot, client.source(), tls.server_name.as_ref()).ok().flatten();
    let profile = &server.ok_or(Failure::Misdirected)?.profile;
    let wanted = profile.clients.as_ref().map(|check| check.id);
    if tls.passed.get() == wanted {
        return Ok(());
    }
    let own = context.tls_servers.get(profile).map_err(|_| Failure::Misdirected)?;
    tls.with_certificates(|certificates| own.judge(certificates)).map_err(|_| Failure::Misdirected)?;
    tls.passed.set(wanted);
    Ok(())
}
