//! Reports that are not durable in the log yet.
use super::report::Body;
use crate::lease::LeaseKey;
use prost::Message;
use raftwerk_proto::v1::{Report, Reports};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes of reports in one message. The wire allows 1 MiB, and so does an entry of the log that a leader makes of it.
const BATCH_BYTES: usize = 768 << 10;

/// Leases that are remembered behind the acknowledgement of their final report: more than are out at one worker when a leader is cut off.
const ENDED: usize = 16 << 10;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    last_sequence: u64,
    reports: BTreeMap<u64, Report>,
    /// Leases whose final report is among them or was acknowledged lately: a grant of one of these is a repeat, or comes from a leader that was cut off
    /// and does not know what another one has acknowledged.
    finals: BTreeSet<LeaseKey>,
    /// Those of them that were acknowledged, in that order.
    ended: VecDeque<LeaseKey>,
}

impl Outbox {
    /// Gives the report its number and keeps it; the returned copy is for sending.
    pub(super) fn add(&mut self, lease: LeaseKey, job: u64, stage: u32, generation: u32, body: Body) -> Report {
        self.last_sequence += 1;
        let report = Report {
            sequence: self.last_sequence,
            lease: Some(lease.into()),
            job,
            stage,
            generation,
            results: body.results,
            failures: body.failures,
            final_report: body.final_report,
            busy_ns: body.busy_ns,
            input_bytes: body.input_bytes,
            parts: body.parts,
            copy_worker: body.copy.0,
            copy_incarnation: body.copy.1,
            transfer_ns: body.transfer_ns,
            round_end: body.round_end,
            bad_records: body.bad_records,
        };
        if report.final_report {
            self.finals.insert(lease);
        }
        self.reports.insert(report.sequence, report.clone());
        report
    }

    pub(super) fn acknowledge(&mut self, sequence: u64) {
        if let Some(report) = self.reports.remove(&sequence)
            && report.final_report
            && let Some(lease) = report.lease
        {
            self.ended.push_back(lease.into());
        }
        if self.ended.len() > ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.finals.remove(&oldest);
        }
    }

    pub(super) fn has_final(&self, lease: LeaseKey) -> bool {
        self.finals.contains(&lease)
    }

    pub(super) fn len(&self) -> usize {
        self.reports.len()
    }

    /// Everything kept, in order, in messages of bounded size.
    pub(super) fn all(&self) -> Vec<Reports> {
        batches(self.reports.values().cloned())
    }
}

pub(super) fn batches(reports: impl IntoIterator<Item = Report>) -> Vec<Reports> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for report in reports {
        let length = report.encoded_len();
        if bytes + length > BATCH_BYTES && !batch.is_empty() {
            batches.push(Reports { reports: std::mem::take(&mut batch) });
            bytes = 0;
        }
        bytes += length + 8;
        batch.push(report);
    }
    if !batch.is_empty() {
        batches.push(Reports { reports: batch });
    }
    batches
}
