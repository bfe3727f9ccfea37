//! Results that workers bring from another cluster: this one may have begun with its backup, and its records name parts whose keepers were workers of
//! the other one. Whoever has such a part, with the recorded checksum, keeps it from now on.

use super::{ConnId, Effect, Leader};
use raftwerk_core::{JobId, Phase, State, WorkerId, kept};
use raftwerk_proto::v1::{self as wire, scheduler_message as down};

/// Parts named in one message.
const PARTS_AT_ONCE: usize = 1_000;

impl Leader {
    /// Asks for all parts of these jobs that have too few keepers, and fewer than `below`. The worker says which it has, and that is recorded as when
    /// it was asked for a copy; of the others nobody expects anything.
    pub(super) fn ask_what_is_there(
        &mut self,
        state: &State,
        (conn, worker): (ConnId, WorkerId),
        jobs: &[JobId],
        below: usize,
        effects: &mut Vec<Effect>,
    ) {
        let known = jobs.iter().filter_map(|job| state.jobs.get(job));
        for job in known.filter(|job| kept::on_workers(&job.spec) && matches!(job.phase, Phase::Done { .. } | Phase::Publishing)) {
            let enough = kept::copies(&job.spec).min(below);
            let lacking = |part: &&wire::OutputPart| {
                let there = state.holders(part).count();
                part.worker != 0 && there < enough && state.holders(part).all(|keeper| keeper != worker)
            };
            let name = |part: &wire::OutputPart| wire::PartToKeep {
                partition: part.partition,
                staged_name: part.staged_name.clone(),
                bytes: part.bytes,
                crc32c: part.crc32c,
                sources: Vec::new(),
            };
            let parts: Vec<wire::PartToKeep> = job.parts.values().filter(lacking).map(name).collect();
            for parts in parts.chunks(PARTS_AT_ONCE) {
                let request = self.keeping.looks(conn, job.id);
                let keep = wire::KeepParts { job: job.id.0, parts: parts.to_vec(), request };
                effects.push(Effect::Send { conn, message: down::Message::KeepParts(keep) });
            }
        }
    }
}
