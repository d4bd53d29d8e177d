//! The tokio driver: executes what `caudal_proto` decides, as QUIC connections, streams and timers. Decides nothing.
//!
//! | module | owns |
//! |---|---|
//! | [`driver`] | the one task that runs an [`Engine`](caudal_proto::engine::Engine): inputs in, outputs out, one timer |
//! | [`link`] | the narrow interface between that task and a network |
//! | [`iroh_link`] | the network over QUIC (iroh): dialling by public key, one stream per chunk |
//! | [`memory_link`] | a network inside one process, for tests; follows tokio's clock, paused or not |
//!
//! Nothing here parses a message, ranks a peer or orders chunks: it moves bytes, and every queue has a named limit.

mod clock;
pub mod driver;
mod error;
pub mod iroh_link;
pub mod link;
pub mod memory_link;

pub use driver::{Driver, Handle};
pub use error::NetError;
pub use iroh_link::{IrohConfig, IrohLink};
pub use link::Link;
