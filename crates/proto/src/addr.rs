//! Which addresses may be dialled, registered or passed on: the one table, for peers and trackers alike.
//!
//! Addresses arrive from strangers. A node that dialled whatever it was told would be a tool for reaching into its own
//! network, so everything outside the public ranges is refused, and the ranges are written out here rather than taken
//! from the standard library, whose `is_global` is unstable. Sources: the IANA special-purpose registries (RFC 6890).
//! This module never resolves names and never opens a socket.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What an address is, as far as dialling it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Globally routable unicast.
    Public,
    /// RFC 1918 or an IPv6 unique local address (RFC 4193): the same house or company.
    Private,
    /// Carrier-grade NAT, 100.64.0.0/10 (RFC 6598); also what some overlay networks hand out. A tracker may be there when
    /// the user typed it, a peer never: behind it are the provider's other customers.
    Shared,
    /// This machine.
    Loopback,
    /// Never dialled in any mode: unspecified, link-local, multicast, documentation, reserved, cloud metadata,
    /// transition addresses with another address inside, IPv4-mapped forms.
    Never,
}

/// Services by which clouds hand credentials to whoever asks from inside; some lie in otherwise ordinary ranges.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Sorts `ip` into its [`Class`]. An IPv4-mapped IPv6 address is [`Class::Never`]: make it canonical first if it came
/// from a socket, refuse it if it came from a message.
pub fn classify(ip: IpAddr) -> Class {
    match ip {
        IpAddr::V4(ip) => classify_v4(ip),
        IpAddr::V6(ip) => classify_v6(ip),
    }
}

/// Whether a peer may be dialled at `ip`, or others told of it; `lan` is LAN mode, which adds private and loopback
/// addresses.
pub fn is_dialable_ip(ip: IpAddr, lan: bool) -> bool {
    match classify(ip) {
        Class::Public => true,
        Class::Private | Class::Loopback => lan,
        Class::Shared | Class::Never => false,
    }
}

/// The same of an address with its port, which must not be 0.
pub fn is_dialable(addr: &SocketAddr, lan: bool) -> bool {
    addr.port() != 0 && is_dialable_ip(addr.ip(), lan)
}

fn classify_v4(ip: Ipv4Addr) -> Class {
    if METADATA_V4.contains(&ip) {
        return Class::Never;
    }
    match ip.octets() {
        [127, ..] => Class::Loopback,
        [10, ..] | [192, 168, ..] => Class::Private,
        [172, b, ..] if b & 0xf0 == 16 => Class::Private,
        [100, b, ..] if b & 0xc0 == 64 => Class::Shared,
        // "This network", link-local, multicast, reserved and broadcast.
        [0 | 224..=255, ..] | [169, 254, ..] => Class::Never,
        // Protocol assignments, documentation, the anycast of 6to4 relays, benchmarks.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => Class::Never,
        [198, 51, 100, _] | [203, 0, 113, _] => Class::Never,
        _ => Class::Public,
    }
}

fn classify_v6(ip: Ipv6Addr) -> Class {
    if ip == Ipv6Addr::LOCALHOST {
        return Class::Loopback;
    }
    if ip == METADATA_V6 {
        return Class::Never;
    }
    match ip.segments() {
        [a, ..] if a & 0xfe00 == 0xfc00 => Class::Private,
        // Protocol assignments (Teredo, ORCHID …), documentation, 6to4: inside 2000::/3 and yet no unicast host.
        [0x2001, b, ..] if b < 0x200 || b == 0xdb8 => Class::Never,
        [0x2002, ..] => Class::Never,
        [0x3fff, b, ..] if b < 0x1000 => Class::Never,
        [a, ..] if a & 0xe000 == 0x2000 => Class::Public,
        // Everything else: link-local, site-local, multicast, NAT64, mapped forms, and what is not assigned.
        _ => Class::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address, class, and the document that says so.
    const TABLE: &[(&str, Class, &str)] = &[
        ("8.8.8.8", Class::Public, "RFC 791"),
        ("172.15.0.1", Class::Public, "below RFC 1918"),
        ("172.32.0.1", Class::Public, "above RFC 1918"),
        ("100.63.255.255", Class::Public, "below RFC 6598"),
        ("100.128.0.1", Class::Public, "above RFC 6598"),
        ("10.1.2.3", Class::Private, "RFC 1918"),
        ("172.16.0.1", Class::Private, "RFC 1918"),
        ("172.31.255.1", Class::Private, "RFC 1918"),
        ("192.168.1.1", Class::Private, "RFC 1918"),
        ("100.64.0.1", Class::Shared, "RFC 6598"),
        ("100.127.9.9", Class::Shared, "RFC 6598"),
        ("127.0.0.1", Class::Loopback, "RFC 1122"),
        ("127.255.0.3", Class::Loopback, "RFC 1122"),
        ("0.0.0.0", Class::Never, "RFC 1122"),
        ("0.1.2.3", Class::Never, "RFC 791"),
        ("169.254.1.1", Class::Never, "RFC 3927"),
        ("169.254.169.254", Class::Never, "RFC 3927, a metadata service"),
        ("192.0.0.1", Class::Never, "RFC 6890"),
        ("192.0.2.1", Class::Never, "RFC 5737"),
        ("198.51.100.7", Class::Never, "RFC 5737"),
        ("203.0.113.9", Class::Never, "RFC 5737"),
        ("192.88.99.1", Class::Never, "RFC 7526"),
        ("198.18.0.1", Class::Never, "RFC 2544"),
        ("198.19.255.1", Class::Never, "RFC 2544"),
        ("224.0.0.1", Class::Never, "RFC 5771"),
        ("239.1.1.1", Class::Never, "RFC 2365"),
        ("240.0.0.1", Class::Never, "RFC 1112"),
        ("255.255.255.255", Class::Never, "RFC 919"),
        ("100.100.100.200", Class::Never, "a metadata service"),
        ("168.63.129.16", Class::Never, "a metadata service"),
        ("192.0.0.192", Class::Never, "a metadata service"),
        ("2606:4700::1111", Class::Public, "RFC 4291"),
        ("2a00:1450::1", Class::Public, "RFC 4291"),
        ("2001:200::1", Class::Public, "above RFC 2928"),
        ("fd12::1", Class::Private, "RFC 4193"),
        ("fc00::1", Class::Private, "RFC 4193"),
        ("::1", Class::Loopback, "RFC 4291"),
        ("::", Class::Never, "RFC 4291"),
        ("::7f00:1", Class::Never, "RFC 4291, IPv4-compatible"),
        ("::ffff:1.1.1.1", Class::Never, "RFC 4291, IPv4-mapped"),
        ("::ffff:127.0.0.1", Class::Never, "RFC 4291, IPv4-mapped"),
        ("64:ff9b::808:808", Class::Never, "RFC 6052, NAT64"),
        ("64:ff9b::a00:1", Class::Never, "RFC 6052, NAT64"),
        ("64:ff9b:1::a00:1", Class::Never, "RFC 8215, NAT64"),
        ("100::1", Class::Never, "RFC 6666"),
        ("2001::1", Class::Never, "RFC 4380, Teredo"),
        ("2001:2::1", Class::Never, "RFC 5180"),
        ("2001:20::1", Class::Never, "RFC 7343"),
        ("2001:db8::1", Class::Never, "RFC 3849"),
        ("2002:808:808::1", Class::Never, "RFC 3056, 6to4"),
        ("2002:7f00:1::", Class::Never, "RFC 3056, 6to4"),
        ("3fff::1", Class::Never, "RFC 9637"),
        ("4000::1", Class::Never, "RFC 4291, not assigned"),
        ("fe80::1", Class::Never, "RFC 4291"),
        ("fec0::1", Class::Never, "RFC 3879"),
        ("ff02::1", Class::Never, "RFC 4291"),
        ("fd00:ec2::254", Class::Never, "a metadata service"),
    ];

    #[test]
    fn every_address_is_of_the_class_that_its_document_says() {
        for (text, class, document) in TABLE {
            let ip = text.parse().unwrap();
            assert_eq!(classify(ip), *class, "{text}: {document}");
            let (outside, lan) = match class {
                Class::Public => (true, true),
                Class::Private | Class::Loopback => (false, true),
                Class::Shared | Class::Never => (false, false),
            };
            assert_eq!((is_dialable_ip(ip, false), is_dialable_ip(ip, true)), (outside, lan), "{text}");
            for (port, some) in [(1, true), (0, false)] {
                let addr = SocketAddr::new(ip, port);
                assert_eq!(is_dialable(&addr, false), outside && some, "{addr}");
                assert_eq!(is_dialable(&addr, true), lan && some, "{addr}");
            }
        }
    }
}
