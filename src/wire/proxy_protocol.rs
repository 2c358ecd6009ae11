//! The PROXY protocol, versions 1 and 2, as its sender (HAProxy's proxy-protocol.txt): the first bytes of a connection
//! say whose connection it carries.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Which form is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text (section 2.1).
    V1,
    /// Binary (section 2.2).
    V2,
}

/// Section 2.2: twelve bytes that begin no other protocol.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2 in the upper half, the command PROXY in the lower.
const VERSION_AND_COMMAND: u8 = 0x21;

/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection of `source`, which believes to speak to `destination`.
#[must_use]
pub fn header(version: Version, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (source, destination) = of_one_family(source, destination);
    match version {
        Version::V1 => line(source, destination),
        Version::V2 => binary(source, destination),
    }
}

/// Both addresses of a header are of one family; an IPv4 address beside an IPv6 one is written as mapped into it.
fn of_one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let widened = |address: SocketAddr| SocketAddr::new(widen(address.ip()).into(), address.port());
    (widened(source), widened(destination))
}

fn widen(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn line(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    line.into_bytes()
}

fn binary(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    for address in [source.ip(), destination.ip()] {
        match address {
            IpAddr::V4(address) => addresses.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => addresses.extend_from_slice(&address.octets()),
        }
    }
    addresses.extend_from_slice(&source.port().to_be_bytes());
    addresses.extend_from_slice(&destination.port().to_be_bytes());
    let family = if source.is_ipv4() { TCP4 } else { TCP6 };
    let length = u16::try_from(addresses.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&SIGNATURE[..], &[VERSION_AND_COMMAND, family], &length, &addresses].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, destination: &str) -> (SocketAddr, SocketAddr) {
        (source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        let (source, destination) = addresses("192.0.2.1:56324", "198.51.100.2:443");
        let header = header(Version::V1, source, destination);
        assert_eq!(header, b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    }

    #[test]
    fn no_line_is_longer_than_107_bytes() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        assert!(header(Version::V1, longest, longest).len() <= 107);
    }

    #[test]
    fn version_2_is_binary() {
        let (source, destination) = addresses("192.0.2.1:258", "198.51.100.2:443");
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x01\x02\x01\xbb";
        assert_eq!(header(Version::V2, source, destination), expected);
        let (source, destination) = addresses("[2001:db8::1]:1", "[2001:db8::2]:2");
        let header = header(Version::V2, source, destination);
        assert_eq!((header.len(), &header[12..16]), (16 + 36, &b"\x21\x21\0\x24"[..]));
    }

    #[test]
    fn addresses_of_two_families_are_written_in_the_wider_one() {
        let (source, destination) = addresses("192.0.2.1:1", "[2001:db8::2]:2");
        let header = header(Version::V1, source, destination);
        assert_eq!(header, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
    }

    #[test]
    fn a_mapped_address_is_written_as_what_it_is() {
        let (source, destination) = addresses("[::ffff:192.0.2.1]:1", "198.51.100.2:2");
        assert_eq!(header(Version::V1, source, destination), b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n");
    }
}
