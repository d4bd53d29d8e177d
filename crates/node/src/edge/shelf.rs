//! The window of signed parts that an edge keeps: chunks as they were signed, by rendition, broadcast and part.
//!
//! Holds what its viewer verified, shares its buffers, and has limits of its own, which are for all renditions together. Knows
//! nothing of HTTP.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use caudal_proto::broadcast::{Certificate, LiveNote};
use caudal_proto::chunk::{Flags, VerifiedChunk};
use caudal_proto::hybrid::part::PartId;
use caudal_proto::id::{ChannelId, RenditionId};
use caudal_tracker::message::LiveBroadcast;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::variants::Variants;
use crate::viewer::RETENTION;

/// Most parts kept, whole or not, whatever the retention.
pub const PARTS_MAX: usize = 4096;
/// Most bytes kept, whatever the retention. They are the swarm's own buffers.
pub const BYTES_MAX: usize = 256 << 20;
/// What a chunk's place takes, bytes.
const PLACE_LEN: usize = size_of::<Option<Bytes>>();
/// Segment starts that are named to newcomers.
pub const STARTS_MAX: usize = 8;
/// So many parts beyond the newest may be asked for before they are there.
pub const AHEAD_MAX: u64 = 4;
/// A part that is missing may still come while it is so few parts behind the newest.
const LATE_MAX: u64 = 16;
/// A request waits for a part for so long: shorter than a CDN waits for an answer that others share.
pub const WAIT_MAX: Duration = Duration::from_secs(4);
/// Most requests that wait.
pub const WAITING_MAX: usize = 768;

/// An edge's parts.
#[derive(Debug)]
pub struct Shelf {
    channel: ChannelId,
    inner: Mutex<Inner>,
    /// Counts changes; requests wait on it.
    changed: watch::Sender<u64>,
    waiting: Semaphore,
    /// What was served.
    pub served: Served,
    /// What players may choose from.
    pub variants: Variants,
}

/// What an edge served, since it began.
#[derive(Debug, Default)]
pub struct Served {
    /// Requests answered, whatever the answer.
    pub requests: AtomicU64,
    /// Parts sent, whole or in ranges.
    pub parts: AtomicU64,
    /// Bytes of signed parts, playlists and media sent, without heads.
    pub bytes: AtomicU64,
}

impl Served {
    pub(super) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// What an edge has and served, as its report says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EdgeReport {
    /// Whole parts held.
    pub parts_held: u64,
    /// Bytes held of signed parts.
    pub bytes_held: u64,
    /// Requests answered.
    pub requests: u64,
    /// Parts sent.
    pub parts_sent: u64,
    /// Bytes sent to viewers and CDNs, without heads.
    pub bytes_sent: u64,
}

#[derive(Debug, Default)]
struct Inner {
    certificate: Option<Certificate>,
    racks: BTreeMap<RenditionId, Rack>,
    /// Of all racks.
    parts: usize,
    bytes: usize,
}

/// One rendition's parts.
#[derive(Debug, Default)]
struct Rack {
    note: Option<LiveNote>,
    parts: BTreeMap<PartId, Kept>,
    /// The newest whole part of the certificate's broadcast.
    newest: Option<u64>,
}

#[derive(Debug)]
struct Kept {
    chunks: Vec<Option<Bytes>>,
    missing: usize,
    bytes: usize,
    /// Its first chunk's number.
    number: u64,
    captured_unix_us: u64,
    segment_start: bool,
    since: Instant,
}

/// How a part stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Its chunks, in order.
    Whole(Vec<Bytes>),
    /// It may come.
    Soon,
    /// It may come, and not soon.
    Early,
    /// It left the window, or never was.
    Gone,
}

/// Why a request for a part has no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// It is not there, and did not come in time.
    Gone,
    /// Nobody waits for what is so far ahead.
    Early,
    /// Too many requests wait.
    Busy,
}

/// Where the live edge is, as an edge tells it. Its signatures are to be checked, its numbers are hints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeView {
    /// The channel, as text.
    pub channel: String,
    /// The broadcast's epoch.
    pub epoch: u64,
    /// Certificate and live note.
    #[serde(flatten)]
    pub broadcast: LiveBroadcast,
    /// The oldest part that is held.
    pub first: u64,
    /// The newest whole part.
    pub newest: u64,
    /// The newest parts that start segments and are whole, ascending.
    pub starts: Vec<Start>,
}

/// A part that starts a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The part.
    pub part: u64,
    /// Its first chunk.
    pub number: u64,
    /// When it was captured, µs since the Unix epoch; 0: not said.
    #[serde(default)]
    pub captured_unix_us: u64,
}

impl Shelf {
    /// An empty one.
    pub fn new(channel: ChannelId) -> Arc<Self> {
        Arc::new(Self {
            channel,
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
            waiting: Semaphore::new(WAITING_MAX),
            served: Served::default(),
            variants: Variants::default(),
        })
    }

    /// What it is about.
    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Another broadcast began. The parts of the one before stay until they are old: somebody may be fetching them.
    pub fn certificate(&self, certificate: Certificate) {
        let mut inner = self.lock();
        // Each rendition's swarm hears of it by itself.
        if inner.certificate.is_some_and(|known| known.epoch >= certificate.epoch) {
            return;
        }
        inner.certificate = Some(certificate);
        for rack in inner.racks.values_mut() {
            (rack.note, rack.newest) = (None, None);
        }
        drop(inner);
        self.tell();
    }

    /// A newer note.
    pub fn note(&self, note: LiveNote) {
        let mut inner = self.lock();
        if inner.certificate.is_none_or(|certificate| certificate.epoch != note.epoch) {
            return;
        }
        inner.racks.entry(note.rendition).or_default().note = Some(note);
        drop(inner);
        self.tell();
    }

    /// A genuine chunk came.
    pub fn chunk(&self, chunk: &VerifiedChunk) {
        let header = *chunk.header();
        let id = PartId { rendition: header.rendition, epoch: header.epoch, part: header.part };
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.certificate.is_none_or(|certificate| certificate.epoch != header.epoch) {
            return;
        }
        let encoded = chunk.encoded().clone();
        let mut len = encoded.len();
        // Places that nothing may ever come for cost something, too.
        let places = usize::from(header.count) * PLACE_LEN;
        let rack = inner.racks.entry(header.rendition).or_default();
        let kept = rack.parts.entry(id).or_insert_with(|| {
            inner.parts += 1;
            Kept {
                chunks: vec![None; usize::from(header.count)],
                missing: usize::from(header.count),
                bytes: 0,
                number: header.part_start(),
                captured_unix_us: header.capture_unix_us,
                segment_start: header.flags.has(Flags::SEGMENT_START),
                since: Instant::now(),
            }
        });
        let Some(place) = kept.chunks.get_mut(usize::from(header.index)).filter(|place| place.is_none())
        else {
            return;
        };
        *place = Some(encoded);
        if kept.bytes == 0 {
            len += places;
        }
        kept.missing -= 1;
        kept.bytes += len;
        let is_whole = kept.missing == 0;
        inner.bytes += len;
        if is_whole && rack.newest.is_none_or(|newest| newest < header.part) {
            rack.newest = Some(header.part);
        }
        inner.evict();
        drop(guard);
        if is_whole {
            self.tell();
        }
    }

    /// How a part stands now.
    pub fn look(&self, id: PartId) -> Look {
        let inner = self.lock();
        let Some(rack) = inner.racks.get(&id.rendition) else { return Look::Gone };
        if let Some(kept) = rack.parts.get(&id).filter(|kept| kept.missing == 0) {
            return Look::Whole(kept.chunks.iter().flatten().cloned().collect());
        }
        let is_current = inner.certificate.is_some_and(|certificate| certificate.epoch == id.epoch);
        let Some(newest) = rack.newest.filter(|_| is_current) else { return Look::Gone };
        let is_over = rack.note.is_some_and(|note| note.ended) && id.part > newest;
        if is_over || id.part.saturating_add(LATE_MAX) < newest {
            return Look::Gone;
        }
        if id.part > newest.saturating_add(AHEAD_MAX) { Look::Early } else { Look::Soon }
    }

    /// The part's chunks; waits for one that may come.
    ///
    /// # Errors
    /// [`Lack`].
    pub async fn part(&self, id: PartId) -> Result<Vec<Bytes>, Lack> {
        match self.look(id) {
            Look::Whole(chunks) => return Ok(chunks),
            Look::Gone => return Err(Lack::Gone),
            Look::Early => return Err(Lack::Early),
            Look::Soon => {}
        }
        let Some(_waits) = self.may_wait() else { return Err(Lack::Busy) };
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                match self.look(id) {
                    Look::Whole(chunks) => return Ok(chunks),
                    Look::Gone => return Err(Lack::Gone),
                    Look::Soon | Look::Early => {}
                }
                if changed.changed().await.is_err() {
                    return Err(Lack::Gone);
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, wait).await.unwrap_or(Err(Lack::Gone))
    }

    /// A place among those that wait, while it is held; none when there are [`WAITING_MAX`].
    pub(super) fn may_wait(&self) -> Option<SemaphorePermit<'_>> {
        self.waiting.try_acquire().ok()
    }

    /// Where a rendition's live edge is; none before there is a part.
    pub fn view(&self, rendition: RenditionId) -> Option<EdgeView> {
        let inner = self.lock();
        let rack = inner.racks.get(&rendition)?;
        let (certificate, note, newest) = (inner.certificate?, rack.note?, rack.newest?);
        let epoch = certificate.epoch;
        let id = |part| PartId { rendition, epoch, part };
        let of_broadcast = || rack.parts.range(id(0)..=id(u64::MAX));
        let starts = of_broadcast().rev().filter(|(_, kept)| kept.segment_start && kept.missing == 0);
        let start = |(id, kept): (&PartId, &Kept)| Start {
            part: id.part,
            number: kept.number,
            captured_unix_us: kept.captured_unix_us,
        };
        let mut starts: Vec<Start> = starts.map(start).take(STARTS_MAX).collect();
        starts.reverse();
        Some(EdgeView {
            channel: self.channel.to_string(),
            epoch,
            broadcast: LiveBroadcast::new(&certificate, &note),
            first: of_broadcast().next()?.0.part,
            newest,
            starts,
        })
    }

    /// The epoch of the broadcast that goes on.
    pub fn epoch(&self) -> Option<u64> {
        self.lock().certificate.map(|certificate| certificate.epoch)
    }

    /// For the report.
    pub fn report(&self) -> EdgeReport {
        let inner = self.lock();
        let whole =
            inner.racks.values().flat_map(|rack| rack.parts.values()).filter(|kept| kept.missing == 0);
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EdgeReport {
            parts_held: whole.count() as u64,
            bytes_held: inner.bytes as u64,
            requests: counted(&self.served.requests),
            parts_sent: counted(&self.served.parts),
            bytes_sent: counted(&self.served.bytes),
        }
    }
}

impl Inner {
    /// The oldest go, of whatever rendition: those beyond the retention, and beyond the limits.
    fn evict(&mut self) {
        loop {
            let since = |rack: &Rack| rack.parts.first_key_value().map(|(_, kept)| kept.since);
            let oldest = self.racks.values_mut().filter_map(|rack| Some((since(rack)?, rack)));
            let Some((since, rack)) = oldest.min_by_key(|(since, _)| *since) else { return };
            if since.elapsed() <= RETENTION && self.bytes <= BYTES_MAX && self.parts <= PARTS_MAX {
                return;
            }
            let Some((_, gone)) = rack.parts.pop_first() else { return };
            self.bytes -= gone.bytes;
            self.parts -= 1;
            if rack.parts.is_empty() {
                // Nothing comes of it any more: nobody is to wait.
                rack.newest = None;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use caudal_proto::broadcast::CertificateTerms;
    use caudal_proto::chunk::{PartIn, Signer};
    use caudal_proto::id::{BroadcastId, SecretKey, SwarmId};

    use super::*;

    /// A shelf with `parts` parts of broadcast `epoch`, the last one lacking its last chunk.
    pub(in crate::edge) fn filled(epoch: u64, parts: u64) -> (Arc<Shelf>, Vec<Vec<VerifiedChunk>>) {
        let shelf = Shelf::new(SecretKey::from_bytes(&[1; 32]).channel());
        let signed = filled_with(&shelf, epoch, RenditionId(0), parts);
        (shelf, signed)
    }

    /// And the same of another rendition.
    pub(in crate::edge) fn filled_with(
        shelf: &Shelf,
        epoch: u64,
        rendition: RenditionId,
        parts: u64,
    ) -> Vec<Vec<VerifiedChunk>> {
        let (channel, key) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        fill(shelf, &channel, &key, epoch, rendition, parts)
    }

    fn fill(
        shelf: &Shelf,
        channel: &SecretKey,
        key: &SecretKey,
        epoch: u64,
        rendition: RenditionId,
        parts: u64,
    ) -> Vec<Vec<VerifiedChunk>> {
        let terms = CertificateTerms {
            epoch,
            not_before_unix_us: 0,
            not_after_unix_us: u64::MAX,
            substreams: 4,
            rate_bps: 1_000_000,
        };
        shelf.certificate(Certificate::sign(channel, BroadcastId(key.public()), terms));
        let swarm = SwarmId { channel: channel.channel(), rendition };
        shelf.note(LiveNote::sign(key, swarm, epoch, parts * 3, 1, false));
        let mut signer = Signer::new(key.clone(), channel.channel(), epoch, rendition, 1024);
        let parts: Vec<_> = (0..parts)
            .map(|part| {
                let flags = Flags::default().with(Flags::SEGMENT_START, part % 5 == 0);
                let payload = vec![part as u8; 3000].into();
                signer.sign(&PartIn { flags, capture_unix_us: part, payload }, part)
            })
            .collect();
        let chunks = parts.iter().flatten();
        chunks.take(parts.len() * 3 - 1).for_each(|chunk| shelf.chunk(chunk));
        parts
    }

    fn id(epoch: u64, part: u64) -> PartId {
        PartId { rendition: RenditionId(0), epoch, part }
    }

    #[test]
    fn each_rendition_has_its_parts_and_the_oldest_of_all_go_first() {
        let (first, second) = (RenditionId(0), RenditionId(5));
        let (shelf, ones) = filled(7, 3);
        let others = filled_with(&shelf, 7, second, 6);
        let encoded = |chunks: &[VerifiedChunk]| chunks.iter().map(|c| c.encoded().clone()).collect();
        let of_second = |part| PartId { rendition: second, ..id(7, part) };
        assert_eq!(shelf.look(id(7, 1)), Look::Whole(encoded(&ones[1])));
        assert_eq!(shelf.look(of_second(1)), Look::Whole(encoded(&others[1])));
        assert_eq!(shelf.look(PartId { rendition: RenditionId(1), ..id(7, 1) }), Look::Gone);
        assert_eq!(shelf.view(first).map(|view| view.newest), Some(1), "the certificate came twice");
        let view = shelf.view(second).unwrap();
        assert_eq!((view.newest, view.starts.len()), (4, 1));
        assert_eq!(view.broadcast.open(&shelf.channel()).unwrap().1.rendition, second);
        assert_eq!(shelf.report().parts_held, 2 + 5);
        shelf.lock().bytes += BYTES_MAX;
        shelf.chunk(ones[2].last().unwrap());
        assert_eq!(shelf.report().parts_held, 0, "one limit for all");
        assert_eq!(shelf.look(of_second(7)), Look::Gone, "nobody waits where nothing comes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_being_made_is_waited_for_and_one_that_never_comes_is_not_for_ever() {
        let (shelf, parts) = filled(7, 12);
        let id = |part| PartId { rendition: RenditionId(0), epoch: 7, part };
        let joined = |chunks: Vec<Bytes>| chunks.concat();
        let signed: Vec<u8> = parts[3].iter().flat_map(|chunk| chunk.encoded().to_vec()).collect();
        assert_eq!(joined(shelf.part(id(3)).await.unwrap()), signed);
        let waits = tokio::spawn({
            let shelf = Arc::clone(&shelf);
            async move { shelf.part(id(11)).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waits.is_finished());
        shelf.chunk(parts[11].last().unwrap());
        assert_eq!(waits.await.unwrap().unwrap().len(), 3);
        let begun = tokio::time::Instant::now();
        assert_eq!(shelf.part(id(12)).await, Err(Lack::Gone));
        assert_eq!(begun.elapsed(), WAIT_MAX);
        assert_eq!(shelf.part(id(12 + AHEAD_MAX)).await, Err(Lack::Early));
        assert_eq!(begun.elapsed(), WAIT_MAX, "nobody waits for what is far ahead");
        assert_eq!(shelf.part(PartId { epoch: 8, ..id(3) }).await, Err(Lack::Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_counted() {
        let (shelf, _) = filled(7, 12);
        let id = id(7, 12);
        let waits: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let shelf = Arc::clone(&shelf);
                tokio::spawn(async move { shelf.part(id).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(shelf.part(id).await, Err(Lack::Busy));
        assert!(shelf.part(PartId { part: 3, ..id }).await.is_ok(), "what is there is given all the same");
        drop(waits);
    }

    #[test]
    fn the_view_names_whole_segment_starts_and_its_signatures_hold() {
        let (shelf, _) = filled(7, 12);
        let view = shelf.view(RenditionId(0)).unwrap();
        assert_eq!((view.epoch, view.first, view.newest), (7, 0, 10));
        let starts: Vec<_> = view.starts.iter().map(|start| (start.part, start.number)).collect();
        assert_eq!(starts, [(0, 0), (5, 15), (10, 30)]);
        let (certificate, note) = view.broadcast.open(&shelf.channel()).unwrap();
        assert_eq!((certificate.epoch, note.next_number), (7, 36));
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<EdgeView>(&json).unwrap(), view);
    }

    #[test]
    fn a_restarted_source_has_part_numbers_of_its_own_and_the_old_ones_stay_what_they_are() {
        let (channel, key) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let shelf = Shelf::new(channel.channel());
        let first = RenditionId(0);
        let old = fill(&shelf, &channel, &key, 7, first, 6);
        let new = fill(&shelf, &channel, &key, 8, first, 2);
        let encoded = |chunks: &[VerifiedChunk]| chunks.iter().map(|c| c.encoded().clone()).collect();
        assert_eq!(shelf.look(id(7, 0)), Look::Whole(encoded(&old[0])));
        assert_eq!(shelf.look(id(8, 0)), Look::Whole(encoded(&new[0])));
        assert_eq!(shelf.look(id(7, 6)), Look::Gone, "nothing follows the old broadcast");
        assert_eq!(shelf.view(first).map(|view| (view.epoch, view.newest)), Some((8, 0)));
        shelf.chunk(old[5].last().unwrap());
        assert_eq!(shelf.look(id(7, 5)), Look::Gone, "nor is it filled up");
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let (shelf, _) = filled(7, PARTS_MAX as u64 + 10);
        let report = shelf.report();
        assert!(report.parts_held < PARTS_MAX as u64 && report.bytes_held < BYTES_MAX as u64);
        assert_eq!(shelf.look(id(7, 3)), Look::Gone);
        assert_eq!(shelf.view(RenditionId(0)).unwrap().first, 10);
    }
}
