//! Scenes of every kind in windows of every size.

use caudal_tracker::text::is_plain;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

const STATES: [State; 6] =
    [State::Joining, State::Live, State::Waiting, State::Ended, State::TakenDown, State::Unreachable];

fn peer(n: u8) -> PeerReport {
    PeerReport {
        peer: format!("{n:02}abcdefghijklmnop"),
        source: n == 0,
        useful_bytes_in: 1_000_000,
        bytes_out: 1_000_000,
        rtt_ms: 12.4,
        parent_in: 2,
        child_in: 1,
        rate_in_bps: 1_250_000,
        rate_out_bps: 64_000,
        substreams_in: vec![0, 3],
        substreams_out: vec![5],
        inside: None,
    }
}

fn scene(state: State, peers: u8) -> Scene {
    Scene {
        title: "Canal Río".to_owned(),
        addresses: Addresses {
            page: "http://127.0.0.1:40123/#token=abcdefghijklmnopqrstuvwxyz".to_owned(),
            live: "http://127.0.0.1:40123/live.mp4".to_owned(),
            playlist: "http://127.0.0.1:40123/hls/index.m3u8".to_owned(),
        },
        state,
        reason: matches!(state, State::TakenDown | State::Unreachable)
            .then(|| "because of a reason".to_owned()),
        silent: Some(Duration::from_secs(12)),
        age: Duration::from_secs(3723),
        gauge: Gauge {
            edge_behind_ms: Some(840),
            buffer_ms: 900,
            rate_bps: 2_100_000,
            rate_in_bps: 2_200_000,
            rate_out_bps: 640_000,
            ..Gauge::default()
        },
        playing: None,
        chunk_delay_ms: 41.0,
        offload_ratio: 0.874,
        network: None,
        inside: [None; 2],
        continuity: Some(0.9996),
        stalls: 2,
        gaps: 1,
        missing: 3,
        due: 12_345,
        received_bytes: 12_000_000,
        sent_bytes: 3_000_000,
        startup_ms: Some(412.0),
        peers: (0..peers).map(peer).collect(),
        received_bps: (0..90).map(|n| n * 20_000).collect(),
        log: (0..30)
            .map(|n| Line { at: Duration::from_secs(n), text: format!("message {n} with some words in it") })
            .collect(),
    }
}

/// The window's rows, and how many neighbours it shows.
fn drawn(scene: &Scene, place: Place, width: u16, height: u16) -> (Vec<String>, usize) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut shown = 0;
    terminal.draw(|frame| shown = draw(scene, place, frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = (0..height)
        .map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>())
        .collect::<Vec<_>>();
    assert!(rows.iter().flat_map(|row| row.chars()).all(is_plain), "{rows:?}");
    (rows, shown)
}

fn text(scene: &Scene, width: u16, height: u16) -> String {
    drawn(scene, Place::default(), width, height).0.join("\n")
}

#[test]
fn a_usual_window_shows_all_of_it() {
    let text = text(&scene(State::Live, 3), 80, 24);
    for words in [
        "Canal Río",
        "1:02:03",
        "● Live",
        "Behind the source 0.8 s",
        "From viewers 87.4 %",
        "In 2.2 Mbit/s",
        "Out 640 kbit/s",
        "In time 99.9 %",
        "Missing 3 of 12345 chunks",
        "Standstills 2",
        "Received in the last two minutes, at most 1.8 Mbit/s",
        "3 send to you, you send to 3",
        "00abcdef source",
        "1.25 M",
        "64 k",
        "0 3",
        "#token=abcdefghijklmnopqrstuvwxyz",
        "/live.mp4",
        "0:29  message 29",
        "q quit",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("▓▓▓▓▓▓░░░░ 0.9 s 60 %"), "the gauge is at the bottom left: {last}");
    assert!(!text.contains("message 20"), "old messages give way");
}

#[test]
fn ones_own_network_is_named_with_what_stays_inside_it() {
    let mut scene = scene(State::Live, 3);
    assert!(!text(&scene, 80, 24).contains("network"));
    scene.network = Some("isp-a".to_owned());
    scene.inside = [Some(0.874), None];
    let text = text(&scene, 80, 24);
    for words in ["Your network isp-a", "Received inside it 87.4 %", "Sent inside it –"] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
}

#[test]
fn the_rendition_is_named_where_there_are_several() {
    let mut scene = scene(State::Live, 4);
    assert!(!text(&scene, 80, 24).contains("Rendition"));
    let mut playing = Playing { is_auto: true, name: "720p".to_owned(), tried: None, count: 3 };
    scene.playing = Some(playing.clone());
    assert!(text(&scene, 80, 24).contains("Rendition 720p of 3, auto"));
    assert!(text(&scene, 60, 10).contains("Rendition 720p of 3, auto"), "in small windows, too");
    playing = Playing { is_auto: false, tried: Some("1080p".to_owned()), ..playing };
    scene.playing = Some(playing);
    assert!(text(&scene, 80, 24).contains("Rendition 720p → 1080p of 3, by hand"));
}

#[test]
fn every_state_says_what_it_is_and_what_to_do() {
    for (state, words) in STATES.into_iter().zip([
        &["Looking for viewers", "a second"][..],
        &["Live"],
        &["The source is silent", "for 12 s", "by itself"],
        &["has ended"],
        &["Taken down", "because of a reason"],
        &["Nobody can be reached", "because of a reason", "allow UDP", "--lan"],
    ]) {
        for (width, height) in [(80, 24), (200, 60), (60, 14)] {
            let text = text(&scene(state, 0), width, height).replace('\n', " ");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for words in words {
                assert!(
                    text.contains(words),
                    "{state:?} at {width}x{height}: {words:?} is missing in {text}"
                );
            }
            assert!(text.contains("Nobody yet."));
        }
    }
}

#[test]
fn any_window_holds_any_scene() {
    for state in STATES {
        for peers in [0, 1, 40] {
            let mut scene = scene(state, peers);
            scene.title = "A very long name of a channel that goes on 📺 and on ".repeat(3);
            for width in [1, 2, 9, 20, 35, 36, 40, 65, 66, 80, 133, 250] {
                for height in [1, 2, 3, 5, 7, 8, 10, 13, 14, 16, 20, 24, 70] {
                    for help in [false, true] {
                        let place = Place { first: 99, help, ..Place::default() };
                        let (rows, shown) = drawn(&scene, place, width, height);
                        assert!(shown <= usize::from(height));
                        if height > 1 && width >= 20 {
                            assert!(rows.last().is_some_and(|row| row.contains("0.9 s")), "{rows:?}");
                        }
                    }
                }
            }
        }
    }
    let mut empty = Buffer::empty(Rect::ZERO);
    assert_eq!(draw(&scene(State::Live, 3), Place::default(), &mut empty), 0);
}

#[test]
fn a_tiny_window_shows_state_and_gauge_alone() {
    let rows = drawn(&scene(State::Live, 40), Place::default(), 20, 5).0;
    let rows: Vec<_> = rows.iter().map(|row| row.trim_end()).collect();
    assert_eq!(rows, ["Live", "", "", "", "▓▓▓░░ 0.9 s 60 %"]);
    let rows = drawn(&scene(State::Unreachable, 0), Place::default(), 20, 5).0;
    assert_eq!(
        rows[..3].concat().split_whitespace().collect::<Vec<_>>()[..4],
        ["Nobody", "can", "be", "reached"]
    );
}

#[test]
fn a_small_window_shows_the_neighbours_too() {
    let (rows, shown) = drawn(&scene(State::Live, 40), Place::default(), 40, 10);
    assert_eq!(shown, 3, "{rows:#?}");
    assert!(rows[4].contains("1–3 of 40"), "{rows:#?}");
    assert!(rows[6].starts_with("source"), "{rows:#?}");
}

#[test]
fn neighbours_are_scrolled_to_the_end_and_no_further() {
    let scene = scene(State::Live, 40);
    let mut place = Place::default();
    let settle = |place: &mut Place| {
        let (rows, shown) = drawn(&scene, *place, 80, 24);
        place.settle(40, shown);
        rows.join("\n")
    };
    settle(&mut place);
    let page = place.shown;
    assert!(page >= 5);
    place.page(1);
    let text = settle(&mut place);
    assert!(text.contains(&format!("{}–{} of 40", page + 1, 2 * page)), "{text}");
    for _ in 0..20 {
        place.page(1);
    }
    assert!(settle(&mut place).contains("39abcdef"));
    assert_eq!(place.first, 40 - page);
    place.scroll(-1);
    place.scroll(isize::MIN);
    assert_eq!(place.first, 0);
    place.page(-1);
    assert!(settle(&mut place).contains("00abcdef source"));
}

#[test]
fn names_and_messages_cannot_move_the_cursor_or_turn_the_text_around() {
    let mut scene = scene(State::TakenDown, 1);
    let evil = "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{202e}drow\u{200b}\u{9b}31m\r\n\u{feff}y";
    scene.title = evil.to_owned();
    scene.reason = Some(evil.to_owned());
    scene.log = vec![Line { at: Duration::ZERO, text: evil.to_owned() }];
    // `drawn` looks at every cell.
    for (width, height) in [(80, 24), (20, 5)] {
        assert!(text(&scene, width, height).contains("x]0;owned[2Jdrow"));
    }
}

#[test]
fn the_last_two_minutes_fit_any_width() {
    let all: Vec<u64> = (0..120).collect();
    assert_eq!(figures::columns(&all, 200).len(), 120);
    assert_eq!(figures::columns(&all, 60)[59], Some(119));
    assert_eq!(figures::columns(&all, 60)[0], Some(1));
    let young = figures::columns(&all[..3], 120);
    assert_eq!(young[116..], [None, Some(0), Some(1), Some(2)]);
    assert!(figures::columns(&[], 80).iter().all(Option::is_none));
    assert!(figures::columns(&all, 0).is_empty());
}

#[test]
fn words_wrap_between_words_and_long_ones_within() {
    assert_eq!(wrap("one two three", 8), ["one two ", "three"]);
    assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
    assert_eq!(wrap("", 4), [""]);
    assert!(wrap("x", 0).is_empty());
    assert_eq!(wrap("日本語", 4), ["日本", "語"]);
}
