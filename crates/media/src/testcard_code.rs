//! The machine-readable strip at the foot of the test card: wall clock and frame number as black and white cells.
//!
//! Owns the layout, drawing into a luma plane, and reading from any decoded one. Never encodes or decodes video
//! and needs no dependency, so that a reader (a latency probe, a page's test) can use it alone.
//!
//! ```text
//!          2 guards │ 48 data cells: wall clock, ms since the Unix epoch, most significant bit first │ 2 guards
//!  row 0    W  B    │ t47 … t0                                                                      │  B  W
//!  row 1    B  W    │ f31 … f0 (frame number), c15 … c0 (CRC-16/IBM-3740 of the ten bytes before)    │  W  B
//! ```
//!
//! In a picture of 1280×720 a cell is 24×24 pixels and the strip's upper left corner lies at (16, 656); other sizes
//! scale both axes. White is a set bit. The guards give the reader black and white as they arrived.

/// Width the layout is written in; other widths scale.
const DESIGN_WIDTH: usize = 1280;
/// Height the layout is written in; other heights scale.
const DESIGN_HEIGHT: usize = 720;
/// Upper left corner of the strip.
const LEFT: usize = 16;
const TOP: usize = 656;
/// Side of one cell.
const CELL: usize = 24;
/// Guard cells at each end of a row.
const GUARDS: usize = 2;
/// Data cells in a row.
const DATA_COLUMNS: usize = 48;
/// All cells in a row.
const COLUMNS: usize = GUARDS + DATA_COLUMNS + GUARDS;
const ROWS: usize = 2;
/// Cells that carry payload and checksum.
const DATA_CELLS: usize = ROWS * DATA_COLUMNS;

/// Luma of a set and an unset cell: the ends of the limited range (ITU-R BT.709, 8 bits).
const WHITE: u8 = 235;
const BLACK: u8 = 16;
/// Least distance between the mean of white and black guards for a picture to be taken for a test card.
const CONTRAST_MIN: u32 = 48;
/// Smallest picture whose cells still have pixels away from their borders.
const WIDTH_MIN: usize = DESIGN_WIDTH / 4;
const HEIGHT_MIN: usize = DESIGN_HEIGHT / 4;

/// What one frame of the card says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    /// The wall clock the frame was stamped with, ms since the Unix epoch; the low 48 bits travel.
    pub unix_ms: u64,
    /// The frame number, modulo 2³².
    pub frame: u32,
}

impl Code {
    /// The payload and its checksum, one entry a cell, in reading order.
    fn bits(self) -> [bool; DATA_CELLS] {
        let mut bytes = [0u8; DATA_CELLS / 8];
        bytes[..6].copy_from_slice(&self.unix_ms.to_be_bytes()[2..]);
        bytes[6..10].copy_from_slice(&self.frame.to_be_bytes());
        let crc = crc16(&bytes[..10]);
        bytes[10..].copy_from_slice(&crc.to_be_bytes());
        std::array::from_fn(|i| bytes[i / 8] >> (7 - i % 8) & 1 == 1)
    }

    /// The inverse of [`Code::bits`]; `None` when the checksum does not match.
    fn from_bits(bits: &[bool; DATA_CELLS]) -> Option<Self> {
        let mut bytes = [0u8; DATA_CELLS / 8];
        for (i, &bit) in bits.iter().enumerate() {
            bytes[i / 8] |= u8::from(bit) << (7 - i % 8);
        }
        if crc16(&bytes[..10]) != u16::from_be_bytes([bytes[10], bytes[11]]) {
            return None;
        }
        let unix_ms = bytes[..6].iter().fold(0u64, |ms, &byte| ms << 8 | u64::from(byte));
        let frame = u32::from_be_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]);
        Some(Self { unix_ms, frame })
    }
}

/// Reads the code from a decoded picture.
///
/// `luma` holds `height` rows of `stride` bytes of which `width` are pixels. Any uniform or anisotropic scale of the
/// whole card is accepted from half size (640×360 of a 1280×720 card) upwards; a cropped or padded picture is not.
/// Returns `None` for anything else: a plane shorter than it says, no strip, or a checksum that does not match.
#[must_use]
pub fn read(luma: &[u8], width: usize, height: usize, stride: usize) -> Option<Code> {
    check_plane(luma, width, height, stride)?;
    let mean = |row, column| {
        let cell = Cell::new(row, column, width, height).core();
        let mut sum = 0u32;
        for y in cell.top..cell.bottom {
            let line = &luma[y * stride..y * stride + width];
            sum += line[cell.left..cell.right].iter().map(|&p| u32::from(p)).sum::<u32>();
        }
        let pixels = (cell.right - cell.left) * (cell.bottom - cell.top);
        sum / u32::try_from(pixels).unwrap_or(u32::MAX).max(1)
    };

    let (mut darkest_white, mut brightest_black) = (u32::MAX, 0);
    for row in 0..ROWS {
        for column in (0..GUARDS).chain(GUARDS + DATA_COLUMNS..COLUMNS) {
            let level = mean(row, column);
            if guard_is_white(row, column) {
                darkest_white = darkest_white.min(level);
            } else {
                brightest_black = brightest_black.max(level);
            }
        }
    }
    if darkest_white < brightest_black + CONTRAST_MIN {
        return None;
    }
    let threshold = u32::midpoint(darkest_white, brightest_black);
    let bits = std::array::from_fn(|i| mean(i / DATA_COLUMNS, GUARDS + i % DATA_COLUMNS) > threshold);
    Code::from_bits(&bits)
}

/// Draws the strip into a luma plane laid out as [`read`] expects it.
///
/// A plane that is too small for its own description or for the strip stays as it is.
pub fn draw(luma: &mut [u8], width: usize, height: usize, stride: usize, code: Code) {
    if check_plane(luma, width, height, stride).is_none() {
        return;
    }
    let bits = code.bits();
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            let white = match column.checked_sub(GUARDS) {
                Some(data) if data < DATA_COLUMNS => bits[row * DATA_COLUMNS + data],
                _ => guard_is_white(row, column),
            };
            let cell = Cell::new(row, column, width, height);
            for y in cell.top..cell.bottom {
                luma[y * stride + cell.left..y * stride + cell.right].fill(if white { WHITE } else { BLACK });
            }
        }
    }
}

/// Where the strip lies: left, top, width and height in pixels.
#[must_use]
pub fn area(width: usize, height: usize) -> [usize; 4] {
    let (first, last) = (Cell::new(0, 0, width, height), Cell::new(ROWS - 1, COLUMNS - 1, width, height));
    [first.left, first.top, last.right - first.left, last.bottom - first.top]
}

/// Whether the plane is as large as it says and large enough for the strip.
fn check_plane(luma: &[u8], width: usize, height: usize, stride: usize) -> Option<()> {
    let needed = stride.checked_mul(height.checked_sub(1)?)?.checked_add(width)?;
    (width >= WIDTH_MIN && height >= HEIGHT_MIN && stride >= width && luma.len() >= needed).then_some(())
}

/// The guards alternate along a row and between rows, so that a flat or striped picture never looks like a strip.
fn guard_is_white(row: usize, column: usize) -> bool {
    let left = column < GUARDS;
    (row + column + usize::from(!left)).is_multiple_of(2)
}

/// A rectangle of pixels: `left..right` by `top..bottom`.
struct Cell {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

impl Cell {
    fn new(row: usize, column: usize, width: usize, height: usize) -> Self {
        let x = |design: usize| (design * width + DESIGN_WIDTH / 2) / DESIGN_WIDTH;
        let y = |design: usize| (design * height + DESIGN_HEIGHT / 2) / DESIGN_HEIGHT;
        let (left, top) = (LEFT + column * CELL, TOP + row * CELL);
        Self { left: x(left), top: y(top), right: x(left + CELL), bottom: y(top + CELL) }
    }

    /// The middle of the cell, which blur and ringing from its neighbours reach last. Never empty.
    fn core(&self) -> Self {
        let (dx, dy) = ((self.right - self.left) / 4, (self.bottom - self.top) / 4);
        Self { left: self.left + dx, top: self.top + dy, right: self.right - dx, bottom: self.bottom - dy }
    }
}

/// CRC-16/IBM-3740: polynomial 0x1021, initial value 0xFFFF, not reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, &byte| {
        (0..8).fold(
            crc ^ u16::from(byte) << 8,
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: Code = Code { unix_ms: 1_763_806_210_123, frame: 0xDEAD_BEEF };

    fn card(width: usize, height: usize, stride: usize, code: Code) -> Vec<u8> {
        let mut luma = vec![40; stride * height];
        draw(&mut luma, width, height, stride, code);
        luma
    }

    #[test]
    fn the_checksum_is_the_catalogued_one() {
        assert_eq!(crc16(b"123456789"), 0x29B1);
    }

    #[test]
    fn reads_what_was_drawn_at_any_size() {
        for (width, height, stride) in [
            (1280, 720, 1280),
            (640, 360, 640),
            (854, 480, 896),
            (1920, 1080, 1920),
            (3840, 2160, 4096),
            (720, 576, 720),
        ] {
            for code in
                [CODE, Code { unix_ms: 0, frame: 0 }, Code { unix_ms: (1 << 48) - 1, frame: u32::MAX }]
            {
                assert_eq!(read(&card(width, height, stride, code), width, height, stride), Some(code));
            }
        }
    }

    #[test]
    fn reads_a_halved_noisy_low_contrast_picture() {
        let full = card(1280, 720, 1280, CODE);
        let mut half = Vec::with_capacity(640 * 360);
        let mut noise = 1u32;
        for y in 0..360 {
            for x in 0..640 {
                let at = |dx: usize, dy: usize| u32::from(full[(2 * y + dy) * 1280 + 2 * x + dx]);
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let mean = (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1)) / 4;
                half.push(u8::try_from(70 + mean / 3 + (noise >> 27)).unwrap());
            }
        }
        assert_eq!(read(&half, 640, 360, 640), Some(CODE));
    }

    #[test]
    fn the_strip_lies_where_the_layout_says() {
        assert_eq!(area(1280, 720), [16, 656, 1248, 48]);
        assert_eq!(area(640, 360), [8, 328, 624, 24]);
    }

    #[test]
    fn a_flipped_cell_is_refused() {
        for (row, column) in [(0, 2), (0, 30), (1, 2), (1, 49)] {
            let mut luma = card(1280, 720, 1280, CODE);
            let cell = Cell::new(row, column, 1280, 720);
            for y in cell.top..cell.bottom {
                for p in &mut luma[y * 1280 + cell.left..y * 1280 + cell.right] {
                    *p = WHITE + BLACK - *p;
                }
            }
            assert_eq!(read(&luma, 1280, 720, 1280), None, "cell {row}, {column}");
        }
    }

    #[test]
    fn what_is_not_a_card_is_none() {
        assert_eq!(read(&vec![128; 1280 * 720], 1280, 720, 1280), None);
        assert_eq!(read(&vec![0; 1280 * 720], 1280, 720, 1280), None);
        assert_eq!(read(&[], 0, 0, 0), None);
        assert_eq!(read(&[1, 2, 3], 1280, 720, 1280), None);
        assert_eq!(read(&[1, 2, 3], usize::MAX, usize::MAX, usize::MAX), None);
        let stripes: Vec<u8> = (0..1280 * 720).map(|i| if i / 24 % 2 == 0 { WHITE } else { BLACK }).collect();
        assert_eq!(read(&stripes, 1280, 720, 1280), None);
        let luma = card(1280, 720, 1280, CODE);
        assert_eq!(read(&luma, 1280, 720, 1000), None, "a stride shorter than the row");
        assert_eq!(read(&luma[..luma.len() - 1], 1280, 720, 1280), None, "a plane one byte short");
    }

    #[test]
    fn a_plane_too_small_stays_as_it_is() {
        let mut luma = vec![7; 100 * 50];
        draw(&mut luma, 100, 50, 100, CODE);
        assert!(luma.iter().all(|&p| p == 7));
    }
}
