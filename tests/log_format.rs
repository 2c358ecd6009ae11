//! Access logs in a format of the operator's own, from the real binary.

mod support;

use support::client::Http;
use support::gateway::{Gateway, command};
use support::resources;
use support::service;
use support::upstream::Upstream;
use support::wait_until;

const HOST: &str = "api.example.com";

/// A gateway with this format in front of an upstream that has been asked once, and blocked once; and its log.
fn log(mesh: &str) -> String {
    let upstream = Upstream::plain(service::http);
    let yaml = resources::http_entry("api", HOST, upstream.port());
    let gateway = Gateway::builder().host(HOST).mesh(mesh).resources(yaml).start();
    let mut client = Http::connect(gateway.http());
    client.send(format!("GET /hop HTTP/1.1\r\nHost: {HOST}\r\nX-Team: red \"team\"\r\n\r\n"));
    assert_eq!(client.response().status, 200);
    assert_eq!(client.get("blocked.example.com", "/").status, 502);
    wait_until("two lines", || Some(gateway.log().text()).filter(|text| text.matches('\n').count() >= 2))
}

#[test]
fn a_text_format_shows_what_it_names() {
    let format = "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% \\\"%REQ(X-TEAM)%\\\" %REQ(x-team):3% %RESP(X-PUBLIC)% \
                  %UPSTREAM_CLUSTER% 100%%";
    let text = log(&format!("  accessLogFormat: \"{format}\"\n"));
    let cluster = format!("outbound|80||{HOST}");
    let expected = format!(
        "GET /hop 200 \"red \\\"team\\\"\" red yes {cluster} 100%\nGET / 502 \"-\" - - BlackHoleCluster 100%\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn a_json_format_shows_what_it_names() {
    let format = r#"{"code": "%RESPONSE_CODE%", "team": "%REQ(X-TEAM)%", "who": {"host": "%REQ(:AUTHORITY)%"}, "took": "%DURATION% ms"}"#;
    let text = log(&format!("  accessLogEncoding: JSON\n  accessLogFormat: '{format}'\n"));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["code"], &lines[0]["team"]), (&200.into(), &"red \"team\"".into()));
    assert_eq!((&lines[1]["code"], &lines[1]["team"]), (&502.into(), &serde_json::Value::Null));
    assert_eq!(lines[0]["who"]["host"], HOST);
    assert!(lines[0]["took"].as_str().is_some_and(|took| took.ends_with(" ms")));
}

#[test]
fn an_operator_that_nobody_knows_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("mesh.yaml");
    std::fs::write(&file, "accessLogFormat: '%START_TIME% %UPSTREAM_PEER_SUBJECT%'\n").expect("the folder is ours");
    let output = command().arg("check").arg(&file).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("accessLogFormat") && text.contains("%UPSTREAM_PEER_SUBJECT%"), "{text}");
}

#[test]
fn what_was_audited_can_be_shown_beside_why_it_was_refused() {
    let audit = "  action: AUDIT\n  rules: [{}]\n";
    let deny = "  action: DENY\n  rules: [{to: [{operation: {paths: [/secret]}}]}]\n";
    let upstream = Upstream::plain(service::http);
    let yaml = [
        resources::http_entry("api", HOST, upstream.port()),
        resources::authorization_policy("watched", audit),
        resources::authorization_policy("all", audit),
        resources::authorization_policy("secret", deny),
    ];
    let format = "  accessLogFormat: '%RESPONSE_CODE% %DYNAMIC_METADATA(portcullis:audit)%'\n";
    let gateway = Gateway::builder().host(HOST).mesh(format).resources(yaml.concat()).start();
    assert_eq!(gateway.client().get(HOST, "/secret").status, 403);
    let text = wait_until("a line", || Some(gateway.log().text()).filter(|text| text.contains('\n')));
    assert_eq!(text, "403 ns[default]-policy[watched]-rule[0],ns[default]-policy[all]-rule[0]\n");
}
