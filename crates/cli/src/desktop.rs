//! The desktop's files, as text: an entry that opens links (Desktop Entry Specification 1.5), and the list of what opens what
//! (Association between MIME types and applications 1.0).

use std::path::Path;

use anyhow::{Result, bail};

/// The entry's file name, which is its id.
pub(crate) const ENTRY_ID: &str = "caudal-links.desktop";
/// What the desktop calls our links.
pub(crate) const LINK_TYPE: &str = "x-scheme-handler/caudal";
/// The group of [`set_default`].
const DEFAULTS: &str = "[Default Applications]";

/// The entry that opens links with `program`. In a terminal: a viewer sends to others, so whoever clicked sees that it runs,
/// and can end it. `--` stands before the link, so that none can be an option.
///
/// # Errors
/// When an entry cannot name that path.
pub(crate) fn entry(program: &Path) -> Result<String> {
    let name = program.display();
    let Some(text) = program.to_str().filter(|text| !text.chars().any(|c| c.is_control() || c == '=')) else {
        bail!(
            "the desktop cannot start {name}: its path has an equals sign, control characters or bytes that are not UTF-8; \
             move the program, then try again"
        );
    };
    Ok(format!(
        "[Desktop Entry]\n\
         Type=Application\n\
         Version=1.0\n\
         Name=Caudal\n\
         Comment=Watch a live channel\n\
         TryExec={}\n\
         Exec={} watch --foreign-link --open -- %u\n\
         Terminal=true\n\
         NoDisplay=true\n\
         MimeType={LINK_TYPE};\n",
        escaped(text),
        escaped(&quoted(text)),
    ))
}

/// An argument of `Exec`, in quotes.
fn quoted(argument: &str) -> String {
    let mut quoted = String::from('"');
    for c in argument.chars() {
        match c {
            '"' | '`' | '$' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A value of type string: a backslash begins an escape.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\")
}

/// The programs that a line names for our links.
fn named(line: &str) -> Option<Vec<&str>> {
    let (key, value) = line.split_once('=')?;
    (key.trim() == LINK_TYPE).then(|| value.split(';').map(str::trim).filter(|id| !id.is_empty()).collect())
}

/// Whether the list `text` has our entry as the first for our links.
pub(crate) fn is_default(text: &str) -> bool {
    let mut group = "";
    text.lines().any(|line| {
        if line.starts_with('[') {
            group = line.trim();
        }
        group == DEFAULTS && named(line).is_some_and(|ids| ids.first() == Some(&ENTRY_ID))
    })
}

/// The list `text` with our entry as the first for our links; whatever else it says stays.
pub(crate) fn set_default(text: &str) -> String {
    let (mut lines, mut is_inside, mut at) = (Vec::new(), false, None);
    let mut others = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            is_inside = line.trim() == DEFAULTS;
        } else if is_inside && let Some(ids) = named(line) {
            others.extend(ids.into_iter().filter(|id| *id != ENTRY_ID));
            continue;
        }
        lines.push(line.to_owned());
        if is_inside && line.starts_with('[') {
            at = at.or(Some(lines.len()));
        }
    }
    let at = at.unwrap_or_else(|| {
        if lines.last().is_some_and(|line| !line.trim().is_empty()) {
            lines.push(String::new());
        }
        lines.push(DEFAULTS.to_owned());
        lines.len()
    });
    let ids: String = std::iter::once(ENTRY_ID).chain(others).map(|id| format!("{id};")).collect();
    lines.insert(at, format!("{LINK_TYPE}={ids}"));
    lines.join("\n") + "\n"
}

/// The list `text` without our entry, and without a group that held nothing else.
pub(crate) fn unset_default(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut is_emptied = false;
    // A group ends where the next begins.
    for line in text.lines().chain(["["]) {
        if line.starts_with('[') {
            let filled = lines.iter().rposition(|line| !line.trim().is_empty());
            if std::mem::take(&mut is_emptied)
                && let Some(header) = filled.filter(|at| lines[*at].starts_with('['))
            {
                lines.truncate(header);
            }
        }
        match named(line).filter(|ids| ids.contains(&ENTRY_ID)) {
            None => lines.push(line.to_owned()),
            Some(ids) => {
                let others: String =
                    ids.iter().filter(|id| **id != ENTRY_ID).map(|id| format!("{id};")).collect();
                is_emptied = others.is_empty();
                if !is_emptied {
                    lines.push(format!("{LINK_TYPE}={others}"));
                }
            }
        }
    }
    lines.pop();
    if lines.is_empty() { String::new() } else { lines.join("\n") + "\n" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a desktop makes of `Exec`, as the specification says: the value's escapes, then quotes, then `%%`.
    fn arguments(entry: &str) -> Vec<String> {
        let exec = entry.lines().find_map(|line| line.strip_prefix("Exec=")).unwrap();
        let exec = exec.replace("\\\\", "\\");
        let (mut arguments, mut is_quoted, mut chars) = (vec![String::new()], false, exec.chars());
        while let Some(c) = chars.next() {
            match c {
                '"' => is_quoted = !is_quoted,
                '\\' if is_quoted => arguments.last_mut().unwrap().extend(chars.next()),
                ' ' if !is_quoted => arguments.push(String::new()),
                _ => arguments.last_mut().unwrap().push(c),
            }
        }
        arguments.iter().map(|argument| argument.replace("%%", "%")).collect()
    }

    #[test]
    fn any_path_that_an_entry_can_name_is_named_as_it_is() {
        for path in [
            "/usr/bin/caudal",
            "/home/a b/caudal",
            r#"/x/it's "a" $HOME `id` 100% %u \n \\ ;#&|<>~*?()/caudal"#,
            "/ñandú/📺",
        ] {
            let entry = entry(Path::new(path)).unwrap();
            let expected = [path, "watch", "--foreign-link", "--open", "--", "%u"];
            assert_eq!(arguments(&entry), expected, "{entry}");
            assert_eq!(entry.lines().count(), 10);
        }
        for path in ["/a=b/caudal", "/a\nExec=evil", "/a\tb"] {
            assert!(entry(Path::new(path)).is_err_and(|why| why.to_string().contains("move the program")));
        }
    }

    #[test]
    fn the_list_keeps_what_others_wrote() {
        let ours = format!("{LINK_TYPE}={ENTRY_ID};");
        assert_eq!(set_default(""), format!("{DEFAULTS}\n{ours}\n"));
        assert_eq!(unset_default(&set_default("")), "");
        let text = format!(
            "# mine\n[Added Associations]\ntext/html=a.desktop;\n\n{DEFAULTS}\ntext/html=a.desktop;b.desktop;\n\n[Removed Associations]\nx=y\n"
        );
        let set = set_default(&text);
        assert!(is_default(&set) && !is_default(&text));
        assert_eq!(set_default(&set), set, "twice is once");
        assert_eq!(set, text.replace(DEFAULTS, &format!("{DEFAULTS}\n{ours}")));
        assert_eq!(unset_default(&set), text);
        assert_eq!(unset_default(&text), text, "nothing of ours, nothing to do");
        let other = format!("{DEFAULTS}\n{LINK_TYPE}=other.desktop\n");
        let set = set_default(&other);
        assert_eq!(set, format!("{DEFAULTS}\n{LINK_TYPE}={ENTRY_ID};other.desktop;\n"));
        assert_eq!(unset_default(&set), other.replace(".desktop\n", ".desktop;\n"));
        let last = format!("[Added Associations]\na=b\n\n{DEFAULTS}\n{ours}\n");
        assert_eq!(unset_default(&last), "[Added Associations]\na=b\n\n");
    }
}
