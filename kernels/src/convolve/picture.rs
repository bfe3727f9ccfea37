//! PNG in, PNG out: pixels of four bytes in between.

use crate::api::KernelError;
use crate::png_file::PngHeader;

pub(super) struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Of the file; the pixels have all four channels.
    pub(super) color: png::ColorType,
    /// Red, green, blue, alpha; of a grey image three equal ones.
    pub(super) pixels: Vec<[u8; 4]>,
}

/// What the decoder may keep beside the pixels: chunks of text, a colour profile, a row of the widest image that is read.
const KEPT_BYTES: usize = 512 << 20;

impl Picture {
    pub(super) fn decode(file: &[u8]) -> Result<Picture, KernelError> {
        let refuse = |text: String| KernelError::Input(text);
        // Before anything is made room for.
        let header = PngHeader::read(file).map_err(|problem| refuse(format!("the file cannot be filtered: {problem}")))?;
        let damaged = |error: png::DecodingError| refuse(format!("the PNG file is damaged: {error}"));
        let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(file), png::Limits { bytes: KEPT_BYTES });
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let mut reader = decoder.read_info().map_err(damaged)?;
        if reader.info().trns.is_some() {
            return Err(refuse("the file cannot be filtered: one of its colours stands for transparent; save it with alpha".into()));
        }
        if reader.info().animation_control.is_some() {
            return Err(refuse("the file cannot be filtered: it is an animation; save its images as files of their own".into()));
        }
        let (width, height) = (header.width as usize, header.height as usize);
        let size = reader.output_buffer_size().filter(|_| reader.info().size() == (header.width, header.height));
        let mut raw = vec![0; size.ok_or_else(|| refuse(format!("{width} x {height} pixels do not fit memory")))?];
        let color = reader.next_frame(&mut raw).map_err(damaged)?.color_type;
        // To the end: a file that was cut off behind its pixels is damaged too.
        reader.finish().map_err(damaged)?;
        let pixels: Vec<[u8; 4]> = match color {
            png::ColorType::Grayscale => raw.iter().map(|grey| [*grey, *grey, *grey, 255]).collect(),
            png::ColorType::GrayscaleAlpha => raw.as_chunks::<2>().0.iter().map(|[grey, alpha]| [*grey, *grey, *grey, *alpha]).collect(),
            png::ColorType::Rgb => raw.as_chunks::<3>().0.iter().map(|[red, green, blue]| [*red, *green, *blue, 255]).collect(),
            png::ColorType::Rgba => raw.as_chunks::<4>().0.to_vec(),
            // The header said otherwise.
            png::ColorType::Indexed => return Err(refuse("the PNG file is damaged: its palette came as a surprise".into())),
        };
        if pixels.len() != width * height {
            return Err(refuse(format!("the PNG file is damaged: {} pixels, not {width} x {height}", pixels.len())));
        }
        Ok(Picture { width, height, color, pixels })
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, KernelError> {
        let raw: Vec<u8> = match self.color {
            png::ColorType::Grayscale | png::ColorType::Indexed => self.pixels.iter().map(|[grey, ..]| *grey).collect(),
            png::ColorType::GrayscaleAlpha => self.pixels.iter().flat_map(|[grey, _, _, alpha]| [*grey, *alpha]).collect(),
            png::ColorType::Rgb => self.pixels.iter().flat_map(|[red, green, blue, _]| [*red, *green, *blue]).collect(),
            png::ColorType::Rgba => self.pixels.as_flattened().to_vec(),
        };
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width as u32, self.height as u32);
        encoder.set_color(self.color);
        encoder.set_depth(png::BitDepth::Eight);
        // Many times the speed of the default, for files a third larger.
        encoder.set_compression(png::Compression::Fast);
        let write = |encoder: png::Encoder<'_, &mut Vec<u8>>| {
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&raw)?;
            writer.finish()
        };
        // Writing to memory fails only for a size that PNG does not allow.
        write(encoder).map_err(|error| KernelError::Input(format!("{} x {} pixels: {error}", self.width, self.height)))?;
        Ok(file)
    }
}
