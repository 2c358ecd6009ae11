//! Whom the admin listener answers to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The hosts that a request on a connection may name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Own {
    /// The bind address, the address that the client connected to (they differ for `0.0.0.0`), `localhost` and the
    /// loopback literals, each with our port.
    Tcp {
        /// `admin.bind`.
        bind: SocketAddr,
        /// Our end of the connection.
        local: SocketAddr,
    },
    /// Any: no web page reaches a Unix socket.
    Unix,
}

impl Own {
    /// Judges a Host header or the authority of an absolute target.
    pub(super) fn is_host(self, host: &str) -> bool {
        let Self::Tcp { bind, local } = self else { return true };
        let Some((name, port)) = split(host) else { return false };
        if port != bind.port() {
            return false;
        }
        let own = [bind.ip(), local.ip(), Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        match name.parse::<IpAddr>() {
            Ok(address) => own.contains(&address),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Judges an Origin header (RFC 6454 section 7): browsers send it with every request that may change something.
    pub(super) fn is_origin(self, origin: &str) -> bool {
        origin.strip_prefix("http://").is_some_and(|host| self.is_host(host))
    }
}

/// Name and port of `name:port`, `address:port` or `[address]:port`; without a port it is 80 (RFC 9110 section 4.2.1).
fn split(host: &str) -> Option<(&str, u16)> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        return Some((address, port_of(port)?));
    }
    match host.find(':') {
        Some(colon) => Some((&host[..colon], port_of(&host[colon..])?)),
        None => Some((host, 80)),
    }
}

fn port_of(text: &str) -> Option<u16> {
    if text.is_empty() {
        return Some(80);
    }
    let digits = text.strip_prefix(':')?;
    // `u16` would take a sign.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(bind: &str, local: &str) -> Own {
        Own::Tcp { bind: bind.parse().unwrap(), local: local.parse().unwrap() }
    }

    #[test]
    fn own_addresses_and_localhost_are_answered() {
        let own = own("0.0.0.0:15000", "10.0.0.5:15000");
        for host in ["0.0.0.0:15000", "10.0.0.5:15000", "127.0.0.1:15000", "[::1]:15000", "LocalHost:15000"] {
            assert!(own.is_host(host), "{host}");
        }
    }

    #[test]
    fn other_names_ports_and_shapes_are_refused() {
        let own = own("127.0.0.1:15000", "127.0.0.1:15000");
        for host in [
            "",
            "attacker.example:15000",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.1:+15000",
            "127.0.0.1:15000:15000",
            "localhost",
            "localhost.:15000",
            "[::1",
            "[::1]x:15000",
            "127.1:15000",
            "10.0.0.5:15000",
            "user@localhost:15000",
        ] {
            assert!(!own.is_host(host), "{host}");
        }
    }

    #[test]
    fn a_missing_port_is_80() {
        assert!(own("127.0.0.1:80", "127.0.0.1:80").is_host("localhost"));
    }

    #[test]
    fn only_our_own_pages_are_an_origin() {
        let own = own("127.0.0.1:15000", "127.0.0.1:15000");
        assert!(own.is_origin("http://127.0.0.1:15000"));
        for origin in ["null", "http://attacker.example", "https://127.0.0.1:15000", "http://127.0.0.1:15000/"] {
            assert!(!own.is_origin(origin), "{origin}");
        }
    }
}
