//! Application data opened where it was received.
//!
//! rustls decrypts a record in the buffer that it is shown, but hands the plain text out in an allocation of its own,
//! from which it would have to be copied once more. The cipher suites made here are those of the provider, but for one
//! thing: while `collect` runs, their decrypters note where the plain text of a record lies, once the inner decrypter
//! has verified it, and hand rustls only its first byte. That one comes back if rustls accepts the record, and so says
//! which of the notes are good. Everything else (keys, sequence numbers, alerts, tickets, key updates, and what may come
//! when) stays with rustls. Outside of `collect`, which is to say during handshakes, the suites do exactly as the
//! provider's.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::LazyLock;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter,
    Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, aws_lc_rs};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};

thread_local! {
    static OPENED: Opened = const { Opened { wanted: Cell::new(false), records: RefCell::new(Vec::new()) } };
}

/// The records that have been opened on this thread since they were wanted.
struct Opened {
    wanted: Cell<bool>,
    /// Address and length of the plain text of each. The address is a number here, and only ever compared.
    records: RefCell<Vec<(usize, usize)>>,
}

/// The provider of all TLS that ends or begins here.
#[must_use]
pub fn provider() -> CryptoProvider {
    static SUITES: LazyLock<Vec<SupportedCipherSuite>> =
        LazyLock::new(|| aws_lc_rs::default_provider().cipher_suites.into_iter().map(noting).collect());
    CryptoProvider { cipher_suites: SUITES.clone(), ..aws_lc_rs::default_provider() }
}

/// Lets `open` decrypt records in `input`, and appends to `opened` where in it their plain text lies then, in order.
/// `open` appends the first byte of each record that rustls accepts to the list it is given.
///
/// # Errors
/// When plain text lies elsewhere: rustls does not work in place any more.
pub(super) fn collect<T, E: From<Error>>(
    input: &mut [u8],
    opened: &mut Vec<Range<usize>>,
    open: impl FnOnce(&mut [u8], &mut Vec<u8>) -> Result<T, E>,
) -> Result<T, E> {
    let elsewhere = || E::from(Error::General("a record was not opened in place".to_owned()));
    let mut accepted = Vec::new();
    OPENED.with(|noted| {
        let result = noted.during(|| open(&mut *input, &mut accepted));
        let mut records = noted.records.borrow_mut();
        if accepted.len() > records.len() || result.is_ok() && accepted.len() < records.len() {
            return Err(elsewhere());
        }
        let start = input.as_ptr().addr();
        for ((address, length), first) in records.drain(..).zip(accepted) {
            let from = address.wrapping_sub(start);
            let range = from..from.wrapping_add(length);
            if input.get(range.clone()).is_none_or(|plain| plain.first() != Some(&first)) {
                return Err(elsewhere());
            }
            opened.push(range);
        }
        result
    })
}

impl Opened {
    /// Notes the records that `open` opens. A panic in it must not leave the next handshake without its records.
    fn during<T>(&self, open: impl FnOnce() -> T) -> T {
        struct Wanted<'a>(&'a Cell<bool>);
        impl Drop for Wanted<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        self.records.borrow_mut().clear();
        self.wanted.set(true);
        let _wanted = Wanted(&self.wanted);
        open()
    }
}

/// The same suite, whose decrypters note what they open.
fn noting(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: common.confidentiality_limit,
    };
    // Never freed: rustls wants its suites to live for ever, and these are made once.
    match suite {
        SupportedCipherSuite::Tls12(suite) => SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
            common: common(&suite.common),
            aead_alg: Box::leak(Box::new(Noting(suite.aead_alg))),
            ..*suite
        }))),
        SupportedCipherSuite::Tls13(suite) => SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
            common: common(&suite.common),
            aead_alg: Box::leak(Box::new(Noting(suite.aead_alg))),
            ..*suite
        }))),
    }
}

/// What makes the decrypters of a suite, or one of them, so that it notes what is opened.
struct Noting<T>(T);

impl MessageDecrypter for Noting<Box<dyn MessageDecrypter>> {
    fn decrypt<'a>(&mut self, record: InboundOpaqueMessage<'a>, number: u64) -> Result<InboundPlainMessage<'a>, Error> {
        let plain = self.0.decrypt(record, number)?;
        let (true, Some(first)) = (plain.typ == ContentType::ApplicationData, plain.payload.get(..1)) else {
            return Ok(plain);
        };
        let is_noted = OPENED.with(|opened| {
            if opened.wanted.get() {
                opened.records.borrow_mut().push((plain.payload.as_ptr().addr(), plain.payload.len()));
            }
            opened.wanted.get()
        });
        Ok(if is_noted { InboundPlainMessage { payload: first, ..plain } } else { plain })
    }
}

impl Tls13AeadAlgorithm for Noting<&'static dyn Tls13AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        self.0.encrypter(key, iv)
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Noting(self.0.decrypter(key, iv)))
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

impl Tls12AeadAlgorithm for Noting<&'static dyn Tls12AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        self.0.encrypter(key, iv, extra)
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        Box::new(Noting(self.0.decrypter(key, iv)))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a decrypter does that has opened a record into `plain`.
    fn note(plain: &[u8]) {
        OPENED.with(|opened| {
            assert!(opened.wanted.get(), "nobody collects");
            opened.records.borrow_mut().push((plain.as_ptr().addr(), plain.len()));
        });
    }

    fn collected(
        open: impl FnOnce(&mut [u8], &mut Vec<u8>) -> Result<(), Error>,
    ) -> (Result<(), Error>, Vec<Range<usize>>) {
        let mut opened = Vec::new();
        let result = collect(&mut b"..first..second".to_vec(), &mut opened, open);
        (result, opened)
    }

    #[test]
    fn records_are_found_where_they_were_opened() {
        let (result, opened) = collected(|input, accepted| {
            note(&input[2..7]);
            note(&input[9..]);
            accepted.extend_from_slice(b"fs");
            Ok(())
        });
        assert_eq!((result, opened), (Ok(()), vec![2..7, 9..15]));
    }

    #[test]
    fn a_record_that_was_not_accepted_is_not_passed_on() {
        let (result, opened) = collected(|input, accepted| {
            note(&input[2..7]);
            note(&input[9..]);
            accepted.push(b'f');
            Err(Error::DecryptError)
        });
        assert_eq!((result, opened.as_slice()), (Err(Error::DecryptError), std::slice::from_ref(&(2..7))));
    }

    #[test]
    fn plain_text_that_lies_elsewhere_is_an_error() {
        let elsewhere = b"first";
        let nowhere = collected(|_, accepted| {
            accepted.push(b'f');
            Ok(())
        });
        let outside = collected(|_, accepted| {
            note(elsewhere);
            accepted.push(b'f');
            Ok(())
        });
        let beyond_the_end = collected(|input, accepted| {
            OPENED.with(|opened| opened.records.borrow_mut().push((input[2..].as_ptr().addr(), usize::MAX)));
            accepted.push(b'f');
            Ok(())
        });
        let of_another_record = collected(|input, accepted| {
            note(&input[9..]);
            accepted.push(b'f');
            Ok(())
        });
        let never_accepted = collected(|input, _| {
            note(&input[2..7]);
            Ok(())
        });
        for (result, opened) in [nowhere, outside, beyond_the_end, of_another_record, never_accepted] {
            assert!(matches!(result, Err(Error::General(_))), "{result:?}");
            assert!(opened.is_empty(), "{opened:?}");
        }
    }

    #[test]
    fn a_panic_does_not_leave_the_next_handshake_without_its_records() {
        let panic = std::panic::catch_unwind(|| collected(|_, _| panic!("a bug")));
        assert!(panic.is_err());
        assert!(!OPENED.with(|opened| opened.wanted.get()));
    }
}
