//! Swarms of a channel's renditions, or what comes of each over HTTP: joined, left, and gone over to, as
//! [`Renditions`](super::rendition::Renditions) says. An edge is in all of them.

use std::sync::Arc;
use std::time::Duration;

use caudal_proto::chunk::Ed25519Verifier;
use caudal_proto::hop::Tracing;
use caudal_proto::id::{RenditionId, SecretKey, SwarmId};
use caudal_proto::io::{Candidate, Input};
use caudal_proto::qos::rendition::{Look, Move, Reason};
use caudal_proto::record::Ed25519Records;
use caudal_proto::swarm::policy::Policy;
use caudal_proto::swarm::{Role, SwarmConfig, SwarmStats};
use caudal_tracker::client::ClientError;
use caudal_tracker::descriptor::Rendition;
use caudal_tracker::url::AllowedUrl;
use tokio::sync::mpsc;

use super::playout::Playout;
use super::rendition::{Next, Preference, Tried};
use super::{RETENTION, Side, Viewer};
use crate::clock::unix_us;
use crate::edge::feed::Entry;
use crate::edge::variants::Variants;
use crate::maps::Vantage;
use crate::network::is_lan;
use crate::source::lane::sum;
use crate::tracking::{News, Tracking, TrackingConfig};

/// Over HTTP it is told when segments were captured: one that was so little later begins at the point reached.
const ON_POINT_US: u64 = 20_000;

/// What a further swarm of the channel is joined with.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) trackers: Vec<AllowedUrl>,
    pub(super) upload: bool,
    pub(super) hops: Tracing,
    pub(super) key: SecretKey,
    pub(super) tracking: TrackingConfig,
}

impl Joining {
    pub(super) fn swarm(&self, swarm: SwarmId, vantage: &Arc<Vantage>, policy: Policy) -> SwarmConfig {
        SwarmConfig {
            channel: swarm.channel,
            rendition: swarm.rendition,
            role: Role::Viewer,
            upload: self.upload,
            retention: RETENTION,
            lan: is_lan(&self.trackers),
            policy,
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Ed25519Records(self.key.clone())),
            network_map: Some(vantage.network_map()),
        }
    }

    pub(super) fn track(&self, swarm: SwarmId, comes_over: bool) -> Result<Tracking, ClientError> {
        Tracking::start(&self.trackers, &TrackingConfig { swarm, comes_over, ..self.tracking.clone() })
    }
}

impl Viewer {
    /// The swarm that is followed.
    pub(super) fn swarm(&self) -> SwarmId {
        SwarmId { channel: self.shared.channel, rendition: self.renditions.playing() }
    }

    /// The same, the one that is tried beside it, and on an edge all others.
    pub(super) fn swarms(&self) -> Vec<SwarmId> {
        let tried = self.renditions.tried.as_ref().map(|tried| tried.rendition);
        let beside = tried.into_iter().chain(self.lanes.renditions());
        let beside = beside.map(|rendition| SwarmId { channel: self.shared.channel, rendition });
        [self.swarm()].into_iter().chain(beside).collect()
    }

    /// What puts this swarm's parts together, if it is that of what is tried, or one more of an edge's.
    pub(super) fn beside(&mut self, swarm: SwarmId) -> Option<&mut Playout> {
        let tried = self.renditions.tried.as_mut().filter(|tried| tried.rendition == swarm.rendition);
        let lane = self.lanes.get(swarm.rendition).map(|lane| &mut lane.playout);
        tried.map(|tried| &mut tried.playout).or(lane)
    }

    /// Who tells of that swarm.
    pub(super) fn tracking_beside(&mut self, swarm: SwarmId) -> Option<&Tracking> {
        let tried = self.renditions.tried.as_ref().filter(|tried| tried.rendition == swarm.rendition);
        let lane = self.lanes.get(swarm.rendition).map(|lane| &lane.tracking);
        tried.and_then(|tried| tried.tracking.as_ref()).or(lane)
    }

    /// The channel's descriptor names these renditions.
    pub(super) fn offered(&mut self, offered: Vec<Rendition>) {
        self.shared.lock().shown.offered.clone_from(&offered);
        if let Some(shelf) = &self.shared.shelf {
            shelf.variants.offer(offered.clone());
            self.lanes.offer(&offered);
        }
        let preference = self.shared.preference();
        if let Preference::Id(id) = preference
            && !offered.is_empty()
            && offered != self.renditions.offered
            && offered.iter().all(|one| one.rendition() != id)
        {
            let there: Vec<String> = offered.iter().map(|one| one.id.to_string()).collect();
            tracing::warn!("the channel has no rendition {}: it has {}", id.0, there.join(", "));
        }
        self.renditions.offer(offered, preference);
    }

    /// An edge has all renditions that there are.
    async fn look_at_lanes(&mut self, variants: &Variants) {
        for (rendition, news) in self.lanes.news() {
            self.hear_of(rendition, news).await;
        }
        let (gone, new) = self.lanes.changes();
        if gone.is_empty() && new.is_empty() {
            return;
        }
        for rendition in gone {
            tracing::info!("rendition {} is no longer there", rendition.0);
            self.leave(SwarmId { channel: self.shared.channel, rendition }).await;
            if let Some(tracking) = self.lanes.remove(rendition, variants) {
                tokio::spawn(tracking.leave());
            }
        }
        for rendition in new {
            match self.join(rendition, Policy::default(), Entry::Newest).await {
                Ok(Some(tracking)) => self.lanes.add(rendition, tracking, variants),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("rendition {}: {error}", rendition.0);
                    self.lanes.give_up(rendition);
                }
            }
        }
        self.shared.lock().shown.beside = self.lanes.renditions().collect();
    }

    /// Looks at how it goes, and makes the move that this asks for.
    pub(super) async fn look(&mut self) {
        if let Some(shelf) = self.shared.shelf.clone() {
            self.look_at_lanes(&shelf.variants).await;
            return;
        }
        self.hear_of_tried().await;
        if let Some(tried) = &mut self.renditions.tried {
            tried.playout.tick();
        }
        self.play().await;
        let (through_caches, kept, upload_bps, upload_capacity_bps) = {
            let inner = self.shared.lock();
            (inner.delay.uneven(), inner.delay.wanted(), inner.rates.all().1, inner.stats.upload_capacity_bps)
        };
        let look = Look {
            behind: self.renditions.behind(),
            uneven: match &self.side {
                Side::Swarm(..) => Some(Duration::ZERO),
                Side::Edges(_) => through_caches,
            },
            kept,
            silent: self.renditions.silent(),
            received_bytes: match &self.side {
                Side::Swarm(..) => self.renditions.received_bytes,
                Side::Edges(feed) => feed.read_bytes(),
            },
            upload_bps,
            upload_capacity_bps,
        };
        let now = self.renditions.now();
        match self.renditions.choice.look(now, &look) {
            Move::Stay => {}
            Move::Switch { to, reason } => self.switch(to, reason).await,
            Move::Try { to, reason } => self.try_beside(to, reason).await,
            Move::GiveUp { reason } => {
                tracing::info!("the other rendition is left: {}", reason.as_str());
                self.leave_tried().await;
            }
        }
    }

    /// What trackers say of the tried rendition's swarm; of the channel the other side hears.
    async fn hear_of_tried(&mut self) {
        let mut heard = Vec::new();
        if let Some(tried) = &mut self.renditions.tried
            && let Some(tracking) = &mut tried.tracking
        {
            while let Ok(news) = tracking.news.try_recv() {
                heard.push((tried.rendition, news));
            }
        }
        for (rendition, news) in heard {
            self.hear_of(rendition, news).await;
        }
    }

    /// What trackers say of a swarm itself.
    pub(super) async fn hear_of(&self, rendition: RenditionId, news: News) {
        let swarm = SwarmId { channel: self.shared.channel, rendition };
        match news {
            News::Peers(peers) => self.input(Input::Candidates(swarm, peers)).await,
            News::Broadcast(broadcast) => {
                self.input(Input::Broadcast(swarm, broadcast.0, Some(broadcast.1))).await;
            }
            _ => {}
        }
    }

    /// Gives players all that is there for them.
    pub(super) async fn play(&mut self) {
        while let Some(next) = self.renditions.next(&mut self.playout) {
            match next {
                Next::Part(part) => {
                    if self.renditions.seam.leaves_hole(&part) {
                        tracing::warn!("the other rendition begins after what was given");
                        self.shared.lock().gaps += 1;
                    }
                    if let Some(part) = self.renditions.pass(part) {
                        self.shared.part(part);
                    }
                }
                Next::Gap(parts) => {
                    tracing::warn!("stepped over {parts} missing parts");
                    self.shared.lock().gaps += 1;
                }
                Next::GoOver(parts) => self.go_over(parts).await,
            }
        }
        self.lanes.play();
    }

    /// The tried rendition plays from here on, with these parts first.
    async fn go_over(&mut self, parts: Vec<caudal_media::part::Part>) {
        let Some(tried) = self.renditions.tried.take() else { return };
        let Tried { rendition, playout, tracking, .. } = tried;
        self.leave(self.swarm()).await;
        self.follow(rendition, playout, tracking);
        self.shared.lock().meter.changed(self.playout.newest_number() + 1, unix_us());
        self.renditions.seam.enter();
        for part in parts {
            if let Some(part) = self.renditions.pass(part) {
                self.shared.part(part);
            }
        }
    }

    /// Leaves what plays and enters `to` where players have come to.
    async fn switch(&mut self, to: RenditionId, reason: Reason) {
        self.leave_tried().await;
        let policy = Policy::default().at_place(self.renditions.behind(), self.way());
        let entry = match self.renditions.reached_unix_us() {
            0 => Entry::Newest,
            reached => Entry::Before(reached.saturating_add(ON_POINT_US)),
        };
        self.leave(self.swarm()).await;
        match self.join(to, policy, entry).await {
            Ok(tracking) => {
                self.follow(to, Playout::new(), tracking);
                self.shared.lock().shown.reason = Some(reason);
                self.has_changed = true;
                self.renditions.seam.enter();
            }
            Err(error) => tracing::warn!("rendition {}: {error}", to.0),
        }
    }

    /// The shortest round trip to a neighbour.
    fn way(&self) -> Duration {
        let inner = self.shared.lock();
        let shortest = inner.stats.neighbours.iter().map(|neighbour| neighbour.rtt_us).min();
        Duration::from_micros(shortest.unwrap_or(0))
    }

    /// `rendition` is followed from now on.
    fn follow(&mut self, rendition: RenditionId, playout: Playout, tracking: Option<Tracking>) {
        tracing::info!("rendition {} from here on", rendition.0);
        self.playout = playout;
        if let Side::Swarm(_, side) = &mut self.side
            && let Some(mut tracking) = tracking
        {
            self.news = std::mem::replace(&mut tracking.news, mpsc::channel(1).1);
            let old = std::mem::replace(side, tracking);
            tokio::spawn(old.leave());
        }
        self.renditions.went_over(rendition);
        let mut inner = self.shared.lock();
        inner.shown.rendition = rendition;
        inner.shown.tried = None;
        inner.shown.changes += 1;
    }

    async fn try_beside(&mut self, to: RenditionId, reason: Reason) {
        match self.join(to, Policy::default().beside(), Entry::Next).await {
            Ok(tracking) => {
                self.renditions.tried = Some(Tried::new(to, tracking));
                let mut inner = self.shared.lock();
                inner.shown.tried = Some(to);
                inner.shown.reason = Some(reason);
            }
            Err(error) => tracing::warn!("rendition {}: {error}", to.0),
        }
    }

    /// The line is paid by the byte from now on, or no longer: nothing is sent then, to whatever swarm.
    pub(super) async fn meter_changed(&mut self, is_metered: bool) {
        if std::mem::replace(&mut self.shared.lock().metered, is_metered) == is_metered {
            return;
        }
        let Some(joining) = self.joining.as_mut().filter(|_| self.shared.may_upload()) else { return };
        joining.upload = !is_metered;
        tracing::warn!("this connection is {}metered now", if is_metered { "" } else { "no longer " });
        for swarm in self.swarms() {
            self.input(Input::Upload(swarm, !is_metered)).await;
        }
    }

    async fn leave_tried(&mut self) {
        let Some(tried) = self.renditions.tried.take() else { return };
        self.shared.lock().shown.tried = None;
        self.leave(SwarmId { channel: self.shared.channel, rendition: tried.rendition }).await;
        if let Some(tracking) = tried.tracking {
            tokio::spawn(tracking.leave());
        }
    }

    /// Joins a swarm of the channel beside those that there are. Whoever publishes the channel is in all of them: it is asked
    /// before trackers have answered. Over HTTP there is nobody to meet, and nobody who tells of them.
    async fn join(
        &mut self,
        rendition: RenditionId,
        policy: Policy,
        entry: Entry,
    ) -> Result<Option<Tracking>, ClientError> {
        let swarm = SwarmId { channel: self.shared.channel, rendition };
        if let Side::Edges(feed) = &mut self.side {
            feed.join(rendition, entry);
        }
        let Some(joining) = &self.joining else { return Ok(None) };
        let tracking = joining.track(swarm, true)?;
        let config = joining.swarm(swarm, &self.shared.vantage, policy);
        let hops = joining.hops;
        self.input(Input::Open(Box::new(config))).await;
        self.input(Input::Trace(swarm, hops)).await;
        if self.served_alone {
            self.input(Input::ServedAlone(swarm, true)).await;
        }
        if let Some(certificate) = self.certificate {
            self.input(Input::Broadcast(swarm, certificate, None)).await;
        }
        let sources: Vec<Candidate> = {
            let inner = self.shared.lock();
            let sources = inner.stats.neighbours.iter().filter(|neighbour| neighbour.source);
            sources.map(|n| Candidate { peer: n.peer, addrs: Vec::new(), source: true, cost: 0 }).collect()
        };
        self.input(Input::Candidates(swarm, sources)).await;
        Ok(Some(tracking))
    }

    /// Leaves a swarm; what was counted there stays.
    async fn leave(&mut self, swarm: SwarmId) {
        let stats = match &mut self.side {
            Side::Swarm(handle, _) => handle.stats(swarm).await,
            Side::Edges(feed) => feed.leave(swarm.rendition),
        };
        if let Some(stats) = stats {
            let mut inner = self.shared.lock();
            let stats = SwarmStats { neighbours: Vec::new(), children: 0, ..stats };
            inner.shown.left = sum([&inner.shown.left, &stats]);
        }
        self.input(Input::Leave(swarm)).await;
    }
}
