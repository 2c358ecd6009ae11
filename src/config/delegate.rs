//! `delegate:` of VirtualServices: a rule of a root takes the place of the rules of another object, one without hosts,
//! under its own conditions.
//!
//! Objects are judged as they are written, and put together here before they are compiled, so that findings name fields
//! that exist. What a rule of a delegate does not say is said by the rule of the root (pilot's mergeHTTPRoute).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::route::table::ObjectRef;

use super::finding::{Report, code};
use super::istio::scalar::List;
use super::istio::virtual_service::{HttpMatchRequest, HttpRule, StringMatch, VirtualService};
use super::istio::{Object, Objects, Origin, Scope};

/// A delegate: its rules, and where they stand.
type Delegate = (List<HttpRule>, Arc<ObjectRef>);

/// Namespace and name.
type Identity = (Box<str>, Box<str>);

/// Whether there is anything to put together, or to miss.
pub(super) fn is_used(objects: &Objects) -> bool {
    objects.virtual_services.iter().any(|object| object.spec.hosts.is_empty() || has_delegate(&object.spec))
}

fn has_delegate(service: &VirtualService) -> bool {
    service.http.iter().any(|rule| rule.delegate.is_some())
}

/// Puts the rules of delegates where roots name them. A rule whose delegate does not exist leads nowhere: 503 `NC`.
pub(super) fn expand(objects: &mut Objects, report: &mut Report) {
    let hostless = objects.virtual_services.iter().filter(|object| object.spec.hosts.is_empty());
    let identity = |origin: &Origin| -> Identity { (origin.object.namespace().into(), origin.object.name().into()) };
    let delegates: HashMap<Identity, Delegate> = hostless
        .map(|object| (identity(&object.origin), (object.spec.http.clone(), Arc::clone(&object.origin.object))))
        .collect();
    let mut used = HashSet::new();
    for object in objects.virtual_services.iter_mut().filter(|object| has_delegate(&object.spec)) {
        expand_object(object, &delegates, &mut used, report);
    }
    for object in objects.virtual_services.iter().filter(|object| object.spec.hosts.is_empty()) {
        if !used.contains(&identity(&object.origin)) {
            let message = "no virtual service with hosts delegates to this one, so it has no effect";
            Scope::new(&object.origin, report).warning(code::UNREACHABLE, "spec.hosts", message);
        }
    }
}

fn expand_object(
    object: &mut Object<VirtualService>,
    delegates: &HashMap<Identity, Delegate>,
    used: &mut HashSet<Identity>,
    report: &mut Report,
) {
    let scope = &mut Scope::new(&object.origin, report);
    let mut rules = Vec::new();
    for (index, root) in object.spec.http.iter().enumerate() {
        let Some(reference) = &root.delegate else {
            rules.push(root.clone());
            continue;
        };
        let field = format!("spec.http[{index}].delegate");
        let namespace = reference.namespace.as_deref().filter(|name| !name.is_empty());
        let namespace = namespace.unwrap_or(object.origin.object.namespace());
        let name: Identity = (namespace.into(), reference.name.as_deref().unwrap_or_default().into());
        let Some((delegated, origin)) = delegates.get(&name) else {
            let message = format!("delegate virtual service {}/{} not found; its requests get 503 NC", name.0, name.1);
            scope.warning(code::NOT_FOUND, field, message);
            rules.push(HttpRule { delegate: None, ..root.clone() });
            continue;
        };
        for (number, rule) in delegated.iter().enumerate() {
            match merge(root, rule) {
                Ok(merged) => rules.push(merged),
                Err(Conflict::Exclusive) => {
                    let message = format!(
                        "its conditions and those of rule #{number} of {}/{} exclude each other; that rule is not used",
                        name.0, name.1
                    );
                    scope.warning(code::DEAD_RULE, &*field, message);
                }
                Err(Conflict::Inexpressible) => {
                    let message = format!(
                        "its conditions and those of rule #{number} of {}/{} cannot be put together: an expression and \
                         another condition on one text, two exclusions of one field, or ignoreUriCase in one of them",
                        name.0, name.1
                    );
                    scope.refuse(&*field, message);
                }
            }
        }
        object.spec.delegates.push(Arc::clone(origin));
        used.insert(name);
    }
    if rules.is_empty() {
        // Without a rule the object would leave its hosts to the default route, which takes every request.
        rules.extend(object.spec.http.first().map(|root| HttpRule { delegate: None, ..root.clone() }));
    }
    object.spec.http = rules.into();
}

/// Why two matches make none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conflict {
    /// No request can meet both.
    Exclusive,
    /// Some may, and one match cannot say so.
    Inexpressible,
}

fn merge(root: &HttpRule, rule: &HttpRule) -> Result<HttpRule, Conflict> {
    Ok(HttpRule {
        name: joined(root.name.as_deref(), rule.name.as_deref()),
        matches: conjunction(&root.matches, &rule.matches)?.into(),
        delegate: None,
        redirect: rule.redirect.clone().or(root.redirect.clone()),
        direct_response: rule.direct_response.clone().or(root.direct_response.clone()),
        rewrite: rule.rewrite.clone().or(root.rewrite.clone()),
        timeout: rule.timeout.or(root.timeout),
        retries: rule.retries.clone().or(root.retries.clone()),
        fault: rule.fault.clone().or(root.fault.clone()),
        cors_policy: rule.cors_policy.clone().or(root.cors_policy.clone()),
        headers: rule.headers.clone().or(root.headers.clone()),
        mirror: rule.mirror.clone().or(root.mirror.clone()),
        mirrors: if rule.mirrors.is_empty() { root.mirrors.clone() } else { rule.mirrors.clone() },
        mirror_percent: rule.mirror_percent.or(root.mirror_percent),
        mirror_percentage: rule.mirror_percentage.or(root.mirror_percentage),
        ..rule.clone()
    })
}

fn joined(root: Option<&str>, rule: Option<&str>) -> Option<String> {
    let names: Vec<&str> = [root, rule].into_iter().flatten().filter(|name| !name.is_empty()).collect();
    (!names.is_empty()).then(|| names.join("-"))
}

/// Every match of the one with every match of the other.
fn conjunction(root: &[HttpMatchRequest], rule: &[HttpMatchRequest]) -> Result<Vec<HttpMatchRequest>, Conflict> {
    match (root, rule) {
        ([], matches) | (matches, []) => Ok(matches.to_vec()),
        (root, rule) => {
            let mut matches = Vec::new();
            for (outer, inner) in root.iter().flat_map(|outer| rule.iter().map(move |inner| (outer, inner))) {
                match both(outer, inner) {
                    Ok(pair) => matches.push(pair),
                    Err(Conflict::Exclusive) => {}
                    Err(Conflict::Inexpressible) => return Err(Conflict::Inexpressible),
                }
            }
            if matches.is_empty() { Err(Conflict::Exclusive) } else { Ok(matches) }
        }
    }
}

fn both(outer: &HttpMatchRequest, inner: &HttpMatchRequest) -> Result<HttpMatchRequest, Conflict> {
    let port = match (outer.port, inner.port) {
        (Some(outer), Some(inner)) if outer != inner => return Err(Conflict::Exclusive),
        (outer, inner) => inner.or(outer),
    };
    if !outer.gateways.is_empty() && !inner.gateways.is_empty() && *outer.gateways != *inner.gateways {
        return Err(Conflict::Inexpressible);
    }
    let folds = |block: &HttpMatchRequest| block.ignore_uri_case == Some(true);
    if outer.uri.is_some() && inner.uri.is_some() && (folds(outer) || folds(inner)) {
        return Err(Conflict::Inexpressible);
    }
    Ok(HttpMatchRequest {
        name: joined(outer.name.as_deref(), inner.name.as_deref()),
        uri: text(outer.uri.as_ref(), inner.uri.as_ref())?,
        ignore_uri_case: if inner.uri.is_some() { inner.ignore_uri_case } else { outer.ignore_uri_case },
        scheme: text(outer.scheme.as_ref(), inner.scheme.as_ref())?,
        method: text(outer.method.as_ref(), inner.method.as_ref())?,
        authority: text(outer.authority.as_ref(), inner.authority.as_ref())?,
        headers: texts(&outer.headers, &inner.headers)?,
        without_headers: exclusions(&outer.without_headers, &inner.without_headers)?,
        query_params: texts(&outer.query_params, &inner.query_params)?,
        port,
        gateways: if outer.gateways.is_empty() { inner.gateways.clone() } else { outer.gateways.clone() },
        ..inner.clone()
    })
}

type Conditions = BTreeMap<String, StringMatch>;

fn texts(outer: &Conditions, inner: &Conditions) -> Result<Conditions, Conflict> {
    let mut all = inner.clone();
    for (name, condition) in outer {
        if let Some(condition) = text(Some(condition), inner.get(name))? {
            all.insert(name.clone(), condition);
        }
    }
    Ok(all)
}

/// None of them may hold.
fn exclusions(outer: &Conditions, inner: &Conditions) -> Result<Conditions, Conflict> {
    let differs = |(name, condition): (&String, &StringMatch)| {
        inner.get(name).is_some_and(|other| !covers(condition, other) || !covers(other, condition))
    };
    if outer.iter().any(differs) {
        return Err(Conflict::Inexpressible);
    }
    let mut all = inner.clone();
    all.extend(outer.iter().map(|(name, condition)| (name.clone(), condition.clone())));
    Ok(all)
}

/// The narrower of two conditions, if one covers the other.
fn text(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> Result<Option<StringMatch>, Conflict> {
    let (outer, inner) = match (outer, inner) {
        (Some(outer), Some(inner)) => (outer, inner),
        (outer, inner) => return Ok(inner.or(outer).cloned()),
    };
    let narrower = if covers(outer, inner) {
        inner
    } else if covers(inner, outer) {
        outer
    } else if outer.regex.is_some() || inner.regex.is_some() {
        return Err(Conflict::Inexpressible);
    } else {
        return Err(Conflict::Exclusive);
    };
    Ok(Some(narrower.clone()))
}

fn covers(wide: &StringMatch, narrow: &StringMatch) -> bool {
    match (&wide.exact, &wide.prefix, &wide.regex) {
        (None, None, None) => true,
        (Some(exact), _, _) => narrow.exact.as_ref() == Some(exact),
        (None, Some(prefix), _) => {
            let text = narrow.exact.as_ref().or(narrow.prefix.as_ref());
            text.is_some_and(|text| text.starts_with(prefix.as_str()))
        }
        (None, None, Some(regex)) => narrow.regex.as_ref() == Some(regex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> HttpRule {
        serde_yaml::from_str(yaml).expect("a rule")
    }

    #[test]
    fn conditions_of_root_and_delegate_hold_together() {
        let root = rule(
            "{name: r, match: [{uri: {prefix: /a}}, {uri: {prefix: /b}, headers: {x: {exact: '1'}}}], timeout: 5s}",
        );
        let merged = merge(&root, &rule("{name: d, match: [{uri: {exact: /a/x}, method: {exact: GET}}]}")).unwrap();
        assert_eq!((merged.name.as_deref(), merged.matches.len()), (Some("r-d"), 1));
        assert_eq!(merged.matches[0].uri.as_ref().unwrap().exact.as_deref(), Some("/a/x"));
        assert!(merged.matches[0].method.is_some() && merged.timeout.is_some());
        let merged = merge(&root, &rule("{timeout: 1s}")).unwrap();
        assert_eq!((merged.matches.len(), merged.timeout.unwrap().0.as_secs()), (2, 1));
        assert_eq!(merge(&rule("{}"), &rule("{match: [{port: 80}]}")).unwrap().matches.len(), 1);
    }

    #[test]
    fn conditions_that_do_not_go_together_are_told_apart() {
        for (root, delegate, conflict) in [
            ("uri: {prefix: /a}", "uri: {prefix: /b}", Conflict::Exclusive),
            ("method: {exact: GET}", "method: {exact: PUT}", Conflict::Exclusive),
            ("port: 80", "port: 81", Conflict::Exclusive),
            ("headers: {x: {exact: a}}", "headers: {x: {exact: b}}", Conflict::Exclusive),
            ("uri: {prefix: /a}", "uri: {regex: /a.*}", Conflict::Inexpressible),
            ("withoutHeaders: {x: {exact: a}}", "withoutHeaders: {x: {}}", Conflict::Inexpressible),
            ("uri: {prefix: /a}, ignoreUriCase: true", "uri: {prefix: /a/b}", Conflict::Inexpressible),
        ] {
            let block = |text: &str| rule(&format!("{{match: [{{{text}}}]}}"));
            assert_eq!(merge(&block(root), &block(delegate)).err(), Some(conflict), "{root} {delegate}");
        }
    }

    #[test]
    fn the_narrower_of_two_conditions_counts() {
        let root = rule("{match: [{uri: {prefix: /a/b}, headers: {x: {}}}]}");
        let merged = merge(&root, &rule("{match: [{uri: {prefix: /a}, headers: {x: {exact: v}, y: {}}}]}")).unwrap();
        let block = &merged.matches[0];
        assert_eq!(block.uri.as_ref().unwrap().prefix.as_deref(), Some("/a/b"));
        assert_eq!((block.headers["x"].exact.as_deref(), block.headers.len()), (Some("v"), 2));
    }
}
