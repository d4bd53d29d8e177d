//! Population profiles: who takes part, behind which lines, how far apart. TOML, see `profiles/`.
//!
//! Owns the drawing of a population from a profile. Knows nothing of swarms.

use serde::Deserialize;

use crate::error::SimError;
use crate::isp::Isp;

/// Most classes and regions of a profile.
pub const CLASSES_MAX: usize = 16;

/// A profile as its file says it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Kinds of peers.
    pub class: Vec<Class>,
    /// What lies between them.
    pub network: Network,
    /// Whose customers they are; may be left out.
    #[serde(default)]
    pub isp: Vec<Isp>,
}

/// A kind of peers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// For reports.
    pub name: String,
    /// Of all peers.
    pub share: f64,
    /// Multiple of the stream rate, before scaling to the asked mean; IP bytes.
    pub upload: f64,
    /// Multiple of the stream rate; the network's, unless given.
    #[serde(default)]
    pub download: Option<f64>,
}

/// What lies between peers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Of all peers, by region.
    pub region_share: Vec<f64>,
    /// One-way propagation from region to region, ms.
    pub one_way_ms: Vec<Vec<f64>>,
    /// Added to each message, uniform from 0, ms.
    pub jitter_ms: f64,
    /// Of packets.
    pub loss: f64,
    /// Mean packets lost in a row (Gilbert–Elliott: everything in the bad state, nothing in the good one).
    pub loss_burst: f64,
    /// Of messages that take a longer way …
    pub reordered: f64,
    /// … by this much, ms.
    pub reordered_ms: f64,
    /// Of packets that arrive twice: bytes on the wire and nothing else, QUIC drops them.
    pub duplicated: f64,
    /// Multiple of the stream rate.
    pub download: f64,
}

/// One peer's place in the population.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Index into [`Profile::class`].
    pub class: usize,
    /// Index into [`Network::region_share`].
    pub region: usize,
    /// Index into [`Profile::isp`], if there are any.
    pub isp: usize,
    /// IP bit/s; 0 = it does not upload.
    pub upload_bps: u64,
}

impl Profile {
    /// `residential`, `fibre`, `mobile`, `mixed`, or a file that ends in `.toml`.
    ///
    /// # Errors
    /// [`SimError::Profile`] when there is no such profile or it makes no sense.
    pub fn load(name: &str) -> Result<Self, SimError> {
        let text = match name {
            "residential" => include_str!("../profiles/residential.toml").to_owned(),
            "fibre" => include_str!("../profiles/fibre.toml").to_owned(),
            "mobile" => include_str!("../profiles/mobile.toml").to_owned(),
            "mixed" => include_str!("../profiles/mixed.toml").to_owned(),
            file if file.ends_with(".toml") => std::fs::read_to_string(file)
                .map_err(|error| SimError::Profile(name.to_owned(), error.to_string()))?,
            _ => {
                let expected = "residential, fibre, mobile, mixed or a file that ends in .toml is expected";
                return Err(SimError::Profile(name.to_owned(), expected.to_owned()));
            }
        };
        let profile: Self =
            toml::from_str(&text).map_err(|error| SimError::Profile(name.to_owned(), error.to_string()))?;
        profile.check().map_err(|what| SimError::Profile(name.to_owned(), what.to_owned()))?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), &'static str> {
        let network = &self.network;
        let (classes, regions) = (self.class.len(), network.region_share.len());
        if classes == 0 || classes > CLASSES_MAX || regions == 0 || regions > CLASSES_MAX {
            return Err("1 to 16 classes and regions are expected");
        }
        if network.one_way_ms.len() != regions || network.one_way_ms.iter().any(|row| row.len() != regions) {
            return Err("one_way_ms must have a row and a column for each region");
        }
        let is_share = |share: &f64| (0.0..=1.0).contains(share);
        let sum = |shares: &mut dyn Iterator<Item = f64>| (shares.sum::<f64>() - 1.0).abs() < 1e-6;
        if !sum(&mut self.class.iter().map(|class| class.share))
            || !sum(&mut network.region_share.iter().copied())
        {
            return Err("shares must add up to 1");
        }
        if !self.class.iter().all(|class| is_share(&class.share) && (0.0..=1e6).contains(&class.upload))
            || !network.region_share.iter().all(is_share)
        {
            return Err("a share is from 0 to 1, an upload is not negative");
        }
        let mut downloads = self.class.iter().filter_map(|class| class.download);
        if !downloads.all(|download| (0.05..=1e6).contains(&download)) {
            return Err("a class's download is at least 0.05");
        }
        if !network.one_way_ms.iter().flatten().all(|ms| (0.05..=10_000.0).contains(ms)) {
            return Err("delays are from 0.05 to 10000 ms");
        }
        let ratios = [network.loss, network.reordered, network.duplicated];
        if !ratios.iter().all(|ratio| (0.0..=0.5).contains(ratio)) || network.loss_burst < 1.0 {
            return Err("loss, reordered and duplicated are from 0 to 0.5, loss_burst at least 1");
        }
        let times = [network.jitter_ms, network.reordered_ms];
        if !times.iter().all(|ms| (0.0..=10_000.0).contains(ms)) || !(1.0..=1e6).contains(&network.download) {
            return Err("times are from 0 to 10000 ms, download is at least 1");
        }
        Ok(())
    }

    /// Uploads of the classes in IP bit/s, scaled to the mean of `mean` × `rate_bps`.
    pub fn uploads_bps(&self, rate_bps: u64, mean: Option<f64>) -> Vec<u64> {
        let own: f64 = self.class.iter().map(|class| class.share * class.upload).sum();
        let scale = mean.map_or(1.0, |mean| if own > 0.0 { mean / own } else { 0.0 });
        self.class.iter().map(|class| (class.upload * scale * rate_bps as f64) as u64).collect()
    }

    /// The line down of a class, IP bit/s.
    pub fn download_bps(&self, class: usize, rate_bps: u64) -> u64 {
        match self.class.get(class).and_then(|class| class.download) {
            Some(download) => (download * rate_bps as f64) as u64,
            None => ((self.network.download * rate_bps as f64) as u64).max(rate_bps),
        }
    }

    /// A population of `peers` with each class's share as exactly as it goes, in random order.
    pub fn draw(&self, peers: usize, uploads_bps: &[u64], rng: &mut fastrand::Rng) -> Vec<Place> {
        let shares: Vec<f64> = self.class.iter().map(|class| class.share).collect();
        let mut classes = spread(&shares, peers);
        let mut regions = spread(&self.network.region_share, peers);
        rng.shuffle(&mut classes);
        rng.shuffle(&mut regions);
        let place =
            |(class, region): (usize, usize)| Place { class, region, isp: 0, upload_bps: uploads_bps[class] };
        let mut places: Vec<Place> = classes.into_iter().zip(regions).map(place).collect();
        if !self.isp.is_empty() {
            self.draw_isps(&mut places, uploads_bps, rng);
        }
        places
    }

    /// Whose customer each is; every provider has the same mix of classes, as exactly as it goes.
    fn draw_isps(&self, places: &mut [Place], uploads_bps: &[u64], rng: &mut fastrand::Rng) {
        let shares: Vec<f64> = self.isp.iter().map(|isp| isp.share).collect();
        let classes: Vec<f64> = self.class.iter().map(|class| class.share).collect();
        let isps = spread(&shares, places.len());
        let mean: f64 = self.isp.iter().map(|isp| isp.share * isp.upload).sum();
        let mut rest = &mut *places;
        for (i, of) in self.isp.iter().enumerate() {
            let (customers, others) = rest.split_at_mut(isps.iter().filter(|isp| **isp == i).count());
            let mix = spread(&classes, customers.len());
            for (place, class) in customers.iter_mut().zip(mix) {
                (place.isp, place.class) = (i, class);
                place.region = of.region.unwrap_or(place.region);
                place.upload_bps = (uploads_bps[class] as f64 * of.upload / mean.max(1e-9)) as u64;
            }
            rest = others;
        }
        rng.shuffle(places);
    }
}

/// `n` indices into `shares`, each as often as its share says.
fn spread(shares: &[f64], n: usize) -> Vec<usize> {
    let mut out = Vec::with_capacity(n);
    let mut sum = 0.0;
    for (index, share) in shares.iter().enumerate() {
        sum += share;
        let until = ((sum * n as f64).round() as usize).min(n);
        while out.len() < until {
            out.push(index);
        }
    }
    while out.len() < n {
        out.push(shares.len() - 1);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_the_one_asked_for() {
        for name in ["residential", "fibre", "mobile", "mixed"] {
            let profile = Profile::load(name).expect("in the repository");
            let uploads = profile.uploads_bps(3_000_000, Some(1.25));
            let places = profile.draw(1000, &uploads, &mut fastrand::Rng::with_seed(1));
            let mean = places.iter().map(|place| place.upload_bps).sum::<u64>() as f64 / 1000.0 / 3e6;
            assert!((1.24..1.26).contains(&mean), "{name}: {mean}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        assert!(Profile::load("urban").is_err_and(|error| error.to_string().contains("urban")));
        assert!(Profile::load("/nonexistent/x.toml").is_err());
    }
}
