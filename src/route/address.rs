//! The address policy: which resolved addresses may be dialled.
//!
//! A name is the operator's, but what it resolves to is whoever's DNS answers: without this, `evil.example` in a
//! wildcard entry could lead to a metadata service, a neighbour, or back into the gateway. Every address of an
//! answer is judged, once more at each new resolution, and the very address that was judged is dialled.
//!
//! Our own addresses are refused whatever the policy says. Then `deny` wins over `allow`, and `allow` over the
//! built-in classes. An address that stands for an IPv4 address (NAT64, 6to4, Teredo) must pass for both.

mod classes;

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use classes::{class, embedded};

/// `addressPolicy` of the bootstrap file, with our own addresses. Deny wins over allow.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    /// Ranges opened on purpose.
    pub allow: Vec<IpNet>,
    /// Ranges closed on top of the built-in list.
    pub deny: Vec<IpNet>,
    /// Our own listeners and admin, wildcard binds included: always refused.
    pub own: Vec<SocketAddr>,
    /// This machine's own interface addresses, which a wildcard bind listens on.
    pub local: Vec<IpAddr>,
}

/// Why an address is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// One of our own listeners, or admin.
    #[error("one of the gateway's own addresses")]
    OwnAddress,
    /// In `addressPolicy.deny`.
    #[error("closed by addressPolicy.deny")]
    Denied,
    /// Not globally routable; the class, for the log.
    #[error("not globally routable ({0}), and not in addressPolicy.allow")]
    Class(&'static str),
}

impl AddressPolicy {
    /// Judges an address that a name resolved to.
    ///
    /// # Errors
    /// Why it may not be dialled.
    pub fn judge_resolved(&self, address: SocketAddr) -> Result<(), Closed> {
        self.judge_configured(address)?;
        self.judge(address.ip().to_canonical())
    }

    /// Judges an address that a captured client meant to reach and that lies in a range which the operator wrote.
    ///
    /// The range opens a class of closed addresses only if it lies in that class as a whole: `10.0.0.0/8` means the
    /// private network, `0.0.0.0/0` does not mean the metadata service. `deny` wins as always.
    ///
    /// # Errors
    /// Why it may not be dialled.
    pub fn judge_original(&self, address: SocketAddr, range: IpNet) -> Result<(), Closed> {
        self.judge_configured(address)?;
        let ip = address.ip().to_canonical();
        if lies_in(ip, &self.deny) {
            return Err(Closed::Denied);
        }
        let class_of = |ip: IpAddr| class(ip.to_canonical());
        let is_meant = class(ip).is_some_and(|class| {
            class_of(range.network()) == Some(class) && class_of(range.broadcast()) == Some(class)
        });
        match embedded(ip) {
            _ if !is_meant => self.judge(ip),
            Some(inner) => self.judge(IpAddr::V4(inner)),
            None => Ok(()),
        }
    }

    /// Judges an address that the operator wrote (STATIC endpoints, `dns.hosts`): only our own are refused.
    ///
    /// # Errors
    /// [`Closed::OwnAddress`].
    pub fn judge_configured(&self, address: SocketAddr) -> Result<(), Closed> {
        let ip = address.ip().to_canonical();
        let ours = self.own.iter().any(|own| own.port() == address.port() && self.listens_on(own.ip(), ip));
        if ours { Err(Closed::OwnAddress) } else { Ok(()) }
    }

    /// Whether a listener bound to `bind` takes connections to `ip`. The unspecified address reaches this machine on
    /// Linux, so it counts as any of our own; `[::]` may or may not take IPv4 too, so it counts as if it did.
    fn listens_on(&self, bind: IpAddr, ip: IpAddr) -> bool {
        let is_local = || ip.is_loopback() || self.local.iter().any(|local| local.to_canonical() == ip);
        ip.is_unspecified() || bind.to_canonical() == ip || bind.is_unspecified() && is_local()
    }

    fn judge(&self, ip: IpAddr) -> Result<(), Closed> {
        if lies_in(ip, &self.deny) {
            return Err(Closed::Denied);
        }
        if !lies_in(ip, &self.allow)
            && let Some(class) = class(ip)
        {
            return Err(Closed::Class(class));
        }
        match embedded(ip) {
            Some(inner) => self.judge(IpAddr::V4(inner)),
            None => Ok(()),
        }
    }
}

/// `ip` is canonical: never an IPv4 address in IPv6 clothes. A range may be.
fn lies_in(ip: IpAddr, ranges: &[IpNet]) -> bool {
    ranges.iter().any(|range| range.contains(&ip) || unmapped(range).is_some_and(|range| range.contains(&ip)))
}

/// The IPv4 range that a range in `::ffff:0:0/96` stands for (RFC 4291 section 2.5.5.2).
fn unmapped(range: &IpNet) -> Option<IpNet> {
    let IpNet::V6(range) = range else { return None };
    let prefix = range.prefix_len().checked_sub(96)?;
    Ipv4Net::new(range.addr().to_ipv4_mapped()?, prefix).ok().map(IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a valid range")).collect()
    }

    fn at(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), port)
    }

    fn judged(policy: &AddressPolicy, ip: &str) -> Result<(), Closed> {
        policy.judge_resolved(at(ip, 443))
    }

    #[test]
    fn global_addresses_are_open() {
        for ip in ["142.250.74.36", "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2a00:1450:4001::1"] {
            assert_eq!(judged(&AddressPolicy::default(), ip), Ok(()), "{ip}");
        }
        assert_eq!(judged(&AddressPolicy::default(), "::ffff:1.1.1.1"), Ok(()));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_judged_as_what_it_is() {
        let closed = judged(&AddressPolicy::default(), "::ffff:169.254.169.254");
        assert_eq!(closed, Err(Closed::Class("metadata")));
        let policy = AddressPolicy { deny: nets(&["::ffff:1.0.0.0/104"]), ..AddressPolicy::default() };
        assert_eq!(judged(&policy, "1.1.1.1"), Err(Closed::Denied));
        let policy = AddressPolicy { deny: nets(&["::/0"]), ..AddressPolicy::default() };
        assert_eq!(judged(&policy, "1.1.1.1"), Ok(()));
        assert_eq!(judged(&policy, "2a00::1"), Err(Closed::Denied));
    }

    #[test]
    fn deny_wins_over_allow_and_allow_over_the_classes() {
        let policy = AddressPolicy {
            allow: nets(&["10.0.0.0/8", "1.0.0.0/8"]),
            deny: nets(&["10.1.0.0/16", "1.1.1.1/32"]),
            ..AddressPolicy::default()
        };
        assert_eq!(judged(&policy, "10.0.0.1"), Ok(()));
        assert_eq!(judged(&policy, "::ffff:10.0.0.1"), Ok(()));
        assert_eq!(judged(&policy, "10.1.0.1"), Err(Closed::Denied));
        assert_eq!(judged(&policy, "1.1.1.1"), Err(Closed::Denied));
        assert_eq!(judged(&policy, "192.168.0.1"), Err(Closed::Class("private")));
    }

    #[test]
    fn what_stands_for_an_ipv4_address_must_pass_for_both() {
        let policy = AddressPolicy {
            allow: nets(&["64:ff9b::/96", "2002::/16", "2001::/32", "::/96"]),
            deny: nets(&["203.0.114.0/24"]),
            ..AddressPolicy::default()
        };
        assert_eq!(judged(&policy, "64:ff9b::1.1.1.1"), Ok(()));
        assert_eq!(judged(&policy, "64:ff9b::169.254.169.254"), Err(Closed::Class("metadata")));
        assert_eq!(judged(&policy, "64:ff9b::203.0.114.1"), Err(Closed::Denied));
        assert_eq!(judged(&policy, "2002:a00:1::1"), Err(Closed::Class("private")));
        assert_eq!(judged(&policy, "2001::80ff:fffe"), Err(Closed::Class("loopback")));
        assert_eq!(judged(&policy, "::10.0.0.1"), Err(Closed::Class("private")));
    }

    #[test]
    fn our_own_addresses_are_refused_whatever_the_policy_says() {
        let policy = AddressPolicy {
            allow: nets(&["0.0.0.0/0", "::/0"]),
            own: vec![at("127.0.0.1", 15000), at("10.0.0.5", 8443)],
            ..AddressPolicy::default()
        };
        for ip in ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            assert_eq!(policy.judge_resolved(at(ip, 15000)), Err(Closed::OwnAddress), "{ip}");
            assert_eq!(policy.judge_configured(at(ip, 15000)), Err(Closed::OwnAddress), "{ip}");
        }
        assert_eq!(policy.judge_configured(at("10.0.0.5", 8443)), Err(Closed::OwnAddress));
        assert_eq!(policy.judge_configured(at("127.0.0.1", 8443)), Ok(()));
        assert_eq!(policy.judge_configured(at("127.0.0.1", 9000)), Ok(()));
        assert_eq!(policy.judge_configured(at("10.0.0.6", 8443)), Ok(()));
    }

    #[test]
    fn a_wildcard_bind_is_every_address_of_this_machine() {
        for bind in ["0.0.0.0", "::"] {
            let policy = AddressPolicy {
                own: vec![at(bind, 15001)],
                local: vec!["198.51.100.7".parse().expect("an address"), "2a00::7".parse().expect("an address")],
                ..AddressPolicy::default()
            };
            for ip in
                ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "198.51.100.7", "::ffff:198.51.100.7", "2a00::7"]
            {
                assert_eq!(policy.judge_configured(at(ip, 15001)), Err(Closed::OwnAddress), "{bind} {ip}");
                assert_eq!(policy.judge_configured(at(ip, 15002)), Ok(()), "{bind} {ip}");
            }
            assert_eq!(policy.judge_configured(at("198.51.100.8", 15001)), Ok(()));
        }
    }

    #[test]
    fn a_written_range_opens_the_class_that_it_lies_in_and_no_other() {
        let policy = AddressPolicy {
            deny: nets(&["10.9.0.0/16"]),
            own: vec![at("10.0.0.5", 15001)],
            ..AddressPolicy::default()
        };
        let judged = |ip: &str, range: &str| policy.judge_original(at(ip, 15001), range.parse().expect("a range"));
        assert_eq!(judged("10.1.2.3", "10.1.2.3/32"), Ok(()));
        assert_eq!(judged("10.1.2.3", "10.0.0.0/8"), Ok(()));
        assert_eq!(judged("10.9.2.3", "10.0.0.0/8"), Err(Closed::Denied));
        assert_eq!(judged("10.0.0.5", "10.0.0.0/8"), Err(Closed::OwnAddress));
        assert_eq!(judged("10.1.2.3", "0.0.0.0/0"), Err(Closed::Class("private")));
        assert_eq!(judged("169.254.169.254", "169.254.0.0/16"), Err(Closed::Class("metadata")));
        assert_eq!(judged("169.254.169.254", "169.254.169.254/32"), Ok(()));
        assert_eq!(judged("1.1.1.1", "0.0.0.0/0"), Ok(()));
        assert_eq!(judged("fd77::1", "fd00::/8"), Ok(()));
    }

    #[test]
    fn the_log_says_why() {
        let text = Closed::Class("metadata").to_string();
        assert_eq!(text, "not globally routable (metadata), and not in addressPolicy.allow");
    }
}
