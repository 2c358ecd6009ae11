//! A name server that gives every name the same answer, for the rules that hold only for resolved names.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;

/// A server on a UDP port of its own; its thread ends with the process.
pub(crate) struct Nameserver {
    address: SocketAddr,
}

const HEADER_BYTES: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
/// QR, RD and RA (RFC 1035 section 4.1.1).
const ANSWER: [u8; 2] = [0x81, 0x80];
/// The same with RCODE 3.
const NO_SUCH_NAME: [u8; 2] = [0x81, 0x83];

impl Nameserver {
    /// Every name has this one address.
    pub(crate) fn answering(address: Ipv4Addr) -> Self {
        Self::start(Some(address))
    }

    /// No name exists.
    pub(crate) fn knowing_nothing() -> Self {
        Self::start(None)
    }

    fn start(answer: Option<Ipv4Addr>) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = socket.local_addr().expect("a bound socket has an address");
        thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                let _ = socket.send_to(&respond(&query[..length], answer), client);
            }
        });
        Self { address }
    }

    /// The bootstrap file's `dns.servers`.
    pub(crate) fn setting(&self) -> String {
        format!("  servers: [\"{}\"]\n", self.address)
    }
}

/// The answer to a query: its question again, and one A record if the question was for one.
fn respond(query: &[u8], answer: Option<Ipv4Addr>) -> Vec<u8> {
    let name_length = query[HEADER_BYTES..].iter().position(|&byte| byte == 0).expect("a name ends with the root") + 1;
    let question = &query[HEADER_BYTES..HEADER_BYTES + name_length + 4];
    let address = answer.filter(|_| question[name_length..name_length + 2] == TYPE_A);
    let flags = if answer.is_some() { ANSWER } else { NO_SUCH_NAME };
    let answers = [0, u8::from(address.is_some())];
    let mut response = [&query[..2], &flags, &[0, 1], &answers, &[0, 0, 0, 0], question].concat();
    if let Some(address) = address {
        // The name of the question (a pointer to it), type A, class IN, 60 s, 4 bytes.
        response.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        response.extend(address.octets());
    }
    response
}
