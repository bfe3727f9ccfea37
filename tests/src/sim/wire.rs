//! Messages under way. Each takes a random time; within one session they keep their order, as in one HTTP/2 stream.

use super::agent::Link;
use raftwerk_proto::v1::{SchedulerMessage, WorkerMessage};
use raftwerk_scheduler::leader::{ConnId, Input};
use raftwerk_scheduler::raft::sim::Dice;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) enum Delivery {
    /// An agent knocks at a replica.
    Dial {
        agent: usize,
        replica: u64,
        link: Link,
    },
    /// The stream stands.
    Accepted {
        agent: usize,
        link: Link,
    },
    Up {
        agent: usize,
        link: Link,
        message: Box<WorkerMessage>,
    },
    Down {
        agent: usize,
        link: Link,
        message: Box<SchedulerMessage>,
    },
    /// The agent's end hears that the stream is gone.
    Broken {
        agent: usize,
        link: Link,
    },
    /// The replica's end hears it.
    Hangup {
        replica: u64,
        conn: ConnId,
    },
    Client {
        replica: u64,
        input: Box<Input>,
    },
}

impl Delivery {
    /// Deliveries with the same lane keep their order.
    fn lane(&self) -> Option<(u64, bool)> {
        match self {
            Delivery::Dial { link, .. } | Delivery::Up { link, .. } => Some((link.0, true)),
            Delivery::Accepted { link, .. } | Delivery::Down { link, .. } | Delivery::Broken { link, .. } => Some((link.0, false)),
            Delivery::Hangup { .. } | Delivery::Client { .. } => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Wire {
    under_way: BTreeMap<(u64, u64), Delivery>,
    last: BTreeMap<(u64, bool), u64>,
    sent: u64,
}

impl Wire {
    pub(super) fn send(&mut self, now: u64, dice: &mut Dice, delivery: Delivery) {
        let mut at = now + 1 + dice.below(4);
        if let Some(lane) = delivery.lane() {
            let last = self.last.entry(lane).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.sent += 1;
        self.under_way.insert((at, self.sent), delivery);
    }

    pub(super) fn due(&mut self, now: u64) -> Vec<Delivery> {
        let later = self.under_way.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.under_way, later).into_values().collect()
    }
}
