//! Which addresses may be dialled, registered or passed on.
//!
//! Addresses arrive from strangers. A node that dialled whatever it was told would be a tool for reaching into its own
//! network, so everything outside the public ranges is refused, and the ranges are written out here rather than taken
//! from the standard library, whose `is_global` is unstable. Sources: the IANA special-purpose registries (RFC 6890).
//! This module never resolves names and never opens a socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is, as far as dialling it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Globally routable unicast.
    Public,
    /// RFC 1918 or an IPv6 unique local address: the same house or company.
    Private,
    /// Carrier-grade NAT, 100.64.0.0/10; also what some overlay networks hand out.
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

/// Whether a peer's address may be dialled or passed on; `lan` is LAN mode, which adds private and loopback ones.
pub fn is_dialable(ip: IpAddr, lan: bool) -> bool {
    match classify(ip) {
        Class::Public => true,
        Class::Private | Class::Loopback => lan,
        Class::Shared | Class::Never => false,
    }
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
        [0 | 224..=255, ..] | [169, 254, ..] => Class::Never,
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
        _ => Class::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_dialled_outside_lan_mode() {
        for ip in ["1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
        {
            assert!(is_dialable(ip.parse().unwrap(), false), "{ip}");
        }
        for ip in ["10.0.0.1", "172.16.0.1", "172.31.255.1", "192.168.1.1", "127.0.0.1", "::1", "fd12::1"] {
            assert!(!is_dialable(ip.parse().unwrap(), false), "{ip}");
            assert!(is_dialable(ip.parse().unwrap(), true), "{ip}");
        }
    }

    #[test]
    fn some_addresses_are_never_dialled() {
        let never = [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.1.1",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "240.0.0.1",
            "100.64.0.1",
            "100.127.9.9",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:1.1.1.1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001::1",
            "fd00:ec2::254",
            "3fff::1",
            "fec0::1",
        ];
        for ip in never {
            assert!(!is_dialable(ip.parse().unwrap(), true), "{ip}");
        }
    }
}
