//! The RTMP server that an encoder publishes to: one publisher of each rendition at a time, with the right stream key.
//!
//! The stream key is the first rendition's; with `_NAME` behind it another's, on the timeline of whoever came first.
//!
//! RTMP itself is `media`'s; here are the sockets, the timeouts, and who may publish. An encoder that vanishes may come
//! back and goes on where it was.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_media::ingest::flv::Tags;
use caudal_media::ingest::rtmp::{RtmpOutput, Session};
use caudal_media::ingest::timeline::Origin;
use caudal_media::sample::Ingest;
use caudal_proto::id::RenditionId;
use caudal_tracker::descriptor::RENDITIONS_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::intake::Intake;
use crate::NodeError;
use crate::clock::unix_us;

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 16;
/// A connection must ask to publish within this.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// A publisher that sends nothing for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A publisher silent for this long is replaced by one that comes with the key.
const STALE_AFTER: Duration = Duration::from_secs(3);
/// Writing an answer takes no longer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The broadcaster is told this often at most that there are too many connections.
const WARN_PERIOD: Duration = Duration::from_secs(60);
/// So much of a wrong application is shown.
const APP_SHOWN_MAX: usize = 40;
/// Longest name of a rendition, bytes.
const NAME_LEN_MAX: usize = 16;
/// A rendition whose encoder has been gone for so long makes room for one of another name, when there are too many.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Bytes read at once.
const READ_LEN: usize = 32 * 1024;

/// Where to listen and for which key.
#[derive(Clone)]
pub struct RtmpSettings {
    /// TCP address.
    pub listen: SocketAddr,
    /// Application name: the first part of the URL's path.
    pub app: String,
    /// The stream key.
    pub key: String,
    /// Renditions that come with the channel's own times, by name.
    pub rungs: Vec<String>,
    /// Nothing else is taken.
    pub only_rungs: bool,
}

impl std::fmt::Debug for RtmpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtmpSettings")
            .field("listen", &self.listen)
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

/// A bound server that does not serve yet.
#[derive(Debug)]
pub struct RtmpServer {
    listener: TcpListener,
    settings: RtmpSettings,
}

impl RtmpServer {
    /// Binds.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn bind(settings: RtmpSettings) -> Result<Self, NodeError> {
        let listener = TcpListener::bind(settings.listen).await.map_err(|source| NodeError::Listen {
            addr: settings.listen,
            what: "the encoder (RTMP)",
            flag: "--input rtmp://HOST:PORT/live",
            source,
        })?;
        Ok(Self { listener, settings })
    }

    /// The URL to type into an encoder; the key goes into its own field.
    pub fn url(&self) -> String {
        let addr = self.listener.local_addr().unwrap_or(self.settings.listen);
        format!("rtmp://{}/{}", crate::network::reachable(addr), self.settings.app)
    }

    /// The stream key.
    pub fn key(&self) -> &str {
        &self.settings.key
    }

    /// Serves for as long as the node lives.
    pub(super) fn serve(self, ingest: Intake, said: mpsc::UnboundedSender<String>) {
        let stage = Mutex::new(Stage::new());
        let desk = Arc::new(Desk { settings: self.settings, ingest, said, stage });
        let listener = self.listener;
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let Some(make_room) = desk.enter() else { continue };
                        let desk = Arc::clone(&desk);
                        tokio::spawn(async move {
                            desk.attend(stream, &make_room).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!("accepting an encoder: {error}");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
        });
    }
}

/// What all connections share.
struct Desk {
    settings: RtmpSettings,
    ingest: Intake,
    said: mpsc::UnboundedSender<String>,
    stage: Mutex<Stage>,
}

/// One rendition's place.
#[derive(Default)]
struct Seat {
    /// What stands behind the stream key; nothing for the first.
    name: String,
    publisher: Option<Publisher>,
    /// Where the last publisher's timeline ended.
    tags: Option<Tags>,
    /// When the last publisher left.
    left: Option<Instant>,
}

struct Stage {
    /// As many as there are renditions; the place is the rendition's number.
    seats: Vec<Seat>,
    /// The timeline that renditions share, and by whom it goes.
    origin: Option<(u64, Origin)>,
    next: u64,
    /// Connections that may publish, or could until another took over.
    granted: usize,
    /// Connections that have not asked to publish yet, the oldest first: it makes room when there are too many.
    asking: VecDeque<Arc<Notify>>,
    /// When the broadcaster was last told that there are too many.
    warned: Option<Instant>,
}

struct Publisher {
    id: u64,
    heard: Instant,
    leave: Arc<Notify>,
}

/// What was before a publisher comes.
struct Earlier {
    /// Its rendition's own stream.
    tags: Option<Tags>,
    /// The timeline that renditions share, while one goes on.
    origin: Option<Origin>,
    /// How far those came that are over, in ticks.
    end_ticks: i64,
}

/// One connection's right to publish.
struct Ticket {
    id: u64,
    seat: usize,
    is_rung: bool,
    ingest: Intake,
    leave: Arc<Notify>,
}

impl Stage {
    /// Nobody has come; the first rendition has its place.
    fn new() -> Self {
        Self {
            seats: vec![Seat::default()],
            origin: None,
            next: 0,
            granted: 0,
            asking: VecDeque::new(),
            warned: None,
        }
    }

    /// The place of the rendition that is called so; none when all are taken.
    fn seat(&mut self, name: &str) -> Option<usize> {
        if let Some(known) = self.seats.iter().position(|seat| seat.name == name) {
            return Some(known);
        }
        if self.seats.len() < RENDITIONS_MAX {
            self.seats.push(Seat { name: name.to_owned(), ..Seat::default() });
            return Some(self.seats.len() - 1);
        }
        let is_free =
            |seat: &Seat| seat.publisher.is_none() && seat.left.is_some_and(|left| left.elapsed() > KEPT_FOR);
        // The first is the channel's own. Its timeline goes on under the new name.
        let others = self.seats.iter_mut().enumerate().skip(1);
        let (at, longest) = others.filter(|(_, seat)| is_free(seat)).min_by_key(|(_, seat)| seat.left)?;
        longest.name = name.to_owned();
        Some(at)
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more connection, and what tells it to go: whoever holds a place without asking for anything must not
    /// keep the encoder out.
    fn enter(&self) -> Option<Arc<Notify>> {
        let mut stage = self.lock();
        if stage.granted + stage.asking.len() >= CONNECTIONS_MAX {
            if stage.warned.is_none_or(|at| at.elapsed() > WARN_PERIOD) {
                stage.warned = Some(Instant::now());
                tracing::warn!(
                    "more than {CONNECTIONS_MAX} RTMP connections; the oldest that ask for nothing go"
                );
            }
            stage.asking.pop_front()?.notify_one();
        }
        let make_room = Arc::new(Notify::new());
        stage.asking.push_back(Arc::clone(&make_room));
        Some(make_room)
    }

    fn say(&self, text: impl Into<String>) {
        let _ = self.said.send(text.into());
    }

    async fn attend(&self, mut stream: TcpStream, make_room: &Arc<Notify>) {
        let _not_fatal = stream.set_nodelay(true);
        let mut session = Session::new();
        let mut ticket = None;
        let ended = self.converse(&mut stream, &mut session, &mut ticket, make_room).await;
        self.lock().asking.retain(|other| !Arc::ptr_eq(other, make_room));
        if let Some(ticket) = ticket {
            self.lock().granted -= 1;
            let current = self.dismiss(&ticket, session.take_stream());
            if current {
                // What was cut so far must not wait for an encoder that may never come back.
                let _ = ticket.ingest.send(Ingest::End).await;
                let which = self.which(ticket.seat);
                self.say(match ticket.is_rung {
                    true => format!("The ladder's encoder{which} ended ({ended})."),
                    false => format!("The encoder{which} left ({ended}). Waiting for it to come back."),
                });
            }
        } else if ended != "closed" {
            tracing::info!("an RTMP connection ended: {ended}");
        }
        let _ = stream.shutdown().await;
    }

    /// The publisher is gone; false when another took over before.
    fn dismiss(&self, ticket: &Ticket, tags: Tags) -> bool {
        let mut stage = self.lock();
        stage.origin.take_if(|(id, _)| *id == ticket.id);
        let seat = &mut stage.seats[ticket.seat];
        let current = seat.publisher.as_ref().is_some_and(|publisher| publisher.id == ticket.id);
        if current {
            (seat.publisher, seat.tags, seat.left) = (None, Some(tags), Some(Instant::now()));
        }
        current
    }

    /// Until one side has enough; says why.
    async fn converse(
        &self,
        stream: &mut TcpStream,
        session: &mut Session,
        ticket: &mut Option<Ticket>,
        make_room: &Arc<Notify>,
    ) -> String {
        let began = Instant::now();
        let mut buffer = vec![0; READ_LEN];
        loop {
            let patience = match ticket {
                Some(_) => SILENCE_MAX,
                None => ASK_TIMEOUT.saturating_sub(began.elapsed()),
            };
            let read = tokio::select! {
                read = timeout(patience, stream.read(&mut buffer)) => read,
                () = told_to_leave(ticket.as_ref()) => return "another publisher took over".into(),
                () = make_room.notified(), if ticket.is_none() => return "it made room for others".into(),
            };
            let len = match read {
                Ok(Ok(0)) => return "closed".into(),
                Ok(Ok(len)) => len,
                Ok(Err(error)) => return format!("the connection broke: {error}"),
                Err(_) => return format!("nothing came for {} s", patience.as_secs()),
            };
            if let Some(ticket) = ticket {
                self.heard(ticket, session.origin());
            }
            let handled = session.handle_data(unix_us(), &buffer[..len]);
            let had_asked = ticket.is_some();
            let over = self.drain(stream, session, ticket).await;
            if ticket.is_some() && !had_asked {
                let mut stage = self.lock();
                stage.granted += 1;
                stage.asking.retain(|other| !Arc::ptr_eq(other, make_room));
            }
            if let Some(reason) = over {
                return reason;
            }
            if let Err(error) = handled {
                return error.to_string();
            }
        }
    }

    async fn drain(
        &self,
        stream: &mut TcpStream,
        session: &mut Session,
        ticket: &mut Option<Ticket>,
    ) -> Option<String> {
        while let Some(output) = session.poll_output() {
            match output {
                RtmpOutput::Write(bytes) => match timeout(WRITE_TIMEOUT, stream.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Some(format!("the connection broke: {error}")),
                    Err(_) => return Some("the encoder does not read our answers".into()),
                },
                RtmpOutput::PublishRequest { app, stream_key } => match self.admit(&app, &stream_key) {
                    Ok((granted, Earlier { tags, origin, end_ticks })) => {
                        let which = self.which(granted.seat);
                        let is_rung = granted.is_rung;
                        *ticket = Some(granted);
                        let accepted = match (tags, origin) {
                            _ if is_rung => session.accept_as_stamped(),
                            (Some(tags), beside) => session.accept_after(tags, beside, end_ticks),
                            (None, Some(origin)) => session.accept_beside(origin),
                            (None, None) => session.accept_at(end_ticks),
                        };
                        if let Err(error) = accepted {
                            return Some(error.to_string());
                        }
                        let whose = if is_rung { "The ladder's" } else { "An" };
                        self.say(format!("{whose} encoder connected{which}."));
                    }
                    Err(reason) => {
                        self.say(format!("Refused an encoder: {reason}"));
                        session.reject(&reason);
                    }
                },
                RtmpOutput::Ingest(event) => {
                    let Some(ticket) = ticket else { continue };
                    if ticket.ingest.send(event).await.is_err() {
                        return Some("the channel ended".into());
                    }
                }
                RtmpOutput::Close(reason) => return Some(reason),
                _ => {}
            }
        }
        None
    }

    fn heard(&self, ticket: &Ticket, origin: Option<Origin>) {
        let mut stage = self.lock();
        let publisher = stage.seats[ticket.seat].publisher.as_mut();
        let Some(publisher) = publisher.filter(|publisher| publisher.id == ticket.id) else { return };
        publisher.heard = Instant::now();
        if ticket.is_rung {
            return;
        }
        if stage.origin.is_none_or(|(id, _)| id == ticket.id) {
            stage.origin = origin.map(|origin| (ticket.id, origin));
        }
    }

    /// Of which rendition, in words.
    fn which(&self, seat: usize) -> String {
        let stage = self.lock();
        match stage.seats.get(seat) {
            Some(seat) if !seat.name.is_empty() => format!(" for rendition {}", seat.name),
            _ => String::new(),
        }
    }

    fn admit(&self, app: &str, key: &str) -> Result<(Ticket, Earlier), String> {
        let settings = &self.settings;
        let key = key.split('?').next().unwrap_or_default();
        // The application is no secret: it stands in every server URL that was printed.
        let app = app.trim_end_matches('/');
        if app != settings.app {
            return Err(wrong_app(app, settings));
        }
        let Some(name) = rendition_name(key, &settings.key) else {
            return Err("wrong stream key: copy it from what caudal publish printed".into());
        };
        if name.len() > NAME_LEN_MAX || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(format!(
                "a rendition's name behind the stream key has 1 to {NAME_LEN_MAX} letters, digits and -, as in KEY_720p"
            ));
        }
        let is_rung = settings.rungs.iter().any(|rung| rung == name);
        if settings.only_rungs && !is_rung {
            return Err("this address is for the ladder alone".into());
        }
        let mut stage = self.lock();
        let Some(at) = stage.seat(name) else {
            return Err(format!(
                "this channel has {RENDITIONS_MAX} renditions already, which is all it may; a minute after one stopped another may come"
            ));
        };
        if let Some(publisher) = &stage.seats[at].publisher {
            if publisher.heard.elapsed() < STALE_AFTER {
                return Err("an encoder is publishing already: stop it first".into());
            }
            publisher.leave.notify_one();
        }
        stage.next += 1;
        let (id, leave) = (stage.next, Arc::new(Notify::new()));
        let origin = stage.origin.map(|(_, origin)| origin);
        let ends = stage.seats.iter().filter_map(|seat| seat.tags.as_ref()).map(Tags::end_ticks);
        let end_ticks = ends.max().unwrap_or(0);
        let seat = &mut stage.seats[at];
        seat.publisher = Some(Publisher { id, heard: Instant::now(), leave: Arc::clone(&leave) });
        let tags = seat.tags.take();
        let ingest = self.ingest.of(RenditionId(at as u8));
        Ok((Ticket { id, seat: at, is_rung, ingest, leave }, Earlier { tags, origin, end_ticks }))
    }
}

/// What stands behind the key, compared in constant time: nothing for the first rendition; `None`: it is another key.
fn rendition_name<'a>(given: &'a str, key: &str) -> Option<&'a str> {
    let head = given.as_bytes().get(..key.len())?;
    let equal = head.iter().zip(key.bytes()).fold(0, |different, (a, b)| different | (a ^ b)) == 0;
    let rest = given.get(key.len()..).filter(|_| equal)?;
    match rest.strip_prefix(['_', '/']) {
        Some(name) if !name.is_empty() => Some(name),
        _ => rest.is_empty().then_some(""),
    }
}

/// What the server's URL must end in. What the encoder gave is shown unless the key is in it: this may be read aloud.
fn wrong_app(given: &str, settings: &RtmpSettings) -> String {
    let expected = &settings.app;
    let given = if given.contains(&settings.key) {
        "the stream key, which goes into its own field".to_owned()
    } else {
        format!("{:?}", given.chars().take(APP_SHOWN_MAX).collect::<String>())
    };
    format!(
        "wrong server URL: it must end in /{expected}, not in {given}; copy the URL from what caudal publish printed"
    )
}

async fn told_to_leave(ticket: Option<&Ticket>) {
    match ticket {
        Some(ticket) => ticket.leave.notified().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendition_is_named_behind_the_key() {
        for (given, name) in [
            ("s3cret", Some("")),
            ("s3cret_720p", Some("720p")),
            ("s3cret/low", Some("low")),
            ("s3cret_", None),
            ("s3cretx", None),
            ("s3cre", None),
            ("S3cret_720p", None),
        ] {
            assert_eq!(rendition_name(given, "s3cret"), name, "{given}");
        }
    }

    #[test]
    fn a_name_that_nobody_uses_makes_room() {
        let mut stage = Stage::new();
        let at = |ago| Instant::now().checked_sub(Duration::from_secs(ago));
        assert_eq!(stage.seat(""), Some(0));
        for rendition in 1..RENDITIONS_MAX {
            assert_eq!(stage.seat(&rendition.to_string()), Some(rendition));
        }
        assert_eq!(stage.seat("new"), None, "all may still come");
        (stage.seats[0].left, stage.seats[2].left, stage.seats[4].left) = (at(900), at(50), at(70));
        assert_eq!(stage.seat("new"), Some(4), "not the first, and not one that may just be starting again");
        stage.seats[4].left = at(0);
        assert_eq!((stage.seat("4"), stage.seat("new"), stage.seat("2")), (None, Some(4), Some(2)));
    }

    #[test]
    fn a_wrong_application_is_told_and_a_key_in_its_place_is_not() {
        let settings = RtmpSettings {
            listen: ([127, 0, 0, 1], 0).into(),
            app: "live".into(),
            key: "s3cret".into(),
            rungs: Vec::new(),
            only_rungs: false,
        };
        let told = wrong_app("stream\u{1b}[2J", &settings);
        assert!(
            told.contains("end in /live") && told.contains("stream") && !told.contains('\u{1b}'),
            "{told}"
        );
        assert!(wrong_app(&"x".repeat(4000), &settings).len() < 300);
        let told = wrong_app("live/s3cret", &settings);
        assert!(told.contains("own field") && !told.contains("s3cret"), "{told}");
    }
}
