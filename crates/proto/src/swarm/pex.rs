//! Hearsay: of whom this node tells its neighbours, and what it believes of what they tell.
//!
//! Only records are told and believed ([`record`](super::record)): whoever is named signed where it is. That makes nobody
//! honest, since keys cost nothing. So what neighbours say fills a bounded share of the table, each neighbour's word a
//! bounded share of that, a few addresses of one host, and gives way to what a tracker says.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::peers::{DIALS_MAX, KNOWN_MAX, Known};
use super::{Neighbour, Swarm, SwarmOutput};
use crate::addr::is_dialable;
use crate::id::PeerId;
use crate::io::{Candidate, CloseCode};
use crate::record::PeerRecord;
use crate::time::Timestamp;
use crate::wire::{FrameWriter, Message, PEX_LEN_MAX};

/// Most peers known by hearsay.
pub(super) const HEARSAY_MAX: usize = KNOWN_MAX / 4;
/// Most of them by one neighbour's word.
pub(super) const HEARSAY_PER_NEIGHBOUR_MAX: usize = 8;
/// Most of them at one host, where not everybody is on one LAN.
const HEARSAY_PER_HOST_MAX: usize = 8;
/// A record of a peer that is known by hearsay is news when it holds this much longer.
const NEWS_MIN: Duration = Duration::from_secs(60);
/// Peers that a neighbour is told of at a time unasked: twenty neighbours tell enough.
const TOLD_UNASKED: usize = 2;
/// A neighbour that asks for peers is answered this often at most.
const ANSWER_PERIOD: Duration = Duration::from_secs(4);

/// Peers for whom there is no place, who ask for others and are told of some before they go; more are just sent away …
const TURNED_AWAY_MAX: usize = 2;
/// … and how long they have to hear it.
const TURNED_AWAY_FOR: Duration = Duration::from_secs(1);

/// By whose word a peer is known, and until when its record holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub(super) from: PeerId,
    pub(super) until: Timestamp,
}

impl Swarm {
    /// Tells those whose turn it is of some others.
    pub(super) fn tell_pex(&mut self, now: Timestamp) {
        let due = |n: &&Neighbour| n.met && now >= n.papers.pex_at;
        let due: Vec<PeerId> = self.neighbours.values().filter(due).map(|n| n.peer).collect();
        for peer in due {
            self.tell_some(now, peer, TOLD_UNASKED, false);
        }
    }

    /// Tells `to` of some others; of those, too, that it was told of before, where it asks (`again`).
    fn tell_some(&mut self, now: Timestamp, to: PeerId, most: usize, again: bool) {
        let told = self.some_others(now, to, most, again);
        if let Some(neighbour) = self.neighbours.get_mut(&to) {
            neighbour.papers.pex_at = now + self.config.policy.pex_period;
            if !told.is_empty() {
                neighbour.papers.note_told(&told);
                neighbour.send(&mut self.unsent, &Message::Pex(told));
            }
        }
    }

    /// Up to `most` neighbours that `to` may be told of, any of them.
    fn some_others(&mut self, now: Timestamp, to: PeerId, most: usize, again: bool) -> Vec<PeerRecord> {
        let papers = self.neighbours.get(&to).map(|n| &n.papers).filter(|_| !again);
        let others = self.neighbours.values().filter(|n| n.peer != to && !n.source);
        let mut live: Vec<PeerRecord> = others
            .filter_map(|n| self.introduction(now, &n.peer))
            .filter(|told| papers.is_none_or(|papers| !papers.was_told(told)))
            .collect();
        self.rng.shuffle(&mut live);
        self.put_near_with_room_first(&mut live, &to);
        live.truncate(most);
        live
    }

    /// There is no place for `peer`: it goes, once this node has heard whether it asks for others.
    pub(super) fn turn_away(&mut self, now: Timestamp, peer: PeerId) {
        // It may say so twice, with its connection and with its HANDSHAKE.
        if self.turned_away.contains_key(&peer) || self.at_the_door == Some(peer) {
            return;
        }
        if let Some(known) = self.known.get_mut(&peer) {
            known.lost(now, &self.config.policy);
        }
        if let Some(before) = self.at_the_door.replace(peer) {
            self.out.push_back(SwarmOutput::Disconnect(before, CloseCode::Full));
        }
    }

    /// `peer` is gone, or there is a place for it after all.
    pub(super) fn not_turned_away(&mut self, peer: &PeerId) {
        self.turned_away.remove(peer);
        self.at_the_door.take_if(|waiting| waiting == peer);
    }

    /// The end of what came with it: it did not ask.
    pub(super) fn close_door(&mut self) {
        if let Some(peer) = self.at_the_door.take() {
            self.out.push_back(SwarmOutput::Disconnect(peer, CloseCode::Full));
        }
    }

    /// Somebody speaks who is no neighbour. Who is turned away and knows nobody else is told whom to try, and goes when it has had
    /// the time to hear it.
    pub(super) fn hear_at_the_door(&mut self, now: Timestamp, peer: PeerId, message: &Message) {
        let asks = matches!(message, Message::Pex(told) if told.is_empty());
        if !asks || self.at_the_door != Some(peer) || self.turned_away.len() >= TURNED_AWAY_MAX {
            return;
        }
        let told = self.some_others(now, peer, PEX_LEN_MAX, true);
        if told.is_empty() {
            return;
        }
        self.at_the_door = None;
        self.turned_away.insert(peer, now + TURNED_AWAY_FOR);
        let mut writer = FrameWriter::new(self.handle);
        for message in [Message::Handshake(self.handshake()), Message::Pex(told)] {
            let full = writer.push(&message);
            debug_assert!(full.is_none(), "the two fit a frame");
        }
        if let Some(bytes) = writer.finish() {
            self.stats.control_bytes_out += bytes.len() as u64;
            self.out.push_back(SwarmOutput::Control(peer, bytes));
        }
    }

    /// Those who were turned away go.
    pub(super) fn close_turned_away(&mut self, now: Timestamp) {
        self.close_door();
        let over = self.turned_away.iter().filter(|(_, until)| now >= **until).map(|(peer, _)| *peer);
        for peer in over.collect::<Vec<_>>() {
            self.turned_away.remove(&peer);
            self.out.push_back(SwarmOutput::Disconnect(peer, CloseCode::Full));
        }
    }

    /// There are few neighbours, and there is nobody to dial.
    pub(super) fn is_lonely(&self, now: Timestamp) -> bool {
        let is_hope = |(peer, known): (&PeerId, &Known)| {
            !self.neighbours.contains_key(peer) && (known.is_being_dialled(now) || known.may_be_dialled(now))
        };
        self.neighbours.len() < self.config.policy.neighbours_wanted / 2 && !self.known.iter().any(is_hope)
    }

    /// Asks the neighbours that there are for others, if others are needed and nobody else names any.
    pub(super) fn ask_for_peers(&mut self, now: Timestamp) {
        if self.is_lonely(now) {
            for neighbour in self.neighbours.values_mut().filter(|n| n.met) {
                neighbour.send(&mut self.unsent, &Message::Pex(Vec::new()));
            }
        }
    }

    pub(super) fn hear_pex(&mut self, now: Timestamp, from: PeerId, peers: &[PeerRecord]) {
        if peers.is_empty() {
            let Some(neighbour) = self.neighbours.get_mut(&from) else { return };
            if now >= neighbour.papers.answer_at {
                neighbour.papers.answer_at = now + ANSWER_PERIOD;
                self.tell_some(now, from, PEX_LEN_MAX, true);
            }
            return;
        }
        for told in peers {
            self.hear_of(now, from, told);
        }
        self.climb(now, from, peers);
    }

    /// `from` named peers that may have room: they are dialled at once, if there is room for them here.
    pub(super) fn meet(&mut self, now: Timestamp, from: PeerId, peers: &[PeerRecord]) {
        let under_way = self.dials_under_way(now);
        let mut room = self
            .config
            .policy
            .neighbours_max
            .saturating_sub(self.neighbours.len() + under_way)
            .min(DIALS_MAX.saturating_sub(under_way));
        for told in peers.iter().filter(|told| told.peer != from) {
            self.hear_of(now, from, told);
            let is_new = !self.neighbours.contains_key(&told.peer);
            let known = self.known.get(&told.peer);
            if room > 0 && is_new && known.is_some_and(|known| known.may_be_dialled(now)) {
                room -= 1;
                self.connect(now, told.peer);
            }
        }
    }

    /// `from` says that `told` is a peer: it is known from now on, or for longer, if there is room for it and it says so itself.
    fn hear_of(&mut self, now: Timestamp, from: PeerId, told: &PeerRecord) {
        let PeerRecord { peer, record } = told;
        let is_of_use = *peer != from && *peer != self.local && is_dialable(&record.addr, self.config.lan);
        if !is_of_use || self.banned.contains(peer) || self.neighbours.contains_key(peer) {
            return;
        }
        let Some(until) = self.record_until(now, record) else { return };
        // What a tracker or a connection said stands, and what is no news is not checked again.
        let known = self.known.get(peer).map(|known| known.hearsay().map(|word| word.until));
        if known.is_some_and(|heard| heard.is_none_or(|heard| until < heard + NEWS_MIN)) {
            return;
        }
        if !self.config.lan && self.hearsay_at(peer, &record.addr) >= HEARSAY_PER_HOST_MAX {
            return;
        }
        let Some(instead_of) = self.hearsay_place(now, from, known.is_some()) else { return };
        if !self.is_genuine(now, from, told) {
            return;
        }
        if let Some(other) = instead_of {
            self.known.remove(&other);
        }
        let candidate = Candidate { peer: *peer, addrs: alloc::vec![record.addr], source: false, cost: 0 };
        self.know(now, candidate, Some(Word { from, until }));
    }

    /// How many others are said to be at the host of `addr`.
    fn hearsay_at(&self, peer: &PeerId, addr: &SocketAddr) -> usize {
        let others = self.known.iter().filter(|(other, known)| *other != peer && known.hearsay().is_some());
        others.filter(|(_, known)| known.is_at(addr.ip())).count()
    }

    /// Whether there is a place for one more by the word of `from`, and who loses it, if anybody: one of its own where it has its
    /// share, one of whoever has most where all places are taken.
    fn hearsay_place(&mut self, now: Timestamp, from: PeerId, has_one: bool) -> Option<Option<PeerId>> {
        if has_one {
            return Some(None);
        }
        let mut counts: BTreeMap<PeerId, usize> = BTreeMap::new();
        for word in self.known.values().filter_map(|known| known.word) {
            *counts.entry(word.from).or_default() += 1;
        }
        let own = counts.get(&from).copied().unwrap_or(0);
        let loser = if own >= HEARSAY_PER_NEIGHBOUR_MAX {
            from
        } else if counts.values().sum::<usize>() >= HEARSAY_MAX {
            let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
            if count <= own + 1 {
                return None;
            }
            most
        } else {
            return Some(None);
        };
        let (rng, neighbours) = (&mut self.rng, &self.neighbours);
        let idle = self.known.iter().filter(|(peer, known)| {
            known.word.is_some_and(|word| word.from == loser)
                && !neighbours.contains_key(peer)
                && !known.is_being_dialled(now)
        });
        // Any of them: whoever could choose its id would choose whom it replaces.
        idle.max_by_key(|(_, known)| (known.failures(), rng.u64(..))).map(|(peer, _)| Some(*peer))
    }

    /// Hearsay that nobody has renewed is forgotten.
    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        self.known.retain(|known| {
            known.hearsay().is_none_or(|word| now < word.until) || known.is_being_dialled(now)
        });
    }

    /// What `liar` said is forgotten with it.
    pub(super) fn forget_word_of(&mut self, liar: &PeerId) {
        self.known.retain(|known| known.hearsay().is_none_or(|word| word.from != *liar));
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec;

    use super::super::policy::Policy;
    use super::super::{Role, SwarmConfig};
    use super::*;
    use crate::chunk::Ed25519Verifier;
    use crate::id::{ChannelId, RenditionId, SIGNATURE_LEN};
    use crate::io::Connected;
    use crate::record::{Record, RecordKeys};
    use crate::wire::Handshake;

    /// Everything is signed by whoever it should be.
    struct Trusting;

    impl RecordKeys for Trusting {
        fn sign(&mut self, _: &[u8]) -> [u8; SIGNATURE_LEN] {
            [0; SIGNATURE_LEN]
        }
        fn verify(&mut self, _: &PeerId, _: &[u8], _: &[u8; SIGNATURE_LEN]) -> bool {
            true
        }
    }

    const CHANNEL: ChannelId = ChannelId([1; 32]);

    fn id(n: usize) -> PeerId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PeerId(id)
    }

    fn addr(n: usize) -> SocketAddr {
        ([9, 9, (n >> 8) as u8, n as u8], 4000).into()
    }

    /// A swarm with so many neighbours, 1 and on, one of a LAN or not.
    fn swarm(neighbours: usize, lan: bool) -> Swarm {
        let now = Timestamp::from_millis(1);
        let config = SwarmConfig {
            channel: CHANNEL,
            rendition: RenditionId(0),
            role: Role::Viewer,
            upload: true,
            retention: Duration::from_secs(60),
            lan,
            policy: Policy::default(),
            verifier: Box::new(Ed25519Verifier),
            records: Box::new(Trusting),
            network_map: None,
        };
        let mut swarm = Swarm::new(now, config, id(0), 0, 1);
        swarm.set_unix_offset(0);
        for n in 1..=neighbours {
            connect(&mut swarm, now, n);
        }
        swarm
    }

    fn connect(swarm: &mut Swarm, now: Timestamp, n: usize) {
        let (peer, addr) = (id(n), Some(addr(n)));
        swarm.connected(now, &Connected { peer, addr, rtt: Duration::from_millis(9), dialled: false });
        let handshake =
            Handshake { channel: CHANNEL, rendition: RenditionId(0), source: false, upload_kbps: 1 };
        swarm.message(now, peer, Message::Handshake(handshake));
    }

    fn told(now: Timestamp, n: usize, addr: SocketAddr) -> PeerRecord {
        let expires_unix_s = (now.as_micros() / 1_000_000) as u32 + 300;
        PeerRecord { peer: id(n), record: Record { addr, expires_unix_s, signature: [0; SIGNATURE_LEN] } }
    }

    /// `from` tells of these, one every two seconds, and they are not dialled meanwhile; how many it is counted for then.
    fn tell(swarm: &mut Swarm, now: &mut Timestamp, from: usize, whom: core::ops::Range<usize>) -> usize {
        for n in whom {
            *now += Duration::from_secs(2);
            swarm.hear_of(*now, id(from), &told(*now, n, addr(n)));
        }
        count(swarm, from)
    }

    fn count(swarm: &Swarm, from: usize) -> usize {
        let words = swarm.known.values().filter_map(|known| known.word);
        words.filter(|word| word.from == id(from)).count()
    }

    #[test]
    fn no_neighbour_has_more_than_its_share_and_all_together_no_more_than_theirs() {
        let (mut swarm, mut now) = (swarm(20, false), Timestamp::from_millis(5));
        assert_eq!(tell(&mut swarm, &mut now, 1, 100..120), HEARSAY_PER_NEIGHBOUR_MAX);
        for from in 2..=12 {
            tell(&mut swarm, &mut now, from, 1000 * from..1000 * from + 12);
            assert!(swarm.known.len() <= HEARSAY_MAX, "{}", swarm.known.len());
        }
        assert_eq!(swarm.known.len(), HEARSAY_MAX);
        // Who comes last has its part too: of those who have most.
        assert!(tell(&mut swarm, &mut now, 13, 13_000..13_012) >= 4);
        assert!((1..=12).all(|from| count(&swarm, from) >= 4));
        assert_eq!(swarm.known.len(), HEARSAY_MAX);
        // Whom it met by a neighbour's word is that neighbour's still: it cannot name one after the other.
        let met: Vec<PeerId> = swarm
            .known
            .iter()
            .filter(|(_, k)| k.word.is_some_and(|w| w.from == id(1)))
            .map(|k| *k.0)
            .collect();
        for peer in &met {
            swarm.known.get_mut(peer).expect("known").connected();
        }
        assert!(tell(&mut swarm, &mut now, 1, 200..220) <= HEARSAY_PER_NEIGHBOUR_MAX);
        // A tracker's word frees it, and takes nobody's place.
        let candidates =
            (0..60).map(|n| Candidate { peer: id(50_000 + n), addrs: vec![addr(n)], source: false, cost: 0 });
        swarm.candidates(now, candidates.collect());
        assert_eq!(swarm.known.len(), HEARSAY_MAX + 60);
        let first = *swarm.known.iter().find(|(_, k)| k.word.is_some()).expect("hearsay").0;
        let named = Candidate { peer: first, addrs: vec![addr(7)], source: false, cost: 0 };
        swarm.candidates(now, vec![named]);
        assert!(swarm.known.get(&first).is_some_and(|known| known.word.is_none()));
    }

    #[test]
    fn many_names_at_one_host_are_refused_unless_it_is_a_lan() {
        for (lan, most) in [(false, HEARSAY_PER_HOST_MAX), (true, 20)] {
            let (mut swarm, mut now) = (swarm(9, lan), Timestamp::from_millis(5));
            for n in 0..20 {
                now += Duration::from_secs(2);
                let at = SocketAddr::from(([9, 9, 9, 9], 4000 + n as u16));
                swarm.hear_of(now, id(1 + n % 9), &told(now, 100 + n, at));
            }
            assert_eq!(swarm.known.len(), most);
        }
    }

    #[test]
    fn hearsay_that_nobody_renews_is_forgotten_and_what_was_met_is_not() {
        let (mut swarm, mut now) = (swarm(2, false), Timestamp::from_millis(5));
        tell(&mut swarm, &mut now, 1, 100..103);
        swarm.known.get_mut(&id(101)).expect("known").connected();
        now += Duration::from_secs(200);
        // Another neighbour has a newer record of the third.
        swarm.hear_of(now, id(2), &told(now, 102, addr(102)));
        now += Duration::from_secs(110);
        swarm.forget_expired(now);
        let left: Vec<PeerId> = swarm.known.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(left, [id(101), id(102)]);
        let word = swarm.known.get(&id(102)).and_then(|known| known.word);
        assert_eq!(word.map(|word| word.from), Some(id(1)), "it spoke of it first");
        now += Duration::from_secs(200);
        swarm.forget_expired(now);
        assert_eq!(swarm.known.len(), 1);
    }

    #[test]
    fn what_a_liar_said_goes_with_it() {
        let (mut swarm, mut now) = (swarm(2, false), Timestamp::from_millis(5));
        tell(&mut swarm, &mut now, 1, 100..104);
        tell(&mut swarm, &mut now, 2, 200..203);
        swarm.ban(id(1));
        assert_eq!((count(&swarm, 1), count(&swarm, 2)), (0, 3));
    }

    #[test]
    fn a_tracker_s_candidates_are_dialled_before_hearsay() {
        let (mut swarm, mut now) = (swarm(2, false), Timestamp::from_millis(5));
        tell(&mut swarm, &mut now, 1, 100..108);
        swarm.out.clear();
        let named = |n| Candidate { peer: id(n), addrs: vec![addr(n)], source: false, cost: 0 };
        swarm.candidates(now, (200..206).map(named).collect());
        let dialled: Vec<PeerId> = swarm.out.iter().filter_map(connecting).collect();
        assert_eq!(dialled.len(), 6);
        assert!(dialled.iter().all(|peer| (200..206).any(|n| *peer == id(n))), "{dialled:?}");
    }

    fn connecting(output: &SwarmOutput) -> Option<PeerId> {
        match output {
            SwarmOutput::Connect(peer, _) => Some(*peer),
            _ => None,
        }
    }
}
