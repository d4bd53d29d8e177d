//! An `alto.toml` from a table of which addresses belong to which autonomous system, so that locality helps where no operator
//! serves a map: PIDs are the largest autonomous systems and, for all others, countries; networks of one country are taken to
//! peer with each other.
//!
//! Forms of a line, separated by tabs or commas: `FIRST LAST AS [COUNTRY [NAME]]` as iptoasn.com has it, or
//! `PREFIX AS [COUNTRY [NAME]]`. What follows is passed over, and so are empty lines and those that begin with `#`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use crate::map::{PIDS_MAX, PREFIXES_MAX};
use crate::types::shortened;

/// How to build a map.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildOptions {
    /// So many of the largest autonomous systems get a PID of their own.
    pub pids: usize,
    /// Cost within a PID.
    pub same: f64,
    /// Cost between PIDs of one country.
    pub peering: f64,
    /// Cost between any others.
    pub transit: f64,
    /// What the table is called, for the file's first line.
    pub source: String,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { pids: 200, same: 1.0, peering: 5.0, transit: 20.0, source: "a table".to_owned() }
    }
}

/// Why a table gives no map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A line that is none of a table.
    #[error(
        "line {line}: {what}; FIRST LAST AS COUNTRY NAME (as iptoasn.com has it) or PREFIX,AS is expected"
    )]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Nothing in it.
    #[error("there is no network in the table")]
    Empty,
    /// More than a map may have.
    #[error("more than {max} {what}: {remedy}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
        /// What to do.
        remedy: &'static str,
    },
}

/// A map, and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The file.
    pub text: String,
    /// Rows of the table that were used.
    pub rows: usize,
    /// Rows without an autonomous system, or with a prefix that another row has.
    pub skipped: usize,
    /// Autonomous systems in the table.
    pub systems: usize,
    /// PIDs of the map, `default` included.
    pub pids: usize,
    /// Prefixes of the map.
    pub prefixes: usize,
}

/// What a table says of one autonomous system.
#[derive(Default)]
struct System {
    name: String,
    ipv4: Vec<Ipv4Net>,
    ipv6: Vec<Ipv6Net>,
    /// Addresses, IPv6 in networks of 48 bits, by country.
    size_by_country: BTreeMap<String, f64>,
}

impl System {
    fn size(&self) -> f64 {
        self.size_by_country.values().sum()
    }

    /// The country of most of it; empty where none is told.
    fn country(&self) -> &str {
        let largest = self.size_by_country.iter().max_by(|(_, one), (_, two)| one.total_cmp(two));
        largest.map_or("", |(country, _)| country)
    }
}

/// A PID that is being made.
#[derive(Default)]
struct Group {
    comment: String,
    country: String,
    ipv4: Vec<Ipv4Net>,
    ipv6: Vec<Ipv6Net>,
}

/// Builds a map.
///
/// # Errors
/// [`BuildError`], with the line that is wrong.
pub fn build(table: &str, options: &BuildOptions) -> Result<Built, BuildError> {
    let mut systems: BTreeMap<u32, System> = BTreeMap::new();
    let mut owners: BTreeMap<IpNet, u32> = BTreeMap::new();
    let (mut rows, mut skipped, mut are_all_ranges) = (0, 0, true);
    for (text, number) in table.lines().zip(1..) {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let row = match Row::read(text) {
            Ok(row) => row,
            // The names of the columns.
            Err(_) if number == 1 && !text.starts_with(|c: char| c.is_ascii_hexdigit()) => continue,
            Err(what) => return Err(BuildError::Line { line: number, what }),
        };
        are_all_ranges &= row.is_range;
        let is_free = |prefix: &IpNet| prefix.prefix_len() > 0 && !owners.contains_key(prefix);
        let prefixes: Vec<IpNet> = row.prefixes.into_iter().filter(is_free).collect();
        if row.system == 0 || prefixes.is_empty() {
            skipped += 1;
            continue;
        }
        rows += 1;
        let system = systems.entry(row.system).or_default();
        if system.name.is_empty() {
            system.name = row.name;
        }
        let size = system.size_by_country.entry(row.country).or_default();
        for prefix in prefixes {
            owners.insert(prefix, row.system);
            match prefix {
                IpNet::V4(prefix) => {
                    *size += f64::from(32 - prefix.prefix_len()).exp2();
                    system.ipv4.push(prefix);
                }
                IpNet::V6(prefix) => {
                    *size += (48.0 - f64::from(prefix.prefix_len())).exp2();
                    system.ipv6.push(prefix);
                }
            }
        }
        if owners.len() > PREFIXES_MAX * 2 {
            let remedy = "take the part of the table that matters to you";
            return Err(BuildError::TooMany { what: "prefixes", max: PREFIXES_MAX * 2, remedy });
        }
    }
    drop(owners);
    if systems.is_empty() {
        return Err(BuildError::Empty);
    }
    let count = systems.len();
    let mut groups = group(systems, options.pids);
    if groups.len() > PIDS_MAX {
        return Err(BuildError::TooMany { what: "PIDs", max: PIDS_MAX, remedy: "give fewer with --pids" });
    }
    if are_all_ranges {
        // Ranges do not hold each other, so that neighbours may be joined.
        for group in groups.values_mut() {
            group.ipv4 = Ipv4Net::aggregate(&group.ipv4);
            group.ipv6 = Ipv6Net::aggregate(&group.ipv6);
        }
    }
    let prefixes: usize = groups.values().map(|group| group.ipv4.len() + group.ipv6.len()).sum();
    if prefixes > PREFIXES_MAX - 2 {
        let remedy = "take the part of the table that matters to you";
        return Err(BuildError::TooMany { what: "prefixes", max: PREFIXES_MAX, remedy });
    }
    let pids = groups.len();
    let head = format!(
        "# Made by `caudal alto build` from {}: {rows} rows, {count} autonomous systems.\n\
         # asNUMBER is an autonomous system, cc-COUNTRY the smaller ones of a country; those of one country peer.\n",
        plain(&options.source)
    );
    let text = head + &write(&groups, options);
    Ok(Built { text, rows, skipped, systems: count, pids, prefixes: prefixes + 2 })
}

/// The largest systems by themselves, the others by country, the rest with the rest of the world.
fn group(systems: BTreeMap<u32, System>, largest: usize) -> BTreeMap<String, Group> {
    let mut by_size: Vec<(u32, System)> = systems.into_iter().collect();
    by_size.sort_by(|(one, a), (two, b)| b.size().total_cmp(&a.size()).then(one.cmp(two)));
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    groups.entry("default".to_owned()).or_default().comment = "the rest of the world".to_owned();
    for (place, (number, mut system)) in by_size.into_iter().enumerate() {
        let country = system.country().to_owned();
        let (name, comment) = if place < largest {
            (format!("as{number}"), format!("AS{number} {country} {}", plain(&system.name)))
        } else if country.is_empty() {
            ("default".to_owned(), "the rest of the world".to_owned())
        } else {
            (format!("cc-{}", country.to_ascii_lowercase()), format!("smaller networks of {country}"))
        };
        let group = groups.entry(name.clone()).or_default();
        group.comment = comment;
        if name != "default" {
            group.country = country;
        }
        group.ipv4.append(&mut system.ipv4);
        group.ipv6.append(&mut system.ipv6);
    }
    groups
}

fn write(groups: &BTreeMap<String, Group>, options: &BuildOptions) -> String {
    let mut text = String::new();
    let mut by_country: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, group) in groups.iter().filter(|(_, group)| !group.country.is_empty()) {
        by_country.entry(&group.country).or_default().push(name);
    }
    // Writing to a string cannot fail.
    let _written = writeln!(
        text,
        "\n[costs]\nsame = {}\npeering = {}\ntransit = {}\npeerings = [",
        options.same, options.peering, options.transit
    );
    for (country, names) in by_country.iter().filter(|(_, names)| names.len() > 1) {
        let _written = writeln!(text, "  # {country}");
        list(&mut text, "  [", names.iter(), "],");
    }
    text.push_str("]\n\n[pids]\n");
    let all = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    for (name, group) in groups {
        let rest = all.iter().filter(|_| name == "default").cloned();
        let own =
            group.ipv4.iter().map(ToString::to_string).chain(group.ipv6.iter().map(ToString::to_string));
        let _written = writeln!(text, "# {}", group.comment.trim_end());
        list(&mut text, &format!("{name} = ["), rest.chain(own), "]");
    }
    text
}

/// Texts in quotes, as many on a line as fit.
fn list<T: std::fmt::Display>(text: &mut String, head: &str, items: impl Iterator<Item = T>, tail: &str) {
    const WIDTH: usize = 110;
    let mut line = head.to_owned();
    for item in items {
        let item = format!("\"{item}\", ");
        if line.len() + item.len() > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = "  ".to_owned();
        }
        line.push_str(&item);
    }
    text.push_str(line.trim_end().trim_end_matches(','));
    text.push_str(tail);
    text.push('\n');
}

/// A stranger's words, for a comment.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// One row of a table.
struct Row {
    prefixes: Vec<IpNet>,
    is_range: bool,
    system: u32,
    country: String,
    name: String,
}

impl Row {
    fn read(text: &str) -> Result<Self, String> {
        let separator = if text.contains('\t') { '\t' } else { ',' };
        let mut fields = text.split(separator).map(|field| field.trim().trim_matches('"'));
        let first = fields.next().unwrap_or_default();
        let (prefixes, is_range) = if first.contains('/') {
            let prefix =
                first.parse::<IpNet>().map_err(|_| format!("{:?} is no prefix", shortened(first)))?;
            (vec![prefix.trunc()], false)
        } else {
            let last = fields.next().unwrap_or_default();
            (range(first, last)?, true)
        };
        let system = fields.next().unwrap_or_default();
        let digits = system.strip_prefix("AS").unwrap_or(system);
        let system = digits.parse::<u32>().map_err(|_| format!("{:?} is no AS number", shortened(system)))?;
        let mut rest: Vec<&str> = fields.collect();
        let is_country = |text: &&str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        let country = rest.first().filter(|text| is_country(text)).map(|text| (*text).to_owned());
        // Other words there stand for no country.
        if !rest.is_empty() && (country.is_some() || separator == '\t') {
            rest.remove(0);
        }
        let name = rest.join(",");
        Ok(Self { prefixes, is_range, system, country: country.unwrap_or_default(), name })
    }
}

/// The prefixes that a range is made of.
fn range(first: &str, last: &str) -> Result<Vec<IpNet>, String> {
    let wrong = || format!("{:?} to {:?} is no range of addresses", shortened(first), shortened(last));
    let (Ok(first), Ok(last)) = (first.parse::<IpAddr>(), last.parse::<IpAddr>()) else {
        return Err(wrong());
    };
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Ok(Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Ok(Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect())
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::map::CostMap;

    /// A slice of a real table; `tests/data/README.md` has its source and licence.
    const SLICE: &str = include_str!("../tests/data/asn-slice.tsv");

    fn config(built: &Built) -> Config {
        Config::parse(&built.text, Path::new("")).unwrap_or_else(|error| panic!("{error}\n{}", built.text))
    }

    fn between(costs: &CostMap, src: &str, dst: &str) -> Option<f64> {
        costs.between(src.parse().unwrap(), dst.parse().unwrap())
    }

    #[test]
    fn a_table_becomes_a_map_in_which_every_row_is_found() {
        let built = build(SLICE, &BuildOptions { pids: 12, ..BuildOptions::default() }).unwrap();
        assert!(built.rows >= 150 && built.pids > 12, "{built:?}");
        let config = config(&built);
        let map = &config.maps[0];
        assert_eq!((map.network.pids().len(), map.network.prefix_count()), (built.pids, built.prefixes));
        let mut own = 0;
        for line in SLICE.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            let expected = [
                format!("as{}", fields[2]),
                format!("cc-{}", fields[3].to_lowercase()),
                "default".to_owned(),
            ];
            for ip in &fields[..2] {
                let pid = map.network.pid_of(ip.parse().unwrap()).unwrap();
                let name = map.network.name(pid).to_string();
                own += usize::from(name == expected[0]);
                assert!(expected.contains(&name) || name.starts_with("cc-"), "{line}: {name}");
            }
        }
        assert!(own > 20, "{own}");
    }

    #[test]
    fn countries_peer_and_others_are_transit() {
        let table = "192.0.2.0\t192.0.2.255\t64500\tES\tONE\n\
                     198.51.100.0\t198.51.100.127\t64501\tES\tTWO\n\
                     198.51.100.128\t198.51.100.255\t64502\tES\tTHREE\n\
                     203.0.113.0\t203.0.113.255\t64503\tIT\tFOUR\n\
                     10.0.0.0\t10.255.255.255\t0\tNone\tNot routed\n\
                     2001:db8::\t2001:db8:ffff:ffff:ffff:ffff:ffff:ffff\t64503\tIT\tFOUR\n";
        let built = build(table, &BuildOptions { pids: 2, ..BuildOptions::default() }).unwrap();
        assert_eq!((built.rows, built.skipped, built.systems, built.pids), (5, 1, 4, 4), "{}", built.text);
        let config = config(&built);
        let costs = &config.maps[0].costs[0];
        let cost = |src, dst| between(costs, src, dst);
        assert_eq!(cost("192.0.2.1", "192.0.2.2"), Some(1.0));
        assert_eq!(cost("192.0.2.1", "198.51.100.1"), Some(5.0));
        assert_eq!(cost("198.51.100.1", "198.51.100.200"), Some(1.0), "both in cc-es");
        assert_eq!(cost("192.0.2.1", "203.0.113.1"), Some(20.0));
        assert_eq!(cost("203.0.113.1", "2001:db8::1"), Some(1.0));
        assert_eq!(cost("10.0.0.1", "192.0.2.1"), Some(20.0));
        // The two halves of cc-es were joined.
        assert!(built.text.contains("cc-es = [\"198.51.100.0/24\"]"), "{}", built.text);
    }

    #[test]
    fn prefixes_may_hold_each_other() {
        let table = "prefix,asn,country\n192.0.2.0/24,AS64500,ES\n192.0.2.0/26,64501,IT\n192.0.2.0/28,64500,ES\n\
                     192.0.2.0/28,64501,IT\n192.0.2.64/26,64502,\n";
        let built = build(table, &BuildOptions { pids: 2, ..BuildOptions::default() }).unwrap();
        assert_eq!((built.rows, built.skipped), (4, 1));
        let map = &config(&built).maps[0];
        let pid = |ip: &str| map.network.name(map.network.pid_of(ip.parse().unwrap()).unwrap()).to_string();
        assert_eq!(pid("192.0.2.1"), "as64500");
        assert_eq!(pid("192.0.2.20"), "as64501");
        assert_eq!(pid("192.0.2.70"), "default");
        assert_eq!(pid("192.0.2.200"), "as64500");
    }

    #[test]
    fn a_wrong_row_is_named_with_its_line() {
        let good = "192.0.2.0\t192.0.2.255\t64500\tES\tONE\n";
        for bad in [
            "192.0.2.9\t192.0.2.1\t1\tES\tX",
            "192.0.2.1\t2001:db8::\t1\tES\tX",
            "here\tthere\t1\tES\tX",
            "192.0.2.0/33,1",
            "192.0.2.0/24",
            "192.0.2.0/24,ASX",
            "192.0.2.1",
            "\u{1f}\u{8b}binary",
        ] {
            let error = build(&format!("{good}{bad}\n"), &BuildOptions::default()).unwrap_err();
            assert!(matches!(error, BuildError::Line { line: 2, .. }), "{bad}: {error}");
        }
        assert_eq!(build("", &BuildOptions::default()), Err(BuildError::Empty));
    }
}
