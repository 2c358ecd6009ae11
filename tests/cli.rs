//! The command line as scripts rely on it: verbs, exit codes, what goes to stdout and what to stderr.

mod support;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use support::gateway::{Gateway, Port, command};
use support::resources::{self, GOOGLEAPIS};

/// Runs the binary to its end.
fn portcullis(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("the binary is built")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("stdout is text")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("stderr is text")
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a writable temporary folder");
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder is ours");
        fs::write(path, content).expect("the folder is ours");
    }
    directory
}

fn in_folder(directory: &TempDir, name: &str) -> String {
    path(&directory.path().join(name))
}

fn path(path: &Path) -> String {
    path.to_str().expect("temporary folders have plain names").to_owned()
}

/// A bootstrap file with one listener on a port that nobody uses, and its reservation.
fn bootstrap() -> (String, Port) {
    let port = Port::reserve();
    let yaml = format!(
        "listeners:\n- {{name: tls, bind: '127.0.0.1:{}', servicePort: 443}}\nresources: [resources.d]\n\
         meshConfig: {{accessLogFile: ''}}\nadmin: {{bind: 'unix:admin.sock'}}\n",
        port.number()
    );
    (yaml, port)
}

#[test]
fn bad_usage_is_2() {
    for arguments in [&[][..], &["fly"], &["run", "--altitude", "3"], &["get", "clouds"], &["--log-level", "=", "get"]]
    {
        assert_eq!(code(&portcullis(arguments)), 2, "{arguments:?}");
    }
}

#[test]
fn version_and_help_are_0_and_go_to_stdout() {
    let version = portcullis(&["-V"]);
    assert_eq!(code(&version), 0);
    assert!(stdout(&version).contains(env!("CARGO_PKG_VERSION")), "{}", stdout(&version));
    let help = portcullis(&["--help"]);
    assert_eq!(code(&help), 0);
    for verb in ["run", "check", "get", "demo"] {
        assert!(stdout(&help).contains(verb), "{}", stdout(&help));
    }
}

#[test]
fn a_missing_bootstrap_file_is_named() {
    for verb in ["run", "check"] {
        let output = portcullis(&[verb, "--config", "/nonexistent/portcullis.yaml"]);
        assert_eq!(code(&output), 1, "{verb}");
        let all = format!("{}{}", stdout(&output), stderr(&output));
        assert!(all.contains("/nonexistent/portcullis.yaml"), "{verb}: {all}");
    }
}

#[test]
fn the_environment_may_name_the_bootstrap_file() {
    let output = command().arg("check").env("PORTCULLIS_CONFIG", "/nonexistent/elsewhere.yaml").output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(format!("{}{}", stdout(&output), stderr(&output)).contains("/nonexistent/elsewhere.yaml"));
}

#[test]
fn an_unknown_key_of_the_bootstrap_file_is_an_error_that_names_it() {
    let (yaml, _port) = bootstrap();
    let directory = folder(&[("portcullis.yaml", &format!("{yaml}wrokers: 2\n")), ("resources.d/a.yaml", "")]);
    for verb in ["run", "check"] {
        let output = portcullis(&[verb, "--config", &in_folder(&directory, "portcullis.yaml")]);
        assert_eq!(code(&output), 1, "{verb}");
        assert!(format!("{}{}", stdout(&output), stderr(&output)).contains("wrokers"), "{verb}: {output:?}");
    }
}

#[test]
fn a_setting_that_says_nothing_known_is_an_error_and_never_a_default() {
    let (yaml, _port) = bootstrap();
    for (setting, field) in [
        ("tls: {ech: DENY}", "tls.ech"),
        ("headers: {forwarded: no}", "headers.forwarded"),
        ("headers: {mesh: strip}", "headers.mesh"),
        ("headers: {methodOverride: KEEP}", "headers.methodOverride"),
        ("headers: {underscores: REJECT}", "headers.underscores"),
        ("headers: {via: 'a, 1.1 b'}", "headers.via"),
        ("headers: {x: y}", "headers.x"),
    ] {
        let directory = folder(&[("portcullis.yaml", &format!("{yaml}{setting}\n")), ("resources.d/a.yaml", "")]);
        let output = portcullis(&["check", "--config", &in_folder(&directory, "portcullis.yaml")]);
        assert_eq!(code(&output), 1, "{setting}");
        assert!(stdout(&output).contains(field), "{setting}: {}", stdout(&output));
    }
}

#[test]
fn a_missing_resources_folder_is_an_error_that_names_it() {
    let (yaml, _port) = bootstrap();
    let directory = folder(&[("portcullis.yaml", &yaml)]);
    let output = portcullis(&["run", "--config", &in_folder(&directory, "portcullis.yaml")]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("resources.d"), "{}", stderr(&output));
}

#[test]
fn an_empty_resources_folder_is_a_warning() {
    let (yaml, _port) = bootstrap();
    let directory = folder(&[("portcullis.yaml", &yaml)]);
    fs::create_dir(directory.path().join("resources.d")).unwrap();
    let config = in_folder(&directory, "portcullis.yaml");
    assert_eq!(code(&portcullis(&["check", "--config", &config])), 0);
    assert_eq!(code(&portcullis(&["check", "--config", &config, "--strict"])), 1);
}

#[test]
fn check_accepts_the_published_examples() {
    for example in [resources::PUBLISHED_PASSTHROUGH, resources::PUBLISHED_ORIGINATION] {
        let directory = folder(&[("example.yaml", example)]);
        let output = portcullis(&["check", &in_folder(&directory, "example.yaml")]);
        assert_eq!(code(&output), 0, "{}{}", stdout(&output), stderr(&output));
    }
}

const TWO_MISTAKES: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata:
  name: first
spec:
  hosts: [a.example.com]
  ports:
  - {number: 99999, name: tls, protocol: TLS}
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: second
spec:
  hosts: [b.example.com]
  tls:
  - match:
    - sniHosts: [other.example.com]
    route:
    - destination: {host: b.example.com}
";

#[test]
fn check_reports_every_mistake_at_once_with_its_place() {
    let directory = folder(&[("bad.yaml", TWO_MISTAKES)]);
    let output = portcullis(&["check", &in_folder(&directory, "bad.yaml")]);
    assert_eq!(code(&output), 1);
    for part in ["first", "second", "bad.yaml:"] {
        assert!(stdout(&output).contains(part), "no {part:?} in {}", stdout(&output));
    }
}

#[test]
fn check_in_json_has_the_documented_fields() {
    let directory = folder(&[("bad.yaml", TWO_MISTAKES)]);
    let output = portcullis(&["check", "-o", "json", &in_folder(&directory, "bad.yaml")]);
    assert_eq!(code(&output), 1);
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is JSON and nothing else");
    let findings = report["findings"].as_array().expect("findings is a list");
    for finding in findings {
        for field in ["severity", "code", "kind", "namespace", "name", "field", "message", "source"] {
            assert!(finding[field].is_string(), "no {field} in {finding}");
        }
    }
    let error = |name: &str| findings.iter().find(|finding| finding["name"] == name && finding["severity"] == "error");
    let second = error("second").expect("an error in the second object");
    assert_eq!((second["kind"].as_str(), second["namespace"].as_str()), (Some("VirtualService"), Some("default")));
    assert!(second["source"].as_str().unwrap().contains("bad.yaml:"), "{second}");
    assert!(error("first").is_some(), "{report}");
}

#[test]
fn check_of_nothing_wrong_in_json_has_no_findings() {
    let directory = folder(&[("good.yaml", &resources::tls_entry("api", "api.example.com", 443))]);
    let output = portcullis(&["check", "-o", "json", &in_folder(&directory, "good.yaml")]);
    assert_eq!(code(&output), 0);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report, serde_json::json!({"findings": []}));
}

#[test]
fn a_taken_port_is_named() {
    // Listening without SO_REUSEPORT, as another program would.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let yaml = format!(
        "listeners: [{{name: tls, bind: '{address}'}}]\nresources: [resources.d]\nadmin: {{bind: 'unix:admin.sock'}}\n"
    );
    let directory = folder(&[("portcullis.yaml", &yaml), ("resources.d/a.yaml", "")]);
    let output = portcullis(&["run", "--config", &in_folder(&directory, "portcullis.yaml")]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
    assert!(stderr(&output).to_lowercase().contains("in use"), "{}", stderr(&output));
}

#[test]
fn a_taken_admin_port_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (yaml, _port) = bootstrap();
    let yaml = yaml.replace("unix:admin.sock", &address);
    let directory = folder(&[("portcullis.yaml", &yaml), ("resources.d/a.yaml", "")]);
    let output = portcullis(&["run", "--config", &in_folder(&directory, "portcullis.yaml")]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn get_shows_what_is_in_force() {
    let gateway = Gateway::builder().host(GOOGLEAPIS).resources(resources::PUBLISHED_PASSTHROUGH).start();
    let admin = gateway.admin().to_string();
    let table = portcullis(&["get", "serviceentries", "--admin", &admin]);
    assert_eq!(code(&table), 0, "{}", stderr(&table));
    let header = stdout(&table).lines().next().expect("a header");
    let columns: Vec<_> = header.split_whitespace().collect();
    assert_eq!(columns, ["NAMESPACE", "NAME", "HOSTS", "PORTS", "RESOLUTION", "AGE"]);
    let row = stdout(&table).lines().nth(1).expect("a row");
    assert!(row.contains("googleapis") && row.contains(GOOGLEAPIS) && row.contains("DNS"), "{row}");

    let json = portcullis(&["get", "serviceentries", "--admin", &admin, "-o", "json"]);
    assert!(stdout(&json).contains(GOOGLEAPIS) && serde_json::from_slice::<Value>(&json.stdout).is_ok());
    let yaml = portcullis(&["get", "virtualservices", "--admin", &admin, "-o", "yaml"]);
    assert!(stdout(&yaml).contains("kind: VirtualService"), "{}", stdout(&yaml));
}

#[test]
fn get_shows_no_secret_that_a_resource_holds() {
    let routes = "  - match: [{headers: {authorization: {exact: hunter-1}}}]\n    headers: {request: {set: {x-api-key: hunter-2, x-team: blue}}}\n    route: [{destination: {host: www.googleapis.com}}]\n";
    let yaml = resources::http_entry("a", GOOGLEAPIS, 80) + &resources::virtual_service("a", GOOGLEAPIS, routes);
    let gateway = Gateway::builder().host(GOOGLEAPIS).resources(yaml).start();
    for form in ["table", "yaml", "json"] {
        let shown = portcullis(&["get", "virtualservices", "--admin", &gateway.admin().to_string(), "-o", form]);
        assert!(!stdout(&shown).contains("hunter"), "{}", stdout(&shown));
        assert_eq!(stdout(&shown).contains("blue"), form != "table", "{}", stdout(&shown));
    }
}

#[test]
fn get_shows_nothing_of_what_was_deleted() {
    let gateway = Gateway::builder().host(GOOGLEAPIS).resources(resources::PUBLISHED_PASSTHROUGH).start();
    gateway.reload("");
    let output = portcullis(&["get", "serviceentries", "--admin", &gateway.admin().to_string()]);
    assert_eq!(code(&output), 0);
    assert!(!stdout(&output).contains(GOOGLEAPIS), "{}", stdout(&output));
}

#[test]
fn get_without_a_gateway_is_1() {
    let port = Port::reserve();
    let output = portcullis(&["get", "serviceentries", "--admin", &format!("127.0.0.1:{}", port.number())]);
    assert_eq!((code(&output), stdout(&output)), (1, ""));
    assert!(!stderr(&output).is_empty());
}

#[test]
fn the_admin_endpoint_refuses_other_host_names() {
    let gateway = Gateway::builder().start();
    let mut browser = support::client::Http::connect(gateway.admin());
    browser.send("GET /config_dump HTTP/1.1\r\nHost: attacker.example\r\nConnection: close\r\n\r\n");
    assert!(matches!(browser.response().status, 400..500));
    assert_eq!(gateway.ask("/config_dump").expect("the admin endpoint answers").status, 200);
}
