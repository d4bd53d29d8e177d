//! Proves that `caudal-proto`, with every dependency it links, needs only `core` and `alloc`.
//!
//! Declaring `#![no_std]` proves little: a dependency may still link `std`. So `proto` and its whole tree are compiled
//! against a library folder that holds `core`, `alloc` and `compiler_builtins` and nothing else: whatever names `std`,
//! however deep, does not compile. That needs no second toolchain. Build scripts and procedural macros run on the host
//! and keep the ordinary library. What it does not prove: that the code runs on a machine without an operating system.

use crate::{sh, workspace};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `proto` may link.
const ALLOWED: [&str; 3] = ["libcore-", "liballoc-", "libcompiler_builtins-"];

/// Compiles `proto` without `std`; true when that works.
pub(super) fn run() -> Result<bool> {
    let host = host()?;
    let target_dir = workspace::target_dir()?.join("no-std");
    let sysroot = sysroot_without_std(&target_dir, &host)?;
    ensure!(
        compiles(&sysroot, "#![no_std] extern crate alloc;")?
            && !compiles(&sysroot, "#![no_std] extern crate std;")?,
        "the library folder without std at {} does not do its work: remove it and repeat",
        sysroot.display()
    );
    let mut check = sh::cargo();
    check.current_dir(workspace::root());
    check.args([
        "check",
        "--quiet",
        "--profile",
        "quick",
        "--package",
        "caudal-proto",
        "--lib",
        "--target",
        &host,
    ]);
    check.arg("--target-dir").arg(&target_dir);
    check.env("RUSTFLAGS", format!("--sysroot={}", sysroot.display()));
    sh::step("proto and all it links, with core and alloc but no std", &mut check)
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn host() -> Result<String> {
    let version = sh::output(rustc().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// A sysroot with links to the allowed libraries of the current toolchain, made anew each time: toolchains change.
fn sysroot_without_std(target_dir: &Path, host: &str) -> Result<PathBuf> {
    let sysroot = target_dir.join("sysroot");
    let libraries = sysroot.join("lib/rustlib").join(host).join("lib");
    if sysroot.exists() {
        std::fs::remove_dir_all(&sysroot).with_context(|| format!("cannot remove {}", sysroot.display()))?;
    }
    std::fs::create_dir_all(&libraries).with_context(|| format!("cannot create {}", libraries.display()))?;
    let ours = sh::output(rustc().args(["--print", "target-libdir"]))?;
    for entry in std::fs::read_dir(ours.trim()).with_context(|| format!("cannot list {ours}"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ALLOWED.iter().any(|prefix| name.starts_with(prefix)) {
            std::os::unix::fs::symlink(&path, libraries.join(&name)).context("cannot link a library")?;
        }
    }
    Ok(sysroot)
}

/// Whether a one-line library compiles against `sysroot`.
fn compiles(sysroot: &Path, source: &str) -> Result<bool> {
    let mut child = rustc()
        .arg("--sysroot")
        .arg(sysroot)
        .args(["--crate-type=lib", "--crate-name=probe", "--emit=metadata", "-o"])
        .arg(sysroot.join("probe.rmeta"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start rustc")?;
    child.stdin.take().expect("stdin was asked for as a pipe").write_all(source.as_bytes())?;
    Ok(child.wait()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_std_does_not_compile() {
        let dir = std::env::temp_dir().join(format!("caudal-xtask-no-std-{}", std::process::id()));
        let sysroot = sysroot_without_std(&dir, &host().unwrap()).unwrap();
        assert!(
            compiles(
                &sysroot,
                "#![no_std] extern crate alloc; pub fn f() -> alloc::vec::Vec<u8> { alloc::vec![1] }"
            )
            .unwrap()
        );
        assert!(!compiles(&sysroot, "#![no_std] extern crate std;").unwrap());
        assert!(!compiles(&sysroot, "pub fn f() -> Vec<u8> { vec![] }").unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
