//! Reading request heads, and the bytes of the client that are not consumed yet.

use std::io;

use crate::failure::Failure;
use crate::net::{Received, within};
use crate::wire::http1::{HeadLimits, Parsed, RequestHead, parse_request};

use super::{Client, Context};

/// Bytes received from the client: the head of the request under way, the beginning of its body, and what came
/// behind it.
///
/// Empty, without an allocation, while the connection waits for a request.
#[derive(Debug)]
pub(super) struct Inbound {
    bytes: Vec<u8>,
    /// Where the request under way begins; what is before it is over. Moving the rest to the front for every request
    /// would cost a client's read of thousands of requests thousands of moves of all of it.
    start: usize,
    head_len: usize,
    /// Bytes behind the head that have been taken as body.
    taken: usize,
    /// Whether more of the body came from the socket than is kept here: then it cannot be sent a second time, and
    /// where it ends is known to the exchange alone.
    streamed: bool,
}

impl Inbound {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, start: 0, head_len: 0, taken: 0, streamed: false }
    }

    /// The request under way and what is behind it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Adds what a read has brought.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Marks the head; what is behind it may be body.
    pub(super) fn begin_body(&mut self, head_len: usize) {
        (self.head_len, self.taken, self.streamed) = (head_len, 0, false);
    }

    /// What is behind the head and has not been taken yet.
    pub(super) fn untaken(&self) -> &[u8] {
        self.bytes().get(self.head_len + self.taken..).unwrap_or_default()
    }

    /// Marks bytes of [`Self::untaken`] as body.
    pub(super) fn take(&mut self, count: usize) {
        self.taken += count;
    }

    /// Takes out what is behind the head: the other protocol's, after an upgrade.
    pub(super) fn split_behind(&mut self) -> Vec<u8> {
        let behind = self.bytes.split_off((self.start + self.head_len).min(self.bytes.len()));
        self.bytes.shrink_to_fit();
        behind
    }

    /// Notes that body has come from the socket past this buffer, and keeps what a read brought beyond the body.
    pub(super) fn streamed(&mut self, behind: &[u8]) {
        self.streamed = true;
        self.bytes.extend_from_slice(behind);
    }

    /// Whether part of the body went past this buffer.
    pub(super) fn is_streamed(&self) -> bool {
        self.streamed
    }

    /// Gives the body back for another attempt. False, and nothing changes: part of it is gone.
    pub(super) fn rewind(&mut self) -> bool {
        if !self.streamed {
            self.taken = 0;
        }
        !self.streamed
    }

    /// Drops the request that is over; what is left belongs to the next one.
    pub(super) fn finish_request(&mut self) {
        self.start += self.head_len + self.taken;
        if self.start >= self.bytes.len() {
            (self.bytes, self.start) = (Vec::new(), 0);
        }
        self.begin_body(0);
    }
}

/// Reads the head of a request that has begun.
///
/// # Errors
/// The failure to answer; the bytes so far are in `inbound`.
pub(super) async fn read(inbound: &mut Inbound, client: &Client, context: &Context) -> Result<RequestHead, Failure> {
    match parse(inbound, context) {
        Some(result) => result,
        // Boxed: nearly every head comes in one piece.
        None => Box::pin(complete(inbound, client, context)).await,
    }
}

/// Waits for the first byte of a request, holding no configuration. False: there will be none.
pub(super) async fn awaken(inbound: &mut Inbound, client: &Client, context: &Context) -> bool {
    let mut idle_timeout = context.snapshot().settings.limits.http_idle_timeout;
    while inbound.bytes().is_empty() {
        if context.draining.get() {
            return false;
        }
        client.idle.set(true);
        let is_readable = match client.transport.connection() {
            Some(connection) => matches!(within(idle_timeout, connection.readable()).await, Some(Ok(()))),
            None => false,
        };
        client.idle.set(false);
        if !is_readable {
            return false;
        }
        match receive(inbound, client, context) {
            Ok(Received::Bytes(_)) => {}
            // Pieces of records, and records that say nothing, must not keep a place for ever.
            Ok(Received::Pending) => idle_timeout /= 2,
            Ok(Received::End) | Err(_) => return false,
        }
    }
    true
}

/// Reads on until a head that has begun is complete, within `requestHeadTimeout` from now, however slowly bytes arrive.
async fn complete(inbound: &mut Inbound, client: &Client, context: &Context) -> Result<RequestHead, Failure> {
    let head = async {
        loop {
            // An error of the poll shows at the call that follows.
            let _ = client.transport.readable().await;
            match receive(inbound, client, context) {
                Ok(Received::Bytes(_)) => {}
                Ok(Received::Pending) => continue,
                Ok(Received::End) | Err(_) => return Err(Failure::DownstreamClosed),
            }
            if let Some(result) = parse(inbound, context) {
                return result;
            }
        }
    };
    let timeout = context.snapshot().settings.limits.request_head_timeout;
    within(timeout, head).await.unwrap_or(Err(Failure::RequestHeadTimeout))
}

/// The head, if it is all there, or what is wrong with it.
fn parse(inbound: &Inbound, context: &Context) -> Option<Result<RequestHead, Failure>> {
    let snapshot = context.snapshot();
    let limits = &snapshot.settings.limits;
    let head_limits = HeadLimits { bytes: limits.request_head_bytes, fields: limits.request_headers };
    match parse_request(inbound.bytes(), head_limits) {
        Parsed::Complete(head) => Some(Ok(head)),
        Parsed::Rejected(error) => Some(Err(Failure::RequestMalformed(error))),
        Parsed::Incomplete => None,
    }
}

pub(super) fn receive(inbound: &mut Inbound, client: &Client, context: &Context) -> io::Result<Received> {
    let mut input = context.scratch.input.borrow_mut();
    let received = client.transport.receive(&mut input)?;
    if let Received::Bytes(count) = received {
        inbound.append(&input[..count]);
    }
    Ok(received)
}
