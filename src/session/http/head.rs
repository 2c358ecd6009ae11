//! Reading request heads, and the bytes of the client that are not consumed yet.

use std::time::Instant;

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

/// Reads the next request head. `None`: the connection ended, or stayed silent, between two requests.
///
/// # Errors
/// The failure to answer; the bytes so far are in `inbound`.
pub(super) async fn read(
    inbound: &mut Inbound,
    client: &Client,
    context: &Context,
) -> Result<Option<RequestHead>, Failure> {
    let snapshot = context.snapshot();
    let limits = &snapshot.settings.limits;
    let head_limits = HeadLimits { bytes: limits.request_head_bytes, fields: limits.request_headers };
    let mut deadline = None;
    loop {
        if !inbound.bytes().is_empty() {
            match parse_request(inbound.bytes(), head_limits) {
                Parsed::Complete(head) => return Ok(Some(head)),
                Parsed::Rejected(error) => return Err(Failure::RequestMalformed(error)),
                Parsed::Incomplete => {}
            }
        }
        // Idle until the first byte, which starts the absolute clock of the head.
        let wait = match (inbound.bytes().is_empty(), deadline) {
            (true, _) if context.draining.get() => return Ok(None),
            (true, _) => limits.http_idle_timeout,
            (false, None) => {
                deadline = Some(Instant::now() + limits.request_head_timeout);
                limits.request_head_timeout
            }
            (false, Some(deadline)) => deadline.saturating_duration_since(Instant::now()),
        };
        client.idle.set(inbound.bytes().is_empty());
        let received = receive(inbound, client, context, wait).await;
        client.idle.set(false);
        match received {
            Arrival::Bytes => {}
            _ if inbound.bytes().is_empty() => return Ok(None),
            Arrival::End => return Err(Failure::DownstreamClosed),
            Arrival::Silence => return Err(Failure::RequestHeadTimeout),
        }
    }
}

enum Arrival {
    Bytes,
    End,
    Silence,
}

async fn receive(inbound: &mut Inbound, client: &Client, context: &Context, wait: std::time::Duration) -> Arrival {
    loop {
        match within(wait, client.socket.readable()).await {
            None => return Arrival::Silence,
            Some(Err(_)) => return Arrival::End,
            Some(Ok(())) => {}
        }
        let mut input = context.scratch.input.borrow_mut();
        match client.socket.receive(&mut input) {
            Ok(Received::Bytes(count)) => {
                inbound.append(&input[..count]);
                return Arrival::Bytes;
            }
            Ok(Received::End) | Err(_) => return Arrival::End,
            Ok(Received::Pending) => {}
        }
    }
}
