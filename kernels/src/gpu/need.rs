//! What leases take of a device's memory: declared as a formula before they run, and added up while they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pool::LEAST;
use crate::api::GpuNeed;

/// What the dispatches of a lease hold of the device, read-back included. Figures are of what lies in the buffers; these are made larger by up
/// to a quarter, so that others find them fitting.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dispatches {
    /// That are on the device together.
    pub(crate) at_once: u64,
    /// Of each, however small.
    pub(crate) buffers: u64,
    /// Of each, whatever its work is.
    pub(crate) fixed: u64,
    pub(crate) per_task: u64,
    pub(crate) per_unit: f64,
    /// Of each, beside what is fixed: where a long lease is cut.
    pub(crate) most: u64,
    /// What stays on the device while the lease runs.
    pub(crate) stays: u64,
}

impl Dispatches {
    pub(crate) fn need(self) -> GpuNeed {
        let each = rounded(self.fixed as f64).saturating_add(self.buffers * LEAST);
        let fixed = rounded(self.stays as f64).saturating_add(self.at_once.saturating_mul(each));
        GpuNeed {
            fixed,
            per_task: rounded(self.per_task as f64),
            per_kilo_unit: rounded(1024.0 * self.per_unit),
            most: Some(fixed.saturating_add(self.at_once.saturating_mul(rounded(self.most as f64)))),
        }
    }
}

/// With what buffers are larger than their content.
fn rounded(bytes: f64) -> u64 {
    (bytes * 1.25).ceil() as u64
}

/// Bytes of buffers that work under way, and what stays between dispatches, have asked for.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Ledger {
    pub(super) fn hold(self: &Arc<Ledger>, bytes: u64) -> Held {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
        Held { ledger: self.clone(), bytes }
    }

    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn begin_anew(&self) {
        self.peak.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.ledger.now.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[test]
fn what_is_held_is_given_back_and_the_most_is_remembered() {
    let ledger = Arc::new(Ledger::default());
    let first = ledger.hold(5);
    drop(ledger.hold(7));
    drop(first);
    let _third = ledger.hold(3);
    assert_eq!(ledger.peak(), 12);
    ledger.begin_anew();
    assert_eq!(ledger.peak(), 3);
}
