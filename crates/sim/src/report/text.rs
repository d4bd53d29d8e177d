//! The report for people.

use core::fmt;

use super::{Percentiles, PlayoutReport, Report};

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} / {:.0} / {:.0} / {:.0} ms", self.p50, self.p95, self.p99, self.max)
    }
}

fn percent(share: f64) -> String {
    if share > 0.99 { format!("{:.3} %", share * 100.0) } else { format!("{:.2} %", share * 100.0) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.duration_ms as f64 / 1000.0;
        writeln!(
            f,
            "{} viewers, {seconds} s at {} kbit/s, seed {}",
            self.peers,
            self.rate_bps / 1000,
            self.seed
        )?;
        writeln!(f, "                       p50 / p95 / p99 / max")?;
        writeln!(f, "chunk delay            {}", self.chunk_delay_ms)?;
        writeln!(f, "greedy snowball        {}", self.reference_delay_ms)?;
        writeln!(f, "better reference       {}", self.reference_better_ms)?;
        let ratio = self.delay_ratio;
        writeln!(
            f,
            "ratio to the snowball  {:.2} / {:.2} / {:.2} / {:.2}",
            ratio.p50, ratio.p95, ratio.p99, ratio.max
        )?;
        write!(f, "on time                ")?;
        for (ms, share) in &self.continuity {
            write!(f, "{} at {ms} ms  ", percent(*share))?;
        }
        writeln!(f, "(worst viewer at 1500 ms {})", percent(self.continuity_worst))?;
        if let Some(playout) = &self.playout {
            writeln!(f, "players keep ahead     {}", playout.wanted_ms)?;
            writeln!(f, "pictures are behind    {}, {}", playout.behind_ms, in_time(playout))?;
        }
        if let Some(playout) = &self.playout_at_most_2s {
            writeln!(f, "asked for 2 s at most  {}, {}", playout.behind_ms, in_time(playout))?;
        }
        writeln!(f, "startup                {}, {} never started", self.startup_ms, self.never_started)?;
        let c = &self.chunks;
        writeln!(
            f,
            "chunks                 {} due, {} late, {} missing, {} twice",
            c.due, c.late, c.missing, c.duplicate
        )?;
        writeln!(
            f,
            "overhead               duplicates {}, pulled {}, control {} ({} without packets), wire {:.3}",
            percent(self.duplicate_ratio),
            percent(self.pulled_ratio),
            percent(self.control_ratio),
            percent(self.control_payload_ratio),
            self.wire_ratio
        )?;
        writeln!(
            f,
            "source                 {:.2} copies; offload {} of at most {}; rate at most {:.0} kbit/s",
            self.source_copies,
            percent(self.offload_ratio),
            percent(self.offload_ceiling),
            self.rate_max_bps / 1000.0
        )?;
        write!(f, "depth                  ")?;
        for (depth, share) in self.depth.iter().filter(|(_, share)| **share >= 0.001) {
            write!(f, "{depth}: {:.1} %  ", share * 100.0)?;
        }
        writeln!(
            f,
            "\nuse of upload          {}; {:.1} neighbours",
            percent(self.upload_use),
            self.neighbours
        )?;
        for class in &self.classes {
            writeln!(
                f,
                "  {:8} {:5} peers, upload {:.2}, copies {:.2}, used {}, delay {}",
                class.name,
                class.peers,
                class.upload,
                class.copies,
                percent(class.upload_use),
                class.chunk_delay_ms
            )?;
        }
        if let Some(renditions) = &self.renditions {
            write!(f, "{renditions}")?;
        }
        if let Some(isps) = &self.isps {
            write!(f, "{isps}")?;
        }
        for event in &self.events {
            write!(
                f,
                "{}: stayers {} on time in the next 10 s, worst {}; normal after ",
                event.event,
                percent(event.stayers_continuity),
                percent(event.stayers_worst)
            )?;
            match event.normal_after_ms {
                Some(ms) => write!(f, "{ms:.0} ms")?,
                None => write!(f, "more than was measured")?,
            }
            match event.startup_ms {
                Some(startup) => writeln!(f, "; newcomers {startup}")?,
                None => writeln!(f)?,
            }
        }
        for attack in &self.attacks {
            writeln!(
                f,
                "{} x {}: dropped {} times, {} forgeries refused, {} connections to honest peers left",
                attack.peers, attack.attack, attack.dropped, attack.forgeries, attack.links
            )?;
        }
        for hop in &self.trace {
            let how = if hop.requested { ", asked for" } else { "" };
            writeln!(
                f,
                "  {:9.1} ms  {} -> {} (hop {}, sent at {:.1} ms{how})",
                hop.arrived_ms, hop.from, hop.to, hop.depth, hop.sent_ms
            )?;
        }
        for check in self.checks.iter().filter(|check| !check.ok) {
            writeln!(f, "FAILED {}: {}\n  replay: {}", check.name, check.detail, self.command)?;
        }
        let hash = &self.trace_hash;
        write!(f, "trace {hash}, {} inputs in {} ms of this machine's time", self.inputs, self.wall_ms)
    }
}

/// One figure of a report.
type Figure<'a> = &'a dyn Fn(&Report) -> f64;

/// Several seeds of one run: means, and the worst.
#[derive(Debug)]
pub struct Summary<'a>(
    /// Their reports.
    pub &'a [Report],
);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |value: &dyn Fn(&Report) -> f64| {
            let values: Vec<f64> = self.0.iter().map(value).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
            (mean, least, most)
        };
        writeln!(f, "{} seeds, mean (least to most)", self.0.len())?;
        let lines: [(&str, Figure<'_>); 12] = [
            ("chunk delay p50, ms", &|r| r.chunk_delay_ms.p50),
            ("chunk delay p99, ms", &|r| r.chunk_delay_ms.p99),
            ("ratio to the snowball p50", &|r| r.delay_ratio.p50),
            ("ratio to the snowball p99", &|r| r.delay_ratio.p99),
            ("on time at 1.5 s, %", &|r| r.continuity.get(&1500).copied().unwrap_or(0.0) * 100.0),
            ("on time at 3 s, %", &|r| r.continuity.get(&3000).copied().unwrap_or(0.0) * 100.0),
            ("startup p95, ms", &|r| r.startup_ms.p95),
            ("duplicates, %", &|r| r.duplicate_ratio * 100.0),
            ("control, %", &|r| r.control_ratio * 100.0),
            ("source copies", &|r| r.source_copies),
            ("stayers after the first event, %", &|r| {
                r.events.first().map_or(100.0, |event| event.stayers_continuity * 100.0)
            }),
            ("checks that failed", &|r| r.checks.iter().filter(|check| !check.ok).count() as f64),
        ];
        let isps: [(&str, Figure<'_>); 2] = [
            ("between ISPs, %", &|r| r.isps.as_ref().map_or(0.0, |isps| isps.cross_ratio * 100.0)),
            ("copies imported by an ISP", &|r| r.isps.as_ref().map_or(0.0, |isps| isps.copies_imported)),
        ];
        let has_isps = self.0.iter().any(|report| report.isps.is_some());
        for (name, value) in lines.into_iter().chain(isps.into_iter().filter(|_| has_isps)) {
            let (mean, least, most) = of(value);
            writeln!(f, "  {name:33} {mean:9.3}  ({least:.3} to {most:.3})")?;
        }
        Ok(())
    }
}

fn in_time(playout: &PlayoutReport) -> String {
    format!("{} of parts in time", percent(playout.on_time))
}
