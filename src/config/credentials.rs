//! Certificates, keys and revocation lists: from the settings of a DestinationRule to a [`TlsProfile`].
//!
//! Nothing here ever weakens verification: what cannot be read makes the profile unavailable, with a reason.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::route::cluster::{ClientIdentity, TlsProfile, VerifyName};

use super::bootstrap;
use super::identity::{Generation, ProfileKey};
use super::istio::destination_rule::{ClientTls, TlsMode};

/// Largest certificate file that is read; the largest public revocation lists are a few MiB.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Why a profile is not available.
pub(super) type Reason = Box<str>;

/// Reads credentials during one load; each file at most once.
#[derive(Debug)]
pub(super) struct Credentials<'a> {
    defaults: &'a bootstrap::Tls,
    files: HashMap<PathBuf, Result<Content, Reason>>,
    roots: HashMap<u32, Result<Arc<RootCertStore>, Reason>>,
    system: Option<Result<(u32, Arc<RootCertStore>), Reason>>,
}

#[derive(Clone, Debug)]
struct Content {
    number: u32,
    bytes: Arc<[u8]>,
}

/// The files that the settings name.
#[derive(Debug, Default)]
struct Files {
    roots: Option<PathBuf>,
    crl: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl<'a> Credentials<'a> {
    /// Nothing is read yet.
    pub(super) fn new(defaults: &'a bootstrap::Tls) -> Self {
        Self { defaults, files: HashMap::new(), roots: HashMap::new(), system: None }
    }

    /// The profile for these settings; relative paths are relative to `folder`.
    ///
    /// # Errors
    /// What is missing or broken.
    pub(super) fn profile(
        &mut self,
        tls: &ClientTls,
        verify: VerifyName,
        folder: &Path,
        generation: &mut Generation<'_>,
    ) -> Result<Arc<TlsProfile>, Reason> {
        if tls.mode == Some(TlsMode::IstioMutual) {
            return Err("ISTIO_MUTUAL is the TLS of a mesh, and there is no mesh here".into());
        }
        let files = self.files(tls, folder)?;
        let (number, roots) = match verify {
            VerifyName::Nothing => (None, Arc::new(RootCertStore::empty())),
            VerifyName::Sni | VerifyName::AnyOf(_) | VerifyName::ChainOnly => {
                let (number, roots) = self.trusted(files.roots.as_deref(), generation)?;
                (Some(number), roots)
            }
        };
        let crl = files.crl.map(|path| self.read(&path, generation)).transpose()?;
        let identity = match &files.identity {
            Some((chain, key)) => Some((self.read(chain, generation)?, self.read(key, generation)?)),
            None => None,
        };
        let key = ProfileKey {
            roots: number,
            crl: crl.as_ref().map(|content| content.number),
            verify,
            identity: identity.as_ref().map(|(chain, key)| (chain.number, key.number)),
        };
        generation.profile(&key, |id| {
            let crls = crl.map_or(Ok(Vec::new()), |content| parse_crls(&content.bytes))?;
            let identity = identity.map(|(chain, key)| parse_identity(&chain.bytes, &key.bytes)).transpose()?;
            Ok(TlsProfile { id, roots, crls, verify: key.verify.clone(), identity })
        })
    }

    fn files(&self, tls: &ClientTls, folder: &Path) -> Result<Files, Reason> {
        let mutual = tls.mode == Some(TlsMode::Mutual);
        if let Some(name) = filled(tls.credential_name.as_ref()) {
            return self.credential(name, mutual);
        }
        let path = |field: &Option<String>| filled(field.as_ref()).map(|path| folder.join(path));
        let identity = match (path(&tls.client_certificate), path(&tls.private_key)) {
            (Some(chain), Some(key)) if mutual => Some((chain, key)),
            _ if mutual => return Err("MUTUAL needs a client certificate and a private key".into()),
            _ => None,
        };
        Ok(Files { roots: path(&tls.ca_certificates), crl: path(&tls.ca_crl), identity })
    }

    /// `credentials/NAME/{tls.crt,tls.key,ca.crt,ca.crl}`, or the names that generic secrets use.
    fn credential(&self, name: &str, mutual: bool) -> Result<Files, Reason> {
        if !is_credential_name(name) {
            return Err(format!("credentialName {name:?} is not the name of a folder").into());
        }
        let folder = self.defaults.credentials.join(name);
        let roots_folder = self.defaults.credentials.join(format!("{name}-cacert"));
        let in_folder = |names: [&str; 2]| names.map(|name| folder.join(name)).into_iter().find(|path| path.exists());
        let roots = ["ca.crt", "cacert"].map(|name| roots_folder.join(name)).into_iter().find(|path| path.exists());
        let roots = roots.or_else(|| in_folder(["ca.crt", "cacert"]));
        let missing =
            |file: &str| Reason::from(format!("credentialName {name:?}: {}: missing", folder.join(file).display()));
        if roots.is_none() && !mutual {
            return Err(missing("ca.crt"));
        }
        let identity = match (in_folder(["tls.crt", "cert"]), in_folder(["tls.key", "key"])) {
            _ if !mutual => None,
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, _) => return Err(missing("tls.crt")),
            (_, None) => return Err(missing("tls.key")),
        };
        Ok(Files { roots, crl: in_folder(["ca.crl", "crl"]), identity })
    }

    /// The roots of this file, else of the bootstrap file, else of the system.
    fn trusted(
        &mut self,
        path: Option<&Path>,
        generation: &mut Generation<'_>,
    ) -> Result<(u32, Arc<RootCertStore>), Reason> {
        let default = self.defaults.ca_certificates.as_deref();
        let Some(path) = path.or(default) else { return self.system_roots(generation) };
        let content = self.read(path, generation)?;
        let parsed = self.roots.entry(content.number).or_insert_with(|| parse_roots(&content.bytes));
        let roots = parsed.clone().map_err(|reason| format!("{}: {reason}", path.display()))?;
        Ok((content.number, roots))
    }

    fn system_roots(&mut self, generation: &mut Generation<'_>) -> Result<(u32, Arc<RootCertStore>), Reason> {
        self.system.get_or_insert_with(|| load_system_roots(generation)).clone()
    }

    fn read(&mut self, path: &Path, generation: &mut Generation<'_>) -> Result<Content, Reason> {
        if let Some(known) = self.files.get(path) {
            return known.clone();
        }
        let content = read_bytes(path).map(|bytes| {
            let bytes = Arc::from(bytes);
            Content { number: generation.content(&bytes), bytes }
        });
        self.files.insert(path.to_path_buf(), content.clone());
        content
    }
}

fn filled(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// The name of a Kubernetes secret, which cannot lead out of the credentials folder.
fn is_credential_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.bytes().all(legal) && !name.starts_with('.')
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Reason> {
    use std::io::Read;
    let explain = |error: std::io::Error| Reason::from(format!("{}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(explain)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(explain)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{}: larger than {FILE_BYTES_MAX} bytes", path.display()).into());
    }
    Ok(bytes)
}

/// Every certificate of a bundle must be readable: half a bundle would be a silent change of policy.
fn parse_roots(pem: &[u8]) -> Result<Arc<RootCertStore>, Reason> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("no certificate in PEM form".into());
    }
    Ok(Arc::new(roots))
}

/// The system's store may hold certificates that webpki does not take; the others count.
fn load_system_roots(generation: &mut Generation<'_>) -> Result<(u32, Arc<RootCertStore>), Reason> {
    let loaded = rustls_native_certs::load_native_certs();
    let bytes: Arc<[u8]> = loaded.certs.iter().flat_map(|certificate| certificate.as_ref()).copied().collect();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let detail = loaded.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("the system has no root certificates{detail}; set tls.caCertificates").into());
    }
    Ok((generation.content(&bytes), Arc::new(roots)))
}

fn parse_crls(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Reason> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = lists.map_err(|error| format!("revocation list: {error}"))?;
    if lists.is_empty() {
        return Err("no revocation list in PEM form".into());
    }
    Ok(lists)
}

fn parse_identity(chain: &[u8], key: &[u8]) -> Result<ClientIdentity, Reason> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("client certificate: {error}"))?;
    if chain.is_empty() {
        return Err("no client certificate in PEM form".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("private key: {error}"))?;
    judge_pair(&chain, &key)?;
    Ok(ClientIdentity { chain, key })
}

/// A key that does not belong to its certificate would fail every handshake with a less telling reason.
fn judge_pair(chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> Result<(), Reason> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let pair = rustls::sign::CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &provider);
    pair.map(drop).map_err(|error| format!("client certificate and private key: {error}").into())
}
