//! The table of Istio's fields in `config/README.md` says what the code does with each of them.
//!
//! Every field that the code knows is written into a document, and the findings about it tell where it stands. With
//! `PORTCULLIS_UPDATE=1` the table is written anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use portcullis::config::Loader;
use portcullis::config::finding::{Finding, Severity};
use portcullis::config::istio::authorization_policy as policy;
use portcullis::config::istio::destination_rule as rule;
use portcullis::config::istio::gateway;
use portcullis::config::istio::http_action as action;
use portcullis::config::istio::mesh_config as mesh;
use portcullis::config::istio::service_entry as entry;
use portcullis::config::istio::sidecar;
use portcullis::config::istio::virtual_service as service;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde_yaml::Value;

const BEGIN: &str = "<!-- fields: begin -->\n";
const END: &str = "<!-- fields: end -->\n";

/// A kind, its API group, a document that is good without further fields, and what it refers to.
const KINDS: [(&str, &str, &str); 7] = [
    (
        "ServiceEntry",
        "networking.istio.io",
        "{hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, endpoints: [{address: b.example.com}]}",
    ),
    (
        "VirtualService",
        "networking.istio.io",
        "{hosts: [b.example.com], http: [{match: [{uri: {prefix: /}}], route: [{destination: {host: b.example.com}}]}], tls: [{match: [{sniHosts: [b.example.com]}], route: [{destination: {host: b.example.com}}]}]}",
    ),
    (
        "DestinationRule",
        "networking.istio.io",
        "{host: b.example.com, trafficPolicy: {loadBalancer: {simple: RANDOM}}}",
    ),
    (
        "Gateway",
        "networking.istio.io",
        "{servers: [{port: {number: 443, name: tls, protocol: TLS}, hosts: [b.example.com], tls: {mode: PASSTHROUGH}}]}",
    ),
    (
        "AuthorizationPolicy",
        "security.istio.io",
        "{targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: other}], rules: [{to: [{operation: {methods: [GET]}}]}]}",
    ),
    ("Sidecar", "networking.istio.io", "{egress: [{hosts: ['*/*']}]}"),
    ("MeshConfig", "", "{}"),
];

const OTHER: &str = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: other}\nspec: {hosts: [b.example.com], ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}], resolution: STATIC, endpoints: [{address: 192.0.2.1, labels: {v: one}}]}\n";

/// Where the fields of a type stand: kind, path of the type, and the fields.
fn types() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    vec![
        ("ServiceEntry", "", fields::<entry::ServiceEntry>()),
        ("ServiceEntry", "ports[].", fields::<entry::ServicePort>()),
        ("ServiceEntry", "endpoints[].", fields::<entry::WorkloadEntry>()),
        ("VirtualService", "", fields::<service::VirtualService>()),
        ("VirtualService", "http[].", fields::<service::HttpRule>()),
        ("VirtualService", "http[].match[].", fields::<service::HttpMatchRequest>()),
        ("VirtualService", "http[].route[].", fields::<service::HttpDestination>()),
        ("VirtualService", "http[].route[].destination.", fields::<service::RouteDestination>()),
        ("VirtualService", "http[].directResponse.", fields::<service::HttpDirectResponse>()),
        ("VirtualService", "http[].directResponse.body.", fields::<service::HttpBody>()),
        ("VirtualService", "http[].mirrors[].", fields::<service::HttpMirror>()),
        ("VirtualService", "http[].rewrite.", fields::<service::HttpRewrite>()),
        ("VirtualService", "http[].rewrite.uriRegexRewrite.", fields::<action::RegexRewrite>()),
        ("VirtualService", "http[].redirect.", fields::<action::HttpRedirect>()),
        ("VirtualService", "http[].fault.", fields::<action::HttpFault>()),
        ("VirtualService", "http[].fault.delay.", fields::<action::FaultDelay>()),
        ("VirtualService", "http[].fault.abort.", fields::<action::FaultAbort>()),
        ("VirtualService", "http[].delegate.", fields::<service::Delegate>()),
        ("VirtualService", "http[].corsPolicy.", fields::<action::CorsPolicy>()),
        ("VirtualService", "http[].headers.", fields::<action::Headers>()),
        ("VirtualService", "http[].headers.request.", fields::<action::HeaderOperations>()),
        ("VirtualService", "http[].headers.response.", fields::<action::HeaderOperations>()),
        ("VirtualService", "http[].retries.", fields::<service::HttpRetry>()),
        ("VirtualService", "tls[].", fields::<service::TlsRule>()),
        ("VirtualService", "tls[].match[].", fields::<service::TlsMatch>()),
        ("VirtualService", "tls[].route[].", fields::<service::TlsDestination>()),
        ("VirtualService", "tcp[].", fields::<service::TcpRule>()),
        ("VirtualService", "tcp[].match[].", fields::<service::TcpMatch>()),
        ("VirtualService", "tcp[].route[].", fields::<service::TlsDestination>()),
        ("DestinationRule", "", fields::<rule::DestinationRule>()),
        ("DestinationRule", "subsets[].", fields::<rule::Subset>()),
        ("DestinationRule", "trafficPolicy.", fields::<rule::TrafficPolicy>()),
        ("DestinationRule", "trafficPolicy.loadBalancer.", fields::<rule::LoadBalancer>()),
        ("DestinationRule", "trafficPolicy.connectionPool.", fields::<rule::ConnectionPool>()),
        ("DestinationRule", "trafficPolicy.loadBalancer.consistentHash.", fields::<rule::ConsistentHash>()),
        ("DestinationRule", "trafficPolicy.loadBalancer.consistentHash.httpCookie.", fields::<rule::HttpCookie>()),
        ("DestinationRule", "trafficPolicy.loadBalancer.consistentHash.ringHash.", fields::<rule::RingHash>()),
        ("DestinationRule", "trafficPolicy.loadBalancer.consistentHash.maglev.", fields::<rule::Maglev>()),
        ("DestinationRule", "trafficPolicy.connectionPool.tcp.", fields::<rule::TcpPool>()),
        ("DestinationRule", "trafficPolicy.connectionPool.tcp.tcpKeepalive.", fields::<rule::TcpKeepalive>()),
        ("DestinationRule", "trafficPolicy.connectionPool.http.", fields::<rule::HttpPool>()),
        ("DestinationRule", "trafficPolicy.outlierDetection.", fields::<rule::OutlierDetection>()),
        ("DestinationRule", "trafficPolicy.retryBudget.", fields::<rule::RetryBudget>()),
        ("DestinationRule", "trafficPolicy.tunnel.", fields::<rule::Tunnel>()),
        ("DestinationRule", "trafficPolicy.proxyProtocol.", fields::<rule::ProxyProtocol>()),
        ("DestinationRule", "trafficPolicy.tls.", fields::<rule::ClientTls>()),
        ("Gateway", "", fields::<gateway::Gateway>()),
        ("Gateway", "servers[].", fields::<gateway::Server>()),
        ("Gateway", "servers[].port.", fields::<gateway::ServerPort>()),
        ("Gateway", "servers[].tls.", fields::<gateway::ServerTls>()),
        ("Gateway", "servers[].tls.tlsCertificates[].", fields::<gateway::TlsCertificate>()),
        ("AuthorizationPolicy", "", fields::<policy::AuthorizationPolicy>()),
        ("AuthorizationPolicy", "targetRefs[].", fields::<policy::TargetRef>()),
        ("AuthorizationPolicy", "rules[].", fields::<policy::Rule>()),
        ("AuthorizationPolicy", "rules[].from[].source.", fields::<policy::Source>()),
        ("AuthorizationPolicy", "rules[].to[].operation.", fields::<policy::Operation>()),
        ("AuthorizationPolicy", "rules[].when[].", fields::<policy::When>()),
        ("Sidecar", "", fields::<sidecar::Sidecar>()),
        ("Sidecar", "egress[].", fields::<sidecar::EgressListener>()),
        ("Sidecar", "outboundTrafficPolicy.", fields::<mesh::OutboundTrafficPolicy>()),
        ("MeshConfig", "", fields::<mesh::MeshConfig>()),
        ("MeshConfig", "tlsDefaults.", fields::<mesh::TlsDefaults>()),
    ]
}

/// Values of fields that none of [`GENERIC`] suits, by the end of the path; the first that fits is taken.
const SAMPLES: &[(&str, &str)] = &[
    ("ServiceEntry.hosts", "[a.example.com]"),
    ("ServiceEntry.addresses", "[192.0.2.1]"),
    ("ServiceEntry.ports", "[{number: 80, name: http, protocol: HTTP}]"),
    ("ServiceEntry.location", "MESH_EXTERNAL"),
    ("ServiceEntry.resolution", "DNS"),
    ("ServiceEntry.endpoints", "[{address: b.example.com}]"),
    ("ServiceEntry.exportTo", "['~']"),
    ("exportTo", "[b]"),
    ("ports[].protocol", "HTTP"),
    ("ports[].name", "http"),
    ("endpoints[].address", "b.example.com"),
    ("endpoints[].ports", "{http: 8080}"),
    ("VirtualService.hosts", "[b.example.com]"),
    ("gateways", "[mesh]"),
    ("VirtualService.http", "[{route: [{destination: {host: b.example.com}}]}]"),
    ("http[].mirror", "{host: b.example.com, port: {number: 80}}"),
    ("http[].mirrors", "[{destination: {host: b.example.com, port: {number: 80}}}]"),
    ("mirrorPercent", "10"),
    ("mirrorPercentage", "{value: 1}"),
    ("VirtualService.tls", "[{match: [{sniHosts: [b.example.com]}], route: [{destination: {host: b.example.com}}]}]"),
    ("http[].match", "[{uri: {prefix: /}}]"),
    ("VirtualService.tcp", "[{route: [{destination: {host: b.example.com}}]}]"),
    ("tcp[].match", "[{port: 80}]"),
    ("tls[].match", "[{sniHosts: [b.example.com]}]"),
    ("[].route", "[{destination: {host: b.example.com}}]"),
    ("directResponse", "{status: 200}"),
    ("directResponse.status", "200"),
    ("rewrite", "{uri: /}"),
    ("rewrite.uri", "/"),
    ("timeout", "1s"),
    ("perTryTimeout", "1s"),
    ("connectTimeout", "1s"),
    ("retries", "{attempts: 1}"),
    ("retryOn", "connect-failure"),
    ("match[].scheme", "{exact: http}"),
    ("http[].headers", "{request: {set: {x-a: b}}}"),
    ("route[].headers", "{request: {set: {x-a: b}}}"),
    ("headers.request", "{set: {x-a: b}}"),
    ("headers.response", "{set: {x-a: b}}"),
    (".set", "{x-a: b}"),
    (".add", "{x-a: b}"),
    (".remove", "[x-a]"),
    ("allowOrigin", "['https://a.example']"),
    ("allowOrigins", "[{exact: 'https://a.example'}]"),
    ("allowMethods", "[GET]"),
    ("allowHeaders", "[x-a]"),
    ("exposeHeaders", "[x-a]"),
    ("maxAge", "1h"),
    ("allowCredentials", "true"),
    ("unmatchedPreflights", "IGNORE"),
    ("http[].delegate", "{name: x}"),
    ("redirect", "{uri: /}"),
    ("redirect.uri", "/"),
    ("redirect.scheme", "https"),
    ("redirect.port", "8443"),
    ("derivePort", "FROM_REQUEST_PORT"),
    ("redirectCode", "302"),
    ("http[].fault", "{abort: {httpStatus: 503, percentage: {value: 1}}}"),
    ("fault.abort", "{httpStatus: 503, percentage: {value: 1}}"),
    ("fault.delay", "{fixedDelay: 1s, percentage: {value: 1}}"),
    ("fixedDelay", "1s"),
    ("httpStatus", "503"),
    ("percentage", "{value: 1}"),
    ("uriRegexRewrite", "{match: a, rewrite: b}"),
    ("body.bytes", "eA=="),
    ("backoff", "25ms"),
    ("retryIgnorePreviousHosts", "true"),
    ("headers", "{x-a: {exact: b}}"),
    ("withoutHeaders", "{x-a: {exact: b}}"),
    ("queryParams", "{a: {exact: b}}"),
    ("destination", "{host: b.example.com, port: {number: 80}}"),
    ("destination.host", "b.example.com"),
    ("port", "{number: 80}"),
    ("ignoreUriCase", "true"),
    ("sourceLabels", "{app: a}"),
    ("subsets[].labels", "{v: one}"),
    ("insecureSkipVerify", "false"),
    ("sniHosts", "[b.example.com]"),
    ("destinationSubnets", "[192.0.2.0/24]"),
    ("DestinationRule.host", "b.example.com"),
    ("DestinationRule.subsets", "[{name: v1, labels: {v: one}}]"),
    ("trafficPolicy", "{loadBalancer: {simple: RANDOM}}"),
    ("loadBalancer.simple", "RANDOM"),
    ("connectionPool", "{tcp: {connectTimeout: 1s}}"),
    ("connectionPool.tcp", "{connectTimeout: 1s}"),
    ("connectionPool.tcp.idleTimeout", "1s"),
    ("maxConnectionDuration", "1s"),
    ("tcpKeepalive.time", "1s"),
    ("tcpKeepalive.interval", "1s"),
    ("connectionPool.http", "{maxRetries: 1}"),
    ("connectionPool.http.idleTimeout", "1s"),
    ("h2UpgradePolicy", "UPGRADE"),
    ("useClientProtocol", "true"),
    ("outlierDetection", "{interval: 1s}"),
    ("outlierDetection.interval", "1s"),
    ("baseEjectionTime", "1s"),
    ("splitExternalLocalOriginErrors", "true"),
    ("consecutiveLocalOriginFailures", "0"),
    ("consistentHash", "{useSourceIp: true}"),
    ("useSourceIp", "true"),
    ("httpCookie", "{name: a}"),
    ("httpCookie.ttl", "1s"),
    ("httpCookie.path", "/"),
    ("trafficPolicy.tunnel", "{targetHost: b.example.com, targetPort: 443}"),
    ("tunnel.protocol", "CONNECT"),
    ("tunnel.targetHost", "b.example.com"),
    ("tunnel.targetPort", "443"),
    ("proxyProtocol.version", "V2"),
    ("maglev", "{tableSize: 65537}"),
    ("maglev.tableSize", "65537"),
    ("portLevelSettings", "[{port: {number: 443}, loadBalancer: {simple: RANDOM}}]"),
    ("trafficPolicy.tls", "{mode: SIMPLE}"),
    ("tls.mode", "SIMPLE"),
    ("Gateway.servers", "[{port: {number: 80, name: http, protocol: HTTP}, hosts: [b.example.com]}]"),
    ("Gateway.selector", "{istio: egressgateway}"),
    ("servers[].port", "{number: 443, name: tls, protocol: TLS}"),
    ("servers[].port.name", "tls"),
    ("servers[].port.protocol", "TLS"),
    ("servers[].hosts", "[b.example.com]"),
    ("servers[].tls", "{mode: PASSTHROUGH}"),
    ("servers[].tls.mode", "PASSTHROUGH"),
    ("ProtocolVersion", "TLSV1_3"),
    ("httpsRedirect", "true"),
    ("action", "ALLOW"),
    ("targetRef", "{group: networking.istio.io, kind: ServiceEntry, name: other}"),
    ("targetRefs", "[{group: networking.istio.io, kind: ServiceEntry, name: other}]"),
    ("targetRefs[].kind", "ServiceEntry"),
    ("targetRefs[].group", "networking.istio.io"),
    ("AuthorizationPolicy.rules", "[{}]"),
    ("rules[].from", "[{source: {ipBlocks: [192.0.2.1]}}]"),
    ("rules[].to", "[{operation: {methods: [GET]}}]"),
    ("rules[].when", "[{key: connection.sni, values: [a]}]"),
    ("when[].key", "connection.sni"),
    ("pBlocks", "[192.0.2.1]"),
    ("operation.ports", "['80']"),
    ("operation.notPorts", "['80']"),
    ("Sidecar.egress", "[{hosts: ['*/*']}]"),
    ("egress[].hosts", "['*/*']"),
    ("outboundTrafficPolicy", "{mode: REGISTRY_ONLY}"),
    ("outboundTrafficPolicy.mode", "REGISTRY_ONLY"),
    ("accessLogEncoding", "JSON"),
    ("accessLogFormat", "'%START_TIME%'"),
    ("pathNormalization", "{normalization: BASE}"),
    ("tlsDefaults", "{minProtocolVersion: TLSV1_3}"),
    ("minProtocolVersion", "TLSV1_3"),
    ("cipherSuites", "[ECDHE-RSA-AES256-GCM-SHA384]"),
    ("ecdhCurves", "[P-256]"),
];

/// What a server shows at which TLS ends; the sample passes it through.
const SHOWN: &str = "yes";

/// What it asks of clients.
const ASKED: &str = "yes, in mode MUTUAL";

/// Fields that belong to something else, where their standing is shown.
const ELSEWHERE: [(&str, &str); 15] = [
    ("Gateway.servers[].tls.serverCertificate", SHOWN),
    ("Gateway.servers[].tls.privateKey", SHOWN),
    ("Gateway.servers[].tls.credentialName", SHOWN),
    ("Gateway.servers[].tls.credentialNames", SHOWN),
    ("Gateway.servers[].tls.tlsCertificates", SHOWN),
    ("Gateway.servers[].tls.tlsCertificates[].serverCertificate", SHOWN),
    ("Gateway.servers[].tls.tlsCertificates[].privateKey", SHOWN),
    ("Gateway.servers[].tls.tlsCertificates[].caCertificates", ASKED),
    ("Gateway.servers[].tls.caCertificates", ASKED),
    ("Gateway.servers[].tls.caCrl", ASKED),
    ("Gateway.servers[].tls.subjectAltNames", ASKED),
    ("Gateway.servers[].tls.verifyCertificateHash", ASKED),
    ("Gateway.servers[].tls.verifyCertificateSpki", ASKED),
    ("DestinationRule.trafficPolicy.port", "in `portLevelSettings` only"),
    ("AuthorizationPolicy.provider", "refused, as `action: CUSTOM` is"),
];

/// What a single word does not say.
const NOTES: &[(&str, &str)] = &[
    ("ServiceEntry.exportTo", "`~` hides the entry; everything else is visible"),
    (
        "ServiceEntry.addresses",
        "TCP: where captured clients mean to go; plain HTTP: what may be asked for in place of the host",
    ),
    (
        "ServiceEntry.ports[].protocol",
        "MONGO, MYSQL and REDIS are TCP; UDP is not carried; none: TLS, HTTP, or else TCP, as the client speaks",
    ),
    (
        "ServiceEntry.resolution",
        "NONE and DYNAMIC_DNS resolve the name that the client asked for; NONE with TCP dials the original destination, within `addresses`; DNS_ROUND_ROBIN dials the first address of the answer",
    ),
    ("VirtualService.tcp[].match[].destinationSubnets", "captured traffic"),
    ("VirtualService.tls[].match[].destinationSubnets", "captured traffic"),
    ("ServiceEntry.endpoints[].address", "no `unix://`"),
    ("VirtualService.gateways", "`mesh`, `namespace/name`, `name`"),
    (
        "VirtualService.http[].corsPolicy",
        "preflights are answered with 200, answers of routes are marked; failures are not",
    ),
    (
        "VirtualService.http[].delegate",
        "a VirtualService without `hosts`; conditions on one text must be such that one covers the other",
    ),
    ("VirtualService.http[].fault.delay", "the route's timeout runs meanwhile"),
    ("VirtualService.http[].fault.abort.percentage", "without one, no request is aborted"),
    ("VirtualService.http[].fault.delay.percentage", "without one, no request is delayed"),
    (
        "VirtualService.http[].headers",
        "not of one hop or the framing; values are literal, `%%` is a percent sign, other operators are refused; `host` and `:authority` rewrite the Host",
    ),
    (
        "VirtualService.http[].mirror",
        "copies of what is forwarded, answers are thrown away; bodies of at most 64 KiB; not to a Gateway, nor of upgrades",
    ),
    ("VirtualService.http[].mirrors", "as `mirror`"),
    ("VirtualService.http[].mirrorPercent", "`mirrorPercentage` comes first"),
    ("VirtualService.http[].redirect.redirectCode", "301, 302, 303, 307, 308"),
    ("VirtualService.http[].redirect.uri", "begins with `/`; `%PREFIX()%` is no operator"),
    ("VirtualService.http[].retries.backoff", "doubled for each attempt, to ten times at most"),
    (
        "VirtualService.http[].rewrite.uriRegexRewrite",
        "as `uri`; a path with any dot segment in it is refused with 400",
    ),
    ("VirtualService.http[].route[].headers", "after those of the route"),
    ("VirtualService.http[].rewrite.uri", "a result that leaves the written path by dot segments is refused with 400"),
    ("DestinationRule.subsets[].trafficPolicy", "as `trafficPolicy`"),
    ("DestinationRule.trafficPolicy.portLevelSettings", "replaces `trafficPolicy` for its port"),
    ("DestinationRule.trafficPolicy.loadBalancer.simple", "PASSTHROUGH is LEAST_REQUEST"),
    ("DestinationRule.trafficPolicy.connectionPool.http.http2MaxRequests", "of HTTP/1.1, too"),
    (
        "DestinationRule.trafficPolicy.connectionPool.http.h2UpgradePolicy",
        "UPGRADE whatever the port says; DEFAULT is the mesh's, for ports of HTTP",
    ),
    ("DestinationRule.trafficPolicy.connectionPool.http.maxConcurrentStreams", "at most 100"),
    (
        "DestinationRule.trafficPolicy.connectionPool.http.http2Keepalive",
        "no pings are sent; `tcpKeepalive` finds dead connections, too",
    ),
    ("MeshConfig.h2UpgradePolicy", "for ports of HTTP where no DestinationRule says otherwise"),
    (
        "DestinationRule.trafficPolicy.loadBalancer.consistentHash.httpCookie.ttl",
        "a client without the cookie is given one; `0s`: until its session ends",
    ),
    ("DestinationRule.trafficPolicy.loadBalancer.consistentHash.ringHash", "rendezvous hashing in its place"),
    ("DestinationRule.trafficPolicy.loadBalancer.consistentHash.maglev", "rendezvous hashing in its place"),
    ("DestinationRule.trafficPolicy.proxyProtocol", "connections are not shared among requests"),
    (
        "DestinationRule.trafficPolicy.tunnel",
        "of TLS and TCP routes, as in Istio; not to proxies that want TLS themselves",
    ),
    ("DestinationRule.trafficPolicy.tunnel.protocol", "CONNECT; POST is refused"),
    ("DestinationRule.trafficPolicy.loadBalancer.consistentHash.httpCookie.path", "of a cookie that is made"),
    ("DestinationRule.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize", "judged; there is no table"),
    ("DestinationRule.trafficPolicy.loadBalancer.consistentHash.minimumRingSize", "judged; there is no ring"),
    ("DestinationRule.trafficPolicy.loadBalancer.consistentHash.ringHash.minimumRingSize", "judged; there is no ring"),
    ("DestinationRule.trafficPolicy.tls.mode", "ISTIO_MUTUAL answers 503"),
    ("DestinationRule.trafficPolicy.tls.credentialName", "a Secret, else a folder"),
    ("Gateway.selector", "every selector means this node"),
    (
        "Gateway.servers[].port.protocol",
        "MONGO, MYSQL and REDIS are TCP; in TLS that ends here, HTTPS is HTTP and TLS is TCP",
    ),
    ("Gateway.servers[].tls.httpsRedirect", "of servers for plain HTTP"),
    (
        "Gateway.servers[].tls.mode",
        "PASSTHROUGH, SIMPLE, MUTUAL; ISTIO_MUTUAL on the way from the mesh only; nobody reaches others",
    ),
    ("Gateway.servers[].tls.cipherSuites", "of TLS 1.2; one that is not spoken here is refused"),
    ("Gateway.servers[].tls.credentialName", "a Secret, else a folder"),
    ("Gateway.servers[].tls.subjectAltNames", "exact: DNS names, URIs, addresses"),
    ("Gateway.servers[].tls.verifyCertificateHash", "SHA-256 in hexadecimal; it or the next must know the certificate"),
    ("Gateway.servers[].tls.verifyCertificateSpki", "SHA-256 in base64"),
    ("AuthorizationPolicy.action", "AUDIT counts and logs what matches, and blocks nothing; CUSTOM is refused"),
    ("AuthorizationPolicy.selector", "every selector means this node"),
    ("AuthorizationPolicy.targetRefs[].kind", "ServiceEntry only"),
    ("AuthorizationPolicy.rules[].to[].operation.ports", "the service port, or the captured one"),
    (
        "AuthorizationPolicy.rules[].to[].operation.paths",
        "the normalised path without query; templates with `{*}` and `{**}`",
    ),
    (
        "AuthorizationPolicy.rules[].when[].key",
        "`connection.sni`, `destination.port`, `destination.ip` (captured traffic), `source.ip`, `remote.ip`, `request.headers[…]`; others are refused",
    ),
    ("Sidecar.egress[].hosts", "`*/*`, and namespaces without effect; naming hosts is refused"),
    ("Sidecar.outboundTrafficPolicy.mode", "with a `workloadSelector`, ALLOW_ANY is refused"),
    ("MeshConfig.tlsDefaults", "for TLS that the gateway opens, and TLS that ends at it"),
    ("MeshConfig.tlsDefaults.cipherSuites", "of TLS 1.2; one that is not spoken here is refused"),
    ("MeshConfig.tlsDefaults.ecdhCurves", "one that is not spoken here is refused"),
    (
        "MeshConfig.accessLogFormat",
        "in the `accessLogEncoding` that stands beside it (TEXT if none does); operators that are not known are refused",
    ),
    ("MeshConfig.rootNamespace", "for DestinationRules and Secrets"),
];

const GENERIC: [&str; 5] = ["x", "[x]", "{}", "[{}]", "1"];

/// Read and rightly without effect on egress, and without a finding.
const SILENT: [&str; 2] = ["ServiceEntry.location", "ServiceEntry.endpoints[].serviceAccount"];

#[test]
fn the_table_of_fields_is_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/README.md");
    let text = std::fs::read_to_string(&path).expect("the reference");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (table_there, after) = rest.split_once(END).expect("where the table ends");
    let table = table();
    if std::env::var_os("PORTCULLIS_UPDATE").is_some() {
        std::fs::write(&path, [before, BEGIN, &table, END, after].concat()).expect("written");
    } else {
        assert!(
            table == table_there,
            "config/README.md is not up to date: PORTCULLIS_UPDATE=1 cargo test --test config_fields"
        );
    }
}

fn table() -> String {
    let mut kinds: BTreeMap<usize, Vec<(String, &'static str)>> = BTreeMap::new();
    for (kind, parent, fields) in types() {
        let index = KINDS.iter().position(|(name, ..)| *name == kind).expect("a kind with a document");
        let rows = fields.into_iter().map(|field| {
            let path = format!("{parent}{field}");
            let standing = standing(index, &path);
            (path, standing)
        });
        kinds.entry(index).or_default().extend(rows);
    }
    let paths =
        || kinds.iter().flat_map(|(index, rows)| rows.iter().map(|row| format!("{}.{}", KINDS[*index].0, row.0)));
    for (field, _) in NOTES {
        assert!(paths().any(|path| path == *field), "a note on {field}, which does not exist");
    }
    let mut table = String::new();
    for (index, mut rows) in kinds {
        rows.sort();
        let _ = write!(table, "\n### {}\n\n| field | | |\n| --- | --- | --- |\n", KINDS[index].0);
        for (path, standing) in rows {
            let full = format!("{}.{path}", KINDS[index].0);
            let note = NOTES.iter().find(|(field, _)| *field == full).map_or("", |(_, note)| note);
            let _ = writeln!(table, "| `{path}` | {standing} | {note} |");
        }
    }
    table + "\n"
}

/// Writes the field into the kind's document and reads the findings about it.
fn standing(kind: usize, path: &str) -> &'static str {
    let (name, ..) = KINDS[kind];
    let full = format!("{name}.{path}");
    if let Some((_, standing)) = ELSEWHERE.iter().find(|(field, _)| *field == full) {
        return standing;
    }
    let prefix = if name == "MeshConfig" { "" } else { "spec." };
    let field = format!("{prefix}{}", path.replace("[]", "[0]"));
    let samples = SAMPLES.iter().filter(|(end, _)| full.ends_with(end)).map(|(_, sample)| *sample);
    let mut last = Vec::new();
    for sample in samples.chain(GENERIC) {
        let about: Vec<Finding> = load(kind, path, sample).into_iter().filter(|it| is_about(it, &field)).collect();
        let is_refused = about.iter().any(|it| it.severity == Severity::Error && it.code == "PC0004");
        let without_effect = about.iter().any(|it| matches!(it.code, "PC0004" | "PC0005" | "PC0011"));
        match about.iter().any(|it| it.severity == Severity::Error && it.code != "PC0004") {
            true => last = about,
            false if is_refused => return "refused",
            false if without_effect || SILENT.contains(&full.as_str()) => return "no effect",
            false => return "yes",
        }
    }
    panic!("no sample suits {full}: {last:#?}");
}

/// Whether a finding names the field or something within it.
fn is_about(finding: &Finding, field: &str) -> bool {
    let rest = finding.field.strip_prefix(field);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn load(kind: usize, path: &str, sample: &str) -> Vec<Finding> {
    let (name, group, spec) = KINDS[kind];
    let mut spec: Value = serde_yaml::from_str(spec).expect("YAML");
    if path == "targetRef" {
        // The deprecated form of targetRefs excludes it.
        spec.as_mapping_mut().expect("a mapping").remove("targetRefs");
    }
    set(&mut spec, path, serde_yaml::from_str(sample).expect("YAML"));
    let spec = serde_yaml::to_string(&spec).expect("YAML").replace('\n', "\n  ");
    let document = match group {
        "" => spec.replace("\n  ", "\n"),
        group => format!("apiVersion: {group}/v1\nkind: {name}\nmetadata: {{name: it}}\nspec:\n  {spec}\n"),
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file: PathBuf = folder.path().join("it.yaml");
    std::fs::write(&file, format!("---\n{document}\n{OTHER}")).expect("written");
    let loaded = Loader::default().load_paths(&[file]);
    loaded.map_or_else(|findings| findings, |loaded| loaded.findings)
}

/// Puts a value where `a[].b.c` says, making what is missing on the way.
fn set(value: &mut Value, path: &str, sample: Value) {
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    let is_list = key.ends_with("[]");
    let key = Value::from(key.trim_end_matches("[]"));
    if !value.is_mapping() {
        *value = Value::Mapping(serde_yaml::Mapping::new());
    }
    let slot = value.as_mapping_mut().expect("a mapping").entry(key).or_insert(Value::Null);
    let Some(rest) = rest else {
        *slot = sample;
        return;
    };
    if !is_list {
        return set(slot, rest, sample);
    }
    if !slot.is_sequence() {
        *slot = Value::Sequence(vec![Value::Null]);
    }
    set(&mut slot.as_sequence_mut().expect("a list")[0], rest, sample);
}

/// The fields of a type, as its derived `Deserialize` announces them, without the aliases in snake_case.
fn fields<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    let mut names = Vec::new();
    // It ends with an error as soon as the names are known.
    let _ = T::deserialize(Names(&mut names));
    names.retain(|name| !name.contains('_'));
    assert!(!names.is_empty(), "no type with fields");
    names
}

struct Names<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend_from_slice(fields);
        Err(de::Error::custom("enough"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
