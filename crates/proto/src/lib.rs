//! Everything a Caudal node decides, without IO: wire codec, chunk signing, swarm, uplink.
//!
//! | module | owns |
//! |---|---|
//! | [`time`] | the monotonic clock that callers hand in |
//! | [`id`] | channels, peers, renditions, and the keys behind them |
//! | [`broadcast`] | the broadcast certificate and the live note: who may sign chunks, and how fresh the edge is |
//! | [`chunk`] | the signed unit of transfer: cut, sign, verify |
//! | [`record`] | a peer's signed word of where it is reached |
//! | [`hop`] | a peer's signed word of when a traced chunk passed it |
//! | [`wire`] | what peers say to each other, to the byte |
//! | [`swarm`] | one channel's swarm: have map, substreams, pulls, neighbours, joining |
//! | [`hybrid`] | what HTTP carries beside the swarm, and when it is worth fetching it |
//! | [`qos`] | what a player should do with what comes: how far behind to play |
//! | [`congestion`] | how much one connection may have under way |
//! | [`uplink`] | the node's one pacer and deadline queue, above all its swarms |
//! | [`addr`] | which addresses may be dialled or passed on |
//! | [`engine`] | all of a node's swarms above its one uplink; [`io`] is its contract with a driver |
//!
//! This crate never sees a socket, a clock, a thread, a file or media: time is a [`time::Timestamp`] handed in,
//! randomness a seed handed in, and the same seed and inputs give the same outputs, byte for byte.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod broadcast;
pub mod chunk;
pub mod congestion;
pub mod engine;
pub mod hop;
pub mod hybrid;
pub mod id;
pub mod io;
mod peer_map;
pub mod qos;
pub mod record;
pub mod swarm;
pub mod time;
pub mod uplink;
pub mod wire;
