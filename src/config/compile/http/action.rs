//! What a rule does besides choosing a destination.

use crate::config::istio::http_action::{DerivePort, HeaderOperations, Headers, HttpFault, HttpRedirect, Percent};
use crate::config::istio::secret::decode_base64;
use crate::config::istio::virtual_service::{HttpBody, HttpDirectResponse, HttpRewrite, HttpRule};
use crate::route::http::{DirectResponse, Edits, Fault, PathRewrite, Redirect, Share};
use crate::wire::http1::FieldEdits;

/// Whether a name in `headers` means the Host.
pub(in crate::config) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

pub(super) fn direct_response(response: &HttpDirectResponse, headers: Option<&Headers>) -> Option<DirectResponse> {
    Some(DirectResponse {
        status: response.status.and_then(|status| u16::try_from(status).ok())?,
        body: response.body.as_ref().map(body).unwrap_or_default(),
        fields: answer_fields(headers),
    })
}

fn body(body: &HttpBody) -> Box<[u8]> {
    match &body.bytes {
        Some(text) => decode_base64(text).unwrap_or_default().into(),
        None => body.string.as_deref().unwrap_or_default().as_bytes().into(),
    }
}

pub(super) fn redirect(redirect: &HttpRedirect, headers: Option<&Headers>, port: u16) -> Option<Redirect> {
    let text = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Into::into);
    let status = match redirect.redirect_code {
        None | Some(0) => 301,
        Some(code) => u16::try_from(code).ok()?,
    };
    Some(Redirect {
        status,
        scheme: text(&redirect.scheme),
        authority: text(&redirect.authority),
        port: match (redirect.port, redirect.derive_port) {
            (Some(number), _) => Some(u16::try_from(number).ok()?),
            (None, Some(DerivePort::RequestPort)) => Some(port),
            (None, Some(DerivePort::ProtocolDefault) | None) => None,
        },
        path: text(&redirect.uri),
        fields: answer_fields(headers),
    })
}

/// `None`: it does nothing.
pub(super) fn fault(fault: &HttpFault) -> Option<Fault> {
    let delay = fault.delay.as_ref().and_then(|delay| {
        let share = share(delay.percentage, delay.percent)?;
        Some((share, delay.fixed_delay?.0))
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let share = share(abort.percentage, abort.percent)?;
        Some((share, u16::try_from(abort.http_status?).ok()?))
    });
    (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
}

fn share(percentage: Option<Percent>, percent: Option<i64>) -> Option<Share> {
    let percent = percentage.map(|percentage| percentage.value).or(percent.map(|percent| percent as f64))?;
    (percent > 0.0).then(|| Share::percent(percent))
}

pub(super) fn path_rewrite(rewrite: &HttpRewrite) -> Option<PathRewrite> {
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        // An expression that does not compile has been refused by validation.
        let found = regex::Regex::new(regex.found.as_deref()?).ok()?;
        return Some(PathRewrite::Found(found, expansion(regex.rewrite.as_deref()?).into()));
    }
    rewrite.uri.as_deref().map(|replacement| PathRewrite::Matched(replacement.into()))
}

/// RE2's way to name groups, `\1`, as this library's, `${1}`.
fn expansion(rewrite: &str) -> String {
    let mut expansion = String::with_capacity(rewrite.len());
    let mut characters = rewrite.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => expansion.push_str("$$"),
            '\\' => match characters.next() {
                Some(digit) if digit.is_ascii_digit() => expansion.extend(['$', '{', digit, '}']),
                Some(other) => expansion.push(other),
                None => {}
            },
            other => expansion.push(other),
        }
    }
    expansion
}

/// What each destination of a rule edits, in the order of its destinations: a single entry if they do not differ, none
/// if nothing is edited.
///
/// What the route says comes first, and a destination has the last word; but for the Host, where a route outdoes its
/// only destination (pilot does the same).
pub(super) fn edits(rule: &HttpRule) -> Vec<Edits> {
    let of_route = route_edits(rule);
    let single = rule.route.len() == 1;
    if rule.route.iter().all(|route| route.headers.is_none()) {
        return if of_route.is_empty() { Vec::new() } else { vec![of_route] };
    }
    // As in Weighted::new: a destination without a share is none.
    let chosen = rule.route.iter().filter(|route| single || route.weight.unwrap_or(0) > 0);
    let edits = chosen.map(|route| {
        let edits = with_headers(&of_route, route.headers.as_ref());
        let authority = if single { of_route.authority.clone().or(edits.authority) } else { edits.authority };
        Edits { authority, ..edits }
    });
    edits.collect()
}

/// What a route says for all of its destinations.
pub(super) fn route_edits(rule: &HttpRule) -> Edits {
    let rewritten = rule.rewrite.as_ref().and_then(|rewrite| rewrite.authority.as_deref());
    let edits = with_headers(&Edits::default(), rule.headers.as_ref());
    Edits { authority: rewritten.map(Into::into).or(edits.authority), ..edits }
}

fn with_headers(edits: &Edits, headers: Option<&Headers>) -> Edits {
    let mut edits = edits.clone();
    if let Some(request) = headers.and_then(|headers| headers.request.as_ref()) {
        let mut named = request.set.iter().chain(&request.add).filter(|(name, _)| is_authority(name));
        edits.authority = named.next_back().map(|(_, value)| value.as_str().into()).or(edits.authority);
        apply(request, &mut edits.request);
    }
    if let Some(response) = headers.and_then(|headers| headers.response.as_ref()) {
        apply(response, &mut edits.response);
    }
    edits
}

fn answer_fields(headers: Option<&Headers>) -> FieldEdits {
    with_headers(&Edits::default(), headers).response
}

/// Removes, then sets, then adds, as Envoy does. Names that cannot be edited have been refused, or warned about.
fn apply(operations: &HeaderOperations, edits: &mut FieldEdits) {
    let editable = |name: &str| FieldEdits::is_editable(name);
    operations.remove.iter().filter(|name| editable(name)).for_each(|name| edits.remove(name));
    for (name, value) in operations.set.iter().filter(|(name, _)| editable(name)) {
        edits.set(name, &value.replace("%%", "%"));
    }
    for (name, value) in operations.add.iter().filter(|(name, _)| editable(name)) {
        edits.add(name, &value.replace("%%", "%"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> HttpRule {
        serde_yaml::from_str(yaml).expect("a rule")
    }

    fn added(edits: &FieldEdits) -> Vec<(String, String)> {
        edits.changes().1.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_destination_edits_after_its_route() {
        let rule = rule(
            "headers: {request: {set: {x-a: route}, add: {x-b: '100%%'}}}\nroute:\n- {weight: 0}\n\
             - {weight: 1, headers: {request: {set: {x-a: first}}}}\n- {weight: 1, headers: {request: {remove: [x-b]}}}\n",
        );
        let edits = edits(&rule);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(edits.len(), 2, "as many as destinations with a share");
        assert_eq!(added(&edits[0].request), [pair("x-b", "100%"), pair("x-a", "first")]);
        assert_eq!(added(&edits[1].request), [pair("x-a", "route")]);
    }

    #[test]
    fn a_host_of_the_route_outdoes_a_single_destination_and_none_of_several() {
        let header = "headers: {request: {set: {host: d.example}}}";
        let single = rule(&format!("rewrite: {{authority: r.example}}\nroute: [{{{header}}}]"));
        assert_eq!(edits(&single)[0].authority.as_deref(), Some("r.example"));
        let several =
            rule(&format!("rewrite: {{authority: r.example}}\nroute: [{{weight: 1, {header}}}, {{weight: 1}}]"));
        let hosts: Vec<_> = edits(&several).into_iter().map(|edits| edits.authority).collect();
        assert_eq!(hosts, [Some("d.example".into()), Some("r.example".into())]);
    }

    #[test]
    fn groups_are_named_as_re2_names_them() {
        assert_eq!(expansion(r"/\2/a$b\\/\0"), r"/${2}/a$$b\/${0}");
    }

    #[test]
    fn rules_without_edits_cost_nothing() {
        assert!(edits(&rule("route: [{weight: 1}]")).is_empty());
        assert_eq!(edits(&rule("headers: {request: {set: {x-a: b}}}\nroute: [{}, {}]")).len(), 1);
    }
}
