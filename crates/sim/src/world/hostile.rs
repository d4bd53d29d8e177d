//! Attackers at work: what they make of what their engines want sent, and what they say of their own accord.

use caudal_proto::id::PeerId;
use caudal_proto::io::Transmit;
use caudal_proto::record::{PeerRecord, RECORD_LIFETIME};
use caudal_proto::time::Timestamp;

use super::{Fault, Happening, World};
use crate::attack::Scene;
use crate::paper;

impl World {
    /// What a hostile peer makes of what its engine wants sent.
    pub(super) fn twist(&mut self, index: usize, transmit: Transmit) {
        let Some(mut hostility) = self.nodes[index].hostility.take() else { return };
        let twisted = hostility.twist(transmit, &mut self.rng);
        self.nodes[index].hostility = Some(hostility);
        for (delay, transmit) in twisted {
            if delay == 0 {
                self.carry(index, transmit);
            } else {
                self.queue.push(self.now + delay, Happening::Late(index as u32, Box::new(transmit)));
            }
        }
    }

    /// What a hostile peer says of its own accord.
    pub(super) fn extra(&mut self, index: usize) {
        if !self.nodes[index].is_alive() {
            return;
        }
        let Some(mut hostility) = self.nodes[index].hostility.take() else { return };
        self.queue.push(self.now + hostility.period_us(), Happening::Extra(index as u32));
        let others = self.hostile.iter().filter(|other| **other != index as u32);
        let channel = self.channel();
        let expires_unix_s = (self.unix_us() / 1_000_000 + RECORD_LIFETIME.as_secs()) as u32;
        let sign = |other: &u32| {
            let peer = self.nodes[*other as usize].id;
            paper::record(peer, &channel, self.addr(*other as usize), expires_unix_s)
        };
        let accomplices: Vec<PeerRecord> = others.map(sign).collect();
        let peers: Vec<PeerId> =
            self.nodes[index].links.iter().map(|(peer, _)| self.nodes[*peer as usize].id).collect();
        let (now, edge) = (Timestamp::from_micros(self.now), self.broadcast.edge());
        let scene = Scene { now, peers: &peers, accomplices: &accomplices, edge };
        let out = hostility.extra(&scene, &mut self.rng);
        self.nodes[index].hostility = Some(hostility);
        out.into_iter().for_each(|transmit| self.carry(index, transmit));
    }

    /// What a planted fault makes of it.
    pub(super) fn carry_faulty(&mut self, index: usize, transmit: Transmit) {
        match (self.fault.map(|(fault, _)| fault), transmit) {
            (Some(Fault::RelaysForgeries), Transmit::Chunk { peer, token, priority, head, body }) => {
                let mut forged = body.to_vec();
                forged[200] ^= 1;
                self.carry(index, Transmit::Chunk { peer, token, priority, head, body: forged.into() });
            }
            (Some(Fault::SpeaksToStrangers), Transmit::Control { peer, bytes }) => {
                let is_stranger =
                    |other: usize| other != index && self.nodes[index].link_to(other as u32).is_none();
                let stranger = (0..self.nodes.len()).find(|other| is_stranger(*other));
                if let Some(other) = stranger {
                    let (peer, bytes) = (self.nodes[other].id, bytes.clone());
                    self.carry(index, Transmit::Control { peer, bytes });
                }
                self.carry(index, Transmit::Control { peer, bytes });
            }
            (Some(Fault::LosesChunks), Transmit::Chunk { .. }) => self.ledger.chunks_sent += 1,
            (_, transmit) => self.carry(index, transmit),
        }
    }
}
