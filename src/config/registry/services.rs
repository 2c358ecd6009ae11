//! ServiceEntries by host: several entries for one host unite their ports.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::config::istio::Object;
use crate::config::istio::service_entry::{Protocol, Resolution, ServiceEntry, ServicePort};
use crate::route::host::{HostName, HostPattern};
use crate::route::table::ObjectRefs;

use super::host_index::{HostIndex, wider};

/// Index of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub usize);

/// Everything that is declared for one host.
#[derive(Debug)]
pub struct Service<'a> {
    /// The host.
    pub pattern: HostPattern,
    /// The host as the operator wrote it.
    pub host: &'a str,
    /// The ServiceEntries, oldest first.
    pub objects: ObjectRefs,
    /// The ports, oldest entry first; the first to declare a number has it.
    pub ports: Vec<ServicePortEntry<'a>>,
    /// Later declarations of a port that the service has already.
    pub shadowed: Vec<ServicePortEntry<'a>>,
}

/// One port of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServicePortEntry<'a> {
    /// The service port.
    pub number: u16,
    /// What it carries.
    pub protocol: Protocol,
    /// The entry that declares it.
    pub entry: &'a Object<ServiceEntry>,
    /// The declaration.
    pub port: &'a ServicePort,
}

impl ServicePortEntry<'_> {
    /// The port to dial where no endpoint says otherwise.
    #[must_use]
    pub fn target(&self) -> u16 {
        self.port.target_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(self.number)
    }

    /// The namespace of the entry that declares it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.entry.origin.object.namespace()
    }

    /// `resolution`.
    #[must_use]
    pub fn resolution(&self) -> Resolution {
        self.entry.spec.resolution.unwrap_or_default()
    }
}

impl<'a> Service<'a> {
    /// The port of this number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&ServicePortEntry<'a>> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The port that a destination means: the one it names, else the only one there is, else the one that the client
    /// came to.
    #[must_use]
    pub fn destination_port(&self, named: Option<u16>, listener: u16) -> Option<&ServicePortEntry<'a>> {
        match (named, self.ports.as_slice()) {
            (Some(named), _) => self.port(named),
            (None, [only]) => Some(only),
            (None, _) => self.port(listener),
        }
    }
}

/// Every service.
#[derive(Debug)]
pub struct Services<'a> {
    list: Vec<Service<'a>>,
    by_host: HostIndex<ServiceId>,
    /// Every wildcard that would cover some service, with those that it covers; few configurations ask.
    below: OnceLock<HashMap<HostPattern, Vec<ServiceId>, foldhash::fast::RandomState>>,
}

impl<'a> Services<'a> {
    /// Indexes the entries, oldest first. `exportTo: ["~"]` makes an entry invisible.
    pub(super) fn new(entries: &'a [Object<ServiceEntry>]) -> Self {
        let hosts = entries.iter().map(|entry| entry.spec.hosts.len()).sum();
        let (list, by_host) = (Vec::with_capacity(hosts), HostIndex::with_capacity(hosts));
        let mut services = Self { list, by_host, below: OnceLock::new() };
        for entry in entries.iter().filter(|entry| !entry.spec.export_to.iter().any(|scope| scope == "~")) {
            for host in &entry.spec.hosts {
                if let Ok(pattern) = HostPattern::parse(host) {
                    services.add(pattern, host, entry);
                }
            }
        }
        services
    }

    fn add(&mut self, pattern: HostPattern, host: &'a str, entry: &'a Object<ServiceEntry>) {
        let next = ServiceId(self.list.len());
        let id = *self.by_host.entry(&pattern, || next);
        if id == next {
            let ports = Vec::with_capacity(entry.spec.ports.len());
            self.list.push(Service { pattern, host, objects: ObjectRefs::new(), ports, shadowed: Vec::new() });
        }
        let service = &mut self.list[id.0];
        service.objects.push(Arc::clone(&entry.origin.object));
        for port in &entry.spec.ports {
            let number = port.number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
            let (Some(number), Some(protocol)) = (number, Protocol::parse(port.protocol.as_deref())) else { continue };
            let declared = ServicePortEntry { number, protocol, entry, port };
            match service.port(number) {
                None => service.ports.push(declared),
                Some(_) => service.shadowed.push(declared),
            }
        }
    }

    /// All, in the order in which their hosts were first declared.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Service<'a>)> {
        self.list.iter().enumerate().map(|(index, service)| (ServiceId(index), service))
    }

    /// One of them.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> &Service<'a> {
        // Identifiers are made by this list only.
        &self.list[id.0]
    }

    /// The service that declares exactly this host, as a destination names it.
    #[must_use]
    pub fn declared(&self, pattern: &HostPattern) -> Option<ServiceId> {
        self.by_host.exact(pattern).copied()
    }

    /// The service that a destination names.
    #[must_use]
    pub fn named(&self, host: &str) -> Option<ServiceId> {
        self.declared(&HostPattern::parse(host).ok()?)
    }

    /// The wildcard services that cover a host which is not a service itself, most specific first.
    pub fn covering(&self, pattern: &HostPattern) -> impl Iterator<Item = ServiceId> {
        self.by_host.covering(pattern).copied()
    }

    /// The services that a wildcard covers, itself not included.
    #[must_use]
    pub fn below(&self, pattern: &HostPattern) -> &[ServiceId] {
        let below = self.below.get_or_init(|| {
            let mut below: HashMap<_, Vec<_>, _> = HashMap::default();
            for (id, service) in self.iter() {
                wider(&service.pattern).for_each(|wildcard| below.entry(wildcard).or_default().push(id));
            }
            below
        });
        below.get(pattern).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a wildcard covers any service.
    #[must_use]
    pub fn any_below(&self, pattern: &HostPattern) -> bool {
        !self.below(pattern).is_empty()
    }

    /// Whether connections to this service dial the name that the client asked for, because the service has none.
    #[must_use]
    pub fn dials_requested_name(&self, id: ServiceId, port: &ServicePortEntry<'_>) -> bool {
        let wildcard = self.service(id).pattern.is_wildcard();
        let resolution = port.resolution();
        wildcard
            && match resolution {
                Resolution::None | Resolution::DynamicDns => true,
                Resolution::Static => false,
                Resolution::Dns | Resolution::DnsRoundRobin => port.entry.spec.endpoints.is_empty(),
            }
    }
}

impl Service<'_> {
    /// The exact name; `None` for a wildcard.
    #[must_use]
    pub fn name(&self) -> Option<&HostName> {
        match &self.pattern {
            HostPattern::Exact(name) => Some(name),
            HostPattern::Below(_) => None,
        }
    }
}
