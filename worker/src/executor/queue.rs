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
}

/// A range of tasks taken by one thread.
pub(super) struct Chunk {
    pub(super) lease: Arc<Lease>,
    pub(super) inputs: Arc<Inputs>,
    pub(super) first: u64,
    pub(super) end: u64,
}

/// What a stopped lease will not run, as ranges `[first, end)`.
pub(super) struct Dropped {
    pub(super) lease: Arc<Lease>,
    pub(super) ranges: Vec<(u64, u64)>,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    segments: VecDeque<Segment>,
    leases: HashMap<LeaseKey, Arc<Lease>>,
    /// Places of loops that run now; a place is also the loop's slot of the recorder.
    busy_places: Vec<bool>,
}

impl Queue {
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
        let Chunk { lease, inputs, first, end } = chunk;
        self.state().segments.push_front(Segment { lease, inputs, next: first, end });
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
        let chunk = state.claim(|segment| {
            let learned = segment.lease.stage.chunk_tasks.load(Ordering::Relaxed);
            // Toward the end chunks shrink so that threads finish together, but not below what is worth a claim.
            let share = (segment.end - segment.next).div_ceil(2 * threads as u64);
            learned.min(share.max(learned / 16)).max(1)
        });
        if chunk.is_none() {
            state.busy_places[place] = false;
        }
        chunk
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
            let Segment { lease, inputs, .. } = self.segments.pop_front()?;
            return Some(Chunk { lease, inputs, first, end });
        }
        segment.next = end;
        Some(Chunk { lease: segment.lease.clone(), inputs: segment.inputs.clone(), first, end })
    }
}
