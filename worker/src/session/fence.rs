//! Until when a worker may go on with its leases if no leader answers it.
//!
//! The leader counts from when it hears a worker; the worker counts from when it sent what the leader has answered. That was before, whatever
//! the network did to message and answer, so a worker has stopped by itself when its leader gives its tasks to others. (Gray and Cheriton, "Leases",
//! 1989: the holder's term begins no later than the grantor's.)

use std::collections::VecDeque;

/// Heartbeats whose answer may still come. A session with more of them unanswered has long been given up.
const UNANSWERED: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Fence {
    from_ms: u64,
    ttl_ms: u64,
    /// Number of a heartbeat and when it was sent.
    asked: VecDeque<(u64, u64)>,
}

impl Fence {
    /// A leader has answered the hello that was sent then.
    pub(super) fn welcomed(&mut self, hello_ms: u64, ttl_ms: u64) {
        self.from_ms = self.from_ms.max(hello_ms);
        self.ttl_ms = ttl_ms;
        self.asked.clear();
    }

    pub(super) fn asks(&mut self, sequence: u64, now_ms: u64) {
        if self.asked.len() == UNANSWERED {
            self.asked.pop_front();
        }
        self.asked.push_back((sequence, now_ms));
    }

    pub(super) fn answered(&mut self, sequence: u64) {
        while let Some((asked, sent_ms)) = self.asked.pop_front_if(|(asked, _)| *asked <= sequence) {
            if asked == sequence {
                self.from_ms = self.from_ms.max(sent_ms);
            }
        }
    }

    pub(super) fn falls_at(&self) -> u64 {
        self.from_ms + self.ttl_ms
    }
}
