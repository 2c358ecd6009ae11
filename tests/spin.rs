//! A worker that looks for more work before it sleeps (`spin`) serves as every other does.

mod support;

use std::io::{Read, Write};

use rustix::process::Signal;

use support::client;
use support::gateway::Gateway;
use support::resources::{self, GOOGLEAPIS};
use support::service;
use support::upstream::Upstream;

#[test]
fn a_spinning_worker_serves_all_of_its_clients() {
    let upstream = Upstream::plain(service::echo);
    let builder = Gateway::builder().host(GOOGLEAPIS).setting("spin: 200us\n");
    let gateway = builder.resources(resources::passthrough(upstream.port())).start();
    let hello = client::hello(GOOGLEAPIS);
    let mut clients: Vec<_> = (0..8).map(|_| client::connect(gateway.tls())).collect();
    for round in 0..20 {
        for socket in &mut clients {
            socket.write_all(if round == 0 { &hello } else { b"ping" }).unwrap();
        }
        for socket in &mut clients {
            let mut echoed = vec![0; if round == 0 { hello.len() } else { 4 }];
            socket.read_exact(&mut echoed).unwrap();
            assert_eq!(echoed, if round == 0 { &hello[..] } else { b"ping" });
        }
    }
}

#[test]
fn a_spinning_worker_obeys_reloads_and_ends() {
    let upstream = Upstream::plain(service::echo);
    let builder = Gateway::builder().host(GOOGLEAPIS).setting("spin: 1ms\n");
    let mut gateway = builder.resources(resources::passthrough(upstream.port())).start();
    gateway.reload("");
    gateway.signal(Signal::TERM);
    assert!(gateway.wait_exit().success());
}
