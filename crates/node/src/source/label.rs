//! What the directory says of the channel; renewed when other codecs, pictures or renditions arrive.

use std::time::{Duration, Instant};

use caudal_proto::id::{RenditionId, SecretKey};
use caudal_tracker::descriptor::{Descriptor, Rendition, SignedDescriptor};
use tokio::sync::watch;

use crate::clock::unix_ms;

/// What is measured of an input may differ by this share from what the directory says …
const LABEL_DRIFT: f64 = 0.25;
/// … for this long: a scene is no reason to tell everybody.
const LABEL_PERIOD: Duration = Duration::from_secs(15);

/// The channel's descriptor.
#[derive(Debug)]
pub(super) struct Label {
    key: SecretKey,
    descriptor: Descriptor,
    signed: watch::Sender<SignedDescriptor>,
    /// When it was written anew.
    renewed: Option<Instant>,
}

impl Label {
    pub(super) fn new(
        key: SecretKey,
        descriptor: Descriptor,
        signed: watch::Sender<SignedDescriptor>,
    ) -> Self {
        Self { key, descriptor, signed, renewed: None }
    }

    /// Whether the directory says that the channel has this one.
    pub(super) fn names(&self, rendition: RenditionId) -> bool {
        self.descriptor.renditions.iter().any(|told| told.rendition() == rendition)
    }

    /// These renditions arrive now.
    pub(super) fn renew(&mut self, arriving: Vec<Rendition>) {
        let told = &self.descriptor.renditions;
        let is_recent = self.renewed.is_some_and(|at| at.elapsed() < LABEL_PERIOD);
        let is_told = told.len() == arriving.len()
            && told.iter().zip(&arriving).all(|(told, now)| is_same(told, now, is_recent));
        if arriving.is_empty() || is_told {
            return;
        }
        self.renewed = Some(Instant::now());
        self.descriptor.renditions = arriving;
        self.sign();
    }

    pub(super) fn list(&mut self, listed: bool) {
        if std::mem::replace(&mut self.descriptor.listed, listed) != listed {
            self.sign();
        }
    }

    fn sign(&mut self) {
        self.descriptor.issued_unix_ms = unix_ms().max(self.descriptor.issued_unix_ms + 1);
        match self.descriptor.sign(&self.key) {
            Ok(signed) => drop(self.signed.send_replace(signed)),
            Err(error) => tracing::warn!("the channel's description: {error}"),
        }
    }
}

fn is_same(told: &Rendition, now: &Rendition, is_recent: bool) -> bool {
    let near = |told: f64, now: f64| (told - now).abs() <= told * LABEL_DRIFT;
    let measured = near(told.bandwidth_bps as f64, now.bandwidth_bps as f64)
        && near(told.fps.unwrap_or(0.0), now.fps.unwrap_or(0.0));
    told.id == now.id
        && told.codecs == now.codecs
        && (told.width, told.height) == (now.width, now.height)
        && (measured || is_recent)
}
