//! The CPU device: loops in the rayon pool that take chunks until nothing is queued.
//!
//! Not one rayon job per task: a tiny task costs less than a job does. A chunk is as many tasks as take [`CHUNK_NS`] by what the stage
//! has shown so far, so cheap tasks come in thousands and a slow one comes alone. Because the loops are jobs of the global pool, a
//! kernel that uses rayon inside a task gets help from threads that have no chunk.
use super::{
    Shared,
    chunk::Collector,
    part_file::{PartFile, Written},
    queue::Chunk,
    reading::Reading,
    rounds,
    stage::{Fault, panic_message},
};
use bytes::Bytes;
use raftwerk_kernels::{KernelError, PartWriter, Prepared, Task, TaskOutput, output};
use raftwerk_proto::v1::{FailureClass, RoundEnd};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// A claim, a delivery and two clock readings cost about a microsecond; a thousandth of this.
const CHUNK_NS: u64 = 1_000_000;
/// A chunk that takes longer than this shares its rest with other threads and lets its results be told.
const CHUNK_LIMIT: Duration = Duration::from_millis(20);
/// Longest chunk, for tasks that cost next to nothing.
const CHUNK_TASKS_MAX: u64 = 16 << 10;
/// The clock is read once in so many tasks.
const CLOCK_EVERY: u64 = 16;

thread_local! {
    /// Whether this thread is running tasks further up its stack.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// Starts loops for what was queued.
pub(super) fn wake(shared: &Arc<Shared>) {
    for place in shared.queue.places(shared.threads) {
        let shared = shared.clone();
        rayon::spawn(move || {
            let nested = IN_TASK.get();
            while let Some(chunk) = shared.queue.claim(place, shared.threads) {
                run(&shared, place, chunk);
                if nested {
                    // This thread waits inside a kernel's own rayon call. Between two jobs rayon looks whether the wait is over, so that
                    // task is held up by one chunk and not by the whole queue.
                    shared.queue.leave(place);
                    return wake(&shared);
                }
            }
        });
    }
}

fn run(shared: &Arc<Shared>, place: usize, mut chunk: Chunk) {
    let (lease, inputs, expected) = (chunk.lease.clone(), chunk.inputs.clone(), chunk.memory);
    let stage = &lease.stage;
    let slot = shared.recorder.slot(place);
    let mut collector = Collector::new(&lease, &inputs, shared.write_bytes);
    let outer = IN_TASK.replace(true);
    let key = chunk.lease.key;
    let outer_mark = output::set_mark(Some([u64::from(key.epoch), key.index, u64::from(key.position)]));
    let (mut task, mut input_bytes) = (chunk.first, 0);
    let started = Instant::now();
    match &stage.prepared {
        Err(fault) => {
            collector.done.failed(task, chunk.end - task, fault.clone());
            task = chunk.end;
        }
        Ok(prepared) => {
            slot.start(chunk.lease.key, task, 1);
            while task < chunk.end {
                if chunk.lease.stopped.load(Ordering::Relaxed) {
                    collector.done.stopped(task, chunk.end - task);
                    task = chunk.end;
                    break;
                }
                slot.task(task);
                let ran = run_task(shared, prepared.as_ref(), &mut chunk, task, !outer, &mut input_bytes);
                inputs.done_with(task);
                match ran {
                    Ok((Made { output, end, written }, reading)) => {
                        collector.done.round_end = end.or(collector.done.round_end.take());
                        collector.add(task, output, written, &reading);
                    }
                    Err(fault) => collector.done.failed(task, 1, fault),
                }
                task += 1;
                if (task - chunk.first).is_multiple_of(CLOCK_EVERY) && task < chunk.end && started.elapsed() > CHUNK_LIMIT {
                    break;
                }
            }
            slot.idle();
        }
    }
    IN_TASK.set(outer);
    output::set_mark(outer_mark);
    let elapsed = started.elapsed().as_nanos() as u64;
    let mut done = collector.finish();
    done.busy_ns = elapsed;
    done.input_bytes = input_bytes;
    learn(&chunk, task - chunk.first, elapsed);
    let starved = shared.queue.release(chunk.memory);
    if task < chunk.end {
        let (lease, inputs) = (chunk.lease.clone(), chunk.inputs.clone());
        shared.queue.give_back(Chunk { lease, inputs, first: task, end: chunk.end, memory: expected });
    }
    if starved || task < chunk.end {
        wake(shared);
    }
    shared.deliver(&chunk.lease, done);
}

/// Grows or shrinks the chunk toward its target time, at most eightfold per step so that one lucky task does not mislead it.
fn learn(chunk: &Chunk, tasks: u64, elapsed_ns: u64) {
    let chunk_tasks = &chunk.lease.stage.chunk_tasks;
    let now = chunk_tasks.load(Ordering::Relaxed);
    let fitting = (CHUNK_NS.saturating_mul(tasks) / elapsed_ns.max(1)).clamp(1, CHUNK_TASKS_MAX);
    let next = fitting.min(now.saturating_mul(8));
    if next != now {
        chunk_tasks.store(next, Ordering::Relaxed);
    }
}

struct Made {
    output: TaskOutput,
    end: Option<RoundEnd>,
    /// Of the part, when it went into a file of its own.
    written: Option<Written>,
}

fn run_task(
    shared: &Shared,
    prepared: &dyn Prepared,
    chunk: &mut Chunk,
    number: u64,
    waits: bool,
    input_bytes: &mut u64,
) -> Result<(Made, Reading), Fault> {
    let unpacked = chunk.inputs.unpack(number)?;
    if let Some(unpacked) = &unpacked {
        let bytes = unpacked.len() as u64;
        shared.queue.settle(&mut chunk.memory, bytes.saturating_add(prepared.memory(bytes)), waits);
    }
    let chunk = &*chunk;
    let stage = &chunk.lease.stage;
    let gathered = chunk.inputs.gather(number)?;
    let of_input = chunk.inputs.of(&stage.input, stage.bad_records, number, unpacked.as_ref().or(gathered.as_ref()));
    let placed = |fault| with_place(chunk, number, unpacked.as_ref(), fault);
    let (input, reading) = of_input.map_err(placed)?;
    *input_bytes += reading.bytes;
    let task = Task { number, input };
    let own = chunk.inputs.output.as_ref().filter(|_| chunk.inputs.tasks.len() == 1);
    let run = || match (&chunk.lease.stage.ends, own) {
        (Some(round), _) => rounds::run(prepared, round, &task).map(|(output, end)| Made { output, end: Some(end), written: None }),
        (None, None) => Ok(Made { output: prepared.run_cpu(&task)?, end: None, written: None }),
        (None, Some(file)) => run_streamed(prepared, &task, PartFile::new(&file.file)),
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(made)) => Ok((made, reading)),
        Ok(Err(fault)) => Err(placed(reading.fault(number, chunk.inputs.path(number), fault))),
        Err(payload) => Err(placed(Fault::new(FailureClass::Task, panic_message(payload.as_ref())))),
    }
}

fn run_streamed(prepared: &dyn Prepared, task: &Task<'_>, mut file: PartFile<'_>) -> Result<Made, Fault> {
    let run = |file: &mut PartFile<'_>| {
        let mut output = prepared.run_streamed(task, file)?;
        if let Some(part) = &mut output.part {
            file.write(&std::mem::take(&mut part.bytes))?;
        }
        Ok::<_, KernelError>(output)
    };
    let ran = run(&mut file);
    // What the file has to say comes first: the kernel only passed it on.
    let written = file.finish()?;
    Ok(Made { output: ran?, end: None, written: Some(written) })
}

/// Bad input is named by its file, so that a person finds it. `unpacked` is what a compressed file holds.
pub(super) fn with_place(chunk: &Chunk, number: u64, unpacked: Option<&Bytes>, mut fault: Fault) -> Fault {
    if matches!(fault.class, FailureClass::Task | FailureClass::Input | FailureClass::Fatal)
        && let Some(place) = chunk.inputs.place(number, fault.at, unpacked)
    {
        fault.message = format!("{} ({place})", fault.message);
    }
    fault
}
