//! `caudal watch --tui` in a real terminal (a pseudo-terminal with a shell, as a person has): what it shows, at which size, and
//! that the terminal is given back as it was.

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Folder, PATIENCE, link, publish_card, signal, tracker, wait_for};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

const S: fn(u64) -> Duration = Duration::from_secs;
/// Runs its arguments, says how they ended, and stays until Enter.
const SHELL: &str = r#""$@"; echo "ended with $?"; read line"#;

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a window has cells")
}

/// A terminal window with a shell in it.
struct Window {
    shell: Child,
    master: File,
    seen: Arc<Mutex<vt100::Parser>>,
}

impl Window {
    /// Runs `caudal ARGS` in a window of 80 by 24; standard output is the window's unless `out` says otherwise.
    fn open(home: &Folder, args: &[&str], out: Option<File>) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("it can be unlocked");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let open = || -> Stdio {
            let flags = OFlags::RDWR | OFlags::NOCTTY;
            let slave: OwnedFd = rustix::fs::open(&name, flags, Mode::empty()).expect("it opens");
            slave.into()
        };
        let shell = Command::new("setsid")
            .args(["--ctty", "sh", "-c", SHELL, "sh", env!("CARGO_BIN_EXE_caudal")])
            .args(args)
            .env("HOME", home.path())
            .env("TERM", "xterm-256color")
            .env_remove("XDG_STATE_HOME")
            .stdin(open())
            .stdout(out.map_or_else(open, Stdio::from))
            .stderr(open())
            .spawn()
            .expect("setsid and sh are there");
        let seen = Arc::new(Mutex::new(vt100::Parser::new(cells(24), cells(80), 0)));
        let window = Self { shell, master: File::from(master), seen: Arc::clone(&seen) };
        window.resize(80, 24);
        let mut master = window.master.try_clone().expect("a second handle");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = master.read(&mut bytes) {
                seen.lock().expect("no panic").process(&bytes[..len]);
            }
        });
        window
    }

    fn resize(&self, columns: u16, rows: u16) {
        let mut seen = self.seen.lock().expect("no panic");
        seen.set_size(cells(rows), cells(columns));
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a terminal has a size");
    }

    fn press(&mut self, keys: &[u8]) {
        self.master.write_all(keys).expect("the terminal takes keys");
    }

    /// The rows of the window.
    fn rows(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("no panic");
        let (_, columns) = seen.screen().size();
        seen.screen().rows(0, columns.get()).collect()
    }

    fn wait_until(&self, what: &str, is: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.rows();
            if is(&rows) {
                return rows;
            }
            assert!(Instant::now() < deadline, "not {what} in time:\n{}", rows.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_for(&self, words: &str) -> Vec<String> {
        self.wait_until(words, |rows| rows.iter().any(|row| row.contains(words)))
    }

    fn is_full_screen(&self) -> bool {
        self.seen.lock().expect("no panic").screen().alternate_screen()
    }

    /// The process of `caudal`.
    fn caudal(&self) -> u32 {
        let id = self.shell.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("it runs");
        children.trim().parse().expect("the shell has one child")
    }

    /// It has ended, and the terminal is as it was before.
    fn is_given_back(&self) {
        let seen = self.seen.lock().expect("no panic");
        assert!(!seen.screen().alternate_screen(), "the alternate screen was left");
        assert!(!seen.screen().hide_cursor(), "the cursor is shown");
        drop(seen);
        let modes = tcgetattr(&self.master).expect("a terminal has modes").local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{modes:?}");
    }

    fn close(mut self) {
        self.press(b"\n");
        wait_for(&mut self.shell, S(5));
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// Nobody answers for that tracker: what is asked and obeyed needs no swarm.
#[test]
fn a_clicked_link_asks_before_anything_is_sent() {
    let home = Folder::new();
    let link = format!("caudal:{}?tracker=https://tracker.invalid&name=Canal%1b%5b2J%201", "a".repeat(52));
    let click = || {
        let window = Window::open(&home, &["watch", "--foreign-link", "--", &link], None);
        let rows = window.wait_for("Watch? [Y]es, [n] without uploading, Ctrl-C: no");
        assert!(rows[0].starts_with("Canal[2J 1"), "{rows:#?}");
        assert!(rows.concat().contains("you upload to them what you watch"), "{rows:#?}");
        assert!(!rows.iter().any(|row| row.contains("Watch it on its page")), "{rows:#?}");
        window
    };
    // Ctrl-D: no answer is no.
    let mut window = click();
    window.press(b"\x04");
    let rows = window.wait_for("ended with 0");
    assert!(!rows.iter().any(|row| row.contains("Watch it on its page")), "{rows:#?}");
    window.close();

    let mut window = click();
    window.press(b"n\n");
    let rows = window.wait_for("Watch it on its page");
    assert!(rows.concat().contains("You upload nothing to them"), "{rows:#?}");
    signal(window.caudal(), "KILL");
    window.wait_for("ended with 137");
    window.close();
}

#[test]
fn the_view_follows_the_broadcast_and_gives_the_terminal_back() {
    let home = Folder::new();
    let tracker = tracker(&home);
    let source = publish_card(&home, &tracker, &[]);
    let link = link(&source);

    let mut window = Window::open(&home, &["watch", &link, "--tui"], None);
    let rows = window.wait_until("live with a full buffer", |rows| {
        rows.iter().any(|row| row.contains("● Live"))
            && rows.last().is_some_and(|row| row.starts_with("▓▓▓▓"))
            && rows.iter().any(|row| row.contains(" source "))
    });
    println!("{}", rows.join("\n"));
    assert!(window.is_full_screen() && rows[0].starts_with("Card"));
    assert!(rows[23].contains(" s ") && rows[23].contains('%') && rows[23].ends_with("p pause"));
    assert!(
        rows.iter().any(|row| row.contains("/live.mp4")) && rows.iter().any(|row| row.contains("#token="))
    );
    assert!(rows.iter().any(|row| row.contains("your network address")), "messages stand in their pane");

    window.resize(40, 10);
    let rows = window.wait_until("drawn anew in 40 by 10", |rows| {
        rows.len() == 10
            && rows[0].starts_with("Card")
            && rows[1].trim_end() == "● Live"
            && rows.iter().any(|row| row.starts_with("source "))
            && rows[9].starts_with("▓")
            && rows[9].ends_with("? help")
    });
    println!("{}", rows.join("\n"));
    window.press(b"?");
    window.wait_for("Ctrl-C  quit");
    window.resize(20, 5);
    window.wait_until("state and gauge", |rows| rows[0].trim() == "Live" && rows[4].starts_with("▓"));
    window.resize(100, 30);
    window.wait_for("Ctrl-C  quit");

    let pressed = Instant::now();
    window.press(b"q");
    let rows = window.wait_for("ended with 0");
    assert!(pressed.elapsed() < S(5), "{:?}", pressed.elapsed());
    assert!(rows.iter().any(|row| row.contains("Received") && row.contains("MB")), "{rows:#?}");
    window.is_given_back();
    window.close();

    // A program reads standard output while a person looks at the view; SIGTERM ends both, and so does a closed window.
    for name in ["TERM", "HUP"] {
        let file = home.join("said.jsonl");
        let out = File::create(&file).expect("a folder of the test's own");
        let window = Window::open(&home, &["watch", &link, "--tui", "--json"], Some(out));
        window.wait_for("● Live");
        signal(window.caudal(), name);
        let said = || std::fs::read_to_string(&file).expect("made");
        window.wait_until("left", |_| said().contains("ended with 0"));
        window.is_given_back();
        let said = said();
        let lines: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(lines[0]["ready"], true);
        assert_eq!(lines.last().expect("a report")["role"], "viewer");
        assert_eq!(said.lines().count(), lines.len() + 1, "JSON, and the shell's word: {said}");
        window.close();
    }

    // The broadcast ends, and the view with it.
    let window = Window::open(&home, &["watch", &link, "--tui"], None);
    window.wait_for("● Live");
    source.end();
    let rows = window.wait_for("ended with 0");
    assert!(rows.iter().any(|row| row.contains("ended the broadcast")), "{rows:#?}");
    window.is_given_back();
    window.close();
}

#[test]
fn a_view_that_makes_no_sense_is_refused_in_words() {
    let home = Folder::new();
    let link = format!("caudal:{}?tracker=http://127.0.0.1:1", "a".repeat(52));
    for (other, words) in
        [(&["--json"][..], "--json would write across it"), (&["--output", "-"], "--output -")]
    {
        let window = Window::open(&home, &[&["watch", &link, "--tui"], other].concat(), None);
        let rows = window.wait_for("ended with 2");
        assert!(rows.concat().contains(words), "{rows:#?}");
        window.close();
    }
    // A session of its own has no terminal.
    let mut run = Command::new("setsid");
    run.args([env!("CARGO_BIN_EXE_caudal"), "watch", &link, "--tui"]).env("HOME", home.path());
    let ended = run.stdin(Stdio::null()).output().expect("setsid is there");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("there is none") && said.contains("--json"), "{said}");
}
