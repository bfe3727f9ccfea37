//! From granted splits of objects to what an executor gets: a file for each, fetched several at once and told in order.
use super::{StoreError, fetch::Need};
use crate::agent::{
    prepare::{Inputs, Prepared, Preparer, failure, source},
    scratch::{self, ScratchFiles},
};
use futures::{StreamExt, stream};
use raftwerk_proto::v1::{ExecutorInput, FailureClass, InputFile, Scratch, Split, StageInfo, stage_input::Source};
use std::{fs::File, os::fd::OwnedFd, sync::Arc, time::Instant};
use tokio::sync::Semaphore;

/// Splits of one lease that are fetched at once, while others compute.
const SPLITS_AT_ONCE: usize = 4;

/// Consecutive tasks that one fetch serves.
struct Fetch {
    first_task: u64,
    splits: Vec<Split>,
}

impl Fetch {
    fn file(&self) -> Option<&InputFile> {
        self.splits.first()?.file.as_ref()
    }

    /// Of memory, nearly: the rest of a line is not known before.
    fn bytes(&self, need: &Need) -> u64 {
        match need {
            Need::Whole => self.file().map_or(0, |file| file.bytes),
            _ => self.splits.iter().map(|split| split.bytes).sum(),
        }
    }
}

/// One split each; of objects that are read whole, all that follow one another.
fn fetches(first_task: u64, splits: &[Split], need: &Need) -> Vec<Fetch> {
    let together = |a: &Split, b: &Split| *need == Need::Whole && a.file == b.file;
    let mut task = first_task;
    let mut fetches = Vec::new();
    for splits in splits.chunk_by(together) {
        fetches.push(Fetch { first_task: task, splits: splits.to_vec() });
        task += splits.len() as u64;
    }
    fetches
}

impl Preparer {
    /// Says whether the lease is still wanted.
    pub(in crate::agent) async fn fetch_objects(
        &self,
        first_task: u64,
        splits: &[Split],
        stage: &StageInfo,
        tell: &impl Fn(Prepared) -> bool,
    ) -> bool {
        let need = Need::of(match source(stage) {
            Some(Source::Files(files)) => Some(files),
            _ => None,
        });
        let (need, own) = (&need, Arc::new(Semaphore::new(1)));
        let fetches = fetches(first_task, splits, need).into_iter().map(|fetch| {
            let own = own.clone();
            async move {
                let permit = self.objects.room(&own, fetch.bytes(need)).await;
                // Waiting for room is not the task's cost.
                let began = Instant::now();
                let fetched = match fetch.file() {
                    Some(file) => self.objects.fetch(file, need, &fetch.splits).await,
                    None => Err(StoreError::Key(String::new())),
                };
                (fetch, permit, fetched, began.elapsed())
            }
        });
        let mut fetched = stream::iter(fetches).buffered(SPLITS_AT_ONCE);
        while let Some((fetch, permit, fetched, took)) = fetched.next().await {
            if !tell(Prepared::Fetched(took)) {
                return false;
            }
            let inputs = match fetched {
                Ok(file) => self.inputs(&fetch.splits, file).await,
                Err(error) => Err((error.class(), format!("worker {}: {error}", self.objects.worker))),
            };
            let step = match inputs {
                Ok(inputs) => Prepared::Segment { first_task: fetch.first_task, inputs, permit, part: None },
                Err((class, message)) => Prepared::Failed(vec![failure(fetch.first_task, fetch.splits.len() as u64, class, message)]),
            };
            if !tell(step) {
                return false;
            }
        }
        true
    }

    /// A side input that lies in a store.
    pub(in crate::agent) async fn open_object(&self, file: &InputFile) -> Result<OwnedFd, (FailureClass, String)> {
        let opened = self.objects.side(file).await;
        opened.map(OwnedFd::from).map_err(|error| (error.class(), format!("worker {}: {error}", self.objects.worker)))
    }

    /// The object, and for what a compressed one holds an empty file beside it.
    async fn inputs(&self, splits: &[Split], file: File) -> Result<Inputs, (FailureClass, String)> {
        let (mut tasks, mut descriptors) = (Vec::with_capacity(splits.len()), vec![OwnedFd::from(file)]);
        for split in splits {
            let mut input = ExecutorInput {
                descriptor: 0,
                offset: split.offset,
                bytes: split.bytes,
                file: split.file.clone(),
                ..ExecutorInput::default()
            };
            if scratch::is_needed(split.file.as_ref()) {
                let files = ScratchFiles { dir: self.store.dir().to_owned(), limits: self.room.limits() };
                let made = self.on_disk(move || files.create()).await;
                let (file, scratch) = made.unwrap_or_else(|error| Err((FailureClass::Worker, error.to_string())))?;
                input.scratch = Some(Scratch { descriptor: descriptors.len() as u32, ..scratch });
                descriptors.push(file.into());
            }
            tasks.push(input);
        }
        Ok(Inputs::Descriptors { tasks, descriptors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_are_read_whole_are_fetched_once_for_their_tasks() {
        let split = |path: &str, offset| Split {
            file: Some(InputFile { path: path.into(), bytes: 30, ..InputFile::default() }),
            offset,
            bytes: 10,
            pack_tasks: 0,
        };
        let splits = [split("a", 0), split("a", 10), split("b", 0), split("a", 20)];
        let shown = |need: Need| -> Vec<(u64, usize, u64)> {
            fetches(5, &splits, &need).iter().map(|fetch| (fetch.first_task, fetch.splits.len(), fetch.bytes(&need))).collect()
        };
        assert_eq!(shown(Need::Whole), [(5, 2, 30), (7, 1, 30), (8, 1, 30)]);
        assert_eq!(shown(Need::Records), [(5, 1, 10), (6, 1, 10), (7, 1, 10), (8, 1, 10)]);
    }
}
