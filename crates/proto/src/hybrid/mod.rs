//! HTTP as the server's side of delivery: what a part looks like there, and when it is worth fetching one.
//!
//! | module | owns |
//! |---|---|
//! | [`part`] | a part as its signed chunks, back to back: cut apart and verified on arrival |
//! | [`urgent`] | which holes are worth it, and how much of that a channel may have |
//!
//! Speaks no HTTP: a node fetches, and hands in what came.

pub mod part;
pub mod urgent;
