//! The crate from the outside: server and client against RFC 7285 and its companions, and against each other.
//!
//! One program, because linking several takes longer than running them.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod client;
mod common;
mod errors;
mod examples;
mod fuzz;
mod hostile;
mod protocol;
mod updates;
