//! The resources that the demo applies, as an operator would write them.

/// The name that the embedded service stands in for.
pub(super) const NAME: &str = "www.googleapis.com";

/// HTTPS to the service, encrypted end to end. `targetPort` is where the embedded service listens; for the real one
/// it would be left out.
pub(super) fn pass_through(port: u16) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: googleapis
spec:
  hosts: [{NAME}]
  ports:
  - {{number: 443, name: https, protocol: HTTPS, targetPort: {port}}}
  location: MESH_EXTERNAL
  resolution: DNS
"
    )
}

/// Plain HTTP from the workload, HTTPS to the service, and only the Books API.
pub(super) fn originate(port: u16) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: googleapis
spec:
  hosts: [{NAME}]
  ports:
  - {{number: 80, name: http, protocol: HTTP}}
  - {{number: 443, name: https, protocol: HTTPS, targetPort: {port}}}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: books-only
spec:
  hosts: [{NAME}]
  http:
  - name: books
    match:
    - port: 80
      uri: {{prefix: /books/}}
    route:
    - destination: {{host: {NAME}, port: {{number: 443}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: originate-tls
spec:
  host: {NAME}
  trafficPolicy:
    portLevelSettings:
    - port: {{number: 443}}
      tls: {{mode: SIMPLE}}
"
    )
}
