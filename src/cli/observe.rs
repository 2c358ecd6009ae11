//! `portcullis observe`: ServiceEntries that would allow what was denied since the gateway's start.
//!
//! The table behind it holds names that clients chose. Only what obeys the grammar of [`HostName`] is printed, always
//! in quotes, so that no name can become structure; the rest is counted on stderr.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use serde::Deserialize;

use crate::control::admin::client::{self, Address};
use crate::failure::Failure;
use crate::route::host::HostName;

/// Arguments of `observe`.
#[derive(Debug, clap::Args)]
pub(super) struct Observe {
    /// The gateway's admin address: IP:PORT or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:15000")]
    admin: Address,
}

/// One row of `/denied`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Row {
    host: String,
    port: u16,
    reason: String,
    tls: bool,
    #[serde(default)]
    protocol: String,
    count: u64,
}

/// What clients spoke on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Spoken {
    http: bool,
    tls: bool,
}

/// The ports of a host, and what was spoken there.
type Ports = BTreeMap<u16, Spoken>;

/// Hosts of one domain with the same ports make one entry: domain and ports to hosts and refusals.
type Groups = BTreeMap<(String, Ports), (BTreeSet<HostName>, u64)>;

/// Addresses that captured clients meant to reach, with their ports and refusals.
type Addresses = BTreeMap<IpAddr, (BTreeSet<u16>, u64)>;

/// Most hosts of one entry, as the schema of Istio's API says.
const HOSTS_MAX: usize = 256;

/// Longest domain that goes into a name, so that the name stays a DNS label.
const DOMAIN_BYTES_MAX: usize = 40;

impl Observe {
    /// Runs the verb: 0, or 1 if the gateway cannot be reached.
    pub(super) fn execute(self) -> ExitCode {
        let rows = client::get(&self.admin, "/denied")
            .and_then(|body| serde_json::from_slice::<Vec<Row>>(&body).map_err(Into::into));
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                eprintln!("portcullis: cannot ask the gateway at {}: {error}; does it run?", self.admin);
                return ExitCode::FAILURE;
            }
        };
        let (groups, addresses, others) = group(&rows);
        // A reader that has seen enough closes the pipe, which is no failure of ours.
        let _ = std::io::stdout().write_all(yaml(&groups, &addresses).as_bytes());
        if groups.is_empty() && addresses.is_empty() {
            eprintln!("portcullis: nothing was denied that a ServiceEntry would allow");
        }
        if others > 0 {
            eprintln!("portcullis: {others} other refusals are not for want of a ServiceEntry; see /denied");
        }
        ExitCode::SUCCESS
    }
}

/// Groups what a ServiceEntry would have allowed, by name and by address; the last value counts the other refusals.
fn group(rows: &[Row]) -> (Groups, Addresses, u64) {
    let mut hosts: BTreeMap<HostName, (Ports, u64)> = BTreeMap::new();
    let mut addresses = Addresses::new();
    let mut others = 0;
    for row in rows {
        let is_unlisted = row.reason == Failure::NotListed.reason() && row.port > 0;
        if let (true, "tcp", Ok(address)) = (is_unlisted, row.protocol.as_str(), row.host.parse()) {
            let (ports, count) = addresses.entry(address).or_default();
            ports.insert(row.port);
            *count += row.count;
            continue;
        }
        match HostName::parse(row.host.as_bytes()) {
            Ok(name) if is_unlisted => {
                let (ports, count) = hosts.entry(name).or_default();
                let spoken = ports.entry(row.port).or_default();
                spoken.tls |= row.tls;
                spoken.http |= !row.tls;
                *count += row.count;
            }
            Ok(_) | Err(_) => others += row.count,
        }
    }
    let mut groups = Groups::new();
    for (name, (ports, count)) in hosts {
        let (names, total) = groups.entry((domain(&name), ports)).or_default();
        names.insert(name);
        *total += count;
    }
    (groups, addresses, others)
}

/// The last two labels: what most operators think of as one service.
fn domain(name: &HostName) -> String {
    let name = name.as_str();
    let dots: Vec<usize> = memchr::memrchr_iter(b'.', name.as_bytes()).take(2).collect();
    match dots.as_slice() {
        [_, second] => name[second + 1..].to_owned(),
        _ => name.to_owned(),
    }
}

fn yaml(groups: &Groups, addresses: &Addresses) -> String {
    let mut text = String::new();
    if !groups.is_empty() || !addresses.is_empty() {
        text.push_str("# What was asked for and denied. Whoever asked chose these names: review before applying.\n");
    }
    for ((domain, ports), (hosts, count)) in groups {
        let hosts: Vec<&HostName> = hosts.iter().collect();
        for hosts in hosts.chunks(HOSTS_MAX) {
            let name = format!("{}-{:010x}", label(domain), digest(hosts, ports));
            // Writing to a string cannot fail.
            let _ = write!(text, "---\n# denied {count} times\n");
            push_entry(&mut text, &name, hosts, ports);
        }
    }
    for (address, (ports, count)) in addresses {
        let _ = write!(text, "---\n# denied {count} times\n");
        push_address(&mut text, *address, ports);
    }
    text
}

/// TCP to an address: the name of its host is for people alone.
fn push_address(text: &mut String, address: IpAddr, ports: &BTreeSet<u16>) {
    let name = format!("observed-{}", address.to_string().replace(['.', ':'], "-").trim_matches('-'));
    let _ = write!(
        text,
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {name}\nspec:\n  hosts:\n  \
         - '{name}.tcp'\n  addresses:\n  - '{address}'\n  ports:\n"
    );
    for number in ports {
        let _ = write!(text, "  - number: {number}\n    name: tcp-{number}\n    protocol: TCP\n");
    }
    text.push_str("  location: MESH_EXTERNAL\n  resolution: NONE\n");
}

fn push_entry(text: &mut String, name: &str, hosts: &[&HostName], ports: &Ports) {
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:");
    line(&format!("  name: {name}\nspec:\n  hosts:"));
    hosts.iter().for_each(|host| line(&format!("  - '{host}'")));
    line("  ports:");
    for (number, spoken) in ports {
        let (kind, protocol) = protocol(*number, *spoken);
        line(&format!("  - number: {number}\n    name: {kind}-{number}"));
        if let Some(protocol) = protocol {
            line(&format!("    protocol: {protocol}"));
        }
    }
    line("  location: MESH_EXTERNAL\n  resolution: DNS");
}

/// The name and protocol of a port; without a protocol a port takes whatever clients speak.
fn protocol(number: u16, spoken: Spoken) -> (&'static str, Option<&'static str>) {
    match spoken {
        Spoken { http: true, tls: true } => ("any", None),
        Spoken { tls: true, .. } if number == 443 => ("https", Some("HTTPS")),
        Spoken { tls: true, .. } => ("tls", Some("TLS")),
        Spoken { tls: false, .. } => ("http", Some("HTTP")),
    }
}

/// A DNS label (RFC 1123) that reads like the domain.
fn label(domain: &str) -> String {
    let legal = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    let domain: String = domain.chars().take(DOMAIN_BYTES_MAX).map(legal).collect();
    format!("observed-{}", domain.trim_matches('-'))
}

/// Names of different content differ: a later output that is applied beside an earlier one must not replace it.
/// FNV-1a (Fowler, Noll, Vo), cut to 40 bits.
fn digest(hosts: &[&HostName], ports: &Ports) -> u64 {
    let hosts = hosts.iter().flat_map(|host| host.as_bytes().iter().copied().chain([0]));
    let ports = ports.iter().flat_map(|(number, spoken)| {
        number.to_be_bytes().into_iter().chain([u8::from(spoken.http), u8::from(spoken.tls)])
    });
    let fold = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    hosts.chain(ports).fold(0xcbf2_9ce4_8422_2325, fold) >> 24
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host: &str, port: u16, tls: bool) -> Row {
        let protocol = if tls { "tls" } else { "http" }.to_owned();
        Row { host: host.to_owned(), port, reason: "host_not_listed".to_owned(), tls, protocol, count: 2 }
    }

    fn text(rows: &[Row]) -> String {
        let (groups, addresses, _) = group(rows);
        yaml(&groups, &addresses)
    }

    #[test]
    fn hosts_of_one_domain_and_the_same_ports_share_an_entry() {
        let rows = [row("b.example.com", 443, true), row("a.example.com", 443, true), row("c.example.com", 80, false)];
        let names = |line: &&str| line.starts_with("  name: observed-example-com-");
        let shown = text(&rows);
        let names: Vec<&str> = shown.lines().filter(names).collect();
        let [first, second] = names.as_slice() else { panic!("{names:?}") };
        assert_ne!(first, second);
        assert_eq!(
            shown.replace(first, "  name: one").replace(second, "  name: other"),
            "# What was asked for and denied. Whoever asked chose these names: review before applying.\n\
             ---\n# denied 2 times\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  \
             name: one\nspec:\n  hosts:\n  - 'c.example.com'\n  ports:\n  - number: 80\n    \
             name: http-80\n    protocol: HTTP\n  location: MESH_EXTERNAL\n  resolution: DNS\n\
             ---\n# denied 4 times\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  \
             name: other\nspec:\n  hosts:\n  - 'a.example.com'\n  - 'b.example.com'\n  ports:\n  \
             - number: 443\n    name: https-443\n    protocol: HTTPS\n  location: MESH_EXTERNAL\n  resolution: DNS\n"
        );
    }

    #[test]
    fn a_port_that_saw_both_takes_both() {
        let text = text(&[row("a.example", 8443, true), row("a.example", 8443, false)]);
        assert!(text.contains("name: any-8443\n  location"), "{text}");
    }

    #[test]
    fn captured_addresses_get_an_entry_each() {
        let tcp = |port| Row { protocol: "tcp".to_owned(), ..row("192.0.2.7", port, false) };
        assert_eq!(
            text(&[tcp(5432), tcp(5433)]),
            "# What was asked for and denied. Whoever asked chose these names: review before applying.\n\
             ---\n# denied 4 times\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  \
             name: observed-192-0-2-7\nspec:\n  hosts:\n  - 'observed-192-0-2-7.tcp'\n  addresses:\n  \
             - '192.0.2.7'\n  ports:\n  - number: 5432\n    name: tcp-5432\n    protocol: TCP\n  \
             - number: 5433\n    name: tcp-5433\n    protocol: TCP\n  location: MESH_EXTERNAL\n  resolution: NONE\n"
        );
    }

    #[test]
    fn hostile_names_and_other_refusals_are_counted_and_never_printed() {
        let hostile = ["-", "", "a: b", "a\n---\nkind: X", "*", "*.com", "'", "127.0.0.1", "ä.example", "a..b"];
        let mut rows: Vec<Row> = hostile.iter().map(|host| row(host, 443, true)).collect();
        rows.push(Row { reason: "rbac_access_denied_matched_policy".to_owned(), ..row("a.example", 443, true) });
        let (groups, addresses, others) = group(&rows);
        assert_eq!((yaml(&groups, &addresses).as_str(), others), ("", 2 * rows.len() as u64));
    }

    #[test]
    fn names_are_dns_labels_and_never_repeat() {
        let long = format!("{}.{}", "a".repeat(63), "b".repeat(63));
        let rows = [row("_tcp._x", 443, true), row("x.tcp-x", 443, true), row(&long, 443, true), row("no", 443, true)];
        let text = text(&rows);
        let names: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("  name: ")).collect();
        assert_eq!(names.len(), rows.len(), "{text}");
        for name in names {
            assert!(name.len() <= 63 && !name.ends_with('-') && !name.contains('_'), "{name}");
        }
        assert!(text.contains("- 'no'"), "{text}");
    }
}
