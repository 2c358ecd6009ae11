//! Trailers (RFC 9113 section 8.1, RFC 9110 section 6.5).

use http::HeaderMap;
use http::header::{self, HeaderName};

use crate::wire::http1::{Claims, FieldEdits};

use super::is_connection_specific;

/// The trailers that may be passed on: none that routes or frames a message, or concerns a connection. `None`: more than
/// `bytes_max`, counted as HTTP/1.1 would write them.
#[must_use]
pub fn forwardable(mut trailers: HeaderMap, bytes_max: usize) -> Option<HeaderMap> {
    let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > bytes_max {
        return None;
    }
    withhold(&mut trailers, |name| !is_forwardable(name));
    Some(trailers)
}

/// What an upstream gets of the trailers of a request. Nobody has judged them, and servers may add them to the fields of
/// the head: none passes that would be withheld there under any policy, or whose name has a `_`, which such servers may take
/// for a `-`; nor does what the route takes from the head or sets in it.
#[must_use]
pub fn of_request(mut trailers: HeaderMap, edits: &FieldEdits) -> HeaderMap {
    withhold(&mut trailers, |name| {
        let name = name.as_str().as_bytes();
        Claims::of(name) != Claims::NONE || name.contains(&b'_') || edits.drops(name)
    });
    trailers
}

/// What a client gets of the trailers of its answer: nothing that the route takes from the head or sets in it.
#[must_use]
pub fn of_answer(mut trailers: HeaderMap, edits: &FieldEdits) -> HeaderMap {
    withhold(&mut trailers, |name| edits.drops(name.as_str().as_bytes()));
    trailers
}

fn withhold(trailers: &mut HeaderMap, closed: impl Fn(&HeaderName) -> bool) {
    let closed: Vec<HeaderName> = trailers.keys().filter(|name| closed(name)).cloned().collect();
    closed.iter().for_each(|name| drop(trailers.remove(name)));
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
