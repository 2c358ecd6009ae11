//! One test per row of the semantics: order, targets, sources, operations, conditions, and TLS.

use super::*;
use crate::route::http::tests::{Request, get};
use crate::route::table::Place;

fn object(kind: &'static str, name: &str) -> Arc<ObjectRef> {
    Arc::new(ObjectRef::new(kind, "default", name, Place::new(Arc::new("test.yaml".to_owned()), 1)))
}

fn policy(name: &str, rules: Vec<Rule>) -> Policy {
    Policy { object: object("AuthorizationPolicy", name), targets: Vec::new(), rules }
}

fn allow(rule: Rule) -> Authorization {
    Authorization { allow: vec![policy("allow", vec![rule])], ..Authorization::default() }
}

fn deny(rule: Rule) -> Authorization {
    Authorization { deny: vec![policy("deny", vec![rule])], ..Authorization::default() }
}

fn to(operation: Operation) -> Rule {
    Rule { to: vec![operation], ..Rule::default() }
}

fn from(source: Source) -> Rule {
    Rule { from: vec![source], ..Rule::default() }
}

fn when(key: ConditionKey, values: Vec<Glob>, not_values: Vec<Glob>) -> Rule {
    Rule { when: vec![Condition { key, values, not_values }], ..Rule::default() }
}

fn exact(text: &str) -> Glob {
    Glob::Exact(text.into())
}

fn hosts(host: &str) -> Operation {
    Operation { hosts: vec![exact(host)], ..Operation::default() }
}

fn paths(glob: Glob) -> Operation {
    Operation { paths: vec![glob], ..Operation::default() }
}

fn methods(method: &str) -> Operation {
    Operation { methods: vec![exact(method)], ..Operation::default() }
}

fn nets(text: &str) -> Vec<IpNet> {
    vec![text.parse().expect("a valid range")]
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

fn http(request: &Request) -> Session<'_> {
    Session { host: "example.com", request: Some(request), ..session(80) }
}

fn tls(sni: Option<&str>) -> Session<'_> {
    Session { host: sni.unwrap_or_default(), sni, ..session(443) }
}

fn session(port: u16) -> Session<'static> {
    Session { source: CLIENT, port, destination: None, host: "", sni: None, request: None, objects: &[] }
}

/// Whether a rule that allows lets the session through, and whether the same rule that denies refuses it.
fn verdicts(rule: &Rule, session: &Session<'_>) -> (bool, bool) {
    (allow(rule.clone()).evaluate(session).is_allowed(), !deny(rule.clone()).evaluate(session).is_allowed())
}

const MATCHES: (bool, bool) = (true, true);
const DIFFERS: (bool, bool) = (false, false);
/// What neither allows nor lets through: the rule asks for what is not known.
const UNKNOWN: (bool, bool) = (false, true);

fn judge(rule: &Rule, request: &Request) -> (bool, bool) {
    verdicts(rule, &http(request))
}

#[test]
fn without_policies_everything_is_allowed() {
    assert!(Authorization::default().evaluate(&http(&get("/"))).is_allowed());
    assert!(Authorization::default().evaluate(&tls(None)).is_allowed());
}

#[test]
fn a_policy_without_rules_matches_nothing_and_an_empty_rule_everything() {
    let without = |name: &str| vec![policy(name, Vec::new())];
    let request = get("/");
    let closed = Authorization { allow: without("closed"), ..Authorization::default() };
    assert_eq!(closed.evaluate(&http(&request)).to_string(), "none");
    assert!(!closed.evaluate(&http(&request)).is_allowed());
    let idle = Authorization { deny: without("idle"), ..Authorization::default() };
    assert!(idle.evaluate(&http(&request)).is_allowed());
    assert_eq!(judge(&Rule::default(), &request), MATCHES);
    assert_eq!(verdicts(&Rule::default(), &tls(Some("a.com"))), MATCHES);
}

#[test]
fn deny_comes_before_allow_and_names_its_rule() {
    let rules = vec![to(paths(exact("/other"))), to(paths(Glob::Prefix("/admin".into())))];
    let both = Authorization {
        deny: vec![policy("idle", Vec::new()), policy("no-admin", rules)],
        allow: vec![policy("all", vec![Rule::default()])],
        ..Authorization::default()
    };
    assert!(both.evaluate(&http(&get("/"))).is_allowed());
    let request = get("/admin/users");
    let decision = both.evaluate(&http(&request));
    assert_eq!(decision.to_string(), "ns[default]-policy[no-admin]-rule[1]");
    assert!(!decision.is_allowed());
}

#[test]
fn one_of_several_allow_policies_suffices() {
    let allow = vec![policy("a", vec![to(hosts("a.com"))]), policy("b", vec![to(hosts("example.com"))])];
    let authorization = Authorization { allow, ..Authorization::default() };
    assert!(authorization.evaluate(&http(&get("/"))).is_allowed());
    assert!(!authorization.evaluate(&tls(Some("c.com"))).is_allowed());
}

#[test]
fn a_targeted_policy_applies_to_its_service_entries_alone() {
    let targets = vec![("default".into(), "google".into())];
    let closed = Policy { targets, ..policy("closed", Vec::new()) };
    let authorization = Authorization { allow: vec![closed], ..Authorization::default() };
    let request = get("/");
    let verdict = |objects: &[Arc<ObjectRef>]| {
        let session = Session { objects, ..http(&request) };
        authorization.evaluate(&session).is_allowed()
    };
    assert!(!verdict(&[object("ServiceEntry", "google")]));
    assert!(verdict(&[object("ServiceEntry", "github")]));
    assert!(verdict(&[object("VirtualService", "google")]));
    assert!(verdict(&[]));
    let google = object("ServiceEntry", "google");
    let elsewhere = ObjectRef::new(google.kind, "other", google.name(), google.source());
    assert!(verdict(&[Arc::new(elsewhere)]));
}

#[test]
fn sources_are_judged_by_the_peers_address() {
    let inside = from(Source { ip_blocks: nets("10.0.0.0/8"), ..Source::default() });
    let outside = from(Source { not_ip_blocks: nets("10.0.0.0/8"), ..Source::default() });
    let hole = from(Source { ip_blocks: nets("10.0.0.0/8"), not_ip_blocks: nets("10.0.0.7/32") });
    let request = get("/");
    assert_eq!(judge(&inside, &request), MATCHES);
    assert_eq!(judge(&outside, &request), DIFFERS);
    assert_eq!(judge(&hole, &request), DIFFERS);
    let mapped = Session { source: "::ffff:10.0.0.7".parse().expect("an address"), ..http(&request) };
    assert_eq!(verdicts(&inside, &mapped), MATCHES);
    assert_eq!(verdicts(&outside, &mapped), DIFFERS);
    let either = Rule { from: [inside.from, outside.from].concat(), ..Rule::default() };
    assert_eq!(judge(&either, &request), MATCHES);
}

#[test]
fn hosts_compare_without_case_and_with_or_without_the_port() {
    let request = Request { authority: "example.com:8080", ..get("/") };
    for pattern in ["Example.COM", "example.com:8080"] {
        assert_eq!(judge(&to(hosts(pattern)), &request), MATCHES, "{pattern}");
        let others = Operation { not_hosts: vec![exact(pattern)], ..Operation::default() };
        assert_eq!(judge(&to(others), &request), DIFFERS, "{pattern}");
    }
    assert_eq!(judge(&to(hosts("example.com:80")), &request), DIFFERS);
    for glob in [Glob::Suffix(".COM".into()), Glob::Prefix("EXAMPLE.".into()), Glob::Present] {
        let operation = Operation { hosts: vec![glob], ..Operation::default() };
        assert_eq!(judge(&to(operation), &request), MATCHES);
    }
    assert_eq!(
        judge(&to(Operation { hosts: vec![Glob::Suffix(".org".into())], ..Operation::default() }), &request),
        DIFFERS
    );
}

#[test]
fn methods_and_paths_compare_with_case() {
    assert_eq!(judge(&to(methods("GET")), &get("/")), MATCHES);
    assert_eq!(judge(&to(methods("get")), &get("/")), DIFFERS);
    let unsafe_methods = Operation { not_methods: vec![exact("GET"), exact("HEAD")], ..Operation::default() };
    assert_eq!(judge(&to(unsafe_methods.clone()), &get("/")), DIFFERS);
    assert_eq!(judge(&to(unsafe_methods), &Request { method: "POST", ..get("/") }), MATCHES);
    assert_eq!(judge(&to(paths(exact("/a"))), &get("/a")), MATCHES);
    assert_eq!(judge(&to(paths(exact("/a"))), &get("/A")), DIFFERS);
    assert_eq!(judge(&to(paths(Glob::Prefix("/a/".into()))), &get("/a")), DIFFERS);
    assert_eq!(judge(&to(paths(Glob::Suffix(".json".into()))), &get("/a.json")), MATCHES);
    assert_eq!(judge(&to(paths(Glob::Present)), &get("/")), MATCHES);
    let template = regex::Regex::new("^/v1/[^/]+/info$").expect("a valid expression");
    let template = Glob::Template(TextMatch::Regex(template));
    assert_eq!(judge(&to(paths(template.clone())), &get("/v1/a/info")), MATCHES);
    assert_eq!(judge(&to(paths(template)), &get("/v1/a/b/info")), DIFFERS);
    let elsewhere = Operation { not_paths: vec![Glob::Prefix("/admin".into())], ..Operation::default() };
    assert_eq!(judge(&to(elsewhere.clone()), &get("/admin")), DIFFERS);
    assert_eq!(judge(&to(elsewhere), &get("/")), MATCHES);
}

#[test]
fn ports_are_service_ports() {
    let on = |port: u16| to(Operation { ports: vec![port], ..Operation::default() });
    let except = |port: u16| to(Operation { not_ports: vec![port], ..Operation::default() });
    assert_eq!(judge(&on(80), &get("/")), MATCHES);
    assert_eq!(judge(&on(443), &get("/")), DIFFERS);
    assert_eq!(verdicts(&on(443), &tls(None)), MATCHES);
    assert_eq!(verdicts(&except(443), &tls(None)), DIFFERS);
}

#[test]
fn the_fields_of_an_operation_must_all_hold_and_one_operation_must() {
    let narrow = Operation { methods: vec![exact("POST")], ..paths(exact("/a")) };
    assert_eq!(judge(&to(narrow.clone()), &get("/a")), DIFFERS);
    let either = Rule { to: vec![narrow, methods("GET")], ..Rule::default() };
    assert_eq!(judge(&either, &get("/a")), MATCHES);
    let elsewhere = Source { ip_blocks: nets("192.0.2.0/24"), ..Source::default() };
    assert_eq!(judge(&Rule { from: vec![elsewhere], ..either }, &get("/a")), DIFFERS);
}

#[test]
fn header_conditions_need_the_header_unless_negated() {
    let key = || ConditionKey::Header("x-team".into());
    let sent = |value| Request { headers: vec![("X-Team", value)], ..get("/") };
    let is = when(key(), vec![exact("a")], Vec::new());
    assert_eq!(judge(&is, &sent("a")), MATCHES);
    assert_eq!(judge(&is, &sent("b")), DIFFERS);
    assert_eq!(judge(&is, &get("/")), DIFFERS);
    let present = when(key(), vec![Glob::Present], Vec::new());
    assert_eq!(judge(&present, &sent("")), MATCHES);
    assert_eq!(judge(&present, &get("/")), DIFFERS);
    let is_not = when(key(), Vec::new(), vec![exact("a")]);
    assert_eq!(judge(&is_not, &sent("a")), DIFFERS);
    assert_eq!(judge(&is_not, &get("/")), MATCHES);
}

#[test]
fn conditions_on_sni_port_and_source_hold_for_tls() {
    let sni = |values, not_values| when(ConditionKey::Sni, values, not_values);
    let google = || vec![Glob::Suffix(".googleapis.com".into())];
    let session = tls(Some("www.googleapis.com"));
    assert_eq!(verdicts(&sni(google(), Vec::new()), &session), MATCHES);
    assert_eq!(verdicts(&sni(google(), Vec::new()), &tls(Some("example.com"))), DIFFERS);
    assert_eq!(verdicts(&sni(google(), Vec::new()), &tls(None)), UNKNOWN);
    assert_eq!(verdicts(&sni(Vec::new(), google()), &tls(None)), UNKNOWN);
    assert_eq!(verdicts(&sni(vec![Glob::Present], Vec::new()), &tls(None)), UNKNOWN);
    assert_eq!(verdicts(&sni(Vec::new(), google()), &session), DIFFERS);
    let port = |value: &str| when(ConditionKey::Port, vec![exact(value)], Vec::new());
    assert_eq!(verdicts(&port("443"), &session), MATCHES);
    assert_eq!(verdicts(&port("44"), &session), DIFFERS);
    let source = |values, not_values| when(ConditionKey::SourceIp(values, not_values), Vec::new(), Vec::new());
    assert_eq!(verdicts(&source(nets("10.0.0.7/32"), Vec::new()), &session), MATCHES);
    assert_eq!(verdicts(&source(Vec::new(), nets("10.0.0.7/32")), &session), DIFFERS);
}

#[test]
fn every_condition_must_hold() {
    let one = when(ConditionKey::Port, vec![exact("80")], Vec::new());
    let other = when(ConditionKey::Port, Vec::new(), vec![exact("80")]);
    assert_eq!(judge(&Rule { when: [one.when, other.when].concat(), ..Rule::default() }, &get("/")), DIFFERS);
}

#[test]
fn on_tls_what_is_about_http_neither_allows_nor_lets_through() {
    let session = tls(Some("example.com"));
    assert_eq!(verdicts(&to(methods("GET")), &session), UNKNOWN);
    assert_eq!(verdicts(&to(paths(exact("/a"))), &session), UNKNOWN);
    let not_paths = Operation { not_paths: vec![Glob::Present], ..Operation::default() };
    assert_eq!(verdicts(&to(not_paths), &session), UNKNOWN);
    let not_methods = Operation { not_methods: vec![exact("GET")], ..Operation::default() };
    assert_eq!(verdicts(&to(not_methods), &session), UNKNOWN);
    let header = ConditionKey::Header("x-team".into());
    assert_eq!(verdicts(&when(header.clone(), Vec::new(), vec![exact("a")]), &session), UNKNOWN);
    assert_eq!(verdicts(&when(header, vec![exact("a")], Vec::new()), &session), UNKNOWN);
}

#[test]
fn one_alternative_about_http_spoils_an_allow_rule_on_tls() {
    let ports = Operation { ports: vec![443], ..Operation::default() };
    let rule = Rule { to: vec![ports, methods("GET")], ..Rule::default() };
    assert_eq!(verdicts(&rule, &tls(Some("example.com"))), UNKNOWN);
}

#[test]
fn what_is_known_of_tls_still_narrows_a_deny_rule() {
    let elsewhere = Operation { ports: vec![8443], ..methods("GET") };
    assert_eq!(verdicts(&to(elsewhere), &tls(Some("example.com"))), DIFFERS);
}

#[test]
fn on_tls_hosts_are_judged_by_the_sni() {
    assert_eq!(verdicts(&to(hosts("Example.com")), &tls(Some("example.com"))), MATCHES);
    assert_eq!(verdicts(&to(hosts("example.com")), &tls(Some("example.org"))), DIFFERS);
    assert_eq!(verdicts(&to(hosts("example.com")), &tls(None)), UNKNOWN);
    let others = Operation { not_hosts: vec![exact("example.com")], ..Operation::default() };
    assert_eq!(verdicts(&to(others.clone()), &tls(Some("example.com"))), DIFFERS);
    assert_eq!(verdicts(&to(others), &tls(None)), UNKNOWN);
}

#[test]
fn destinations_are_judged_where_traffic_is_captured() {
    let captured = |ip: &str| Session { destination: Some(ip.parse().expect("an address")), ..session(5432) };
    let key = ConditionKey::DestinationIp(nets("10.0.0.0/8"), nets("10.9.0.0/16"));
    let inside = when(key, Vec::new(), Vec::new());
    assert_eq!(verdicts(&inside, &captured("10.1.2.3")), MATCHES);
    assert_eq!(verdicts(&inside, &captured("10.9.2.3")), DIFFERS);
    assert_eq!(verdicts(&inside, &captured("192.0.2.1")), DIFFERS);
    assert_eq!(verdicts(&inside, &session(5432)), UNKNOWN);
}

#[test]
fn what_asks_for_a_server_name_is_known_by_its_target() {
    let mut authorization = deny(when(ConditionKey::Sni, vec![exact("a.example")], Vec::new()));
    assert!(authorization.looks_at_server_name(&[]));
    authorization.deny[0].targets = vec![("default".into(), "google".into())];
    assert!(!authorization.looks_at_server_name(&[object("ServiceEntry", "github")]));
    assert!(authorization.looks_at_server_name(&[object("ServiceEntry", "google")]));
    assert!(!deny(Rule::default()).looks_at_server_name(&[]));
}

#[test]
fn audit_policies_are_named_and_decide_nothing() {
    let mut authorization = deny(to(methods("POST")));
    authorization.audit = vec![
        policy("reads", vec![to(methods("GET")), Rule::default()]),
        policy("writes", vec![to(methods("POST"))]),
        Policy { targets: vec![("default".into(), "elsewhere".into())], ..policy("targeted", vec![Rule::default()]) },
    ];
    let names = |session: &Session<'_>| -> Vec<String> {
        authorization.audits(session).map(|(policy, index)| policy.rule_name(index).to_string()).collect()
    };
    let request = get("/");
    assert_eq!(names(&http(&request)), ["ns[default]-policy[reads]-rule[0]"]);
    assert!(authorization.evaluate(&http(&request)).is_allowed());
    // A method is not known of a TLS session.
    assert_eq!(names(&tls(Some("a.example.com"))), ["ns[default]-policy[reads]-rule[1]"]);
}
