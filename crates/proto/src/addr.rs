//! Which addresses a peer may be dialled at or told about: never inwards, unless everybody is on one LAN.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whether `addr` may be dialled or passed on. In LAN mode private and loopback addresses may; link-local ones (cloud
/// metadata services live there), multicast and unspecified ones never.
pub fn is_dialable(addr: &SocketAddr, lan: bool) -> bool {
    addr.port() != 0
        && match addr.ip() {
            IpAddr::V4(ip) => is_dialable_v4(ip, lan),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => is_dialable_v4(ip, lan),
                None => is_dialable_v6(ip, lan),
            },
        }
}

fn is_dialable_v4(ip: Ipv4Addr, lan: bool) -> bool {
    let [a, b, c, _] = ip.octets();
    let never = ip.is_unspecified()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_link_local()
        || a == 0
        || a >= 240;
    let carrier_grade = a == 100 && (64..128).contains(&b);
    let inward = ip.is_private() || ip.is_loopback() || carrier_grade;
    let reserved = ip.is_documentation() || (a, b, c) == (192, 0, 0) || (a == 198 && (b & 0xfe) == 18);
    // A cloud's own services, at a public address.
    let never = never || ip.octets() == [168, 63, 129, 16];
    !never && (lan || !(inward || reserved))
}

fn is_dialable_v6(ip: Ipv6Addr, lan: bool) -> bool {
    let [head, second, .., low, last] = ip.segments();
    // An IPv4 address inside, which a gateway would unwrap: NAT64 (RFC 6052) and 6to4 (RFC 3056).
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    if (head, second) == (0x64, 0xff9b) {
        return is_dialable_v4(v4(low, last), lan);
    }
    if head == 0x2002 {
        return is_dialable_v4(v4(second, ip.segments()[2]), lan);
    }
    let never = ip.is_unspecified() || ip.is_multicast() || (head & 0xffc0) == 0xfe80;
    // Unique local addresses (RFC 4193), and the site-local ones before them.
    let inward = ip.is_loopback() || (head & 0xfe00) == 0xfc00 || (head & 0xffc0) == 0xfec0;
    let documentation = head == 0x2001 && second == 0xdb8;
    !never && (lan || !(inward || documentation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inward_addresses_need_a_lan_and_metadata_services_are_never_dialled() {
        for (text, outside, lan) in [
            ("8.8.8.8:1", true, true),
            ("8.8.8.8:0", false, false),
            ("127.0.0.1:1", false, true),
            ("10.1.2.3:1", false, true),
            ("192.168.1.1:1", false, true),
            ("100.64.0.1:1", false, true),
            ("169.254.169.254:80", false, false),
            ("0.0.0.0:1", false, false),
            ("224.0.0.1:1", false, false),
            ("255.255.255.255:1", false, false),
            ("[2606:4700::1]:1", true, true),
            ("[::1]:1", false, true),
            ("[fe80::1]:1", false, false),
            ("[fd00::1]:1", false, true),
            ("[fec0::1]:1", false, true),
            ("[64:ff9b::808:808]:1", true, true),
            ("[64:ff9b::a00:1]:1", false, true),
            ("[2002:808:808::1]:1", true, true),
            ("[2002:a00:1::1]:1", false, true),
            ("[2002:a9fe:a9fe::1]:1", false, false),
            ("168.63.129.16:80", false, false),
            ("[::ffff:169.254.169.254]:1", false, false),
            ("[::ffff:10.0.0.1]:1", false, true),
        ] {
            let addr = text.parse().unwrap();
            assert_eq!((is_dialable(&addr, false), is_dialable(&addr, true)), (outside, lan), "{text}");
        }
    }
}
