//! Which rendition a viewer shows: makes the moves that `proto` decides, and sees to it that players get one stream all the while.
//!
//! One swarm is followed, and one more beside it while a better one is tried. Parts of the tried one wait here until what plays has
//! come to the start of one of its segments; whoever must leave at once enters the other's segment where it is
//! ([`Seam`]).

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::{Duration, Instant};

use caudal_media::fmp4::{InitTrack, read_init};
use caudal_media::part::Part;
use caudal_media::seam::Seam;
use caudal_proto::id::{RENDITION_ID_END, RenditionId};
use caudal_proto::qos::behind::Behind;
use caudal_proto::qos::crossing::{Crossing, Waiting};
use caudal_proto::qos::rendition::{Offered, RenditionChoice, Wanted};
use caudal_proto::time::Timestamp;
use caudal_tracker::descriptor::Rendition;

use super::Shown;
use super::playout::{Played, Playout};
use crate::clock::unix_us;
use crate::tracking::Tracking;

/// What plays is looked at this often.
pub(super) const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// Most parts of the tried rendition that wait.
const WAITING_MAX: usize = 256;

/// What somebody wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preference {
    /// The best that can be sustained.
    #[default]
    Auto,
    /// A rendition by its number.
    Id(RenditionId),
    /// The best that is no higher.
    Height(u32),
}

/// Neither `auto` nor a number nor a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("auto, a rendition's number (0 to 63) or a height as in 720p is expected")]
pub struct PreferenceError;

impl FromStr for Preference {
    type Err = PreferenceError;

    fn from_str(text: &str) -> Result<Self, PreferenceError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Some(height) = text.strip_suffix('p') {
            return height.parse().map(Self::Height).map_err(|_| PreferenceError);
        }
        let id = text.parse().ok().filter(|id| *id < RENDITION_ID_END);
        id.map(|id| Self::Id(RenditionId(id))).ok_or(PreferenceError)
    }
}

impl std::fmt::Display for Preference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Id(id) => write!(f, "{}", id.0),
            Self::Height(height) => write!(f, "{height}p"),
        }
    }
}

impl Preference {
    fn among(self, offered: &[Rendition]) -> Wanted {
        match self {
            Self::Auto => Wanted::Auto,
            Self::Id(id) => Wanted::Fixed(id),
            Self::Height(most) => {
                let height = |one: &&Rendition| (one.height.unwrap_or(0), one.bandwidth_bps);
                let fits = offered.iter().filter(|one| one.height.unwrap_or(0) <= most).max_by_key(height);
                let best = fits.or_else(|| offered.iter().min_by_key(height));
                best.map_or(Wanted::Auto, |one| Wanted::Fixed(one.rendition()))
            }
        }
    }
}

/// Which of a channel's several renditions plays, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playing {
    /// It is chosen by what the line sustains.
    pub is_auto: bool,
    /// What plays: `720p`, or `rendition 1` where that would not tell it from the others.
    pub name: String,
    /// What is tried beside it.
    pub tried: Option<String>,
    /// How many there are.
    pub count: usize,
}

impl Playing {
    pub(super) fn of(shown: &Shown, preference: Preference) -> Option<Self> {
        let offered = &shown.offered;
        let name = |id: RenditionId| {
            let height = offered.iter().find(|one| one.rendition() == id).and_then(|one| one.height);
            let is_clear =
                |height: &u32| offered.iter().filter(|one| one.height == Some(*height)).count() == 1;
            let height = height.filter(is_clear);
            height.map_or_else(|| format!("rendition {}", id.0), |height| format!("{height}p"))
        };
        (offered.len() > 1).then(|| Self {
            is_auto: preference.among(offered) == Wanted::Auto,
            name: name(shown.rendition),
            tried: shown.tried.map(name),
            count: offered.len(),
        })
    }
}

impl std::fmt::Display for Playing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.tried.as_ref().map_or(Ok(()), |tried| write!(f, " → {tried}"))
    }
}

/// A rendition that is tried beside what plays.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) rendition: RenditionId,
    pub(super) playout: Playout,
    /// Who tells of its swarm; nobody where it comes over HTTP.
    pub(super) tracking: Option<Tracking>,
    /// Its parts from a segment start on, each with when it begins on the channel's timeline.
    parts: VecDeque<(i64, Part)>,
    tracks: Vec<InitTrack>,
    crossing: Crossing,
}

impl Tried {
    pub(super) fn new(rendition: RenditionId, tracking: Option<Tracking>) -> Self {
        Self {
            rendition,
            playout: Playout::new(),
            tracking,
            parts: VecDeque::new(),
            tracks: Vec::new(),
            crossing: Crossing::new(),
        }
    }

    /// Takes what has come whole.
    pub(super) fn collect(&mut self, now: Timestamp) {
        while let Some(played) = self.playout.poll() {
            let Played::Part(part) = played else {
                // What follows a hole is a beginning.
                self.parts.clear();
                self.crossing.broke();
                continue;
            };
            if let Some(tracks) = part.init.as_ref().and_then(|init| read_init(init).ok()) {
                self.tracks = tracks;
            }
            let Some(start_us) = Seam::start_us(&part, &self.tracks) else { continue };
            if self.parts.len() >= WAITING_MAX {
                self.parts.pop_front();
            }
            self.crossing.came(now);
            self.parts.push_back((start_us, part));
        }
    }

    /// Its parts from where what plays has come to, if it can be gone over to now.
    fn enter(&mut self, now: Timestamp, seam: &Seam) -> Option<VecDeque<(i64, Part)>> {
        let reached_us = seam.end_us()?;
        let waiting = |(start_us, part): &(i64, Part)| Waiting {
            start_us: *start_us,
            end_us: start_us + i64::from(part.duration_us),
            starts_segment: part.segment_start,
        };
        let waiting: Vec<Waiting> = self.parts.iter().map(waiting).collect();
        let at = self.crossing.enter(now, reached_us, &waiting)?;
        Some(self.parts.split_off(at))
    }
}

/// What is shown, and what is on its way.
#[derive(Debug)]
pub(super) struct Renditions {
    pub(super) choice: RenditionChoice,
    pub(super) offered: Vec<Rendition>,
    pub(super) tried: Option<Tried>,
    pub(super) seam: Seam,
    behind: Behind,
    /// The next part of what plays, held back for the other's to begin with it.
    gated: Option<(Part, Timestamp)>,
    /// Useful bytes of all swarms.
    pub(super) received_bytes: u64,
    began: Instant,
    last_part: Instant,
}

/// What players get next.
#[derive(Debug)]
pub(super) enum Next {
    /// A part.
    Part(Part),
    /// So many parts were stepped over.
    Gap(u64),
    /// Parts of the tried rendition: it plays from here on.
    GoOver(Vec<Part>),
}

impl Renditions {
    pub(super) fn new(preference: Preference) -> Self {
        let playing = match preference {
            Preference::Id(id) => id,
            _ => RenditionId(0),
        };
        Self {
            choice: RenditionChoice::new(playing, preference.among(&[])),
            offered: Vec::new(),
            tried: None,
            seam: Seam::new(),
            behind: Behind::new(Timestamp::ZERO),
            gated: None,
            received_bytes: 0,
            began: Instant::now(),
            last_part: Instant::now(),
        }
    }

    pub(super) fn playing(&self) -> RenditionId {
        self.choice.playing()
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.began.elapsed().as_micros() as u64)
    }

    /// The channel's descriptor names these.
    pub(super) fn offer(&mut self, offered: Vec<Rendition>, preference: Preference) {
        let of = |one: &Rendition| Offered { id: one.rendition(), rate_bps: one.bandwidth_bps };
        self.choice.offer(offered.iter().map(of));
        self.offered = offered;
        self.prefer(preference);
    }

    pub(super) fn prefer(&mut self, preference: Preference) {
        let wanted = preference.among(&self.offered);
        if wanted != self.choice.wanted() {
            self.choice.choose(wanted);
        }
    }

    pub(super) fn behind(&self) -> Duration {
        self.behind.at(unix_us())
    }

    /// Where what plays has come to, by the source's clock, µs since the Unix epoch; 0 before the first part.
    pub(super) fn reached_unix_us(&self) -> u64 {
        self.behind.reached_unix_us()
    }

    /// Since the last part came.
    pub(super) fn silent(&self) -> Duration {
        self.last_part.elapsed()
    }

    /// Another broadcast begins on a timeline of its own.
    pub(super) fn begin_anew(&mut self) {
        self.seam = Seam::new();
        self.behind = Behind::new(self.now());
        self.gated = None;
    }

    /// What plays from here on is another rendition's.
    pub(super) fn went_over(&mut self, to: RenditionId) {
        self.gated = None;
        let now = self.now();
        self.choice.arrived(now, to);
    }

    /// What players get next of what `playout` has; [`Next::GoOver`] comes once.
    pub(super) fn next(&mut self, playout: &mut Playout) -> Option<Next> {
        let now = self.now();
        if let Some(tried) = &mut self.tried {
            tried.collect(now);
            if let Some(parts) = tried.enter(now, &self.seam) {
                let parts: Vec<Part> = parts.into_iter().map(|(_, part)| part).collect();
                parts.last().into_iter().for_each(|part| self.count(now, part));
                return Some(Next::GoOver(parts));
            }
        }
        if let Some((part, since)) = self.gated.take() {
            if self.tried.is_some() && Crossing::is_worth_waiting(now, since) {
                self.gated = Some((part, since));
                return None;
            }
            return Some(Next::Part(part));
        }
        match playout.poll()? {
            Played::Gap(parts) => Some(Next::Gap(parts)),
            Played::Part(part) => {
                self.arrived(now, &part);
                let tried = self.tried.as_ref();
                if part.segment_start && tried.is_some_and(|tried| tried.crossing.is_proven(now)) {
                    self.gated = Some((part, now));
                    return None;
                }
                Some(Next::Part(part))
            }
        }
    }

    fn arrived(&mut self, now: Timestamp, part: &Part) {
        if !self.behind.has_begun() {
            self.choice.began(now);
        }
        self.count(now, part);
        self.last_part = Instant::now();
    }

    fn count(&mut self, now: Timestamp, part: &Part) {
        let part_us = u64::from(part.duration_us);
        let end_unix_us = part.capture_unix_us.saturating_add(part_us);
        self.behind.arrived(now, unix_us(), end_unix_us, Duration::from_micros(part_us));
    }

    /// A part on its way to players: what they get of it.
    pub(super) fn pass(&mut self, part: Part) -> Option<Part> {
        self.seam.pass(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendition(id: u8, height: u32, bandwidth_bps: u64) -> Rendition {
        let codecs = "avc1.64001f,mp4a.40.2".to_owned();
        Rendition { id, codecs, width: None, height: Some(height), fps: None, bandwidth_bps }
    }

    #[test]
    fn a_preference_is_read_and_said() {
        for (text, wanted) in [
            ("auto", Some(Preference::Auto)),
            ("0", Some(Preference::Id(RenditionId(0)))),
            ("63", Some(Preference::Id(RenditionId(63)))),
            ("720p", Some(Preference::Height(720))),
            ("64", None),
            ("p", None),
            ("best", None),
            ("-1", None),
        ] {
            assert_eq!(text.parse().ok(), wanted, "{text}");
            if let Some(wanted) = wanted {
                assert_eq!(wanted.to_string(), text);
            }
        }
    }

    #[test]
    fn a_height_is_the_best_that_is_no_higher() {
        let all = [rendition(0, 1080, 5_000_000), rendition(1, 720, 2_500_000), rendition(2, 360, 800_000)];
        for (most, id) in [(2160, 0), (1080, 0), (900, 1), (720, 1), (400, 2), (100, 2)] {
            assert_eq!(Preference::Height(most).among(&all), Wanted::Fixed(RenditionId(id)), "{most}p");
        }
        assert_eq!(Preference::Height(720).among(&[]), Wanted::Auto, "until it is known");
    }

    #[test]
    fn what_plays_is_named_where_there_are_several() {
        let mut shown = Shown { offered: vec![rendition(0, 1080, 5_000_000)], ..Shown::default() };
        assert_eq!(Playing::of(&shown, Preference::Auto), None);
        shown.offered.push(rendition(1, 720, 2_500_000));
        let playing = |shown: &Shown, preference| Playing::of(shown, preference).expect("there are several");
        let first = playing(&shown, Preference::Auto);
        assert_eq!((first.to_string().as_str(), first.is_auto, first.count), ("1080p", true, 2));
        (shown.rendition, shown.tried) = (RenditionId(1), Some(RenditionId(0)));
        assert_eq!(playing(&shown, Preference::Height(1080)).to_string(), "720p → 1080p");
        assert!(!playing(&shown, Preference::Height(1080)).is_auto);
        shown.offered.push(rendition(2, 720, 1_500_000));
        assert_eq!(
            playing(&shown, Preference::Auto).to_string(),
            "rendition 1 → 1080p",
            "two are of that height"
        );
        shown.rendition = RenditionId(9);
        assert_eq!(playing(&shown, Preference::Auto).name, "rendition 9", "the channel has it no longer");
    }
}
