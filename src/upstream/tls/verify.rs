//! Which certificates an upstream may present.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::route::cluster::{TlsProfile, VerifyName};

/// The verifier of a profile. The chain, validity period, purpose and revocation are always rustls-webpki's check
/// (RFC 5280 section 6); the profile decides about names only.
pub(super) fn verifier(
    profile: &TlsProfile,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if profile.verify == VerifyName::Nothing {
        return Ok(Arc::new(Unverified { provider: Arc::clone(provider) }));
    }
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(&profile.roots), Arc::clone(provider));
    if !profile.crls.is_empty() {
        // As Istio: the leaf is checked, against CRLs that are in date; a leaf that no CRL covers is refused.
        builder = builder
            .with_crls(profile.crls.iter().cloned())
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration();
    }
    let chain = builder.build().map_err(|error| Error::General(format!("certificate verifier: {error}")))?;
    match &profile.verify {
        VerifyName::Sni => Ok(chain),
        VerifyName::ChainOnly => Ok(Arc::new(Named { chain, names: Names::Any })),
        VerifyName::AnyOf(names) => {
            // A name that no certificate check can use (a URI, say) opens nothing.
            let names = names.iter().filter_map(|name| ServerName::try_from(name.to_string()).ok()).collect();
            Ok(Arc::new(Named { chain, names: Names::OneOf(names) }))
        }
        VerifyName::Nothing => unreachable!("handled above"),
    }
}

/// The chain check of webpki with another name check.
#[derive(Debug)]
struct Named {
    chain: Arc<WebPkiServerVerifier>,
    names: Names,
}

#[derive(Debug)]
enum Names {
    Any,
    OneOf(Vec<ServerName<'static>>),
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let check =
            |name: &ServerName<'_>| self.chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        match &self.names {
            // webpki looks at the name last: this error means that everything before it was in order.
            Names::Any => match check(server_name) {
                Err(error) if is_name_mismatch(&error) => Ok(ServerCertVerified::assertion()),
                result => result,
            },
            Names::OneOf(names) => {
                let mut result = Err(CertificateError::NotValidForName.into());
                for name in names {
                    result = check(name);
                    if !matches!(&result, Err(error) if is_name_mismatch(error)) {
                        break;
                    }
                }
                result
            }
        }
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

fn is_name_mismatch(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
    )
}

/// `insecureSkipVerify: true`: any certificate whose key signed the handshake. `check` warns about it.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
