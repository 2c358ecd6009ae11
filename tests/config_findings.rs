//! What `portcullis check` says about bad configurations: exit code, lines, JSON.

use std::process::{Command, Output};

/// A bootstrap file and resources in a folder of their own.
struct Setup {
    folder: tempfile::TempDir,
}

const LISTENERS: &str = "listeners: [{name: tls, bind: '127.0.0.1:8443', servicePort: 443}]\n";
const RESOURCES: &str = "resources: [resources.yaml]\n";
const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec:\n  hosts: [a.example.com]\n  ports: [{number: 443, name: https, protocol: HTTPS}]\n  resolution: DNS\n";

impl Setup {
    fn new(bootstrap: &str, resources: &str) -> Self {
        let setup = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        setup.write("portcullis.yaml", bootstrap);
        setup.write("resources.yaml", resources);
        setup
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("written");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.current_dir(self.folder.path()).env_remove("PORTCULLIS_CONFIG").arg("check").args(arguments);
        command.output().expect("portcullis runs")
    }

    /// Exit code and stdout of a check of the bootstrap file.
    fn check(&self) -> (Option<i32>, String) {
        let output = self.run(&["--config", "portcullis.yaml"]);
        (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
    }
}

#[test]
fn a_good_configuration_has_no_findings() {
    let bootstrap = [LISTENERS, RESOURCES].concat();
    let (code, text) = Setup::new(&bootstrap, ENTRY).check();
    assert_eq!((code, text.as_str()), (Some(0), "no findings\n"));
}

#[test]
fn every_fault_of_the_bootstrap_file_is_named_with_its_line() {
    let bootstrap = "workers: 5000\nspin: 1s\nlisteners:\n- name: a\n  bind: nowhere\n- name: b\n  bind: 127.0.0.1:0\n  capture: MAYBE\nresources: [missing.d]\nio_driver: auto\nmeshConfig:\n  connectTimeout: 10\ndrain: {timeout: never}\n";
    let (code, text) = Setup::new(bootstrap, ENTRY).check();
    assert_eq!(code, Some(1), "{text}");
    // A wrong type ends decoding; the unknown key is named beside it.
    for line in ["meshConfig.connectTimeout portcullis.yaml:12: ", "io_driver portcullis.yaml:10: unknown key"] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let (code, text) = Setup::new(&bootstrap.replace(": 10\n", ": 10h\n"), ENTRY).check();
    assert_eq!(code, Some(1), "{text}");
    for line in [
        "error Bootstrap workers portcullis.yaml:1: ",
        "error Bootstrap spin portcullis.yaml:2: ",
        "error Bootstrap listeners[0].bind portcullis.yaml:5: ",
        "error Bootstrap listeners[1].bind portcullis.yaml:7: ",
        "error Bootstrap listeners[1].capture portcullis.yaml:8: ",
        "error Bootstrap resources[0] portcullis.yaml:9: ",
        "error Bootstrap meshConfig.connectTimeout portcullis.yaml:12: ",
        "error Bootstrap drain.timeout portcullis.yaml:13: ",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn limits_have_bounds() {
    for (limit, is_valid) in [
        ("helloBytes: 65536", true),
        ("helloBytes: 65KiB", false),
        ("helloBytes: 0", false),
        ("helloTimeout: 2h", false),
        ("helloTimeout: 0s", false),
        ("requestHeadBytes: 1MiB", true),
        ("requestHeaders: 1001", false),
        ("tunnelIdleTimeout: 25h", false),
        ("sessionsPerSource: 10", true),
        ("sessionsPerSource: 0", false),
        ("requestBytes: 1", false),
    ] {
        let bootstrap = [LISTENERS, RESOURCES, "limits: {", limit, "}\n"].concat();
        let (code, text) = Setup::new(&bootstrap, ENTRY).check();
        assert_eq!(code, Some(i32::from(!is_valid)), "{limit}: {text}");
    }
}

#[test]
fn a_missing_or_broken_file_is_an_error_and_an_empty_folder_is_not() {
    let setup = Setup::new("", ENTRY);
    assert_eq!(setup.run(&["--config", "nowhere.yaml"]).status.code(), Some(1));
    assert_eq!(setup.run(&["--config", "portcullis.yaml"]).status.code(), Some(1));
    assert_eq!(setup.run(&["nowhere.d"]).status.code(), Some(1));
    std::fs::create_dir(setup.folder.path().join("empty.d")).expect("created");
    let output = setup.run(&["empty.d"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing is allowed"));
    std::fs::write(setup.folder.path().join("bytes.yaml"), b"a: \xff\n").expect("written");
    let output = setup.run(&["bytes.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("not UTF-8"));
}

#[test]
fn strict_turns_warnings_into_failure() {
    let setup = Setup::new("", &ENTRY.replace("resolution: DNS", "resolution: DNS\n  colour: red"));
    assert_eq!(setup.run(&["resources.yaml"]).status.code(), Some(0));
    assert_eq!(setup.run(&["resources.yaml", "--strict"]).status.code(), Some(1));
    assert_eq!(setup.run(&["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn json_names_object_field_and_line() {
    let setup = Setup::new("", &ENTRY.replace("a.example.com", "'*'"));
    let output = setup.run(&["resources.yaml", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let finding = serde_json::json!({
        "severity": "error", "code": "IST0106", "kind": "ServiceEntry", "namespace": "default", "name": "a",
        "field": "spec.hosts[0]", "message": "invalid host *", "source": "resources.yaml:5",
    });
    assert_eq!(json, serde_json::json!({ "findings": [finding] }));
}

#[test]
fn a_destination_that_is_the_gateway_itself_is_refused() {
    let bootstrap = [LISTENERS, RESOURCES, "dns: {hosts: {a.example.com: [127.0.0.1]}}\n"].concat();
    let to_listener = ENTRY.replace("number: 443", "number: 443, targetPort: 8443");
    let (code, text) = Setup::new(&bootstrap, &to_listener).check();
    assert!(code == Some(1) && text.contains("[PC0008]"), "{text}");
    let endpoint = "resolution: STATIC\n  endpoints: [{address: 127.0.0.1, ports: {https: 15000}}]";
    let to_admin = ENTRY.replace("resolution: DNS", endpoint);
    let (code, text) = Setup::new(&bootstrap, &to_admin).check();
    assert!(code == Some(1) && text.contains("spec.endpoints[0].address") && text.contains("[PC0008]"), "{text}");
    let elsewhere = ENTRY.replace("resolution: DNS", &endpoint.replace("15000", "9443"));
    assert_eq!(Setup::new(&bootstrap, &elsewhere).check().0, Some(0));
}

#[test]
fn all_findings_come_at_once_and_broken_documents_spare_the_others() {
    let text = [ENTRY, "---\nkind: [\n---\n", &ENTRY.replace("DNS", "SOON").replace("name: a", "name: b")].concat();
    let output = Setup::new("", &text).run(&["resources.yaml"]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("[PC0002]") && text.contains("spec.resolution resources.yaml:17"), "{text}");
    assert!(text.ends_with("2 errors, 0 warnings, 0 infos\n"), "{text}");
}

/// At a Gateway whose VirtualService has a wildcard nothing says whose the name is, and the policy would be passed by.
#[test]
fn a_policy_about_an_entry_is_refused_where_a_gateway_takes_its_host_by_a_wildcard() {
    const AT_GATEWAY: &str = "listeners: [{name: gateway, bind: '127.0.0.1:8080', servicePort: 80, gateway: true}]\n";
    let resources = |host: &str| {
        format!(
            "{ENTRY}---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: egress}}
spec: {{servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['*']}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routes}}
spec: {{hosts: ['{host}'], gateways: [egress], http: [{{route: [{{destination: {{host: a.example.com, port: {{number: 443}}}}}}]}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: only-reading}}
spec:
  targetRefs: [{{group: networking.istio.io, kind: ServiceEntry, name: a}}]
  rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]
"
        )
    };
    let refused = |listeners: &str, host: &str| {
        let (code, text) = Setup::new(&[listeners, RESOURCES].concat(), &resources(host)).check();
        let line = text.lines().find(|line| line.contains("spec.targetRefs") && line.starts_with("error"));
        assert_eq!(code == Some(1), line.is_some(), "{text}");
        line.is_some()
    };
    for wildcard in ["*.example.com", "*"] {
        assert!(refused(AT_GATEWAY, wildcard), "{wildcard}");
    }
    assert!(!refused(AT_GATEWAY, "a.example.com"), "the name itself is found");
    assert!(!refused(LISTENERS, "*.example.com"), "nobody comes to the Gateway itself");
}
