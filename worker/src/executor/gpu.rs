//! A GPU device: one thread that hands as many tasks as fit to one call of the kernel's GPU twin.
use super::{
    Shared,
    chunk::Collector,
    cpu::with_place,
    queue::Chunk,
    stage::{Fault, panic_message},
};
use raftwerk_kernels::{KernelError, Prepared, Task, TaskOutput, gpu::Gpu};
use raftwerk_proto::v1::FailureClass;
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

/// A batch is meant to take this long: well above the cost of a dispatch, well below the time after which drivers kill a shader.
const BATCH_NS: u64 = 100_000_000;
const BATCH_TASKS_MAX: u64 = 4096;

pub(super) fn start(shared: Arc<Shared>, gpu: Gpu) -> io::Result<()> {
    let work = move || {
        loop {
            let batch = shared.queue.claim_batch();
            run(&shared, &gpu, batch);
        }
    };
    std::thread::Builder::new().name("gpu".into()).spawn(work).map(drop)
}

fn run(shared: &Arc<Shared>, gpu: &Gpu, batch: Vec<Chunk>) {
    let Some(stage) = batch.first().map(|chunk| chunk.lease.stage.clone()) else { return };
    let started = Instant::now();
    let mut collectors: Vec<(Collector<'_>, u64)> =
        batch.iter().map(|chunk| (Collector::new(&chunk.lease, &chunk.inputs, shared.write_bytes), 0)).collect();
    let prepared = match &stage.prepared {
        Ok(prepared) => prepared.as_ref(),
        Err(fault) => {
            for (chunk, (mut collector, _)) in batch.iter().zip(collectors) {
                collector.done.failed(chunk.first, chunk.end - chunk.first, fault.clone());
                shared.deliver(&chunk.lease, collector.finish());
            }
            return;
        }
    };
    // Which chunk a task is of, beside the task.
    let (mut owners, mut tasks, mut readings) = (Vec::new(), Vec::new(), Vec::new());
    for (owner, (chunk, (collector, bytes))) in batch.iter().zip(&mut collectors).enumerate() {
        if chunk.lease.stopped.load(Ordering::Relaxed) {
            collector.done.stopped(chunk.first, chunk.end - chunk.first);
            continue;
        }
        if owner < shared.recorder.slots() {
            shared.recorder.slot(owner).start(chunk.lease.key, chunk.first, chunk.end - chunk.first);
        }
        for number in chunk.first..chunk.end {
            // No kernel with a GPU twin reads what may be compressed.
            match chunk.inputs.of(&stage.input, stage.bad_records, number, None) {
                Ok((input, reading)) => {
                    *bytes += reading.bytes;
                    readings.push(reading);
                    owners.push(owner);
                    tasks.push(Task { number, input });
                }
                Err(fault) => collector.done.failed(number, 1, fault),
            }
        }
    }
    let ran = tasks.len() as u64;
    let results = run_tasks(prepared, gpu, &tasks);
    (0..shared.recorder.slots()).for_each(|slot| shared.recorder.slot(slot).idle());
    let elapsed = started.elapsed().as_nanos() as u64;
    let mut lost = false;
    for (((task, &owner), reading), result) in tasks.iter().zip(&owners).zip(&readings).zip(results) {
        match result {
            Ok(output) => collectors[owner].0.add(task.number, output, None, reading),
            Err(fault) => {
                lost |= fault.class == FailureClass::Device && is_lost(gpu);
                collectors[owner].0.done.failed(task.number, 1, with_place(&batch[owner], task.number, None, fault));
            }
        }
    }
    let now = stage.chunk_tasks.load(Ordering::Relaxed);
    let fitting = (BATCH_NS.saturating_mul(ran) / elapsed.max(1)).clamp(1, BATCH_TASKS_MAX);
    stage.chunk_tasks.store(fitting.min(now.saturating_mul(8)), Ordering::Relaxed);
    let all: u64 = batch.iter().map(|chunk| chunk.end - chunk.first).sum();
    for (chunk, (collector, bytes)) in batch.iter().zip(collectors) {
        let mut done = collector.finish();
        // One dispatch serves several leases; each is said to have used its share of it.
        done.busy_ns = (u128::from(elapsed) * u128::from(chunk.end - chunk.first) / u128::from(all.max(1))) as u64;
        done.input_bytes = bytes;
        shared.deliver(&chunk.lease, done);
    }
    if lost {
        // A lost device never comes back in the same process. The agent starts a new one.
        shared.writer.flush_and_exit(super::EXIT_DEVICE_LOST);
    }
}

fn is_lost(gpu: &Gpu) -> bool {
    gpu.lost().is_some()
}

/// Results in the order of the tasks. A batch that fails as a whole is cut in two until the guilty task, or a size that fits, is found.
fn run_tasks(prepared: &dyn Prepared, gpu: &Gpu, tasks: &[Task<'_>]) -> Vec<Result<TaskOutput, Fault>> {
    if tasks.is_empty() {
        return Vec::new();
    }
    let fault = match catch_unwind(AssertUnwindSafe(|| prepared.run_gpu(gpu, tasks))) {
        Ok(Ok(outputs)) if outputs.len() == tasks.len() => return outputs.into_iter().map(Ok).collect(),
        Ok(Ok(outputs)) => {
            Fault::new(FailureClass::Task, format!("the kernel returned {} outputs for {} tasks", outputs.len(), tasks.len()))
        }
        Ok(Err(error @ KernelError::Param(_))) => {
            let fault = Fault::from(error);
            return tasks.iter().map(|_| Err(fault.clone())).collect();
        }
        Ok(Err(error)) => error.into(),
        Err(payload) => Fault::new(FailureClass::Task, panic_message(payload.as_ref())),
    };
    if tasks.len() == 1 || is_lost(gpu) {
        return tasks.iter().map(|_| Err(fault.clone())).collect();
    }
    let (left, right) = tasks.split_at(tasks.len() / 2);
    let mut results = run_tasks(prepared, gpu, left);
    results.extend(run_tasks(prepared, gpu, right));
    results
}
