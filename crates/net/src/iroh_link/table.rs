//! Which connection to a peer counts. Decides nothing about peers: it only sees that there is one connection to each.
//!
//! When two nodes dial each other at the same time, the one with the smaller id settles it: the connection that it
//! first sees whole stands (its own dial's handshake, or the other's preface), and it closes the other one as a
//! duplicate. The node with the larger id waits with its own dial until the other's preface confirms it, and takes
//! whatever the smaller offers. A peer that dials again while a connection stands has lost it: the new one replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use caudal_proto::id::PeerId;
use caudal_proto::io::{CloseCode, Connected, Input};
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{CLOSE_DUPLICATE, Command, News, Peer, Shared, connection};

/// For this long after its own dial succeeded, the smaller id takes the other's dial for the second half of a
/// simultaneous one, and not for a peer that lost its connection.
const SIMULTANEOUS_MAX: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Table {
    entries: BTreeMap<PeerId, Entry>,
    /// Names connections and dials.
    last_id: u64,
}

enum Entry {
    Dialling { id: u64, task: Option<AbortHandle> },
    Live(Live),
}

struct Live {
    id: u64,
    dialled: bool,
    since: Instant,
    commands: mpsc::UnboundedSender<Command>,
    slot: OwnedSemaphorePermit,
}

/// A connection that is whole, and how it came about.
pub(super) struct Candidate {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    /// The dialler still waits for the acceptor's preface; otherwise the stream's next bytes are frames.
    pub(super) expects_preface: bool,
    /// This side's preface is yet to be sent.
    pub(super) owes_preface: bool,
    pub(super) connected: Connected,
    pub(super) slot: OwnedSemaphorePermit,
}

impl Table {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Shared {
    /// Reserves the peer for a dial of this node; `None` when there is a connection or a dial already.
    pub(super) fn begin_dial(&self, peer: PeerId) -> Option<u64> {
        let mut table = self.table();
        if table.entries.contains_key(&peer) {
            return None;
        }
        let id = table.next_id();
        table.entries.insert(peer, Entry::Dialling { id, task: None });
        Some(id)
    }

    /// Lets the dial be aborted. It may have ended before.
    pub(super) fn dial_runs(&self, peer: PeerId, dial: u64, running: AbortHandle) {
        if let Some(Entry::Dialling { id, task }) = self.table().entries.get_mut(&peer)
            && *id == dial
        {
            *task = Some(running);
        }
    }

    /// Whether a dial is still wanted.
    pub(super) fn dial_counts(&self, peer: PeerId, dial: u64) -> bool {
        matches!(self.table().entries.get(&peer), Some(Entry::Dialling { id, .. }) if *id == dial)
    }

    /// Says that a dial failed, unless it was overtaken.
    pub(super) fn dial_failed(&self, peer: PeerId, dial: u64) {
        let mut table = self.table();
        if matches!(table.entries.get(&peer), Some(Entry::Dialling { id, .. }) if *id == dial) {
            table.entries.remove(&peer);
            self.send(peer, dial, News::DialFailed, None);
        }
    }

    /// Admits a connection that this node dialled, unless the dial was overtaken.
    pub(super) fn admit_dialled(self: &Arc<Self>, peer: PeerId, dial: u64, candidate: Candidate) {
        let mut table = self.table();
        if matches!(table.entries.get(&peer), Some(Entry::Dialling { id, .. }) if *id == dial) {
            self.admit(&mut table, peer, candidate);
        } else {
            drop(table);
            refuse(&candidate.connection);
        }
    }

    /// Admits a connection that the peer dialled, unless this node's own dial has settled the matter.
    pub(super) fn admit_accepted(self: &Arc<Self>, peer: PeerId, candidate: Candidate) {
        let mut table = self.table();
        match table.entries.get(&peer) {
            Some(Entry::Live(live))
                if live.dialled && self.local < peer && live.since.elapsed() < SIMULTANEOUS_MAX =>
            {
                drop(table);
                refuse(&candidate.connection);
                return;
            }
            Some(Entry::Live(live)) => {
                let id = live.id;
                let _ = live.commands.send(Command::Close(CloseCode::Done));
                self.retire_locked(&mut table, peer, id, None);
            }
            Some(Entry::Dialling { task: Some(task), .. }) => task.abort(),
            Some(Entry::Dialling { task: None, .. }) | None => {}
        }
        self.admit(&mut table, peer, candidate);
    }

    fn admit(self: &Arc<Self>, table: &mut Table, peer: PeerId, candidate: Candidate) {
        let Candidate { connection, send, recv, expects_preface, owes_preface, connected, slot } = candidate;
        let id = table.next_id();
        let (commands, commands_out) = mpsc::unbounded_channel();
        let control_out = Arc::new(AtomicUsize::new(0));
        let live =
            Live { id, dialled: connected.dialled, since: Instant::now(), commands: commands.clone(), slot };
        table.entries.insert(peer, Entry::Live(live));
        let state = Peer {
            id,
            connection: connection.clone(),
            commands,
            control_out: Arc::clone(&control_out),
            chunks: BTreeMap::new(),
            rtt_told: connected.rtt,
            violated: false,
        };
        self.send(peer, id, News::Connected(connected, state), None);
        let running = connection::Running { shared: Arc::clone(self), peer, id, connection };
        running.spawn(send, recv, commands_out, control_out, expects_preface, owes_preface);
    }

    /// Ends a connection's entry and says so, once. Whoever closes it for another reason comes here first.
    pub(super) fn retire(&self, peer: PeerId, id: u64, violation: Option<&'static str>) {
        self.retire_locked(&mut self.table(), peer, id, violation);
    }

    fn retire_locked(&self, table: &mut Table, peer: PeerId, id: u64, violation: Option<&'static str>) {
        if !matches!(table.entries.get(&peer), Some(Entry::Live(live)) if live.id == id) {
            return;
        }
        if let Some(Entry::Live(live)) = table.entries.remove(&peer) {
            if let Some(reason) = violation {
                self.send(peer, id, News::Input(Input::Violation(peer, reason)), None);
            }
            // The slot is free when the engine has taken the news: whoever comes and goes fills no queue.
            self.send(peer, id, News::Disconnected, Some(live.slot));
        }
    }

    /// Closes the connection to a peer, or gives up dialling it.
    pub(super) fn disconnect(&self, peer: PeerId, code: CloseCode) {
        let mut table = self.table();
        match table.entries.get(&peer) {
            Some(Entry::Live(live)) => {
                let id = live.id;
                let _ = live.commands.send(Command::Close(code));
                self.retire_locked(&mut table, peer, id, None);
            }
            Some(Entry::Dialling { id, task }) => {
                let id = *id;
                if let Some(task) = task {
                    task.abort();
                }
                table.entries.remove(&peer);
                self.send(peer, id, News::DialFailed, None);
            }
            None => {}
        }
    }

    /// Ends everything. Connections say goodbye on their own.
    pub(super) fn leave(&self) {
        let entries = std::mem::take(&mut self.table().entries);
        for entry in entries.into_values() {
            match entry {
                Entry::Live(live) => _ = live.commands.send(Command::Close(CloseCode::Done)),
                Entry::Dialling { task: Some(task), .. } => task.abort(),
                Entry::Dialling { task: None, .. } => {}
            }
        }
        self.farewell.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }
}

fn refuse(connection: &Connection) {
    connection.close(VarInt::from_u32(CLOSE_DUPLICATE), b"another connection stands");
}
