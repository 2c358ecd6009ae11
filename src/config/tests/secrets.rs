//! Secrets that feed `credentialName`, and where their contents must never appear.

use super::*;

/// `data:` needs base64; RFC 4648 section 4.
pub(super) fn base64(bytes: &[u8]) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let symbol = char::from(SYMBOLS[(group >> (18 - 6 * index) & 63) as usize]);
            text.push(if index <= chunk.len() { symbol } else { '=' });
        }
    }
    text
}

fn secret(name: &str, namespace: &str, kind: &str, data: &[(&str, &str)]) -> String {
    let fields: String = data.iter().map(|(key, value)| format!("  {key}: {}\n", base64(value.as_bytes()))).collect();
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: {kind}\ndata:\n{fields}"
    )
}

/// A service whose rule names the credential `client`.
fn originating(mode: &str) -> String {
    let tls = format!("{{host: a.example.com, trafficPolicy: {{tls: {{mode: {mode}, credentialName: client}}}}}}");
    [entry("a", "a.example.com", HTTP, DNS), object("DestinationRule", "a", &tls)].concat()
}

fn profile(loaded: &Loaded) -> &Result<std::sync::Arc<crate::route::cluster::TlsProfile>, Box<str>> {
    &http_cluster(loaded, 80, "a.example.com").tls.as_ref().expect("TLS").profile
}

#[test]
fn a_tls_secret_gives_identity_and_roots() {
    let (certificate, key) = authority();
    let data = [("tls.crt", &*certificate), ("tls.key", &*key), ("ca.crt", &*certificate)];
    let loaded = load(&[originating("MUTUAL"), secret("client", "default", "kubernetes.io/tls", &data)].concat());
    let profile = profile(&loaded).as_ref().expect("available");
    assert!(profile.identity.is_some() && profile.roots.len() == 1);
}

#[test]
fn a_generic_secret_and_one_for_the_roots_do_too() {
    let (certificate, key) = authority();
    let indented = |text: &str| text.replace('\n', "\n    ");
    let plain = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: client}}\nstringData:\n  cert: |\n    {}\n  key: |\n    {}\n",
        indented(&certificate),
        indented(&key)
    );
    let roots = secret("client-cacert", "default", "Opaque", &[("cacert", &certificate)]);
    let loaded = load(&[originating("MUTUAL"), plain, roots].concat());
    let profile = profile(&loaded).as_ref().expect("available");
    assert!(profile.identity.is_some() && profile.roots.len() == 1);
}

#[test]
fn a_secret_comes_before_the_folder_and_is_never_mixed_with_it() {
    let (certificate, _) = authority();
    let files = Files::new(&[originating("SIMPLE"), secret("client", "default", "Opaque", &[("crl", "x")])].concat());
    std::fs::create_dir_all(files.path("credentials/client")).expect("created");
    files.write("credentials/client/ca.crt", &certificate);
    files.write("portcullis.yaml", "listeners: [{name: a, bind: '127.0.0.1:1'}]\nresources: [resources.yaml]\n");
    let load = |files: &Files| Loader::default().load(&files.path("portcullis.yaml")).expect("it loads");
    let reason = profile(&load(&files)).as_ref().expect_err("no roots").to_string();
    assert!(reason.contains("Secret client: ca.crt: missing"), "{reason}");
    files.write("resources.yaml", &originating("SIMPLE"));
    assert!(profile(&load(&files)).is_ok());
}

#[test]
fn the_secret_of_the_rules_namespace_holds_and_others_must_be_unambiguous() {
    let (certificate, _) = authority();
    let roots = |namespace| secret("client", namespace, "Opaque", &[("ca.crt", &certificate)]);
    let none = |namespace| secret("client", namespace, "Opaque", &[]);
    let available = |secrets: &[String]| profile(&load(&[originating("SIMPLE"), secrets.concat()].concat())).is_ok();
    assert!(available(&[none("b"), roots("default")]));
    assert!(available(&[none("b"), roots("istio-system")]));
    assert!(available(&[roots("b")]));
    assert!(!available(&[roots("b"), roots("c")]));
    assert!(!available(&[roots("istio-system"), none("default")]));
}

#[test]
fn other_types_are_skipped_and_bad_data_is_an_error_without_its_value() {
    let token = secret("token", "default", "kubernetes.io/service-account-token", &[("token", "sesame")]);
    assert!(load(&[originating("DISABLE"), token].concat()).findings.iter().any(|it| it.field == "type"));
    let bad = secret("client", "default", "Opaque", &[]).replace("data:\n", "data: {tls.key: 'open sesame!'}\n");
    let found = Files::new(&bad).load(&mut Loader::default()).expect_err("bad base64");
    assert_eq!(found[0].field, "data.tls.key");
    assert!(!format!("{found:?}").contains("sesame"), "{found:?}");
}

#[test]
fn contents_of_secrets_are_neither_documents_nor_debug_output() {
    let (certificate, key) = authority();
    let data = [("tls.crt", &*certificate), ("tls.key", &*key), ("ca.crt", &*certificate)];
    let resources = [secret("client", "default", "kubernetes.io/tls", &data), originating("MUTUAL")].concat();
    let files = Files::new(&resources);
    let mut loader = Loader::default();
    let loaded = files.load(&mut loader).expect("it loads");
    let documents: Vec<_> = loaded.objects.iter().map(|object| serde_json::json!(object.document)).collect();
    let shown = format!("{documents:?} {loaded:?} {loader:?} {:?}", loaded.findings);
    let encoded = base64(key.as_bytes());
    let numbers = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let der = loaded.routes.tables.clusters.iter().find_map(|cluster| {
        let profile = cluster.tls.as_ref()?.profile.as_ref().ok()?;
        Some(profile.identity.as_ref()?.key.secret_der().to_vec())
    });
    let der = der.expect("an identity");
    for secret in [&encoded[..40], &key[40..80], &numbers(&key.as_bytes()[..20]), &numbers(&der[40..60])] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
    assert!(!shown.contains("\"Secret\""), "Secrets are no documents");
}
