//! All of a node's swarms above its one uplink: the state machine that a driver runs.

use crate::id::{ChannelId, PeerId};
use crate::io::{Input, Output};
use crate::swarm::SwarmStats;
use crate::time::Timestamp;

/// A node's settings.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// This node.
    pub local: PeerId,
    /// Seeds every random choice.
    pub seed: u64,
    /// Most upload in bit/s, all swarms together; `None`: as measured.
    pub upload_limit_bps: Option<u64>,
}

/// A node's whole protocol state.
#[derive(Debug)]
pub struct Engine {
    _config: EngineConfig,
}

impl Engine {
    /// A node that takes part in nothing yet.
    pub fn new(config: EngineConfig) -> Self {
        Self { _config: config }
    }

    /// Something happened at `now`. Drain [`Engine::poll_output`] afterwards.
    pub fn handle_input(&mut self, now: Timestamp, input: Input) {
        let _ = (now, input);
    }

    /// The next thing to do; after [`Output::Timeout`] there is nothing more until the next input.
    pub fn poll_output(&mut self) -> Output {
        Output::Timeout(Timestamp::FAR_FUTURE)
    }

    /// A look at a swarm.
    pub fn stats(&self, channel: &ChannelId) -> Option<SwarmStats> {
        let _ = channel;
        None
    }
}
