//! `caudal register-links`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::args::RegisterLinksArgs;
use crate::desktop::{ENTRY_ID, LINK_TYPE, entry, is_default, set_default, unset_default};
use crate::run::{Failure, print_json, say};
use crate::state::{config_home, data_home};

/// What a cache of entries holds when there are none.
const EMPTY_CACHE: &str = "[MIME Cache]";

pub(crate) fn run(args: &RegisterLinksArgs) -> Result<(), Failure> {
    if cfg!(target_os = "macos") {
        return Err(anyhow::anyhow!(
            "macOS gives links only to application bundles, and this program is none: paste a link after `caudal watch`, or \
             into the page of `caudal watch --tracker URL`"
        )
        .into());
    }
    let files = Files::find()?;
    if args.remove { remove(args, &files) } else { register(args, &files) }
}

/// Where the desktop looks.
struct Files {
    entries: PathBuf,
    entry: PathBuf,
    /// The list that is written to, then the one of old desktops.
    lists: [PathBuf; 2],
}

impl Files {
    fn find() -> Result<Self> {
        let entries = data_home()?.join("applications");
        let lists = [config_home()?.join("mimeapps.list"), entries.join("mimeapps.list")];
        Ok(Self { entry: entries.join(ENTRY_ID), entries, lists })
    }

    /// Has the desktop read its entries again, where it keeps a cache of them.
    fn refresh(&self) {
        tool(Command::new("update-desktop-database").arg("-q").arg(&self.entries));
    }
}

fn register(args: &RegisterLinksArgs, files: &Files) -> Result<(), Failure> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    write(&files.entry, &entry(&program)?)?;
    // It knows what this desktop wants besides.
    tool(Command::new("xdg-mime").args(["default", ENTRY_ID, LINK_TYPE]));
    let list = &files.lists[0];
    let text = read(list)?;
    if !is_default(&text) {
        write(list, &set_default(&text))?;
    }
    files.refresh();
    if args.json {
        print_json(&json!({
            "registered": true, "program": program, "entry": files.entry, "list": list,
        }))?;
    } else {
        say!("caudal: links are opened with {}", program.display());
        say!("Written: {}, and a line in {}", files.entry.display(), list.display());
        say!("To take it back: caudal register-links --remove");
    }
    Ok(())
}

fn remove(args: &RegisterLinksArgs, files: &Files) -> Result<(), Failure> {
    let mut changed = Vec::new();
    match fs::remove_file(&files.entry) {
        Ok(()) => changed.push(&files.entry),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot("remove", &files.entry, error).into()),
    }
    for list in &files.lists {
        let text = read(list)?;
        let without = unset_default(&text);
        if without == text {
            continue;
        }
        if without.is_empty() {
            fs::remove_file(list).map_err(|error| cannot("remove", list, error))?;
        } else {
            write(list, &without)?;
        }
        changed.push(list);
    }
    if !changed.is_empty() {
        files.refresh();
        let cache = files.entries.join("mimeinfo.cache");
        if read(&cache).is_ok_and(|text| text.trim() == EMPTY_CACHE) {
            let _ = fs::remove_file(&cache);
        }
    }
    if args.json {
        print_json(&json!({ "registered": false, "changed": changed }))?;
    } else if changed.is_empty() {
        say!("caudal: links were not registered; nothing to take back.");
    } else {
        say!("caudal: links are no longer opened with this program.");
    }
    Ok(())
}

/// Runs a tool of the desktop, which may not be there, and does not have to succeed.
fn tool(command: &mut Command) {
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn cannot(what: &str, path: &Path, error: std::io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("cannot {what} {}", path.display()))
}

/// Empty when there is none.
fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(|error| cannot("read", path, error)),
    }
}

/// All of it or nothing; a link to a file elsewhere stays a link.
fn write(path: &Path, text: &str) -> Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().context("a file is in a folder")?;
    let new = path.with_extension(format!("caudal-{}.new", std::process::id()));
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&new, text))
        .and_then(|()| match fs::metadata(&path) {
            Ok(old) => fs::set_permissions(&new, old.permissions()),
            Err(_) => Ok(()),
        })
        .and_then(|()| fs::rename(&new, &path));
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        cannot("write", &path, error)
    })
}
