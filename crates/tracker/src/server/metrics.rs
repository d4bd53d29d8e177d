//! Counters and their Prometheus text (exposition format 0.0.4). No label ever holds an address, a peer or a channel.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::message::{Code, RequestType};
use crate::server::maps::MapState;
use crate::server::registry::Totals;

/// What is counted outside the registry.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) subscribers: AtomicU64,
    pub(crate) rate_limited: AtomicU64,
    connect: AtomicU64,
    find: AtomicU64,
    stat_report: AtomicU64,
    refused: [AtomicU64; Self::CODES.len()],
}

impl Metrics {
    const CODES: [(Code, &'static str); 13] = [
        (Code::BadRequest, "bad_request"),
        (Code::UnsupportedVersion, "unsupported_version"),
        (Code::Forbidden, "forbidden"),
        (Code::Internal, "internal"),
        (Code::Unavailable, "unavailable"),
        (Code::AuthenticationRequired, "authentication_required"),
        (Code::UnknownPeer, "unknown_peer"),
        (Code::TakenDown, "taken_down"),
        (Code::Clock, "clock"),
        (Code::TooManyRequests, "too_many_requests"),
        (Code::Superseded, "superseded"),
        (Code::Replayed, "replayed"),
        (Code::Other(0), "other"),
    ];

    pub(crate) fn request(&self, kind: RequestType) {
        let counter = match kind {
            RequestType::Connect => &self.connect,
            RequestType::Find => &self.find,
            RequestType::StatReport => &self.stat_report,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, code: Code) {
        let index = Self::CODES.iter().position(|(known, _)| *known == code).unwrap_or(Self::CODES.len() - 1);
        self.refused[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Everything, as Prometheus reads it; `map` where the tracker was given one.
    pub(crate) fn render(&self, totals: &Totals, map: Option<&MapState>) -> String {
        let mut text = String::with_capacity(4096);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut family = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            // Writing to a String cannot fail.
            let _infallible =
                write!(text, "# HELP caudal_tracker_{name} {help}\n# TYPE caudal_tracker_{name} {kind}\n");
            for (label, value) in values {
                let _infallible = writeln!(text, "caudal_tracker_{name}{label} {value}");
            }
        };
        let gauges = [
            ("channels", "Channels known.", totals.channels as u64),
            ("channels_live", "Channels with a source on the air.", totals.live as u64),
            ("channels_listed", "Live channels in the directory.", totals.listed as u64),
            (
                "channels_taken_down",
                "Known channels that the operator's lists exclude.",
                totals.taken_down as u64,
            ),
            ("sources", "Proven sources.", totals.sources as u64),
            ("viewers", "Viewers.", totals.viewers as u64),
            ("connections", "Open TCP connections.", read(&self.connections)),
            ("subscribers", "Subscribers to events.", read(&self.subscribers)),
        ];
        for (name, help, value) in gauges {
            family(name, "gauge", help, &[(String::new(), value)]);
        }
        let counters = [
            ("peers_expired_total", "Peers forgotten because they fell silent.", totals.expired),
            (
                "connections_refused_total",
                "TCP connections closed at a limit.",
                read(&self.connections_refused),
            ),
            (
                "rate_limited_total",
                "Requests refused because their address asked too often.",
                read(&self.rate_limited),
            ),
        ];
        for (name, help, value) in counters {
            family(name, "counter", help, &[(String::new(), value)]);
        }
        let types = [("CONNECT", &self.connect), ("FIND", &self.find), ("STAT_REPORT", &self.stat_report)];
        let requests: Vec<_> =
            types.iter().map(|(name, counter)| (format!("{{type=\"{name}\"}}"), read(counter))).collect();
        family("requests_total", "counter", "PPSTP requests with a valid signature.", &requests);
        let names = Self::CODES.iter().zip(&self.refused);
        let refused: Vec<_> =
            names.map(|((_, name), counter)| (format!("{{code=\"{name}\"}}"), read(counter))).collect();
        family("refused_total", "counter", "Requests refused.", &refused);
        if let Some(map) = map {
            let one = |value: u64| [(String::new(), value)];
            if let Some(age_s) = map.age_s {
                let help = "Since it was last shown that the map of the network is the newest.";
                family("map_age_seconds", "gauge", help, &one(age_s));
            }
            family("map_used", "gauge", "Whether peers are chosen by the map.", &one(map.used.into()));
            if let Some(tag) = &map.tag {
                // A tag is printable; these two would end the label.
                let tag = tag.replace('\\', "\\\\").replace('"', "\\\"");
                family(
                    "map_info",
                    "gauge",
                    "The version of the map.",
                    &[(format!("{{version=\"{tag}\"}}"), 1)],
                );
                family("map_pids", "gauge", "Networks in the map.", &one(map.pids as u64));
            }
            let help = "Answers whose peers were chosen by the map.";
            family("answers_by_map_total", "counter", help, &one(totals.answers_by_map));
        }
        text
    }
}
