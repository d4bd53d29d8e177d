//! What can go wrong for a node, in words a person can act on.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a node cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A TCP address cannot be listened on.
    #[error(
        "cannot listen on {addr} for {what}: {source}; is another program using the port? Choose another with {flag}"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What for.
        what: &'static str,
        /// The flag that changes it.
        flag: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// The UDP side cannot start.
    #[error("{0}{hint}", hint = hint(.0))]
    Net(#[from] caudal_net::NetError),
    /// No tracker answered at the start.
    #[error("{0}")]
    Tracker(#[from] caudal_tracker::client::ClientError),
    /// The operator took the channel down.
    #[error("this channel was taken down by the tracker's operator: {0}")]
    TakenDown(String),
    /// An input cannot be read.
    #[error("cannot read {path}: {reason}", path = path.display())]
    Input {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The test card cannot be drawn.
    #[error(transparent)]
    Card(#[from] caudal_media::testcard::CardError),
    /// An output cannot be written.
    #[error("cannot write {path}: {source}; does the folder exist, is there space, and may this user write there?", path = path.display())]
    Output {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The system's random numbers cannot be read.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// The option that helps.
fn hint(error: &caudal_net::NetError) -> &'static str {
    if matches!(error, caudal_net::NetError::Bind { .. }) { " (--bind)" } else { "" }
}
