//! Everything a Caudal node decides, without IO: wire codec, chunk signing, swarm, uplink.
//!
//! | module | owns |
//! |---|---|
//! | [`time`] | the monotonic clock that callers hand in |
//! | [`id`] | channels, peers, renditions, and the keys behind them |
//! | [`broadcast`] | the broadcast certificate and the live note: who may sign chunks, and how fresh the edge is |
//! | [`chunk`] | the signed unit of transfer: cut, sign, verify |
//!
//! This crate never sees a socket, a clock, a thread, a file or media: time is a [`time::Timestamp`] handed in,
//! randomness a seed handed in, and the same seed and inputs give the same outputs, byte for byte.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod broadcast;
pub mod chunk;
pub mod id;
pub mod time;
