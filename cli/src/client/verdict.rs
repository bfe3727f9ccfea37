//! What an unsuccessful answer means for the next attempt.

use raftwerk_scheduler::LEADER_KEY;
use tonic::{Code, Status};

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Somebody else leads: ask there.
    AskLeader(String),
    /// This replica cannot answer now; another one, or the same one later, may.
    TryAnother,
    /// An answer. Asking again gives the same.
    Final,
}

pub fn of(status: &Status) -> Verdict {
    if let Some(leader) = status.metadata().get(LEADER_KEY) {
        return match leader.to_str() {
            Ok(address) if !address.is_empty() => Verdict::AskLeader(address.to_owned()),
            _ => Verdict::TryAnother,
        };
    }
    match status.code() {
        // Every call of this program may be repeated: reads, cancel, and submit with its idempotency key. So a deadline, a broken
        // connection (tonic says Unknown or Cancelled) or a replica that is going down all mean "ask another".
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Verdict::TryAnother,
        Code::Unknown | Code::Internal if from_transport(status) => Verdict::TryAnother,
        _ => Verdict::Final,
    }
}

/// Whether the connection failed rather than the handler at its other end.
fn from_transport(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.is::<tonic::transport::Error>() || cause.is::<std::io::Error>() {
            return true;
        }
        source = cause.source();
    }
    // h2 resets surface as text only.
    status.message().contains("h2 protocol error") || status.message().contains("transport error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_leader(leader: &str) -> Status {
        let mut status = Status::failed_precondition("not the leader");
        status.metadata_mut().insert(LEADER_KEY, leader.parse().unwrap());
        status
    }

    #[test]
    fn a_follower_that_knows_the_leader_sends_there() {
        assert_eq!(of(&not_leader("127.0.0.1:7302")), Verdict::AskLeader("127.0.0.1:7302".into()));
    }

    #[test]
    fn a_follower_without_a_leader_is_tried_later() {
        assert_eq!(of(&not_leader("")), Verdict::TryAnother);
        assert_eq!(of(&Status::unavailable("no quorum")), Verdict::TryAnother);
    }

    #[test]
    fn a_refusal_is_final() {
        assert_eq!(of(&Status::failed_precondition("output exists")), Verdict::Final);
        assert_eq!(of(&Status::already_exists("other payload")), Verdict::Final);
        assert_eq!(of(&Status::internal("a bug")), Verdict::Final);
    }
}
