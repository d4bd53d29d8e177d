//! Peers, sources and trackers die as processes do, and who watches goes on watching.

mod common;

use std::time::{Duration, Instant};

use common::{Caudal, Folder, link, number, tracker};
use serde_json::Value;

const S: fn(u64) -> Duration = Duration::from_secs;

fn publish(home: &Folder, tracker_url: &str) -> Caudal {
    Caudal::start(
        home,
        &[
            "publish",
            "--name",
            "Churn",
            "--input",
            "test",
            "--tracker",
            tracker_url,
            "--card-rate",
            "1M",
            "--card-size",
            "640x360",
            "--source-copies",
            "2",
        ],
    )
}

fn watchers(home: &Folder, link: &str, count: usize) -> Vec<Caudal> {
    let viewers: Vec<Caudal> = (0..count).map(|_| Caudal::start(home, &["watch", link])).collect();
    for viewer in &viewers {
        viewer.wait_until("playing", S(20), |stats| number(stats, "/parts") >= 5.0);
    }
    viewers
}

fn lost(stats: &Value) -> f64 {
    number(stats, "/chunks/late") + number(stats, "/chunks/missing")
}

/// `kill -9` on one viewer, then on two at once: no other loses a chunk at 1.5 s playout delay.
#[test]
fn viewers_die_and_the_others_lose_nothing() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish(&home, tracker.told("http"));
    let mut viewers = watchers(&home, &link(&source), 7);
    std::thread::sleep(S(4));
    // Those that most depend on, first.
    let by_children = |viewers: &mut Vec<Caudal>| {
        viewers.sort_by_key(|viewer| {
            let stats = viewer.stats();
            let peers = stats["peers"].as_array().cloned().unwrap_or_default();
            peers.iter().map(|peer| peer["child_in"].as_u64().unwrap_or(0)).sum::<u64>()
        });
    };
    let before: Vec<f64> = viewers.iter().map(|viewer| lost(&viewer.stats())).collect();
    assert!(before.iter().all(|lost| *lost == 0.0), "before anybody died: {before:?}");
    by_children(&mut viewers);
    viewers.pop().expect("seven").kill();
    std::thread::sleep(S(5));
    by_children(&mut viewers);
    let mut two = viewers.split_off(4);
    two.iter_mut().for_each(Caudal::kill);
    std::thread::sleep(S(12));
    for viewer in viewers {
        let (report, status) = viewer.end();
        assert_eq!(lost(&report), 0.0, "{report}");
        assert_eq!(number(&report, "/gaps"), 0.0);
        assert_eq!(
            report["dropped"].as_array().map(Vec::len),
            Some(0),
            "honest peers were dropped: {report}"
        );
        assert!(status.success());
    }
}

/// The source is killed and started again: viewers go on within 2 s of its first key frame, without being told.
#[test]
fn a_source_comes_back_and_viewers_resume() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let mut source = publish(&home, tracker.told("http"));
    let viewers = watchers(&home, &link(&source), 4);
    source.kill();
    std::thread::sleep(S(3));
    let parts: Vec<f64> = viewers.iter().map(|viewer| number(&viewer.stats(), "/parts")).collect();
    let source = publish(&home, tracker.told("http"));
    source.wait_until("live", S(20), |stats| stats["state"] == "live");
    let first_key = Instant::now();
    for (viewer, parts) in viewers.iter().zip(parts) {
        viewer.wait_until("resumed", S(10), |stats| number(stats, "/parts") > parts);
        println!("resumed {:?} after the first part was out", first_key.elapsed());
    }
    let took = first_key.elapsed();
    assert!(took < S(2), "{took:?}");
}

/// The tracker is restarted: nothing that plays stops, and newcomers join within 5 s.
#[test]
fn a_tracker_restarts_and_newcomers_join() {
    let home = Folder::new();
    let mut first = tracker(&home);
    let url = first.told("http").to_owned();
    let source = publish(&home, &url);
    let viewers = watchers(&home, &link(&source), 3);
    first.kill();
    std::thread::sleep(S(3));
    let addr = url.trim_start_matches("http://").to_owned();
    let _second = Caudal::start(&home, &["tracker", "--listen", &addr]);
    let started = Instant::now();
    let newcomer = Caudal::start(&home, &["watch", &link(&source)]);
    newcomer.wait_until("playing", S(10), |stats| number(stats, "/parts") >= 1.0);
    let took = started.elapsed();
    assert!(took < S(5), "{took:?}");
    for viewer in viewers {
        let (report, _) = viewer.end();
        assert_eq!((lost(&report), number(&report, "/gaps")), (0.0, 0.0), "{report}");
    }
}

/// The operator takes the channel down: viewers stop and say why, the source too, and the directory forgets it.
#[test]
fn a_takedown_reaches_viewers() {
    let home = Folder::new();
    let deny = home.join("deny.txt");
    std::fs::write(&deny, "# nothing yet\n").expect("written");
    let deny_path = deny.display().to_string();
    let tracker = Caudal::start(&home, &["tracker", "--listen", "127.0.0.1:0", "--deny", &deny_path]);
    let source = publish(&home, tracker.told("http"));
    let viewer = watchers(&home, &link(&source), 1).remove(0);
    std::fs::write(&deny, format!("{} a court said so\n", source.told("channel"))).expect("written");
    let started = Instant::now();
    let (status, _, said) = viewer.ended();
    assert!(started.elapsed() < S(6), "{:?}", started.elapsed());
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("taken down") && said.contains("a court said so"), "{said}");
    let (status, _, said) = source.ended();
    assert_eq!(status.code(), Some(3), "{said}");
}
