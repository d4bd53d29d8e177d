//! The registry in virtual time: proofs, epochs, expiry, limits, lists.

use std::net::IpAddr;

use caudal_proto::broadcast::{Certificate, CertificateTerms, LiveNote};
use caudal_proto::id::{BroadcastId, ChannelId, PeerId, SecretKey};

use super::*;
use crate::descriptor::{Descriptor, SignedDescriptor};
use crate::message::{
    Broadcast, ClaimedAddress, Envelope, PeerNum, Qos, RequestType, Stat, StatKind, sign_request,
};
use crate::server::lists::List;
use crate::server::verify::verify;

const START_UNIX_MS: u64 = 1_800_000_000_000;
const HOME: [u8; 4] = [93, 184, 216, 34];

struct World {
    registry: Registry,
    now: Now,
    stamp: u64,
    channel: SecretKey,
}

struct Air {
    certificate: Certificate,
    note: LiveNote,
    key: SecretKey,
}

impl World {
    fn new() -> Self {
        Self::with(false, Limits::default())
    }

    fn with(lan: bool, limits: Limits) -> Self {
        Self {
            registry: Registry::new(lan, limits, Vec::new(), Lists::default(), 7),
            now: Now { mono_ms: 5, unix_ms: START_UNIX_MS },
            stamp: START_UNIX_MS,
            channel: SecretKey::from_bytes(&[100; 32]),
        }
    }

    fn id(&self) -> ChannelId {
        self.channel.channel()
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += ms;
        self.registry.tick(self.now);
    }

    fn air(&self, epoch: u64) -> Air {
        let key = SecretKey::from_bytes(&[u8::try_from(epoch).unwrap(); 32]);
        let now_us = self.now.unix_ms * 1000;
        let terms = CertificateTerms {
            epoch,
            not_before_unix_us: now_us,
            not_after_unix_us: now_us + 86_400_000_000,
            substreams: 8,
            rate_bps: 1_000_000,
        };
        let certificate = Certificate::sign(&self.channel, BroadcastId(key.public()), terms);
        let note = LiveNote::sign(&key, self.id(), epoch, 1, now_us, false);
        Air { certificate, note, key }
    }

    fn request(&mut self, key: &SecretKey, request_type: RequestType) -> Request {
        self.stamp = self.stamp.max(self.now.unix_ms) + 1;
        Request {
            version: VERSION,
            request_type,
            transaction_id: "t".into(),
            peer_id: PeerId(key.public()),
            timestamp_unix_ms: self.stamp,
            tracker: "http://t".into(),
            connect: None,
            find: None,
            stat_report: None,
        }
    }

    fn send(&mut self, key: &SecretKey, from: impl Into<IpAddr>, request: Request) -> Response {
        let body = serde_json::to_vec(&Envelope { body: request }).unwrap();
        let verified = verify(&body, Some(&sign_request(key, &body))).unwrap();
        self.registry.handle(self.now, from.into(), &verified)
    }

    fn join(&mut self, n: u8, from: impl Into<IpAddr>, air: Option<&Air>) -> Response {
        let key = peer_key(n);
        let mut request = self.request(&key, RequestType::Connect);
        let broadcast = air.map(|air| {
            Broadcast::prove(
                &air.certificate,
                &air.note,
                &air.key,
                &request.peer_id,
                request.timestamp_unix_ms,
            )
        });
        let action = SwarmAction {
            swarm_id: self.id().into(),
            action: Action::Join,
            peer_mode: if air.is_some() { PeerMode::Seed } else { PeerMode::Leech },
            broadcast,
            descriptor: None,
        };
        request.connect = Some(Connect {
            peer_num: PeerNum::default(),
            peer_addr: vec![ClaimedAddress { port: 4000, ip_address: None }],
            swarm_action: vec![action],
        });
        self.send(&key, from, request)
    }

    fn report(&mut self, n: u8, air: Option<&Air>) -> Response {
        self.report_of(n, air, Qos::default())
    }

    fn report_of(&mut self, n: u8, air: Option<&Air>, qos: Qos) -> Response {
        let key = peer_key(n);
        let mut request = self.request(&key, RequestType::StatReport);
        let broadcast = air.map(|air| {
            Broadcast::prove(
                &air.certificate,
                &air.note,
                &air.key,
                &request.peer_id,
                request.timestamp_unix_ms,
            )
        });
        let stat = Stat { swarm_id: self.id().into(), qos, broadcast, descriptor: None };
        request.stat_report = Some(StatReport { kind: StatKind::StreamStats, stat: vec![stat] });
        self.send(&key, HOME, request)
    }

    fn find(&mut self, n: u8) -> Response {
        let key = peer_key(n);
        let mut request = self.request(&key, RequestType::Find);
        request.find = Some(Find { swarm_id: self.id().into(), peer_num: PeerNum::default() });
        self.send(&key, HOME, request)
    }

    fn whats(&mut self) -> Vec<What> {
        self.registry.take_changes().into_iter().map(|change| change.what).collect()
    }
}

fn peer_key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

fn code(response: &Response) -> Code {
    Code::from_number(response.error_code)
}

fn peers(response: &Response) -> Vec<(PeerId, bool)> {
    let groups = response.swarm_result.iter().filter_map(|result| result.peer_group.as_ref());
    let mut peers: Vec<_> =
        groups.flat_map(|group| &group.peer_info).map(|info| (info.peer_id, info.source)).collect();
    peers.sort_unstable();
    peers
}

#[test]
fn a_joiner_needs_one_round_trip() {
    let mut world = World::new();
    let air = world.air(1);
    assert_eq!(code(&world.join(1, HOME, Some(&air))), Code::Ok);
    let joined = world.join(2, [8, 8, 8, 8], None);
    assert_eq!(peers(&joined), [(PeerId(peer_key(1).public()), true)]);
    let result = &joined.swarm_result[0];
    let (certificate, note) = result.broadcast.as_ref().unwrap().open(&world.id()).unwrap();
    assert_eq!((certificate, note, result.viewers), (air.certificate, air.note, 1));
    assert_eq!(
        joined.peer_addr.map(|address| SocketAddr::from(&address)),
        Some("8.8.8.8:4000".parse().unwrap())
    );
}

#[test]
fn the_public_certificate_and_note_alone_make_nobody_a_source() {
    let mut world = World::new();
    let air = world.air(1);
    world.join(1, HOME, Some(&air));
    // The impostor has what everybody has, and another key.
    let impostor = Air { key: SecretKey::from_bytes(&[66; 32]), ..world.air(1) };
    assert_eq!(code(&world.join(2, HOME, Some(&impostor))), Code::AuthenticationRequired);
    // The source's own proof, in somebody else's request.
    let key = peer_key(3);
    let mut request = world.request(&key, RequestType::Connect);
    let stolen = Broadcast::prove(
        &air.certificate,
        &air.note,
        &air.key,
        &PeerId(peer_key(1).public()),
        request.timestamp_unix_ms,
    );
    let action = SwarmAction {
        swarm_id: world.id().into(),
        action: Action::Join,
        peer_mode: PeerMode::Seed,
        broadcast: Some(stolen),
        descriptor: None,
    };
    let peer_addr = vec![ClaimedAddress { port: 4000, ip_address: None }];
    request.connect = Some(Connect { peer_addr, swarm_action: vec![action], ..Connect::default() });
    assert_eq!(code(&world.send(&key, HOME, request)), Code::AuthenticationRequired);
    let seen = world.join(4, HOME, None);
    assert_eq!(peers(&seen), [(PeerId(peer_key(1).public()), true)]);
}

#[test]
fn find_and_reports_need_connect_first() {
    let mut world = World::new();
    assert_eq!(code(&world.find(1)), Code::Forbidden);
    assert_eq!(code(&world.report(1, None)), Code::UnknownPeer);
    world.join(1, HOME, None);
    assert_eq!(code(&world.find(1)), Code::Ok);
    assert_eq!(code(&world.report(1, None)), Code::Ok);
}

#[test]
fn who_falls_silent_is_forgotten_and_reports_keep_alive() {
    let mut world = World::new();
    let air = world.air(1);
    world.join(1, HOME, Some(&air));
    world.join(2, HOME, None);
    world.join(3, HOME, None);
    for _ in 0..4 {
        world.pass(20_000);
        assert_eq!(code(&world.report(2, None)), Code::Ok);
    }
    assert_eq!(peers(&world.find(2)), []);
    assert_eq!(code(&world.report(3, None)), Code::UnknownPeer);
    assert_eq!(
        world.registry.channel(world.now, &world.channel.channel()).unwrap().state,
        ChannelState::Silent
    );
    assert!(world.whats().contains(&What::Gone(ChannelState::Silent)));
    assert_eq!(world.registry.totals().expired, 2);
    world.pass(60_000);
    world.pass(Limits::default().channel_expiry_ms + 1);
    assert_eq!(world.registry.channels.len(), 0);
    assert!(world.registry.expiry.is_empty() && world.registry.networks.is_empty());
}

#[test]
fn a_newer_epoch_replaces_and_an_older_one_is_refused() {
    let mut world = World::new();
    let (old, new) = (world.air(1), world.air(2));
    world.join(1, HOME, Some(&old));
    world.whats();
    assert_eq!(code(&world.join(2, HOME, Some(&new))), Code::Ok);
    assert!(matches!(world.whats().as_slice(), [What::Note(_), What::Entry(_)]));
    assert_eq!(code(&world.join(1, HOME, Some(&old))), Code::Superseded);
    assert_eq!(code(&world.report(1, Some(&old))), Code::Superseded);
    // Two broadcast keys under one epoch: the first stays.
    let mut twin = world.air(2);
    twin.key = SecretKey::from_bytes(&[77; 32]);
    let terms = CertificateTerms {
        epoch: 2,
        not_before_unix_us: world.now.unix_ms * 1000,
        not_after_unix_us: world.now.unix_ms * 1000 + 1_000_000,
        substreams: 8,
        rate_bps: 1,
    };
    twin.certificate = Certificate::sign(&world.channel, BroadcastId(twin.key.public()), terms);
    twin.note = LiveNote::sign(&twin.key, world.id(), 2, 1, world.now.unix_ms * 1000, false);
    assert_eq!(code(&world.join(3, HOME, Some(&twin))), Code::Superseded);
    let seen = peers(&world.join(4, HOME, None));
    let sources: Vec<_> = seen.iter().filter(|(_, source)| *source).collect();
    assert_eq!(sources, [&(PeerId(peer_key(2).public()), true)], "the old epoch's source is none any more");
}

#[test]
fn notes_only_move_forward_and_an_end_is_told() {
    let mut world = World::new();
    let mut air = world.air(1);
    world.join(1, HOME, Some(&air));
    world.whats();
    let first = air.note;
    world.pass(5000);
    air.note = LiveNote::sign(&air.key, world.id(), 1, 50, world.now.unix_ms * 1000, false);
    assert_eq!(code(&world.report(1, Some(&air))), Code::Ok);
    assert_eq!(world.whats().last(), Some(&What::Note(LiveBroadcast::new(&air.certificate, &air.note))));
    air.note = first;
    assert_eq!(code(&world.report(1, Some(&air))), Code::Ok);
    assert_eq!(world.whats(), [], "an older note changes nothing");
    air.note = LiveNote::sign(&air.key, world.id(), 1, 99, world.now.unix_ms * 1000 + 1, true);
    world.report(1, Some(&air));
    assert_eq!(world.whats().last(), Some(&What::Gone(ChannelState::Ended)));
    world.pass(40_000);
    world.now.unix_ms += 20_000;
    assert_eq!(code(&world.report(1, Some(&air))), Code::Clock, "a stale note is refused");
}

#[test]
fn a_replayed_request_and_a_wrong_clock_are_told_apart() {
    let mut world = World::new();
    let key = peer_key(1);
    world.join(1, HOME, None);
    let mut request = world.request(&key, RequestType::Find);
    request.find = Some(Find { swarm_id: world.id().into(), peer_num: PeerNum::default() });
    assert_eq!(code(&world.send(&key, HOME, request.clone())), Code::Ok);
    let again = world.send(&key, [6, 6, 6, 6], request.clone());
    assert_eq!(code(&again), Code::Replayed);
    request.timestamp_unix_ms -= 120_000;
    let late = world.send(&key, HOME, request);
    assert_eq!(code(&late), Code::Clock);
    assert!(late.error.unwrap().contains("behind"));
}

#[test]
fn a_request_for_another_tracker_is_refused_where_the_operator_named_the_urls() {
    let mut world = World::new();
    world.registry.public_urls = vec!["https://mine.example".into()];
    assert_eq!(code(&world.join(1, HOME, None)), Code::Forbidden);
    world.registry.public_urls = vec!["http://t".into()];
    assert_eq!(code(&world.join(1, HOME, None)), Code::Ok);
}

#[test]
fn only_the_address_that_was_seen_is_registered() {
    let mut world = World::new();
    for from in ["10.0.0.1", "127.0.0.1", "100.64.0.1", "169.254.1.1", "fe80::1"] {
        let refused = world.join(1, from.parse::<IpAddr>().unwrap(), None);
        assert_eq!(code(&refused), Code::Forbidden, "{from}");
    }
    let key = peer_key(1);
    let claim =
        |port, ip: &str| ClaimedAddress { port, ip_address: Some(ip.parse::<IpAddr>().unwrap().into()) };
    let connect = |claims| Connect {
        peer_addr: claims,
        swarm_action: vec![SwarmAction {
            swarm_id: SecretKey::from_bytes(&[100; 32]).channel().into(),
            action: Action::Join,
            peer_mode: PeerMode::Leech,
            broadcast: None,
            descriptor: None,
        }],
        ..Connect::default()
    };
    let mut request = world.request(&key, RequestType::Connect);
    request.connect = Some(connect(vec![claim(4000, "1.2.3.4"), claim(4001, "192.168.0.1")]));
    assert_eq!(code(&world.send(&key, HOME, request.clone())), Code::BadRequest);
    request.timestamp_unix_ms += 1;
    request.connect = Some(connect(vec![claim(4000, "1.2.3.4"), claim(4001, "93.184.216.34")]));
    assert_eq!(code(&world.send(&key, HOME, request.clone())), Code::Ok);
    let registered = |world: &World| {
        world.registry.channels[&world.id()].member(&PeerId(peer_key(1).public())).unwrap().addresses.clone()
    };
    assert_eq!(registered(&world), ["93.184.216.34:4001".parse().unwrap()]);

    // In LAN mode a process on the tracker's machine is believed about that machine's private and loopback addresses,
    // and no other; a process elsewhere in the house is not.
    let claims = ["127.0.0.9", "192.168.0.5", "1.2.3.4", "169.254.169.254"].map(|ip| claim(4000, ip));
    request.connect = Some(connect(claims.to_vec()));
    let mut world = World::with(true, Limits::default());
    assert_eq!(code(&world.send(&key, [127, 0, 0, 1], request.clone())), Code::Ok);
    let expected = ["127.0.0.9:4000", "192.168.0.5:4000"].map(|a| a.parse().unwrap());
    assert_eq!(registered(&world), expected);
    let mut world = World::with(true, Limits::default());
    assert_eq!(code(&world.send(&key, [192, 168, 0, 5], request)), Code::Ok);
    assert_eq!(registered(&world), ["192.168.0.5:4000".parse().unwrap()]);
}

#[test]
fn every_table_has_its_bound() {
    let limits = Limits { registrations_per_network: 2, ..Limits::default() };
    let mut world = World::with(false, limits);
    assert_eq!(code(&world.join(1, [1, 1, 1, 1], None)), Code::Ok);
    assert_eq!(code(&world.join(2, [1, 1, 1, 2], None)), Code::Ok);
    assert_eq!(code(&world.join(3, [1, 1, 1, 3], None)), Code::Unavailable);
    assert_eq!(code(&world.join(1, [1, 1, 1, 1], None)), Code::Ok, "renewing is no new registration");
    assert_eq!(code(&world.join(3, [1, 1, 2, 3], None)), Code::Ok);
    let mut world = World::with(true, limits);
    for n in 1..20 {
        assert_eq!(code(&world.join(n, [192, 168, 0, n], None)), Code::Ok, "a LAN is one network");
    }
    let mut world = World::with(false, Limits { peers_per_channel: 1, ..Limits::default() });
    world.join(1, [1, 1, 1, 1], None);
    assert_eq!(code(&world.join(2, [2, 1, 1, 1], None)), Code::Unavailable);
    let mut world = World::with(false, Limits { registrations: 1, channels: 1, ..Limits::default() });
    world.join(1, [1, 1, 1, 1], None);
    assert_eq!(code(&world.join(2, [2, 1, 1, 1], None)), Code::Unavailable);
    world.channel = SecretKey::from_bytes(&[101; 32]);
    assert_eq!(code(&world.join(1, [1, 1, 1, 1], None)), Code::Unavailable);
}

#[test]
fn a_takedown_empties_the_channel_and_a_restored_one_can_be_joined_again() {
    let mut world = World::new();
    let air = world.air(1);
    world.join(1, HOME, Some(&air));
    world.join(2, HOME, None);
    world.whats();
    let id = world.id();
    let unknown = ChannelId([9; 32]);
    let deny = List::from([(id, "court order".to_owned()), (unknown, "spam".to_owned())]);
    world.registry.set_lists(Lists { allow: None, deny: deny.clone() }, &[unknown, id]);
    let told = world.registry.take_changes();
    let downs: Vec<_> = told.iter().map(|change| (change.channel, change.what.clone())).collect();
    let down = |reason: &str| What::TakenDown(Takedown { reason: reason.into() });
    assert_eq!(downs, [(unknown, down("spam")), (id, down("court order"))]);
    for response in
        [world.report(2, None), world.find(2), world.join(3, HOME, None), world.report(1, Some(&air))]
    {
        assert_eq!(code(&response), Code::TakenDown);
        assert_eq!(response.swarm_result[0].takedown.as_ref().unwrap().reason, "court order");
        assert_eq!(response.swarm_result[0].broadcast, None);
    }
    assert_eq!(world.registry.totals().viewers, 0);
    world.registry.set_lists(Lists { allow: None, deny }, &[]);
    assert_eq!(world.whats(), [], "the same lists again are no news");
    world.registry.set_lists(Lists::default(), &[]);
    assert_eq!(code(&world.report(2, None)), Code::UnknownPeer);
    assert_eq!(code(&world.join(1, HOME, Some(&air))), Code::Ok);
    assert!(world.whats().iter().any(|what| matches!(what, What::Entry(_))));
}

#[test]
fn descriptors_need_a_source_and_only_move_forward() {
    let mut world = World::new();
    let id = world.id();
    let sign = |world: &World, name: &str, listed, issued| {
        let descriptor = Descriptor { listed, ..Descriptor::new(id, name, issued) };
        (descriptor.sign(&world.channel).unwrap(), descriptor)
    };
    let put = |world: &mut World, (signed, descriptor): (SignedDescriptor, Descriptor)| {
        world.registry.put_descriptor(world.now, &id, signed, descriptor).map_err(|problem| problem.code)
    };
    let first = sign(&world, "Canal", true, START_UNIX_MS);
    assert_eq!(put(&mut world, first.clone()).unwrap_err(), Code::UnknownPeer);
    let air = world.air(1);
    world.join(1, HOME, Some(&air));
    assert_eq!(world.registry.listed("").len(), 0, "not listed before a descriptor says so");
    assert_eq!(put(&mut world, first.clone()).unwrap().name.as_deref(), Some("Canal"));
    assert_eq!(
        (
            world.registry.listed("").len(),
            world.registry.listed("CAN").len(),
            world.registry.listed("x").len()
        ),
        (1, 1, 0)
    );
    let newer = sign(&world, "Canal 2", false, START_UNIX_MS + 1);
    assert!(put(&mut world, newer).is_ok());
    assert_eq!(world.registry.listed("").len(), 0, "unlisted");
    assert_eq!(put(&mut world, first).unwrap_err(), Code::Superseded);
    let future = sign(&world, "Canal 3", true, START_UNIX_MS + 3_600_000);
    assert_eq!(put(&mut world, future).unwrap_err(), Code::Clock, "it could never be replaced");
}

#[test]
fn viewer_counts_are_told_once_a_tick() {
    let mut world = World::new();
    let air = world.air(1);
    world.join(1, HOME, Some(&air));
    for n in 2..12 {
        world.join(n, [1, 1, n, 1], None);
    }
    world.whats();
    world.pass(1000);
    assert_eq!(world.whats(), [What::Audience(Audience { viewers: 10, quality: None })]);
    world.pass(1000);
    assert_eq!(world.whats(), []);
}

#[test]
fn a_list_says_how_it_goes_for_the_viewers_and_who_looks_is_told_when_that_changes() {
    let mut world = World::new();
    let air = world.air(1);
    world.join(1, HOME, Some(&air));
    world.join(2, HOME, None);
    world.join(3, HOME, None);
    let told = |world: &mut World, values: [f64; 2]| {
        for (n, continuity) in [2, 3].into_iter().zip(values) {
            world.report_of(n, None, Qos { continuity: Some(continuity), ..Qos::default() });
        }
        world.pass(1000);
        let whats = world.whats();
        let continuity = |what: &What| match what {
            What::Audience(audience) => audience.quality.as_ref().and_then(|quality| quality.continuity),
            _ => None,
        };
        whats.last().map(continuity)
    };
    assert_eq!(told(&mut world, [1.0, 0.9]), Some(Some(0.95)));
    assert_eq!(told(&mut world, [1.0, 0.901]), None, "nobody would see it");
    assert_eq!(told(&mut world, [0.5, 0.5]), Some(Some(0.5)));
    let (id, channel) = world.registry.channels.first_key_value().unwrap();
    let quality = entry(*id, channel, ChannelState::Live).quality;
    assert_eq!(quality.map(|quality| (quality.reports, quality.continuity)), Some((2, Some(0.5))));
}
