//! Asking a tracker: CONNECT, FIND, STAT_REPORT, the directory and its events.
//!
//! Nothing that a tracker says is taken on trust where a signature can be checked: certificates, live notes and
//! descriptors are verified here, and addresses that must not be dialled never reach the caller. What cannot be checked
//! here is freshness, for which `proto` has the clock. Retries are the caller's: see [`ClientError::retry_after`].

mod events;
mod transport;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caudal_proto::addr::is_dialable_ip;
use caudal_proto::broadcast::{Certificate, LiveNote};
use caudal_proto::id::{ChannelId, PeerId, SecretKey};
use reqwest::{Client, Response};
use serde::de::DeserializeOwned;

pub use events::{ChannelEvent, DirectoryEvent, EVENT_LEN_MAX, Events, SILENCE_MAX};
pub use transport::{ANSWER_LEN_MAX, Checked, IDLE, TIMEOUT, USER_AGENT, client as http_client, tls_config};

use crate::descriptor::{Descriptor, SignedDescriptor};
use crate::message::{
    Action, Broadcast, ChannelEntry, ChannelPage, ChannelState, ClaimedAddress, Code, Connect, Envelope,
    ErrorBody, Find, PEER_ADDRESSES_MAX, PEER_COUNT_MAX, PeerMode, PeerNum, Qos, Quality, Request,
    RequestType, SIGNATURE_HEADER, Stat, StatKind, StatReport, SwarmAction, SwarmId, SwarmResult, Takedown,
    VERSION, sign_request,
};
use crate::text;
use crate::url::{AllowedUrl, AltoUrl, TrackerUrl};

/// Longest message of a tracker that is shown, characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a tracker gave no answer, or not the wanted one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection.
    #[error(
        "tracker {url} cannot be reached ({why}); {}",
        if url.is_loopback() {
            "check the address, or start one with: caudal tracker"
        } else {
            "check the address and this computer's network"
        }
    )]
    Unreachable {
        /// The tracker.
        url: TrackerUrl,
        /// The cause.
        why: String,
    },
    /// No answer in time.
    #[error("tracker {url} did not answer in time; try again, or name another with --tracker")]
    Timeout {
        /// The tracker.
        url: TrackerUrl,
    },
    /// An answer that is none.
    #[error(
        "tracker {url} answered with something that is not a tracker's answer ({why}); is the address right?"
    )]
    BadAnswer {
        /// The tracker.
        url: TrackerUrl,
        /// What was wrong.
        why: String,
    },
    /// The operator took the channel down.
    #[error("tracker {url}: this channel was taken down by the operator: {reason}")]
    TakenDown {
        /// The tracker.
        url: TrackerUrl,
        /// The operator's words.
        reason: String,
    },
    /// The tracker refused.
    #[error("tracker {url} refused {request}: {message} (code {})", code.number())]
    Refused {
        /// The tracker.
        url: TrackerUrl,
        /// What was asked.
        request: &'static str,
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        message: String,
        /// How long to wait before asking again, if the tracker said so.
        retry_after: Option<Duration>,
    },
    /// This machine cannot do TLS.
    #[error("TLS cannot be set up: {why}; are the system's certificates installed (ca-certificates)?")]
    Tls {
        /// The cause.
        why: String,
    },
}

impl ClientError {
    /// What a tracker, or whoever answers in its place, made go wrong may hold its words: they are cleaned.
    fn bad_answer(url: &TrackerUrl, why: &dyn std::fmt::Display) -> Self {
        Self::BadAnswer { url: url.clone(), why: cleaned(&why.to_string()) }
    }

    /// Whether the tracker does not know this peer, as after its restart: CONNECT again.
    pub fn needs_connect(&self) -> bool {
        match self {
            Self::Refused { code, request, .. } => {
                *code == Code::UnknownPeer || (*code == Code::Forbidden && *request == "FIND")
            }
            _ => false,
        }
    }

    /// How long the tracker asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::TakenDown { .. } => Some(Code::TakenDown),
            _ => None,
        }
    }
}

/// What a source shows to be one.
#[derive(Debug, Clone, Copy)]
pub struct SourceRole<'a> {
    /// The channel key's word for the broadcast key.
    pub certificate: &'a Certificate,
    /// The newest live note.
    pub live_note: &'a LiveNote,
    /// The broadcast key; it signs the proof and goes nowhere.
    pub broadcast_key: &'a SecretKey,
    /// The channel's descriptor, to begin with and when it changed.
    pub descriptor: Option<&'a SignedDescriptor>,
}

/// What CONNECT says.
#[derive(Debug, Clone, Copy)]
pub struct Join<'a> {
    /// The swarm.
    pub swarm: SwarmId,
    /// The UDP ports at which this node is reachable, 1 to 4, from 1024.
    pub ports: &'a [u16],
    /// This machine's other addresses; believed only by a tracker on the same machine in LAN mode. With the ports at most
    /// 4 are sent.
    pub addresses: &'a [SocketAddr],
    /// Upload to offer, bit/s.
    pub upload_bps: Option<u64>,
    /// Peers wanted at once, up to 50.
    pub peer_count: u32,
    /// Set when this node is a source.
    pub source: Option<SourceRole<'a>>,
}

/// A peer that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub peer: PeerId,
    /// Where it is; at least one address, none that must not be dialled.
    pub addresses: Vec<SocketAddr>,
    /// Whether the tracker saw proof that it is a source; chunks prove themselves.
    pub source: bool,
    /// What it costs to get to it by the tracker's map of the network; 0: nothing is known.
    pub cost: u32,
}

/// What a tracker answered about a swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct SwarmView {
    /// Peers; none in answer to STAT_REPORT.
    pub peers: Vec<Candidate>,
    /// The newest broadcast; both signatures were checked, freshness was not.
    pub broadcast: Option<(Certificate, LiveNote)>,
    /// Viewers of the channel.
    pub viewers: u32,
    /// How often to report.
    pub interval: Duration,
    /// Where the tracker sees this node, in answer to CONNECT.
    pub seen_as: Option<SocketAddr>,
    /// Where the tracker says that the map of the network is; in answer to CONNECT and FIND.
    pub alto: Option<AltoUrl>,
}

/// A channel in the directory; the descriptor was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelView {
    /// The channel.
    pub channel: ChannelId,
    /// How it is.
    pub state: ChannelState,
    /// What it says about itself.
    pub descriptor: Option<Descriptor>,
    /// The same as it was signed, to pass on.
    pub signed: Option<SignedDescriptor>,
    /// The newest broadcast, in answers about one channel.
    pub broadcast: Option<(Certificate, LiveNote)>,
    /// When its broadcast began, ms since the Unix epoch: the tracker's word.
    pub since_unix_ms: Option<u64>,
    /// Viewers.
    pub viewers: u32,
    /// Means over its viewers.
    pub quality: Option<Quality>,
    /// Set when it was taken down.
    pub takedown: Option<Takedown>,
}

/// A page of the directory.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelList {
    /// By viewers, most first.
    pub channels: Vec<ChannelView>,
    /// How many match in all.
    pub total: u64,
    /// The offset of the next page.
    pub next: Option<u64>,
}

/// A client of one tracker, for one peer. Cheap to share behind an `Arc`; safe to use for several channels at once.
#[derive(Debug)]
pub struct TrackerClient {
    url: AllowedUrl,
    key: SecretKey,
    peer: PeerId,
    http: Client,
}

/// The last timestamp that any client of this process used: two clients of one peer must not use the same.
static LAST_TIMESTAMP: AtomicU64 = AtomicU64::new(0);

fn next_timestamp() -> u64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(unix.as_millis()).unwrap_or(0);
    let next = |last: u64| Some(now.max(last + 1));
    LAST_TIMESTAMP
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .map_or(now, |last| now.max(last + 1))
}

impl TrackerClient {
    /// A client for `url` that signs as the peer of `key`. Connects when first asked.
    ///
    /// # Errors
    /// [`ClientError::Tls`] when TLS cannot be set up.
    pub fn new(url: AllowedUrl, key: SecretKey) -> Result<Self, ClientError> {
        let http = transport::client(&url)?;
        Ok(Self { peer: PeerId(key.public()), url, key, http })
    }

    /// The tracker.
    pub fn url(&self) -> &TrackerUrl {
        self.url.url()
    }

    /// The peer that this client speaks for.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Joins a swarm, or renews what is known of this node; the answer has the first peers.
    ///
    /// # Errors
    /// [`ClientError`]; what to do with each is in its text.
    pub async fn connect(&self, join: &Join<'_>) -> Result<SwarmView, ClientError> {
        let timestamp = next_timestamp();
        let ports = join.ports.iter().map(|port| ClaimedAddress { port: *port, ip_address: None });
        let own =
            join.addresses.iter().map(|a| ClaimedAddress { port: a.port(), ip_address: Some(a.ip().into()) });
        let action = SwarmAction {
            swarm_id: join.swarm,
            action: Action::Join,
            peer_mode: if join.source.is_some() { PeerMode::Seed } else { PeerMode::Leech },
            broadcast: join.source.map(|source| self.prove(&source, timestamp)),
            descriptor: join.source.and_then(|source| source.descriptor).cloned(),
        };
        let connect = Connect {
            peer_num: PeerNum { peer_count: Some(join.peer_count), upload_bps: join.upload_bps },
            peer_addr: ports.chain(own).take(PEER_ADDRESSES_MAX).collect(),
            swarm_action: vec![action],
        };
        let request = Request { connect: Some(connect), ..self.request(RequestType::Connect, timestamp) };
        self.ppstp("CONNECT", join.swarm, &request).await
    }

    /// More peers of a swarm that was joined.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::needs_connect`] after the tracker's restart.
    pub async fn find(&self, swarm: SwarmId, peer_count: u32) -> Result<SwarmView, ClientError> {
        let peer_num = PeerNum { peer_count: Some(peer_count), upload_bps: None };
        let find = Some(Find { swarm_id: swarm, peer_num });
        let request = Request { find, ..self.request(RequestType::Find, next_timestamp()) };
        self.ppstp("FIND", swarm, &request).await
    }

    /// Still here, and how it goes; a source renews its live note.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::needs_connect`] after the tracker's restart, [`ClientError::TakenDown`] when the
    /// channel was.
    pub async fn stat_report(
        &self,
        swarm: SwarmId,
        qos: Qos,
        source: Option<SourceRole<'_>>,
    ) -> Result<SwarmView, ClientError> {
        let timestamp = next_timestamp();
        let broadcast = source.map(|source| self.prove(&source, timestamp));
        let descriptor = source.and_then(|source| source.descriptor).cloned();
        let stat = vec![Stat { swarm_id: swarm, qos, broadcast, descriptor }];
        let stat_report = Some(StatReport { kind: StatKind::StreamStats, stat });
        let request = Request { stat_report, ..self.request(RequestType::StatReport, timestamp) };
        self.ppstp("STAT_REPORT", swarm, &request).await
    }

    /// Leaves a swarm.
    ///
    /// # Errors
    /// [`ClientError`]; a tracker that is not told forgets this node within a minute.
    pub async fn leave(&self, swarm: SwarmId) -> Result<(), ClientError> {
        let action = SwarmAction {
            swarm_id: swarm,
            action: Action::Leave,
            peer_mode: PeerMode::Leech,
            broadcast: None,
            descriptor: None,
        };
        let connect = Some(Connect { swarm_action: vec![action], ..Connect::default() });
        let request = Request { connect, ..self.request(RequestType::Connect, next_timestamp()) };
        self.ppstp("CONNECT (leave)", swarm, &request).await.map(|_| ())
    }

    /// Publishes a channel's descriptor; its source must be connected.
    ///
    /// # Errors
    /// [`ClientError`]; [`Code::Superseded`] when a newer one is known.
    pub async fn put_descriptor(
        &self,
        channel: &ChannelId,
        signed: &SignedDescriptor,
    ) -> Result<ChannelView, ClientError> {
        let body = serde_json::to_vec(signed).map_err(|error| self.bad_answer(error))?;
        let request = self.http.put(self.at(&format!("/v1/channels/{channel}")));
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        let response = transport::send(self.url(), request).await?;
        self.view("the descriptor", response).await
    }

    /// Listed, live channels whose name contains `query`, whatever the case.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn channels(&self, query: &str, offset: u64, limit: u32) -> Result<ChannelList, ClientError> {
        let query = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let request =
            self.http.get(self.at(&format!("/v1/channels?q={query}&offset={offset}&limit={limit}")));
        let response = transport::send(self.url(), request).await?;
        let page: ChannelPage = self.directory("the list of channels", response).await?;
        Ok(ChannelList { channels: ChannelView::open_all(page.channels), total: page.total, next: page.next })
    }

    /// One channel, listed or not.
    ///
    /// # Errors
    /// [`ClientError`]; [`Code::UnknownPeer`] when nobody is in it.
    pub async fn channel(&self, channel: &ChannelId) -> Result<ChannelView, ClientError> {
        let request = self.http.get(self.at(&format!("/v1/channels/{channel}")));
        let response = transport::send(self.url(), request).await?;
        let view = self.view("the channel", response).await?;
        if view.channel == *channel { Ok(view) } else { Err(self.bad_answer("it is about another channel")) }
    }

    /// Subscribes to one channel: takedowns, live notes, its end.
    ///
    /// # Errors
    /// [`ClientError`] when the subscription fails.
    pub async fn channel_events(&self, channel: &ChannelId) -> Result<Events<ChannelEvent>, ClientError> {
        let channel = *channel;
        let response = self.subscribe(&format!("/v1/channels/{channel}/events")).await?;
        let read = Box::new(move |name: &str, data: &str| events::read_channel(channel, name, data));
        Ok(Events::new(self.url().clone(), response, read))
    }

    /// Subscribes to the directory.
    ///
    /// # Errors
    /// [`ClientError`] when the subscription fails.
    pub async fn directory_events(&self) -> Result<Events<DirectoryEvent>, ClientError> {
        let response = self.subscribe("/v1/channels/events").await?;
        Ok(Events::new(self.url().clone(), response, Box::new(events::read_directory)))
    }

    fn prove(&self, source: &SourceRole<'_>, timestamp: u64) -> Broadcast {
        Broadcast::prove(source.certificate, source.live_note, source.broadcast_key, &self.peer, timestamp)
    }

    fn request(&self, request_type: RequestType, timestamp_unix_ms: u64) -> Request {
        Request {
            version: VERSION,
            request_type,
            transaction_id: format!("{timestamp_unix_ms:x}"),
            peer_id: self.peer,
            timestamp_unix_ms,
            tracker: self.url().to_string(),
            connect: None,
            find: None,
            stat_report: None,
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url())
    }

    async fn ppstp(
        &self,
        name: &'static str,
        swarm: SwarmId,
        request: &Request,
    ) -> Result<SwarmView, ClientError> {
        let body = serde_json::to_vec(&Envelope { body: request }).map_err(|error| self.bad_answer(error))?;
        let signature = sign_request(&self.key, &body);
        let post = self.http.post(self.at("/v1/ppstp")).header(SIGNATURE_HEADER, signature);
        let post = post.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        let response = transport::send(self.url(), post).await?;
        let retry_after = transport::retry_after(&response);
        let status = response.status();
        let body = transport::body(self.url(), response).await?;
        let Ok(Envelope { body: answer }) =
            serde_json::from_slice::<Envelope<crate::message::Response>>(&body)
        else {
            // A tracker at its limit answers before it reads what was asked, and a proxy knows nothing of PPSTP.
            return Err(self.refusal(name, status, retry_after, &body));
        };
        if answer.transaction_id.as_ref().is_some_and(|id| *id != request.transaction_id) {
            return Err(self.bad_answer("it answers another request"));
        }
        let result = answer.swarm_result.iter().find(|result| result.swarm_id == swarm);
        let takedown = result.and_then(|result| result.takedown.as_ref());
        let number =
            if answer.error_code == 0 { result.map_or(0, |result| result.result) } else { answer.error_code };
        if number != 0 {
            let words = result.and_then(|result| result.error.as_deref()).or(answer.error.as_deref());
            return Err(self.refused(name, number, words.unwrap_or_default(), takedown, retry_after));
        }
        let Some(result) = result else { return Err(self.bad_answer("it says nothing about the swarm")) };
        let seen_as = answer.peer_addr.as_ref().map(SocketAddr::from);
        self.swarm_view(result, Duration::from_millis(answer.interval_ms.clamp(1000, 3_600_000)), seen_as)
    }

    fn swarm_view(
        &self,
        result: &SwarmResult,
        interval: Duration,
        seen_as: Option<SocketAddr>,
    ) -> Result<SwarmView, ClientError> {
        let broadcast = result.broadcast.as_ref().map(|broadcast| broadcast.open(&result.swarm_id.channel));
        let broadcast = broadcast.transpose().map_err(|error| self.bad_answer(error))?;
        let mut peers = Vec::new();
        let listed = result.peer_group.iter().flat_map(|group| &group.peer_info);
        for info in listed.filter(|info| info.peer_id != self.peer).take(PEER_COUNT_MAX as usize) {
            let addresses = info.peer_addr.iter().map(SocketAddr::from);
            let addresses: Vec<_> = addresses
                .filter(|a| a.port() != 0 && self.may_dial(a.ip()))
                .take(PEER_ADDRESSES_MAX)
                .collect();
            if !addresses.is_empty() {
                let cost = info.cost.unwrap_or(0);
                peers.push(Candidate { peer: info.peer_id, addresses, source: info.source, cost });
            }
        }
        // One that may not be asked is as good as none: what a map says is advice.
        let alto = result.alto.as_deref().and_then(|told| self.url.alto(told).ok());
        Ok(SwarmView { peers, broadcast, viewers: result.viewers, interval, seen_as, alto })
    }

    fn may_dial(&self, ip: IpAddr) -> bool {
        is_dialable_ip(ip, self.url.is_lan())
    }

    async fn subscribe(&self, path: &str) -> Result<Response, ClientError> {
        let request = self.http.get(self.at(path)).header(reqwest::header::ACCEPT, "text/event-stream");
        let response = transport::send(self.url(), request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, retry_after) = (response.status(), transport::retry_after(&response));
        let body = transport::body(self.url(), response).await?;
        Err(self.refusal("the subscription", status, retry_after, &body))
    }

    async fn view(&self, what: &'static str, response: Response) -> Result<ChannelView, ClientError> {
        let entry: ChannelEntry = self.directory(what, response).await?;
        ChannelView::open(entry).map_err(|why| self.bad_answer(why))
    }

    async fn directory<T: DeserializeOwned>(
        &self,
        what: &'static str,
        response: Response,
    ) -> Result<T, ClientError> {
        let (status, retry_after) = (response.status(), transport::retry_after(&response));
        let body = transport::body(self.url(), response).await?;
        if !status.is_success() {
            return Err(self.refusal(what, status, retry_after, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.bad_answer(error))
    }

    fn refusal(
        &self,
        request: &'static str,
        status: reqwest::StatusCode,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> ClientError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(error) => {
                self.refused(request, error.error_code, &error.error, error.takedown.as_ref(), retry_after)
            }
            Err(_) => self.bad_answer(format!("HTTP status {status}")),
        }
    }

    fn refused(
        &self,
        request: &'static str,
        number: u16,
        message: &str,
        takedown: Option<&Takedown>,
        retry_after: Option<Duration>,
    ) -> ClientError {
        let (url, code) = (self.url().clone(), Code::from_number(number));
        if let Some(takedown) = takedown {
            return ClientError::TakenDown { url, reason: reason(takedown) };
        }
        let message = cleaned(message);
        ClientError::Refused { url, request, code, message, retry_after }
    }

    fn bad_answer(&self, why: impl std::fmt::Display) -> ClientError {
        ClientError::bad_answer(self.url(), &why)
    }
}

/// A tracker's words, fit to be shown.
fn cleaned(words: &str) -> String {
    text::clean(words, MESSAGE_CHARS_MAX)
}

/// The operator's words, fit to be shown.
fn reason(takedown: &Takedown) -> String {
    cleaned(&takedown.reason)
}

impl ChannelView {
    /// Verifies what a tracker says of a channel.
    fn open(entry: ChannelEntry) -> Result<Self, String> {
        let channel = entry.channel;
        let descriptor = entry.descriptor.as_ref().map(|signed| signed.open(&channel)).transpose();
        let broadcast = entry.broadcast.as_ref().map(|broadcast| broadcast.open(&channel)).transpose();
        Ok(Self {
            channel,
            state: entry.state,
            descriptor: descriptor.map_err(|error| error.to_string())?,
            signed: entry.descriptor,
            broadcast: broadcast.map_err(|error| error.to_string())?,
            since_unix_ms: entry.since_unix_ms,
            viewers: entry.viewers,
            quality: entry.quality,
            takedown: entry.takedown.map(|takedown| Takedown { reason: reason(&takedown) }),
        })
    }

    /// Those that can be verified; one liar, or one of a later version, does not spoil the list.
    fn open_all(entries: Vec<ChannelEntry>) -> Vec<Self> {
        entries.into_iter().filter_map(|entry| Self::open(entry).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_tracker_on_this_machine_is_told_to_start_it() {
        for (url, own) in [
            ("http://localhost:7777", true),
            ("http://[::1]:7777", true),
            ("https://t.example", false),
            ("http://10.0.0.1", false),
        ] {
            let error = ClientError::Unreachable { url: url.parse().unwrap(), why: "x".into() }.to_string();
            assert_eq!(error.contains("caudal tracker"), own, "{error}");
            assert_eq!(error.contains("network"), !own, "{error}");
        }
    }
}
