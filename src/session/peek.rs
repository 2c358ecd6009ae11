//! The first bytes of a connection: TLS or HTTP, before anything is decided.

use crate::failure::Failure;
use crate::net::{Received, Socket, within};
use crate::wire::client_hello::{self, ClientHello, Parsed};

use super::Context;

/// What a client opened with. The bytes are what was received so far, to be replayed or parsed on.
#[derive(Debug)]
pub(super) enum Opening {
    /// A complete, legal ClientHello.
    Tls(ClientHello, Vec<u8>),
    /// Something else that may be the beginning of an HTTP/1 request.
    Http(Vec<u8>),
    /// The client closed without a byte.
    Nothing,
}

/// Reads until it is clear what the client speaks, within `helloTimeout` from now, however slowly bytes arrive.
pub(super) async fn peek(socket: &Socket, context: &Context) -> Result<Opening, Failure> {
    let limits = &context.snapshot().settings.limits;
    let opening = read_opening(socket, context, limits.hello_bytes);
    within(limits.hello_timeout, opening).await.unwrap_or(Err(Failure::HelloTimeout))
}

async fn read_opening(socket: &Socket, context: &Context, hello_bytes: usize) -> Result<Opening, Failure> {
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        {
            let mut input = context.scratch.input.borrow_mut();
            match socket.receive(&mut input) {
                Ok(Received::Bytes(count)) => bytes.extend_from_slice(&input[..count]),
                Ok(Received::End) | Err(_) if bytes.is_empty() => return Ok(Opening::Nothing),
                Ok(Received::End) | Err(_) => return Err(Failure::DownstreamClosed),
                Ok(Received::Pending) => {}
            }
        }
        match bytes.first() {
            Some(first) if may_begin_http(*first) => return Ok(Opening::Http(bytes)),
            Some(_) => match client_hello::parse(&bytes, hello_bytes) {
                Parsed::Complete(hello) => return Ok(Opening::Tls(hello, bytes)),
                Parsed::Rejected(reject) => return Err(Failure::HelloMalformed(reject)),
                Parsed::Incomplete => {}
            },
            None => {}
        }
        // An error shows at the next receive.
        let _ = socket.readable().await;
    }
}

/// A method is made of token characters (RFC 9110 section 9.1), and an empty line may come first (RFC 9112 section
/// 2.2). No TLS or SSLv2 record begins with one of these.
fn may_begin_http(byte: u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b'\r' | b'\n')
}
