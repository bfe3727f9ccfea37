//! The estimate of what a state takes, against what the allocator gave out for it.

mod support;

use raftwerk_core::State;
use raftwerk_proto::v1::command::Command;
use raftwerk_proto::v1::{JobSpec, SubmitJob};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use support::*;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that a state made from its snapshot takes, beside its estimate.
fn compare(what: &str, state: &State) {
    let snapshot = state.to_snapshot();
    let before = HELD.load(Relaxed);
    let copy = State::from_snapshot(&state.cluster, &snapshot).expect("its own snapshot");
    let taken = HELD.load(Relaxed) - before;
    let weight = copy.weight();
    println!("{what}: {taken} bytes taken, {weight} estimated");
    assert!((taken as u64 / 2..taken as u64 * 2).contains(&weight), "{what}: {taken} bytes taken, {weight} estimated");
}

fn submits(count: usize, spec: &JobSpec) -> Vec<Command> {
    (0..count).map(|_| Command::SubmitJob(SubmitJob { spec: Some(spec.clone()), ..SubmitJob::default() })).collect()
}

#[test]
fn a_state_weighs_about_what_it_takes() {
    let mut ended = Replica::new();
    ended.apply_all(submits(2_000, &map_only(0)));
    compare("2,000 small ended jobs", &ended.state);

    let mut running = Replica::new();
    for worker in 10..20 {
        running.register(worker, vec![device(0, "cpu", 8)]);
    }
    running.apply_all(submits(300, &map_reduce(5_000, 16)));
    running.plan_and_grant();
    compare("300 running jobs", &running.state);
}
