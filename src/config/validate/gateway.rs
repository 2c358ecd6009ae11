//! Gateway (pilot's ValidateGateway).

use std::collections::HashSet;

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::gateway::{Gateway, Server, ServerPort, ServerTls, ServerTlsMode, TlsVersion};
use crate::config::istio::service_entry::Protocol;

use super::{host, is_label, port};

pub(super) fn validate(gateway: &Gateway, scope: &mut Scope<'_>) {
    let name = scope.origin.object.name();
    if !is_label(name) {
        scope.error("metadata.name", format!("invalid gateway name: {name:?}"));
    }
    if gateway.servers.is_empty() {
        scope.error("spec.servers", "gateway must have at least one server");
    }
    if !gateway.selector.is_empty() {
        scope.info(code::UNSUPPORTED, "spec.selector", "every selector means this node");
    }
    let mut names = HashSet::new();
    for (index, server) in gateway.servers.iter().enumerate() {
        let field = format!("spec.servers[{index}]");
        self::server(server, &field, scope);
        let name = server.port.as_ref().and_then(|port| port.name.as_deref()).unwrap_or_default();
        if !name.is_empty() && !names.insert(name) {
            let message = format!("port names in servers must be unique: duplicate name {name}");
            scope.error(format!("{field}.port.name"), message);
        }
    }
}

fn server(server: &Server, field: &str, scope: &mut Scope<'_>) {
    if server.hosts.is_empty() {
        scope.error(format!("{field}.hosts"), "server config must contain at least one host");
    }
    for (index, text) in server.hosts.iter().enumerate() {
        self::host(text, &format!("{field}.hosts[{index}]"), scope);
    }
    if server.bind.as_ref().is_some_and(|bind| !bind.is_empty()) {
        let message = "bind has no effect here: the listeners of the bootstrap file say where to listen";
        scope.warning(code::UNSUPPORTED, format!("{field}.bind"), message);
    }
    if server.default_endpoint.is_some() {
        scope.warning(code::UNSUPPORTED, format!("{field}.defaultEndpoint"), "defaultEndpoint has no effect");
    }
    if server.name.is_some() {
        scope.info(code::UNSUPPORTED, format!("{field}.name"), "name, a prefix of metrics, has no effect here");
    }
    let protocol = server_port(server.port.as_ref(), &format!("{field}.port"), scope);
    let tls_field = format!("{field}.tls");
    if let Some(tls) = &server.tls {
        self::tls(tls, &tls_field, scope);
        let is_plain = matches!(protocol, Some(Protocol::Http | Protocol::Http2) | None);
        if tls.https_redirect == Some(true) && !is_plain {
            let message = "tls.httpsRedirect should only be used with http servers: it has no effect here";
            scope.warning(code::VERIFICATION, format!("{tls_field}.httpsRedirect"), message);
        }
    }
    match (protocol, &server.tls) {
        (Some(Protocol::Tls), None) => {
            scope.error(field, "server must have TLS settings for HTTPS/TLS protocols");
        }
        (Some(Protocol::Http | Protocol::Http2), Some(tls)) if !is_redirect_alone(tls) => {
            scope.error(tls_field, "server cannot have TLS settings for plain text HTTP ports");
        }
        (Some(Protocol::Tcp), Some(_)) => {
            scope.error(tls_field, "server cannot have TLS settings for non HTTPS/TLS ports");
        }
        (Some(_) | None, _) => {}
    }
}

/// `namespace/host`: the namespace is a name, `.` or `*`.
fn host(text: &str, field: &str, scope: &mut Scope<'_>) {
    let host = match text.split_once('/') {
        Some((namespace, host)) => {
            if !matches!(namespace, "." | "*") && !is_label(namespace) {
                scope.error(field, format!("invalid namespace value {namespace:?} in gateway"));
            }
            host
        }
        None => text,
    };
    if host == "*" {
        return;
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        scope.warning(code::UNREACHABLE, field, "no request names an address as its host: this one never matches");
    } else if host::pattern(host, field, scope).is_some() && !host.contains('.') {
        scope.error(field, format!("short names (non FQDN) are not allowed: {host:?}"));
    }
}

/// The protocol, if it is one.
fn server_port(server_port: Option<&ServerPort>, field: &str, scope: &mut Scope<'_>) -> Option<Protocol> {
    let Some(server_port) = server_port else {
        scope.error(field, "port is required");
        return None;
    };
    port(server_port.number, &format!("{field}.number"), scope);
    if server_port.name.as_deref().unwrap_or_default().is_empty() {
        scope.error(format!("{field}.name"), "port name must be set");
    }
    if server_port.target_port.is_some() {
        scope.warning(code::UNSUPPORTED, format!("{field}.targetPort"), "targetPort has no impact on Gateways");
    }
    let word = server_port.protocol.as_deref().unwrap_or_default();
    let protocol = Protocol::parse(Some(word)).filter(|protocol| !matches!(protocol, Protocol::Any | Protocol::Udp));
    if protocol.is_none() {
        let message = format!(
            "invalid protocol {word:?}, supported protocols are HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, MONGO, REDIS, MYSQL, TCP"
        );
        scope.error(format!("{field}.protocol"), message);
    }
    protocol
}

/// A plain port may say no more about TLS than that clients should use it.
fn is_redirect_alone(tls: &ServerTls) -> bool {
    let files = [&tls.server_certificate, &tls.private_key, &tls.ca_certificates];
    tls.mode.unwrap_or_default() == ServerTlsMode::Passthrough && !files.into_iter().any(filled)
}

fn filled(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn tls(tls: &ServerTls, field: &str, scope: &mut Scope<'_>) {
    let mode = tls.mode.unwrap_or_default();
    let by_name = filled(&tls.credential_name) || !tls.credential_names.is_empty();
    let files = [&tls.server_certificate, &tls.private_key, &tls.ca_certificates, &tls.ca_crl];
    let has_any = by_name || files.into_iter().any(filled) || !tls.tls_certificates.is_empty();
    match mode {
        ServerTlsMode::Passthrough if has_any => {
            scope.warning(
                code::VERIFICATION,
                field,
                "PASSTHROUGH mode does not use certificates, they will be ignored",
            );
        }
        ServerTlsMode::IstioMutual if has_any => {
            let message = "ISTIO_MUTUAL TLS cannot have associated certificates, keys or credentialName";
            scope.error(field, message);
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual if !by_name && tls.tls_certificates.is_empty() => {
            required(tls, mode, field, scope);
        }
        ServerTlsMode::AutoPassthrough => {
            let message = "AUTO_PASSTHROUGH routes by the names of a mesh's clusters, and there is no mesh here: nobody \
                           can reach this server";
            scope.warning(code::UNSUPPORTED, format!("{field}.mode"), message);
        }
        ServerTlsMode::OptionalMutual => {
            let message = "OPTIONAL_MUTUAL is not supported yet: nobody can reach this server";
            scope.warning(code::UNSUPPORTED, format!("{field}.mode"), message);
        }
        ServerTlsMode::Passthrough | ServerTlsMode::IstioMutual | ServerTlsMode::Simple | ServerTlsMode::Mutual => {}
    }
    if matches!(mode, ServerTlsMode::Simple | ServerTlsMode::Mutual) {
        certificates(tls, field, scope);
    }
    if mode != ServerTlsMode::Mutual {
        clients(tls, field, scope);
    }
    versions(tls, field, scope);
}

fn required(tls: &ServerTls, mode: ServerTlsMode, field: &str, scope: &mut Scope<'_>) {
    let word = if mode == ServerTlsMode::Mutual { "MUTUAL" } else { "SIMPLE" };
    if !filled(&tls.server_certificate) {
        scope.error(format!("{field}.serverCertificate"), format!("{word} TLS requires a server certificate"));
    }
    if !filled(&tls.private_key) {
        scope.error(format!("{field}.privateKey"), format!("{word} TLS requires a private key"));
    }
    if mode == ServerTlsMode::Mutual && !filled(&tls.ca_certificates) {
        scope.error(format!("{field}.caCertificates"), "MUTUAL TLS requires a client CA bundle");
    }
}

/// Certificates have one source: of two, the operator may have meant either.
fn certificates(tls: &ServerTls, field: &str, scope: &mut Scope<'_>) {
    let sources = [
        ("serverCertificate", filled(&tls.server_certificate) || filled(&tls.private_key)),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", filled(&tls.credential_name)),
        ("credentialNames", !tls.credential_names.is_empty()),
    ];
    let mut present = sources.into_iter().filter(|(_, present)| *present).map(|(name, _)| name);
    if let (Some(first), Some(second)) = (present.next(), present.next()) {
        scope.error(format!("{field}.{second}"), format!("{second} cannot be set together with {first}"));
    }
    for (index, own) in tls.tls_certificates.iter().enumerate() {
        let field = format!("{field}.tlsCertificates[{index}]");
        for (name, is_there) in
            [("serverCertificate", filled(&own.server_certificate)), ("privateKey", filled(&own.private_key))]
        {
            if !is_there {
                scope.error(format!("{field}.{name}"), format!("tlsCertificates requires {name}"));
            }
        }
    }
    for (index, name) in tls.credential_names.iter().enumerate() {
        if name.is_empty() {
            scope.error(format!("{field}.credentialNames[{index}]"), "credentialNames must name credentials");
        }
    }
}

/// What restricts clients by their certificates restricts nobody where they are not asked for one.
fn clients(tls: &ServerTls, field: &str, scope: &mut Scope<'_>) {
    let parts = [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ("verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
        ("caCrl", filled(&tls.ca_crl)),
    ];
    for (part, _) in parts.into_iter().filter(|(_, present)| *present) {
        let message = format!("{part} is for mode MUTUAL: in any other mode clients show no certificate");
        scope.error(format!("{field}.{part}"), message);
    }
    if tls.mode == Some(ServerTlsMode::Simple) && filled(&tls.ca_certificates) {
        let message = "caCertificates has no effect in mode SIMPLE: clients show no certificate";
        scope.warning(code::VERIFICATION, format!("{field}.caCertificates"), message);
    }
}

fn versions(tls: &ServerTls, field: &str, scope: &mut Scope<'_>) {
    let (least, most) = (tls.min_protocol_version, tls.max_protocol_version);
    for (name, version) in [("minProtocolVersion", least), ("maxProtocolVersion", most)] {
        if matches!(version, Some(TlsVersion::V1_0 | TlsVersion::V1_1)) {
            let message = "TLS before 1.2 is not spoken here";
            if name == "maxProtocolVersion" {
                scope.error_with(code::UNSUPPORTED, format!("{field}.{name}"), message);
            } else {
                scope.warning(code::UNSUPPORTED, format!("{field}.{name}"), message);
            }
        }
    }
    if (least, most) == (Some(TlsVersion::V1_3), Some(TlsVersion::V1_2)) {
        scope.error(format!("{field}.maxProtocolVersion"), "maxProtocolVersion is older than minProtocolVersion");
    }
    for (index, suite) in tls.cipher_suites.iter().enumerate() {
        let field = format!("{field}.cipherSuites[{index}]");
        if tls.cipher_suites[..index].contains(suite) {
            scope.warning(code::VERIFICATION, field, format!("ignoring duplicate cipher suite: {suite:?}"));
        } else if crate::config::mesh::suite(suite).is_none() {
            let message = format!("cipher suite {suite:?} is not spoken here: leave it out");
            scope.error_with(code::UNSUPPORTED, field, message);
        }
    }
}
