//! One look-up of a name over the network, by hickory-resolver.
//!
//! Names are absolute: no search list may turn a name that policy allowed into another. A and AAAA are asked at the
//! same time (RFC 8305 section 3), from random ports, over TCP if an answer was truncated.

use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use crate::config::bootstrap::Dns;
use crate::limits::{
    ADDRESSES_PER_NAME_MAX, DNS_ATTEMPT_TIMEOUT, DNS_ATTEMPTS, DNS_FAILURE_TTL, DNS_LOOKUP_TIMEOUT, DNS_LOOKUPS_MAX,
    DNS_NEGATIVE_TTL_MAX, DNS_SECOND_FAMILY_TIMEOUT, DNS_TTL_MAX, DNS_TTL_MIN,
};
use crate::route::host::HostName;

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Addresses, in the order to try, and for how long.
    Found(Vec<IpAddr>, Duration),
    /// The name does not exist or has no address, and for how long.
    Absent(&'static str, Duration),
    /// Nobody could say; the cause, and the label for metrics.
    Failed(String, &'static str),
}

/// The client of the configured name servers, or why there is none.
#[derive(Clone, Debug)]
pub(super) struct Client(Result<TokioResolver, String>);

impl Client {
    /// A client of `dns.servers`, or of /etc/resolv.conf and /etc/hosts if there are none.
    pub(super) fn new(dns: &Dns) -> Self {
        Self(build(dns).map_err(|error| error.to_string()))
    }

    /// Why nothing can be looked up.
    pub(super) fn error(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    /// Looks a name up, within [`DNS_LOOKUP_TIMEOUT`].
    pub(super) async fn look_up(self, name: HostName) -> Outcome {
        match self.0 {
            Err(error) => Outcome::Failed(error, "error"),
            Ok(resolver) => match tokio::time::timeout(DNS_LOOKUP_TIMEOUT, both_families(&resolver, &name)).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Failed("timeout".to_owned(), "timeout"),
            },
        }
    }
}

fn build(dns: &Dns) -> Result<TokioResolver, NetError> {
    let mut builder = if dns.servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = dns.servers.iter().copied().map(server).collect();
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder
    };
    bound(builder.options_mut());
    builder.build()
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// The cache is ours, because it serves stale answers and counts.
fn bound(options: &mut ResolverOpts) {
    options.cache_size = 0;
    options.timeout = DNS_ATTEMPT_TIMEOUT;
    options.attempts = DNS_ATTEMPTS;
    options.max_active_requests = 2 * DNS_LOOKUPS_MAX;
}

async fn both_families(resolver: &TokioResolver, name: &HostName) -> Outcome {
    let Ok(mut name) = Name::from_ascii(name.as_str()) else {
        return Outcome::Absent("not a DNS name", DNS_NEGATIVE_TTL_MAX);
    };
    name.set_fqdn(true);
    let mut four = pin!(one_family(resolver, &name, RecordType::A));
    let mut six = pin!(one_family(resolver, &name, RecordType::AAAA));
    tokio::select! {
        four = &mut four => {
            let six = second(&four, six).await;
            combine(four, six)
        }
        six = &mut six => {
            let four = second(&six, four).await;
            combine(four, six)
        }
    }
}

/// What the slower family has. It is not waited for to the end where the faster one has addresses: there are name
/// servers and firewalls that drop the questions for one family.
async fn second(first: &Outcome, other: Pin<&mut impl Future<Output = Outcome>>) -> Outcome {
    match first {
        Outcome::Found(..) => tokio::time::timeout(DNS_SECOND_FAMILY_TIMEOUT, other)
            .await
            .unwrap_or_else(|_| Outcome::Failed("timeout".to_owned(), "timeout")),
        Outcome::Absent(..) | Outcome::Failed(..) => other.await,
    }
}

async fn one_family(resolver: &TokioResolver, name: &Name, family: RecordType) -> Outcome {
    let found = match resolver.lookup(name.clone(), family).await {
        Ok(found) => found,
        Err(error) => return judge(&error),
    };
    let addresses: Vec<IpAddr> = found.answers().iter().filter_map(|record| address(&record.data)).collect();
    let valid = found.valid_until().saturating_duration_since(Instant::now());
    if addresses.is_empty() {
        return Outcome::Absent("no address", valid.clamp(DNS_TTL_MIN, DNS_NEGATIVE_TTL_MAX));
    }
    Outcome::Found(addresses, valid.clamp(DNS_TTL_MIN, DNS_TTL_MAX))
}

/// Answers hold the CNAME records on the way, too.
fn address(data: &RData) -> Option<IpAddr> {
    if let RData::A(address) = data {
        Some(address.0.into())
    } else if let RData::AAAA(address) = data {
        Some(address.0.into())
    } else {
        None
    }
}

fn judge(error: &NetError) -> Outcome {
    if let NetError::Dns(DnsError::NoRecordsFound(records)) = error {
        let valid = records.negative_ttl.map_or(DNS_FAILURE_TTL, |seconds| Duration::from_secs(u64::from(seconds)));
        let reason = if error.is_nx_domain() { "NXDOMAIN" } else { "no address" };
        return Outcome::Absent(reason, valid.clamp(DNS_TTL_MIN, DNS_NEGATIVE_TTL_MAX));
    }
    if let NetError::Timeout = error {
        return Outcome::Failed("timeout".to_owned(), "timeout");
    }
    Outcome::Failed(error.to_string(), "error")
}

/// One answer of two. If a family could not be asked, the other's answer holds for a short time only.
fn combine(four: Outcome, six: Outcome) -> Outcome {
    match (four, six) {
        (Outcome::Found(four, one), Outcome::Found(six, other)) => Outcome::Found(alternate(four, six), one.min(other)),
        (Outcome::Found(addresses, valid), Outcome::Absent(..))
        | (Outcome::Absent(..), Outcome::Found(addresses, valid)) => {
            Outcome::Found(alternate(addresses, Vec::new()), valid)
        }
        (Outcome::Found(addresses, valid), Outcome::Failed(..))
        | (Outcome::Failed(..), Outcome::Found(addresses, valid)) => {
            Outcome::Found(alternate(addresses, Vec::new()), valid.min(DNS_FAILURE_TTL))
        }
        (failed @ Outcome::Failed(..), _) | (_, failed @ Outcome::Failed(..)) => failed,
        (Outcome::Absent(reason, one), Outcome::Absent(_, other)) => Outcome::Absent(reason, one.min(other)),
    }
}

/// Families in turn (RFC 8305 section 4), so that one that does not work costs every other attempt and not all of
/// them. IPv4 first: few attempts are made, and networks without IPv4 are rarer than networks without IPv6.
fn alternate(four: Vec<IpAddr>, six: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut four, mut six) = (four.into_iter(), six.into_iter());
    let mut addresses = Vec::new();
    loop {
        let pair = [four.next(), six.next()];
        if pair == [None, None] || addresses.len() >= ADDRESSES_PER_NAME_MAX {
            addresses.truncate(ADDRESSES_PER_NAME_MAX);
            return addresses;
        }
        for address in pair.into_iter().flatten() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn found(texts: &[&str], seconds: u64) -> Outcome {
        Outcome::Found(addresses(texts), Duration::from_secs(seconds))
    }

    #[test]
    fn families_alternate_and_doubles_are_dropped() {
        let four = addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.1"]);
        let six = addresses(&["2001:db8::1"]);
        assert_eq!(alternate(four, six), addresses(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]));
    }

    #[test]
    fn an_endless_answer_is_cut() {
        let four = (0..1000u32).map(|number| IpAddr::V4(number.into())).collect();
        assert_eq!(alternate(four, Vec::new()).len(), ADDRESSES_PER_NAME_MAX);
    }

    #[test]
    fn the_shorter_validity_of_two_families_counts() {
        let both = combine(found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 30));
        assert_eq!(both, found(&["192.0.2.1", "2001:db8::1"], 30));
    }

    #[test]
    fn one_family_is_enough_but_not_for_long_if_the_other_could_not_be_asked() {
        let absent = Outcome::Absent("no address", Duration::from_secs(5));
        assert_eq!(combine(absent, found(&["2001:db8::1"], 600)), found(&["2001:db8::1"], 600));
        let failed = Outcome::Failed("timeout".to_owned(), "timeout");
        let kept = combine(found(&["192.0.2.1"], 600), failed);
        assert_eq!(kept, Outcome::Found(addresses(&["192.0.2.1"]), DNS_FAILURE_TTL));
    }

    #[test]
    fn a_failure_is_no_proof_of_absence() {
        let absent = Outcome::Absent("NXDOMAIN", Duration::from_secs(5));
        let failed = Outcome::Failed("timeout".to_owned(), "timeout");
        assert_eq!(combine(absent, failed.clone()), failed);
    }
}
