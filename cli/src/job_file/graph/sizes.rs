//! Into how many partitions the output of each stage is cut, and how many tasks follow from that.

use super::Draft;
use crate::job_file::problem::Problem;
use crate::job_file::stages::Stage;
use raftwerk_kernels::Kind;

/// How much of everything there is; by place in the file.
pub(super) struct Sizes {
    /// Into which each stage's output is cut; 0 for the last one.
    pub(super) partitions: Vec<u32>,
    /// As many as the stage has tasks, instead: counted when its input is listed.
    pub(super) per_task: Vec<bool>,
}

impl Sizes {
    pub(super) fn of(drafts: &[Draft<'_>], made: &[Stage]) -> Result<Sizes, Problem> {
        let mut sizes = Sizes { partitions: vec![0; drafts.len()], per_task: vec![false; drafts.len()] };
        let readers = |place: usize| (0..drafts.len()).filter(move |reader| drafts[*reader].stages().any(|from| from == place));
        for (place, draft) in drafts.iter().enumerate().filter(|(_, draft)| draft.kernel.kind == Kind::Map) {
            let mut first: Option<usize> = None;
            for reader in readers(place) {
                sizes.partitions[place] = made[reader].partitions;
                sizes.per_task[place] |= made[reader].partition_per_task;
                let Some(other) = first.replace(reader) else { continue };
                let (a, b) = (&made[other], &made[reader]);
                if a.partitions != b.partitions || a.partition_per_task != b.partition_per_task {
                    let message = format!(
                        "reads stage '{}' in {} partitions, and stage '{}' reads it in {}",
                        draft.name, b.partitions, drafts[other].name, a.partitions
                    );
                    return Err(drafts[reader]
                        .section
                        .problem(message)
                        .fix("give both the same `partitions`: the keys of a stage are cut once"));
                }
            }
        }
        for (place, draft) in drafts.iter().enumerate().filter(|(place, _)| readers(*place).next().is_some()) {
            if draft.kernel.kind == Kind::Reduce {
                // Each task makes the part that one task of the reader reads.
                sizes.partitions[place] = made[place].partitions;
            }
        }
        for (place, draft) in drafts.iter().enumerate() {
            if let (true, Some(from)) = (sizes.per_task[place], draft.stages().next()) {
                // A partition for each task, and there are as many as parts.
                sizes.partitions[place] = made[from].partitions;
                sizes.per_task[place] = false;
            }
        }
        Ok(sizes)
    }

    /// Tasks of a stage, as far as the file tells.
    pub(super) fn tasks(&self, drafts: &[Draft<'_>], place: usize) -> Option<u64> {
        drafts[place].stages().next().map(|from| u64::from(self.partitions[from]))
    }
}
