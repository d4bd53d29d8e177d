//! What may be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use caudal_node::maps::{MapChoice, Maps};
use caudal_node::metered::Choice;
use caudal_node::viewer::Preference;
use caudal_proto::hybrid::urgent::SHARE_PERCENT;
use caudal_tracker::descriptor::Delivery;
use caudal_tracker::url::EdgeUrl;
use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::units::{
    UploadLimit, parse_duration, parse_height, parse_listen, parse_metered, parse_rate, parse_size,
    parse_upload,
};

/// Live television without a CDN bill: viewers carry the stream to each other.
#[derive(Debug, Parser)]
#[command(
    name = "caudal",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 the report is not ok (nothing arrived, no tracker was reached), 2 wrong usage, 3 could not do it (and says what).\n\
                  Try it on this machine: caudal demo"
)]
pub(crate) struct Args {
    /// Say more on stderr (-v, -vv); CAUDAL_LOG takes a tracing filter.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a tracker: it knows who watches what, and lists channels.
    Tracker(TrackerArgs),
    /// Publish a channel from OBS, ffmpeg, a file or the test card.
    Publish(Box<PublishArgs>),
    /// Watch a channel: play it here, record it, relay it.
    Watch(WatchArgs),
    /// Serve a channel over HTTP to viewers and CDNs: signed parts from memory, and plain LL-HLS.
    Edge(EdgeArgs),
    /// Follow sampled chunks through the real swarm: the tree that they went along, with the delay of each hop.
    Trace(TraceArgs),
    /// List the channels of a tracker.
    Channels(ChannelsArgs),
    /// Make, show and back up channel keys.
    Key(KeyArgs),
    /// Serve and ask for ALTO maps: what a network says about which addresses are near to each other.
    Alto(crate::commands::alto::AltoArgs),
    /// Tracker, source and viewers on this machine, as separate processes.
    Demo(DemoArgs),
    /// Simulate a swarm of any size, and compare it with what physics allows.
    #[command(after_help = "Examples:\n  caudal sim --peers 1000\n  \
                            caudal sim --peers 1000 --event 'leave 30% at 20s' --plot leave.svg\n  \
                            caudal sim --peers 200 --attack polluter=20% --json\n  \
                            caudal sim --peers 100 --trace 100            (one chunk's path, hop by hop)")]
    Sim(Box<caudal_sim::args::SimArgs>),
    /// Open caudal: links with this program when they are clicked.
    RegisterLinks(RegisterLinksArgs),
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  caudal tracker --listen 127.0.0.1:7777\n  \
                        caudal tracker --listen 0.0.0.0:7777 --lan          (a home or office)\n  \
                        caudal tracker --listen 127.0.0.1:7777 --deny taken-down.txt\n  \
                        caudal tracker --alto alto.toml          (prefers near peers; docs/alto.md)\n\n\
                        On the internet put an HTTPS proxy before it, name that with --trusted-proxy, and say with\n\
                        --public-url by what address peers know this tracker.")]
pub(crate) struct TrackerArgs {
    /// TCP address to listen on.
    #[arg(long, default_value = "127.0.0.1:7777", value_name = "ADDR", value_parser = parse_listen)]
    pub(crate) listen: SocketAddr,
    /// Private addresses are registered and handed out: everybody is on one LAN.
    #[arg(long)]
    pub(crate) lan: bool,
    /// Only the channels in this file are served: one id per line, # comments; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub(crate) allow: Option<PathBuf>,
    /// The channels in this file are taken down: one id per line, then perhaps the reason; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub(crate) deny: Option<PathBuf>,
    /// An HTTPS proxy before this tracker, whose X-Forwarded-For is believed.
    #[arg(long, value_name = "IP")]
    pub(crate) trusted_proxy: Vec<std::net::IpAddr>,
    /// The URL by which peers know this tracker (several times if there are several): requests that were signed for
    /// another tracker are refused, so that no other can pass them off here.
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Vec<String>,
    /// A map of the network, by which peers are told first of those that are near to them: an ALTO server's address, or an
    /// alto.toml, whose maps this tracker then serves below /alto; read again when it changes.
    #[arg(long, value_name = "URL|FILE")]
    pub(crate) alto: Option<String>,
    /// The ALTO server's address as peers reach it, where that is another than --alto.
    #[arg(long, value_name = "URL", requires = "alto")]
    pub(crate) public_alto: Option<String>,
    /// Print a ready line as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  caudal publish --name \"Canal 1\" --tracker http://127.0.0.1:7777\n  \
                        caudal publish --name \"Canal 1\" --tracker https://tracker.example --listed\n  \
                        caudal publish --name Loop --tracker http://127.0.0.1:7777 --input film.mp4\n  \
                        caudal publish --name Test --tracker http://127.0.0.1:7777 --input test\n  \
                        caudal publish --name \"Canal 1\" --tracker https://tracker.example --edge https://cdn.example\n\n\
                        OBS: Settings → Stream → Custom: paste server and stream key as printed; Output → Keyframe interval: 1 or 2 s.")]
pub(crate) struct PublishArgs {
    /// The channel's name.
    #[arg(long)]
    pub(crate) name: String,
    /// More about the channel.
    #[arg(long, default_value = "")]
    pub(crate) description: String,
    /// Its language, such as es or en-GB.
    #[arg(long, default_value = "")]
    pub(crate) language: String,
    /// Tracker to announce the channel to (up to 4 times).
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) tracker: Vec<String>,
    /// rtmp://HOST:PORT/APP to listen for an encoder, an MP4 or FLV file to loop, or `test` for the test card. Files may be several (up
    /// to 8): each is a rendition of the channel, the best one first.
    #[arg(long, default_value = "rtmp://127.0.0.1:1935/live")]
    pub(crate) input: Vec<String>,
    /// Lower renditions that an ffmpeg of this system makes of what comes in, by height: 720p,360p. Those that are not lower are left
    /// out. It takes processor time: about a core for 720p and below.
    #[arg(long, value_name = "HEIGHTp,…", value_delimiter = ',', value_parser = parse_height)]
    pub(crate) ladder: Vec<u32>,
    /// An edge that has the channel over HTTP, or a CDN in front of one (up to 4 times): viewers learn of it by the link and the
    /// channel's descriptor.
    #[arg(long, value_name = "URL")]
    pub(crate) edge: Vec<EdgeUrl>,
    /// The channel's key; made on first use. Without it each name has a key of its own.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The stream key that the encoder must give; random unless set.
    #[arg(long, value_name = "KEY", value_parser = parse_stream_key)]
    pub(crate) stream_key: Option<String>,
    /// List the channel in the tracker's directory.
    #[arg(long)]
    pub(crate) listed: bool,
    /// Send no more than this (bit/s: 20M, 800k); `auto`: what the line carries, as it is measured while it is used.
    #[arg(long, value_name = "RATE", value_parser = parse_upload, default_value = "auto")]
    pub(crate) upload_limit: UploadLimit,
    /// Send the stream this many times at most, and a little to repair what got lost; viewers do the rest.
    #[arg(long, value_name = "N", value_parser = parse_copies)]
    pub(crate) source_copies: Option<f64>,
    /// Who carries the stream: `hybrid` (this node as far as its upload goes, and viewers each other), `swarm-only` (this node sends two
    /// copies, viewers do the rest), `server-only` (this node feeds everybody, and viewers are not told of each other).
    #[arg(long, value_name = "HOW", default_value = "hybrid", value_parser = parse_delivery)]
    pub(crate) delivery: Delivery,
    /// About one chunk in so many is marked for `caudal trace`, and one each 15 s at least; 0: none.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) trace_every: u64,
    /// What a gigabyte that this node sends costs; the desk tells what a month comes to.
    #[arg(long, value_name = "PRICE", value_parser = parse_price)]
    pub(crate) price_per_gb: Option<f64>,
    /// UDP address to listen on (once for IPv4, once for IPv6).
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) bind: Vec<SocketAddr>,
    /// TCP address for the desk, preview, stats and metrics [default: 127.0.0.1:7779, or a free port where that is taken]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// Open the desk in the browser.
    #[arg(long)]
    pub(crate) open: bool,
    /// A relay for peers that cannot be reached directly.
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// The map of the network (ALTO server) by which near viewers are preferred, or `off` [default: the one that the tracker names]
    #[arg(long, value_name = "URL|off", value_parser = parse_map)]
    pub(crate) alto: Option<MapChoice>,
    /// Peers on private addresses are dialled although the tracker is not on the LAN.
    #[arg(long)]
    pub(crate) lan: bool,
    /// Test card: bit rate.
    #[arg(long, default_value = "3M", value_name = "RATE", value_parser = parse_rate, help_heading = "Test card")]
    pub(crate) card_rate: u64,
    /// Test card: time between key frames.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_duration, help_heading = "Test card")]
    pub(crate) card_keyframe: Duration,
    /// Test card: picture size, even numbers from 640x360 to 1920x1080.
    #[arg(long, default_value = "1280x720", value_name = "WxH", value_parser = parse_size, help_heading = "Test card")]
    pub(crate) card_size: (u32, u32),
    /// Stop after this long (30s, 5m).
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Print a ready line and a report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  caudal watch 'caudal:…?tracker=…' --player mpv\n  \
                        caudal watch LINK --listen 127.0.0.1:8080     then open http://127.0.0.1:8080/hls/index.m3u8 in any player\n  \
                        caudal watch --tracker https://tracker.example --open     a page with all its channels\n  \
                        caudal watch LINK --output recording.mp4 --duration 1h\n  \
                        caudal watch LINK --output - | ffplay -\n  \
                        caudal watch LINK --no-p2p     over HTTP alone: no other viewer sees you\n  \
                        caudal watch LINK --tui     a view that fills the terminal: q leaves, ? explains\n\n\
                        --tui draws on the terminal, whatever standard output is: with --json or --output - send\n\
                        that to a file or a pipe. Without a terminal it is refused.")]
pub(crate) struct WatchArgs {
    /// The channel link; without it the page lists the channels of --tracker.
    #[arg(value_name = "LINK")]
    pub(crate) link: Option<String>,
    /// Tracker whose channels the page lists, and which is asked about a link that names none (up to 4 times).
    #[arg(long, value_name = "URL")]
    pub(crate) tracker: Vec<String>,
    /// Open the page in the browser.
    #[arg(long)]
    pub(crate) open: bool,
    /// Fill the terminal with a view of how it goes: state, buffer, neighbours, messages.
    #[arg(long, requires = "link")]
    pub(crate) tui: bool,
    /// The link is a stranger's word, as from a click on some page: trackers on this computer and its networks are not asked
    /// (unless --lan), and you are asked before anything is uploaded; without a terminal to ask on, nothing is.
    #[arg(long, requires = "link")]
    pub(crate) foreign_link: bool,
    /// TCP address for the page, players, stats and metrics [default: 127.0.0.1:7778, or a free port where that is taken].
    /// Where others can connect, every address has a token in it.
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// UDP address to listen on (once for IPv4, once for IPv6), for the channel of LINK.
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen, requires = "link")]
    pub(crate) bind: Vec<SocketAddr>,
    /// Open this player (mpv, vlc, ffplay, or a command that takes a URL).
    #[arg(long, value_name = "COMMAND", requires = "link")]
    pub(crate) player: Option<String>,
    /// Record fragmented MP4 to a file (replaced when it exists), or - for standard output.
    #[arg(long, value_name = "FILE", requires = "link")]
    pub(crate) output: Option<PathBuf>,
    /// Watch without sending to others.
    #[arg(long)]
    pub(crate) no_upload: bool,
    /// Meet no other viewer: only trackers and edges are contacted, and everything comes over HTTP.
    #[arg(long, conflicts_with_all = ["bind", "relay", "upload_limit", "alto"])]
    pub(crate) no_p2p: bool,
    /// An edge that has the channel, or a CDN in front of one (up to 4 times), beside those that its link and descriptor name.
    #[arg(long, value_name = "URL", requires = "link")]
    pub(crate) edge: Vec<String>,
    /// What a swarm is about to miss is fetched from an edge, up to this share of the stream's rate; 0: never.
    #[arg(long, value_name = "PERCENT", default_value_t = SHARE_PERCENT, value_parser = clap::value_parser!(u32).range(0..=100))]
    #[arg(conflicts_with = "no_p2p")]
    pub(crate) edge_share: u32,
    /// Which rendition to show, where the channel has several: `auto` (the best that the line sustains), its number, or the best that is no
    /// higher than a height, as in 720p.
    #[arg(long, value_name = "auto|N|HEIGHTp", default_value_t = Preference::Auto)]
    pub(crate) rendition: Preference,
    /// The picture stays no further behind the source than this, as far as the way here allows (500ms, 2s): the page's player.
    #[arg(long, value_name = "TIME", value_parser = parse_delay, conflicts_with = "smooth")]
    pub(crate) max_delay: Option<Duration>,
    /// Rather wait than stand still: two to eight seconds are kept ahead, instead of 0.7 to four.
    #[arg(long)]
    pub(crate) smooth: bool,
    /// Send no more than this (bit/s: 5M, 800k); `auto`: what the line carries, as it is measured while it is used.
    #[arg(long, value_name = "RATE", value_parser = parse_upload, default_value = "auto")]
    pub(crate) upload_limit: UploadLimit,
    /// Whether this connection is paid by the byte, as a phone's is: then nothing is sent to others. `auto` asks NetworkManager, where
    /// there is one.
    #[arg(long, value_name = "auto|yes|no", value_parser = parse_metered, default_value = "auto")]
    pub(crate) metered: Choice,
    /// Report hops of traced chunks, `on` or `off`: who sends to you, to whom you send and when, by your node's id, for the
    /// broadcaster and whoever runs `caudal trace` to see.
    #[arg(long, value_name = "on|off", default_value = "off", value_parser = parse_switch, action = clap::ArgAction::Set)]
    #[arg(conflicts_with = "no_p2p")]
    pub(crate) trace_hops: bool,
    /// A relay for peers that cannot be reached directly.
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// The map of the network (ALTO server) by which near viewers are preferred, or `off` [default: the one that the tracker names]
    #[arg(long, value_name = "URL|off", value_parser = parse_map)]
    pub(crate) alto: Option<MapChoice>,
    /// Trackers and peers on private addresses are used.
    #[arg(long)]
    pub(crate) lan: bool,
    /// Stop after this long (30s, 5m).
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Print as JSON: a ready line, a line when the broadcast falls silent and when it goes on, and a report.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  caudal edge 'caudal:…?tracker=…' --listen 0.0.0.0:7781 --public-url https://cdn.example\n  \
                        caudal edge LINK     then caudal watch LINK --no-p2p --edge http://127.0.0.1:7781\n\n\
                        What it serves is public: /v1/channels/ID/hls/index.m3u8 plays in any player. On the internet put a CDN or an\n\
                        HTTPS proxy before it, which keeps parts for as long as it likes (docs/http.md, An edge)."
)]
pub(crate) struct EdgeArgs {
    /// The channel link.
    #[arg(value_name = "LINK")]
    pub(crate) link: String,
    /// TCP address for viewers and CDNs.
    #[arg(long, default_value = "127.0.0.1:7781", value_name = "ADDR", value_parser = parse_listen)]
    pub(crate) listen: SocketAddr,
    /// The URL by which viewers know this edge, or the CDN in front of it; it stands in the link that is printed [default: the
    /// address that it listens on]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<EdgeUrl>,
    /// TCP address for stats and metrics, not for viewers [default: a free port of this computer]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    pub(crate) control: Option<SocketAddr>,
    /// Tracker to ask about a link that names none (up to 4 times).
    #[arg(long, value_name = "URL")]
    pub(crate) tracker: Vec<String>,
    /// UDP address to listen on (once for IPv4, once for IPv6).
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) bind: Vec<SocketAddr>,
    /// A relay for peers that cannot be reached directly.
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// Trackers and peers on private addresses are used.
    #[arg(long)]
    pub(crate) lan: bool,
    /// Stop after this long (30s, 5m).
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Print a ready line and a report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:\n  caudal channels --tracker http://127.0.0.1:7777")]
pub(crate) struct ChannelsArgs {
    /// The tracker.
    #[arg(long, value_name = "URL")]
    pub(crate) tracker: String,
    /// Only names with this in them.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) search: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  caudal key new --file canal1.key\n  caudal key show --file canal1.key\n  \
                        caudal key backup --file canal1.key --to /media/usb/canal1.key"
)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) action: KeyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyAction {
    /// Make a key; whoever has it owns the channel.
    New {
        /// Where to write it; must not exist.
        #[arg(long)]
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the channel of a key, never the key.
    Show {
        /// The key.
        #[arg(long)]
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy a key to a safe place, readable by its owner only.
    Backup {
        /// The key.
        #[arg(long)]
        file: PathBuf,
        /// The copy; must not exist.
        #[arg(long)]
        to: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  caudal demo\n  caudal demo --peers 12 --headless --duration 30s")]
pub(crate) struct DemoArgs {
    /// Viewers.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) peers: u32,
    /// Check that the stream arrives whole, print the result and exit.
    #[arg(long)]
    pub(crate) headless: bool,
    /// How long to run; until Ctrl-C unless --headless, then 20s.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Copies of the stream that the source sends at most.
    #[arg(long, default_value = "2", value_name = "N", value_parser = parse_copies)]
    pub(crate) source_copies: f64,
    /// Bit rate of the test card.
    #[arg(long, default_value = "2M", value_name = "RATE", value_parser = parse_rate)]
    pub(crate) rate: u64,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  caudal register-links\n  caudal register-links --remove\n\n\
                        For your user alone, by the desktop's own files (freedesktop.org). A link that was clicked is a\n\
                        stranger's word: it is opened as `caudal watch --foreign-link --open -- LINK`, in a terminal,\n\
                        which asks whether to watch and to upload, shows that it runs, and ends it.")]
pub(crate) struct RegisterLinksArgs {
    /// Take it back.
    #[arg(long)]
    pub(crate) remove: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  caudal trace 'caudal:…?tracker=…'\n  caudal trace LINK --duration 2m\n  \
                        caudal trace LINK --json | jq -c '.trace.summary'\n\n\
                        It joins as a viewer that sends nothing, and counts as one while it runs. Only the broadcaster and viewers that\n\
                        chose to (caudal watch --trace-hops on) report; the others are shown as a gap (…)."
)]
pub(crate) struct TraceArgs {
    /// The channel link.
    #[arg(value_name = "LINK")]
    pub(crate) link: String,
    /// Tracker to ask about a link that names none (up to 4 times).
    #[arg(long, value_name = "URL")]
    pub(crate) tracker: Vec<String>,
    /// UDP address to listen on (once for IPv4, once for IPv6).
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) bind: Vec<SocketAddr>,
    /// A relay for peers that cannot be reached directly.
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// Trackers and peers on private addresses are used.
    #[arg(long)]
    pub(crate) lan: bool,
    /// Stop after this long (30s, 5m).
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Print as JSON: a ready line, a line for each traced chunk, and a report.
    #[arg(long)]
    pub(crate) json: bool,
}

/// On or off.
fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off is expected".to_owned()),
    }
}

/// A map's server, or none at all.
fn parse_map(text: &str) -> Result<MapChoice, String> {
    let choice = if text == "off" { MapChoice::Off } else { MapChoice::Server(text.to_owned()) };
    Maps::new(choice.clone()).map(|_| choice).map_err(|error| format!("{error}, or off"))
}

/// A stream key that fits a URL as it is: what follows `?` is not part of it, and an empty one would let everybody publish.
fn parse_stream_key(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    if (1..=128).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err("1 to 128 letters, digits and - _ . ~ are expected".to_owned())
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    let delay = parse_duration(text)?;
    let is_possible = (Duration::from_millis(300)..=Duration::from_secs(60)).contains(&delay);
    if is_possible { Ok(delay) } else { Err("300ms to 60s is expected".to_owned()) }
}

fn parse_delivery(text: &str) -> Result<Delivery, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "hybrid, swarm-only or server-only is expected".to_owned())
}

fn parse_price(text: &str) -> Result<f64, String> {
    let price: f64 = text.parse().map_err(|_| "a number such as 0.05 is expected".to_owned())?;
    if (0.0..=1e6).contains(&price) { Ok(price) } else { Err("0 to 1000000 is expected".to_owned()) }
}

fn parse_copies(text: &str) -> Result<f64, String> {
    let copies: f64 = text.parse().map_err(|_| "a number such as 2 or 1.5 is expected".to_owned())?;
    if (0.1..=10_000.0).contains(&copies) { Ok(copies) } else { Err("0.1 to 10000 copies".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_a_channel_needs_its_link() {
        let parse = |more: &[&str]| {
            Args::try_parse_from([&["caudal", "watch", "--tracker", "http://127.0.0.1:7777"], more].concat())
        };
        assert!(parse(&[]).is_ok());
        for more in [&["--bind", "127.0.0.1:0"][..], &["--tui"], &["--foreign-link"], &["--player", "mpv"]] {
            let refused = parse(more).unwrap_err().to_string();
            assert!(refused.contains("LINK"), "{refused}");
            assert!(parse(&[more, &["caudal:x"]].concat()).is_ok());
        }
    }

    #[test]
    fn a_stream_key_is_one_that_an_encoder_can_send() {
        for good in ["a", "live_12345-x.y~z", &"k".repeat(128)] {
            assert_eq!(parse_stream_key(good).as_deref(), Ok(good));
        }
        for bad in ["", "a?b", "has space", "a&b=1", "a/b", "é", &"k".repeat(129)] {
            assert!(parse_stream_key(bad).is_err(), "{bad}");
        }
    }
}
