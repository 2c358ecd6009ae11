//! DestinationRule (pilot's ValidateDestinationRule and agent/validation.go for TLS).

use std::collections::HashSet;

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::destination_rule::{ClientTls, DestinationRule, TlsMode, TrafficPolicy};

use super::traffic_policy::{self, connection_pool, load_balancer, outlier_detection, retry_budget};
use super::{export_to, host, is_label, port};

pub(super) fn validate(rule: &DestinationRule, scope: &mut Scope<'_>) {
    match rule.host.as_deref() {
        None | Some("") => scope.error("spec.host", "destination rule must have a host"),
        Some(text) => drop(host::pattern(text, "spec.host", scope)),
    }
    if let Some(policy) = &rule.traffic_policy {
        whole_policy(policy, "spec.trafficPolicy", scope);
    }
    let mut names = HashSet::new();
    for (index, subset) in rule.subsets.iter().enumerate() {
        let field = format!("spec.subsets[{index}]");
        let name = subset.name.as_deref().unwrap_or_default();
        if !is_label(name) {
            scope.error(format!("{field}.name"), format!("subset name is invalid: {name:?}"));
        } else if !names.insert(name) {
            scope.error(format!("{field}.name"), format!("duplicate subset names: {name}"));
        }
        if let Some(policy) = &subset.traffic_policy {
            whole_policy(policy, &format!("{field}.trafficPolicy"), scope);
        }
    }
    if rule.workload_selector.is_some() {
        scope.info(code::UNSUPPORTED, "spec.workloadSelector", "every workload selector means this node");
    }
    export_to(&rule.export_to, scope);
}

fn whole_policy(policy: &TrafficPolicy, field: &str, scope: &mut Scope<'_>) {
    if !has_any(policy) && policy.port_level_settings.is_empty() {
        scope.error(field, "traffic policy must have at least one field");
    }
    if policy.port.is_some() {
        scope.error(format!("{field}.port"), "port belongs into portLevelSettings");
    }
    parts(policy, field, scope);
    let mut ports = HashSet::new();
    for (index, entry) in policy.port_level_settings.iter().enumerate() {
        let field = format!("{field}.portLevelSettings[{index}]");
        let number = entry.port.as_ref().and_then(|selector| selector.number);
        if number.is_none() {
            scope.error(format!("{field}.port"), "portTrafficPolicy must have valid port");
        } else if let Some(number) = port(number, &format!("{field}.port.number"), scope)
            && !ports.insert(number)
        {
            scope.warning(code::CONFLICT, format!("{field}.port.number"), "an earlier entry for this port holds");
        }
        if policy.tls.is_some() && entry.tls.is_none() {
            let message = "portLevelSettings replaces the policy: the tls of trafficPolicy does not apply to this port";
            scope.warning(code::PLAIN_TEXT, &*field, message);
        }
        replaced(policy, entry, &field, scope);
        if !has_any(entry) {
            scope.error(&*field, "port traffic policy must have at least one field");
        }
        let misplaced = [
            ("retryBudget", entry.retry_budget.is_some()),
            ("tunnel", entry.tunnel.is_some()),
            ("proxyProtocol", entry.proxy_protocol.is_some()),
        ];
        for (name, _) in misplaced.into_iter().filter(|(_, present)| *present) {
            scope.error(format!("{field}.{name}"), format!("{name} has no form at a port"));
        }
        if !entry.port_level_settings.is_empty() {
            scope.error(format!("{field}.portLevelSettings"), "portLevelSettings cannot be nested");
        }
        parts(entry, &field, scope);
    }
}

/// What an entry of `portLevelSettings` takes away from its port without putting anything in its place. That the choice of
/// an endpoint is the default's again is known from Istio's own examples, and restricts nothing.
fn replaced(policy: &TrafficPolicy, entry: &TrafficPolicy, field: &str, scope: &mut Scope<'_>) {
    let lost = [
        ("connectionPool", policy.connection_pool.is_some() && entry.connection_pool.is_none()),
        ("outlierDetection", policy.outlier_detection.is_some() && entry.outlier_detection.is_none()),
        ("tunnel", policy.tunnel.is_some()),
        ("proxyProtocol", policy.proxy_protocol.is_some()),
        ("retryBudget", policy.retry_budget.is_some()),
    ];
    for (name, _) in lost.into_iter().filter(|(_, is_lost)| *is_lost) {
        let message =
            format!("portLevelSettings replaces the policy: the {name} of trafficPolicy does not apply to this port");
        scope.warning(code::CONFLICT, field, message);
    }
}

fn has_any(policy: &TrafficPolicy) -> bool {
    policy.load_balancer.is_some()
        || policy.connection_pool.is_some()
        || policy.outlier_detection.is_some()
        || policy.tls.is_some()
        || policy.tunnel.is_some()
        || policy.proxy_protocol.is_some()
        || policy.retry_budget.is_some()
}

fn parts(policy: &TrafficPolicy, field: &str, scope: &mut Scope<'_>) {
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        scope.error(field, "tunnel and proxyProtocol must not be set together");
    }
    if let Some(tunnel) = &policy.tunnel {
        traffic_policy::tunnel(tunnel, &format!("{field}.tunnel"), scope);
    }
    if let Some(outliers) = &policy.outlier_detection {
        outlier_detection(outliers, &format!("{field}.outlierDetection"), scope);
    }
    if let Some(budget) = &policy.retry_budget {
        retry_budget(budget, &format!("{field}.retryBudget"), scope);
    }
    if let Some(balancer) = &policy.load_balancer {
        load_balancer(balancer, &format!("{field}.loadBalancer"), scope);
    }
    if let Some(pool) = &policy.connection_pool {
        connection_pool(pool, &format!("{field}.connectionPool"), scope);
    }
    if let Some(tls) = &policy.tls {
        self::tls(tls, &format!("{field}.tls"), scope);
    }
}

fn tls(tls: &ClientTls, field: &str, scope: &mut Scope<'_>) {
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let by_name = filled(&tls.credential_name);
    let files = [&tls.client_certificate, &tls.private_key, &tls.ca_certificates, &tls.ca_crl];
    if by_name && files.into_iter().any(filled) {
        let message = "cannot specify client certificates or CA certificate or CA CRL If credentialName is set";
        scope.error(field, message);
    }
    let mode = tls.mode.unwrap_or(TlsMode::Disable);
    match mode {
        TlsMode::Mutual if !by_name => {
            if !filled(&tls.client_certificate) {
                scope.error(format!("{field}.clientCertificate"), "client certificate required for mutual tls");
            }
            if !filled(&tls.private_key) {
                scope.error(format!("{field}.privateKey"), "private key required for mutual tls");
            }
        }
        TlsMode::Simple if filled(&tls.client_certificate) || filled(&tls.private_key) => {
            let message = "mode SIMPLE presents no client certificate; use MUTUAL";
            scope.warning(code::VERIFICATION, format!("{field}.mode"), message);
        }
        TlsMode::Mutual | TlsMode::Simple | TlsMode::Disable | TlsMode::IstioMutual => {}
    }
    if tls.insecure_skip_verify == Some(true) {
        let named = filled(&tls.ca_certificates) || by_name || !tls.subject_alt_names.is_empty();
        if named {
            let message = "cannot specify CaCertificates or CredentialName or SubjectAltNames when InsecureSkipVerify \
                           is set true";
            scope.error(field, message);
        }
        let message = "the upstream is not verified at all: whoever answers is trusted";
        scope.warning(code::VERIFICATION, format!("{field}.insecureSkipVerify"), message);
    }
    if let Some(sni) = tls.sni.as_deref().filter(|sni| !sni.is_empty()) {
        host::name(sni, &format!("{field}.sni"), scope);
    }
}
