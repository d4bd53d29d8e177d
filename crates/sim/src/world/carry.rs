//! From an engine's output to another engine's input: lines, windows, delay, losses, reordering.

use bytes::{Bytes, BytesMut};
use caudal_proto::id::PeerId;
use caudal_proto::io::{ChunkOutcome, ChunkToken, Connected, Input, Transmit};

use super::{ChunkOnItsWay, Happening, Link, World};
use crate::transport::Flow;

/// Nobody answers a dial: noticed after this long, µs.
const DIAL_TIMEOUT_US: u64 = 3_000_000;
/// After a partition retransmissions have backed off: the first to get through comes up to this much later, µs.
const BACKOFF_US: u64 = 400_000;

impl World {
    pub(super) fn transmit(&mut self, index: usize, transmit: Transmit) {
        if self.fault.is_some_and(|(_, who)| who == index) {
            self.carry_faulty(index, transmit);
        } else if self.nodes[index].is_honest() {
            self.carry(index, transmit);
        } else {
            self.twist(index, transmit);
        }
    }

    pub(super) fn carry(&mut self, index: usize, transmit: Transmit) {
        self.hash.transmit(self.now, index, &transmit);
        match transmit {
            Transmit::Connect { peer, .. } => self.connect(index, peer),
            Transmit::Disconnect { peer, .. } => self.disconnect(index, &peer),
            Transmit::Control { peer, bytes } => self.carry_control(index, &peer, bytes),
            Transmit::Chunk { peer, token, head, body, .. } => {
                self.carry_chunk(index, &peer, token, head, body);
            }
            Transmit::Reset { peer, token } => self.reset(index, &peer, token),
        }
    }

    /// The link to `peer`, its number, and which of its ends `index` is.
    fn linked(&mut self, index: usize, peer: &PeerId) -> Option<(usize, u32, usize)> {
        let to = self.index(peer)?;
        match self.nodes[index].link_to(to as u32) {
            Some(link) => {
                self.check_departed(index, to);
                let end = usize::from(self.links[link as usize].ends[1] == index as u32);
                Some((to, link, end))
            }
            None => {
                self.check_gone(index, to);
                None
            }
        }
    }

    fn carry_control(&mut self, index: usize, peer: &PeerId, bytes: Bytes) {
        let Some((to, link, end)) = self.linked(index, peer) else { return };
        let model = &self.config.transport;
        let (len, wire) = (bytes.len() as u64, model.control_wire_bytes(bytes.len() as u64));
        let node = &mut self.nodes[index];
        // It leaves with the next round of a fair queue, and takes its time from the line.
        let wait = node.up.wait(self.now) * model.control_wait_percent / 100 + node.up.time(wire);
        node.up.send(self.now, wire);
        node.record.sent += wire;
        let losses = node.loss.pass(1, &self.config.profile.network, &mut self.rng);
        let repair = model.repair_us(losses, self.rtt(link), &self.config.profile.network, &mut self.rng);
        let is_honest = self.nodes[index].is_honest();
        self.ledger.control(index == self.source, len, wire, is_honest);
        let arrives = self.now + wait + repair + self.travel(index, to, link);
        let flow = &mut self.links[link as usize].flows[end];
        flow.ordered_at = arrives.max(flow.ordered_at);
        let at = flow.ordered_at;
        self.queue.push(at, Happening::Control { link, from: index as u32, to: to as u32, bytes });
    }

    /// A chunk that waited at its sender for the line goes on, if the connection still stands.
    pub(super) fn go_on(&mut self, index: usize, peer: &PeerId, token: ChunkToken, head: Bytes, body: Bytes) {
        let to = self.index(peer);
        if to.is_some_and(|to| self.nodes[index].is_alive() && self.nodes[index].link_to(to as u32).is_some())
        {
            self.carry_chunk(index, peer, token, head, body);
        }
    }

    fn carry_chunk(&mut self, index: usize, peer: &PeerId, token: ChunkToken, head: Bytes, body: Bytes) {
        self.check_relay(index, &body);
        let Some((to, link, end)) = self.linked(index, peer) else { return };
        if self.is_taken_back(link, index as u32, token) {
            return;
        }
        // Beyond a short queue what waits for a line waits at its sender, where it can still be taken back.
        let over = self.nodes[index].up.wait(self.now).saturating_sub(self.config.transport.line_queue_us);
        if over > 0 {
            let held = Happening::Held(index as u32, *peer, token, head, body);
            self.queue.push(self.now + over, held);
            return;
        }
        let rtt = self.rtt(link);
        let model = &self.config.transport;
        let network = &self.config.profile.network;
        let bytes = (head.len() + body.len()) as u64;
        let wire = model.chunk_wire_bytes(bytes);
        let node = &mut self.nodes[index];
        let line_us = node.up.time(wire);
        let left = node.up.send(self.now, wire);
        let flow = &mut self.links[link as usize].flows[end];
        let held = flow.begin(model, bytes, rtt, line_us);
        let packets = bytes.div_ceil(model.packet_payload_bytes);
        let losses = node.loss.pass(packets, network, &mut self.rng);
        let repair = model.repair_us(losses, rtt, network, &mut self.rng);
        let mut again = 0;
        if losses.lost > 0 {
            again = losses.lost * (model.packet_payload_bytes + 60);
            node.up.send(self.now, again);
            flow.lose(model);
        }
        node.record.sent += wire + again;
        node.record.relayed += bytes;
        self.ledger.chunk_sent(index == self.source, wire, again);
        self.count_traffic(index, to, wire + again, head.get(2) == Some(&1));
        let at = left + held + repair + self.config.transport.host_us + self.travel(index, to, link);
        let sent = self.now;
        let (from, to, is_through) = (index as u32, to as u32, false);
        let chunk = ChunkOnItsWay { link, from, to, token, head, body, sent, is_through };
        self.queue.push(at, Happening::Chunk(chunk));
    }

    /// Whether its sender has taken this chunk back.
    fn is_taken_back(&mut self, link: u32, from: u32, token: ChunkToken) -> bool {
        let resets = &mut self.links[link as usize].resets;
        let at = resets.iter().position(|reset| *reset == (from, token));
        at.map(|at| resets.swap_remove(at)).is_some()
    }

    fn reset(&mut self, index: usize, peer: &PeerId, token: ChunkToken) {
        let Some((_, link, _)) = self.linked(index, peer) else { return };
        self.links[link as usize].resets.push((index as u32, token));
        let acked = Happening::Acked { link, to: index as u32, token, bytes: 0, delivered: false };
        self.queue.push(self.now, acked);
    }

    fn rtt(&self, link: u32) -> u64 {
        self.links[link as usize].one_way_us * 2
    }

    /// Propagation, jitter, a longer way for some, and for as long as a partition lasts.
    fn travel(&mut self, from: usize, to: usize, link: u32) -> u64 {
        let network = &self.config.profile.network;
        let mut time =
            self.links[link as usize].one_way_us + self.rng.u64(..=(network.jitter_ms * 1000.0) as u64);
        if network.reordered > 0.0 && self.rng.f64() < network.reordered {
            time += (network.reordered_ms * 1000.0) as u64;
        }
        if let Some((side, until)) = &self.partition
            && self.now < *until
            && side.get(from).copied().unwrap_or(false) != side.get(to).copied().unwrap_or(false)
        {
            time += until - self.now + self.rng.u64(..BACKOFF_US);
        }
        time
    }

    pub(super) fn arrive_control(&mut self, link: u32, from: u32, to: u32, bytes: &[u8]) {
        if self.links[link as usize].is_closed || !self.nodes[to as usize].is_alive() {
            return;
        }
        let (sender, to) = (self.nodes[from as usize].id, to as usize);
        // Engines send whole frames; what is left of a hostile peer's bytes goes before those that come next.
        let mut reader = self.halves.remove(&(link, from)).unwrap_or_default();
        reader.extend(bytes);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => self.input(to, Input::Control(sender, frame)),
                Ok(None) => break,
                Err(_) => {
                    self.input(to, Input::Violation(sender, "it sent a frame that is too long"));
                    return;
                }
            }
        }
        if !self.nodes[from as usize].is_honest() {
            self.halves.insert((link, from), reader);
        }
    }

    pub(super) fn arrive_chunk(&mut self, mut chunk: ChunkOnItsWay) {
        if self.links[chunk.link as usize].is_closed {
            self.ledger.chunks_cut_off += 1;
            return;
        }
        if self.is_taken_back(chunk.link, chunk.from, chunk.token) {
            let link = &mut self.links[chunk.link as usize];
            let end = usize::from(link.ends[1] == chunk.from);
            link.flows[end].end((chunk.head.len() + chunk.body.len()) as u64);
            self.ledger.chunks_reset += 1;
            return;
        }
        let to = &mut self.nodes[chunk.to as usize];
        if !to.is_alive() {
            self.ledger.chunks_to_nobody += 1;
            return;
        }
        let bytes = (chunk.head.len() + chunk.body.len()) as u64;
        if !chunk.is_through {
            let over = to.down.wait(self.now).saturating_sub(self.config.transport.line_queue_us);
            if over > 0 {
                self.queue.push(self.now + over, Happening::Chunk(chunk));
                return;
            }
            let network = &self.config.profile.network;
            let twice = if network.duplicated > 0.0 { 1.0 + network.duplicated } else { 1.0 };
            let wire = (self.config.transport.chunk_wire_bytes(bytes) as f64 * twice) as u64;
            let through = to.down.receive(self.now, wire);
            if through > self.now {
                chunk.is_through = true;
                self.queue.push(through, Happening::Chunk(chunk));
                return;
            }
        }
        self.hand_in(chunk, bytes as u32);
    }

    fn hand_in(&mut self, chunk: ChunkOnItsWay, bytes: u32) {
        let ChunkOnItsWay { link, from, to, token, head, body, sent, .. } = chunk;
        self.ledger.chunks_delivered += 1;
        self.arrived(from as usize, to as usize, &head, &body, sent);
        let back = self.config.transport.ack_delay_us + self.travel(to as usize, from as usize, link);
        let acked = Happening::Acked { link, to: from, token, bytes, delivered: true };
        self.queue.push(self.now + back, acked);
        let sender = &self.nodes[from as usize];
        let id = sender.id;
        self.carrier = Some(from);
        let input = if sender.is_honest() {
            Input::ChunkParts(id, head, body)
        } else {
            let mut stream = BytesMut::with_capacity(head.len() + body.len());
            stream.extend_from_slice(&head);
            stream.extend_from_slice(&body);
            Input::ChunkStream(id, stream.freeze())
        };
        self.input(to as usize, input);
        self.carrier = None;
    }

    pub(super) fn acked(&mut self, link: u32, to: u32, token: ChunkToken, bytes: u64, delivered: bool) {
        let state = &mut self.links[link as usize];
        if state.is_closed {
            return;
        }
        let end = usize::from(state.ends[1] == to);
        let peer = self.nodes[state.ends[1 - end] as usize].id;
        state.flows[end].end(bytes);
        let outcome = if delivered { ChunkOutcome::Delivered } else { ChunkOutcome::Dropped };
        self.input(to as usize, Input::ChunkDone(peer, token, outcome));
    }

    fn connect(&mut self, index: usize, peer: PeerId) {
        self.nodes[index].record.dials += 1;
        let to = self.index(&peer).filter(|to| self.nodes[*to].is_alive() && *to != index);
        let Some(to) = to else {
            let failed = Happening::DialFailed { to: index as u32, peer };
            self.queue.push(self.now + DIAL_TIMEOUT_US, failed);
            return;
        };
        if self.nodes[index].link_to(to as u32).is_some() {
            return;
        }
        let (a, b) = (self.nodes[index].place.region, self.nodes[to].place.region);
        let one_way_us = (self.config.profile.network.one_way_ms[a][b] * 1000.0) as u64;
        let flow = Flow::new(&self.config.transport);
        let ends = [index as u32, to as u32];
        let link = self.links.len() as u32;
        let state = Link { ends, is_closed: false, one_way_us, flows: [flow, flow], resets: Vec::new() };
        self.links.push(state);
        let bytes = self.config.transport.handshake_bytes;
        for (end, other) in [(index, to), (to, index)] {
            self.nodes[end].add_link(other as u32, link);
            self.nodes[end].up.send(self.now, bytes);
            self.nodes[end].record.sent += bytes;
            self.ledger.handshake(end == self.source, bytes);
        }
        let wait = self.travel(index, to, link) + one_way_us;
        self.queue.push(self.now + wait, Happening::Stands { link, end: ends[0] });
        self.queue.push(self.now + wait + one_way_us, Happening::Stands { link, end: ends[1] });
    }

    pub(super) fn stands(&mut self, link: u32, end: u32) {
        let state = &self.links[link as usize];
        let dialled = state.ends[0] == end;
        let other = state.ends[usize::from(dialled)] as usize;
        if state.is_closed || self.nodes[end as usize].link_to(other as u32) != Some(link) {
            return;
        }
        let connected = Connected {
            peer: self.nodes[other].id,
            addr: Some(self.addr(other)),
            rtt: core::time::Duration::from_micros(state.one_way_us * 2),
            dialled,
        };
        self.input(end as usize, Input::Connected(connected));
    }

    fn disconnect(&mut self, index: usize, peer: &PeerId) {
        let Some(to) = self.index(peer) else { return };
        let Some(link) = self.nodes[index].link_to(to as u32) else { return };
        // Who wants to be listened to does not hang up.
        if self.nodes[index].is_honest() {
            self.close(index, to, link);
        }
    }

    /// `index` closes the connection; the other end hears of it.
    pub(super) fn close(&mut self, index: usize, to: usize, link: u32) {
        self.nodes[index].remove_link(to as u32, link);
        self.nodes[index].record.note_departed(to as u32, self.now);
        self.links[link as usize].is_closed = true;
        let after = self.links[link as usize].one_way_us;
        let gone = Happening::Gone { link, from: index as u32, to: to as u32 };
        self.queue.push(self.now + after, gone);
    }

    pub(super) fn gone(&mut self, link: u32, from: u32, to: u32) {
        let now = self.now;
        let node = &mut self.nodes[to as usize];
        if node.remove_link(from, link) {
            node.record.note_departed(from, now);
            let id = self.nodes[from as usize].id;
            self.input(to as usize, Input::Disconnected(id));
        }
    }
}
