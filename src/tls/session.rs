//! One TLS session of either side: the handshake, then records in and out of the caller's buffers.

use std::io;
use std::ops::Range;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CommonState, HandshakeKind};

use crate::limits::HANDSHAKE_BYTES_MAX;
use crate::net::{Received, Socket};
use crate::wire::http2::ALPN;

use super::in_place;

/// Most that a record adds to its plain text: header, content type, tag, and the explicit nonce of TLS 1.2.
const RECORD_OVERHEAD: usize = 64;

/// Plain text per record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// Bytes per read during the handshake, when the worker's buffers cannot be used: each read is followed by a wait.
const HANDSHAKE_READ_BYTES: usize = 4 * 1024;

/// A side of a connection, as rustls drives it without buffers of its own.
pub trait Side {
    /// rustls' part of the state that only this side has.
    type Data;

    /// Advances by one state.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both sides have.
    fn common(&self) -> &CommonState;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// An established session. Holds no buffer while idle but the beginning of a record that has arrived in part.
pub struct TlsSession<S> {
    /// Boxed: it is large, and would be moved with every future that holds a connection.
    connection: Box<S>,
    /// Cipher text that does not make a whole record yet.
    partial: Vec<u8>,
    /// Plain text that came with the handshake and that nobody has asked for yet.
    early: Vec<u8>,
    /// Whether rustls has refused something: it must not be asked again, not even for a farewell.
    failed: bool,
}

/// Why a handshake failed, for the access log.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// rustls refused: the certificate, the parameters, an alert of the peer.
    #[error("TLS_error: {0}")]
    Tls(#[from] rustls::Error),
    /// The connection failed.
    #[error("TLS_error: {0}")]
    Io(#[from] io::Error),
    /// The peer closed in the middle.
    #[error("TLS_error: the peer closed the connection during the handshake")]
    Closed,
    /// The peer sends and sends.
    #[error("TLS_error: more than {HANDSHAKE_BYTES_MAX} bytes of handshake")]
    Oversized,
}

/// Why an established session failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refused a record.
    #[error("TLS_error: {0}")]
    Tls(#[from] rustls::Error),
    /// It has failed before.
    #[error("TLS_error: the session has failed")]
    Failed,
    /// Nothing more can be encrypted under these keys.
    #[error("TLS_error: the keys of the session are used up")]
    Exhausted,
}

/// What a step of the connection asks for.
enum Step {
    Again,
    Transmit,
    Receive,
    Ready,
    Ended,
}

/// What a handshake leaves behind.
#[derive(Debug)]
pub struct Established<S> {
    /// The session.
    pub session: TlsSession<S>,
    /// What the peer has said right behind its last flight.
    pub plain: Vec<u8>,
    /// Whether it has said that it has finished, too.
    pub ended: bool,
}

/// Makes a session over a socket from which `incoming` has been received so far. May be dropped at any time, with the
/// socket.
///
/// # Errors
/// [`HandshakeError`]; the alert that is due has been sent as far as the socket took it.
pub async fn handshake<S: Side>(
    mut connection: Box<S>,
    socket: &Socket,
    mut incoming: Vec<u8>,
) -> Result<Established<S>, HandshakeError> {
    let (mut outgoing, mut plain, mut ended) = (Vec::new(), Vec::new(), false);
    let mut received = incoming.len();
    loop {
        match step(&mut *connection, &mut incoming, &mut outgoing, &mut plain) {
            Ok(Step::Again) => {}
            Ok(Step::Transmit) => {
                socket.send_all(&outgoing).await?;
                outgoing.clear();
            }
            Ok(Step::Receive) if received > HANDSHAKE_BYTES_MAX => return Err(HandshakeError::Oversized),
            Ok(Step::Receive) => received += receive_more(socket, &mut incoming).await?,
            Ok(Step::Ready) => break,
            Ok(Step::Ended) if connection.common().is_handshaking() => return Err(HandshakeError::Closed),
            Ok(Step::Ended) => ended = true,
            Err(error) => {
                send_alert(&mut *connection, &mut incoming, socket);
                return Err(error.into());
            }
        }
    }
    // A session may be silent for hours from here on: it keeps no room for a flight.
    let session = TlsSession { connection, partial: incoming.to_vec(), early: Vec::new(), failed: false };
    Ok(Established { session, plain, ended })
}

async fn receive_more(socket: &Socket, incoming: &mut Vec<u8>) -> Result<usize, HandshakeError> {
    let length = incoming.len();
    incoming.resize(length + HANDSHAKE_READ_BYTES, 0);
    let count = loop {
        match socket.receive(&mut incoming[length..])? {
            Received::Bytes(count) => break count,
            Received::Pending => socket.readable().await?,
            Received::End => return Err(HandshakeError::Closed),
        }
    };
    incoming.truncate(length + count);
    Ok(count)
}

/// After an error rustls still has the alert for the peer; sending it is a courtesy and may fail.
///
/// One step and no more: with nothing left to send, rustls would read on from where it failed, find the same fault,
/// and be surprised that its alert has been sent. `incoming` is the buffer that the error was found in: rustls remembers
/// positions in it.
fn send_alert(connection: &mut impl Side, incoming: &mut Vec<u8>, socket: &Socket) {
    let (mut outgoing, mut plain) = (Vec::new(), Vec::new());
    if let Ok(Step::Again) = step(connection, incoming, &mut outgoing, &mut plain) {
        let _ = socket.send(&outgoing);
    }
}

/// Advances by one state. Processed bytes leave the front of `incoming`; plain text goes to the end of `plain`, cipher
/// text to the end of `outgoing`.
fn step(
    connection: &mut impl Side,
    incoming: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> Result<Step, rustls::Error> {
    let (discard, step) = advance(connection, incoming, outgoing, plain);
    incoming.drain(..discard);
    step
}

fn advance(
    connection: &mut impl Side,
    incoming: &mut [u8],
    outgoing: &mut Vec<u8>,
    plain: &mut Vec<u8>,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = connection.process(incoming);
    let state = match state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let step = match state {
        ConnectionState::EncodeTlsData(data) => encode(data, outgoing).map(|()| Step::Again),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Transmit)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Receive),
        ConnectionState::WriteTraffic(_) => Ok(Step::Ready),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Step::Ended),
        ConnectionState::ReadTraffic(mut traffic) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Again),
            }
        },
        // No server here takes early data, and the enum may grow.
        ConnectionState::ReadEarlyData(_) | _ => {
            Err(rustls::Error::General("unexpected state of the connection".to_owned()))
        }
    };
    (discard, step)
}

/// Appends what rustls wants sent.
fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) -> Result<(), rustls::Error> {
    let length = outgoing.len();
    let mut room = RECORD_OVERHEAD;
    loop {
        outgoing.resize(length + room, 0);
        match data.encode(&mut outgoing[length..]) {
            Ok(written) => {
                outgoing.truncate(length + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) if required_size > room => {
                room = required_size;
            }
            Err(EncodeError::InsufficientSize(_) | EncodeError::AlreadyEncoded) => {
                outgoing.truncate(length);
                return Err(rustls::Error::EncryptError);
            }
        }
    }
}

impl<S> std::fmt::Debug for TlsSession<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TlsSession").field("partial", &self.partial.len()).finish_non_exhaustive()
    }
}

impl<S: Side> TlsSession<S> {
    /// Whether HTTP/2 was agreed on.
    #[must_use]
    pub fn speaks_http2(&self) -> bool {
        self.connection.common().alpn_protocol() == Some(ALPN)
    }

    /// Whether the handshake resumed an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Keeps `plain`, which came with the handshake, for [`Self::take_early`].
    pub fn put_back(&mut self, plain: Vec<u8>) {
        self.early = plain;
    }

    /// Whether there is plain text for which no socket will become readable, see [`Self::put_back`].
    #[must_use]
    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Bytes of a record that has arrived in part.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.partial.len()
    }

    /// The peer's certificates, leaf first, if it has shown any.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.common().peer_certificates()
    }

    /// Moves what is left of the last read to the front of `input`; returns its length. The next read goes behind it.
    pub fn restore(&mut self, input: &mut [u8]) -> usize {
        let length = self.partial.len();
        input[..length].copy_from_slice(&self.partial);
        self.partial.clear();
        length
    }

    /// Takes the plain text that came with the handshake, see [`Self::put_back`]. It comes before what [`Self::open`] finds.
    pub fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.early)
    }

    /// Opens the records in `input` where they are; where their plain text lies then is appended to `opened`, in order, and
    /// whatever rustls wants sent (key updates, alerts) to `outgoing`. The beginning of an incomplete record is kept.
    /// Returns whether the peer has just said that it has finished sending (close_notify).
    ///
    /// # Errors
    /// [`TlsError::Tls`]; what is in `opened` came before the fault and is good.
    pub fn open(
        &mut self,
        input: &mut [u8],
        opened: &mut Vec<Range<usize>>,
        outgoing: &mut Vec<u8>,
    ) -> Result<bool, TlsError> {
        if self.failed {
            return Err(TlsError::Failed);
        }
        debug_assert!(self.early.is_empty(), "it comes first");
        let result = in_place::collect(input, opened, |input, accepted| self.open_records(input, accepted, outgoing));
        self.failed |= result.is_err();
        result
    }

    fn open_records(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> Result<bool, TlsError> {
        let mut from = 0;
        let mut ended = false;
        loop {
            let (discard, step) = advance(&mut *self.connection, &mut input[from..], outgoing, plain);
            from += discard;
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    // One step more fetches the alert that is due, as after a handshake (`send_alert`).
                    let _ = advance(&mut *self.connection, &mut input[from..], outgoing, plain);
                    return Err(error.into());
                }
            };
            match step {
                Step::Again | Step::Transmit => {}
                Step::Ended if ended => break,
                Step::Ended => ended = true,
                Step::Receive | Step::Ready => break,
            }
        }
        // A partial record is short-lived; an idle connection must not keep its buffer.
        self.partial = input[from..].to_vec();
        Ok(ended)
    }

    /// Appends `plain` to `outgoing` as records.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn seal(&mut self, plain: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
        outgoing.reserve(plain.len() + (plain.len() / RECORD_BYTES + 1) * RECORD_OVERHEAD);
        for piece in plain.chunks(RECORD_BYTES) {
            self.seal_record(piece, outgoing)?;
        }
        Ok(())
    }

    fn seal_record(&mut self, piece: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.failed {
            return Err(TlsError::Failed);
        }
        loop {
            let (discard, sealed) = self.try_seal(piece, outgoing);
            self.partial.drain(..discard);
            if sealed? {
                return Ok(());
            }
        }
    }

    /// One step towards a sealed record; false: something else had to be sent first. Says how many bytes of
    /// `self.partial` are done with, which is what rustls must always be shown: it remembers positions in it.
    fn try_seal(&mut self, piece: &[u8], outgoing: &mut Vec<u8>) -> (usize, Result<bool, TlsError>) {
        let UnbufferedStatus { discard, state } = self.connection.process(&mut self.partial);
        let state = match state {
            Ok(state) => state,
            Err(error) => return (discard, Err(error.into())),
        };
        let sealed = match state {
            ConnectionState::WriteTraffic(mut traffic) => {
                let length = outgoing.len();
                outgoing.resize(length + piece.len() + RECORD_OVERHEAD, 0);
                match traffic.encrypt(piece, &mut outgoing[length..]) {
                    Ok(written) => {
                        outgoing.truncate(length + written);
                        Ok(true)
                    }
                    Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => {
                        outgoing.truncate(length);
                        Err(TlsError::Exhausted)
                    }
                }
            }
            ConnectionState::EncodeTlsData(data) => encode(data, outgoing).map(|()| false).map_err(TlsError::from),
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Ok(false)
            }
            ConnectionState::PeerClosed => Ok(false),
            ConnectionState::ReadTraffic(_)
            | ConnectionState::ReadEarlyData(_)
            | ConnectionState::BlockedHandshake
            | ConnectionState::Closed
            | _ => Err(TlsError::Exhausted),
        };
        (discard, sealed)
    }

    /// Appends the close_notify alert to `outgoing` (RFC 8446 section 6.1).
    pub fn seal_end(&mut self, outgoing: &mut Vec<u8>) {
        if self.failed {
            return;
        }
        let UnbufferedStatus { state, .. } = self.connection.process(&mut self.partial);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            let length = outgoing.len();
            outgoing.resize(length + RECORD_OVERHEAD, 0);
            let written = traffic.queue_close_notify(&mut outgoing[length..]).unwrap_or(0);
            outgoing.truncate(length + written);
        }
    }
}
