//! `cargo xtask web`: builds the page in `web/`, which the binary's build then embeds. Where Node.js or the folder is missing
//! it says so; the binary is built without the page then.

use crate::{sh, workspace};
use anyhow::{Result, bail};
use std::process::Command;

/// Builds the page; true when that works.
pub(crate) fn run() -> Result<bool> {
    if !build()? {
        bail!(
            "the page cannot be built without web/package.json and npm: install Node.js 20 or newer, then repeat"
        );
    }
    Ok(true)
}

/// Builds the page where that can be done; says what is missing otherwise.
pub(crate) fn build_if_possible() -> Result<()> {
    if !build()? {
        sh::say("no npm or no web/: the binary is built without its page (cargo xtask web says more)");
    }
    Ok(())
}

fn build() -> Result<bool> {
    let folder = workspace::root().join("web");
    let Some(npm) = sh::which("npm").filter(|_| folder.join("package.json").is_file()) else {
        return Ok(false);
    };
    let npm = |args: &[&str]| {
        let mut command = Command::new(&npm);
        command.current_dir(&folder).args(args);
        command
    };
    sh::must("fetching what the page is built with", &mut npm(&["ci", "--no-audit", "--no-fund"]))?;
    sh::must("building the page", &mut npm(&["run", "build"]))?;
    Ok(true)
}
