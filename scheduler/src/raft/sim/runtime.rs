//! openraft's simulated runtime, with tasks in groups that can be stopped.
//!
//! A group is a process: every task that a task of it spawns belongs to it. A stopped group runs nothing, as after SIGSTOP: its clock goes
//! on, its timers run out, what is sent to it piles up, and all of that hits it at once when it wakes.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use openraft::OptionalSend;
use openraft::type_config::AsyncRuntime;
use openraft_rt_sim::SimRuntime as Inner;

thread_local! {
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Stopped {
    stopped: bool,
    waiting: Vec<Waker>,
}

/// Tasks that stop and go on together.
#[derive(Clone, Default)]
pub struct Process(Arc<Mutex<Stopped>>);

impl Process {
    fn lock(&self) -> MutexGuard<'_, Stopped> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn stop(&self) {
        self.lock().stopped = true;
    }

    pub fn go_on(&self) {
        let waiting = {
            let mut state = self.lock();
            state.stopped = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Runs `future` as a part of this process.
    pub fn run<F: Future>(&self, future: F) -> InProcess<F> {
        InProcess { process: Some(self.clone()), future: Box::pin(future) }
    }
}

/// A future that does not move while its process is stopped.
pub struct InProcess<F> {
    process: Option<Process>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for InProcess<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(process) = self.process.clone() else { return self.future.as_mut().poll(context) };
        {
            let mut state = process.lock();
            if state.stopped {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let outer = CURRENT.replace(Some(process));
        let polled = self.future.as_mut().poll(context);
        CURRENT.set(outer);
        polled
    }
}

/// One thread, a virtual clock, everything from one seed.
#[derive(Debug)]
pub struct SimRuntime(Inner);

impl SimRuntime {
    pub fn with_seed(seed: u64) -> Self {
        SimRuntime(Inner::with_seed(seed))
    }
}

impl AsyncRuntime for SimRuntime {
    type JoinError = <Inner as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Inner as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Inner as AsyncRuntime>::Sleep;
    type Instant = <Inner as AsyncRuntime>::Instant;
    type TimeoutError = <Inner as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Inner as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Inner as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Inner as AsyncRuntime>::Mpsc;
    type Watch = <Inner as AsyncRuntime>::Watch;
    type Oneshot = <Inner as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Inner as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let process = CURRENT.with_borrow(Clone::clone);
        Inner::spawn(InProcess { process, future: Box::pin(future) })
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Inner::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Inner::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Inner::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Inner::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Inner::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Inner::thread_rng()
    }

    fn new(threads: usize) -> Self {
        SimRuntime(Inner::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Inner::spawn_blocking(f)
    }
}
