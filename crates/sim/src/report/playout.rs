//! What a player makes of how parts came: `proto::qos` fed with each viewer's own. Decides nothing about delays itself.

use caudal_proto::qos::playout::{Bounds, PlayoutDelay};
use caudal_proto::time::Timestamp;
use serde::Serialize;

use super::Percentiles;
use super::measure::percentiles;
use crate::world::{Node, World};

/// Who has received fewer parts says nothing of how uneven they come.
const PARTS_MIN: usize = 50;

/// How players fare that keep as much ahead as `proto::qos` wants, over viewers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PlayoutReport {
    /// What is kept ahead of the picture, at its lowest.
    pub wanted_ms: Percentiles,
    /// The way here: of the part that came soonest.
    pub way_ms: Percentiles,
    /// How far a picture is behind its capture when it is shown: the part it waited for, the way here and what is kept ahead.
    pub behind_ms: Percentiles,
    /// Of the parts of the second half of the run, those in time for what was wanted when they were due.
    pub on_time: f64,
    /// Viewers that were asked.
    pub viewers: usize,
}

/// One viewer's player.
struct Player {
    wanted_us: u64,
    way_us: u64,
    behind_us: u64,
    due: u64,
    on_time: u64,
}

impl PlayoutReport {
    /// `None` where chunks are no parts of a stream.
    pub(super) fn of(world: &World, bounds: Bounds) -> Option<Self> {
        if world.config.part.is_zero() {
            return None;
        }
        let viewers = world.nodes.iter().filter(|node| !node.is_source && node.is_honest());
        let players: Vec<Player> = viewers.filter_map(|node| Player::of(world, node, bounds)).collect();
        let due: u64 = players.iter().map(|player| player.due).sum();
        let on_time: u64 = players.iter().map(|player| player.on_time).sum();
        (due > 0).then(|| Self {
            wanted_ms: percentiles(players.iter().map(|player| player.wanted_us).collect()),
            way_ms: percentiles(players.iter().map(|player| player.way_us).collect()),
            behind_ms: percentiles(players.iter().map(|player| player.behind_us).collect()),
            on_time: on_time as f64 / due as f64,
            viewers: players.len(),
        })
    }
}

impl Player {
    fn of(world: &World, node: &Node, bounds: Bounds) -> Option<Self> {
        let parts = lateness(world, node);
        if parts.len() < PARTS_MIN {
            return None;
        }
        let mut delay = PlayoutDelay::new(bounds);
        let mut in_time = 0;
        let half = parts.len() / 2;
        // What never came is nothing that could be waited for.
        let mut arrivals: Vec<(u64, u64)> =
            parts.iter().filter_map(|(at, late_us)| Some((at + (*late_us)?, *at))).collect();
        arrivals.sort_unstable();
        let mut arrivals = arrivals.into_iter().peekable();
        for (n, &(at, late_us)) in parts.iter().enumerate() {
            while let Some((now, at)) = arrivals.next_if(|(now, _)| *now <= at + bridged_us(&delay)) {
                delay.arrived(Timestamp::from_micros(now), now, at, world.config.part);
            }
            let is_in_time = late_us.is_some_and(|late_us| late_us <= bridged_us(&delay));
            in_time += u64::from(n >= half && is_in_time);
        }
        Some(Self {
            wanted_us: delay.wanted().as_micros() as u64,
            way_us: delay.way().as_micros() as u64,
            behind_us: world.config.part.as_micros() as u64 + bridged_us(&delay),
            due: (parts.len() - half) as u64,
            on_time: in_time,
        })
    }
}

/// How late a part may be for a player that keeps as much ahead as is wanted.
fn bridged_us(delay: &PlayoutDelay) -> u64 {
    (delay.way() + delay.wanted()).as_micros() as u64
}

/// Of each part that was published while measured and this viewer was there: when, and how long its last chunk took.
fn lateness(world: &World, node: &Node) -> Vec<(u64, Option<u64>)> {
    let Some(start) = node.record.start else { return Vec::new() };
    let (from, left) = (world.measured_from(), node.record.left.unwrap_or(u64::MAX));
    // The last seconds may still be on their way.
    let to = world.end().min(left).saturating_sub(world.config.patience.as_micros() as u64);
    let mut parts: Vec<(u64, u64, Option<u64>)> = Vec::new();
    for (serial, published) in world.broadcast.published.iter().enumerate().skip(start) {
        if published.at < from.max(node.record.joined) || published.at >= to || !node.is_due(published) {
            continue;
        }
        let part = published.chunk.header().part;
        let late = node.record.delay(serial).map(u64::from);
        match parts.last_mut().filter(|(last, ..)| *last == part) {
            Some((.., worst)) => *worst = worst.zip(late).map(|(a, b)| a.max(b)),
            None => parts.push((part, published.at, late)),
        }
    }
    parts.into_iter().map(|(_, at, late)| (at, late)).collect()
}
