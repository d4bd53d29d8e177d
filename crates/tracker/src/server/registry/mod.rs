//! All soft state of a tracker, and every decision about it: a plain struct to which time is handed.
//!
//! It never does IO, never reads a clock and never sees HTTP, so that its tests run in virtual time. It is the boundary
//! behind which another storage (shared by replicas) would stand: requests in, answers and [`Change`]s out. It writes
//! no address to any log.

mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use caudal_alto::client::Snapshot;
use caudal_proto::addr::{Class, classify, is_dialable_ip};
use caudal_proto::id::{ChannelId, PeerId};

use crate::message::{
    Action, ChannelEntry, ChannelState, Code, Connect, Find, LiveBroadcast, PEER_COUNT_DEFAULT,
    PEER_COUNT_MAX, PeerGroup, PeerMode, PeerNum, Request, Response, StatReport, SwarmAction, SwarmId,
    SwarmResult, Takedown, VERSION,
};
use crate::server::channel::{Audience, Channel, Member, bit};
use crate::server::config::{Limits, is_exempt, network};
use crate::server::lists::Lists;
use crate::server::maps::ToldAlto;
use crate::server::near::Map;
use crate::server::replay::Replay;
use crate::server::verify::{Facts, Problem, Verified};

/// The two clocks that the registry is handed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For expiry; never jumps.
    pub(crate) mono_ms: u64,
    /// For timestamps, certificates and notes.
    pub(crate) unix_ms: u64,
}

/// Something that subscribers are told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) channel: ChannelId,
    /// Whether the directory shows the channel, now or just before.
    pub(crate) listed: bool,
    pub(crate) what: What,
}

/// What changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// It came up, or its descriptor or epoch changed.
    Entry(Box<ChannelEntry>),
    /// It left the directory, and perhaps ended.
    Gone(ChannelState),
    /// The operator took it down.
    TakenDown(Takedown),
    /// A newer live note.
    Note(LiveBroadcast),
    /// Another number of viewers, or another quality.
    Audience(Audience),
}

/// Totals for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) channels: usize,
    pub(crate) live: usize,
    pub(crate) listed: usize,
    pub(crate) sources: usize,
    pub(crate) viewers: usize,
    pub(crate) taken_down: usize,
    pub(crate) expired: u64,
    pub(crate) answers_by_map: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    lan: bool,
    limits: Limits,
    public_urls: Vec<String>,
    lists: Lists,
    channels: BTreeMap<ChannelId, Channel>,
    /// Members by when they are forgotten.
    expiry: BTreeSet<(u64, ChannelId, PeerId)>,
    networks: BTreeMap<u128, u32>,
    replay: Replay,
    random: fastrand::Rng,
    changes: Vec<Change>,
    /// Channels whose viewer count changed since the last [`Registry::tick`].
    counted: BTreeSet<ChannelId>,
    expired: u64,
    /// The map of the network, while there is a fresh one.
    map: Option<Map>,
    /// Versions of it so far.
    map_versions: u64,
    /// Where peers find it.
    alto: Option<ToldAlto>,
    /// Answers whose peers were chosen by it.
    answers_by_map: u64,
}

impl Registry {
    pub(crate) fn new(lan: bool, limits: Limits, public_urls: Vec<String>, lists: Lists, seed: u64) -> Self {
        Self {
            lan,
            limits,
            public_urls,
            lists,
            channels: BTreeMap::new(),
            expiry: BTreeSet::new(),
            networks: BTreeMap::new(),
            replay: Replay::new(limits.replay_peers),
            random: fastrand::Rng::with_seed(seed),
            changes: Vec::new(),
            counted: BTreeSet::new(),
            expired: 0,
            map: None,
            map_versions: 0,
            alto: None,
            answers_by_map: 0,
        }
    }

    /// Where peers find the map.
    pub(crate) fn tell_alto(&mut self, told: ToldAlto) {
        self.alto = Some(told);
    }

    /// The newest map; none when nobody stands by one any more.
    pub(crate) fn set_map(&mut self, snapshot: Option<Arc<Snapshot>>) {
        match (&self.map, &snapshot) {
            (Some(map), Some(snapshot)) if map.is_same(snapshot) => return,
            (None, None) => return,
            _ => {}
        }
        self.map_versions += 1;
        self.map = snapshot.map(|snapshot| Map::new(snapshot, self.map_versions));
        if self.map.is_none() {
            self.channels.values_mut().for_each(Channel::forget_map);
        }
    }

    /// What subscribers have to be told since this was last asked.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Answers one request that came from `from` (canonical).
    pub(crate) fn handle(&mut self, now: Now, from: IpAddr, verified: &Verified) -> Response {
        let request = &verified.request;
        let mut response = self.response(now, Some(request.transaction_id.clone()));
        if let Err(problem) = self.admit(now, request) {
            refuse(&mut response, &problem);
            return response;
        }
        if let Some(connect) = &request.connect {
            self.connect(now, from, request.peer_id, connect, &verified.facts, &mut response);
        } else if let Some(find) = &request.find {
            response.swarm_result.push(self.find(from, request.peer_id, find));
        } else if let Some(report) = &request.stat_report {
            response.swarm_result = self.stat_report(now, request.peer_id, report, &verified.facts);
        }
        // What was refused had no effect and may come again; remembering it would only give strangers a table to fill, as
        // would the farewells of those who never joined.
        let done = response.swarm_result.iter().any(|result| result.result == 0);
        if done && (!is_leave(request) || self.replay.knows(&request.peer_id)) {
            self.replay.record(request.peer_id, request.timestamp_unix_ms);
        }
        let only = match response.swarm_result.as_slice() {
            [only] if only.result != 0 => Some((only.result, only.error.clone().unwrap_or_default())),
            _ => None,
        };
        if let Some((number, message)) = only {
            refuse(&mut response, &Problem::new(Code::from_number(number), message));
        }
        response
    }

    /// An answer without anything in it yet.
    pub(crate) fn response(&self, now: Now, transaction_id: Option<String>) -> Response {
        Response {
            version: VERSION,
            response_type: 0,
            error_code: 0,
            error: None,
            transaction_id,
            time_unix_ms: now.unix_ms,
            interval_ms: self.limits.interval_ms(),
            peer_addr: None,
            swarm_result: Vec::new(),
        }
    }

    fn admit(&self, now: Now, request: &Request) -> Result<(), Problem> {
        let tracker = request.tracker.trim_end_matches('/');
        if !self.public_urls.is_empty() && !self.public_urls.iter().any(|url| url == tracker) {
            let message = "the request was made for another tracker; check the tracker's URL";
            return Err(Problem::new(Code::Forbidden, message));
        }
        self.replay.check(now.unix_ms, &request.peer_id, request.timestamp_unix_ms)?;
        if is_leave(request) { Ok(()) } else { self.replay.check_room(&request.peer_id) }
    }

    fn connect(
        &mut self,
        now: Now,
        from: IpAddr,
        peer: PeerId,
        connect: &Connect,
        facts: &[Result<Facts, Problem>],
        response: &mut Response,
    ) {
        let addresses = self.addresses(from, connect);
        if let Ok(addresses) = &addresses {
            response.peer_addr = addresses.first().map(|address| (*address).into());
        }
        for (action, facts) in connect.swarm_action.iter().zip(facts) {
            let swarm = action.swarm_id;
            let outcome = match action.action {
                Action::Leave => {
                    self.leave(now, peer, swarm);
                    response.swarm_result.push(empty_result(swarm));
                    continue;
                }
                Action::Join => addresses.clone().and_then(|addresses| {
                    self.join(now, from, peer, action, addresses, connect, facts.clone()?)
                }),
            };
            let result = match outcome {
                Ok(()) => self.result(from, peer, swarm, Some(&connect.peer_num)),
                Err(problem) => self.refused(swarm, &problem),
            };
            response.swarm_result.push(result);
        }
    }

    /// The addresses to register: the one that the request came from with the claimed ports. Another that is claimed has
    /// no effect, but for a process on the tracker's own machine in LAN mode, which is believed about the machine's
    /// private addresses: nobody else could tell viewers in the house where it is. It is believed about loopback too
    /// (all of 127.0.0.0/8 is this machine, and a node may be bound to any of it), which only this machine is told.
    fn addresses(&self, from: IpAddr, connect: &Connect) -> Result<Vec<SocketAddr>, Problem> {
        if !is_dialable_ip(from, self.lan) {
            let message = match classify(from) {
                Class::Private | Class::Loopback => {
                    "peers on private or loopback addresses are registered in LAN mode only; start the tracker with --lan"
                }
                Class::Public | Class::Shared | Class::Never => {
                    "no peer can be reached at the address you ask from"
                }
            };
            return Err(Problem::new(Code::Forbidden, message));
        }
        let own_machine = self.lan && classify(from) == Class::Loopback;
        let mut addresses = Vec::new();
        for claimed in &connect.peer_addr {
            let ip = match claimed.ip_address.as_ref().map(|ip| ip.address) {
                None => from,
                Some(ip) if ip == from => from,
                Some(ip) if own_machine && matches!(classify(ip), Class::Private | Class::Loopback) => ip,
                Some(_) => continue,
            };
            let address = SocketAddr::new(ip, claimed.port);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            let message = "peer_addr must claim a UDP port on the address that the request comes from";
            return Err(Problem::new(Code::BadRequest, message));
        }
        Ok(addresses)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call site; each is a different thing the request said"
    )]
    fn join(
        &mut self,
        now: Now,
        from: IpAddr,
        peer: PeerId,
        action: &SwarmAction,
        addresses: Vec<SocketAddr>,
        connect: &Connect,
        facts: Facts,
    ) -> Result<(), Problem> {
        let channel_id = action.swarm_id.channel;
        self.check_lists(&channel_id)?;
        match (action.peer_mode, &facts.broadcast) {
            (PeerMode::Seed, None) => {
                let message = "SEED is for sources, which prove it with a broadcast; viewers join as LEECH";
                return Err(Problem::new(Code::AuthenticationRequired, message));
            }
            (PeerMode::Leech, Some(_)) => {
                return Err(Problem::new(Code::BadRequest, "a source joins as SEED, not as LEECH"));
            }
            _ => {}
        }
        self.check_broadcast(now, &channel_id, &facts)?;
        let network = (!is_exempt(from, self.lan)).then(|| network(from));
        self.check_room(&channel_id, &peer, network)?;

        let channel = self.channels.entry(channel_id).or_default();
        let before = channel.member(&peer).cloned();
        let mut member = Member::new(addresses, network);
        if let Some(before) = &before {
            (member.renditions, member.qos, member.upload_bps) =
                (before.renditions, before.qos, before.upload_bps);
            self.expiry.remove(&(before.expires_ms, channel_id, peer));
        }
        member.renditions |= bit(action.swarm_id.rendition);
        member.upload_bps = connect.peer_num.upload_bps.unwrap_or(member.upload_bps);
        member.expires_ms = now.mono_ms + self.limits.peer_expiry_ms;
        self.expiry.insert((member.expires_ms, channel_id, peer));
        channel.used_ms = now.mono_ms;
        channel.insert(peer, member);
        if action.peer_mode == PeerMode::Leech {
            channel.sources.remove(&peer);
        }
        self.release(before.and_then(|before| before.network));
        if let Some(network) = network {
            *self.networks.entry(network).or_default() += 1;
        }
        self.apply(&channel_id, peer, facts)?;
        self.counted.insert(channel_id);
        Ok(())
    }

    fn check_lists(&self, channel: &ChannelId) -> Result<(), Problem> {
        match self.lists.verdict(channel) {
            Some(reason) => Err(Problem::new(Code::TakenDown, reason)),
            None => Ok(()),
        }
    }

    fn check_room(&self, channel: &ChannelId, peer: &PeerId, network: Option<u128>) -> Result<(), Problem> {
        let full =
            |what: &str| Err(Problem::new(Code::Unavailable, format!("{what}; try again in a minute")));
        let members = self.channels.get(channel);
        if members.is_none() && self.channels.len() >= self.limits.channels {
            return full("the tracker serves as many channels as it can");
        }
        if members.and_then(|channel| channel.member(peer)).is_some_and(|member| member.network == network) {
            return Ok(());
        }
        if members.is_some_and(|channel| channel.len() >= self.limits.peers_per_channel) {
            return full("the channel has as many peers as this tracker keeps");
        }
        if self.expiry.len() >= self.limits.registrations {
            return full("the tracker has as many peers as it can keep");
        }
        let there = network.and_then(|network| self.networks.get(&network)).copied().unwrap_or(0);
        if network.is_some() && there >= self.limits.registrations_per_network {
            return full("too many peers are registered from your network");
        }
        Ok(())
    }

    fn find(&mut self, from: IpAddr, peer: PeerId, find: &Find) -> SwarmResult {
        let swarm = find.swarm_id;
        if let Err(problem) = self.check_lists(&swarm.channel) {
            return self.refused(swarm, &problem);
        }
        let connected = self.member(&swarm, &peer).is_some();
        if !connected {
            let problem = Problem::new(Code::Forbidden, "FIND is for peers of the swarm: CONNECT first");
            return self.refused(swarm, &problem);
        }
        self.result(from, peer, swarm, Some(&find.peer_num))
    }

    fn member(&self, swarm: &SwarmId, peer: &PeerId) -> Option<&Member> {
        let member = self.channels.get(&swarm.channel)?.member(peer)?;
        (member.renditions & bit(swarm.rendition) != 0).then_some(member)
    }

    fn stat_report(
        &mut self,
        now: Now,
        peer: PeerId,
        report: &StatReport,
        facts: &[Result<Facts, Problem>],
    ) -> Vec<SwarmResult> {
        let mut results = Vec::with_capacity(report.stat.len());
        for (stat, facts) in report.stat.iter().zip(facts) {
            let swarm = stat.swarm_id;
            let outcome = self.check_lists(&swarm.channel).and_then(|()| {
                let facts = facts.clone()?;
                if self.member(&swarm, &peer).is_none() {
                    let message = "this tracker does not know you in this swarm (any more): CONNECT again";
                    return Err(Problem::new(Code::UnknownPeer, message));
                }
                self.check_broadcast(now, &swarm.channel, &facts)?;
                self.touch(now, &swarm.channel, peer, stat.qos);
                self.apply(&swarm.channel, peer, facts)
            });
            results.push(match outcome {
                Ok(()) => self.result(IpAddr::from([0; 4]), peer, swarm, None),
                Err(problem) => self.refused(swarm, &problem),
            });
        }
        results
    }

    fn touch(&mut self, now: Now, channel_id: &ChannelId, peer: PeerId, qos: crate::message::Qos) {
        let Some(channel) = self.channels.get_mut(channel_id) else { return };
        channel.used_ms = now.mono_ms;
        let Some(member) = channel.member_mut(&peer) else { return };
        self.expiry.remove(&(member.expires_ms, *channel_id, peer));
        member.expires_ms = now.mono_ms + self.limits.peer_expiry_ms;
        self.expiry.insert((member.expires_ms, *channel_id, peer));
        member.upload_bps = qos.upload_bps.unwrap_or(member.upload_bps);
        member.qos = (qos != crate::message::Qos::default()).then_some(qos).or(member.qos);
        self.counted.insert(*channel_id);
    }

    fn leave(&mut self, now: Now, peer: PeerId, swarm: SwarmId) {
        let Some(channel) = self.channels.get_mut(&swarm.channel) else { return };
        channel.used_ms = now.mono_ms;
        let Some(member) = channel.member_mut(&peer) else { return };
        member.renditions &= !bit(swarm.rendition);
        if member.renditions == 0 {
            self.forget(&swarm.channel, peer);
            self.settle(&swarm.channel, false);
        }
    }

    fn forget(&mut self, channel_id: &ChannelId, peer: PeerId) {
        let member = self.channels.get_mut(channel_id).and_then(|channel| channel.remove(&peer));
        let Some(member) = member else { return };
        self.expiry.remove(&(member.expires_ms, *channel_id, peer));
        self.release(member.network);
        self.counted.insert(*channel_id);
    }

    fn release(&mut self, network: Option<u128>) {
        let Some(network) = network else { return };
        let Some(count) = self.networks.get_mut(&network) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.networks.remove(&network);
        }
    }

    /// One channel, listed or not: whoever knows the id may ask.
    pub(crate) fn channel(&mut self, now: Now, channel_id: &ChannelId) -> Option<ChannelEntry> {
        if let Some(reason) = self.lists.verdict(channel_id) {
            return Some(taken_down(*channel_id, reason));
        }
        let channel = self.channels.get_mut(channel_id)?;
        let quality = channel.quality(now.mono_ms);
        let broadcast =
            channel.broadcast.as_ref().map(|(certificate, note)| LiveBroadcast::new(certificate, note));
        let state = channel.state();
        Some(ChannelEntry { quality, broadcast, ..entry(*channel_id, channel, state) })
    }

    /// Listed, live channels, by viewers (most first), then by id; `query` in the name, whatever the case.
    pub(crate) fn listed(&self, query: &str) -> Vec<(ChannelId, &Channel)> {
        let query = query.to_lowercase();
        let shown = |id: &ChannelId, channel: &Channel| {
            channel.state() == ChannelState::Live
                && self.lists.verdict(id).is_none()
                && channel.descriptor.as_ref().is_some_and(|(_, descriptor)| {
                    descriptor.listed && (query.is_empty() || descriptor.name.to_lowercase().contains(&query))
                })
        };
        let mut listed: Vec<_> = self
            .channels
            .iter()
            .filter(|(id, channel)| shown(id, channel))
            .map(|(id, channel)| (*id, channel))
            .collect();
        listed.sort_by_key(|(id, channel)| (std::cmp::Reverse(channel.viewers()), *id));
        listed
    }

    /// Forgets whoever fell silent and says where the audience changed; called about once a second.
    pub(crate) fn tick(&mut self, now: Now) {
        while let Some((expires_ms, channel, peer)) = self.expiry.first().copied() {
            if expires_ms > now.mono_ms {
                break;
            }
            self.forget(&channel, peer);
            self.settle(&channel, false);
            self.expired += 1;
        }
        self.replay.expire(now.unix_ms);
        let old_ms = now.mono_ms.saturating_sub(self.limits.channel_expiry_ms);
        self.channels.retain(|_, channel| channel.len() > 0 || channel.used_ms >= old_ms);
        for id in std::mem::take(&mut self.counted) {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let audience = channel.audience(now.mono_ms);
            if audience.looks_like(&channel.told) {
                continue;
            }
            channel.told = audience.clone();
            let listed = channel.announced == Some((ChannelState::Live, true));
            let what = What::Audience(audience);
            self.changes.push(Change { channel: id, listed, what });
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals {
            channels: self.channels.len(),
            expired: self.expired,
            answers_by_map: self.answers_by_map,
            ..Totals::default()
        };
        for (id, channel) in &self.channels {
            let down = self.lists.verdict(id).is_some();
            let live = !down && channel.state() == ChannelState::Live;
            totals.live += usize::from(live);
            totals.listed += usize::from(live && channel.is_listed());
            totals.sources += channel.sources.len();
            totals.viewers += channel.viewers() as usize;
            totals.taken_down += usize::from(down);
        }
        totals
    }

    fn result(
        &mut self,
        from: IpAddr,
        peer: PeerId,
        swarm: SwarmId,
        wanted: Option<&PeerNum>,
    ) -> SwarmResult {
        let mut result = empty_result(swarm);
        let Some(channel) = self.channels.get_mut(&swarm.channel) else { return result };
        if let Some(wanted) = wanted {
            let count = wanted.peer_count.unwrap_or(PEER_COUNT_DEFAULT).min(PEER_COUNT_MAX) as usize;
            let (map, random) = (self.map.as_ref(), &mut self.random);
            let peer_info = channel.pick(&peer, from, swarm.rendition, count, map, random);
            self.answers_by_map += u64::from(peer_info.iter().any(|info| info.cost.is_some()));
            result.peer_group = Some(PeerGroup { peer_info });
            result.alto = self.alto.as_ref().and_then(|alto| alto.to(from));
        }
        result.broadcast =
            channel.broadcast.as_ref().map(|(certificate, note)| LiveBroadcast::new(certificate, note));
        result.viewers = channel.viewers();
        result
    }

    fn refused(&self, swarm: SwarmId, problem: &Problem) -> SwarmResult {
        let takedown =
            (problem.code == Code::TakenDown).then(|| Takedown { reason: problem.message.clone() });
        let error = Some(problem.message.clone());
        SwarmResult { result: problem.code.number(), error, takedown, ..empty_result(swarm) }
    }
}

/// Whether the request only leaves swarms, for which there is room even in a full tracker.
fn is_leave(request: &Request) -> bool {
    let actions = request.connect.as_ref().map(|connect| connect.swarm_action.as_slice());
    actions.is_some_and(|actions| actions.iter().all(|action| action.action == Action::Leave))
}

/// Marks an answer as refused.
pub(crate) fn refuse(response: &mut Response, problem: &Problem) {
    response.response_type = 1;
    response.error_code = problem.code.number();
    response.error = Some(problem.message.clone());
}

fn empty_result(swarm_id: SwarmId) -> SwarmResult {
    SwarmResult {
        swarm_id,
        result: 0,
        error: None,
        peer_group: None,
        broadcast: None,
        viewers: 0,
        alto: None,
        takedown: None,
    }
}

/// What a channel looks like in a list.
pub(crate) fn entry(channel_id: ChannelId, channel: &Channel, state: ChannelState) -> ChannelEntry {
    let (signed, name) = match &channel.descriptor {
        Some((signed, descriptor)) => (Some(signed.clone()), Some(descriptor.name.clone())),
        None => (None, None),
    };
    ChannelEntry {
        channel: channel_id,
        state,
        name,
        descriptor: signed,
        broadcast: None,
        since_unix_ms: channel
            .broadcast
            .as_ref()
            .map(|(certificate, _)| certificate.not_before_unix_us / 1000),
        viewers: channel.viewers(),
        quality: channel.told.quality.clone(),
        takedown: None,
    }
}

fn taken_down(channel: ChannelId, reason: &str) -> ChannelEntry {
    ChannelEntry {
        channel,
        state: ChannelState::TakenDown,
        name: None,
        descriptor: None,
        broadcast: None,
        since_unix_ms: None,
        viewers: 0,
        quality: None,
        takedown: Some(Takedown { reason: reason.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
