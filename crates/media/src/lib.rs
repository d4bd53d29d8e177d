//! Bytes in, bytes out: what encoders send becomes CMAF parts, and parts become something a player reads.
//!
//! ```text
//! encoder bytes ─► ingest ─Ingest(Sample)─► segment::Segmenter ─Part─► (the swarm) ─► assemble::Assembler ─Part─► hls
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`ingest`] | RTMP, FLV and MP4 in: samples on one monotonic timeline, and what to tell the broadcaster |
//! | [`sample`] | one access unit and the tracks it belongs to: what every ingest produces |
//! | [`part`] | one CMAF part and its envelope: what crosses the swarm |
//! | [`testcard_code`] | the machine-readable strip of the test card: drawing it, and reading it from decoded pictures |
//! | `testcard` | the built-in live test card, H.264 and AAC (feature `testcard`) |
//! | [`fmp4`] | the boxes: init segments, fragments, `prft`, RFC 6381 codec strings, and a reader for them |
//! | [`segment`] | when a part and a segment end; timeline, discontinuities, changes of configuration |
//! | [`assemble`] | chunks back to parts in order, gaps at segment starts, parts to one playable byte stream |
//! | [`seam`] | from one rendition's parts to another's, without a gap |
//! | [`hls`] | LL-HLS: a window of parts, the playlists over it, blocking requests |
//!
//! This crate never sees a peer, a socket, a clock or a thread: times are handed in. Its parsers meet hostile
//! bytes, so they return errors, never panic, and never allocate more than they were given.

pub mod assemble;
pub mod fmp4;
pub mod hls;
pub mod ingest;
pub mod part;
pub mod sample;
pub mod seam;
pub mod segment;
#[cfg(feature = "testcard")]
pub mod testcard;
pub mod testcard_code;
