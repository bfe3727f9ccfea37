//! The first bytes of PNG files, as far as must be known before one is read whole: is it one, how large is it, can kernels take it?
//!
//! ```text
//! 89 50 4e 47 0d 0a 1a 0a | 0000000d "IHDR" | width u32 | height u32 | depth | colour | compression | filter | interlace | CRC u32
//! ```
//! Big-endian; ISO/IEC 15948, clauses 5.2 and 11.2.2. Whoever lists files refuses by it what would fail much later, and nobody makes room
//! for an image before it has been looked at: a file of a few bytes may claim 2^62 pixels.

/// As many bytes as [`PngHeader::read`] wants.
pub const HEADER_BYTES: usize = 33;

/// Larger images are refused: a picture takes four bytes per pixel in memory, and some files are bombs.
pub const MOST_PIXELS: u64 = 1 << 26;

/// Of an image that kernels read: grey or RGB, with alpha or without, 8 bits per channel, its rows from top to bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PngHeader {
    pub width: u32,
    pub height: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PngProblem {
    #[error("not a PNG file")]
    Signature,
    #[error("its PNG header is damaged")]
    Header,
    #[error("its image has {width} x {height} pixels; at least one and at most {MOST_PIXELS} can be read")]
    Size { width: u32, height: u32 },
    #[error("its image has a palette; save it as grey or RGB")]
    Palette,
    #[error("its image has {0} bits per channel; save it with 8")]
    Depth(u8),
    #[error("its image is interlaced; save it without")]
    Interlaced,
}

impl PngHeader {
    /// Looks at the beginning of a file.
    pub fn read(file: &[u8]) -> Result<PngHeader, PngProblem> {
        let rest = file.strip_prefix(b"\x89PNG\r\n\x1a\n").ok_or(PngProblem::Signature)?;
        let header: &[u8; HEADER_BYTES - 8] = rest.first_chunk().ok_or(PngProblem::Header)?;
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..8] != b"\0\0\0\x0dIHDR" || checksum(&header[4..21]) != number(21) {
            return Err(PngProblem::Header);
        }
        let (width, height) = (number(8), number(12));
        let [depth, colour, compression, filter, interlace] = [header[16], header[17], header[18], header[19], header[20]];
        if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MOST_PIXELS {
            return Err(PngProblem::Size { width, height });
        }
        match (colour, depth, interlace) {
            (3, ..) => Err(PngProblem::Palette),
            (0 | 2 | 4 | 6, 8, 0) if compression == 0 && filter == 0 => Ok(PngHeader { width, height }),
            (0 | 2 | 4 | 6, 8, 1) => Err(PngProblem::Interlaced),
            (0, 1 | 2 | 4 | 16, _) | (2 | 4 | 6, 16, _) => Err(PngProblem::Depth(depth)),
            _ => Err(PngProblem::Header),
        }
    }

    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// CRC-32 as PNG has it, bit by bit: it is made of 17 bytes.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with its checksum.
    fn header(width: u32, height: u32, rest: [u8; 5]) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        file.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
        file.extend(rest);
        file.extend(checksum(&file[12..]).to_be_bytes());
        file
    }

    #[test]
    fn what_kernels_can_take_is_told_from_what_they_cannot() {
        for colour in [0, 2, 4, 6] {
            assert_eq!(PngHeader::read(&header(640, 480, [8, colour, 0, 0, 0])), Ok(PngHeader { width: 640, height: 480 }));
            assert_eq!(PngHeader::read(&header(1, 1, [16, colour, 0, 0, 0])), Err(PngProblem::Depth(16)));
            assert_eq!(PngHeader::read(&header(1, 1, [8, colour, 0, 0, 1])), Err(PngProblem::Interlaced));
        }
        assert_eq!(PngHeader::read(&header(1, 1, [1, 0, 0, 0, 0])), Err(PngProblem::Depth(1)));
        assert_eq!(PngHeader::read(&header(1, 1, [8, 3, 0, 0, 0])), Err(PngProblem::Palette));
        for odd in [[8, 5, 0, 0, 0], [8, 2, 1, 0, 0], [8, 2, 0, 1, 0], [8, 2, 0, 0, 2], [3, 0, 0, 0, 0], [4, 2, 0, 0, 0]] {
            assert_eq!(PngHeader::read(&header(1, 1, odd)), Err(PngProblem::Header), "{odd:?}");
        }
    }

    #[test]
    fn a_size_that_nobody_has_memory_for_is_refused() {
        assert!(PngHeader::read(&header(1 << 13, 1 << 13, [8, 2, 0, 0, 0])).is_ok());
        for (width, height) in [(0, 1), (1, 0), (u32::MAX, u32::MAX), ((1 << 13) + 1, 1 << 13)] {
            assert_eq!(PngHeader::read(&header(width, height, [8, 2, 0, 0, 0])), Err(PngProblem::Size { width, height }));
        }
    }

    #[test]
    fn the_header_that_the_encoder_writes_is_read_and_a_broken_one_is_not() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 7, 5);
        encoder.set_color(png::ColorType::Rgba);
        drop(encoder.write_header().unwrap());
        assert_eq!(PngHeader::read(&file), Ok(PngHeader { width: 7, height: 5 }));
        for length in 0..HEADER_BYTES {
            let expected = if length < 8 { PngProblem::Signature } else { PngProblem::Header };
            assert_eq!(PngHeader::read(&file[..length]), Err(expected));
        }
        for at in 8..HEADER_BYTES {
            let mut broken = file.clone();
            broken[at] ^= 1;
            assert_eq!(PngHeader::read(&broken), Err(PngProblem::Header), "byte {at}");
        }
    }
}
