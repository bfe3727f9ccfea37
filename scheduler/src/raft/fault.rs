//! The reason why a replica stopped.
//!
//! openraft reports that storage failed; the layer that met the failure knows which file and what to do. It says so here first, and the
//! first word is kept, because what fails later is a consequence.

use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};

#[derive(Clone, Default)]
pub(super) struct Fault(Arc<OnceLock<String>>);

impl Fault {
    /// Records `error` with its whole chain of causes and returns it in the form openraft wants.
    pub(super) fn raise_io(&self, error: impl Error) -> io::Error {
        let text = chain(&error);
        let _ = self.0.set(text.clone());
        io::Error::other(text)
    }

    pub(super) fn first(&self) -> Option<String> {
        self.0.get().cloned()
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
