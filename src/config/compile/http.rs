//! `http:` → virtual hosts.

mod action;
mod cors;

pub(in crate::config) use action::is_authority;

use std::sync::Arc;

use crate::config::istio::http_action::Percent;
use crate::config::istio::virtual_service::{HttpMatchRequest, HttpRetry, HttpRule, VirtualService};
use crate::config::istio::{Object, Objects};
use crate::config::registry::{ServiceId, ServicePortEntry, is_mesh};
use crate::route::cluster::{Destination, Weighted};
use crate::route::host::HostPattern;
use crate::route::http::{Forward, HttpAction, HttpRoute, Mirror, Mirrors, RetryPolicy, Share};
use crate::route::table::VirtualHost;

use super::clusters::Client;
use super::{Compiler, Entrance, matching};

/// %ROUTE_NAME% of a route without a name, as Istio's.
const DEFAULT_NAME: &str = "default";

/// The port on which a VirtualService alone opens a host (pilot's route.go does the same).
const LONE_PORT: u16 = 80;

impl<'a> Compiler<'a, '_> {
    /// Every host that takes plain HTTP.
    pub(super) fn http(&mut self) {
        let registry = self.registry;
        for (id, service) in registry.services.iter() {
            let rules = registry.http.most_specific(&service.pattern).copied();
            for port in service.ports.iter().filter(|port| port.protocol.takes_http()) {
                self.service_host(id, port, &service.pattern, service.host, rules);
            }
        }
        for rules in self.objects.virtual_services.iter().filter(|object| is_mesh(&object.spec.gateways)) {
            for host in rules.spec.hosts.iter().filter(|_| !rules.spec.http.is_empty()) {
                self.routed_host(host, rules);
            }
        }
    }

    /// Single addresses of a service stand for its host in requests, as they are domains of Istio's virtual hosts.
    pub(super) fn aliases(&mut self) {
        let registry = self.registry;
        for (_, service) in registry.services.iter() {
            let Some(name) = service.name() else { continue };
            for port in service.ports.iter().filter(|port| port.protocol.takes_http()) {
                let ranges = port.entry.spec.ranges();
                for address in ranges.filter(|range| range.prefix_len() == range.max_prefix_len()) {
                    let _ = self.port(port.number).aliases.insert(address, name.clone());
                }
            }
        }
    }

    /// A host of a VirtualService that is no service itself: below a wildcard service it has the ports of that
    /// service; a wildcard that covers services opens nothing further; any other is served on port 80.
    fn routed_host(&mut self, host: &'a str, rules: &'a Object<VirtualService>) {
        let registry = self.registry;
        let Ok(pattern) = HostPattern::parse(host) else { return };
        let is_owner = registry.http.exact(&pattern).is_some_and(|owner| std::ptr::eq(*owner, rules));
        if !is_owner || registry.services.declared(&pattern).is_some() {
            return;
        }
        let covering: Vec<ServiceId> = registry.services.covering(&pattern).collect();
        for id in &covering {
            for port in registry.services.service(*id).ports.iter().filter(|port| port.protocol.takes_http()) {
                self.service_host(*id, port, &pattern, host, Some(rules));
            }
        }
        if covering.is_empty() && !registry.services.any_below(&pattern) {
            let routes = self.routes(rules, Entrance::mesh(&pattern, LONE_PORT));
            let objects = std::iter::once(&rules.origin.object).chain(&rules.spec.delegates).cloned().collect();
            self.add_virtual_host(LONE_PORT, &pattern, VirtualHost { host: host.into(), objects, routes });
        }
    }

    fn service_host(
        &mut self,
        id: ServiceId,
        port: &ServicePortEntry<'a>,
        pattern: &HostPattern,
        host: &str,
        rules: Option<&'a Object<VirtualService>>,
    ) {
        let service = self.registry.services.service(id);
        let mut objects = service.objects.clone();
        let routes = match rules {
            Some(rules) => {
                objects.push(Arc::clone(&rules.origin.object));
                objects.extend(rules.spec.delegates.iter().cloned());
                self.routes(rules, Entrance::mesh(pattern, port.number))
            }
            None => vec![self.default_route(id, port)],
        };
        self.add_virtual_host(port.number, pattern, VirtualHost { host: host.into(), objects, routes });
    }

    pub(super) fn routes(&mut self, rules: &'a Object<VirtualService>, entrance: Entrance<'_>) -> Vec<HttpRoute> {
        let namespace = rules.origin.object.namespace();
        rules.spec.http.iter().filter_map(|rule| self.route(rule, entrance, namespace)).collect()
    }

    /// `None`: the rule has conditions, and none of them can hold here.
    fn route(&mut self, rule: &'a HttpRule, entrance: Entrance<'_>, namespace: &str) -> Option<HttpRoute> {
        let blocks = rule.matches.iter().filter(|block| matching::applies(block, entrance, namespace));
        let matches: Vec<_> = blocks.filter_map(matching::block).collect();
        if matches.is_empty() && !rule.matches.is_empty() {
            return None;
        }
        let headers = rule.headers.as_ref();
        let action = match (&rule.direct_response, &rule.redirect) {
            (Some(response), _) => HttpAction::Respond(action::direct_response(response, headers)?),
            (None, Some(redirect)) => HttpAction::Redirect(action::redirect(redirect, headers, entrance.port)?),
            (None, None) => HttpAction::Forward(self.forward(rule, entrance)),
        };
        let fault = rule.fault.as_ref().and_then(action::fault).map(Box::new);
        let cors = rule.cors_policy.as_ref().map(cors::cors).map(Box::new);
        let name = rule.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_NAME);
        Some(HttpRoute { name: name.into(), matches, cors, fault, action })
    }

    fn default_route(&mut self, id: ServiceId, port: &ServicePortEntry<'a>) -> HttpRoute {
        let action = HttpAction::Forward(Forward {
            clusters: Weighted::single(self.clusters.cluster(id, port, None, Client::Plain)),
            timeout: None,
            retry: self.default_retry.clone(),
            rewrite_path: None,
            edits: Vec::new(),
            mirrors: None,
        });
        HttpRoute { name: DEFAULT_NAME.into(), matches: Vec::new(), cors: None, fault: None, action }
    }

    fn forward(&mut self, rule: &'a HttpRule, entrance: Entrance<'_>) -> Forward {
        let choices: Vec<(Destination, Option<i64>)> = rule
            .route
            .iter()
            .map(|route| {
                let named = route.destination.as_ref();
                let destination = named.map(|named| self.clusters.named(named, entrance, Client::Plain));
                (destination.unwrap_or(Destination::Missing), route.weight)
            })
            .collect();
        Forward {
            clusters: weighted(&choices),
            timeout: rule.timeout.map(|timeout| timeout.0).filter(|timeout| !timeout.is_zero()),
            retry: rule.retries.as_ref().map_or_else(|| self.default_retry.clone(), retry),
            rewrite_path: rule.rewrite.as_ref().and_then(action::path_rewrite),
            edits: action::edits(rule),
            mirrors: self.mirrors(rule, entrance),
        }
    }

    /// A share of nothing is no mirror.
    fn mirrors(&mut self, rule: &'a HttpRule, entrance: Entrance<'_>) -> Option<Box<Mirrors>> {
        let percent = |percentage: Option<Percent>| percentage.map(|percentage| percentage.value);
        let of_single = percent(rule.mirror_percentage).or(rule.mirror_percent.map(|percent| percent as f64));
        let single = rule.mirror.iter().map(|destination| (destination, of_single));
        let several = rule.mirrors.iter().filter_map(|it| Some((it.destination.as_ref()?, percent(it.percentage))));
        let mirrors = single.chain(several).map(|(named, percent)| {
            let destination = self.clusters.named(named, entrance, Client::Plain);
            Mirror { destination, share: percent.map_or(Share::ALL, Share::percent) }
        });
        let to: Box<[Mirror]> = mirrors.filter(|mirror| mirror.share != Share::percent(0.0)).collect();
        (!to.is_empty()).then(|| Box::new(Mirrors { to, edits: action::route_edits(rule) }))
    }
}

/// Shares; the weight of a single destination does not matter. Nothing to choose from leads nowhere.
pub(super) fn weighted(choices: &[(Destination, Option<i64>)]) -> Weighted {
    if let [(only, _)] = choices {
        return Weighted::single(*only);
    }
    let share = |weight: Option<i64>| weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(0);
    let choices = choices.iter().map(|(destination, weight)| (*destination, share(*weight)));
    Weighted::new(choices).unwrap_or_else(|| Weighted::single(Destination::Missing))
}

/// What a policy asks for; where it says nothing, Istio's defaults hold.
pub(in crate::config) fn retry(retries: &HttpRetry) -> RetryPolicy {
    let default = RetryPolicy::default();
    let attempts = retries.attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(default.attempts);
    let per_try_timeout = retries.per_try_timeout.map(|timeout| timeout.0).filter(|timeout| !timeout.is_zero());
    let back_off = retries.backoff.map_or(default.back_off, |backoff| backoff.0);
    let avoid_tried = retries.retry_ignore_previous_hosts.unwrap_or(default.avoid_tried);
    let policy = RetryPolicy { attempts, per_try_timeout, back_off, avoid_tried, ..default };
    match retries.retry_on.as_deref().filter(|words| !words.is_empty()) {
        Some(words) => retry_on(words, policy),
        None => policy,
    }
}

/// Envoy's words. Those about gRPC are about trailers, which come too late to try again; those about HTTP/3 never apply.
fn retry_on(words: &str, policy: RetryPolicy) -> RetryPolicy {
    let mut policy =
        RetryPolicy { on_connect_failure: false, on_reset: false, on_refused: false, on_status: Vec::new(), ..policy };
    for word in words.split(',').map(str::trim) {
        match word {
            "connect-failure" => policy.on_connect_failure = true,
            "refused-stream" => policy.on_refused = true,
            "reset" | "reset-before-request" => (policy.on_reset, policy.on_refused) = (true, true),
            "5xx" => {
                (policy.on_connect_failure, policy.on_reset, policy.on_refused) = (true, true, true);
                policy.on_status.extend(500..=599);
            }
            "gateway-error" => policy.on_status.extend(502..=504),
            "retriable-4xx" => policy.on_status.push(409),
            number => policy.on_status.extend(number.parse::<u16>().ok()),
        }
    }
    policy.on_status.sort_unstable();
    policy.on_status.dedup();
    policy
}

/// Whether any rule in force looks at paths.
pub(super) fn routes_by_path(objects: &Objects) -> bool {
    blocks(objects).any(|block| block.uri.is_some())
}

/// Whether any route looks at the method.
pub(super) fn routes_by_method(objects: &Objects) -> bool {
    blocks(objects).any(|block| block.method.is_some())
}

fn blocks(objects: &Objects) -> impl Iterator<Item = &HttpMatchRequest> {
    objects.virtual_services.iter().flat_map(|object| &object.spec.http).flat_map(|rule| &rule.matches)
}
