//! Where the workspace is, and what `cargo metadata` says about it. Never changes a file.

use crate::sh;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's root: the parent of xtask's own folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies one level below the workspace's root")
}

/// `cargo metadata`, with every dependency or only the workspace's own packages.
pub(crate) fn metadata(with_dependencies: bool) -> Result<Value> {
    let mut command = sh::cargo();
    command.current_dir(root()).args(["metadata", "--format-version", "1", "--all-features"]);
    if !with_dependencies {
        command.arg("--no-deps");
    }
    serde_json::from_str(&sh::output(&mut command)?).context("cargo metadata wrote no JSON")
}

/// The folder that cargo builds into.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = metadata(false)?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(dir))
}

/// Builds `caudal` in a profile of `Cargo.toml` (`release`, `dist`), and says where it is.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    let mut build = sh::cargo();
    build.current_dir(root()).args([
        "build",
        "--profile",
        profile,
        "--package",
        "caudal-cli",
        "--bin",
        "caudal",
    ]);
    sh::must(
        &format!("building caudal, profile {profile} (minutes the first time, seconds later)"),
        &mut build,
    )?;
    Ok(target_dir()?.join(profile).join("caudal"))
}

/// The commit that is checked out, with `-dirty` when files differ from it; `unknown` outside a repository.
pub(crate) fn commit() -> String {
    let git = |args: &[&str]| sh::output(Command::new("git").current_dir(root()).args(args));
    let Ok(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    // The documents that benchmarks write are not what is measured.
    let dirty = git(&["status", "--porcelain", "--", "Cargo.toml", "Cargo.lock", "crates", "xtask"]);
    let dirty = dirty.is_ok_and(|changed| !changed.trim().is_empty());
    format!("{}{}", head.trim(), if dirty { "-dirty" } else { "" })
}

/// Names of the workspace's integration tests (file or folder names below `tests/`), each once, in order.
pub(crate) fn integration_tests(metadata: &Value) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        for target in package["targets"].as_array().into_iter().flatten() {
            let is_test =
                target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"));
            if let (true, Some(name)) = (is_test, target["name"].as_str()) {
                names.push(name.to_owned());
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("crates/proto/Cargo.toml").is_file());
    }

    #[test]
    fn integration_tests_are_listed_once_and_nothing_else_is() {
        let metadata = serde_json::json!({"packages": [
            {"targets": [{"kind": ["lib"], "name": "caudal_net"}, {"kind": ["test"], "name": "driver"}]},
            {"targets": [{"kind": ["bin"], "name": "caudal"}, {"kind": ["test"], "name": "e2e_demo"},
                         {"kind": ["test"], "name": "driver"}]},
        ]});
        assert_eq!(integration_tests(&metadata), ["driver", "e2e_demo"]);
    }
}
