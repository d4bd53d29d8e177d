//! The one task that runs a node's engine: inputs in, outputs out, one timer.
//!
//! Each turn waits for the first of {a command, the link, the engine's timeout, room for events}, hands in a bounded
//! batch of what is ready, and drains the engine once. Time is µs from the driver's start.
//!
//! A slow consumer of events stops only this node: once [`EVENTS_PENDING_MAX`] events wait, the driver takes nothing
//! more from the link, whose per-peer limits then hold the senders back. Commands and timers go on, so that a consumer
//! that gives commands between two events never waits for itself.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use caudal_proto::engine::{Engine, EngineConfig};
use caudal_proto::id::{PeerId, SwarmId};
use caudal_proto::io::{Event, Input, Output};
use caudal_proto::swarm::SwarmStats;
use caudal_proto::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::clock::{Clock, system_wall_clock};
use crate::error::NetError;
use crate::link::Link;

pub use crate::clock::WallClock;

/// Commands waiting for the driver; more wait with their senders.
pub const COMMANDS_MAX: usize = 256;
/// Events waiting for the consumer in its channel.
pub const EVENTS_MAX: usize = 1024;
/// Events waiting in the driver beyond the channel; with more, it stops reading from the network.
pub const EVENTS_PENDING_MAX: usize = 256;
/// Most inputs handed in between two drains of the engine.
pub const INPUT_BATCH_MAX: usize = 64;
/// A graceful end takes this long at most.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The engine is not woken sooner than this after its last turn, so that a timeout in the past cannot spin.
const TICK_MIN: Duration = Duration::from_millis(1);

/// What a driver runs: an [`Engine`], or a stand-in in a test.
pub trait Machine: Send + 'static {
    /// Something happened at `now`.
    fn handle_input(&mut self, now: Timestamp, input: Input);
    /// The next thing to do; [`Output::Timeout`] when there is nothing more.
    fn poll_output(&mut self) -> Output;
    /// A look at a swarm.
    fn stats(&self, id: &SwarmId) -> Option<SwarmStats>;
}

impl Machine for Engine {
    fn handle_input(&mut self, now: Timestamp, input: Input) {
        Self::handle_input(self, now, input);
    }
    fn poll_output(&mut self) -> Output {
        Self::poll_output(self)
    }
    fn stats(&self, id: &SwarmId) -> Option<SwarmStats> {
        Self::stats(self, id)
    }
}

enum Command {
    Input(Box<Input>),
    Stats(SwarmId, oneshot::Sender<Option<SwarmStats>>),
    LocalAddrs(oneshot::Sender<Vec<SocketAddr>>),
    Shutdown(oneshot::Sender<()>),
}

/// A node's driver from outside. When the last clone is dropped, the driver ends as after [`Handle::shutdown`].
#[derive(Debug, Clone)]
pub struct Handle {
    local: PeerId,
    commands: mpsc::Sender<Command>,
}

impl Handle {
    /// This node.
    pub fn local(&self) -> PeerId {
        self.local
    }

    /// Hands an input in, waiting while [`COMMANDS_MAX`] others wait.
    ///
    /// # Errors
    /// [`NetError::Ended`].
    pub async fn input(&self, input: Input) -> Result<(), NetError> {
        self.send(Command::Input(Box::new(input))).await
    }

    /// Hands an input in without waiting.
    ///
    /// # Errors
    /// [`NetError::Ended`], or [`NetError::Busy`] while [`COMMANDS_MAX`] others wait; the input is gone then.
    pub fn try_input(&self, input: Input) -> Result<(), NetError> {
        self.commands.try_send(Command::Input(Box::new(input))).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NetError::Busy,
            mpsc::error::TrySendError::Closed(_) => NetError::Ended,
        })
    }

    /// A look at a swarm; `None` when this node is not in it, or has left the network.
    pub async fn stats(&self, swarm: impl Into<SwarmId>) -> Option<SwarmStats> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Stats(swarm.into(), reply)).await.ok()?;
        answer.await.ok()?
    }

    /// Addresses under which peers may dial this node; none after it has left the network.
    pub async fn local_addrs(&self) -> Vec<SocketAddr> {
        let (reply, answer) = oneshot::channel();
        if self.send(Command::LocalAddrs(reply)).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Leaves every swarm, tells every peer and ends, within [`CLOSE_TIMEOUT`] or a little more. The remaining events
    /// can still be received.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Command::Shutdown(reply)).await.is_ok() {
            // An error means that the driver has ended by another clone's wish, which is what was wanted.
            let _ = done.await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), NetError> {
        self.commands.send(command).await.map_err(|_| NetError::Ended)
    }
}

/// Runs a node; see the [module](self).
#[derive(Debug)]
pub struct Driver<M, L> {
    machine: M,
    link: L,
    clock: ClockBox,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    pending: VecDeque<Event>,
    open: BTreeSet<SwarmId>,
    timeout: Timestamp,
}

/// Keeps the clock, whose wall clock is a closure, printable.
struct ClockBox(Clock);

impl core::fmt::Debug for ClockBox {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Clock")
    }
}

/// What a turn of the loop woke up for.
enum Woken {
    Command(Option<Command>),
    Inputs,
    Room,
    Timeout,
}

impl<L: Link> Driver<Engine, L> {
    /// Starts a task that runs a new engine over `link`; events come from the receiver, [`EVENTS_MAX`] at most wait
    /// there. Call within a tokio runtime.
    pub fn spawn(config: EngineConfig, link: L) -> (Handle, mpsc::Receiver<Event>) {
        debug_assert_eq!(config.local, link.local(), "the engine and its link are the same node");
        Driver::spawn_machine(Engine::new(config), link, system_wall_clock())
    }
}

impl<M: Machine, L: Link> Driver<M, L> {
    /// Like [`Driver::spawn`] with a machine and a wall clock (µs since the Unix epoch) of the caller's.
    pub fn spawn_machine(machine: M, link: L, wall: WallClock) -> (Handle, mpsc::Receiver<Event>) {
        let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
        let (events, events_out) = mpsc::channel(EVENTS_MAX);
        let handle = Handle { local: link.local(), commands: commands_in };
        let driver = Self {
            machine,
            link,
            clock: ClockBox(Clock::new(wall)),
            commands,
            events,
            pending: VecDeque::new(),
            open: BTreeSet::new(),
            timeout: Timestamp::FAR_FUTURE,
        };
        tokio::spawn(driver.run());
        (handle, events_out)
    }

    async fn run(mut self) {
        let mut batch = Vec::with_capacity(INPUT_BATCH_MAX);
        let mut sleep = std::pin::pin!(sleep_until(Instant::now()));
        let mut armed = None;
        self.hand_in(&mut batch);
        let reply = loop {
            self.arm(sleep.as_mut(), &mut armed);
            let read = self.pending.len() < EVENTS_PENDING_MAX;
            let woken = tokio::select! {
                command = self.commands.recv() => Woken::Command(command),
                () = self.link.inputs(&mut batch, INPUT_BATCH_MAX), if read => Woken::Inputs,
                () = room(&self.events), if !self.pending.is_empty() => Woken::Room,
                () = sleep.as_mut(), if armed.is_some() => Woken::Timeout,
            };
            match woken {
                Woken::Command(None) => break None,
                Woken::Command(Some(command)) => {
                    if let Some(reply) = self.obey(command, &mut batch) {
                        break Some(reply);
                    }
                }
                Woken::Inputs => {}
                Woken::Room => {
                    self.tell();
                    continue;
                }
                Woken::Timeout => {
                    armed = None;
                    batch.push(Input::Tick);
                }
            }
            self.hand_in(&mut batch);
        };
        self.leave(batch).await;
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    /// Takes a command and those already waiting behind it; gives the reply to make at the end when one of them ends
    /// the driver.
    fn obey(&mut self, first: Command, batch: &mut Vec<Input>) -> Option<oneshot::Sender<()>> {
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Input(input) => {
                    match &*input {
                        Input::Open(config) => _ = self.open.insert(config.swarm_id()),
                        Input::Leave(id) => _ = self.open.remove(id),
                        _ => {}
                    }
                    batch.push(*input);
                }
                // Who asked may have stopped waiting; that is no concern of the driver's.
                Command::Stats(id, reply) => {
                    self.hand_in(batch);
                    let _ = reply.send(self.machine.stats(&id));
                }
                Command::LocalAddrs(reply) => _ = reply.send(self.link.local_addrs()),
                Command::Shutdown(reply) => return Some(reply),
            }
            next = if batch.len() < INPUT_BATCH_MAX { self.commands.try_recv().ok() } else { None };
        }
        None
    }

    /// Hands a batch in and does what the engine says.
    fn hand_in(&mut self, batch: &mut Vec<Input>) {
        let now = self.clock.0.now();
        if let Some(wall) = self.clock.0.wall_news() {
            self.machine.handle_input(now, Input::UnixTime(wall));
        }
        for input in batch.drain(..) {
            self.machine.handle_input(now, input);
        }
        loop {
            match self.machine.poll_output() {
                Output::Transmit(transmit) => self.link.execute(transmit),
                Output::Event(event) => self.pending.push_back(event),
                Output::Timeout(at) => {
                    self.timeout = at;
                    break;
                }
            }
        }
        self.tell();
    }

    /// Passes on as many events as the consumer has room for. Without a consumer they are nobody's.
    fn tell(&mut self) {
        while let Some(event) = self.pending.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.pending.push_front(event);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => self.pending.clear(),
            }
        }
    }

    /// Sets the timer when the engine's timeout changed since it was set last.
    fn arm(&self, sleep: std::pin::Pin<&mut Sleep>, armed: &mut Option<Timestamp>) {
        match self.clock.0.instant(self.timeout) {
            None => *armed = None,
            Some(_) if *armed == Some(self.timeout) => {}
            Some(at) => {
                sleep.reset(at.max(Instant::now() + TICK_MIN));
                *armed = Some(self.timeout);
            }
        }
    }

    /// Leaves every swarm, executes what that takes, and closes the link.
    async fn leave(&mut self, mut batch: Vec<Input>) {
        for id in std::mem::take(&mut self.open) {
            batch.push(Input::Leave(id));
        }
        self.hand_in(&mut batch);
        if timeout(CLOSE_TIMEOUT, self.link.close()).await.is_err() {
            tracing::debug!("the link did not close in time");
        }
    }
}

/// Waits until the consumer of events has room, or is gone.
async fn room(events: &mpsc::Sender<Event>) {
    // A permit is not kept: no other task sends events, so the room stays.
    let _ = events.reserve().await;
}
