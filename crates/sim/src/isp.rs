//! Networks of providers: whose customers viewers are, which addresses those have, and what a map says of them.
//!
//! The maps are real ones: an `alto.toml` is written and read as an operator's would be. Knows nothing of swarms.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, RwLock};

use caudal_alto::config::Config;
use caudal_alto::map::CostMap;
use caudal_proto::swarm::{NetworkMap, PathCost};
use serde::Deserialize;

use crate::error::SimError;

/// Most providers: each has a sixteenth of 10.0.0.0/8.
pub const ISPS_MAX: usize = 16;
/// Maps that change do so this often, µs.
pub(crate) const CHANGE_PERIOD_US: u64 = 10_000_000;
/// Such a map deals addresses out in blocks of so many.
const BLOCK: usize = 16;
/// A map has no more prefixes than this: further blocks stay where they are.
const BLOCKS_MAX: usize = 4096;

/// A provider as a profile, or a file of its own, says it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isp {
    /// For reports; a PID's name.
    pub name: String,
    /// Of all viewers.
    pub share: f64,
    /// Its customers' uploads beside those of others; the mean over all providers stays as it was asked for.
    #[serde(default = "one")]
    pub upload: f64,
    /// All its customers are in this region, counted from 0; spread as all others unless given.
    #[serde(default)]
    pub region: Option<usize>,
}

fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    isp: Vec<Isp>,
}

/// `--isps 4`, or a file with a table `[[isp]]` for each.
///
/// # Errors
/// [`SimError::Profile`], saying what is expected.
pub fn load(text: &str) -> Result<Vec<Isp>, SimError> {
    let failed = |what: String| SimError::Profile(text.to_owned(), what);
    if let Ok(count) = text.parse::<usize>() {
        // Unequal: the first has as many times more customers than the last as there are providers.
        let all = (count * (count + 1) / 2).max(1) as f64;
        let isp = |i: usize| Isp {
            name: format!("isp-{}", i + 1),
            share: (count - i) as f64 / all,
            upload: 1.0,
            region: None,
        };
        return Ok((0..count).map(isp).collect());
    }
    let file = std::fs::read_to_string(text).map_err(|error| failed(error.to_string()))?;
    let file: File = toml::from_str(&file).map_err(|error| failed(error.to_string()))?;
    Ok(file.isp)
}

/// Refuses what makes no sense.
pub(crate) fn check(isps: &[Isp], regions: usize) -> Result<(), &'static str> {
    if isps.len() > ISPS_MAX {
        return Err("at most 16 ISPs are expected");
    }
    let sum: f64 = isps.iter().map(|isp| isp.share).sum();
    let is_share = |isp: &Isp| (0.0..=1.0).contains(&isp.share) && (0.0..=1e3).contains(&isp.upload);
    if !isps.is_empty() && ((sum - 1.0).abs() > 1e-6 || !isps.iter().all(is_share)) {
        return Err("shares of ISPs must add up to 1, an upload is not negative");
    }
    if isps.iter().any(|isp| isp.region.is_some_and(|region| region >= regions)) {
        return Err("an ISP's region is one of the profile's, counted from 0");
    }
    Ok(())
}

/// The address of peer `index`, customer of provider `isp`; without providers all are in one network.
pub(crate) fn address(isps: usize, isp: usize, index: usize) -> IpAddr {
    let [_, high, b, c] = (index as u32).to_be_bytes();
    let a = if isps == 0 { high } else { (isp as u8) << 4 | high & 15 };
    IpAddr::V4(Ipv4Addr::new(10, a, b, c))
}

/// What there is of maps, and whether they are heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alto {
    /// None: selection is random.
    #[default]
    Off,
    /// A map that is right.
    On,
    /// A map that is right until measuring begins; from then on none speaks.
    Down,
    /// A map by which whatever leads to the first provider is near, and all else far.
    Lying,
    /// A map by which everybody is in one PID.
    Flat,
    /// A map that deals addresses and costs out anew every ten seconds.
    Changing,
}

impl Alto {
    const ALL: [(&'static str, Self); 6] = [
        ("off", Self::Off),
        ("on", Self::On),
        ("down", Self::Down),
        ("lying", Self::Lying),
        ("flat", Self::Flat),
        ("changing", Self::Changing),
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, alto)| *alto == self).map_or("off", |(name, _)| name)
    }
}

impl FromStr for Alto {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        let known = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, alto)| *alto);
        let expected = "--alto: off, on, down, lying, flat or changing is expected";
        known.ok_or_else(|| SimError::Range(expected.to_owned()))
    }
}

/// The map that everybody has at the moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Maps(Arc<RwLock<Option<Arc<CostMap>>>>);

impl Maps {
    /// From now on this map is the one; `None`: none speaks.
    pub(crate) fn set(&self, map: Option<Arc<CostMap>>) {
        if let Ok(mut current) = self.0.write() {
            *current = map;
        }
    }

    /// The map as seen from `own`.
    pub(crate) fn seen_from(&self, own: IpAddr) -> View {
        View { maps: self.clone(), own }
    }
}

/// A map as one peer sees it.
#[derive(Debug)]
pub(crate) struct View {
    maps: Maps,
    own: IpAddr,
}

impl NetworkMap for View {
    fn cost(&self, ip: IpAddr) -> Option<PathCost> {
        let map = self.maps.0.read().ok()?.clone()?;
        let (own, there) = (map.network().pid_of(self.own)?, map.network().pid_of(ip)?);
        let cost = map.get(own, there)?;
        Some(PathCost { cost: (cost * 1000.0) as u32, is_own: own == there })
    }
}

/// Reads what an operator could have written.
fn read(text: &str) -> Arc<CostMap> {
    let config = Config::parse(text, Path::new("")).expect("the simulator's own alto.toml is a valid one");
    config.maps[0].costs[0].clone()
}

/// The map of `alto` for these providers; `None` where there is none. A map that changes is dealt out for `peers` addresses.
pub(crate) fn map(alto: Alto, isps: &[Isp], peers: usize, rng: &mut fastrand::Rng) -> Option<Arc<CostMap>> {
    let text = match alto {
        Alto::Off => return None,
        Alto::On | Alto::Down | Alto::Lying => alto_toml(isps, alto == Alto::Lying),
        Alto::Flat => "[pids]\nall = [\"0.0.0.0/0\", \"::/0\"]\n[costs]\nsame = 1\ntransit = 20\n".to_owned(),
        Alto::Changing => dealt(isps, peers, rng),
    };
    Some(read(&text))
}

const REST: &str = "default = [\"0.0.0.0/0\", \"::/0\"]\n";

/// Each provider is a PID. Staying in it costs 1, leaving it 20.
fn alto_toml(isps: &[Isp], is_lying: bool) -> String {
    let mut text = String::from("[pids]\n");
    for (i, isp) in isps.iter().enumerate() {
        let _infallible = writeln!(text, "{} = [\"{}/12\"]", isp.name, address(isps.len(), i, 0));
    }
    text.push_str(REST);
    if !is_lying {
        return text + "[costs]\nsame = 1\ntransit = 20\n";
    }
    text.push_str("[costs]\nsame = 100\ntransit = 100\n[costs.table]\n");
    for isp in isps {
        let _infallible = writeln!(text, "{}.{} = 1", isp.name, isps[0].name);
    }
    text
}

/// Blocks of addresses are dealt out to as many PIDs as there are providers, with any costs.
fn dealt(isps: &[Isp], peers: usize, rng: &mut fastrand::Rng) -> String {
    let mut prefixes = vec![Vec::new(); isps.len()];
    let blocks = peers.div_ceil(BLOCK).min(BLOCKS_MAX / isps.len().max(1));
    for isp in 0..isps.len() {
        for block in 0..blocks {
            let pid = rng.usize(..isps.len());
            prefixes[pid].push(format!("\"{}/28\"", address(isps.len(), isp, block * BLOCK)));
        }
    }
    let mut text = String::from("[pids]\n");
    for (i, prefixes) in prefixes.iter().enumerate() {
        let _infallible = writeln!(text, "{} = [{}]", isps[i].name, prefixes.join(", "));
    }
    text.push_str(REST);
    text.push_str("[costs]\nsame = 20\ntransit = 20\n[costs.table]\n");
    for from in isps {
        for to in isps {
            let _infallible = writeln!(text, "{}.{} = {}", from.name, to.name, rng.u32(1..40));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_tells_providers_apart_by_their_addresses() {
        let isps = load("4").expect("a number");
        assert!((isps.iter().map(|isp| isp.share).sum::<f64>() - 1.0).abs() < 1e-9);
        let rng = &mut fastrand::Rng::with_seed(1);
        let maps = Maps::default();
        let at = |isp, index| address(4, isp, index);
        let view = maps.seen_from(at(2, 900));
        assert_eq!(view.cost(at(2, 5)), None, "there is no map");
        maps.set(map(Alto::On, &isps, 1000, rng));
        assert_eq!(view.cost(at(2, 70_000)), Some(PathCost { cost: 1000, is_own: true }));
        assert_eq!(view.cost(at(3, 900)), Some(PathCost { cost: 20_000, is_own: false }));
        maps.set(map(Alto::Lying, &isps, 1000, rng));
        assert_eq!(view.cost(at(0, 5)), Some(PathCost { cost: 1000, is_own: false }));
        assert_eq!(view.cost(at(2, 5)), Some(PathCost { cost: 100_000, is_own: true }));
        maps.set(map(Alto::Flat, &isps, 1000, rng));
        assert!(view.cost(at(0, 5)).is_some_and(|path| path.is_own));
        maps.set(map(Alto::Changing, &isps, 1000, rng));
        let own = (0..1000).filter(|i| view.cost(at(i % 4, *i)).is_some_and(|path| path.is_own)).count();
        assert!((100..500).contains(&own), "a quarter of all, by chance: {own}");
    }

    #[test]
    fn nonsense_is_refused() {
        let two = |share| vec![Isp { name: "a".into(), share, upload: 1.0, region: None }; 2];
        assert_eq!(check(&two(0.5), 4), Ok(()));
        assert!(check(&two(0.6), 4).is_err());
        assert!(check(&[Isp { region: Some(4), share: 1.0, ..two(1.0)[0].clone() }], 4).is_err());
        assert!("sometimes".parse::<Alto>().is_err());
        assert!(load("/nonexistent/isps.toml").is_err());
    }
}
