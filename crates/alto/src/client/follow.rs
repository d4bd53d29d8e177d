//! The newest maps of a server, kept through outages.
//!
//! A task of its own subscribes to the server's update stream (RFC 8895), or asks now and then where there is none. What it
//! publishes fits together: a network map is held back until the cost maps that depend on it are there. When the server is
//! gone, or says what makes no sense, the last maps stay, and their age tells how much they are worth.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::events::{Event, Parser};
use super::transport::{self, Fetched};
use super::{AltoClient, ClientError, Resource, Snapshot, bad_map};
use crate::map::{CostMap, NetworkMap, ReadCosts};
use crate::types::{CostType, Metric, media};

/// Reading what changes takes this share of the time at most, percent …
const WORK_PERCENT: u32 = 10;
/// … but for this much, which may be spent at once: a large map at first, and a change of it now and then.
const WORK_SAVED: Duration = Duration::from_secs(2);
/// A stream that is silent for so long is dead: servers send a comment every 10 s or so.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Cost maps that do not fit their network map for so long will not fit any more.
const UNFIT_MAX: Duration = Duration::from_secs(60);
/// The longest that a server may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// The HTTP status of a server that has too much to do.
const BUSY: u16 = 503;
/// Maps that no server showed to be its newest for longer are worth little: networks change.
pub const STALE_AFTER: Duration = Duration::from_secs(3600);
/// The substream of the network map; cost maps are numbered.
const NETWORK: &str = "network";

/// What to follow, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FollowOptions {
    /// The network map; the server's default one unless named.
    pub map: Option<String>,
    /// The metrics, most important first.
    pub metrics: Vec<Metric>,
    /// How often to ask a server without an update stream.
    pub poll_every: Duration,
    /// How long to wait after the first failure; doubled with each further one, up to `retry_max`.
    pub retry_min: Duration,
    /// The longest wait after a failure.
    pub retry_max: Duration,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self {
            map: None,
            metrics: vec![Metric::routingcost()],
            poll_every: Duration::from_secs(60),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(60),
        }
    }
}

impl FollowOptions {
    /// Other waits than usual, for tests and impatient people.
    #[must_use]
    pub fn with_waits(self, poll_every: Duration, retry_min: Duration, retry_max: Duration) -> Self {
        Self { poll_every, retry_min, retry_max, ..self }
    }

    /// Other metrics than routing costs.
    #[must_use]
    pub fn with_metrics(self, metrics: Vec<Metric>) -> Self {
        Self { metrics, ..self }
    }

    /// Another map than the default one.
    #[must_use]
    pub fn with_map(self, map: Option<String>) -> Self {
        Self { map, ..self }
    }
}

/// What is known.
#[derive(Debug, Clone, Default)]
struct Known {
    snapshot: Option<Arc<Snapshot>>,
    /// When the server last showed that it is the newest.
    confirmed: Option<Instant>,
    problem: Option<String>,
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        self.confirmed.is_some_and(|at| now.saturating_duration_since(at) <= STALE_AFTER)
    }
}

/// Follows a server until it is dropped.
#[derive(Debug)]
pub struct Follower {
    known: watch::Receiver<Known>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Begins to follow; needs a tokio runtime.
    pub fn start(client: AltoClient, options: FollowOptions) -> Self {
        let (publish, known) = watch::channel(Known::default());
        let task = tokio::spawn(follow(client, options, publish));
        Self { known, task }
    }

    /// The newest maps, however old; `None` until the first arrived.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.known.borrow().snapshot.clone()
    }

    /// The newest maps, unless the server has not shown for [`STALE_AFTER`] that they are.
    pub fn fresh(&self) -> Option<Arc<Snapshot>> {
        let known = self.known.borrow();
        known.snapshot.clone().filter(|_| known.is_fresh(Instant::now()))
    }

    /// How long ago the server last showed that these are its newest maps: up to some ten seconds while all is well.
    pub fn age(&self) -> Option<Duration> {
        self.known.borrow().confirmed.map(|at| at.elapsed())
    }

    /// Why the maps are not renewed, while they are not.
    pub fn problem(&self) -> Option<String> {
        self.known.borrow().problem.clone()
    }

    /// Resolves when there are other maps than those that were last looked at with this, or a problem came or went.
    pub async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            // The task ended, which it does not do by itself.
            std::future::pending::<()>().await;
        }
    }
}

async fn follow(client: AltoClient, options: FollowOptions, publish: watch::Sender<Known>) {
    let mut failures: u32 = 0;
    loop {
        let begun = Instant::now();
        // Without an error the server ended the stream, as when it is restarted.
        let error = one_round(&client, &options, &publish).await.err();
        let was_fine = publish.borrow().confirmed.is_some_and(|at| at >= begun);
        failures = if was_fine { 0 } else { failures.saturating_add(1) };
        if let Some(error) = &error {
            let text = error.to_string();
            tracing::info!("ALTO: {text}; the last maps stay in use");
            publish.send_if_modified(|known| known.problem.replace(text.clone()) != Some(text));
        }
        let backoff = options.retry_min.saturating_mul(1 << failures.min(16)).min(options.retry_max);
        // Not everybody at once, when a server comes back.
        let backoff = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        let asked =
            error.as_ref().and_then(ClientError::retry_after).unwrap_or_default().min(RETRY_AFTER_MAX);
        tokio::time::sleep(backoff.max(asked)).await;
    }
}

/// Until something fails or the server ends it.
async fn one_round(
    client: &AltoClient,
    options: &FollowOptions,
    publish: &watch::Sender<Known>,
) -> Result<(), ClientError> {
    let directory = client.directory().await?;
    let network = directory.network_map(options.map.as_deref())?;
    let mut costs = Vec::new();
    for metric in &options.metrics {
        costs.push(directory.cost_map(&network.id, metric)?);
    }
    let ids: Vec<&str> = std::iter::once(network)
        .chain(costs.iter().map(|(resource, _)| *resource))
        .map(|r| r.id.as_str())
        .collect();
    if let Some(stream) = directory.update_stream(&ids) {
        match subscribe(client, stream, &ids, publish).await {
            // As many listen as the server takes; asking now and then costs it less.
            Err(ClientError::Status { status: BUSY, .. }) => {}
            ended => return ended,
        }
    }
    poll(client, network, &costs, options.poll_every, publish).await
}

/// New maps, if they are others than before.
fn announce(publish: &watch::Sender<Known>, snapshot: Snapshot) {
    publish.send_if_modified(|known| {
        known.confirmed = Some(Instant::now());
        let is_same = known.snapshot.as_ref().is_some_and(|old| old.is_same(&snapshot));
        if !is_same {
            known.snapshot = Some(Arc::new(snapshot));
        }
        !is_same | known.problem.take().is_some()
    });
}

/// The same maps as before.
fn confirm(publish: &watch::Sender<Known>) {
    publish.send_if_modified(|known| {
        known.confirmed = Some(Instant::now());
        known.problem.take().is_some()
    });
}

/// Maps that arrive one by one.
#[derive(Default)]
struct Arriving {
    network: Option<Arc<NetworkMap>>,
    costs: Vec<Option<ReadCosts>>,
}

impl Arriving {
    /// Maps that fit together, if all are there.
    fn snapshot(&self) -> Option<Snapshot> {
        let network = self.network.as_ref()?;
        let fits =
            |read: &ReadCosts| read.depends_on == *network.vtag() && Arc::ptr_eq(read.map.network(), network);
        let costs = self
            .costs
            .iter()
            .map(|read| read.as_ref().filter(|read| fits(read)).map(|read| Arc::clone(&read.map)));
        Some(Snapshot { network: Arc::clone(network), costs: costs.collect::<Option<_>>()? })
    }

    fn take(&mut self, url: &url::Url, event: &Event) -> Result<(), ClientError> {
        let (media_type, substream) = event.parts();
        let wrong = |why: String| ClientError::BadAnswer { url: Box::new(url.clone()), why };
        let map_error = |error| bad_map(url, &error);
        if media_type == media::UPDATE_STREAM_CONTROL || event.name == media::UPDATE_STREAM_CONTROL {
            return match stopped(&event.data) {
                Some(what) => Err(wrong(format!("the server stopped {what}"))),
                None => Ok(()),
            };
        }
        let is_patch = media_type == media::MERGE_PATCH;
        if substream == NETWORK {
            let network = match (&self.network, is_patch) {
                (Some(old), true) => old.patched(&event.data).map_err(map_error)?,
                (_, false) if media_type == media::NETWORK_MAP => {
                    NetworkMap::read(&event.data).map_err(map_error)?
                }
                _ => return Err(wrong(format!("an event {:?}", event.name))),
            };
            self.network = Some(Arc::new(network));
            return Ok(());
        }
        let place = substream.parse::<usize>().ok().filter(|place| *place < self.costs.len());
        let Some(place) = place else { return Err(wrong(format!("an event {:?}", event.name))) };
        let Some(network) = &self.network else {
            return Err(wrong("costs before the network map that they are for".to_owned()));
        };
        let read = match (&self.costs[place], is_patch) {
            (Some(old), true) => old.map.patched(&event.data, network).map_err(map_error)?,
            (_, false) if media_type == media::COST_MAP => {
                CostMap::read_any(&event.data, network).map_err(map_error)?
            }
            _ => return Err(wrong(format!("an event {:?}", event.name))),
        };
        self.costs[place] = Some(read);
        Ok(())
    }
}

/// Which substreams a control event ends.
fn stopped(data: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let stopped = value.get("stopped")?.as_array()?;
    (!stopped.is_empty()).then(|| crate::types::shortened(&Value::from(stopped.clone()).to_string()))
}

async fn subscribe(
    client: &AltoClient,
    stream: &Resource,
    ids: &[&str],
    publish: &watch::Sender<Known>,
) -> Result<(), ClientError> {
    let url = &stream.url;
    client.check(url)?;
    let mut add = Map::new();
    for (at, id) in ids.iter().enumerate() {
        let name = at.checked_sub(1).map_or_else(|| NETWORK.to_owned(), |place| place.to_string());
        add.insert(name, json!({ "resource-id": id, "incremental-changes": true }));
    }
    let request = client.http.post(url.clone()).header("accept", transport::accept(media::EVENT_STREAM));
    let request =
        request.header("content-type", media::UPDATE_STREAM_PARAMS).body(json!({ "add": add }).to_string());
    let mut response = transport::send(url, media::EVENT_STREAM, request).await?;
    let mut parser = Parser::default();
    let mut arriving = Arriving { network: None, costs: ids.iter().skip(1).map(|_| None).collect() };
    let mut unfit_since = Some(Instant::now());
    let mut work = Work { left: WORK_SAVED, at: Instant::now() };
    loop {
        let chunk = tokio::time::timeout(SILENCE_MAX, response.chunk()).await;
        let chunk = chunk.map_err(|_| ClientError::Timeout { url: Box::new(url.clone()) })?;
        let Some(bytes) = chunk.map_err(|error| transport::unreachable(url, &error))? else { return Ok(()) };
        parser.push(&bytes).map_err(|why| ClientError::BadAnswer { url: Box::new(url.clone()), why })?;
        while let Some(event) = parser.next() {
            // Large maps are read off the runtime's threads.
            let begun = Instant::now();
            let own = url.clone();
            let taking = tokio::task::spawn_blocking(move || arriving.take(&own, &event).map(|()| arriving));
            arriving = match taking.await {
                Ok(taken) => taken?,
                Err(_) => {
                    return Err(ClientError::BadAnswer {
                        url: Box::new(url.clone()),
                        why: "reading it failed".to_owned(),
                    });
                }
            };
            match arriving.snapshot() {
                Some(snapshot) => {
                    announce(publish, snapshot);
                    unfit_since = None;
                }
                None => _ = unfit_since.get_or_insert_with(Instant::now),
            }
            // Whoever sends changes without end has them read as time allows.
            tokio::time::sleep(work.pause(Instant::now(), begun.elapsed())).await;
        }
        match unfit_since {
            None => confirm(publish),
            Some(since) if since.elapsed() > UNFIT_MAX => {
                return Err(ClientError::Mismatch { url: Box::new(url.clone()) });
            }
            Some(_) => {}
        }
    }
}

/// How much work changes may make: a share of the time, some of it in advance.
struct Work {
    left: Duration,
    at: Instant,
}

impl Work {
    /// Books what took so long; how long to wait before more is read.
    fn pause(&mut self, now: Instant, took: Duration) -> Duration {
        let earned = now.saturating_duration_since(self.at) * WORK_PERCENT / 100;
        self.left = (self.left + earned).min(WORK_SAVED);
        let owed = took.saturating_sub(self.left);
        self.left = self.left.saturating_sub(took);
        let pause = owed * 100 / WORK_PERCENT;
        // What is waited for is paid with, and earns nothing.
        self.at = now + pause;
        pause
    }
}

/// Asks now and then; what did not change is not sent again.
async fn poll(
    client: &AltoClient,
    network: &Resource,
    costs: &[(&Resource, CostType)],
    poll_every: Duration,
    publish: &watch::Sender<Known>,
) -> Result<(), ClientError> {
    loop {
        let (snapshot, tags) = client.tagged_maps(network, costs).await?;
        announce(publish, snapshot);
        loop {
            tokio::time::sleep(poll_every).await;
            let mut is_same = true;
            for ((resource, media_type), tag) in documents(network, costs).zip(&tags) {
                is_same &= match tag {
                    Some(tag) => {
                        matches!(client.fetch(&resource.url, media_type, Some(tag)).await?, Fetched::Same)
                    }
                    None => false,
                };
            }
            if !is_same {
                break;
            }
            confirm(publish);
        }
    }
}

/// What is asked for again, in the order of its tags; a cost map that is asked for by POST has none.
fn documents<'a>(
    network: &'a Resource,
    costs: &'a [(&'a Resource, CostType)],
) -> impl Iterator<Item = (&'a Resource, &'static str)> {
    let costs = costs.iter().map(|(resource, _)| (*resource, media::COST_MAP));
    std::iter::once((network, media::NETWORK_MAP)).chain(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_without_end_take_a_tenth_of_the_time() {
        let begun = Instant::now();
        let (mut now, mut worked) = (begun, Duration::ZERO);
        let mut work = Work { left: WORK_SAVED, at: now };
        let took = Duration::from_millis(50);
        while now < begun + Duration::from_secs(100) {
            now += took;
            worked += took;
            now += work.pause(now, took);
        }
        assert!((10.0..12.5).contains(&worked.as_secs_f64()), "{worked:?}");
        assert_eq!(
            work.pause(now + Duration::from_secs(60), took),
            Duration::ZERO,
            "what comes seldom is read at once"
        );
    }

    const EVENTS: &str = concat!(
        "event: application/alto-networkmap+json,network\n",
        r#"data: {"meta":{"vtag":{"resource-id":"n","tag":"1"}},"network-map":{"a":{"ipv4":["0.0.0.0/0"]},"b":{"ipv4":["10.0.0.0/8"]}}}"#,
        "\n\nevent: application/alto-costmap+json,0\n",
        r#"data: {"meta":{"dependent-vtags":[{"resource-id":"n","tag":"1"}],"cost-type":{"cost-mode":"numerical","cost-metric":"routingcost"}},"#,
        r#""cost-map":{"a":{"a":1,"b":2},"b":{"a":3,"b":1}}}"#,
        "\n\nevent: application/merge-patch+json,0\n",
        r#"data: {"cost-map":{"a":{"b":null},"b":{"a":7}}}"#,
        "\n\nevent: application/merge-patch+json,network\n",
        r#"data: {"meta":{"vtag":{"tag":"2"}},"network-map":{"b":null,"c":{"ipv4":["10.0.0.0/9"],"ipv6":["::/0"]}}}"#,
        "\n\nevent: application/merge-patch+json,0\n",
        r#"data: {"meta":{"dependent-vtags":[{"resource-id":"n","tag":"2"}]},"cost-map":{"b":null,"a":{"c":4}}}"#,
        "\n\n",
    );

    /// Takes all events of a stream; true for each after which the maps fit.
    fn take(bytes: &[u8]) -> (Arriving, Vec<bool>) {
        let url = "http://192.0.2.1/updates".parse().unwrap();
        let mut arriving = Arriving { network: None, costs: vec![None] };
        let (mut parser, mut fits) = (Parser::default(), Vec::new());
        parser.push(bytes).unwrap();
        while let Some(event) = parser.next() {
            if arriving.take(&url, &event).is_err() {
                break;
            }
            fits.push(arriving.snapshot().is_some());
        }
        (arriving, fits)
    }

    #[test]
    fn maps_are_held_back_until_they_fit() {
        let (arriving, fits) = take(EVENTS.as_bytes());
        assert_eq!(fits, [false, true, true, false, true]);
        let snapshot = arriving.snapshot().unwrap();
        let cost = |src: &str, dst: &str| snapshot.cost(src.parse().unwrap(), dst.parse().unwrap());
        assert_eq!(snapshot.network().vtag().tag, "2");
        assert_eq!((cost("8.8.8.8", "8.8.4.4"), cost("8.8.8.8", "10.1.1.1")), (Some(1.0), Some(4.0)));
        assert_eq!((cost("10.1.1.1", "8.8.8.8"), cost("8.8.8.8", "2001:db8::1")), (None, Some(4.0)));
    }

    #[test]
    fn maps_that_nobody_confirms_for_an_hour_are_stale() {
        let at = Instant::now();
        let known = Known { confirmed: Some(at), ..Known::default() };
        assert!(
            known.is_fresh(at + STALE_AFTER) && !known.is_fresh(at + STALE_AFTER + Duration::from_secs(1))
        );
        assert!(!Known::default().is_fresh(at));
    }

    /// The fuzz target of update streams.
    #[test]
    fn damaged_streams_never_panic() {
        let mut rng = fastrand::Rng::with_seed(8);
        let mut whole = 0;
        for _ in 0..4_000 {
            let mut bytes = EVENTS.as_bytes().to_vec();
            for _ in 0..rng.usize(1..5) {
                let at = rng.usize(..bytes.len());
                let end = (at + rng.usize(..30)).min(bytes.len());
                match rng.u8(..4) {
                    0 => bytes[at] = rng.u8(..),
                    1 => _ = bytes.drain(at..end.min(bytes.len() - 1)),
                    2 => bytes[at] = b"{}[],:\"n01\n"[rng.usize(..11)],
                    _ => {
                        let piece = bytes[at..end].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            whole += usize::from(take(&bytes).1.len() == 5);
        }
        assert!(whole > 10, "some damage does no harm: {whole}");
    }
}
