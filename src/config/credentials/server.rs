//! What a server at which TLS ends shows and asks for: from the settings of a Gateway to a [`ServerProfile`].

use std::sync::Arc;
use std::time::Instant;

use crate::config::identity::{CheckKey, Generation, ServerKey};
use crate::config::istio::Origin;
use crate::config::istio::gateway::{ServerTls, ServerTlsMode, TlsVersion};
use crate::config::istio::secret::decode_base64;
use crate::config::mesh::suite;
use crate::route::cluster::TlsBounds;
use crate::route::termination::{ClientCheck, ServerProfile, TicketSecret};

use super::{
    Content, Credentials, Reason, Source, Sources, filled, first_end, is_credential_name, parse_crls, parse_identity,
    parse_roots,
};

/// What is wrong with a server's TLS, and in which of its fields.
#[derive(Debug)]
pub(in crate::config) struct Fault {
    /// `credentialName`, say.
    pub(in crate::config) field: String,
    pub(in crate::config) reason: Reason,
}

/// A source and the field that names it.
type Named<'a> = (String, Source<'a>);

/// What the fields of a server lead to.
#[derive(Debug, Default)]
struct ServerSources<'a> {
    identities: Vec<(Named<'a>, Named<'a>)>,
    roots: Vec<Named<'a>>,
    crls: Vec<Named<'a>>,
}

fn fault(field: impl Into<String>) -> impl FnOnce(Reason) -> Fault {
    let field = field.into();
    move |reason| Fault { field, reason }
}

impl<'a> Credentials<'a> {
    /// The profile for these settings of a server of the Gateway `origin`, in whose TLS HTTP is spoken or not; relative paths
    /// are relative to its folder.
    ///
    /// # Errors
    /// What is missing or broken.
    pub(in crate::config) fn server(
        &mut self,
        tls: &ServerTls,
        origin: &Origin,
        speaks_http: bool,
        generation: &mut Generation<'_>,
    ) -> Result<Arc<ServerProfile>, Fault> {
        let sources = self.server_sources(tls, origin)?;
        let clients = match tls.mode {
            Some(ServerTlsMode::Mutual) => Some(self.check(tls, &sources, generation)?),
            _ => None,
        };
        let mut identities = Vec::new();
        for ((chain_field, chain), (key_field, key)) in &sources.identities {
            let certificate = self.content(chain, generation).map_err(fault(chain_field))?;
            let private_key = self.content(key, generation).map_err(fault(key_field))?;
            identities.push((certificate, private_key, format!("{chain} and {key}"), chain_field));
        }
        let bounds = self.server_bounds(tls)?;
        let only_12 = tls.max_protocol_version == Some(TlsVersion::V1_2);
        if bounds.only_13 && only_12 {
            let reason = "TLS 1.2 is too old for minProtocolVersion, or for meshConfig.tlsDefaults";
            return Err(fault("maxProtocolVersion")(reason.into()));
        }
        let numbers = identities.iter().map(|(chain, key, ..)| (chain.number, key.number)).collect();
        let clients_id = clients.as_ref().map(|it| it.id);
        let key = ServerKey { identities: numbers, clients: clients_id, bounds, only_12, speaks_http };
        generation.server(&key, |id| {
            let mut parsed = Vec::new();
            for (chain, private_key, files, field) in identities {
                let identity = parse_identity("server certificate", &chain.bytes, &private_key.bytes);
                parsed.push(identity.map_err(|reason| fault(field)(format!("{files}: {reason}").into()))?);
            }
            let identity_end = parsed.iter().filter_map(|identity| first_end(&identity.chain)).min();
            let tickets = secret().map_err(fault("mode"))?;
            let (bounds, only_12) = (key.bounds.clone(), key.only_12);
            Ok(ServerProfile { id, identities: parsed, clients, bounds, only_12, speaks_http, tickets, identity_end })
        })
    }

    fn check(
        &mut self,
        tls: &ServerTls,
        sources: &ServerSources<'a>,
        generation: &mut Generation<'_>,
    ) -> Result<Arc<ClientCheck>, Fault> {
        let roots = self.the_one(&sources.roots, generation)?;
        let Some((roots_field, roots_source, roots)) = roots else {
            return Err(fault("caCertificates")("MUTUAL TLS requires a client CA bundle".into()));
        };
        let crl = self.the_one(&sources.crls, generation)?;
        let pins = |list: &[String], field: &str, read: fn(&str) -> Option<[u8; 32]>| {
            let pins = list.iter().enumerate().map(|(index, text)| {
                let reason = || format!("{text:?} is no SHA-256").into();
                read(text).ok_or_else(|| fault(format!("{field}[{index}]"))(reason()))
            });
            pins.collect::<Result<Vec<_>, Fault>>()
        };
        let key = CheckKey {
            roots: roots.number,
            crl: crl.as_ref().map(|(.., content)| content.number),
            names: tls.subject_alt_names.iter().map(|name| name.as_str().into()).collect(),
            certificates: pins(&tls.verify_certificate_hash, "verifyCertificateHash", hexadecimal)?,
            keys: pins(&tls.verify_certificate_spki, "verifyCertificateSpki", base64)?,
        };
        let parsed = self.roots.entry(roots.number).or_insert_with(|| parse_roots(&roots.bytes)).clone();
        generation.check(&key, |id| {
            let named = |source: &Source<'_>, reason: Reason| format!("{source}: {reason}").into();
            let (roots, roots_end) = parsed.map_err(|reason| fault(roots_field)(named(roots_source, reason)))?;
            let crls = match crl {
                Some((field, source, content)) => {
                    parse_crls(&content.bytes).map_err(|reason| fault(field)(named(source, reason)))?
                }
                None => Vec::new(),
            };
            let CheckKey { names, certificates, keys, .. } = key.clone();
            Ok(ClientCheck { id, roots, crls, names, certificates, keys, roots_end })
        })
    }

    /// The content of these sources, which must all have the same: whichever of two is meant is not for us to guess.
    fn the_one<'s>(
        &mut self,
        sources: &'s [Named<'a>],
        generation: &mut Generation<'_>,
    ) -> Result<Option<(&'s str, &'s Source<'a>, Content)>, Fault> {
        let mut found: Option<(&str, &Source<'a>, Content)> = None;
        for (field, source) in sources {
            let content = self.content(source, generation).map_err(fault(field))?;
            if let Some((_, first, known)) = &found
                && known.number != content.number
            {
                return Err(fault(field)(format!("{source} differs from {first}: only one may hold").into()));
            }
            found.get_or_insert((field, source, content));
        }
        Ok(found)
    }

    fn server_sources(&self, tls: &ServerTls, origin: &Origin) -> Result<ServerSources<'a>, Fault> {
        let mut sources = ServerSources::default();
        let file = |field: String, path: Option<&String>| {
            filled(path).map(|path| (field, Source::File(origin.folder().join(path))))
        };
        let mut add_files = |prefix: &str, certificate: Option<&String>, key: Option<&String>| {
            let chain = file(format!("{prefix}serverCertificate"), certificate);
            let key = file(format!("{prefix}privateKey"), key);
            sources.identities.extend(chain.zip(key));
        };
        add_files("", tls.server_certificate.as_ref(), tls.private_key.as_ref());
        for (index, own) in tls.tls_certificates.iter().enumerate() {
            let prefix = format!("tlsCertificates[{index}].");
            add_files(&prefix, own.server_certificate.as_ref(), own.private_key.as_ref());
            sources.roots.extend(file(format!("{prefix}caCertificates"), own.ca_certificates.as_ref()));
        }
        sources.roots.extend(file("caCertificates".to_owned(), tls.ca_certificates.as_ref()));
        sources.crls.extend(file("caCrl".to_owned(), tls.ca_crl.as_ref()));
        let mutual = tls.mode == Some(ServerTlsMode::Mutual);
        for (field, name) in credential_names(tls) {
            let found = self.server_credential(name, origin.object.namespace(), mutual).map_err(fault(&field))?;
            let (chain, key) = found.identity.unzip();
            let named = |source| (field.clone(), source);
            sources.identities.extend(chain.map(named).zip(key.map(named)));
            sources.roots.extend(found.roots.map(named));
            sources.crls.extend(found.crl.map(named));
        }
        if sources.identities.is_empty() {
            return Err(fault("serverCertificate")("a server needs a certificate and its private key".into()));
        }
        Ok(sources)
    }

    /// As [`Self::credential`], of a server: its certificate is a must, and what it verifies clients by matters to
    /// `MUTUAL` alone.
    fn server_credential(&self, name: &str, namespace: &str, mutual: bool) -> Result<Sources<'a>, Reason> {
        if !is_credential_name(name) {
            return Err(format!("credentialName {name:?} is not the name of a Secret or folder").into());
        }
        let own = self.holder(name, namespace)?;
        let missing = |key: &str| Reason::from(format!("credentialName {name:?}: {own}: {key}: missing"));
        let chain = own.find(&["tls.crt", "cert"]).ok_or_else(|| missing("tls.crt"))?;
        let key = own.find(&["tls.key", "key"]).ok_or_else(|| missing("tls.key"))?;
        let identity = Some((chain, key));
        if !mutual {
            return Ok(Sources { roots: None, crl: None, identity });
        }
        let apart = self.holder(&format!("{name}-cacert"), namespace)?;
        let roots = apart.find(&["ca.crt", "cacert"]).or_else(|| own.find(&["ca.crt", "cacert"]));
        let crl = own.find(&["ca.crl", "crl"]).or_else(|| apart.find(&["ca.crl", "crl"]));
        Ok(Sources { roots, crl, identity })
    }

    /// What the server says, and where it says nothing what `meshConfig.tlsDefaults` does.
    fn server_bounds(&self, tls: &ServerTls) -> Result<TlsBounds, Fault> {
        let mut bounds = self.bounds.clone();
        match tls.min_protocol_version {
            Some(TlsVersion::V1_3) => bounds.only_13 = true,
            Some(TlsVersion::V1_0 | TlsVersion::V1_1 | TlsVersion::V1_2) => bounds.only_13 = false,
            Some(TlsVersion::Auto) | None => {}
        }
        if !tls.cipher_suites.is_empty() {
            let suites = tls.cipher_suites.iter().enumerate().map(|(index, name)| {
                let reason = || format!("{name:?} is not spoken here").into();
                suite(name).ok_or_else(|| fault(format!("cipherSuites[{index}]"))(reason()))
            });
            bounds.suites = suites.collect::<Result<_, _>>()?;
        }
        Ok(bounds)
    }
}

/// The names of credentials, with their fields.
fn credential_names(tls: &ServerTls) -> impl Iterator<Item = (String, &str)> {
    let several = tls.credential_names.iter().enumerate();
    let several = several.map(|(index, name)| (format!("credentialNames[{index}]"), name.as_str()));
    filled(tls.credential_name.as_ref()).map(|name| ("credentialName".to_owned(), name)).into_iter().chain(several)
}

fn secret() -> Result<TicketSecret, Reason> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Reason::from("no random bytes for session tickets"))?;
    Ok(TicketSecret { bytes, born: Instant::now() })
}

/// `verifyCertificateHash`: 64 hexadecimal digits, which OpenSSL prints with colons.
fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// `verifyCertificateSpki`.
fn base64(text: &str) -> Option<[u8; 32]> {
    decode_base64(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_all_of_a_hash() {
        let colons = ["ab"; 32].join(":");
        assert_eq!(hexadecimal(&colons), Some([0xab; 32]));
        assert_eq!(hexadecimal(&"Ab".repeat(32)), Some([0xab; 32]));
        for bad in ["", "ab", &"ab".repeat(33), &"ag".repeat(32), &"+b".repeat(32)] {
            assert_eq!(hexadecimal(bad), None, "{bad}");
        }
        assert_eq!(base64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), Some([0; 32]));
        assert_eq!(base64("AAAA"), None);
    }
}
