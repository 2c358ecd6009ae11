//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): the state of a session, sealed and handed to the client.
//!
//! The key of a period is made from a link of a chain that only goes forward: whoever takes a worker's memory today
//! learns nothing that opens a ticket of the day before yesterday. All workers begin with the same link and go by the
//! same clock, so none has to ask another for a key.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use rustls::server::ProducesTickets;

use crate::limits::TICKET_PERIOD;
use crate::route::termination::TicketSecret;

/// Bytes of a ticket's period, which says what key it is sealed with.
const PERIOD_LEN: usize = 8;

/// The tickets of one profile in one worker. The lock is rustls' wish; nobody else ever holds it.
#[derive(Debug)]
pub(super) struct Tickets {
    secret: TicketSecret,
    chain: Mutex<Chain>,
}

/// Where on the chain a worker is.
struct Chain {
    period: u64,
    link: [u8; 32],
    current: Option<RandomizedNonceKey>,
    previous: Option<RandomizedNonceKey>,
}

/// Never the keys.
impl std::fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Chain").field("period", &self.period).finish_non_exhaustive()
    }
}

impl Tickets {
    pub(super) fn new(secret: &TicketSecret) -> Self {
        let chain = Chain { period: 0, link: secret.bytes, current: key(&secret.bytes), previous: None };
        Self { secret: secret.clone(), chain: Mutex::new(chain) }
    }

    fn with_chain<T>(&self, age: Duration, work: impl FnOnce(&Chain) -> T) -> T {
        let mut chain = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        chain.go_to(age.as_secs() / TICKET_PERIOD.as_secs());
        work(&chain)
    }

    fn seal(&self, age: Duration, plain: &[u8]) -> Option<Vec<u8>> {
        self.with_chain(age, |chain| {
            let period = chain.period.to_be_bytes();
            let mut sealed = plain.to_vec();
            let nonce = chain.current.as_ref()?.seal_in_place_append_tag(Aad::from(period), &mut sealed).ok()?;
            Some([&period[..], nonce.as_ref(), &sealed].concat())
        })
    }

    fn open(&self, age: Duration, ticket: &[u8]) -> Option<Vec<u8>> {
        let (period, rest) = ticket.split_first_chunk::<PERIOD_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        self.with_chain(age, |chain| {
            let key = match u64::from_be_bytes(*period) {
                own if own == chain.period => chain.current.as_ref(),
                other if other.checked_add(1) == Some(chain.period) => chain.previous.as_ref(),
                _ => None,
            };
            let nonce = Nonce::assume_unique_for_key(*nonce);
            key?.open_in_place(nonce, Aad::from(period), &mut sealed).ok().map(|plain| plain.to_vec())
        })
    }

    fn age(&self) -> Duration {
        self.secret.born.elapsed()
    }
}

impl Chain {
    /// Goes forward, and forgets what is behind.
    fn go_to(&mut self, period: u64) {
        while self.period < period {
            self.link = derive(&self.link, b"next");
            self.period += 1;
            self.previous = self.current.take();
            self.current = key(&self.link);
        }
    }
}

fn key(link: &[u8; 32]) -> Option<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, &derive(link, b"key")).ok()
}

fn derive(link: &[u8; 32], what: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, link), what);
    let mut derived = [0; 32];
    derived.copy_from_slice(tag.as_ref());
    derived
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_PERIOD.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(self.age(), plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(self.age(), ticket)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn tickets(first: u8) -> Tickets {
        Tickets::new(&TicketSecret { bytes: [first; 32], born: Instant::now() })
    }

    #[test]
    fn a_ticket_of_one_worker_is_good_for_another_until_the_period_after_its_own_ends() {
        let (one, other) = (tickets(1), tickets(1));
        let sealed = one.seal(Duration::ZERO, b"state").expect("a ticket");
        assert_eq!(other.open(Duration::ZERO, &sealed).as_deref(), Some(&b"state"[..]));
        let late = TICKET_PERIOD * 2 - Duration::from_secs(1);
        assert_eq!(other.open(late, &sealed).as_deref(), Some(&b"state"[..]));
        assert_eq!(other.open(TICKET_PERIOD * 2, &sealed), None);
        // A key that is forgotten does not come back with the time.
        assert_eq!(other.open(Duration::ZERO, &sealed), None);
        let later = other.seal(TICKET_PERIOD * 9, b"state").expect("a ticket");
        assert_eq!(one.open(TICKET_PERIOD * 9, &later).as_deref(), Some(&b"state"[..]));
    }

    #[test]
    fn a_ticket_of_another_profile_or_one_that_was_touched_is_none() {
        let (one, other) = (tickets(1), tickets(2));
        let sealed = one.seal(Duration::ZERO, b"state").expect("a ticket");
        assert_eq!(other.open(Duration::ZERO, &sealed), None);
        for index in 0..sealed.len() {
            let mut touched = sealed.clone();
            touched[index] ^= 1;
            assert_eq!(one.open(Duration::ZERO, &touched), None, "byte {index}");
            assert_eq!(one.open(Duration::ZERO, &sealed[..index]), None, "the first {index} bytes");
        }
    }
}
