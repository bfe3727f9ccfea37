//! Rounds: a map and a reduce stage that run again and again over the same input.

use std::any::Any;
use std::sync::Arc;

/// What a kernel keeps on a device from one round of a job to the next; nobody else looks into it.
pub type Kept = Arc<dyn Any + Send + Sync>;

/// What the reduce task of a round leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoundEnd {
    /// For all tasks of the next round: a few hundred kilobytes at most, since it is kept by every replica of the scheduler.
    pub state: Vec<u8>,
    /// A further round would change nothing.
    pub converged: bool,
    /// A few numbers of this round for a person, name and text each.
    pub measures: Vec<(String, String)>,
}
