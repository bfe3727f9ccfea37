//! Parts of a lease on their way to where the output will be: prepared in order, one message of the executor after the other.

use super::Common;
use crate::{
    agent::{edge::EdgeInput, listing::output_path, part_file::PartFiles, store},
    lease::LeaseKey,
    session::Input,
};
use raftwerk_proto::{
    OUTPUT_ON_WORKERS,
    v1::{FailureClass, LeaseProgress, StageInfo, TaskFailure},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Prepares the parts of one lease, message by message, and passes the progress on behind each.
pub(super) fn start_parts(
    common: &Arc<Common>,
    key: LeaseKey,
    stage: &Arc<StageInfo>,
) -> mpsc::UnboundedSender<(LeaseProgress, PartFiles)> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(LeaseProgress, PartFiles)>();
    let (common, stage) = (common.clone(), stage.clone());
    raftwerk_transport::tasks::spawn(async move {
        while let Some((progress, files)) = receiver.recv().await {
            let _turn = common.parts.acquire().await;
            let (shared, stage) = (common.clone(), stage.clone());
            let prepared = raftwerk_transport::tasks::blocking(move || prepare_parts(&shared, key, &stage, &files, progress)).await;
            match prepared {
                Ok(progress) => {
                    let _ = common.edge.send(EdgeInput::Session(Input::Progress(vec![progress])));
                }
                Err(error) => tracing::error!(lease = %key, %error, "preparing parts panicked"),
            }
        }
    });
    sender
}

fn prepare_parts(common: &Common, key: LeaseKey, stage: &StageInfo, files: &PartFiles, mut progress: LeaseProgress) -> LeaseProgress {
    let ranges = std::mem::take(&mut progress.part_ranges);
    progress.parts.iter_mut().for_each(|part| part.worker = common.worker);
    if progress.parts.is_empty() {
        return progress;
    }
    let url = stage.output.as_ref().map_or("", |output| &output.url);
    let failed = match output_path(url) {
        None if url == OUTPUT_ON_WORKERS => common
            .results
            .prepare(stage.job, key, files, &mut progress.parts, &ranges)
            .err()
            .map(|(path, error)| (FailureClass::Worker, format!("cannot keep the result in {}: {error}", path.display()))),
        Some(path) => common
            .staging
            .prepare(&path, stage.job, key, files, &mut progress.parts, &ranges)
            .err()
            .map(|(path, error)| (FailureClass::Worker, format!("cannot prepare the output at {}: {error}", path.display()))),
        None if store::is_url(url) => common
            .preparer
            .objects
            .prepare(url, stage.job, key, files, &mut progress.parts, &ranges)
            .err()
            .map(|error| (error.class(), format!("worker {}: cannot write the output {url}: {error}", common.worker))),
        None => Some((FailureClass::Fatal, format!("`{url}` is not an output this worker can write: only file:///absolute/path"))),
    };
    if let Some((class, message)) = failed {
        tracing::warn!(lease = %key, "{message}");
        progress.parts.clear();
        progress.failures.extend(progress.results.drain(..).map(|results| TaskFailure {
            first_task: results.first_task,
            task_count: results.task_count,
            class: class.into(),
            message: message.clone(),
            source_worker: 0,
        }));
    }
    progress
}
