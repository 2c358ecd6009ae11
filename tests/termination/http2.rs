//! Clients that speak HTTP/2 within TLS, as ALPN has them agree.

use std::sync::Arc;

use rustls::ClientConfig;

use crate::frames::{Raw, get};
use crate::scene::{API, MUTUAL, SIMPLE, Scene, server};
use crate::support::client::{self, TlsClient};

/// A connection in HTTP/2.
fn connect(scene: &Scene, mut config: ClientConfig) -> Raw<TlsClient> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = client::tls_with(&Arc::new(config), scene.gateway.tls(), API).expect("a handshake");
    assert_eq!(socket.conn.alpn_protocol(), Some(b"h2".as_slice()));
    Raw::over(socket, &[])
}

#[test]
fn curl_speaks_http2_and_is_logged_with_its_server_name() {
    let scene = Scene::new(SIMPLE);
    let url = "https://api.example.com/bytes/3000000";
    let Some(output) = scene.curl(&["--http2", "-o", "/dev/null", "-w", "%{http_version} %{size_download}", url])
    else {
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 3000000", "{output:?}");
    let line = scene.gateway.log().first();
    assert_eq!((line.request.as_str(), line.server_name.as_str()), ("GET /bytes/3000000 HTTP/2", API));
    let body = "x".repeat(300_000);
    let file = scene.gateway.directory().join("body");
    std::fs::write(&file, &body).expect("the folder is ours");
    let data = format!("@{}", file.display());
    let Some(output) = scene.curl(&["--http2", "--data-binary", &data, "https://api.example.com/echo"]) else { return };
    assert!(output.stdout.ends_with(body.as_bytes()), "{} bytes", output.stdout.len());
}

#[test]
fn a_request_for_a_host_of_another_server_is_misdirected() {
    let scene = Scene::with(
        |_| {
            server("wide", "HTTPS", "'*.example.com'", SIMPLE)
                + &server("narrow", "HTTPS", "strict.example.com", SIMPLE)
        },
        |builder| builder,
    );
    for (host, status) in [("strict.example.com", 421), ("other.org", 421), ("192.0.2.1", 421)] {
        let mut raw = connect(&scene, client::trusting(&scene.authority));
        assert_eq!(raw.ask(1, &get(API, "/bytes/1")), Some(200));
        assert_eq!(raw.ask(3, &get(host, "/bytes/1")), Some(status), "{host}");
    }
}

#[test]
fn a_client_that_would_not_be_let_in_any_more_is_sent_away_at_its_next_request() {
    let scene = Scene::new(MUTUAL);
    let (good, bad) = (scene.clients.issue("good"), scene.clients.issue("bad"));
    let (mut good, mut bad) = (connect(&scene, scene.showing(&good)), connect(&scene, scene.showing(&bad)));
    assert_eq!((good.ask(1, &get(API, "/bytes/1")), bad.ask(1, &get(API, "/bytes/1"))), (Some(200), Some(200)));
    let narrowed = format!("{MUTUAL}, subjectAltNames: [good]");
    scene.gateway.reload(&scene.resources(&server("https", "HTTPS", API, &narrowed)));
    assert_eq!((good.ask(3, &get(API, "/bytes/1")), bad.ask(3, &get(API, "/bytes/1"))), (Some(200), Some(421)));
}
