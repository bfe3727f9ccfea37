//! What the leader loop has to know of the cluster's members: where they are, and which format of entries all of them read.

use crate::edge::Shared;
use crate::leader::Input;
use crate::machine::Replicated;
use crate::raft::StateMachine;
use raftwerk_core::apply::UNMARKED_FORMAT;
use raftwerk_proto::Window;

/// Ticks of the leader loop between two looks: members change seldom, and nobody waits for it.
const TICKS: u32 = 5;
/// First protocol whose workers are told addresses.
const ADDRESSES_TOLD: u32 = 2;

pub(crate) struct Members {
    schedulers: Vec<String>,
    format: u32,
    ticks: u32,
}

impl Members {
    pub(crate) fn look(shared: &Shared) -> Members {
        Members { schedulers: schedulers(shared), format: shared.replica.agree_on_format(UNMARKED_FORMAT), ticks: 0 }
    }

    pub(crate) fn schedulers(&self) -> Vec<String> {
        self.schedulers.clone()
    }

    pub(crate) fn format(&self) -> u32 {
        self.format
    }

    /// What has changed since the last look. Call it on every tick.
    pub(crate) fn news(&mut self, shared: &Shared) -> Vec<Input> {
        self.ticks += 1;
        if !self.ticks.is_multiple_of(TICKS) {
            return Vec::new();
        }
        let mut news = Vec::new();
        let schedulers = schedulers(shared);
        if schedulers != self.schedulers {
            self.schedulers.clone_from(&schedulers);
            news.push(Input::Schedulers(schedulers));
        }
        if self.format < Replicated::reads() {
            let format = shared.replica.agree_on_format(UNMARKED_FORMAT);
            if format > self.format {
                // A leader learns it anew; for the cluster it is news when no such entry was written yet.
                if format > shared.replica.log_format() {
                    tracing::info!(format, "every replica reads entries of this format; they are written from now on");
                }
                self.format = format;
                news.push(Input::Format(format));
            }
        }
        news
    }
}

fn schedulers(shared: &Shared) -> Vec<String> {
    if Window::own().newest < ADDRESSES_TOLD {
        return Vec::new();
    }
    shared.replica.status().members.into_iter().map(|member| member.address).filter(|address| !address.is_empty()).collect()
}
