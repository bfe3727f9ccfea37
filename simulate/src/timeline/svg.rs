//! SVG: rows as rectangles, one per run of equal pixels, so that the file's size follows the picture and not the number of leases.

use super::{Colour, FAINT, INK, Picture, WIDTH};
use std::fmt::Write;

const LEFT: usize = 150;
const TOP: usize = 40;

pub(super) fn text(picture: &Picture) -> String {
    let plot = picture.rows.len() * picture.row_height;
    let height = TOP + plot + 30 + 20 * picture.legend.len().div_ceil(4) + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\" fill=\"{}\">{}</text>\n\
         <g shape-rendering=\"crispEdges\">\n",
        LEFT + WIDTH + 30,
        hex(INK),
        escaped(&picture.title)
    );
    for (number, row) in picture.rows.iter().enumerate() {
        let y = TOP + number * picture.row_height;
        let gap = usize::from(picture.row_height > 3);
        let mut from = 0;
        while from < row.len() {
            let run = row[from..].iter().take_while(|colour| **colour == row[from]).count();
            let (x, high, fill) = (LEFT + from, picture.row_height - gap, hex(row[from]));
            let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{run}\" height=\"{high}\" fill=\"{fill}\"/>");
            from += run;
        }
    }
    svg.push_str("</g>\n");
    for (column, text) in &picture.times {
        let (x, bottom) = (LEFT + column, TOP + plot);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{}\" stroke=\"{}\" stroke-opacity=\"0.6\"/>",
            bottom + 5,
            hex(FAINT)
        );
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"{}\">{text}</text>", bottom + 18, hex(INK));
    }
    let mut last = None;
    for (row, text) in &picture.groups {
        let y = TOP + row * picture.row_height + 12;
        // Groups of one device lie too close for a name each.
        if last.is_some_and(|before| y < before + 12) {
            continue;
        }
        last = Some(y);
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\" fill=\"{}\">{}</text>", LEFT - 8, hex(INK), escaped(text));
    }
    for (number, (colour, text)) in picture.legend.iter().enumerate() {
        let (x, y) = (LEFT + number % 4 * 290, TOP + plot + 30 + number / 4 * 20);
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{}\" stroke=\"{}\"/>", hex(*colour), hex(FAINT));
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" fill=\"{}\">{}</text>", x + 18, y + 11, hex(INK), escaped(text));
    }
    svg.push_str("</svg>\n");
    svg
}

fn hex(colour: Colour) -> String {
    format!("#{:02x}{:02x}{:02x}", colour[0], colour[1], colour[2])
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
