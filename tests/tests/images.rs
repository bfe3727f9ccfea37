//! Images through the whole cluster: every file becomes a file of its own, and a bad one is named before anything runs.

use raftwerk_tests::cluster::{Cluster, text};
use std::path::{Path, PathBuf};

/// Grey, every pixel the same but one bright row.
fn write_png(path: &Path, width: u32, height: u32, level: u8) {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut pixels = vec![level; (width * height) as usize];
    pixels[..width as usize].fill(250);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&pixels).expect("pixels");
    writer.finish().expect("an end");
    std::fs::write(path, file).expect("the file is written");
}

struct Grey {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

fn read_png(path: &Path) -> Grey {
    let file = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a PNG file");
    assert_eq!(reader.output_color_type(), (png::ColorType::Grayscale, png::BitDepth::Eight));
    let (width, height) = reader.info().size();
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    reader.next_frame(&mut pixels).expect("pixels");
    Grey { width, height, pixels }
}

/// The mean of 3 x 3 pixels, rounded to the nearest.
fn mean(image: &Grey) -> Vec<u8> {
    let (width, height) = (image.width as i64, image.height as i64);
    let at = |row: i64, column: i64| u32::from(image.pixels[(row.clamp(0, height - 1) * width + column.clamp(0, width - 1)) as usize]);
    let pixel = |place: i64| {
        let sum: u32 = (0..9).map(|near| at(place / width + near / 3 - 1, place % width + near % 3 - 1)).sum();
        ((2 * sum + 9) / 18) as u8
    };
    (0..width * height).map(pixel).collect()
}

fn job(cluster: &Cluster, images: &Path, device: &str) -> String {
    cluster.job_file(
        "blur.toml",
        &format!(
            "[input]\nfiles = [\"{}/*.png\"]\n[map]\nkernel = \"convolve\"\nparams = {{ filter = \"box\" }}\ndevice = \"{device}\"\n[output]\npath = {:?}\nif_exists = \"replace\"\n",
            images.display(),
            cluster.path("blurred")
        ),
    )
}

fn images(cluster: &Cluster, count: u32) -> PathBuf {
    let dir = cluster.path("images");
    std::fs::create_dir(&dir).expect("a directory");
    (0..count).for_each(|n| write_png(&dir.join(format!("{n:02}.png")), 20 + n, 11 + 2 * n, 10 * n as u8));
    dir
}

#[test]
fn each_image_comes_out_as_a_file_of_its_own_in_the_order_of_the_paths() {
    let cluster = Cluster::start(1, 2);
    let dir = images(&cluster, 7);
    let view = cluster.wait_done(cluster.submit(&job(&cluster, &dir, "any"), &[]));
    assert_eq!(view["tallies"][0]["total"], "7", "{:#}", view["tallies"]);
    for n in 0..7 {
        let before = read_png(&dir.join(format!("{n:02}.png")));
        let after = read_png(&cluster.path("blurred").join(format!("part-{n:05}.png")));
        assert_eq!((after.width, after.height), (before.width, before.height));
        assert!(after.pixels == mean(&before), "image {n}");
    }
    let written = std::fs::read_dir(cluster.path("blurred")).expect("the output").count();
    assert_eq!(written, 8, "seven images and the manifest");
}

#[test]
fn an_image_that_cannot_be_read_is_named_before_anything_runs() {
    let cluster = Cluster::start(1, 1);
    let dir = images(&cluster, 2);
    let refused = |what: &str| {
        let output = cluster.run(&["submit", &job(&cluster, &dir, "any")]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(what), "{said}");
    };
    // A file of 33 bytes that claims 3.6 * 10^9 pixels.
    let mut bomb = Vec::new();
    drop(png::Encoder::new(&mut bomb, 60_000, 60_000).write_header());
    let path = dir.join("99.png");
    std::fs::write(&path, bomb).expect("the file is written");
    refused("99.png: its image has 60000 x 60000 pixels");
    std::fs::write(&path, "no image").expect("the file is written");
    refused("99.png: not a PNG file");
    // Its header is right; that its pixels are missing is found when it is read, and said with its name.
    let whole = std::fs::read(dir.join("01.png")).expect("a file");
    std::fs::write(&path, &whole[..whole.len() - 30]).expect("the file is written");
    let ended = cluster.run(&["submit", "--wait", &job(&cluster, &dir, "any")]);
    let said = text(&ended.stderr) + &text(&ended.stdout);
    assert!(!ended.status.success() && said.contains("is damaged") && said.contains("99.png"), "{said}");
}
