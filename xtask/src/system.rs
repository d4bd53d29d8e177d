//! What a job needs from the system. Installs it on Debian when we are root, saying so; otherwise names it in one line
//! with the command to type. Never installs what a job does not need, and never touches anything but packages.

use crate::sh;
use anyhow::{Result, bail};
use std::process::{Command, Stdio};

/// A program, and the Debian package that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const fn need(program: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { program, package, why }
}

/// Compiling `caudal`: the test card's H.264 encoder is C++.
pub(crate) const TO_BUILD: &[Need] = &[need("g++", "g++", "the test card's encoder is C++")];

/// Building the page.
pub(crate) const TO_BUILD_PAGE: &[Need] = &[
    need("node", "nodejs", "the page is built with it"),
    need("npm", "npm", "it fetches what the page is built with"),
];

/// The tests: real encoders and players, and namespaces.
pub(crate) const TO_TEST: &[Need] = &[
    need("g++", "g++", "the test card's encoder is C++"),
    need("ffmpeg", "ffmpeg", "tests publish with it and read what viewers wrote"),
    need("ffprobe", "ffmpeg", "tests judge streams with it"),
    need("ip", "iproute2", "tests put peers into network namespaces"),
    need("nft", "nftables", "tests count and drop packets"),
    need("tcpdump", "tcpdump", "tests look at what is on the wire"),
    need("nginx", "nginx-light", "tests put it before an edge, as a CDN"),
    need("chromium", "chromium", "tests use the page as people do"),
    need("setsid", "util-linux", "tests open terminals"),
    need("xdg-mime", "xdg-utils", "tests ask the desktop what opens a link"),
    need("desktop-file-validate", "desktop-file-utils", "tests have it judge the entry for links"),
];

/// `bench relay`: namespaces, shaping, and a guard on packet sizes.
pub(crate) const TO_BENCH: &[Need] = &[
    need("g++", "g++", "the test card's encoder is C++"),
    need("ip", "iproute2", "each peer gets a network namespace"),
    need("tc", "iproute2", "uplinks are shaped with it"),
    need("nft", "nftables", "it proves that no packet is larger than the MTU"),
];

/// `bench scale`: what is broadcast.
pub(crate) const TO_ENCODE: &[Need] = &[need("ffmpeg", "ffmpeg", "it encodes what is broadcast")];

/// `bench scale`: the usual streaming beside ours.
pub(crate) const TO_SERVE_HLS: &[Need] = &[need("nginx", "nginx-light", "it serves HLS, for comparison")];

/// `bench glass`: an encoder to time, and a browser.
pub(crate) const TO_ENCODE_AND_LOOK: &[Need] = &[
    need("ffmpeg", "ffmpeg", "its encoder is timed"),
    need("chromium", "chromium", "what it shows is looked at"),
];

/// Makes sure that `needs` are there: installs what is missing when allowed, else says what to type.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let packages = missing(needs, |program| sh::which(program).is_some());
    if !packages.is_empty() {
        for need in needs.iter().filter(|need| sh::which(need.program).is_none()) {
            sh::say(&format!("{} is missing ({})", need.program, need.why));
        }
        install(&packages)?;
    }
    if needs.iter().any(|need| need.program == "g++") && sh::which("nasm").is_none() {
        eprintln!(
            "    (optional: `apt-get install nasm` makes the test card's encoder faster; it works without)"
        );
    }
    Ok(())
}

/// The packages that bring the programs which `present` does not know, each once, in order.
fn missing(needs: &[Need], present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for need in needs {
        if !present(need.program) && !packages.contains(&need.package) {
            packages.push(need.package);
        }
    }
    packages
}

/// Installs Debian packages, or fails with the one line to type.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !may_install() {
        bail!(
            "{list} missing: install with `sudo apt-get install {list}` (or your system's equivalent), then repeat"
        );
    }
    let mut updated = false;
    if packages.iter().any(|package| !is_known(package)) {
        update()?;
        updated = true;
    }
    if !apt_install(packages)? {
        // Package lists grow old: what they name may be gone from the archive.
        if updated {
            bail!("apt-get could not install {list}: try `apt-get install {list}` by hand");
        }
        update()?;
        if !apt_install(packages)? {
            bail!("apt-get could not install {list}: try `apt-get install {list}` by hand");
        }
    }
    Ok(())
}

/// Whether packages can be installed without asking anybody: root, with `apt-get`.
pub(crate) fn may_install() -> bool {
    rustix::process::geteuid().is_root() && sh::which("apt-get").is_some()
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "DPkg::Lock::Timeout=300"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn update() -> Result<()> {
    sh::must("fetching Debian's package lists (apt-get update)", apt().arg("update"))
}

fn apt_install(packages: &[&str]) -> Result<bool> {
    let noun = if packages.len() == 1 { "package" } else { "packages" };
    let what = format!("installing {} (Debian {noun})", packages.join(", "));
    sh::step(&what, apt().args(["install", "--yes", "--no-install-recommends"]).args(packages))
}

/// Whether the package lists name a version of `package` that could be installed.
pub(crate) fn is_known(package: &str) -> bool {
    let policy = sh::output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"));
    policy.is_ok_and(|policy| has_candidate(&policy))
}

fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .any(|line| line.trim().strip_prefix("Candidate:").is_some_and(|version| !version.contains("(none)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once_and_nothing_else() {
        let present = |program: &str| matches!(program, "g++" | "ip" | "nft");
        assert_eq!(
            missing(TO_TEST, present),
            ["ffmpeg", "tcpdump", "nginx-light", "chromium", "util-linux", "xdg-utils", "desktop-file-utils"]
        );
        assert_eq!(missing(TO_TEST, |_| true), [""; 0]);
        assert_eq!(missing(TO_BUILD, |_| false), ["g++"]);
    }

    #[test]
    fn a_package_without_candidate_is_not_known() {
        assert!(has_candidate("ffmpeg:\n  Installed: (none)\n  Candidate: 7:5.1.6-0+deb12u1\n"));
        assert!(!has_candidate("nasm:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
