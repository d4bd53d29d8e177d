//! Builds `caudal-proto` and `caudal-media` (without the test card) for wasm32-unknown-unknown: the same core will run
//! in a browser. Uses the toolchain's own wasm target where it is installed (`rustup target add
//! wasm32-unknown-unknown`), otherwise Debian's `rustc-web`, which brings the library's source to build from.

use crate::{sh, system, workspace};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Where `rust-web-src` puts the standard library's source.
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library";

/// The oldest compiler that builds this workspace.
const NEEDED: &str = env!("CARGO_PKG_RUST_VERSION");

/// Linkers that Debian's toolchain may use, newest first: the program and its package.
const LINKERS: [(&str, &str); 4] =
    [("wasm-ld-22", "lld-22"), ("wasm-ld-21", "lld-21"), ("wasm-ld-20", "lld-20"), ("wasm-ld-19", "lld-19")];

/// Builds for wasm32; true when that works.
pub(super) fn run() -> Result<bool> {
    let mut build = if toolchain_has_target() { sh::cargo() } else { debian()? };
    build.current_dir(workspace::root());
    build.args(["build", "--quiet", "--profile", "quick", "--target", TARGET]);
    build.args(["--package", "caudal-proto", "--package", "caudal-media"]);
    // A folder of its own: the other toolchain's files would be rebuilt at every turn.
    build.arg("--target-dir").arg(workspace::target_dir()?.join("wasm"));
    sh::step("building proto and media for wasm32 (minutes the first time)", &mut build)
}

fn toolchain_has_target() -> bool {
    let libraries = sh::output(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]));
    libraries.is_ok_and(|dir| Path::new(dir.trim()).is_dir())
}

/// Debian's cargo, told to build the standard library from source; installs the packages when it may.
fn debian() -> Result<Command> {
    if linker().is_none() || !Path::new(DEBIAN_CARGO).is_file() || !Path::new(DEBIAN_SOURCES).is_dir() {
        if !system::may_install() {
            bail!("no compiler for {TARGET}: type `rustup target add {TARGET}`, then repeat");
        }
        let linker =
            LINKERS.iter().find(|(_, package)| system::is_known(package)).map(|(_, package)| *package);
        let Some(linker) = linker.filter(|_| system::is_known("rust-web-src")) else {
            bail!(
                "no compiler for {TARGET}: type `rustup target add {TARGET}` (this Debian has no rust-web-src)"
            );
        };
        system::install(&["rustc-web", "cargo-web", "rust-web-src", linker])?;
    }
    let version = sh::output(Command::new(DEBIAN_RUSTC).arg("--version"))?;
    if minor(&version) < minor(&format!("rustc {NEEDED}")) {
        bail!(
            "Debian's {} is older than {NEEDED}: type `rustup target add {TARGET}`, then repeat",
            version.trim()
        );
    }
    let Some(linker) = linker() else { bail!("lld is installed, but none of its wasm linkers is in PATH") };
    let mut cargo = Command::new(DEBIAN_CARGO);
    cargo.args(["-Z", "build-std=std,panic_abort"]);
    // What rustup exports would send Debian's cargo to the other toolchain's programs.
    cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTDOC");
    cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    Ok(cargo)
}

fn linker() -> Option<PathBuf> {
    LINKERS.iter().find_map(|(program, _)| sh::which(program))
}

/// The minor version in "rustc 1.MINOR.PATCH (…)".
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("rustc 1.")?.split(['.', ' ', '-', '\n']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_compared_by_their_minor_version() {
        assert_eq!(minor("rustc 1.85.0 (4d91de4e4 2025-02-17) (built from a source tarball)\n"), Some(85));
        assert_eq!(minor("rustc 1.100.0-nightly"), Some(100));
        assert!(minor(&format!("rustc {NEEDED}")).is_some());
    }
}
