//! Who is where, in signed words: this node's own records, and those of its neighbours.
//!
//! Each side of a direct connection tells the other where it sees it (SEEN); the other answers with a record of itself for
//! exactly that address. The holder keeps it only where it names the far end of the connection that it came through. So a
//! peer cannot have others told of an address at which it is not, and a neighbour cannot tell of one that the peer did not
//! sign. That this node signs what a neighbour claims to see is no way around that: what most others see differently it
//! does not sign. [`pex`](super::pex) passes records on.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::Swarm;
use crate::addr::{classify, is_dialable};
use crate::broadcast::CLOCK_TOLERANCE_US;
use crate::id::PeerId;
use crate::record::{PeerRecord, RECORD_LIFETIME, Record};
use crate::time::Timestamp;
use crate::wire::Message;

/// A node's own record is renewed this long before it ends.
const RENEW_BEFORE: Duration = Duration::from_secs(240);
/// A record that ends sooner is not passed on: whoever hears of it could hardly use it.
const PASSED_ON_MIN: Duration = Duration::from_secs(60);
/// Most addresses that a node signs records for.
const OWN_MAX: usize = 4;
/// It signs this often at most, whatever it is told.
const SIGN_PERIOD: Duration = Duration::from_millis(500);
/// Records that a neighbour is remembered to have been told: those of all others that there may be.
const TOLD_MAX: usize = 32;
/// A clock that was put forward or back by this much, µs, makes what was signed before wrong.
const CLOCK_STEP_US: u64 = 5_000_000;

/// What a neighbour and this node have told each other of where they are.
#[derive(Debug, Default)]
pub(crate) struct Papers {
    /// Its record, and until when that holds.
    held: Option<(Record, Timestamp)>,
    /// Where it sees this node, as it says.
    sees: Option<SocketAddr>,
    /// The address of this node's record that it was sent last, and when that is renewed.
    sent: Option<(SocketAddr, Timestamp)>,
    /// Records that it was told lately: by whom, and when each ends.
    told: VecDeque<(u64, u32)>,
    /// It is told of peers then.
    pub(super) pex_at: Timestamp,
    /// It is not answered before when it asks for some.
    pub(super) answer_at: Timestamp,
}

impl Papers {
    /// This node's record is due to the neighbour.
    fn wants(&self, now: Timestamp) -> bool {
        self.sees.is_some_and(|sees| self.sent.is_none_or(|(addr, renew)| addr != sees || now >= renew))
    }

    /// It was told this very record lately.
    pub(super) fn was_told(&self, of: &PeerRecord) -> bool {
        self.told.contains(&(of.peer.tag(), of.record.expires_unix_s))
    }

    /// It is told these now.
    pub(super) fn note_told(&mut self, of: &[PeerRecord]) {
        for of in of {
            if !self.was_told(of) {
                self.told.truncate(TOLD_MAX - 1);
                self.told.push_front((of.peer.tag(), of.record.expires_unix_s));
            }
        }
    }
}

/// This node's records.
#[derive(Debug, Default)]
pub(super) struct OwnRecords {
    /// Each with when it is renewed; the newest last.
    all: Vec<(Record, Timestamp)>,
    sign_at: Timestamp,
}

/// The network that a host has to itself: an IPv6 one has all addresses of a /64 (RFC 6177), and changes between them.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    }
}

/// Addresses of which a node usually has one: of the same family, and both inside or both outside.
fn is_same_kind(a: &SocketAddr, b: &SocketAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && classify(a.ip()) == classify(b.ip())
}

impl Swarm {
    /// Tells a new neighbour where it is seen, and where this node is, as far as that is known.
    pub(super) fn introduce(&mut self, now: Timestamp, peer: PeerId) {
        let lan = self.config.lan;
        let period = self.config.policy.pex_period.as_micros() as u64;
        let is_lonely = self.is_lonely(now);
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if is_lonely {
            // At once: a peer that has no place for this node hears no more of it than this.
            neighbour.send(&mut self.unsent, &Message::Pex(Vec::new()));
        }
        // Spread over the period, so that neighbours are not all told in one burst.
        neighbour.papers.pex_at = now + Duration::from_micros(self.rng.u64(..=period));
        let Some(addr) = neighbour.addr.filter(|addr| is_dialable(addr, lan)) else { return };
        neighbour.send(&mut self.unsent, &Message::Seen(addr));
        let own = self.own.all.iter().rev();
        let guess = own.filter(|(_, renew)| now < *renew).find(|(own, _)| is_same_kind(&own.addr, &addr));
        if let Some((record, renew)) = guess {
            neighbour.papers.sent = Some((record.addr, *renew));
            neighbour.send(&mut self.unsent, &Message::Record(*record));
        }
    }

    /// `peer` sees this node at `addr`, it says.
    pub(super) fn hear_seen(&mut self, now: Timestamp, peer: PeerId, addr: SocketAddr) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        let possible = neighbour.addr.is_some_and(|of| of.is_ipv4() == addr.is_ipv4());
        if possible && is_dialable(&addr, self.config.lan) {
            neighbour.papers.sees = Some(addr);
            self.show_record(now, peer);
        }
    }

    /// Once a second: renews what neighbours hold of this node.
    pub(super) fn renew_records(&mut self, now: Timestamp) {
        let wanting = self.neighbours.values().filter(|n| n.met && n.papers.wants(now));
        let due: Vec<PeerId> = wanting.map(|n| n.peer).collect();
        for peer in due {
            self.show_record(now, peer);
        }
    }

    fn show_record(&mut self, now: Timestamp, peer: PeerId) {
        let papers = self.neighbours.get(&peer).map(|n| &n.papers).filter(|papers| papers.wants(now));
        let Some(addr) = papers.and_then(|papers| papers.sees) else { return };
        if !self.is_agreed(&peer, &addr) {
            return;
        }
        let Some((record, renew)) = self.own_record(now, addr) else { return };
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.papers.sent = Some((addr, renew));
            neighbour.send(&mut self.unsent, &Message::Record(record));
        }
    }

    /// Of the neighbours at other hosts at least as many see this node in the network of `addr` as elsewhere. A node that signed
    /// whatever a neighbour says would put its name to an address at which it never was.
    fn is_agreed(&self, peer: &PeerId, addr: &SocketAddr) -> bool {
        let host = |peer| self.neighbours.get(peer).and_then(|n| n.addr).map(|addr| network(addr.ip()));
        let teller = host(peer);
        let (mut there, mut elsewhere) = (0, 0);
        for neighbour in self.neighbours.values().filter(|n| host(&n.peer) != teller) {
            let Some(sees) = neighbour.papers.sees.filter(|sees| is_same_kind(sees, addr)) else { continue };
            if network(sees.ip()) == network(addr.ip()) {
                there += 1;
            } else {
                elsewhere += 1;
            }
        }
        there >= elsewhere
    }

    /// This node's record for `addr`, and when to renew it; `None` where it has signed too much lately.
    fn own_record(&mut self, now: Timestamp, addr: SocketAddr) -> Option<(Record, Timestamp)> {
        let young = self.own.all.iter().find(|(own, renew)| own.addr == addr && now < *renew);
        if young.is_some() || now < self.own.sign_at {
            return young.copied();
        }
        self.own.sign_at = now + SIGN_PERIOD;
        self.own.all.retain(|(own, _)| own.addr != addr);
        if self.own.all.len() >= OWN_MAX {
            self.own.all.remove(0);
        }
        let expires_unix_s = self.unix_us(now) / 1_000_000 + RECORD_LIFETIME.as_secs();
        let expires_unix_s = u32::try_from(expires_unix_s).ok()?;
        let record = Record::sign(&mut *self.config.records, &self.config.channel, addr, expires_unix_s);
        self.own.all.push((record, now + (RECORD_LIFETIME - RENEW_BEFORE)));
        self.own.all.last().copied()
    }

    /// The wall clock changed by `step_us`.
    pub(super) fn clock_stepped(&mut self, step_us: u64) {
        if step_us > CLOCK_STEP_US {
            self.own.all.clear();
            self.neighbours.values_mut().for_each(|n| n.papers.sent = None);
        }
    }

    /// `peer`'s record of itself.
    pub(super) fn hear_record(&mut self, now: Timestamp, peer: PeerId, record: Record) {
        let Some(until) = self.record_until(now, &record) else { return };
        let Some(neighbour) = self.neighbours.get(&peer) else { return };
        let is_here = neighbour.addr == Some(record.addr) && is_dialable(&record.addr, self.config.lan);
        let is_news =
            neighbour.papers.held.is_none_or(|(held, _)| record.expires_unix_s > held.expires_unix_s);
        if !is_here || !is_news || !self.is_genuine(now, peer, &PeerRecord { peer, record }) {
            return;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.papers.held = Some((record, until));
        }
    }

    /// Until when a record counts; `None` when it has ended, or claims more than anybody may. What was taken is not undone by a
    /// clock that is put right later.
    pub(super) fn record_until(&self, now: Timestamp, record: &Record) -> Option<Timestamp> {
        let ends_us = u64::from(record.expires_unix_s) * 1_000_000;
        let left_us = ends_us.checked_sub(self.unix_us(now)).filter(|left_us| *left_us > 0)?;
        let most_us = RECORD_LIFETIME.as_micros() as u64 + CLOCK_TOLERANCE_US;
        (left_us <= most_us).then(|| now + Duration::from_micros(left_us))
    }

    /// Whether the record that `from` sent is whose it says. `from` checked it before it passed it on, as this node does: where
    /// the signature is wrong it goes. A neighbour that has had too much checked lately is not listened to.
    pub(super) fn is_genuine(&mut self, now: Timestamp, from: PeerId, told: &PeerRecord) -> bool {
        let Some(neighbour) = self.neighbours.get_mut(&from) else { return false };
        if !neighbour.standing.may_have_checked(now) {
            return false;
        }
        let genuine = told.record.verify(&mut *self.config.records, &self.config.channel, &told.peer);
        if !genuine {
            self.drop_peer(now, from, "it sent a forged peer record");
        }
        genuine
    }

    /// A neighbour's record, where others may be told of it: its connection lives, and there is time left.
    pub(super) fn introduction(&self, now: Timestamp, peer: &PeerId) -> Option<PeerRecord> {
        let neighbour = self.neighbours.get(peer).filter(|n| n.met && !n.suspect && !self.serves_alone())?;
        let (record, _) = neighbour.papers.held.filter(|(_, until)| now + PASSED_ON_MIN <= *until)?;
        Some(PeerRecord { peer: *peer, record })
    }
}
