//! Providers in the world: addresses, everybody's map of the network, what the tracker makes of it, what crosses.

use std::net::SocketAddr;

use caudal_proto::io::Candidate;
use caudal_proto::swarm::NetworkMap;

use super::{Happening, World};
use crate::isp::{self, Alto, CHANGE_PERIOD_US};

impl World {
    /// The address of a node: private, and its own.
    pub(crate) fn addr(&self, index: usize) -> SocketAddr {
        let isps = self.config.profile.isp.len();
        let isp = self.nodes.get(index).map_or(0, |node| node.place.isp);
        SocketAddr::from((isp::address(isps, isp, index), 4000))
    }

    /// The first map, and when it changes.
    pub(super) fn draw_map(&mut self) {
        let alto = self.config.alto;
        let isps = &self.config.profile.isp;
        self.maps.set(isp::map(alto, isps, self.config.peers * 2, &mut self.dealer));
        match alto {
            Alto::Down => self.queue.push(self.measured_from(), Happening::Remap),
            Alto::Changing => self.queue.push(self.now + CHANGE_PERIOD_US, Happening::Remap),
            Alto::Off | Alto::On | Alto::Lying | Alto::Flat => {}
        }
    }

    pub(super) fn remap(&mut self) {
        if self.config.alto == Alto::Changing {
            self.draw_map();
        } else {
            self.maps.set(None);
        }
    }

    /// What `index` knows of the network.
    pub(super) fn map_for(&self, index: usize) -> Option<Box<dyn NetworkMap>> {
        let has_map = self.config.alto != Alto::Off;
        has_map.then(|| Box::new(self.maps.seen_from(self.addr(index).ip())) as Box<dyn NetworkMap>)
    }

    /// What a tracker with a map names first: half of `room` by cost, the strongest of the nearest among them, and a quarter at
    /// random. They are taken out of `sample`, which is in random order.
    pub(super) fn take_near(&mut self, index: usize, sample: &mut Vec<u32>, room: usize) -> Vec<Candidate> {
        if self.config.alto == Alto::Off || !self.config.policy.locality {
            return Vec::new();
        }
        let view = self.maps.seen_from(self.addr(index).ip());
        let cost = |i: &u32| view.cost(self.addr(*i as usize).ip()).map_or(u32::MAX, |path| path.cost);
        if sample.iter().all(|i| cost(i) == u32::MAX) {
            return Vec::new();
        }
        sample.sort_by_key(cost);
        let nearest = sample.partition_point(|i| cost(i) == cost(&sample[0]));
        let mut near: Vec<u32> = sample[..nearest].to_vec();
        near.sort_by_key(|i| core::cmp::Reverse(self.nodes[*i as usize].place.upload_bps));
        near.truncate(room / 4);
        sample.retain(|i| !near.contains(i));
        near.extend(sample.drain(..sample.len().min((room / 2).saturating_sub(near.len()))));
        self.people.shuffle(sample);
        near.extend(sample.drain(..sample.len().min(room / 4)));
        let mut candidates: Vec<Candidate> = near.into_iter().map(|i| self.candidate(i as usize)).collect();
        for candidate in &mut candidates {
            candidate.cost = view.cost(candidate.addrs[0].ip()).map_or(0, |path| path.cost);
        }
        candidates
    }

    /// A chunk leaves for somebody.
    pub(super) fn count_traffic(&mut self, from: usize, to: usize, bytes: u64, is_asked: bool) {
        let (a, b) = (self.nodes[from].place.isp, self.nodes[to].place.isp);
        self.traffic.chunk(self.now, a, b, bytes, is_asked);
    }
}
