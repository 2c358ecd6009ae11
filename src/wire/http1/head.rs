//! What request and response heads have in common: spans, fields, limits and faults.

/// A range of the bytes that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name, as sent.
    pub name: Span,
    /// The value, without surrounding white space.
    pub value: Span,
    /// Whether the field concerns this connection alone and must not be forwarded (RFC 9110 section 7.6.1), or is
    /// one that the writers set themselves (Host, Content-Length, Transfer-Encoding).
    pub hop: bool,
}

/// The fields of a head, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, the empty line included.
    pub len: u32,
    /// Every field. On the heap: a head changes hands a few times, and half a kilobyte would move each time.
    pub fields: Vec<Field>,
}

/// HTTP versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2, whose messages are read as those of HTTP/1.1: [`crate::wire::http2`].
    Http2,
}

/// Bounds of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Most bytes, the empty line included.
    pub bytes: usize,
    /// Most fields.
    pub fields: usize,
}

/// The three answers of a head parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The head is complete.
    Complete(T),
    /// The bytes so far are the beginning of a legal head.
    Incomplete,
    /// They are not, whatever follows.
    Rejected(HeadError),
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The start line or a field breaks the grammar, a bare CR or LF, a NUL, an obsolete fold.
    #[error("the head breaks the grammar")]
    Syntax,
    /// More bytes than the limit.
    #[error("the head is longer than the limit")]
    TooLarge,
    /// More fields than the limit.
    #[error("the head has more fields than the limit")]
    TooManyFields,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("the HTTP version is not spoken here")]
    Version,
    /// No Host, two, or an empty one (RFC 9112 section 3.2).
    #[error("there is not exactly one Host field")]
    Host,
    /// A Host or target that is no valid authority.
    #[error("the Host or target is no valid authority")]
    Authority,
    /// The authority of an absolute target differs from the Host field.
    #[error("the target and the Host field name different authorities")]
    AuthorityMismatch,
    /// A target of a form that the method does not allow, or one with a fragment.
    #[error("the request target is not valid")]
    Target,
    /// Content-Length that is no number, or several: even equal ones have no honest reason.
    #[error("the Content-Length is not valid")]
    ContentLength,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 section 6.1).
    #[error("there are both a Content-Length and a Transfer-Encoding")]
    AmbiguousLength,
    /// A transfer coding other than exactly `chunked`, or one in HTTP/1.0.
    #[error("the transfer coding is not spoken here")]
    TransferEncoding,
    /// Frames that break the protocol (HTTP/2).
    #[error("the frames break the protocol")]
    Frames,
    /// A field name with `_`, where the operator has them refused.
    #[error("a field name holds an underscore")]
    Underscore,
}

impl<T> From<Result<T, HeadError>> for Parsed<T> {
    fn from(result: Result<T, HeadError>) -> Self {
        match result {
            Ok(head) => Self::Complete(head),
            Err(error) => Self::Rejected(error),
        }
    }
}

impl Version {
    /// The version that the tokenizer, which accepts no other, calls by its minor number.
    pub(super) fn from_minor(minor: u8) -> Self {
        if minor == 0 { Self::Http10 } else { Self::Http11 }
    }
}

impl HeadError {
    /// The status of the answer to a request with this fault.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFields => 431,
            Self::Version => 505,
            Self::Syntax
            | Self::Host
            | Self::Authority
            | Self::AuthorityMismatch
            | Self::Target
            | Self::ContentLength
            | Self::AmbiguousLength
            | Self::TransferEncoding
            | Self::Frames
            | Self::Underscore => 400,
        }
    }

    /// One word for the log and the metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Syntax => "http1.codec_error",
            Self::TooLarge => "request_headers_too_large",
            Self::TooManyFields => "too_many_headers",
            Self::Version => "http_version_not_supported",
            Self::Host => "missing_or_duplicate_host",
            Self::Authority => "invalid_authority",
            Self::AuthorityMismatch => "authority_mismatch",
            Self::Target => "invalid_target",
            Self::ContentLength => "invalid_content_length",
            Self::AmbiguousLength => "content_length_with_transfer_encoding",
            Self::TransferEncoding => "invalid_transfer_encoding",
            Self::Frames => "http2.codec_error",
            Self::Underscore => "header_name_with_underscore",
        }
    }
}

impl Span {
    /// The bytes of the span.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The text of the span; empty if it is not UTF-8.
    #[must_use]
    pub fn text(self, bytes: &[u8]) -> &str {
        std::str::from_utf8(self.of(bytes)).unwrap_or_default()
    }
}

impl Head {
    /// The value of the first field of this name; names compare without case.
    #[must_use]
    pub fn find<'a>(&self, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let is_named = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().find(is_named).map(|field| field.value.of(bytes))
    }
}
