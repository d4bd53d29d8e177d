//! Order, pace, expiry and fairness of the one queue.

use super::*;
use crate::chunk::{Flags, PartIn, Signer, VerifiedChunk};
use crate::id::{RenditionId, SecretKey, SwarmId};
use alloc::vec;
use bytes::Bytes;

const MS: fn(u64) -> Duration = Duration::from_millis;
const A: PeerId = PeerId([1; 32]);
const B: PeerId = PeerId([2; 32]);

fn channel(n: u8) -> SwarmId {
    SecretKey::from_bytes(&[n; 32]).channel().into()
}

/// Chunks 0 to `n` - 1 of 1,000 bytes each.
fn chunks(n: usize) -> Vec<VerifiedChunk> {
    let mut signer =
        Signer::new(SecretKey::from_bytes(&[9; 32]), channel(1).channel, 1, RenditionId(0), 1024);
    let part = PartIn { flags: Flags::default(), capture_unix_us: 0, payload: Bytes::from(vec![1; 1000]) };
    (0..n).flat_map(|_| signer.sign(&part, 0)).collect()
}

fn offer(chunk: &VerifiedChunk, peer: PeerId, due: u64, expires: u64) -> Offer {
    let (due, expires) = (Timestamp::from_millis(due), Timestamp::from_millis(expires));
    let chunk = chunk.clone();
    Offer {
        peer,
        chunk,
        due,
        expires,
        requested: false,
        overdue: false,
        offered: Timestamp::ZERO,
        received: Timestamp::ZERO,
        hops_us: Some(0),
    }
}

fn uplink(limit: Option<u64>, rtt: Duration) -> Uplink {
    let mut uplink = Uplink::new(limit);
    uplink.connected(Timestamp::ZERO, A, rtt);
    uplink.connected(Timestamp::ZERO, B, rtt);
    uplink
}

fn numbers(uplink: &mut Uplink, now: Timestamp) -> Vec<(u64, ChunkToken, PeerId)> {
    let released = core::iter::from_fn(|| uplink.release(now));
    released.map(|r| (r.offer.chunk.header().number, r.token, r.offer.peer)).collect()
}

#[test]
fn the_earliest_due_goes_first_and_two_at_most_are_unsent() {
    let (mut uplink, chunks, now) = (uplink(None, Duration::ZERO), chunks(6), Timestamp::from_millis(1));
    for (chunk, due) in chunks.iter().zip([50, 40, 30, 20, 10, 0]) {
        assert!(uplink.offer(channel(1), offer(chunk, A, due, 1_000)).is_none());
    }
    let first = numbers(&mut uplink, now);
    assert_eq!(first.iter().map(|r| r.0).collect::<Vec<_>>(), [5, 4]);
    assert!(numbers(&mut uplink, now).is_empty(), "the connection is full");
    assert!(uplink.ended(now, &A, first[0].1, true).is_some_and(|done| done.sent_bytes.is_some()));
    assert_eq!(numbers(&mut uplink, now).iter().map(|r| r.0).collect::<Vec<_>>(), [3]);
    // A full connection does not hold up another one.
    assert!(uplink.offer(channel(1), offer(&chunks[0], B, 900, 1_000)).is_none());
    assert_eq!(numbers(&mut uplink, now).iter().map(|r| (r.0, r.2)).collect::<Vec<_>>(), [(0, B)]);
}

#[test]
fn a_long_round_trip_is_filled() {
    let (mut uplink, now) = (uplink(None, MS(100)), Timestamp::from_millis(1));
    for chunk in chunks(20) {
        uplink.offer(channel(1), offer(&chunk, A, 0, 1_000));
    }
    assert_eq!(numbers(&mut uplink, now).len(), 6);
    let mut far = Uplink::new(Some(1_000_000_000));
    far.connected(Timestamp::ZERO, A, Duration::from_secs(10));
    for chunk in chunks(40) {
        far.offer(channel(1), offer(&chunk, A, 0, 1_000));
    }
    assert_eq!(numbers(&mut far, now).len(), UNDER_WAY_MAX);
}

#[test]
fn the_pacer_keeps_to_its_rate() {
    // 1,108 bytes a chunk at 1 Mbit/s, of which 89 % are for chunks, are 10 ms each.
    let (mut uplink, chunks) = (uplink(Some(1_000_000), Duration::from_secs(1)), chunks(400));
    for chunk in &chunks {
        uplink.offer(channel(1), offer(chunk, A, 0, 100_000));
    }
    let (mut now, mut sent) = (Timestamp::from_millis(1), 0);
    let end = now + MS(1_000);
    while now < end {
        for (_, token, peer) in numbers(&mut uplink, now) {
            sent += 1;
            uplink.ended(now, &peer, token, true);
        }
        let next = uplink.timeout(now);
        assert!(next > now, "it would spin");
        now = next;
    }
    assert!((99..=103).contains(&sent), "{sent} chunks in a second");
    assert!(uplink.view(now).wait > MS(2_000), "{:?}", uplink.view(now).wait);
}

#[test]
fn what_expired_is_not_sent_and_is_told() {
    let (mut uplink, chunks) = (uplink(None, Duration::ZERO), chunks(2));
    uplink.offer(channel(1), Offer { requested: true, ..offer(&chunks[0], A, 0, 10) });
    uplink.offer(channel(1), offer(&chunks[1], A, 5, 100));
    let now = Timestamp::from_millis(20);
    assert_eq!(numbers(&mut uplink, now).iter().map(|r| r.0).collect::<Vec<_>>(), [1]);
    let gone = uplink.expire(now);
    assert_eq!(gone.len(), 1);
    assert!(gone[0].requested && !gone[0].merged && gone[0].sent_bytes.is_none() && gone[0].number == 0);
}

#[test]
fn a_withdrawn_chunk_is_taken_back_or_reset() {
    let (mut uplink, chunks, now) = (uplink(None, Duration::ZERO), chunks(3), Timestamp::from_millis(1));
    for chunk in &chunks {
        uplink.offer(channel(1), offer(chunk, A, 0, 1_000));
    }
    let under_way = numbers(&mut uplink, now);
    let (done, token) = uplink.withdraw(&channel(1), &A, 2);
    assert!(done.is_some() && token.is_none(), "it waited");
    let (done, token) = uplink.withdraw(&channel(1), &A, 0);
    assert!(done.is_none() && token == Some(under_way[0].1), "it was under way");
    assert!(uplink.ended(now, &A, under_way[0].1, false).is_some_and(|done| done.sent_bytes.is_none()));
    assert_eq!(uplink.withdraw(&channel(1), &A, 0).1, None);
    uplink.offer(channel(1), Offer { overdue: true, ..offer(&chunks[2], A, 0, 1_000) });
    let back = uplink.disconnected(&A);
    assert!(matches!(back[..], [Done { number: 2, overdue: true, sent_bytes: None, .. }]), "{back:?}");
    assert!(numbers(&mut uplink, now).is_empty());
    assert!(uplink.offer(channel(1), offer(&chunks[0], A, 0, 1_000)).is_some(), "nobody there");
}

#[test]
fn pushed_and_requested_at_once_goes_once() {
    let (mut uplink, chunks, now) = (uplink(None, Duration::ZERO), chunks(1), Timestamp::from_millis(1));
    uplink.offer(channel(1), offer(&chunks[0], A, 300, 400));
    let request = Offer { requested: true, ..offer(&chunks[0], A, 50, 900) };
    let merged = uplink.offer(channel(1), request.clone()).expect("one of the two");
    assert!(merged.merged && !merged.requested, "the push made way: {merged:?}");
    uplink.withdraw_pushes(&channel(1), &A, |_| true);
    let released = uplink.release(now).expect("released");
    assert!(released.offer.requested && released.offer.due == Timestamp::from_millis(50));
    assert!(uplink.offer(channel(1), request).is_some_and(|done| done.merged && done.requested));
    assert!(uplink.release(now).is_none());
}

#[test]
fn two_swarms_share_by_deadline_and_the_queue_is_bounded() {
    let (mut uplink, chunks) = (uplink(Some(1_000_000), Duration::from_secs(1)), chunks(100));
    // Both swarms get a chunk every 10 ms and together need twice what there is.
    let (mut first, mut second, mut now) = (0, 0, Timestamp::from_millis(1));
    let mut rng = fastrand::Rng::with_seed(1);
    for (i, chunk) in chunks.iter().enumerate() {
        for (channel, peer) in [(channel(1), A), (channel(2), B)] {
            let due = i as u64 * 10 + rng.u64(..20);
            uplink.offer(channel, offer(chunk, peer, due, due + 300));
        }
        now += MS(10);
        uplink.expire(now);
        while let Some(release) = uplink.release(now) {
            if release.swarm == channel(1) {
                first += 1;
            } else {
                second += 1;
            }
            uplink.ended(now, &release.offer.peer, release.token, true);
        }
    }
    assert!(first > 35 && second > 35, "{first} and {second}");
    for number in 0..QUEUE_LEN_MAX as u64 + 10 {
        let mut peer = [0; 32];
        peer[..8].copy_from_slice(&number.to_be_bytes());
        uplink.connected(Timestamp::ZERO, PeerId(peer), Duration::ZERO);
        uplink.offer(channel(1), offer(&chunks[0], PeerId(peer), 5_000, 9_000));
    }
    assert!(uplink.queue.len() <= QUEUE_LEN_MAX && uplink.waiting.len() == uplink.queue.len());
}

#[test]
fn a_line_of_which_nothing_is_known_is_entered_slowly() {
    let (mut uplink, mut now) = (uplink(None, Duration::ZERO), Timestamp::from_millis(1));
    for peer in 10..30 {
        uplink.connected(Timestamp::ZERO, PeerId([peer; 32]), Duration::ZERO);
    }
    let chunks = chunks(20);
    for (peer, chunk) in (10..30).flat_map(|peer| chunks.iter().map(move |chunk| (peer, chunk))) {
        uplink.offer(channel(1), offer(chunk, PeerId([peer; 32]), 0, 100_000));
    }
    let mut under_way = numbers(&mut uplink, now);
    assert_eq!(under_way.len(), 6);
    for rounds in 1..3 {
        now += MS(1);
        for (_, token, peer) in core::mem::take(&mut under_way) {
            uplink.ended(now, &peer, token, true);
        }
        under_way = numbers(&mut uplink, now);
        assert_eq!(under_way.len(), 6 << rounds, "each that did not queue makes room for another");
    }
}

#[test]
fn who_takes_nothing_is_named_until_it_takes_something() {
    let (mut uplink, chunks) = (uplink(None, Duration::ZERO), chunks(1));
    uplink.offer(channel(1), offer(&chunks[0], A, 0, 1_000));
    let (_, token, _) = numbers(&mut uplink, Timestamp::from_millis(1))[0];
    let named =
        |uplink: &mut Uplink, ms| uplink.takes_nothing(Timestamp::from_millis(ms)).collect::<Vec<_>>();
    assert_eq!(named(&mut uplink, 2_000), []);
    assert_eq!(named(&mut uplink, 4_000), [(A, true)]);
    assert_eq!(named(&mut uplink, 4_050), [(A, true)]);
    uplink.ended(Timestamp::from_millis(4_060), &A, token, true);
    assert_eq!(named(&mut uplink, 4_100), [(A, false)]);
    assert_eq!(named(&mut uplink, 4_150), []);
}
