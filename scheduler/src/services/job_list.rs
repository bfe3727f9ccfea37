//! What a client is shown of jobs, in messages that have a limit.

use prost::Message;
use raftwerk_core::{Job, JobId, State};
use raftwerk_proto::v1::{JobView, ListJobsReply, ListJobsRequest};

const DEFAULT_LIST: usize = 100;
/// A page of the list ends with the view that reaches this; a view carries its spec, and a message has a limit.
const PAGE_BYTES: usize = 1 << 20;

/// The newest jobs that were asked for, as many as fit into a message.
pub(super) fn page(state: &State, wanted: &ListJobsRequest) -> ListJobsReply {
    let limit = if wanted.limit == 0 { DEFAULT_LIST } else { wanted.limit as usize };
    let below = if wanted.before == 0 { JobId(u64::MAX) } else { JobId(wanted.before) };
    let in_namespace = |job: &Job| wanted.namespace.is_empty() || job.spec.namespace == wanted.namespace;
    let mut ids = state.jobs.range(..below).rev().filter(|(_, job)| in_namespace(job)).map(|(id, _)| *id);
    let (mut jobs, mut bytes) = (Vec::new(), 0);
    while jobs.len() < limit && bytes < PAGE_BYTES {
        let Some(mut view) = ids.next().and_then(|id| state.job_view(id)) else { break };
        shorten(&mut view);
        // Lists show how jobs stand; `GetJob` shows what they made.
        view.parts.clear();
        view.failures.clear();
        view.rounds.iter_mut().for_each(|rounds| rounds.ended.clear());
        view.shares.iter_mut().for_each(|share| share.spans.clear());
        bytes += view.encoded_len();
        jobs.push(view);
    }
    ListJobsReply { jobs, more: ids.next().is_some() }
}

/// A listing of many thousand files would not fit a message, and nobody reads it there.
pub(super) fn shorten(view: &mut JobView) {
    const SHOWN_FILES: usize = 100;
    for stage in view.spec.iter_mut().flat_map(|s| &mut s.stages) {
        // Bytes that the stage's kernel alone can read.
        stage.survey.clear();
        for input in &mut stage.inputs {
            if let Some(raftwerk_proto::v1::stage_input::Source::Files(files)) = &mut input.source {
                files.listing.truncate(SHOWN_FILES);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::command::Command;
    use raftwerk_proto::v1::stage_input::Source;
    use raftwerk_proto::v1::{Command as Record, EntryBody, IndexRange, JobSpec, KernelKind, KernelRef, StageInput, StageSpec, SubmitJob};

    fn state(jobs: usize, name_bytes: usize) -> State {
        let input = StageInput { source: Some(Source::Range(IndexRange { start: 0, count: 1, tasks: 1 })), ..StageInput::default() };
        let kernel = KernelRef { name: "count".into(), version: 1, kind: KernelKind::Map.into(), ..KernelRef::default() };
        let stage = StageSpec { name: "map".into(), kernel: Some(kernel), inputs: vec![input], ..StageSpec::default() };
        let spec = |index: usize| JobSpec {
            name: "x".repeat(name_bytes),
            namespace: if index.is_multiple_of(2) { "even" } else { "odd" }.into(),
            stages: vec![stage.clone()],
            ..JobSpec::default()
        };
        let submit = |index| Command::SubmitJob(SubmitJob { spec: Some(spec(index)), ..SubmitJob::default() });
        let commands = (0..jobs).map(|index| Record { command: Some(submit(index)) }).collect();
        let mut state = State::new("test");
        state.apply(1, EntryBody { format: raftwerk_core::apply::ENTRY_FORMAT, commands, ..EntryBody::default() }).expect("an entry");
        assert_eq!(state.jobs.len(), jobs);
        state
    }

    /// What a client does with `more`.
    fn all(state: &State, wanted: ListJobsRequest) -> (Vec<u64>, usize) {
        let (mut numbers, mut pages) = (Vec::new(), 0);
        loop {
            let before = numbers.last().copied().unwrap_or_default();
            let reply = page(state, &ListJobsRequest { before, ..wanted.clone() });
            assert!(reply.encoded_len() < 2 * PAGE_BYTES);
            numbers.extend(reply.jobs.iter().map(|j| j.job));
            pages += 1;
            if !reply.more {
                return (numbers, pages);
            }
        }
    }

    #[test]
    fn pages_are_the_whole_list_and_none_exceeds_a_message() {
        let state = state(300, 10_000);
        let wanted = ListJobsRequest { limit: u32::MAX, ..ListJobsRequest::default() };
        let (numbers, pages) = all(&state, wanted.clone());
        assert_eq!(numbers, state.jobs.keys().rev().map(|id| id.0).collect::<Vec<_>>());
        assert!(pages > 2, "{pages} pages of 3 MB");
        let (even, _) = all(&state, ListJobsRequest { namespace: "even".into(), ..wanted });
        assert_eq!(even.len(), 150);
    }

    #[test]
    fn a_limit_is_kept_and_said_to_leave_some_out() {
        let state = state(5, 10);
        let reply = page(&state, &ListJobsRequest { limit: 2, ..ListJobsRequest::default() });
        assert_eq!((reply.jobs.len(), reply.more), (2, true));
        let reply = page(&state, &ListJobsRequest { limit: 5, ..ListJobsRequest::default() });
        assert_eq!((reply.jobs.len(), reply.more), (5, false));
        assert!(page(&State::new("test"), &ListJobsRequest::default()).jobs.is_empty());
    }
}
