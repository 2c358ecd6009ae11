//! This machine's own addresses: what a listener on `0.0.0.0` or `::` can be reached at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of every interface, as the kernel's routing tables list them (proc(5)). Empty where /proc is not
/// mounted; loopback and unspecified addresses are judged without this list.
pub(super) fn addresses() -> Vec<IpAddr> {
    let v4 = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut addresses: Vec<IpAddr> = local_v4(&v4).map(IpAddr::V4).chain(local_v6(&v6).map(IpAddr::V6)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Lines `|-- 192.0.2.7`, each followed by `/32 host LOCAL` if the address is ours.
fn local_v4(table: &str) -> impl Iterator<Item = Ipv4Addr> {
    let pairs = table.lines().zip(table.lines().skip(1));
    pairs.filter_map(|(line, next)| {
        let address = line.trim_start().strip_prefix("|-- ")?.parse().ok()?;
        next.trim().eq("/32 host LOCAL").then_some(address)
    })
}

/// Lines of 32 hexadecimal digits and further columns.
fn local_v6(table: &str) -> impl Iterator<Item = Ipv6Addr> {
    table.lines().filter_map(|line| {
        let digits = line.split_whitespace().next()?;
        (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_host_routes_are_ours() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.0\n        /24 link UNICAST\nLocal:\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(local_v4(table).collect::<Vec<_>>(), [Ipv4Addr::new(192, 0, 2, 7)]);
    }

    #[test]
    fn v6_addresses_are_read_as_hexadecimal() {
        let table = "20010db8000000000000000000000007 02 40 00 80     eth0\nrubbish\n";
        assert_eq!(local_v6(table).collect::<Vec<_>>(), ["2001:db8::7".parse::<Ipv6Addr>().expect("an address")]);
    }
}
