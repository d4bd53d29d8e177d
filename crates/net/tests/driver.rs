//! The driver's loop, with a scripted machine in the engine's place and links in memory.
#![allow(clippy::unwrap_used)] // The lint's exemption for tests does not see their helpers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use caudal_net::driver::{EVENTS_MAX, EVENTS_PENDING_MAX, Machine, WallClock};
use caudal_net::memory_link::{Hub, MemoryLink};
use caudal_net::{Driver, Handle, NetError};
use caudal_proto::engine::EngineConfig;
use caudal_proto::id::{ChannelId, PeerId, RenditionId, SecretKey, SwarmId};
use caudal_proto::io::{CloseCode, Event, Input, Output, Transmit};
use caudal_proto::swarm::{Role, SwarmConfig, SwarmStats, policy::Policy};
use caudal_proto::time::Timestamp;
use tokio::sync::mpsc;

const CHANNEL: ChannelId = ChannelId([9; 32]);

type Seen = Arc<Mutex<Vec<(u64, String)>>>;

/// What a script does with an input: adds outputs, sets the timeout; given the time.
type OnInput = dyn FnMut(&mut Vec<Output>, &mut Timestamp, Timestamp, &Input) + Send;

/// Writes down what it is told, in ms and words, and says what the script makes of it.
struct Script {
    seen: Seen,
    outputs: Vec<Output>,
    timeout: Timestamp,
    on_input: Box<OnInput>,
}

impl Machine for Script {
    fn handle_input(&mut self, now: Timestamp, input: Input) {
        self.seen.lock().unwrap().push((now.as_micros() / 1000, format!("{input:?}")));
        (self.on_input)(&mut self.outputs, &mut self.timeout, now, &input);
    }
    fn poll_output(&mut self) -> Output {
        if self.outputs.is_empty() { Output::Timeout(self.timeout) } else { self.outputs.remove(0) }
    }
    fn stats(&self, swarm: &SwarmId) -> Option<SwarmStats> {
        let held = self.seen.lock().unwrap().len() as u64;
        (*swarm == CHANNEL.into()).then(|| SwarmStats { held, ..SwarmStats::default() })
    }
}

fn start(
    hub: &Hub,
    seed: u8,
    on_input: impl FnMut(&mut Vec<Output>, &mut Timestamp, Timestamp, &Input) + Send + 'static,
) -> (Handle, mpsc::Receiver<Event>, Seen) {
    let seen = Seen::default();
    let machine = Script {
        seen: Arc::clone(&seen),
        outputs: Vec::new(),
        timeout: Timestamp::FAR_FUTURE,
        on_input: Box::new(on_input),
    };
    let began = tokio::time::Instant::now();
    let wall: WallClock = Box::new(move || 1_000_000 + u64::try_from(began.elapsed().as_micros()).unwrap());
    let (handle, events) =
        Driver::<Script, MemoryLink>::spawn_machine(machine, hub.link(PeerId([seed; 32])), wall);
    (handle, events, seen)
}

fn channel(handle: ChannelId) -> SwarmConfig {
    SwarmConfig {
        channel: handle,
        rendition: RenditionId(0),
        role: Role::Viewer,
        upload: true,
        retention: Duration::from_secs(60),
        lan: true,
        policy: Policy::default(),
        verifier: Box::new(caudal_proto::chunk::Ed25519Verifier),
        records: Box::new(caudal_proto::record::Ed25519Records(SecretKey::from_bytes(&[5; 32]))),
        network_map: None,
    }
}

fn words(seen: &Seen) -> Vec<(u64, String)> {
    std::mem::take(&mut *seen.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn time_comes_first_and_then_when_the_machine_wants_it() {
    let hub = Hub::new();
    let (handle, _events, seen) = start(&hub, 1, |_, timeout, now, input| match input {
        Input::UnixTime(_) => *timeout = Timestamp::from_millis(40),
        Input::Tick if now < Timestamp::from_millis(100) => *timeout = now + Duration::from_millis(30),
        _ => *timeout = Timestamp::FAR_FUTURE,
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let expected = [(0, "UnixTime(1000000)"), (40, "Tick"), (70, "Tick"), (100, "Tick")];
    let got = words(&seen);
    // tokio's timers round up to a millisecond each.
    assert_eq!(got.len(), expected.len(), "{got:?}");
    for ((at, what), (due, text)) in got.iter().zip(expected) {
        assert!(what == text && (due..=due + 5).contains(at), "{got:?}");
    }
    drop(handle);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_in_the_past_does_not_spin() {
    let hub = Hub::new();
    let (_handle, _events, seen) = start(&hub, 1, |_, timeout, _, _| *timeout = Timestamp::ZERO);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ticks = words(&seen).len();
    assert!((100..=520).contains(&ticks), "{ticks}");
}

#[tokio::test(start_paused = true)]
async fn commands_and_what_peers_send_reach_the_machine_and_its_answers_the_peers() {
    let hub = Hub::new();
    hub.set_delay(Duration::from_millis(10));
    let dial_everyone = |outputs: &mut Vec<Output>, _: &mut _, _, input: &Input| match input {
        Input::Candidates(_, candidates) => outputs.extend(candidates.iter().map(|candidate| {
            Output::Transmit(Transmit::Connect { peer: candidate.peer, addrs: candidate.addrs.clone() })
        })),
        Input::Connected(connected) => {
            outputs.push(Output::Event(Event::NeighbourUp(CHANNEL.into(), connected.peer)));
            let bytes = vec![2, 0, connected.peer.0[0]].into();
            outputs.push(Output::Transmit(Transmit::Control { peer: connected.peer, bytes }));
        }
        _ => {}
    };
    let (a, mut events_a, seen_a) = start(&hub, 1, dial_everyone);
    let (b, mut events_b, seen_b) = start(&hub, 2, dial_everyone);
    let candidate =
        caudal_proto::io::Candidate { peer: b.local(), addrs: b.local_addrs().await, source: false, cost: 0 };
    a.input(Input::Candidates(CHANNEL.into(), vec![candidate])).await.unwrap();
    assert_eq!(events_a.recv().await, Some(Event::NeighbourUp(CHANNEL.into(), b.local())));
    assert_eq!(events_b.recv().await, Some(Event::NeighbourUp(CHANNEL.into(), a.local())));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let heard = |seen: &Seen| {
        words(seen).into_iter().filter(|(_, word)| word.starts_with("Control")).collect::<Vec<_>>()
    };
    let (at_a, at_b) = (heard(&seen_a), heard(&seen_b));
    assert!(at_a.len() == 1 && at_a[0].1.contains(r#"b"\0\x01""#), "{at_a:?}");
    assert!(at_b.len() == 1 && at_b[0].1.contains(r#"b"\0\x02""#), "{at_b:?}");
    assert!(a.stats(CHANNEL).await.is_some_and(|stats| stats.held == 0), "the script was read out");
    assert!(a.stats(ChannelId([1; 32])).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_stops_the_network_and_nothing_else() {
    const EVENTS_PER_COMMAND: usize = 100;
    let hub = Hub::new();
    let (handle, mut events, seen) = start(&hub, 1, |outputs, _, _, input| {
        if let Input::Leave(_) = input {
            outputs.extend((0..EVENTS_PER_COMMAND).map(|_| Output::Event(Event::NeedPeers(CHANNEL.into()))));
        }
    });
    // A consumer that commands before it listens must never wait for itself.
    let commands = (EVENTS_MAX + EVENTS_PENDING_MAX) / EVENTS_PER_COMMAND + 5;
    for _ in 0..commands {
        handle.input(Input::Leave(CHANNEL.into())).await.unwrap();
    }
    assert!(handle.stats(CHANNEL).await.is_some());
    assert_eq!(events.len(), EVENTS_MAX);
    words(&seen);
    // Nothing is read from the network now ...
    let mut other = hub.link(PeerId([2; 32]));
    let addrs = handle.local_addrs().await;
    caudal_net::Link::execute(&mut other, Transmit::Connect { peer: handle.local(), addrs });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(words(&seen).is_empty());
    // ... until the consumer wakes up, which loses no event.
    for _ in 0..commands * EVENTS_PER_COMMAND {
        assert_eq!(events.recv().await, Some(Event::NeedPeers(CHANNEL.into())));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(words(&seen).iter().any(|(_, word)| word.starts_with("Connected")));
}

#[tokio::test(start_paused = true)]
async fn shutting_down_leaves_every_swarm_and_tells_the_peers() {
    let hub = Hub::new();
    let (a, mut events, seen) = start(&hub, 1, |outputs, _, _, input| {
        if let Input::Leave(_) = input {
            let (peer, code) = (PeerId([2; 32]), CloseCode::Done);
            outputs.push(Output::Transmit(Transmit::Disconnect { peer, code }));
            outputs.push(Output::Event(Event::NeighbourDown(CHANNEL.into(), peer)));
        }
    });
    let (b, _events, seen_b) = start(&hub, 2, |outputs, _, _, input| {
        if let Input::Tick = input {
            outputs.push(Output::Transmit(Transmit::Connect { peer: PeerId([1; 32]), addrs: vec![] }));
        }
    });
    b.input(Input::Tick).await.unwrap();
    for channel_id in [CHANNEL, ChannelId([8; 32]), ChannelId([7; 32])] {
        a.input(Input::Open(Box::new(channel(channel_id)))).await.unwrap();
    }
    a.input(Input::Leave(ChannelId([8; 32]).into())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    words(&seen);
    a.shutdown().await;
    let left: Vec<_> = words(&seen).into_iter().map(|(_, word)| word).collect();
    assert_eq!(
        left,
        [ChannelId([7; 32]), CHANNEL].map(|channel| format!("Leave({:?})", SwarmId::from(channel)))
    );
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(words(&seen_b).last().unwrap().1, format!("Disconnected({:?})", a.local()));
    // What was told last can still be heard, and the rest says that the node has left.
    for _ in 0..3 {
        assert_eq!(events.recv().await, Some(Event::NeighbourDown(CHANNEL.into(), b.local())));
    }
    assert_eq!(events.recv().await, None);
    assert!(matches!(a.try_input(Input::Tick), Err(NetError::Ended)));
    assert!(a.stats(CHANNEL).await.is_none() && a.local_addrs().await.is_empty());
    a.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_every_handle_ends_the_driver() {
    let hub = Hub::new();
    let (a, mut events, _seen) = start(&hub, 1, |_, _, _, _| {});
    let clone = a.clone();
    drop(a);
    assert!(clone.try_input(Input::Tick).is_ok());
    drop(clone);
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn the_real_engine_runs_over_quic() {
    let config = caudal_net::IrohConfig {
        bind: vec!["127.0.0.1:0".parse().unwrap()],
        ..caudal_net::IrohConfig::new(SecretKey::from_bytes(&[5; 32]))
    };
    let link = caudal_net::IrohLink::bind(config).await.unwrap();
    let local = caudal_net::Link::local(&link);
    let engine = EngineConfig { local, seed: 1, upload_limit_bps: None };
    let (handle, _events) = Driver::spawn(engine, link);
    handle.input(Input::Open(Box::new(channel(CHANNEL)))).await.unwrap();
    assert!(!handle.local_addrs().await.is_empty());
    tokio::time::timeout(Duration::from_millis(1500), handle.shutdown()).await.unwrap();
}
