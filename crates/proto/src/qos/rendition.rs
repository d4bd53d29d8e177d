//! Which rendition a viewer plays: the best that its line, the swarm and its share of the upload sustain.
//!
//! Two kinds of evidence are joined. How far what plays has fallen behind says how long a player can still wait, and comes
//! first: it is what a stall is made of. The rate at which bytes come says how deep to go, several steps at once if need be.
//! Down is a matter of a second; up is tried beside what plays, after a time without trouble that doubles with every ascent that
//! failed, up to a bound: a line that has recovered is used soon. Knows no swarm: it is told figures and answers with a move that
//! the node makes.

use alloc::vec::Vec;
use core::time::Duration;

use crate::id::RenditionId;
use crate::time::Timestamp;

/// Most renditions that are looked at.
pub const RENDITIONS_MAX: usize = 8;
/// A player is taken to keep at least so much ahead …
const KEPT_MIN: Duration = Duration::from_millis(1500);
/// … and no more: who looks closer moves sooner.
const KEPT_MAX: Duration = Duration::from_millis(2000);
/// A rendition that nothing has come of for so long since it was entered is left for the first one. One that comes no longer may be a
/// source that pauses: that is the channel's to say.
const SILENT_MAX: Duration = Duration::from_secs(6);
/// If nothing ever came of it, it is not gone over to again for so long: an edge may not have it, whatever the channel says.
const LOST_FOR: Duration = Duration::from_secs(120);
/// This share of what a player keeps ahead may be lost before a rate of little more than half is believed, percent: parts and key
/// frames come in bursts, and a parent that is lost costs as much …
const NARROW_BEHIND: u32 = 15;
/// … this share before one that does not suffice is …
const SLOW_BEHIND: u32 = 35;
/// … and this share before no rate is asked for.
const LOST_BEHIND: u32 = 60;
/// Behind by no more than this share all is well.
const WELL_BEHIND: u32 = 20;
/// What is usual counts for nothing, up to this share: who was always late is late.
const UNEVEN_MOST: u32 = 30;
/// What comes suffices from this share of a rendition's rate on, percent.
const RATE_SUFFICES: u64 = 85;
/// What comes is little from this share down, percent.
const RATE_NARROW: u64 = 60;
/// Of what comes, what a rendition may take that is moved down to, percent.
const RATE_TAKEN: u64 = 70;
/// The rate is measured over this …
const RATE_WINDOW: Duration = Duration::from_millis(700);
/// … and how deep to go also over this: a line that has just become narrow brought more a moment ago.
const RATE_WINDOW_SHORT: Duration = Duration::from_millis(300);
/// Figures kept for that.
const SAMPLES_MAX: usize = 16;
/// After a move down the next one waits for so long: what was asked for must have come first.
const SETTLING: Duration = Duration::from_millis(1500);
/// A newcomer fetches what has passed beside what comes: what it is behind then says nothing of the line.
const STARTING: Duration = Duration::from_secs(3);
/// Who has seen nothing yet after this, while less comes than it takes, begins with less.
const START_MAX: Duration = Duration::from_secs(2);
/// What is tried may cost what plays this share, percent.
const TRY_BEHIND: u32 = 40;
/// Without trouble for so long, the next rendition is tried …
const PROOF: Duration = Duration::from_secs(4);
/// … for twice as long after each ascent that failed, up to this …
const PROOF_MAX: Duration = Duration::from_secs(8);
/// … and for so long after one that went well.
const PROOF_NEXT: Duration = Duration::from_secs(2);
/// A try that has not come to anything by then is given up.
const TRY_MAX: Duration = Duration::from_secs(6);
/// An ascent that is taken back within this has failed.
const PROBATION: Duration = Duration::from_secs(5);
/// Of a rendition's share of the upload, what the line must carry for it to be tried, percent.
const DUTY_CARRIED: u64 = 80;
/// What is wanted by hand is moved to without waiting for a seam after this.
const BY_HAND_MAX: Duration = Duration::from_secs(4);

/// A rendition that the channel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// Its number.
    pub id: RenditionId,
    /// What it takes, bit/s.
    pub rate_bps: u64,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// The best that can be sustained.
    #[default]
    Auto,
    /// This one, whatever comes of it.
    Fixed(RenditionId),
}

/// What a viewer sees of what plays, several times a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// How much later the newest part is than the soonest ones were; grows while nothing comes.
    pub behind: Duration,
    /// By how much parts come later than the soonest whatever the line is like: a cache gives them when it looks next. `None`: it is
    /// too soon to say. In a swarm it is nothing: what is uneven there is the line's doing, or the neighbours'.
    pub uneven: Option<Duration>,
    /// What a player keeps ahead of the picture.
    pub kept: Duration,
    /// Since the last part came, of whatever rendition that was.
    pub silent: Duration,
    /// Useful bytes received so far, in all swarms of the channel.
    pub received_bytes: u64,
    /// What this viewer sends to others, bit/s.
    pub upload_bps: u64,
    /// What its line is believed to carry up; `None`: nothing has queued on it.
    pub upload_capacity_bps: Option<u64>,
}

/// Why a move is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Less comes than what plays takes.
    TooSlow,
    /// A player would soon stand still.
    Behind,
    /// Nothing has been wrong for long enough.
    Well,
    /// Somebody chose it.
    ByHand,
    /// The channel has what plays no longer.
    Gone,
    /// What was tried did not come in time.
    NotInTime,
    /// What was tried took from what plays.
    Costs,
}

impl Reason {
    /// For a person.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooSlow => "the line brings less than it takes",
            Self::Behind => "parts came too late",
            Self::Well => "all has gone well for a while",
            Self::ByHand => "it was chosen",
            Self::Gone => "the channel has the other no longer",
            Self::NotInTime => "it did not come in time",
            Self::Costs => "the line does not carry both",
        }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Nothing.
    Stay,
    /// Leave what plays at once, and go on in `to` from the point reached.
    Switch {
        /// The rendition.
        to: RenditionId,
        /// Why.
        reason: Reason,
    },
    /// Join `to` beside what plays, and go over when its parts are there.
    Try {
        /// The rendition.
        to: RenditionId,
        /// Why.
        reason: Reason,
    },
    /// Leave what was tried.
    GiveUp {
        /// Why.
        reason: Reason,
    },
}

/// Decides for one viewer of one channel. Tell it what there is, hand in a [`Look`] several times a second, make its moves, and say
/// with [`RenditionChoice::arrived`] when a rendition plays.
#[derive(Debug, Clone)]
pub struct RenditionChoice {
    /// What the channel has, the best first …
    named: Vec<Offered>,
    /// … and what of it may be had.
    offered: Vec<Offered>,
    /// Those that nothing came of, each once, and when that was found.
    lost: Vec<(RenditionId, Timestamp)>,
    wanted: Wanted,
    playing: RenditionId,
    /// When that was entered.
    entered_at: Timestamp,
    tried: Option<(RenditionId, Timestamp)>,
    /// When bytes were counted, and how many there were.
    samples: Vec<(Timestamp, u64)>,
    /// Since when nothing has been wrong.
    well_since: Option<Timestamp>,
    /// How long that must last.
    proof: Duration,
    /// Since when nothing has played; `None` once something has.
    waits_since: Option<Timestamp>,
    has_begun: bool,
    /// No move down before.
    settled_at: Timestamp,
    /// The last ascent.
    ascended_at: Option<Timestamp>,
}

impl RenditionChoice {
    /// A viewer that plays `playing`.
    pub fn new(playing: RenditionId, wanted: Wanted) -> Self {
        Self {
            named: Vec::new(),
            offered: Vec::new(),
            lost: Vec::new(),
            wanted,
            playing,
            entered_at: Timestamp::ZERO,
            tried: None,
            samples: Vec::new(),
            well_since: None,
            proof: PROOF,
            waits_since: None,
            has_begun: false,
            settled_at: Timestamp::ZERO,
            ascended_at: None,
        }
    }

    /// What the channel has, in any order; the first [`RENDITIONS_MAX`] count.
    pub fn offer(&mut self, offered: impl IntoIterator<Item = Offered>) {
        self.named.clear();
        self.named.extend(offered.into_iter().take(RENDITIONS_MAX));
        self.named.sort_by_key(|offered| (core::cmp::Reverse(offered.rate_bps), offered.id));
        self.lost.retain(|(lost, _)| self.named.iter().any(|named| named.id == *lost));
        self.sift();
    }

    fn sift(&mut self) {
        let is_lost = |named: &&Offered| self.lost.iter().any(|(lost, _)| *lost == named.id);
        self.offered = self.named.iter().filter(|named| !is_lost(named)).copied().collect();
    }

    /// Somebody chose.
    pub fn choose(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.proof = PROOF;
    }

    /// What is wanted.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// What plays.
    pub fn playing(&self) -> RenditionId {
        self.playing
    }

    /// What is tried beside it.
    pub fn tried(&self) -> Option<RenditionId> {
        self.tried.map(|(id, _)| id)
    }

    /// The first part of a broadcast plays.
    pub fn began(&mut self, now: Timestamp) {
        self.settled_at = now + STARTING;
        self.well_since = None;
        (self.has_begun, self.waits_since) = (true, None);
    }

    /// The node went over to `to`.
    pub fn arrived(&mut self, now: Timestamp, to: RenditionId) {
        if self.rate(to) > self.rate(self.playing) {
            self.ascended_at = Some(now);
            self.proof = PROOF_NEXT;
        }
        (self.playing, self.entered_at) = (to, now);
        self.tried = None;
        self.well_since = None;
    }

    /// Whether nothing has ever come of what plays, whatever the channel says: it is left for the first rendition.
    fn is_lost(&mut self, now: Timestamp, silent: Duration) -> bool {
        if !self.lost.is_empty() {
            self.lost.retain(|(_, since)| now.since(*since) < LOST_FOR);
            self.sift();
        }
        let entered = now.since(self.entered_at);
        if self.playing == RenditionId(0) || entered <= SILENT_MAX || silent < entered {
            return false;
        }
        self.lost.retain(|(lost, _)| *lost != self.playing);
        self.lost.push((self.playing, now));
        self.sift();
        true
    }

    /// What to do now.
    pub fn look(&mut self, now: Timestamp, look: &Look) -> Move {
        self.count(now, look.received_bytes);
        let kept = look.kept.clamp(KEPT_MIN, KEPT_MAX);
        let share = |percent: u32| kept * percent / 100;
        let usual = share(UNEVEN_MOST).min(look.uneven.unwrap_or(Duration::MAX));
        let unusual = look.behind.saturating_sub(usual);
        let is_well = unusual <= share(WELL_BEHIND);
        self.well_since = if is_well { Some(self.well_since.unwrap_or(now)) } else { None };
        if self.is_lost(now, look.silent) {
            return self.go(now, RenditionId(0), Reason::Gone);
        }
        if self.offered.is_empty() {
            return Move::Stay;
        }
        if let Some(next) = self.by_hand(now) {
            return next;
        }
        let Some(at) = self.place(self.playing) else {
            return self.go(now, self.best_within(self.received_bps(now)), Reason::Gone);
        };
        if self.ascended_at.is_some_and(|at| now.since(at) > PROBATION) {
            self.ascended_at = None;
            self.proof = self.proof.min(PROOF);
        }
        let received = self.received_bps(now);
        let rate_bps = self.offered[at].rate_bps;
        let comes_less = |percent: u64| received.is_some_and(|bps| bps < rate_bps * percent / 100);
        let is_slow = unusual > share(NARROW_BEHIND) && comes_less(RATE_NARROW)
            || unusual > share(SLOW_BEHIND) && comes_less(RATE_SUFFICES);
        if look.behind > share(TRY_BEHIND) && self.tried.is_some() {
            return self.give_up(now, Reason::Costs);
        }
        if self.tried.is_some() && look.behind <= share(LOST_BEHIND) {
            return self.up(now, at, look);
        }
        let reason = if look.behind > share(LOST_BEHIND) {
            Some(Reason::Behind)
        } else {
            is_slow.then_some(Reason::TooSlow)
        };
        let reason =
            reason.or_else(|| self.starts_slowly(now, comes_less(RATE_SUFFICES)).then_some(Reason::TooSlow));
        // Where nothing comes at all the source pauses, or the line is cut: neither is mended by less.
        let is_silent = self.bps_over(now, RATE_WINDOW_SHORT) == Some(0);
        if let Some(reason) = reason.filter(|_| !is_silent) {
            return self.down(now, at, received, reason);
        }
        self.up(now, at, look)
    }

    /// Whether a newcomer waits for its first part in vain.
    fn starts_slowly(&mut self, now: Timestamp, comes_less: bool) -> bool {
        if self.has_begun {
            return false;
        }
        let since = *self.waits_since.get_or_insert(now);
        let is_over = now.since(since) >= START_MAX && comes_less;
        if is_over {
            self.waits_since = None;
        }
        is_over
    }

    /// What was wanted by hand, while it is to be had; `None`: that is nothing, or it is up to this controller.
    fn by_hand(&mut self, now: Timestamp) -> Option<Move> {
        let Wanted::Fixed(to) = self.wanted else { return None };
        self.place(to)?;
        if to == self.playing {
            return Some(match self.tried {
                Some(_) => self.leave_tried(Reason::ByHand),
                None => Move::Stay,
            });
        }
        Some(match self.tried {
            Some((tried, since)) if tried == to && now.since(since) > BY_HAND_MAX => {
                self.go(now, to, Reason::ByHand)
            }
            Some((tried, _)) if tried == to => Move::Stay,
            Some(_) => self.leave_tried(Reason::ByHand),
            None => {
                self.tried = Some((to, now));
                Move::Try { to, reason: Reason::ByHand }
            }
        })
    }

    fn down(&mut self, now: Timestamp, at: usize, received: Option<u64>, reason: Reason) -> Move {
        let lower = self.offered.get(at + 1);
        if now < self.settled_at || lower.is_none() {
            return Move::Stay;
        }
        // Never less than a step, however much seems to come.
        let lately = self.bps_over(now, RATE_WINDOW_SHORT);
        let fits = self.best_within(received.min(lately.or(received)));
        let to = self.place(fits).map_or(at + 1, |fits| fits.max(at + 1));
        let to = self.offered[to.min(self.offered.len() - 1)].id;
        if self.ascended_at.take().is_some() {
            self.failed();
        } else {
            self.proof = self.proof.max(PROOF);
        }
        self.go(now, to, reason)
    }

    fn up(&mut self, now: Timestamp, at: usize, look: &Look) -> Move {
        if let Some((_, since)) = self.tried {
            if now.since(since) > TRY_MAX {
                return self.give_up(now, Reason::NotInTime);
            }
            return Move::Stay;
        }
        let Some(better) = at.checked_sub(1).map(|up| self.offered[up]) else { return Move::Stay };
        let is_proven = self.well_since.is_some_and(|since| now.since(since) >= self.proof);
        if !is_proven || now < self.settled_at || !self.carries_duty(at, better.rate_bps, look) {
            return Move::Stay;
        }
        self.tried = Some((better.id, now));
        Move::Try { to: better.id, reason: Reason::Well }
    }

    /// Whether the line up would carry what this viewer's place in a swarm of `rate_bps` asks, by what it sends now.
    fn carries_duty(&self, at: usize, rate_bps: u64, look: &Look) -> bool {
        let Some(capacity) = look.upload_capacity_bps else { return true };
        // Nobody owes more than what it takes.
        let now = u128::from(self.offered[at].rate_bps.max(1));
        let duty = u128::from(look.upload_bps).min(now) * u128::from(rate_bps) / now;
        u128::from(capacity) * 100 >= duty * u128::from(DUTY_CARRIED)
    }

    fn go(&mut self, now: Timestamp, to: RenditionId, reason: Reason) -> Move {
        self.tried = None;
        self.well_since = None;
        self.settled_at = now + SETTLING;
        self.samples.clear();
        Move::Switch { to, reason }
    }

    fn give_up(&mut self, now: Timestamp, reason: Reason) -> Move {
        self.failed();
        self.settled_at = now + SETTLING / 2;
        self.leave_tried(reason)
    }

    fn leave_tried(&mut self, reason: Reason) -> Move {
        self.tried = None;
        self.well_since = None;
        Move::GiveUp { reason }
    }

    fn failed(&mut self) {
        self.proof = (self.proof.max(PROOF) * 2).min(PROOF_MAX);
    }

    fn place(&self, id: RenditionId) -> Option<usize> {
        self.offered.iter().position(|offered| offered.id == id)
    }

    fn rate(&self, id: RenditionId) -> u64 {
        self.place(id).map_or(0, |at| self.offered[at].rate_bps)
    }

    /// The best that takes no more than its share of `bps`, or the least.
    fn best_within(&self, bps: Option<u64>) -> RenditionId {
        let most = bps.map_or(u64::MAX, |bps| bps * RATE_TAKEN / 100);
        let fits = self.offered.iter().find(|offered| offered.rate_bps <= most);
        fits.or(self.offered.last()).map_or(self.playing, |offered| offered.id)
    }

    fn count(&mut self, now: Timestamp, bytes: u64) {
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.remove(0);
        }
        self.samples.push((now, bytes));
        // The newest that is a window old, and all after it.
        let old = self.samples.iter().rposition(|(at, _)| now.since(*at) >= RATE_WINDOW);
        self.samples.drain(..old.unwrap_or(0));
    }

    /// What came over the last moments, bit/s; `None` before they are long enough.
    fn received_bps(&self, now: Timestamp) -> Option<u64> {
        self.bps_over(now, RATE_WINDOW)
    }

    fn bps_over(&self, now: Timestamp, window: Duration) -> Option<u64> {
        let old = self.samples.iter().rev().find(|(at, _)| now.since(*at) >= window);
        let (at, first) = *old.or(self.samples.first())?;
        let (_, last) = *self.samples.last()?;
        let span = now.since(at);
        let bits = u128::from(last.saturating_sub(first)) * 8_000_000;
        (span >= window / 2).then(|| u64::try_from(bits / span.as_micros().max(1)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
