//! The response on its way to the client.

use std::time::Instant;

use crate::failure::Failure;
use crate::limits::{HTTP2_SESSION_READ_BYTES, SCRATCH_BYTES};
use crate::upstream::connection::{ConnectionError, Intake};
use crate::upstream::outlier::Outcome;
use crate::wire::http1::{
    BodyLength, BodyReader, HeadLimits, NO_FIELD_EDITS, Parsed, ResponseEdits, ResponseHead, SWITCHING_PROTOCOLS,
    Version, downstream_length, parse_response, write_chunk, write_last_chunk, write_response,
};
use crate::wire::http2::of_answer;

use super::super::super::outgoing::{Outgoing, keep};
use super::{Broken, Exchange, body_limits};

/// Statuses below this one are interim (RFC 9110 section 15.2).
const FINAL_STATUS_MIN: u16 = 200;

/// An interim response is passed on as it is, but not to clients of HTTP/1.0, which know none.
const INTERIM: ResponseEdits<'_> = ResponseEdits { keep_alive: true, http10: false, fields: &NO_FIELD_EDITS };

/// A response of which the head has been passed on.
pub(super) struct Response {
    body: BodyReader,
    /// The framing towards the client.
    length: BodyLength,
    pub(super) upstream_keeps: bool,
    pub(super) client_keeps: bool,
    pub(super) done: bool,
}

impl Exchange<'_, '_> {
    /// Passes on what the upstream has sent.
    pub(super) fn receive_response(&mut self) -> Result<(), Broken> {
        let context = self.turn.context;
        let scratch = &context.scratch;
        let (mut input, mut output) = (scratch.input.borrow_mut(), scratch.output.borrow_mut());
        let mut pieces = scratch.pieces.borrow_mut();
        let most = self.read_bytes();
        let intake = self.connection.receive_pieces(&mut input, most, &mut pieces);
        let mut outgoing = Outgoing::new(&mut output);
        let passed = pieces.drain(..).try_for_each(|piece| self.pass_on(&input[piece], &mut outgoing));
        let result = passed.and_then(|()| self.note_end(intake, outgoing.made()).map_err(Broken::from));
        if self.connection.is_stream()
            && let Some(trailers) = self.connection.take_trailers()
        {
            self.turn.client.transport.set_trailers(of_answer(trailers, self.terms.fields));
        }
        // What came before a fault is passed on all the same.
        let sent = self.send_to_client(&outgoing);
        drop(outgoing);
        output.clear();
        result.and(sent.map_err(Broken::from))
    }

    /// Most that is taken from the upstream at once: what a stream has no room for has to be kept.
    fn read_bytes(&self) -> usize {
        match self.turn.client.transport.stream() {
            None => SCRATCH_BYTES,
            Some(_) => HTTP2_SESSION_READ_BYTES,
        }
    }

    /// Sends in one call; what the socket does not take is kept.
    fn send_to_client(&mut self, outgoing: &Outgoing<'_>) -> Result<(), Failure> {
        let pieces = outgoing.pieces();
        if pieces.is_empty() {
            return Ok(());
        }
        let sent = self.turn.client.transport.send_pieces(&pieces).map_err(|_| Failure::DownstreamClosed)?;
        keep(&pieces, sent, &mut self.pending);
        Ok(())
    }

    /// Looks whether the upstream has finished sending.
    fn note_end(&mut self, intake: Result<Intake, ConnectionError>, output: &mut Vec<u8>) -> Result<(), Failure> {
        if self.switched {
            // The end is no end of a message any more; what broke in the middle of a record stays broken.
            return intake
                .map(drop)
                .map_err(|error| self.turn.story.transport(Failure::UpstreamTruncated, &error.to_string()));
        }
        match intake {
            Ok(Intake::Data) if self.connection.has_ended() => self.upstream_ended(true, output),
            Ok(Intake::Data | Intake::Pending) => Ok(()),
            Ok(Intake::End) => self.upstream_ended(true, output),
            Ok(Intake::Truncated) => self.upstream_ended(false, output),
            Err(error) => {
                self.turn.story.transport_failure = Some(error.to_string());
                let ended = self.upstream_ended(false, output);
                ended.map_err(|failure| if failure == Failure::UpstreamClosed { error.failure() } else { failure })
            }
        }
    }

    /// Adds to `outgoing` what the client gets of `piece`.
    fn pass_on<'p>(&mut self, piece: &'p [u8], outgoing: &mut Outgoing<'p>) -> Result<(), Broken> {
        let awaits_head = self.response.is_none() && !self.switched;
        let body = if awaits_head { &piece[self.pass_heads(piece, outgoing.made())?..] } else { piece };
        if self.switched {
            self.turn.story.bytes_sent += body.len() as u64;
            outgoing.push(body);
        } else if self.response.is_some() {
            self.pass_body(body, outgoing)?;
        }
        Ok(())
    }

    /// Passes on the heads at the front of `piece`, the first of which may have begun before it. Returns how much of
    /// `piece` they are.
    fn pass_heads(&mut self, piece: &[u8], output: &mut Vec<u8>) -> Result<usize, Broken> {
        if self.head_bytes.is_empty() {
            return self.pass_whole_heads(piece, output);
        }
        let mut bytes = std::mem::take(&mut self.head_bytes);
        let begun = bytes.len();
        bytes.extend_from_slice(piece);
        let passed = self.pass_whole_heads(&bytes, output)?;
        debug_assert!(passed >= begun, "a head that had not ended does not end before the piece");
        Ok(passed.saturating_sub(begun))
    }

    /// As [`Self::pass_heads`], where no head has begun before. The beginning of one that does not end is kept, and counts.
    fn pass_whole_heads(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> Result<usize, Broken> {
        let limits = &self.turn.snapshot.settings.limits;
        let head_limits = HeadLimits { bytes: limits.request_head_bytes, fields: limits.request_headers };
        let interim_max = limits.interim_responses;
        let to_head = self.turn.head.method.of(self.turn.inbound.bytes()) == b"HEAD";
        let mut passed = 0;
        loop {
            let rest = &bytes[passed..];
            let head = match parse_response(rest, head_limits, to_head) {
                Parsed::Complete(head) => head,
                Parsed::Incomplete => {
                    self.head_bytes = rest.to_vec();
                    return Ok(bytes.len());
                }
                Parsed::Rejected(error) => {
                    return Err(self.turn.story.transport(Failure::ResponseMalformed, &error.to_string()).into());
                }
            };
            let head_bytes = &rest[..head.head.len as usize];
            passed += head_bytes.len();
            if head.status >= FINAL_STATUS_MIN {
                if let Some(account) = self.connection.account() {
                    account.report(self.connection.address, Outcome::Answered(head.status));
                }
                if self.terms.retry_on.contains(&head.status) && !self.turn.inbound.is_streamed() {
                    return Err(Broken::Status);
                }
                self.begin_response(&head, head_bytes, output);
                return Ok(passed);
            }
            if head.status == SWITCHING_PROTOCOLS {
                self.switch(&head, head_bytes, output)?;
                return Ok(passed);
            }
            self.interim_count += 1;
            if self.interim_count > interim_max {
                let reason = "unexpected interim response";
                return Err(self.turn.story.transport(Failure::ResponseMalformed, reason).into());
            }
            if self.turn.head.version != Version::Http10 {
                write_response(&head, head_bytes, INTERIM, output);
            }
        }
    }

    /// Passes on that the upstream switches protocols: to one that the client has asked for, or the upstream breaks the
    /// rules (RFC 9110 section 7.8).
    fn switch(&mut self, head: &ResponseHead, bytes: &[u8], output: &mut Vec<u8>) -> Result<(), Failure> {
        let asked = self.turn.head.upgrade.map(|asked| asked.of(self.turn.inbound.bytes()));
        if !asked.is_some_and(|asked| head.switches_to_one_of(asked, bytes)) {
            let reason = "the upstream switches to a protocol that nobody asked for";
            return Err(self.turn.story.transport(Failure::ResponseMalformed, reason));
        }
        write_response(head, bytes, ResponseEdits { fields: self.terms.fields, ..INTERIM }, output);
        self.keep_fields(head, bytes);
        self.turn.story.status = head.status;
        self.turn.story.upstream_service_time = Some(self.sent_at().elapsed());
        self.switched = true;
        Ok(())
    }

    /// Keeps what an access log of the operator's own format will show.
    fn keep_fields(&mut self, head: &ResponseHead, bytes: &[u8]) {
        if let Some(format) = &self.turn.snapshot.settings.log_format {
            self.turn.story.keep_fields(format, &head.head, bytes);
        }
    }

    /// When the request was sent. On a connection that stood ready, that was in the moment the turn began.
    fn sent_at(&self) -> Instant {
        match self.turn.head.body == BodyLength::None && self.terms.reused {
            true => self.turn.story.started,
            false => self.sent_at,
        }
    }

    fn begin_response(&mut self, head: &ResponseHead, bytes: &[u8], output: &mut Vec<u8>) {
        let now = Instant::now();
        let sent_at = self.sent_at();
        self.keep_fields(head, bytes);
        let turn = &mut self.turn;
        let http10 = turn.head.version == Version::Http10;
        let length = downstream_length(head.body, http10);
        let client_keeps = turn.head.keep_alive && length != BodyLength::UntilClose && !turn.context.draining.get();
        let edits = ResponseEdits { keep_alive: client_keeps, http10, fields: self.terms.fields };
        write_response(head, bytes, edits, output);
        turn.story.status = head.status;
        turn.story.upstream_service_time = Some(now.duration_since(sent_at));
        turn.story.ended = Some(now);
        self.response = Some(Response {
            body: BodyReader::new(head.body, body_limits(&turn.snapshot.settings.limits)),
            length,
            upstream_keeps: head.keep_alive,
            client_keeps,
            done: false,
        });
    }

    /// Adds what the client gets of a piece of the body: chunks, or the data as it is.
    fn pass_body<'p>(&mut self, mut bytes: &'p [u8], outgoing: &mut Outgoing<'p>) -> Result<(), Failure> {
        let Some(response) = &mut self.response else { return Ok(()) };
        while !response.done {
            let step = response.body.step(bytes).map_err(|error| {
                self.turn.story.transport_failure = Some(error.to_string());
                Failure::UpstreamTruncated
            })?;
            let data = &bytes[step.data];
            self.turn.story.bytes_sent += data.len() as u64;
            if response.is_chunked() {
                write_chunk(data, outgoing.made());
            } else {
                outgoing.push(data);
            }
            bytes = &bytes[step.consumed..];
            response.finish_if(step.done, outgoing.made());
            if step.consumed == 0 {
                break;
            }
        }
        if response.done && !bytes.is_empty() {
            // Bytes that nobody asked for: they must not be taken for the answer to another request.
            response.upstream_keeps = false;
        }
        Ok(())
    }

    /// Takes notice that the upstream will send no more.
    fn upstream_ended(&mut self, cleanly: bool, output: &mut Vec<u8>) -> Result<(), Failure> {
        let Some(response) = &mut self.response else { return Err(Failure::UpstreamClosed) };
        response.upstream_keeps = false;
        if response.done {
            return Ok(());
        }
        // Only a body without a length may end with the connection, and only if the end is certain.
        if cleanly && response.body.end_of_stream() {
            response.finish_if(true, output);
            return Ok(());
        }
        Err(Failure::UpstreamTruncated)
    }

    pub(super) fn send_pending(&mut self) -> Result<(), Failure> {
        let sent = self.turn.client.transport.send(&self.pending).map_err(|_| Failure::DownstreamClosed)?;
        if sent == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..sent);
        }
        Ok(())
    }
}

impl Response {
    /// Bytes of the body that the upstream owes, if that is known.
    pub(super) fn missing(&self) -> Option<u64> {
        self.body.missing()
    }

    fn is_chunked(&self) -> bool {
        self.length == BodyLength::Chunked
    }

    fn finish_if(&mut self, done: bool, output: &mut Vec<u8>) {
        if done && !self.done {
            self.done = true;
            if self.length == BodyLength::Chunked {
                write_last_chunk(output);
            }
        }
    }
}
