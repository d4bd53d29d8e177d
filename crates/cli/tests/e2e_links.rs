//! Links that a desktop hands over: registered with the desktop's own files, judged by its own tools, and taken back.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Folder, run_clean};
use serde_json::Value;

const LINK_TYPE: &str = "x-scheme-handler/caudal";

/// `program` with a desktop of the test's own.
fn at_home(program: &Path, home: &Folder) -> Command {
    let mut command = Command::new(program);
    command
        .env("HOME", home.path())
        .env("XDG_DATA_HOME", home.join("data"))
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_DATA_DIRS", home.join("no-system"))
        .env("XDG_CONFIG_DIRS", home.join("no-system"))
        .env_remove("XDG_CURRENT_DESKTOP")
        .env_remove("DESKTOP_SESSION");
    command
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The program under a name that needs every kind of quoting.
fn oddly_named(home: &Folder) -> PathBuf {
    let folder = home.join(r#"it's "my" $HOME, 100% \n `odd`"#);
    std::fs::create_dir(&folder).expect("a folder");
    let program = folder.join("caudal");
    let binary = env!("CARGO_BIN_EXE_caudal");
    if std::fs::hard_link(binary, &program).is_err() {
        std::fs::copy(binary, &program).expect("copied");
    }
    program
}

/// `Exec` as a desktop reads it: escapes of the value, then quotes, then field codes.
fn arguments(entry: &str, link: &str) -> Vec<String> {
    let exec = entry.lines().find_map(|line| line.strip_prefix("Exec=")).expect("an Exec line");
    let exec = exec.replace(r"\\", r"\");
    let (mut arguments, mut is_quoted, mut chars) = (vec![String::new()], false, exec.chars());
    while let Some(c) = chars.next() {
        let last = arguments.last_mut().expect("one at least");
        match c {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => last.extend(chars.next()),
            '%' => match chars.next() {
                Some('u') => last.push_str(link),
                other => last.extend(other),
            },
            ' ' if !is_quoted => arguments.push(String::new()),
            _ => last.push(c),
        }
    }
    arguments
}

#[test]
fn links_are_registered_opened_as_a_strangers_word_and_taken_back() {
    let home = Folder::new();
    let program = oddly_named(&home);
    let others = "[Default Applications]\ntext/html=browser.desktop;\n";
    let list = home.join("config/mimeapps.list");
    std::fs::create_dir(home.join("config")).expect("a folder");
    std::fs::write(&list, others).expect("written");

    let register =
        || json(&at_home(&program, &home).args(["register-links", "--json"]).output().expect("runs"));
    assert_eq!(register()["registered"], true);
    let told = register();
    let file = told["entry"].as_str().expect("a path").to_owned();
    assert!(file.starts_with(&home.join("data").display().to_string()), "{file}");
    // Its errors and its hints go to standard output.
    let complaints = run_clean(Command::new("desktop-file-validate").arg(&file));
    assert_eq!(String::from_utf8_lossy(&complaints), "");
    let ask = || {
        let output = at_home(Path::new("xdg-mime"), &home).args(["query", "default", LINK_TYPE]).output();
        String::from_utf8_lossy(&output.expect("xdg-mime is installed").stdout).trim().to_owned()
    };
    assert_eq!(ask(), Path::new(&file).file_name().expect("a name").to_string_lossy());
    let text = std::fs::read_to_string(&list).expect("there");
    assert_eq!(text.matches(LINK_TYPE).count(), 1, "twice is once: {text}");
    assert!(text.contains("text/html=browser.desktop"));

    // What the desktop would run.
    let entry = std::fs::read_to_string(&file).expect("there");
    let click = |link: &str| {
        let arguments = arguments(&entry, link);
        assert_eq!(Path::new(&arguments[0]), program);
        let output = at_home(Path::new(&arguments[0]), &home).args(&arguments[1..]).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for option in ["--help", "-h", "--version", "--output=/tmp/x", "caudal:x --player=touch"] {
        let (code, said) = click(option);
        assert!(code == Some(2) && said.contains("is not a channel link"), "{option}: {said}");
    }
    let channel = "a".repeat(52);
    for inward in ["http://127.0.0.1:1", "http://localhost:7777", "http://192.168.1.1", "https://router.lan"]
    {
        let (code, said) = click(&format!("caudal:{channel}?tracker={inward}"));
        assert!(code == Some(2) && said.contains(inward) && said.contains("--lan"), "{inward}: {said}");
    }

    let remove = || {
        json(&at_home(&program, &home).args(["register-links", "--remove", "--json"]).output().expect("runs"))
    };
    assert_eq!(remove()["registered"], false);
    assert_eq!(ask(), "");
    assert_eq!(std::fs::read_to_string(&list).expect("there"), others);
    let left: Vec<_> = std::fs::read_dir(home.join("data/applications")).expect("there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(remove()["changed"], serde_json::json!([]), "nothing is left to take back");
}
