//! From escapes to colours. Only +, -, *, / and square roots of floats, which IEEE 754 fixes to the bit: a library's logarithm or
//! power differs between platforms, and the image would with it.

use super::cpu::Escape;
use super::palette;
use super::view::{FRACTION_BITS, View};

pub(super) struct Colours {
    gradient: Vec<[u8; 3]>,
}

const INSIDE: [u8; 3] = [2, 3, 8];
/// Turns around the gradient per root of the iteration count. The root spreads the wide bands outside and gathers the narrow ones at
/// the border, so that a full view and a deep zoom both show structure.
const TURNS: f64 = 0.17;
/// Where the far outside starts on the gradient.
const START: f64 = 0.85;

impl Colours {
    pub(super) fn new(palette: &str) -> Colours {
        Colours { gradient: palette::gradient(palette) }
    }

    /// RGB of one row of the image. `samples`: the row's lines one after the other.
    pub(super) fn row(&self, view: &View, row: u64, samples: &[Escape], max_iterations: u32) -> Vec<u8> {
        let (a, across) = (view.antialias, view.columns.len());
        let lines = view.lines_of(row);
        let colour = |line: usize, column: usize| {
            let escape = &samples[line * across + column];
            if escape.iterations == max_iterations { INSIDE } else { self.outside(escape, view.columns[column], lines[line]) }
        };
        if a == 1 {
            return (0..across).flat_map(|column| colour(0, column)).collect();
        }
        let pixel = |pixel: usize| {
            mean((0..a * a).map(move |sample| (sample / a, pixel * a + sample % a)).map(|(line, column)| colour(line, column)))
        };
        (0..view.width).flat_map(pixel).collect()
    }

    fn outside(&self, escape: &Escape, cx: i64, cy: i64) -> [u8; 3] {
        let turn = START + TURNS * smooth_count(escape, cx, cy).sqrt();
        self.gradient[(turn.fract() * palette::LENGTH as f64) as usize % palette::LENGTH]
    }
}

/// The iteration count without its steps: n + 2 - log2(log2|z|^2 / log2(8^2)) two iterations on, where c hardly counts any more.
fn smooth_count(escape: &Escape, cx: i64, cy: i64) -> f64 {
    let coordinate = |part: i64| part as f64 / (1u64 << FRACTION_BITS) as f64;
    let (cx, cy) = (coordinate(cx), coordinate(cy));
    let high = |part: i32| f64::from(part) / f64::from(1 << (FRACTION_BITS - 32));
    let (mut x, mut y) = (high(escape.x), high(escape.y));
    for _ in 0..2 {
        (x, y) = (x * x - y * y + cx, 2.0 * x * y + cy);
    }
    let count = f64::from(escape.iterations) + 2.0 - log2(log2(x * x + y * y) / 6.0);
    count.max(0.0)
}

/// For positive normal numbers, to nine digits: the exponent, and the mantissa's logarithm as the series of 2 artanh.
fn log2(value: f64) -> f64 {
    let bits = value.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    // Centred on 1 the series needs six terms.
    let (exponent, mantissa) = if mantissa > std::f64::consts::SQRT_2 { (exponent + 1, mantissa / 2.0) } else { (exponent, mantissa) };
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let tt = t * t;
    let series = 1.0 + tt * (1.0 / 3.0 + tt * (1.0 / 5.0 + tt * (1.0 / 7.0 + tt * (1.0 / 9.0 + tt * (1.0 / 11.0)))));
    exponent as f64 + 2.0 * t * series * std::f64::consts::LOG2_E
}

/// The mean of light, not of codes: squares come near to how screens map one to the other.
fn mean(colours: impl ExactSizeIterator<Item = [u8; 3]>) -> [u8; 3] {
    let count = colours.len() as f64;
    let sums = colours.fold([0u32; 3], |sums, colour| std::array::from_fn(|channel| sums[channel] + u32::from(colour[channel]).pow(2)));
    sums.map(|sum| ((f64::from(sum) / count).sqrt() + 0.5) as u8)
}

#[cfg(test)]
#[test]
fn the_logarithm_is_right_to_eight_digits() {
    for value in [1.0, 1.5, 2.0, 3.0, 24.0, 1e-3, 0.7, 1.41, 1.42, 4096.0, 5e15] {
        assert!((log2(value) - f64::log2(value)).abs() < 1e-8, "{value}");
    }
}
