//! `cargo xtask bench relay` and `bench swarm` as a whole, with a stand-in for `caudal`: namespaces are made and removed, the
//! window is measured right, and Ctrl-C leaves nothing. Without root they must say that they need root.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn relay(args: &[&str]) -> Command {
    bench(&[&["relay", "--viewers", "3"], args].concat())
}

fn bench(args: &[&str]) -> Command {
    bench_with(&[args, &["--runs", "1"]].concat())
}

fn bench_with(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("bench").args(args).args(["--warm-up", "1s", "--caudal"]);
    command.arg(env!("CARGO_BIN_EXE_caudal-stand-in"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

/// Namespaces that the process with this number has made and not removed.
fn namespaces_of(pid: u32) -> Vec<String> {
    let listed = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = listed.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&format!("caudal-bench-{pid}-"))).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a benchmark that ran said and reported; where it cannot run, it must have said what is missing.
fn measured(mut command: Command, needs_tun: bool) -> Option<(Output, Value)> {
    let file = scratch(if needs_tun { "swarm.json" } else { "relay.json" });
    let child = command.arg("--json").arg(&file).spawn().expect("it starts");
    let pid = child.id();
    let done = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(namespaces_of(pid), [""; 0]);
    let lacks = match () {
        () if !is_root() => "root",
        () if needs_tun && !Path::new("/dev/net/tun").exists() => "/dev/net/tun",
        () => {
            let report = std::fs::read_to_string(&file).expect(&said);
            std::fs::remove_file(&file).expect("it is there");
            return Some((done, serde_json::from_str(&report).expect("JSON")));
        }
    };
    assert_eq!(done.status.code(), Some(3), "{said}");
    assert!(said.contains(lacks), "{said}");
    None
}

#[test]
fn a_chain_of_three_is_measured_right() {
    let Some((done, report)) = measured(relay(&["--duration", "2s"]), false) else { return };
    for shape in ["open", "narrow"] {
        let figures = &report["shapes"][shape];
        let figure = |path: &str| {
            figures.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{shape}{path}: {report}"))
        };
        // Each chunk of 1,200 bytes has 28 bytes of headers, and crosses the wire once for each of three viewers. The two
        // ends of the window are not read at the very same moment for everybody, hence the tolerance.
        let near = |path: &str, expected: f64, tolerance: f64| {
            assert!(
                (figure(path) - expected).abs() < tolerance,
                "{shape}{path}: {}, expected {expected}",
                figure(path)
            );
        };
        near("/wire_ratio", 1228.0 / 1200.0, 0.05);
        near("/source_copies", 1228.0 / 1200.0, 0.05);
        near("/offload_ratio", 2.0 / 3.0, 0.02);
        near("/rate_bps", 900_000.0, 100_000.0);
        near("/chunk_delay_ms/p95", 2.0, 1e-9);
        assert_eq!(figure("/oversize_packets"), 0.0);
        assert!(figure("/context_switches_per_second") > 50.0);
    }
    assert!(report["shapes"]["narrow"]["delay_ratio"]["p95"].as_f64().unwrap() < 1.0);
    assert_eq!(done.status.code(), Some(if report["ok"] == true { 0 } else { 1 }));
    assert!(String::from_utf8_lossy(&done.stdout).contains("| wire ÷ useful"));
}

/// Over the link emulator: delays and rates as in the case *hd*, on which the stand-in's chain has no bearing.
#[test]
fn a_chain_of_ten_over_the_emulator_is_measured_right() {
    let run = bench(&["swarm", "--case", "hd", "--duration", "2s"]);
    let Some((done, report)) = measured(run, true) else { return };
    let [case] = &report["cases"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!(case["case"], "hd");
    let [run] = &case["runs"].as_array().unwrap()[..] else { panic!("{report}") };
    for (name, expected, tolerance) in [
        ("wire_ratio", 1228.0 / 1200.0, 0.05),
        ("source_copies", 1228.0 / 1200.0, 0.05),
        ("offload_ratio", 0.9, 0.02),
    ] {
        let figure = run[name].as_f64().unwrap_or_else(|| panic!("no {name}: {report}"));
        assert!((figure - expected).abs() < tolerance, "{name}: {figure}, expected {expected}");
    }
    assert!(case["checks"].as_array().is_some_and(|checks| checks.len() == 4), "{report}");
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(done.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&done.stdout).contains("on time at 1.5 s in the window, worst viewer"));
}

/// Figures for the documentation come from everything that there is to run, and from more than one run.
#[test]
fn one_run_or_one_case_is_not_written_into_the_documentation() {
    let few: [&[&str]; 3] = [
        &["relay", "--write-docs", "--runs", "1"],
        &["swarm", "--write-docs", "--runs", "1"],
        &["swarm", "--write-docs", "--runs", "3", "--case", "hd"],
    ];
    for args in few {
        let done = bench_with(args).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(3), "{said}");
        assert!(said.contains("--runs 3"), "{said}");
    }
}

#[test]
fn an_interrupt_leaves_nothing() {
    if !is_root() {
        let done = relay(&[]).output().unwrap();
        assert_eq!(done.status.code(), Some(3));
        return;
    }
    let child = relay(&["--duration", "60s", "--shape", "open"]).spawn().unwrap();
    let pid = child.id();
    let deadline = Instant::now() + Duration::from_secs(10);
    while namespaces_of(pid).len() < 4 {
        assert!(Instant::now() < deadline, "no namespaces within ten seconds");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid_of_child = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid_of_child, rustix::process::Signal::INT).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&done.stderr).contains("interrupted"));
    assert_eq!(namespaces_of(pid), [""; 0]);
}
