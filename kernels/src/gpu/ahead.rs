//! Runs under way: the device computes one while the host makes the next and takes what others have brought.

use std::collections::VecDeque;

use super::Running;
use crate::api::KernelError;

/// Keeps some runs on the device and gives their results to `take` in the order in which they came.
pub(crate) struct Ahead<'g, T, F> {
    most: usize,
    running: VecDeque<(T, Running<'g>)>,
    take: F,
}

impl<'g, T, F: FnMut(T, Vec<u32>)> Ahead<'g, T, F> {
    /// `most` runs stay on the device while another is made.
    pub(crate) fn new(most: usize, take: F) -> Ahead<'g, T, F> {
        Ahead { most, running: VecDeque::new(), take }
    }

    /// `what` is the result's, for whoever takes it.
    pub(crate) fn push(&mut self, what: T, run: Running<'g>) -> Result<(), KernelError> {
        self.running.push_back((what, run));
        if self.running.len() > self.most { self.take_first() } else { Ok(()) }
    }

    /// Waits for all that are left.
    pub(crate) fn finish(mut self) -> Result<(), KernelError> {
        while !self.running.is_empty() {
            self.take_first()?;
        }
        Ok(())
    }

    fn take_first(&mut self) -> Result<(), KernelError> {
        if let Some((what, run)) = self.running.pop_front() {
            (self.take)(what, run.finish()?);
        }
        Ok(())
    }
}
