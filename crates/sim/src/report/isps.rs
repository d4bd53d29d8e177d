//! What crossed between providers.

use core::fmt;

use serde::Serialize;

use super::{AROUND_PAYLOAD_BYTES, Percentiles};
use crate::traffic::{TRAFFIC_BIN_US, TrafficBin};
use crate::world::World;

/// One provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IspReport {
    /// From the profile.
    pub name: String,
    /// Of the viewers that were there when measuring began.
    pub share: f64,
    /// IP bytes of chunks from other providers ÷ the stream's.
    pub copies_imported: f64,
    /// IP bytes of chunks to other providers ÷ the stream's.
    pub copies_exported: f64,
    /// Chunk delay of its viewers.
    pub chunk_delay_ms: Percentiles,
    /// At the end, customers' parents elsewhere, for each substream: who feeds this provider.
    pub gateways: f64,
}

/// Traffic between providers while measured: IP bytes of chunks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IspsReport {
    /// Which maps there were.
    pub alto: String,
    /// Each of them.
    pub isps: Vec<IspReport>,
    /// From row to column.
    pub bytes: Vec<Vec<u64>>,
    /// Of all bytes, those that crossed.
    pub cross_ratio: f64,
    /// What random selection is expected to come to: 1 − Σ share².
    pub random_cross_ratio: f64,
    /// Of the bytes that crossed, those that were asked for.
    pub cross_asked_ratio: f64,
    /// Mean over providers.
    pub copies_imported: f64,
    /// The most of any.
    pub copies_imported_most: f64,
    /// For plots: by second of measured time.
    #[serde(skip)]
    pub(crate) bins: Vec<TrafficBin>,
}

impl IspsReport {
    /// `None` where there are no providers.
    pub(super) fn of(world: &World, delays: &[Percentiles]) -> Option<Self> {
        let config = &world.config;
        let isps = &config.profile.isp;
        let n = isps.len();
        if n == 0 {
            return None;
        }
        let (now, before) = (&world.traffic, &world.traffic_before);
        let cell = |from: usize, to: usize| now.bytes[from * n + to] - before.bytes[from * n + to];
        let bytes: Vec<Vec<u64>> = (0..n).map(|from| (0..n).map(|to| cell(from, to)).collect()).collect();
        let sum = |is_counted: &dyn Fn(usize, usize) -> bool| -> u64 {
            let pairs = (0..n).flat_map(|from| (0..n).map(move |to| (from, to)));
            pairs.filter(|(from, to)| is_counted(*from, *to)).map(|(from, to)| cell(from, to)).sum()
        };
        let chunks = world.ledger.published - world.before.published;
        let payload = world.ledger.published_bytes - world.before.published_bytes;
        let mean = payload / chunks.max(1) + AROUND_PAYLOAD_BYTES;
        let stream = (chunks * config.transport.chunk_wire_bytes(mean)).max(1) as f64;
        let here = |i: usize| world.measured.iter().filter(|place| place.isp == i).count();
        let shares: Vec<f64> = (0..n).map(|i| here(i) as f64 / world.measured.len().max(1) as f64).collect();
        let gateways = gateways(world);
        let report = |i: usize| IspReport {
            name: isps[i].name.clone(),
            share: shares[i],
            copies_imported: sum(&|from, to| from != i && to == i) as f64 / stream,
            copies_exported: sum(&|from, to| from == i && to != i) as f64 / stream,
            chunk_delay_ms: delays.get(i).copied().unwrap_or_default(),
            gateways: gateways[i],
        };
        let reports: Vec<IspReport> = (0..n).map(report).collect();
        let all = sum(&|_, _| true).max(1) as f64;
        let crossed = sum(&|from, to| from != to) as f64;
        let from_bin = (world.measured_from() / TRAFFIC_BIN_US) as usize;
        Some(Self {
            alto: config.alto.name().to_owned(),
            cross_ratio: crossed / all,
            random_cross_ratio: 1.0 - shares.iter().map(|share| share * share).sum::<f64>(),
            cross_asked_ratio: (now.asked - before.asked) as f64 / crossed.max(1.0),
            copies_imported: reports.iter().map(|isp| isp.copies_imported).sum::<f64>() / n as f64,
            copies_imported_most: reports.iter().map(|isp| isp.copies_imported).fold(0.0, f64::max),
            bins: now.bins.get(from_bin..).unwrap_or_default().to_vec(),
            isps: reports,
            bytes,
        })
    }
}

/// For each provider: its customers' parents that are not, by substream.
fn gateways(world: &World) -> Vec<f64> {
    let mut count = vec![0u32; world.config.profile.isp.len()];
    for index in world.viewers() {
        let isp = world.nodes[index].place.isp;
        for neighbour in world.all_stats(index).flat_map(|stats| stats.neighbours) {
            let is_elsewhere =
                world.index(&neighbour.peer).is_some_and(|to| world.nodes[to].place.isp != isp);
            count[isp] += if is_elsewhere { neighbour.parent_in.count_ones() } else { 0 };
        }
    }
    let substreams = f64::from(world.config.substreams.max(1));
    count.into_iter().map(|count| f64::from(count) / substreams).collect()
}

impl fmt::Display for IspsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "between ISPs           {:.2} % of chunk bytes (random: {:.1} %), {:.0} % of them asked for; maps {}",
            self.cross_ratio * 100.0,
            self.random_cross_ratio * 100.0,
            self.cross_asked_ratio * 100.0,
            self.alto
        )?;
        writeln!(
            f,
            "copies imported        {:.2}, {:.2} by the one with most",
            self.copies_imported, self.copies_imported_most
        )?;
        write!(f, "  {:12}", "MB from, to")?;
        for isp in &self.isps {
            write!(f, " {:>9}", isp.name)?;
        }
        writeln!(f, "   viewers  imported  exported  gateways  delay")?;
        for (isp, row) in self.isps.iter().zip(&self.bytes) {
            write!(f, "  {:12}", isp.name)?;
            for bytes in row {
                write!(f, " {:9.1}", *bytes as f64 / 1e6)?;
            }
            writeln!(
                f,
                "   {:5.1} %  {:8.2}  {:8.2}  {:8.2}  {}",
                isp.share * 100.0,
                isp.copies_imported,
                isp.copies_exported,
                isp.gateways,
                isp.chunk_delay_ms
            )?;
        }
        Ok(())
    }
}
