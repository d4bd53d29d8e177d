//! The flags of `caudal sim`.

use std::time::{Duration, Instant};

use clap::Args;

use crate::attack::Attack;
use crate::config::{Churn, SimConfig, Told};
use crate::error::SimError;
use crate::event::{self, Scheduled};
use crate::isp;
use crate::policy;
use crate::profile::Profile;
use crate::report::Report;
use crate::world::Second;

/// What may be typed.
#[derive(Debug, Clone, Args)]
pub struct SimArgs {
    /// Viewers.
    #[arg(long, default_value_t = 100)]
    pub peers: usize,
    /// How long is measured.
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub duration: Duration,
    /// What passes before.
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub warmup: Duration,
    /// Viewers come during this, at the beginning of the warm-up; half of it unless given.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub ramp: Option<Duration>,
    /// The stream's rate (3M, 800k).
    #[arg(long, default_value = "3M", value_parser = parse_rate, value_name = "RATE")]
    pub rate: u64,
    /// Rates of the channel's renditions, the best first (3M,1.2M,400k): viewers play what their lines sustain. All multiples of
    /// the rate are of the best one's, but the source's uplink, which is of all together.
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = parse_rate, conflicts_with = "rate")]
    pub renditions: Vec<u64>,
    /// Largest payload of a chunk (of the best rendition), bytes; 16384 at 3M and above, less below.
    #[arg(long, value_name = "BYTES")]
    pub chunk: Option<usize>,
    /// Substreams.
    #[arg(long, default_value_t = 8)]
    pub substreams: u8,
    /// Duration of a part, whose chunks are published at once; 0ms: chunk by chunk, evenly.
    #[arg(long, default_value = "200ms", value_parser = parse_duration, value_name = "TIME")]
    pub part: Duration,
    /// From key frame to key frame.
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "TIME")]
    pub key: Duration,
    /// Size of a part with a key frame, in mean parts.
    #[arg(long, default_value_t = 2.0, value_name = "N")]
    pub key_size: f64,
    /// The population: residential, fibre, mobile, mixed (narrow lines among them), or a file.
    #[arg(long, default_value = "residential", value_name = "NAME|FILE.toml")]
    pub profile: String,
    /// Providers: how many (each smaller than the one before), or a file with an `[[isp]]` for each; a profile may have its own.
    #[arg(long, value_name = "N|FILE.toml")]
    pub isps: Option<String>,
    /// Maps of them (ALTO): off, on, down (from the start of measuring), lying (all near the first), flat (all in one), changing
    /// (dealt anew every 10 s).
    #[arg(long, default_value = "off", value_name = "MAPS")]
    pub alto: String,
    /// Mean upload of viewers in multiples of the rate, IP bytes; `profile`: as the profile says.
    #[arg(long, default_value = "1.25", value_name = "N")]
    pub upload_mean: String,
    /// What peers are told of their uplink: its rate times N, `nothing` (they measure), or `±20%`.
    #[arg(long, default_value = "1", value_name = "N")]
    pub told: String,
    /// How chunks find their way: hybrid, tree or mesh.
    #[arg(long, default_value = "hybrid", value_name = "NAME")]
    pub overlay: String,
    /// The source's uplink in multiples of the rate.
    #[arg(long, default_value_t = 3.0, value_name = "N")]
    pub source_copies: f64,
    /// Who carries the stream: swarm-only (the source pushes a set number of copies), hybrid (it feeds viewers as far as its
    /// uplink goes) or server-only (it feeds everybody).
    #[arg(long, default_value = "swarm-only", value_name = "NAME")]
    pub delivery: String,
    /// Of its uplink, what a swarm-only source is told to push; headers, repair and control take the rest.
    #[arg(long, default_value_t = 0.75, value_name = "N")]
    pub source_fill: f64,
    /// Mean session (10m); `heavy:10m` for heavy-tailed ones; `none`.
    #[arg(long, default_value = "10m", value_name = "TIME")]
    pub churn: String,
    /// Departures that say goodbye.
    #[arg(long, default_value = "50%", value_name = "SHARE")]
    pub goodbyes: String,
    /// A player waits this long for what is missing, and no longer asks for it then
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = parse_duration)]
    pub patience: Duration,
    /// Clocks differ by up to this.
    #[arg(long, default_value = "0s", value_parser = parse_duration, value_name = "TIME")]
    pub skew: Duration,
    /// What a machine takes to pass a chunk on, beside lines and distances.
    #[arg(long, default_value = "0ms", value_parser = parse_duration, value_name = "TIME")]
    pub host_delay: Duration,
    /// Random loss of packets instead of the profile's.
    #[arg(long, value_name = "SHARE")]
    pub loss: Option<String>,
    /// Seeds everything.
    #[arg(long, default_value_t = 1, overrides_with = "seed")]
    pub seed: u64,
    /// Run this many seeds, from --seed on, on all cores; a summary follows.
    #[arg(long, default_value_t = 1, value_name = "N", overrides_with = "seeds")]
    pub seeds: u64,
    /// Attackers in addition to the viewers, by their share of all: polluter=10%. Kinds: polluter, replayer, silent,
    /// delayer, false-have, free-rider, flooder, eclipse.
    #[arg(long, value_name = "KIND=SHARE")]
    pub attack: Vec<String>,
    /// 'leave 30% at 20s', 'join 900 at 20s over 10s', 'invite 9 at 20s over 10s' (each knows one viewer), 'partition 30% at 20s
    /// for 5s', 'outage source at 20s for 5s', 'outage tracker at 20s for 10s', 'slow 10% at 20s for 10s', 'line 30% 1M at 20s'
    /// (down and up), 'line 30% back at 40s'.
    #[arg(long, value_name = "EVENT")]
    pub event: Vec<String>,
    /// A constant of the delivery policy: switch_hold=1500 (durations in ms).
    #[arg(long, value_name = "NAME=NUMBER")]
    pub set: Vec<String>,
    /// Print each second when it has passed (standard error).
    #[arg(long)]
    pub watch: bool,
    /// Follow the Nth chunk after the warm-up from hop to hop.
    #[arg(long, value_name = "N")]
    pub trace: Option<u64>,
    /// Draw the report: a file that ends in .svg or .png.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<std::path::PathBuf>,
    /// Draw traffic between ISPs, beside a second run with random selection: files that end in .svg or .png.
    #[arg(long, value_name = "FILE")]
    pub plot_isps: Vec<std::path::PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    event::duration(text).ok_or("a time such as 200ms, 30s or 10m is expected")
}

fn parse_rate(text: &str) -> Result<u64, &'static str> {
    event::rate(text).ok_or("a rate such as 3M or 800k is expected")
}

fn range(what: &str) -> SimError {
    SimError::Range(what.to_owned())
}

impl SimArgs {
    /// The simulation that these flags ask for; `command` repeats it.
    ///
    /// # Errors
    /// [`SimError`], naming the flag's value that is wrong.
    pub fn config(&self, command: &str) -> Result<SimConfig, SimError> {
        let mut profile = Profile::load(&self.profile)?;
        if let Some(isps) = &self.isps {
            profile.isp = isp::load(isps)?;
        }
        let mut config = SimConfig::new(self.peers, profile);
        config.duration = self.duration;
        config.warmup = self.warmup;
        config.ramp = self.ramp.unwrap_or(self.warmup / 2);
        config.set_renditions(if self.renditions.is_empty() {
            vec![self.rate]
        } else {
            self.renditions.clone()
        });
        config.chunk_payload_bytes = self.chunk.unwrap_or(config.chunk_payload_bytes);
        config.substreams = self.substreams;
        config.part = self.part;
        config.key_interval = self.key;
        config.key_size = self.key_size;
        config.upload_mean = match self.upload_mean.as_str() {
            "profile" => None,
            mean => {
                Some(mean.parse().map_err(|_| range("--upload-mean: a number or 'profile' is expected"))?)
            }
        };
        config.told = self.told()?;
        config.policy.overlay = policy::overlay(&self.overlay)?;
        config.source_copies = self.source_copies;
        config.source_fill = self.source_fill;
        config.delivery = self.delivery.parse()?;
        config.churn = self.churn()?;
        config.goodbyes = event::percent(&self.goodbyes).ok_or_else(|| range("--goodbyes: expected 50%"))?;
        config.patience = self.patience;
        config.skew = self.skew;
        config.transport.host_us = self.host_delay.as_micros() as u64;
        if let Some(loss) = &self.loss {
            let loss = event::percent(loss).filter(|loss| *loss <= 0.5);
            config.profile.network.loss = loss.ok_or_else(|| range("--loss: 0% to 50% is expected"))?;
        }
        config.alto = self.alto.parse()?;
        config.seed = self.seed;
        for set in &self.set {
            policy::set(&mut config.policy, set)?;
        }
        config.events = self.event.iter().map(|text| text.parse()).collect::<Result<Vec<Scheduled>, _>>()?;
        config.attacks = self.attack.iter().map(|text| text.parse()).collect::<Result<Vec<Attack>, _>>()?;
        config.trace = self.trace;
        if self.watch {
            config.each_second = Some(|second| eprintln!("{second}"));
        }
        command.clone_into(&mut config.command);
        config.check()?;
        Ok(config)
    }

    /// Runs every seed, as many at a time as there are cores, and hands the reports out in order. `command` repeats it,
    /// `commit` is the program's.
    ///
    /// # Errors
    /// [`SimError`], naming the flag's value that is wrong.
    pub fn run(
        &self,
        command: &str,
        commit: &str,
        mut tell: impl FnMut(&Report),
    ) -> Result<Vec<Report>, SimError> {
        let config = self.config(command)?;
        if self.watch {
            eprintln!("{}", Second::HEAD);
        }
        let seeds: Vec<u64> = (self.seed..self.seed.saturating_add(self.seeds.max(1))).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
        let mut reports = Vec::with_capacity(seeds.len());
        for batch in seeds.chunks(cores) {
            let done: Vec<Result<Report, SimError>> = std::thread::scope(|scope| {
                let run = |seed: &u64| {
                    let mut config = config.clone();
                    config.seed = *seed;
                    config.command = format!("{command} --seed {seed} --seeds 1");
                    scope.spawn(move || {
                        let started = Instant::now();
                        let mut report = crate::run(config)?;
                        report.wall_ms = started.elapsed().as_millis() as u64;
                        commit.clone_into(&mut report.commit);
                        Ok(report)
                    })
                };
                let running: Vec<_> = batch.iter().map(run).collect();
                let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                running.into_iter().map(join).collect()
            });
            for report in done {
                let report = report?;
                tell(&report);
                reports.push(report);
            }
        }
        #[cfg(feature = "plot")]
        if let (Some(file), Some(report)) = (&self.plot, reports.first()) {
            crate::plot::write(report, file)?;
        }
        #[cfg(feature = "plot")]
        if let (false, Some(report)) = (self.plot_isps.is_empty(), reports.first()) {
            let random = crate::run(SimConfig { alto: isp::Alto::Off, each_second: None, ..config })?;
            for file in &self.plot_isps {
                crate::plot_isps::write(&random, report, file)?;
            }
        }
        #[cfg(not(feature = "plot"))]
        if self.plot.is_some() || !self.plot_isps.is_empty() {
            return Err(range("--plot: this program was built without plots"));
        }
        Ok(reports)
    }

    fn told(&self) -> Result<Told, SimError> {
        let wrong = || range("--told: a number, 'nothing' or '±20%' is expected");
        if self.told == "nothing" {
            return Ok(Told::Nothing);
        }
        if let Some(share) = self.told.strip_prefix('±') {
            return event::percent(share).map(Told::Within).ok_or_else(wrong);
        }
        let share: f64 = self.told.parse().map_err(|_| wrong())?;
        if (0.01..=100.0).contains(&share) { Ok(Told::Share(share)) } else { Err(wrong()) }
    }

    fn churn(&self) -> Result<Churn, SimError> {
        let wrong = || range("--churn: 'none', a time such as 10m, or heavy:10m is expected");
        match self.churn.split_once(':') {
            _ if self.churn == "none" => Ok(Churn::None),
            None => event::duration(&self.churn).map(Churn::Exponential).ok_or_else(wrong),
            Some(("heavy", mean)) => event::duration(mean).map(Churn::HeavyTailed).ok_or_else(wrong),
            Some(_) => Err(wrong()),
        }
    }
}
