use super::grid::TOP;
use super::*;
use crate::kmeans_update::KmeansUpdate;
use crate::testing::{Random, check_memory, params, random, with_gpus};
use std::sync::atomic::Ordering;

fn map_stage(clusters: usize, seed: u64) -> StageContext {
    let (clusters, seed) = (clusters.to_string(), seed.to_string());
    StageContext {
        params: params(&[("clusters", clusters.as_str()), ("seed", seed.as_str())]),
        tasks: 1,
        partitions: 1,
        ..StageContext::default()
    }
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn task<'a>(number: u64, columns: usize, bytes: &'a [u8]) -> Task<'a> {
    Task { number, input: Input::Rows { dtype: "f4", columns, bytes } }
}

/// Points around a few centres, and some that are not numbers.
fn points(random: &mut Random, count: usize, columns: usize) -> Vec<f32> {
    let centres: Vec<f32> = (0..5 * columns).map(|_| (random.below(2000) as f32 - 1000.0) / 10.0).collect();
    let mut numbers = Vec::with_capacity(count * columns);
    for _ in 0..count {
        let centre = random.below(5) as usize;
        let broken = random.below(50) == 0;
        for column in 0..columns {
            let noise = (random.below(2001) as f32 - 1000.0) / 200.0;
            numbers.push(match random.below(3) {
                0 if broken => f32::NAN,
                1 if broken => f32::INFINITY,
                _ => centres[centre * columns + column] + noise,
            });
        }
    }
    numbers
}

/// Lloyd's algorithm on the grid as a person would write it down, wide integers throughout.
fn oracle(model: &Model, numbers: &[f32]) -> Partial {
    let (k, d) = (model.clusters(), model.columns());
    let mut partial = Partial::new(k, d);
    for point in numbers.chunks_exact(d) {
        if point.iter().any(|x| !x.is_finite()) {
            partial.invalid += 1;
            continue;
        }
        let place = |column: usize| {
            let exact = (f64::from(point[column]) - f64::from(model.grid.low[column])) / model.grid.step;
            (exact + 0.5).floor().clamp(0.0, 65_535.0) as i128
        };
        let distance = |c: usize| (0..d).map(|j| (place(j) - i128::from(model.centroids[c * d + j])).pow(2)).sum::<i128>();
        let nearest = (0..k).min_by_key(|c| (distance(*c), *c)).expect("a centroid");
        partial.counts[nearest] += 1;
        partial.objective += distance(nearest) as u128;
        (0..d).for_each(|j| partial.sums[nearest * d + j] += place(j) as u64);
    }
    partial
}

fn some_model(random: &mut Random, clusters: usize, numbers: &[f32], columns: usize) -> Model {
    let sample = Sample::of(numbers, columns, clusters, random.next(), 0);
    let grid = if sample.points == 0 { Grid { low: vec![0.0; columns], step: 1.0 } } else { Grid::over(sample.low, &sample.high) };
    // Corners of the grid, and the same centroid twice, among others.
    let mut centroids: Vec<u16> = (0..clusters * columns).map(|_| random.next() as u16).collect();
    centroids[..columns].fill(0);
    if clusters > 2 {
        centroids[columns..2 * columns].fill(TOP);
        centroids.copy_within(..columns, 2 * columns);
    }
    Model { grid, centroids }
}

fn value(output: &TaskOutput) -> Vec<u8> {
    crate::run::Reader::new(&output.blocks[0]).next().expect("a record").expect("sound").value.to_vec()
}

/// Points, coordinates, clusters.
const SHAPES: [(usize, usize, usize); 13] = [
    (0, 3, 4),
    (1, 1, 1),
    (2, 2, 3),
    (255, 1, 2),
    (256, 2, 7),
    (257, 3, 8),
    (1009, 5, 9),
    (4095, 4, 16),
    (4097, 2, 17),
    (1000, 33, 33),
    (600, 200, 40),
    (70_001, 3, 5),
    (300, 7, 500),
];

#[test]
fn both_twins_give_what_the_algorithm_gives() {
    let mut random = random("both_twins_give_what_the_algorithm_gives");
    let cases: Vec<(Model, Vec<f32>, Partial)> = SHAPES
        .iter()
        .map(|(count, columns, clusters)| {
            let numbers = points(&mut random, *count, *columns);
            let model = some_model(&mut random, *clusters, &numbers, *columns);
            let expected = oracle(&model, &numbers);
            (model, numbers, expected)
        })
        .collect();
    let prepared = |model: &Model| KmeansAssign.prepare_round(&map_stage(model.clusters(), 1), &model.encode(), None).unwrap();
    for (model, numbers, expected) in &cases {
        let made = prepared(model).run_cpu(&task(3, model.columns(), &bytes(numbers))).unwrap();
        assert_eq!(Partial::decode(&value(&made)).as_ref(), Some(expected));
        assert_eq!(made.tallies, [expected.points(), expected.invalid]);
    }
    with_gpus(|gpu| {
        for (model, numbers, _) in &cases {
            let bytes = bytes(numbers);
            // Cut anywhere into tasks, and some of them twice.
            let row = 4 * model.columns();
            let middle = numbers.len() / model.columns() / 3 * row;
            let tasks =
                [task(0, model.columns(), &bytes[..middle]), task(1, model.columns(), &bytes[middle..]), task(2, model.columns(), &bytes)];
            let twin = prepared(model);
            let made = twin.run_gpu(gpu, &tasks).unwrap();
            let expected: Vec<TaskOutput> = tasks.iter().map(|task| twin.run_cpu(task).unwrap()).collect();
            assert!(made == expected, "{} points of {} coordinates, {} clusters", numbers.len(), model.columns(), model.clusters());
        }
    });
}

/// The whole of a job, on one device; what each round left, and the last part.
fn rounds(tasks: &[Vec<u8>], columns: usize, clusters: usize, gpu: Option<&Gpu>) -> (Vec<RoundEnd>, Part) {
    let map = map_stage(clusters, 7);
    let reduce = StageContext { tasks: 1, partitions: 1, format: "csv".into(), ..StageContext::default() };
    let (mut ends, mut kept): (Vec<RoundEnd>, _) = (Vec::new(), None);
    loop {
        let (assign, update) = match ends.last() {
            None => (KmeansAssign.prepare(&map).unwrap(), KmeansUpdate.prepare(&reduce).unwrap()),
            Some(RoundEnd { state, .. }) => {
                (KmeansAssign.prepare_round(&map, state, kept.take()).unwrap(), KmeansUpdate.prepare_round(&reduce, state, None).unwrap())
            }
        };
        let tasks: Vec<Task<'_>> = tasks.iter().enumerate().map(|(number, bytes)| task(number as u64, columns, bytes)).collect();
        let uploaded = gpu.map(Gpu::uploaded_bytes);
        let made = match gpu {
            Some(gpu) => assign.run_gpu(gpu, &tasks).unwrap(),
            None => tasks.iter().map(|task| assign.run_cpu(task).unwrap()).collect(),
        };
        if let Some((gpu, before)) = gpu.zip(uploaded) {
            println!("round {}: {} bytes to the device", ends.len() + 1, gpu.uploaded_bytes() - before);
        }
        kept = assign.kept();
        let blocks = made.iter().enumerate().map(|(task, output)| Block { task: task as u64, bytes: &output.blocks[0] }).collect();
        let (output, end) = update.run_round(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap();
        let over = end.converged;
        ends.push(end);
        if over {
            return (ends, output.part.expect("a part"));
        }
    }
}

#[test]
fn rounds_find_the_clusters_and_both_twins_go_the_same_way() {
    let mut random = random("rounds_find_the_clusters_and_both_twins_go_the_same_way");
    let numbers = points(&mut random, 5000, 3);
    let tasks: Vec<Vec<u8>> = numbers.chunks(3 * 777).map(bytes).collect();
    let (ends, part) = rounds(&tasks, 3, 5, None);
    let objective = |end: &RoundEnd| end.measures[0].1.parse::<f64>().expect("a number");
    // From the second round on each is at most as far as the one before, but for the centroids' places: half a step in each dimension.
    for pair in ends[1..].windows(2) {
        assert!(objective(&pair[1]) <= objective(&pair[0]) * (1.0 + 1e-3), "{pair:?}");
    }
    assert_eq!(ends.last().expect("a round").measures[1], ("shift".into(), "0".into()));
    let all = Model::decode(&ends[ends.len() - 1].state).unwrap();
    assert_eq!(oracle(&all, &numbers).counts.len(), 5);
    with_gpus(|gpu| assert!(rounds(&tasks, 3, 5, Some(gpu)) == (ends.clone(), part.clone())));
}

#[test]
fn starting_centroids_are_points_drawn_by_the_seed_whoever_ran_the_tasks() {
    let mut random = random("starting_centroids_are_points_drawn_by_the_seed_whoever_ran_the_tasks");
    let numbers = points(&mut random, 1000, 2);
    let samples: Vec<Sample> = numbers.chunks(2 * 130).enumerate().map(|(n, rows)| Sample::of(rows, 2, 6, 5, n as u64)).collect();
    let all = |order: &mut dyn Iterator<Item = &Sample>| {
        let mut all = order.next().expect("a task").clone();
        order.for_each(|sample| all.add(sample.clone()).unwrap());
        all
    };
    let (forward, backward) = (all(&mut samples.iter()), all(&mut samples.iter().rev()));
    assert_eq!(forward, backward);
    assert!(forward.chosen.iter().all(|(_, point)| numbers.chunks_exact(2).any(|row| row == point)));
    assert_eq!(forward.points + forward.invalid, 1000);
    let other = Sample::of(&numbers, 2, 6, 6, 0);
    assert_ne!(other.chosen, Sample::of(&numbers, 2, 6, 5, 0).chosen);
    assert_eq!(Sample::decode(&other.encode()), Some(other));
    let mut of_three = Sample::of(&[1.0, 2.0, 3.0], 3, 6, 5, 0);
    assert!(of_three.add(forward).is_err_and(|reason| reason.contains("points of 3 and of 2")));
}

#[test]
fn points_go_to_the_device_once_and_the_budget_is_kept() {
    let mut random = random("points_go_to_the_device_once_and_the_budget_is_kept");
    let numbers = points(&mut random, 40_000, 4);
    let model = some_model(&mut random, 6, &numbers, 4);
    let rows: Vec<Vec<u8>> = numbers.chunks(4 * 5000).map(bytes).collect();
    let points_bytes = 2 * numbers.len() as u64;
    with_gpus(|gpu| {
        let usual = gpu.kept_limit.load(Ordering::Relaxed);
        let round = |kept: Option<Kept>, tasks: &[Task<'_>]| {
            let before = gpu.uploaded_bytes();
            let prepared = KmeansAssign.prepare_round(&map_stage(6, 1), &model.encode(), kept).unwrap();
            let made = prepared.run_gpu(gpu, tasks).unwrap();
            assert!(made == tasks.iter().map(|task| prepared.run_cpu(task).unwrap()).collect::<Vec<_>>());
            (prepared.kept(), gpu.uploaded_bytes() - before)
        };
        let tasks: Vec<Task<'_>> = rows.iter().enumerate().map(|(number, bytes)| task(number as u64, 4, bytes)).collect();
        let (kept, first) = round(None, &tasks);
        assert!(first > points_bytes * 9 / 10, "{first}: all points but invalid ones");
        let (kept, second) = round(kept, &tasks);
        assert!(second < 1000, "{second}: centroids and shapes alone");
        assert!(gpu.kept.load(Ordering::Relaxed) >= points_bytes * 9 / 10);
        drop(kept);
        assert_eq!(gpu.kept.load(Ordering::Relaxed), 0, "a job that has ended keeps nothing");

        gpu.kept_limit.store(points_bytes / 2, Ordering::Relaxed);
        let (kept, all) = round(None, &tasks);
        let (kept, half) = round(kept, &tasks);
        assert!(half < all * 6 / 10 && half > all * 4 / 10, "{half} of {all}: the same half stays");
        assert!(gpu.kept.load(Ordering::Relaxed) <= points_bytes / 2);
        // Other tasks come here instead: the former ones go after a round in which nobody asked for them.
        let (kept, _) = round(kept, &tasks[4..]);
        let (kept, _) = round(kept, &tasks[4..]);
        let (kept, settled) = round(kept, &tasks[4..]);
        assert!(settled < 1000, "{settled}");
        drop(kept);
        gpu.kept_limit.store(usual, Ordering::Relaxed);
    });
}

#[test]
fn what_it_cannot_do_is_said() {
    let message = |result: Result<TaskOutput, KernelError>| result.expect_err("an error").to_string();
    let first = KmeansAssign.prepare(&map_stage(4, 1)).unwrap();
    assert!(message(first.run_cpu(&task(0, 2, &[0; 12]))).contains("no whole number of rows"));
    assert!(message(first.run_cpu(&Task { number: 0, input: Input::Index { start: 0, count: 1 } })).contains("reads the rows"));
    assert!(message(first.run_cpu(&task(0, 70_000, &[]))).contains("1 to 65536 are possible"));
    let many = KmeansAssign.prepare(&map_stage(60_000, 1)).unwrap();
    assert!(message(many.run_cpu(&task(0, 4, &[]))).contains("use fewer clusters"));
    let model = Model { grid: Grid { low: vec![0.0; 3], step: 1.0 }, centroids: vec![0; 6] };
    let second = KmeansAssign.prepare_round(&map_stage(2, 1), &model.encode(), None).unwrap();
    assert!(message(second.run_cpu(&task(0, 2, &[]))).contains("a row has 2 elements"));
    let state = vec![0; 100];
    assert!(KmeansAssign.prepare_round(&map_stage(2, 1), &state, None).is_err());
    let split = StageContext { partitions: 2, ..map_stage(2, 1) };
    assert!(KmeansAssign.prepare(&split).is_err());
}

#[test]
fn a_grid_covers_its_points_and_no_extent_is_too_small_or_too_large() {
    for (low, high) in [(0.0, 0.0), (-f32::MAX, f32::MAX), (1.0, 1.0 + f32::EPSILON), (0.0, f32::from_bits(1)), (-3.5, 9.25)] {
        let grid = Grid::over(vec![low], &[high]);
        let mut places = [7];
        assert!(grid.places(&[low], &mut places) && places == [0]);
        assert!(grid.places(&[high], &mut places));
        assert!(places == [TOP] || high == low, "{low} {high}: {places:?}");
        assert!(!grid.places(&[f32::NAN], &mut places));
        assert_eq!(Model::decode(&Model { grid, centroids: vec![3] }.encode()).unwrap().centroids, [3]);
    }
}

#[test]
fn a_lease_takes_no_more_of_the_device_than_is_declared() {
    let mut random = random("kmeans a_lease_takes_no_more_of_the_device_than_is_declared");
    for (clusters, columns, count, tasks) in [(8, 4, 140_000, 3), (100, 3, 60_000, 6), (40, 16, 70_000, 1)] {
        let few = points(&mut random, 1000, columns);
        let numbers: Vec<f32> = few.iter().copied().cycle().take(count * columns).filter(|x| x.is_finite()).collect();
        let numbers = &numbers[..numbers.len() / columns * columns];
        let model = some_model(&mut random, clusters, numbers, columns);
        let all = bytes(numbers);
        let rows: Vec<&[u8]> = all.chunks(4 * columns * count.div_ceil(tasks)).collect();
        let made: Vec<Task<'_>> = rows.iter().enumerate().map(|(number, bytes)| task(number as u64, columns, bytes)).collect();
        with_gpus(|gpu| {
            let prepared = KmeansAssign.prepare_round(&map_stage(clusters, 1), &model.encode(), None).unwrap();
            let need = gpu::need(clusters as u64, columns as u64);
            check_memory(gpu, need, made.len() as u64, all.len() as u64, || drop(prepared.run_gpu(gpu, &made).unwrap()));
        });
    }
}

fn with_start(clusters: usize, shape: &[u64], centroids: &[f32]) -> StageContext {
    let side = SideInput::new(start::NAME.into(), "f4".into(), shape.to_vec(), Arc::new(bytes(centroids)));
    StageContext { sides: vec![side], ..map_stage(clusters, 1) }
}

#[test]
fn given_centroids_are_what_the_rounds_start_from_however_the_points_are_cut() {
    let mut random = random("given_centroids_are_what_the_rounds_start_from");
    let numbers = points(&mut random, 600, 2);
    // One of them beyond all points: the grid reaches there too.
    let given = [1.5, -3.25, 0.0, 1000.0, -7.0, 2.0f32];
    let map = with_start(3, &[3, 2], &given);
    let begin = |rows: usize| {
        let assign = KmeansAssign.prepare(&map).unwrap();
        let tasks: Vec<Vec<u8>> = numbers.chunks(2 * rows).map(bytes).collect();
        let made: Vec<TaskOutput> = tasks.iter().enumerate().map(|(n, bytes)| assign.run_cpu(&task(n as u64, 2, bytes)).unwrap()).collect();
        let blocks = made.iter().enumerate().map(|(task, output)| Block { task: task as u64, bytes: &output.blocks[0] }).collect();
        let reduce = StageContext { tasks: 1, partitions: 1, format: "npy".into(), ..StageContext::default() };
        let (output, end) = KmeansUpdate.prepare(&reduce).unwrap().run_round(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap();
        (output.part.expect("a part").bytes, end)
    };
    let (part, end) = begin(600);
    assert!(part.ends_with(&bytes(&given)), "the first round tells what was given");
    let model = Model::decode(&end.state).unwrap();
    for (centroid, given) in model.centroids.chunks_exact(2).zip(given.chunks_exact(2)) {
        for column in 0..2 {
            let off = model.grid.coordinate(column, f64::from(centroid[column])) - f64::from(given[column]);
            assert!(off.abs() <= model.grid.step * 0.501, "{off} with a step of {}", model.grid.step);
        }
    }
    assert_eq!(begin(77).1, end);
}

/// They had a point each in the first round, which is all that a job of one round says.
#[test]
fn given_centroids_stay_as_they_are_where_no_point_is_finite() {
    let assign = KmeansAssign.prepare(&with_start(2, &[2, 2], &[1.5, -3.25, 0.0, 1000.0])).unwrap();
    let made = assign.run_cpu(&task(0, 2, &bytes(&[f32::NAN, 1.0, f32::INFINITY, 2.0]))).unwrap();
    let blocks = vec![Block { task: 0, bytes: &made.blocks[0] }];
    let reduce = StageContext { tasks: 1, partitions: 1, format: "csv".into(), ..StageContext::default() };
    let (output, end) = KmeansUpdate.prepare(&reduce).unwrap().run_round(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap();
    let part = String::from_utf8(output.part.expect("a part").bytes).unwrap();
    assert_eq!((part.as_str(), output.tallies.as_slice()), ("cluster,points,x0,x1\n0,0,1.5,-3.25\n1,0,0,1000\n", [2].as_slice()));
    assert!(end.converged && end.measures == [("points".into(), "0".into())]);
}

#[test]
fn centroids_that_do_not_go_with_the_job_are_refused() {
    let refusal = |stage: &StageContext| KmeansAssign.prepare(stage).map(drop).expect_err("a refusal").to_string();
    assert!(refusal(&with_start(4, &[3, 2], &[0.0; 6])).contains("has 3 rows, and clusters = 4: there must be one for each"));
    assert!(refusal(&with_start(3, &[3, 2], &[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0])).contains("has NaN in row 1, column 1"));
    assert!(refusal(&with_start(3, &[3, 2], &[0.0; 5])).contains("no array of f4 with the shape (3, 2)"));
    assert!(refusal(&with_start(3, &[6], &[0.0; 6])).contains("has 1 dimension; 2 are wanted"));
    let assign = KmeansAssign.prepare(&with_start(3, &[3, 2], &[0.0; 6])).unwrap();
    let problem = assign.run_cpu(&task(0, 3, &[0; 24])).expect_err("an error").to_string();
    assert!(problem.contains("a row has 3 elements, and those of side input 'centroids' have 2"), "{problem}");

    let array = |path: &str, shape: [u64; 2]| ListedArray { path: path.into(), dtype: "f4".into(), shape: shape.to_vec() };
    let listed = |shape| crate::listed::ListedInput {
        files: vec![array("points.npy", [100, 2])],
        sides: vec![(start::NAME.into(), array("start.npy", shape))],
    };
    let check = |clusters: &str, shape| crate::listed::check_listed(&KmeansAssign, &params(&[("clusters", clusters)]), &listed(shape));
    assert_eq!(check("3", [3, 2]), Ok(()));
    let said = |clusters: &str, shape| check(clusters, shape).expect_err("a problem").to_string();
    assert_eq!(
        said("8", [3, 2]),
        "side input 'centroids' (start.npy) has 3 rows, and clusters = 8: there must be one for each\nfix: set `clusters` to 3"
    );
    // Neither no cluster nor more than a model holds can be asked for.
    for rows in [0, 70_000, 1 << 40] {
        assert_eq!(
            said("8", [rows, 2]),
            format!(
                "side input 'centroids' (start.npy) has {rows} rows, and clusters = 8: there must be one for each\nfix: give an array of 8 rows, one \
                 for each cluster"
            )
        );
    }
    assert!(said("3", [3, 5]).contains("has rows of 5 elements, and the points have 2"));
}
