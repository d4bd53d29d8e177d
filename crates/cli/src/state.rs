//! Where a node keeps what must survive it: channel keys and the last epoch of each channel, under the XDG directories.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use caudal_node::network::random_key;
use caudal_proto::id::{ChannelId, SecretKey};

/// First line of a key file; the second is 64 hexadecimal digits.
const KEY_HEADER: &str = "caudal channel key v1 - whoever has this file owns the channel";
/// No key file is longer.
const KEY_FILE_LEN_MAX: u64 = 4096;

/// `$XDG_DATA_HOME/caudal`, or `~/.local/share/caudal`.
pub(crate) fn data_dir() -> Result<PathBuf> {
    dir("XDG_DATA_HOME", ".local/share")
}

/// `$XDG_STATE_HOME/caudal`, or `~/.local/state/caudal`.
pub(crate) fn state_dir() -> Result<PathBuf> {
    dir("XDG_STATE_HOME", ".local/state")
}

fn dir(variable: &str, fallback: &str) -> Result<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let base = std::env::var_os(variable).map(PathBuf::from).and_then(absolute);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(fallback));
    let base = base.or_else(home).with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(base.join("caudal"))
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
    use std::fmt::Write as _;
    let mut text = format!("{KEY_HEADER}\n");
    for byte in key.to_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    let name = file.display();
    if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.with_context(|| format!("cannot make the folder {}", parent.display()))?;
    }
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut open = open.with_context(|| format!("cannot write the key {name}; does it exist already?"))?;
    let written = open.write_all(text.as_bytes()).and_then(|()| open.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(file);
    }
    written.with_context(|| format!("cannot write the key {name}"))
}

/// A channel's key. One that was made for this broadcast goes again if the broadcast never began: nobody has its link.
#[derive(Debug)]
pub(crate) struct ChannelKey {
    pub(crate) key: SecretKey,
    made: Option<PathBuf>,
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
        write_key(&path, &key)?;
        Ok(Self { key, made: Some(path) })
    }

    /// The broadcast has begun: from here on the key is worth keeping.
    pub(crate) fn keep(mut self) {
        if let Some(path) = self.made.take() {
            let path = path.display();
            eprintln!("Made a key for this channel: {path}. Back it up: who has it owns the channel.");
        }
    }
}

impl Drop for ChannelKey {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            let _ = fs::remove_file(path);
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
pub(crate) struct OnAir(#[expect(dead_code, reason = "closing it unlocks")] Option<fs::File>);

/// Makes sure that no other process of this user publishes `channel`: two would push each other off the air in turn.
pub(crate) fn go_on_air(channel: &ChannelId) -> Result<OnAir> {
    let open = |dir: PathBuf| {
        fs::create_dir_all(&dir)?;
        let mut open = fs::OpenOptions::new();
        open.write(true).create(true).truncate(false).mode(0o600).open(dir.join(format!("{channel}.lock")))
    };
    // Without a place for state, or on a file system without locks, it goes on the air unlocked.
    let Some(file) = state_dir().ok().and_then(|dir| open(dir).ok()) else { return Ok(OnAir(None)) };
    if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
        bail!(
            "this channel is on the air already: another caudal publish on this computer uses its key. End that one, or \
             choose another --name or --key"
        );
    }
    Ok(OnAir(Some(file)))
}

/// The last epoch of a channel; 0 when unknown.
pub(crate) fn last_epoch(channel: &ChannelId) -> u64 {
    let text = state_dir().ok().and_then(|dir| fs::read_to_string(dir.join(format!("{channel}.epoch"))).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Remembers it, so that a clock set back cannot make a new broadcast look older than the last.
pub(crate) fn store_epoch(channel: &ChannelId, epoch: u64) -> Result<()> {
    let dir = state_dir()?;
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
    fn names_that_look_alike_have_keys_of_their_own() {
        assert_eq!(file_name("Canal"), "Canal");
        let alike = ["Canal 1", "Canal-1", "Canal/1"].map(file_name);
        assert!(alike.iter().all(|name| name.starts_with("Canal-1")));
        assert!(alike[0] != alike[1] && alike[1] != alike[2] && alike[0] != alike[2]);
    }
}
