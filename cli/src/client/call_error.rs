//! Why a call did not give an answer.

use std::time::Duration;

use tonic::{Code, Status};

use crate::failure::{Exit, Failure};
use crate::units::format_duration;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No replica gave an answer in time.
    #[error("{} within {}{}", if leaderless(.tried) { "no replica that answers leads a majority" } else { "no answer from the cluster" }, format_duration(*.patience), list(.tried))]
    Unreachable {
        patience: Duration,
        tried: Vec<(String, String)>,
        /// One of them may have taken the request all the same.
        doubt: bool,
    },
    /// Nobody will ever answer at these addresses with this credential.
    #[error("cannot connect to the cluster{}", list(.tried))]
    Hopeless { tried: Vec<(String, String)>, exit: Exit },
    /// A replica answered with a refusal.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
}

/// What is noted of a replica that answered with the address of another.
pub const NOT_LEADER: &str = "does not lead";

/// What replicas say that know no leader, or that have lost the majority they lead.
const LEADERLESS: [&str; 3] = [NOT_LEADER, "no leader is known", "a majority of the replicas cannot be reached"];

/// Whether a replica that said this had not looked at the request yet.
pub fn was_not_taken(reason: &str) -> bool {
    LEADERLESS[..2].iter().any(|said| reason.contains(said))
}

/// Whether a replica answered, and only a leader was missing.
fn leaderless(tried: &[(String, String)]) -> bool {
    tried.iter().any(|(_, reason)| LEADERLESS.iter().any(|said| reason.contains(said)))
}

fn list(tried: &[(String, String)]) -> String {
    // A reason that names the address itself needs no heading.
    let line = |(address, reason): &(String, String)| {
        if reason.contains(address) { format!("\n    {reason}") } else { format!("\n    {address}: {reason}") }
    };
    tried.iter().map(line).collect()
}

/// The cluster of `run` has its worker in the process of whoever runs it.
const LET_READ: &str =
    "let the user as whom the worker runs (with `raftwerk run`: you) read it and enter its directories; `ls -ld` there shows who may";

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Unreachable { tried, .. } if leaderless(tried) => Self::new(Exit::ContactLost, error).fix(
                "without a majority of the replicas nothing leads: `raftwerk cluster show` tells which of them answer, and whether that is one",
            ),
            CallError::Unreachable { .. } => Self::new(Exit::ContactLost, error)
                .fix("check that the schedulers run and that the address is theirs (`raftwerk context show`, --address)"),
            CallError::Hopeless { exit, .. } => {
                let exit = *exit;
                Self::new(exit, error).fix("check the address and the credential (`raftwerk context show`, --address, --credential)")
            }
            CallError::Refused(status) => {
                let (exit, fix) = match status.code() {
                    Code::NotFound => {
                        (Exit::NotFound, Some("`raftwerk job list`, `raftwerk worker list` and `raftwerk cluster show` tell what there is"))
                    }
                    Code::InvalidArgument | Code::OutOfRange => (Exit::BadUsage, None),
                    Code::PermissionDenied | Code::Unauthenticated => {
                        (Exit::Refused, Some("use the credential of a client of this cluster, for example admin.pem"))
                    }
                    // Other reasons, such as an output that cannot be written, say themselves what to do.
                    Code::FailedPrecondition
                        if status.message().starts_with("no worker sees the input")
                            && ["no file matches", "no object matches", "No such file"].iter().any(|reason| status.message().contains(reason)) =>
                    {
                        (Exit::Refused, Some("give a path that exists on a worker's machine"))
                    }
                    Code::FailedPrecondition
                        if status.message().starts_with("no worker sees the input") && status.message().contains("Permission denied") =>
                    {
                        (Exit::Refused, Some(LET_READ))
                    }
                    Code::AlreadyExists | Code::FailedPrecondition | Code::ResourceExhausted | Code::Aborted => (Exit::Refused, None),
                    Code::Unimplemented => {
                        (Exit::Refused, Some("the cluster runs another version: compare `raftwerk --version` on both sides"))
                    }
                    _ => (Exit::Internal, None),
                };
                let failure = Self::new(exit, error);
                match fix {
                    Some(fix) => failure.fix(fix),
                    None => failure,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_may_not_be_read_is_to_be_opened_to_the_worker() {
        let text = "no worker sees the input; asked 1: worker 1: cannot read '/in/a.txt': Permission denied (os error 13)";
        let failure = Failure::from(CallError::Refused(Box::new(Status::failed_precondition(text))));
        assert_eq!((failure.exit, failure.lines()[1].clone()), (Exit::Refused, format!("fix: {LET_READ}")));
    }

    #[test]
    fn replicas_that_answer_and_do_not_lead_are_told_from_ones_that_do_not_answer() {
        let unreachable = |reasons: &[&str]| {
            let tried = reasons.iter().map(|reason| ("a:1".to_owned(), reason.to_string())).collect();
            Failure::from(CallError::Unreachable { patience: Duration::from_secs(10), tried, doubt: false }).lines().join("\n")
        };
        let by_replicas = ["no leader is known; an election may be under way, try again", "a majority of the replicas cannot be reached"];
        for leaderless in [NOT_LEADER].into_iter().chain(by_replicas) {
            let said = unreachable(&["nobody listens there", leaderless]);
            assert!(
                said.starts_with("error: no replica that answers leads a majority") && said.contains("raftwerk cluster show"),
                "{said}"
            );
        }
        let said = unreachable(&["nobody listens there"]);
        assert!(
            said.starts_with("error: no answer from the cluster within 10.0 s") && said.contains("check that the schedulers run"),
            "{said}"
        );
    }
}
