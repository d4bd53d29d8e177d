//! The way from inputs into the source: what an input brings, with the rendition that it is of.

use caudal_media::sample::Ingest;
use caudal_proto::id::RenditionId;
use tokio::sync::mpsc;

/// The source is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// One input's way in.
#[derive(Debug, Clone)]
pub(super) struct Intake {
    rendition: RenditionId,
    ingest: mpsc::Sender<(RenditionId, Ingest)>,
}

impl Intake {
    /// Into the first rendition.
    pub(super) fn new(ingest: mpsc::Sender<(RenditionId, Ingest)>) -> Self {
        Self { rendition: RenditionId(0), ingest }
    }

    /// The same for another rendition.
    pub(super) fn of(&self, rendition: RenditionId) -> Self {
        Self { rendition, ingest: self.ingest.clone() }
    }

    pub(super) async fn send(&self, event: Ingest) -> Result<(), Gone> {
        self.ingest.send((self.rendition, event)).await.map_err(|_| Gone)
    }

    /// From a thread.
    pub(super) fn blocking_send(&self, event: Ingest) -> Result<(), Gone> {
        self.ingest.blocking_send((self.rendition, event)).map_err(|_| Gone)
    }
}
