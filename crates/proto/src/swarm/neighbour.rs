//! One connected peer, as this swarm sees it: what it said, what it owes, what it did wrong.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use super::have::HaveMap;
use super::locality::PathCost;
use super::record::Papers;
use super::skew::Skew;
use super::standing::Standing;
use super::trace::TraceSide;
use crate::broadcast::SUBSTREAMS_MAX;
use crate::id::PeerId;
use crate::io::Connected;
use crate::time::Timestamp;
use crate::wire::{FrameWriter, LAG_UNKNOWN_MS, Message, SegmentStart, State};

/// Chunk numbers remembered as exchanged with one neighbour, in each direction: no fewer than may come late, so that none
/// of those can be replayed.
const RECENT_MAX: usize = super::receive::LATE_MAX as usize;

/// The last [`RECENT_MAX`] chunk numbers of something.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    numbers: VecDeque<u64>,
    /// One past the largest ever remembered: most questions are about newer ones, and need no search.
    end: u64,
}

impl Recent {
    /// Remembers `number`; true when it was remembered already.
    pub(crate) fn note(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return true;
        }
        if self.numbers.len() == RECENT_MAX {
            self.numbers.pop_front();
        }
        self.numbers.push_back(number);
        self.end = self.end.max(number.saturating_add(1));
        false
    }

    /// It was not so.
    pub(crate) fn forget(&mut self, number: u64) {
        self.numbers.retain(|remembered| *remembered != number);
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        number < self.end && self.numbers.contains(&number)
    }
}

/// What a neighbour may be served on request, bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// At once.
    pub(crate) most: u64,
    /// For as long as it likes.
    pub(crate) per_second: u64,
}

/// A neighbour that receives a substream with some lag has a chunk this much later at the latest, as a rule.
const SETTLED: Duration = Duration::from_millis(200);
/// Half of how long a parent that let a substream starve is shunned; doubled each time …
const SHUN_BASE: Duration = Duration::from_millis(1000);
/// … this often at most.
const SHUN_DOUBLINGS_MAX: u32 = 6;
/// A claim that was false once counts again after this long.
const CLAIM_PERIOD: Duration = Duration::from_secs(1);

/// A chunk asked for and not yet answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) at: Timestamp,
    pub(crate) until: Timestamp,
}

/// A PING on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) sent: Timestamp,
    pub(crate) until: Timestamp,
}

/// Neighbours unheard of for longer may be gone: others are asked first …
const QUIET: Duration = Duration::from_millis(250);
/// … unless they are worse by more than this: whoever chatters must not be everybody's choice.
const QUIET_MAX: Duration = Duration::from_millis(100);
/// A PING that is not answered this long after two round trips …
const OWED_AFTER: Duration = Duration::from_millis(30);
/// … counts this much, µs.
const OWED_US: u64 = 500_000;

/// Who has not brought a chunk yet counts this much worse as a parent than it promises to be, µs.
const UNPROVEN_US: u64 = 50_000;

/// Largest doubt about a neighbour.
const DOUBT_MAX: Duration = Duration::from_secs(2);

/// A time for each substream that has one.
#[derive(Debug, Default)]
pub(crate) struct BySubstream([Option<Timestamp>; SUBSTREAMS_MAX as usize]);

impl BySubstream {
    pub(crate) fn get(&self, s: u8) -> Option<Timestamp> {
        self.0.get(usize::from(s)).copied().flatten()
    }

    pub(crate) fn set(&mut self, s: u8, at: Option<Timestamp>) {
        if let Some(place) = self.0.get_mut(usize::from(s)) {
            *place = at;
        }
    }
}

/// A connected peer.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) peer: PeerId,
    pub(crate) addr: Option<SocketAddr>,
    /// What the map says of the way to it.
    pub(crate) path: Option<PathCost>,
    pub(crate) rtt: Duration,
    /// The least one lately: how far it is.
    pub(crate) least_rtt: Duration,
    /// It sent its HANDSHAKE for this swarm.
    pub(crate) met: bool,
    pub(crate) source: bool,
    pub(crate) upload_kbps: u32,
    pub(crate) epoch: u64,
    pub(crate) have: HaveMap,
    pub(crate) segment_starts: Vec<SegmentStart>,
    pub(crate) starts_at: Timestamp,
    pub(crate) have_at: Timestamp,
    pub(crate) state: State,
    pub(crate) connected: Timestamp,
    /// This node dialled it.
    pub(crate) dialled: bool,
    pub(crate) heard: Timestamp,
    pub(crate) probe: Option<Probe>,
    /// When the last PING was sent.
    pub(crate) pinged: Timestamp,
    /// It did not answer a probe and has not been heard since.
    pub(crate) suspect: bool,
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// Chunks asked of it lately: however late the answer comes, it is no offence.
    pub(crate) requested: Recent,
    /// Each substream: when it last was, or was asked to be, this node's parent there.
    pub(crate) invited: BySubstream,
    /// Substreams that starved through it since it last pushed anything new.
    broken: u32,
    /// It is no parent for those who have a choice until then.
    pub(crate) shunned_until: Timestamp,
    /// When its last chunk came.
    pub(crate) chunk_at: Timestamp,
    /// What its broken promises cost lately: unanswered requests, substreams that starved. Fades.
    doubt_us: u64,
    /// How much later than it says chunks come through it as a parent, smoothed, µs.
    bias_us: u64,
    /// The last time a false claim was counted.
    claim_strike_at: Timestamp,
    /// Chunks it said it lacks, since its last HAVE.
    pub(crate) absent: Recent,
    /// It said that its uplink is busy.
    pub(crate) busy_until: Timestamp,
    /// Chunks queued for it on the uplink in answer to its requests.
    pub(crate) serving: usize,
    /// It has not acknowledged a chunk for long.
    pub(crate) takes_nothing: bool,
    /// What it keeps when it leaves and comes back.
    pub(crate) standing: Standing,
    /// Where the two are, as they told each other.
    pub(crate) papers: Papers,
    /// Whether it reports hops, and who handed what to whom.
    pub(crate) trace: TraceSide,
    pub(crate) state_due: Timestamp,
    /// When it was last told this node's state.
    pub(crate) told: Timestamp,
    /// Which news it has heard.
    pub(crate) told_version: u32,
    pub(crate) note_sent_us: u64,
    /// The newest live note, and the newest certificate, that it claimed to have.
    pub(crate) note_told_us: u64,
    pub(crate) epoch_told: u64,
    /// What it shows of the difference between this node's clock and the source's.
    pub(crate) skew: Skew,
    pub(crate) certificate_sent: u64,
    pub(crate) useful_bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Each substream: when it may be asked to be a parent again.
    pub(crate) refused_until: BySubstream,
    writer: FrameWriter,
    ready: Vec<Bytes>,
}

impl Neighbour {
    pub(crate) fn new(now: Timestamp, handle: u8, connected: &Connected, standing: Standing) -> Self {
        Self {
            peer: connected.peer,
            addr: connected.addr,
            path: None,
            rtt: connected.rtt,
            least_rtt: connected.rtt,
            met: false,
            source: false,
            upload_kbps: 0,
            epoch: 0,
            have: HaveMap::default(),
            segment_starts: Vec::new(),
            starts_at: Timestamp::ZERO,
            have_at: Timestamp::ZERO,
            state: State::default(),
            connected: now,
            dialled: connected.dialled,
            heard: now,
            probe: None,
            pinged: Timestamp::ZERO,
            suspect: false,
            asked: BTreeMap::new(),
            requested: Recent::default(),
            invited: BySubstream::default(),
            broken: 0,
            shunned_until: now,
            chunk_at: now,
            doubt_us: 0,
            bias_us: 0,
            claim_strike_at: Timestamp::ZERO,
            absent: Recent::default(),
            busy_until: now,
            serving: 0,
            takes_nothing: false,
            standing,
            papers: Papers::default(),
            trace: TraceSide::default(),
            state_due: now,
            told: now,
            told_version: 0,
            note_sent_us: 0,
            note_told_us: 0,
            epoch_told: 0,
            skew: Skew::default(),
            certificate_sent: 0,
            useful_bytes_in: 0,
            bytes_out: 0,
            refused_until: BySubstream::default(),
            writer: FrameWriter::new(handle),
            ready: Vec::new(),
        }
    }

    /// Queues a message; it leaves with the next flush, together with the others. `unsent` notes for whom something waits.
    pub(crate) fn send(&mut self, unsent: &mut Vec<PeerId>, message: &Message) {
        if self.ready.is_empty() && self.writer.is_empty() {
            unsent.push(self.peer);
        }
        self.ready.extend(self.writer.push(message));
    }

    /// What is queued, as bytes for the control stream.
    pub(crate) fn flush(&mut self) -> Option<Bytes> {
        self.ready.extend(self.writer.finish());
        match self.ready.len() {
            0 => None,
            1 => self.ready.pop(),
            _ => Some(self.ready.drain(..).flatten().collect()),
        }
    }

    /// The map puts it into this node's own PID.
    pub(crate) fn is_own_pid(&self) -> bool {
        self.path.is_some_and(|path| path.is_own)
    }

    /// What half a round trip takes without queues, µs.
    pub(crate) fn one_way_us(&self) -> u64 {
        self.least_rtt.as_micros() as u64 / 2
    }

    /// Anything arrived from it.
    pub(crate) fn hear(&mut self, now: Timestamp) {
        self.heard = now;
        self.suspect = false;
        if self.probe.is_some_and(|probe| probe.sent <= now) {
            self.probe = None;
        }
    }

    /// By when it should have answered a PING that is sent now.
    pub(crate) fn answer_due(&self, sent: Timestamp) -> Timestamp {
        sent + OWED_AFTER + self.rtt * 2
    }

    /// It was asked whether it is there, and should have answered by now.
    pub(crate) fn owes_answer(&self, now: Timestamp) -> bool {
        self.probe.is_some_and(|probe| now >= self.answer_due(probe.sent))
    }

    /// What it counts that it may be gone when somebody is needed at once, µs.
    pub(crate) fn quiet_us(&self, now: Timestamp) -> u64 {
        let owed = if self.owes_answer(now) { OWED_US } else { 0 };
        now.since(self.heard).saturating_sub(QUIET).min(QUIET_MAX).as_micros() as u64 + owed
    }

    /// It holds the chunk, or is about to, as far as this node knows.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.have.contains(number) || self.standing.given.contains(number)
    }

    /// It holds the chunk of substream `s`, as it said, or has had all the time to get it since it last said anything.
    pub(crate) fn has_or_should(&self, now: Timestamp, number: u64, s: u8, since: Option<Timestamp>) -> bool {
        if self.have.contains(number) {
            return true;
        }
        let Some(lag_us) = self.lag_us(s) else { return false };
        since.is_some_and(|since| {
            self.have_at < since + Duration::from_micros(lag_us) + SETTLED
                && now.since(since) > Duration::from_micros(lag_us) + SETTLED
        }) && self.have.start().is_some_and(|start| start <= number)
            && !self.absent.contains(number)
    }

    /// How far behind the signature it receives substream `s`, µs; `None` when it does not.
    pub(crate) fn lag_us(&self, s: u8) -> Option<u64> {
        let substream = self.state.substreams.get(usize::from(s))?;
        (substream.lag_ms < LAG_UNKNOWN_MS).then(|| u64::from(substream.lag_ms) * 1000)
    }

    /// It receives every substream.
    pub(crate) fn is_settled(&self) -> bool {
        let substreams = &self.state.substreams;
        !substreams.is_empty() && substreams.iter().all(|substream| substream.lag_ms < LAG_UNKNOWN_MS)
    }

    /// How long a chunk waits on its uplink.
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(u64::from(self.state.wait_ms))
    }

    /// When a chunk of substream `s` should be here after it was signed, by its own word, µs.
    pub(crate) fn promised_us(&self, s: u8) -> Option<u64> {
        Some(self.lag_us(s)? + (self.wait() + self.rtt / 2).as_micros() as u64)
    }

    /// It broke a promise that cost this node so much.
    pub(crate) fn doubt(&mut self, cost: Duration) {
        self.doubt_us = (self.doubt_us + cost.as_micros() as u64).min(DOUBT_MAX.as_micros() as u64);
    }

    /// A substream starved through it as a parent.
    pub(crate) fn shun(&mut self, now: Timestamp) {
        self.broken = (self.broken + 1).min(SHUN_DOUBLINGS_MAX);
        self.shunned_until = now + SHUN_BASE * (1 << self.broken);
    }

    /// It pushed a new chunk.
    pub(crate) fn trust(&mut self) {
        self.broken = 0;
        self.shunned_until = Timestamp::ZERO;
    }

    /// It let substreams starve and has not pushed anything since, or has not brought anything yet.
    pub(crate) fn is_on_probation(&self) -> bool {
        self.broken > 0 || self.unproven_us() > 0
    }

    /// What it counts that nothing true has come from it yet, µs: promises are free.
    pub(crate) fn unproven_us(&self) -> u64 {
        if self.standing.proven || self.source { 0 } else { UNPROVEN_US }
    }

    /// A second has passed, or it kept a promise.
    pub(crate) fn fade(&mut self) {
        self.doubt_us -= self.doubt_us / 8;
    }

    /// What to add to anything it promises, µs.
    pub(crate) fn doubt_us(&self) -> u64 {
        self.doubt_us
    }

    /// A chunk came through it as a parent, `late_us` later than it had promised (sooner: negative).
    pub(crate) fn learn_bias(&mut self, late_us: i64) {
        let late_us = late_us.clamp(0, DOUBT_MAX.as_micros() as i64) as u64;
        self.bias_us = (self.bias_us * 7 + late_us) / 8;
    }

    /// What to add to the lag it promises as a parent, µs.
    pub(crate) fn bias_us(&self) -> u64 {
        self.bias_us
    }

    /// Whether this false claim counts: what its next HAVE repeats, or what it still claims a second later, is another.
    pub(crate) fn is_new_claim(&mut self, now: Timestamp) -> bool {
        let counts = self.have_at > self.claim_strike_at || now.since(self.claim_strike_at) > CLAIM_PERIOD;
        if counts {
            self.claim_strike_at = now;
        }
        counts
    }
}
