//! Where a node keeps what must survive it: channel keys and the last epoch of each channel, under the XDG directories.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use caudal_node::network::random_key;
use caudal_proto::id::{ChannelId, SecretKey};

use crate::run::is_of_demo;

/// First line of a key file; the second is 64 hexadecimal digits.
const KEY_HEADER: &str = "caudal channel key v1 - whoever has this file owns the channel";
/// No key file is longer.
const KEY_FILE_LEN_MAX: u64 = 4096;
/// A lock that others remove while it is taken is tried so often.
const LOCK_TRIES_MAX: usize = 8;

/// `$XDG_DATA_HOME/caudal`, or `~/.local/share/caudal`.
pub(crate) fn data_dir() -> Result<PathBuf> {
    Ok(data_home()?.join("caudal"))
}

/// `$XDG_STATE_HOME/caudal`, or `~/.local/state/caudal`; none for the processes of a demo, which leave nothing behind and
/// use up nothing that is said once.
pub(crate) fn state_dir() -> Result<Option<PathBuf>> {
    if is_of_demo() {
        return Ok(None);
    }
    Ok(Some(home_of("XDG_STATE_HOME", ".local/state")?.join("caudal")))
}

/// `$XDG_DATA_HOME`, or `~/.local/share`.
pub(crate) fn data_home() -> Result<PathBuf> {
    home_of("XDG_DATA_HOME", ".local/share")
}

/// `$XDG_CONFIG_HOME`, or `~/.config`.
pub(crate) fn config_home() -> Result<PathBuf> {
    home_of("XDG_CONFIG_HOME", ".config")
}

fn home_of(variable: &str, fallback: &str) -> Result<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let base = std::env::var_os(variable).map(PathBuf::from).and_then(absolute);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(fallback));
    base.or_else(home).with_context(|| format!("neither {variable} nor HOME is set"))
}

/// Files and folders that were made for what may still fail. They go again, last first, unless it succeeds; a folder that
/// holds something else by then stays.
#[derive(Debug, Default)]
struct Made {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Made {
    /// Makes a folder and those above it that are missing, for this user alone.
    fn folder(&mut self, path: &Path) -> std::io::Result<()> {
        // A link that leads nowhere is not missing: it is the user's.
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err();
        let missing: Vec<_> = path.ancestors().take_while(is_missing).collect();
        for folder in missing.into_iter().rev() {
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Ok(()) => self.folders.push(folder.to_owned()),
                // Another process was faster.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        if path.is_dir() { Ok(()) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
    }

    /// It succeeded.
    fn keep(&mut self) {
        self.folders.clear();
        self.files.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The key in `file`.
pub(crate) fn read_key(file: &Path) -> Result<SecretKey> {
    let name = file.display();
    let meta = fs::metadata(file).with_context(|| format!("cannot read the key {name}"))?;
    if meta.len() > KEY_FILE_LEN_MAX {
        bail!("{name} is not a channel key: too long");
    }
    let text = fs::read_to_string(file).with_context(|| format!("cannot read the key {name}"))?;
    let digits = text.lines().nth(1).unwrap_or_default().trim();
    let wrong = "not a channel key: make one with: caudal key new --file FILE";
    if text.lines().next() != Some(KEY_HEADER) || digits.len() != 64 || !digits.is_ascii() {
        bail!("{name} is {wrong}");
    }
    let mut key = [0; 32];
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16)
            .with_context(|| format!("{name} is {wrong}"))?;
    }
    Ok(SecretKey::from_bytes(&key))
}

/// Writes `key` to `file`, which must not exist; only its owner may read it.
pub(crate) fn write_key(file: &Path, key: &SecretKey) -> Result<()> {
    make_key(file, key).map(|mut made| made.keep())
}

fn make_key(file: &Path, key: &SecretKey) -> Result<Made> {
    use std::fmt::Write as _;
    let mut text = format!("{KEY_HEADER}\n");
    for byte in key.to_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    let name = file.display();
    let mut made = Made::default();
    if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        made.folder(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
    }
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut open = open.with_context(|| format!("cannot write the key {name}; does it exist already?"))?;
    made.files.push(file.to_owned());
    let written = open.write_all(text.as_bytes()).and_then(|()| open.sync_all());
    written.with_context(|| format!("cannot write the key {name}"))?;
    Ok(made)
}

/// A channel's key. One that was made for this broadcast goes again if the broadcast never began: nobody has its link.
#[derive(Debug)]
pub(crate) struct ChannelKey {
    pub(crate) key: SecretKey,
    made: Option<(PathBuf, Made)>,
}

impl ChannelKey {
    /// The key in `file`, or of the channel called `name`; made when there is none.
    pub(crate) fn open(file: Option<&Path>, name: &str) -> Result<Self> {
        let path = match file {
            Some(file) => file.to_owned(),
            None => data_dir()?.join("keys").join(format!("{}.key", file_name(name))),
        };
        if path.exists() {
            return Ok(Self { key: read_key(&path)?, made: None });
        }
        let key = random_key()?;
        let made = make_key(&path, &key)?;
        Ok(Self { key, made: Some((path, made)) })
    }

    /// The broadcast has begun: from here on the key is worth keeping.
    pub(crate) fn keep(mut self) {
        if let Some((path, mut made)) = self.made.take() {
            made.keep();
            let path = path.display();
            eprintln!("Made a key for this channel: {path}. Back it up: who has it owns the channel.");
        }
    }
}

/// A file name for a channel's name, another one for each: what a file name cannot hold is told apart by a number.
fn file_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).take(60).collect();
    if plain == name {
        return plain;
    }
    // FNV-1a: it tells names apart that one person chose, and is no secret.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{plain}-{:08x}", hash as u32)
}

/// Held by the one process of this user that publishes a channel; the system lets go of it however the process ends.
#[derive(Debug)]
pub(crate) struct OnAir {
    /// Before the lock, so that nobody locks a file that is about to go.
    made: Made,
    #[expect(dead_code, reason = "closing it unlocks")]
    lock: Option<fs::File>,
}

impl OnAir {
    /// The broadcast has begun: its lock stays where it is.
    pub(crate) fn keep(&mut self) {
        self.made.keep();
    }
}

/// Makes sure that no other process of this user publishes `channel`: two would push each other off the air in turn.
pub(crate) fn go_on_air(channel: &ChannelId) -> Result<OnAir> {
    let mut made = Made::default();
    for _ in 0..LOCK_TRIES_MAX {
        // Without a place for state, or on a file system without locks, it goes on the air unlocked.
        let Some((path, file)) = open_lock(channel, &mut made) else { continue };
        if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            // It is another's.
            made.files.retain(|made| *made != path);
            bail!(
                "this channel is on the air already: another caudal publish on this computer uses its key. End that one, \
                 or choose another --name or --key"
            );
        }
        // One that never began may have removed it in between; its lock keeps nobody out.
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        if file.metadata().ok().zip(fs::metadata(&path).ok()).is_some_and(|(a, b)| same(a, b)) {
            return Ok(OnAir { made, lock: Some(file) });
        }
    }
    Ok(OnAir { made, lock: None })
}

fn open_lock(channel: &ChannelId, made: &mut Made) -> Option<(PathBuf, fs::File)> {
    let dir = state_dir().ok()??;
    made.folder(&dir).ok()?;
    let path = dir.join(format!("{channel}.lock"));
    let mut open = fs::OpenOptions::new();
    open.write(true).mode(0o600);
    if let Ok(file) = open.clone().create_new(true).open(&path) {
        made.files.push(path.clone());
        return Some((path, file));
    }
    let file = open.create(true).truncate(false).open(&path).ok()?;
    Some((path, file))
}

/// The last epoch of a channel; 0 when unknown.
pub(crate) fn last_epoch(channel: &ChannelId) -> u64 {
    let dir = state_dir().ok().flatten();
    let text = dir.and_then(|dir| fs::read_to_string(dir.join(format!("{channel}.epoch"))).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Remembers it, so that a clock set back cannot make a new broadcast look older than the last.
pub(crate) fn store_epoch(channel: &ChannelId, epoch: u64) -> Result<()> {
    let Some(dir) = state_dir()? else { return Ok(()) };
    fs::create_dir_all(&dir)?;
    let (path, new) = (dir.join(format!("{channel}.epoch")), dir.join(format!("{channel}.epoch.new")));
    fs::write(&new, format!("{epoch}\n"))?;
    fs::rename(new, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_stays() {
        let root = std::env::temp_dir().join(format!("caudal-link-{}", std::process::id()));
        fs::create_dir(&root).unwrap();
        let link = root.join("share");
        std::os::unix::fs::symlink(root.join("not mounted"), &link).unwrap();
        assert!(make_key(&link.join("caudal/channel.key"), &random_key().unwrap()).is_err());
        assert!(fs::symlink_metadata(&link).is_ok(), "it is the user's");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_was_made_goes_again_unless_it_is_kept_or_holds_something_else() {
        let root = std::env::temp_dir().join(format!("caudal-made-{}", std::process::id()));
        fs::create_dir(&root).unwrap();
        let key = random_key().unwrap();
        let file = root.join("a/b/channel.key");
        drop(make_key(&file, &key).unwrap());
        assert!(root.exists() && !root.join("a").exists());
        let made = make_key(&file, &key).unwrap();
        fs::write(root.join("a/other"), "").unwrap();
        drop(made);
        assert!(root.join("a/other").exists() && !root.join("a/b").exists());
        write_key(&file, &key).unwrap();
        assert!(make_key(&file, &key).is_err() && file.exists(), "another's key is not removed");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn names_that_look_alike_have_keys_of_their_own() {
        assert_eq!(file_name("Canal"), "Canal");
        let alike = ["Canal 1", "Canal-1", "Canal/1"].map(file_name);
        assert!(alike.iter().all(|name| name.starts_with("Canal-1")));
        assert!(alike[0] != alike[1] && alike[1] != alike[2] && alike[0] != alike[2]);
    }
}
