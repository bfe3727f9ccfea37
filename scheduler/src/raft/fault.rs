//! The reason why a replica stopped.
//!
//! openraft reports that storage failed; the layer that met the failure knows which file and what to do. It says so here first, and the
//! first word is kept, because what fails later is a consequence.

use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Inner>);

#[derive(Default)]
struct Inner {
    first: OnceLock<String>,
    raised: Notify,
}

impl Fault {
    /// Records `error` with its whole chain of causes and returns it in the form openraft wants.
    pub(super) fn raise_io(&self, error: impl Error) -> io::Error {
        let text = chain(&error);
        self.raise(text.clone());
        io::Error::other(text)
    }

    pub(super) fn raise(&self, text: String) {
        let _ = self.0.first.set(text);
        self.0.raised.notify_waiters();
    }

    pub(super) fn first(&self) -> Option<String> {
        self.0.first.get().cloned()
    }

    /// Returns the first word once there is one.
    pub(super) async fn wait(&self) -> String {
        loop {
            let mut raised = std::pin::pin!(self.0.raised.notified());
            raised.as_mut().enable(); // before the look, or a word in between would be missed
            if let Some(first) = self.first() {
                return first;
            }
            raised.await;
        }
    }
}

/// The error and its causes, outermost first.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
