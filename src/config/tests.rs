//! From text to tables: what a configuration comes to.

use std::path::PathBuf;

use super::finding::Finding;
use super::{Loaded, Loader};
use crate::route::cluster::{Balance, Cluster, Destination, DnsEndpoint, Endpoints, VerifyName};
use crate::route::http::{HttpAction, HttpRoute};
use crate::route::table::{TlsHost, VirtualHost};

/// A folder with one file of resources, gone at the end of the test.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(resources: &str) -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        files.write("resources.yaml", resources);
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self, loader: &mut Loader) -> Result<Loaded, Vec<Finding>> {
        loader.load_paths(&[self.path("resources.yaml")])
    }
}

fn load(resources: &str) -> Loaded {
    Files::new(resources).load(&mut Loader::default()).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

fn http<'a>(loaded: &'a Loaded, port: u16, host: &str) -> Option<&'a VirtualHost> {
    loaded.routes.http(port, &host.parse().expect("a valid name"))
}

fn tls<'a>(loaded: &'a Loaded, port: u16, host: &str) -> Option<&'a TlsHost> {
    loaded.routes.tls(port, &host.parse().expect("a valid name"))
}

fn cluster(loaded: &Loaded, destination: Destination) -> &Cluster {
    match destination {
        Destination::Cluster(id) => loaded.routes.cluster(id).expect("a cluster of the tables"),
        Destination::Missing => panic!("the destination does not exist"),
    }
}

fn destination(route: &HttpRoute) -> Destination {
    match &route.action {
        HttpAction::Forward(forward) => forward.clusters.pick(0),
        HttpAction::Respond(_) => panic!("not forwarded"),
    }
}

/// The cluster of the first route of a host.
fn http_cluster<'a>(loaded: &'a Loaded, port: u16, host: &str) -> &'a Cluster {
    let host = http(loaded, port, host).expect("a virtual host");
    cluster(loaded, destination(&host.routes[0]))
}

fn tls_cluster<'a>(loaded: &'a Loaded, port: u16, host: &str) -> &'a Cluster {
    let host = tls(loaded, port, host).expect("a TLS host");
    cluster(loaded, host.route.as_ref().expect("a route").pick(0))
}

fn dns(name: &str, port: u16) -> Endpoints {
    Endpoints::Dns(vec![DnsEndpoint { name: name.parse().expect("a valid name"), port, weight: 1 }])
}

const PASSTHROUGH: &str = include_str!("../../config/passthrough/resources.d/googleapis.yaml");
const ORIGINATION: &str = include_str!("../../config/origination/resources.d/googleapis.yaml");

#[test]
fn the_passthrough_sample_routes_by_sni() {
    let loaded = load(PASSTHROUGH);
    let cluster = tls_cluster(&loaded, 443, "www.googleapis.com");
    assert_eq!(&*cluster.name, "outbound|443||www.googleapis.com");
    assert_eq!(cluster.endpoints, dns("www.googleapis.com", 443));
    assert!(cluster.tls.is_none());
    assert!(tls(&loaded, 443, "googleapis.com").is_none());
    assert!(http(&loaded, 443, "www.googleapis.com").is_none());
    assert_eq!(tls(&loaded, 443, "www.googleapis.com").expect("listed").objects.len(), 2);
}

#[test]
fn the_origination_sample_opens_tls_for_plain_http_only() {
    let loaded = load(ORIGINATION);
    let originated = http_cluster(&loaded, 80, "www.googleapis.com");
    assert_eq!(originated.endpoints, dns("www.googleapis.com", 443));
    let tls = originated.tls.as_ref().expect("TLS");
    assert_eq!(tls.sni, None);
    // A machine without system roots is a reason not to connect, never one not to verify.
    if let Ok(profile) = &tls.profile {
        assert_eq!(profile.verify, VerifyName::Sni);
        assert!(!profile.roots.is_empty());
    }
    // portLevelSettings replaces the policy of the destination, ROUND_ROBIN included.
    assert_eq!(originated.balance, Balance::LeastRequest);
    assert!(tls_cluster(&loaded, 443, "www.googleapis.com").tls.is_none());
}
