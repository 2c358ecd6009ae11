//! Who is who among the objects: services by host, rules by host, routes by host.
//!
//! Built once per load and read by both `validate::analyze` and `compile`, so that a finding and the tables never
//! disagree about what an object refers to. Every lookup is by hash; nothing here scans all objects for one.

mod gateways;
mod host_index;
mod policies;
mod services;

use crate::route::host::HostPattern;

use super::istio::virtual_service::VirtualService;
use super::istio::{Object, Objects};

pub use gateways::{Admitted, Gateways, Place, Takes, admitted, entrance, is_mesh, resolve};
pub use host_index::HostIndex;
pub use policies::{Policies, Policy, TlsSource};
pub use services::{Service, ServiceId, ServicePortEntry, Services};

/// Every lookup among the objects of one configuration.
#[derive(Debug)]
pub struct Registry<'a> {
    /// What may leave.
    pub services: Services<'a>,
    /// DestinationRules.
    pub policies: Policies<'a>,
    /// Gateways.
    pub gateways: Gateways<'a>,
    /// VirtualServices with `http:`, by host; the oldest of each host.
    pub http: HostIndex<&'a Object<VirtualService>>,
    /// VirtualServices with `tls:`, by host; the oldest of each host.
    pub tls: HostIndex<&'a Object<VirtualService>>,
    /// VirtualServices with `tcp:`, by host; the oldest of each host.
    pub tcp: HostIndex<&'a Object<VirtualService>>,
}

impl<'a> Registry<'a> {
    /// Indexes the objects, oldest first. Hosts that do not parse have been reported and are left out.
    #[must_use]
    pub fn new(objects: &'a Objects, root_namespace: &'a str, gateway_services: &'a [HostPattern]) -> Self {
        let (mut http, mut tls, mut tcp) = (HostIndex::default(), HostIndex::default(), HostIndex::default());
        for object in objects.virtual_services.iter().filter(|object| is_mesh(&object.spec.gateways)) {
            for pattern in object.spec.hosts.iter().filter_map(|host| HostPattern::parse(host).ok()) {
                if !object.spec.http.is_empty() {
                    http.entry(&pattern, || object);
                }
                if !object.spec.tls.is_empty() {
                    tls.entry(&pattern, || object);
                }
                if !object.spec.tcp.is_empty() {
                    tcp.entry(&pattern, || object);
                }
            }
        }
        let services = Services::new(&objects.service_entries);
        let policies = Policies::new(&objects.destination_rules, root_namespace);
        Self { services, policies, gateways: Gateways::new(objects, gateway_services), http, tls, tcp }
    }
}
