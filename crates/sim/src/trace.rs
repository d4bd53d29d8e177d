//! The hash of all that was transmitted, and one chunk's whole path.

use bytes::Bytes;
use caudal_proto::io::Transmit;

/// A running hash over everything engines transmitted; not cryptographic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hash {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
        self.word(chunks.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    pub(crate) fn transmit(&mut self, now: u64, index: usize, transmit: &Transmit) {
        /// Header and signature stand for the payload, which they cover.
        fn head(body: &Bytes) -> &[u8] {
            &body[..body.len().min(caudal_proto::chunk::HEADER_LEN + 16)]
        }
        self.word(now);
        self.word(index as u64);
        match transmit {
            Transmit::Connect { peer, .. } => {
                self.word(1);
                self.word(peer.tag());
            }
            Transmit::Disconnect { peer, code } => {
                self.word(2 + (*code as u64) * 256);
                self.word(peer.tag());
            }
            Transmit::Control { peer, bytes } => {
                self.word(peer.tag());
                self.bytes(bytes);
            }
            Transmit::Chunk { peer, token, priority, head: hop, body } => {
                self.word(peer.tag());
                self.word(token.0 ^ (*priority as u64) << 56);
                self.bytes(hop);
                self.bytes(head(body));
            }
            Transmit::Reset { peer, token } => {
                self.word(3);
                self.word(peer.tag());
                self.word(token.0);
            }
        }
    }

    /// The hash so far.
    pub(crate) fn value(self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}

/// One arrival of the followed chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hop {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// When it was handed to the connection, and when it was whole, µs.
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
    pub(crate) is_requested: bool,
}

/// The path of one chunk.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    serial: Option<usize>,
    pub(crate) hops: Vec<Hop>,
}

impl Trace {
    pub(crate) fn follow(&mut self, serial: usize) {
        self.serial = Some(serial);
        self.hops.clear();
    }

    pub(crate) fn serial(&self) -> Option<usize> {
        self.serial
    }

    pub(crate) fn arrived(
        &mut self,
        serial: usize,
        from: usize,
        to: usize,
        sent: u64,
        arrived: u64,
        is_requested: bool,
    ) {
        if self.serial == Some(serial) {
            self.hops.push(Hop { from, to, sent, arrived, is_requested });
        }
    }
}
