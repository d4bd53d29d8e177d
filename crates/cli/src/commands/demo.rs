//! `caudal demo`: tracker, source and viewers as separate processes on this machine.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use caudal_node::network::random_key;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::args::DemoArgs;
use crate::run::{COMMIT, END_WITH_STDIN, Failure, print_json, say, until_stopped};
use crate::state::write_key;

/// A process must say that it is ready within this.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// A process must end within this once asked.
const END_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a headless demo runs.
const HEADLESS: Duration = Duration::from_secs(20);
/// Viewers come this far apart.
const VIEWER_STEP: Duration = Duration::from_millis(250);

/// One process of the demo; killed when dropped.
struct Process {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    ready: Value,
}

impl Process {
    async fn start(name: String, args: &[String]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .args(args)
            .arg("--json")
            // Held open for as long as the demo lives: even one that is killed leaves no process behind.
            .env(END_WITH_STDIN, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C reaches the demo alone, which ends the others in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let out = child.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(out).lines();
        let line = tokio::time::timeout(READY_TIMEOUT, lines.next_line()).await;
        let line = line.with_context(|| format!("the {name} did not get ready"))??;
        let Some(line) = line else { bail!("the {name} ended before it was ready; its message is above") };
        let ready =
            serde_json::from_str(&line).with_context(|| format!("the {name} said something odd: {line}"))?;
        Ok(Self { name, child, lines, ready })
    }

    fn told(&self, key: &str) -> String {
        self.ready[key].as_str().unwrap_or_default().to_owned()
    }

    /// Asks it to end; gives its report.
    async fn end(mut self) -> Option<Value> {
        if let Some(id) = self.child.id() {
            let _ = Command::new("kill").arg("-TERM").arg(id.to_string()).status().await;
        }
        let report = tokio::time::timeout(END_TIMEOUT, self.report()).await.ok().flatten();
        // Waiting closes the child's standard input, too.
        let ended = tokio::time::timeout(END_TIMEOUT, self.child.wait()).await;
        if ended.is_err() {
            eprintln!("The {} did not end in time and is killed.", self.name);
        }
        report
    }

    /// The line that is a report; others tell what happened in between.
    async fn report(&mut self) -> Option<Value> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            if let Some(report) =
                serde_json::from_str::<Value>(&line).ok().filter(|line| line["schema"].is_u64())
            {
                return Some(report);
            }
        }
        None
    }
}

pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let duration = args.duration.or(args.headless.then_some(HEADLESS));
    let mut stop = until_stopped(None)?;
    let started = tokio::select! {
        started = start(&args) => started?,
        _ = stop.wait_for(|stop| *stop) => return Err(Failure::NotOk),
    };
    let Running { tracker, source, viewers } = started;
    let (tracker_url, link) = (tracker.told("http"), source.told("link"));
    if !args.json {
        say!("\nOn the air. Open the page of one of the viewers:\n  {}", viewers[0].told("page"));
        say!(
            "and the broadcaster's desk:\n  {}\nOr watch it as one of the viewers does:",
            source.told("page")
        );
        for viewer in viewers.iter().take(3) {
            say!("  mpv {}/live.mp4", viewer.told("http"));
        }
        say!("or join from another terminal:\n  caudal watch '{link}' --player mpv");
        say!("How it goes: {}/api/v1/stats   channels: {tracker_url}/v1/channels", viewers[0].told("http"));
        say!(
            "{}",
            duration
                .map_or_else(|| "Ctrl-C ends it.".to_owned(), |d| format!("Running for {} s …", d.as_secs()))
        );
    }
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = over => {}
    }
    let mut reports = Vec::new();
    for viewer in viewers {
        reports.push((viewer.name.clone(), viewer.end().await));
    }
    let source = source.end().await;
    tracker.end().await;
    conclude(&args, &reports, source.as_ref())
}

/// What a demo consists of. Dropping it ends every process.
struct Running {
    tracker: Process,
    source: Process,
    viewers: Vec<Process>,
}

/// The key of a demo's channel, needed until the source has read it.
struct KeyFile(std::path::PathBuf);

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn start(args: &DemoArgs) -> Result<Running> {
    let text = |s: &str| s.to_owned();
    let say = |line: String| {
        if !args.json {
            eprintln!("{line}");
        }
    };
    say("Starting the tracker …".to_owned());
    let tracker =
        Process::start(text("tracker"), &[text("tracker"), text("--listen"), text("127.0.0.1:0")]).await?;
    let tracker_url = tracker.told("http");
    say(format!("Starting the source with the test card, {} copies …", args.source_copies));
    let keys = KeyFile(std::env::temp_dir().join(format!("caudal-demo-{}.key", std::process::id())));
    write_key(&keys.0, &random_key()?)?;
    let source = [
        "publish",
        "--name",
        "Caudal demo",
        "--input",
        "test",
        "--listed",
        "--tracker",
        &tracker_url,
        "--source-copies",
        &args.source_copies.to_string(),
        "--card-rate",
        &args.rate.to_string(),
        "--key",
        &keys.0.display().to_string(),
    ]
    .map(text);
    let source = Process::start(text("source"), &source).await?;
    drop(keys);
    let link = source.told("link");
    let mut viewers = Vec::new();
    for n in 1..=args.peers {
        say(format!("Starting viewer {n} of {} …", args.peers));
        viewers.push(Process::start(format!("viewer {n}"), &[text("watch"), link.clone()]).await?);
        tokio::time::sleep(VIEWER_STEP).await;
    }
    Ok(Running { tracker, source, viewers })
}

fn conclude(
    args: &DemoArgs,
    reports: &[(String, Option<Value>)],
    source: Option<&Value>,
) -> Result<(), Failure> {
    let number = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let mut checks = Vec::new();
    if !args.json {
        say!(
            "\n{:<10} {:>9} {:>9} {:>11} {:>8} {:>6}",
            "viewer",
            "start",
            "delay p95",
            "continuity",
            "offload",
            "gaps"
        );
    }
    for (name, report) in reports {
        let Some(report) = report else {
            checks.push(json!({ "name": name, "ok": false, "detail": "no report" }));
            continue;
        };
        let whole = number(report, "/parts") > 0.0
            && number(report, "/gaps") == 0.0
            && number(report, "/chunks/missing") == 0.0
            && number(report, "/chunks/late") == 0.0;
        let detail = format!(
            "{} parts, {} gaps, {} late, {} missing",
            number(report, "/parts"),
            number(report, "/gaps"),
            number(report, "/chunks/late"),
            number(report, "/chunks/missing")
        );
        if !args.json {
            say!(
                "{name:<10} {:>6.0} ms {:>6.0} ms {:>9.2} % {:>6.1} % {:>6}",
                number(report, "/startup_ms"),
                number(report, "/chunk_delay_ms/p95"),
                number(report, "/continuity/1500") * 100.0,
                number(report, "/offload_ratio") * 100.0,
                number(report, "/gaps"),
            );
        }
        checks.push(json!({ "name": name, "ok": whole, "detail": detail }));
    }
    let ok = !checks.is_empty() && checks.iter().all(|check| check["ok"] == true);
    if args.json {
        let viewers: Vec<&Value> = reports.iter().filter_map(|(_, report)| report.as_ref()).collect();
        print_json(&json!({
            "schema": caudal_node::report::SCHEMA, "commit": COMMIT, "command": "caudal demo", "peers": args.peers,
            "source": source, "viewers": viewers, "checks": checks, "ok": ok,
        }))?;
    } else {
        if let Some(source) = source {
            let copies = number(source, "/source_copies");
            say!("source     sent the stream {copies:.2} times for {} viewers", reports.len());
        }
        say!("{}", if ok { "Whole: nothing was missing or late." } else { "NOT WHOLE: see above." });
    }
    if ok || !args.headless { Ok(()) } else { Err(Failure::NotOk) }
}
