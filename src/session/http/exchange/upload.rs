//! The request on its way to the upstream.

use std::time::Instant;

use crate::failure::Failure;
use crate::http2::StreamError;
use crate::limits::Limits;
use crate::net::{Received, SEALED_OFFSET};
use crate::upstream::connection::ConnectionError;
use crate::wire::http1::{
    BodyLength, BodyLimits, BodyReader, RequestEdits, write_chunk, write_last_chunk, write_request,
};
use crate::wire::http2::of_request;

use super::super::super::outgoing::COPIED_BYTES_MAX;
use super::super::super::stream::ClientStream;
use super::super::forward::Plan;
use super::super::mirror;
use super::Exchange;

impl Exchange<'_, '_> {
    /// Sends the head and as much of the body as is here already, in one piece.
    pub(super) fn send_request(&mut self, plan: &Plan<'_>) -> Result<(), Failure> {
        let scratch = &self.turn.context.scratch;
        let mut plain = scratch.plain.borrow_mut();
        plain.clear();
        let bytes = self.turn.inbound.bytes();
        let host = plan.edits.authority.as_deref().unwrap_or_else(|| self.turn.head.authority.text(bytes));
        let via = self.turn.snapshot.settings.fields.via.as_deref();
        let (target, fields) = (plan.target.text(bytes), &plan.edits.request);
        let edits = RequestEdits { target, host, upgrade: true, via, fields };
        write_request(&self.turn.head, bytes, &edits, &mut plain);
        let (taken, data) = upload(&mut self.upload, self.turn.head.body, self.turn.inbound.untaken(), &mut plain)?;
        if self.turn.copied.is_some() {
            let body = &self.turn.inbound.untaken()[..taken.consumed];
            mirror::note(&mut self.turn.copied, body, true, self.upload.is_done());
        }
        self.turn.story.bytes_received = taken.data;
        if let Some(stream) = self.turn.client.transport.stream() {
            if stream.takes_trailers() {
                self.connection.want_trailers();
            }
            self.pass_trailers(stream);
        }
        let result = self.connection.send_both(&plain, data, scratch);
        plain.clear();
        self.turn.inbound.take(taken.consumed);
        self.sent_at = Instant::now();
        match result {
            Err(ConnectionError::Stream(StreamError::Untranslatable(error))) => Err(Failure::RequestMalformed(error)),
            Err(error) => {
                self.abandon(&error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Passes on what follows the body, if that is what comes next.
    fn pass_trailers(&self, stream: &ClientStream) {
        if self.upload.is_done()
            && let Some(trailers) = stream.trailers()
        {
            self.connection.set_trailers(of_request(trailers, self.terms.request_fields));
        }
    }

    /// Stops sending after an error. An upstream that answers early and closes does not read the rest of the request
    /// (RFC 9112 section 9.5): what it said must still be heard. If it said nothing, that shows when receiving.
    pub(super) fn abandon(&mut self, error: &ConnectionError) {
        self.turn.story.transport_failure = Some(error.to_string());
        self.connection.abandon_sending();
        self.abandoned = true;
    }

    /// Passes on what the client has sent of its body.
    pub(super) fn receive_body(&mut self) -> Result<(), Failure> {
        let scratch = &self.turn.context.scratch;
        let mut input = scratch.input.borrow_mut();
        let input = &mut input[SEALED_OFFSET..];
        let count = match self.turn.client.transport.receive(input) {
            Ok(Received::Bytes(count)) => count,
            Ok(Received::Pending) => return Ok(()),
            Ok(Received::End) => return Err(Failure::DownstreamClosed),
            Err(error) => return Err(self.turn.lost(&error)),
        };
        let mut plain = scratch.plain.borrow_mut();
        plain.clear();
        let (taken, data) = upload(&mut self.upload, self.turn.head.body, &input[..count], &mut plain)?;
        self.turn.inbound.streamed(&input[taken.consumed..count]);
        if self.turn.copied.is_some() {
            mirror::note(&mut self.turn.copied, &input[..taken.consumed], false, self.upload.is_done());
        }
        self.turn.story.bytes_received += taken.data;
        if let Some(stream) = self.turn.client.transport.stream() {
            self.pass_trailers(stream);
        }
        let result = self.connection.send_both(&plain, data, scratch);
        plain.clear();
        drop(plain);
        self.sent_at = Instant::now();
        if let Err(error) = result {
            self.abandon(&error);
        }
        Ok(())
    }
}

/// What [`upload`] has taken.
struct Taken {
    /// Bytes that belong to the message.
    consumed: usize,
    /// Data among them.
    data: u64,
}

/// Appends to `output` what the upstream gets of the request body at the front of `bytes`, framed anew, but for data that
/// can be sent as it is: that is returned, to be sent behind `output`.
fn upload<'b>(
    reader: &mut BodyReader,
    length: BodyLength,
    bytes: &'b [u8],
    output: &mut Vec<u8>,
) -> Result<(Taken, &'b [u8]), Failure> {
    let mut taken = Taken { consumed: 0, data: 0 };
    let mut plain_data: &[u8] = &[];
    while !reader.is_done() {
        let step = reader.step(&bytes[taken.consumed..]).map_err(|_| Failure::RequestBodyMalformed)?;
        let data = &bytes[taken.consumed..][step.data];
        match length {
            BodyLength::Chunked => write_chunk(data, output),
            // A body that is not chunked is one run of data, of which the last look may find no more.
            BodyLength::None | BodyLength::Fixed(_) | BodyLength::UntilClose if data.is_empty() => {}
            BodyLength::None | BodyLength::Fixed(_) | BodyLength::UntilClose => {
                output.extend_from_slice(std::mem::replace(&mut plain_data, data));
            }
        }
        taken.data += data.len() as u64;
        taken.consumed += step.consumed;
        if step.done && length == BodyLength::Chunked {
            write_last_chunk(output);
        }
        if step.consumed == 0 {
            break;
        }
    }
    if plain_data.len() <= COPIED_BYTES_MAX {
        output.extend_from_slice(std::mem::take(&mut plain_data));
    }
    Ok((taken, plain_data))
}

/// Bytes at the front of `bytes` that belong to a body which nobody wants. A body that breaks its framing never ends.
pub(in super::super) fn discard(reader: &mut BodyReader, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while !reader.is_done() {
        match reader.step(&bytes[taken..]) {
            Ok(step) if step.consumed > 0 => taken += step.consumed,
            Ok(_) | Err(_) => break,
        }
    }
    taken
}

pub(in super::super) fn body_limits(limits: &Limits) -> BodyLimits {
    BodyLimits { trailer_bytes: limits.trailer_bytes, chunk_extension_bytes: limits.chunk_extension_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(length: BodyLength, bytes: &[u8]) -> (Vec<u8>, usize) {
        let mut output = Vec::new();
        let mut reader = BodyReader::new(length, body_limits(&Limits::default()));
        let (taken, data) = upload(&mut reader, length, bytes, &mut output).expect("the framing is good");
        assert_eq!(taken.consumed, bytes.len());
        (output, data.len())
    }

    #[test]
    fn a_body_of_known_length_is_sent_from_where_it_was_read_however_much_is_missing() {
        let bytes = [b'x'; 100_000];
        for missing in [0, 1, 1_000_000] {
            assert_eq!(taken(BodyLength::Fixed(100_000 + missing), &bytes), (Vec::new(), 100_000), "{missing}");
        }
    }

    #[test]
    fn a_little_of_a_body_is_copied_behind_its_head() {
        assert_eq!(taken(BodyLength::Fixed(9), b"some data"), (b"some data".to_vec(), 0));
    }

    #[test]
    fn chunks_are_framed_anew() {
        let (output, data) = taken(BodyLength::Chunked, b"5;name=value\r\nchunk\r\n0\r\n\r\n");
        assert_eq!((output.as_slice(), data), (&b"5\r\nchunk\r\n0\r\n\r\n"[..], 0));
    }
}
