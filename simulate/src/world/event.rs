//! What happens, in the order in which it does.

use crate::rate::Ns;
use raftwerk_core::{LeaseId, Session};
use raftwerk_proto::v1::Report;

pub(super) enum Event {
    Submit(u32),
    Commit,
    Tick,
    Arrive {
        device: u32,
        lease: LeaseId,
    },
    Begin {
        device: u32,
        turn: u32,
    },
    Tell {
        device: u32,
        lease: LeaseId,
    },
    Report {
        device: u32,
        report: Box<Report>,
    },
    Revoke {
        device: u32,
        lease: LeaseId,
    },
    Die {
        device: u32,
        back: Ns,
    },
    Back {
        device: u32,
    },
    /// The connection of this session broke.
    Gone {
        device: u32,
        session: Session,
    },
    Lost {
        device: u32,
        session: Session,
    },
}

pub(super) struct Timed {
    pub at: Ns,
    pub number: u64,
    pub event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        self.number == other.number
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Timed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Timed) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
