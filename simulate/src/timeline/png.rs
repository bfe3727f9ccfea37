//! PNG: the same picture as pixels.

use super::font::{ADVANCE, GLYPH_HEIGHT, glyph};
use super::{Colour, FAINT, INK, Picture, WHITE, WIDTH};

const LEFT: usize = 150;
const TOP: usize = 40;
const RIGHT: usize = 40;

struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Canvas {
        Canvas { width, height, pixels: WHITE.repeat(width * height) }
    }

    fn set(&mut self, x: usize, y: usize, colour: Colour) {
        if x < self.width && y < self.height {
            let at = (y * self.width + x) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        for row in y..y + height {
            (x..x + width).for_each(|column| self.set(column, row, colour));
        }
    }

    fn write(&mut self, x: usize, y: usize, text: &str, scale: usize) {
        for (number, letter) in text.chars().enumerate() {
            for (column, bits) in glyph(letter).iter().enumerate() {
                for row in (0..GLYPH_HEIGHT).filter(|row| bits >> row & 1 == 1) {
                    self.fill(x + (number * ADVANCE + column) * scale, y + row * scale, scale, scale, INK);
                }
            }
        }
    }
}

fn width_of(text: &str, scale: usize) -> usize {
    text.chars().count() * ADVANCE * scale
}

pub(super) fn bytes(picture: &Picture) -> std::io::Result<Vec<u8>> {
    let plot = picture.rows.len() * picture.row_height;
    let height = TOP + plot + 34 + 20 * picture.legend.len().div_ceil(4) + 10;
    let mut canvas = Canvas::new(LEFT + WIDTH + RIGHT, height);
    canvas.write(LEFT, 12, &picture.title, 2);
    for (number, row) in picture.rows.iter().enumerate() {
        let gap = usize::from(picture.row_height > 3);
        for (column, colour) in row.iter().enumerate() {
            canvas.fill(LEFT + column, TOP + number * picture.row_height, 1, picture.row_height - gap, *colour);
        }
    }
    for (column, text) in &picture.times {
        let x = LEFT + column;
        canvas.fill(x, TOP + plot, 1, 6, INK);
        for y in (TOP..TOP + plot).step_by(4) {
            canvas.set(x, y, FAINT);
        }
        canvas.write(x.saturating_sub(width_of(text, 1) / 2), TOP + plot + 10, text, 1);
    }
    let mut last = None;
    for (row, text) in &picture.groups {
        let y = TOP + row * picture.row_height + picture.row_height.min(14) / 3;
        if last.is_some_and(|before| y < before + GLYPH_HEIGHT + 3) {
            continue;
        }
        last = Some(y);
        let room = (LEFT - 10) / ADVANCE;
        let text: String = text.chars().take(room).collect();
        canvas.write((LEFT - 8).saturating_sub(width_of(&text, 1)), y, &text, 1);
    }
    for (number, (colour, text)) in picture.legend.iter().enumerate() {
        let (x, y) = (LEFT + number % 4 * 290, TOP + plot + 32 + number / 4 * 20);
        canvas.fill(x, y, 12, 12, FAINT);
        canvas.fill(x + 1, y + 1, 10, 10, *colour);
        let text: String = text.chars().take(270 / ADVANCE).collect();
        canvas.write(x + 18, y + 3, &text, 1);
    }
    let mut out = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut out, canvas.width as u32, canvas.height as u32);
    encoder.set_color(::png::ColorType::Rgb);
    encoder.set_depth(::png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&canvas.pixels)?;
    writer.finish()?;
    Ok(out)
}
