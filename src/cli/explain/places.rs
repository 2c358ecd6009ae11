//! Where an answer leads, as far as that can be said without asking the network.

use std::net::SocketAddr;

use crate::route::cluster::{Cluster, Endpoints};
use crate::route::host::HostName;

use super::verdict::Explainer;

impl Explainer<'_> {
    /// Addresses where the configuration knows them, names where DNS would decide.
    pub(super) fn endpoints(&self, cluster: &Cluster, requested: Option<&HostName>) -> Vec<String> {
        match &cluster.endpoints {
            Endpoints::Static(endpoints) => self.open(endpoints.iter().map(|endpoint| endpoint.address)),
            Endpoints::Dns(names) | Endpoints::DnsRoundRobin(names) => {
                names.iter().flat_map(|name| self.resolve(&name.name, name.port)).collect()
            }
            Endpoints::Requested { port } => requested.map(|name| self.resolve(name, *port)).unwrap_or_default(),
            Endpoints::Captured(address) => {
                let policy = &self.snapshot.settings.addresses;
                let open = policy.judge_resolved(*address).is_ok();
                open.then(|| address.to_string()).into_iter().collect()
            }
            Endpoints::Original(_) => Vec::new(),
        }
    }

    fn resolve(&self, name: &HostName, port: u16) -> Vec<String> {
        match self.bootstrap.dns.hosts.iter().find(|(host, _)| host == name) {
            Some((_, addresses)) => self.open(addresses.iter().map(|address| SocketAddr::new(*address, port))),
            None => vec![format!("{name}:{port}")],
        }
    }

    fn open(&self, addresses: impl Iterator<Item = SocketAddr>) -> Vec<String> {
        let policy = &self.snapshot.settings.addresses;
        let open = addresses.filter(|address| policy.judge_configured(*address).is_ok());
        open.map(|address| address.to_string()).collect()
    }
}
