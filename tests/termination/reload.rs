//! Certificates that change while clients are connected.

use rustix::process::Signal;

use crate::scene::{API, MUTUAL, SIMPLE, Scene, server};
use crate::support::certificates::{Authority, Identity};
use crate::support::client::{self, tls};
use crate::support::gateway::command;
use crate::support::wait_until;

/// Replaces certificate and key, and reloads.
#[track_caller]
fn renew(scene: &Scene, identity: &Identity) {
    let before = scene.gateway.generation();
    scene.write_credential("egress", "tls.crt", &identity.certificate_pem);
    scene.write_credential("egress", "tls.key", &identity.key_pem);
    scene.gateway.signal(Signal::HUP);
    wait_until("the new certificate", || (scene.gateway.generation() > before).then_some(()));
}

#[test]
fn new_clients_see_a_new_certificate_and_old_connections_live_on() {
    let scene = Scene::new(SIMPLE);
    let mut old = scene.client();
    assert_eq!(old.get(API, "/bytes/1").status, 200);
    let authority = Authority::new();
    renew(&scene, &authority.issue(API));
    assert_eq!(old.get(API, "/bytes/1").status, 200);
    assert!(tls(scene.gateway.tls(), API, &authority).is_ok());
    assert!(scene.try_client(&client::trusting(&scene.authority), API).is_err());
}

#[test]
fn a_certificate_that_is_not_there_or_does_not_fit_its_key_leaves_the_old_one_in_force() {
    let scene = Scene::new(SIMPLE);
    scene.write_credential("egress", "tls.key", &Identity::self_signed(API).key_pem);
    scene.gateway.signal(Signal::HUP);
    scene.gateway.wait_for_diagnostic("spec.servers[0].tls.credentialName");
    scene.gateway.wait_for_diagnostic("KeyMismatch");
    assert_eq!(scene.client().get(API, "/bytes/1").status, 200);
    std::fs::remove_file(scene.gateway.directory().join("credentials/egress/tls.crt")).expect("it is there");
    let output = command().args(["check", "--config"]).arg(scene.gateway.config()).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("tls.crt: missing") && told.contains("Gateway default/egress"), "{told}");
    scene.gateway.signal(Signal::HUP);
    scene.gateway.wait_for_diagnostic("tls.crt: missing");
    assert_eq!(scene.client().get(API, "/bytes/1").status, 200);
}

#[test]
fn a_client_that_would_not_be_let_in_any_more_is_sent_away_at_its_next_request() {
    let scene = Scene::new(MUTUAL);
    let (good, bad) = (scene.clients.issue("good"), scene.clients.issue("bad"));
    let connect = |identity| scene.try_client(&scene.showing(identity), API).expect("a handshake");
    let (mut good, mut bad) = (connect(&good), connect(&bad));
    let bad_identity = scene.clients.issue("unused");
    assert_eq!((good.get(API, "/bytes/1").status, bad.get(API, "/bytes/1").status), (200, 200));
    drop(bad_identity);
    let narrowed = format!("{MUTUAL}, subjectAltNames: [good]");
    scene.gateway.reload(&scene.resources(&server("https", "HTTPS", API, &narrowed)));
    assert_eq!(good.get(API, "/bytes/1").status, 200);
    assert_eq!(bad.get(API, "/bytes/1").status, 421);
}

#[test]
fn a_server_that_becomes_mutual_lets_no_earlier_client_go_on_nor_resume() {
    let scene = Scene::new(SIMPLE);
    let config = client::trusting(&scene.authority);
    let mut client = scene.try_client(&config, API).expect("a handshake");
    assert_eq!(client.get(API, "/bytes/1").status, 200);
    scene.gateway.reload(&scene.resources(&server("https", "HTTPS", API, MUTUAL)));
    assert_eq!(client.get(API, "/bytes/1").status, 421);
    let mut again = scene.try_client(&config, API).expect("TLS 1.3 tells clients later");
    again.send(format!("GET /bytes/1 HTTP/1.1\r\nHost: {API}\r\n\r\n"));
    assert!(again.response().is_err());
    let resumed = "portcullis_downstream_tls_handshakes_total{result=\"success\",resumed=\"true\"}";
    assert_eq!(scene.gateway.metric(resumed), Some(0.0));
}

#[test]
fn sessions_outlive_a_reload_that_changes_something_else() {
    let scene = Scene::new(SIMPLE);
    let config = client::trusting(&scene.authority);
    assert_eq!(scene.try_client(&config, API).expect("a handshake").get(API, "/bytes/1").status, 200);
    scene.gateway.reload(&(scene.resources(&server("https", "HTTPS", API, SIMPLE)) + "\n# a comment\n"));
    assert_eq!(scene.try_client(&config, API).expect("a handshake").get(API, "/bytes/1").status, 200);
    let resumed = "portcullis_downstream_tls_handshakes_total{result=\"success\",resumed=\"true\"}";
    assert_eq!(scene.gateway.metric(resumed), Some(1.0));
}

#[test]
fn a_server_that_is_gone_sends_its_clients_away() {
    let scene = Scene::new(SIMPLE);
    let mut client = scene.client();
    assert_eq!(client.get(API, "/bytes/1").status, 200);
    scene.gateway.reload(&scene.resources(&server("https", "HTTPS", "other.example.com", SIMPLE)));
    assert_eq!(client.get(API, "/bytes/1").status, 421);
}
