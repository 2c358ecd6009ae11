//! A name server that answers each name as the test says, honestly or not.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// RCODEs (RFC 1035 section 4.1.1).
pub(crate) const SERVFAIL: u8 = 2;
pub(crate) const NXDOMAIN: u8 = 3;
pub(crate) const REFUSED: u8 = 5;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;

/// What is done with a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These addresses, as far as the question's type fits, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// These addresses to questions for IPv4, silence to the others.
    FourOnly(Vec<IpAddr>),
    /// The name is another name's alias, and nothing more is known of that.
    Alias(String),
    /// The name is an alias, and these are the other's addresses.
    AliasOf(String, Vec<IpAddr>),
    /// This RCODE.
    Fault(u8),
    /// Nothing at all.
    Silence,
    /// Bytes that are no DNS message.
    Garbage,
    /// Over UDP an empty answer that says to ask over TCP; over TCP these addresses.
    Truncated(Vec<IpAddr>),
    /// The same, but nobody answers over TCP.
    TruncatedForEver,
    /// These addresses, but in answer to another query.
    WrongNumber(Vec<IpAddr>),
    /// These addresses, but for another name.
    WrongName(Vec<IpAddr>),
}

type Answers = dyn Fn(&str) -> Reply + Send + Sync;

/// The server; its threads end with the process.
pub(crate) struct Stub {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// Starts a server. `answers` gets names in lower case, without the last dot.
    pub(crate) fn start(answers: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        // The same port for both protocols, as a name server has it.
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("a port is free for both protocols");
        let address = udp.local_addr().expect("a bound socket has an address");
        let answers: Arc<Answers> = Arc::new(answers);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stub = Self { address, asked: Arc::clone(&asked) };
        let for_tcp = Arc::clone(&answers);
        thread::spawn(move || serve_udp(&udp, &*answers, &asked));
        thread::spawn(move || serve_tcp(&tcp, &for_tcp));
        stub
    }

    /// The bootstrap file's `dns.servers`.
    pub(crate) fn setting(&self) -> String {
        format!("  servers: [\"{}\"]\n", self.address)
    }

    /// The names that were asked for over UDP, with repetitions.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no server panics").clone()
    }
}

fn serve_udp(socket: &UdpSocket, answers: &Answers, asked: &Mutex<Vec<String>>) {
    let mut buffer = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        let query = Query::read(&buffer[..length]);
        asked.lock().expect("no server panics").push(query.name.clone());
        let reply = answers(&query.name);
        let is_truncated = matches!(reply, Reply::Truncated(_) | Reply::TruncatedForEver);
        let response = if is_truncated { Some(query.truncated()) } else { query.answer(&reply) };
        if let Some(response) = response {
            let _ = socket.send_to(&response, client);
        }
    }
}

fn serve_tcp(listener: &TcpListener, answers: &Arc<Answers>) {
    while let Ok((stream, _)) = listener.accept() {
        let answers = Arc::clone(answers);
        // Ends with its connection.
        thread::spawn(move || serve_stream(stream, &*answers));
    }
}

fn serve_stream(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let query = Query::read(&query);
        let mut reply = answers(&query.name);
        if let Reply::Truncated(addresses) = reply {
            reply = Reply::Addresses(addresses, 60);
        }
        let Some(response) = query.answer(&reply) else { return Ok(()) };
        let length = u16::try_from(response.len()).expect("answers of tests are short").to_be_bytes();
        stream.write_all(&[&length[..], &response].concat())?;
    }
}

/// A query with one question.
struct Query {
    id: [u8; 2],
    name: String,
    kind: u16,
    question: Vec<u8>,
}

impl Query {
    fn read(bytes: &[u8]) -> Self {
        let mut labels = Vec::new();
        let mut position = 12;
        while bytes[position] != 0 {
            let end = position + 1 + usize::from(bytes[position]);
            labels.push(String::from_utf8_lossy(&bytes[position + 1..end]).to_ascii_lowercase());
            position = end;
        }
        let question = bytes[12..position + 5].to_vec();
        let kind = u16::from_be_bytes([bytes[position + 1], bytes[position + 2]]);
        Self { id: [bytes[0], bytes[1]], name: labels.join("."), kind, question }
    }

    fn answer(&self, reply: &Reply) -> Option<Vec<u8>> {
        let wrong_id = [!self.id[0], self.id[1]];
        Some(match reply {
            Reply::Addresses(addresses, ttl) => self.message(self.id, 0, &self.addresses(&[0xc0, 12], addresses, *ttl)),
            Reply::FourOnly(_) if self.kind != TYPE_A => return None,
            Reply::FourOnly(addresses) => self.message(self.id, 0, &self.addresses(&[0xc0, 12], addresses, 60)),
            Reply::Alias(name) => self.message(self.id, 0, &[self.alias(name)]),
            Reply::AliasOf(name, addresses) => {
                let records = [vec![self.alias(name)], self.addresses(&encoded(name), addresses, 60)].concat();
                self.message(self.id, 0, &records)
            }
            Reply::Fault(rcode) => self.message(self.id, *rcode, &[]),
            Reply::Garbage => [&self.id[..], &[0xff; 40]].concat(),
            Reply::WrongNumber(addresses) => self.message(wrong_id, 0, &self.addresses(&[0xc0, 12], addresses, 60)),
            Reply::WrongName(addresses) => {
                self.message(self.id, 0, &self.addresses(&encoded("other.example"), addresses, 60))
            }
            Reply::Silence | Reply::Truncated(_) | Reply::TruncatedForEver => return None,
        })
    }

    fn truncated(&self) -> Vec<u8> {
        let mut message = self.message(self.id, 0, &[]);
        message[2] |= 2;
        message
    }

    /// Header, question, records.
    fn message(&self, id: [u8; 2], rcode: u8, records: &[Vec<u8>]) -> Vec<u8> {
        let count = u16::try_from(records.len()).expect("answers of tests are short").to_be_bytes();
        let header = [&id[..], &[0x81, 0x80 | rcode, 0, 1], &count, &[0, 0, 0, 0]].concat();
        [header, self.question.clone(), records.concat()].concat()
    }

    fn addresses(&self, owner: &[u8], addresses: &[IpAddr], ttl: u32) -> Vec<Vec<u8>> {
        let data = addresses.iter().filter_map(|address| match (address, self.kind) {
            (IpAddr::V4(address), TYPE_A) => Some(address.octets().to_vec()),
            (IpAddr::V6(address), TYPE_AAAA) => Some(address.octets().to_vec()),
            _ => None,
        });
        data.map(|data| record(owner, self.kind, ttl, &data)).collect()
    }

    fn alias(&self, name: &str) -> Vec<u8> {
        record(&[0xc0, 12], TYPE_CNAME, 60, &encoded(name))
    }
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("records of tests are short").to_be_bytes();
    [owner, &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length, data].concat()
}

/// A name as labels (RFC 1035 section 3.1).
fn encoded(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).expect("labels are short")], label.as_bytes()].concat();
    [name.split('.').flat_map(label).collect(), vec![0]].concat()
}
