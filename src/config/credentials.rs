//! Certificates, keys and revocation lists: from the settings of a DestinationRule to a [`TlsProfile`], and from those of
//! a Gateway's server to what it shows ([`server`]).
//!
//! Nothing here ever weakens verification: what cannot be read makes the profile unavailable, with a reason.

mod server;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::route::cluster::{Identity, TlsBounds, TlsProfile, VerifyName};
use crate::wire::certificate::not_after;

use super::bootstrap;
use super::identity::{Generation, ProfileKey};
use super::istio::destination_rule::{ClientTls, TlsMode};
use super::istio::secret::{Secret, Secrets};
use super::istio::{Object, Origin};

/// Largest certificate file that is read; the largest public revocation lists are a few MiB.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Why a profile is not available.
pub(super) type Reason = Box<str>;

/// Reads credentials during one load; each file at most once.
#[derive(Debug)]
pub(super) struct Credentials<'a> {
    defaults: &'a bootstrap::Tls,
    secrets: Secrets<'a>,
    root_namespace: &'a str,
    bounds: &'a TlsBounds,
    files: HashMap<PathBuf, Result<Content, Reason>>,
    roots: HashMap<u32, Result<Bundle, Reason>>,
    system: Option<Result<Roots, Reason>>,
}

/// Trusted roots of a file, and when the first of them ends.
type Bundle = (Arc<RootCertStore>, Option<SystemTime>);

/// Trusted roots: the number of their contents, they themselves, and when the first of them ends.
type Roots = (u32, Arc<RootCertStore>, Option<SystemTime>);

#[derive(Clone)]
struct Content {
    number: u32,
    bytes: Arc<[u8]>,
}

/// Never the bytes, which may be a private key.
impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "content {} of {} bytes", self.number, self.bytes.len())
    }
}

/// Where the settings say that certificates are.
#[derive(Debug, Default)]
struct Sources<'a> {
    roots: Option<Source<'a>>,
    crl: Option<Source<'a>>,
    identity: Option<(Source<'a>, Source<'a>)>,
}

/// A file, or a value of a Secret.
enum Source<'a> {
    File(PathBuf),
    /// The bytes, and the name of the Secret for messages.
    Value(&'a Arc<[u8]>, Box<str>),
}

/// What a `credentialName` leads to.
enum Holder<'a> {
    Secret(&'a Secret, Box<str>),
    Folder(PathBuf),
}

impl<'a> Holder<'a> {
    /// The first of these that is there.
    fn find(&self, keys: &[&str]) -> Option<Source<'a>> {
        match self {
            Self::Secret(secret, name) => secret.value(keys).map(|bytes| Source::Value(bytes, name.clone())),
            Self::Folder(folder) => {
                keys.iter().map(|key| folder.join(key)).find(|path| path.exists()).map(Source::File)
            }
        }
    }
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_, name) => write!(formatter, "Secret {name}"),
            Self::Folder(folder) => folder.display().fmt(formatter),
        }
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Value(_, name) => write!(formatter, "Secret {name}"),
        }
    }
}

/// Never the bytes.
impl fmt::Debug for Source<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl<'a> Credentials<'a> {
    /// Nothing is read yet.
    pub(super) fn new(
        defaults: &'a bootstrap::Tls,
        secrets: &'a [Object<Secret>],
        root_namespace: &'a str,
        bounds: &'a TlsBounds,
    ) -> Self {
        let secrets = Secrets::new(secrets);
        Self { defaults, secrets, root_namespace, bounds, files: HashMap::new(), roots: HashMap::new(), system: None }
    }

    /// The profile for these settings of the DestinationRule `origin`; relative paths are relative to its folder.
    ///
    /// # Errors
    /// What is missing or broken.
    pub(super) fn profile(
        &mut self,
        tls: &ClientTls,
        verify: VerifyName,
        origin: &Origin,
        generation: &mut Generation<'_>,
    ) -> Result<Arc<TlsProfile>, Reason> {
        if tls.mode == Some(TlsMode::IstioMutual) {
            return Err("ISTIO_MUTUAL is the TLS of a mesh, and there is no mesh here".into());
        }
        let sources = self.sources(tls, origin)?;
        let (number, roots, roots_end) = match verify {
            VerifyName::Nothing => (None, Arc::new(RootCertStore::empty()), None),
            VerifyName::Sni | VerifyName::AnyOf(_) | VerifyName::ChainOnly => {
                let (number, roots, end) = self.trusted(sources.roots, generation)?;
                (Some(number), roots, end)
            }
        };
        let crl = sources.crl.map(|source| self.content(&source, generation)).transpose()?;
        let identity = match &sources.identity {
            Some((chain, key)) => Some((self.content(chain, generation)?, self.content(key, generation)?)),
            None => None,
        };
        let key = ProfileKey {
            roots: number,
            crl: crl.as_ref().map(|content| content.number),
            verify,
            identity: identity.as_ref().map(|(chain, key)| (chain.number, key.number)),
            bounds: self.bounds.clone(),
        };
        generation.profile(&key, |id| {
            let crls = crl.map_or(Ok(Vec::new()), |content| parse_crls(&content.bytes))?;
            let identity = identity.map(|(chain, key)| parse_identity("client certificate", &chain.bytes, &key.bytes));
            let identity = identity.transpose()?;
            let identity_end = identity.as_ref().and_then(|identity| first_end(&identity.chain));
            let (verify, bounds) = (key.verify.clone(), key.bounds.clone());
            Ok(TlsProfile { id, roots, crls, verify, identity, bounds, roots_end, identity_end })
        })
    }

    fn sources(&self, tls: &ClientTls, origin: &Origin) -> Result<Sources<'a>, Reason> {
        let mutual = tls.mode == Some(TlsMode::Mutual);
        if let Some(name) = filled(tls.credential_name.as_ref()) {
            return self.credential(name, origin.object.namespace(), mutual);
        }
        let path = |field: &Option<String>| filled(field.as_ref()).map(|path| Source::File(origin.folder().join(path)));
        let identity = match (path(&tls.client_certificate), path(&tls.private_key)) {
            (Some(chain), Some(key)) if mutual => Some((chain, key)),
            _ if mutual => return Err("MUTUAL needs a client certificate and a private key".into()),
            _ => None,
        };
        Ok(Sources { roots: path(&tls.ca_certificates), crl: path(&tls.ca_crl), identity })
    }

    /// What `credentialName` means: of a Secret with the keys of TLS or of generic ones, else of the folder
    /// `credentials/NAME` with files of the same names. Roots may stand in NAME-cacert.
    fn credential(&self, name: &str, namespace: &str, mutual: bool) -> Result<Sources<'a>, Reason> {
        if !is_credential_name(name) {
            return Err(format!("credentialName {name:?} is not the name of a Secret or folder").into());
        }
        let own = self.holder(name, namespace)?;
        let roots = self.holder(&format!("{name}-cacert"), namespace)?.find(&["ca.crt", "cacert"]);
        let roots = roots.or_else(|| own.find(&["ca.crt", "cacert"]));
        let missing = |key: &str| Reason::from(format!("credentialName {name:?}: {own}: {key}: missing"));
        if roots.is_none() && !mutual {
            return Err(missing("ca.crt"));
        }
        let identity = match (own.find(&["tls.crt", "cert"]), own.find(&["tls.key", "key"])) {
            _ if !mutual => None,
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, _) => return Err(missing("tls.crt")),
            (_, None) => return Err(missing("tls.key")),
        };
        Ok(Sources { roots, crl: own.find(&["ca.crl", "crl"]), identity })
    }

    fn holder(&self, name: &str, namespace: &str) -> Result<Holder<'a>, Reason> {
        match self.secrets.find(name, namespace, self.root_namespace) {
            Ok(Some(secret)) => Ok(Holder::Secret(secret, name.into())),
            Ok(None) => Ok(Holder::Folder(self.defaults.credentials.join(name))),
            Err(namespaces) => {
                let namespaces = namespaces.join(", ");
                Err(format!("credentialName {name:?}: Secrets of this name stand in several namespaces: {namespaces}")
                    .into())
            }
        }
    }

    /// The roots of this source, else of the bootstrap file, else of the system.
    fn trusted(&mut self, source: Option<Source<'_>>, generation: &mut Generation<'_>) -> Result<Roots, Reason> {
        let default = || self.defaults.ca_certificates.clone().map(Source::File);
        let Some(source) = source.or_else(default) else { return self.system_roots(generation) };
        let content = self.content(&source, generation)?;
        let parsed = self.roots.entry(content.number).or_insert_with(|| parse_roots(&content.bytes));
        let (roots, end) = parsed.clone().map_err(|reason| format!("{source}: {reason}"))?;
        Ok((content.number, roots, end))
    }

    fn system_roots(&mut self, generation: &mut Generation<'_>) -> Result<Roots, Reason> {
        self.system.get_or_insert_with(|| load_system_roots(generation)).clone()
    }

    fn content(&mut self, source: &Source<'_>, generation: &mut Generation<'_>) -> Result<Content, Reason> {
        match source {
            Source::File(path) => self.read(path, generation),
            Source::Value(bytes, _) => Ok(Content { number: generation.content(bytes), bytes: Arc::clone(bytes) }),
        }
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
fn parse_roots(pem: &[u8]) -> Result<Bundle, Reason> {
    let mut roots = RootCertStore::empty();
    let mut end: Option<SystemTime> = None;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        end = end.into_iter().chain(not_after(&certificate)).min();
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("no certificate in PEM form".into());
    }
    Ok((Arc::new(roots), end))
}

fn first_end(chain: &[CertificateDer<'_>]) -> Option<SystemTime> {
    chain.iter().filter_map(|certificate| not_after(certificate)).min()
}

/// The system's store may hold certificates that webpki does not take; the others count.
fn load_system_roots(generation: &mut Generation<'_>) -> Result<Roots, Reason> {
    let loaded = rustls_native_certs::load_native_certs();
    let bytes: Arc<[u8]> = loaded.certs.iter().flat_map(|certificate| certificate.as_ref()).copied().collect();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let detail = loaded.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("the system has no root certificates{detail}; set tls.caCertificates").into());
    }
    Ok((generation.content(&bytes), Arc::new(roots), None))
}

fn parse_crls(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Reason> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = lists.map_err(|error| format!("revocation list: {error}"))?;
    if lists.is_empty() {
        return Err("no revocation list in PEM form".into());
    }
    Ok(lists)
}

/// `what` is a word for the certificate.
fn parse_identity(what: &str, chain: &[u8], key: &[u8]) -> Result<Identity, Reason> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("{what}: {error}"))?;
    if chain.is_empty() {
        return Err(format!("no {what} in PEM form").into());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("private key: {error}"))?;
    judge_pair(&chain, &key).map_err(|error| format!("{what} and private key: {error}"))?;
    Ok(Identity { chain, key })
}

/// A key that does not belong to its certificate would fail every handshake with a less telling reason.
fn judge_pair(chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> Result<(), rustls::Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let pair = rustls::sign::CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &provider);
    pair.map(drop)
}
