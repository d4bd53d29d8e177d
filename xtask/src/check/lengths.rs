//! No file of ours over 800 lines, except those listed here with a reason.

use crate::{sh, workspace};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The longest a source file may be.
const LINES_MAX: usize = 800;

/// Files that may be longer, and why: `("crates/…/x.rs", "one table that is read as a whole")`.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// Reports files that are too long; true when there are none.
pub(super) fn run() -> Result<bool> {
    let root = workspace::root();
    let mut files = Vec::new();
    for dir in ["crates", "xtask"] {
        rust_files(&root.join(dir), &mut files)?;
    }
    for dir in ["src", "test"] {
        files_with(&["css", "mjs", "svelte", "ts"], &root.join("web").join(dir), &mut files)?;
    }
    files.sort();
    let mut longest = (0, String::new());
    let mut ok = true;
    for file in &files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = text.lines().count();
        let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
        if lines > LINES_MAX && !EXCEPTIONS.iter().any(|(path, _)| *path == name) {
            eprintln!(
                "    {name} has {lines} lines, {LINES_MAX} is the limit: split it, or list it with a reason"
            );
            ok = false;
        }
        if lines > longest.0 {
            longest = (lines, name);
        }
    }
    sh::say(&format!("{} source files, the longest has {} lines ({})", files.len(), longest.0, longest.1));
    Ok(ok)
}

/// Adds the Rust files below `dir`.
pub(crate) fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    files_with(&["rs"], dir, found)
}

/// Adds the files below `dir` whose names end so.
fn files_with(endings: &[&str], dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                files_with(endings, &path, found)?;
            }
        } else if path.extension().is_some_and(|ext| endings.iter().any(|ending| ext == *ending)) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_exist_and_give_a_reason() {
        for (path, reason) in EXCEPTIONS {
            assert!(workspace::root().join(path).is_file(), "{path} is gone: remove it from the list");
            assert!(reason.len() > 10, "{path}: say why");
        }
    }
}
