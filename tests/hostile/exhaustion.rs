//! Attacks on descriptors: with few of them the gateway starts, does not spin, and recovers.

use std::io::Write;
use std::net::TcpStream;

use crate::scene::{HOST, Scene};
use crate::support::client;
use crate::support::gateway::Gateway;
use crate::support::service;
use crate::support::wait_until;

/// Few, but as much as some systems give.
const DESCRIPTORS: u32 = 256;

/// Connects as often as the kernel's queue takes it, whatever becomes of the connections.
fn flood(scene: &Scene, count: usize) -> Vec<TcpStream> {
    (0..count).filter_map(|_| TcpStream::connect(scene.gateway.http()).ok()).collect()
}

fn full() -> (Scene, Vec<TcpStream>) {
    let scene = Scene::with(Gateway::builder().descriptors(DESCRIPTORS), service::http);
    scene.assert_serves();
    let flood = flood(&scene, 400);
    scene.gateway.wait_for_diagnostic("out of descriptors");
    (scene, flood)
}

#[test]
fn a_gateway_out_of_descriptors_does_not_spin() {
    let (scene, _flood) = full();
    // The clock here is the gateway's own log of the flood: as long as it takes to be told twenty more times.
    let (told, ticks) =
        (scene.gateway.diagnostics().matches("out of descriptors").count(), scene.gateway.processor_ticks());
    let more = flood(&scene, 20);
    let started = std::time::Instant::now();
    wait_until("more refusals", || {
        (scene.gateway.diagnostics().matches("out of descriptors").count() >= told + 10).then_some(())
    });
    drop(more);
    let (elapsed, spent) = (started.elapsed().as_millis() / 10, u128::from(scene.gateway.processor_ticks() - ticks));
    assert!(spent <= 5 + elapsed / 2, "{spent} ticks of processor time in {elapsed}");
}

#[test]
fn a_gateway_out_of_descriptors_recovers_when_they_come_back() {
    let (scene, flood) = full();
    drop(flood);
    wait_until("a good request to pass again", || {
        let mut client = client::Http::try_connect(scene.gateway.http()).ok()?;
        client.socket().write_all(format!("GET /bytes/10 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).ok()?;
        client.try_response().ok().filter(|response| response.status == 200)
    });
    wait_until("the flood to be gone", || (scene.gateway.open_descriptors() < 128).then_some(()));
    assert!(scene.gateway.ask("/ready").is_some_and(|response| response.status == 200));
    // And once more, to the end: what was reserved for this is there again.
    let flood = self::flood(&scene, 400);
    drop(flood);
    wait_until("the second flood to be gone", || (scene.gateway.open_descriptors() < 128).then_some(()));
    assert_eq!(scene.gateway.client().get(HOST, "/bytes/10").status, 200);
}

#[test]
fn a_connection_that_is_open_is_served_while_no_other_can_be() {
    let scene = Scene::with(Gateway::builder().descriptors(DESCRIPTORS), service::http);
    let mut early = scene.gateway.client();
    assert_eq!(early.get(HOST, "/bytes/10").status, 200);
    let _flood = flood(&scene, 400);
    scene.gateway.wait_for_diagnostic("out of descriptors");
    // Its upstream connection waits in the pool.
    assert_eq!(early.get(HOST, "/bytes/10").status, 200);
    // A host that would need a new connection is refused in good order.
    assert_eq!(early.get("evil.example", "/").status, 502);
}
