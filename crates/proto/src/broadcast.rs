//! Who may sign a channel's chunks, and how fresh its live edge is.
//!
//! The channel key, which can stay offline, signs a [`Certificate`] for a broadcast key and an epoch. The broadcast
//! key signs chunks and, every few seconds, a [`LiveNote`]. A joiner refuses an older epoch and a stale note, so that
//! an eclipsed newcomer cannot be fed yesterday's stream. Layouts: `docs/protocol.md`, all integers big-endian.

use alloc::vec::Vec;

use crate::chunk::NUMBER_MAX;
use crate::id::{
    BroadcastId, ChannelId, Domain, RENDITION_ID_END, RenditionId, SIGNATURE_LEN, SecretKey, SwarmId,
};

/// Encoded length of a certificate, signature included.
pub const CERTIFICATE_LEN: usize = 1 + 32 + 32 + 8 + 8 + 8 + 1 + 4 + SIGNATURE_LEN;
/// Encoded length of a live note, signature included.
pub const LIVE_NOTE_LEN: usize = 1 + 32 + 8 + 8 + 8 + 1 + SIGNATURE_LEN;
/// Most substreams a broadcast may have.
pub const SUBSTREAMS_MAX: u8 = 16;
/// How far two honest clocks may lie apart, µs.
pub const CLOCK_TOLERANCE_US: u64 = 30_000_000;
/// How old a live note may be, beyond the clock tolerance, before its broadcast counts as silent, µs.
pub const LIVE_NOTE_AGE_MAX_US: u64 = 15_000_000;

/// Why a certificate or live note was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// Length, version or a field's range is wrong.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// It speaks for another channel or epoch.
    #[error("it is for another channel or epoch")]
    Foreign,
    /// The signature does not match.
    #[error("its signature does not match")]
    Signature,
    /// Outside the certificate's validity, given the clock tolerance.
    #[error("not valid at this time; is this computer's clock right?")]
    Expired,
}

/// The channel key's word that a broadcast key may sign chunks, for one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// The channel.
    pub channel: ChannelId,
    /// The key that signs this broadcast's chunks and live notes.
    pub broadcast: BroadcastId,
    /// Grows with every broadcast of the channel (ms since the Unix epoch when it began, at least one more than the last).
    pub epoch: u64,
    /// First instant of validity, µs since the Unix epoch.
    pub not_before_unix_us: u64,
    /// Last instant of validity, µs since the Unix epoch.
    pub not_after_unix_us: u64,
    /// Substreams K of this broadcast, 1 to [`SUBSTREAMS_MAX`]; chunk n belongs to substream n mod K.
    pub substreams: u8,
    /// The stream's nominal rate, bit/s: what upload is counted in.
    pub rate_bps: u32,
    /// By the channel key.
    pub signature: [u8; SIGNATURE_LEN],
}

/// What a certificate says before it is signed.
#[derive(Debug, Clone, Copy)]
pub struct CertificateTerms {
    /// See [`Certificate::epoch`].
    pub epoch: u64,
    /// See [`Certificate::not_before_unix_us`].
    pub not_before_unix_us: u64,
    /// See [`Certificate::not_after_unix_us`].
    pub not_after_unix_us: u64,
    /// See [`Certificate::substreams`].
    pub substreams: u8,
    /// See [`Certificate::rate_bps`].
    pub rate_bps: u32,
}

impl Certificate {
    /// Signs `terms` for `broadcast` with the channel key.
    pub fn sign(channel_key: &SecretKey, broadcast: BroadcastId, terms: CertificateTerms) -> Self {
        let mut certificate = Self {
            channel: channel_key.channel(),
            broadcast,
            epoch: terms.epoch,
            not_before_unix_us: terms.not_before_unix_us,
            not_after_unix_us: terms.not_after_unix_us,
            substreams: terms.substreams.clamp(1, SUBSTREAMS_MAX),
            rate_bps: terms.rate_bps.max(1),
            signature: [0; SIGNATURE_LEN],
        };
        certificate.signature = channel_key.sign(Domain::Certificate, &certificate.signed_bytes());
        certificate
    }

    /// The [`CERTIFICATE_LEN`] bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.signed_bytes();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads a certificate of `channel` and checks its signature; validity in time is [`Certificate::check_time`].
    pub fn decode(channel: &ChannelId, bytes: &[u8]) -> Result<Self, BroadcastError> {
        if bytes.len() != CERTIFICATE_LEN || bytes[0] != 1 {
            return Err(BroadcastError::Malformed("certificate"));
        }
        let certificate = Self {
            channel: ChannelId(array(bytes, 1)),
            broadcast: BroadcastId(array(bytes, 33)),
            epoch: u64::from_be_bytes(array(bytes, 65)),
            not_before_unix_us: u64::from_be_bytes(array(bytes, 73)),
            not_after_unix_us: u64::from_be_bytes(array(bytes, 81)),
            substreams: bytes[89],
            rate_bps: u32::from_be_bytes(array(bytes, 90)),
            signature: array(bytes, 94),
        };
        if certificate.substreams == 0 || certificate.substreams > SUBSTREAMS_MAX || certificate.rate_bps == 0
        {
            return Err(BroadcastError::Malformed("certificate"));
        }
        if certificate.channel != *channel {
            return Err(BroadcastError::Foreign);
        }
        let signed = &bytes[..CERTIFICATE_LEN - SIGNATURE_LEN];
        if !channel.verify(Domain::Certificate, signed, &certificate.signature) {
            return Err(BroadcastError::Signature);
        }
        Ok(certificate)
    }

    /// The epoch that `bytes` claim to certify, unchecked: what is old news needs no signature check.
    pub(crate) fn claimed_epoch(bytes: &[u8]) -> Option<u64> {
        (bytes.len() == CERTIFICATE_LEN).then(|| u64::from_be_bytes(array(bytes, 65)))
    }

    /// Whether the certificate is valid now, two honest clocks apart.
    pub fn check_time(&self, now_unix_us: u64) -> Result<(), BroadcastError> {
        let early = now_unix_us.saturating_add(CLOCK_TOLERANCE_US) < self.not_before_unix_us;
        let late = now_unix_us > self.not_after_unix_us.saturating_add(CLOCK_TOLERANCE_US);
        if early || late { Err(BroadcastError::Expired) } else { Ok(()) }
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CERTIFICATE_LEN);
        bytes.push(1);
        bytes.extend_from_slice(&self.channel.0);
        bytes.extend_from_slice(&self.broadcast.0);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.not_before_unix_us.to_be_bytes());
        bytes.extend_from_slice(&self.not_after_unix_us.to_be_bytes());
        bytes.push(self.substreams);
        bytes.extend_from_slice(&self.rate_bps.to_be_bytes());
        bytes
    }
}

/// The broadcast's word on where its live edge is; renewed every few seconds, spread by tracker and neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveNote {
    /// The channel.
    pub channel: ChannelId,
    /// The rendition whose chunks it counts.
    pub rendition: RenditionId,
    /// The broadcast's epoch.
    pub epoch: u64,
    /// The number that the next chunk will have.
    pub next_number: u64,
    /// When that was so, µs since the Unix epoch.
    pub unix_us: u64,
    /// The broadcaster ended the broadcast: no chunk follows.
    pub ended: bool,
    /// By the broadcast key.
    pub signature: [u8; SIGNATURE_LEN],
}

impl LiveNote {
    /// Signs a note with the broadcast key.
    pub fn sign(
        key: &SecretKey,
        swarm: impl Into<SwarmId>,
        epoch: u64,
        next_number: u64,
        unix_us: u64,
        ended: bool,
    ) -> Self {
        let SwarmId { channel, rendition } = swarm.into();
        let signature = [0; SIGNATURE_LEN];
        let mut note = Self { channel, rendition, epoch, next_number, unix_us, ended, signature };
        note.signature = key.sign(Domain::LiveNote, &note.signed_bytes());
        note
    }

    /// The swarm that it speaks of.
    pub fn swarm(&self) -> SwarmId {
        SwarmId { channel: self.channel, rendition: self.rendition }
    }

    /// The [`LIVE_NOTE_LEN`] bytes that travel.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.signed_bytes();
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads a note of the broadcast that `certificate` certifies and checks its signature.
    pub fn decode(certificate: &Certificate, bytes: &[u8]) -> Result<Self, BroadcastError> {
        if bytes.len() != LIVE_NOTE_LEN || bytes[0] != 1 || bytes[57] >> 1 >= RENDITION_ID_END {
            return Err(BroadcastError::Malformed("live note"));
        }
        let note = Self {
            channel: ChannelId(array(bytes, 1)),
            rendition: RenditionId(bytes[57] >> 1),
            epoch: u64::from_be_bytes(array(bytes, 33)),
            next_number: u64::from_be_bytes(array(bytes, 41)),
            unix_us: u64::from_be_bytes(array(bytes, 49)),
            ended: bytes[57] & 1 == 1,
            signature: array(bytes, 58),
        };
        if note.next_number > NUMBER_MAX {
            return Err(BroadcastError::Malformed("live note"));
        }
        if note.channel != certificate.channel || note.epoch != certificate.epoch {
            return Err(BroadcastError::Foreign);
        }
        let signed = &bytes[..LIVE_NOTE_LEN - SIGNATURE_LEN];
        if !certificate.broadcast.verify(Domain::LiveNote, signed, &note.signature) {
            return Err(BroadcastError::Signature);
        }
        Ok(note)
    }

    /// The epoch that `bytes` claim to speak of, and when they claim to have been signed, µs since the Unix epoch; unchecked:
    /// what is old news needs no signature check.
    pub(crate) fn claimed(bytes: &[u8]) -> Option<(u64, u64)> {
        (bytes.len() == LIVE_NOTE_LEN)
            .then(|| (u64::from_be_bytes(array(bytes, 33)), u64::from_be_bytes(array(bytes, 49))))
    }

    /// Whether the note is recent enough for a newcomer to trust the edge it names, and not from the future.
    pub fn is_fresh(&self, now_unix_us: u64) -> bool {
        self.unix_us <= now_unix_us.saturating_add(CLOCK_TOLERANCE_US)
            && now_unix_us <= self.unix_us.saturating_add(CLOCK_TOLERANCE_US + LIVE_NOTE_AGE_MAX_US)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LIVE_NOTE_LEN);
        bytes.push(1);
        bytes.extend_from_slice(&self.channel.0);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.next_number.to_be_bytes());
        bytes.extend_from_slice(&self.unix_us.to_be_bytes());
        bytes.push(self.rendition.0 << 1 | u8::from(self.ended));
        bytes
    }
}

/// `N` bytes at `at`; the callers have checked the length.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (SecretKey, SecretKey, Certificate) {
        let (channel, broadcast) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let terms = CertificateTerms {
            epoch: 9,
            not_before_unix_us: 1_000_000_000,
            not_after_unix_us: 2_000_000_000,
            substreams: 8,
            rate_bps: 3_000_000,
        };
        let certificate = Certificate::sign(&channel, BroadcastId(broadcast.public()), terms);
        (channel, broadcast, certificate)
    }

    #[test]
    fn every_flipped_bit_of_a_certificate_is_refused() {
        let (channel, _, certificate) = keys();
        let bytes = certificate.encode();
        assert_eq!(Certificate::decode(&channel.channel(), &bytes), Ok(certificate));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Certificate::decode(&channel.channel(), &bad).is_err(), "bit {bit}");
        }
        assert!(Certificate::decode(&channel.channel(), &bytes[1..]).is_err());
    }

    #[test]
    fn a_certificate_ends() {
        let (_, _, certificate) = keys();
        assert_eq!(certificate.check_time(1_500_000_000), Ok(()));
        assert_eq!(
            certificate.check_time(2_000_000_000 + CLOCK_TOLERANCE_US + 1),
            Err(BroadcastError::Expired)
        );
        assert_eq!(
            certificate.check_time(1_000_000_000 - CLOCK_TOLERANCE_US - 1),
            Err(BroadcastError::Expired)
        );
    }

    #[test]
    fn yesterdays_note_is_not_fresh_and_a_forged_one_is_refused() {
        let (_, broadcast, certificate) = keys();
        let note = LiveNote::sign(&broadcast, certificate.channel, 9, 77, 1_500_000_000_000, false);
        assert_eq!(LiveNote::decode(&certificate, &note.encode()), Ok(note));
        assert!(note.is_fresh(1_500_001_000_000));
        assert!(!note.is_fresh(1_500_000_000_000 + 86_400_000_000));
        assert!(!note.is_fresh(1_500_000_000_000 - 86_400_000_000));
        let forged = LiveNote::sign(&SecretKey::from_bytes(&[3; 32]), certificate.channel, 9, 77, 1, false);
        assert_eq!(LiveNote::decode(&certificate, &forged.encode()), Err(BroadcastError::Signature));
    }
}
