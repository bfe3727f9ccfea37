//! Tasks of the run-time, their futures on the heap.
//!
//! `tokio::spawn` is generic over the future: each call compiles the run-time's state machine of a task (poll, cancel, shut down, join) once more,
//! for every one of some hundred places. Behind a pointer there is one machine for each type of outcome, at the price of one allocation a task;
//! tokio itself moves large futures to the heap in the same way.

use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinHandle;

/// As [`tokio::spawn`], compiled once for each type of outcome.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
    tokio::spawn(future)
}

/// As [`tokio::task::spawn_blocking`], compiled once for each type of outcome.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let work: Box<dyn FnOnce() -> T + Send> = Box::new(work);
    tokio::task::spawn_blocking(work)
}
