//! Fetching what a swarm is about to miss from an edge: carries out what `proto` decides, and hands verified chunks back.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use caudal_proto::broadcast::Certificate;
use caudal_proto::chunk::Ed25519Verifier;
use caudal_proto::hybrid::part::{PartId, read_part};
use caudal_proto::hybrid::urgent::UNDER_WAY_MAX;
use caudal_proto::id::ChannelId;
use caudal_proto::io::FetchedPart;
use caudal_tracker::url::AllowedUrl;
use tokio::task::JoinSet;

use crate::edge::client::{EdgeClient, EdgeError};

/// What came of asking the client at `at`, and how much was read, also in vain.
#[derive(Debug)]
struct Came {
    part: PartId,
    at: usize,
    body: Result<Bytes, EdgeError>,
    read: u64,
}

/// The edges that a viewer in a swarm may ask, and what it asks them for.
#[derive(Debug)]
pub(super) struct Fetches {
    channel: ChannelId,
    clients: Vec<EdgeClient>,
    /// The one that is asked.
    at: usize,
    under_way: JoinSet<Came>,
    certificate: Option<Certificate>,
    /// What was complained of last; nobody is told twice.
    complained: Option<String>,
}

impl Fetches {
    pub(super) fn new(channel: ChannelId) -> Self {
        Self {
            channel,
            clients: Vec::new(),
            at: 0,
            under_way: JoinSet::new(),
            certificate: None,
            complained: None,
        }
    }

    /// There are more edges; true when these are the first.
    pub(super) fn add(&mut self, edges: impl Iterator<Item = AllowedUrl>) -> bool {
        let had_none = self.clients.is_empty();
        EdgeClient::add(&mut self.clients, edges, self.channel);
        had_none && !self.clients.is_empty()
    }

    /// Another broadcast is followed.
    pub(super) fn follow(&mut self, certificate: Certificate) {
        self.certificate = Some(certificate);
    }

    /// Asks for a part of at most `len_max` bytes.
    pub(super) fn fetch(&mut self, part: PartId, len_max: usize) {
        debug_assert!(self.under_way.len() <= 2 * UNDER_WAY_MAX, "the engine asks for few at a time");
        let at = self.at;
        if let Some(client) = self.clients.get(at).cloned() {
            self.under_way.spawn(async move {
                let read = AtomicU64::new(0);
                let body = client.part_within(part, len_max, &read).await;
                Came { part, at, body, read: read.into_inner() }
            });
        }
    }

    /// What came next, verified; waits for ever while nothing is under way.
    pub(super) async fn next(&mut self) -> (FetchedPart, Option<String>) {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(came)) => return self.verify(came),
                // It was cut off, which only the end of the program does.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn verify(&mut self, came: Came) -> (FetchedPart, Option<String>) {
        let Came { part, at, body, read: bytes } = came;
        let nothing = FetchedPart { part, chunks: Vec::new(), bytes };
        let url = self.clients.get(at).map(|client| client.url().to_string()).unwrap_or_default();
        let (fetched, why) = match (body, &self.certificate) {
            (Ok(body), Some(certificate)) => {
                let read = read_part(&body, part, certificate, &mut Ed25519Verifier);
                match read.error {
                    None => (FetchedPart { part, chunks: read.chunks, bytes }, None),
                    Some(error) => (nothing, Some(format!("edge {url}: part {}: {error}", part.part))),
                }
            }
            // It left the edge's window, or has not come there; or this edge has no such rendition, and another may.
            (Ok(_), None) | (Err(EdgeError::Absent { .. }), _) => {
                self.turn(at);
                return (nothing, None);
            }
            (Err(error), _) => (nothing, Some(error.to_string())),
        };
        let Some(why) = why else { return (fetched, None) };
        self.turn(at);
        let is_new = self.complained.as_ref() != Some(&why);
        self.complained = Some(why.clone());
        (fetched, is_new.then_some(why))
    }

    /// The next edge is asked from now on, unless that is so already.
    fn turn(&mut self, from: usize) {
        if self.at == from {
            self.at = (from + 1) % self.clients.len().max(1);
        }
    }
}
