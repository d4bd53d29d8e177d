//! Which addresses are in which PID: longest-prefix matching by one trie per address family (section 11.2.2).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::{MapError, PIDS_MAX, PREFIXES_MAX, tag};
use crate::types::{PidName, VersionTag};

/// A PID of one map, as its place in the map's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PidIndex(pub(crate) u16);

impl PidIndex {
    /// The place, from 0.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// A PID and its prefixes, each list sorted and without repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pid {
    /// The name.
    pub name: PidName,
    /// IPv4 prefixes.
    pub ipv4: Vec<Ipv4Net>,
    /// IPv6 prefixes.
    pub ipv6: Vec<Ipv6Net>,
}

/// A network map.
#[derive(Debug, Clone)]
pub struct NetworkMap {
    vtag: VersionTag,
    /// By name.
    pids: Vec<Pid>,
    ipv4: PrefixMap<Ipv4Net, u16>,
    ipv6: PrefixMap<Ipv6Net, u16>,
}

impl NetworkMap {
    /// Makes the map `id` with a tag that is a hash of its content.
    ///
    /// # Errors
    /// [`MapError::Overlap`], or [`MapError::TooMany`].
    pub fn new(id: &str, pids: BTreeMap<PidName, Vec<IpNet>>) -> Result<Self, MapError> {
        let mut map = Self::with_tag(VersionTag { resource_id: id.to_owned(), tag: String::new() }, pids)?;
        let mut hasher = blake3::Hasher::new();
        for pid in &map.pids {
            hasher.update(pid.name.as_str().as_bytes()).update(b"\n");
            for prefix in &pid.ipv4 {
                hasher.update(&prefix.addr().octets()).update(&[4, prefix.prefix_len()]);
            }
            for prefix in &pid.ipv6 {
                hasher.update(&prefix.addr().octets()).update(&[6, prefix.prefix_len()]);
            }
        }
        map.vtag.tag = tag(&hasher);
        Ok(map)
    }

    /// Makes a map whose tag somebody else chose.
    pub(super) fn with_tag(vtag: VersionTag, pids: BTreeMap<PidName, Vec<IpNet>>) -> Result<Self, MapError> {
        if pids.len() > PIDS_MAX {
            return Err(MapError::TooMany { what: "PIDs", max: PIDS_MAX });
        }
        let mut map = Self {
            vtag,
            pids: Vec::with_capacity(pids.len()),
            ipv4: PrefixMap::new(),
            ipv6: PrefixMap::new(),
        };
        let mut count = 0;
        for ((name, prefixes), index) in pids.into_iter().zip(0u16..) {
            let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
            for prefix in prefixes {
                let taken = match prefix {
                    IpNet::V4(prefix) => {
                        ipv4.push(prefix.trunc());
                        map.ipv4.insert(prefix.trunc(), index)
                    }
                    IpNet::V6(prefix) => {
                        ipv6.push(prefix.trunc());
                        map.ipv6.insert(prefix.trunc(), index)
                    }
                };
                match taken {
                    Some(other) if other != index => {
                        let first = map.pids[usize::from(other)].name.to_string();
                        return Err(MapError::Overlap {
                            prefix: prefix.trunc(),
                            first,
                            second: name.to_string(),
                        });
                    }
                    Some(_) => {}
                    None => count += 1,
                }
                if count > PREFIXES_MAX {
                    return Err(MapError::TooMany { what: "prefixes", max: PREFIXES_MAX });
                }
            }
            ipv4.sort_unstable();
            ipv4.dedup();
            ipv6.sort_unstable();
            ipv6.dedup();
            map.pids.push(Pid { name, ipv4, ipv6 });
        }
        Ok(map)
    }

    /// Checks that every address of each family in the map has a PID (section 11.2.2).
    ///
    /// # Errors
    /// [`MapError::Incomplete`].
    pub fn check_complete(&self) -> Result<(), MapError> {
        let all = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
        if !self.ipv4.is_empty() && !self.ipv4.contains_key(&all) {
            let prefixes: Vec<Ipv4Net> = self.pids.iter().flat_map(|pid| pid.ipv4.iter().copied()).collect();
            if Ipv4Net::aggregate(&prefixes) != [all] {
                return Err(MapError::Incomplete(all.into()));
            }
        }
        let all = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);
        if !self.ipv6.is_empty() && !self.ipv6.contains_key(&all) {
            let prefixes: Vec<Ipv6Net> = self.pids.iter().flat_map(|pid| pid.ipv6.iter().copied()).collect();
            if Ipv6Net::aggregate(&prefixes) != [all] {
                return Err(MapError::Incomplete(all.into()));
            }
        }
        Ok(())
    }

    /// Which map and version this is.
    pub fn vtag(&self) -> &VersionTag {
        &self.vtag
    }

    /// The PIDs by name.
    pub fn pids(&self) -> &[Pid] {
        &self.pids
    }

    /// How many prefixes there are.
    pub fn prefix_count(&self) -> usize {
        self.ipv4.len() + self.ipv6.len()
    }

    /// All PIDs' places.
    pub fn indices(&self) -> impl Iterator<Item = PidIndex> + use<> {
        (0u16..).take(self.pids.len()).map(PidIndex)
    }

    /// The PID of that name.
    pub fn index(&self, name: &str) -> Option<PidIndex> {
        let found = self.pids.binary_search_by(|pid| pid.name.as_str().cmp(name)).ok()?;
        u16::try_from(found).ok().map(PidIndex)
    }

    /// A PID's name.
    ///
    /// # Panics
    /// When `index` is of another, larger map.
    pub fn name(&self, index: PidIndex) -> &PidName {
        &self.pids[index.get()].name
    }

    /// The PID with the longest prefix that holds `ip`, and that prefix.
    pub fn longest_match(&self, ip: IpAddr) -> Option<(PidIndex, IpNet)> {
        match ip {
            IpAddr::V4(ip) => {
                let (prefix, index) = self.ipv4.get_lpm(&Ipv4Net::from(ip))?;
                Some((PidIndex(*index), prefix.into()))
            }
            IpAddr::V6(ip) => {
                let (prefix, index) = self.ipv6.get_lpm(&Ipv6Net::from(ip))?;
                Some((PidIndex(*index), prefix.into()))
            }
        }
    }

    /// The PID of `ip`; always one in a complete map that has the address family.
    pub fn pid_of(&self, ip: IpAddr) -> Option<PidIndex> {
        self.longest_match(ip).map(|(index, _)| index)
    }

    /// The map as a message (section 11.2.1.6), with only the PIDs and families that are wanted.
    pub(crate) fn write(&self, wanted: impl Fn(PidIndex) -> bool, ipv4: bool, ipv6: bool) -> Vec<u8> {
        let head = format!(
            r#"{{"meta":{{"vtag":{{"resource-id":"{}","tag":"{}"}}}},"network-map":{{"#,
            self.vtag.resource_id, self.vtag.tag
        );
        let mut out = head.into_bytes();
        let mut first = true;
        for index in self.indices().filter(|index| wanted(*index)) {
            let pid = &self.pids[index.get()];
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            push_key(&mut out, pid.name.as_str());
            write_group(&mut out, pid, ipv4, ipv6);
        }
        out.extend_from_slice(b"}}");
        out
    }
}

/// `"name":`, where the name is one that needs no escapes.
pub(crate) fn push_key(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// An endpoint address group (section 10.4.5).
pub(super) fn write_group(out: &mut Vec<u8>, pid: &Pid, ipv4: bool, ipv6: bool) {
    out.push(b'{');
    if ipv4 && !pid.ipv4.is_empty() {
        push_prefixes(out, "ipv4", &pid.ipv4);
    }
    if ipv6 && !pid.ipv6.is_empty() {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        push_prefixes(out, "ipv6", &pid.ipv6);
    }
    out.push(b'}');
}

fn push_prefixes<P: std::fmt::Display>(out: &mut Vec<u8>, family: &str, prefixes: &[P]) {
    use std::io::Write as _;
    push_key(out, family);
    out.push(b'[');
    for (at, prefix) in prefixes.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a vector cannot fail.
        let _written = write!(out, "{comma}\"{prefix}\"");
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn network(pids: &[(&str, &[&str])]) -> Result<NetworkMap, MapError> {
        let prefixes =
            |list: &[&str]| list.iter().map(|prefix| prefix.parse().unwrap()).collect::<Vec<IpNet>>();
        let pids = pids.iter().map(|(name, list)| (PidName::new(name).unwrap(), prefixes(list)));
        NetworkMap::new("network", pids.collect())
    }

    fn pid(map: &NetworkMap, ip: &str) -> String {
        map.pid_of(ip.parse().unwrap()).map_or_else(String::new, |index| map.name(index).to_string())
    }

    /// The example of RFC 7285, section 11.2.2.
    #[test]
    fn the_longest_prefix_decides() {
        let map = network(&[
            ("PID0", &["::/0"]),
            ("PID1", &["0.0.0.0/0"]),
            ("PID2", &["192.0.2.0/24", "198.51.100.0/24"]),
            ("PID3", &["192.0.2.0/25", "192.0.2.128/25"]),
        ])
        .unwrap();
        map.check_complete().unwrap();
        assert_eq!(pid(&map, "192.0.2.1"), "PID3");
        assert_eq!(pid(&map, "192.0.2.200"), "PID3");
        assert_eq!(pid(&map, "198.51.100.7"), "PID2");
        assert_eq!(pid(&map, "203.0.113.1"), "PID1");
        assert_eq!(pid(&map, "2001:db8::1"), "PID0");
        let clash = network(&[
            ("PID1", &["0.0.0.0/0"]),
            ("PID2", &["192.0.2.0/24", "198.51.100.0/24"]),
            ("PID3", &["192.0.2.0/24"]),
        ]);
        let expected = MapError::Overlap {
            prefix: "192.0.2.0/24".parse().unwrap(),
            first: "PID2".to_owned(),
            second: "PID3".to_owned(),
        };
        assert_eq!(clash.unwrap_err(), expected);
    }

    #[test]
    fn ipv6_is_matched_to_the_last_bit() {
        let map = network(&[
            ("all", &["::/0"]),
            ("net", &["2001:db8::/32"]),
            ("site", &["2001:db8:a::/48"]),
            ("host", &["2001:db8:a::1/128"]),
        ])
        .unwrap();
        for (ip, expected) in [
            ("2001:db8:a::1", "host"),
            ("2001:db8:a::2", "site"),
            ("2001:db8:b::1", "net"),
            ("2001:db9::", "all"),
            ("::1", "all"),
        ] {
            assert_eq!(pid(&map, ip), expected, "{ip}");
        }
    }

    #[test]
    fn a_map_is_complete_for_each_family_that_it_has() {
        assert!(network(&[("a", &["0.0.0.0/0"])]).unwrap().check_complete().is_ok());
        let halves = [("a", ["0.0.0.0/1"].as_slice()), ("b", &["128.0.0.0/2", "192.0.0.0/2"])];
        assert!(network(&halves).unwrap().check_complete().is_ok());
        let no_v4 = network(&[("a", &["192.0.2.0/24", "::/0"])]).unwrap().check_complete();
        assert_eq!(no_v4, Err(MapError::Incomplete("0.0.0.0/0".parse().unwrap())));
        let no_v6 = network(&[("a", &["0.0.0.0/0", "2001:db8::/32"])]).unwrap().check_complete();
        assert_eq!(no_v6, Err(MapError::Incomplete("::/0".parse().unwrap())));
    }

    #[test]
    fn the_tag_changes_exactly_when_content_does() {
        let tag = |pids: &[(&str, &[&str])]| network(pids).unwrap().vtag().tag.clone();
        let base = tag(&[("a", &["0.0.0.0/0", "10.0.0.0/8"]), ("b", &["192.0.2.0/24"])]);
        let same: [&[(&str, &[&str])]; 2] = [
            &[("b", &["192.0.2.0/24"]), ("a", &["10.0.0.0/8", "0.0.0.0/0"])],
            &[("a", &["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/8"]), ("b", &["192.0.2.0/24"])],
        ];
        for pids in same {
            assert_eq!(tag(pids), base, "{pids:?}");
        }
        let others: [&[(&str, &[&str])]; 5] = [
            &[("a", &["0.0.0.0/0", "10.0.0.0/8"]), ("c", &["192.0.2.0/24"])],
            &[("a", &["0.0.0.0/0", "10.0.0.0/9"]), ("b", &["192.0.2.0/24"])],
            &[("a", &["0.0.0.0/0"]), ("b", &["10.0.0.0/8", "192.0.2.0/24"])],
            &[("a", &["0.0.0.0/0", "10.0.0.0/8"]), ("b", &["192.0.2.0/24"]), ("c", &[])],
            &[("a", &["0.0.0.0/0", "10.0.0.0/8"])],
        ];
        for pids in others {
            assert_ne!(tag(pids), base, "{pids:?}");
        }
        assert!(base.len() <= crate::types::TAG_LEN_MAX);
    }

    /// Both tries against a search of the whole list.
    #[test]
    fn tries_agree_with_brute_force() {
        for seed in 0..40 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut owners: BTreeMap<IpNet, u16> = BTreeMap::new();
            for _ in 0..rng.usize(1..200) {
                let prefix = if rng.bool() {
                    // Few bits differ, so that many prefixes hold each other.
                    let ip = Ipv4Addr::from_bits(rng.u32(..) & 0x0307_0f0f);
                    IpNet::V4(Ipv4Net::new(ip, rng.u8(0..=32)).unwrap().trunc())
                } else {
                    let ip = Ipv6Addr::from_bits(rng.u128(..) & (0x0f0f << 112 | 0x0303 << 60 | 7));
                    IpNet::V6(Ipv6Net::new(ip, rng.u8(0..=128)).unwrap().trunc())
                };
                owners.insert(prefix, rng.u16(0..8));
            }
            let mut pids: BTreeMap<PidName, Vec<IpNet>> = BTreeMap::new();
            for owner in 0..8 {
                let own = owners.iter().filter(|(_, o)| **o == owner).map(|(prefix, _)| *prefix);
                pids.insert(PidName::new(&format!("p{owner}")).unwrap(), own.collect());
            }
            let map = NetworkMap::new("m", pids).unwrap();
            assert_eq!(map.prefix_count(), owners.len());
            for _ in 0..500 {
                let ip: IpAddr = if rng.bool() {
                    Ipv4Addr::from_bits(rng.u32(..) & 0x0307_0f0f).into()
                } else {
                    Ipv6Addr::from_bits(rng.u128(..) & (0x0f0f << 112 | 0x0303 << 60 | 7)).into()
                };
                let holding = owners.iter().filter(|(prefix, _)| prefix.contains(&ip));
                let expected =
                    holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(p, o)| (PidIndex(*o), *p));
                assert_eq!(map.longest_match(ip), expected, "seed {seed}, {ip}");
            }
        }
    }
}
