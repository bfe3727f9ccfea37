//! Makes one PNG image of rows.
//!
//! Shapes    runs of (row number, 3 * width bytes RGB), rows 0, 1, .. without gaps -> one PNG file, 8 bits per channel
//! Limits    one partition, since one file holds all rows; the image is made in memory (3 * width * height bytes)
//! Agreement exact within one release: the file's bytes depend on the compressor's version, its pixels never
//! Errors    more than one partition; a missing row, a row twice, rows of different length; a damaged run
//! Source    PNG: ISO/IEC 15948

#[cfg(test)]
mod tests;

use crate::api::*;
use crate::gather;
use crate::key;
use crate::run::Merge;

pub struct Image;

static DESCRIPTOR: Descriptor = gather::descriptor("image", "Makes one PNG image of rows", &["rows"], &["png"]);

impl Kernel for Image {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn prepare(&self, stage: &StageContext) -> Result<Box<dyn Prepared>, KernelError> {
        gather::check(&DESCRIPTOR, stage)?;
        if stage.tasks > 1 {
            let text = format!("kernel 'image' puts all rows into one file, not into {}: set partitions = 1", stage.tasks);
            return Err(KernelError::Param(text));
        }
        Ok(Box::new(PreparedImage))
    }
}

struct PreparedImage;

impl Prepared for PreparedImage {
    fn run_cpu(&self, task: &Task<'_>) -> Result<TaskOutput, KernelError> {
        let blocks = gather::blocks(&DESCRIPTOR, task)?;
        let pixels = Pixels::gather(blocks)?;
        let bytes = pixels.png()?;
        let cells = vec![format!("{} x {}", pixels.width, pixels.height), gather::sized(bytes.len())];
        let part = Part {
            extension: "png",
            rows: u64::from(pixels.height),
            columns: vec!["pixels".into(), "size".into()],
            preview: vec![PreviewRow { cells, weight: u64::from(pixels.height) }],
            bytes,
        };
        Ok(TaskOutput {
            tallies: vec![u64::from(pixels.height)],
            blocks: Vec::new(),
            part: Some(part),
            records: Records { read: pixels.height.into(), made: 0 },
        })
    }
}

struct Pixels {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Pixels {
    fn gather(blocks: &[Block<'_>]) -> Result<Pixels, KernelError> {
        let input = |text: String| Err(KernelError::Input(text));
        let mut merge = Merge::new(blocks.iter().map(|block| block.bytes))?;
        let mut rgb = Vec::new();
        let (mut row_bytes, mut height) = (0, 0u32);
        while let Some(record) = merge.next_record()? {
            match key::to_u64(record.key) {
                None => return input(format!("a row number has 8 bytes, not {}", record.key.len())),
                Some(row) if row > u64::from(height) => return input(format!("row {height} is missing")),
                Some(row) if row < u64::from(height) => return input(format!("row {row} is there twice")),
                Some(_) => {}
            }
            if height == 0 {
                row_bytes = record.value.len();
                if row_bytes == 0 || !row_bytes.is_multiple_of(3) {
                    return input(format!("a row of {row_bytes} bytes is no row of RGB pixels"));
                }
            }
            if record.value.len() != row_bytes {
                return input(format!("row {height} has {} bytes and the rows before it {row_bytes}", record.value.len()));
            }
            rgb.extend_from_slice(record.value);
            height = height.checked_add(1).ok_or_else(|| KernelError::Input("more rows than a PNG file can hold".into()))?;
        }
        if height == 0 {
            return input("an image without rows".into());
        }
        let width = u32::try_from(row_bytes / 3).map_err(|_| KernelError::Input("rows are longer than a PNG file can hold".into()))?;
        Ok(Pixels { width, height, rgb })
    }

    fn png(&self) -> Result<Vec<u8>, KernelError> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        // Over twenty times the speed of the default, for files a third larger: the whole job waits for this one task.
        encoder.set_compression(png::Compression::Fast);
        encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
        let write = |encoder: png::Encoder<'_, &mut Vec<u8>>| {
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&self.rgb)?;
            writer.finish()
        };
        // Writing to memory fails only for a size that PNG does not allow.
        write(encoder).map_err(|error| KernelError::Input(format!("{} x {} pixels: {error}", self.width, self.height)))?;
        Ok(file)
    }
}
