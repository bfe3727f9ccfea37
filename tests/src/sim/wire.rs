//! Messages under way between workers, clients and replicas. Each takes a random time; within one stream they keep their order, as in
//! one HTTP/2 stream, and across streams they overtake each other.

use super::agent::Link;
use raftwerk_core::JobId;
use raftwerk_proto::v1::{SchedulerMessage, WorkerMessage, scheduler_message as down, worker_message as up};
use raftwerk_scheduler::leader::{Answer, RequestId};
use raftwerk_scheduler::raft::sim::Dice;
use std::collections::{BTreeMap, BTreeSet};

/// What a client asks a replica.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Submit { conflicting: bool },
    Cancel(JobId),
    Drop(JobId),
}

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
        replica: u64,
        link: Link,
    },
    Up {
        agent: usize,
        replica: u64,
        link: Link,
        message: Box<WorkerMessage>,
    },
    Down {
        agent: usize,
        replica: u64,
        link: Link,
        message: Box<SchedulerMessage>,
    },
    /// The agent's end hears that the stream is gone.
    Broken {
        agent: usize,
        replica: u64,
        link: Link,
    },
    /// The replica's end hears it.
    Hangup {
        agent: usize,
        replica: u64,
        link: Link,
        /// By an agent that lives on and says so.
        left: bool,
    },
    Ask {
        client: usize,
        replica: u64,
        request: RequestId,
        ask: Ask,
    },
    Answer {
        client: usize,
        replica: u64,
        request: RequestId,
        answer: Box<Answer>,
    },
}

/// Who is at the other end of a way to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Agent(usize),
    Client(usize),
}

/// One direction between a peer and a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) peer: Peer,
    pub(super) replica: u64,
    /// Toward the replica.
    pub(super) up: bool,
}

impl Delivery {
    pub(super) fn way(&self) -> Way {
        let (peer, replica, up) = match self {
            Delivery::Dial { agent, replica, .. } | Delivery::Up { agent, replica, .. } | Delivery::Hangup { agent, replica, .. } => {
                (Peer::Agent(*agent), *replica, true)
            }
            Delivery::Accepted { agent, replica, .. } | Delivery::Down { agent, replica, .. } | Delivery::Broken { agent, replica, .. } => {
                (Peer::Agent(*agent), *replica, false)
            }
            Delivery::Ask { client, replica, .. } => (Peer::Client(*client), *replica, true),
            Delivery::Answer { client, replica, .. } => (Peer::Client(*client), *replica, false),
        };
        Way { peer, replica, up }
    }

    /// Deliveries with the same lane keep their order.
    fn lane(&self) -> Option<(u64, bool)> {
        match self {
            Delivery::Dial { link, .. } | Delivery::Up { link, .. } | Delivery::Hangup { link, .. } => Some((link.0, true)),
            Delivery::Accepted { link, .. } | Delivery::Down { link, .. } | Delivery::Broken { link, .. } => Some((link.0, false)),
            Delivery::Ask { .. } | Delivery::Answer { .. } => None,
        }
    }

    /// For the trace: kind, ends and size, without formatting the content.
    pub(super) fn digest(&self) -> [u64; 5] {
        let way = self.way();
        let peer = match way.peer {
            Peer::Agent(n) => n as u64,
            Peer::Client(n) => 1000 + n as u64,
        };
        let (kind, id, size) = match self {
            Delivery::Dial { link, .. } => (1, link.0, 0),
            Delivery::Accepted { link, .. } => (2, link.0, 0),
            Delivery::Up { link, message, .. } => (3, link.0, prost::Message::encoded_len(&**message)),
            Delivery::Down { link, message, .. } => (4, link.0, prost::Message::encoded_len(&**message)),
            Delivery::Broken { link, .. } => (5, link.0, 0),
            Delivery::Hangup { link, left, .. } => (6, link.0, usize::from(*left)),
            Delivery::Ask { request, .. } => (7, request.0, 0),
            Delivery::Answer { request, .. } => (8, request.0, 0),
        };
        [kind, peer, way.replica, id, size as u64]
    }

    /// In a few words, for the story of a failed seed.
    pub(super) fn words(&self) -> String {
        let what = match self {
            Delivery::Up { message, .. } => match &message.message {
                Some(up::Message::Hello(h)) => format!("hello incarnation {} holding {}", h.incarnation, h.held.len()),
                Some(up::Message::Heartbeat(_)) => "heartbeat".to_owned(),
                Some(up::Message::Reports(r)) => {
                    let of = |r: &raftwerk_proto::v1::Report| {
                        let lease = raftwerk_core::LeaseId::from(r.lease.unwrap_or_default());
                        let tasks: Vec<u64> = r.results.iter().map(|t| t.first_task).collect();
                        let last = if r.final_report { " last" } else { "" };
                        format!("#{} of {lease}: {tasks:?} failed {}{last}", r.sequence, r.failures.len())
                    };
                    format!("reports {}", r.reports.iter().map(of).collect::<Vec<_>>().join("; "))
                }
                Some(other) => format!("{other:?}"),
                None => "nothing".to_owned(),
            },
            Delivery::Down { message, .. } => match &message.message {
                Some(down::Message::HeartbeatAck(_)) => "heartbeat ack".to_owned(),
                Some(down::Message::Grants(g)) => {
                    let of = |g: &raftwerk_proto::v1::Grant| {
                        let lease = raftwerk_core::LeaseId::from(g.lease.unwrap_or_default());
                        format!("{lease}: job {} stage {} {}+{}", g.job, g.stage, g.first_task, g.task_count)
                    };
                    format!("grants {}", g.grants.iter().map(of).collect::<Vec<_>>().join("; "))
                }
                Some(down::Message::Publish(p)) => format!("publish job {}", p.job),
                Some(other) => format!("{other:?}"),
                None => "nothing".to_owned(),
            },
            Delivery::Dial { .. } => "dial".to_owned(),
            Delivery::Accepted { .. } => "accepted".to_owned(),
            Delivery::Broken { .. } => "broken".to_owned(),
            Delivery::Hangup { left: true, .. } => "farewell".to_owned(),
            Delivery::Hangup { left: false, .. } => "hang-up".to_owned(),
            Delivery::Ask { ask, .. } => format!("{ask:?}"),
            Delivery::Answer { answer, .. } => format!("{answer:?}"),
        };
        let way = self.way();
        let arrow = if way.up { "->" } else { "<-" };
        format!("{:?} {arrow} replica {}: {what}", way.peer, way.replica)
    }
}

#[derive(Default)]
pub(super) struct Wire {
    under_way: BTreeMap<(u64, u64), Delivery>,
    last: BTreeMap<(u64, bool), u64>,
    sent: u64,
    /// Messages on these ways wait, as TCP keeps sending again.
    cut: BTreeSet<Way>,
    waiting: Vec<Delivery>,
    /// Added to every message's time, at random.
    pub(super) slow_ms: u64,
}

impl Wire {
    pub(super) fn send(&mut self, now: u64, dice: &mut Dice, delivery: Delivery) {
        let mut at = now + 1 + dice.below(4 + self.slow_ms);
        if let Some(lane) = delivery.lane() {
            let last = self.last.entry(lane).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.sent += 1;
        self.under_way.insert((at, self.sent), delivery);
    }

    /// Comes before anything that is still under way.
    pub(super) fn send_now(&mut self, now: u64, delivery: Delivery) {
        self.sent += 1;
        self.under_way.insert((now, self.sent), delivery);
    }

    pub(super) fn cut(&mut self, way: Way) {
        self.cut.insert(way);
    }

    pub(super) fn mend(&mut self, now: u64, way: Way) {
        if !self.cut.remove(&way) {
            return;
        }
        let (mended, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(|d| d.way() == way);
        self.waiting = waiting;
        mended.into_iter().for_each(|d| self.send_now(now, d));
    }

    pub(super) fn mend_all(&mut self, now: u64) {
        let ways: Vec<Way> = self.cut.iter().copied().collect();
        ways.into_iter().for_each(|way| self.mend(now, way));
        self.slow_ms = 0;
    }

    pub(super) fn is_cut(&self, way: Way) -> bool {
        self.cut.contains(&way)
    }

    /// The next message that has arrived by now.
    pub(super) fn next(&mut self, now: u64) -> Option<Delivery> {
        loop {
            let (&(at, number), _) = self.under_way.first_key_value()?;
            if at > now {
                return None;
            }
            let delivery = self.under_way.remove(&(at, number))?;
            if !self.cut.contains(&delivery.way()) {
                return Some(delivery);
            }
            // Nobody waits for a stream to stand for longer than his patience.
            if let Delivery::Dial { agent, replica, link } = delivery {
                self.under_way.insert((now + 2000, number), Delivery::Broken { agent, replica, link });
            } else {
                self.waiting.push(delivery);
            }
        }
    }

    pub(super) fn next_at(&self) -> u64 {
        self.under_way.first_key_value().map_or(u64::MAX, |((at, _), _)| *at)
    }
}
