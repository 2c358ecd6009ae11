//! May this request pass, and by which route: registry, then authorization, then routes.

use crate::failure::Failure;
use crate::route::authorization::{self, Decision};
use crate::route::http::{DirectResponse, Forward, HttpAction, Matched, RequestFacts as _};
use crate::route::path;
use crate::route::table::VirtualHost;
use crate::snapshot::{Outbound, Snapshot};
use crate::wire::http1::HeadError;

use super::Client;
use super::facts::Facts;

/// What happens to a request that may pass.
#[derive(Debug)]
pub(super) enum Verdict<'s> {
    /// A route forwards it.
    Forward(&'s VirtualHost, Matched<'s>, &'s Forward),
    /// A route answers it.
    Respond(Matched<'s>, &'s DirectResponse),
    /// No resource names the host, and the operator allows any.
    Anywhere,
}

/// Decides.
///
/// # Errors
/// The refusal.
pub(super) fn decide<'s>(snapshot: &'s Snapshot, client: &Client, facts: &Facts<'_>) -> Result<Verdict<'s>, Failure> {
    if facts.method() == "CONNECT" {
        return Err(Failure::ConnectMethod);
    }
    // An address is no name that an operator could have listed.
    let name = facts.host.as_ref().ok_or(Failure::NotListed)?;
    let tables = &snapshot.routes.tables;
    let host = snapshot.routes.http(client.service_port, name);
    if host.is_none() && snapshot.settings.outbound == Outbound::RegistryOnly {
        return Err(Failure::NotListed);
    }
    if tables.path_policy && path::has_escaped_slash(facts.path()) {
        // The upstream may decode what we did not, and then see another path than the one that was judged.
        return Err(Failure::RequestMalformed(HeadError::Target));
    }
    let decision = tables.authorization.evaluate(&authorization::Session {
        source: client.peer.ip(),
        port: client.service_port,
        host: name.as_str(),
        sni: None,
        request: Some(facts),
        objects: host.map_or(&[], |host| &host.objects),
    });
    if let Decision::Deny(_) = decision {
        return Err(Failure::AccessDenied(decision.to_string().into()));
    }
    let Some(host) = host else { return Ok(Verdict::Anywhere) };
    let matched = host.decide(facts).ok_or(Failure::NoRoute)?;
    Ok(match &matched.route.action {
        HttpAction::Forward(forward) => Verdict::Forward(host, matched, forward),
        HttpAction::Respond(response) => Verdict::Respond(matched, response),
    })
}
