//! Requests that h2 refuses by itself: those that break the protocol (RFC 9113 section 8.1.1), whose header list is beyond
//! the limit, or that are more than are allowed at once. It shows them to nobody, so they are found by what passes on the
//! wire: a stream that a client has opened, that is answered, and that was never handed over.

use std::cell::{Cell, RefCell};

use crate::limits::HTTP2_FAULTS_MAX;

/// Follows the requests of a connection until they are handed over.
#[derive(Debug, Default)]
pub struct Unseen {
    /// The last stream that the client has opened; it may only open later ones.
    last: Cell<u32>,
    /// Those that have been opened and not handed over, and how they were answered.
    streams: RefCell<Vec<(u32, Option<Refusal>)>>,
}

/// How h2 has refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// With 431: its header list is longer than the limit.
    Oversized,
    /// Unseen, so that it may be sent again: too many are under way (RFC 9113 section 8.7).
    Crowded,
    /// For a fault.
    Malformed,
}

impl Refusal {
    /// By the code of a reset; `None`: there was an answer, and h2 has only one of its own.
    fn new(code: Option<u32>) -> Self {
        match code.map(h2::Reason::from) {
            None => Self::Oversized,
            Some(h2::Reason::REFUSED_STREAM) => Self::Crowded,
            Some(_) => Self::Malformed,
        }
    }
}

impl Unseen {
    /// A head has begun.
    pub(super) fn arrived(&self, stream: u32) {
        if stream <= self.last.get() {
            return; // Trailers, or a fault of the connection.
        }
        self.last.set(stream);
        let mut streams = self.streams.borrow_mut();
        // h2 ends the connection of a client with as many faults, so what is more waits for its turn and will be handed over.
        if streams.len() < HTTP2_FAULTS_MAX {
            streams.push((stream, None));
        }
    }

    /// A head, or a reset with this code, has left.
    pub(super) fn answered(&self, stream: u32, code: Option<u32>) {
        let mut streams = self.streams.borrow_mut();
        if let Some((_, answer)) = streams.iter_mut().find(|(known, _)| *known == stream) {
            answer.get_or_insert(Refusal::new(code));
        }
    }

    /// A request has been handed over.
    pub fn accepted(&self, stream: u32) {
        self.streams.borrow_mut().retain(|(known, _)| *known != stream);
    }

    /// Takes those that were refused; to be called when everything that could be handed over has been. `None`: none.
    pub fn refused(&self) -> Option<Refusal> {
        let mut streams = self.streams.borrow_mut();
        let (index, refusal) =
            streams.iter().enumerate().find_map(|(index, (_, refusal))| refusal.map(|refusal| (index, refusal)))?;
        streams.remove(index);
        Some(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_without_being_handed_over_was_refused() {
        let unseen = Unseen::default();
        [1, 3, 5, 7, 9, 3].into_iter().for_each(|stream| unseen.arrived(stream));
        unseen.answered(5, None);
        unseen.answered(5, Some(7));
        unseen.answered(7, Some(1));
        unseen.answered(9, Some(7));
        // Its reset leaves before h2 has handed it over.
        unseen.answered(3, Some(3));
        [1, 3].into_iter().for_each(|stream| unseen.accepted(stream));
        let refused: Vec<Refusal> = std::iter::from_fn(|| unseen.refused()).collect();
        assert_eq!(refused, [Refusal::Oversized, Refusal::Malformed, Refusal::Crowded]);
        unseen.answered(1, None);
        assert_eq!(unseen.refused(), None);
    }
}
