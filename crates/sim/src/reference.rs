//! The greedy snowball and a better one: one chunk alone, at every step each holder sends to a peer that lacks it. With
//! the population's own uplinks and propagation, without losses. References, not strict bounds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::profile::{Network, Place};

/// What a reference is computed for.
#[derive(Debug, Clone)]
pub struct Setting<'a> {
    /// Viewers.
    pub places: &'a [Place],
    /// What lies between them.
    pub network: &'a Network,
    /// The source's region.
    pub source_region: usize,
    /// The source's uplink, IP bit/s.
    pub source_bps: u64,
    /// The stream's rate, bit/s.
    pub rate_bps: u64,
    /// IP bytes of the chunk.
    pub chunk_wire_bytes: u64,
}

/// Whom a holder sends to next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The fastest peer that lacks the chunk, any of equals.
    Greedy,
    /// The one with the least delay − β·upload; β in ms for each multiple of the rate.
    Beta(f64),
}

/// β tried for the better reference, ms.
pub const BETAS_MS: [f64; 6] = [5.0, 10.0, 20.0, 30.0, 40.0, 50.0];

impl Setting<'_> {
    /// Delay of the chunk at each viewer, µs, ascending.
    pub fn run(&self, rule: Rule) -> Vec<u64> {
        let regions = self.network.region_share.len();
        // Peers that lack it, by region; the fastest last.
        let mut lacking: Vec<Vec<u64>> = vec![Vec::new(); regions];
        for place in self.places {
            lacking[place.region].push(place.upload_bps);
        }
        lacking.iter_mut().for_each(|region| region.sort_unstable());
        let line = |bps: u64| self.chunk_wire_bytes * 8_000_000 / bps;
        // (free at, tie-breaker, region, time for each copy)
        let mut holders = BinaryHeap::from([Reverse((0, 0, self.source_region, line(self.source_bps)))]);
        let mut delays = Vec::with_capacity(self.places.len());
        let mut rng = fastrand::Rng::with_seed(1);
        while delays.len() < self.places.len() {
            let Some(Reverse((free, id, region, each))) = holders.pop() else { break };
            let Some(to) = self.choose(rule, region, &lacking, &mut rng) else { break };
            let Some(upload) = lacking[to].pop() else { break };
            let there = free + each + self.one_way_us(region, to);
            delays.push(there);
            holders.push(Reverse((free + each, id, region, each)));
            if upload > 0 {
                holders.push(Reverse((there, delays.len(), to, line(upload))));
            }
        }
        delays.sort_unstable();
        delays
    }

    /// The better reference: the β with the least median.
    pub fn best(&self) -> Vec<u64> {
        let runs = BETAS_MS.iter().map(|beta| self.run(Rule::Beta(*beta)));
        runs.min_by_key(|delays| delays.get(delays.len() / 2).copied()).unwrap_or_default()
    }

    /// The region whose fastest peer comes next.
    fn choose(
        &self,
        rule: Rule,
        from: usize,
        lacking: &[Vec<u64>],
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let candidates = lacking.iter().enumerate().filter_map(|(to, region)| Some((to, *region.last()?)));
        match rule {
            Rule::Greedy => {
                // Of equally fast ones any: the snowball does not look at distance.
                let fastest = candidates.clone().map(|(_, upload)| upload).max()?;
                let equal = |to: usize| lacking[to].len() - lacking[to].partition_point(|bps| *bps < fastest);
                let mut left = rng.usize(..(0..lacking.len()).map(equal).sum::<usize>().max(1));
                candidates.map(|(to, _)| to).find(|to| match left.checked_sub(equal(*to)) {
                    Some(rest) => {
                        left = rest;
                        false
                    }
                    None => true,
                })
            }
            Rule::Beta(beta) => {
                let cost = |&(to, upload): &(usize, u64)| {
                    self.one_way_us(from, to) as f64 / 1000.0 - beta * upload as f64 / self.rate_bps as f64
                };
                let least = candidates.min_by(|a, b| cost(a).total_cmp(&cost(b)));
                least.map(|(to, _)| to)
            }
        }
    }

    fn one_way_us(&self, from: usize, to: usize) -> u64 {
        ((self.network.one_way_ms[from][to] + self.network.jitter_ms / 2.0) * 1000.0) as u64
    }

    /// The highest rate at which a stream can reach all of them, bit/s of payload (Kumar, Liu, Ross):
    /// min(u_s, (u_s + Σuᵢ)/n). `wire`: IP bytes ÷ payload bytes.
    pub fn rate_max_bps(&self, wire: f64) -> f64 {
        let all: u64 = self.places.iter().map(|place| place.upload_bps).sum();
        let source = self.source_bps as f64;
        source.min((source + all as f64) / self.places.len().max(1) as f64) / wire
    }

    /// The largest share of useful bytes that peers can carry: the source sends at least one copy, and what all their
    /// uplinks together cannot.
    pub fn offload_ceiling(&self, wire: f64) -> f64 {
        let all: u64 = self.places.iter().map(|place| place.upload_bps).sum();
        offload_ceiling(self.places.len() as f64, all as f64, self.rate_bps as f64, wire)
    }
}

/// The same for `n` viewers whose uplinks are `all_bps` together.
pub(crate) fn offload_ceiling(n: f64, all_bps: f64, rate_bps: f64, wire: f64) -> f64 {
    let n = n.max(1.0);
    let server = rate_bps.max(n * rate_bps - all_bps / wire);
    (1.0 - server / (n * rate_bps)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn run(peers: usize, rule: Rule) -> Vec<u64> {
        let profile = Profile::load("residential").expect("in the repository");
        let uploads = profile.uploads_bps(3_000_000, Some(1.25));
        let places = profile.draw(peers, &uploads, &mut fastrand::Rng::with_seed(1));
        let setting = Setting {
            places: &places,
            network: &profile.network,
            source_region: 0,
            source_bps: 9_000_000,
            rate_bps: 3_000_000,
            chunk_wire_bytes: 17_700,
        };
        setting.run(rule)
    }

    #[test]
    fn everybody_gets_it_and_the_better_reference_is_better() {
        let (greedy, beta) = (run(1000, Rule::Greedy), run(1000, Rule::Beta(10.0)));
        assert_eq!((greedy.len(), beta.len()), (1000, 1000));
        assert!(beta[500] < greedy[500] && beta[990] < greedy[990], "{} {}", beta[500], greedy[500]);
        // What a throw-away prototype found: 258/352 ms without the wire's overhead.
        assert!((240_000..300_000).contains(&greedy[500]) && (330_000..400_000).contains(&greedy[990]));
        assert!(run(10_000, Rule::Greedy)[9_900] < greedy[990] * 2);
    }

    #[test]
    fn equal_peers_double() {
        let profile = Profile::load("residential").expect("in the repository");
        let mut network = profile.network;
        (network.jitter_ms, network.one_way_ms) = (0.0, vec![vec![0.05; 4]; 4]);
        let places = [Place { class: 0, region: 0, isp: 0, upload_bps: 8_000_000 }; 7];
        let setting = Setting {
            places: &places,
            network: &network,
            source_region: 0,
            source_bps: 8_000_000,
            rate_bps: 1_000_000,
            chunk_wire_bytes: 10_000,
        };
        let ms: Vec<u64> = setting.run(Rule::Greedy).iter().map(|us| us / 1000).collect();
        assert_eq!(ms, [10, 20, 20, 30, 30, 30, 30]);
        assert!((setting.rate_max_bps(1.0) - 8e6).abs() < 1.0);
        assert!((setting.offload_ceiling(1.0) - 6.0 / 7.0).abs() < 1e-9);
    }
}
