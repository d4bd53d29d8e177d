//! Tells the binary which commit it was built from, and whether anything had been changed since; embeds the page where
//! `cargo xtask web` has built it, or the folder that `CAUDAL_WEB` names.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the page's build puts it.
const PAGE: &str = "../../web/dist";

fn main() {
    embed_page();
    let git = |args: &[&str]| Command::new("git").args(args).output().ok().filter(|out| out.status.success());
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let commit =
        commit.map_or_else(|| "unknown".into(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let changes = git(&["status", "--porcelain", "--untracked-files=no", "--", "..", "../../Cargo.lock"]);
    let is_changed = changes.is_some_and(|out| !out.stdout.is_empty());
    println!("cargo:rustc-env=CAUDAL_COMMIT={commit}{}", if is_changed { "-dirty" } else { "" });
    println!("cargo:rerun-if-changed=..");
    // HEAD changes when another branch is checked out, its log with every commit.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo:rerun-if-changed={}", String::from_utf8_lossy(&path.stdout).trim());
        }
    }
}

/// Writes `page.rs`: a list of paths and bytes, empty without the page.
fn embed_page() {
    println!("cargo:rerun-if-env-changed=CAUDAL_WEB");
    let folder = std::env::var_os("CAUDAL_WEB").map_or_else(|| PathBuf::from(PAGE), PathBuf::from);
    // The parent too: a folder that appears is a change.
    println!("cargo:rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    if let Ok(folder) = folder.canonicalize() {
        collect(&folder, &folder, &mut files);
    }
    files.sort();
    let mut text = String::from("&[\n");
    for (name, path) in files {
        let _ = writeln!(text, "    ({name:?}, include_bytes!({path:?})),");
    }
    text.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    std::fs::write(out.join("page.rs"), text).expect("cargo gives a folder that can be written");
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(root, &path, files);
        } else if let (Ok(name), Some(full)) = (path.strip_prefix(root), path.to_str()) {
            files.push((name.to_string_lossy().replace('\\', "/"), full.to_owned()));
        }
    }
}
