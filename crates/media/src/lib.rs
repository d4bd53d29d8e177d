//! Bytes in, bytes out: what encoders send becomes CMAF parts, and parts become something a player reads.
//!
//! ```text
//! encoder bytes ─► ingest ─Ingest(Sample)─► segment::Segmenter ─Part─► (the swarm) ─► assemble::Assembler ─Part─► hls
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`sample`] | one access unit and the tracks it belongs to: what every ingest produces |
//! | [`part`] | one CMAF part and its envelope: what crosses the swarm |
//! | [`fmp4`] | the boxes: init segments, fragments, `prft`, RFC 6381 codec strings, and a reader for them |
//! | [`segment`] | when a part and a segment end; timeline, discontinuities, changes of configuration |
//! | [`assemble`] | chunks back to parts in order, gaps at segment starts, parts to one playable byte stream |
//! | [`hls`] | LL-HLS: a window of parts, the playlists over it, blocking requests |
//!
//! This crate never sees a peer, a socket, a clock or a thread: times are handed in. Its parsers meet hostile
//! bytes, so they return errors, never panic, and never allocate more than they were given.

pub mod assemble;
pub mod fmp4;
pub mod hls;
pub mod part;
pub mod sample;
pub mod segment;
