//! From destination addresses to what was declared for them: the longest range that contains an address wins.
//!
//! A look-up takes one binary search for each distinct length of prefix, however many ranges there are. IPv4 is kept as
//! `::ffff:0:0/96` (RFC 4291 section 2.5.5.2), and ranges of IPv6 that are wider than that say nothing about IPv4.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The prefix length of all of IPv4.
const V4_LENGTH: u8 = 96;

/// A map from ranges of addresses. The first value of a range stays (callers insert the oldest object first).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubnetMap<T> {
    /// By length of prefix, longest first; each sorted by network.
    lengths: Vec<(u8, Vec<(u128, T)>)>,
}

impl<T> Default for SubnetMap<T> {
    fn default() -> Self {
        Self { lengths: Vec::new() }
    }
}

impl<T> SubnetMap<T> {
    /// Whether nothing is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Adds a range.
    ///
    /// # Errors
    /// The value, if the range has one already.
    pub fn insert(&mut self, range: IpNet, value: T) -> Result<(), T> {
        let (length, network) = key(range);
        let networks = match self.lengths.binary_search_by(|(known, _)| length.cmp(known)) {
            Ok(index) => &mut self.lengths[index].1,
            Err(index) => {
                self.lengths.insert(index, (length, Vec::new()));
                &mut self.lengths[index].1
            }
        };
        match networks.binary_search_by_key(&network, |(network, _)| *network) {
            Ok(_) => Err(value),
            Err(index) => {
                networks.insert(index, (network, value));
                Ok(())
            }
        }
    }

    /// The value of the longest range that contains an address.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&T> {
        self.find_range(address).map(|(_, value)| value)
    }

    /// The longest range that contains an address, and its value.
    #[must_use]
    pub fn find_range(&self, address: IpAddr) -> Option<(IpNet, &T)> {
        let address = address.to_canonical();
        let bits = bits(address);
        let applying = self.lengths.iter().take_while(|(length, _)| address.is_ipv6() || *length >= V4_LENGTH);
        for (length, networks) in applying {
            let network = bits & mask(*length);
            if let Ok(index) = networks.binary_search_by_key(&network, |(network, _)| *network) {
                let own_length = if address.is_ipv4() { length - V4_LENGTH } else { *length };
                // A prefix is never longer than the addresses of its family.
                let range = IpNet::new(address, own_length).ok()?.trunc();
                return Some((range, &networks[index].1));
            }
        }
        None
    }

    /// The first address of every range with its value, the longest ranges first.
    pub fn networks(&self) -> impl Iterator<Item = (IpAddr, &T)> {
        let networks = self.lengths.iter().flat_map(|(_, networks)| networks);
        networks.map(|(network, value)| (Ipv6Addr::from_bits(*network).to_canonical(), value))
    }

    /// Every value, the longest ranges first.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.lengths.iter().flat_map(|(_, networks)| networks.iter().map(|(_, value)| value))
    }
}

fn key(range: IpNet) -> (u8, u128) {
    let length = match range {
        IpNet::V4(range) => V4_LENGTH + range.prefix_len(),
        IpNet::V6(range) => range.prefix_len(),
    };
    (length, bits(range.network()) & mask(length))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[&str]) -> SubnetMap<String> {
        let mut map = SubnetMap::default();
        for range in ranges {
            map.insert(range.parse().expect("a range"), (*range).to_owned()).expect("no range twice");
        }
        map
    }

    fn found<'m>(map: &'m SubnetMap<String>, address: &str) -> Option<&'m str> {
        map.find(address.parse().expect("an address")).map(String::as_str)
    }

    #[test]
    fn the_longest_range_wins() {
        let map = map(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8::7/128"]);
        for (address, range) in [
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.4", Some("10.1.0.0/16")),
            ("10.2.0.0", Some("10.0.0.0/8")),
            ("192.0.2.1", Some("0.0.0.0/0")),
            ("::ffff:10.1.2.3", Some("10.1.2.3/32")),
            ("2001:db8::7", Some("2001:db8::7/128")),
            ("2001:db8::8", Some("2001:db8::/32")),
            ("2001:db9::1", None),
        ] {
            assert_eq!(found(&map, address), range, "{address}");
            let range = map.find_range(address.parse().expect("an address")).map(|(range, _)| range.to_string());
            assert_eq!(range.as_deref(), found(&map, address), "{address}");
        }
    }

    #[test]
    fn all_of_ipv6_says_nothing_about_ipv4() {
        let map = map(&["::/0"]);
        assert_eq!(found(&map, "192.0.2.1"), None);
        assert_eq!(found(&map, "::ffff:192.0.2.1"), None);
        assert_eq!(found(&map, "2001:db8::1"), Some("::/0"));
    }

    #[test]
    fn the_first_value_of_a_range_stays_whatever_its_host_bits() {
        let mut map = map(&["10.0.0.0/8"]);
        assert!(map.insert("10.1.2.3/8".parse().expect("a range"), "later".to_owned()).is_err());
        assert_eq!(found(&map, "10.1.2.3"), Some("10.0.0.0/8"));
        assert!(SubnetMap::<()>::default().is_empty());
    }
}
