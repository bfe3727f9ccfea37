//! Segments of leases in the order they came, and the loops that take from them.
use super::{input::Inputs, lease::Lease};
use crate::lease::LeaseKey;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

/// Tasks of one message that nobody has taken yet.
pub(super) struct Segment {
    pub(super) lease: Arc<Lease>,
    pub(super) inputs: Arc<Inputs>,
    pub(super) next: u64,
    pub(super) end: u64,
    /// Memory that any one of its tasks takes while it runs, input included.
    pub(super) memory: u64,
}

/// A range of tasks taken by one thread, which runs one after the other.
pub(super) struct Chunk {
    pub(super) lease: Arc<Lease>,
    pub(super) inputs: Arc<Inputs>,
    pub(super) first: u64,
    pub(super) end: u64,
    /// As in its segment; held until it is given back ([`Queue::release`]).
    pub(super) memory: u64,
}

/// What a stopped lease will not run, as ranges `[first, end)`.
pub(super) struct Dropped {
    pub(super) lease: Arc<Lease>,
    pub(super) ranges: Vec<(u64, u64)>,
}

pub(super) struct Queue {
    /// What tasks may take together. A task that takes more runs alone.
    memory: u64,
    state: Mutex<State>,
    arrived: Condvar,
    /// Memory was given back.
    freed: Condvar,
}

#[derive(Default)]
struct State {
    segments: VecDeque<Segment>,
    leases: HashMap<LeaseKey, Arc<Lease>>,
    /// Memory of chunks that were claimed.
    held: u64,
    /// A loop ended because there was too little of it.
    starved: bool,
    /// Places of loops that run now; a place is also the loop's slot of the recorder.
    busy_places: Vec<bool>,
}

impl Queue {
    pub(super) fn new(memory: u64) -> Queue {
        Queue { memory, state: Mutex::default(), arrived: Condvar::new(), freed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lease_or_insert(&self, key: LeaseKey, make: impl FnOnce() -> Arc<Lease>) -> Arc<Lease> {
        self.state().leases.entry(key).or_insert_with(make).clone()
    }

    pub(super) fn forget(&self, key: LeaseKey) {
        self.state().leases.remove(&key);
    }

    pub(super) fn push(&self, segment: Segment) {
        self.state().segments.push_back(segment);
        self.arrived.notify_one();
    }

    /// Puts back the rest of a chunk that turned out to be long, so that idle threads share it.
    pub(super) fn give_back(&self, chunk: Chunk) {
        let Chunk { lease, inputs, first, end, memory } = chunk;
        self.state().segments.push_front(Segment { lease, inputs, next: first, end, memory });
    }

    /// Takes the lease's segments out and marks it; the ranges are the tasks that will not run.
    pub(super) fn stop(&self, key: LeaseKey) -> Option<Dropped> {
        let mut state = self.state();
        let lease = state.leases.get(&key)?.clone();
        lease.stopped.store(true, Ordering::Relaxed);
        let mut dropped = Vec::new();
        state.segments.retain(|segment| {
            let of_lease = segment.lease.key == key;
            if of_lease {
                dropped.push((segment.next, segment.end));
            }
            !of_lease
        });
        Some(Dropped { lease, ranges: dropped })
    }

    /// Places for as many more loops as the queued tasks can feed.
    pub(super) fn places(&self, threads: usize) -> Vec<usize> {
        let mut state = self.state();
        state.busy_places.resize(threads, false);
        let mut tasks = state.segments.iter().take(threads).map(|segment| segment.end - segment.next).sum::<u64>();
        let mut places = Vec::new();
        for (place, busy) in state.busy_places.iter_mut().enumerate() {
            if !*busy && tasks > 0 {
                *busy = true;
                tasks -= 1;
                places.push(place);
            }
        }
        places
    }

    /// The next chunk for the loop at this place; `None` ends the loop and frees its place in the same step, so that a segment pushed
    /// at the same moment is never left lying.
    pub(super) fn claim(&self, place: usize, threads: usize) -> Option<Chunk> {
        let mut state = self.state();
        if let Some(next) = state.segments.front()
            && state.held > 0
            && state.held.saturating_add(next.memory) > self.memory
        {
            // Whoever holds it starts loops again.
            state.starved = true;
            state.busy_places[place] = false;
            return None;
        }
        let chunk = state.claim(|segment| {
            let learned = segment.lease.stage.chunk_tasks.load(Ordering::Relaxed);
            // Toward the end chunks shrink so that threads finish together, but not below what is worth a claim.
            let share = (segment.end - segment.next).div_ceil(2 * threads as u64);
            learned.min(share.max(learned / 16)).max(1)
        });
        match &chunk {
            None => state.busy_places[place] = false,
            Some(chunk) => state.held = state.held.saturating_add(chunk.memory),
        }
        chunk
    }

    /// Memory of a chunk that has run. Tells whether a loop had to end for want of it.
    pub(super) fn release(&self, memory: u64) -> bool {
        let mut state = self.state();
        state.held = state.held.saturating_sub(memory);
        self.freed.notify_all();
        std::mem::take(&mut state.starved)
    }

    /// A task that runs takes `need` where `held` was expected: what it is was not known before its input was unpacked. It waits until that fits, or
    /// until it is alone, and holds nothing meanwhile, so that of those who wait one can always go on. Where `waits` is false it does not: below it on
    /// the same stack is another task, which would wait for itself.
    pub(super) fn settle(&self, held: &mut u64, need: u64, waits: bool) {
        let mut state = self.state();
        state.held = state.held.saturating_sub(*held);
        self.freed.notify_all();
        while waits && state.held > 0 && state.held.saturating_add(need) > self.memory {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held = state.held.saturating_add(need);
        *held = need;
    }

    /// Gives a place back without having found the queue empty; the caller starts loops anew.
    pub(super) fn leave(&self, place: usize) {
        self.state().busy_places[place] = false;
    }

    /// Waits for work and takes up to `tasks(stage)` tasks of one stage, from as many leases as that spans.
    pub(super) fn claim_batch(&self) -> Vec<Chunk> {
        let mut state = self.state();
        while state.segments.is_empty() {
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let stage = state.segments[0].lease.stage.clone();
        let mut room = stage.chunk_tasks.load(Ordering::Relaxed).max(1);
        let mut batch = Vec::new();
        while room > 0 && state.segments.front().is_some_and(|segment| Arc::ptr_eq(&segment.lease.stage, &stage)) {
            let Some(chunk) = state.claim(|_| room) else { break };
            room -= chunk.end - chunk.first;
            batch.push(chunk);
        }
        batch
    }
}

impl State {
    fn claim(&mut self, tasks: impl FnOnce(&Segment) -> u64) -> Option<Chunk> {
        let segment = self.segments.front_mut()?;
        let first = segment.next;
        let end = segment.end.min(first.saturating_add(tasks(segment)));
        if end == segment.end {
            let Segment { lease, inputs, memory, .. } = self.segments.pop_front()?;
            return Some(Chunk { lease, inputs, first, end, memory });
        }
        segment.next = end;
        Some(Chunk { lease: segment.lease.clone(), inputs: segment.inputs.clone(), first, end, memory: segment.memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::stage::Stage;
    use raftwerk_kernels::Kernel;
    use raftwerk_proto::v1::StageInfo;

    struct NoKernels;

    impl crate::executor::Kernels for NoKernels {
        fn all(&self) -> Vec<&'static dyn Kernel> {
            Vec::new()
        }

        fn adapters(&self) -> Vec<raftwerk_proto::v1::Device> {
            Vec::new()
        }

        fn open_gpu(&self, _index: usize) -> Result<(raftwerk_proto::v1::Device, raftwerk_kernels::gpu::Gpu), String> {
            Err("there is none".into())
        }

        fn self_test(&self, _gpu: Option<&raftwerk_kernels::gpu::Gpu>) -> Result<(), String> {
            Ok(())
        }
    }

    /// Tasks of this much memory each, in segments of one.
    fn queue(memory: u64, tasks: &[u64]) -> Queue {
        let queue = Queue::new(memory);
        let stage = Arc::new(Stage::prepare(&NoKernels, &StageInfo::default(), Vec::new(), None));
        for (number, memory) in tasks.iter().enumerate() {
            let key = LeaseKey { epoch: 0, index: number as u64, position: 0 };
            let lease = queue.lease_or_insert(key, || Arc::new(Lease::new(key, stage.clone(), None)));
            queue.push(Segment { lease, inputs: Arc::default(), next: 0, end: 1, memory: *memory });
        }
        queue
    }

    #[test]
    fn tasks_that_would_take_too_much_together_run_one_after_the_other() {
        let queue = queue(100, &[60, 40, 30, 500, 1]);
        let [a, b, c] = <[usize; 3]>::try_from(queue.places(3)).unwrap();
        let first = queue.claim(a, 3).unwrap();
        let second = queue.claim(b, 3).unwrap();
        assert_eq!((first.memory, second.memory), (60, 40));
        assert!(queue.claim(c, 3).is_none(), "100 of 100 are held");
        assert!(queue.release(second.memory), "a loop ended for want of memory");
        assert!(!queue.release(0), "and is to be started again once");
        let third = queue.claim(b, 3).unwrap();
        assert_eq!(third.memory, 30);
        queue.release(first.memory);
        assert!(queue.claim(a, 3).is_none(), "what takes more than all waits until it is alone");
        assert!(queue.release(third.memory));
        let alone = queue.claim(b, 3).unwrap();
        assert_eq!(alone.memory, 500);
        let place = queue.places(3)[0];
        assert!(queue.claim(place, 3).is_none(), "and nobody runs beside it");
        assert!(queue.release(alone.memory));
        assert_eq!(queue.claim(b, 3).unwrap().memory, 1);
    }

    #[test]
    fn a_task_that_turns_out_larger_waits_until_it_fits_and_holds_nothing_meanwhile() {
        let queue = queue(100, &[40, 40]);
        let [a, b] = <[usize; 2]>::try_from(queue.places(2)).unwrap();
        let (first, second) = (queue.claim(a, 2).unwrap(), queue.claim(b, 2).unwrap());
        std::thread::scope(|scope| {
            // Either alone is more than there is: one after the other, whichever is first.
            for mut held in [first.memory, second.memory] {
                let queue = &queue;
                scope.spawn(move || {
                    queue.settle(&mut held, 500, true);
                    assert_eq!((held, queue.state().held), (500, 500), "nobody runs beside it");
                    queue.release(held);
                });
            }
        });
        assert_eq!(queue.state().held, 0);
        let mut held = 0;
        queue.settle(&mut held, 90, true);
        let mut nested = 0;
        queue.settle(&mut nested, 90, false);
        assert_eq!(queue.state().held, 180, "what would wait for itself does not wait");
    }

    #[test]
    fn without_a_limit_every_loop_has_its_chunk() {
        let queue = queue(u64::MAX, &[u64::MAX, u64::MAX, 7]);
        assert_eq!(queue.places(3).into_iter().filter_map(|place| queue.claim(place, 3)).count(), 3);
    }
}
