//! A few seeds of the simulation, and the proof that it can see: every planted bug is caught by its stored seeds.
//!
//! `cargo xtask sim --seeds 300` runs more of them, `cargo xtask sim --seeds 1 --from S --tell` replays one.

use raftwerk_planted::Bug;
use raftwerk_tests::sim::{Counters, Options, planted_seeds, run_seed};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does `each` for all items on the cores of this machine, and returns what it says of them.
fn in_parallel<T: Sync>(items: &[T], each: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let said = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(text) = each(item) {
                        said.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    said.into_inner().unwrap()
}

#[test]
fn seeds_hold_every_promise() {
    let seeds: Vec<u64> = (1..=16).collect();
    let reached = Mutex::new(Counters::default());
    let broken = in_parallel(&seeds, |seed| match run_seed(*seed, Options::default()) {
        Ok(report) => {
            reached.lock().unwrap().add(&report.counters);
            None
        }
        Err(failure) => Some(format!("seed {seed}: {}\nreplay: {}\n{}", failure.what, failure.replay(), failure.story.join("\n"))),
    });
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
    // A simulation that never comes there shows nothing about it.
    let missing = reached.into_inner().unwrap().missing();
    assert!(missing.is_empty(), "no seed reached: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| run_seed(seed, Options::default()).map_err(|f| f.what).unwrap();
    let first = run(77);
    assert_eq!(run(77), first);
    assert_ne!(run(78).trace, first.trace, "the seed decides nothing");
}

/// A change of the code that ships moves what a seed does, so one of a bug's seeds is enough; store new ones when they become few.
#[test]
fn every_planted_bug_is_caught_by_a_stored_seed() {
    let stored = planted_seeds().unwrap();
    let missed = in_parallel(Bug::ALL, |bug| {
        let seeds: Vec<u64> = stored.iter().filter(|(of, _)| of == bug).flat_map(|(_, seeds)| seeds.iter().copied()).collect();
        let catches = |seed: &u64| run_seed(*seed, Options { planted: Some(*bug), tell: false }).is_err();
        (!seeds.iter().any(catches)).then(|| {
            let name = bug.name();
            format!("none of the seeds {seeds:?} sees {name}; find others with `cargo xtask sim --planted {name} --seeds 500 --store`")
        })
    });
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
