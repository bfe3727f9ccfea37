use super::*;
use crate::testing::{check_memory, prepare, random, reduce, with_gpus, with_gpus_of_batch};

fn rows(number: u64, start: u64, count: u64) -> Task<'static> {
    Task { number, input: Input::Index { start, count } }
}

const WHOLE: &[(&str, &str)] = &[("width", "97"), ("height", "61"), ("max_iterations", "300")];

#[test]
fn known_points_escape_when_they_should() {
    let at = |x: f64, y: f64| {
        let fixed = |part: f64| (part * 2f64.powi(56)) as i64;
        cpu::escape(fixed(x), fixed(y), 1000).iterations
    };
    assert_eq!([at(0.0, 0.0), at(-1.0, 0.0), at(-2.0, 0.0), at(0.25, 0.0), at(0.0, 1.0), at(-0.1, 0.7)], [1000; 6]);
    assert_eq!(at(8.0, 0.0), 1); // z1 = 8
    assert_eq!(at(2.0, 0.0), 3); // 0, 2, 6, 38
    assert_eq!(at(0.0, 3.0), 2); // 0, 3i, -9 + 3i
    assert_eq!(at(12.0, -12.0), 1);
    assert!((5..100).contains(&at(0.27, 0.0)));
}

/// The same iteration in f64, away from the border where rounding decides.
#[test]
fn fixed_point_agrees_with_floats_far_from_the_border() {
    let mut random = random("fixed_point_agrees_with_floats");
    for _ in 0..2000 {
        let (cx, cy) = (random.below(4000) as f64 / 1000.0 - 2.5, random.below(3000) as f64 / 1000.0 - 1.5);
        let (mut x, mut y, mut count) = (0.0, 0.0, 0);
        while count < 40 && x * x + y * y < 64.0 {
            (x, y, count) = (x * x - y * y + cx, 2.0 * x * y + cy, count + 1);
        }
        let fixed = |part: f64| (part * 2f64.powi(56)) as i64;
        assert_eq!(cpu::escape(fixed(cx), fixed(cy), 40).iterations, count, "at {cx} {cy}");
    }
}

#[test]
fn the_image_is_what_it_always_was() {
    let kernel = prepare("mandelbrot", WHOLE, 1).unwrap();
    let output = kernel.run_cpu(&rows(0, 0, 61)).unwrap();
    assert_eq!(output.tallies, GOLDEN_TALLIES);
    assert_eq!(crate::key::hash(&output.blocks[0]), GOLDEN_HASH, "now {:#018x}", crate::key::hash(&output.blocks[0]));
}

const GOLDEN_TALLIES: [u64; 3] = [5917, 918, 305_864];
const GOLDEN_HASH: u64 = 0x7e1f_fbe8_6e33_1e64;

#[test]
fn tasks_of_any_size_and_partitions_give_the_same_image() {
    let one = prepare("mandelbrot", WHOLE, 1).unwrap().run_cpu(&rows(0, 0, 61)).unwrap();
    let image = reduce("image", &[], "png", 1, &[&one.blocks[0]]).unwrap();
    let kernel = prepare("mandelbrot", WHOLE, 3).unwrap();
    let tasks: Vec<_> = (0..61).map(|row| kernel.run_cpu(&rows(row, row, 1)).unwrap()).collect();
    let blocks: Vec<&[u8]> = tasks.iter().flat_map(|task| &task.blocks).map(Vec::as_slice).collect();
    assert_eq!(reduce("image", &[], "png", 1, &blocks).unwrap(), image);
}

#[test]
fn twins_agree() {
    let mut random = random("mandelbrot twins_agree");
    let deep = [("center_x", "-0.743643887037151"), ("center_y", "0.131825904205330"), ("zoom", "1e11"), ("max_iterations", "3000")];
    for width in [1, 255, 256, 257] {
        for (zoomed, antialias) in [(false, "1"), (false, "3"), (true, "1")] {
            let width = width.to_string();
            let mut params = vec![("width", width.as_str()), ("height", "40"), ("antialias", antialias)];
            params.extend(if zoomed { &deep[..] } else { &[("max_iterations", "500")] });
            let kernel = prepare("mandelbrot", &params, 2).unwrap();
            let first = random.below(30);
            let tasks = [rows(0, first, 1), rows(1, 7, 0), rows(2, 0, 3), rows(3, 38, 2)];
            let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
            with_gpus(|gpu| {
                assert_eq!(kernel.run_gpu(gpu, &tasks).unwrap(), expected, "width {width}, zoomed {zoomed}, antialias {antialias}")
            });
        }
    }
}

#[test]
fn twins_agree_over_several_dispatches() {
    // 100000 iterations leave 65536 samples per dispatch: six rows of these.
    let params = [("width", "10007"), ("height", "9"), ("max_iterations", "100000"), ("center_y", "0.9")];
    let kernel = prepare("mandelbrot", &params, 1).unwrap();
    let tasks = [rows(0, 0, 4), rows(1, 4, 5)];
    let expected: Vec<_> = tasks.iter().map(|task| kernel.run_cpu(task).unwrap()).collect();
    with_gpus(|gpu| assert_eq!(kernel.run_gpu(gpu, &tasks).unwrap(), expected));
}

#[test]
fn rows_beyond_the_image_are_an_error() {
    let kernel = prepare("mandelbrot", WHOLE, 1).unwrap();
    let error = kernel.run_cpu(&rows(0, 60, 2)).unwrap_err();
    assert!(error.to_string().contains("leave an image of height 61"), "{error}");
    assert!(kernel.run_cpu(&rows(0, u64::MAX, 2)).is_err());
}

#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    const BATCH: u64 = 1 << 20;
    for (width, antialias, rows) in [(400u64, 2u64, 300u64), (3000, 1, 20)] {
        let texts = [width, antialias, rows].map(|number| number.to_string());
        let given = [("width", &texts[0][..]), ("antialias", &texts[1]), ("height", &texts[2]), ("max_iterations", "3")];
        let kernel = prepare("mandelbrot", &given, 1).unwrap();
        let tasks: Vec<_> =
            (0..10).map(|task| Task { number: task, input: Input::Index { start: task * rows / 10, count: rows / 10 } }).collect();
        with_gpus_of_batch(BATCH, |gpu| {
            check_memory(gpu, gpu::need(BATCH, width, antialias, 3), 10, rows, || drop(kernel.run_gpu(gpu, &tasks).unwrap()));
        });
    }
}
