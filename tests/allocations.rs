//! The relay's steady path allocates nothing: counted, with both I/O drivers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use monoio::{Driver, IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use portcullis::net::{Pipes, Scratch, Socket};
use portcullis::relay::{self, End, Tools, Transferred};

/// How long the relay may wait for a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// What takes a connection of the relay: the other end of it.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// Sends messages to and fro through the relay, each once the last has arrived, and closes.
fn talk(client: TcpListener, upstream: TcpListener, messages: usize) {
    let accept = |listener: TcpListener| {
        let (stream, _) = listener.accept().expect("the relay connects");
        stream.set_nodelay(true).expect("it is open");
        stream
    };
    let (mut client, mut upstream) = (accept(client), accept(upstream));
    let pass = |from: &mut TcpStream, to: &mut TcpStream| {
        let mut message = [7; 1024];
        from.write_all(&message).expect("the relay reads");
        to.read_exact(&mut message).expect("the relay writes");
    };
    for _ in 0..messages {
        pass(&mut client, &mut upstream);
        pass(&mut upstream, &mut client);
    }
}

/// How often this thread allocates while it relays so many messages in each direction.
fn allocations<D: Driver>(runtime: &mut Runtime<D>, messages: usize) -> u64 {
    let ((client, at_client), (upstream, at_upstream)) = (listener(), listener());
    let peers = thread::spawn(move || talk(client, upstream, messages));
    let (scratch, pipes) = (Scratch::default(), Pipes::default());
    let (tools, moved) = (Tools { scratch: &scratch, pipes: &pipes }, Transferred::default());
    let counted = allocation_counter::measure(|| {
        runtime.block_on(async {
            let downstream = Socket::connect(at_client).await.expect("somebody listens");
            let upstream = Socket::connect(at_upstream).await.expect("somebody listens");
            let end = relay::relay(&downstream, &upstream, tools, &moved, PATIENCE).await;
            assert!(matches!(end, End::Finished), "{end:?}");
        });
    });
    peers.join().expect("every message arrives");
    assert_eq!((moved.upstream.get(), moved.downstream.get()), (messages as u64 * 1024, messages as u64 * 1024));
    counted.count_total
}

fn assert_steady<D: Driver>(mut runtime: Runtime<D>) {
    // Tables of the driver and of the timers have their size after the first.
    allocations(&mut runtime, 10);
    let (few, many) = (allocations(&mut runtime, 100), allocations(&mut runtime, 5_000));
    assert!(many <= few, "{few} allocations for 100 messages each way, {many} for 5,000");
}

#[test]
fn a_relay_allocates_nothing_for_its_messages_under_io_uring() {
    assert_steady(RuntimeBuilder::<IoUringDriver>::new().build().expect("the kernel has io_uring"));
}

#[test]
fn a_relay_allocates_nothing_for_its_messages_under_epoll() {
    assert_steady(RuntimeBuilder::<LegacyDriver>::new().build().expect("the kernel has epoll"));
}
