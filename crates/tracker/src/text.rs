//! Text written by strangers: what may be in a name, and how ids and bytes are written in JSON.
//!
//! Nothing here escapes for HTML or a terminal; that is for whoever shows the text. What is refused is what no
//! escaping helps against: control characters, and the invisible marks that reorder or hide the text around them.

use std::fmt::Display;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{Error as _, Visitor};
use serde::{Deserializer, Serializer};

/// Whether `c` may stand in a line of text that is shown to people.
///
/// The zero-width joiner and non-joiner and the emoji's variation selector are kept: emoji and several scripts need them.
pub fn is_plain(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
            // Fillers and a blank that is no space.
            | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}'
            // Variation selectors, all but the one that emoji are written with.
            | '\u{fe00}'..='\u{fe0e}' | '\u{e0100}'..='\u{e01ef}'
            // Controls of shorthand and of musical notation.
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'))
}

/// `text` without what is not plain, and at most `chars_max` characters of it, trimmed.
pub fn clean(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| is_plain(*c)).take(chars_max).collect::<String>().trim().to_owned()
}

/// So much of what cannot be read is shown.
const SHOWN_CHARS_MAX: usize = 80;

/// Enough of what cannot be read to recognise it.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// `#[serde(with = "as_text")]`: a value written as its `Display` text.
pub(crate) mod as_text {
    use super::{Deserializer, Display, FromStr, Serializer};

    pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        deserializer.deserialize_str(super::Parsed(std::marker::PhantomData))
    }
}

struct Parsed<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err: Display>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// `#[serde(with = "base64url")]`: bytes written as base64url without padding (RFC 4648 §5).
pub(crate) mod base64url {
    use super::{BASE64URL_NOPAD, Deserializer, Serializer, decode};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        decode(deserializer)
    }
}

fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text: String = serde::Deserialize::deserialize(deserializer)?;
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| D::Error::custom("expected base64url without padding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_would_lie_about_them() {
        assert_eq!(clean("  Canal\u{202e}1\u{0}\u{1b}[31m ", 64), "Canal1[31m");
        assert_eq!(clean("👩\u{200d}🚀 نمی\u{200c}خواهم", 64), "👩\u{200d}🚀 نمی\u{200c}خواهم");
        assert_eq!(clean("▶\u{fe0f}\u{fe0e}❤\u{fe0f}", 64), "▶\u{fe0f}❤\u{fe0f}");
        for c in [
            0x115f, 0x1160, 0x2800, 0x3164, 0xfe00, 0xfe0e, 0xffa0, 0x1bca0, 0x1d173, 0x1d17a, 0xe0100,
            0xe01ef,
        ] {
            let c = char::from_u32(c).unwrap();
            assert_eq!(clean(&format!("Canal{c}1"), 64), "Canal1", "{c:?}");
        }
        assert_eq!(clean(&"é".repeat(100), 64).chars().count(), 64);
    }
}
