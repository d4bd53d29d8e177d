//! One rendition over HTTP: part after part from one edge, and from the next one where that does not do.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use caudal_proto::broadcast::{CLOCK_TOLERANCE_US, Certificate, LiveNote};
use caudal_proto::chunk::{Ed25519Verifier, Flags, VerifiedChunk};
use caudal_proto::hybrid::part::{PartId, PartRead, read_part};
use caudal_proto::id::{RenditionId, SwarmId};
use caudal_proto::io::Event;
use caudal_tracker::url::AllowedUrl;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::place::{Place, Standing, TRIES_MAX, bound, choose_start, next_start};
use super::{Common, Entry, RETRY};
use crate::clock::unix_us;
use crate::edge::client::{Edge, EdgeClient, EdgeError};
use crate::edge::shelf::EdgeView;
use crate::tracking::News;
use crate::viewer::RETENTION;

/// Parts under way at a time, while there is something to catch up with.
const PIPELINE: usize = 6;
/// Parts asked for before they are there: as many as a round trip and a CDN that looks twice a second for what others ask for take.
const AHEAD: u64 = 3;
/// One edge may have so many parts more than another.
const APART_MAX: u64 = 16;
/// The edge is asked where it is this often.
const LOOK_PERIOD: Duration = Duration::from_secs(2);
/// Whether the edge does is looked at this often, where there is another.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// The rate is measured over so much of the stream.
const RATE_SPAN_US: u64 = 2_000_000;
/// Most parts that it is measured over.
const MEASURED_MAX: usize = 256;
/// Parts that wait for the segment start before them.
const EARLY_MAX: usize = 16;

type Fetched = (u64, Result<Bytes, EdgeError>);

/// Fetches one rendition.
pub(super) struct Fetcher {
    common: Arc<Common>,
    rendition: RenditionId,
    /// Where the rendition is entered; later broadcasts are as usual.
    entry: Entry,
    known: watch::Receiver<Vec<AllowedUrl>>,
    /// The edge that is asked.
    at: usize,
    certificate: Option<Certificate>,
    note: Option<LiveNote>,
    /// Payload bytes by capture time, of the last seconds.
    measured: BTreeMap<u64, u64>,
    /// What was complained of last, by the edge that was asked; nobody is told twice.
    complained: BTreeMap<usize, String>,
    /// How far the broadcast was fetched; another edge goes on from there.
    place: Option<Place>,
    /// No segment has begun yet: what came.
    early: Option<BTreeMap<u64, Vec<VerifiedChunk>>>,
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
    pub(super) fn new(common: Arc<Common>, rendition: RenditionId, entry: Entry) -> Self {
        Self {
            rendition,
            entry,
            known: common.known.subscribe(),
            at: common.at.load(Ordering::Relaxed),
            certificate: None,
            note: None,
            measured: BTreeMap::new(),
            complained: BTreeMap::new(),
            place: None,
            early: None,
            common,
        }
    }

    fn swarm(&self) -> SwarmId {
        SwarmId { channel: self.common.channel, rendition: self.rendition }
    }

    /// For as long as anybody listens.
    pub(super) async fn run(mut self) {
        let mut wait = RETRY.0;
        loop {
            let (client, clients) = self.client();
            let Some(client) = client else {
                if self.known.changed().await.is_err() {
                    return;
                }
                continue;
            };
            match self.begin(&client).await {
                Ok((mut place, view)) => {
                    wait = RETRY.0;
                    self.entry = Entry::Newest;
                    self.common.at.store(self.at, Ordering::Relaxed);
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
            self.at = (self.at + 1) % clients.max(1);
            sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
            if self.common.events.is_closed() {
                return;
            }
        }
    }

    /// The client that is to be asked, and how many there are: one for every edge that is known.
    fn client(&mut self) -> (Option<EdgeClient>, usize) {
        let urls = self.known.borrow_and_update().clone();
        let mut clients = self.common.clients.lock().unwrap_or_else(PoisonError::into_inner);
        EdgeClient::add(&mut clients, urls, self.common.channel);
        (clients.get(self.at).cloned(), clients.len())
    }

    async fn complain_of(&mut self, why: Option<String>) {
        if let Some(why) = why {
            self.complain(why).await;
        }
    }

    async fn complain(&mut self, why: String) {
        if self.complained.get(&self.at) != Some(&why) {
            self.complained.insert(self.at, why.clone());
            let _ = self.common.news.send(News::Edge(why)).await;
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
        if edge.certificate.epoch < self.common.epoch.load(Ordering::Relaxed) {
            return Err(Some(format!("edge {url} has an older broadcast")));
        }
        if !edge.note.is_fresh(now) {
            return Err(Some(format!(
                "edge {url} is not live: its live note is not fresh (or this computer's clock is wrong)"
            )));
        }
        if edge.note.rendition != self.rendition {
            return Err(Some(format!("edge {url} answers with another rendition than was asked for")));
        }
        // The address of a part names the broadcast that the certificate is for.
        edge.view.epoch = edge.certificate.epoch;
        bound(&mut edge.view, &edge.note);
        if self.certificate.is_none_or(|certificate| edge.certificate.epoch > certificate.epoch) {
            self.common.epoch.fetch_max(edge.certificate.epoch, Ordering::Relaxed);
            self.certificate = Some(edge.certificate);
            self.note = None;
            self.measured.clear();
            let rate_bps = u64::from(edge.certificate.rate_bps);
            self.common.counters.count(self.rendition, |stats| {
                (stats.epoch, stats.rate_bps) = (edge.certificate.epoch, rate_bps);
            });
            let _ = self.common.events.send(Event::Certificate(edge.certificate)).await;
        }
        if self.note.is_none_or(|note| edge.note.unix_us > note.unix_us) {
            let was_ended = self.note.is_some_and(|note| note.ended);
            self.note = Some(edge.note);
            let _ = self.common.events.send(Event::Note(edge.note)).await;
            if edge.note.ended && !was_ended {
                let ended = Event::Ended(self.swarm(), edge.note.next_number);
                let _ = self.common.events.send(ended).await;
            }
        }
        Ok(edge)
    }

    /// Goes on where another edge left off, or else finds a start and proves that it is one.
    async fn begin(&mut self, client: &EdgeClient) -> Result<(Place, EdgeView), Option<String>> {
        let told = client.edge(self.rendition).await;
        if let Err(EdgeError::Absent { url }) = &told {
            return Err(Some(match self.rendition {
                RenditionId(0) => format!(
                    "edge {url} has nothing of this channel (HTTP status 404): is the address right, is the channel on the air?"
                ),
                RenditionId(other) => format!(
                    "edge {url} has nothing of rendition {other} (HTTP status 404): it has not come there, or the edge is of an older version"
                ),
            }));
        }
        let edge = self.heed(client, told).await?;
        // What comes next may be where another edge led it, far beyond what there is; an honest one may be a little ahead of this.
        let last = edge.view.newest.saturating_add(AHEAD + APART_MAX);
        let goes_on = |place: &mut Place| {
            place.epoch == edge.certificate.epoch && place.oldest() >= edge.view.first && place.next <= last
        };
        if let Some(mut place) = self.place.take_if(goes_on) {
            if self.known.borrow().len() > 1 {
                place.ask_another(&edge.view, Instant::now());
            }
            self.complained.remove(&self.at);
            return Ok((place, edge.view));
        }
        self.early = None;
        if self.entry == Entry::Next {
            self.early = Some(BTreeMap::new());
            self.complained.remove(&self.at);
            // Nearer parts come as they are made, and tell when a segment begins after all.
            let next = next_start(&edge.view).min(edge.view.newest.saturating_add(AHEAD));
            return Ok((Place::new(edge.certificate.epoch, next), edge.view));
        }
        let Some(start) = choose_start(&edge.view, self.entry) else { return Err(None) };
        let body = match client
            .part(self.part_id(edge.certificate.epoch, start.part), false, &self.common.read)
            .await
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
        if header.signed_unix_us() < oldest_start() {
            return Err(Some(format!("edge {url} is not live: what it begins with is too old")));
        }
        self.join(&read.chunks).await;
        self.hand_on(read.chunks).await;
        self.complained.remove(&self.at);
        Ok((Place::new(header.epoch, start.part + 1), edge.view))
    }

    fn part_id(&self, epoch: u64, part: u64) -> PartId {
        PartId { rendition: self.rendition, epoch, part }
    }

    /// Fetches part after part.
    async fn follow(&mut self, client: &EdgeClient, place: &mut Place, view: &EdgeView) -> Left {
        let (epoch, mut newest) = (place.epoch, view.newest);
        let mut tries: BTreeMap<u64, u32> = BTreeMap::new();
        let mut under_way: FuturesUnordered<BoxFuture<'static, Fetched>> = FuturesUnordered::new();
        let rendition = self.rendition;
        let common = Arc::clone(&self.common);
        let ask = |part, tried| {
            fetch(client.clone(), PartId { rendition, epoch, part }, tried, Arc::clone(&common))
        };
        under_way.extend(place.lacking.iter().map(|part| ask(*part, 0)));
        let mut again: Vec<(u64, Instant)> = Vec::new();
        let mut look_at = Instant::now() + LOOK_PERIOD;
        // Parts do not wait for it.
        let mut look: Option<BoxFuture<'static, Result<Edge, EdgeError>>> = None;
        let mut asked_at = None;
        // Looks that failed, one after another.
        let mut blind = 0;
        let mut standing = Standing::new(self.signed(), Instant::now());
        loop {
            // On a slow line parts may take longer; where there is nobody else, they are waited for.
            let has_others = self.known.borrow().len() > 1;
            let now = Instant::now();
            let why_left = if has_others && standing.is_barren(self.signed(), asked_at, now) {
                Some("the broadcast goes on, and no genuine part came for seconds; I ask another edge")
            } else if has_others && standing.withholds() {
                Some("it lacks parts again and again; I ask another edge")
            } else {
                None
            };
            if let Some(why) = why_left {
                self.complain(format!("edge {}: {why}", client.url())).await;
                return Left::Edge;
            }
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
                    look = Some(asked(client.clone(), rendition));
                    asked_at = Some(Instant::now());
                    continue;
                }
                // Whoever sends byte by byte gives no other occasion to look.
                () = sleep(WATCH_PERIOD), if has_others => continue,
                told = async { look.as_mut().expect("it is asked for only while there is one").await },
                    if look.is_some() =>
                {
                    (look, look_at, asked_at) = (None, Instant::now() + LOOK_PERIOD, None);
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
                    if self.common.events.is_closed() {
                        return Left::Nobody;
                    }
                    if blind >= TRIES_MAX {
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
                    self.take(part, read.chunks).await;
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
                standing.withhold();
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
        let wanted = self.part_id(certificate.epoch, part);
        let mut read = read_part(body, wanted, &certificate, &mut Ed25519Verifier);
        if read.error.is_some() {
            // It is asked for again, and nothing is played of half a part.
            read.chunks.clear();
        }
        for header in read.chunks.iter().map(|chunk| chunk.header()) {
            *self.measured.entry(header.capture_unix_us).or_insert(0) += u64::from(header.len);
        }
        let rate_bps = self.measure();
        self.common.counters.count(self.rendition, |stats| {
            for header in read.chunks.iter().map(|chunk| chunk.header()) {
                let len = u64::from(header.len);
                stats.received += 1;
                stats.useful_bytes += len;
                stats.useful_bytes_from_edge += len;
                stats.edge = stats.edge.max(header.number.saturating_add(1));
            }
            stats.forged += read.forged;
            stats.rate_bps = rate_bps.unwrap_or(stats.rate_bps);
        });
        read
    }

    /// The rate of the last seconds, bit/s, once there are so many.
    fn measure(&mut self) -> Option<u64> {
        let span = |measured: &BTreeMap<u64, u64>| {
            let (first, last) = (measured.first_key_value()?, measured.last_key_value()?);
            Some(last.0 - first.0)
        };
        while self.measured.len() > MEASURED_MAX
            || span(&self.measured).is_some_and(|span_us| span_us > 2 * RATE_SPAN_US)
        {
            self.measured.pop_first();
        }
        let span_us = span(&self.measured).filter(|span_us| *span_us > RATE_SPAN_US)?;
        Some(self.measured.values().sum::<u64>() * 8_000_000 / span_us)
    }

    /// A part came; until a segment begins it waits.
    async fn take(&mut self, part: u64, chunks: Vec<VerifiedChunk>) {
        let Some(early) = &mut self.early else { return self.hand_on(chunks).await };
        early.insert(part, chunks);
        let begins = |chunks: &Vec<VerifiedChunk>| {
            let header = chunks.first().map(|chunk| chunk.header());
            header.is_some_and(|header| {
                header.flags.has(Flags::SEGMENT_START) && header.signed_unix_us() >= oldest_start()
            })
        };
        let Some(start) = early.iter().find(|(_, chunks)| begins(chunks)).map(|(part, _)| *part) else {
            if early.len() > EARLY_MAX {
                early.pop_first();
            }
            return;
        };
        let parts = early.split_off(&start);
        self.early = None;
        if let Some(chunks) = parts.get(&start) {
            self.join(chunks).await;
        }
        for chunks in parts.into_values() {
            self.hand_on(chunks).await;
        }
    }

    /// Begins with the part that these are.
    async fn join(&self, chunks: &[VerifiedChunk]) {
        let Some(header) = chunks.first().map(|chunk| *chunk.header()) else { return };
        let joined = Event::Joined { swarm: self.swarm(), epoch: header.epoch, number: header.part_start() };
        let _ = self.common.events.send(joined).await;
    }

    async fn hand_on(&self, chunks: Vec<VerifiedChunk>) {
        for chunk in chunks {
            let _ = self.common.events.send(Event::Chunk(self.swarm(), chunk)).await;
        }
    }
}

/// What a rendition is begun with was signed no longer ago, µs since the Unix epoch.
fn oldest_start() -> u64 {
    unix_us().saturating_sub(RETENTION.as_micros() as u64 + CLOCK_TOLERANCE_US)
}

fn asked(client: EdgeClient, rendition: RenditionId) -> BoxFuture<'static, Result<Edge, EdgeError>> {
    async move { client.edge(rendition).await }.boxed()
}

/// After a first try caches on the way are passed over: what they keep may be what was wrong.
fn fetch(client: EdgeClient, id: PartId, tried: u32, common: Arc<Common>) -> BoxFuture<'static, Fetched> {
    async move { (id.part, client.part(id, tried > 0, &common.read).await) }.boxed()
}
