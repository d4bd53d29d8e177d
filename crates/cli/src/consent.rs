//! Asking before a link that was clicked makes this computer send to strangers.

use std::io::{self, BufRead, IsTerminal as _, Write};

use caudal_tracker::text::clean;

/// Longest name of a channel in the question, characters.
const NAME_CHARS_MAX: usize = 64;

/// What whoever clicked wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Watch, and pass on what is watched.
    Upload,
    /// Watch alone.
    NoUpload,
    /// Neither.
    No,
}

/// Asks on the terminal. Without one there is nobody who could agree to uploading.
///
/// # Errors
/// When the terminal cannot be read or written.
pub(crate) fn ask(name: &str) -> io::Result<Consent> {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        ask_on(name, &mut io::stdin().lock(), &mut io::stderr().lock())
    } else {
        Ok(Consent::NoUpload)
    }
}

fn ask_on(name: &str, answers: &mut impl BufRead, out: &mut impl Write) -> io::Result<Consent> {
    writeln!(
        out,
        "{}\nOther viewers will see your network address, as you see theirs, and you upload to them what you watch.",
        clean(name, NAME_CHARS_MAX)
    )?;
    loop {
        write!(out, "Watch? [Y]es, [n] without uploading, Ctrl-C: no ")?;
        out.flush()?;
        let mut answer = String::new();
        if answers.read_line(&mut answer)? == 0 {
            return Ok(Consent::No);
        }
        match answer.trim().to_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(Consent::Upload),
            "n" => return Ok(Consent::NoUpload),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_plain_yes_uploads() {
        for (typed, wanted) in [
            ("\n", Consent::Upload),
            ("Y\r\n", Consent::Upload),
            ("yes\n", Consent::Upload),
            ("n\n", Consent::NoUpload),
            ("N\n", Consent::NoUpload),
            ("what?\nno\nn\n", Consent::NoUpload),
            ("what?\n", Consent::No),
            ("", Consent::No),
        ] {
            let mut out = Vec::new();
            let consent = ask_on("Canal\u{1b}[2J\u{202e} 1", &mut typed.as_bytes(), &mut out).unwrap();
            assert_eq!(consent, wanted, "{typed:?}");
            let asked = String::from_utf8(out).unwrap();
            assert!(asked.starts_with("Canal[2J 1\n") && asked.contains("you upload to them"), "{asked}");
        }
    }
}
