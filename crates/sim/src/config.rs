//! What to simulate. Times as µs unless the name says otherwise.

use std::str::FromStr;
use std::time::Duration;

use caudal_proto::chunk::CHUNK_PAYLOAD_MAX;
use caudal_proto::qos::rendition::RENDITIONS_MAX;
use caudal_proto::swarm::policy::Policy;

use crate::attack::Attack;
use crate::error::SimError;
use crate::event::Scheduled;
use crate::isp::Alto;
use crate::profile::Profile;
use crate::transport::TransportModel;
use crate::world::Second;

/// Most viewers of a run.
pub const PEERS_MAX: usize = 200_000;

/// What waits for a narrow line waits there for so long, and otherwise at its sender, µs.
const LINE_QUEUE_US: u64 = 150_000;

/// How long viewers stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Churn {
    /// Nobody leaves.
    None,
    /// Sessions are exponential with this mean, and as many come as go.
    Exponential(Duration),
    /// Sessions are heavy-tailed (Pareto, shape 1.5) with this mean.
    HeavyTailed(Duration),
}

/// Who carries the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Delivery {
    /// The source pushes as many copies as it was told, viewers do the rest.
    #[default]
    SwarmOnly,
    /// The source feeds viewers as far as its uplink goes, and they each other.
    Hybrid,
    /// The source feeds everybody; viewers know nobody else.
    ServerOnly,
}

impl FromStr for Delivery {
    type Err = SimError;

    fn from_str(text: &str) -> Result<Self, SimError> {
        match text {
            "swarm-only" => Ok(Self::SwarmOnly),
            "hybrid" => Ok(Self::Hybrid),
            "server-only" => Ok(Self::ServerOnly),
            _ => Err(SimError::Range("--delivery: swarm-only, hybrid or server-only is expected".to_owned())),
        }
    }
}

/// What engines are told of their uplink.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Told {
    /// Nothing: they measure.
    Nothing,
    /// This share of what the line carries, IP bytes.
    Share(f64),
    /// A share drawn for each peer, uniform within ± this of the truth.
    Within(f64),
}

/// One simulation.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Viewers.
    pub peers: usize,
    /// What is measured …
    pub duration: Duration,
    /// … after this …
    pub warmup: Duration,
    /// … in whose beginning they come, evenly spread.
    pub ramp: Duration,
    /// Of the stream, bit/s; of the best rendition, where there are several.
    pub rate_bps: u64,
    /// Rates of the channel's renditions, the best first; empty: there is one, of `rate_bps`. See [`Self::set_renditions`].
    pub renditions: Vec<u64>,
    /// Largest payload of a chunk, bytes.
    pub chunk_payload_bytes: usize,
    /// K.
    pub substreams: u8,
    /// Duration of a part; zero: each chunk is a part of its own, evenly spaced.
    pub part: Duration,
    /// From key frame to key frame.
    pub key_interval: Duration,
    /// Size of a part with a key frame ÷ the mean part's.
    pub key_size: f64,
    /// Who takes part.
    pub profile: Profile,
    /// Mean upload ÷ rate; `None`: as the profile says.
    pub upload_mean: Option<f64>,
    /// What engines are told of their uplink.
    pub told: Told,
    /// The source's uplink ÷ rate, IP bytes.
    pub source_copies: f64,
    /// Of that, what the source is told to push: headers take 7 %, repair 8 %, control 2 %.
    pub source_fill: f64,
    /// Who carries the stream.
    pub delivery: Delivery,
    /// Sessions.
    pub churn: Churn,
    /// Of departures that say goodbye.
    pub goodbyes: f64,
    /// A player waits this long for what is missing: as a viewer's node does.
    pub patience: Duration,
    /// Clocks differ by up to this either way.
    pub skew: Duration,
    /// Seeds everything.
    pub seed: u64,
    /// Of every engine.
    pub policy: Policy,
    /// What happens, from the start of measuring.
    pub events: Vec<Scheduled>,
    /// Who attacks.
    pub attacks: Vec<Attack>,
    /// Maps of the profile's providers.
    pub alto: Alto,
    /// The transport underneath.
    pub transport: TransportModel,
    /// Follow this chunk, counted from the start of measuring.
    pub trace: Option<u64>,
    /// The source marks about one chunk in so many for tracing; 0: none.
    pub traced_every: u64,
    /// Told of each second when it has passed.
    pub each_second: Option<fn(&Second)>,
    /// How this run was asked for: repeated when a check fails.
    pub command: String,
}

impl SimConfig {
    /// The usual run of `peers` viewers behind `profile`'s lines.
    pub fn new(peers: usize, profile: Profile) -> Self {
        let rate_bps = 3_000_000;
        Self {
            peers,
            duration: Duration::from_secs(60),
            warmup: Duration::from_secs(30),
            ramp: Duration::from_secs(15),
            rate_bps,
            renditions: Vec::new(),
            chunk_payload_bytes: Self::usual_chunk(rate_bps),
            substreams: 8,
            part: Duration::from_millis(200),
            key_interval: Duration::from_secs(2),
            key_size: 2.0,
            profile,
            upload_mean: Some(1.25),
            told: Told::Share(1.0),
            source_copies: 3.0,
            source_fill: 0.75,
            delivery: Delivery::default(),
            churn: Churn::Exponential(Duration::from_secs(600)),
            goodbyes: 0.5,
            patience: Duration::from_secs(6),
            skew: Duration::ZERO,
            seed: 1,
            policy: Policy::default(),
            events: Vec::new(),
            attacks: Vec::new(),
            alto: Alto::default(),
            transport: TransportModel::default(),
            trace: None,
            traced_every: 0,
            each_second: None,
            command: String::new(),
        }
    }

    /// 16 KiB at 3 Mbit/s and above, smaller below, so that each substream carries some chunks a second.
    pub fn usual_chunk(rate_bps: u64) -> usize {
        (rate_bps as usize * CHUNK_PAYLOAD_MAX / 3_000_000).clamp(1024, CHUNK_PAYLOAD_MAX)
    }

    /// IP bytes ÷ payload bytes of a chunk.
    pub fn wire_factor(&self) -> f64 {
        self.transport.chunk_wire_permille as f64 / 1000.0
    }

    /// The source's line, IP bit/s: it carries so many copies of all renditions.
    pub fn source_bps(&self) -> u64 {
        (self.source_copies * self.rates().iter().sum::<u64>() as f64) as u64
    }

    /// The channel has renditions of these rates, the best first; viewers choose. Lines are narrow then: what waits for one waits
    /// at its sender.
    pub fn set_renditions(&mut self, rates_bps: Vec<u64>) {
        self.rate_bps = rates_bps.first().copied().unwrap_or(self.rate_bps);
        self.chunk_payload_bytes = Self::usual_chunk(self.rate_bps);
        if rates_bps.len() > 1 {
            self.transport.line_queue_us = LINE_QUEUE_US;
            self.renditions = rates_bps;
        }
    }

    /// Rates of what the channel has, the best first.
    pub fn rates(&self) -> Vec<u64> {
        if self.renditions.is_empty() { vec![self.rate_bps] } else { self.renditions.clone() }
    }

    /// Largest payload of a chunk of the rendition in this place.
    pub(crate) fn chunk_payload_of(&self, place: usize) -> usize {
        match self.renditions.get(place) {
            Some(rate_bps) if place > 0 => Self::usual_chunk(*rate_bps),
            _ => self.chunk_payload_bytes,
        }
    }

    /// Refuses what cannot be run.
    ///
    /// # Errors
    /// [`SimError::Range`], naming what is out of range.
    pub fn check(&self) -> Result<(), SimError> {
        let range = |ok: bool, what: &str| if ok { Ok(()) } else { Err(SimError::Range(what.to_owned())) };
        range((1..=PEERS_MAX).contains(&self.peers), "1 to 200000 peers are expected")?;
        range((50_000..=100_000_000).contains(&self.rate_bps), "a rate from 50k to 100M is expected")?;
        let rates = &self.renditions;
        range(rates.len() <= RENDITIONS_MAX, "1 to 8 renditions are expected")?;
        let descend = rates.iter().all(|rate| *rate >= 50_000) && rates.is_sorted_by(|a, b| a > b);
        range(descend, "renditions: rates from 50k on are expected, the best first, each once")?;
        let first = rates.first().is_none_or(|rate| *rate == self.rate_bps);
        range(first, "the first rendition's rate is the stream's")?;
        range(rates.is_empty() || !self.part.is_zero(), "renditions need parts: --part 200ms")?;
        range(self.duration >= Duration::from_secs(1), "a duration of at least 1s is expected")?;
        range(self.duration + self.warmup <= Duration::from_secs(7200), "two hours at most are simulated")?;
        range(self.ramp <= self.warmup, "viewers come during the warm-up: --ramp is at most --warmup")?;
        range((1..=16).contains(&self.substreams), "1 to 16 substreams are expected")?;
        range((0.5..=100_000.0).contains(&self.source_copies), "0.5 to 100000 source copies are expected")?;
        let mean = self.upload_mean.unwrap_or(1.0);
        range((0.0..=1000.0).contains(&mean), "an upload mean from 0 to 1000 is expected")?;
        range(self.part <= Duration::from_secs(2), "parts of at most 2s are expected")?;
        let key = self.key_interval >= self.part && self.key_interval >= Duration::from_millis(200);
        range(key, "a key frame every 200ms, or every part, at most is expected")?;
        range((1.0..=20.0).contains(&self.key_size), "a key frame's part is 1 to 20 times the mean")?;
        let sessions = match self.churn {
            Churn::None => true,
            Churn::Exponential(mean) | Churn::HeavyTailed(mean) => mean >= Duration::from_secs(1),
        };
        range(sessions, "sessions of at least 1s are expected")?;
        let isps = crate::isp::check(&self.profile.isp, self.profile.network.region_share.len());
        isps.map_err(|what| SimError::Range(what.to_owned()))?;
        let has_isps = !self.profile.isp.is_empty();
        range(self.alto == Alto::Off || has_isps, "--alto: maps need ISPs (--isps 4)")?;
        let patience = (Duration::from_millis(500)..=Duration::from_secs(60)).contains(&self.patience);
        range(patience, "a player's patience from 500ms to 60s is expected")
    }
}
