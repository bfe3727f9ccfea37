//! What came with side inputs and reproducible stages: what a spec may say, and who ran what.

mod support;

use raftwerk_core::spec_format::NEWEST;
use raftwerk_core::{Outcome, State, WorkerId, spec};
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::*;
use support::*;

fn side(name: &str, files: usize) -> StageInput {
    let listing = vec![InputFile { path: "/data/b.npy".into(), bytes: 192, ..InputFile::default() }; files];
    let source = Source::Files(Files { patterns: vec!["/data/b.npy".into()], format: "npy-rows".into(), listing, ..Files::default() });
    StageInput { name: name.into(), source: Some(source) }
}

fn with_sides(sides: Vec<StageInput>) -> JobSpec {
    let mut spec = map_only(10);
    spec.stages[0].inputs.extend(sides);
    spec
}

fn reproducible(class: &str) -> JobSpec {
    let mut spec = map_only(10);
    spec.stages[0].reproducible = true;
    spec.stages[0].device = Some(DeviceRequest { class: class.into(), amount: None });
    spec
}

fn bounded(mut spec: JobSpec) -> JobSpec {
    spec.stages[0].kernel.iter_mut().for_each(|kernel| kernel.bounded = true);
    spec
}

fn refusal(spec: &JobSpec) -> String {
    spec::check(spec).expect_err("this spec should have been refused").0
}

#[test]
fn a_side_input_is_one_named_file_of_the_map_stage() {
    assert_eq!(spec::check(&with_sides(vec![side("b", 0), side("c", 1)])), Ok(()));
    assert!(refusal(&with_sides(vec![side("b", 2)])).contains("'b' is one file, and 2 match its path"));
    let mut pack = side("b", 1);
    if let Some(Source::Files(files)) = &mut pack.source {
        files.listing[0].pack_files = 4096;
    }
    assert!(refusal(&with_sides(vec![pack])).contains("'b' is one file, and 4096 match its path"));
    assert!(refusal(&with_sides(vec![side("b", 1), side("b", 1)])).contains("a name of its own, not 'b'"));
    assert!(refusal(&with_sides(vec![side("", 1)])).contains("a name of its own"));
    assert!(refusal(&with_sides((0..9).map(|n| side(&n.to_string(), 1)).collect())).contains("at most 8"));
    let range = StageInput { name: "r".into(), source: Some(Source::Range(IndexRange { start: 0, count: 1, tasks: 1 })) };
    assert!(refusal(&with_sides(vec![range])).contains("'r' must be a file"));
    let mut late = map_reduce(4, 2);
    late.stages[1].inputs.push(side("b", 1));
    assert!(refusal(&late).contains("reads a shuffle and can have no side input"));
}

#[test]
fn a_reproducible_stage_names_its_devices() {
    assert!(refusal(&reproducible("any")).contains("needs the class of its devices"));
    let mut r = Replica::new();
    r.register(7, vec![device(0, "cpu", 4), device(1, "discrete", 1)]);
    r.register(8, vec![device(0, "cpu", 2)]);
    let job = r.submit(bounded(reproducible("cpu")));
    while r.state.jobs[&job].is_active() {
        for lease in r.plan_and_grant() {
            r.finish(lease);
        }
    }
    assert!(r.state.jobs[&job].shares.values().all(|share| share.class == "cpu"));
}

#[test]
fn nothing_of_it_is_taken_from_an_entry_of_before() {
    for spec in [with_sides(vec![side("b", 1)]), reproducible("cpu"), bounded(map_only(10))] {
        let mut r = Replica::new();
        r.format = NEWEST - 1;
        let submit = |spec: &JobSpec| Command::SubmitJob(SubmitJob { spec: Some(spec.clone()), ..SubmitJob::default() });
        let outcome = r.apply(submit(&spec));
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("needs entries of format")), "{outcome:?}");
        assert!(r.state.jobs.is_empty());
        r.format = NEWEST;
        assert!(matches!(r.apply(submit(&spec)), Outcome::Submitted { .. }));
        let again = State::from_snapshot("test", &r.state.to_snapshot()).expect("a snapshot");
        assert_eq!(again, r.state, "a snapshot keeps all of it");
    }
}

fn spans(r: &Replica, job: raftwerk_core::JobId, worker: u64) -> Vec<(u64, u64)> {
    let share = r.state.jobs[&job].shares.get(&(0, WorkerId(worker), 0));
    share.into_iter().flat_map(|share| &share.spans).map(|span| (span.first_task, span.task_count)).collect()
}

#[test]
fn of_a_bounded_kernel_the_state_knows_who_ran_which_tasks() {
    let mut r = Replica::new();
    for worker in [7, 8] {
        r.register(worker, vec![device(0, "cpu", 1)]);
    }
    let job = r.submit(bounded(map_reduce(40, 2)));
    for (first, count, worker) in [(0, 10, 7), (20, 10, 7), (10, 10, 8), (30, 10, 8)] {
        let lease = r.grant(job, 0, first, count, worker).expect("a lease");
        r.finish(lease);
    }
    assert_eq!((spans(&r, job, 7), spans(&r, job, 8)), (vec![(0, 10), (20, 10)], vec![(10, 10), (30, 10)]));
    // What the lost worker made runs again, elsewhere: the last one that was accepted is named.
    r.lose(8);
    let lease = r.grant(job, 0, 10, 10, 7).expect("a lease");
    r.finish(lease);
    assert_eq!((spans(&r, job, 7), spans(&r, job, 8)), (vec![(0, 30)], vec![(30, 10)]));
    let exact = r.submit(map_only(5));
    let lease = r.grant(exact, 0, 0, 5, 7).expect("a lease");
    r.finish(lease);
    assert_eq!(spans(&r, exact, 7), [], "of an exact one it makes no difference");
}
