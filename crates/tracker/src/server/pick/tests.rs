//! Answers by a map, as an asker would judge them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use caudal_alto::client::Snapshot;
use caudal_alto::config::Config;
use caudal_proto::id::RenditionId;

use super::*;
use crate::message::PeerInfo;
use crate::server::channel::Member;

const MAP: &str = r#"[pids]
a = ["11.0.0.0/16"]
b = ["11.1.0.0/16"]
c = ["11.2.0.0/16"]
d = ["11.3.0.0/16"]
rest = ["0.0.0.0/0", "::/0"]
[costs]
same = 1
peering = 5
transit = 20
peerings = [["a", "b"]]
"#;

fn map(text: &str, version: u64) -> Map {
    let config = Config::parse(text, std::path::Path::new("")).unwrap();
    let map = &config.maps[0];
    Map::new(Arc::new(Snapshot::new(Arc::clone(&map.network), map.costs.clone()).unwrap()), version)
}

fn peer(net: u8, n: u16) -> PeerId {
    let mut id = [net; 32];
    id[..2].copy_from_slice(&n.to_be_bytes());
    PeerId(id)
}

fn member(net: u8, n: u16, upload_bps: u64) -> Member {
    let ip = [11, net, (n >> 8) as u8, n as u8];
    let mut member = Member::new(vec![SocketAddr::from((ip, 4000))], None);
    (member.renditions, member.upload_bps) = (1, upload_bps);
    member
}

/// A channel with so many members in each of the networks 11.0/16, 11.1/16, …
fn channel(sizes: &[u16]) -> Channel {
    let mut channel = Channel::default();
    for (net, size) in (0..).zip(sizes) {
        (0..*size).for_each(|n| channel.insert(peer(net, n), member(net, n, u64::from(n % 7))));
    }
    channel
}

fn ask(channel: &mut Channel, from: IpAddr, map: &Map, seed: u64) -> Vec<PeerInfo> {
    let mut random = fastrand::Rng::with_seed(seed);
    channel.pick(&peer(99, 0), from, RenditionId(0), 20, Some(map), &mut random)
}

/// How many of each network.
fn nets(answer: &[PeerInfo]) -> BTreeMap<u8, usize> {
    let mut nets = BTreeMap::new();
    answer.iter().for_each(|info| *nets.entry(info.peer_id.0[31]).or_default() += 1);
    nets
}

#[test]
fn half_an_answer_is_near_and_the_rest_is_anywhere() {
    let map = map(MAP, 1);
    // Of 5,000 peers 50 are in the asker's own network: a sample of 128 has one of them.
    let mut channel = channel(&[50, 0, 2450, 2500]);
    let (mut own, mut seen) = (0, BTreeSet::new());
    for seed in 0..100 {
        let answer = ask(&mut channel, [11, 0, 200, 1].into(), &map, seed);
        let ids: BTreeSet<PeerId> = answer.iter().map(|info| info.peer_id).collect();
        assert_eq!((answer.len(), ids.len()), (20, 20), "whole, and no peer twice");
        let near = nets(&answer).get(&0).copied().unwrap_or_default();
        assert!((10..=18).contains(&near), "{near} of 20 are near");
        own += near;
        assert!(
            answer.iter().all(|info| info.cost == Some(if info.peer_id.0[31] == 0 { 1000 } else { 20_000 }))
        );
        seen.extend(ids);
    }
    assert!(own < 1200, "about half: {own} of 2000");
    assert!(seen.len() > 300, "everybody is found by somebody: {}", seen.len());
}

#[test]
fn the_strongest_of_ones_own_network_are_among_those_who_are_near() {
    let map = map(MAP, 1);
    let mut channel = channel(&[40, 0, 400, 400]);
    // Three of the forty upload more than anybody.
    for n in [5, 17, 31] {
        channel.insert(peer(0, n), member(0, n, 90_000_000));
    }
    for seed in 0..100 {
        let answer = ask(&mut channel, [11, 0, 200, 1].into(), &map, seed);
        let named = |n: u16| answer.iter().any(|info| info.peer_id == peer(0, n));
        assert!([5, 17, 31].into_iter().all(named), "seed {seed}");
        assert!(nets(&answer)[&0] >= 10);
    }
}

#[test]
fn there_is_always_a_way_out_of_ones_own_network() {
    let map = map(MAP, 1);
    // A sample of 128 out of 4,002 rarely has one of the two.
    let mut channel = channel(&[4000, 0, 1, 1]);
    for seed in 0..200 {
        let answer = ask(&mut channel, [11, 0, 200, 1].into(), &map, seed);
        let outside = answer.len() - nets(&answer)[&0];
        assert_eq!((answer.len(), outside), (20, 2), "seed {seed}");
    }
}

#[test]
fn a_network_with_few_peers_is_filled_from_elsewhere() {
    let map = map(MAP, 1);
    let mut channel = channel(&[2, 30, 500, 500]);
    let (mut peering, mut far) = (0, 0);
    for seed in 0..100 {
        let answer = ask(&mut channel, [11, 0, 200, 1].into(), &map, seed);
        assert_eq!(answer.len(), 20);
        let nets = nets(&answer);
        assert_eq!(nets.get(&0), Some(&2), "both of its own");
        peering += nets.get(&1).copied().unwrap_or_default();
        far += nets.get(&2).copied().unwrap_or_default() + nets.get(&3).copied().unwrap_or_default();
    }
    assert!(peering > 400, "those that peer are near, too: {peering} of 2000");
    assert!(far > 1000, "but cost does not choose half of so few: {far} of 2000");
}

#[test]
fn a_map_that_lies_hides_nobody() {
    // Everybody is said to be near to the 30 in c, and far from their own.
    let lie = MAP.replace("same = 1", "same = 50") + "[costs.table]\na.c = 0\nb.c = 0\nd.c = 0\n";
    let map = map(&lie, 1);
    let mut channel = channel(&[300, 300, 30, 300]);
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let answer = ask(&mut channel, [11, 0, 200, 1].into(), &map, seed);
        let of_liar = nets(&answer).get(&2).copied().unwrap_or_default();
        assert!(of_liar <= 12, "{of_liar} of 20");
        seen.extend(answer.iter().map(|info| info.peer_id));
    }
    assert!(seen.len() > 400, "{}", seen.len());
}

#[test]
fn what_the_map_does_not_know_is_answered_as_without_one() {
    let map = map(MAP, 1);
    let mut channel = channel(&[100, 100, 100, 100]);
    let answer = ask(&mut channel, [12, 0, 0, 1].into(), &map, 1);
    assert!(answer.len() == 20 && answer.iter().all(|info| info.cost.is_none()));
}

#[test]
fn members_are_sorted_anew_by_another_map_and_leave_no_trace() {
    let (one, two) = (map(MAP, 1), map(&MAP.replace("11.0.", "11.9.").replace("11.1.", "11.0."), 2));
    let mut channel = channel(&[5, 5, 200, 200]);
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..50 {
        let map = if round % 10 < 5 { &one } else { &two };
        for _ in 0..20 {
            let (net, n) = (random.u8(..4), random.u16(..200));
            if random.bool() {
                channel.insert(peer(net, n), member(net, n, 0));
            } else {
                channel.remove(&peer(net, n));
            }
        }
        let answer = ask(&mut channel, [11, 3, 200, 1].into(), map, round);
        assert!(nets(&answer)[&3] >= 10, "round {round}");
        let (sorted, places) =
            (channel.members().filter(|(id, _)| channel.place(id).is_some()).count(), 0..4);
        assert_eq!(sorted, channel.len());
        for net in places {
            let place = map.place([11, net, 0, 0].into()).unwrap();
            let there = channel.members().filter(|(id, _)| id.0[31] == net).count();
            assert_eq!(channel.groups.group(place).len(), there, "net {net}");
        }
    }
    channel.forget_map();
    assert!(channel.groups.places().next().is_none() && channel.place(&peer(0, 0)).is_none());
}
