//! TLS origination: where it surprises.

use crate::config::bootstrap::Bootstrap;
use crate::config::finding::{Report, code};
use crate::config::istio::destination_rule::{ClientTls, DestinationRule, TlsMode, TrafficPolicy};
use crate::config::istio::service_entry::Protocol;
use crate::config::istio::{Objects, Scope};
use crate::config::registry::Registry;
use crate::route::host::HostPattern;

fn originates(tls: &ClientTls) -> bool {
    match tls.mode.unwrap_or(TlsMode::Disable) {
        TlsMode::Disable => false,
        TlsMode::Simple | TlsMode::Mutual | TlsMode::IstioMutual => true,
    }
}

/// Whether a rule is about the way to this node's own Gateways, which no connection goes.
fn is_internal(rule: &DestinationRule, registry: &Registry<'_>) -> bool {
    let host = rule.host.as_deref().and_then(|host| HostPattern::parse(host).ok());
    host.is_some_and(|host| registry.gateways.is_own_service(&host) && registry.services.declared(&host).is_none())
}

/// Istio would encrypt twice where clients speak TLS to a port for which a DestinationRule originates it.
pub(super) fn double_encryption(registry: &Registry<'_>, report: &mut Report) {
    for (_, service) in registry.services.iter() {
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tls) {
            let policy =
                registry.policies.policy(&service.pattern, port.namespace(), port.number, None).unwrap_or_default();
            let Some(source) = policy.tls.filter(|source| originates(source.tls)) else { continue };
            let message = format!(
                "clients that speak TLS to {}:{} pass as they are, where Istio would encrypt them twice; plain HTTP routed \
                 to this port is put into TLS",
                service.host, port.number
            );
            Scope::new(source.origin, report).warning(code::DOUBLE_ENCRYPTION, source.field, message);
        }
    }
}

/// Istio checks no name where `sni` is set without `subjectAltNames`.
pub(super) fn server_names(objects: &Objects, registry: &Registry<'_>, bootstrap: &Bootstrap, report: &mut Report) {
    for object in objects.destination_rules.iter().filter(|object| !is_internal(&object.spec, registry)) {
        for (field, tls) in settings(&object.spec).into_iter().filter(|(_, tls)| originates(tls)) {
            let has_sni = tls.sni.as_ref().is_some_and(|sni| !sni.is_empty());
            let is_verified = tls.insecure_skip_verify != Some(true);
            if !has_sni || !tls.subject_alt_names.is_empty() || !is_verified {
                continue;
            }
            let scope = &mut Scope::new(&object.origin, report);
            if bootstrap.tls.strict_names {
                let message = "the certificate must carry this name; Istio would check the chain alone \
                               (tls.serverNameVerification: ISTIO)";
                scope.info(code::VERIFICATION, format!("{field}.sni"), message);
            } else {
                let message =
                    "sni without subjectAltNames: any certificate of a trusted root is taken, whatever its name";
                scope.warning(code::VERIFICATION, format!("{field}.sni"), message);
            }
        }
    }
}

/// Older Istio verified nothing where no roots are named; this gateway, and newer Istio, take the system's.
pub(super) fn system_roots(objects: &Objects, registry: &Registry<'_>, bootstrap: &Bootstrap, report: &mut Report) {
    if bootstrap.tls.ca_certificates.is_some() {
        return;
    }
    for object in objects.destination_rules.iter().filter(|object| !is_internal(&object.spec, registry)) {
        for (field, tls) in settings(&object.spec).into_iter().filter(|(_, tls)| originates(tls)) {
            let named = [&tls.ca_certificates, &tls.credential_name];
            let is_named = named.into_iter().flatten().any(|text| !text.is_empty());
            if is_named || tls.insecure_skip_verify == Some(true) || tls.mode == Some(TlsMode::IstioMutual) {
                continue;
            }
            let at_port = field.contains(".portLevelSettings[");
            let code = if at_port { code::SYSTEM_ROOTS_AT_PORT } else { code::SYSTEM_ROOTS };
            let message = "without caCertificates the system's roots verify the upstream";
            Scope::new(&object.origin, report).info(code, field, message);
        }
    }
}

/// Every `tls:` of a rule with its field.
fn settings(rule: &DestinationRule) -> Vec<(String, &ClientTls)> {
    let top = rule.traffic_policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let subsets = rule.subsets.iter().enumerate().filter_map(|(index, subset)| {
        Some((format!("spec.subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref()?))
    });
    top.chain(subsets).flat_map(|(field, policy)| settings_of(&field, policy)).collect()
}

fn settings_of<'a>(field: &str, policy: &'a TrafficPolicy) -> Vec<(String, &'a ClientTls)> {
    let own = policy.tls.iter().map(|tls| (format!("{field}.tls"), tls));
    let ports =
        policy.port_level_settings.iter().enumerate().filter_map(|(index, entry)| {
            Some((format!("{field}.portLevelSettings[{index}].tls"), entry.tls.as_ref()?))
        });
    own.chain(ports).collect()
}

/// Plain HTTP that a route leads to a TLS port without anybody opening TLS.
pub(super) fn plain_text(objects: &Objects, registry: &Registry<'_>, report: &mut Report) {
    for object in objects.virtual_services.iter().filter(|object| registry.gateways.is_in_force(object)) {
        let http = super::references::routes(&object.spec).filter(|(field, _)| field.starts_with("spec.http"));
        for (field, destination) in http.chain(super::references::mirrors(&object.spec)) {
            let Some(id) = destination.host.as_deref().and_then(|host| registry.services.named(host)) else { continue };
            let number = destination.port.as_ref().and_then(|port| u16::try_from(port.number?).ok());
            let service = registry.services.service(id);
            let Some(port) = number.and_then(|number| service.port(number)) else { continue };
            let policy = registry.policies.policy(
                &service.pattern,
                port.namespace(),
                port.number,
                destination.subset.as_deref(),
            );
            let opens_tls = policy.is_none_or(|policy| policy.tls.is_some_and(|source| originates(source.tls)));
            if port.protocol == Protocol::Tls && !opens_tls {
                let message = format!(
                    "plain HTTP would reach the TLS port {}:{}; a DestinationRule with tls.mode SIMPLE for it is missing",
                    service.host, port.number
                );
                Scope::new(&object.origin, report).warning(code::PLAIN_TEXT, field, message);
            }
        }
    }
}
