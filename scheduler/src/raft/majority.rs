//! What a leader does while no majority answers it. A leader cannot know whether the others are gone or only slow, and either haste is dear:
//! sessions that are closed for a moment's silence come back as a storm, and whoever begins to lead again before a majority answers takes
//! those who cannot come, or have gone to the next leader, for lost.

use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::{Instant, WatchReceiver};
use openraft::type_config::{AsyncRuntime, TypeConfigExt};

use super::leadership::LeaderTenure;
use super::replica::{ProposeError, Replica};
use super::state_machine::StateMachine;
use super::types::Types;

/// How long a proposal is repeated for which no majority is heard: a disk that stalls, or a machine that is busy, is no reason to send
/// everybody away. About what an election takes, so that nobody who is with the wrong side of a cut comes later to the next leader.
pub(super) const WITHOUT_MAJORITY: Duration = Duration::from_secs(1);
/// Before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

impl<S: StateMachine, Rt: AsyncRuntime> Replica<S, Rt> {
    /// [`Replica::propose`]; again for a second if nothing was written because no majority is heard.
    pub async fn propose_patiently(&self, payload: Bytes) -> Result<(u64, S::Outcome), ProposeError> {
        let until = Types::<S, Rt>::now() + WITHOUT_MAJORITY;
        loop {
            match self.propose(payload.clone()).await {
                Err(ProposeError::NoQuorum) if Types::<S, Rt>::now() < until => Rt::sleep(ASK_AGAIN).await,
                landed => return landed,
            }
        }
    }

    /// How long ago this leader sent what a majority has answered; nothing where it is the majority itself, or does not lead.
    pub fn majority_silence(&self) -> Duration {
        let metrics = self.watch_metrics();
        let metrics = metrics.borrow_watched();
        let alone = metrics.membership_config.voter_ids().eq([self.id()]);
        metrics.last_quorum_acked.filter(|_| !alone).map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Returns when a majority answers this replica, or when `tenure` is over.
    pub async fn majority_or_end(&self, tenure: &LeaderTenure) {
        while self.leadership_watch().current().leading.as_ref() == Some(tenure) {
            Rt::sleep(ASK_AGAIN).await;
            if let Ok(()) | Err(ProposeError::Fatal(_)) = self.read_barrier().await {
                return;
            }
        }
    }
}
