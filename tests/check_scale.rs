//! `portcullis check` of very many documents: what they cost grows with their number, and no faster.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything that looks at other objects is asked for: routes of the mesh and of a Gateway, policies that name
/// entries, rules for hosts, and a listener for Gateways.
const BOOTSTRAP: &str = "\
listeners:
- {name: http, bind: '127.0.0.1:8080', servicePort: 80}
- {name: tls, bind: '127.0.0.1:8443', servicePort: 443}
- {name: gateway, bind: '127.0.0.1:8081', servicePort: 80, gateway: true}
resources: [resources.yaml]
";

const GATEWAY: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}
";

/// The four documents of one service.
fn documents(index: usize) -> String {
    let host = format!("api-{index}.zone-{}.example.com", index / 100);
    let gateway = "istio-egressgateway";
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api-{index}}}
spec:
  hosts: [{host}]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 443}}, {{number: 443, name: tls, protocol: TLS}}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: api-{index}}}
spec:
  hosts: [{host}]
  gateways: [mesh, egress]
  http:
  - {{match: [{{gateways: [mesh]}}], route: [{{destination: {{host: {gateway}, port: {{number: 80}}}}}}]}}
  - {{match: [{{gateways: [egress], uri: {{prefix: /books}}}}], route: [{{destination: {{host: {host}, port: {{number: 80}}}}}}]}}
  tls:
  - {{match: [{{gateways: [mesh], port: 443, sniHosts: [{host}]}}], route: [{{destination: {{host: {gateway}, port: {{number: 443}}}}}}]}}
  - {{match: [{{gateways: [egress], port: 443, sniHosts: [{host}]}}], route: [{{destination: {{host: {host}, port: {{number: 443}}}}}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: api-{index}}}
spec: {{host: {host}, trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, tls: {{mode: SIMPLE}}}}]}}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: api-{index}}}
spec:
  targetRefs: [{{group: networking.istio.io, kind: ServiceEntry, name: api-{index}}}]
  rules: [{{to: [{{operation: {{methods: [GET], paths: [/books/*]}}}}]}}]
"
    )
}

/// Processor time that a check of this many services takes, in ticks of a hundredth of a second.
fn cost(folder: &Path, services: usize) -> u64 {
    let text: String = (0..services).map(documents).collect();
    fs::write(folder.join("portcullis.yaml"), BOOTSTRAP).expect("the folder is ours");
    fs::write(folder.join("resources.yaml"), GATEWAY.to_owned() + &text).expect("the folder is ours");
    let before = ticks_of_children();
    let mut check = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output = check.args(["check", "--config"]).arg(folder.join("portcullis.yaml")).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    ticks_of_children() - before
}

/// `cutime` of proc_pid_stat(5): of children that were waited for. The only test of its process has no others.
fn ticks_of_children() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("the kernel tells");
    let (_, behind_name) = stat.rsplit_once(')').expect("a name in parentheses");
    behind_name.split_whitespace().nth(13).and_then(|ticks| ticks.parse().ok()).expect("a number")
}

#[test]
fn a_check_of_four_times_the_documents_takes_some_four_times_as_long() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (few, many) = (cost(folder.path(), 1_000), cost(folder.path(), 4_000));
    // Sixteen times as long would be the square.
    assert!(many < 8 * few.max(10), "4,000 documents took {few} ticks, and 16,000 took {many}");
}
