//! Handshakes take turns with everything else.
//!
//! When a leader dies, thousands of workers come to its successor in the same second, and a TLS handshake costs a good half millisecond of CPU. The
//! runtime would work through all that are ready before it looks at a Raft heartbeat again: the new leader would lose its place over
//! them. So only a few steps of handshakes are made in one turn of the runtime's queue.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// Steps in one turn: a few milliseconds of CPU at most.
const STEPS_PER_TURN: usize = 8;

#[derive(Clone, Default)]
pub(crate) struct Pacer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    turn: Mutex<Turn>,
    wanted: Notify,
}

#[derive(Default)]
struct Turn {
    steps_left: usize,
    waiting: VecDeque<Waker>,
}

impl Pacer {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.turn.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Begins turn after turn while somebody waits for one. Runs for as long as handshakes are to go on.
    pub(crate) async fn run(self) {
        loop {
            let next: Vec<Waker> = {
                let mut turn = self.turn();
                turn.steps_left = STEPS_PER_TURN;
                let count = turn.waiting.len().min(STEPS_PER_TURN);
                turn.waiting.drain(..count).collect()
            };
            if next.is_empty() {
                self.0.wanted.notified().await;
            }
            next.into_iter().for_each(Waker::wake);
            // Everything else that is ready comes first.
            tokio::task::yield_now().await;
        }
    }

    /// The same future, whose every step waits for its turn.
    pub(crate) async fn pace<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| self.step(future.as_mut(), cx)).await
    }

    fn step<F: Future>(&self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        {
            let mut turn = self.turn();
            if turn.steps_left == 0 {
                turn.waiting.push_back(cx.waker().clone());
                self.0.wanted.notify_one();
                return Poll::Pending;
            }
            turn.steps_left -= 1;
        }
        future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[tokio::test]
    async fn other_tasks_get_their_turn_between_a_few_steps_and_everything_ends() {
        let pacer = Pacer::default();
        let turns = tokio::spawn(pacer.clone().run());
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..1_000 {
            let (pacer, done) = (pacer.clone(), done.clone());
            tokio::spawn(async move {
                // Two steps each: one that gives way, one that ends.
                pacer.pace(tokio::task::yield_now()).await;
                done.fetch_add(1, Relaxed);
            });
        }
        let (mut seen, mut looks) = (0, 0);
        while seen < 1_000 {
            tokio::task::yield_now().await;
            let now = done.load(Relaxed);
            assert!(now - seen <= 2 * STEPS_PER_TURN, "{} handshakes ended between two turns of another task", now - seen);
            (seen, looks) = (now, looks + 1);
            assert!(looks < 100_000, "only {seen} ended");
        }
        turns.abort();
    }
}
