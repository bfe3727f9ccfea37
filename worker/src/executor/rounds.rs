//! Rounds: what the round before has left reaches the kernel, and what this one leaves reaches the agent.
use super::stage::{Fault, Stage};
use raftwerk_kernels::{Kernel, KernelError, Prepared, RoundEnd, StageContext, Task, TaskOutput};
use raftwerk_proto::v1::{self as pb, FailureClass, Param, RoundInfo};

/// What a round may leave; the scheduler refuses more. Here the kernel's author learns it from the task's failure.
const STATE_BYTES: usize = 256 << 10;

/// The kernel with its parameters and, after the first round, with what the round before has left.
pub(super) fn prepare(
    kernel: &dyn Kernel,
    context: &StageContext,
    round: Option<&RoundInfo>,
    before: Option<&Stage>,
) -> Result<Box<dyn Prepared>, KernelError> {
    match round {
        Some(_) if !kernel.rounds() => Err(KernelError::Param(format!("kernel '{}' knows no rounds", kernel.descriptor().name))),
        Some(round) if round.number > 1 => {
            let kept = before.and_then(|stage| stage.prepared.as_ref().ok()).and_then(|prepared| prepared.kept());
            kernel.prepare_round(context, &round.state, kept)
        }
        _ => kernel.prepare(context),
    }
}

/// Runs the task that ends a round. Its part is made for the last round only; the others' are the state that they leave.
pub(super) fn run(prepared: &dyn Prepared, round: &RoundInfo, task: &Task<'_>) -> Result<(TaskOutput, pb::RoundEnd), Fault> {
    let (mut output, end) = prepared.run_round(task)?;
    let RoundEnd { state, converged, measures } = end;
    if state.len() > STATE_BYTES {
        let message = format!("the kernel leaves {} bytes for the next round; at most {STATE_BYTES} are possible", state.len());
        return Err(Fault::new(FailureClass::Fatal, message));
    }
    if !round.last && (round.all || !converged) {
        output.part = None;
    }
    let measures = measures.into_iter().map(|(name, value)| Param { name, value }).collect();
    Ok((output, pb::RoundEnd { round: round.number, state: state.into(), converged, measures }))
}
