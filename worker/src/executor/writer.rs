//! The writer thread: tells the agent what leases have made. A lease that ended is told at once, together with whatever else ended
//! while the previous write was under way; progress is told every [`PROGRESS_EVERY`].
use super::{
    Shared,
    lease::{Lease, Urgency},
};
use crate::frame;
use raftwerk_proto::v1::{FromExecutor, from_executor};
use std::{
    io::{self, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

const PROGRESS_EVERY: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Writer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    leases: Vec<Arc<Lease>>,
    urgent: bool,
    exit: Option<i32>,
}

impl Writer {
    pub(super) fn announce(&self, lease: &Arc<Lease>, urgency: Urgency) {
        if urgency == Urgency::AlreadyKnown {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wake = match urgency {
            Urgency::Now => !std::mem::replace(&mut state.urgent, true),
            _ => state.leases.is_empty() && !state.urgent,
        };
        state.leases.push(lease.clone());
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }

    /// Ends the process once everything announced is written. Does not return.
    pub(super) fn flush_and_exit(&self, status: i32) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).exit = Some(status);
        self.changed.notify_one();
        loop {
            std::thread::park();
        }
    }

    /// Waits until there is something to tell and it is time.
    fn next(&self) -> (Vec<Arc<Lease>>, Option<i32>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due: Option<Instant> = None;
        loop {
            if state.urgent || state.exit.is_some() || due.is_some_and(|due| Instant::now() >= due) {
                state.urgent = false;
                return (std::mem::take(&mut state.leases), state.exit);
            }
            state = if state.leases.is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let due = *due.get_or_insert_with(|| Instant::now() + PROGRESS_EVERY);
                let left = due.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }
}

pub(super) fn start(shared: Arc<Shared>, mut socket: UnixStream, ready: &FromExecutor) -> io::Result<()> {
    let mut buffer = Vec::new();
    frame::push(&mut buffer, ready);
    socket.write_all(&buffer)?;
    let work = move || {
        loop {
            let (leases, exit) = shared.writer.next();
            buffer.clear();
            for lease in leases {
                let progress = lease.take_pending();
                // Announced twice between two writes: the first one took it all.
                if !progress.final_report && progress.busy_ns == 0 && progress.results.is_empty() && progress.failures.is_empty() {
                    continue;
                }
                frame::push(&mut buffer, &FromExecutor { message: Some(from_executor::Message::Progress(progress)) });
            }
            if socket.write_all(&buffer).is_err() {
                std::process::exit(0); // the agent is gone
            }
            if let Some(status) = exit {
                std::process::exit(status);
            }
        }
    };
    std::thread::Builder::new().name("writer".into()).spawn(work).map(drop)
}
