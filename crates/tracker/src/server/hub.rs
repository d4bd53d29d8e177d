//! From the registry's changes to the subscribers of server-sent events (WHATWG HTML, section 9.2).
//!
//! Every subscriber starts with a snapshot. Events are rendered once and shared; a subscriber too slow to keep up
//! misses some, is told nothing wrong, and gets a new snapshot instead. The hub holds no state of channels.

use std::collections::BTreeMap;
use std::sync::Arc;

use caudal_proto::id::ChannelId;
use serde::Serialize;
use tokio::sync::broadcast::{self, Receiver, Sender};

use crate::message::{Gone, Viewers};
use crate::server::channel::Audience;
use crate::server::registry::{Change, What};

/// Events of the directory that a slow subscriber may lag behind.
const DIRECTORY_LAG_MAX: usize = 256;
/// Events of one channel that a slow subscriber may lag behind.
const CHANNEL_LAG_MAX: usize = 32;

/// One event, rendered.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    pub(crate) name: &'static str,
    pub(crate) data: Arc<str>,
}

impl Rendered {
    pub(crate) fn new(name: &'static str, data: &impl Serialize) -> Self {
        // Only our own types with string keys are rendered, which always serialise.
        let data = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
        Self { name, data: data.into() }
    }
}

/// Where subscribers listen.
#[derive(Debug)]
pub(crate) struct Hub {
    directory: Sender<Rendered>,
    /// Only of channels that somebody listens to; at most one per subscriber.
    channels: BTreeMap<ChannelId, Sender<Rendered>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { directory: broadcast::channel(DIRECTORY_LAG_MAX).0, channels: BTreeMap::new() }
    }

    pub(crate) fn subscribe_directory(&self) -> Receiver<Rendered> {
        self.directory.subscribe()
    }

    pub(crate) fn subscribe_channel(&mut self, channel: ChannelId) -> Receiver<Rendered> {
        self.channels.entry(channel).or_insert_with(|| broadcast::channel(CHANNEL_LAG_MAX).0).subscribe()
    }

    /// Channels that somebody listens to.
    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelId> {
        self.channels.keys().copied()
    }

    /// Forgets channels that nobody listens to any more.
    pub(crate) fn expire(&mut self) {
        self.channels.retain(|_, sender| sender.receiver_count() > 0);
    }

    /// Tells everybody concerned.
    pub(crate) fn publish(&self, change: &Change) {
        let channel = change.channel;
        if let Some(sender) = self.channels.get(&channel) {
            let event = match &change.what {
                What::Entry(entry) => Rendered::new("channel", entry),
                What::Gone(state) => Rendered::new("ended", &Gone { channel, state: *state }),
                What::TakenDown(takedown) => Rendered::new("takedown", takedown),
                What::Note(broadcast) => Rendered::new("note", broadcast),
                What::Audience(audience) => viewers(channel, audience.clone()),
            };
            // Leaving the directory alone is nothing to those who watch.
            if change.what != What::Gone(crate::message::ChannelState::Live) {
                let _nobody_left = sender.send(event);
            }
        }
        if !change.listed || self.directory.receiver_count() == 0 {
            return;
        }
        let gone = |state| Rendered::new("gone", &Gone { channel, state });
        let event = match &change.what {
            What::Entry(entry) => Rendered::new("channel", entry),
            What::Gone(state) => gone(*state),
            What::TakenDown(_) => gone(crate::message::ChannelState::TakenDown),
            What::Audience(audience) => viewers(channel, audience.clone()),
            What::Note(_) => return,
        };
        let _nobody_left = self.directory.send(event);
    }
}

fn viewers(channel: ChannelId, Audience { viewers, quality }: Audience) -> Rendered {
    Rendered::new("viewers", &Viewers { channel, viewers, quality })
}
