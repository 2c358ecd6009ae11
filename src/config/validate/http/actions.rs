//! `redirect:`, `fault:` and `directResponse:`.

use crate::config::finding::code;
use crate::config::istio::Scope;
use crate::config::istio::http_action::{HttpFault, HttpRedirect, Percent};
use crate::config::istio::secret::decode_base64;
use crate::config::istio::virtual_service::HttpDirectResponse;
use crate::config::validate::{duration_fault, port};
use crate::limits::TIMEOUT_MAX;
use crate::route::host::Authority;

/// Largest body of a direct response, as Istio's.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Redirects that Envoy makes.
const REDIRECT_CODES: [i64; 5] = [301, 302, 303, 307, 308];

pub(super) fn redirect(redirect: &HttpRedirect, field: &str, scope: &mut Scope<'_>) {
    let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let has_port = redirect.port.is_some() || redirect.derive_port.is_some();
    if !is_set(&redirect.uri) && !is_set(&redirect.authority) && !is_set(&redirect.scheme) && !has_port {
        scope.error(field, "redirect must specify URI, authority, scheme, or port");
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        scope.error(field, "only one of port and derivePort may be set (oneof already set)");
    }
    if redirect.port.is_some() {
        port(redirect.port, &format!("{field}.port"), scope);
    }
    if let Some(code) = redirect.redirect_code.filter(|code| *code != 0 && !REDIRECT_CODES.contains(code)) {
        let message = match code {
            300..=399 => format!("{code} is not supported as a redirect code, must be 301, 302, 303, 307 or 308"),
            _ => format!("{code} is not a valid redirect code, must be 3xx"),
        };
        scope.error(format!("{field}.redirectCode"), message);
    }
    if redirect.scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "" | "http" | "https")) {
        scope.error(format!("{field}.scheme"), "invalid redirect scheme, must be \"http\" or \"https\"");
    }
    if let Some(uri) = redirect.uri.as_deref().filter(|uri| !uri.is_empty()) {
        redirect_uri(uri, &format!("{field}.uri"), scope);
    }
    let authority = redirect.authority.as_deref().filter(|authority| !authority.is_empty());
    match authority.map(|authority| Authority::parse(authority.as_bytes())) {
        Some(Err(error)) => scope.error(format!("{field}.authority"), format!("not a valid authority: {error}")),
        Some(Ok(parsed)) if parsed.port.is_some() && redirect.port.is_some() => {
            scope.error(format!("{field}.authority"), "the authority has a port already");
        }
        Some(Ok(_)) | None => {}
    }
}

/// Whatever does not begin with a slash would become part of the host in the client's eyes.
fn redirect_uri(uri: &str, field: &str, scope: &mut Scope<'_>) {
    if !uri.starts_with('/') {
        scope.error(field, "the URI of a redirect must begin with /; name another host in authority");
    } else if !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        scope.error(field, "the URI has a character that must be escaped");
    }
}

pub(super) fn fault(fault: &HttpFault, field: &str, scope: &mut Scope<'_>) {
    if fault.abort.is_none() && fault.delay.is_none() {
        scope.error(field, "HTTP fault injection must have an abort and/or a delay");
    }
    if let Some(abort) = &fault.abort {
        let field = format!("{field}.abort");
        percentage(abort.percentage, abort.percent, &field, "aborted", scope);
        scope.refuse_present(
            &field,
            [("grpcStatus", abort.grpc_status.is_some()), ("http2Error", abort.http2_error.is_some())],
        );
        match abort.http_status {
            Some(status) if !(200..=599).contains(&status) => {
                scope.error(format!("{field}.httpStatus"), format!("HTTP status {status} is not in range 200-599"));
            }
            None if abort.grpc_status.is_none() && abort.http2_error.is_none() => {
                scope.warning(code::UNREACHABLE, &*field, "abort configured, but error type not set");
            }
            Some(_) | None => {}
        }
    }
    if let Some(delay) = &fault.delay {
        let field = format!("{field}.delay");
        percentage(delay.percentage, delay.percent, &field, "delayed", scope);
        scope.refuse_present(&field, [("exponentialDelay", delay.exponential_delay.is_some())]);
        match delay.fixed_delay {
            None if delay.exponential_delay.is_none() => scope.error(&*field, "fixedDelay is required"),
            None => {}
            Some(duration) => {
                if let Some(message) = duration_fault(duration.0, TIMEOUT_MAX) {
                    scope.error(format!("{field}.fixedDelay"), message);
                }
            }
        }
    }
}

fn percentage(percentage: Option<Percent>, percent: Option<i64>, field: &str, what: &str, scope: &mut Scope<'_>) {
    match (percentage, percent) {
        (Some(Percent { value }), _) if !(0.0..=100.0).contains(&value) || (value > 0.0 && value < 0.0001) => {
            let message = format!("percentage {value} is neither 0.0, nor in range [0.0001, 100.0]");
            scope.error(format!("{field}.percentage"), message);
        }
        (None, Some(percent)) if !(0..=100).contains(&percent) => {
            scope.error(format!("{field}.percent"), format!("percentage {percent} is not in range 0..100"));
        }
        (None, None) => {
            let message = format!("no percentage: no request is {what}");
            scope.warning(code::UNREACHABLE, format!("{field}.percentage"), message);
        }
        (Some(_), _) | (None, Some(_)) => {}
    }
}

pub(super) fn direct_response(response: &HttpDirectResponse, field: &str, scope: &mut Scope<'_>) {
    if !response.status.is_some_and(|status| (200..=599).contains(&status)) {
        let status = response.status.unwrap_or(0);
        scope.error(format!("{field}.status"), format!("status {status} is not in the range 200..599"));
    }
    let Some(body) = &response.body else { return };
    if body.string.is_some() && body.bytes.is_some() {
        scope.error(format!("{field}.body"), "only one of string and bytes may be set (oneof already set)");
    }
    let bytes = match &body.bytes {
        None => 0,
        Some(text) => match decode_base64(text) {
            Some(bytes) => bytes.len(),
            None => {
                scope.error(format!("{field}.body.bytes"), "not in base64");
                0
            }
        },
    };
    let string = body.string.as_ref().map_or(0, String::len);
    for (part, length) in [("string", string), ("bytes", bytes)] {
        if length > BODY_BYTES_MAX {
            scope.error(format!("{field}.body.{part}"), "direct response body is larger than 1MB");
        }
    }
}
