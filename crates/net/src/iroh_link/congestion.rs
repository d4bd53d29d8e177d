//! The engine's congestion control as the transport wants it. Decides nothing.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use caudal_proto::congestion::Congestion;
use caudal_proto::time::Timestamp;
use iroh::endpoint::{Controller, ControllerFactory, RttEstimator};

/// Makes a controller for each path.
#[derive(Debug, Default)]
pub(super) struct ByDelay;

impl ControllerFactory for ByDelay {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Adapter { control: Congestion::new(current_mtu.into()), since: now })
    }
}

#[derive(Debug, Clone)]
struct Adapter {
    control: Congestion,
    since: Instant,
}

impl Adapter {
    fn at(&self, now: Instant) -> Timestamp {
        let us = now.saturating_duration_since(self.since).as_micros();
        Timestamp::from_micros(us.try_into().unwrap_or(u64::MAX))
    }
}

impl Controller for Adapter {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        _pn: u64,
        app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.control.acked(self.at(now), now.saturating_duration_since(sent), bytes, app_limited);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        is_ecn: bool,
        lost_bytes: u64,
        _largest_lost_pn: u64,
    ) {
        if is_ecn {
            self.control.marked(self.at(now));
        } else {
            self.control.lost(self.at(now), lost_bytes, is_persistent_congestion);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.control.set_packet(new_mtu.into());
    }

    fn window(&self) -> u64 {
        self.control.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.control.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
