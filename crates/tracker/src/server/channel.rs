//! One channel's soft state: who is in it, its broadcast, its descriptor; and which peers an asker gets.
//!
//! Time is handed in, randomness too; nothing here does IO.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use caudal_proto::addr::{Class, classify};
use caudal_proto::broadcast::{Certificate, LiveNote};
use caudal_proto::id::{PeerId, RenditionId};

use crate::descriptor::{Delivery, Descriptor, SignedDescriptor};
use crate::message::{ChannelState, PeerInfo, QUALITY_REPORTS_MIN, Qos, Quality, RenditionViewers};
use crate::server::near::{Groups, Map, Place};
use crate::server::pick::{self, Wish};

/// Members looked at to answer one asker: enough to choose among, and a bound on the work.
const SAMPLE: usize = 128;
/// Sources in an answer.
const SOURCES_PER_ANSWER: usize = 4;
/// In a larger swarm an answer names the sources with a chance of this by its peers: a source takes no more neighbours, and everybody
/// whom it must refuse costs it a connection …
const SOURCE_NAMED: usize = 32;
/// … but no less often than in one answer of so many: peers may be dead, or invented to hide the source.
const SOURCE_ANSWERS_MAX: usize = 64;
/// Beyond the first of a crowd it is named once in this long at most: who comes costs a source's line a connection, ms.
const SOURCE_NAMED_PERIOD_MS: u64 = 125;
/// How long computed means stay good, ms.
const QUALITY_AGE_MS: u64 = 1000;

/// A peer in a channel.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Validated: the request's address, or this machine's own in LAN mode.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The network that it counts against; `None` when exempt.
    pub(crate) network: Option<u128>,
    /// Bit n: it is in rendition n.
    pub(crate) renditions: u64,
    /// Upload that it offers or has measured, bit/s; its own word.
    pub(crate) upload_bps: u64,
    /// What it last reported.
    pub(crate) qos: Option<Qos>,
    /// When it is forgotten, monotonic ms.
    pub(crate) expires_ms: u64,
    /// Its place in [`Channel::order`].
    place: usize,
    /// Its group in [`Channel::groups`], and its index there.
    group: Option<(Place, usize)>,
}

impl Member {
    pub(crate) fn new(addresses: Vec<SocketAddr>, network: Option<u128>) -> Self {
        Self {
            addresses,
            network,
            renditions: 0,
            upload_bps: 0,
            qos: None,
            expires_ms: 0,
            place: 0,
            group: None,
        }
    }

    /// Where it is in the network: the address that the tracker saw, or the one that a process on its own machine says, which it
    /// sees as loopback.
    pub(crate) fn home(&self) -> Option<IpAddr> {
        let seen = self.addresses.first()?.ip();
        self.addresses.iter().map(SocketAddr::ip).find(|ip| *ip != seen).or(Some(seen))
    }

    /// Which rendition plays, if it reports that. Who has left that swarm since, and is in one other, has gone over to it.
    fn playing(&self) -> Option<RenditionId> {
        let told = RenditionId(self.qos?.rendition?);
        if self.renditions & bit(told) != 0 {
            return Some(told);
        }
        let is_clear = self.renditions.count_ones() == 1;
        is_clear.then(|| RenditionId(self.renditions.trailing_zeros() as u8))
    }
}

/// How many watch, and how it goes for them; none below [`QUALITY_REPORTS_MIN`] reports.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Audience {
    pub(crate) viewers: u32,
    pub(crate) quality: Option<Quality>,
}

impl Audience {
    /// Whether a person would see the difference: another number of viewers, another hundredth of continuity.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        let hundredths = |quality: &Option<Quality>| {
            quality.as_ref().map(|q| q.continuity.map(|ratio| (ratio * 100.0).round() as i64))
        };
        self.viewers == other.viewers && hundredths(&self.quality) == hundredths(&other.quality)
    }
}

/// The bit of a rendition in [`Member::renditions`].
pub(crate) fn bit(rendition: RenditionId) -> u64 {
    1 << (rendition.0 & 63)
}

/// One channel.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    members: BTreeMap<PeerId, Member>,
    /// The members in no order, so that one can be drawn at random in constant time.
    order: Vec<PeerId>,
    /// Members proven to be sources of the present epoch.
    pub(crate) sources: BTreeSet<PeerId>,
    pub(crate) broadcast: Option<(Certificate, LiveNote)>,
    pub(crate) descriptor: Option<(SignedDescriptor, Descriptor)>,
    /// When it was last of use, monotonic ms.
    pub(crate) used_ms: u64,
    /// What subscribers were last told: the state, and whether it was in the directory.
    pub(crate) announced: Option<(ChannelState, bool)>,
    /// What subscribers and lists know of its audience.
    pub(crate) told: Audience,
    quality: Option<(u64, Quality)>,
    /// It named its sources to so many that its account is even then, monotonic ms.
    source_named_until_ms: u64,
    /// The members by network, once a map speaks.
    pub(crate) groups: Groups,
}

impl Channel {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn viewers(&self) -> u32 {
        u32::try_from(self.members.len() - self.sources.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn member(&self, peer: &PeerId) -> Option<&Member> {
        self.members.get(peer)
    }

    pub(crate) fn member_mut(&mut self, peer: &PeerId) -> Option<&mut Member> {
        self.members.get_mut(peer)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = (&PeerId, &Member)> {
        self.members.iter()
    }

    pub(crate) fn insert(&mut self, peer: PeerId, mut member: Member) {
        self.ungroup(&peer);
        if self.groups.version != 0 {
            self.groups.unsorted.push(peer);
        }
        if let Some(old) = self.members.get(&peer) {
            member.place = old.place;
        } else {
            member.place = self.order.len();
            self.order.push(peer);
        }
        self.members.insert(peer, member);
    }

    pub(crate) fn remove(&mut self, peer: &PeerId) -> Option<Member> {
        self.ungroup(peer);
        let member = self.members.remove(peer)?;
        self.sources.remove(peer);
        self.order.swap_remove(member.place);
        if let Some(moved) = self.order.get(member.place)
            && let Some(moved) = self.members.get_mut(moved)
        {
            moved.place = member.place;
        }
        Some(member)
    }

    fn ungroup(&mut self, peer: &PeerId) {
        let group = self.members.get_mut(peer).and_then(|member| member.group.take());
        let Some((place, index)) = group else { return };
        if let Some(moved) = self.groups.remove(place, index)
            && let Some(moved) = self.members.get_mut(&moved)
        {
            moved.group = Some((place, index));
        }
    }

    /// Sorts the members by network: all of them by a new version of the map, and those that came since the last time.
    fn group(&mut self, map: &Map) {
        let peers = if self.groups.version == map.version() {
            std::mem::take(&mut self.groups.unsorted)
        } else {
            self.groups.clear(map.version());
            self.members.values_mut().for_each(|member| member.group = None);
            self.order.clone()
        };
        for peer in peers {
            let Some(member) = self.members.get_mut(&peer).filter(|member| member.group.is_none()) else {
                continue;
            };
            if let Some(place) = member.home().and_then(|ip| map.place(ip)) {
                member.group = Some((place, self.groups.add(place, peer)));
            }
        }
    }

    /// No map speaks any more.
    pub(crate) fn forget_map(&mut self) {
        self.groups.clear(0);
        self.members.values_mut().for_each(|member| member.group = None);
    }

    /// The network of a member, as it was sorted.
    pub(crate) fn place(&self, peer: &PeerId) -> Option<Place> {
        self.members.get(peer)?.group.map(|(place, _)| place)
    }

    /// How the channel is, the operator's lists aside.
    pub(crate) fn state(&self) -> ChannelState {
        match &self.broadcast {
            None => ChannelState::Waiting,
            Some((_, note)) if note.ended => ChannelState::Ended,
            Some(_) if self.sources.is_empty() => ChannelState::Silent,
            Some(_) => ChannelState::Live,
        }
    }

    /// Whether the broadcaster wants it listed.
    pub(crate) fn is_listed(&self) -> bool {
        self.descriptor.as_ref().is_some_and(|(_, descriptor)| descriptor.listed)
    }

    /// Its source feeds everybody, and viewers are not told of each other.
    fn is_served_alone(&self) -> bool {
        self.descriptor.as_ref().is_some_and(|(_, descriptor)| descriptor.delivery == Delivery::ServerOnly)
    }

    /// Up to `count` peers in `rendition` for `asker` at `from`: the sources (in a large swarm now and then), and others as
    /// [`pick`] says where `map` speaks of the asker's address. Otherwise those with the most upload among a random sample, and
    /// the rest of the sample, so that strong peers are found and weak ones are not cut off.
    pub(crate) fn pick(
        &mut self,
        asker: &PeerId,
        from: IpAddr,
        rendition: RenditionId,
        count: usize,
        map: Option<&Map>,
        random: &mut fastrand::Rng,
    ) -> Vec<PeerInfo> {
        if let Some(map) = map {
            self.group(map);
        }
        let serves_alone = self.is_served_alone();
        let is_named = serves_alone || self.may_name_source(random);
        let wanted = bit(rendition);
        let fits = |peer: &PeerId| {
            peer != asker && self.members.get(peer).is_some_and(|member| member.renditions & wanted != 0)
        };
        let mut picked: Vec<PeerId> = self.sources.iter().filter(|peer| fits(peer)).copied().collect();
        random.shuffle(&mut picked);
        picked.truncate(SOURCES_PER_ANSWER.min(count));
        if !is_named {
            picked.clear();
        }
        let is_viewer = |peer: &PeerId| !serves_alone && fits(peer) && !self.sources.contains(peer);
        let mut sample = self.sample(random);
        sample.retain(is_viewer);
        let room = count - picked.len();
        let home = self.members.get(asker).and_then(Member::home).unwrap_or(from);
        let near = map.and_then(|map| Some((map, map.place(home).filter(|place| place.known)?)));
        if let Some((map, own)) = near {
            picked.extend(pick::pick(self, &Wish { map, own, room, fits: &is_viewer }, &sample, random));
        } else {
            let strong = room / 2;
            let upload = |peer: &PeerId| self.members.get(peer).map_or(0, |member| member.upload_bps);
            // The sample is in random order and the sort is stable: equals stay shuffled.
            sample.sort_by_key(|peer| std::cmp::Reverse(upload(peer)));
            if sample.len() > strong {
                random.shuffle(&mut sample[strong..]);
            }
            picked.extend(sample);
            picked.truncate(count);
        }
        let info = |peer: &PeerId| {
            let cost = near.and_then(|(map, own)| map.told_cost(own, self.place(peer)?));
            Some(PeerInfo { cost, ..self.info(peer, from)? })
        };
        picked.iter().filter_map(info).collect()
    }

    /// Whether an answer names the sources. What a crowd's newcomers cost a source's line is bounded.
    fn may_name_source(&mut self, random: &mut fastrand::Rng) -> bool {
        let peers = self.members.len();
        if peers <= SOURCE_NAMED {
            return true;
        }
        if self.sources.is_empty()
            || random.usize(..peers.min(SOURCE_NAMED * SOURCE_ANSWERS_MAX)) >= SOURCE_NAMED
        {
            return false;
        }
        let now_ms = self.used_ms;
        let owed = self.source_named_until_ms.max(now_ms) + SOURCE_NAMED_PERIOD_MS;
        let may = owed <= now_ms + SOURCE_NAMED as u64 * SOURCE_NAMED_PERIOD_MS;
        self.source_named_until_ms = if may { owed } else { self.source_named_until_ms };
        may
    }

    fn sample(&self, random: &mut fastrand::Rng) -> Vec<PeerId> {
        if self.order.len() <= SAMPLE {
            let mut all = self.order.clone();
            random.shuffle(&mut all);
            return all;
        }
        let mut places = BTreeSet::new();
        while places.len() < SAMPLE {
            places.insert(random.usize(..self.order.len()));
        }
        let mut sample: Vec<_> = places.into_iter().map(|place| self.order[place]).collect();
        random.shuffle(&mut sample);
        sample
    }

    fn info(&self, peer: &PeerId, asker: IpAddr) -> Option<PeerInfo> {
        let member = self.members.get(peer)?;
        // Another machine's loopback address would lead the asker to itself.
        let local = classify(asker) == Class::Loopback;
        let usable = |address: &&SocketAddr| local || classify(address.ip()) != Class::Loopback;
        let peer_addr: Vec<_> =
            member.addresses.iter().filter(usable).map(|address| (*address).into()).collect();
        let source = self.sources.contains(peer);
        (!peer_addr.is_empty()).then_some(PeerInfo { peer_id: *peer, peer_addr, source, cost: None })
    }

    /// How it is with those who watch, now.
    pub(crate) fn audience(&mut self, now_ms: u64) -> Audience {
        Audience { viewers: self.viewers(), quality: self.quality(now_ms) }
    }

    /// Means over the viewers that reported, computed at most once a second.
    pub(crate) fn quality(&mut self, now_ms: u64) -> Option<Quality> {
        let fresh = self.quality.take().filter(|(at_ms, _)| now_ms.saturating_sub(*at_ms) < QUALITY_AGE_MS);
        let (at_ms, quality) = fresh.unwrap_or_else(|| (now_ms, self.compute_quality()));
        let told = (quality.reports >= QUALITY_REPORTS_MIN).then(|| quality.clone());
        self.quality = Some((at_ms, quality));
        told
    }

    fn compute_quality(&self) -> Quality {
        let viewers = self.members.iter().filter(|(peer, _)| !self.sources.contains(peer));
        let viewers: Vec<&Member> = viewers.map(|(_, member)| member).collect();
        let reports: Vec<Qos> = viewers.iter().filter_map(|member| member.qos).collect();
        let mean = |value: fn(&Qos) -> Option<f64>| {
            let values: Vec<f64> = reports.iter().filter_map(value).collect();
            // A mean of one would be that viewer's own value.
            (values.len() >= QUALITY_REPORTS_MIN as usize)
                .then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Quality {
            reports: u32::try_from(reports.len()).unwrap_or(u32::MAX),
            continuity: mean(|qos| qos.continuity),
            offload_ratio: mean(|qos| qos.offload_ratio),
            edge_ratio: mean(|qos| qos.edge_ratio),
            startup_ms: mean(|qos| qos.startup_ms),
            delay_p50_ms: mean(|qos| qos.delay_p50_ms),
            delay_p95_ms: mean(|qos| qos.delay_p95_ms),
            buffer_ms: mean(|qos| qos.buffer_ms),
            stalls: reports.iter().filter_map(|qos| qos.stalls).fold(0, u64::saturating_add),
            renditions: self.rendition_viewers(&viewers),
        }
    }

    /// How many have each rendition of the descriptor: what anybody reports beside those counts for nothing.
    fn rendition_viewers(&self, viewers: &[&Member]) -> Vec<RenditionViewers> {
        let Some((_, descriptor)) = &self.descriptor else { return Vec::new() };
        let playing: Vec<RenditionId> = viewers.iter().filter_map(|member| member.playing()).collect();
        let among = |id: u8| playing.iter().filter(|playing| playing.0 == id).count();
        let all = descriptor.renditions.iter().map(|one| (one.id, among(one.id)));
        // What one alone reports would be that viewer's own.
        let counted = all.filter(|(_, count)| *count >= QUALITY_REPORTS_MIN as usize);
        let told = |(id, count)| RenditionViewers { id, viewers: u32::try_from(count).unwrap_or(u32::MAX) };
        counted.map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::Rendition;

    fn member(n: u16, upload_bps: u64) -> Member {
        let mut member = Member::new(vec![SocketAddr::from(([1, 1, 1, 1], 2000 + n))], None);
        member.upload_bps = upload_bps;
        member.renditions = 1;
        member
    }

    fn peer(n: u16) -> PeerId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        PeerId(id)
    }

    #[test]
    fn an_answer_has_the_source_strong_peers_and_a_random_share_but_never_the_asker() {
        let mut channel = Channel::default();
        for n in 0..100 {
            channel.insert(peer(n), member(n, u64::from(n)));
        }
        channel.sources.insert(peer(7));
        let from = IpAddr::from([1, 1, 1, 1]);
        let mut random = fastrand::Rng::with_seed(1);
        let (mut seen, mut named) = (BTreeSet::new(), 0);
        for _ in 0..200 {
            let picked = channel.pick(&peer(99), from, RenditionId(0), 20, None, &mut random);
            assert_eq!(picked.len(), 20);
            let sources = picked.iter().filter(|info| info.source).count();
            assert!(sources <= 1 && (sources == 0 || picked[0].peer_id == peer(7)));
            named += sources;
            let ids: BTreeSet<_> = picked.iter().map(|info| info.peer_id).collect();
            assert_eq!(ids.len(), 20, "no peer twice");
            assert!(!ids.contains(&peer(99)), "never the asker");
            assert!(ids.contains(&peer(98)), "the strongest is found");
            seen.extend(ids);
        }
        assert!(seen.len() > 90, "the weak are found too: {}", seen.len());
        // Of as many as come at one moment to the first of them: each of a crowd that dials a full source costs it a connection.
        assert_eq!(named, SOURCE_NAMED);
        let mut later = 0;
        for second in 1..=20 {
            channel.used_ms = second * 1000;
            for _ in 0..50 {
                let picked = channel.pick(&peer(99), from, RenditionId(0), 20, None, &mut random);
                later += picked.iter().filter(|info| info.source).count();
            }
        }
        assert!((140..=168).contains(&later), "eight times a second: {later}");
        assert!(channel.pick(&peer(99), from, RenditionId(1), 20, None, &mut random).is_empty());
    }

    #[test]
    fn where_the_source_serves_alone_nobody_else_is_named() {
        let mut channel = Channel::default();
        for n in 0..100 {
            channel.insert(peer(n), member(n, u64::from(n)));
        }
        channel.sources.insert(peer(7));
        let key = caudal_proto::id::SecretKey::from_bytes(&[3; 32]);
        let descriptor =
            Descriptor { delivery: Delivery::ServerOnly, ..Descriptor::new(key.channel(), "Canal 1", 1) };
        channel.descriptor = Some((descriptor.sign(&key).expect("a name"), descriptor));
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..50 {
            let picked =
                channel.pick(&peer(99), IpAddr::from([1, 1, 1, 1]), RenditionId(0), 20, None, &mut random);
            assert_eq!(picked.iter().map(|info| info.peer_id).collect::<Vec<_>>(), [peer(7)]);
        }
    }

    #[test]
    fn members_come_and_go_without_losing_one() {
        let mut channel = Channel::default();
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..2000 {
            let n = random.u16(..300);
            if random.bool() {
                channel.insert(peer(n), member(n, 0));
            } else {
                channel.remove(&peer(n));
            }
            assert_eq!(channel.order.len(), channel.len());
        }
        for (place, id) in channel.order.iter().enumerate() {
            assert_eq!(channel.members[id].place, place);
        }
    }

    #[test]
    fn loopback_addresses_are_for_this_machine_only() {
        let mut channel = Channel::default();
        let mut one = member(1, 0);
        one.addresses = vec!["127.0.0.1:2000".parse().unwrap()];
        channel.insert(peer(1), one);
        let mut random = fastrand::Rng::with_seed(3);
        let mut pick =
            |from: [u8; 4]| channel.pick(&peer(2), from.into(), RenditionId(0), 5, None, &mut random).len();
        assert_eq!((pick([127, 0, 0, 1]), pick([192, 168, 0, 2])), (1, 0));
    }

    #[test]
    fn one_viewers_report_is_never_shown_alone() {
        let mut channel = Channel::default();
        for n in 0..2 {
            let mut viewer = member(n, 0);
            viewer.qos = Some(Qos { continuity: Some(f64::from(n)), ..Qos::default() });
            channel.insert(peer(n), viewer);
            let quality = channel.quality(u64::from(n) * QUALITY_AGE_MS);
            assert_eq!(quality.and_then(|quality| quality.continuity), (n == 1).then_some(0.5));
        }
    }

    #[test]
    fn viewers_are_counted_by_rendition_from_two_reports_on_and_where_the_channel_has_it() {
        let key = caudal_proto::id::SecretKey::from_bytes(&[3; 32]);
        let rendition = |id| Rendition {
            id,
            codecs: "avc1.64001f".to_owned(),
            width: None,
            height: None,
            fps: None,
            bandwidth_bps: 1_000_000,
        };
        let descriptor = Descriptor {
            renditions: vec![rendition(0), rendition(1), rendition(5)],
            ..Descriptor::new(key.channel(), "Canal 1", 1)
        };
        let mut channel = Channel {
            descriptor: Some((descriptor.sign(&key).expect("a name"), descriptor)),
            ..Channel::default()
        };
        let mut now_ms = 0;
        let mut counts = |channel: &mut Channel| {
            now_ms += QUALITY_AGE_MS;
            let quality = channel.quality(now_ms).unwrap_or_default();
            quality.renditions.iter().map(|one| (one.id, one.viewers)).collect::<Vec<_>>()
        };
        let join = |channel: &mut Channel, n, swarms: u64, rendition: Option<u8>| {
            let mut viewer = member(n, 0);
            viewer.renditions = swarms;
            viewer.qos = Some(Qos { continuity: Some(1.0), rendition, ..Qos::default() });
            channel.insert(peer(n), viewer);
        };
        join(&mut channel, 1, 1, Some(0));
        join(&mut channel, 2, 1, None);
        assert_eq!(counts(&mut channel), [], "one alone says which it is");
        join(&mut channel, 2, 1, Some(0));
        join(&mut channel, 3, 1 << 5 | 1, Some(5));
        assert_eq!(counts(&mut channel), [(0, 2)], "nor is one told of beside others");
        join(&mut channel, 4, 1 << 5, Some(5));
        assert_eq!(counts(&mut channel), [(0, 2), (5, 2)], "what is tried beside it does not count");
        join(&mut channel, 2, 1 << 1, Some(0));
        join(&mut channel, 5, 1 << 1, Some(1));
        assert_eq!(counts(&mut channel), [(1, 2), (5, 2)], "gone over since its report");
        for n in [6, 7] {
            join(&mut channel, n, 1 << 7, Some(7));
        }
        join(&mut channel, 8, 1 << 1 | 1 << 5, Some(0));
        assert_eq!(counts(&mut channel), [(1, 2), (5, 2)], "no such rendition, and nowhere");
        channel.sources.insert(peer(5));
        assert_eq!(counts(&mut channel), [(5, 2)], "a source is no viewer");
        channel.remove(&peer(3));
        assert_eq!(counts(&mut channel), []);
    }
}
