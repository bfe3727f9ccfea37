//! Reports that are not durable in the log yet.
use super::report::Body;
use crate::lease::LeaseKey;
use prost::Message;
use raftwerk_proto::v1::{Report, Reports};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of reports in one message. The wire allows 1 MiB, and so does an entry of the log that a leader makes of it.
const BATCH_BYTES: usize = 768 << 10;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    last_sequence: u64,
    reports: BTreeMap<u64, Report>,
    /// Leases whose final report is among them: a grant of one of these is a repeat.
    finals: BTreeSet<LeaseKey>,
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
            self.finals.remove(&lease.into());
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
