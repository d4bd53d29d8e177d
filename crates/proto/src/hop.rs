//! Hop reports: a peer's signed word on when a traced chunk reached it, from whom, and when it was handed on.
//!
//! Owns what is signed, its bytes and how it is checked. Who reports, to whom, and how much of it is passed on is the
//! swarm's ([`swarm`](crate::swarm)); what it shows is the node's. Layout: `docs/protocol.md`, *Hop report*.

use alloc::vec::Vec;

use crate::id::{ChannelId, Domain, PeerId, RenditionId, SIGNATURE_LEN};
use crate::record::RecordKeys;
use crate::wire::WireError;
use crate::wire::codec::Reader;

/// Most forwardings in one report: a source has no more neighbours.
pub const FORWARDS_MAX: usize = 32;
/// A delay that is not known, µs.
pub const DELAY_UNKNOWN_US: u32 = u32::MAX;
/// Bytes of a report before its forwardings.
const CLAIM_LEN: usize = 79;
/// Fewest bytes of a report.
pub(crate) const HOP_REPORT_LEN_MIN: usize = CLAIM_LEN + SIGNATURE_LEN;
/// Bytes of one forwarding.
const FORWARD_LEN: usize = 12;
/// The chunk answered a request.
const REQUESTED: u8 = 1;
/// The reporter signed the chunk itself.
const SOURCE: u8 = 2;

/// Where a node stands towards tracing: both are its person's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tracing {
    /// It reports hops of its own, may be named in those of its neighbours, and hands reports on to those who want them.
    pub reports: bool,
    /// It wants the reports of others: [`Event::Hop`](crate::io::Event::Hop).
    pub wants: bool,
}

/// A traced chunk was handed to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// The [`tag`](PeerId::tag) of whom it went to; 0: a peer that does not report.
    pub to: u64,
    /// Time from its arrival until then, µs, by the reporter's own clock.
    pub after_us: u32,
}

/// One peer's word on one traced chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopReport {
    /// The chunk's broadcast.
    pub epoch: u64,
    /// The chunk's number.
    pub number: u64,
    /// The chunk's rendition: each counts its chunks by itself.
    pub rendition: RenditionId,
    /// Whose word it is.
    pub peer: PeerId,
    /// The [`tag`](PeerId::tag) of whom the chunk came from; 0: a peer that does not report, or at the source.
    pub from: u64,
    /// It answered a request; otherwise a parent pushed it.
    pub requested: bool,
    /// The reporter signed it: it is the source.
    pub source: bool,
    /// When it was here, whole and verified, by the reporter's clock.
    pub arrived_unix_us: u64,
    /// How long after its signed capture time that was, µs: wrong by as much as the reporter's clock differs from the source's.
    pub lag_us: i32,
    /// How long it had travelled since it was signed as the hops added it up, µs, free of clocks; [`DELAY_UNKNOWN_US`] when one
    /// of them did not say.
    pub hops_us: u32,
    /// Round trip to whom it came from, as the reporter measures it, µs; 0 at the source.
    pub rtt_us: u32,
    /// To whom it was given, in that order.
    pub forwards: Vec<Forward>,
    /// The reporter's signature, see [`HopReport::sign`].
    pub signature: [u8; SIGNATURE_LEN],
}

/// A report as it is handed on: what stands beside it is nobody's signed word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The [`tag`](PeerId::tag) of the nearest reporting peer above one that does not report, as the first relay that reports
    /// put it there; 0: not said.
    pub above: u64,
    /// The signed word.
    pub report: HopReport,
}

impl HopReport {
    /// Signs it with `keys`, which are those of [`HopReport::peer`].
    pub fn sign(&mut self, keys: &mut (impl RecordKeys + ?Sized), channel: &ChannelId) {
        self.forwards.truncate(FORWARDS_MAX);
        self.signature = keys.sign_hop(&self.signed_message(channel));
    }

    /// Whether its peer said so, of this channel: Ed25519, some 50 µs.
    pub fn is_genuine(&self, channel: &ChannelId) -> bool {
        self.peer.verify(Domain::Hop, &self.signed_message(channel), &self.signature)
    }

    /// The same, by handed-in keys.
    pub fn verify(&self, keys: &mut (impl RecordKeys + ?Sized), channel: &ChannelId) -> bool {
        keys.verify_hop(&self.peer, &self.signed_message(channel), &self.signature)
    }

    /// Eight bytes that tell one signed word from another; who guesses them forges nothing.
    pub(crate) fn key(&self) -> u64 {
        let mut key = [0; 8];
        key.copy_from_slice(&self.signature[..8]);
        u64::from_be_bytes(key) ^ self.peer.tag()
    }

    /// The channel and all that precedes the signature.
    fn signed_message(&self, channel: &ChannelId) -> Vec<u8> {
        let mut message = Vec::with_capacity(32 + CLAIM_LEN + self.forwards.len() * FORWARD_LEN);
        message.extend_from_slice(&channel.0);
        self.encode_claim(&mut message);
        message
    }

    fn encode_claim(&self, out: &mut Vec<u8>) {
        let forwards = &self.forwards[..self.forwards.len().min(FORWARDS_MAX)];
        let flags = if self.requested { REQUESTED } else { 0 } | if self.source { SOURCE } else { 0 };
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.push(self.rendition.0);
        out.extend_from_slice(&self.peer.0);
        out.extend_from_slice(&self.from.to_be_bytes());
        out.push(flags);
        out.extend_from_slice(&self.arrived_unix_us.to_be_bytes());
        out.extend_from_slice(&self.lag_us.to_be_bytes());
        out.extend_from_slice(&self.hops_us.to_be_bytes());
        out.extend_from_slice(&self.rtt_us.to_be_bytes());
        out.push(forwards.len() as u8);
        for forward in forwards {
            out.extend_from_slice(&forward.to.to_be_bytes());
            out.extend_from_slice(&forward.after_us.to_be_bytes());
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.encode_claim(out);
        out.extend_from_slice(&self.signature);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Self, WireError> {
        let (epoch, number, rendition) = (reader.u64()?, reader.u64()?, RenditionId(reader.u8()?));
        let (peer, from) = (PeerId(reader.array()?), reader.u64()?);
        let flags = reader.u8()?;
        if flags & !(REQUESTED | SOURCE) != 0 {
            return Err(WireError::OutOfRange);
        }
        let arrived_unix_us = reader.u64()?;
        let (lag_us, hops_us, rtt_us) = (reader.u32()? as i32, reader.u32()?, reader.u32()?);
        let count = usize::from(reader.u8()?);
        if count > FORWARDS_MAX {
            return Err(WireError::OutOfRange);
        }
        if count * FORWARD_LEN + SIGNATURE_LEN > reader.0.len() {
            return Err(WireError::Short);
        }
        let forwards = (0..count)
            .map(|_| Ok(Forward { to: reader.u64()?, after_us: reader.u32()? }))
            .collect::<Result<_, WireError>>()?;
        Ok(Self {
            epoch,
            number,
            rendition,
            peer,
            from,
            requested: flags & REQUESTED != 0,
            source: flags & SOURCE != 0,
            arrived_unix_us,
            lag_us,
            hops_us,
            rtt_us,
            forwards,
            signature: reader.array()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SecretKey;
    use crate::record::Ed25519Records;
    use alloc::vec;

    fn keys(n: u8) -> Ed25519Records {
        Ed25519Records(SecretKey::from_bytes(&[n; 32]))
    }

    fn report() -> HopReport {
        HopReport {
            epoch: 7,
            number: 500,
            rendition: RenditionId(0),
            peer: PeerId(keys(3).0.public()),
            from: 9,
            requested: false,
            source: false,
            arrived_unix_us: 1_800_000_000_000_000,
            lag_us: -1_500,
            hops_us: 40_000,
            rtt_us: 20_000,
            forwards: vec![Forward { to: 11, after_us: 300 }, Forward { to: 0, after_us: 900 }],
            signature: [0; SIGNATURE_LEN],
        }
    }

    #[test]
    fn no_bit_of_a_report_can_be_changed_and_no_other_channel_has_it() {
        let (channel, other) = (ChannelId([1; 32]), ChannelId([2; 32]));
        let mut report = report();
        report.sign(&mut keys(3), &channel);
        assert!(report.verify(&mut keys(9), &channel));
        assert!(!report.verify(&mut keys(9), &other));
        let mut bytes = Vec::new();
        report.encode(&mut bytes);
        assert_eq!(bytes.len(), HOP_REPORT_LEN_MIN + 2 * FORWARD_LEN);
        assert_eq!(HopReport::decode(&mut Reader(bytes.clone().into())), Ok(report.clone()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = HopReport::decode(&mut Reader(bad.into()));
            assert!(!read.is_ok_and(|read| read.verify(&mut keys(9), &channel)), "bit {bit}");
        }
        // Signed as something else it is nobody's word.
        let as_record = keys(3).sign(&report.signed_message(&channel));
        assert!(!HopReport { signature: as_record, ..report }.verify(&mut keys(9), &channel));
    }

    #[test]
    fn a_report_that_ends_early_or_has_too_many_forwardings_is_an_error() {
        let mut bytes = Vec::new();
        report().encode(&mut bytes);
        for len in 0..bytes.len() {
            assert!(HopReport::decode(&mut Reader(bytes[..len].to_vec().into())).is_err(), "{len}");
        }
        for (at, bad) in [(78, FORWARDS_MAX as u8 + 1), (57, 4)] {
            let mut bytes = bytes.clone();
            bytes[at] = bad;
            assert_eq!(HopReport::decode(&mut Reader(bytes.into())), Err(WireError::OutOfRange));
        }
    }
}
