//! What the state weighs: an estimate of its bytes in memory.

use crate::ids::JobId;
use crate::job::Job;
use crate::stage::Stage;
use crate::state::State;
use prost::Message;
use raftwerk_proto::v1::stage_input::Source;

// Sizes in memory per thing; `a_state_weighs_about_what_it_takes` compares them with what the allocator gave out.
const JOB_BYTES: u64 = 2000;
const STAGE_BYTES: u64 = 2500;
/// A spec takes about this many times its encoded size: strings and vectors of their own.
const PER_SPEC_BYTE: u64 = 4;
const INTERVAL_BYTES: u64 = 64;
/// A task set aside, with a message of ordinary length.
const EVIDENCE_BYTES: u64 = 500;
/// A record that could not be read, beside its texts.
const BAD_RECORD_BYTES: u64 = 300;
/// Reasons of failed attempts, beside their texts.
const FAILURE_BYTES: u64 = 150;
const PART_BYTES: u64 = 600;
const SHARE_BYTES: u64 = 300;
const SPAN_BYTES: u64 = 16;
/// A round that has ended, with a few numbers.
const ROUND_BYTES: u64 = 250;
const KEY_BYTES: u64 = 250;
const LEASE_BYTES: u64 = 400;
const WORKER_BYTES: u64 = 4000;
/// With the use of a few classes of devices.
const NAMESPACE_BYTES: u64 = 500;
/// A line of costs with the leases it goes through.
const COST_BYTES: u64 = 1000;
/// A hold of devices for a gang, and one of its devices.
const HOLD_BYTES: u64 = 150;
const HELD_BYTES: u64 = 40;
/// Files of an input listing that are kept after the job has ended, for `job show`.
const KEPT_FILES: usize = 100;

impl State {
    /// About how many bytes of memory the state takes. Looks at every job once.
    pub fn weight(&self) -> u64 {
        self.jobs.values().map(job_weight).sum::<u64>()
            + self.idempotency.len() as u64 * KEY_BYTES
            + self.leases.len() as u64 * LEASE_BYTES
            + self.workers.len() as u64 * WORKER_BYTES
            + self.namespaces.len() as u64 * NAMESPACE_BYTES
            + self.costs.len() as u64 * COST_BYTES
            + self.homes.pieces() as u64 * INTERVAL_BYTES
            + self.gangs.values().map(|hold| HOLD_BYTES + hold.devices.len() as u64 * HELD_BYTES).sum::<u64>()
    }

    /// A job has ended: it is kept for people to look at, without what only running it needed.
    pub(crate) fn shed(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.units.clear();
        if let Some(rounds) = &mut job.rounds {
            rounds.state.clear();
        }
        job.spec.stages.iter_mut().for_each(|stage| stage.survey.clear());
        for input in job.spec.stages.iter_mut().flat_map(|s| &mut s.inputs) {
            if let Some(Source::Files(files)) = &mut input.source
                && files.listing.len() > KEPT_FILES
            {
                files.listing.truncate(KEPT_FILES);
                files.listing.shrink_to_fit();
            }
        }
        job.spec_bytes = job.spec.encoded_len() as u64;
    }
}

fn job_weight(job: &Job) -> u64 {
    let intervals = |s: &Stage| (s.tasks().intervals() + s.attempts.intervals()) as u64 * INTERVAL_BYTES;
    let bad =
        |s: &Stage| s.bad_records.values().map(|r| BAD_RECORD_BYTES + (r.path.len() + r.reason.len() + r.data.len()) as u64).sum::<u64>();
    let shares: u64 = job.shares.values().map(|s| SHARE_BYTES + s.spans.len() as u64 * SPAN_BYTES).sum();
    let failures = |s: &Stage| s.failures.iter().map(|f| FAILURE_BYTES + (f.reason.len() + f.worker_name.len()) as u64).sum::<u64>();
    let evidence = |s: &Stage| s.evidence.len() as u64 * EVIDENCE_BYTES;
    let stages: u64 = job.stages.iter().map(|s| STAGE_BYTES + intervals(s) + evidence(s) + bad(s) + failures(s)).sum();
    let rounds = job.rounds.as_ref().map_or(0, |r| r.state.len() as u64 + r.ended.len() as u64 * ROUND_BYTES);
    JOB_BYTES + rounds + stages + job.spec_bytes * PER_SPEC_BYTE + job.parts.len() as u64 * PART_BYTES + shares
}
