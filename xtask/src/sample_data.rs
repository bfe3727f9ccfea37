//! What the examples read, made up, the same on every machine: air temperatures in kelvin for `examples/histogram.toml`, two matrices for
//! `examples/matmul.toml`, points for `examples/kmeans.toml`, two pictures for `examples/convolve.toml`, records for `examples/sort-records.toml`.

use std::path::Path;

const VALUES: usize = 65_536;
/// Rows and columns of A, columns of B.
const ROWS: usize = 192;
const INNER: usize = 96;
const COLUMNS: usize = 64;
/// Of two coordinates each, around so many centres.
const POINTS: usize = 3000;
const CENTRES: usize = 6;
/// Of 100 bytes, like those of sort benchmarks.
const RECORDS: u64 = 500;

pub fn write(root: &Path) -> Result<(), String> {
    for (name, bytes) in files() {
        let file = root.join(name);
        std::fs::write(&file, bytes).map_err(|error| format!("error: cannot write {}: {error}", file.display()))?;
        println!("{} is written", file.display());
    }
    Ok(())
}

fn files() -> [(&'static str, Vec<u8>); 7] {
    [
        ("examples/data/temperatures.npy", npy(&format!("({VALUES},)"), temperatures())),
        ("examples/data/rings-grey.png", png(128, 96, 0, &rings(128, 96, 1))),
        ("examples/data/rings.png", png(120, 80, 2, &rings(120, 80, 3))),
        ("examples/data/a.npy", npy(&format!("({ROWS}, {INNER})"), matrix(1, ROWS * INNER))),
        ("examples/data/b.npy", npy(&format!("({INNER}, {COLUMNS})"), matrix(2, INNER * COLUMNS))),
        ("examples/data/points.npy", npy(&format!("({POINTS}, 2)"), points())),
        ("examples/data/records.bin", (0..RECORDS).flat_map(record).collect()),
    ]
}

/// A key of ten letters of chance and the number of the record, padded with letters that can be read.
fn record(number: u64) -> Vec<u8> {
    // SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    let mut z = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let key = (0..10).map(|letter| b'A' + (z >> (6 * letter)) as u8 % 26);
    let rest = format!("  record {number:>5}  ");
    let filler = (0..).map(|place: u64| b'a' + ((number + place) % 26) as u8);
    key.chain(rest.into_bytes()).chain(filler).take(100).collect()
}

/// NumPy's format, version 1.0: magic, version, length of the header, the header as Python text padded to 64 bytes, the elements.
fn npy(shape: &str, values: impl Iterator<Item = f32>) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let before = 10; // magic (6), version (2), header length (2)
    let padding = 64 - (before + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.flat_map(f32::to_le_bytes));
    bytes
}

/// A PNG file whose rows are as they are: filter 0, DEFLATE without compression (RFC 1950 and 1951), so that no library has a say in its
/// bytes. `colour` is 0 for grey and 2 for RGB.
fn png(width: usize, height: usize, colour: u8, pixels: &[u8]) -> Vec<u8> {
    let rows: Vec<u8> = pixels.chunks(pixels.len() / height).flat_map(|row| std::iter::once(&0).chain(row)).copied().collect();
    let mut stream = vec![0x78, 0x01];
    let mut blocks = rows.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        stream.extend(block);
    }
    let (low, high) = rows.iter().fold((1u32, 0u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    stream.extend((high << 16 | low).to_be_bytes());
    let size = [(width as u32).to_be_bytes(), (height as u32).to_be_bytes()].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [(b"IHDR", [&size[..], &[8, colour, 0, 0, 0]].concat()), (b"IDAT", stream), (b"IEND", Vec::new())] {
        let chunk = [&name[..], &data].concat();
        let crc = !chunk.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
        });
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(chunk);
        file.extend(crc.to_be_bytes());
    }
    file
}

/// Rings around the middle, with grains of noise: something to blur, and edges to find. `channel` shifts the rings.
fn rings(width: usize, height: usize, channels: usize) -> Vec<u8> {
    let mut state = 7 + channels as u64;
    let mut pixels = Vec::with_capacity(width * height * channels);
    for place in 0..width * height {
        let (x, y) = ((place % width).abs_diff(width / 2), (place / width).abs_diff(height / 2));
        for channel in 0..channels {
            let ring = ((x * x + y * y) / 8 + 40 * channel) % 256;
            let grain = splitmix64(&mut state) % 41;
            pixels.push((ring * 3 / 4 + grain as usize).min(255) as u8);
        }
    }
    pixels
}

/// Whole numbers from -8 to 7: sums of their products are exact in f32, so that any order of adding gives the same product.
fn matrix(seed: u64, values: usize) -> impl Iterator<Item = f32> {
    let mut state = seed;
    (0..values).map(move |_| (splitmix64(&mut state) >> 60) as f32 - 8.0)
}

/// A day's curve with noise around it: twelve uniform numbers add up to nearly a normal one. Every 16,384th reading is missing (NaN),
/// so that the example shows where such values go. Only additions, multiplications and divisions, which IEEE 754 defines to the bit.
fn temperatures() -> impl Iterator<Item = f32> {
    let mut state = 2026_u64;
    (0..VALUES).map(move |number| {
        let noise: u64 = (0..12).map(|_| splitmix64(&mut state) >> 48).sum();
        let noise = noise as f32 / 65_536.0 - 6.0;
        // Two parabolas make a wave without a sine, whose last bit differs between libraries.
        let phase = (number % 4_096) as f32 / 2_048.0 - 1.0;
        let wave = 4.0 * phase * (1.0 - phase.abs());
        if number % 16_384 == 16_383 { f32::NAN } else { 288.0 + 9.0 * wave + 2.5 * noise }
    })
}

/// Points around centres of chance, some nearer to each other than their points reach.
fn points() -> impl Iterator<Item = f32> {
    let mut state = 6_u64;
    let centres: Vec<f32> = (0..2 * CENTRES).map(|_| (splitmix64(&mut state) >> 48) as f32 / 655.36).collect();
    (0..POINTS).flat_map(move |number| {
        let mut near = |centre: f32| {
            let noise: u64 = (0..4).map(|_| splitmix64(&mut state) >> 48).sum();
            centre + (noise as f32 / 65_536.0 - 2.0) * 6.0
        };
        [near(centres[2 * (number % CENTRES)]), near(centres[2 * (number % CENTRES) + 1])]
    })
}

/// Guy Steele, Doug Lea, Christine Flood: Fast splittable pseudorandom number generators (OOPSLA 2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_samples_are_what_the_generator_makes() {
        for (name, bytes) in super::files() {
            let committed = std::fs::read(crate::root().join(name)).unwrap();
            assert!(committed == bytes, "{name}: run `cargo xtask sample-data`");
        }
    }

    #[test]
    fn the_elements_start_at_a_multiple_of_64() {
        let bytes = &super::files()[0].1;
        assert_eq!((bytes.len() - super::VALUES * 4) % 64, 0);
    }
}
