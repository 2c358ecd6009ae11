//! Sidecar: its outbound policy holds for the node, and what would narrow it to some workloads is refused.

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::sidecar::Sidecar;

pub(super) fn validate(sidecar: &Sidecar, scope: &mut Scope<'_>) {
    let mode = sidecar.outbound_traffic_policy.as_ref().and_then(|policy| policy.mode.as_deref());
    if sidecar.workload_selector.is_some() {
        if mode == Some("ALLOW_ANY") {
            let message = "ALLOW_ANY for some workloads would open the whole node, which cannot tell workloads apart";
            scope.refuse("spec.workloadSelector", message);
        } else {
            scope.info(code::UNSUPPORTED, "spec.workloadSelector", "every workload selector means this node");
        }
    }
    if mode.is_none() && sidecar.egress.is_empty() {
        scope.info(code::SKIPPED, "spec", "without outboundTrafficPolicy a Sidecar has no effect here");
    }
    for (index, listener) in sidecar.egress.iter().enumerate() {
        let field = format!("spec.egress[{index}]");
        let fields = [
            ("port", listener.port.is_some()),
            ("bind", listener.bind.is_some()),
            ("captureMode", listener.capture_mode.is_some()),
        ];
        scope.refuse_present(&field, fields);
        if listener.hosts.is_empty() {
            scope.error(format!("{field}.hosts"), "sidecar: egress listener must contain at least one host");
        }
        for (number, host) in listener.hosts.iter().enumerate() {
            egress_host(host, &format!("{field}.hosts[{number}]"), scope);
        }
    }
    for (field, present) in
        [("ingress", !sidecar.ingress.is_empty()), ("inboundConnectionPool", sidecar.inbound_connection_pool.is_some())]
    {
        if present {
            scope.info(code::UNSUPPORTED, format!("spec.{field}"), "nothing comes in here");
        }
    }
}

/// Namespaces are one here, as with `exportTo`; a host would narrow what may be reached.
fn egress_host(host: &str, field: &str, scope: &mut Scope<'_>) {
    match host.split_once('/') {
        None => scope.error(field, "host must be of form namespace/dnsName"),
        Some(("~", _)) => scope.refuse(field, "hiding every service is not supported; use no ServiceEntry"),
        Some(("*", "*")) => {}
        Some((_, "*")) => {
            let message = "every object is visible to this gateway, whatever namespaces a Sidecar imports";
            scope.info(code::UNSUPPORTED, field, message);
        }
        Some((_, name)) => {
            scope.refuse(field, format!("importing {name:?} only is not supported, and cannot be left out safely"));
        }
    }
}
