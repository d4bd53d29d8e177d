//! ALTO (Application-Layer Traffic Optimization): what a network says about which of its parts are near to each other,
//! served and asked for. RFC 7285, with updates by server-sent events (RFC 8895) and performance metrics (RFC 9439).
//!
//! | module | owns |
//! |---|---|
//! | [`types`] | names, media types, cost types and version tags |
//! | [`map`] | network maps and cost maps: reading, writing, looking up, what changed |
//! | [`config`] | `alto.toml`, with the line of what is wrong in it |
//! | [`build`] | an `alto.toml` from an IP-to-ASN table |
//! | [`client`] | asking a server, and holding its maps as they change |
//! | [`server`] | being one (feature `server`) |
//!
//! Nothing here knows about Caudal, chunks or peers: an operator can serve maps with it to whoever speaks the protocol. What
//! the maps say is advice. For operators: `docs/alto.md`.

#![cfg_attr(not(feature = "server"), expect(dead_code, reason = "only a server writes maps"))]

pub mod build;
pub mod client;
pub mod config;
pub mod map;
#[cfg(feature = "server")]
pub mod server;
pub mod types;
