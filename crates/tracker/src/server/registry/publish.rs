//! What a channel says about itself: its broadcast, its descriptor, the operator's word against it, and telling
//! subscribers when any of that changes how the channel is.

use caudal_proto::id::{ChannelId, PeerId};

use super::{Change, Now, Registry, What, entry};
use crate::descriptor::{Descriptor, SignedDescriptor};
use crate::message::{ChannelEntry, ChannelState, Code, LiveBroadcast, REQUEST_AGE_MAX_MS, Takedown};
use crate::server::lists::Lists;
use crate::server::verify::{Facts, Problem};

impl Registry {
    /// Whether what a source shows may replace what is known; changes nothing.
    pub(super) fn check_broadcast(
        &self,
        now: Now,
        channel: &ChannelId,
        facts: &Facts,
    ) -> Result<(), Problem> {
        let known = self.channels.get(channel);
        if let Some((certificate, note)) = &facts.broadcast {
            let now_unix_us = now.unix_ms.saturating_mul(1000);
            certificate
                .check_time(now_unix_us)
                .map_err(|error| Problem::new(Code::Clock, format!("the broadcast certificate: {error}")))?;
            if !note.is_fresh(now_unix_us) {
                let message = "the live note is not of this moment; is your clock right?";
                return Err(Problem::new(Code::Clock, message));
            }
            if let Some((present, _)) = known.and_then(|channel| channel.broadcast.as_ref()) {
                let newer = certificate.epoch > present.epoch;
                if !newer && certificate != present {
                    let message =
                        format!("epoch {} of this channel is on the air; yours is not newer", present.epoch);
                    return Err(Problem::new(Code::Superseded, message));
                }
            }
        }
        if let Some((_, descriptor)) = &facts.descriptor {
            self.check_descriptor(now, channel, descriptor)?;
        }
        Ok(())
    }

    fn check_descriptor(
        &self,
        now: Now,
        channel: &ChannelId,
        descriptor: &Descriptor,
    ) -> Result<(), Problem> {
        if descriptor.issued_unix_ms > now.unix_ms + REQUEST_AGE_MAX_MS {
            let message = "the descriptor was issued in the future; is your clock right?";
            return Err(Problem::new(Code::Clock, message));
        }
        let known = self.channels.get(channel).and_then(|channel| channel.descriptor.as_ref());
        if known.is_some_and(|(_, known)| known.issued_unix_ms > descriptor.issued_unix_ms) {
            return Err(Problem::new(Code::Superseded, "a newer descriptor of this channel is known"));
        }
        Ok(())
    }

    /// Takes over what [`Registry::check_broadcast`] found good. The peer is a member.
    pub(super) fn apply(
        &mut self,
        channel_id: &ChannelId,
        peer: PeerId,
        facts: Facts,
    ) -> Result<(), Problem> {
        let Some(channel) = self.channels.get_mut(channel_id) else {
            return Err(Problem::new(Code::UnknownPeer, "CONNECT first"));
        };
        let mut changed = false;
        if let Some((certificate, note)) = facts.broadcast {
            let present = channel.broadcast.as_ref();
            if present.is_none_or(|(present, _)| present.epoch < certificate.epoch) {
                // A new epoch: whoever was a source of the old one has to prove itself again.
                channel.sources.clear();
                changed = true;
            }
            channel.sources.insert(peer);
            let newer = changed || present.is_some_and(|(_, known)| known.unix_us < note.unix_us);
            if newer {
                channel.broadcast = Some((certificate, note));
                let what = What::Note(LiveBroadcast::new(&certificate, &note));
                self.changes.push(Change { channel: *channel_id, listed: false, what });
            }
        }
        if let Some((signed, descriptor)) = facts.descriptor {
            changed |= channel.descriptor.as_ref().is_none_or(|(known, _)| *known != signed);
            channel.descriptor = Some((signed, descriptor));
        }
        self.settle(channel_id, changed);
        Ok(())
    }

    /// Tells subscribers how the channel is, if that changed.
    pub(super) fn settle(&mut self, channel_id: &ChannelId, changed: bool) {
        let taken_down = self.lists.verdict(channel_id).map(str::to_owned);
        let Some(channel) = self.channels.get_mut(channel_id) else { return };
        let state = if taken_down.is_some() { ChannelState::TakenDown } else { channel.state() };
        let listed = channel.is_listed();
        let before = channel.announced.replace((state, listed));
        let was_listed = before.is_some_and(|(_, listed)| listed);
        if before == Some((state, listed)) && !(changed && state == ChannelState::Live) {
            return;
        }
        let mut tell = |listed, what| self.changes.push(Change { channel: *channel_id, listed, what });
        match state {
            ChannelState::TakenDown => {
                let reason = taken_down.unwrap_or_default();
                tell(was_listed, What::TakenDown(Takedown { reason }));
            }
            ChannelState::Live => {
                if was_listed && !listed {
                    tell(true, What::Gone(state));
                }
                let entry = entry(*channel_id, channel, state);
                channel.told.viewers = entry.viewers;
                tell(listed, What::Entry(Box::new(entry)));
            }
            ChannelState::Ended | ChannelState::Silent => {
                if before.is_some_and(|(before, _)| before == ChannelState::Live) {
                    tell(was_listed, What::Gone(state));
                }
            }
            ChannelState::Waiting => {}
        }
    }

    /// A descriptor on its own. Only channels with a source are kept, so that the directory costs a stranger more than
    /// a signature.
    pub(crate) fn put_descriptor(
        &mut self,
        now: Now,
        channel_id: &ChannelId,
        signed: SignedDescriptor,
        descriptor: Descriptor,
    ) -> Result<ChannelEntry, Problem> {
        self.check_lists(channel_id)?;
        self.check_descriptor(now, channel_id, &descriptor)?;
        let Some(channel) = self.channels.get_mut(channel_id).filter(|channel| !channel.sources.is_empty())
        else {
            let message = "the channel has no source here: CONNECT as its source first";
            return Err(Problem::new(Code::UnknownPeer, message));
        };
        let changed = channel.descriptor.as_ref().is_none_or(|(known, _)| *known != signed);
        channel.descriptor = Some((signed, descriptor));
        channel.used_ms = now.mono_ms;
        self.settle(channel_id, changed);
        self.channel(now, channel_id).ok_or_else(|| Problem::new(Code::Internal, "the channel vanished"))
    }

    /// New lists: takes down and restores at once. Subscribers of channels that nobody is in are told as well.
    pub(crate) fn set_lists(&mut self, lists: Lists, subscribed: &[ChannelId]) {
        self.lists = lists;
        for channel in subscribed.iter().filter(|id| !self.channels.contains_key(id)) {
            if let Some(reason) = self.lists.verdict(channel) {
                let what = What::TakenDown(Takedown { reason: reason.to_owned() });
                self.changes.push(Change { channel: *channel, listed: false, what });
            }
        }
        let ids: Vec<ChannelId> = self.channels.keys().copied().collect();
        for id in ids {
            if self.lists.verdict(&id).is_some() {
                self.settle(&id, false);
                let members: Vec<PeerId> = self
                    .channels
                    .get(&id)
                    .map(|channel| channel.members().map(|(peer, _)| *peer).collect())
                    .unwrap_or_default();
                for peer in members {
                    self.forget(&id, peer);
                }
            } else {
                self.settle(&id, false);
            }
        }
    }
}
