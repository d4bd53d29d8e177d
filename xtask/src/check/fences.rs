//! The map of `ARCHITECTURE.md`, held: which crate of ours may depend on which, and that each obeys the workspace's lints
//! (`unsafe_code = "forbid"` among them). What only tests use (`dev-dependencies`) is free.

use crate::{sh, workspace};
use anyhow::{Context, Result};
use serde_json::Value;

/// A crate, and those of ours that it may depend on.
const FENCES: &[(&str, &[&str])] = &[
    ("caudal-proto", &[]),
    ("caudal-alto", &[]),
    ("caudal-media", &[]),
    ("caudal-net", &["caudal-proto"]),
    ("caudal-tracker", &["caudal-proto", "caudal-alto"]),
    ("caudal-node", &["caudal-proto", "caudal-alto", "caudal-media", "caudal-net", "caudal-tracker"]),
    ("caudal-sim", &["caudal-proto", "caudal-alto"]),
    (
        "caudal-cli",
        &[
            "caudal-proto",
            "caudal-alto",
            "caudal-media",
            "caudal-net",
            "caudal-tracker",
            "caudal-node",
            "caudal-sim",
        ],
    ),
    ("xtask", &[]),
];

/// Reports crates that depend on what they must not know; true when there are none.
pub(super) fn run() -> Result<bool> {
    let metadata = workspace::metadata(false)?;
    let mut complaints = complaints(&metadata)?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().context("a package without manifest")?;
        let text = std::fs::read_to_string(manifest).with_context(|| format!("cannot read {manifest}"))?;
        let table: toml::Table = text.parse().with_context(|| format!("{manifest} is not TOML"))?;
        let inherits =
            table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        if inherits != Some(true) {
            complaints.push(format!("{} lacks `[lints] workspace = true`", package["name"]));
        }
    }
    sh::say(&format!("{} crates: who may depend on whom, and the workspace's lints", FENCES.len()));
    for complaint in &complaints {
        eprintln!("    {complaint}");
    }
    Ok(complaints.is_empty())
}

fn complaints(metadata: &Value) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
        let name = package["name"].as_str().context("a package without name")?;
        let Some((_, allowed)) = FENCES.iter().find(|(fenced, _)| *fenced == name) else {
            complaints.push(format!("{name} is new: say in xtask/src/check/fences.rs what it may depend on"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let ours = FENCES.iter().any(|(fenced, _)| *fenced == on);
            if ours && dependency["kind"] != "dev" && !allowed.contains(&on) {
                complaints.push(format!("{name} must not depend on {on}: see the map in ARCHITECTURE.md"));
            }
        }
    }
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn media_on(name: &str, kind: Option<&str>) -> Vec<String> {
        let dependencies = json!([{"name": "bytes", "kind": null}, {"name": name, "kind": kind}]);
        complaints(&json!({"packages": [{"name": "caudal-media", "dependencies": dependencies}]})).unwrap()
    }

    #[test]
    fn media_must_not_know_peers_but_its_tests_may() {
        assert_eq!(
            media_on("caudal-proto", None),
            ["caudal-media must not depend on caudal-proto: see the map in ARCHITECTURE.md"]
        );
        assert_eq!(media_on("caudal-proto", Some("build")).len(), 1);
        assert_eq!(media_on("caudal-proto", Some("dev")), [""; 0]);
    }

    #[test]
    fn a_new_crate_needs_a_place_on_the_map() {
        let found = complaints(&json!({"packages": [{"name": "caudal-edge", "dependencies": []}]})).unwrap();
        assert!(found[0].contains("caudal-edge is new"), "{found:?}");
    }
}
