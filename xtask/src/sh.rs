//! Runs commands: says what is done now and how long it took. Never decides what a failure means.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where administration tools live on Debian, outside an ordinary user's `PATH`.
const SYSTEM_DIRS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Finds `program` in `PATH`, then where administration tools live.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// `cargo`, the one that started us where there is one.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Says what happens now.
pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}

/// Runs one step with its output shown. Returns whether it succeeded; says how long it took.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<bool> {
    say(what);
    let started = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if status.success() {
        eprintln!("    done in {}", seconds(started.elapsed()));
    } else {
        eprintln!("    FAILED after {} ({status}): {}", seconds(started.elapsed()), shown(command));
    }
    Ok(status.success())
}

/// As [`step`], for a step without which nothing further can be done.
pub(crate) fn must(what: &str, command: &mut Command) -> Result<()> {
    if step(what, command)? { Ok(()) } else { bail!("{what}: this has to work before anything else can") }
}

/// Runs a command quietly and returns what it wrote to stdout; its error output is in the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{} failed ({}): {}", shown(command), done.status, said.trim());
    }
    String::from_utf8(done.stdout).with_context(|| format!("{} wrote no UTF-8", shown(command)))
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        line.push(' ');
        let plain =
            !arg.is_empty() && arg.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@+".contains(&b));
        if plain {
            line.push_str(&arg);
        } else {
            line.push_str(&format!("'{arg}'"));
        }
    }
    line
}

/// A duration a person reads at a glance.
pub(crate) fn seconds(elapsed: Duration) -> String {
    let s = elapsed.as_secs_f64();
    if s < 100.0 { format!("{s:.1} s") } else { format!("{} min {:.0} s", (s / 60.0) as u64, s % 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["nextest", "run", "-E", "not binary(/^e2e_/)"]);
        assert_eq!(shown(&command), "cargo nextest run -E 'not binary(/^e2e_/)'");
    }

    #[test]
    fn a_failing_command_says_what_it_wrote() {
        let error =
            output(Command::new("sh").args(["-c", "echo broken >&2; exit 4"])).unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains('4'), "{error}");
    }

    #[test]
    fn programs_are_found_or_not() {
        assert!(which("sh").is_some());
        assert!(which("no-such-program-anywhere").is_none());
    }
}
