//! One channel's swarm, as one node sees it.

mod config;
pub mod policy;

pub use config::{NeighbourStats, Role, SwarmConfig, SwarmStats};
