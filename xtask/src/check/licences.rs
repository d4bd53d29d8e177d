//! Licences and banned crates of everything in `Cargo.lock` that can be linked, as `deny.toml` says.
//!
//! cargo-deny does it where it is installed. Elsewhere the same lists are applied to what `cargo metadata` says, so that
//! the check exists everywhere; only cargo-deny looks at advisories, and that it cannot fetch them is not an error.

use crate::{sh, workspace};
use anyhow::{Context, Result};
use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};
use std::process::{Command, Stdio};

/// Checks licences and bans; true when all is allowed.
pub(super) fn run() -> Result<bool> {
    if deny(&["--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
        return with_cargo_deny();
    }
    let path = workspace::root().join("deny.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let rules = Rules::parse(&text)?;
    let metadata = workspace::metadata(true)?;
    let complaints = rules.complaints(&metadata)?;
    let packages = metadata["packages"].as_array().map_or(0, Vec::len);
    sh::say(&format!(
        "licences and bans of {packages} packages by deny.toml (cargo-deny is not installed: no look at advisories)"
    ));
    for complaint in &complaints {
        eprintln!("    {complaint}");
    }
    Ok(complaints.is_empty())
}

fn deny(args: &[&str]) -> Command {
    let mut command = sh::cargo();
    command.current_dir(workspace::root()).arg("deny").args(args);
    command
}

fn with_cargo_deny() -> Result<bool> {
    let checks = ["--log-level", "error", "check", "licenses", "bans", "sources"];
    let ok = sh::step("licences, bans and sources (cargo-deny)", &mut deny(&checks))?;
    sh::say("advisories (cargo-deny)");
    let done =
        deny(&["--log-level", "error", "check", "advisories"]).output().context("cannot start cargo deny")?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() {
        return Ok(ok);
    }
    if is_fetch_failure(&said) {
        eprintln!("    not checked: the advisory database cannot be fetched from here");
        return Ok(ok);
    }
    eprint!("{}{said}", String::from_utf8_lossy(&done.stdout));
    Ok(false)
}

/// Whether cargo-deny failed because it could not fetch the database, rather than because of what is in it.
fn is_fetch_failure(said: &str) -> bool {
    said.contains("failed to fetch advisory database")
}

/// What deny.toml allows and bans.
struct Rules {
    allowed: Vec<Licensee>,
    banned: Vec<String>,
    /// Licences allowed to one crate only.
    exceptions: Vec<(String, Vec<Licensee>)>,
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let deny: toml::Table = text.parse().context("deny.toml is not TOML")?;
        let licenses = deny.get("licenses").context("deny.toml has no [licenses]")?;
        let banned = deny.get("bans").and_then(|bans| bans.get("deny")).and_then(toml::Value::as_array);
        let banned = banned.context("deny.toml has no bans.deny")?.iter().filter_map(crate_name).collect();
        let mut exceptions = Vec::new();
        for exception in licenses.get("exceptions").and_then(toml::Value::as_array).into_iter().flatten() {
            let name = crate_name(exception).context("an entry of licenses.exceptions names no crate")?;
            exceptions.push((name, licensees(exception.get("allow"))?));
        }
        Ok(Self { allowed: licensees(licenses.get("allow"))?, banned, exceptions })
    }

    /// One sentence for each package that is not allowed.
    fn complaints(&self, metadata: &Value) -> Result<Vec<String>> {
        let mut complaints = Vec::new();
        for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
            let name = package["name"].as_str().context("a package without name")?;
            let version = package["version"].as_str().unwrap_or("?");
            if self.banned.iter().any(|banned| banned == name) {
                complaints.push(format!("{name} {version} is banned by deny.toml: find what depends on it with `cargo tree -i {name}`"));
            }
            let Some(licence) = package["license"].as_str() else {
                complaints.push(format!("{name} {version} states no licence"));
                continue;
            };
            match Expression::parse_mode(licence, ParseMode::LAX) {
                Ok(expression) if self.allows(name, &expression) => {}
                Ok(_) => complaints
                    .push(format!("{name} {version} is licensed {licence}, which deny.toml does not allow")),
                Err(error) => complaints
                    .push(format!("{name} {version}: cannot read its licence {licence:?}: {}", error.reason)),
            }
        }
        Ok(complaints)
    }

    fn allows(&self, name: &str, expression: &Expression) -> bool {
        let own = self.exceptions.iter().filter(|(only, _)| only == name).flat_map(|(_, licences)| licences);
        let allowed: Vec<&Licensee> = self.allowed.iter().chain(own).collect();
        expression.evaluate(|req| allowed.iter().any(|licence| licence.satisfies(req)))
    }
}

/// A crate is written `"name"`, `{ crate = "name" }` or `{ name = "name" }`, with or without `@version`.
fn crate_name(entry: &toml::Value) -> Option<String> {
    let name =
        entry.as_str().or_else(|| entry.get("crate")?.as_str()).or_else(|| entry.get("name")?.as_str())?;
    Some(name.split(['@', ':']).next().unwrap_or(name).to_owned())
}

fn licensees(list: Option<&toml::Value>) -> Result<Vec<Licensee>> {
    let list = list.and_then(toml::Value::as_array).context("deny.toml: a list of licences is missing")?;
    let mut licensees = Vec::new();
    for entry in list {
        let name = entry.as_str().context("deny.toml: a licence that is no string")?;
        licensees
            .push(Licensee::parse(name).with_context(|| format!("deny.toml: {name:?} is no SPDX licence"))?);
    }
    Ok(licensees)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RULES: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        exceptions = [{ crate = "font", allow = ["OFL-1.1"] }]
        [bans]
        deny = [{ crate = "openssl" }, "fdk-aac@2"]
    "#;

    fn complaints(name: &str, licence: Option<&str>) -> Vec<String> {
        let metadata = json!({"packages": [{"name": name, "version": "1.0.0", "license": licence}]});
        Rules::parse(RULES).unwrap().complaints(&metadata).unwrap()
    }

    #[test]
    fn allowed_licences_pass_in_every_spelling() {
        for licence in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "MIT/Apache-2.0",
            "(MIT OR X11) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(complaints("serde", Some(licence)), [""; 0], "{licence}");
        }
        assert_eq!(complaints("font", Some("MIT AND OFL-1.1")), [""; 0]);
    }

    #[test]
    fn other_licences_bans_and_silence_are_complained_about() {
        for licence in [
            Some("GPL-3.0-only"),
            Some("MIT AND GPL-2.0-only"),
            Some("OFL-1.1"),
            Some("no licence at all"),
            None,
        ] {
            assert_eq!(complaints("serde", licence).len(), 1, "{licence:?}");
        }
        assert!(complaints("openssl", Some("Apache-2.0"))[0].contains("banned"));
        assert!(complaints("fdk-aac", Some("MIT"))[0].contains("banned"));
    }

    #[test]
    fn our_own_rules_can_be_read_and_ban_what_they_must() {
        let text = std::fs::read_to_string(workspace::root().join("deny.toml")).unwrap();
        let rules = Rules::parse(&text).unwrap();
        for name in ["openssl", "aws-lc-rs", "fdk-aac"] {
            assert!(rules.banned.iter().any(|banned| banned == name), "{name}");
        }
    }

    #[test]
    fn a_database_out_of_reach_is_no_finding() {
        assert!(is_fetch_failure(
            "2026-01-01 [ERROR] failed to fetch advisory database https://x\nCaused by: …"
        ));
        assert!(!is_fetch_failure("error[vulnerability]: something bad"));
    }
}
