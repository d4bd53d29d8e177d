//! Values of a TOML file with the lines that they stand on.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// From places in a text to lines.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The line, from 1, of the byte at `at`.
    pub(super) fn at(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at.min(self.text.len()))
    }

    pub(super) fn error(&self, at: usize, what: String) -> ConfigError {
        ConfigError { line: self.at(at), what }
    }
}

pub(super) type Key<'a> = Spanned<Cow<'a, str>>;

/// A table, where it begins, and what it is called.
pub(super) struct At<'a> {
    pub(super) lines: &'a Lines<'a>,
    pub(super) value: &'a DeTable<'a>,
    pub(super) start: usize,
    pub(super) path: String,
}

impl<'a> At<'a> {
    /// A key's name in full.
    pub(super) fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Complains about the first key that is none of `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        match self.entries_in_order().find(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some((key, _)) => {
                let name = self.full(key.get_ref());
                Err(self.lines.error(
                    key.span().start,
                    format!("{name} is not a key that is known here: {}", known.join(", ")),
                ))
            }
        }
    }

    /// The entries as they stand in the file.
    pub(super) fn entries_in_order(
        &self,
    ) -> impl Iterator<Item = (&'a Key<'a>, &'a Spanned<DeValue<'a>>)> + use<'a> {
        let mut entries: Vec<_> = self.value.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter()
    }

    pub(super) fn spanned(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.value.get(key)
    }

    pub(super) fn value(&self, key: &str) -> Option<(&'a DeValue<'a>, usize)> {
        self.spanned(key).map(|value| (value.get_ref(), value.span().start))
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<(&'a str, usize)>, ConfigError> {
        let Some((value, at)) = self.value(key) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some((text, at))),
            None => Err(self.lines.error(at, format!("{} is text in quotes", self.full(key)))),
        }
    }

    /// A number that is a cost: not negative.
    pub(super) fn cost(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let Some((value, at)) = self.value(key) else { return Ok(None) };
        cost(value).map(Some).ok_or_else(|| {
            self.lines.error(at, format!("{} is a number from 0, such as 5 or 2.5", self.full(key)))
        })
    }

    pub(super) fn table(&self, key: &str) -> Result<Option<Self>, ConfigError> {
        let Some(spanned) = self.spanned(key) else { return Ok(None) };
        let key_at = self.value.keys().find(|k| k.get_ref() == key).map_or(0, |key| key.span().start);
        self.as_table(key, key_at, spanned).map(Some)
    }

    pub(super) fn required_table(&self, key: &str, why: &str) -> Result<Self, ConfigError> {
        let name = self.full(key);
        self.table(key)?.ok_or_else(|| self.lines.error(self.start, format!("there is no [{name}]: {why}")))
    }

    /// The tables in a table of tables, as they stand in the file.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<(&'a Key<'a>, Self)>, ConfigError> {
        let Some(outer) = self.table(key)? else { return Ok(Vec::new()) };
        let inner = outer.entries_in_order();
        inner.map(|(key, value)| Ok((key, outer.as_table(key.get_ref(), key.span().start, value)?))).collect()
    }

    fn as_table(
        &self,
        key: &str,
        key_at: usize,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Self, ConfigError> {
        let path = self.full(key);
        match value.get_ref().as_table() {
            Some(table) => Ok(Self { lines: self.lines, value: table, start: key_at, path }),
            None => Err(self.lines.error(key_at, format!("{path} is a table: write [{path}]"))),
        }
    }
}

/// A number that is a cost.
pub(super) fn cost(value: &DeValue<'_>) -> Option<f64> {
    let number: f64 = match value {
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok()?,
        DeValue::Float(float) => float.as_str().parse().ok()?,
        _ => return None,
    };
    // Minus nought is nought.
    (number.is_finite() && number >= 0.0).then_some(number.abs())
}

/// The elements of an array.
pub(super) fn array<'a>(
    lines: &Lines<'_>,
    value: &'a Spanned<DeValue<'a>>,
    name: &str,
) -> Result<impl Iterator<Item = &'a Spanned<DeValue<'a>>> + use<'a>, ConfigError> {
    match value.get_ref().as_array() {
        Some(array) => Ok(array.iter()),
        None => Err(lines.error(value.span().start, format!("{name} is a list in brackets: [\"…\", \"…\"]"))),
    }
}
