//! Addresses that no name on the internet has business to resolve to.
//!
//! Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890), with the RFC of each range
//! beside it, and the documentation of the cloud providers for metadata services. In IPv6, what lies outside of
//! 2000::/3 is not global unicast and is closed as a whole (RFC 4291 section 2.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The class of an address that is not globally routable; `None`: it is. `ip` is canonical.
pub(super) fn class(ip: IpAddr) -> Option<&'static str> {
    CLOSED.iter().find(|(range, _)| range.contains(&ip)).map(|(_, class)| *class)
}

/// The IPv4 address that packets to an IPv6 address end up at, or that it was made from.
pub(super) fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let [.., a, b, c, d] = ip.octets();
    match ip.segments() {
        // IPv4-compatible, and NAT64 with the well-known prefix or a local one (RFC 6052 section 2.2).
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => {
            Some(Ipv4Addr::new(a, b, c, d))
        }
        // 6to4 (RFC 3056 section 2).
        [0x2002, high, low, ..] => Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        // Teredo: the client's address, inverted (RFC 4380 section 4).
        [0x2001, 0, ..] => Some(Ipv4Addr::new(!a, !b, !c, !d)),
        _ => None,
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

/// The first four segments and the last.
const fn v6(start: [u16; 4], last: u16, prefix: u8) -> IpNet {
    let [a, b, c, d] = start;
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, last)), prefix)
}

/// Ranges and their classes; the first that contains an address names it, so parts come before the whole.
static CLOSED: [(IpNet, &str); 47] = [
    // Metadata services. Most lie in ranges that are closed anyway, but deserve their name in the log.
    (v4(169, 254, 169, 254, 32), "metadata"), // AWS, Azure, Google Cloud, OpenStack and others
    (v4(169, 254, 170, 2, 32), "metadata"),   // AWS ECS task credentials
    (v4(169, 254, 170, 23, 32), "metadata"),  // AWS EKS pod identity
    (v4(100, 100, 100, 200, 32), "metadata"), // Alibaba Cloud
    (v4(168, 63, 129, 16, 32), "metadata"),   // Azure WireServer: a global address
    (v4(192, 0, 0, 192, 32), "metadata"),     // Oracle Cloud, classic
    (v6([0xfd00, 0xec2, 0, 0], 0x254, 128), "metadata"), // AWS
    (v6([0xfd00, 0xec2, 0, 0], 0x23, 128), "metadata"), // AWS EKS pod identity
    (v6([0xfd20, 0xce, 0, 0], 0x254, 128), "metadata"), // Google Cloud
    // IPv4.
    (v4(0, 0, 0, 0, 32), "unspecified"),            // RFC 1122 section 3.2.1.3
    (v4(0, 0, 0, 0, 8), "this-network"),            // RFC 791 section 3.2
    (v4(10, 0, 0, 0, 8), "private"),                // RFC 1918
    (v4(100, 64, 0, 0, 10), "shared"),              // carrier-grade NAT, RFC 6598
    (v4(127, 0, 0, 0, 8), "loopback"),              // RFC 1122 section 3.2.1.3
    (v4(169, 254, 0, 0, 16), "link-local"),         // RFC 3927
    (v4(172, 16, 0, 0, 12), "private"),             // RFC 1918
    (v4(192, 0, 0, 0, 24), "protocol-assignments"), // RFC 6890 section 2.1
    (v4(192, 0, 2, 0, 24), "documentation"),        // RFC 5737
    (v4(192, 88, 99, 0, 24), "6to4"),               // relay anycast, deprecated by RFC 7526
    (v4(192, 168, 0, 0, 16), "private"),            // RFC 1918
    (v4(198, 18, 0, 0, 15), "benchmarking"),        // RFC 2544
    (v4(198, 51, 100, 0, 24), "documentation"),     // RFC 5737
    (v4(203, 0, 113, 0, 24), "documentation"),      // RFC 5737
    (v4(224, 0, 0, 0, 4), "multicast"),             // RFC 5771
    (v4(255, 255, 255, 255, 32), "broadcast"),      // RFC 919
    (v4(240, 0, 0, 0, 4), "reserved"),              // RFC 1112 section 4
    // IPv6 within 2000::/3.
    (v6([0x2001, 0, 0, 0], 0, 32), "teredo"),               // RFC 4380
    (v6([0x2001, 2, 0, 0], 0, 48), "benchmarking"),         // RFC 5180
    (v6([0x2001, 0x10, 0, 0], 0, 28), "orchid"),            // RFC 4843, returned
    (v6([0x2001, 0x20, 0, 0], 0, 28), "orchid"),            // RFC 7343
    (v6([0x2001, 0, 0, 0], 0, 23), "protocol-assignments"), // RFC 2928
    (v6([0x2001, 0xdb8, 0, 0], 0, 32), "documentation"),    // RFC 3849
    (v6([0x2002, 0, 0, 0], 0, 16), "6to4"),                 // RFC 3056
    (v6([0x3fff, 0, 0, 0], 0, 20), "documentation"),        // RFC 9637
    // IPv6 outside of it. IPv4-mapped addresses have been unwrapped before.
    (v6([0, 0, 0, 0], 0, 128), "unspecified"),     // RFC 4291 section 2.5.2
    (v6([0, 0, 0, 0], 1, 128), "loopback"),        // RFC 4291 section 2.5.3
    (v6([0, 0, 0, 0], 0, 96), "v4-compatible"),    // RFC 4291 section 2.5.5.1
    (v6([0x64, 0xff9b, 0, 0], 0, 96), "nat64"),    // RFC 6052
    (v6([0x64, 0xff9b, 1, 0], 0, 48), "nat64"),    // RFC 8215
    (v6([0x100, 0, 0, 0], 0, 64), "discard"),      // RFC 6666
    (v6([0xfc00, 0, 0, 0], 0, 7), "unique-local"), // RFC 4193
    (v6([0xfe80, 0, 0, 0], 0, 10), "link-local"),  // RFC 4291 section 2.5.6
    (v6([0xfec0, 0, 0, 0], 0, 10), "site-local"),  // RFC 3879
    (v6([0xff00, 0, 0, 0], 0, 8), "multicast"),    // RFC 4291 section 2.7
    (v6([0, 0, 0, 0], 0, 3), "reserved"),          // RFC 4291 section 2.4
    (v6([0x4000, 0, 0, 0], 0, 2), "reserved"),     // RFC 4291 section 2.4
    (v6([0x8000, 0, 0, 0], 0, 1), "reserved"),     // RFC 4291 section 2.4
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_closed_range_has_its_class() {
        let cases = [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "this-network"),
            ("10.255.255.255", "private"),
            ("100.64.0.1", "shared"),
            ("100.100.100.200", "metadata"),
            ("127.255.0.1", "loopback"),
            ("168.63.129.16", "metadata"),
            ("169.254.0.1", "link-local"),
            ("169.254.169.254", "metadata"),
            ("172.31.255.255", "private"),
            ("192.0.0.170", "protocol-assignments"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "6to4"),
            ("192.168.1.1", "private"),
            ("198.19.255.255", "benchmarking"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("239.1.1.1", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::7f00:1", "v4-compatible"),
            ("::ffff:0:7f00:1", "reserved"),
            ("64:ff9b::1", "nat64"),
            ("64:ff9b:1::1", "nat64"),
            ("100::1", "discard"),
            ("100:0:0:1::1", "reserved"),
            ("2001::1", "teredo"),
            ("2001:1::1", "protocol-assignments"),
            ("2001:2::1", "benchmarking"),
            ("2001:1f::1", "orchid"),
            ("2001:2f::1", "orchid"),
            ("2001:db8::1", "documentation"),
            ("2002::1", "6to4"),
            ("3fff:fff::1", "documentation"),
            ("4000::1", "reserved"),
            ("5f00::1", "reserved"),
            ("8000::1", "reserved"),
            ("fd00:ec2::254", "metadata"),
            ("fd12::1", "unique-local"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ];
        for (ip, expected) in cases {
            assert_eq!(class(ip.parse().expect("an address")), Some(expected), "{ip}");
        }
    }

    #[test]
    fn the_neighbours_of_closed_ranges_are_open() {
        for ip in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:db7::1",
            "2003::1",
            "3ffe::1",
            "3fff:1000::1",
        ] {
            assert_eq!(class(ip.parse().expect("an address")), None, "{ip}");
        }
    }
}
