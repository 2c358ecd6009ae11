//! DestinationRules by host, and the policy that follows for one port and subset.
//!
//! Istio's rules (destination_rule.proto, pilot's destination_rule.go and push_context.go): the first namespace of the
//! client's, the service's and the root one that has any rule is the one; in it the most specific host applies and nothing is
//! inherited from wider ones; several rules for one host unite their subsets, and the oldest `trafficPolicy` wins; an
//! entry of `portLevelSettings` replaces the policy of all ports, part by part without merging; a subset's policy then
//! overrides it part by part.

use crate::config::istio::destination_rule::{
    ClientTls, ConnectionPool, DestinationRule, LoadBalancer, OutlierDetection, ProxyProtocol, RetryBudget, Subset,
    TrafficPolicy, Tunnel,
};
use crate::config::istio::{Object, Origin};
use crate::route::host::HostPattern;

use super::host_index::HostIndex;

/// The namespace that stands for the clients of this node, which have none: where objects without one are.
const CLIENT_NAMESPACE: &str = "default";

/// Every rule.
#[derive(Debug)]
pub struct Policies<'a> {
    root_namespace: &'a str,
    /// By host, then by namespace, oldest first.
    by_host: HostIndex<Vec<HostRules<'a>>>,
}

/// The rules of one host in one namespace, united.
#[derive(Debug)]
struct HostRules<'a> {
    namespace: &'a str,
    policy: Option<Source<'a>>,
    subsets: Vec<(&'a Subset, Source<'a>)>,
}

/// A traffic policy (or its absence) and where it stands.
#[derive(Clone, Debug)]
struct Source<'a> {
    origin: &'a Origin,
    field: String,
    policy: Option<&'a TrafficPolicy>,
}

/// What holds for one port and subset.
#[derive(Clone, Debug, Default)]
pub struct Policy<'a> {
    /// The rules that have a say.
    pub origins: Vec<&'a Origin>,
    /// TLS that the gateway opens.
    pub tls: Option<TlsSource<'a>>,
    /// How an endpoint is chosen.
    pub balance: Option<&'a LoadBalancer>,
    /// Bounds on connections.
    pub pool: Option<&'a ConnectionPool>,
    /// What leaves endpoints out.
    pub outliers: Option<&'a OutlierDetection>,
    /// Retries as a share of requests; has no form at a port.
    pub retry_budget: Option<&'a RetryBudget>,
    /// A tunnel through the endpoints; has no form at a port.
    pub tunnel: Option<&'a Tunnel>,
    /// What connections begin with; has no form at a port.
    pub proxy_protocol: Option<&'a ProxyProtocol>,
}

/// TLS settings and where they stand.
#[derive(Clone, Debug)]
pub struct TlsSource<'a> {
    /// The DestinationRule.
    pub origin: &'a Origin,
    /// `spec.trafficPolicy.tls`, ….
    pub field: String,
    /// The settings.
    pub tls: &'a ClientTls,
}

impl<'a> Policies<'a> {
    /// Indexes the rules, oldest first.
    pub(super) fn new(rules: &'a [Object<DestinationRule>], root_namespace: &'a str) -> Self {
        let mut by_host = HostIndex::default();
        for rule in rules {
            let host = rule.spec.host.as_deref().unwrap_or_default();
            if let Ok(pattern) = HostPattern::parse(host) {
                add(by_host.entry(&pattern, Vec::new), rule);
            }
        }
        Self { root_namespace, by_host }
    }

    /// MeshConfig's `rootNamespace`.
    #[must_use]
    pub fn root_namespace(&self) -> &'a str {
        self.root_namespace
    }

    /// The rules for a host of a service: of the first namespace on Istio's path that has any, even if a later one has
    /// more specific ones. Clients of every namespace come here, so what no namespace on the path has may stand in any.
    fn rules(&self, host: &HostPattern, namespace: &str) -> Option<&HostRules<'a>> {
        let matching = || self.by_host.exact(host).into_iter().chain(self.by_host.covering(host));
        let path = [CLIENT_NAMESPACE, namespace, self.root_namespace];
        let on_path = path
            .into_iter()
            .find_map(|namespace| matching().find_map(|rules| rules.iter().find(|rules| rules.namespace == namespace)));
        on_path.or_else(|| matching().next()?.first())
    }

    /// The policy for a port of a service in this namespace. `None`: the subset does not exist.
    #[must_use]
    pub fn policy(&self, host: &HostPattern, namespace: &str, port: u16, subset: Option<&str>) -> Option<Policy<'a>> {
        let rules = self.rules(host, namespace);
        let base = rules.and_then(|rules| rules.policy.as_ref());
        let (mut base, _) = base.map(|source| at_port(source, port)).unwrap_or_default();
        let Some(name) = subset else { return Some(base) };
        let (_, source) = find_subset(rules?, name)?;
        let (own, is_port_level) = at_port(source, port);
        if is_port_level {
            return Some(own);
        }
        base.origins.extend(own.origins);
        Some(Policy {
            origins: base.origins,
            tls: own.tls.or(base.tls),
            balance: own.balance.or(base.balance),
            pool: own.pool.or(base.pool),
            outliers: own.outliers.or(base.outliers),
            retry_budget: own.retry_budget.or(base.retry_budget),
            tunnel: own.tunnel.or(base.tunnel),
            proxy_protocol: own.proxy_protocol.or(base.proxy_protocol),
        })
    }

    /// A subset of a service's host.
    #[must_use]
    pub fn subset(&self, host: &HostPattern, namespace: &str, name: &str) -> Option<&'a Subset> {
        let rules = self.rules(host, namespace)?;
        find_subset(rules, name).map(|(subset, _)| *subset)
    }

    /// Whether the rules of this namespace are those that hold for a service's host.
    #[must_use]
    pub fn holds(&self, rule: &Origin, host: &HostPattern, namespace: &str) -> bool {
        self.rules(host, namespace).is_some_and(|rules| rules.namespace == rule.object.namespace())
    }
}

fn find_subset<'r, 'a>(rules: &'r HostRules<'a>, name: &str) -> Option<&'r (&'a Subset, Source<'a>)> {
    rules.subsets.iter().find(|(subset, _)| subset.name.as_deref() == Some(name))
}

fn add<'a>(namespaces: &mut Vec<HostRules<'a>>, rule: &'a Object<DestinationRule>) {
    let origin = &rule.origin;
    let namespace = origin.object.namespace();
    let index = namespaces.iter().position(|rules| rules.namespace == namespace).unwrap_or_else(|| {
        namespaces.push(HostRules { namespace, policy: None, subsets: Vec::new() });
        namespaces.len() - 1
    });
    let rules = &mut namespaces[index];
    if let (None, Some(policy)) = (&rules.policy, &rule.spec.traffic_policy) {
        rules.policy = Some(Source { origin, field: "spec.trafficPolicy".to_owned(), policy: Some(policy) });
    }
    for (index, subset) in rule.spec.subsets.iter().enumerate() {
        let field = format!("spec.subsets[{index}].trafficPolicy");
        rules.subsets.push((subset, Source { origin, field, policy: subset.traffic_policy.as_ref() }));
    }
}

/// The policy at a port, and whether an entry of `portLevelSettings` gave it.
fn at_port<'a>(source: &Source<'a>, port: u16) -> (Policy<'a>, bool) {
    let Some(policy) = source.policy else {
        return (Policy { origins: vec![source.origin], ..Policy::default() }, false);
    };
    let is_this =
        |entry: &TrafficPolicy| entry.port.as_ref().and_then(|selector| selector.number) == Some(i64::from(port));
    match policy.port_level_settings.iter().position(is_this) {
        Some(index) => {
            let field = format!("{}.portLevelSettings[{index}]", source.field);
            (parts(source.origin, field, &policy.port_level_settings[index]), true)
        }
        None => (parts(source.origin, source.field.clone(), policy), false),
    }
}

fn parts<'a>(origin: &'a Origin, field: String, policy: &'a TrafficPolicy) -> Policy<'a> {
    let tls = policy.tls.as_ref().map(|tls| TlsSource { origin, field: format!("{field}.tls"), tls });
    Policy {
        origins: vec![origin],
        tls,
        balance: policy.load_balancer.as_ref(),
        pool: policy.connection_pool.as_ref(),
        outliers: policy.outlier_detection.as_ref(),
        retry_budget: policy.retry_budget.as_ref(),
        tunnel: policy.tunnel.as_ref(),
        proxy_protocol: policy.proxy_protocol.as_ref(),
    }
}
