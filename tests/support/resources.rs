//! Istio resources as operators write them.

/// The name that the published examples open.
pub(crate) const GOOGLEAPIS: &str = "www.googleapis.com";

/// The first published example, word for word: HTTPS to a web service, passed through.
pub(crate) const PUBLISHED_PASSTHROUGH: &str = "\
apiVersion: networking.istio.io/v1alpha3
kind: ServiceEntry
metadata:
  name: googleapis
spec:
  hosts:
  - www.googleapis.com
  ports:
  - number: 443
    name: https
    protocol: HTTPS
  location: MESH_EXTERNAL
  resolution: DNS
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: googleapis
spec:
  hosts:
  - www.googleapis.com
  tls:
  - match:
    - port: 443
      sni_hosts:
      - www.googleapis.com
    route:
    - destination:
        host: www.googleapis.com
        port:
          number: 443
      weight: 100
";

/// The second published example, word for word: plain HTTP, TLS originated by the gateway.
pub(crate) const PUBLISHED_ORIGINATION: &str = "\
apiVersion: networking.istio.io/v1alpha3
kind: ServiceEntry
metadata:
  name: googleapis
spec:
  hosts:
  - www.googleapis.com
  ports:
  - number: 80
    name: http
    protocol: HTTP
  - number: 443
    name: https
    protocol: HTTPS
  resolution: DNS
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: rewrite-port-for-googleapis
spec:
  hosts:
  - www.googleapis.com
  http:
  - match:
    - port: 80
    route:
    - destination:
        host: www.googleapis.com
        port:
          number: 443
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: originate-tls-for-googleapis
spec:
  host: www.googleapis.com
  trafficPolicy:
    loadBalancer:
      simple: ROUND_ROBIN
    portLevelSettings:
    - port:
        number: 443
      tls:
        mode: SIMPLE # initiates HTTPS when accessing www.googleapis.com
";

/// An example whose port 443 is served on the upstream's own port: `targetPort`, nothing else, is added.
pub(crate) fn with_target_port(example: &str, port: u16) -> String {
    let (before, after) = ("    protocol: HTTPS\n", format!("    protocol: HTTPS\n    targetPort: {port}\n"));
    assert!(example.contains(before), "the example has no HTTPS port");
    example.replace(before, &after)
}

/// The first published example in front of an upstream.
pub(crate) fn passthrough(port: u16) -> String {
    with_target_port(PUBLISHED_PASSTHROUGH, port)
}

/// The second published example in front of an upstream.
pub(crate) fn origination(port: u16) -> String {
    with_target_port(PUBLISHED_ORIGINATION, port)
}

/// A ServiceEntry alone: TLS to `host`.
pub(crate) fn tls_entry(name: &str, host: &str, port: u16) -> String {
    entry(name, host, 443, "TLS", port)
}

/// A ServiceEntry alone: plain HTTP to `host`, plain HTTP onwards.
pub(crate) fn http_entry(name: &str, host: &str, port: u16) -> String {
    entry(name, host, 80, "HTTP", port)
}

/// Plain HTTP to `host`, TLS onwards: the newer published form, with `targetPort` and a rule for port 80.
pub(crate) fn originating_entry(name: &str, host: &str, port: u16) -> String {
    format!("{}{}", http_entry(name, host, port), destination_rule(name, host, "      mode: SIMPLE\n"))
}

/// A DestinationRule for port 80 of `host`; `tls` are the lines of its TLS settings.
pub(crate) fn destination_rule(name: &str, host: &str, tls: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {name}
spec:
  host: {host}
  trafficPolicy:
    portLevelSettings:
    - port:
        number: 80
      tls:
{}",
        tls.replace("      ", "        ")
    )
}

/// A VirtualService for port 80 of `host`; `http` are the lines of its routes.
pub(crate) fn virtual_service(name: &str, host: &str, http: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: {name}
spec:
  hosts: [{host}]
  http:
{http}"
    )
}

/// An AuthorizationPolicy; `rest` are the lines of its spec.
pub(crate) fn authorization_policy(name: &str, rest: &str) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: {name}
spec:
{rest}"
    )
}

fn entry(name: &str, host: &str, number: u16, protocol: &str, target: u16) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: {name}
spec:
  hosts: ['{host}']
  ports:
  - number: {number}
    name: port-{number}
    protocol: {protocol}
    targetPort: {target}
  resolution: DNS
"
    )
}
