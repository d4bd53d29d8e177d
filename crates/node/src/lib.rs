//! The roles a node plays: source, viewer and edge. Here, and only here, media meets the swarm.
//!
//! ```text
//! source: input ─Ingest─► Segmenter ─Part─► Signer ─Chunk─► net          viewer: net ─Chunk─► playout ─Part─► live ─► http, record
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`source`] | publishing: inputs, cutting, signing, live notes |
//! | [`viewer`] | watching: joining, putting parts together, deciding when to step over a hole |
//! | [`edge`] | HTTP as the server's side: an edge that serves signed parts, and those who fetch them |
//! | [`live`] | the window of parts that players and recorders read |
//! | [`http`] | what a player, a page and Prometheus see: HLS, the streaming response, sessions, events, stats, metrics |
//! | [`sessions`], [`desk`] | the channels that a page watches on this node, and a broadcaster's side of it |
//! | [`link_trackers`] | which trackers are asked about a link |
//! | [`maps`] | maps of the network: which are followed, and where in them this node is |
//! | [`directory`] | the lists of several trackers, as one |
//! | [`trace`] | traced chunks: hop reports put together as a tree |
//! | [`record`] | parts into a file or a pipe |
//! | [`tracking`] | telling trackers of this node and hearing of others |
//! | [`meter`], [`report`], [`metrics`] | what is measured, and the words it is reported in |
//!
//! It takes no delivery decision (those are `proto`'s) and reads no container format (that is `media`'s).

pub mod clock;
pub mod desk;
pub mod directory;
pub mod edge;
pub mod error;
pub mod http;
pub mod link_trackers;
pub mod live;
pub mod maps;
pub mod meter;
pub mod metered;
pub mod metrics;
pub mod network;
mod rates;
pub mod record;
pub mod report;
pub mod sessions;
pub mod source;
pub mod trace;
pub mod tracking;
pub mod viewer;

pub use error::NodeError;
