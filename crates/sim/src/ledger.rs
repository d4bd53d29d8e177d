//! What the world counted; every count only grows, and a report takes the difference of two ledgers.

use caudal_proto::id::RenditionId;
use caudal_proto::qos::rendition::RENDITIONS_MAX;

/// Counts over all peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) published: u64,
    pub(crate) published_bytes: u64,
    /// IP bytes of everything, and of the source alone.
    pub(crate) wire_bytes: u64,
    pub(crate) source_wire_bytes: u64,
    /// Control transmissions: their own bytes, and IP bytes.
    pub(crate) control_sent: u64,
    pub(crate) control_bytes: u64,
    pub(crate) control_wire_bytes: u64,
    pub(crate) handshake_bytes: u64,
    pub(crate) resent_bytes: u64,
    pub(crate) useful_chunks: u64,
    pub(crate) useful_bytes: u64,
    pub(crate) useful_bytes_from_source: u64,
    /// The same for each rendition: all, and from the source.
    pub(crate) useful_of: [(u64, u64); RENDITIONS_MAX],
    pub(crate) duplicates: u64,
    pub(crate) duplicate_bytes: u64,
    pub(crate) pulled: u64,
    pub(crate) missed: u64,
    pub(crate) chunks_sent: u64,
    pub(crate) chunks_delivered: u64,
    pub(crate) chunks_reset: u64,
    pub(crate) chunks_cut_off: u64,
    pub(crate) chunks_to_nobody: u64,
}

impl Ledger {
    fn wire(&mut self, is_source: bool, bytes: u64) {
        self.wire_bytes += bytes;
        if is_source {
            self.source_wire_bytes += bytes;
        }
    }

    pub(crate) fn control(&mut self, is_source: bool, bytes: u64, wire: u64, is_honest: bool) {
        self.wire(is_source, wire);
        if !is_honest {
            return;
        }
        self.control_sent += 1;
        self.control_bytes += bytes;
        self.control_wire_bytes += wire;
    }

    pub(crate) fn chunk_sent(&mut self, is_source: bool, wire: u64, again: u64) {
        self.wire(is_source, wire + again);
        self.chunks_sent += 1;
        self.resent_bytes += again;
    }

    pub(crate) fn handshake(&mut self, is_source: bool, bytes: u64) {
        self.wire(is_source, bytes);
        self.handshake_bytes += bytes;
    }

    pub(crate) fn useful(&mut self, rendition: RenditionId, bytes: u64, is_from_source: bool) {
        let from_source = if is_from_source { bytes } else { 0 };
        self.useful_chunks += 1;
        self.useful_bytes += bytes;
        self.useful_bytes_from_source += from_source;
        if let Some((all, source)) = self.useful_of.get_mut(usize::from(rendition.0)) {
            *all += bytes;
            *source += from_source;
        }
    }

    pub(crate) fn duplicate(&mut self, bytes: u64) {
        self.duplicates += 1;
        self.duplicate_bytes += bytes;
    }
}
