//! A deterministic world in virtual time that runs the real `caudal_proto`: what a swarm of any size does behind lines
//! that serialise, delay and lose, with viewers that come, go and attack.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | what to simulate; [`profile`]: the population; `event`, `attack`: what happens to it |
//! | [`isp`] | providers, their addresses and the maps of them; `traffic`: what crosses between them |
//! | [`world`] | engines, links, broadcaster, tracker, and the event queue that steps them; by plan, or by hand for the engine's tests |
//! | [`transport`] | what the transport underneath does to bytes: one struct of parameters to calibrate |
//! | [`mod@reference`] | what physics allows: the greedy snowball and a better one, rate and offload ceilings |
//! | `check` | what must hold at every moment |
//! | [`report`] | figures, as text and JSON; `plot`: as pictures |
//!
//! Takes no delivery, queueing or pacing decision of its own: engines say what to send, the world says when it arrives.

#[cfg(feature = "args")]
pub mod args;
pub mod attack;
mod check;
pub mod config;
mod diary;
pub mod error;
pub mod event;
pub mod isp;
mod ledger;
pub mod paper;
#[cfg(feature = "plot")]
pub mod plot;
#[cfg(feature = "plot")]
pub mod plot_isps;
pub mod policy;
pub mod profile;
mod queue;
pub mod reference;
pub mod report;
mod trace;
mod traffic;
pub mod transport;
pub mod world;

pub use config::SimConfig;
pub use error::SimError;
pub use report::Report;
pub use world::World;

/// Runs a simulation and reports it.
///
/// # Errors
/// [`SimError`] when the configuration makes no sense.
pub fn run(config: SimConfig) -> Result<Report, SimError> {
    let mut world = World::new(config)?;
    world.run();
    Ok(Report::new(&world))
}
