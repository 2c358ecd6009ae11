//! Which certificates a client may present at a server with `tls.mode: MUTUAL`.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
};

use crate::route::termination::ClientCheck;
use crate::wire::certificate::{public_key, subject_alt_names};

/// The verifier of a check. The chain, validity period, purpose and revocation are rustls-webpki's check (RFC 5280
/// section 6); names and pins are looked at when that is in order.
///
/// # Errors
/// Revocation lists that cannot be parsed.
pub(super) fn verifier(
    check: &Arc<ClientCheck>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&check.roots), Arc::clone(provider));
    if !check.crls.is_empty() {
        // As for upstreams: the leaf is checked, against lists that are in date; a leaf that none covers is refused.
        builder = builder
            .with_crls(check.crls.iter().cloned())
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration();
    }
    let chain = builder.build().map_err(|error| Error::General(format!("client verifier: {error}")))?;
    let is_plain = check.names.is_empty() && check.certificates.is_empty() && check.keys.is_empty();
    Ok(if is_plain { chain } else { Arc::new(Known { chain, check: Arc::clone(check) }) })
}

/// The chain check of webpki, and what the operator asks for beyond it.
#[derive(Debug)]
struct Known {
    chain: Arc<dyn ClientCertVerifier>,
    check: Arc<ClientCheck>,
}

/// Why a good certificate is not good enough.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Unknown {
    #[error("the client certificate carries none of subjectAltNames")]
    Name,
    #[error("the client certificate is none of verifyCertificateHash and verifyCertificateSpki")]
    Pin,
}

impl From<Unknown> for Error {
    fn from(unknown: Unknown) -> Self {
        CertificateError::Other(OtherError(Arc::new(unknown))).into()
    }
}

impl Known {
    fn judge(&self, certificate: &[u8]) -> Result<(), Unknown> {
        let ClientCheck { names, certificates, keys, .. } = &*self.check;
        if !names.is_empty() {
            let carried = subject_alt_names(certificate).ok_or(Unknown::Name)?;
            if !carried.iter().any(|carried| names.iter().any(|name| carried.is(name))) {
                return Err(Unknown::Name);
            }
        }
        if certificates.is_empty() && keys.is_empty() {
            return Ok(());
        }
        // Either list may know it, as in Envoy.
        let is_among = |bytes: &[u8], list: &[[u8; 32]]| {
            let found = digest(&SHA256, bytes);
            list.iter().any(|pin| pin[..] == *found.as_ref())
        };
        let is_known = is_among(certificate, certificates)
            || !keys.is_empty() && public_key(certificate).is_some_and(|key| is_among(key, keys));
        if is_known { Ok(()) } else { Err(Unknown::Pin) }
    }
}

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.judge(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
