//! Tells the binary which commit it was built from, and whether anything had been changed since.

use std::process::Command;

fn main() {
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
