//! What the pages at the top and in `docs/` refer to exists: files they link to, and tests that ARCHITECTURE.md names.

use crate::{sh, workspace};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The page whose `test: …` and `tests: …` name tests.
const NAMES_TESTS: &str = "ARCHITECTURE.md";

/// Reports links and test names that lead nowhere; true when there are none.
pub(super) fn run() -> Result<bool> {
    let root = workspace::root();
    let mut pages = markdown(root)?;
    pages.extend(markdown(&root.join("docs"))?);
    let mut complaints = Vec::new();
    for page in &pages {
        let text =
            std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
        let folder = page.parent().unwrap_or(root);
        let name = page.strip_prefix(root).unwrap_or(page).display();
        let dead = links(&text).into_iter().filter(|link| !folder.join(link).exists());
        complaints.extend(dead.map(|link| format!("{name} links to {link}, which does not exist")));
    }
    let page = std::fs::read_to_string(root.join(NAMES_TESTS))
        .with_context(|| format!("cannot read {NAMES_TESTS}"))?;
    let mut sources = Vec::new();
    super::lengths::rust_files(&root.join("crates"), &mut sources)?;
    let sources: Vec<String> = sources.iter().map(std::fs::read_to_string).collect::<Result<_, _>>()?;
    for test in named_tests(&page) {
        if !sources.iter().any(|source| source.contains(&format!("fn {test}"))) {
            complaints
                .push(format!("{NAMES_TESTS} names the test {test}, which does not exist: was it renamed?"));
        }
    }
    sh::say(&format!("{} pages: links, and tests that they name", pages.len()));
    for complaint in &complaints {
        eprintln!("    {complaint}");
    }
    Ok(complaints.is_empty())
}

fn markdown(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(pages)
}

/// Targets of links to files, without those to the web and those within the page.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter_map(|target| target.split('#').next());
    files.filter(|file| !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:")).collect()
}

/// The names in backquotes that follow `test:` or `tests:` in a line, up to the cell's end.
fn named_tests(text: &str) -> Vec<&str> {
    let lines =
        text.lines().filter_map(|line| line.split_once("test: ").or_else(|| line.split_once("tests: ")));
    lines
        .flat_map(|(_, named)| named.split('|').next().unwrap_or_default().split('`').skip(1).step_by(2))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found_and_others_are_not() {
        let text = "See [a](docs/a.md#part), [b](https://example.org/b), [c](#here) and [MIT](LICENSE-MIT).";
        assert_eq!(links(text), ["docs/a.md", "LICENSE-MIT"]);
    }

    #[test]
    fn named_tests_are_those_after_the_word() {
        let text =
            "| 1. `proto` | `unsafe`; tests: `one`, `two` (why) |\n| 2. | test: `three` |\nno `names` here";
        assert_eq!(named_tests(text), ["one", "two", "three"]);
    }
}
