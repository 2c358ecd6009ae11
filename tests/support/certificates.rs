//! Certificate authorities and certificates, good ones and bad ones, made for one test each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, server::WebPkiClientVerifier};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivatePkcs8KeyDer<'static>,
    serial: Option<SerialNumber>,
    /// The certificate as a PEM file holds it.
    pub(crate) certificate_pem: String,
    /// The key as a PEM file holds it.
    pub(crate) key_pem: String,
}

impl Authority {
    /// A new authority that nobody trusts yet.
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a P-256 key needs no parameters");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names, no bad names");
        // Distinct, so that one authority is never taken for another that made a bad signature.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("portcullis test authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key).expect("the parameters are complete");
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(parameters, key), certificate: der, pem }
    }

    /// The authority's own certificate, as `caCertificates` takes it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A store that trusts only this authority.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("the certificate is an authority's");
        Arc::new(roots)
    }

    /// A good certificate for `name`.
    pub(crate) fn issue(&self, name: &str) -> Identity {
        self.sign(named(name))
    }

    /// A certificate that ended in 2020.
    pub(crate) fn issue_expired(&self, name: &str) -> Identity {
        let mut parameters = named(name);
        parameters.not_before = rcgen::date_time_ymd(2019, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
        self.sign(parameters)
    }

    /// A certificate that begins in 2090.
    pub(crate) fn issue_not_yet_valid(&self, name: &str) -> Identity {
        let mut parameters = named(name);
        parameters.not_before = rcgen::date_time_ymd(2090, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2091, 1, 1);
        self.sign(parameters)
    }

    /// A certificate that carries the name only as its common name, which nobody has accepted for years.
    pub(crate) fn issue_common_name_only(&self, name: &str) -> Identity {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names, no bad names");
        parameters.distinguished_name.push(DnType::CommonName, name);
        self.sign(parameters)
    }

    /// A certificate for `name` in which something is different.
    pub(crate) fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut parameters = named(name);
        change(&mut parameters);
        self.sign(parameters)
    }

    /// A certificate for `name` that this authority has signed by way of another.
    pub(crate) fn issue_through(&self, between: impl FnOnce(&mut CertificateParams), name: &str) -> Identity {
        let mut parameters = named("between");
        between(&mut parameters);
        let key = KeyPair::generate().expect("a P-256 key needs no parameters");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("the parameters are complete");
        let between = Self {
            issuer: Issuer::new(parameters, key),
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
        };
        let mut identity = between.issue(name);
        identity.chain.push(between.certificate);
        identity
    }

    /// A list, as a PEM file, that revokes `identity`.
    pub(crate) fn revoke(&self, identity: &Identity) -> String {
        let revoked = RevokedCertParams {
            serial_number: identity.serial.clone().expect("an authority gives serial numbers"),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("the authority may sign lists");
        list.pem().expect("the list is complete")
    }

    fn sign(&self, mut parameters: CertificateParams) -> Identity {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SerialNumber::from(SERIAL.fetch_add(1, Ordering::Relaxed));
        parameters.serial_number = Some(serial.clone());
        let key = KeyPair::generate().expect("a P-256 key needs no parameters");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("the parameters are complete");
        Identity { serial: Some(serial), ..Identity::new(&certificate, &key) }
    }
}

impl Identity {
    /// A certificate for `name` that vouches for itself.
    pub(crate) fn self_signed(name: &str) -> Self {
        let key = KeyPair::generate().expect("a P-256 key needs no parameters");
        let certificate = named(name).self_signed(&key).expect("the parameters are complete");
        Self::new(&certificate, &key)
    }

    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self {
            chain: vec![certificate.der().clone()],
            serial: None,
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The configuration of a server with this identity.
    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.private_key())
            .expect("key and certificate belong together")
    }

    /// The same for a server that speaks one version alone.
    pub(crate) fn server_of(&self, version: &'static SupportedProtocolVersion) -> ServerConfig {
        ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.private_key())
            .expect("key and certificate belong together")
    }

    /// The same for a server that turns away clients without a certificate of `clients`.
    pub(crate) fn server_for(&self, clients: &Authority) -> ServerConfig {
        let verifier = WebPkiClientVerifier::builder_with_provider(clients.roots(), provider())
            .build()
            .expect("the authority is a root");
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider speaks TLS 1.2 and 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.private_key())
            .expect("key and certificate belong together")
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// The provider that the gateway uses too; named, because nothing here installs a process-wide one.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn named(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).expect("tests use good names")
}
