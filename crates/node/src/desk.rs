//! The broadcaster's side of a source: what stands on the desk, what was measured over the last minutes, and stop.
//!
//! Viewers, offload and continuity are the trackers' figures, which viewers report. Holds the stream key: whoever serves a desk
//! asks for the token first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caudal_proto::id::SecretKey;
use caudal_tracker::client::{ClientError, TrackerClient};
use caudal_tracker::link::Link;
use caudal_tracker::message::Quality;
use caudal_tracker::url::AllowedUrl;
use qrcode::QrCode;
use qrcode::render::svg;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock::unix_ms;
use crate::source::{InputKind, Shared};

/// A point of the history is taken this often.
const HISTORY_PERIOD: Duration = Duration::from_secs(5);
/// Ten minutes.
const HISTORY_MAX: usize = 120;
/// A tracker that does not say within this how the channel goes is not waited for.
const ASK_MAX: Duration = Duration::from_secs(2);
/// What headers and control add to the chunks that are sent, as measured (docs/benchmarks.md).
const HEADERS: f64 = 0.1;
/// Thirty days.
const MONTH_S: f64 = 30.0 * 24.0 * 3600.0;
/// Least width of the QR code, units of the picture.
const QR_WIDTH: u32 = 200;

/// What stands on the desk and does not change.
#[derive(Debug, Clone)]
pub struct DeskConfig {
    /// The channel's name.
    pub name: String,
    /// More about it.
    pub description: String,
    /// Its language.
    pub language: String,
    /// The channel's link.
    pub link: Link,
    /// What to type into an encoder: URL and stream key.
    pub rtmp: Option<(String, String)>,
    /// Where the stream comes from.
    pub input: InputKind,
    /// Most upload, bit/s.
    pub upload_limit_bps: Option<u64>,
    /// What a gigabyte that this node sends costs, in whatever currency.
    pub price_per_gb: Option<f64>,
}

/// What sending for a month as in the last minutes comes to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Estimate {
    gigabytes: f64,
    cost: Option<f64>,
}

impl Estimate {
    /// `None` where nothing was measured.
    fn of(history: &VecDeque<Point>, price_per_gb: Option<f64>) -> Option<Self> {
        if history.is_empty() {
            return None;
        }
        let mean = history.iter().map(|point| point.upload_bps as f64).sum::<f64>() / history.len() as f64;
        let gigabytes = mean * (1.0 + HEADERS) / 8e9 * MONTH_S;
        Some(Self { gigabytes, cost: price_per_gb.map(|price| gigabytes * price) })
    }
}

/// How it went at one time. What nobody has told is absent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Point {
    /// Since the Unix epoch.
    at_ms: u64,
    viewers: Option<u32>,
    offload: Option<f64>,
    continuity: Option<f64>,
    upload_bps: u64,
}

/// A source's desk.
#[derive(Debug)]
pub struct Desk {
    config: DeskConfig,
    qr: String,
    shared: Arc<Shared>,
    end: watch::Sender<bool>,
    history: Mutex<VecDeque<Point>>,
    /// What viewers report on the whole, where enough of them do.
    audience: Mutex<Option<Quality>>,
}

impl Desk {
    /// Opens the desk of `shared`; `end` ends the broadcast. Measures for as long as the node lives.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn open(
        config: DeskConfig,
        trackers: &[AllowedUrl],
        key: &SecretKey,
        shared: Arc<Shared>,
        end: watch::Sender<bool>,
    ) -> Result<Arc<Self>, ClientError> {
        let clients = trackers.iter().map(|url| TrackerClient::new(url.clone(), key.clone()));
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        // A link is at most 2,048 bytes, which a QR code holds; one that did not would only be missing its picture.
        let qr = QrCode::new(config.link.to_string()).map_or_else(
            |_| String::new(),
            |code| code.render::<svg::Color<'_>>().min_dimensions(QR_WIDTH, QR_WIDTH).build(),
        );
        let desk =
            Arc::new(Self { config, qr, shared, end, history: Mutex::default(), audience: Mutex::default() });
        tokio::spawn(Arc::clone(&desk).measure(clients));
        Ok(desk)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Point>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn measure(self: Arc<Self>, clients: Vec<TrackerClient>) {
        let mut ticks = tokio::time::interval(HISTORY_PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut view = None;
            for client in &clients {
                let asked = tokio::time::timeout(ASK_MAX, client.channel(&self.config.link.channel)).await;
                view = asked.ok().and_then(Result::ok);
                if view.is_some() {
                    break;
                }
            }
            let quality = view.as_ref().and_then(|view| view.quality.clone());
            self.audience.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&quality);
            let mut history = self.lock();
            if history.len() == HISTORY_MAX {
                history.pop_front();
            }
            history.push_back(Point {
                at_ms: unix_ms(),
                viewers: view.map(|view| view.viewers),
                offload: quality.as_ref().and_then(|quality| quality.offload_ratio),
                continuity: quality.as_ref().and_then(|quality| quality.continuity),
                upload_bps: self.shared.gauge().rate_out_bps,
            });
        }
    }

    /// All of it, as JSON.
    pub fn view(&self, session: Option<&str>) -> Value {
        let config = &self.config;
        json!({
            "name": config.name, "description": config.description, "language": config.language,
            "listed": self.shared.is_listed(), "link": config.link.to_string(),
            "rtmp_url": config.rtmp.as_ref().map(|rtmp| &rtmp.0),
            "stream_key": config.rtmp.as_ref().map(|rtmp| &rtmp.1),
            "input": config.input, "qr": self.qr, "history": *self.lock(), "session": session,
            "upload_limit_bps": config.upload_limit_bps, "price_per_gb": config.price_per_gb,
            "month_estimate": Estimate::of(&self.lock(), config.price_per_gb), "delivery": self.shared.delivery(),
            "audience": *self.audience.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// The newest traced chunk, as JSON; `null` before there is one.
    pub fn trace(&self) -> Value {
        json!({ "trace": self.shared.traces.newest() })
    }

    /// Lists the channel in directories, or no longer.
    pub fn list(&self, listed: bool) {
        self.shared.list(listed);
    }

    /// Ends the broadcast in order.
    pub fn stop(&self) {
        self.end.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_what_the_last_minutes_make_of_it() {
        let point =
            |upload_bps| Point { at_ms: 0, viewers: None, offload: None, continuity: None, upload_bps };
        assert_eq!(Estimate::of(&VecDeque::new(), Some(1.0)), None);
        let told = Estimate::of(&VecDeque::from([point(0), point(8_000_000)]), Some(0.05)).expect("measured");
        // 4 Mbit/s and a tenth for 2,592,000 s.
        assert!(
            (told.gigabytes - 1425.6).abs() < 0.1 && (told.cost.expect("a price") - 71.28).abs() < 0.01,
            "{told:?}"
        );
        assert_eq!(Estimate::of(&VecDeque::from([point(1)]), None).and_then(|told| told.cost), None);
    }
}
