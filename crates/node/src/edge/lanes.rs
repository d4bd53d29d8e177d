//! How the renditions beside the first come into an edge: each by a swarm of its own, through a playout of its own, into a window of
//! its own. Signed parts go to the shelf without it.
//!
//! Knows which renditions are wanted and what they bring; its viewer joins and leaves their swarms.

use std::sync::Arc;
use std::time::Duration;

use caudal_proto::id::RenditionId;
use caudal_tracker::descriptor::{RENDITIONS_MAX, Rendition};
use tokio::time::Instant;

use super::variants::Variants;
use crate::live::{BYTES_MAX, Live};
use crate::tracking::{News, Tracking};
use crate::viewer::RETENTION;
use crate::viewer::playout::{Played, Playout};

/// Most renditions beside the first.
const LANES_MAX: usize = RENDITIONS_MAX - 1;
/// Most bytes that players may have of each, whatever the retention: of all together as much as of the first.
const LANE_BYTES_MAX: usize = BYTES_MAX / LANES_MAX;
/// Most that are remembered after they were left.
const LEFT_MAX: usize = LANES_MAX;
/// A rendition that is not named any more is left when nothing has come of it for so long: an encoder may come back, and two trackers
/// may not have the same descriptor.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// The renditions beside the first.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    wanted: Vec<RenditionId>,
    /// What was left: whoever comes back goes on with its window, so that no address ever names something else.
    left: Vec<Left>,
}

/// What remains of one that is no longer there.
#[derive(Debug)]
struct Left {
    rendition: RenditionId,
    playout: Playout,
    live: Arc<Live>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) rendition: RenditionId,
    pub(crate) playout: Playout,
    pub(crate) tracking: Tracking,
    live: Arc<Live>,
    /// When something came, or else when it was joined.
    came_at: Instant,
}

impl Lanes {
    /// The channel has these.
    pub(crate) fn offer(&mut self, offered: &[Rendition]) {
        self.wanted.clear();
        for rendition in offered.iter().map(Rendition::rendition).filter(|one| *one != RenditionId(0)) {
            if !self.wanted.contains(&rendition) && self.wanted.len() < LANES_MAX {
                self.wanted.push(rendition);
            }
        }
    }

    /// Those that are to be left, and those that are to be joined.
    pub(crate) fn changes(&self) -> (Vec<RenditionId>, Vec<RenditionId>) {
        let is_gone =
            |lane: &&Lane| !self.wanted.contains(&lane.rendition) && lane.came_at.elapsed() > GONE_AFTER;
        let gone: Vec<RenditionId> = self.lanes.iter().filter(is_gone).map(|lane| lane.rendition).collect();
        let is_there = |rendition: &RenditionId| self.renditions().any(|known| known == *rendition);
        let room = LANES_MAX - (self.lanes.len() - gone.len());
        let new = self.wanted.iter().filter(|rendition| !is_there(rendition)).take(room).copied();
        (gone, new.collect())
    }

    /// It cannot be joined: until the channel speaks of its renditions again.
    pub(crate) fn give_up(&mut self, rendition: RenditionId) {
        self.wanted.retain(|wanted| *wanted != rendition);
    }

    /// Which there are.
    pub(crate) fn renditions(&self) -> impl Iterator<Item = RenditionId> + '_ {
        self.lanes.iter().map(|lane| lane.rendition)
    }

    /// One more, whose swarm was joined.
    pub(crate) fn add(&mut self, rendition: RenditionId, tracking: Tracking, variants: &Variants) {
        let left = self.left.iter().position(|left| left.rendition == rendition);
        let (playout, live) = match left.map(|at| self.left.swap_remove(at)) {
            Some(Left { playout, live, .. }) => (playout, live),
            None => (Playout::new(), Live::within(RETENTION, LANE_BYTES_MAX)),
        };
        variants.add(rendition, Arc::clone(&live));
        self.lanes.push(Lane { rendition, playout, tracking, live, came_at: Instant::now() });
    }

    /// One less; who told of its swarm.
    pub(crate) fn remove(&mut self, rendition: RenditionId, variants: &Variants) -> Option<Tracking> {
        variants.remove(rendition);
        let at = self.lanes.iter().position(|lane| lane.rendition == rendition)?;
        let Lane { playout, tracking, live, .. } = self.lanes.swap_remove(at);
        if self.left.len() >= LEFT_MAX {
            self.left.remove(0);
        }
        self.left.push(Left { rendition, playout, live });
        Some(tracking)
    }

    /// The one of `rendition`.
    pub(crate) fn get(&mut self, rendition: RenditionId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.rendition == rendition)
    }

    /// Gives players all that is there for them.
    pub(crate) fn play(&mut self) {
        for lane in &mut self.lanes {
            while let Some(played) = lane.playout.poll() {
                match played {
                    Played::Part(part) => {
                        lane.came_at = Instant::now();
                        lane.live.push(part);
                    }
                    Played::Gap(parts) => {
                        tracing::warn!("rendition {}: stepped over {parts} missing parts", lane.rendition.0);
                    }
                }
            }
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.playout.tick());
    }

    /// What trackers said of their swarms.
    pub(crate) fn news(&mut self) -> Vec<(RenditionId, News)> {
        let lanes = self.lanes.iter_mut();
        lanes
            .flat_map(|lane| {
                let rendition = lane.rendition;
                std::iter::from_fn(|| lane.tracking.news.try_recv().ok())
                    .map(|news| (rendition, news))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Nothing follows: trackers are told.
    pub(crate) async fn leave(self) {
        self.left.iter().for_each(|left| left.live.end());
        let leave = self.lanes.into_iter().map(|lane| {
            lane.live.end();
            lane.tracking.leave()
        });
        futures_util::future::join_all(leave).await;
    }
}

#[cfg(test)]
mod tests {
    use caudal_proto::id::{SecretKey, SwarmId};

    use super::*;
    use crate::tracking::TrackingConfig;

    fn offered(ids: &[u8]) -> Vec<Rendition> {
        let one = |id: &u8| Rendition {
            id: *id,
            codecs: "avc1.64001f".to_owned(),
            width: None,
            height: None,
            fps: None,
            bandwidth_bps: 1,
        };
        ids.iter().map(one).collect()
    }

    /// Told by no tracker.
    fn tracking(rendition: RenditionId) -> Tracking {
        let key = SecretKey::from_bytes(&[1; 32]);
        let swarm = SwarmId { channel: key.channel(), rendition };
        let config = TrackingConfig {
            key,
            swarm,
            ports: vec![],
            addresses: vec![],
            upload_bps: None,
            source: None,
            comes_over: false,
        };
        Tracking::start(&[], &config).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn renditions_that_appear_and_go_are_followed() {
        let (mut lanes, variants) = (Lanes::default(), Variants::default());
        let ids = |ids: &[u8]| ids.iter().map(|id| RenditionId(*id)).collect::<Vec<_>>();
        lanes.offer(&offered(&[0]));
        assert_eq!(lanes.changes(), (vec![], vec![]));
        lanes.offer(&offered(&[0, 2, 1, 2]));
        assert_eq!(lanes.changes(), (vec![], ids(&[2, 1])));
        for rendition in ids(&[2, 1]) {
            lanes.add(rendition, tracking(rendition), &variants);
        }
        lanes.offer(&offered(&[0, 1, 63]));
        assert_eq!(lanes.changes(), (vec![], ids(&[63])), "it may come back");
        tokio::time::advance(GONE_AFTER + Duration::from_secs(1)).await;
        assert_eq!(lanes.changes(), (ids(&[2]), ids(&[63])));
        assert!(variants.live(RenditionId(2)).is_some());
        assert!(lanes.remove(RenditionId(2), &variants).is_some());
        assert!(variants.live(RenditionId(2)).is_none() && variants.live(RenditionId(1)).is_some());
        lanes.add(RenditionId(62), tracking(RenditionId(62)), &variants);
        lanes.offer(&offered(&(1..=20).collect::<Vec<u8>>()));
        assert_eq!(lanes.changes().1.len(), LANES_MAX - 2, "1 is there, and 62 still has its place");
        lanes.offer(&[]);
        assert_eq!(lanes.changes(), (ids(&[1]), vec![]));

        let before = variants.live(RenditionId(1));
        lanes.remove(RenditionId(1), &variants);
        lanes.add(RenditionId(1), tracking(RenditionId(1)), &variants);
        let is_same = before.zip(variants.live(RenditionId(1))).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b));
        assert!(is_same, "no address names something else when it has come back");
    }
}
