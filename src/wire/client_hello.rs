//! The ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2), read without a handshake.
//!
//! Strict: every length must end exactly where its vector ends, so that no two readers of the same bytes can see
//! two different names.

#[cfg(test)]
mod faults;
mod message;
mod records;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use crate::route::host::{HostName, NameError};

use super::alert::Alert;

/// What the gateway needs of a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The `host_name` of the server_name extension (RFC 6066 section 3); `None`: the extension is absent.
    pub server_name: Option<HostName>,
    /// Whether an `encrypted_client_hello` extension (0xfe0d) is present; GREASE cannot be told from the real one.
    pub encrypted: bool,
}

/// The three answers of [`parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The hello is complete.
    Complete(ClientHello),
    /// The bytes so far are the beginning of a legal hello.
    Incomplete,
    /// They are not, whatever follows.
    Rejected(Reject),
}

/// Why bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The first byte starts no TLS handshake record.
    #[error("not a TLS handshake record")]
    NotTls,
    /// An SSLv2 hello.
    #[error("an SSLv2 hello")]
    Ssl2,
    /// A record or hello version below TLS 1.0 (or the SSLv3 hello).
    #[error("an SSLv3 or unknown version")]
    Version,
    /// An empty handshake record (RFC 8446 section 5.1).
    #[error("an empty handshake record")]
    EmptyRecord,
    /// A record longer than 2^14 bytes.
    #[error("a record longer than 16384 bytes")]
    RecordTooLong,
    /// A record of another type before the hello was complete.
    #[error("another record type inside the hello")]
    Interleaved,
    /// The handshake message is no ClientHello.
    #[error("the first handshake message is not a ClientHello")]
    NotClientHello,
    /// It is longer than the limit.
    #[error("a ClientHello longer than the limit")]
    TooLarge,
    /// A length that lies, a vector that does not end where it says, or bytes after the end.
    #[error("a length in the ClientHello does not fit")]
    Length,
    /// The same extension twice (RFC 8446 section 4.2).
    #[error("an extension appears twice")]
    DuplicateExtension,
    /// Not exactly one name, of type host_name.
    #[error("the server_name extension does not hold exactly one host name")]
    NameList,
    /// The name breaks the grammar.
    #[error("the server name is not valid: {0}")]
    Name(NameError),
}

impl Reject {
    /// The alert that is due; `None`: the peer does not speak TLS.
    #[must_use]
    pub fn alert(self) -> Option<Alert> {
        match self {
            Self::NotTls | Self::Ssl2 => None,
            Self::Version => Some(Alert::ProtocolVersion),
            Self::EmptyRecord | Self::Interleaved | Self::NotClientHello => Some(Alert::UnexpectedMessage),
            Self::RecordTooLong | Self::TooLarge | Self::Length => Some(Alert::DecodeError),
            Self::DuplicateExtension | Self::NameList | Self::Name(_) => Some(Alert::IllegalParameter),
        }
    }

    /// One word for the log and the metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Ssl2 => "ssl2_hello",
            Self::Version => "tls_version",
            Self::EmptyRecord => "empty_record",
            Self::RecordTooLong => "record_too_long",
            Self::Interleaved => "interleaved_record",
            Self::NotClientHello => "not_client_hello",
            Self::TooLarge => "hello_too_large",
            Self::Length => "hello_length",
            Self::DuplicateExtension => "duplicate_extension",
            Self::NameList => "bad_server_name_list",
            Self::Name(_) => "bad_sni",
        }
    }
}

/// Reads the first bytes of a connection. `hello_bytes_max` bounds the handshake message and its record headers.
///
/// Work is linear in `bytes`; a caller that gets [`Parsed::Incomplete`] calls again with more. Bytes after the record
/// in which the hello ends are not looked at. A hello in one record, as nearly all are, is read in place.
#[must_use]
pub fn parse(bytes: &[u8], hello_bytes_max: usize) -> Parsed {
    let message = match records::message(bytes, hello_bytes_max) {
        Ok(Some(message)) => message,
        Ok(None) => return Parsed::Incomplete,
        Err(reject) => return Parsed::Rejected(reject),
    };
    match message::read(&message) {
        Ok(hello) => Parsed::Complete(hello),
        Err(reject) => Parsed::Rejected(reject),
    }
}
