//! Quality of service above the swarms: what a viewer's player should do with what comes, and which rendition it should be. Never
//! asks a peer for anything.

pub mod behind;
pub mod crossing;
pub mod playout;
pub mod rendition;
