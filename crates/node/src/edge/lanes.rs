//! How the renditions beside the first come into an edge: each by a swarm of its own, through a playout of its own, into a window of
//! its own. Signed parts go to the shelf without it.
//!
//! Knows which renditions are wanted and what they bring; its viewer joins and leaves their swarms.

use std::sync::Arc;

use caudal_proto::id::RenditionId;
use caudal_tracker::descriptor::{RENDITIONS_MAX, Rendition};

use super::variants::Variants;
use crate::live::{BYTES_MAX, Live};
use crate::tracking::{News, Tracking};
use crate::viewer::RETENTION;
use crate::viewer::playout::{Played, Playout};

/// Most renditions beside the first.
const LANES_MAX: usize = RENDITIONS_MAX - 1;
/// Most bytes that players may have of each, whatever the retention: of all together as much as of the first.
const LANE_BYTES_MAX: usize = BYTES_MAX / LANES_MAX;

/// The renditions beside the first.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Vec<Lane>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) rendition: RenditionId,
    pub(crate) playout: Playout,
    pub(crate) tracking: Tracking,
    live: Arc<Live>,
}

impl Lanes {
    /// Those that are there and are not wanted any more, and those that are wanted and not there, where `offered` are all.
    pub(crate) fn changes(&self, offered: &[Rendition]) -> (Vec<RenditionId>, Vec<RenditionId>) {
        let mut wanted: Vec<RenditionId> = Vec::new();
        for rendition in offered.iter().map(Rendition::rendition).filter(|one| *one != RenditionId(0)) {
            if !wanted.contains(&rendition) && wanted.len() < LANES_MAX {
                wanted.push(rendition);
            }
        }
        let gone = self.renditions().filter(|known| !wanted.contains(known)).collect();
        wanted.retain(|rendition| self.renditions().all(|known| known != *rendition));
        (gone, wanted)
    }

    /// Which there are.
    pub(crate) fn renditions(&self) -> impl Iterator<Item = RenditionId> + '_ {
        self.0.iter().map(|lane| lane.rendition)
    }

    /// One more, whose swarm was joined.
    pub(crate) fn add(&mut self, rendition: RenditionId, tracking: Tracking, variants: &Variants) {
        let live = Live::within(RETENTION, LANE_BYTES_MAX);
        variants.add(rendition, Arc::clone(&live));
        self.0.push(Lane { rendition, playout: Playout::new(), tracking, live });
    }

    /// One less.
    pub(crate) fn remove(&mut self, rendition: RenditionId, variants: &Variants) -> Option<Lane> {
        variants.remove(rendition);
        let at = self.0.iter().position(|lane| lane.rendition == rendition)?;
        Some(self.0.swap_remove(at))
    }

    /// The one of `rendition`.
    pub(crate) fn get(&mut self, rendition: RenditionId) -> Option<&mut Lane> {
        self.0.iter_mut().find(|lane| lane.rendition == rendition)
    }

    /// Gives players all that is there for them.
    pub(crate) fn play(&mut self) {
        for lane in &mut self.0 {
            while let Some(played) = lane.playout.poll() {
                match played {
                    Played::Part(part) => lane.live.push(part),
                    Played::Gap(parts) => {
                        tracing::warn!("rendition {}: stepped over {parts} missing parts", lane.rendition.0);
                    }
                }
            }
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self) {
        self.0.iter_mut().for_each(|lane| lane.playout.tick());
    }

    /// What trackers said of their swarms.
    pub(crate) fn news(&mut self) -> Vec<(RenditionId, News)> {
        let lanes = self.0.iter_mut();
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
        let leave = self.0.into_iter().map(|lane| {
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

    #[test]
    fn renditions_that_appear_and_go_are_followed() {
        let (mut lanes, variants) = (Lanes::default(), Variants::default());
        let ids = |ids: &[u8]| ids.iter().map(|id| RenditionId(*id)).collect::<Vec<_>>();
        assert_eq!(lanes.changes(&offered(&[0])), (vec![], vec![]));
        assert_eq!(lanes.changes(&offered(&[0, 2, 1, 2])), (vec![], ids(&[2, 1])));
        for rendition in ids(&[2, 1]) {
            lanes.add(rendition, tracking(rendition), &variants);
        }
        assert_eq!(lanes.changes(&offered(&[0, 1, 63])), (ids(&[2]), ids(&[63])));
        assert!(variants.live(RenditionId(2)).is_some());
        assert!(lanes.remove(RenditionId(2), &variants).is_some());
        assert!(variants.live(RenditionId(2)).is_none() && variants.live(RenditionId(1)).is_some());
        let many: Vec<u8> = (1..=20).collect();
        assert_eq!(lanes.changes(&offered(&many)).1.len(), LANES_MAX - 1, "1 is there");
        assert_eq!(lanes.changes(&[]), (ids(&[1]), vec![]));
    }
}
