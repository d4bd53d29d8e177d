//! A node without an engine: a task that runs a link, with what it does and what happens to it in plain sight.
#![allow(dead_code)] // Each test binary uses its own part.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use caudal_net::{IrohConfig, IrohLink, Link};
use caudal_proto::id::{PeerId, SecretKey};
use caudal_proto::io::{ChunkOutcome, ChunkToken, CloseCode, Connected, Input, Transmit};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Nothing in these tests takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) struct Node {
    pub(crate) id: PeerId,
    pub(crate) addrs: Vec<SocketAddr>,
    transmits: Option<mpsc::UnboundedSender<Transmit>>,
    inputs: mpsc::UnboundedReceiver<Input>,
    task: JoinHandle<()>,
}

impl Node {
    pub(crate) fn run<L: Link>(mut link: L) -> Self {
        let (id, addrs) = (link.local(), link.local_addrs());
        let (transmits, mut to_do) = mpsc::unbounded_channel();
        let (happened, inputs) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut batch = Vec::new();
            loop {
                tokio::select! {
                    transmit = to_do.recv() => match transmit {
                        Some(transmit) => link.execute(transmit),
                        None => return link.close().await,
                    },
                    () = link.inputs(&mut batch, 64) => {
                        for input in batch.drain(..) {
                            let _ = happened.send(input);
                        }
                    }
                }
            }
        });
        Self { id, addrs, transmits: Some(transmits), inputs, task }
    }

    pub(crate) fn say(&self, transmit: Transmit) {
        self.transmits.as_ref().unwrap().send(transmit).unwrap();
    }

    pub(crate) fn dial(&self, other: &Node) {
        self.say(Transmit::Connect { peer: other.id, addrs: other.addrs.clone() });
    }

    pub(crate) fn control(&self, to: &Node, bytes: impl Into<Bytes>) {
        self.say(Transmit::Control { peer: to.id, bytes: bytes.into() });
    }

    pub(crate) fn chunk(&self, to: &Node, token: u64, body: impl Into<Bytes>) {
        let head = Bytes::from_static(b"head");
        let priority = (token % 5) as i32 - 2;
        let token = ChunkToken(token);
        self.say(Transmit::Chunk { peer: to.id, token, priority, head, body: body.into() });
    }

    pub(crate) fn disconnect(&self, from: &Node) {
        self.say(Transmit::Disconnect { peer: from.id, code: CloseCode::Done });
    }

    /// The next thing that happened; round-trip times are left out, since nothing waits for them.
    pub(crate) async fn next(&mut self) -> Input {
        loop {
            let next = timeout(PATIENCE, self.inputs.recv()).await;
            match next.expect("something should have happened").expect("the node is running") {
                Input::Path(..) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn connected(&mut self) -> Connected {
        match self.next().await {
            Input::Connected(connected) => connected,
            other => panic!("expected a connection, got {other:?}"),
        }
    }

    pub(crate) async fn disconnected(&mut self) -> PeerId {
        match self.next().await {
            Input::Disconnected(peer) => peer,
            other => panic!("expected a disconnection, got {other:?}"),
        }
    }

    pub(crate) async fn done(&mut self) -> (u64, ChunkOutcome) {
        match self.next().await {
            Input::ChunkDone(_, token, outcome) => (token.0, outcome),
            other => panic!("expected a chunk's outcome, got {other:?}"),
        }
    }

    /// Nothing happens for a while.
    pub(crate) async fn quiet(&mut self, long: Duration) {
        let until = tokio::time::Instant::now() + long;
        while let Ok(input) = tokio::time::timeout_at(until, self.inputs.recv()).await {
            match input {
                Some(Input::Path(..)) => {}
                other => panic!("expected nothing, got {other:?}"),
            }
        }
    }

    pub(crate) async fn close(mut self) {
        self.transmits = None;
        self.task.await.unwrap();
    }
}

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

pub(crate) fn config(seed: u8) -> IrohConfig {
    IrohConfig { bind: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], ..IrohConfig::new(key(seed)) }
}

pub(crate) async fn iroh_link(seed: u8) -> IrohLink {
    IrohLink::bind(config(seed)).await.unwrap()
}

/// A frame as `FrameReader` reads it: two bytes of length, then the body.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = (0x4000 | body.len() as u16).to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}
