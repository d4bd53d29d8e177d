//! What a device has sent, moment by moment: the most that ever left it within a second.
//!
//! Read ten times a second from the kernel's counters of one namespace, from the IP header on.

use super::netns::{self, ETHERNET_HEADER_BYTES};
use anyhow::{Context, Result, anyhow};
use std::fs::File;
use std::io::{Read, Seek};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between one look at the counters and the next.
const INTERVAL: Duration = Duration::from_millis(100);

/// A counter over time: seconds, and the total by then.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<(f64, u64)>);

impl Series {
    /// The total was `total` at `at_s`, which is never before the last.
    pub(super) fn push(&mut self, at_s: f64, total: u64) {
        self.0.push((at_s, total));
    }

    /// The last moment that is known.
    pub(super) fn last_s(&self) -> Option<f64> {
        self.0.last().map(|(at_s, _)| *at_s)
    }

    /// The total at a moment, on a straight line between those known.
    fn at(&self, at_s: f64) -> f64 {
        let after = self.0.partition_point(|(known_s, _)| *known_s < at_s);
        let before = after.checked_sub(1).and_then(|before| self.0.get(before));
        match (before, self.0.get(after)) {
            (Some((from_s, from)), Some((to_s, to))) => {
                let share = (at_s - from_s) / (to_s - from_s);
                *from as f64 + (*to as f64 - *from as f64) * share
            }
            (Some((_, total)), None) | (None, Some((_, total))) => *total as f64,
            (None, None) => 0.0,
        }
    }

    /// By how much the total grew.
    pub(super) fn between(&self, from_s: f64, to_s: f64) -> f64 {
        self.at(to_s) - self.at(from_s)
    }

    /// The most by which it grew in any window of so many seconds; `None` where none so long is known.
    pub(super) fn most_in(&self, seconds: f64) -> Option<f64> {
        let (first, last) = (self.0.first()?.0, self.0.last()?.0);
        // Between straight lines the most lies where a window begins or ends at a known moment.
        let begins = self.0.iter().flat_map(|(at_s, _)| [*at_s, at_s - seconds]);
        begins
            .filter(|at_s| *at_s >= first && at_s + seconds <= last)
            .map(|at_s| self.between(at_s, at_s + seconds))
            .max_by(f64::total_cmp)
    }
}

/// Looks at a device until it is told to end.
pub(super) struct Meter {
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<Result<Series>>>,
}

impl Meter {
    /// Begins to look at what `device` in `namespace` sends; moments count from `began`.
    pub(super) fn start(namespace: &str, device: &'static str, began: Instant) -> Result<Self> {
        // The file stays that of the namespace in which it was opened.
        let mut counters =
            netns::inside(namespace, || File::open("/proc/thread-self/net/dev").map_err(Into::into))
                .context("cannot read the counters of a namespace")?;
        sent(&mut counters, device)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let worker = std::thread::spawn(move || {
            let mut series = Series::default();
            while !told.load(Ordering::Relaxed) {
                series.push(began.elapsed().as_secs_f64(), sent(&mut counters, device)?);
                std::thread::sleep(INTERVAL);
            }
            Ok(series)
        });
        Ok(Self { stop, worker: Some(worker) })
    }

    /// Ends, with all that was seen.
    pub(super) fn end(mut self) -> Result<Series> {
        self.stop.store(true, Ordering::Relaxed);
        let worker = self.worker.take().context("the meter has ended")?;
        worker.join().map_err(|_| anyhow!("the meter panicked"))?
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn sent(counters: &mut File, device: &str) -> Result<u64> {
    let mut text = String::new();
    counters.rewind().and_then(|()| counters.read_to_string(&mut text)).context("cannot read counters")?;
    sent_in(&text, device).with_context(|| format!("there is no device {device}"))
}

/// IP bytes sent: columns 9 and 10 behind the device's name are bytes and packets.
fn sent_in(text: &str, device: &str) -> Option<u64> {
    let (_, columns) =
        text.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == device)?;
    let columns: Vec<u64> = columns.split_whitespace().map_while(|column| column.parse().ok()).collect();
    Some(columns.get(8)?.saturating_sub(ETHERNET_HEADER_BYTES * columns.get(9)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[(f64, u64)]) -> Series {
        Series(points.to_vec())
    }

    #[test]
    fn a_window_need_not_begin_where_the_counter_was_read() {
        // 100 a second, but for 300 between 0.5 s and 1 s.
        let series = series(&[(0.0, 0), (0.5, 50), (1.0, 350), (3.0, 550)]);
        assert_eq!(series.between(0.25, 0.75), 25.0 + 150.0);
        assert_eq!(series.most_in(1.0), Some(350.0));
        assert_eq!(series.most_in(0.5), Some(300.0));
        assert_eq!(series.most_in(4.0), None, "nothing so long was seen");
    }

    #[test]
    fn outside_of_what_was_seen_nothing_grows() {
        let series = series(&[(1.0, 10), (2.0, 20)]);
        assert_eq!((series.between(0.0, 1.0), series.between(2.0, 9.0)), (0.0, 0.0));
        assert_eq!(Series::default().between(0.0, 1.0), 0.0);
        assert_eq!(Series::default().most_in(1.0), None);
    }

    #[test]
    fn what_was_sent_is_counted_from_the_ip_header_on() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                    lo:       5       1    0    0    0     0          0         0        9       1    0\n  \
                    eth0:    1514       1    0    0    0     0          0         0    15140      10    0\n";
        assert_eq!(sent_in(text, "eth0"), Some(15_000));
        assert_eq!(sent_in(text, "eth1"), None);
    }
}
