//! The interface between the [driver](crate::driver) and a network. A link carries; it never decides.
//!
//! What a link owes the engine, whatever it is made of:
//! - One connection per peer. Every [`Input::Connected`] is followed by exactly one [`Input::Disconnected`], also when
//!   it was this side that disconnected, and whatever belongs to a connection comes between the two.
//! - Every [`Transmit::Connect`] is answered by [`Input::Connected`] or [`Input::DialFailed`], unless a connection to
//!   that peer stands or another dial to it is under way: then that one's answer is the answer.
//! - Bytes meant for a connection never reach its successor: what the engine hands over before it has seen the new
//!   [`Input::Connected`] goes nowhere.
//! - After [`Input::Violation`] nothing more that this peer sends reaches the engine, which is to disconnect it.
//! - What a peer sends and the engine has not taken yet is bounded per peer: one that floods blocks itself.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use caudal_proto::id::PeerId;
use caudal_proto::io::{Input, Transmit};

/// Chunks handed to one connection that the peer has not acknowledged; one more is [dropped](
/// caudal_proto::io::ChunkOutcome::Dropped) at once.
pub const CHUNKS_OUT_MAX: usize = 64;
/// Control bytes handed to one connection that it could not send yet; with more, the peer counts as silent and is
/// disconnected with [`CloseCode::Silent`](caudal_proto::io::CloseCode::Silent).
pub const CONTROL_OUT_BYTES_MAX: usize = 256 * 1024;
/// Round-trip times are told at most this often.
pub const PATH_EVERY: Duration = Duration::from_secs(1);

/// [`Input::Violation`]'s reason: a control frame longer than allowed.
pub const VIOLATION_FRAME: &str = "a control frame longer than allowed";
/// [`Input::Violation`]'s reason: a chunk stream longer than allowed.
pub const VIOLATION_CHUNK: &str = "a chunk stream longer than allowed";
/// [`Input::Violation`]'s reason: a control stream that does not open as it must.
pub const VIOLATION_PREFACE: &str = "a control stream that does not open as it must";
/// [`Input::Violation`]'s reason: rules of QUIC itself, its limits among them.
pub const VIOLATION_TRANSPORT: &str = "broke the rules or limits of QUIC";

/// A network as one node sees it.
pub trait Link: Send + 'static {
    /// This node.
    fn local(&self) -> PeerId;

    /// Addresses under which peers may dial this node.
    fn local_addrs(&self) -> Vec<SocketAddr>;

    /// Does what the engine decided. Never blocks; called within a tokio runtime.
    fn execute(&mut self, transmit: Transmit);

    /// Waits until something happened, then appends all that is ready, about `max` inputs at most. Cancel-safe: what
    /// is not appended is not lost.
    fn inputs(&mut self, into: &mut Vec<Input>, max: usize) -> impl Future<Output = ()> + Send;

    /// Leaves the network: tells every peer and lets what was handed over go out, within
    /// [`CLOSE_TIMEOUT`](crate::driver::CLOSE_TIMEOUT).
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// Whether a round-trip time departs from the one last told by more than a tenth and a millisecond.
pub(crate) fn rtt_is_news(told: Duration, now: Duration) -> bool {
    let change = told.abs_diff(now);
    change > Duration::from_millis(1) && change > told / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_of_round_trip_time_are_no_news() {
        let news = |told, now| rtt_is_news(Duration::from_micros(told), Duration::from_micros(now));
        assert!(!news(200, 1100), "less than a millisecond");
        assert!(!news(50_000, 54_000) && !news(50_000, 46_000), "less than a tenth");
        assert!(news(50_000, 56_000) && news(50_000, 44_000) && news(100_000, 25_000));
    }
}
