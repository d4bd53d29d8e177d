//! Network maps and cost maps (RFC 7285, sections 5, 6 and 11.2).
//!
//! Both are immutable once made: who holds one holds a consistent picture. A [`CostMap`] holds the [`NetworkMap`] that its
//! PIDs are from, so that the two cannot be mixed up.

mod changes;
mod cost;
mod network;
mod read;

#[cfg(feature = "server")]
pub(crate) use cost::Ranks;
pub use cost::{CostMap, Costs};
#[cfg(feature = "server")]
pub(crate) use network::push_key;
pub use network::{NetworkMap, Pid, PidIndex};
pub(crate) use read::ReadCosts;

/// Most PIDs of a map: a cost for each pair is 8 bytes, 32 MiB in all.
pub const PIDS_MAX: usize = 2048;
/// Most prefixes of a map: as many as the Internet's routing tables have, and some room.
pub const PREFIXES_MAX: usize = 1_000_000;
/// Longest map as a message, bytes.
pub const MAP_LEN_MAX: usize = 64 * 1024 * 1024;

/// Why a map is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// Not the JSON that is expected.
    #[error("{0}")]
    Json(String),
    /// What every map has is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// One prefix is in two PIDs, so that its addresses would be in both (section 11.2.2).
    #[error("{prefix} is in {first} and in {second}: a prefix belongs to one PID")]
    Overlap {
        /// The prefix.
        prefix: ipnet::IpNet,
        /// One PID.
        first: String,
        /// The other.
        second: String,
    },
    /// Addresses without a PID (section 11.2.2).
    #[error("not every address has a PID: add {0} to the PID that stands for the rest of the world")]
    Incomplete(ipnet::IpNet),
    /// Too large.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
}

/// A tag for content: 40 hexadecimal digits of its BLAKE3 hash.
fn tag(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..40].to_owned()
}
