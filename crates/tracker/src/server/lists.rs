//! The operator's allow and deny lists, and noticing that their files changed.
//!
//! One channel id per line, then perhaps a reason; `#` begins a comment line. A file that cannot be read or has a wrong
//! line keeps what it said before, because half a deny list would put channels back on the air.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use caudal_proto::id::ChannelId;

use crate::text;

/// Longest list file, bytes.
pub const LIST_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Longest reason, characters.
pub const REASON_CHARS_MAX: usize = 200;
/// What viewers read when the operator gave no reason.
const NO_REASON: &str = "taken down by the tracker's operator";
const NOT_ALLOWED: &str = "not among the channels that this tracker serves";

/// Channels and reasons.
pub(crate) type List = BTreeMap<ChannelId, String>;

/// Both lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) allow: Option<List>,
    pub(crate) deny: List,
}

impl Lists {
    /// Why `channel` may not be served, if so. Denied beats allowed.
    pub(crate) fn verdict(&self, channel: &ChannelId) -> Option<&str> {
        if let Some(reason) = self.deny.get(channel) {
            return Some(reason);
        }
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains_key(channel));
        (!allowed).then_some(NOT_ALLOWED)
    }
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The file cannot be read.
    #[error("list {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too long.
    #[error("list {path}: longer than 16 MiB")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A line is wrong.
    #[error(
        "list {path}, line {line}: expected a channel id (52 characters of a-z and 2-7), then perhaps a reason"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

fn parse(path: &Path, content: &str) -> Result<List, ListError> {
    let mut list = List::new();
    for (index, line) in content.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (id, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let wrong = |_| ListError::Line { path: path.to_owned(), line: index + 1 };
        let reason = text::clean(reason.trim().trim_start_matches('#'), REASON_CHARS_MAX);
        let reason = if reason.is_empty() { NO_REASON.to_owned() } else { reason };
        list.insert(id.parse().map_err(wrong)?, reason);
    }
    Ok(list)
}

/// A list file, read again when it changes.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl Watched {
    /// The list, if the file changed since it was last asked for.
    fn poll(&mut self) -> Result<Option<List>, ListError> {
        let unreadable = |source| ListError::Unreadable { path: self.path.clone(), source };
        let metadata = std::fs::metadata(&self.path).map_err(unreadable)?;
        let stamp = (metadata.modified().map_err(unreadable)?, metadata.len());
        if self.seen == Some(stamp) {
            return Ok(None);
        }
        if metadata.len() > LIST_LEN_MAX {
            return Err(ListError::TooLong { path: self.path.clone() });
        }
        let content = std::fs::read_to_string(&self.path).map_err(unreadable)?;
        // Remembered even if a line is wrong, so that the mistake is reported once and not every second.
        self.seen = Some(stamp);
        parse(&self.path, &content).map(Some)
    }
}

/// Both files.
#[derive(Debug)]
pub(crate) struct ListFiles {
    allow: Option<Watched>,
    deny: Option<Watched>,
    current: Lists,
    last_error: Option<String>,
}

impl ListFiles {
    /// Reads both; at the start a wrong list is an error, not something to carry on without.
    pub(crate) fn open(allow: Option<&Path>, deny: Option<&Path>) -> Result<Self, ListError> {
        let watched = |path: &Path| Watched { path: path.to_owned(), seen: None };
        let mut files = Self {
            allow: allow.map(watched),
            deny: deny.map(watched),
            current: Lists::default(),
            last_error: None,
        };
        if let Some(allow) = &mut files.allow {
            files.current.allow = Some(allow.poll()?.unwrap_or_default());
        }
        if let Some(deny) = &mut files.deny {
            files.current.deny = deny.poll()?.unwrap_or_default();
        }
        Ok(files)
    }

    pub(crate) fn current(&self) -> &Lists {
        &self.current
    }

    /// Reads what changed; the new lists, if anything did. Blocks on the file system.
    pub(crate) fn poll(&mut self) -> Option<Lists> {
        let mut next = self.current.clone();
        let mut error = None;
        match self.allow.as_mut().map(Watched::poll) {
            Some(Ok(Some(list))) => next.allow = Some(list),
            Some(Err(wrong)) => error = Some(wrong.to_string()),
            Some(Ok(None)) | None => {}
        }
        match self.deny.as_mut().map(Watched::poll) {
            Some(Ok(Some(list))) => next.deny = list,
            Some(Err(wrong)) => error = Some(wrong.to_string()),
            Some(Ok(None)) | None => {}
        }
        if let Some(error) = error {
            // A file that stays away is reported once.
            if self.last_error.as_ref() != Some(&error) {
                tracing::error!("{error}; the list as it was before stays in force");
            }
            self.last_error = Some(error);
        }
        if next == self.current {
            return None;
        }
        self.last_error = None;
        self.current = next.clone();
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_proto::id::SecretKey;

    #[test]
    fn lines_comments_and_reasons() {
        let (one, two) =
            (SecretKey::from_bytes(&[1; 32]).channel(), SecretKey::from_bytes(&[2; 32]).channel());
        let content = format!("# denied\n\n{one} court order\u{7} 12/3\r\n  {two}\n");
        let list = parse(Path::new("deny"), &content).unwrap();
        assert_eq!(list[&one], "court order 12/3");
        assert_eq!(list[&two], NO_REASON);
        let error = parse(Path::new("deny"), &format!("{one}\nnonsense\n")).unwrap_err().to_string();
        assert!(error.contains("deny, line 2"), "{error}");
    }

    #[test]
    fn denied_beats_allowed_and_an_allow_list_excludes_the_rest() {
        let (one, two) = (ChannelId([1; 32]), ChannelId([2; 32]));
        let mut lists = Lists::default();
        assert_eq!(lists.verdict(&one), None);
        lists.allow = Some(List::from([(one, String::new())]));
        assert_eq!(lists.verdict(&one), None);
        assert_eq!(lists.verdict(&two), Some(NOT_ALLOWED));
        lists.deny.insert(one, "why".into());
        assert_eq!(lists.verdict(&one), Some("why"));
    }

    #[test]
    fn a_wrong_line_keeps_the_list_that_was() {
        let dir = std::env::temp_dir().join(format!("caudal-lists-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("deny");
        let one = SecretKey::from_bytes(&[1; 32]).channel();
        std::fs::write(&path, format!("{one} first\n")).unwrap();
        let mut files = ListFiles::open(None, Some(&path)).unwrap();
        assert_eq!(files.poll(), None);
        std::fs::write(&path, "what is this\n").unwrap();
        assert_eq!(files.poll(), None);
        assert_eq!(files.current().verdict(&one), Some("first"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(files.poll(), Some(Lists::default()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(files.poll(), None);
        assert!(ListFiles::open(None, Some(&path)).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
