//! Who leads, and since when it may act on it.

use openraft::Raft;
use openraft::ServerState;
use openraft::async_runtime::{Select2, WatchReceiver, WatchSender};
use openraft::type_config::alias::{WatchReceiverOf, WatchSenderOf};
use openraft::type_config::{AsyncRuntime, TypeConfigExt};

use super::state_machine::{Machine, StateMachine};
use super::types::Types;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader this replica last heard of, with its address. It may have lost its place since.
    pub leader: Option<(u64, String)>,
    /// This replica leads, and its state holds every entry acknowledged before.
    pub leading: Option<LeaderTenure>,
}

/// One leadership of this replica. A term has one leader and does not outlive its leader's process, so the term names the tenure.
///
/// A leader that is cut off keeps its tenure until it hears of another; meanwhile its proposals are refused or wait. Nothing that a
/// tenure alone decides may be relied on: only what is committed is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderTenure {
    pub term: u64,
    /// The state was complete up to this entry when the tenure began.
    pub complete_at: u64,
}

/// The watch for code that runs on any runtime; under tokio, [`Replica::leadership`](super::Replica::leadership) is an ordinary one.
/// tokio's own would wake its waiters in random order, which a simulation could not repeat.
pub struct LeadershipWatch<S: StateMachine, Rt: AsyncRuntime>(pub(super) WatchReceiverOf<Types<S, Rt>, Leadership>);

impl<S: StateMachine, Rt: AsyncRuntime> Clone for LeadershipWatch<S, Rt> {
    fn clone(&self) -> Self {
        LeadershipWatch(self.0.clone())
    }
}

impl<S: StateMachine, Rt: AsyncRuntime> LeadershipWatch<S, Rt> {
    pub fn current(&self) -> Leadership {
        self.0.borrow_watched().clone()
    }

    /// The next leadership that differs from the one last seen through this watch; `None` once the replica has stopped.
    pub async fn changed(&mut self) -> Option<Leadership> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }

    /// Waits until `wanted` holds; at once if it does already.
    pub async fn wait_for(&mut self, wanted: impl Fn(&Leadership) -> bool) -> Option<Leadership> {
        loop {
            let current = self.0.borrow_and_update().clone();
            if wanted(&current) {
                return Some(current);
            }
            self.0.changed().await.ok()?;
        }
    }
}

/// Turns openraft's metrics into leaderships until the replica stops.
pub(super) async fn follow<S: StateMachine, Rt: AsyncRuntime>(
    raft: Raft<Types<S, Rt>, Machine<S, Rt>>,
    out: WatchSenderOf<Types<S, Rt>, Leadership>,
    out_tokio: tokio::sync::watch::Sender<Leadership>,
) {
    let publish = move |leadership: Leadership| {
        out_tokio.send_if_modified(|known| {
            let changed = *known != leadership;
            known.clone_from(&leadership);
            changed
        });
        out.send_if_different(leadership);
    };
    let mut server = raft.server_metrics();
    let mut applied = raft.watch_apply_progress();
    // The handle would keep the core alive after everyone else has dropped it.
    drop(raft);
    let mut tenure: Option<LeaderTenure> = None;
    loop {
        let (leader, term) = {
            let m = server.borrow_and_update();
            let address = |id: &u64| m.membership_config.get_node(id).map(|n| n.address.clone()).unwrap_or_default();
            let leader = m.current_leader.as_ref().map(|id| (*id, address(id)));
            let own = m.state == ServerState::Leader && m.vote.committed && m.vote.leader_id.voted_for == m.id;
            (leader, own.then_some(m.vote.leader_id.term))
        };
        tenure = match (term, tenure) {
            (None, _) => None,
            (Some(term), Some(held)) if held.term == term => Some(held),
            // The first entry of a leader's own term stands after everything acknowledged before it. Once that is applied, so is the rest.
            (Some(term), _) => applied.get().filter(|id| id.leader_id.term == term).map(|id| LeaderTenure { term, complete_at: id.index }),
        };
        publish(Leadership { leader, leading: tenure.clone() });

        let stopped = if term.is_some() && tenure.is_none() {
            match Types::<S, Rt>::select2(server.changed(), applied.changed()).await {
                Select2::First(changed) => changed.is_err(),
                Select2::Second(changed) => changed.is_err(),
            }
        } else {
            server.changed().await.is_err()
        };
        if stopped || server.borrow_watched().state == ServerState::Shutdown {
            publish(Leadership::default());
            return;
        }
    }
}
