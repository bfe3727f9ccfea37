//! One log entry carries a batch: whatever arrived while the last write was in flight goes into the next entry.

use super::{ConnId, RequestId};
use prost::Message;
use raftwerk_core::{JobId, WorkerId};
use raftwerk_proto::v1::{self as wire, EntryBody, JobSpec, command::Command};
use std::collections::VecDeque;

/// An entry is at most 1 MiB; the rest waits for the next one.
const MAX_ENTRY_BYTES: usize = 1_000_000;

/// Who waits for the outcome of a command.
#[derive(Clone, Debug)]
pub(super) enum Waiter {
    Nobody,
    Submit(RequestId),
    Cancel(RequestId),
    Release(RequestId),
    Set(RequestId),
    Mint(RequestId),
    Register(ConnId),
    /// Sequences of the reports, to be acknowledged.
    Reports {
        conn: ConnId,
        sequences: Vec<u64>,
    },
    Grants,
    Published(JobId),
    Drop(RequestId),
    Import(RequestId),
    CopiedAgain {
        job: JobId,
        stage: u32,
        holder: WorkerId,
    },
    /// Copies of these parts, by job and partition, at this worker.
    Kept {
        worker: WorkerId,
        parts: Vec<(JobId, u32)>,
    },
    /// Parts that a keeper has no more.
    Missing(Vec<(JobId, u32)>),
}

#[derive(Default)]
pub(super) struct Batch {
    pending: VecDeque<(Command, Waiter, usize)>,
    next: Vec<(Command, Waiter)>,
    flying: Option<Vec<Waiter>>,
}

impl Batch {
    pub(super) fn push(&mut self, command: Command, waiter: Waiter) {
        let bytes = wire::Command { command: Some(command.clone()) }.encoded_len();
        self.pending.push_back((command, waiter, bytes));
    }

    pub(super) fn in_flight(&self) -> bool {
        self.flying.is_some()
    }

    /// Moves as many pending commands into the next entry as fit; at least one.
    pub(super) fn take(&mut self) {
        let mut bytes = 0;
        while let Some((_, _, more)) = self.pending.front() {
            bytes += more;
            if bytes > MAX_ENTRY_BYTES && !self.next.is_empty() {
                break;
            }
            if let Some((command, waiter, _)) = self.pending.pop_front() {
                self.next.push((command, waiter));
            }
        }
    }

    pub(super) fn has_submissions(&self) -> bool {
        self.next.iter().any(|(c, _)| matches!(c, Command::SubmitJob(_)))
    }

    /// Jobs that the next entry will submit, with the position of their command.
    pub(super) fn submissions(&self) -> Vec<(u32, &JobSpec)> {
        self.next
            .iter()
            .enumerate()
            .filter_map(|(position, (command, _))| match command {
                Command::SubmitJob(submit) => submit.spec.as_ref().map(|spec| (position as u32, spec)),
                _ => None,
            })
            .collect()
    }

    /// Adds to the entry being made.
    pub(super) fn append(&mut self, command: Command, waiter: Waiter) {
        self.next.push((command, waiter));
    }

    /// The entry, if there is anything to say; an empty one says its format.
    pub(super) fn launch(&mut self, wall: u64, format: u32, empty_too: bool) -> Option<EntryBody> {
        if self.next.is_empty() && !empty_too {
            return None;
        }
        let (commands, waiters): (Vec<_>, Vec<_>) =
            self.next.drain(..).map(|(command, waiter)| (wire::Command { command: Some(command) }, waiter)).unzip();
        self.flying = Some(waiters);
        Some(EntryBody { format, at_ms: wall, commands })
    }

    pub(super) fn landed(&mut self) -> Vec<Waiter> {
        self.flying.take().unwrap_or_default()
    }
}
