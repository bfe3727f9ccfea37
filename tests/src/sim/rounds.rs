//! Jobs with rounds: what a simulated reduce task leaves is the list of rounds so far, so that what each round must find can be said beforehand.

use raftwerk_proto::v1::{RoundEnd, RoundInfo};

/// What the round leaves that found this.
fn left(job: u64, found: &[u8], round: u32) -> Vec<u8> {
    let mut state = if found.is_empty() { format!("job {job}:").into_bytes() } else { found.to_vec() };
    state.extend(format!(" {round}").bytes());
    state
}

/// What is found after so many rounds.
pub(super) fn left_after(job: u64, rounds: u32) -> Vec<u8> {
    (1..=rounds).fold(Vec::new(), |found, round| left(job, &found, round))
}

/// The round of a lease, as its stage was described when it started.
pub(super) struct Round {
    info: RoundInfo,
    converged: bool,
}

impl Round {
    /// `converges`: the round of which the kernel says that a further one would change nothing; 0 for none.
    pub(super) fn new(info: RoundInfo, converges: u32) -> Round {
        let converged = converges > 0 && info.number >= converges;
        Round { info, converged }
    }

    /// Whether its reduce task makes the job's output.
    pub(super) fn makes_output(&self) -> bool {
        self.info.last || (self.converged && !self.info.all)
    }

    pub(super) fn end(&self, job: u64) -> RoundEnd {
        let state = left(job, &self.info.state, self.info.number).into();
        RoundEnd { round: self.info.number, state, converged: self.converged, measures: Vec::new() }
    }
}
