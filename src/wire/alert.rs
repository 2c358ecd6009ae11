//! TLS alerts that the gateway sends to a client whose handshake it will not relay.

/// A fatal alert (RFC 8446 section 6, RFC 6066 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// 10.
    UnexpectedMessage,
    /// 47.
    IllegalParameter,
    /// 49.
    AccessDenied,
    /// 50.
    DecodeError,
    /// 70.
    ProtocolVersion,
    /// 80.
    InternalError,
    /// 112: the name is not served here.
    UnrecognizedName,
}

impl Alert {
    /// The alert as one record. The record version is 0x0301 as in a first flight (RFC 8446 section 5.1): what the
    /// client would negotiate is unknown.
    #[must_use]
    pub fn record(self) -> [u8; 7] {
        const ALERT: u8 = 21;
        const FATAL: u8 = 2;
        let description = match self {
            Self::UnexpectedMessage => 10,
            Self::IllegalParameter => 47,
            Self::AccessDenied => 49,
            Self::DecodeError => 50,
            Self::ProtocolVersion => 70,
            Self::InternalError => 80,
            Self::UnrecognizedName => 112,
        };
        [ALERT, 3, 1, 0, 2, FATAL, description]
    }
}
