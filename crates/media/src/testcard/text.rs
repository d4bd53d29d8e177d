//! Text for the card: Noto Sans (SIL Open Font License 1.1), rasterised once per glyph and size.
//!
//! Covers Latin, Greek and Cyrillic. Never shapes or reorders: what the font lacks is replaced, not guessed.

use std::collections::BTreeMap;

use fontdue::{Font, FontSettings};

use super::CardError;
use super::canvas::{Canvas, Color, Mask};

/// Most characters of a title that are looked at; more than fit in any picture.
const TITLE_CHARS_MAX: usize = 256;
/// Most glyphs kept rasterised. The card itself uses fewer than half as many besides its title.
const GLYPHS_MAX: usize = 1024;
/// Stands for a run of characters the font has no glyph for.
const REPLACEMENT: char = '•';

/// Which face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    Regular,
    Bold,
}

/// Face, size and colour of a run of text. `tracking` is added after each glyph, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) weight: Weight,
    pub(super) px: f32,
    pub(super) color: Color,
    pub(super) tracking: f32,
}

struct Glyph {
    mask: Mask,
    left: i32,
    /// Rows from the baseline up to the mask's first row.
    up: i32,
    advance: f32,
}

/// The two faces and the glyphs drawn so far.
pub(super) struct Text {
    regular: Font,
    bold: Font,
    glyphs: BTreeMap<(Weight, u32, char), Glyph>,
}

impl Text {
    pub(super) fn new() -> Result<Self, CardError> {
        let load = |bytes: &[u8]| {
            let settings = FontSettings { scale: 64.0, load_substitutions: false, ..FontSettings::default() };
            Font::from_bytes(bytes, settings).map_err(CardError::Font)
        };
        Ok(Self {
            regular: load(notosans::REGULAR_TTF)?,
            bold: load(notosans::BOLD_TTF)?,
            glyphs: BTreeMap::new(),
        })
    }

    fn face(&self, weight: Weight) -> &Font {
        match weight {
            Weight::Regular => &self.regular,
            Weight::Bold => &self.bold,
        }
    }

    /// A stranger's text as one line the font can draw, at most `width` pixels wide, ending in `…` when cut.
    pub(super) fn one_line(&self, text: &str, style: Style, width: f32) -> String {
        let font = self.face(style.weight);
        let mut line = String::new();
        for c in text.chars().take(TITLE_CHARS_MAX) {
            let shown = if c.is_whitespace() {
                ' '
            } else if c.is_control() || is_invisible(c) {
                continue;
            } else if font.has_glyph(c) {
                c
            } else {
                REPLACEMENT
            };
            let repeats = matches!(shown, ' ' | REPLACEMENT) && line.ends_with(shown);
            let leads = shown == ' ' && line.is_empty();
            if !repeats && !leads {
                line.push(shown);
            }
        }
        line.truncate(line.trim_end().len());
        if self.width(&line, style) <= width {
            return line;
        }
        while !line.is_empty() && self.width(&line, style) + self.width("…", style) > width {
            line.pop();
            line.truncate(line.trim_end().len());
        }
        line + "…"
    }

    /// How far the pen moves, in pixels.
    pub(super) fn width(&self, text: &str, style: Style) -> f32 {
        let font = self.face(style.weight);
        text.chars().map(|c| font.metrics(c, style.px).advance_width + style.tracking).sum()
    }

    /// Draws from `x` along a baseline; returns where the pen ends.
    pub(super) fn draw(
        &mut self,
        canvas: &mut Canvas,
        text: &str,
        style: Style,
        x: f32,
        baseline: f32,
    ) -> f32 {
        let mut pen = x;
        for c in text.chars() {
            let glyph = self.glyph(c, style);
            let left = pen.round() as i32 + glyph.left;
            canvas.stamp(left, baseline.round() as i32 - glyph.up, &glyph.mask, style.color);
            pen += glyph.advance + style.tracking;
        }
        pen
    }

    fn glyph(&mut self, c: char, style: Style) -> &Glyph {
        let key = (style.weight, style.px.to_bits(), c);
        if !self.glyphs.contains_key(&key) && self.glyphs.len() >= GLYPHS_MAX {
            self.glyphs.clear();
        }
        let font = match style.weight {
            Weight::Regular => &self.regular,
            Weight::Bold => &self.bold,
        };
        self.glyphs.entry(key).or_insert_with(|| {
            let (metrics, coverage) = font.rasterize(c, style.px);
            Glyph {
                mask: Mask { w: metrics.width as i32, h: metrics.height as i32, coverage },
                left: metrics.xmin,
                up: metrics.ymin + metrics.height as i32,
                advance: metrics.advance_width,
            }
        })
    }
}

/// Characters that only steer the drawing of others: joiners, direction marks, variation selectors, tags.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style() -> Style {
        Style { weight: Weight::Bold, px: 48.0, color: Color::rgb(0xFFFFFF), tracking: 0.0 }
    }

    #[test]
    fn titles_become_one_drawable_line() {
        let text = Text::new().unwrap();
        let line = |title: &str| text.one_line(title, style(), 800.0);
        assert_eq!(line("Canal 1"), "Canal 1");
        assert_eq!(line("  Žluťoučký\n\tкůň Ωmega  "), "Žluťoučký кůň Ωmega");
        assert_eq!(line("News 👩‍👩‍👧 now"), "News • now");
        assert_eq!(line("\u{202E}evil\u{202C}"), "evil");
        assert_eq!(line("قناة"), "•");
        assert_eq!(line(""), "");
    }

    #[test]
    fn long_titles_are_cut_to_the_width() {
        let text = Text::new().unwrap();
        for title in ["W".repeat(10_000), "ñandú ".repeat(2_000), "é".repeat(5_000), "🎬".repeat(3_000)]
        {
            let line = text.one_line(&title, style(), 800.0);
            assert!(text.width(&line, style()) <= 800.0, "{line}");
            assert!(line.ends_with('…') || line == "•", "{line}");
        }
    }

    #[test]
    fn digits_keep_their_width_so_that_the_clock_stands_still() {
        let text = Text::new().unwrap();
        let one = text.width("1", style());
        assert!("0123456789".chars().all(|c| (text.width(&c.to_string(), style()) - one).abs() < 0.01));
    }
}
