use super::*;
use crate::key;
use crate::run::push_record;
use crate::testing::params;

fn stage(format: &str, tolerance: &str) -> StageContext {
    StageContext { params: params(&[("tolerance", tolerance)]), tasks: 1, partitions: 1, format: format.into(), ..StageContext::default() }
}

fn block(task: u64, value: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    push_record(&mut block, &key::of_u64(task), value);
    block
}

fn model() -> Model {
    // Places are coordinates.
    Model { grid: Grid { low: vec![0.0, 0.0], step: 1.0 }, centroids: vec![0, 0, 10, 10, 500, 500] }
}

fn partial(counts: &[u64], sums: &[u64]) -> Partial {
    Partial { objective: 7, counts: counts.to_vec(), sums: sums.to_vec(), ..Partial::new(3, 2) }
}

fn run(format: &str, tolerance: &str, values: &[Vec<u8>]) -> Result<(Part, RoundEnd), KernelError> {
    let prepared = KmeansUpdate.prepare_round(&stage(format, tolerance), &model().encode(), None)?;
    let blocks: Vec<Vec<u8>> = values.iter().enumerate().map(|(task, value)| block(task as u64, value)).collect();
    let blocks = blocks.iter().enumerate().map(|(task, bytes)| Block { task: task as u64, bytes }).collect();
    let (output, end) = prepared.run_round(&Task { number: 0, input: Input::Blocks(blocks) })?;
    Ok((output.part.expect("a part"), end))
}

#[test]
fn centroids_move_to_the_means_of_all_tasks_and_an_empty_cluster_stays() {
    let two = [partial(&[1, 2, 0], &[1, 2, 30, 33, 0, 0]).encode(), partial(&[1, 1, 0], &[2, 4, 0, 0, 0, 0]).encode()];
    let (part, end) = run("csv", "0", &two).unwrap();
    assert_eq!(String::from_utf8(part.bytes).unwrap(), "cluster,points,x0,x1\n0,2,1.5,3\n1,3,10,11\n2,0,500,500\n");
    assert_eq!(part.preview[0].cells, ["1", "3", "10", "11"], "the largest first");
    let left = Model::decode(&end.state).unwrap();
    assert_eq!(left.centroids, [2, 3, 10, 11, 500, 500], "halves go upward");
    let shift = 13f64.sqrt();
    assert_eq!(end.measures, [("objective".into(), "14".into()), ("shift".into(), canonical_f64(shift))]);
    assert!(!end.converged);
    assert!(run("csv", "3.7", &two).unwrap().1.converged, "within the tolerance");
    let (npy, _) = run("npy", "0", &two).unwrap();
    assert!(npy.bytes.ends_with(&[1.5f32, 3.0, 10.0, 11.0, 500.0, 500.0].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()));
}

#[test]
fn rounds_have_converged_when_no_centroid_moves() {
    let (_, end) = run("csv", "0", &[partial(&[1, 2, 1], &[0, 0, 20, 20, 500, 500]).encode()]).unwrap();
    assert!(end.converged && Model::decode(&end.state).unwrap() == model());
}

#[test]
fn damaged_records_are_errors_and_never_panics() {
    let whole = partial(&[1, 2, 0], &[1, 2, 30, 33, 0, 0]).encode();
    for cut in 0..whole.len() {
        assert!(matches!(run("csv", "0", &[whole[..cut].to_vec()]), Err(KernelError::Failed(_))), "{cut}");
    }
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 0xff;
        let _ = run("csv", "0", &[bent]);
    }
    let beyond = partial(&[1, 0, 0], &[1 << 40, 0, 0, 0, 0, 0]).encode();
    let full = partial(&[u64::MAX, 0, 0], &[u64::MAX, 0, 0, 0, 0, 0]).encode();
    for bad in [vec![beyond], vec![full.clone(), full], vec![Partial::new(2, 2).encode()], vec![vec![]]] {
        assert!(matches!(run("csv", "0", &bad), Err(KernelError::Failed(_) | KernelError::Input(_))));
    }
    let sample = Sample::of(&[1.0, 2.0, 3.0, 4.0], 2, 2, 1, 0).encode();
    assert!(matches!(run("csv", "0", std::slice::from_ref(&sample)), Err(KernelError::Failed(_))), "of the first round");
    for cut in 0..sample.len() {
        let first = KmeansUpdate.prepare(&stage("csv", "0")).unwrap();
        let bytes = block(0, &sample[..cut]);
        let task = Task { number: 0, input: Input::Blocks(vec![Block { task: 0, bytes: &bytes }]) };
        // Cut between two points it says nothing but that there are too few.
        assert!(matches!(first.run_round(&task), Err(KernelError::Failed(_) | KernelError::Input(_))), "{cut}");
    }
    for state in [vec![], model().encode()[1..].to_vec(), vec![0xff; 64]] {
        assert!(KmeansUpdate.prepare_round(&stage("csv", "0"), &state, None).is_err());
    }
}

#[test]
fn an_input_without_points_has_no_centroids_and_needs_no_further_round() {
    let first = |format: &str, blocks: &[Vec<u8>]| {
        let blocks = blocks.iter().enumerate().map(|(task, bytes)| Block { task: task as u64, bytes }).collect();
        let prepared = KmeansUpdate.prepare(&stage(format, "0")).unwrap();
        let (output, end) = prepared.run_round(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap();
        (output.part.unwrap(), end)
    };
    let no_task = first("csv", &[]);
    let empty = [block(0, &Sample::of(&[], 2, 3, 1, 0).encode())];
    let not_finite = [block(0, &Sample::of(&[f32::NAN, 1.0], 2, 3, 1, 0).encode())];
    for (blocks, heading, shape) in [
        (&[][..], "cluster,points\n", "(0, 0)"),
        (&empty, "cluster,points,x0,x1\n", "(0, 2)"),
        (&not_finite, "cluster,points,x0,x1\n", "(0, 2)"),
    ] {
        let (part, end) = first("csv", blocks);
        assert_eq!((String::from_utf8(part.bytes).unwrap().as_str(), part.rows), (heading, 0));
        assert!(end.converged);
        let (npy, _) = first("npy", blocks);
        assert!(npy.bytes.windows(shape.len()).any(|window| window == shape.as_bytes()), "{:?}", npy.bytes);
        // A job that wants all of its rounds goes on from nothing.
        let again = KmeansUpdate.prepare_round(&stage("csv", "0"), &end.state, None).unwrap();
        let (output, next) = again.run_round(&Task { number: 0, input: Input::Blocks(Vec::new()) }).unwrap();
        assert_eq!((output.part.unwrap().rows, next.state), (0, end.state));
    }
    assert_eq!(no_task.0.columns, ["cluster", "points"]);
    let few = [block(0, &Sample::of(&[1.0, 2.0], 2, 3, 1, 0).encode())];
    let blocks = vec![Block { task: 0, bytes: &few[0] }];
    let error = KmeansUpdate.prepare(&stage("csv", "0")).unwrap().run_round(&Task { number: 0, input: Input::Blocks(blocks) }).unwrap_err();
    assert!(matches!(&error, KernelError::Input(text) if text.contains("has 1 point, and clusters = 3")), "{error}");
}

#[test]
fn what_it_cannot_do_is_said_with_the_fix() {
    let message = |stage: StageContext| KmeansUpdate.prepare(&stage).err().expect("an error").to_string();
    assert!(message(StageContext { tasks: 3, ..stage("csv", "0") }).contains("set partitions = 1"));
    assert!(message(stage("png", "0")).contains("writes csv or npy"));
}
