use super::super::behind::Behind;
use super::super::playout::{Bounds, PlayoutDelay};
use super::*;

const HIGH: Offered = Offered { id: RenditionId(0), rate_bps: 3_500_000 };
const MIDDLE: Offered = Offered { id: RenditionId(1), rate_bps: 1_500_000 };
const LOW: Offered = Offered { id: RenditionId(2), rate_bps: 600_000 };
const LADDER: [Offered; 3] = [LOW, HIGH, MIDDLE];
const STEP_MS: u64 = 100;
const KEPT: Duration = Duration::from_millis(2000);

/// A line, the viewer behind it, and what becomes of its player.
struct Model {
    choice: RenditionChoice,
    now: Timestamp,
    received: u64,
    /// What the source has made and the line has not brought, seconds of media.
    behind: f64,
    /// Of what is tried, beside what plays: how much of it has come, seconds.
    tried: f64,
    stalls: u32,
    moves: Vec<(u64, RenditionId)>,
    tries: u32,
    upload: (u64, Option<u64>),
    rng: fastrand::Rng,
    jitter_ms: u64,
}

impl Model {
    fn new(playing: RenditionId, wanted: Wanted) -> Self {
        let mut choice = RenditionChoice::new(playing, wanted);
        choice.offer(LADDER);
        choice.began(Timestamp::ZERO);
        Self {
            choice,
            now: Timestamp::ZERO,
            received: 0,
            behind: 0.0,
            tried: 0.0,
            stalls: 0,
            moves: Vec::new(),
            tries: 0,
            upload: (0, None),
            rng: fastrand::Rng::with_seed(7),
            jitter_ms: 0,
        }
    }

    /// One step of a line that carries `bps`.
    fn step(&mut self, bps: u64) {
        let seconds = STEP_MS as f64 / 1000.0;
        self.now += Duration::from_millis(STEP_MS);
        let rate = self.choice.rate(self.choice.playing()) as f64;
        let tried = self.choice.tried().map_or(0.0, |id| self.choice.rate(id) as f64);
        // What waits is fetched as fast as the line allows; two swarms share it by what each wants.
        let wants = rate * (seconds + self.behind);
        let all = wants + tried * seconds;
        let brought = all.min(bps as f64 * seconds);
        self.received += (brought / 8.0) as u64;
        let share = if all > 0.0 { brought / all } else { 1.0 };
        self.behind = (self.behind + seconds - share * wants / rate.max(1.0)).max(0.0);
        self.stalls += u32::from(self.behind > KEPT.as_secs_f64());
        let jitter =
            Duration::from_millis(if self.jitter_ms == 0 { 0 } else { self.rng.u64(..self.jitter_ms) });
        let look = Look {
            behind: Duration::from_secs_f64(self.behind) + jitter,
            uneven: Some(Duration::ZERO),
            kept: KEPT,
            silent: Duration::ZERO,
            received_bytes: self.received,
            upload_bps: self.upload.0,
            upload_capacity_bps: self.upload.1,
        };
        match self.choice.look(self.now, &look) {
            Move::Stay => {}
            Move::Switch { to, .. } => self.arrive(to),
            Move::Try { .. } => {
                self.tries += 1;
                self.tried = 0.0;
            }
            Move::GiveUp { .. } => self.tried = 0.0,
        }
        if let Some(to) = self.choice.tried() {
            // A second of it in time is what the node goes over by.
            self.tried += if share > 0.95 { seconds } else { -seconds };
            if self.tried >= 1.0 {
                self.arrive(to);
            }
        }
    }

    fn arrive(&mut self, to: RenditionId) {
        self.choice.arrived(self.now, to);
        self.moves.push((self.now.as_micros() / 1000, to));
    }

    fn run(&mut self, ms: u64, bps: impl Fn(u64) -> u64) {
        for step in 0..ms / STEP_MS {
            self.step(bps(step * STEP_MS));
        }
    }

    fn playing(&self) -> RenditionId {
        self.choice.playing()
    }
}

#[test]
fn a_line_that_drops_to_a_fifth_and_recovers() {
    // The trouble lasts for so long that a try falls just before, on and after its end.
    for trouble_ms in (20_000..30_000).step_by(500) {
        let mut model = Model::new(HIGH.id, Wanted::Auto);
        model.run(10_000, |_| 5_000_000);
        assert_eq!((model.playing(), model.tries), (HIGH.id, 0));
        model.run(2_000, |_| 1_000_000);
        assert_eq!(model.playing(), LOW.id, "down by two steps within two seconds: {:?}", model.moves);
        model.run(trouble_ms - 2_000, |_| 1_000_000);
        assert_eq!(model.playing(), LOW.id, "{:?}", model.moves);
        model.run(20_000, |_| 5_000_000);
        assert_eq!(model.playing(), HIGH.id, "up within twenty seconds: {:?}", model.moves);
        assert_eq!(model.stalls, 0);
        assert!(model.moves.len() <= 4, "{:?}", model.moves);
    }
}

#[test]
fn a_line_that_carries_the_middle_one_settles_there() {
    let mut model = Model::new(HIGH.id, Wanted::Auto);
    model.run(120_000, |_| 2_200_000);
    assert_eq!(model.playing(), MIDDLE.id);
    assert_eq!(model.stalls, 0);
    // One down; tries that fail are no moves.
    assert!(model.moves.len() <= 3, "{:?}", model.moves);
    assert!(model.tries <= 16, "{} tries", model.tries);
}

#[test]
fn a_sawtooth_is_followed_without_a_stall() {
    let mut model = Model::new(HIGH.id, Wanted::Auto);
    model.run(240_000, |ms| 5_000_000 - (ms % 40_000) * 4_000_000 / 40_000);
    assert_eq!(model.stalls, 0, "{:?}", model.moves);
    assert!(model.moves.len() <= 6 * 6, "{:?}", model.moves);
}

#[test]
fn who_waits_for_the_first_part_in_vain_begins_with_less() {
    for (bps, plays) in [(1_200_000, LOW.id), (0, HIGH.id), (3_400_000, HIGH.id)] {
        let mut choice = RenditionChoice::new(HIGH.id, Wanted::Auto);
        choice.offer(LADDER);
        for step in 0..40 {
            let now = Timestamp::from_millis(step * STEP_MS);
            let look = Look { kept: KEPT, received_bytes: bps / 8 * step / 10, ..Look::default() };
            if let Move::Switch { to, .. } = choice.look(now, &look) {
                choice.arrived(now, to);
            }
        }
        assert_eq!(choice.playing(), plays, "{bps} bit/s");
    }
}

#[test]
fn what_never_came_is_shunned_and_what_paused_is_not() {
    let at = Timestamp::from_millis;
    let look = |silent_ms, received_bytes| Look {
        kept: KEPT,
        silent: Duration::from_millis(silent_ms),
        received_bytes,
        ..Look::default()
    };
    let mut choice = RenditionChoice::new(HIGH.id, Wanted::Fixed(LOW.id));
    choice.offer(LADDER);
    choice.began(at(0));
    choice.arrived(at(1_000), LOW.id);
    // The source pauses, for longer than anybody waits: what was chosen stays.
    assert_eq!(choice.look(at(20_000), &look(17_000, 1)), Move::Stay);
    choice.arrived(at(20_100), HIGH.id);
    choice.arrived(at(20_200), LOW.id);
    assert_eq!(choice.look(at(26_000), &look(5_900, 2)), Move::Stay);
    // Nothing has come since it was entered.
    assert_eq!(choice.look(at(26_300), &look(6_200, 2)), Move::Switch { to: HIGH.id, reason: Reason::Gone });
    choice.arrived(at(26_300), HIGH.id);
    assert_eq!(choice.look(at(27_000), &look(100, 3)), Move::Stay);
    let later = at(26_300) + LOST_FOR;
    assert_eq!(choice.look(later, &look(100, 4)), Move::Try { to: LOW.id, reason: Reason::ByHand });
}

#[test]
fn noise_on_a_line_that_suffices_moves_nothing() {
    let mut model = Model::new(HIGH.id, Wanted::Auto);
    model.jitter_ms = 250;
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..1_200 {
        model.step(3_800_000 + rng.u64(..4_000_000));
    }
    assert_eq!((model.moves.len(), model.stalls), (0, 0), "{:?}", model.moves);
}

#[test]
fn a_source_that_pauses_is_no_narrow_line() {
    let mut model = Model::new(HIGH.id, Wanted::Auto);
    model.run(10_000, |_| 8_000_000);
    // Nothing comes for a second: what is behind is nobody's fault.
    model.run(1_000, |_| 0);
    assert_eq!(model.playing(), HIGH.id, "{:?}", model.moves);
}

#[test]
fn a_choice_by_hand_wins_and_auto_comes_back() {
    let mut model = Model::new(HIGH.id, Wanted::Auto);
    model.choice.choose(Wanted::Fixed(LOW.id));
    model.run(10_000, |_| 8_000_000);
    assert_eq!((model.playing(), model.moves.len()), (LOW.id, 1));
    model.choice.choose(Wanted::Fixed(HIGH.id));
    model.run(10_000, |_| 1_000_000);
    assert_eq!(model.playing(), HIGH.id, "even where the line does not carry it");
    model.choice.choose(Wanted::Auto);
    model.run(3_000, |_| 1_000_000);
    assert_eq!(model.playing(), LOW.id);
}

#[test]
fn one_rendition_and_none_do_nothing() {
    for offered in [&[HIGH][..], &[]] {
        let mut model = Model::new(HIGH.id, Wanted::Auto);
        model.choice.offer(offered.iter().copied());
        model.run(30_000, |ms| if ms < 10_000 { 8_000_000 } else { 400_000 });
        assert_eq!((model.moves.len(), model.tries), (0, 0));
    }
}

#[test]
fn what_the_channel_has_no_longer_is_left() {
    let mut model = Model::new(HIGH.id, Wanted::Fixed(HIGH.id));
    model.run(3_000, |_| 8_000_000);
    model.choice.offer([LOW, MIDDLE]);
    model.run(300, |_| 8_000_000);
    assert_eq!(model.playing(), MIDDLE.id);
}

#[test]
fn who_could_not_pass_on_its_share_does_not_go_up() {
    let mut model = Model::new(MIDDLE.id, Wanted::Auto);
    // It passes on all that it takes, and its line up carries little more.
    model.upload = (1_500_000, Some(1_800_000));
    model.run(30_000, |_| 8_000_000);
    assert_eq!((model.playing(), model.tries), (MIDDLE.id, 0));
    model.upload = (1_500_000, Some(4_000_000));
    model.run(10_000, |_| 8_000_000);
    assert_eq!(model.playing(), HIGH.id);
}

/// A cache that lets one fetch a part and looks for it twice a second gives everybody else each part up to half a second later.
#[test]
fn parts_that_come_unevenly_are_no_narrow_line() {
    const PART_MS: u64 = 200;
    const BEGAN_UNIX_MS: u64 = 1_000_000_000;
    let moves = |seed, counts_uneven: bool| {
        let mut choice = RenditionChoice::new(HIGH.id, Wanted::Auto);
        choice.offer([HIGH, LOW]);
        choice.began(Timestamp::ZERO);
        let (mut behind, mut delay) = (Behind::new(Timestamp::ZERO), PlayoutDelay::new(Bounds::USUAL));
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut part, mut comes, mut received, mut moves) = (1, PART_MS, 0, 0);
        for ms in (0..60_000).step_by(STEP_MS as usize) {
            let now = Timestamp::from_millis(ms);
            let unix_us = |ms: u64| (BEGAN_UNIX_MS + ms) * 1000;
            while comes <= ms {
                let lasts = Duration::from_millis(PART_MS);
                behind.arrived(now, unix_us(ms), unix_us(part * PART_MS), lasts);
                delay.arrived(now, unix_us(ms), unix_us(part * PART_MS), lasts);
                // A key frame each second takes as much as the four parts after it.
                received += HIGH.rate_bps / 8000 * if part % 5 == 0 { 500 } else { 125 };
                part += 1;
                comes = comes.max(part * PART_MS + rng.u64(0..500));
            }
            let look = Look {
                behind: behind.at(unix_us(ms)),
                uneven: if counts_uneven { delay.uneven() } else { Some(Duration::ZERO) },
                kept: delay.wanted(),
                received_bytes: received,
                ..Look::default()
            };
            match choice.look(now, &look) {
                Move::Switch { to, .. } => {
                    choice.arrived(now, to);
                    moves += 1;
                }
                Move::Try { to, .. } => choice.arrived(now, to),
                _ => {}
            }
        }
        moves
    };
    let all = |counts_uneven| (1..9).map(|seed| moves(seed, counts_uneven)).collect::<Vec<_>>();
    let (with, without) = (all(true), all(false));
    assert!(without.iter().filter(|moves| **moves > 0).count() > 4, "or this proves nothing: {without:?}");
    assert_eq!(with, [0; 8]);
}
