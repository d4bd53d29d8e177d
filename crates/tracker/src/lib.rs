//! Caudal's tracker: RFC 7846 (PPSTP) and the channel directory, server and client.
//!
//! | module | owns |
//! |---|---|
//! | [`link`] | the `caudal:` link that viewers are given |
//! | [`url`] | tracker URLs, and who may lead a node to which |
//! | [`descriptor`] | what a channel says about itself, signed |
//! | [`message`] | requests, answers, codes, signatures |
//! | [`page`] | the page for people, as node and tracker serve it (feature `server`) |
//! | [`text`] | text written by strangers |
//! | [`client`] | asking a tracker |
//! | [`server`] | being one (feature `server`) |
//!
//! This crate never sees media or chunks, and never dials a peer. Everything that a tracker knows is soft state: after a
//! restart it is told again within one reporting period, because a STAT_REPORT is then answered with
//! [`message::Code::UnknownPeer`]. The protocol, field by field: `docs/tracker.md`.

pub mod client;
pub mod descriptor;
pub mod link;
pub mod message;
#[cfg(feature = "server")]
pub mod page;
#[cfg(feature = "server")]
pub mod server;
pub mod text;
pub mod url;
