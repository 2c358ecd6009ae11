//! Trailers (RFC 9113 section 8.1, RFC 9110 section 6.5).

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::is_connection_specific;

/// The trailers that may be passed on: none that routes or frames a message, or concerns a connection. `None`: more than
/// `bytes_max`, counted as HTTP/1.1 would write them.
#[must_use]
pub fn forwardable(mut trailers: HeaderMap, bytes_max: usize) -> Option<HeaderMap> {
    let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > bytes_max {
        return None;
    }
    let closed: Vec<HeaderName> = trailers.keys().filter(|name| !is_forwardable(name)).cloned().collect();
    closed.iter().for_each(|name| drop(trailers.remove(name)));
    Some(trailers)
}

fn is_forwardable(name: &HeaderName) -> bool {
    const CLOSED: [HeaderName; 9] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::PROXY_AUTHORIZATION,
    ];
    !is_connection_specific(name) && !CLOSED.contains(name)
}
