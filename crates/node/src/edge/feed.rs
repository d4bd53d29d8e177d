//! Watching by HTTP alone: in place of a swarm it yields the same events, from an edge or a CDN in front of one.
//!
//! Contacts trackers (to read the channel's descriptor, live notes and takedowns; it never registers) and edges, nobody
//! else. Applies a joiner's rules: a valid certificate, a fresh note, never an older epoch, every chunk verified.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use caudal_proto::broadcast::{CLOCK_TOLERANCE_US, Certificate, LiveNote};
use caudal_proto::chunk::{Ed25519Verifier, Flags, VerifiedChunk};
use caudal_proto::hybrid::part::{PartId, PartRead, read_part};
use caudal_proto::id::{ChannelId, SecretKey};
use caudal_proto::io::Event;
use caudal_proto::swarm::SwarmStats;
use caudal_tracker::client::{ChannelEvent, ClientError, TrackerClient};
use caudal_tracker::descriptor::Tracker;
use caudal_tracker::url::{AllowedUrl, UrlOrigin};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{EDGES_MAX, Edge, EdgeClient, EdgeError};
use super::shelf::{EdgeView, STARTS_MAX, Start};
use crate::clock::unix_us;
use crate::tracking::News;
use crate::viewer::RETENTION;

/// Events and news that wait for the viewer.
const EVENTS_MAX: usize = 256;
/// Parts under way at a time, while there is something to catch up with.
const PIPELINE: usize = 6;
/// Parts asked for before they are there: as many as a round trip and a CDN that looks twice a second for what others ask for take.
const AHEAD: u64 = 3;
/// The edge is asked where it is this often.
const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// The newest segment start is taken if so many parts follow it, or else the one before: there is something to begin with.
const FOLLOWED_BY: u64 = 2;
/// A part that does not come is asked for so often.
const TRIES_MAX: u32 = 3;
/// An edge that fails so often beyond what it does right is left for a moment, or for another.
const FAILED_MAX: u32 = 12;
/// An edge that gives no genuine part for so long, while its notes say that there are new ones, is left for another.
const BARREN_MAX: Duration = Duration::from_secs(5);
/// First and longest wait before an edge or a tracker is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// What one edge did not give is asked of another for so long: then playing steps over it.
const GIVEN_UP_FOR: Duration = Duration::from_secs(6);
/// The rate is measured over so much of the stream.
const RATE_SPAN_US: u64 = 2_000_000;
/// Most parts that it is measured over.
const MEASURED_MAX: usize = 256;
/// An edge's newest part may be so many parts newer than its live note: a note is renewed every few seconds.
const AHEAD_OF_NOTE_MAX: u64 = 64;

/// What a feed is told.
#[derive(Debug, Clone)]
pub struct FeedConfig {
    /// What to watch.
    pub channel: ChannelId,
    /// Whom to ask for its descriptor.
    pub trackers: Vec<AllowedUrl>,
    /// Edges that are known; the descriptor may name more.
    pub edges: Vec<AllowedUrl>,
    /// LAN mode: edges that a descriptor names may be inside.
    pub lan: bool,
}

/// What a feed tells: events as a driver has them, and what trackers and edges say.
pub type Told = (mpsc::Receiver<Event>, mpsc::Receiver<News>);

/// A running feed.
#[derive(Debug)]
pub struct Feed {
    /// What came.
    pub counters: Arc<Counters>,
    tasks: Vec<JoinHandle<()>>,
    known: watch::Receiver<Vec<AllowedUrl>>,
}

/// What came over HTTP.
#[derive(Debug, Default)]
pub struct Counters(Mutex<SwarmStats>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, SwarmStats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the words of a swarm.
    pub fn stats(&self) -> SwarmStats {
        self.lock().clone()
    }
}

impl Feed {
    /// Starts asking.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn start(config: &FeedConfig, key: &SecretKey) -> Result<(Self, Told), ClientError> {
        let (events, events_out) = mpsc::channel(EVENTS_MAX);
        let (news, news_out) = mpsc::channel(EVENTS_MAX);
        let (edges, known) = watch::channel(config.edges.clone());
        let edges = Arc::new(edges);
        let counters = Arc::new(Counters::default());
        let mut tasks = Vec::new();
        for url in &config.trackers {
            let client = TrackerClient::new(url.clone(), key.clone())?;
            let (edges, news) = (Arc::clone(&edges), news.clone());
            tasks.push(tokio::spawn(listen(client, config.channel, config.lan, edges, news)));
        }
        let fetcher = Fetcher {
            channel: config.channel,
            known: known.clone(),
            // Kept, so that edges can become known for as long as the feed runs.
            _edges: edges,
            clients: Vec::new(),
            at: 0,
            certificate: None,
            note: None,
            events,
            news,
            counters: Arc::clone(&counters),
            measured: BTreeMap::new(),
            complained: BTreeMap::new(),
            place: None,
        };
        tasks.push(tokio::spawn(fetcher.run()));
        Ok((Self { counters, tasks, known }, (events_out, news_out)))
    }

    /// Whether there is an edge to ask.
    pub fn knows_edges(&self) -> bool {
        !self.known.borrow().is_empty()
    }

    /// Asks nobody any more.
    pub fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Those of the edges that a descriptor names that may be asked.
pub(crate) fn told_edges(told: &[Tracker], lan: bool) -> impl Iterator<Item = AllowedUrl> + '_ {
    told.iter().filter_map(move |edge| edge.0.check(UrlOrigin::Foreign, lan).ok())
}

/// Reads what a tracker says of the channel, for as long as the feed runs.
async fn listen(
    client: TrackerClient,
    channel: ChannelId,
    lan: bool,
    edges: Arc<watch::Sender<Vec<AllowedUrl>>>,
    news: mpsc::Sender<News>,
) {
    let (mut wait, mut online) = (RETRY.0, None);
    loop {
        match client.channel_events(&channel).await {
            Ok(mut events) => {
                if online.replace(true) != Some(true) {
                    let _ = news.send(News::Online).await;
                }
                wait = RETRY.0;
                while let Ok(Some(event)) = events.next().await {
                    if let ChannelEvent::State(view) = &event
                        && let Some(descriptor) = &view.descriptor
                    {
                        learn(&edges, told_edges(&descriptor.edges, lan));
                    }
                    let heard = match event {
                        ChannelEvent::TakenDown { reason } => News::TakenDown(reason),
                        ChannelEvent::Viewers(viewers) => News::Viewers(viewers),
                        ChannelEvent::State(view) => match view.takedown {
                            Some(takedown) => News::TakenDown(takedown.reason),
                            None => News::Viewers(view.viewers),
                        },
                        _ => continue,
                    };
                    let _ = news.send(heard).await;
                }
            }
            Err(ClientError::TakenDown { reason, .. }) => {
                let _ = news.send(News::TakenDown(reason)).await;
            }
            Err(error) => {
                if online.replace(false) != Some(false) {
                    let _ = news.send(News::Offline(error)).await;
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

fn learn(edges: &watch::Sender<Vec<AllowedUrl>>, told: impl Iterator<Item = AllowedUrl>) {
    for url in told {
        edges.send_if_modified(|known| {
            let is_new = known.len() < EDGES_MAX && known.iter().all(|other| other.url() != url.url());
            if is_new {
                known.push(url);
            }
            is_new
        });
    }
}

type Fetched = (u64, Result<Bytes, EdgeError>);

struct Fetcher {
    channel: ChannelId,
    known: watch::Receiver<Vec<AllowedUrl>>,
    _edges: Arc<watch::Sender<Vec<AllowedUrl>>>,
    clients: Vec<EdgeClient>,
    /// The edge that is asked.
    at: usize,
    certificate: Option<Certificate>,
    note: Option<LiveNote>,
    events: mpsc::Sender<Event>,
    news: mpsc::Sender<News>,
    counters: Arc<Counters>,
    /// Payload bytes by capture time, of the last seconds.
    measured: BTreeMap<u64, u64>,
    /// What was complained of last, by the edge that was asked; nobody is told twice.
    complained: BTreeMap<usize, String>,
    /// How far the broadcast was fetched; another edge goes on from there.
    place: Option<Place>,
}

/// How far a broadcast was fetched.
#[derive(Debug, Default)]
struct Place {
    epoch: u64,
    /// The next part to ask for.
    next: u64,
    /// Those before it that were asked for and have not come.
    lacking: BTreeSet<u64>,
    /// Those that an edge did not give, and since when.
    given_up: BTreeMap<u64, Instant>,
    /// Those of them that another edge was asked for: that is done once.
    asked_again: BTreeSet<u64>,
}

impl Place {
    fn new(epoch: u64, next: u64) -> Self {
        Self { epoch, next, ..Self::default() }
    }

    fn give_up(&mut self, part: u64, now: Instant) {
        self.lacking.remove(&part);
        self.given_up.retain(|_, since| now.duration_since(*since) < GIVEN_UP_FOR);
        self.given_up.insert(part, now);
    }

    /// Another edge may have what the one before did not give.
    fn ask_another(&mut self, view: &EdgeView, now: Instant) {
        let next = self.next;
        self.asked_again.retain(|part| part.saturating_add(AHEAD_OF_NOTE_MAX) >= next);
        for (part, since) in std::mem::take(&mut self.given_up) {
            let is_new = now.duration_since(since) < GIVEN_UP_FOR && part >= view.first;
            if is_new && self.asked_again.insert(part) {
                self.lacking.insert(part);
            }
        }
    }

    fn oldest(&self) -> u64 {
        self.lacking.first().copied().unwrap_or(self.next)
    }

    /// Where what comes next has left the edge's window, on from what there is.
    fn leap(&mut self, view: &EdgeView) {
        if self.next < view.first
            && let Some(start) = choose_start(view)
        {
            self.next = start.part;
        }
    }
}

/// What following an edge comes to. What it answers says nothing; genuine parts do.
#[derive(Debug)]
struct Standing {
    /// Failures that no genuine part has made up for.
    failed: u32,
    /// When the last genuine part came, or else when it was first asked.
    genuine_at: Instant,
    /// What the live note said by then: the next chunk's number.
    signed: u64,
}

impl Standing {
    fn new(signed: u64, now: Instant) -> Self {
        Self { failed: 0, genuine_at: now, signed }
    }

    /// A part proved right.
    fn genuine(&mut self, signed: u64, now: Instant) {
        *self = Self { failed: self.failed.saturating_sub(1), genuine_at: now, signed };
    }

    /// It failed so often. True: it is to be left.
    fn fail(&mut self, times: u32) -> bool {
        self.failed = self.failed.saturating_add(times);
        self.failed >= FAILED_MAX
    }

    /// The broadcast goes on, and nothing of it comes.
    fn is_barren(&self, signed: u64, now: Instant) -> bool {
        signed > self.signed && now.duration_since(self.genuine_at) >= BARREN_MAX
    }
}

/// Why a broadcast is not followed any more.
enum Left {
    /// A newer one began.
    Epoch,
    /// This edge does not do.
    Edge,
    /// Nobody listens.
    Nobody,
}

impl Fetcher {
    async fn run(mut self) {
        let mut wait = RETRY.0;
        loop {
            self.renew_clients();
            let Some(client) = self.clients.get(self.at).cloned() else {
                if self.known.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match self.begin(&client).await {
                Ok((mut place, view)) => {
                    wait = RETRY.0;
                    let left = self.follow(&client, &mut place, &view).await;
                    self.place = Some(place);
                    match left {
                        Left::Nobody => return,
                        Left::Epoch => continue,
                        Left::Edge => {}
                    }
                }
                Err(why) => self.complain_of(why).await,
            }
            self.at = (self.at + 1) % self.clients.len().max(1);
            sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
            if self.events.is_closed() {
                return;
            }
        }
    }

    /// A client for every edge that is known.
    fn renew_clients(&mut self) {
        let urls = self.known.borrow_and_update().clone();
        EdgeClient::add(&mut self.clients, urls, self.channel);
    }

    async fn complain_of(&mut self, why: Option<String>) {
        if let Some(why) = why {
            self.complain(why).await;
        }
    }

    async fn complain(&mut self, why: String) {
        if self.complained.get(&self.at) != Some(&why) {
            self.complained.insert(self.at, why.clone());
            let _ = self.news.send(News::Edge(why)).await;
        }
    }

    /// Takes an edge's word for the broadcast, if it is fresh.
    ///
    /// # Errors
    /// Why it is not taken; nothing where there is nothing to complain of.
    async fn heed(
        &mut self,
        client: &EdgeClient,
        told: Result<Edge, EdgeError>,
    ) -> Result<Edge, Option<String>> {
        let mut edge = match told {
            Ok(edge) => edge,
            // Between two broadcasts it has had nothing yet. Where nothing was ever had, that is said.
            Err(EdgeError::Absent { .. }) => return Err(None),
            Err(error) => return Err(Some(error.to_string())),
        };
        let url = client.url();
        let now = unix_us();
        edge.certificate
            .check_time(now)
            .map_err(|error| Some(format!("edge {url}: the certificate: {error}")))?;
        if self.certificate.is_some_and(|certificate| edge.certificate.epoch < certificate.epoch) {
            return Err(Some(format!("edge {url} has an older broadcast")));
        }
        if !edge.note.is_fresh(now) {
            return Err(Some(format!(
                "edge {url} is not live: its live note is not fresh (or this computer's clock is wrong)"
            )));
        }
        // The address of a part names the broadcast that the certificate is for.
        edge.view.epoch = edge.certificate.epoch;
        bound(&mut edge.view, &edge.note);
        if self.certificate.is_none_or(|certificate| edge.certificate.epoch > certificate.epoch) {
            self.certificate = Some(edge.certificate);
            self.note = None;
            self.measured.clear();
            let rate_bps = u64::from(edge.certificate.rate_bps);
            *self.counters.lock() =
                SwarmStats { epoch: edge.certificate.epoch, rate_bps, ..self.counters.stats() };
            let _ = self.events.send(Event::Certificate(edge.certificate)).await;
        }
        if self.note.is_none_or(|note| edge.note.unix_us > note.unix_us) {
            let was_ended = self.note.is_some_and(|note| note.ended);
            self.note = Some(edge.note);
            let _ = self.events.send(Event::Note(edge.note)).await;
            if edge.note.ended && !was_ended {
                let _ = self.events.send(Event::Ended(self.channel.into(), edge.note.next_number)).await;
            }
        }
        Ok(edge)
    }

    /// Goes on where another edge left off, or else finds a start and proves that it is one.
    async fn begin(&mut self, client: &EdgeClient) -> Result<(Place, EdgeView), Option<String>> {
        let told = client.edge().await;
        if let Err(EdgeError::Absent { url }) = &told {
            return Err(Some(format!(
                "edge {url} has nothing of this channel (HTTP status 404): is the address right, is the channel on the air?"
            )));
        }
        let edge = self.heed(client, told).await?;
        let there = edge.view.first..=edge.view.newest.saturating_add(AHEAD);
        let goes_on =
            |place: &mut Place| place.epoch == edge.certificate.epoch && there.contains(&place.oldest());
        if let Some(mut place) = self.place.take_if(goes_on) {
            if self.clients.len() > 1 {
                place.ask_another(&edge.view, Instant::now());
            }
            self.complained.remove(&self.at);
            return Ok((place, edge.view));
        }
        let Some(start) = choose_start(&edge.view) else { return Err(None) };
        let body = match client.part(PartId { epoch: edge.certificate.epoch, part: start.part }, false).await
        {
            Ok(body) => body,
            Err(error) => return Err(Some(error.to_string())),
        };
        let read = self.read(&body, start.part);
        let url = client.url();
        if let Some(error) = read.error {
            return Err(Some(format!("edge {url}: part {}: {error}", start.part)));
        }
        let Some(header) = read.chunks.first().map(|chunk| *chunk.header()) else { return Err(None) };
        if !header.flags.has(Flags::SEGMENT_START) {
            return Err(Some(format!("edge {url} named a segment start that is none")));
        }
        let oldest = unix_us().saturating_sub(RETENTION.as_micros() as u64 + CLOCK_TOLERANCE_US);
        if header.signed_unix_us() < oldest {
            return Err(Some(format!("edge {url} is not live: what it begins with is too old")));
        }
        let joined =
            Event::Joined { swarm: self.channel.into(), epoch: header.epoch, number: header.part_start() };
        let _ = self.events.send(joined).await;
        self.hand_on(read.chunks).await;
        self.complained.remove(&self.at);
        Ok((Place::new(header.epoch, start.part + 1), edge.view))
    }

    /// Fetches part after part.
    async fn follow(&mut self, client: &EdgeClient, place: &mut Place, view: &EdgeView) -> Left {
        let (epoch, mut newest) = (place.epoch, view.newest);
        let mut tries: BTreeMap<u64, u32> = BTreeMap::new();
        let mut under_way: FuturesUnordered<BoxFuture<'static, Fetched>> = FuturesUnordered::new();
        let ask = |part, tried| fetch(client.clone(), PartId { epoch, part }, tried);
        under_way.extend(place.lacking.iter().map(|part| ask(*part, 0)));
        let mut again: Vec<(u64, Instant)> = Vec::new();
        let mut look_at = Instant::now() + LOOK_PERIOD;
        // Parts do not wait for it.
        let mut look: Option<BoxFuture<'static, Result<Edge, EdgeError>>> = None;
        // Looks that failed, one after another.
        let mut blind = 0;
        let mut standing = Standing::new(self.signed(), Instant::now());
        loop {
            let is_over = self.note.is_some_and(|note| note.ended);
            let last = newest.saturating_add(if is_over { 0 } else { AHEAD });
            while under_way.len() + again.len() < PIPELINE && place.next <= last {
                under_way.push(ask(place.next, 0));
                place.lacking.insert(place.next);
                place.next += 1;
            }
            let due = again.iter().map(|(_, at)| *at).min();
            let (part, came) = tokio::select! {
                Some(fetched) = under_way.next() => fetched,
                () = sleep_until(due.unwrap_or(look_at)), if due.is_some() => {
                    let now = Instant::now();
                    for (part, _) in again.extract_if(.., |(_, at)| *at <= now) {
                        under_way.push(ask(part, tries.get(&part).copied().unwrap_or(0)));
                    }
                    continue;
                }
                () = sleep_until(look_at), if look.is_none() => {
                    look = Some(asked(client.clone()));
                    continue;
                }
                told = async { look.as_mut().expect("it is asked for only while there is one").await },
                    if look.is_some() =>
                {
                    (look, look_at) = (None, Instant::now() + LOOK_PERIOD);
                    match self.heed(client, told).await {
                        Ok(edge) if edge.view.epoch != epoch => return Left::Epoch,
                        Ok(edge) => {
                            blind = 0;
                            newest = newest.max(edge.view.newest);
                            place.leap(&edge.view);
                        }
                        Err(why) => {
                            blind += 1;
                            self.complain_of(why).await;
                        }
                    }
                    if self.events.is_closed() {
                        return Left::Nobody;
                    }
                    if blind >= TRIES_MAX {
                        return Left::Edge;
                    }
                    // On a slow line parts may take longer; where there is nobody else, they are waited for.
                    if self.known.borrow().len() > 1 && standing.is_barren(self.signed(), Instant::now()) {
                        let why = "its live note goes on, and no genuine part came for seconds; I ask another edge";
                        self.complain(format!("edge {}: {why}", client.url())).await;
                        return Left::Edge;
                    }
                    continue;
                }
            };
            let error = match came {
                Ok(body) => {
                    let read = self.read(&body, part);
                    if read.error.is_none() {
                        standing.genuine(self.signed(), Instant::now());
                        newest = newest.max(part);
                    }
                    self.hand_on(read.chunks).await;
                    read.error.map(|error| error.to_string())
                }
                // Beyond the edge: it was waited for in vain, and the broadcast may go on.
                Err(EdgeError::Absent { .. }) if part > newest => {
                    if !is_over {
                        again.push((part, Instant::now() + RETRY.0));
                    }
                    continue;
                }
                Err(EdgeError::Absent { .. }) => Some("it does not have it".to_owned()),
                // That says nothing about the part.
                Err(error) => {
                    self.complain(error.to_string()).await;
                    if standing.fail(1) {
                        return Left::Edge;
                    }
                    again.push((part, Instant::now() + RETRY.0));
                    continue;
                }
            };
            let Some(error) = error else {
                tries.remove(&part);
                place.lacking.remove(&part);
                continue;
            };
            self.complain(format!("edge {}: part {part}: {error}", client.url())).await;
            let tried = tries.entry(part).or_insert(0);
            *tried += 1;
            if *tried < TRIES_MAX {
                again.push((part, Instant::now() + RETRY.0 * *tried));
            } else {
                // Playing steps over it, unless another edge has it.
                tries.remove(&part);
                place.give_up(part, Instant::now());
                if standing.fail(TRIES_MAX) {
                    return Left::Edge;
                }
            }
        }
    }

    /// How far the broadcaster signed: the next chunk's number.
    fn signed(&self) -> u64 {
        self.note.map_or(0, |note| note.next_number)
    }

    /// Verifies what came, and counts it. A part is taken whole or not at all.
    fn read(&mut self, body: &Bytes, part: u64) -> PartRead {
        let Some(certificate) = self.certificate else {
            return PartRead { chunks: Vec::new(), error: None, forged: 0 };
        };
        let wanted = PartId { epoch: certificate.epoch, part };
        let mut read = read_part(body, wanted, &certificate, &mut Ed25519Verifier);
        let mut stats = self.counters.lock();
        if read.error.is_some() {
            // It is asked for again, and nothing is played of half a part.
            read.chunks.clear();
        }
        for chunk in &read.chunks {
            let header = chunk.header();
            let len = u64::from(header.len);
            stats.received += 1;
            stats.useful_bytes += len;
            stats.useful_bytes_from_edge += len;
            stats.edge = stats.edge.max(header.number.saturating_add(1));
            *self.measured.entry(header.capture_unix_us).or_insert(0) += len;
        }
        stats.forged += read.forged;
        let span = |measured: &BTreeMap<u64, u64>| {
            let (first, last) = (measured.first_key_value()?, measured.last_key_value()?);
            Some(last.0 - first.0)
        };
        while self.measured.len() > MEASURED_MAX
            || span(&self.measured).is_some_and(|span_us| span_us > 2 * RATE_SPAN_US)
        {
            self.measured.pop_first();
        }
        if let Some(span_us) = span(&self.measured).filter(|span_us| *span_us > RATE_SPAN_US) {
            stats.rate_bps = self.measured.values().sum::<u64>() * 8_000_000 / span_us;
        }
        drop(stats);
        read
    }

    async fn hand_on(&self, chunks: Vec<VerifiedChunk>) {
        for chunk in chunks {
            let _ = self.events.send(Event::Chunk(self.channel.into(), chunk)).await;
        }
    }
}

fn asked(client: EdgeClient) -> BoxFuture<'static, Result<Edge, EdgeError>> {
    async move { client.edge().await }.boxed()
}

/// After a first try caches on the way are passed over: what they keep may be what was wrong.
fn fetch(client: EdgeClient, id: PartId, tried: u32) -> BoxFuture<'static, Fetched> {
    async move { (id.part, client.part(id, tried > 0).await) }.boxed()
}

/// What an edge says of its parts, as far as it can be: every part has a chunk, and the note says how many of those there are.
fn bound(view: &mut EdgeView, note: &LiveNote) {
    view.newest = view.newest.min(note.next_number.saturating_add(AHEAD_OF_NOTE_MAX));
    view.first = view.first.min(view.newest);
    view.starts.retain(|start| (view.first..=view.newest).contains(&start.part));
    view.starts.truncate(STARTS_MAX);
}

/// The newest start with something after it, else the newest.
fn choose_start(view: &EdgeView) -> Option<Start> {
    let is_followed = |start: &&Start| start.part.saturating_add(FOLLOWED_BY) <= view.newest;
    let followed = view.starts.iter().rev().find(is_followed);
    followed.or(view.starts.last()).copied()
}

#[cfg(test)]
mod tests {
    use caudal_proto::id::SecretKey;
    use caudal_tracker::message::LiveBroadcast;

    use super::*;

    fn view(first: u64, newest: u64, starts: &[u64]) -> EdgeView {
        let broadcast = LiveBroadcast { certificate: Vec::new(), live_note: Vec::new() };
        let starts =
            starts.iter().map(|part| Start { part: *part, number: part.saturating_mul(3) }).collect();
        EdgeView { channel: String::new(), epoch: 7, broadcast, first, newest, starts }
    }

    fn note(next_number: u64) -> LiveNote {
        let key = SecretKey::from_bytes(&[2; 32]);
        LiveNote::sign(&key, key.channel(), 7, next_number, 1, false)
    }

    #[test]
    fn it_begins_where_something_follows() {
        let start = |newest, starts: &[u64]| choose_start(&view(0, newest, starts)).map(|start| start.part);
        assert_eq!(start(12, &[0, 5, 10]), Some(10));
        assert_eq!(start(11, &[0, 5, 10]), Some(5));
        assert_eq!(start(0, &[0]), Some(0), "or at what there is");
        assert_eq!(start(9, &[]), None);
    }

    #[test]
    fn an_edge_that_withholds_or_forges_is_left_and_one_that_stumbles_is_not() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut withholds = Standing::new(100, begun);
        assert!(!withholds.is_barren(130, at(4_900)));
        assert!(withholds.is_barren(130, at(5_000)));
        assert!(!withholds.is_barren(100, at(60_000)), "the broadcast stands still, not the edge");
        withholds.genuine(130, at(5_000));
        assert!(!withholds.is_barren(160, at(9_900)));

        let parts_until_left = |is_given_up: fn(u32) -> bool| {
            let mut edge = Standing::new(100, begun);
            (1..=1_000).find(|part| match is_given_up(*part) {
                true => edge.fail(TRIES_MAX),
                false => {
                    edge.genuine(100, begun);
                    false
                }
            })
        };
        assert_eq!(parts_until_left(|_| true), Some(4));
        assert_eq!(parts_until_left(|part| part % 2 == 0), Some(12), "a part now and then does not help it");
        assert_eq!(parts_until_left(|part| part % 5 == 0), None);
        let mut busy = Standing::new(100, begun);
        for _ in 0..1_000 {
            assert!(!busy.fail(1), "what fails once and then comes is no reason");
            busy.genuine(100, begun);
        }
        assert!((0..FAILED_MAX).any(|_| busy.fail(1)));
    }

    #[test]
    fn what_one_edge_does_not_give_is_asked_of_one_other() {
        let begun = Instant::now();
        let mut place = Place::new(7, 20);
        place.lacking.insert(12);
        for part in [3, 11, 12] {
            place.give_up(part, begun);
        }
        assert_eq!(place.oldest(), 20);
        place.ask_another(&view(10, 30, &[10]), begun);
        assert_eq!(place.lacking, BTreeSet::from([11, 12]), "what it may have");
        place.give_up(11, begun);
        place.ask_another(&view(10, 30, &[10]), begun);
        assert_eq!(place.lacking, BTreeSet::from([12]), "not from one to the other for ever");
        place.give_up(15, begun);
        place.ask_another(&view(10, 30, &[10]), begun + GIVEN_UP_FOR);
        assert_eq!(place.lacking, BTreeSet::from([12]), "playing has stepped over it");
    }

    #[test]
    fn an_edge_that_boasts_leads_nobody_beyond_what_was_signed() {
        let mut boast = view(u64::MAX, u64::MAX, &[3, 90, u64::MAX]);
        bound(&mut boast, &note(100));
        assert_eq!((boast.first, boast.newest), (164, 164));
        assert_eq!(choose_start(&boast), None);
        let mut honest = view(2, 33, &[5, 30]);
        bound(&mut honest, &note(100));
        assert_eq!(honest, view(2, 33, &[5, 30]));
        let mut place = Place::new(7, 1);
        place.leap(&honest);
        assert_eq!(place.next, 30, "what has left the window is stepped over");
        place.leap(&honest);
        assert_eq!(place.next, 30);
    }
}
