//! The thread of the view: looks at the viewer, draws, reads keys. It ends with the broadcast, or ends it.

use std::collections::VecDeque;
use std::io::{self, BufWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use caudal_node::viewer::Shared;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::messages;

use super::terminal::{self, Screen};
use super::view::{Addresses, HISTORY_MAX, Place, Scene, draw};

/// The view is renewed this often.
const PERIOD: Duration = Duration::from_millis(250);
/// A point of the history is taken this often.
const HISTORY_PERIOD: Duration = Duration::from_secs(1);
/// Keys are waited for no longer than this, so that the end is seen.
const KEYS_WAIT: Duration = Duration::from_millis(50);
/// Keys taken before the next picture: who holds one down sees what it does.
const KEYS_MAX: usize = 32;
/// The thread has this long to end; a terminal that takes nothing holds it up.
const END_MAX: Duration = Duration::from_secs(1);
const END_POLL: Duration = Duration::from_millis(10);

/// What a view is opened with.
#[derive(Debug)]
pub(crate) struct Config {
    /// The channel's name, as its link gives it.
    pub(crate) title: String,
    /// Where else it can be watched.
    pub(crate) addresses: Addresses,
    /// Whom to look at.
    pub(crate) shared: Arc<Shared>,
    /// Since when.
    pub(crate) started: Instant,
    /// True when watching ends.
    pub(crate) ended: watch::Receiver<bool>,
    /// Ends it.
    pub(crate) end: watch::Sender<bool>,
}

/// An open view.
#[derive(Debug)]
pub(crate) struct View {
    closing: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl View {
    /// Takes the terminal and begins to draw.
    ///
    /// # Errors
    /// When the terminal cannot be had.
    pub(crate) fn open(config: Config) -> io::Result<Self> {
        let (end, mut hangups) = (config.end.clone(), signal(SignalKind::hangup())?);
        tokio::spawn(async move {
            // The window was closed: nobody looks any more, and reading keys from it would never end.
            hangups.recv().await;
            end.send_replace(true);
        });
        let screen = BufWriter::new(terminal::take()?);
        let closing = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&closing);
        let spawned = Terminal::new(CrosstermBackend::new(screen)).and_then(|terminal| {
            std::thread::Builder::new().name("view".to_owned()).spawn(move || {
                // Dropped when it ends, however it ends.
                let _end = Ending(config.end.clone());
                App::new(config, told).run(terminal)
            })
        });
        if spawned.is_err() {
            terminal::give_back();
        }
        Ok(Self { closing, thread: spawned? })
    }

    /// Gives the terminal back.
    ///
    /// # Errors
    /// What ended the view before its time.
    pub(crate) async fn close(self) -> io::Result<()> {
        self.closing.store(true, Ordering::Relaxed);
        let asked = Instant::now();
        while !self.thread.is_finished() && asked.elapsed() < END_MAX {
            tokio::time::sleep(END_POLL).await;
        }
        terminal::give_back();
        messages::release();
        if !self.thread.is_finished() {
            // It hangs at a terminal that takes nothing, or that is gone; what was watched is none the worse.
            return Ok(());
        }
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("it broke off")))
    }
}

/// Gives the terminal back and ends the watching when dropped.
struct Ending(watch::Sender<bool>);

impl Drop for Ending {
    fn drop(&mut self) {
        terminal::give_back();
        self.0.send_replace(true);
    }
}

struct App {
    config: Config,
    closing: Arc<AtomicBool>,
    place: Place,
    received_bps: VecDeque<u64>,
    sampled: Option<Instant>,
}

impl App {
    fn new(config: Config, closing: Arc<AtomicBool>) -> Self {
        Self { config, closing, place: Place::default(), received_bps: VecDeque::new(), sampled: None }
    }

    fn run(mut self, mut terminal: Terminal<CrosstermBackend<BufWriter<Screen>>>) -> io::Result<()> {
        let mut scene = self.look();
        let mut looked = Instant::now();
        let mut stale = true;
        while !self.is_over() {
            if !terminal::is_taken() {
                return Err(io::Error::other("something else broke off, and gave the terminal back"));
            }
            if looked.elapsed() >= PERIOD {
                looked = Instant::now();
                let new = self.look();
                if !self.place.paused {
                    scene = new;
                }
                stale = true;
            }
            if std::mem::take(&mut stale) {
                let place = self.place;
                let mut rows = 0;
                terminal.draw(|frame| rows = draw(&scene, place, frame.buffer_mut()))?;
                self.place.settle(scene.peers.len(), rows);
            }
            let mut taken = 0;
            while taken < KEYS_MAX && event::poll(if taken == 0 { KEYS_WAIT } else { Duration::ZERO })? {
                taken += 1;
                stale = true;
                if let Event::Key(key) = event::read()?
                    && key.kind != KeyEventKind::Release
                    && self.key(key)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.closing.load(Ordering::Relaxed) || *self.config.ended.borrow()
    }

    fn look(&mut self) -> Scene {
        let shared = &self.config.shared;
        let (glance, gauge, report) = (shared.glance(), shared.gauge(), shared.last_report());
        if self.sampled.is_none_or(|at| at.elapsed() >= HISTORY_PERIOD) {
            self.sampled = Some(Instant::now());
            if self.received_bps.len() >= HISTORY_MAX {
                self.received_bps.pop_front();
            }
            self.received_bps.push_back(gauge.rate_in_bps);
        }
        let mut peers = report.peers;
        peers.sort_by_key(|peer| std::cmp::Reverse(peer.rate_in_bps + peer.rate_out_bps));
        Scene {
            title: self.config.title.clone(),
            addresses: self.config.addresses.clone(),
            state: glance.state,
            reason: report.reason,
            silent: glance.silent,
            age: self.config.started.elapsed(),
            gauge,
            playing: glance.playing,
            chunk_delay_ms: glance.delay_ms,
            offload_ratio: report.offload_ratio,
            network: report.network.pid.clone(),
            inside: [report.network.received_inside, report.network.sent_inside],
            continuity: (report.chunks.due > 0).then(|| report.continuity.get(&1500).copied().unwrap_or(0.0)),
            stalls: report.stalls,
            gaps: report.gaps,
            missing: report.chunks.missing,
            due: report.chunks.due,
            received_bytes: report.useful_bytes,
            sent_bytes: report.bytes_out,
            startup_ms: report.startup_ms,
            peers,
            received_bps: self.received_bps.iter().copied().collect(),
            log: messages::newest(messages::LINES_MAX),
        }
    }

    /// True: this is enough.
    fn key(&mut self, key: KeyEvent) -> bool {
        let is_ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let place = &mut self.place;
        match key.code {
            KeyCode::Char('c' | 'd') if is_ctrl => return true,
            KeyCode::Esc if place.help => place.help = false,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return true,
            KeyCode::Char('?' | 'h') => place.help = !place.help,
            KeyCode::Char('p') => place.paused = !place.paused,
            KeyCode::Up | KeyCode::Char('k') => place.scroll(-1),
            KeyCode::Down | KeyCode::Char('j') => place.scroll(1),
            KeyCode::PageUp => place.page(-1),
            KeyCode::PageDown => place.page(1),
            KeyCode::Home => place.scroll(isize::MIN),
            KeyCode::End => place.scroll(isize::MAX),
            _ => {}
        }
        false
    }
}
