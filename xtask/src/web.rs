//! The page in `web/`: built into `web/dist` before the binary that carries it, checked, and its own tests run. Without
//! Node.js the binary is built without the page and says so. Never publishes anything, never changes a lock file.

use crate::{sh, system, workspace};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The oldest Node.js that the page's tools run on.
const NODE_MIN: (u32, u32) = (20, 19);

/// What the page is made of, below `web/`.
const SOURCES: &[&str] = &[
    "src",
    "public",
    "index.html",
    "package-lock.json",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
];

/// Builds the page where Node.js is; says what is missing where it is not. Nothing is done when nothing has changed.
pub(crate) fn build_if_possible() -> Result<()> {
    match node_version() {
        Some(version) if version >= NODE_MIN && sh::which("npm").is_some() => build(),
        found => {
            let (major, minor) = NODE_MIN;
            let found =
                found.map_or("not found".to_owned(), |(major, minor)| format!("{major}.{minor} found"));
            sh::say(&format!(
                "the page is left out: it needs Node.js {major}.{minor} or newer with npm ({found})"
            ));
            Ok(())
        }
    }
}

/// Builds the page, as the tests need it: what is missing is installed or named.
pub(crate) fn build_or_fail() -> Result<()> {
    system::ensure(system::TO_BUILD_PAGE)?;
    let (major, minor) = NODE_MIN;
    match node_version() {
        Some(version) if version >= NODE_MIN => build(),
        Some((found, minor_found)) => bail!(
            "Node.js {found}.{minor_found} is too old to build the page: install {major}.{minor} or newer, then repeat"
        ),
        None => bail!("Node.js does not say its version: install {major}.{minor} or newer, then repeat"),
    }
}

fn build() -> Result<()> {
    install()?;
    let built = dir().join("dist/index.html");
    if newest(SOURCES)? <= modified(&built) {
        return Ok(());
    }
    sh::must("building the page", npm().args(["run", "--silent", "build", "--", "--logLevel", "warn"]))
}

/// Types and components; true when nothing is wrong, or when there is no Node.js to look with.
pub(crate) fn check() -> Result<bool> {
    if node_version().is_none_or(|version| version < NODE_MIN) || sh::which("npm").is_none() {
        sh::say("the page is not checked: there is no Node.js");
        return Ok(true);
    }
    install()?;
    sh::step("checking the page's types", npm().args(["run", "--silent", "check"]))
}

/// The page's unit tests; those in a browser are `crates/cli/tests/e2e_page.rs`.
pub(crate) fn test() -> Result<bool> {
    sh::step("testing the page's parts", npm().args(["run", "--silent", "test"]))
}

/// Installs exactly what the lock file names, when it names something else than last time.
fn install() -> Result<()> {
    let installed = modified(&dir().join("node_modules/.package-lock.json"));
    if newest(&["package-lock.json"])? <= installed {
        return Ok(());
    }
    sh::must(
        "fetching what the page is built with (npm ci)",
        npm().args(["ci", "--silent", "--ignore-scripts"]),
    )
}

/// Where the page lives.
pub(crate) fn dir() -> PathBuf {
    workspace::root().join("web")
}

fn npm() -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(dir());
    npm
}

fn node_version() -> Option<(u32, u32)> {
    parse_version(&sh::output(Command::new("node").arg("--version")).ok()?)
}

/// `v20.20.2` is (20, 20).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// When the newest of these files, and of those below these folders, was changed.
fn newest(names: &[&str]) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    let mut open: Vec<PathBuf> = names.iter().map(|name| dir().join(name)).collect();
    while let Some(path) = open.pop() {
        newest = newest.max(modified(&path));
        if path.is_dir() {
            let entries =
                std::fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
            for entry in entries {
                open.push(entry?.path());
            }
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("v20.20.2\n"), Some((20, 20)));
        assert_eq!(parse_version("node: not found"), None);
        assert!((22, 0) >= NODE_MIN && (20, 18) < NODE_MIN);
    }

    #[test]
    fn what_the_page_is_made_of_is_there() {
        for name in SOURCES {
            assert!(dir().join(name).exists(), "web/{name} is gone: remove it from the list");
        }
        assert!(newest(SOURCES).unwrap() > SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn the_lock_file_names_no_registry() {
        let lock = std::fs::read_to_string(dir().join("package-lock.json")).unwrap();
        assert!(
            !lock.contains("\"resolved\""),
            "npm install with web/.npmrc as it is, and commit the result"
        );
    }
}
