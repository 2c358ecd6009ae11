//! `Secret` of Kubernetes, as far as it feeds `credentialName`.
//!
//! What is in a Secret is never part of a finding, of admin output or of `Debug` output.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::object::{Object, Scope};
use crate::config::finding::code;
use crate::config::yaml::Node;

/// The keys that are read: those of type `kubernetes.io/tls`, and those that Istio reads of generic ones.
const KEYS: [&str; 8] = ["tls.crt", "tls.key", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"];

/// The types that hold certificates. `generic` is kubectl's word for `Opaque`.
const TYPES: [&str; 4] = ["", "kubernetes.io/tls", "Opaque", "generic"];

/// Every Secret, by name.
#[derive(Debug, Default)]
pub struct Secrets<'a> {
    by_name: HashMap<&'a str, Vec<&'a Object<Secret>>>,
}

/// The values of one Secret.
#[derive(Default)]
pub struct Secret {
    values: HashMap<&'static str, Arc<[u8]>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.values.keys()).finish()
    }
}

impl Secret {
    /// Reads a Secret; `None` if its type holds no certificates.
    pub(super) fn read(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<Self> {
        let kind = node.get("type").and_then(Node::as_str).unwrap_or_default();
        if !TYPES.contains(&kind) {
            scope.info(code::SKIPPED, "type", "a Secret of this type holds no certificates and is skipped");
            return None;
        }
        let secret = read(node, scope);
        if secret.values.is_empty() {
            scope.info(code::SKIPPED, "data", "no certificate, key or revocation list is in this Secret");
        }
        Some(secret)
    }

    /// The value of the first of these keys that is there.
    #[must_use]
    pub fn value(&self, keys: &[&str]) -> Option<&Arc<[u8]>> {
        keys.iter().find_map(|key| self.values.get(*key))
    }
}

impl<'a> Secrets<'a> {
    /// Indexes the Secrets.
    #[must_use]
    pub fn new(secrets: &'a [Object<Secret>]) -> Self {
        let mut by_name: HashMap<&str, Vec<_>> = HashMap::new();
        for secret in secrets {
            by_name.entry(secret.origin.object.name()).or_default().push(secret);
        }
        Self { by_name }
    }

    /// The Secret that `credentialName` means: in the namespace of the DestinationRule, else in the root namespace,
    /// else wherever it is, if there is one only.
    ///
    /// # Errors
    /// The namespaces, if there are several.
    pub fn find(&self, name: &str, namespace: &str, root: &str) -> Result<Option<&'a Secret>, Vec<&'a str>> {
        let Some(secrets) = self.by_name.get(name) else { return Ok(None) };
        let within = |namespace: &str| secrets.iter().find(|secret| secret.origin.object.namespace() == namespace);
        match (within(namespace).or_else(|| within(root)), secrets.as_slice()) {
            (Some(secret), _) | (None, [secret]) => Ok(Some(&secret.spec)),
            (None, several) => Err(several.iter().map(|secret| secret.origin.object.namespace()).collect()),
        }
    }
}

/// `data`, in base64, and over it `stringData`, as it stands.
fn read(node: &Node<'_>, scope: &mut Scope<'_>) -> Secret {
    let mut secret = Secret::default();
    for key in KEYS {
        let text = |field: &str| node.get(field).and_then(|values| values.get(key)).filter(|text| !text.is_null());
        if let Some(encoded) = text("data") {
            match encoded.as_str().and_then(decode_base64) {
                Some(bytes) => drop(secret.values.insert(key, bytes.into())),
                None => scope.error(format!("data.{key}"), "not in base64"),
            }
        }
        if let Some(plain) = text("stringData") {
            match plain.as_str() {
                Some(plain) => drop(secret.values.insert(key, plain.as_bytes().into())),
                None => scope.error(format!("stringData.{key}"), "not a text"),
            }
        }
    }
    secret
}

/// RFC 4648 section 4; white space is skipped, as `base64` writes lines.
pub(in crate::config) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut symbols = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let (mut buffer, mut bits, mut count) = (0u32, 0, 0usize);
    while let Some(symbol) = symbols.next() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                // Padding fills up the last group of four, and nothing follows it.
                let rest: Vec<u8> = symbols.collect();
                let is_last = rest.len() <= 1 && rest.iter().all(|symbol| *symbol == b'=');
                return (is_last && (count + 1 + rest.len()).is_multiple_of(4)).then_some(bytes);
            }
            _ => return None,
        };
        count += 1;
        buffer = buffer << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    // One symbol alone holds no byte.
    (count % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_rfc_4648_defines_it() {
        let cases = [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9v\nYmFy\n", "foobar"),
        ];
        for (text, bytes) in cases {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode_base64("Zm8").as_deref(), Some(&b"fo"[..]), "padding may be left out");
        for text in ["Z", "Zm9v=", "Z===", "Zg==Zg==", "Zg=a", "Zg=a=", "Zm9v!", "Zm9vY===", "-----BEGIN"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }
}
