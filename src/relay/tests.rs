//! What sockets of the system cannot be made to do from outside.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::thread;

use super::*;
use crate::net::{Accepted, Either, Listener, Ticker, either, sleep};

/// How long a test may take that a fault would keep for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test under epoll, on a thread that is left behind if it never ends.
fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let (done, finished) = channel();
    thread::spawn(move || {
        let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build().expect("epoll works");
        let outcome =
            runtime.block_on(async { either(Ticker::new().expect("a descriptor is free").run(), test()).await });
        // Nobody waits any more if the test has taken too long.
        let _ = done.send(matches!(outcome, Either::Second(())));
    });
    assert_eq!(finished.recv_timeout(PATIENCE), Ok(true), "it ends, and well");
}

/// Both ends of one connection: what is sent at one has arrived at the other when the call returns.
async fn ends() -> (Socket, Socket) {
    for _ in 0..10 {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address: SocketAddr = free.expect("a port is free");
        // Somebody else may have taken it meanwhile.
        let Ok(listener) = Listener::bind(address, false) else { continue };
        let Ok(one) = Socket::connect(address).await else { continue };
        listener.readable().await.expect("the driver polls");
        if let Ok(Accepted::Connection(other, _)) = listener.accept() {
            return (one, other);
        }
    }
    panic!("no connection on loopback");
}

/// Under epoll a wait for bytes that are there already is none. The relay stands between the two ends of one connection,
/// so that what it sends is what it finds at its next look: small reads that never end.
#[test]
fn a_direction_that_finds_bytes_at_every_look_gives_way_to_others() {
    run(|| async {
        let (one, other) = ends().await;
        let (scratch, pipes) = (Scratch::default(), Pipes::default());
        let (tools, moved) = (Tools { scratch: &scratch, pipes: &pipes }, Transferred::default());
        assert_eq!(other.send(b"round and round").expect("it is open"), 15);
        let relay = relay(&one, &other, tools, &moved, PATIENCE);
        // Somebody else, who sees that the relay has had more than one turn, and so had some of his own.
        let others = async {
            while moved.upstream.get() <= 15 * RELAY_ROUNDS_MAX as u64 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        if let Either::First(end) = either(relay, others).await {
            panic!("the relay ended: {end:?}");
        }
    });
}
