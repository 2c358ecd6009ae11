//! Admin over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::*;
use crate::config::bootstrap::AdminBind;
use crate::control::fixture;
use crate::control::gateway::Gateway;
use crate::control::shared::{Phase, ReloadResult};

/// Runs `test` beside an admin listener of a gateway with two workers.
async fn with_admin<T: Future<Output = ()>>(test: impl FnOnce(SocketAddr, Gateway) -> T) {
    let (gateway, commands) = fixture::gateway(2);
    let listener = Listener::bind(&AdminBind::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let Listener::Tcp(_, address) = &listener else { panic!("not TCP") };
    let address = *address;
    let local = LocalSet::new();
    local.spawn_local(serve(listener, gateway.shared.clone(), commands));
    local.run_until(tokio::time::timeout(Duration::from_secs(20), test(address, gateway))).await.unwrap();
}

/// Sends a whole request and returns the whole answer.
async fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.replace("ADMIN", &address.to_string()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: ADMIN\r\n\r\n")).await
}

fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn ready_follows_the_phase() {
    with_admin(async |address, gateway: Gateway| {
        let live = get(address, "/ready").await;
        assert!(live.starts_with("HTTP/1.1 200 ") && live.ends_with("\r\n\r\nLIVE\n"), "{live}");
        gateway.shared.status.borrow_mut().phase = Phase::Draining;
        let draining = get(address, "/ready").await;
        assert!(draining.starts_with("HTTP/1.1 503 ") && draining.ends_with("DRAINING\n"), "{draining}");
    })
    .await;
}

#[tokio::test]
async fn other_hosts_and_other_sites_are_refused() {
    with_admin(async |address, _gateway| {
        for request in [
            "GET /ready HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
            "GET /ready HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
            "GET /ready HTTP/1.0\r\n\r\n",
            "GET /ready HTTP/1.1\r\nHost: ADMIN\r\nHost: ADMIN\r\n\r\n",
            "GET http://attacker.example/ready HTTP/1.1\r\nHost: ADMIN\r\n\r\n",
            "POST /drain HTTP/1.1\r\nHost: ADMIN\r\nOrigin: http://attacker.example\r\nContent-Length: 0\r\n\r\n",
        ] {
            let answer = send(address, request).await;
            assert!(answer.contains(" 403 "), "{request}\n{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_have_their_own_statuses() {
    with_admin(async |address, mut gateway: Gateway| {
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404 "));
        let answer = get(address, "/drain").await.to_lowercase();
        assert!(answer.starts_with("http/1.1 405 ") && answer.contains("\r\nallow: post\r\n"), "{answer}");
        let post = send(address, "POST /ready HTTP/1.1\r\nHost: ADMIN\r\nContent-Length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
        assert!(gateway.sources.commands.try_recv().is_err());
    })
    .await;
}

#[tokio::test]
async fn metrics_come_from_every_worker_under_both_paths() {
    with_admin(async |address, _gateway| {
        for path in ["/metrics", "/stats/prometheus"] {
            let answer = get(address, path).await;
            assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer}");
            assert!(answer.contains("\nportcullis_sessions_active{worker=\"0\"} 10\n"), "{answer}");
            assert!(answer.contains("\nportcullis_sessions_active{worker=\"1\"} 11\n"), "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn objects_in_force_are_shown() {
    with_admin(async |address, gateway: Gateway| {
        gateway.shared.status.borrow_mut().objects = fixture::loaded().objects.into();
        let entries = body(&get(address, "/serviceentries").await);
        assert_eq!(entries[0]["hosts"][0], "www.googleapis.com");
        assert_eq!(body(&get(address, "/gateways").await), serde_json::json!([]));
        let dump = body(&get(address, "/config_dump").await);
        assert_eq!((&dump["generation"], &dump["objects"][0]["name"]), (&1.into(), &"googleapis".into()));
        assert_eq!(body(&get(address, "/denied").await), serde_json::json!([]));
    })
    .await;
}

#[tokio::test]
async fn server_info_and_the_page_tell_the_state() {
    with_admin(async |address, _gateway| {
        let info = body(&get(address, "/server_info").await);
        assert_eq!((&info["state"], &info["workers"], &info["generation"]), (&"LIVE".into(), &2.into(), &1.into()));
        assert_eq!((&info["driver"], &info["lastReload"]["successful"]), (&"io_uring".into(), &true.into()));
        let page = get(address, "/").await;
        assert!(page.contains("text/html") && page.contains("<td>LIVE"), "{page}");
    })
    .await;
}

#[tokio::test]
async fn a_reload_is_answered_when_it_has_ended() {
    with_admin(async |address, mut gateway: Gateway| {
        for (successful, status) in [(true, " 200 "), (false, " 422 ")] {
            let play = async {
                let Some(Command::Reload(waiter)) = gateway.sources.commands.recv().await else { panic!("no reload") };
                waiter.send(ReloadResult { successful, generation: 7, findings: Arc::default() }).unwrap();
            };
            let request = "POST /reload HTTP/1.1\r\nHost: ADMIN\r\nContent-Length: 0\r\n\r\n";
            let (answer, ()) = tokio::join!(send(address, request), play);
            assert!(answer.contains(status), "{answer}");
            assert_eq!(body(&answer)["generation"], 7);
        }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_needs_no_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let (gateway, commands) = fixture::gateway(1);
    let listener = Listener::bind(&AdminBind::Unix(path.clone())).await.unwrap();
    let local = LocalSet::new();
    local.spawn_local(serve(listener, gateway.shared.clone(), commands));
    let asked = tokio::task::spawn_blocking(move || client::get(&client::Address::Unix(path), "/ready"));
    assert_eq!(local.run_until(asked).await.unwrap().unwrap(), b"LIVE\n");
}
