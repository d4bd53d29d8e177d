//! Quality of service above the swarms: what a viewer's player should do with what comes. Never asks a peer for anything.

pub mod playout;
