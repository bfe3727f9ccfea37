use super::*;
use crate::testing::{Random, check_memory, params, random, with_gpus, with_gpus_of_batch};

const COLORS: [png::ColorType; 4] = [png::ColorType::Grayscale, png::ColorType::GrayscaleAlpha, png::ColorType::Rgb, png::ColorType::Rgba];

fn noise(random: &mut Random, width: usize, height: usize, color: png::ColorType) -> Vec<u8> {
    let mut pixels: Vec<[u8; 4]> = (0..width * height).map(|_| (random.next() as u32).to_le_bytes()).collect();
    // What the file cannot hold must not be there to compare with.
    for pixel in &mut pixels {
        if matches!(color, png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha) {
            *pixel = [pixel[0], pixel[0], pixel[0], pixel[3]];
        }
        if matches!(color, png::ColorType::Grayscale | png::ColorType::Rgb) {
            pixel[3] = 255;
        }
    }
    Picture { width, height, color, pixels }.encode().unwrap()
}

fn prepared(pairs: &[(&str, &str)], tasks: u64) -> Box<dyn Prepared> {
    let params = params(pairs);
    Convolve.prepare(&StageContext { params, tasks, partitions: tasks as u32, ..StageContext::default() }).unwrap()
}

fn task(number: u64, file: &[u8]) -> Task<'_> {
    Task { number, input: Input::File(file) }
}

fn made(output: &TaskOutput) -> Picture {
    let mut records = output.blocks.iter().flat_map(|block| crate::run::Reader::new(block));
    let picture = Picture::decode(records.next().unwrap().unwrap().value).unwrap();
    assert!(records.next().is_none());
    picture
}

/// The plainest program: every pixel, every neighbour, in floating point of 53 bits, which holds all of it.
fn expected(filter: &Filter, offset: f64, picture: &Picture) -> Vec<[u8; 4]> {
    let side = 2 * filter.radius + 1;
    let at = |row: i64, column: i64| {
        let clamped = |at: i64, length: usize| at.clamp(0, length as i64 - 1) as usize;
        picture.pixels[clamped(row, picture.height) * picture.width + clamped(column, picture.width)]
    };
    let pixel = |row: usize, column: usize| {
        let channel = |channel: usize| {
            let sums = filter.weights.chunks(side * side).map(|weights| {
                let products = weights.iter().enumerate().map(|(place, weight)| {
                    let away = |at: usize| at as i64 - filter.radius as i64;
                    let neighbour = at(row as i64 + away(place / side), column as i64 + away(place % side));
                    f64::from(*weight) * f64::from(neighbour[channel])
                });
                products.sum::<f64>()
            });
            let sum: f64 = sums.map(|sum| if filter.sizes { sum.abs() } else { sum }).sum();
            (sum / f64::from(filter.divisor) + offset + 0.5).floor().clamp(0.0, 255.0) as u8
        };
        [channel(0), channel(1), channel(2), at(row as i64, column as i64)[3]]
    };
    (0..picture.height * picture.width).map(|place| pixel(place / picture.width, place % picture.width)).collect()
}

const SIZES: [(usize, usize); 7] = [(1, 1), (1, 17), (255, 1), (16, 16), (17, 13), (257, 3), (31, 37)];

/// Parameters, the filter that they mean, and its offset.
type Case<'a> = (&'a [(&'a str, &'a str)], Filter, f64);

#[test]
fn twins_agree_with_the_plainest_program_and_keep_alpha() {
    let mut random = random("convolve twins_agree");
    let filters: [Case<'_>; 8] = [
        (&[("sigma", "0.5")], Filter::gaussian(0.5), 0.0),
        (&[("sigma", "5")], Filter::gaussian(5.0), 0.0),
        (&[("filter", "box"), ("radius", "3")], Filter::mean(3), 0.0),
        (&[("filter", "sharpen"), ("sigma", "1")], Filter::sharpen(1.0), 0.0),
        (&[("filter", "sobel")], Filter::sobel(), 0.0),
        (&[("filter", "laplacian"), ("offset", "7")], Filter::laplacian(), 7.0),
        (
            &[("filter", "taps"), ("taps", "-2 -1 0; -1 1 1; 0 1 2"), ("offset", "128")],
            Filter::taps("-2 -1 0;-1 1 1;0 1 2", 0).unwrap(),
            128.0,
        ),
        (&[("filter", "taps"), ("taps", "4194304"), ("divisor", "4194303")], Filter::taps("4194304", 4_194_303).unwrap(), 0.0),
    ];
    for (pairs, filter, offset) in filters {
        let files: Vec<Vec<u8>> =
            SIZES.iter().enumerate().map(|(at, (width, height))| noise(&mut random, *width, *height, COLORS[at % 4])).collect();
        let kernel = prepared(pairs, files.len() as u64);
        let tasks: Vec<_> = files.iter().enumerate().map(|(number, file)| task(number as u64, file)).collect();
        let outputs: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
        for (output, file) in outputs.iter().zip(&files) {
            let before = Picture::decode(file).unwrap();
            let after = made(output);
            assert_eq!((after.width, after.height, after.color), (before.width, before.height, before.color));
            assert!(after.pixels == expected(&filter, offset, &before), "{pairs:?}, {} x {}", before.width, before.height);
            assert_eq!(output.tallies, [1, before.pixels.len() as u64]);
        }
        with_gpus(|gpu| {
            assert!(kernel.run_gpu(gpu, &tasks).unwrap() == outputs, "{pairs:?}");
            assert_eq!(kernel.run_gpu(gpu, &[]).unwrap(), []);
        });
    }
}

#[test]
fn an_image_of_many_bands_is_what_it_is_in_one() {
    let mut random = random("convolve bands");
    let files = [noise(&mut random, 40, 101, png::ColorType::Rgba), noise(&mut random, 3, 700, png::ColorType::Grayscale)];
    let kernel = prepared(&[("filter", "box"), ("radius", "4")], 2);
    let tasks = [task(0, &files[0]), task(1, &files[1])];
    let outputs: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
    with_gpus_of_batch(4096, |gpu| assert!(kernel.run_gpu(gpu, &tasks).unwrap() == outputs));
    // Nine rows of 40 pixels take 1440 bytes.
    with_gpus_of_batch(1024, |gpu| assert!(matches!(kernel.run_gpu(gpu, &tasks), Err(KernelError::Memory(_)))));
}

#[test]
fn a_white_image_stays_white_and_has_no_edges() {
    let white = Picture { width: 9, height: 9, color: png::ColorType::Rgb, pixels: vec![[255; 4]; 81] }.encode().unwrap();
    for (filter, value) in [("gaussian", 255), ("box", 255), ("sharpen", 255), ("sobel", 0), ("laplacian", 0)] {
        let after = made(&prepared(&[("filter", filter)], 1).run_cpu(&task(0, &white)).unwrap());
        assert!(after.pixels.iter().all(|pixel| *pixel == [value, value, value, 255]), "{filter}");
    }
}

#[test]
fn images_of_one_dispatch_are_not_too_many() {
    let mut random = random("convolve together");
    let small = noise(&mut random, 2, 2, png::ColorType::Rgb);
    let mut large = Vec::new();
    drop(png::Encoder::new(&mut large, 4096, 4096).write_header().unwrap());
    let tasks = [task(0, &small), task(1, &large), task(2, &small), task(3, &large)];
    assert_eq!(together(&tasks[..1]).unwrap(), 1);
    assert_eq!(together(&tasks).unwrap(), 1, "the large one goes over the limit");
    assert_eq!(together(&tasks[1..]).unwrap(), 1, "a large one goes alone");
    assert_eq!(together(&[task(0, b"no image"), task(1, &small)]).unwrap(), 2);
}

/// A PNG file of the encoder's, with one setting that is not read.
fn odd(set: impl Fn(&mut png::Encoder<'_, &mut Vec<u8>>), data: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 4, 4);
    set(&mut encoder);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![1; data]).unwrap();
    writer.finish().unwrap();
    file
}

#[test]
fn what_is_not_read_is_named() {
    let kernel = prepared(&[], 1);
    let message = |file: &[u8]| kernel.run_cpu(&task(0, file)).unwrap_err().to_string();
    let sixteen = odd(|encoder| encoder.set_depth(png::BitDepth::Sixteen), 32);
    assert!(message(&sixteen).contains("16 bits per channel; save it with 8"), "{}", message(&sixteen));
    let palette = odd(
        |encoder| {
            encoder.set_color(png::ColorType::Indexed);
            encoder.set_palette(vec![0; 6]);
        },
        16,
    );
    assert!(message(&palette).contains("has a palette"), "{}", message(&palette));
    let transparent = odd(|encoder| encoder.set_trns(vec![0, 1]), 16);
    assert!(message(&transparent).contains("stands for transparent"), "{}", message(&transparent));
    let animated = odd(|encoder| encoder.set_animated(1, 0).unwrap(), 16);
    assert!(message(&animated).contains("is an animation"), "{}", message(&animated));
    // Width and height of 60,000: 3.6 * 10^9 pixels in 57 bytes.
    let mut bomb = Vec::new();
    drop(png::Encoder::new(&mut bomb, 60_000, 60_000).write_header());
    assert!(message(&bomb).contains("60000 x 60000 pixels"), "{}", message(&bomb));
    assert!(message(b"").contains("not a PNG file"));
    let file = odd(|_| {}, 16);
    for length in 33..file.len() {
        assert!(message(&file[..length]).contains("is damaged"), "{length} of {}", file.len());
    }
    assert!(kernel.run_cpu(&task(0, &file)).is_ok());
}

#[test]
fn damaged_files_are_errors_and_no_panic() {
    let mut random = random("convolve damaged_files");
    let kernel = prepared(&[("sigma", "1")], 1);
    let file = noise(&mut random, 20, 20, png::ColorType::Rgb);
    for _ in 0..500 {
        let mut damaged = file[..random.below(file.len() as u64 + 1) as usize].to_vec();
        for _ in 0..random.below(4) {
            let at = random.below(damaged.len().max(1) as u64) as usize;
            damaged.get_mut(at).into_iter().for_each(|byte| *byte = random.next() as u8);
        }
        let changed = damaged != file;
        if let Ok(output) = kernel.run_cpu(&task(0, &damaged)) {
            // The checksums of chunks leave few ways: a byte that was drawn as it was, or one in the name of a chunk that may be skipped.
            assert!(!changed || made(&output).pixels.len() == 400);
        }
    }
}

#[test]
fn parameters_that_make_no_filter_are_refused() {
    let message = |pairs: &[(&str, &str)]| {
        let stage = StageContext { params: params(pairs), ..StageContext::default() };
        Convolve.prepare(&stage).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(
        message(&[("filter", "taps"), ("taps", "1 2; 3 4")]),
        "kernel 'convolve': parameter 'taps' has 2 rows; an odd number up to 31 is wanted, so that there is a middle one"
    );
    assert!(message(&[("filter", "taps")]).contains("must be given for filter 'taps'"));
    assert!(message(&[("filter", "blur")]).contains("choices: gaussian, box"));
}

#[test]
fn a_task_without_a_partition_of_its_own_is_an_error() {
    let mut random = random("convolve partitions");
    let file = noise(&mut random, 2, 2, png::ColorType::Rgb);
    let message = prepared(&[], 1).run_cpu(&task(1, &file)).unwrap_err().to_string();
    assert!(message.contains("task 1 has no partition of its own among 1"), "{message}");
}

#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    const BATCH: u64 = 1 << 20;
    let filter = Filter::mean(1);
    with_gpus_of_batch(BATCH, |gpu| {
        let picture = || Picture { width: 1000, height: 900, color: png::ColorType::Rgba, pixels: vec![[7; 4]; 900_000] };
        let mut pictures = [picture(), picture()];
        check_memory(gpu, gpu::need(BATCH, &filter), 2, 5000, || gpu::filter(gpu, &filter, &mut pictures).unwrap());
    });
}
